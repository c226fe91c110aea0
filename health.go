// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math/bits"
	"sync"
	"time"
)

const (
	// averageWeight is what the newest call counts in a moving average.
	averageWeight = 0.2
	// recentCalls is how many outcomes are remembered one by one, and how many
	// calls it takes before an upstream can be demoted.
	recentCalls = 10
	// restoreAfter is how many canaries in a row bring an upstream back.
	restoreAfter = 3
	// After its restoration an upstream may have rampStart calls in flight, and
	// more with every success. Beyond rampEnd there is no limit.
	rampStart, rampEnd = 4, 64
)

// health is how an upstream has been doing. All calls share it, and it outlives
// the configuration (issue #3).
type health struct {
	mu      sync.Mutex
	success float64       // moving average, 1 is best
	latency time.Duration // moving average of the time to a good answer; 0 is unknown

	// era is the number of demotions and restorations so far. What was begun in
	// an earlier one tells nothing about this one.
	era    uint32
	calls  int    // of this era
	recent uint16 // the outcomes of the last recentCalls, one bit each, set for a failure

	inFlight int // of all eras: each is a load on the upstream
	ramp     int // how many may be in flight; 0 is any number

	demoted   bool
	downSince time.Time // the demotion, or since then the last canary that died
	probing   bool      // a canary is under way
	streak    int       // canaries in a row that came back well

	watch watch // its last minutes, for the alarms
}

func newHealth() *health { return &health{success: 1} }

// standing is what a router can do with an upstream at a moment.
type standing uint8

const (
	standingHealthy standing = iota
	standingCanary           // demoted, and one call may try whether it is back
	standingBusy             // back, with as many calls as it should have for now
	standingDemoted
)

// outcome is what a call says about its upstream.
type outcome uint8

const (
	outcomeNeutral outcome = iota // nothing: a block, a limit, a mistake of the client's, a client that left
	outcomeSucceeded
	outcomeFailed
)

// change is what a call did to its upstream.
type change uint8

const (
	changeNone change = iota
	changeDemoted
	changeRestored
)

// standing advises and reserves nothing: between it and begin, others may have
// come. A canary is due once probe has passed since the last failure.
func (h *health) standing(now time.Time, probe time.Duration) standing {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.canaryDue(now, probe):
		return standingCanary
	case h.demoted:
		return standingDemoted
	case h.ramp > 0 && h.inFlight >= h.ramp:
		return standingBusy
	}
	return standingHealthy
}

func (h *health) canaryDue(now time.Time, probe time.Duration) bool {
	return h.demoted && !h.probing && now.Sub(h.downSince) >= probe
}

// trial is one call to an upstream, from the moment it is sent to its verdict.
type trial struct {
	health *health
	era    uint32
	// canary is set for the one call that finds out whether a demoted upstream
	// is back. Who comes for that and is late has a trial without it.
	canary bool
	lone   bool
}

// begin counts a call in. Whoever has no other upstream may call one in any
// standing. A lone one is not demoted, whatever becomes of the call: that would
// help nobody. Only a call that may fail without harm can be the canary.
func (h *health) begin(now time.Time, probe time.Duration, lone, canBeCanary bool) trial {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := trial{health: h, era: h.era, canary: canBeCanary && h.canaryDue(now, probe), lone: lone}
	h.inFlight++
	h.probing = h.probing || t.canary
	return t
}

// end counts the call out and learns from it; took is the time to its verdict.
// It is to be called exactly once.
func (t trial) end(o outcome, took time.Duration, now time.Time) change {
	h := t.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight--
	if t.canary {
		h.probing = false
	}
	if o == outcomeNeutral || t.era != h.era {
		return changeNone
	}
	ok := o == outcomeSucceeded
	h.average(ok, took)
	switch {
	case t.canary:
		return h.judgeCanary(ok, now)
	case h.demoted: // called for want of a better one; canaries decide
		return changeNone
	}
	return h.judge(ok, t.lone, now)
}

// average takes times from successes alone: a refused connection would make a
// dead upstream look fast.
func (h *health) average(ok bool, took time.Duration) {
	h.success *= 1 - averageWeight
	if !ok {
		return
	}
	h.success += averageWeight
	if h.latency == 0 {
		h.latency = took
		return
	}
	h.latency += time.Duration(averageWeight * float64(took-h.latency))
}

// judge demotes an upstream when more than half of its calls fail, by the
// average and by the last ten. The average alone remembers little more than
// five calls, so that one failure in five, at random, would take an upstream
// down every 80 calls instead of every 500. At 45 % it still falls within a few
// dozen: ten calls cannot tell that from half, and to be sure takes hundreds, in
// which a dead upstream would be tried first.
func (h *health) judge(ok, lone bool, now time.Time) change {
	h.calls++
	h.recent = h.recent << 1 & (1<<recentCalls - 1)
	if ok {
		h.widen()
		return changeNone
	}
	h.recent |= 1
	h.narrow()
	failed := bits.OnesCount16(h.recent)
	if lone || h.calls < recentCalls || failed <= recentCalls/2 || h.success >= 0.5 {
		return changeNone
	}
	h.demoted, h.downSince, h.streak = true, now, 0
	h.beginEra()
	return changeDemoted
}

// judgeCanary restores the upstream after enough successes. Only a failure makes
// the next canary wait.
func (h *health) judgeCanary(ok bool, now time.Time) change {
	if !ok {
		h.streak, h.downSince = 0, now
		return changeNone
	}
	h.streak++
	if h.streak < restoreAfter {
		return changeNone
	}
	h.demoted, h.success = false, 1
	h.beginEra()
	h.ramp = rampStart
	return changeRestored
}

// beginEra forgets what was before: attempts from then on count.
func (h *health) beginEra() {
	h.era++
	h.calls, h.recent, h.ramp = 0, 0, 0
}

// widen and narrow are the ramp on which an upstream comes back: everything that
// waits for it at once would take it down again. Calls that come one after the
// other never notice.
func (h *health) widen() {
	switch {
	case h.ramp >= rampEnd:
		h.ramp = 0
	case h.ramp > 0:
		h.ramp++
	}
}

func (h *health) narrow() {
	if h.ramp > 0 {
		h.ramp = max(h.ramp/2, 1)
	}
}

// healthView is what the metrics and the status page tell.
type healthView struct {
	healthy bool
	success float64       // 0 to 1
	latency time.Duration // to the verdict of a good answer; 0 if there was none
}

func (h *health) view() healthView {
	h.mu.Lock()
	defer h.mu.Unlock()
	return healthView{healthy: !h.demoted, success: h.success, latency: h.latency}
}
