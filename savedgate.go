// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"
)

// savedGate is what one process has let through to a project and model. Each
// process counts for itself and adds what the others have saved, so that
// instances that share a storage share their limits, a few seconds late.
type savedGate struct {
	Instance string        `json:"instance"`
	Scope    string        `json:"scope"` // account and model
	Key      string        `json:"key,omitempty"`
	Project  string        `json:"project"` // the names, for people
	Model    string        `json:"model"`
	Name     string        `json:"name,omitempty"`
	Day      string        `json:"day"` // of Pacific time
	Today    int64         `json:"today"`
	Recent   []savedTicket `json:"recent,omitempty"` // in order
}

// savedTicket is a call of the last minute: its number, when it passed, in
// milliseconds of Unix time, and what it took of rpm, tpm and ipm when it was
// saved. What is settled after that does not become known.
type savedTicket [2 + windowed]int64

// maxRecent is how many calls of the last minute are saved; the oldest are left
// out, which are the first to be forgotten anyway.
const maxRecent = 10_000

// saved are the rows of all processes that still matter.
func (s *gates) saved(now time.Time) (all []savedGate) {
	for id, g := range s.list() {
		if e := g.saved(now); e.matters(now, s.calendar) {
			e.Instance, e.Scope, e.Key = s.instance, id.scope, id.key
			all = append(all, e)
		}
	}
	all = append(all, s.others(now)...)
	slices.SortFunc(all, func(a, b savedGate) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Instance, b.Instance))
	})
	return all
}

// others are the rows of other processes. Those that do not matter any more are
// forgotten.
func (s *gates) others(now time.Time) (all []savedGate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, rows := range s.foreign {
		maps.DeleteFunc(rows, func(_ string, e savedGate) bool { return !e.matters(now, s.calendar) })
		if len(rows) == 0 {
			delete(s.foreign, id)
		}
		all = slices.AppendSeq(all, maps.Values(rows))
	}
	return all
}

// matters tells that a row is of this day, or has calls of the last minute.
func (e *savedGate) matters(now time.Time, c *calendar) bool {
	return e.Today > 0 && e.Day == c.day(now).name || e.isRecent(now)
}

func (e *savedGate) isRecent(now time.Time) bool {
	n := len(e.Recent)
	return n > 0 && e.Recent[n-1].time().Add(window).After(now)
}

// adopt takes over what another process has saved. It is kept for the case that
// the gate is given up and made again.
func (s *gates) adopt(e savedGate, now time.Time) {
	if e.Instance == s.instance || !e.matters(now, s.calendar) {
		return
	}
	if !e.isRecent(now) {
		e.Recent = nil
	}
	id := gateID{e.Scope, e.Key}
	if s.keep(id, e) {
		s.at(id, gateName{e.Project, e.Model, e.Name}, now).adopt(e, now)
	}
}

// keep is for a bounded number of processes and gates.
func (s *gates) keep(id gateID, e savedGate) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := s.foreign[id]
	_, isKnown := rows[e.Instance]
	if !isKnown && (len(rows) >= maxInstances || rows == nil && len(s.foreign) >= s.limit) {
		return false
	}
	if rows == nil {
		rows = make(map[string]savedGate)
		s.foreign[id] = rows
	}
	rows[e.Instance] = e
	return true
}

var errNoGate = errors.New("no counts of a gate")

func (e savedGate) check(now time.Time) error {
	isSound := isInstance(e.Instance) && isDay(e.Day) && e.Scope != "" && e.Today >= 0 && e.Today <= maxSum && len(e.Recent) <= maxRecent
	for _, name := range []string{e.Scope, e.Key, e.Project, e.Model, e.Name} {
		isSound = isSound && name == storable(name)
	}
	for i, k := range e.Recent {
		isSound = isSound && k[0] > 0 && k[1] > 0 &&
			slices.Min(k[:]) >= 0 && slices.Max(k[2:]) <= maxAmount && (i == 0 || k[1] >= e.Recent[i-1][1])
	}
	switch n := len(e.Recent); {
	case !isSound:
		return errNoGate
	case n > 0 && e.Recent[n-1].time().After(now.Add(horizon)):
		return errAhead
	}
	return nil
}

// maxAmount is more than any call takes of a limit.
const maxAmount = 1e12

func (k savedTicket) time() time.Time { return time.UnixMilli(k[1]) }

// isAfter tells calls of one process apart that came in one millisecond. The
// numbers begin anew if it has given its gate up.
func (k savedTicket) isAfter(last savedTicket) bool { return k[0] > last[0] || k[1] > last[1] }

// saved is what this process has let through. The calls are in the order of the
// time that has passed, which that of the wall is not where the clock was set
// back: none is saved as before the one before it.
func (g *gate) saved(now time.Time) savedGate {
	g.mu.Lock()
	defer g.mu.Unlock()
	now = g.turnTo(now)
	today := g.calendar.day(now)
	e := savedGate{Project: g.name.project, Model: g.name.model, Name: g.name.key, Day: today.name}
	if g.passed.day != nil && g.passed.day.name == today.name {
		e.Today = g.passed.today
	}
	var at int64
	for _, k := range g.line[max(0, g.through-maxRecent):g.through] {
		if k.serial > 0 {
			at = max(at, k.at.UnixMilli())
			e.Recent = append(e.Recent, savedTicket{k.serial, at, k.demand[limitRPM], k.demand[limitTPM], k.demand[limitIPM]})
		}
	}
	return e
}

// adopt adds what another process has let through since it was heard of last. A
// clock that is ahead of ours does not close the gate for longer.
func (g *gate) adopt(e savedGate, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peers == nil {
		g.peers = make(map[string]peer)
	}
	today := g.calendar.day(now).name
	maps.DeleteFunc(g.peers, func(_ string, p peer) bool { return p.day != today })
	known := g.peers[e.Instance]
	for _, k := range e.Recent {
		if !k.isAfter(known.last) {
			continue
		}
		known.last = k
		if at := k.time(); at.Add(window).After(now) {
			g.insert(&ticket{at: minTime(at, now), demand: demand{limitRPM: k[2], limitTPM: k[3], limitIPM: k[4]}})
		}
	}
	known.day, known.today = e.Day, e.Today
	g.peers[e.Instance] = known
	g.disturb()
}

// insert adds a call to those that were let through, where it belongs by time.
func (g *gate) insert(k *ticket) {
	i := g.through
	for i > 0 && g.line[i-1].at.After(k.at) {
		i--
	}
	g.line = slices.Insert(g.line, i, k)
	g.through++
	for n := range g.passed.counts {
		g.passed.counts[n].sum += k.demand[n]
	}
}

// savedLimit is a limit that an upstream has told of.
type savedLimit struct {
	Key   string   `json:"key"`
	Most  int64    `json:"most"`
	Until unixTime `json:"until"`
}

func (m *memories) savedLimits(now time.Time) (all []savedLimit) {
	m.learned.each(now, func(key string, l learned, until time.Time) {
		all = append(all, savedLimit{key, l.most, unixTimeOf(until)})
	})
	return all
}

func (e savedLimit) check(now time.Time) error {
	if e.Most <= 0 {
		return errors.New("no limit")
	}
	return e.Until.check(now)
}
