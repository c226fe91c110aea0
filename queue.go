// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"net/http"
	"time"
)

// weigh finds out which limits apply to the call, and what it takes of them.
func (t *trip) weigh() error {
	var m measured
	known := false
	for i := range t.stations {
		s := &t.stations[i]
		if s.rule == nil {
			continue
		}
		if !known && s.rule.needsBody() {
			if err := t.x.body.readAll(); err != nil {
				return err
			}
			m, _ = measure(t.x.body.content(), &t.x.call, t.x.contentType) // what is no JSON counts as far as it goes
			if t.x.partOf != nil {
				m.asked = 1
			}
			known = true
		}
		n := m.need(&t.x.call, s.model, s.draws)
		s.demand = demand{limitRPM: 1, limitRPD: 1, limitTPM: n.tokens, limitIPM: n.images}
		t.x.isLimited = true
	}
	return nil
}

// slot is when the limits of the configuration have room for the call, and
// whether that is sooner than a queue may be long.
func (t *trip) slot(l *leg, ready, now time.Time) (at time.Time, isSoon bool) {
	if l.rule == nil {
		return ready, true
	}
	t.findGate(l, now)
	if kind, ok := l.bounds.beyond(&l.demand); ok {
		l.cause = causeOf(kind)
		return ready.Add(maxCooldown), false // never, which is longer than any wait
	}
	at, kind := l.gate.ready(&l.demand, &l.bounds, ready, now)
	if kind != limitNone {
		l.cause = causeOf(kind)
	}
	return at, !at.After(now) || !at.After(t.waitLimit(l, maxTime(now, l.own)).latest(l.shared))
}

// part is the part of a project that the call counts for, by its name for people:
// a hash where it is secret, or no short and printable text.
func (t *trip) part(r *limitRule) string {
	if r.key == "" || t.x.expand == nil {
		return ""
	}
	text := t.x.expand(r.key)
	if r.isSecret || text != projectName(text) {
		return "sha256-" + keyID(text)
	}
	return text
}

// waitLimit is how long the call may wait in line from a time on, or from the one
// when it began to: as long as its queue allows, and not so long that it could not
// finish, most likely. What an upstream has told everybody to wait does not count,
// where calls wait for that anyway.
func (t *trip) waitLimit(l *leg, since time.Time) waitLimit {
	if !t.lined.IsZero() {
		since = t.lined
	}
	return waitLimit{
		queue: l.rule.queue, since: since, deadline: t.x.deadline.Add(-l.usual()), sparesRests: t.retry.attempts > 1,
	}
}

// usual is the time that the upstream should be given at least.
func (l *leg) usual() time.Duration { return l.health.view().latency / 2 }

// findGate looks up the gate of a key and model, and what its limits are now.
func (t *trip) findGate(l *leg, now time.Time) {
	scope := scope(l.station, l.seat)
	l.bounds = t.boundsOf(l.rule, scope, now)
	if l.gate != nil {
		return
	}
	key := t.part(l.rule)
	l.seat.gate = t.state.gates.at(gateID{scope, key}, gateName{l.project, bareModel(l.model), key}, now)
}

// queue waits in line until it is the call's turn. It gives up when that will be
// too late, and when another upstream has room meanwhile.
func (t *trip) queue(l *leg) (bool, error) {
	if l.ticket == nil && l.wait <= 0 && !l.gate.hasLine() {
		return true, nil
	}
	if l.ticket == nil && !t.enter(l) {
		return false, nil
	}
	now := t.now()
	began := now
	defer func() { t.x.queued += t.now().Sub(began) }()
	for {
		outlook := l.gate.look(l.ticket, now)
		isDue := !outlook.at.After(now)
		switch {
		case outlook.isLate, !t.isInTime(0, now):
			return false, nil
		case outlook.isNext && isDue:
			return true, nil
		case outlook.isNext && t.isElsewhere(l, now), isDue && now.Sub(outlook.at) > maxDawdle:
			return false, nil
		case isDue:
			outlook.at = now.Add(maxDawdle) // whoever is before wakes it
		}
		if err := t.pause(outlook.at.Sub(now), l.ticket.moved); err != nil {
			return false, err
		}
		now = t.now()
	}
}

// maxDawdle is how long a call whose time has come waits for those before it to
// pass. They need no time for that.
const maxDawdle = time.Second

// enter takes a place in line. The body is read before that: nobody should wait
// for it in line, and what cannot be sent should take no place.
func (t *trip) enter(l *leg) bool {
	t.x.body.save()
	if err := t.x.body.readAll(); err != nil {
		t.spoilt(err)
		return false
	}
	now := t.now()
	w := t.waitLimit(l, now)
	t.lined = w.since
	l.ticket = l.gate.enter(&l.demand, &l.bounds, w, l.shared, now)
	return true
}

// isElsewhere tells that another upstream, or another key, could take a call at
// once that waits in line. Only the first in line asks, so that not all run for
// one place. What has been repaired goes nowhere else.
func (t *trip) isElsewhere(l *leg, now time.Time) bool {
	if l.repaired != "" || len(t.stations) == 1 && len(l.seats) == 1 {
		return false
	}
	best, ok := t.next(now)
	return ok && best.seat != l.seat && best.wait <= 0 && best.fits && !best.isDoubtful
}

// pass takes of the limits what the call needs. A call that stands in line keeps
// its place if that is not possible.
func (t *trip) pass(l *leg, now time.Time) (ok bool) {
	switch {
	case l.gate == nil:
		return true
	case l.ticket != nil:
		ok = l.gate.claim(l.ticket, now)
	default:
		l.ticket, ok = l.gate.admit(&l.demand, &l.bounds, now)
	}
	if ok {
		t.state.gates.changed()
	}
	return ok
}

// leaveLine gives up the call's place in line.
func (t *trip) leaveLine(l *leg) {
	if l.ticket != nil {
		l.gate.leave(l.ticket)
		l.ticket = nil
	}
}

// refuse answers a call that is not sent at all: it was blocked before, a limit
// leaves no room for it, or its body came too late.
func (t *trip) refuse() {
	x := t.x
	x.attempt.discard()
	paused := t.paused()
	switch {
	case t.turnedAway != nil: // which may take the prompt, then
		x.attempt = t.refusal(t.turnedAway).attempt()
	case t.repeat != nil:
		x.attempt = &attempt{project: x.clientProject, status: http.StatusBadRequest, verdict: verdict{
			class: t.repeat.Class, reason: reasonRepeated, stage: t.repeat.Stage, blocked: t.repeat.Reason,
		}}
	case len(t.stations) == 0:
		x.keyless(t.upstreams[0])
	case paused != nil:
		x.project = paused.project
		x.status, x.verdict = http.StatusForbidden, verdict{class: classAccount, reason: reasonPaused}
	default:
		x.status, x.verdict = http.StatusGatewayTimeout, verdict{class: classTransient, reason: reasonDeadline}
	}
}

// paused is an account that would take the call if it were not paused; nil if another
// takes it.
func (t *trip) paused() (first *seat) {
	isTaken := false
	t.seats(func(s *station, at *seat) {
		switch {
		case s.closed || at.spent || !t.mayTake(s, at):
		case !t.isPaused(s, at):
			isTaken = true
		case first == nil:
			first = at
		}
	})
	if isTaken {
		return nil
	}
	return first
}

// isPaused tells whether image calls of an account are refused, because filters
// have blocked too many.
func (t *trip) isPaused(s *station, at *seat) bool {
	return t.pauses && t.state.blockRates.isPaused(at.account) && (s.draws || t.x.wantsImage(s))
}

// refusal is why a call could not take a leg.
func (t *trip) refusal(l *leg) *refusal {
	r := &refusal{cause: cmp.Or(l.cause, causeLimited), upstream: l.name, project: l.project, model: l.model, delay: l.wait}
	if l.gate == nil || r.cause > causeRPD {
		return r
	}
	r.value = l.bounds.most[r.cause-causeRPM]
	_, r.isTooMuch = l.bounds.beyond(&l.demand)
	return r
}

// needsBody tells that the body says what a call takes of the limits.
func (r *limitRule) needsBody() bool {
	return r.bounds.most[limitTPM] > 0 || r.bounds.most[limitIPM] > 0
}
