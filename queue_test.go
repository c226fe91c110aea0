// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"

	"github.com/caddyserver/caddy/v2"
)

// under is a configuration with limits for all models. Calls are tried as often
// as by default, or once if there is a queue without retries.
func under(l RateLimit, attempts int) Options {
	l.Match = "*"
	return Options{RateLimits: []RateLimit{l}, Retry: &Retry{Attempts: attempts, Jitter: new(float64)}}
}

func queueOf(d time.Duration) caddy.Duration { return caddy.Duration(d) }

func within(seconds string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-Server-Timeout", seconds) }
}

// neverSpins fails a call that goes round in circles while no time passes.
func (j *journey) neverSpins() *journey {
	asked, last := 0, j.clock
	j.now = func() time.Time {
		if asked++; !j.clock.Equal(last) {
			asked, last = 0, j.clock
		}
		if asked > 10_000 {
			j.t.Fatal("the call goes round in circles")
		}
		return j.clock
	}
	return j
}

// TestLimitsOfACall makes one call after the other, all at the same time.
func TestLimitsOfACall(t *testing.T) {
	per := func(id, value, delay string) scene {
		return problem(429, "RESOURCE_EXHAUSTED", "Slow down.",
			`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"`+id+`","quotaValue":"`+value+`"}]},`+retryIn(delay))
	}
	minute := queueOf(time.Minute)
	for _, c := range []struct {
		name     string
		limits   RateLimit
		attempts int
		plays    []scene
		timeout  string
		want     []string
	}{
		{"no queue", RateLimit{RPM: 2}, 5, nil, "", []string{"a@0s = 200", "a@0s = 200", " = 429 RATE_LIMITED"}},
		{"queue", RateLimit{RPM: 1, Queue: minute}, 5, nil, "", []string{"a@0s = 200", "a@1m0s = 200", "a@1m0s = 200"}},
		{"queue without retries", RateLimit{RPM: 1, Queue: minute}, 1, nil, "", []string{"a@0s = 200", "a@1m0s = 200"}},
		{"queue too short", RateLimit{RPM: 1, Queue: minute - 1}, 5, nil, "", []string{"a@0s = 200", " = 429 RATE_LIMITED"}},
		{"deadline", RateLimit{RPM: 1, Queue: minute}, 5, nil, "60", []string{"a@0s = 200", " = 429 RATE_LIMITED"}},
		{"spread", RateLimit{RPM: 10, Burst: 1, Queue: minute}, 5, nil, "", []string{"a@0s = 200", "a@6s = 200", "a@6s = 200"}},
		{"images", RateLimit{IPM: 1}, 5, nil, "", []string{"a@0s = 200", " = 429 RATE_LIMITED"}},
		{"a day", RateLimit{RPD: 1, Queue: minute}, 5, nil, "", []string{"a@0s = 200", " = 429 RATE_LIMITED"}},
		{
			"retries count",
			RateLimit{RPM: 3},
			5,
			[]scene{overloaded, overloaded, image},
			"",
			[]string{"a@0s a@1s a@3s = 200", " = 429 RATE_LIMITED"},
		},
		{"no room for a retry", RateLimit{RPM: 1}, 5, []scene{overloaded}, "", []string{"a@0s = 503", " = 429 RATE_LIMITED"}},
		{"a retry in the queue", RateLimit{RPM: 1, Queue: minute}, 5, []scene{overloaded, image}, "", []string{"a@0s a@1m0s = 200"}},
		{"closed by the upstream, retried", RateLimit{RPM: 9}, 2, []scene{limited}, "", []string{"a@0s a@34.5s = 429", "a@34.5s a@1m9s = 429"}},
		{"closed, beyond the deadline", RateLimit{RPM: 9}, 2, []scene{limited}, "30", []string{"a@0s = 429", " = 429 RATE_LIMITED"}},
		{"closed, no queue, no retries", RateLimit{RPM: 9}, 1, []scene{limited, image}, "", []string{"a@0s = 429", " = 429 RATE_LIMITED"}},
		{"closed, queue, no retries", RateLimit{RPM: 9, Queue: minute}, 1, []scene{limited, image}, "", []string{"a@0s = 429", "a@34.5s = 200", "a@0s = 200"}},
		{"closed for the day", RateLimit{RPM: 9}, 5, []scene{exhausted, image}, "", []string{"a@0s = 429", " = 429 RATE_LIMITED"}},
		{
			"lowered",
			RateLimit{RPM: 9},
			1,
			[]scene{per("GenerateRequestsPerMinutePerProjectPerModel", "1", "0s"), image},
			"",
			[]string{"a@0s = 429", " = 429 RATE_LIMITED"},
		},
		{
			"spread more after it was lowered",
			RateLimit{RPM: 60, Burst: 1, Queue: queueOf(3 * time.Second)},
			5,
			[]scene{per("GenerateRequestsPerMinutePerProjectPerModel", "10", "0.5s"), image},
			"",
			[]string{"a@0s = 429"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJourney(t, under(c.limits, c.attempts), &upstream{name: "a"}).neverSpins()
			j.plays["a"] = c.plays
			for i, want := range c.want {
				var options []func(*http.Request)
				if c.timeout != "" {
					options = append(options, within(c.timeout))
				}
				if got := j.story(prompt, options...); got != want {
					t.Errorf("call %d: %s, want %s", i, got, want)
				}
			}
		})
	}
}

// A gate that is full is a reason to go elsewhere; one queues where it is sooner.
func TestFullGateReroutes(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 1, Queue: queueOf(time.Minute)}, 5), &upstream{name: "a"}, &upstream{name: "b"})
	for _, want := range []string{"a@0s = 200", "b@0s = 200", "a@1m0s = 200", "b@0s = 200"} {
		if got := j.story(prompt); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A refusal is Google's own form of it, and says truly when to come again.
func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		name               string
		limits             RateLimit
		plays              []scene
		class, id, value   string
		delay, after, said string
	}{
		{"rpm", RateLimit{RPM: 1}, nil, "limited", "GenerateRequestsPerMinutePerProjectPerModel", "1", "49.5s", "50", "1 requests per minute for gemini-3-pro-image is used up. Try again in 50 seconds."},
		{"ipm", RateLimit{IPM: 1}, nil, "limited", "GenerateImagesPerMinutePerProjectPerModel", "1", "49.5s", "50", "1 images per minute"},
		{"rpd", RateLimit{RPD: 1}, nil, "exhausted", "GenerateRequestsPerDayPerProjectPerModel", "1", "43189.5s", "43190", "Try again in 43190 seconds."},
		{"upstream's", RateLimit{RPM: 9}, []scene{limited}, "limited", "GenerateRequestsPerMinutePerProjectPerModel", "", "24s", "24", "Try again in 24 seconds."},
		{"upstream's day", RateLimit{RPM: 9}, []scene{exhausted}, "exhausted", "GenerateRequestsPerDayPerProjectPerModel", "", "43189.5s", "43190", "limit for today is used up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJourney(t, under(c.limits, 1), &upstream{name: "a"})
			j.plays["a"] = c.plays
			j.story(prompt)
			j.clock = j.clock.Add(10500 * time.Millisecond)
			status, body, x := j.call(prompt)
			header := x.error(x.verdict, x.status)
			header.refusal = x.refusal
			sent := header.response(x.call.surface).Header
			info, failure := `error.details.#(@type%"*ErrorInfo").`, `error.details.#(@type%"*QuotaFailure").violations.0.`
			for path, want := range map[string]string{
				"error.code": "429", "error.status": "RESOURCE_EXHAUSTED",
				info + "reason": reasonRateLimited, info + "metadata.class": c.class, info + "metadata.upstream": "a",
				failure + "quotaId": c.id, failure + "quotaValue": c.value, failure + "quotaDimensions.model": "gemini-3-pro-image",
				`error.details.#(@type%"*RetryInfo").retryDelay`: c.delay,
			} {
				if got := gjson.Get(body, path).String(); got != want {
					t.Errorf("%s: %q, want %q", path, got, want)
				}
			}
			message := gjson.Get(body, "error.message").String()
			if !strings.HasPrefix(message, reasonRateLimited+": ") || !strings.Contains(message, c.said) {
				t.Errorf("message %q", message)
			}
			if status != 429 || sent.Get("Retry-After") != c.after || sent.Get("X-Should-Retry") != "" {
				t.Errorf("status %d, header %v", status, sent)
			}
		})
	}
	j := newJourney(t, under(RateLimit{RPM: 1}, 1), &upstream{name: "a"})
	path := func(r *http.Request) { r.URL.Path = "/v1beta/openai/chat/completions" }
	const chat = `{"model":"gemini-3-pro-image","messages":[{"role":"user","content":"a cat"}]}`
	j.story(chat, path)
	_, body, _ := j.call(chat, path)
	if e := gjson.Get(body, "error"); e.Get("type").String() != "rate_limit_error" || e.Get("code").String() != "rate_limit_exceeded" ||
		!strings.Contains(e.Get("message").String(), "Try again in 60 seconds.") {
		t.Errorf("OpenAI's form: %s", body)
	}
}

// What a call has waited for its turn is told apart.
func TestTimeInTheQueue(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 2, Queue: queueOf(time.Minute)}, 5), &upstream{name: "a"})
	j.plays["a"] = []scene{image, overloaded, image}
	j.story(prompt)
	if _, _, x := j.call(prompt); x.queued != 59*time.Second || x.waited != time.Minute {
		t.Errorf("queued %v of %v, want 59s after a backoff of a second", x.queued, x.waited)
	}
}

// gateFor is the only gate of a journey.
func (j *journey) gateFor() *gate {
	for _, g := range j.state.gates.list() {
		return g
	}
	j.t.Fatal("no gate")
	return nil
}

// A client that leaves gives its place to who stands behind.
func TestClientLeavesTheQueue(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 1, Queue: queueOf(time.Minute)}, 5), &upstream{name: "a"})
	j.story(prompt)
	ctx, leave := context.WithCancel(t.Context())
	sleep := j.sleep
	j.sleep = func(c context.Context, d time.Duration, woken <-chan struct{}) error {
		leave()
		return sleep(c, d, woken)
	}
	if got := j.story(prompt, func(r *http.Request) { *r = *r.WithContext(ctx) }); got != " = 0" {
		t.Errorf("%s, want nothing", got)
	}
	if views := j.gateFor().views(j.limits[0].bounds, j.clock); len(views) != 1 || views[0].Waiting != 0 {
		t.Errorf("%+v, want nobody waiting", views)
	}
}

// crowd is a gate with a call that waits until the clock says so, and some that
// have passed.
func (j *journey) crowd(passed, waiting demand) {
	g, b := j.gateFor(), j.limits[0].bounds
	g.admit(&passed, &b, j.clock)
	g.enter(&waiting, &b, patient(j.clock), j.clock, j.clock)
}

// A call for which there is room, behind one that needs more, is refused for what
// that one waits for.
func TestRefusalBehindALargerCall(t *testing.T) {
	j := newJourney(t, under(RateLimit{IPM: 4, Queue: queueOf(2 * time.Minute)}, 5), &upstream{name: "a"})
	j.story(prompt)
	j.crowd(demand{limitIPM: 2}, demand{limitIPM: 2})
	defer panics(t)
	status, body, _ := j.call(prompt, within("10"))
	if got := gjson.Get(body, `error.details.#(@type%"*QuotaFailure").violations.0.quotaId`).String(); status != 429 || got != "GenerateImagesPerMinutePerProjectPerModel" {
		t.Errorf("%d %s", status, body)
	}
}

// A call for which there is room waits behind one whose turn has come, but who has
// not passed yet. It does not go round in circles meanwhile.
func TestRoomBehindALateHead(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 4, Queue: queueOf(time.Minute)}, 5), &upstream{name: "a"}).neverSpins()
	j.story(prompt)
	j.crowd(demand{}, once)
	j.story(prompt, within("10"))
}

// A call that is due gives up at its deadline, even if the head of the line has
// not passed by then.
func TestDeadlineBehindALateHead(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 2, Queue: queueOf(2 * time.Minute)}, 5), &upstream{name: "a"}).neverSpins()
	j.story(prompt)
	j.story(prompt)
	j.crowd(demand{}, once)
	if got := j.story(prompt, within("100")); got != " = 429 RATE_LIMITED" && got != " = 504 DEADLINE_EXCEEDED" {
		t.Error(got)
	}
	if took := j.clock.Sub(j.began); took > 100*time.Second {
		t.Errorf("it took %v, within 100 s", took)
	}
}

// slowly lets time pass in the middle of a body.
type slowly struct {
	*strings.Reader
	pause func()
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.pause != nil && s.Len() < int(s.Size())/2 {
		s.pause()
		s.pause = nil
	}
	return s.Reader.Read(p)
}

// The time that a client takes to send its body counts as waiting, too.
func TestSlowBodyInTheQueue(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 1, Queue: queueOf(2 * time.Minute)}, 5), &upstream{name: "a"})
	j.story(prompt)
	long := `{"contents":[{"parts":[{"text":"` + strings.Repeat("a", 1<<20) + `"}]}]}`
	got := j.story(long, func(r *http.Request) {
		r.ContentLength = int64(len(long))
		r.Body = io.NopCloser(&slowly{strings.NewReader(long), func() { j.clock = j.clock.Add(30 * time.Second) }})
	})
	if want := "a@1m0s = 200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A queue is as long as the configuration says, even if the turn moves away.
func TestQueueIsNotProlonged(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 1, Queue: queueOf(70 * time.Second)}, 1), &upstream{name: "a"}).neverSpins()
	j.story(prompt)
	isFirst, began := true, j.clock
	sleep := j.sleep
	j.sleep = func(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
		if isFirst {
			isFirst = false
			j.clock = j.clock.Add(50 * time.Second)
			for id := range j.state.gates.list() { // as another call's refusal does
				j.state.cooldowns.extend(id.scope, cooldown{Class: classLimited}, j.clock.Add(60*time.Second), j.clock)
				j.state.gates.hold(id.scope, j.clock.Add(60*time.Second), j.clock)
			}
			return nil
		}
		return sleep(ctx, d, woken)
	}
	if got := j.story(prompt); got != " = 429 RATE_LIMITED" {
		t.Errorf("%s after %v, want a refusal after 50s", got, j.clock.Sub(began))
	}
}

// await stands in line as queue does. The head dawdles before it passes.
func await(ctx context.Context, g *gate, d demand, b bounds, p waitLimit, dawdle time.Duration) bool {
	now := time.Now()
	k := g.enter(&d, &b, p, now, now)
	for {
		turn := g.look(k, now)
		isDue := !turn.at.After(now)
		switch {
		case turn.isLate || !now.Before(p.deadline):
			g.leave(k)
			return false
		case isDue && turn.isNext:
			time.Sleep(dawdle)
			if g.claim(k, time.Now()) {
				return true
			}
		case isDue:
			turn.at = p.deadline
		}
		if sleep(ctx, turn.at.Sub(now), k.moved) != nil {
			g.leave(k)
			return false
		}
		now = time.Now()
	}
}

// Many wait at the same gate, some leave, some come late: all others pass in
// order, and nobody waits for what nobody takes.
func TestManyInLine(t *testing.T) {
	for _, c := range []struct {
		callers, leaveEvery int
		dawdle              time.Duration
		bounds              bounds
		within              time.Duration // all have passed
	}{
		{50, 0, 0, bounds{most: demand{limitRPM: 10}}, 4 * time.Minute},
		{50, 2, 0, bounds{most: demand{limitRPM: 10}}, 2*time.Minute + time.Second},
		{50, 3, 0, bounds{most: demand{limitRPM: 10}, burst: 1}, 33 * 6 * time.Second},
		{50, 0, 150 * time.Millisecond, bounds{most: demand{limitRPM: 600}, burst: 1}, 13 * time.Second}, // who is next comes when the one before has passed
		{1_000, 3, 0, bounds{most: demand{limitRPM: 100}, burst: 10}, 7 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			g, began := gateOf(t), time.Now()
			var mu sync.Mutex
			var order []int
			var at []time.Duration
			var wg sync.WaitGroup
			for i := range c.callers {
				ctx, leave := context.WithCancel(t.Context())
				if c.leaveEvery > 0 && i%c.leaveEvery == 1 {
					time.AfterFunc(time.Duration(i+1)*10*time.Millisecond, leave)
				}
				wg.Go(func() {
					defer leave()
					time.Sleep(time.Duration(i) * time.Millisecond)
					if await(ctx, g, once, c.bounds, patient(time.Now()), c.dawdle) {
						mu.Lock()
						defer mu.Unlock()
						order, at = append(order, i), append(at, time.Since(began))
					}
				})
			}
			wg.Wait()
			if all := c.callers - c.callers/max(c.leaveEvery, 1)*min(c.leaveEvery, 1) - 1; len(order) < all {
				t.Errorf("%+v: only %d have passed", c, len(order))
			}
			rpm := int(c.bounds.most[limitRPM])
			for i := 1; i < len(order); i++ {
				if order[i] < order[i-1] {
					t.Errorf("%+v: %d before %d", c, order[i-1], order[i])
				}
				if i >= rpm && at[i]-at[i-rpm] < window {
					t.Errorf("%+v: %d calls within %v", c, rpm+1, at[i]-at[i-rpm])
				}
			}
			if last := at[len(at)-1]; last > c.within+c.within/10 {
				t.Errorf("%+v: the last of %d passes after %v", c, len(order), last)
			}
		})
	}
}
