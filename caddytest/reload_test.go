// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// roundTrip is do for other goroutines than the test's.
func roundTrip(transport http.RoundTripper, r *http.Request) (*reply, error) {
	res, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	s := &reply{Response: res}
	s.body, s.err = io.ReadAll(res.Body)
	return s, s.err
}

// pending is a call that has not been answered yet.
type pending struct {
	t         *testing.T
	transport *http.Transport
	answer    chan *reply
	failure   chan error
}

// begin makes a call that goes on beside the test.
func (g *gateway) begin(t *testing.T, uri, body string, prepare ...func(*http.Request)) *pending {
	t.Helper()
	p := &pending{t: t, transport: newTransport(t), answer: make(chan *reply, 1), failure: make(chan error, 1)}
	r := g.newRequest(t, http.MethodPost, uri, strings.NewReader(body))
	for _, change := range prepare {
		change(r)
	}
	go func() {
		s, err := roundTrip(p.transport, r)
		if err != nil {
			p.failure <- err
			return
		}
		p.answer <- s
	}()
	return p
}

// ends waits for the answer.
func (p *pending) ends() *reply {
	p.t.Helper()
	select {
	case s := <-p.answer:
		return s
	case err := <-p.failure:
		p.t.Fatalf("the call has failed: %v", err)
	case <-time.After(patient):
		p.t.Fatal("the call does not end")
	}
	return nil
}

// having sets a header of a call.
func having(field, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(field, value) }
}

// waits are long enough to reload in: the first one usually, the others on machines
// that are busy.
var waits = []time.Duration{300 * time.Millisecond, time.Second, 5 * time.Second, 20 * time.Second}

// waiting is a retry after such a wait.
func waiting(wait time.Duration) string {
	return fmt.Sprintf("retry {\n\tattempts 2\n\tbackoff %[1]v %[1]v\n\tjitter 0\n}", wait)
}

// duringAWait makes a test with longer and longer waits, until what it does during one
// was over before the wait was.
func duringAWait(t *testing.T, test func(wait time.Duration) (isOver bool)) {
	t.Helper()
	if !slices.ContainsFunc(waits, test) {
		t.Error("no wait was long enough")
	}
}

// What a site may turn into while a call is on its way through it.
func reloads(same string) map[string]string {
	return map[string]string{
		"to the same":           same + "header X-Reloaded 1\n",
		"to other upstreams":    gemini("upstream other http://127.0.0.1:9", "retry off"),
		"to a site without one": "respond 418\n",
	}
}

func TestReloadDuringAWait(t *testing.T) {
	u := scripted(t, nil)
	// Caddy's own reverse_proxy prints the headers of all requests at debug level.
	withoutKey := func(r *http.Request) { r.Header.Del("X-Goog-Api-Key") }
	for door, around := range map[string]string{
		"handler":   "%s",
		"transport": "reverse_proxy http://127.0.0.1:9 {\n\ttransport %s}\n",
	} {
		for name := range reloads("") {
			for _, c := range []struct {
				path  string
				plays http.HandlerFunc
				want  string
			}{
				{unaryPath, drawn, imageJSON},
				{streamPath, events(imageChunk, lastChunk), event(imageChunk) + event(lastChunk)},
			} {
				_, method, _ := strings.Cut(c.path, ":")
				t.Run(door+"/"+name+"/"+method, func(t *testing.T) {
					g := run(t, "respond 204\n")
					duringAWait(t, func(wait time.Duration) bool {
						u.play(inTurn(overloaded, c.plays))
						site := fmt.Sprintf(around, gemini(inOrder("", u), waiting(wait)))
						g.load(t, site)
						p := g.begin(t, c.path, promptJSON, withoutKey)
						eventually(t, "the first attempt", func() bool { return len(u.received()) == 1 })
						g.load(t, reloads(site)[name])
						reloaded := time.Now()
						s := p.ends()
						s.exactly(t, 200, c.want)
						u.asked(t, 2)
						all := u.received()
						if gap := all[1].Time.Sub(all[0].Time); gap < wait {
							t.Errorf("the second attempt came after %v, want %v", gap, wait)
						}
						if got := s.Header.Get("Proxy-Status"); !strings.HasSuffix(got, "; attempts=2") {
							t.Errorf("Proxy-Status: %s", got)
						}
						return all[1].Time.After(reloaded)
					})
				})
			}
		}
	}
}

// A site may change several times before a wait ends.
func TestManyReloadsDuringAWait(t *testing.T) {
	u := scripted(t, nil)
	g := run(t, "respond 204\n")
	duringAWait(t, func(wait time.Duration) bool {
		u.play(inTurn(overloaded, drawn))
		site := gemini(inOrder("", u), waiting(wait))
		g.load(t, site)
		p := g.begin(t, unaryPath, promptJSON)
		eventually(t, "the first attempt", func() bool { return len(u.received()) == 1 })
		for i := range 5 {
			g.load(t, reloaded(site, i))
		}
		last := time.Now()
		p.ends().exactly(t, 200, imageJSON)
		u.asked(t, 2)
		return u.received()[1].Time.After(last)
	})
}

// An attempt that is under way goes on, and whatever has to follow follows.
func TestReloadDuringAnAttempt(t *testing.T) {
	for _, c := range []struct {
		name          string
		plays         http.HandlerFunc // of the first upstream, once the site has changed
		first, second int
	}{
		{"that succeeds", drawn, 1, 0},
		{"that fails", overloaded, 1, 1},
		{"that is reset", resets(), 1, 1},
		{"that is limited", limited("3600s"), 1, 1},
		{"that breaks off", breaksOff(jsonType, textJSON[:60]), 1, 1},
	} {
		first, second := scripted(t, nil), scripted(t, nil)
		site := gemini(inOrder("", first, second), retryLate)
		for name, next := range reloads(site) {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				arrived, goOn := make(chan struct{}), make(chan struct{})
				first.play(func(w http.ResponseWriter, r *http.Request) {
					close(arrived)
					<-goOn
					c.plays(w, r)
				})
				second.play(drawn)
				g := run(t, site)
				p := g.begin(t, unaryPath, promptJSON)
				wait(t, "the first attempt", arrived)
				g.load(t, next)
				close(goOn)
				p.ends().exactly(t, 200, imageJSON)
				first.asked(t, c.first)
				second.asked(t, c.second)
			})
		}
	}
}

// What a call learns after its site has been replaced is known to the new one:
// the cooldown of a project, and the block of a prompt.
func TestWhatIsLearnedDuringAReload(t *testing.T) {
	for _, c := range []struct {
		name  string
		plays http.HandlerFunc
		then  func(t *testing.T, g *gateway, first, second *upstream)
	}{
		{"cooldown", limited("3600s"), func(t *testing.T, g *gateway, first, second *upstream) {
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			first.untouched(t)
			second.asked(t, 1)
		}},
		{"block", answers(200, jsonType, blockedJSON), func(t *testing.T, g *gateway, first, second *upstream) {
			e := g.post(t, unaryPath, promptJSON).fails(t, 400, "REPEATED_BLOCK")
			if e.metadata("blockedReason") != "IMAGE_SAFETY" {
				t.Errorf("details: %v", e.Details)
			}
			first.untouched(t)
			second.untouched(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			arrived, goOn := make(chan struct{}), make(chan struct{})
			first := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				close(arrived)
				<-goOn
				c.plays(w, r)
			})
			second := scripted(t, drawn)
			site := gemini(inOrder("", first, second), retryLate, "guard 1h")
			g := run(t, site)
			p := g.begin(t, unaryPath, promptJSON)
			wait(t, "the first attempt", arrived)
			g.load(t, site+"header X-Reloaded 1\n")
			close(goOn)
			p.ends()
			for _, again := range []string{"at once", "after a reload", "after a restart"} {
				first.play(drawn)
				second.play(drawn)
				switch again {
				case "after a reload":
					g.load(t, site+"header X-Reloaded 2\n")
				case "after a restart":
					if err := caddy.Stop(); err != nil {
						t.Fatal(err)
					}
					g.load(t, site)
				}
				t.Log(again)
				c.then(t, g, first, second)
			}
		})
	}
}

// A call that waits does not keep Caddy from stopping, and ends in its own time.
func TestStopDuringAWait(t *testing.T) {
	const grace = 50 * time.Millisecond
	for _, c := range []struct {
		name    string
		globals string
		second  http.HandlerFunc
		status  int
	}{
		{"and an answer", "", drawn, 200},
		{"and no answer", "", overloaded, 503},
		{"in a hurry", "grace_period " + grace.String(), overloaded, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, nil)
			g := run(t, "respond 204\n")
			duringAWait(t, func(length time.Duration) bool {
				u.play(inTurn(overloaded, c.second))
				g.loadWith(t, c.globals, gemini(inOrder("", u), waiting(length)))
				p := g.begin(t, unaryPath, promptJSON)
				eventually(t, "the first attempt", func() bool { return len(u.received()) == 1 })
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					if err := caddy.Stop(); err != nil {
						t.Errorf("stopping Caddy: %v", err)
					}
				}()
				wait(t, "Caddy stops", stopped)
				over := time.Now().Add(grace)
				if s := p.ends(); s.StatusCode != c.status || s.err != nil {
					t.Errorf("status %d, %v", s.StatusCode, s.err)
				}
				u.asked(t, 2)
				return u.received()[1].Time.After(over)
			})
		})
	}
}

// Calls that outlive their configuration leave no goroutine behind.
func TestReloadsLeaveNoGoroutines(t *testing.T) {
	plays := func() http.HandlerFunc {
		return inTurn(overloaded, drawn)
	}
	u := scripted(t, nil)
	site := gemini(inOrder("", u), waiting(waits[0]))
	g := run(t, site)
	round := func(n int) {
		u.play(plays())
		p := g.begin(t, unaryPath, promptJSON)
		eventually(t, "the first attempt", func() bool { return len(u.received()) == 1 })
		g.load(t, fmt.Sprintf("%sheader X-Reloaded %d\n", site, n))
		p.ends().exactly(t, 200, imageJSON)
		p.transport.CloseIdleConnections()
		u.CloseClientConnections()
	}
	round(0)
	settled := runtime.NumGoroutine()
	for wait := time.Now().Add(time.Second); time.Now().Before(wait); time.Sleep(5 * time.Millisecond) {
		settled = min(settled, runtime.NumGoroutine())
	}
	for n := range 4 {
		round(n + 1)
	}
	eventually(t, "the goroutines of four reloads end", func() bool { return runtime.NumGoroutine() <= settled+2 })
}

// A reload forgets nothing of an upstream that stays where it is.
func TestHealthSurvivesAReload(t *testing.T) {
	first, second := scripted(t, nil), scripted(t, nil)
	g := demoted(t, first, second)
	first.play(drawn)
	g.loadWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second)+"header X-Reloaded 1\n")
	g.draws(t, 3)
	asks(t, "0 3", first, second)
	if healthy, _ := g.gauges(t, "first"); healthy != 0 {
		t.Errorf("healthy %v", healthy)
	}

	// Elsewhere it is another upstream.
	moved := scripted(t, drawn)
	g.loadWith(t, onHealthEvents, healthSite(rarely, retryLate, moved, second))
	g.draws(t, 1)
	asks(t, "1 0", moved, second)
}
