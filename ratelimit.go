// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// limitRule is a block of limits at work.
type limitRule struct {
	match  string
	bounds bounds
	queue  time.Duration // how long a call may wait for its turn
	key    string        // what counts apart; may have placeholders
	// isSecret tells that the key has a credential in it, which must not be seen
	// on a status page or in a file.
	isSecret bool
}

var credentialPlaceholder = regexp.MustCompile(`(?i)\{http\.request\.(header\.([a-z-]*(authorization|api-key)|cookie)|cookie\.|uri|orig_uri)`)

// rule makes a block of the configuration ready for use. A burst that is the
// whole rpm is none: the minute that slides sees to that.
func (l RateLimit) rule() *limitRule {
	r := &limitRule{match: l.Match, queue: time.Duration(l.Queue), key: l.Key, isSecret: credentialPlaceholder.MatchString(l.Key)}
	r.bounds.rule, r.bounds.most = r, demand{limitRPM: l.RPM, limitTPM: l.TPM, limitIPM: l.IPM, limitRPD: l.RPD}
	if l.Burst < l.RPM {
		r.bounds.burst = l.Burst
	}
	return r
}

// ruleFor is the first rule for a model, by the name that the client used or by
// that which the upstream is asked for; nil if there is none.
func (r *router) ruleFor(model, mapped string) *limitRule {
	for _, rule := range r.limits {
		if matches(rule.match, mapped) || matches(rule.match, model) {
			return rule
		}
	}
	return nil
}

// limitNames are the limits as metrics and the status page call them.
var limitNames = [limitKinds]string{limitRPM: "rpm", limitTPM: "tpm", limitIPM: "ipm", limitRPD: "rpd"}

// gates are the gates of all projects and models, whatever site a call comes
// through. Clients choose models and bring keys of their own, so that there is a
// bound; see makeRoom.
type gates struct {
	calendar *calendar
	limit    int
	instance string // of this process, among those that share a storage
	changed  func() // there is something to save

	mu      sync.RWMutex
	all     map[gateID]*gate
	foreign map[gateID]map[string]savedGate // what others have saved, by instance
}

// gateID is what counts for itself.
type gateID struct {
	scope string // account and model
	key   string // what the operator counts apart
}

// gateName is the same for people.
type gateName struct{ project, model, key string }

// maxGates is far above the projects and models that one gateway serves, and a
// few megabytes.
const maxGates = 10_000

func newGates(c *calendar, instance string) *gates {
	return &gates{
		calendar: c, instance: instance, limit: maxGates, changed: func() {},
		all: make(map[gateID]*gate), foreign: make(map[gateID]map[string]savedGate),
	}
}

// at is the gate of a project and model.
func (s *gates) at(id gateID, name gateName, now time.Time) *gate {
	id.scope, id.key = storable(id.scope), storable(id.key)
	s.mu.RLock()
	g := s.all[id]
	s.mu.RUnlock()
	if g != nil {
		return g
	}
	id = gateID{strings.Clone(id.scope), strings.Clone(id.key)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g = s.all[id]; g != nil {
		return g
	}
	if len(s.all) >= s.limit {
		s.makeRoom(now)
	}
	g = newGate(s.calendar, name.storable(), now)
	for _, e := range s.foreign[id] {
		g.adopt(e, now)
	}
	s.all[id] = g
	return g
}

// storable names are short, and no part of the request that they come from.
func (n gateName) storable() gateName {
	return gateName{strings.Clone(storable(n.project)), strings.Clone(storable(n.model)), strings.Clone(storable(n.key))}
}

// makeRoom gives up the gate, of a few, that has let the fewest calls through
// today, and of those the one that has been idle longest: whoever floods the
// gateway with names of models or with keys makes gates that are used once. One in
// whose line somebody stands is kept. Go begins to range over a map at random.
func (s *gates) makeRoom(now time.Time) {
	var victim gateID
	var least *gateUse
	seen := 0
	for id, g := range s.all {
		if use := g.use(now); !use.isWaitedFor && (least == nil || use.isLessThan(least)) {
			victim, least = id, &use
		}
		if seen++; seen >= victims && least != nil {
			break
		}
	}
	delete(s.all, victim)
}

// gateUse is what would be lost with a gate.
type gateUse struct {
	isWaitedFor bool
	today       int64 // calls let through, and the one that it has been made for
	last        time.Time
}

func (g *gate) use(now time.Time) gateUse {
	g.mu.Lock()
	defer g.mu.Unlock()
	return gateUse{g.isWaitedFor(), max(g.countOf(&g.passed, g.calendar.day(now)), 1), g.used}
}

func (u *gateUse) isLessThan(v *gateUse) bool {
	if u.today != v.today {
		return u.today < v.today
	}
	return u.last.Before(v.last)
}

// hold closes the gates of a project and model until a time.
func (s *gates) hold(scope string, until, now time.Time) {
	scope = storable(scope)
	s.each(func(at string) bool { return at == scope }, func(g *gate) { g.hold(until, now) })
}

// lower tells the gates of a project and model of a limit that is less than those
// who wait know of.
func (s *gates) lower(scope string, kind limitKind, most int64, now time.Time) {
	scope = storable(scope)
	s.each(func(at string) bool { return at == scope }, func(g *gate) { g.lower(kind, most, now) })
}

// release undoes hold, where the scope matches.
func (s *gates) release(matches func(scope string) bool, now time.Time) {
	s.each(matches, func(g *gate) { g.release(now) })
}

func (s *gates) each(matches func(scope string) bool, do func(*gate)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, g := range s.all {
		if matches(id.scope) {
			do(g)
		}
	}
}

// list is a copy, so that nobody waits for the lock while gates are looked at.
func (s *gates) list() map[gateID]*gate {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.all)
}

// limitView is how a limit stands, as the status page shows it.
type limitView struct {
	Project  string     `json:"project"`
	Model    string     `json:"model"`
	Key      string     `json:"key,omitempty"` // what counts apart within the project
	Limit    string     `json:"limit"`         // rpm, tpm, rpd or ipm
	Value    int64      `json:"value"`
	Used     int64      `json:"used"`
	Waiting  int        `json:"waiting"`   // calls in line
	ResetsAt *time.Time `json:"resets_at"` // when nothing of it will be used any more; nil if nothing is
}

// limitViews are the limits of all gates, in order, as the gateways at work have
// them: what a reload has removed is gone.
func (m *memories) limitViews(now time.Time) (all []limitView) {
	live, list := m.liveGateways(), m.gates.list()
	for _, id := range slices.SortedFunc(maps.Keys(list), func(a, b gateID) int {
		return cmp.Or(cmp.Compare(a.scope, b.scope), cmp.Compare(a.key, b.key))
	}) {
		g := list[id]
		if rule := currentRule(live, g.lastRule(), id.scope, g.name.model); rule != nil {
			all = append(all, g.views(m.boundsOf(rule, id.scope, now), now)...)
		}
	}
	return all
}

// currentRule is the rule that the last call of a gate went by or, after a reload, the
// one that has taken its place; nil if none has, or there was no call. Where projects are
// split otherwise since, the counts of before are over.
func currentRule(live []*gateway, last *limitRule, scope, model string) *limitRule {
	if last == nil || slices.ContainsFunc(live, func(g *gateway) bool { return slices.Contains(g.router.limits, last) }) {
		return last
	}
	for _, g := range live {
		if rule := g.router.successor(last, model); rule != nil && rule.key == last.key && g.router.serves(scope) {
			return rule
		}
	}
	return nil
}

// successor is the first rule for a model that an upstream is asked for, or for names
// that another rule was for: nothing but its glob tells what the client has named.
func (r *router) successor(of *limitRule, model string) *limitRule {
	i := slices.IndexFunc(r.limits, func(rule *limitRule) bool {
		return matches(rule.match, model) || rule.match == of.match || matches(rule.match, of.match)
	})
	if i < 0 {
		return nil
	}
	return r.limits[i]
}

// serves tells whether calls are sent under the account of a scope. One that is a
// hash may be anybody's.
func (r *router) serves(scope string) bool {
	account, _, isPlain := strings.Cut(scope, "\n")
	return !isPlain || slices.ContainsFunc(r.upstreams, func(u *upstream) bool { return u.owns(account) })
}

// lastRule is that of the last call.
func (g *gate) lastRule() *limitRule {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rule
}

// views are limits, and how much of them is used.
func (g *gate) views(b bounds, now time.Time) (all []limitView) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now = g.turnTo(now)
	today := g.calendar.day(now)
	for i, most := range b.most {
		if most == 0 {
			continue
		}
		v := limitView{
			Project: g.name.project, Model: g.name.model, Key: g.name.key, Limit: limitNames[i],
			Value: most, Waiting: len(g.line) - g.through,
		}
		switch {
		case limitKind(i) == limitRPD:
			v.Used, v.ResetsAt = g.countOf(&g.passed, today), new(today.ends.UTC())
		case g.through > 0:
			v.Used, v.ResetsAt = g.passed.counts[i].sum, new(g.line[g.through-1].at.Add(window).UTC())
		}
		all = append(all, v)
	}
	return all
}

// learned is a limit that an upstream has told of, below what is configured.
type learned struct{ most int64 }

// learnedKey is where a limit of a project and model is kept.
func learnedKey(scope string, kind limitKind) string { return scope + "\n" + limitNames[kind] }

// boundsOf are the limits of a rule as they are now.
func (r *router) boundsOf(rule *limitRule, scope string, now time.Time) bounds {
	return r.state.boundsOf(rule, scope, now)
}

// boundsOf are the limits of a rule, or what an upstream has said to be less.
func (m *memories) boundsOf(rule *limitRule, scope string, now time.Time) bounds {
	b := rule.bounds
	if m.learned.isEmpty() {
		return b
	}
	for i := range b.most {
		if known, ok := m.learned.get(learnedKey(scope, limitKind(i)), now); ok {
			b.lower(limitKind(i), known.most)
		}
	}
	return b
}

// lower takes a limit over that an upstream has told of in a refusal, if it is
// below ours: until the next day, because Google changes them by tier and by hand.
func (t *trip) lower(l *leg, a *attempt, now time.Time) {
	if l.rule == nil || a.problem == nil {
		return
	}
	scope := scope(l.station, l.seat)
	known := t.boundsOf(l.rule, scope, now) // other calls may have learned of it
	for _, q := range a.problem.quotas {
		kind := q.kind()
		if kind == limitNone || q.value <= 0 || q.value >= known.most[kind] {
			continue
		}
		t.state.learned.put(learnedKey(scope, kind), learned{q.value}, t.state.calendar.day(now).ends, now)
		t.state.gates.lower(scope, kind, q.value, now)
		a.lowered = append(a.lowered, lowered{limitNames[kind], known.most[kind], q.value})
		known.lower(kind, q.value)
	}
}

// lowered is a limit that has been lowered, for the log.
type lowered struct {
	limit    string
	from, to int64
}
