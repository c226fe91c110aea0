// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What becomes known while a call waits in line counts as if it had been known
// before: a blocked prompt is not sent again, a pause and a budget hold.
func TestNewsWhileACallWaits(t *testing.T) {
	for _, c := range []struct {
		name string
		news func(j *journey)
		want string
	}{
		{"nothing", func(*journey) {}, "a@1m0s = 200"},
		{"the same prompt was blocked", func(j *journey) { j.blockElsewhere(t, classForbidden) }, " = 400 REPEATED_BLOCK"},
		{"softly", func(j *journey) { j.blockElsewhere(t, classBlocked) }, " = 400 REPEATED_BLOCK"},
		{"the project was paused", func(j *journey) {
			j.state.blockRates.pause(j.account(), "client", j.clock)
		}, " = 403 PROJECT_PAUSED"},
		{"the budget was spent", func(j *journey) {
			j.state.ledger.book(j.state.calendar.day(j.clock), booking{ledgerKey: ledgerKey{Upstream: "a"}, cost: usdOf(1)})
		}, " = 429 BUDGET_EXCEEDED"},
		{"the limit was lowered", func(j *journey) {
			for id := range j.state.gates.list() {
				j.state.gates.lower(id.scope, limitRPM, 1, j.clock)
			}
		}, "a@1m0s = 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := under(RateLimit{RPM: 1, Queue: queueOf(2 * time.Minute)}, 5)
			o.PauseOnBlockRate = true
			j := newJourney(t, o, &upstream{name: "a", budget: 1})
			j.story(`{"contents":[{"parts":[{"text":"another"}]}]}`)
			sleep := j.sleep
			j.sleep = func(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
				defer c.news(j)
				return sleep(ctx, d, woken)
			}
			if got := j.story(prompt); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// A paused account explains a refusal only where no other would have taken the call.
func TestPauseOfAnotherAccount(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration // the reading of the body
		want  string
	}{
		"in time":  {time.Second, "b@1s = 200"},
		"too late": {time.Hour, " = 504 DEADLINE_EXCEEDED"},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJourney(t, Options{PauseOnBlockRate: true}, &upstream{name: "a"}, &upstream{name: "b"})
			j.state.blockRates.pause(j.account(), "client", j.clock)
			upload := func(r *http.Request) {
				r.ContentLength = int64(len(prompt))
				r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
					j.clock = j.clock.Add(c.takes)
					return copy(p, prompt), io.EOF
				}))
			}
			if got := j.story("", upload); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// account is that of the key that calls come with.
func (j *journey) account() string { return "client-" + keyID("client-key") + "@a" }

// blockElsewhere has the prompt of the tests blocked in another call.
func (j *journey) blockElsewhere(t *testing.T, as class) {
	t.Helper()
	quick, err := quickPrint(strings.NewReader(prompt), "gemini-3-pro-image")
	if err != nil {
		t.Fatal(err)
	}
	strong, err := strongPrint(strings.NewReader(prompt), "gemini-3-pro-image")
	if err != nil {
		t.Fatal(err)
	}
	record := blockRecord{Class: as, Reason: "SAFETY", Stage: stagePrompt}
	j.state.guard.remember(j.account(), quick, strong, record, j.clock.Add(time.Hour), j.clock)
}

// pair are the gates of two processes that share a storage.
func pair() (one, two *gates) {
	return newState().gates, newState().gates
}

var shared = gateID{scope: "p\nm"}

func (s *gates) shared() *gate { return s.at(shared, gateName{"p", "m", ""}, midday) }

// hear makes gates take over what others have let through.
func (s *gates) hear(t *testing.T, from *gates, now time.Time) {
	t.Helper()
	for _, e := range from.saved(now) {
		if err := e.check(now); err != nil {
			t.Fatal(err)
		}
		s.adopt(e, now)
	}
}

// Ten calls in one instant are ten for another process, too, and once.
func TestCallsOfAnotherProcess(t *testing.T) {
	one, two := pair()
	b := bounds{most: demand{limitRPM: 12, limitRPD: 14}}
	for range 10 {
		one.shared().admit(&once, &b, midday)
	}
	two.hear(t, one, midday)
	two.hear(t, one, midday)
	for i := range 3 {
		if _, ok := two.shared().admit(&once, &b, midday); ok != (i < 2) {
			t.Errorf("call %d behind ten of another process: admitted %v", i, ok)
		}
	}
	later := midday.Add(window)
	one.shared().admit(&once, &b, later)
	two.hear(t, one, later)
	if got := two.shared().views(b, later); got[0].Used != 1 || got[1].Used != 13 {
		t.Errorf("used %+v", got)
	}
}

// A clock that is set back while calls pass keeps none of them from other
// processes. No test can set the clock of the wall without the monotonic one, by
// which a line is in order: this one does to the line what that would do.
func TestCallsAcrossAClockThatIsSetBack(t *testing.T) {
	one, two := pair()
	g := one.shared()
	for range 3 {
		g.admit(&once, &bounds{most: demand{limitRPD: 9}}, midday)
	}
	g.line[1].at = midday.Add(-2 * time.Second)
	two.hear(t, one, midday)
	two.hear(t, one, midday)
	if got := two.shared().use(midday).today; got != 3 {
		t.Errorf("the other process knows of %d calls of 3", got)
	}
	if got := two.shared().through; got != 3 {
		t.Errorf("the other process has %d calls of 3 in its last minute", got)
	}
}

// Which gates are given up is not what was saved of them: a gate that is made
// again knows what others have let through, and a run before this one.
func TestGateThatIsMadeAgain(t *testing.T) {
	one, two := pair()
	b := bounds{most: demand{limitRPD: 5}}
	for range 5 {
		one.shared().admit(&once, &b, midday)
	}
	two.hear(t, one, midday)
	delete(two.all, shared)
	if _, ok := two.shared().admit(&once, &b, midday.Add(time.Hour)); ok {
		t.Error("a gate has forgotten what was saved of it")
	}
}

// A file is no place to get rid of a limit.
func TestSavedGatesInRange(t *testing.T) {
	sound := savedGate{Instance: "0123456789abcdef", Scope: "p\nm", Project: "p", Model: "m", Day: "2026-11-21", Today: 1}
	if err := sound.check(noon); err != nil {
		t.Fatal(err)
	}
	at := noon.UnixMilli()
	for name, change := range map[string]func(e *savedGate){
		"count below zero":     func(e *savedGate) { e.Today = -1 },
		"absurd count":         func(e *savedGate) { e.Today = 1 << 62 },
		"no day":               func(e *savedGate) { e.Day = "today" },
		"no instance":          func(e *savedGate) { e.Instance = "" },
		"no scope":             func(e *savedGate) { e.Scope = "" },
		"long name":            func(e *savedGate) { e.Model = strings.Repeat("m", 1000) },
		"call of the future":   func(e *savedGate) { e.Recent = []savedTicket{{1, at + int64(2*horizon/time.Millisecond), 1, 0, 0}} },
		"call without a time":  func(e *savedGate) { e.Recent = []savedTicket{{1, 0, 1, 0, 0}} },
		"call below zero":      func(e *savedGate) { e.Recent = []savedTicket{{1, at, -1, 0, 0}} },
		"absurd call":          func(e *savedGate) { e.Recent = []savedTicket{{1, at, 1 << 60, 0, 0}} },
		"calls out of order":   func(e *savedGate) { e.Recent = []savedTicket{{1, at, 1, 0, 0}, {2, at - 1, 1, 0, 0}} },
		"more than a minute's": func(e *savedGate) { e.Recent = make([]savedTicket, maxRecent+1) },
	} {
		e := sound
		change(&e)
		if e.check(noon) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Names come from paths that may be a megabyte long.
func TestGateNamesAreShort(t *testing.T) {
	s := newState().gates
	long := strings.Repeat("m", 1<<20)
	g := s.at(gateID{long, long}, gateName{long, long, long}, midday)
	for id := range s.all {
		if n := len(id.scope) + len(id.key) + len(fmt.Sprint(g.name)); n > 1000 {
			t.Errorf("%d bytes are kept of names", n)
		}
	}
}

// Everybody in line learns of a lower limit, and who comes too late by it leaves
// at once, all in one go.
func TestLowerLimitForThoseInLine(t *testing.T) {
	g := gateOf(t)
	b := bounds{most: demand{limitRPM: 60}}
	var line []*ticket
	for range 60 {
		g.admit(&once, &b, midday)
	}
	w := waitLimit{queue: 90 * time.Second, since: midday, deadline: midday.Add(time.Hour)}
	for range 30 {
		line = append(line, g.enter(&once, &b, w, time.Time{}, midday))
	}
	g.lower(limitRPM, 10, midday)
	for i, k := range line {
		turn := g.look(k, midday)
		if turn.isLate != (i >= 10) {
			t.Errorf("call %d: %+v", i, turn)
		}
		select {
		case <-k.moved:
		default:
			if i >= 10 {
				t.Errorf("nobody has told call %d", i)
			}
		}
		g.leave(k)
	}
	if g.hasLine() {
		t.Error("somebody is left in line")
	}
}

// A call that takes nothing of a limit does not wait for it.
func TestNothingOfALimit(t *testing.T) {
	g := gateOf(t)
	b := bounds{most: demand{limitIPM: 2}}
	k, _ := g.admit(&demand{limitRPM: 1, limitIPM: 2}, &b, midday)
	g.settle(k, 0, 5, midday)
	if _, ok := g.admit(&demand{limitRPM: 1}, &b, midday); !ok {
		t.Error("a call without images waits for images")
	}
}

// However often two processes hear of each other, a call is one call.
func TestCallsAreCountedOnce(t *testing.T) {
	one, two := pair()
	b := bounds{most: demand{limitRPM: 1000}}
	now := midday
	for range 5 {
		for i := range 20 {
			now = now.Add(time.Millisecond)
			from := one
			if i%2 > 0 {
				from = two
			}
			from.shared().admit(&once, &b, now)
		}
		one.hear(t, two, now)
		two.hear(t, one, now)
		one.hear(t, two, now)
	}
	for i, s := range []*gates{one, two} {
		if got := s.shared().views(b, now)[0].Used; got != 100 {
			t.Errorf("process %d counts %d calls of 100", i, got)
		}
	}
}

// With no queue, calls may wait for what an upstream has announced. Then all of
// them pass, in order, though no timer is exact.
func TestWhoHasWaitedForARestPasses(t *testing.T) {
	g := gateOf(t)
	b := bounds{most: demand{limitRPM: 10}}
	rest := midday.Add(time.Minute)
	w := waitLimit{since: midday, deadline: midday.Add(3 * time.Minute), sparesRests: true}
	line := []*ticket{g.enter(&once, &b, w, rest, midday), g.enter(&once, &b, w, rest, midday), g.enter(&once, &b, w, rest, midday)}
	now := rest
	for i, k := range line {
		now = now.Add(time.Millisecond)
		if turn := g.look(k, now); turn.isLate || !turn.isNext || !g.claim(k, now) {
			t.Errorf("call %d: %+v", i, turn)
		}
	}
}

// What a lower limit makes too much will never have its turn.
func TestTooMuchForALowerLimit(t *testing.T) {
	g := gateOf(t)
	b := bounds{most: demand{limitIPM: 10}}
	eight := demand{limitRPM: 1, limitIPM: 8}
	g.admit(&eight, &b, midday)
	k := g.enter(&eight, &b, patient(midday), time.Time{}, midday)
	g.lower(limitIPM, 4, midday)
	if turn := g.look(k, midday); !turn.isLate {
		t.Errorf("%+v", turn)
	}
}

// A call that is refused without a delay leaves the upstream alone for a while,
// and others do not wait for it.
func TestOwnRestIsNotShared(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 100}, 5), &upstream{name: "a"})
	j.plays["a"] = []scene{unsaid, image}
	sleep, other := j.sleep, ""
	j.sleep = func(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
		if other == "" {
			other = "asked"
			log := j.log
			other = j.story(`{"contents":[{"parts":[{"text":"another"}]}]}`)
			j.log = log
		}
		return sleep(ctx, d, woken)
	}
	if got := j.story(prompt); got != "a@0s a@1s = 200" {
		t.Error(got)
	}
	if other != "a@0s = 200" {
		t.Errorf("another call meanwhile: %s", other)
	}
}
