// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// tracked is a transport that counts its connections, and the answers that
// nobody has closed yet.
type tracked struct {
	http.Transport
	dials, open atomic.Int32
}

func newTracked() *tracked {
	t := new(tracked)
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		t.dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return t
}

func (t *tracked) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.Transport.RoundTrip(r)
	if err == nil {
		t.open.Add(1)
		res.Body = &trackedBody{ReadCloser: res.Body, open: &t.open}
	}
	return res, err
}

type trackedBody struct {
	io.ReadCloser
	open   *atomic.Int32
	closed atomic.Bool
}

func (b *trackedBody) Close() error {
	if !b.closed.Swap(true) {
		b.open.Add(-1)
	}
	return b.ReadCloser.Close()
}

// tour is a handler without Caddy before scripted upstreams.
type tour struct {
	*Handler
	transport *tracked
	servers   []*upstreamLog
}

func newTour(t *testing.T, scripts ...http.HandlerFunc) *tour {
	t.Helper()
	transport := newTracked()
	h := &tour{Handler: handlerOver(t, transport), transport: transport}
	r := h.gateway.router
	r.upstreams = nil
	for i, script := range scripts {
		server := scripted(t, script)
		h.servers = append(h.servers, server)
		u := upstreamAt(t, server.URL, transport)
		u.name = fmt.Sprintf("upstream-%d", i+1)
		r.upstreams = append(r.upstreams, u)
	}
	r.retry.attempts = 3
	r.pacing = pacing{initial: time.Millisecond, max: time.Millisecond}
	r.pacing.random = func() float64 { return 0 }
	return h
}

// leavesNothing runs something and looks for what it has left behind.
func (h *tour) leavesNothing(t *testing.T, run func()) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	run()
	if n := h.transport.open.Load(); n != 0 {
		t.Errorf("%d answers have not been closed", n)
	}
	h.transport.CloseIdleConnections()
	nothingRuns(t, before)
}

// nothingRuns waits for goroutines to end. goleak's own patience is less than half a
// second, which connections need on a busy machine.
func nothingRuns(t *testing.T, before goleak.Option) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if err = goleak.Find(before); err == nil {
			return
		}
	}
	t.Error(err)
}

// serve answers a request as a server does, to which a broken answer is a panic.
func (h *tour) serve(t *testing.T, w http.ResponseWriter, r *http.Request) (broken bool) {
	t.Helper()
	defer func() {
		switch e := recover(); e {
		case nil:
		case http.ErrAbortHandler:
			broken = true
		default:
			panic(e)
		}
	}()
	if err := h.ServeHTTP(w, r, nil); err != nil {
		t.Errorf("the handler has failed: %v", err)
	}
	return false
}

// asked are how many calls each upstream has received.
func (h *tour) asked() string {
	var counts []string
	for _, server := range h.servers {
		counts = append(counts, fmt.Sprint(len(server.seen())))
	}
	return strings.Join(counts, " ")
}

// inTurn plays one script after the other, and the last one from then on.
func playsInTurn(scripts ...http.HandlerFunc) http.HandlerFunc {
	var calls atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		scripts[min(n, len(scripts))-1](w, r)
	}
}

// begins answers with the beginning of a body and ends with the connection.
func playsBeginning(status int, contentType, piece string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, piece)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// The upstreams of these tests.
const (
	overloadJSON = `{"error":{"code":503,"status":"UNAVAILABLE","message":"overloaded"}}`
	otherJSON    = `{"candidates":[{"content":{},"finishReason":"IMAGE_OTHER"}]}`
	halfText     = `{"candidates":[{"content":{"parts":[{"text":"half`
	jsonMedia    = "application/json"
)

var (
	playsImage    = answerWith(200, jsonMedia, okImage)
	playsOverload = answerWith(503, jsonMedia, overloadJSON)
	// What is longer than any error that is read to understand it.
	longErrorJSON  = strings.Replace(overloadJSON, "overloaded", strings.Repeat("overloaded ", 50_000), 1)
	playsLongError = answerWith(503, jsonMedia, longErrorJSON)

	playsCutBefore = broken(func(io.Writer) {})
	playsCutInside = broken(func(w io.Writer) { fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Ty") })
	playsCutInBody = broken(func(w io.Writer) { fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"+halfText) })
	playsTruncated = answerWith(200, jsonMedia, halfText)
	playsSilence   = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	playsHalf      = playsBeginning(200, jsonMedia, halfText)
	playsHalfImage = playsBeginning(200, jsonMedia, okImage[:110])
	playsCutLate   = broken(func(w io.Writer) {
		fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"+okImage[:110])
	})
)

func TestCallsLeaveNothingBehind(t *testing.T) {
	for _, c := range []struct {
		name    string
		scripts []http.HandlerFunc
		timeout string // X-Server-Timeout
		asked   string
		status  int
		body    string // if it is not an error of this module's
		broken  bool
	}{
		{"no retry", []http.HandlerFunc{playsImage}, "", "1", 200, okImage, false},
		{"overloaded twice", []http.HandlerFunc{playsInTurn(playsOverload, playsOverload, playsImage)}, "", "3", 200, okImage, false},
		{"overloaded for good", []http.HandlerFunc{playsOverload}, "", "3", 503, overloadJSON, false},
		{"a long error", []http.HandlerFunc{playsInTurn(playsLongError, playsImage)}, "", "2", 200, okImage, false},
		{"a long error and a worse one", []http.HandlerFunc{playsLongError, playsCutBefore}, "", "2 1", 503, longErrorJSON, false},
		{"a worse one and a long error", []http.HandlerFunc{playsCutBefore, playsLongError}, "", "2 1", 503, longErrorJSON, false},
		{"rerouted", []http.HandlerFunc{playsOverload, playsImage}, "", "1 1", 200, okImage, false},
		{"cut before headers", []http.HandlerFunc{playsInTurn(playsCutBefore, playsImage)}, "", "2", 200, okImage, false},
		{"cut inside headers", []http.HandlerFunc{playsInTurn(playsCutInside, playsImage)}, "", "2", 200, okImage, false},
		{"cut inside the body", []http.HandlerFunc{playsInTurn(playsCutInBody, playsImage)}, "", "2", 200, okImage, false},
		{"cut inside the body, rerouted", []http.HandlerFunc{playsCutInBody, playsImage}, "", "1 1", 200, okImage, false},
		{"truncated", []http.HandlerFunc{playsInTurn(playsTruncated, playsImage)}, "", "2", 200, okImage, false},
		{"one block that may pass", []http.HandlerFunc{playsInTurn(answerWith(200, jsonMedia, otherJSON), playsImage)}, "", "2", 200, okImage, false},
		{"two blocks that might have passed", []http.HandlerFunc{answerWith(200, jsonMedia, otherJSON)}, "", "2", 400, "", false},
		{"silence", []http.HandlerFunc{playsSilence}, "0.5", "1", 504, "", false},
		{"half an answer", []http.HandlerFunc{playsHalf}, "0.5", "1", 504, "", false},
		{"half an error", []http.HandlerFunc{playsBeginning(503, jsonMedia, overloadJSON[:20])}, "0.5", "1", 504, "", false},
		{"an error, then silence", []http.HandlerFunc{playsOverload, playsSilence}, "0.8", "1 1", 503, overloadJSON, false},
		{"a long error, then silence", []http.HandlerFunc{playsLongError, playsSilence}, "0.8", "1 1", 503, longErrorJSON, false},
		{"cut after the commit", []http.HandlerFunc{playsCutLate, playsImage}, "", "1 0", 200, okImage[:110], true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newTour(t, c.scripts...)
			h.leavesNothing(t, func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, imagePath, strings.NewReader(prompt))
				r.Header.Set("X-Server-Timeout", c.timeout)
				w := httptest.NewRecorder()
				if isBroken := h.serve(t, w, r); isBroken != c.broken {
					t.Errorf("broken: %t", isBroken)
				}
				if w.Code != c.status || c.body != "" && w.Body.String() != c.body {
					t.Errorf("the client got %d: %.300s", w.Code, w.Body)
				}
			})
			if got := h.asked(); got != c.asked {
				t.Errorf("the upstreams were asked %s times, expected %s", got, c.asked)
			}
		})
	}
}

// An answer that is worth less than the one before it is closed as well: a block
// says more than an overload.
func TestAnswersOfLittleWorthAreClosed(t *testing.T) {
	const blocked = `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY"}]}`
	h := newTour(t, playsInTurn(answerWith(200, jsonMedia, blocked), playsLongError))
	h.gateway.router.rephrasing = &rephrasing{prefixes: []string{"A drawing: "}}
	h.leavesNothing(t, func() {
		w := httptest.NewRecorder()
		h.serve(t, w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, imagePath, strings.NewReader(prompt)))
		if w.Code != 400 || !strings.Contains(w.Body.String(), "IMAGE_SAFETY") {
			t.Errorf("the client got %d: %.300s", w.Code, w.Body)
		}
	})
	if got := h.asked(); got != "3" {
		t.Errorf("the upstream was asked %s times", got)
	}
}

// An answer that nobody gets is read to its end if that is near, because the
// connection is lost otherwise.
func TestDiscardedAnswersGiveTheirConnectionBack(t *testing.T) {
	for name, script := range map[string]http.HandlerFunc{
		"errors":                playsOverload,
		"block that may pass":   answerWith(200, jsonMedia, otherJSON),
		"an error inside a 200": answerWith(200, jsonMedia, overloadJSON),
		"an error that is not the end": func(w http.ResponseWriter, _ *http.Request) {
			for _, piece := range []string{`{"error":{"code":503}}`, strings.Repeat(" ", 10_000), strings.Repeat(" ", 10_000)} {
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
		},
		"truncated, but well sent": playsTruncated,
	} {
		t.Run(name, func(t *testing.T) {
			h := newTour(t, playsInTurn(script, playsImage))
			h.leavesNothing(t, func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, imagePath, strings.NewReader(prompt))
				h.serve(t, httptest.NewRecorder(), r)
			})
			if got := h.asked(); got != "2" {
				t.Errorf("the upstream was asked %s times", got)
			}
			if n := h.transport.dials.Load(); n != 1 {
				t.Errorf("two attempts took %d connections", n)
			}
		})
	}
}

// leaver is a client that leaves when it is told to.
type leaver struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc
}

// Write is where an answer that has begun loses its client.
func (l leaver) Write(p []byte) (int, error) {
	l.leave()
	return l.ResponseRecorder.Write(p)
}

// deserted is the body of a client that leaves while it sends it.
type deserted struct {
	io.Reader
	leave context.CancelFunc
}

func (d deserted) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		d.leave()
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// In these calls a client leaves while an upstream answers, or else in the first
// wait, at the first byte of its answer, or at the end of a body that is cut off.
func TestClientsThatLeaveTakeAllWithThem(t *testing.T) {
	type scripts []http.HandlerFunc
	halfError := playsBeginning(503, jsonMedia, overloadJSON[:20])
	large := `{"contents":["` + strings.Repeat("x", 3<<20)
	for _, c := range []struct {
		name    string
		scripts scripts
		during  int    // the answer of this upstream, counted from 1
		cutOff  string // what the client sends; empty: a whole request
		asked   string // empty: what the upstream makes of half a request comes later
		status  int
		blamed  bool // the first upstream, and with reason
	}{
		{"before the headers", scripts{playsSilence, playsImage}, 1, "", "1 0", statusClientGone, false},
		{"while an answer is held", scripts{playsHalf, playsImage}, 1, "", "1 0", statusClientGone, false},
		{"while an error is read", scripts{halfError, playsImage}, 1, "", "1 0", statusClientGone, false},
		{"in the second attempt", scripts{playsOverload, playsSilence}, 2, "", "1 1", statusClientGone, true},
		{"in the second attempt, behind a long error", scripts{playsLongError, playsSilence}, 2, "", "1 1", statusClientGone, true},
		{"during a wait", scripts{playsOverload}, 0, "", "1", statusClientGone, true},
		{"during a wait, behind a long error", scripts{playsLongError}, 0, "", "1", statusClientGone, true},
		{"while its answer is delivered", scripts{playsHalfImage, playsImage}, 0, "", "1 0", 200, false},
		{"while it sends a request", scripts{playsImage}, 0, large[:20], "0", statusClientGone, false},
		{"while it sends a large request", scripts{playsImage}, 0, large, "", statusClientGone, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			if c.during > 0 {
				script := c.scripts[c.during-1]
				c.scripts[c.during-1] = func(w http.ResponseWriter, r *http.Request) {
					time.AfterFunc(20*time.Millisecond, leave)
					script(w, r)
				}
			}
			h := newTour(t, c.scripts...)
			router := h.gateway.router
			router.pacing.initial, router.pacing.max = time.Minute, time.Minute
			router.sleep = func(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
				leave()
				return sleep(ctx, d, woken)
			}
			var body io.Reader = strings.NewReader(prompt)
			if c.cutOff != "" {
				body = deserted{strings.NewReader(c.cutOff), leave}
			}
			w := leaver{httptest.NewRecorder(), leave}
			h.leavesNothing(t, func() {
				h.serve(t, w, httptest.NewRequestWithContext(ctx, http.MethodPost, imagePath, body))
			})
			if w.Code != c.status {
				t.Errorf("status %d, expected %d: %.300s", w.Code, c.status, w.Body)
			}
			if got := h.asked(); got != c.asked && c.asked != "" {
				t.Errorf("the upstreams were asked %s times, expected %s", got, c.asked)
			}
			for i, u := range router.upstreams {
				if u.health.inFlight != 0 {
					t.Errorf("%d calls still have a place at %s", u.health.inFlight, u.name)
				}
				if success := u.health.view().success; (success < 1) != (c.blamed && i == 0) {
					t.Errorf("success of %s: %v", u.name, success)
				}
			}
		})
	}
}
