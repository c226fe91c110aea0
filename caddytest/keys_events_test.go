// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

func init() { caddy.RegisterModule(listener{}) }

// listener is an event handler as an operator configures it. What it hears can be
// read under its name.
type listener struct {
	Name string `json:"name"`
}

// CaddyModule returns the Caddy module information.
func (listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.caddytest", New: func() caddy.Module { return new(listener) }}
}

// UnmarshalCaddyfile reads: caddytest <name>.
func (l *listener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&l.Name) {
		return d.ArgErr()
	}
	return nil
}

// heard are the events that listeners have heard, by the listeners' names.
var heard sync.Map

// Handle takes an event down.
func (l *listener) Handle(_ context.Context, e caddy.Event) error {
	found, _ := heard.LoadOrStore(l.Name, new(eventBook))
	book := found.(*eventBook)
	book.add(e)
	book.busy.Lock()
	defer book.busy.Unlock()
	return nil
}

type eventBook struct {
	mu     sync.Mutex
	events []caddy.Event
	busy   sync.Mutex // a test holds it to have a listener that takes its time
}

func (b *eventBook) add(e caddy.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

func (b *eventBook) all() []caddy.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.events)
}

// only is the one event that must have been heard.
func (b *eventBook) only(t *testing.T) caddy.Event {
	t.Helper()
	eventually(t, "the event", func() bool { return len(b.all()) > 0 })
	time.Sleep(50 * time.Millisecond) // for one too many
	all := b.all()
	if len(all) != 1 {
		t.Fatalf("%d events, want one", len(all))
	}
	return all[0]
}

// listen loads directives together with a listener for an event.
func (g *gateway) listen(t *testing.T, event, directives string) *eventBook {
	t.Helper()
	g.loadWith(t, "events {\n\ton "+event+" caddytest "+g.dir+"\n}", directives)
	book, _ := heard.LoadOrStore(g.dir, new(eventBook))
	return book.(*eventBook)
}

// The operator hears once of a key that is rejected: of which one, where and why,
// but not the key.
func TestRejectedKeyIsAnnounced(t *testing.T) {
	u := scripted(t, byKey("k1", invalidKey, drawn))
	directives := several([]string{pool(t, "first", u, "studio", "press")})
	g := start(t, directives)
	book := g.listen(t, "gemini.key_rejected", directives)
	for range 6 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	e := book.only(t)
	if e.Name() != "gemini.key_rejected" || !strings.HasPrefix(string(e.Origin().CaddyModule().ID), "http.handlers.gemini") {
		t.Errorf("%s of %s", e.Name(), e.Origin().CaddyModule().ID)
	}
	for field, want := range map[string]any{"upstream": "first", "project": "studio", "reason": "API_KEY_INVALID", "status": 400} {
		if e.Data[field] != want {
			t.Errorf("%s is %v, want %v", field, e.Data[field], want)
		}
	}
	if id, _ := e.Data["key"].(string); id == "" || strings.Contains(fmt.Sprint(slices.Collect(maps.Values(e.Data))), keyMark) {
		t.Errorf("the event says %v", e.Data)
	}
}

// Calls that are rejected at the same time are one piece of news.
func TestRejectedKeyIsAnnouncedOnceForAll(t *testing.T) {
	const calls = 20
	var arrived sync.WaitGroup
	arrived.Add(calls)
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait()
		invalidKey(w, r)
	})
	directives := several([]string{place("first", u, ownKey(t, "k1"))}, "retry off")
	g := start(t, directives)
	book := g.listen(t, "gemini.key_rejected", directives)
	var done sync.WaitGroup
	for range calls {
		done.Go(func() { g.post(t, unaryPath, promptJSON).exactly(t, 400, invalidKeyJSON) })
	}
	done.Wait()
	book.only(t)
}

// A daily quota that is used up is announced as well, with the time of its end.
func TestExhaustedQuotaIsAnnounced(t *testing.T) {
	u := scripted(t, byKey("k1", answers(429, jsonType, exhaustedJSON), drawn))
	directives := several([]string{pool(t, "first", u, "studio", "press")})
	g := start(t, directives)
	book := g.listen(t, "gemini.quota_exhausted", directives)
	for range 4 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	e := book.only(t)
	for field, want := range map[string]any{"upstream": "first", "project": "studio", "model": imageModel} {
		if e.Data[field] != want {
			t.Errorf("%s is %v, want %v", field, e.Data[field], want)
		}
	}
	if until, ok := e.Data["until"].(time.Time); !ok || until.Before(time.Now()) || until.After(time.Now().Add(25*time.Hour)) {
		t.Errorf("until %v", e.Data["until"])
	}
}

// Interface guards
var (
	_ caddyevents.Handler   = (*listener)(nil)
	_ caddyfile.Unmarshaler = (*listener)(nil)
)

// Listeners that take longer than the calls come do not pile up: what they cannot take
// is dropped, and the operator reads so.
func TestSlowListeners(t *testing.T) {
	const atOnce, more = 64, 3
	u := scripted(t, answers(200, jsonType, blockedJSON))
	directives := several([]string{place("first", u, ownKey(t, "k1"))})
	g := start(t, directives)
	book := g.listen(t, "gemini.blocked", directives)
	book.busy.Lock()
	release := sync.OnceFunc(book.busy.Unlock)
	t.Cleanup(release) // or Caddy, which stops behind a test that has failed as well, waits for the listener
	dropped := func() int { return strings.Count(g.log(t), "event was dropped") }
	for n := range atOnce + more {
		if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 400 {
			t.Fatalf("%d %s", s.StatusCode, s.body)
		}
		eventually(t, "the event", func() bool { return len(book.all())+dropped() == n+1 })
	}
	if got := len(book.all()); got != atOnce || dropped() != more {
		t.Errorf("%d events are under way, %d were dropped", got, dropped())
	}
	release()
	eventually(t, "an event", func() bool {
		g.post(t, unaryPath, promptJSON)
		return len(book.all()) > atOnce
	})
}
