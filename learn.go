// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"strings"
	"time"
)

// learn draws the consequences of an attempt, for this call and for those after
// it.
func (t *trip) learn(l *leg, a *attempt) {
	now := t.now()
	d := decisions[a.verdict.class]
	if d.other == whereAccepted || a.verdict.class == classForbidden {
		t.stopped(l, a)
	}
	switch d.same {
	case never:
		l.closed = true
	case afterBackoff:
		l.notBefore = now.Add(t.backoff(l, a))
	case afterDelay:
		t.coolDown(l, a, now)
	case afterMidnight:
		t.exhaust(l, a, now)
	case withNextKey:
		t.reject(l, a, now)
	case repaired:
		t.again = t.repairedLeg(l)
	case rephrased:
		t.again = t.rephrasedLeg(l)
	}
	if a.verdict.class == classOK || a.verdict.class.isBlock() {
		t.hasHelped(l, now)
	}
	t.isEnd = t.isEnd || d.other == never && t.again == nil
}

// backoff is how long an upstream that has failed is left alone: as long as it
// says, else longer each time.
func (t *trip) backoff(l *leg, a *attempt) time.Duration {
	l.failures++
	if a.delay > 0 {
		return a.delay
	}
	return t.pacing.backoff(l.failures - 1)
}

// coolDown leaves a project and model alone for as long as the upstream says, for
// this call and all others. Where it does not say, only this call waits.
func (t *trip) coolDown(l *leg, a *attempt, now time.Time) {
	l.refusals++
	t.lower(l, a, now)
	if a.delay > 0 {
		until := now.Add(a.delay)
		t.state.cooldowns.extend(scope(l.station, l.seat), cooldown{Class: a.verdict.class}, until, now)
		t.state.gates.hold(scope(l.station, l.seat), until, now)
		return
	}
	if t.rest == nil {
		t.rest = make(map[string]time.Time)
	}
	t.rest[scope(l.station, l.seat)] = now.Add(t.pacing.backoff(l.refusals - 1))
}

// midnightBlur is for how long after midnight a daily quota may still be that of the day
// before: the answer was on its way, or Google's clock is behind ours. Taken for the new
// day's, it would close the project for all of that.
const midnightBlur = 5 * time.Minute

// exhaust leaves a project and model alone until its daily quota begins anew.
func (t *trip) exhaust(l *leg, a *attempt, now time.Time) {
	today := t.state.calendar.day(now)
	until := today.ends
	if now.Sub(today.begins) < midnightBlur { // it is yesterday's that is used up
		until = minTime(now.Add(max(a.delay, time.Minute)), today.ends)
	} else {
		t.lower(l, a, now)
	}
	t.state.gates.hold(scope(l.station, l.seat), until, now)
	if t.state.cooldowns.extend(scope(l.station, l.seat), cooldown{Class: classExhausted}, until, now) {
		t.tell("quota_exhausted", map[string]any{"upstream": l.name, "project": a.project, "model": l.model, "until": until})
	}
}

// setAside is for how long a key that was rejected is not used while there is
// another. Then it is tried again, in case somebody has paid or unblocked it.
const setAside = 10 * time.Minute

// reject sets a key aside: for the model only if its tier has no access to that
// (wire §7, "limit: 0"). A client's own key is the client's business: only this
// call goes elsewhere.
func (t *trip) reject(l *leg, a *attempt, now time.Time) {
	if l.key == nil {
		l.closed = true
		return
	}
	l.spent = true
	if t.mayBeClients(a) {
		return
	}
	name := l.key.id
	if a.problem.noAccess {
		name = modelKey(l.key, l.model)
	}
	if t.state.rejected.put(name, struct{}{}, now.Add(setAside), now) {
		t.tell("key_rejected", map[string]any{
			"upstream": l.name, "project": l.key.project, "key": l.key.id, "reason": a.verdict.reason, "status": a.received,
		})
	}
}

// mayBeClients tells a refusal that the call itself may have caused: it names
// what belongs to somebody else, or is written for an API that takes no keys. It
// must not take a key away from all other calls.
func (t *trip) mayBeClients(a *attempt) bool {
	isDenied := a.problem.code == 401 || a.problem.code == 403
	isForeign := t.pin != nil || t.x.call.surface == surfaceVertex || t.x.call.isTuned
	return isDenied && (isForeign || strings.Contains(a.problem.message, "permission to access"))
}

func modelKey(key *apiKey, model string) string { return key.id + "\n" + model }

// isSetAside tells whether a key has been rejected lately.
func (r *router) isSetAside(key *apiKey, model string, now time.Time) bool {
	if key == nil || r.state.rejected.isEmpty() {
		return false
	}
	if _, rejected := r.state.rejected.get(key.id, now); rejected {
		return true
	}
	_, rejected := r.state.rejected.get(modelKey(key, model), now)
	return rejected
}
