// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"net/http"
	"time"
)

// trip is the way of one call from upstream to upstream: where it may still go,
// and in which form. It belongs to one goroutine.
type trip struct {
	*router
	x        *exchange
	stations []station
	pin      *tie // where the call belongs; see pinned

	again      *leg                 // comes next, whatever else is possible: a repaired or rephrased call
	turnedAway *leg                 // for whose limits the call was not sent at all
	lined      time.Time            // since when the call has stood in line for its next attempt
	isPaidFor  bool                 // the next attempt, out of the retry budget
	isEnd      bool                 // nothing may follow
	isSpoilt   bool                 // the body cannot be read
	rest       map[string]time.Time // until when a scope is left alone, for this call only

	wording
	omit   additions // what an upstream has rejected in this call
	signed []edit    // placeholders for missing thought signatures
	mended string    // the same in words
}

// plan looks where a call may go. It fails if the body cannot be read.
func (r *router) plan(x *exchange) (*trip, error) {
	if x.call.unreadable != "" {
		return nil, errUnreadable
	}
	if err := x.body.readAhead(); err != nil {
		return nil, err
	}
	x.model = cmp.Or(x.model, x.body.wants().model)
	if x.model == "" && x.call.namesModelInBody() {
		if err := x.findModel(); err != nil {
			return nil, err
		}
	}
	if leadsElsewhere(x.model) { // it may have to stand in a path
		return nil, errStrayName
	}
	t := &trip{router: r, x: x, stations: make([]station, 0, len(r.upstreams))}
	for _, u := range r.upstreams {
		if s := t.station(u); len(s.seats) > 0 { // else the call has none of its keys
			t.stations = append(t.stations, s)
		}
	}
	if err := t.chart(); err != nil {
		return nil, err
	}
	if !x.body.complete() && (t.mattersWhere() || t.isSuspect()) {
		// What decides may stand anywhere in the body.
		if err := x.body.readAll(); err != nil {
			return nil, err
		}
	}
	t.pin = r.pinned(x)
	if err := t.weigh(); err != nil {
		return nil, err
	}
	return t, t.recallBlocks()
}

// findModel looks for the model in all of the body.
func (x *exchange) findModel() error {
	if err := x.body.readAll(); err != nil {
		return err
	}
	x.model = x.body.wants().model
	if x.call.method != "images.edits" || !x.isForm() {
		return nil
	}
	if x.understandBody() == nil { // else the upstream may understand it
		x.model = x.brief.model
	}
	return nil
}

// next chooses where the call goes: to the upstream that can take it first, and
// of several to the first in order of configuration that is healthy.
func (t *trip) next(now time.Time) (leg, bool) {
	if l, ok := t.takeAgain(now); ok {
		return l, true
	}
	var best leg
	found := false
	for i := range t.stations {
		s := &t.stations[i]
		if s.closed || !t.pin.allows(s) {
			continue
		}
		standing := t.standing(s, now)
		for j := range s.seats {
			seat := &s.seats[j]
			if !t.canUse(s, seat) {
				continue
			}
			if l := t.consider(s, seat, standing, now); !found || l.isBetter(best) {
				best, found = l, true
			}
		}
	}
	return best, found
}

// takeAgain goes where the call has just been, if it has been repaired or rephrased
// for that.
func (t *trip) takeAgain(now time.Time) (leg, bool) {
	again := t.again
	if again == nil {
		return leg{}, false
	}
	t.again = nil
	l := t.consider(again.station, again.seat, t.standing(again.station, now), now)
	l.repaired = again.repaired
	isBound := l.repaired != "" // what has been repaired goes nowhere else
	return l, t.isOpen(l.station, l.seat) && (l.fits || isBound)
}

// consider looks when an upstream can take the call with one of its keys.
func (t *trip) consider(s *station, seat *seat, standing standing, now time.Time) leg {
	l := leg{
		station: s, seat: seat, standing: standing,
		isDoubtful: standing == standingDemoted || t.isSetAside(seat.key, s.model, now),
	}
	l.own = s.notBefore
	if len(t.rest) > 0 {
		l.own = maxTime(l.own, t.rest[scope(s, seat)])
	}
	until, why := t.restsUntil(s, seat, now)
	if l.cause = why; why == causeBudget { // the upstream's, and none of its project's or of others in that line
		l.own = maxTime(l.own, until)
	} else {
		l.shared = until
	}
	ready := maxTime(now, maxTime(l.own, l.shared))
	at, isSoon := t.slot(&l, ready, now)
	l.wait = at.Sub(now)
	l.fits = isSoon && (l.wait == 0 || t.isInTime(l.wait+l.usual(), now))
	return l
}

// restsUntil is when a limit ends that the upstream has told of, or that of its
// budget. Without retries nothing is waited for, so that the upstream may say for
// itself what it has said before.
func (t *trip) restsUntil(s *station, at *seat, now time.Time) (until time.Time, why cause) {
	if today := t.state.calendar.day(now); s.budget > 0 && t.state.ledger.spent(today, s.name) >= s.budget {
		return today.ends, causeBudget
	}
	if t.state.cooldowns.isEmpty() || t.retry.attempts == 1 && s.rule == nil {
		return time.Time{}, causeNone
	}
	c, until, isResting := t.state.cooldowns.find(scope(s, at), now)
	switch {
	case !isResting:
		return time.Time{}, causeNone
	case c.Class == classExhausted:
		return until, causeExhausted
	}
	return until, causeLimited
}

// standing is what the upstream's health is to this call.
func (t *trip) standing(s *station, now time.Time) standing {
	if len(t.upstreams) == 1 {
		return standingHealthy // a lone upstream is never demoted
	}
	standing := s.health.standing(now, s.probe)
	// Without retries nothing else can find out whether the upstream is back.
	canBeRerouted := t.pin == nil && (t.x.attempts+1 < t.retry.attempts || t.retry.attempts == 1)
	if standing == standingCanary && (s.noCanary || !canBeRerouted) {
		return standingDemoted
	}
	return standing
}

// isInTime tells whether a wait ends before the deadline.
func (t *trip) isInTime(wait time.Duration, now time.Time) bool {
	return now.Add(wait).Before(t.x.deadline)
}

// depart chooses the next attempt, if there may be one. A call that could not be
// sent in time is not sent.
func (t *trip) depart() (leg, bool) {
	now := t.now()
	isFirst := t.x.attempts == 0
	if t.isEnd || !isFirst && t.x.attempts >= t.retry.attempts {
		return leg{}, false
	}
	l, ok := t.next(now)
	for ok && !t.canTell(l.station) {
		l, ok = t.next(now)
	}
	switch {
	case !ok || !t.isInTime(0, now): // an upload can take longer than the deadline
		return l, false
	case !l.fits:
		refused := l
		t.turnedAway = &refused
		return l, false
	case !isFirst && !t.isInTime(l.wait+l.usual(), now):
		return l, false // it could not finish, most likely
	}
	return l, true
}

// embark gets a leg under way: it waits, and takes a place. If others were faster,
// it waits again where it stands in line, and else looks where to go now.
func (t *trip) embark(l *leg) (isUnderWay bool, err error) {
	defer func() {
		if !isUnderWay {
			t.leaveLine(l)
		}
	}()
	for {
		waited := t.x.waited
		if ready, err := t.await(l); !ready || err != nil {
			return false, err
		}
		if isLater := l.ticket != nil || t.x.waited > waited || t.x.attempts > 0; isLater && !t.isStillOpen(l) {
			return false, nil
		}
		if t.board(l) {
			return true, nil
		}
		if l.ticket == nil {
			return false, nil
		}
	}
}

// await lets the time pass until a leg can begin. It tells whether that is still
// the way to go.
func (t *trip) await(l *leg) (bool, error) {
	wait := l.wait
	if l.gate != nil { // whose line has an order that no chance must disturb
		wait = l.own.Sub(t.now())
	}
	if wait > 0 {
		if spread := t.pacing.spread(wait); t.isInTime(spread, t.now()) {
			wait = spread
		}
		if err := t.pause(wait, nil); err != nil {
			return false, err
		}
	}
	if l.gate != nil {
		return t.queue(l)
	}
	return true, nil
}

// isStillOpen asks again, after a wait or an attempt, what was asked before it: others have had
// the same prompt blocked meanwhile, perhaps, or met a limit, or spent the budget.
func (t *trip) isStillOpen(l *leg) bool {
	now := t.now()
	until, _ := t.restsUntil(l.station, l.seat, now)
	return !until.After(now) && t.recallLately() && t.isOpen(l.station, l.seat) &&
		(l.isDoubtful || !t.isSetAside(l.key, l.model, now))
}

// pause lets time pass, or ends when it is woken. Before that the body is read to
// its end, because only then does the server notice that a client leaves.
func (t *trip) pause(wait time.Duration, woken <-chan struct{}) error {
	t.x.body.save()
	_ = t.x.body.readAll() // a failure shows when the body is sent
	began := t.now()
	err := t.sleep(t.x.ctx, wait, woken)
	t.x.waited += t.now().Sub(began)
	return err
}

// board takes a place at the upstream. There is none for a canary if another
// call has become the canary meanwhile, none for a retry beyond the budget, and
// none where others have used up the limits meanwhile.
func (t *trip) board(l *leg) bool {
	now := t.now()
	l.boarded = now
	lone := len(t.upstreams) == 1 // since a reload, perhaps: then any call finds out whether it is back
	l.trial = l.health.begin(now, l.probe, lone, lone || l.standing == standingCanary)
	switch {
	case l.standing == standingCanary && !l.trial.canary:
		l.noCanary = true
		t.leaveLine(l)
	case !t.isInTime(0, now) || !t.pay(now):
		t.isEnd = true
		t.leaveLine(l)
	case t.pass(l, now):
		return true
	}
	l.trial.end(outcomeNeutral, 0, now)
	return false
}

// pay takes an attempt out of the retry budget, once. It fails if that has none left.
func (t *trip) pay(now time.Time) bool {
	t.isPaidFor = t.isPaidFor || t.isFree() || t.budget.retry(now)
	return t.isPaidFor
}

// isFree tells an attempt that no outage can multiply: the first, one behind a
// canary, one with another key, and one that has been repaired.
func (t *trip) isFree() bool {
	if t.x.attempts == 0 || t.x.last.trial.canary {
		return true
	}
	before := t.x.story[len(t.x.story)-1].verdict.class
	return before == classAccount || before == classRepairable
}

// visit makes an attempt and tells the upstream's health of it.
func (t *trip) visit(in *http.Request, l *leg) (a *attempt) {
	result := outcomeNeutral // should a transport panic
	defer func() {
		now := t.now()
		took := now.Sub(l.boarded)
		switch l.trial.end(result, took, now) {
		case changeDemoted:
			t.tell("upstream_demoted", map[string]any{"upstream": l.name, "reason": a.verdict.reason})
		case changeRestored:
			t.tell("upstream_restored", map[string]any{"upstream": l.name})
		}
		for _, c := range l.health.watch.hear(t.sign(l, a, result, took), now) {
			t.alarmed(l.name, c)
		}
	}()
	t.x.attempts++
	t.lined, t.isPaidFor = time.Time{}, false
	t.x.repaired = cmp.Or(l.repaired, t.x.repaired)
	l.sent = t.renderingOf(l.station, &t.phrasing)
	t.x.dropped = t.droppedFrom(l)
	a = t.send(in, l)
	t.diagnose(l, a)
	if !a.isUnfair && t.x.left() == nil {
		result = decisions[a.verdict.class].health
	}
	return a
}

// sign is what an attempt says for the alarms of its upstream.
func (t *trip) sign(l *leg, a *attempt, result outcome, took time.Duration) sign {
	if a == nil { // a transport has panicked
		return sign{}
	}
	return sign{
		outcome:      result,
		kind:         callKind{l.model, t.x.streamed()},
		took:         took,
		isAnswered:   a.received > 0,
		isOverloaded: a.problem != nil && a.problem.code == http.StatusServiceUnavailable,
	}
}

// diagnose sees what the attempt alone cannot know: that a block may pass, or
// that the upstream complains about what was added here.
func (t *trip) diagnose(l *leg, a *attempt) {
	switch {
	case a.verdict.class == classBlocked && mayPassUnchanged[a.verdict.reason] && len(t.triedAt) == 0:
		t.triedAt = append(t.triedAt, l.account)
		a.verdict.class = classTransient
	case a.problem != nil && a.problem.code == http.StatusBadRequest && a.verdict.class == classClient && t.repair(l, a.problem):
		a.verdict.class = classRepairable
	}
}

// renderingOf is the body with a wording as an upstream gets it.
func (t *trip) renderingOf(s *station, p *phrasing) rendering {
	rd := rendering{omit: t.omit | t.refusedBy(s), edits: p.edits}
	if t.x.call.namesModelInBody() {
		rd.model = s.nameFor(&t.x.call)
	}
	if !s.draws {
		rd.omit |= addedModalities
	}
	if len(t.signed) > 0 { // never in the turn that is rephrased
		rd.edits = merged(p.edits, t.signed)
	}
	switch {
	case s.way > wayAsIs:
		rd.layout = t.translated(s, rd)
	case len(s.dialect.edits) > 0:
		rd.edits, rd.emptied, rd.inDialect = merged(rd.edits, s.dialect.edits), s.dialect.emptied, true
	}
	return rd
}
