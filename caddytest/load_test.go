// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd is how many calls are made at the same time.
const crowd = 200

// The answer to a call is made of what its prompt says, so that no client takes
// that of another for its own.
var order = regexp.MustCompile(`picture number (\d+)`)

func orderJSON(id int) string {
	return fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":"picture number %d"}]}]}`, id)
}

// deliveryJSON is a picture of some 40 KB.
func deliveryJSON(id string) string {
	data := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("picture "+id+" ", 2500)))
	return candidate(`{"inlineData":{"mimeType":"image/png","data":"`+data+`"}}`, `"STOP"`)
}

// studio is an upstream that draws what it is asked for, unless it is the turn
// of a fault. Chance is a hash of the call and of how often it has been made, so
// that every run has the same faults in another order.
type studio struct {
	percent uint32 // of the calls that fail
	faults  []http.HandlerFunc

	// If isFull, no call is answered before all have arrived: the budget of
	// retries grows with them.
	isFull  bool
	missing sync.WaitGroup

	mu    sync.Mutex
	calls map[string]int
}

func newStudio(t *testing.T, percent uint32, faults ...http.HandlerFunc) (*studio, *upstream) {
	t.Helper()
	s := &studio{percent: percent, faults: faults, calls: make(map[string]int)}
	return s, scripted(t, s.serve)
}

// fill makes the upstream wait for the whole crowd.
func (s *studio) fill() {
	s.isFull = true
	s.missing.Add(crowd)
}

// dice is the fault for the n-th attempt at a call, -1 if it succeeds.
func (s *studio) dice(id string, n int) int {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s/%d", id, n)
	chance := h.Sum32() * 2654435761 >> 8
	if chance%100 >= s.percent {
		return -1
	}
	return int(chance/100) % len(s.faults)
}

func (s *studio) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	match := order.FindSubmatch(body)
	if match == nil {
		answers(400, jsonType, `{"error":{"code":400,"message":"No number.","status":"INVALID_ARGUMENT"}}`)(w, r)
		return
	}
	id := string(match[1])
	s.mu.Lock()
	s.calls[id]++
	n := s.calls[id]
	s.mu.Unlock()
	if n == 1 && s.isFull {
		s.missing.Done()
		s.missing.Wait()
	}
	if fault := s.dice(id, n); fault >= 0 {
		s.faults[fault](w, r)
		return
	}
	if strings.Contains(r.RequestURI, ":stream") {
		events(deliveryJSON(id))(w, r)
		return
	}
	answers(200, jsonType, deliveryJSON(id))(w, r)
}

// asked is how many calls have arrived in all.
func (s *studio) asked() (sum int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.calls {
		sum += n
	}
	return sum
}

var (
	otherJSON = strings.Replace(blockedJSON, "IMAGE_SAFETY", "IMAGE_OTHER", 1)

	badHour = []http.HandlerFunc{
		overloaded,
		resets(),
		resets("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + textJSON[:60]),
		answers(200, jsonType, textJSON[:60]),
	}
)

// pathOf makes every other call a stream.
func pathOf(id int) string { return []string{unaryPath, streamPath}[id%2] }

// rush makes all calls at once and returns the answers in order.
func (g *gateway) rush(t *testing.T) []*reply {
	t.Helper()
	all := make([]*reply, crowd)
	transport := newTransport(t)
	transport.MaxIdleConnsPerHost = crowd
	var group sync.WaitGroup
	for id := range all {
		r := g.newRequest(t, http.MethodPost, pathOf(id), strings.NewReader(orderJSON(id)))
		group.Go(func() {
			s, err := roundTrip(transport, r)
			if err != nil {
				t.Errorf("call %d: %v", id, err)
				return
			}
			all[id] = s
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// isDelivery tells whether a call got its own picture, all of it.
func (s *reply) isDelivery(t *testing.T, id int) bool {
	t.Helper()
	if s.StatusCode != 200 {
		return false
	}
	want := deliveryJSON(fmt.Sprint(id))
	if id%2 == 1 {
		want = event(want)
	}
	if string(s.body) != want {
		t.Errorf("call %d got %q", id, shortened(string(s.body)))
	}
	return true
}

// isLegalError fails unless an answer is one of the errors that the faults end
// in.
func (s *reply) isLegalError(t *testing.T, id int) {
	t.Helper()
	e := parseError(t, s.body)
	reason := ""
	if len(e.Details) > 0 {
		reason, _ = e.Details[0]["reason"].(string)
	}
	got := fmt.Sprintf("%d %s %s", s.StatusCode, e.Status, reason)
	switch got {
	case "503 UNAVAILABLE ", "503 UNAVAILABLE UPSTREAM_UNAVAILABLE", "400 INVALID_ARGUMENT IMAGE_OTHER":
	default:
		t.Errorf("call %d ended as %s: %s", id, got, s.body)
	}
	if e.Code != s.StatusCode {
		t.Errorf("call %d has status %d and code %d", id, s.StatusCode, e.Code)
	}
}

const loadRetry = "retry {\n\tattempts 5\n\tbackoff 20ms 200ms\n}"

// An upstream that fails half the time costs nothing where there is another.
func TestLoadOnTwoUpstreams(t *testing.T) {
	mixed := append([]http.HandlerFunc{answers(200, jsonType, otherJSON)}, badHour...)
	bad, first := newStudio(t, 50, mixed...)
	good, second := newStudio(t, 0)
	g := run(t, gemini(inOrder("", first, second), loadRetry))
	for id, s := range g.rush(t) {
		if !s.isDelivery(t, id) {
			t.Errorf("call %d ended with %d: %s", id, s.StatusCode, s.body)
		}
	}
	if bad.asked() > crowd {
		t.Errorf("the upstream that fails was asked %d times", bad.asked())
	}
	if sum := bad.asked() + good.asked(); sum < crowd || sum > crowd*2 {
		t.Errorf("%d calls took %d attempts", crowd, sum)
	}
}

// The same with two that fail: an error is told as it is.
func TestLoadOnTwoBadUpstreams(t *testing.T) {
	mixed := append([]http.HandlerFunc{answers(200, jsonType, otherJSON)}, badHour...)
	_, first := newStudio(t, 50, mixed...)
	_, second := newStudio(t, 60, mixed...)
	g := run(t, gemini(inOrder("", first, second), loadRetry))
	delivered := 0
	for id, s := range g.rush(t) {
		if s.isDelivery(t, id) {
			delivered++
			continue
		}
		s.isLegalError(t, id)
	}
	if delivered < crowd/2 {
		t.Errorf("%d of %d calls succeeded", delivered, crowd)
	}
}

// The failures of a bad hour are retried away within the budget: with five
// attempts, two calls in a hundred fail five times.
func TestLoadOnALoneUpstream(t *testing.T) {
	bad, u := newStudio(t, 45, badHour...)
	bad.fill()
	failing, attempts := 0, 0
	for id := range crowd {
		n := 1
		for n < 5 && bad.dice(fmt.Sprint(id), n) >= 0 {
			n++
		}
		attempts += n
		if bad.dice(fmt.Sprint(id), n) >= 0 {
			failing++
		}
	}
	if failing == 0 || failing > crowd*4/100 || attempts > crowd*19/10 {
		t.Fatalf("of these calls %d fail with %d attempts: not what is to be tested", failing, attempts)
	}
	g := run(t, gemini(inOrder("", u), loadRetry))
	failed := 0
	for id, s := range g.rush(t) {
		if !s.isDelivery(t, id) {
			s.isLegalError(t, id)
			failed++
		}
	}
	if failed != failing {
		t.Errorf("%d of %d calls failed, and %d had to", failed, crowd, failing)
	}
	if bad.asked() != attempts {
		t.Errorf("%d attempts, want %d", bad.asked(), attempts)
	}
}

// In an outage the budget bounds what retries add: as many as calls.
func TestLoadInAnOutage(t *testing.T) {
	dead, u := newStudio(t, 100, badHour...)
	dead.fill()
	g := run(t, gemini(inOrder("", u), loadRetry))
	for id, s := range g.rush(t) {
		s.isLegalError(t, id)
	}
	if n := dead.asked(); n != 2*crowd {
		t.Errorf("%d calls became %d attempts, want %d", crowd, n, 2*crowd)
	}
}

// Clients that leave, whenever they do, take nothing from those that stay: no
// health, no goroutine, no place.
func TestLoadOfClientsThatLeave(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(10 * time.Millisecond)
		send(w, textJSON[:60])
		time.Sleep(10 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}
	_, u := newStudio(t, 40, slow, overloaded)
	g := run(t, "metrics /metrics\n"+gemini(inOrder("", u), loadRetry))
	g.post(t, unaryPath, orderJSON(crowd)) // opens what stays open
	settled := runtime.NumGoroutine()
	transport := newTransport(t)
	var group sync.WaitGroup
	for id := range crowd {
		ctx, leave := context.WithTimeout(t.Context(), time.Duration(id%120)*time.Millisecond)
		r := g.newRequest(t, http.MethodPost, pathOf(id), strings.NewReader(orderJSON(id))).WithContext(ctx)
		group.Go(func() {
			defer leave()
			if s, err := roundTrip(transport, r); err == nil && s.StatusCode == 200 {
				s.isDelivery(t, id)
			}
		})
	}
	group.Wait()
	transport.CloseIdleConnections()
	eventually(t, "the goroutines of all calls end", func() bool {
		u.CloseClientConnections()
		return runtime.NumGoroutine() <= settled
	})
}

// A client that leaves says nothing about the upstream.
func TestClientsThatLeaveDoNotDemote(t *testing.T) {
	first, second := scripted(t, hangs()), scripted(t, drawn)
	g := runWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
	transport := newTransport(t)
	for n := range 12 {
		ctx, leave := context.WithCancel(t.Context())
		r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON)).WithContext(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if s, err := roundTrip(transport, r); err == nil {
				t.Errorf("the client got %d", s.StatusCode)
			}
		}()
		eventually(t, "the call arrives", func() bool { return len(first.received()) == n+1 })
		leave()
		wait(t, "the client has left", ended)
	}
	second.untouched(t)
	first.play(drawn)
	g.draws(t, 1)
	asks(t, "1 0", first, second)
	if healthy, success := g.gauges(t, "first"); healthy != 1 || success != 1 {
		t.Errorf("healthy %v, success %v", healthy, success)
	}
}
