// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// occupancy is what calls have taken of the limits, up to one of those in line.
type occupancy struct {
	counts [windowed]slidingSum
	spread *rate.Limiter // nil if the limits allow volleys
	day    *day          // of the last call
	today  int64         // calls on it
	last   time.Time     // when the last call passes
	cause  limitKind     // for which it has to wait until then
}

// slidingSum is a sum over the last minute.
type slidingSum struct {
	first int // the place of the first call that is counted
	sum   int64
}

// earliest finds when a call can be let through behind those that are counted,
// and for which limit not before. What is out of the count by then is taken out
// of it.
func (g *gate) earliest(t *occupancy, d *demand, b *bounds, from time.Time) (at time.Time, cause limitKind) {
	at, cause = from, limitNone
	wait := func(until time.Time, kind limitKind) {
		if until.After(at) {
			at, cause = until, kind
		}
	}
	wait(t.last, t.cause)
	for i := range t.counts {
		c := &t.counts[i]
		need := min(d[i], b.most[i]) // more would never fit; see beyond
		for need > 0 && c.sum+need > b.most[i] {
			oldest := g.line[c.first-g.base]
			wait(oldest.at.Add(window), limitKind(i))
			c.leaveOut(c.first, oldest.demand[i])
		}
	}
	if b.burst > 0 && t.spread != nil {
		wait(at.Add(untilToken(t.spreadBy(b), at)), limitRPM)
	}
	if b.most[limitRPD] > 0 {
		if today := g.calendar.day(at); g.countOf(t, today)+1 > b.most[limitRPD] {
			wait(today.ends, limitRPD)
		}
	}
	return at, cause
}

// countOf is how many calls pass on a day, other processes' included.
func (g *gate) countOf(t *occupancy, d *day) (n int64) {
	if t.day != nil && t.day.name == d.name {
		n = t.today
	}
	for _, p := range g.peers {
		if p.day == d.name {
			n += p.today
		}
	}
	return n
}

// take adds a call to what has been taken.
func (g *gate) take(t *occupancy, k *ticket) {
	for i := range t.counts {
		t.counts[i].sum += k.demand[i]
	}
	if k.bounds.burst > 0 {
		t.spread = t.spreadBy(&k.bounds)
		t.spread.ReserveN(k.at, 1)
	}
	if today := g.calendar.day(k.at); today.replaces(t.day) {
		t.day, t.today = today, 0
	}
	t.today++
	t.last, t.cause = k.at, k.cause
}

// spreadBy is the limiter that spreads calls as the bounds want it, from the last
// call on. Sites that share a project may want different things, and limits
// change.
func (t *occupancy) spreadBy(b *bounds) *rate.Limiter {
	limit, burst := rate.Limit(float64(b.most[limitRPM])/window.Seconds()), int(b.burst)
	switch {
	case t.spread == nil:
		return rate.NewLimiter(limit, burst)
	case t.spread.Limit() == limit && t.spread.Burst() == burst:
		return t.spread
	}
	l := copyOf(t.spread, t.last)
	l.SetLimitAt(t.last, limit)
	l.SetBurstAt(t.last, burst)
	return l
}

// untilToken is how long a limiter makes a call wait. It takes nothing. Less than
// a microsecond is what is left of rounding.
func untilToken(l *rate.Limiter, at time.Time) time.Duration {
	if wait := tokenTime(1-l.TokensAt(at), l); wait >= time.Microsecond {
		return wait
	}
	return 0
}

// copyOf is a limiter that goes on like another, for a plan that may be dropped.
func copyOf(l *rate.Limiter, at time.Time) *rate.Limiter {
	if l == nil {
		return nil
	}
	c := rate.NewLimiter(l.Limit(), l.Burst())
	c.ReserveN(at.Add(-tokenTime(max(l.TokensAt(at), 0), l)), l.Burst()) // was empty then
	return c
}

// tokenTime is how long it takes a limiter to make tokens.
func tokenTime(tokens float64, l *rate.Limiter) time.Duration {
	return time.Duration(math.Ceil(tokens / float64(l.Limit()) * float64(time.Second)))
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
