// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const testProbe = 5 * time.Minute

var outcomes = map[rune]outcome{'S': outcomeSucceeded, 'F': outcomeFailed, 'N': outcomeNeutral}

// callInTurn makes one call after the other, a second apart, and returns the number
// of the one that demoted the upstream.
func callInTurn(h *health, now *time.Time, calls string, lone bool) int {
	for i, c := range calls {
		*now = now.Add(time.Second)
		if h.begin(*now, testProbe, lone, true).end(outcomes[c], time.Second, *now) == changeDemoted {
			return i + 1
		}
	}
	return 0
}

// demotedHealth is demoted at the time that it returns.
func demotedHealth(t *testing.T) (*health, time.Time) {
	t.Helper()
	h, now := newHealth(), time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	if at := callInTurn(h, &now, "FFFFFFFFFF", false); at != 10 || h.standing(now, testProbe) != standingDemoted {
		t.Fatalf("demoted by call %d", at)
	}
	return h, now
}

// restoredHealth has just come back.
func restoredHealth(t *testing.T) (*health, time.Time) {
	t.Helper()
	h, now := demotedHealth(t)
	now = now.Add(testProbe)
	callInTurn(h, &now, "SSS", false)
	if v := h.view(); v != (healthView{true, 1, time.Second}) {
		t.Fatalf("not restored: %+v", v)
	}
	return h, now
}

func expectStanding(t *testing.T, h *health, now time.Time, want standing) {
	t.Helper()
	if got := h.standing(now, testProbe); got != want {
		t.Fatalf("standing %d, want %d", got, want)
	}
}

func TestDemotion(t *testing.T) {
	for _, c := range []struct {
		name, calls string
		lone        bool
		at          int
	}{
		{"nine calls are too few", "FFFFFFFFF", false, 0},
		{"ten are not", "FFFFFFFFFF", false, 10},
		{"six of ten", "SSSSFFFFFF", false, 10},
		{"half is not more than half", "SSSSSFFFFF", false, 0},
		{"recovered already", "FFFFFFSSSS", false, 0},
		{"recovering, by the average", "FFFFFFSSSSF", false, 0},
		{"by a success", "FFFFFFFFFS", false, 0},
		{"after a long success", "SSSSSSSSSSSSSSSSSSSSSSSSFFFFFF", false, 30},
		{"every other", "SFSFSFSFSFSFSFSFSFSFSFSFSFSFSF", false, 0},
		{"two of three", "SFFSFFSFFSFF", false, 11},
		{"what does not count", "FFFFFNNNNNFFFF", false, 0},
		{"what does not count, then what does", "FFFFFNNNNNFFFFF", false, 15},
		{"nothing counts", "NNNNNNNNNNNN", false, 0},
		{"alone", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, now := newHealth(), time.Now()
			if at := callInTurn(h, &now, c.calls, c.lone); at != c.at {
				t.Errorf("demoted by call %d, want %d", at, c.at)
			}
			if v := h.view(); v.healthy != (c.at == 0) {
				t.Errorf("%+v", v)
			}
		})
	}
}

// An upstream that loses one call in five at random falls every 490 calls; the
// average alone would take it down every 80.
func TestChanceSeldomDemotes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const falls = 300
	calls := 0
	for range falls {
		h, now := newHealth(), time.Now()
		for fell := 0; fell == 0; calls++ {
			call := "S"
			if random.Float64() < 0.2 {
				call = "F"
			}
			fell = callInTurn(h, &now, call, false)
		}
	}
	if mean := calls / falls; mean < 400 {
		t.Errorf("demoted after %d calls", mean)
	}
}

func TestHealthAverages(t *testing.T) {
	h, now := newHealth(), time.Now()
	if v := h.view(); v != (healthView{true, 1, 0}) {
		t.Errorf("at the start %+v", v)
	}
	for _, c := range []struct {
		outcome outcome
		took    time.Duration
		success float64
		latency time.Duration
	}{
		{outcomeFailed, time.Millisecond, 0.8, 0},
		{outcomeSucceeded, 10 * time.Second, 0.84, 10 * time.Second},
		{outcomeNeutral, time.Hour, 0.84, 10 * time.Second},
		{outcomeSucceeded, 20 * time.Second, 0.872, 12 * time.Second},
		{outcomeFailed, time.Millisecond, 0.6976, 12 * time.Second},
		{outcomeSucceeded, 2 * time.Second, 0.75808, 10 * time.Second},
	} {
		h.begin(now, testProbe, false, true).end(c.outcome, c.took, now)
		if v := h.view(); math.Abs(v.success-c.success) > 1e-9 || v.latency != c.latency {
			t.Errorf("%+v, want %v and %v", v, c.success, c.latency)
		}
	}
}

func TestCanaries(t *testing.T) {
	h, now := demotedHealth(t)
	try := func(o outcome, want change) {
		t.Helper()
		expectStanding(t, h, now, standingCanary)
		canary := h.begin(now, testProbe, false, true)
		if !canary.canary {
			t.Fatal("not the canary")
		}
		expectStanding(t, h, now, standingDemoted) // never two at a time
		if got := canary.end(o, time.Second, now); got != want {
			t.Fatalf("change %d, want %d", got, want)
		}
	}
	wait := func() {
		t.Helper()
		now = now.Add(testProbe - 1)
		expectStanding(t, h, now, standingDemoted)
		now = now.Add(1)
	}
	wait()
	try(outcomeFailed, changeNone)
	wait()
	try(outcomeSucceeded, changeNone)
	try(outcomeNeutral, changeNone) // frees the slot and spoils nothing
	try(outcomeSucceeded, changeNone)
	try(outcomeFailed, changeNone) // two in a row are not three
	wait()
	try(outcomeSucceeded, changeNone)
	try(outcomeSucceeded, changeNone)
	try(outcomeSucceeded, changeRestored)
	expectStanding(t, h, now, standingHealthy)
	if at := callInTurn(h, &now, "FFFFFFFFFF", false); at != 10 { // it starts with a clean record
		t.Errorf("demoted again by call %d", at)
	}
	wait() // as after the first time
	try(outcomeSucceeded, changeNone)
	try(outcomeSucceeded, changeNone)
	try(outcomeSucceeded, changeRestored)
}

// Two callers that see the canary's turn at once: the second has a call that
// decides nothing, but moves the average.
func TestOneCanaryForTwo(t *testing.T) {
	h, now := demotedHealth(t)
	now = now.Add(testProbe)
	canary, regular := h.begin(now, testProbe, false, true), h.begin(now, testProbe, false, true)
	if !canary.canary || regular.canary {
		t.Fatalf("canaries: %v, %v", canary.canary, regular.canary)
	}
	before := h.view().success
	regular.end(outcomeSucceeded, time.Second, now)
	expectStanding(t, h, now, standingDemoted) // the canary is still out
	if v := h.view(); v.healthy || v.success <= before {
		t.Errorf("%+v, before %v", v, before)
	}
	callInTurn(h, &now, "SSSSSFFFFFFFFFFFF", false)
	canary.end(outcomeSucceeded, time.Second, now)
	callInTurn(h, &now, "SS", false)
	expectStanding(t, h, now, standingHealthy)
}

// Calls of before a demotion or a restoration still weigh on the upstream, but
// say nothing about what it has become.
func TestLateResults(t *testing.T) {
	h, now := newHealth(), time.Now()
	var early []trial
	for range 4 {
		early = append(early, h.begin(now, testProbe, false, true))
	}
	callInTurn(h, &now, "FFFFFFFFFF", false)
	before := h.view()
	for _, trial := range early[:2] {
		if got := trial.end(outcomeSucceeded, time.Minute, now); got != changeNone {
			t.Errorf("change %d", got)
		}
	}
	if v := h.view(); v != before {
		t.Errorf("%+v, before %+v", v, before)
	}
	during := h.begin(now, testProbe, false, true)
	now = now.Add(testProbe)
	callInTurn(h, &now, "SSS", false)
	expectStanding(t, h, now, standingHealthy)
	first := h.begin(now, testProbe, false, true)
	expectStanding(t, h, now, standingBusy) // two of before, one of during, and this one
	for _, trial := range append(early[2:], during) {
		trial.end(outcomeFailed, time.Minute, now)
	}
	if v := h.view(); v.success != 1 || h.ramp != rampStart || h.inFlight != 1 {
		t.Errorf("%+v, %d of %d in flight", v, h.inFlight, h.ramp)
	}
	first.end(outcomeNeutral, 0, now)
}

func TestRamp(t *testing.T) {
	h, now := restoredHealth(t)
	var calls []trial
	fill := func(want int) {
		t.Helper()
		for h.standing(now, testProbe) == standingHealthy && len(calls) < 1000 {
			calls = append(calls, h.begin(now, testProbe, false, true))
		}
		if len(calls) != want {
			t.Fatalf("%d calls in flight, want %d", len(calls), want)
		}
		expectStanding(t, h, now, standingBusy)
	}
	finish := func(results string) {
		t.Helper()
		for _, c := range results {
			calls[0].end(outcomes[c], time.Second, now)
			calls = calls[1:]
		}
	}
	fill(4)
	finish("NN")
	fill(4)
	finish("S")
	fill(5)
	finish("SSSSS")
	fill(10)
	finish("F")
	finish("NNNN")
	fill(5)
	finish("FFF")
	finish("NN")
	fill(1) // never none at all
	for range rampEnd - 1 {
		finish("S")
		calls = append(calls, h.begin(now, testProbe, false, true))
	}
	finish("N")
	fill(64)
	finish("S")
	for range 200 {
		expectStanding(t, h, now, standingHealthy)
		calls = append(calls, h.begin(now, testProbe, false, true))
	}
}

// Calls that come one after the other never notice the ramp, whatever they
// bring.
func TestRampOfSequentialCalls(t *testing.T) {
	h, now := restoredHealth(t)
	for i, c := range "SFFNFSSNFSFSSFNFSSFSF" {
		expectStanding(t, h, now, standingHealthy)
		if callInTurn(h, &now, string(c), false) != 0 {
			t.Fatalf("demoted by call %d", i+1)
		}
	}
}

// A lone upstream of today may have been one of two before a reload.
func TestLoneUpstreamRecovers(t *testing.T) {
	h, now := demotedHealth(t)
	now = now.Add(testProbe)
	callInTurn(h, &now, "SSS", true)
	expectStanding(t, h, now, standingHealthy)
}

func TestHealthIsShared(t *testing.T) {
	h, clock := newHealth(), new(atomic.Int64)
	var canaries, demotions, restorations atomic.Int64
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 0))
			for range 3000 {
				now := time.Unix(clock.Add(1), 0)
				h.standing(now, time.Minute)
				call := h.begin(now, time.Minute, false, true)
				if call.canary && canaries.Add(1) != 1 {
					t.Error("two canaries at a time")
				}
				o := outcome(random.IntN(3))
				if random.IntN(2) == 0 {
					h.view()
				}
				if call.canary {
					canaries.Add(-1)
				}
				switch call.end(o, time.Second, now) {
				case changeDemoted:
					demotions.Add(1)
				case changeRestored:
					restorations.Add(1)
				}
			}
		})
	}
	group.Wait()
	if h.inFlight != 0 || h.probing {
		t.Errorf("%d in flight, probing %v", h.inFlight, h.probing)
	}
	if d, r := demotions.Load(), restorations.Load(); d == 0 || d-r < 0 || d-r > 1 {
		t.Errorf("%d demotions, %d restorations", d, r)
	}
}

func TestHealthCostsNoMemory(t *testing.T) {
	h, now := newHealth(), time.Now()
	if n := testing.AllocsPerRun(100, func() { h.begin(now, testProbe, false, true).end(outcomeSucceeded, time.Second, now) }); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func BenchmarkHealth(b *testing.B) {
	h, now := newHealth(), time.Now()
	for b.Loop() {
		if h.standing(now, testProbe) == standingHealthy {
			h.begin(now, testProbe, false, true).end(outcomeSucceeded, time.Second, now)
		}
	}
}
