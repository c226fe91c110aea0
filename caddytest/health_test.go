// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

func init() {
	caddy.RegisterModule(healthEvents{})
}

// healthEvents is a handler of Caddy's events that writes those about upstreams
// to a file, a line for each.
type healthEvents struct {
	File string `json:"file"`
}

func (healthEvents) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.caddytest_health", New: func() caddy.Module { return new(healthEvents) }}
}

func (h *healthEvents) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&h.File) {
		return d.ArgErr()
	}
	return nil
}

func (h *healthEvents) Handle(_ context.Context, e caddy.Event) error {
	file, err := os.OpenFile(h.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, e.Name(), e.Data["upstream"], e.Data["reason"])
	return err
}

var (
	_ caddyevents.Handler   = (*healthEvents)(nil)
	_ caddyfile.Unmarshaler = (*healthEvents)(nil)
)

const onHealthEvents = `events {
	on gemini.upstream_demoted caddytest_health {$CADDYTEST_DIR}/events
	on gemini.upstream_restored caddytest_health {$CADDYTEST_DIR}/events
}`

// healthSite is a gateway whose first upstream gets a canary per probe while it
// is demoted.
func healthSite(probe, retry string, upstreams ...*upstream) string {
	return "metrics /metrics\n" + gemini(inOrder("probe "+probe, upstreams...), retry)
}

// Probes for which a test does not wait, and which are always over.
const (
	rarely   = "24h"
	directly = "1ns"
)

// told are the events about upstreams so far.
func (g *gateway) told(t *testing.T) string {
	t.Helper()
	return readFile(t, filepath.Join(g.dir, "events"))
}

// tells waits for events.
func (g *gateway) tells(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the event "+want, func() bool { return g.told(t) == want })
}

// draws makes calls one after the other, each of which must end well.
func (g *gateway) draws(t *testing.T, times int) {
	t.Helper()
	for range times {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
}

// gauges are what the metrics say of an upstream's health.
func (g *gateway) gauges(t *testing.T, upstream string) (healthy, success float64) {
	t.Helper()
	all := g.counters(t)
	return all[`upstream_healthy{upstream="`+upstream+`"}`], all[`upstream_success_ratio{upstream="`+upstream+`"}`]
}

// asks fails unless this is how many calls the upstreams have received since
// they were asked the last time.
func asks(t *testing.T, want string, upstreams ...*upstream) {
	t.Helper()
	var counts []string
	for _, u := range upstreams {
		u.mu.Lock()
		counts = append(counts, fmt.Sprint(len(u.requests)))
		u.requests = nil
		u.mu.Unlock()
	}
	if got := strings.Join(counts, " "); got != want {
		t.Errorf("the upstreams were asked %s times, want %s", got, want)
	}
}

// demoted starts a gateway whose first upstream has just been demoted.
func demoted(t *testing.T, first, second *upstream) *gateway {
	t.Helper()
	g := runWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
	first.play(overloaded)
	second.play(drawn)
	g.draws(t, 10)
	asks(t, "10 10", first, second)
	g.tells(t, "gemini.upstream_demoted first UNAVAILABLE\n")
	return g
}

func TestTenFailuresDemote(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	g.draws(t, 3)
	asks(t, "0 3", first, second)
	if healthy, success := g.gauges(t, "first"); healthy != 0 || success > 0.11 {
		t.Errorf("the first upstream: healthy %v, success %v", healthy, success)
	}
	if healthy, success := g.gauges(t, "second"); healthy != 1 || success != 1 {
		t.Errorf("the second one: healthy %v, success %v", healthy, success)
	}
}

// Nine failures are not enough, and the tenth call may be the one that works.
func TestNineFailuresDoNotDemote(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, drawn)
	g := runWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
	g.draws(t, 9)
	asks(t, "9 9", first, second)
	first.play(drawn)
	g.draws(t, 2)
	asks(t, "2 0", first, second)
	g.tells(t, "")
}

// One call in a probe finds out whether a demoted upstream is back, and does not
// suffer for it.
func TestCanariesThatDie(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	const probe = 250 * time.Millisecond
	g.loadWith(t, onHealthEvents, healthSite(probe.String(), retryLate, first, second))
	var canaries []*request
	eventually(t, "three canaries", func() bool {
		g.draws(t, 1)
		canaries = first.received()
		return len(canaries) >= 3
	})
	for i, c := range canaries[1:] {
		if gap := c.Time.Sub(canaries[i].Time); gap < probe {
			t.Errorf("canary %d followed after %v, want at least %v", i+2, gap, probe)
		}
	}
	if n := len(second.received()); n < 3 {
		t.Errorf("the second upstream was asked %d times", n)
	}
	if healthy, _ := g.gauges(t, "first"); healthy != 0 {
		t.Errorf("healthy %v", healthy)
	}
	g.tells(t, "gemini.upstream_demoted first UNAVAILABLE\n") // once
}

// A canary that dies in another way than by an error is rerouted as well.
func TestCanariesThatBreakOff(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	g.loadWith(t, onHealthEvents, healthSite(directly, retryLate, first, second))
	for _, f := range faults[:5] {
		first.play(f.unary)
		g.draws(t, 1)
		asks(t, "1 1", first, second)
	}
}

// While a canary is under way there is no other, however many calls come.
func TestOneCanaryAtATime(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	g.loadWith(t, onHealthEvents, healthSite(directly, retryLate, first, second))
	arrived, die := make(chan struct{}), make(chan struct{})
	first.play(func(w http.ResponseWriter, r *http.Request) {
		close(arrived) // a second one panics
		<-die
		resets()(w, r)
	})
	canary := make(chan *reply, 1)
	r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))
	go func() { canary <- do(t, r) }()
	wait(t, "the canary arrives", arrived)
	together(t, g, 20)
	asks(t, "1 20", first, second)
	close(die)
	(<-canary).exactly(t, 200, imageJSON)
	asks(t, "0 1", first, second)
}

// together makes calls at the same time, each of which must end well.
func together(t *testing.T, g *gateway, calls int) {
	t.Helper()
	var group sync.WaitGroup
	for range calls {
		r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))
		transport := newTransport(t)
		group.Go(func() {
			if s, err := roundTrip(transport, r); err != nil || s.StatusCode != 200 || string(s.body) != imageJSON {
				t.Errorf("a call ended with %v, %v", s, err)
			}
		})
	}
	group.Wait()
}

// Many calls that find a canary due at the same moment send one.
func TestCanariesDoNotCrowd(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	g.loadWith(t, onHealthEvents, healthSite(directly, retryLate, first, second))
	var inside, most atomic.Int32
	first.play(func(w http.ResponseWriter, r *http.Request) {
		if n := inside.Add(1); n > 1 {
			most.Store(n)
		}
		time.Sleep(5 * time.Millisecond)
		inside.Add(-1) // before the answer, after which the next one may come
		overloaded(w, r)
	})
	for range 3 {
		together(t, g, 15)
	}
	if n := most.Load(); n > 1 || len(first.received()) == 0 {
		t.Errorf("%d canaries at a time, %d in all", n, len(first.received()))
	}
}

// Three canaries in a row that come back well restore an upstream. Only a
// failure makes the next one wait.
func TestThreeSuccessesRestore(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	g.loadWith(t, onHealthEvents, healthSite("300ms", retryLate, first, second))
	first.play(drawn)
	eventually(t, "a canary", func() bool {
		g.draws(t, 1)
		return len(first.received()) == 1
	})
	asks(t, "1 "+fmt.Sprint(len(second.received())), first, second)
	g.draws(t, 1)
	asks(t, "1 0", first, second)
	if healthy, _ := g.gauges(t, "first"); healthy != 0 {
		t.Errorf("healthy %v after two canaries", healthy)
	}
	g.draws(t, 1)
	asks(t, "1 0", first, second)
	g.tells(t, "gemini.upstream_demoted first UNAVAILABLE\ngemini.upstream_restored first <nil>\n")
	g.loadWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
	g.draws(t, 3)
	asks(t, "3 0", first, second)
	if healthy, success := g.gauges(t, "first"); healthy != 1 || success != 1 {
		t.Errorf("healthy %v, success %v", healthy, success)
	}
}

// A failure among the canaries makes them begin anew.
func TestCanariesInARow(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	g.loadWith(t, onHealthEvents, healthSite(directly, retryLate, first, second))
	first.play(inTurn(drawn, drawn, overloaded, drawn, drawn, drawn))
	g.draws(t, 5)
	asks(t, "5 1", first, second)
	if healthy, _ := g.gauges(t, "first"); healthy != 0 {
		t.Error("restored too early")
	}
	g.draws(t, 1)
	g.tells(t, "gemini.upstream_demoted first UNAVAILABLE\ngemini.upstream_restored first <nil>\n")
}

// What is no fault of the upstream's is no failure of it.
func TestWhatDoesNotDemote(t *testing.T) {
	for _, c := range []struct {
		name   string
		plays  http.HandlerFunc
		status int
		asked  string
	}{
		{"blocks", answers(200, jsonType, blockedJSON), 400, "15 0"},
		{"hard blocks", answers(200, jsonType, promptBlockedJSON), 400, "15 0"},
		{"bad requests", answers(400, jsonType, `{"error":{"code":400,"message":"Aspect ratio 7:3 is not supported.","status":"INVALID_ARGUMENT"}}`), 400, "15 0"},
		{"unknown models", answers(404, jsonType, `{"error":{"code":404,"message":"Not found.","status":"NOT_FOUND"}}`), 404, "15 0"},
		{"limits", answers(429, jsonType, `{"error":{"code":429,"message":"Slow down.","status":"RESOURCE_EXHAUSTED"}}`), 200, "15 15"},
		{"no access", answers(403, jsonType, `{"error":{"code":403,"message":"No.","status":"PERMISSION_DENIED"}}`), 200, ""},
		{"region", answers(400, jsonType, `{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}`), 200, "15 15"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := scripted(t, c.plays), scripted(t, drawn)
			g := runWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
			for range 15 {
				if s := g.post(t, unaryPath, promptJSON); s.StatusCode != c.status {
					t.Fatalf("status %d: %s", s.StatusCode, shortened(string(s.body)))
				}
			}
			if c.asked != "" {
				asks(t, c.asked, first, second)
			}
			if healthy, success := g.gauges(t, "first"); healthy != 1 || success != 1 {
				t.Errorf("healthy %v, success %v", healthy, success)
			}
			g.tells(t, "")
		})
	}
}

// Nobody is helped if the only upstream there is gets no calls.
func TestLoneUpstreamIsNotDemoted(t *testing.T) {
	u := scripted(t, overloaded)
	g := runWith(t, onHealthEvents, healthSite(rarely, "retry off", u))
	for range 15 {
		g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	}
	asks(t, "15", u)
	if healthy, success := g.gauges(t, "first"); healthy != 1 || success > 0.05 {
		t.Errorf("healthy %v, success %v", healthy, success)
	}
	g.tells(t, "")
	u.play(drawn)
	g.draws(t, 1)
}

// A call that belongs to a demoted upstream goes there, and nowhere else.
func TestPinnedCallsAreNoCanaries(t *testing.T) {
	const pinned = `{"cachedContent":"cachedContents/abc","contents":[{"parts":[{"text":"and now?"}]}]}`
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	for range 3 {
		g.post(t, unaryPath, pinned, "X-Server-Timeout", "100").exactly(t, 503, googleErrorJSON)
	}
	asks(t, "3 0", first, second)
	first.play(drawn)
	g.post(t, unaryPath, pinned).exactly(t, 200, imageJSON)
	g.draws(t, 1)
	asks(t, "1 1", first, second)
}

// If there is no healthy upstream, a demoted one is better than none.
func TestAllUpstreamsDemoted(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, overloaded)
	g := runWith(t, onHealthEvents, "metrics /metrics\n"+gemini(
		"upstream first "+first.URL+" {\n\tprobe 24h\n}\nupstream second "+second.URL+" {\n\tprobe 24h\n}", "retry {\n\tattempts 2\n\tbackoff 1ms 1ms\n}"))
	for range 10 {
		g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	}
	eventually(t, "both are demoted", func() bool { return strings.Count(g.told(t), "upstream_demoted") == 2 })
	for range 3 {
		g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	}
	asks(t, "13 13", first, second)
	second.play(drawn)
	g.draws(t, 1)
	asks(t, "1 1", first, second)
}

// Without retries there is nothing that a canary could be rerouted with, but an
// upstream that has recovered has to be found out all the same.
func TestRestorationWithoutRetries(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, drawn)
	g := runWith(t, onHealthEvents, healthSite(rarely, "retry off", first, second))
	for range 10 {
		g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	}
	g.draws(t, 1)
	asks(t, "10 1", first, second)
	first.play(drawn)
	g.loadWith(t, onHealthEvents, healthSite(directly, "retry off", first, second))
	g.draws(t, 5)
	g.tells(t, "gemini.upstream_demoted first UNAVAILABLE\ngemini.upstream_restored first <nil>\n")
}
