// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"strings"
	"sync"
	"time"
)

const (
	// alarmWindow is how far alarms look back, slot by slot.
	alarmWindow = 5 * time.Minute
	alarmSlots  = 30
	alarmSlot   = alarmWindow / alarmSlots
	// alarmCalls is how many calls it takes before an alarm is raised.
	alarmCalls = 10
	// alarmRest is after how long without news an alarm is cleared. It spans the
	// pause between two canaries, or the alarms of an upstream that is demoted
	// would come and go with them.
	alarmRest = 2 * alarmWindow
)

// alarm is something about an upstream that an operator wants to be told of
// (issue #4).
type alarm uint8

const (
	alarmSuccess alarm = iota
	alarmLatency
	alarmOverload
)

// alarmRules say when an alarm is raised and when it is cleared: by the mean of
// what the calls of the window say about it. What lies between the two keeps an
// alarm from flapping.
var alarmRules = [...]struct {
	name         string
	raise, clear float64
}{
	alarmSuccess:  {"success_low", 0.80, 0.85},   // share of successes, as health counts them
	alarmLatency:  {"latency_high", 2, 1.5},      // time to the verdict of a success, by its usual time
	alarmOverload: {"overload_high", 0.30, 0.20}, // share of 503s among all answers
}

// isCrossed tells that a mean is worth an alarm.
func (a alarm) isCrossed(mean float64) bool {
	rule := &alarmRules[a]
	if rule.raise > rule.clear {
		return mean > rule.raise
	}
	return mean < rule.raise
}

// isOver tells that a mean is good again.
func (a alarm) isOver(mean float64) bool {
	rule := &alarmRules[a]
	if rule.raise > rule.clear {
		return mean <= rule.clear
	}
	return mean >= rule.clear
}

// alarmChange is an alarm that has been raised or cleared.
type alarmChange struct {
	alarm    alarm
	isRaised bool
	isQuiet  bool    // it was cleared for want of calls to judge by
	value    float64 // the mean, unless it is quiet
}

// sign is what one attempt says about its upstream.
type sign struct {
	outcome      outcome
	kind         callKind
	took         time.Duration // to the verdict
	isAnswered   bool          // the upstream has sent an answer
	isOverloaded bool          // and it was a 503
}

// watch is what the alarms of an upstream go by. All calls share it. Its size
// does not depend on their number.
type watch struct {
	mu     sync.Mutex
	began  time.Time // the time of the first slot; slots are counted from there
	newest int64
	slots  [alarmSlots][len(alarmRules)]reading
	paces  map[callKind]*pace
	states [len(alarmRules)]alarmState
}

// reading is the sum of what calls have said.
type reading struct {
	sum   float64
	calls int
}

type alarmState struct {
	isRaised bool
	heard    time.Time // when a call has last said something about it
}

// hear takes in an attempt and tells which alarms it has raised or cleared.
func (w *watch) hear(s sign, now time.Time) (changes []alarmChange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.states {
		if w.states[i].isRaised && !w.isOn(alarm(i), now) {
			w.states[i].isRaised = false
			changes = append(changes, alarmChange{alarm: alarm(i), isQuiet: true})
		}
	}
	w.moveTo(now)
	w.note(&s, now)
	for i := range w.states {
		if mean, changed := w.judge(alarm(i)); changed {
			changes = append(changes, alarmChange{alarm: alarm(i), isRaised: w.states[i].isRaised, value: mean})
		}
	}
	return changes
}

// moveTo makes room for a new slot. A clock that goes back stays in the newest.
func (w *watch) moveTo(now time.Time) {
	if w.began.IsZero() {
		w.began = now
	}
	at := max(w.newest, int64(now.Sub(w.began)/alarmSlot))
	for slot := max(w.newest, at-alarmSlots) + 1; slot <= at; slot++ {
		w.slots[slot%alarmSlots] = [len(alarmRules)]reading{}
	}
	w.newest = at
}

// note adds what an attempt says. Times are taken from successes alone, as
// health does: a refused connection would make a dead upstream look fast.
func (w *watch) note(s *sign, now time.Time) {
	if s.outcome != outcomeNeutral {
		w.add(alarmSuccess, oneIf(s.outcome == outcomeSucceeded), now)
	}
	if s.outcome == outcomeSucceeded {
		if ratio, isKnown := w.paceOf(s.kind).compare(s.took, now); isKnown {
			w.add(alarmLatency, ratio, now)
		}
	}
	if s.isAnswered {
		w.add(alarmOverload, oneIf(s.isOverloaded), now)
	}
}

func oneIf(counts bool) float64 {
	if counts {
		return 1
	}
	return 0
}

func (w *watch) add(a alarm, value float64, now time.Time) {
	r := &w.slots[w.newest%alarmSlots][a]
	r.sum += value
	r.calls++
	w.states[a].heard = now
}

// judge raises an alarm over enough calls, and clears it over any: they may have
// become few.
func (w *watch) judge(a alarm) (mean float64, changed bool) {
	var all reading
	for i := range w.slots {
		all.sum += w.slots[i][a].sum
		all.calls += w.slots[i][a].calls
	}
	if all.calls == 0 {
		return 0, false
	}
	mean = all.sum / float64(all.calls)
	state := &w.states[a]
	if state.isRaised {
		changed = a.isOver(mean)
	} else {
		changed = all.calls >= alarmCalls && a.isCrossed(mean)
	}
	state.isRaised = state.isRaised != changed
	return mean, changed
}

// isOn tells whether an alarm has been raised and there is still reason for it.
func (w *watch) isOn(a alarm, now time.Time) bool {
	state := &w.states[a]
	return state.isRaised && now.Sub(state.heard) < alarmRest
}

// alarms tells which are on, for the metrics and the status page.
func (w *watch) alarms(now time.Time) (on [len(alarmRules)]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range on {
		on[i] = w.isOn(alarm(i), now)
	}
	return on
}

const (
	// maxPaces is how many kinds of calls an upstream is timed for; further ones
	// share one, because clients choose models.
	maxPaces = 100
	// teachingCalls of a kind only teach how long it takes.
	teachingCalls = 20
	// paceMemory is how long it takes to get used to another pace. It goes by
	// time, not by calls: what has become slower for good is usual within a day,
	// be there ten calls a second or one a minute, while an hour in which all is
	// slow takes the usual time a twentieth of the way.
	paceMemory = 20 * time.Hour
	// paceWeight is the most that one call may teach.
	paceWeight = 0.01
	// maxPaceRatio keeps one call among ten from raising an alarm alone.
	maxPaceRatio = 10
)

// callKind is what calls have in common whose times can be compared: models
// differ by a factor of five (wire §10), and a stream is judged by its beginning.
type callKind struct {
	model    string
	streamed bool
}

// pace is how long calls of a kind usually take.
type pace struct {
	calls int
	usual float64 // in seconds
	// learnt is up to when time has been turned into experience. It lags behind
	// the clock after a pause, so that a nightly batch can teach, too.
	learnt time.Time
}

func (w *watch) paceOf(k callKind) *pace {
	k.model = storable(k.model)
	if w.paces[k] == nil && len(w.paces) >= maxPaces {
		k.model = other
	}
	p := w.paces[k]
	if p == nil {
		if w.paces == nil {
			w.paces = make(map[callKind]*pace)
		}
		p = new(pace)
		k.model = strings.Clone(k.model) // it is part of a path
		w.paces[k] = p
	}
	return p
}

// compare tells how often the usual time a call took, and learns from it.
func (p *pace) compare(took time.Duration, now time.Time) (ratio float64, isKnown bool) {
	seconds := max(took, time.Millisecond).Seconds()
	p.calls++
	if p.calls <= teachingCalls {
		p.usual += (seconds - p.usual) / float64(p.calls)
		p.learnt = now
		return 0, false
	}
	ratio = min(seconds/p.usual, maxPaceRatio)
	due := min(max(now.Sub(p.learnt), 0), paceMemory).Seconds() / paceMemory.Seconds()
	weight := min(due, paceWeight)
	p.usual *= 1 + weight*(ratio-1)
	p.learnt = now.Add(-time.Duration((due - weight) * float64(paceMemory)))
	return ratio, true
}
