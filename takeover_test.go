// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slow draws for as long as it takes, and counts how often it was asked.
type slow struct {
	takes time.Duration
	asked int
}

func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked++
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-time.After(s.takes):
	case <-r.Context().Done():
		return nil, context.Cause(r.Context())
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {jsonContentType}},
		Body: io.NopCloser(strings.NewReader(okImage)), ContentLength: int64(len(okImage)),
	}, nil
}

// An image that takes more than half of its time is not given up for an upstream that
// could not take the call.
func TestNobodyTakesOver(t *testing.T) {
	const searches = `{"contents":[{"parts":[{"text":"a cat"}]}],"tools":[{"googleSearch":{}}]}`
	for name, c := range map[string]struct {
		body    string
		prepare func(j *journey, b *upstream)
		want    string // status, and how often each was asked
	}{
		"somebody":       {prompt, func(*journey, *upstream) {}, "200 1 1"},
		"full":           {prompt, fillDay, "200 1 0"},
		"out of retries": {prompt, func(j *journey, _ *upstream) { j.budget = newRetryBudget(0, 0) }, "200 1 0"},
		"no words":       {searches, func(_ *journey, b *upstream) { b.format, b.imagesByChat = formatOpenAI, true }, "200 1 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := &upstream{name: "a"}, &upstream{name: "b", models: []ModelRule{{Match: "*", Model: "other-image"}}}
				j := newJourney(t, Options{RateLimits: []RateLimit{{Match: "other-image", RPD: 1}}}, a, b)
				atA, atB := &slow{takes: 100 * time.Second}, &slow{takes: time.Second}
				a.transport, b.transport, j.now, j.sleep = atA, atB, time.Now, sleep
				c.prepare(j, b)
				status, body, _ := j.call(c.body)
				if got := fmt.Sprint(status, " ", atA.asked, " ", atB.asked); got != c.want {
					t.Errorf("%s, want %s: %s", got, c.want, body)
				}
			})
		})
	}
}

// fillDay uses up what the client may ask of b in a day.
func fillDay(j *journey, _ *upstream) {
	now, one := time.Now(), demand{limitRPD: 1}
	j.state.gates.at(gateID{scope: "client-" + keyID("client-key") + "@b\nother-image"}, gateName{}, now).admit(&one, &bounds{most: one}, now)
}

// An upstream that is well again comes back, also where the time of its clients is short
// for what it usually takes; and no client loses its answer by finding that out.
func TestCanariesHaveTime(t *testing.T) {
	for name, c := range map[string]struct {
		timeout     string
		usual, a, b time.Duration // what a used to take, and what they take
		isBack      bool
	}{
		"time enough":           {"180", 35 * time.Second, 35 * time.Second, time.Second, true},
		"little time":           {"60", 35 * time.Second, 35 * time.Second, time.Second, true},
		"very little time":      {"40", 35 * time.Second, 35 * time.Second, time.Second, true},
		"too little for both":   {"40", 35 * time.Second, 35 * time.Second, 19 * time.Second, false},
		"hangs":                 {"60", 40 * time.Second, time.Hour, 19 * time.Second, false},
		"was slow, is no more":  {"60", 50 * time.Second, 5 * time.Second, 19 * time.Second, true},
		"has become much worse": {"180", 5 * time.Second, time.Hour, 19 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := &upstream{name: "a"}, &upstream{name: "b"}
				j := newJourney(t, Options{}, a, b)
				atA := &slow{takes: c.a}
				a.transport, b.transport, j.now, j.sleep = atA, &slow{takes: c.b}, time.Now, sleep
				a.health.demoted, a.health.downSince, a.health.latency, b.health.latency = true, time.Now(), c.usual, c.b
				for range 40 {
					time.Sleep(time.Minute)
					if status, body, _ := j.call(prompt, within(c.timeout)); status != http.StatusOK {
						t.Fatalf("%d %s", status, body)
					}
				}
				if a.health.demoted == c.isBack || atA.asked == 0 {
					t.Errorf("demoted %t, asked %d times", a.health.demoted, atA.asked)
				}
			})
		})
	}
}

// Who hangs for minutes is to blame, also where no other may take over.
func TestHangingWithoutRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &upstream{name: "a"}, &upstream{name: "b"}
		j := newJourney(t, Options{}, a, b)
		atB := &slow{takes: time.Second}
		a.transport, b.transport, j.now, j.sleep = &slow{takes: time.Hour}, atB, time.Now, sleep
		j.budget = newRetryBudget(0, 0)
		for range 30 {
			j.call(prompt, within("170"))
		}
		if !a.health.demoted || atB.asked == 0 {
			t.Errorf("demoted %t, b asked %d times", a.health.demoted, atB.asked)
		}
	})
}

// Whatever an upstream says of when to come again, a call ends with its deadline.
func TestAbsurdDelays(t *testing.T) {
	for _, after := range []string{"9223372036", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		j := newJourney(t, Options{}, &upstream{name: "a"})
		well := image
		well.takes = 4 * time.Second // makes the upstream's usual time known
		j.plays["a"] = []scene{well, {status: http.StatusServiceUnavailable, header: http.Header{"Retry-After": {after}}}, image}
		j.story(prompt)
		began := j.clock
		if got := j.story(prompt); got != "a@0s = 503" || j.clock != began {
			t.Errorf("Retry-After %s: %s in %v", after, got, j.clock.Sub(began))
		}
	}
}

// A limit of the day that has just ended closes nothing for longer than the new one.
func TestAbsurdDelayAtMidnight(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"})
	j.clock = time.Date(2026, 11, 21, 0, 1, 0, 0, pacific)
	s := problem(429, "RESOURCE_EXHAUSTED", "Slow down.", quota("GenerateRequestsPerDayPerProject"))
	s.header = http.Header{"Retry-After": {"99999999999"}}
	j.plays["a"] = []scene{s, image}
	j.story(prompt)
	j.clock = time.Date(2026, 11, 22, 0, 1, 0, 0, pacific)
	if got, want := j.story(prompt), "a@0s = 200"; got != want {
		t.Errorf("a day later: %s, want %s", got, want)
	}
}

// spend uses up an upstream's budget of one dollar.
func (j *journey) spend(upstream string) {
	j.state.ledger.book(j.state.calendar.day(j.clock), booking{ledgerKey: ledgerKey{Upstream: upstream}, cost: usdOf(1)})
}

// What an upstream may cost in a day is its own affair: calls to another of the same
// project do not stand in line behind those that wait for its midnight.
func TestBudgetHoldsUpNobodyElse(t *testing.T) {
	o := under(RateLimit{RPM: 100}, 5)
	a := &upstream{name: "a", budget: 1, keys: []*apiKey{newAPIKey("k1", "P", "a")}}
	b := &upstream{name: "b", keys: []*apiKey{newAPIKey("k2", "P", "b")}}
	one, two := newJourney(t, o, a), newJourney(t, o, b)
	one.clock = time.Date(2026, 11, 21, 23, 58, 0, 0, pacific)
	two.clock, two.state, one.router.state = one.clock, one.state, one.state
	one.spend("a")
	one.sleep = func(_ context.Context, d time.Duration, _ <-chan struct{}) error {
		if got, want := two.story(prompt), "b@0s = 200"; got != want {
			t.Errorf("meanwhile %s, want %s", got, want)
		}
		one.clock = one.clock.Add(d)
		return nil
	}
	if got, want := one.story(prompt), "a@2m0s = 200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Where nothing has room, a client hears of what will have room first, even if that is
// not the upstream that it should go to.
func TestRefusalNamesTheShortestWait(t *testing.T) {
	o := under(RateLimit{RPM: 1}, 5)
	a := &upstream{name: "a", budget: 1, keys: []*apiKey{newAPIKey("k1", "P", "a")}}
	b := &upstream{name: "b", keys: []*apiKey{newAPIKey("k2", "Q", "b")}}
	j := newJourney(t, o, a, b)
	j.spend("a")
	b.health.demoted, b.health.downSince = true, j.clock
	if got, want := j.story(prompt), "b@0s = 200"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	status, body, _ := j.call(prompt)
	if status != http.StatusTooManyRequests || !strings.Contains(body, `"retryDelay":"60s"`) {
		t.Errorf("%d %s", status, body)
	}
}

// A client whose late body has been interrupted may still be there for its answer, but
// nobody notices any more when it leaves.
func TestAnswerBehindALateBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for failure, want := range map[error]time.Duration{nil: 0, errLate: patience} {
			parent, leave := context.WithCancel(t.Context())
			x := &exchange{ctx: parent, body: &requestBody{failure: failure}}
			ctx, cancel := x.whileWanted(parent)
			began := time.Now()
			leave()
			<-ctx.Done()
			if got := time.Since(began); got != want {
				t.Errorf("%v: ended after %v, want %v", failure, got, want)
			}
			cancel(nil)
		}
	})
}
