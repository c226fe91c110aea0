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

	again *leg                 // comes next, whatever else is possible: a repaired or rephrased call
	isEnd bool                 // nothing may follow
	rest  map[string]time.Time // until when a scope is left alone, for this call only

	wording
	omit   additions // what an upstream has rejected in this call
	signed []edit    // placeholders for missing thought signatures
	mended string    // the same in words
}

// station is an upstream on the way of a call.
type station struct {
	*upstream
	model string // what it is asked for
	draws bool   // the model makes images
	seats []seat // in the order in which they are tried

	closed    bool // is not asked again
	noCanary  bool // another call is the canary
	failures  int
	notBefore time.Time
}

// seat is a key of an upstream, or the client's own.
type seat struct {
	key *apiKey // nil: the client's own
	// account is who a filter holds responsible, and whose quota is used.
	account  string
	spent    bool // it has been rejected in this call
	refusals int  // for its limits, in this call
}

// leg is one attempt: where it goes, how long it has to wait before, and what
// is sent.
type leg struct {
	*station
	*seat
	wait       time.Duration
	standing   standing
	isDoubtful bool // demoted, or its key has been rejected: only if there is nothing else
	fits       bool // the wait ends before the deadline

	boarded  time.Time
	trial    trial // its place at the upstream
	sent     rendering
	repaired string // what had to be changed
}

// plan looks where a call may go. It fails if the body cannot be read.
func (r *router) plan(x *exchange) (*trip, error) {
	if err := x.body.readAhead(); err != nil {
		return nil, err
	}
	x.model = cmp.Or(x.model, x.body.wants().model)
	if x.model == "" && x.call.namesModelInBody() {
		if err := x.body.readAll(); err != nil {
			return nil, err
		}
		x.model = x.body.wants().model
	}
	t := &trip{router: r, x: x, stations: make([]station, len(r.upstreams))}
	for i, u := range r.upstreams {
		t.stations[i] = t.station(u)
	}
	if !x.body.complete() && (t.mattersWhere() || t.isSuspect()) {
		// What decides may stand anywhere in the body.
		if err := x.body.readAll(); err != nil {
			return nil, err
		}
	}
	t.pin = r.pinned(x.body.wants().ties)
	return t, t.recallBlocks()
}

// station is an upstream with its keys in the order of this call.
func (t *trip) station(u *upstream) station {
	s := station{upstream: u, model: u.mapModel(t.x.model)}
	s.draws = t.isImageModel(t.x.model, s.model)
	if len(u.keys) == 0 {
		s.seats = []seat{t.seat(&s, nil)}
		return s
	}
	s.seats = make([]seat, len(u.keys))
	first := 0
	if len(u.keys) > 1 {
		first = int(u.turn.Add(1)-1) & (1<<16 - 1)
	}
	for i := range u.keys {
		s.seats[i] = t.seat(&s, u.keys[(first+i)%len(u.keys)])
	}
	return s
}

func (t *trip) seat(s *station, key *apiKey) seat {
	seat := seat{key: key}
	switch {
	case key != nil:
		seat.account = key.account
	case s.hasCredential:
		seat.account = "upstream-" + s.name
	default: // a key of Google's is another account at an aggregator
		seat.account = t.x.clientProject + "@" + cmp.Or(s.base, t.x.base).Host
	}
	return seat
}

// scope is what shares a quota: an account and a model (wire §10).
func scope(s *station, at *seat) string { return at.account + "\n" + s.model }

// next chooses where the call goes: to the upstream that can take it first, and
// of several to the first in order of configuration that is healthy.
func (t *trip) next(now time.Time) (leg, bool) {
	if t.again != nil {
		l := *t.again
		t.again = nil
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
			if seat.spent || !t.pin.allowsKey(seat.key) || !t.mayTake(s, seat) {
				continue
			}
			if l := t.consider(s, seat, standing, now); !found || l.isBetter(best) {
				best, found = l, true
			}
		}
	}
	return best, found
}

// consider looks when an upstream can take the call with one of its keys.
func (t *trip) consider(s *station, seat *seat, standing standing, now time.Time) leg {
	ready := s.notBefore
	if rests := t.restsUntil(s, seat, now); rests.After(ready) {
		ready = rests
	}
	wait := max(0, ready.Sub(now))
	return leg{
		station: s, seat: seat, wait: wait, standing: standing,
		isDoubtful: standing == standingDemoted || t.isSetAside(seat.key, s.model, now),
		fits:       t.isInTime(wait, now),
	}
}

// restsUntil is when a limit ends that the upstream has told of, to this call or
// to another.
func (t *trip) restsUntil(s *station, at *seat, now time.Time) time.Time {
	if len(t.rest) == 0 && t.state.cooldowns.isEmpty() {
		return time.Time{}
	}
	scope := scope(s, at)
	until := t.rest[scope]
	if announced, ok := t.state.cooldowns.until(scope, now); ok && announced.After(until) {
		until = announced
	}
	return until
}

// isBetter prefers what can be in time to what works, that to what is ready at
// once, and that to what comes first in the configuration.
func (l leg) isBetter(than leg) bool {
	switch {
	case l.fits != than.fits:
		return l.fits
	case l.isDoubtful != than.isDoubtful:
		return than.isDoubtful
	}
	return cmp.Or(
		cmp.Compare(l.wait, than.wait),
		cmp.Compare(l.failures+l.refusals, than.failures+than.refusals), // a wait may be over by now
		cmp.Compare(preference[l.standing], preference[than.standing]),
	) < 0
}

// preference puts a canary before all others: it is a real call, and goes on to one of
// them if it dies.
var preference = [...]int{standingCanary: 0, standingHealthy: 1, standingBusy: 2, standingDemoted: 3}

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

// depart chooses the next attempt, if there may be one. The first does not wait
// in vain: where a wait would not end in time, the upstream may say so itself.
func (t *trip) depart() (leg, bool) {
	now := t.now()
	isFirst := t.x.attempts == 0
	if t.isEnd || !isFirst && t.x.attempts >= t.retry.attempts {
		return leg{}, false
	}
	l, ok := t.next(now)
	if !ok || !t.isInTime(0, now) { // an upload can take longer than the deadline
		return l, false
	}
	if isFirst && (t.retry.attempts == 1 || !t.isInTime(l.wait, now)) {
		l.wait = 0
	}
	if !isFirst && !t.isInTime(l.wait+l.health.view().latency/2, now) {
		return l, false // it could not finish, most likely
	}
	if spread := t.pacing.spread(l.wait); t.isInTime(spread, now) {
		l.wait = spread
	}
	return l, true
}

// pause lets the time pass that a leg has to wait. Before that the body is read
// to its end, because only then does the server notice that a client leaves.
func (t *trip) pause(wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	_ = t.x.body.readAll() // a failure shows when the body is sent
	began := t.now()
	err := t.sleep(t.x.ctx, wait)
	t.x.waited += t.now().Sub(began)
	return err
}

// board takes a place at the upstream. There is none for a canary if another
// call has become the canary meanwhile, and none for a retry beyond the budget.
func (t *trip) board(l *leg) bool {
	now := t.now()
	l.boarded = now
	lone := len(t.upstreams) == 1 // since a reload, perhaps: then any call finds out whether it is back
	l.trial = l.health.begin(now, l.probe, lone, lone || l.standing == standingCanary)
	if l.standing == standingCanary && !l.trial.canary {
		l.trial.end(outcomeNeutral, 0, now)
		l.noCanary = true
		return false
	}
	if !t.isInTime(0, now) || !t.isFree() && !t.budget.retry(now) {
		l.trial.end(outcomeNeutral, 0, now)
		t.isEnd = true
		return false
	}
	return true
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
		switch l.trial.end(result, now.Sub(l.boarded), now) {
		case changeDemoted:
			t.tell("upstream_demoted", map[string]any{"upstream": l.name, "reason": a.verdict.reason})
		case changeRestored:
			t.tell("upstream_restored", map[string]any{"upstream": l.name})
		}
	}()
	t.x.attempts++
	t.x.repaired = cmp.Or(l.repaired, t.x.repaired)
	l.sent = t.renderingOf(l.station, &t.phrasing)
	a = t.send(in, l)
	t.diagnose(l, a)
	if !a.isUnfair && t.x.ctx.Err() == nil {
		result = decisions[a.verdict.class].health
	}
	return a
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
		rd.model = s.mapModel
	}
	if !s.draws {
		rd.omit |= addedModalities
	}
	if len(t.signed) > 0 { // never in the turn that is rephrased
		rd.edits = merged(p.edits, t.signed)
	}
	return rd
}
