// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"sync"
	"time"
)

// The limits of a project and model (issue #4). Those that are counted over a
// minute come first.
type limitKind uint8

const (
	limitRPM limitKind = iota
	limitTPM
	limitIPM
	limitRPD
	limitKinds
	limitNone = limitKinds

	windowed = int(limitRPD)
)

// window is the time over which requests, tokens and images are counted. It
// slides: none of any length of it has more than the limit.
const window = time.Minute

// demand is what a call takes of each limit.
type demand [limitKinds]int64

// bounds are the limits themselves; 0 is none.
type bounds struct {
	most  demand
	burst int64 // how many calls may pass at once; 0: as many as most allows
	rule  *limitRule
}

// beyond finds a limit that the demand alone exceeds: it would wait forever.
func (b *bounds) beyond(d *demand) (limitKind, bool) {
	for kind, most := range b.most {
		if most > 0 && d[kind] > most {
			return limitKind(kind), true
		}
	}
	return limitNone, false
}

// lower takes a limit that is less.
func (b *bounds) lower(kind limitKind, most int64) {
	if b.most[kind] > 0 {
		b.most[kind] = min(b.most[kind], most)
	}
	if b.burst >= b.most[limitRPM] {
		b.burst = 0
	}
}

// gate lets calls through to a project and model, first come, first served, as
// its limits allow. It knows who waits, so that it can tell beforehand how long
// that takes. Nobody sleeps in it and it has no timer: who waits comes back when
// it is time (claim), or is told to come earlier. It is safe for concurrent use.
type gate struct {
	calendar *calendar
	name     gateName

	mu      sync.Mutex
	line    []*ticket  // who was let through in the last minute, then who waits
	base    int        // the place of line[0], counted from the first ever
	through int        // how many of line were let through
	serial  int64      // of the call that this process has let through last
	passed  occupancy  // of those
	planned *occupancy // of all of line, as planned; nil if that has to be done anew, or nobody waits
	used    time.Time  // when the gate was used last
	rule    *limitRule // of the last call; nil before the first of this process
	peers   map[string]peer
}

// peer is what another process has let through.
type peer struct {
	day   string
	today int64       // calls on that day
	last  savedTicket // the last call that is known of
}

// ticket is a call's place in the line of a gate.
type ticket struct {
	demand demand
	bounds bounds
	rest   time.Time // not before, because the upstream has said so
	waitLimit
	at        time.Time // when it was let through or, as planned, will be
	cause     limitKind // for which it waits
	moved     chan struct{}
	serial    int64 // among those that this process has let through; 0: another has
	isDropped bool  // from the line, because its turn comes too late or never
}

// waitLimit is how long a call can wait for its turn.
type waitLimit struct {
	queue    time.Duration
	since    time.Time
	deadline time.Time
	// sparesRests tells that a time does not count before which nobody can pass,
	// because the upstream has said so.
	sparesRests bool
}

// latest is up to when a turn is of use, if nobody passes before a rest is over.
func (w waitLimit) latest(rest time.Time) time.Time {
	begin := w.since
	if w.sparesRests {
		begin = maxTime(begin, rest)
	}
	if at := begin.Add(w.queue); at.Before(w.deadline) {
		return at
	}
	return w.deadline
}

// wake tells a waiting call to look at its ticket again.
func (k *ticket) wake() {
	select {
	case k.moved <- struct{}{}:
	default:
	}
}

func newGate(c *calendar, name gateName, now time.Time) *gate {
	return &gate{calendar: c, name: name, used: now}
}

// ready tells when a call would be let through that came now, and the limit that
// it has to wait for, if it has to.
func (g *gate) ready(d *demand, b *bounds, from, now time.Time) (at time.Time, cause limitKind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	present := g.turnTo(now)
	next := g.passed // a copy: nothing is taken
	if g.isWaitedFor() {
		g.plan(present)
	}
	if g.planned != nil {
		next = *g.planned
	}
	at, cause = g.earliest(&next, d, b, maxTime(from, present))
	if !at.After(present) {
		return now, limitNone
	}
	return at, cause
}

// admit lets a call through if that is possible at once, and nobody waits.
func (g *gate) admit(d *demand, b *bounds, now time.Time) (*ticket, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now = g.turnTo(now)
	if g.isWaitedFor() || !g.canPass(d, b, now) {
		return nil, false
	}
	k := &ticket{demand: *d, bounds: *b, at: now, cause: limitNone}
	g.used = now
	g.line = append(g.line, k)
	g.pass(k)
	return k, true
}

// canPass tells whether the limits have room for a call that is the next.
func (g *gate) canPass(d *demand, b *bounds, now time.Time) bool {
	next := g.passed
	at, _ := g.earliest(&next, d, b, now)
	return !at.After(now)
}

// pass lets the first call in line through.
func (g *gate) pass(k *ticket) {
	g.through++
	g.serial++
	k.serial = g.serial
	g.take(&g.passed, k)
	g.rule = k.bounds.rule
}

// isWaitedFor tells that somebody stands in line.
func (g *gate) isWaitedFor() bool { return g.through < len(g.line) }

// hasLine is isWaitedFor for who does not hold the lock.
func (g *gate) hasLine() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.isWaitedFor()
}

// enter puts a call at the end of the line. It passes when claim says so; until
// then it may leave.
func (g *gate) enter(d *demand, b *bounds, w waitLimit, rest, now time.Time) *ticket {
	k := &ticket{demand: *d, bounds: *b, rest: rest, waitLimit: w, moved: make(chan struct{}, 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	now = g.turnTo(now)
	g.plan(now)
	g.used, g.rule = now, b.rule
	if g.planned == nil {
		next := g.passed
		next.spread = copyOf(next.spread, now)
		g.planned = &next
	}
	k.at, k.cause = g.earliest(g.planned, d, b, maxTime(rest, now))
	g.line = append(g.line, k)
	g.take(g.planned, k)
	return k
}

// outlook is what a call in line can expect, as things are now.
type outlook struct {
	at     time.Time
	isNext bool // nobody is before it
	isLate bool // at is too late for it
}

// look tells a call in line when its turn is. If that is now and the call is not
// the next, it will be woken.
func (g *gate) look(k *ticket, now time.Time) outlook {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isNext(k) || !k.at.After(now) { // the others go by what was planned before, so that few plans are made
		g.plan(g.turnTo(now))
	}
	return outlook{k.at, g.isNext(k), k.isDropped || k.isLate(now)}
}

func (g *gate) isNext(k *ticket) bool { return g.isWaitedFor() && g.line[g.through] == k }

// isLate tells that the turn of a call comes too late for it. Who is due is not
// late: a timer may be.
func (k *ticket) isLate(now time.Time) bool { return k.at.After(now) && k.at.After(k.latest(k.rest)) }

// claim lets a call through if it is its turn.
func (g *gate) claim(k *ticket, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now = g.turnTo(now)
	isPassing := g.isNext(k) && g.canPass(&k.demand, &k.bounds, now) && !k.rest.After(now)
	if isPassing {
		k.at = now
		g.pass(k)
	}
	g.disturb()
	return isPassing
}

// leave gives up a place in line; who stands behind moves up.
func (g *gate) leave(k *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.line[g.through:], k); i >= 0 {
		g.line = slices.Delete(g.line, g.through+i, g.through+i+1)
		g.disturb()
	}
}

// disturb makes a new plan necessary. Whoever is the next makes it: its time may
// have come while another was before it.
func (g *gate) disturb() {
	g.planned = nil
	if g.isWaitedFor() {
		g.line[g.through].wake()
	}
}

// settle corrects what a call was thought to take, once that is known: tokens if
// there are any, and images if there are more than it asked for.
func (g *gate) settle(k *ticket, tokens, images int64, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	actual := k.demand
	if tokens > 0 {
		actual[limitTPM] = tokens
	}
	actual[limitIPM] = max(actual[limitIPM], images)
	g.turnTo(now)
	if k.demand == actual || !slices.Contains(g.line[:g.through], k) {
		return // in no minute that still counts
	}
	for i := range g.passed.counts {
		g.passed.counts[i].sum += actual[i] - k.demand[i]
	}
	k.demand = actual
	g.disturb()
}

// hold lets nobody through who waits before a time.
func (g *gate) hold(until, now time.Time) {
	g.change(now, func(k *ticket) { k.rest = maxTime(k.rest, until) })
}

// release undoes what hold has done.
func (g *gate) release(now time.Time) {
	g.change(now, func(k *ticket) { k.rest = time.Time{} })
}

// lower tells those who wait of a limit that is less than they know of.
func (g *gate) lower(kind limitKind, most int64, now time.Time) {
	g.change(now, func(k *ticket) { k.bounds.lower(kind, most) })
}

// change changes something for all who wait, and plans at once: who has become
// late by it should not have to wait to learn that.
func (g *gate) change(now time.Time, change func(*ticket)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range g.line[g.through:] {
		change(k)
	}
	g.disturb()
	g.plan(g.turnTo(now))
}

// turnTo forgets what is older than a minute, and returns the present of the
// gate: two calls look at the clock, and then meet here in another order.
func (g *gate) turnTo(now time.Time) time.Time {
	now = maxTime(now, g.passed.last)
	n := 0
	for n < g.through && !g.line[n].at.Add(window).After(now) {
		for i := range windowed {
			g.passed.counts[i].leaveOut(g.base+n, g.line[n].demand[i])
			if g.planned != nil {
				g.planned.counts[i].leaveOut(g.base+n, g.line[n].demand[i])
			}
		}
		g.line[n] = nil
		n++
	}
	g.line, g.base, g.through = g.line[n:], g.base+n, g.through-n
	return now
}

func (c *slidingSum) leaveOut(place int, amount int64) {
	if c.first == place {
		c.first++
		c.sum -= amount
	}
}

// plan works out when those who wait will be let through, if it has to be done
// anew. Those for whom it will be too late are dropped, and told at once, as are
// those who can come earlier.
func (g *gate) plan(now time.Time) {
	if g.planned != nil || !g.isWaitedFor() {
		return
	}
	next := g.passed
	next.spread = copyOf(next.spread, now)
	waiting := g.line[g.through:]
	g.line = g.line[:g.through]
	for _, k := range waiting {
		before, tried := k.at, next
		k.at, k.cause = g.earliest(&tried, &k.demand, &k.bounds, maxTime(k.rest, now))
		_, isTooMuch := k.bounds.beyond(&k.demand) // since a limit is lower
		if k.isDropped = isTooMuch || k.isLate(now); !k.isDropped {
			g.line, next = append(g.line, k), tried
			g.take(&next, k)
		}
		if k.isDropped || k.at.Before(before) {
			k.wake()
		}
	}
	clear(waiting[len(g.line)-g.through:])
	if g.isWaitedFor() {
		g.planned = &next
		g.line[g.through].wake()
	}
}
