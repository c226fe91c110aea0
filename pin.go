// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"time"
)

// pinned finds out where a call belongs that names a file or a cache of the API,
// or carries thought signatures: to the upstream and project that they came from,
// as far as that is known, else to the first (contract §4). Other calls belong
// nowhere: nil.
func (r *router) pinned(x *exchange) *tie {
	ties := x.body.wants().ties
	if len(ties) == 0 {
		return nil
	}
	for _, name := range ties {
		if known, ok := r.state.ties.get(name, r.now()); ok && r.has(x, known) {
			return &known
		}
	}
	home := r.home(x)
	return &home
}

// home is where files are uploaded to, and signatures assumed to come from. A
// call that lacks the first key has no project there.
func (r *router) home(x *exchange) tie {
	u := r.nativeTo(&x.call)
	if len(u.keys) == 0 {
		return tie{Upstream: u.name}
	}
	if first := x.keysOf(u)[0]; first != nil {
		return tie{Upstream: u.name, Project: first.project}
	}
	return tie{Upstream: u.name}
}

// has tells whether a place is still configured, and open to the call.
func (r *router) has(x *exchange, known tie) bool {
	return slices.ContainsFunc(r.upstreams, func(u *upstream) bool {
		isProject := func(k *apiKey) bool { return k != nil && k.project == known.Project }
		return u.name == known.Upstream && (len(u.keys) == 0 || slices.ContainsFunc(x.keysOf(u), isProject))
	})
}

// mattersWhere tells that a call that may turn out to be pinned could go to the
// wrong place now. It could not if it goes home, and nothing belongs elsewhere.
func (t *trip) mattersWhere() bool {
	if len(t.stations) == 1 && len(t.stations[0].seats) == 1 {
		return false
	}
	l, ok := t.next(t.now())
	home := t.home(t.x)
	isHome := ok && home.allows(l.station) && home.allowsKey(l.key)
	return !isHome || !t.state.ties.isEmpty()
}

// allows tells whether a call that belongs there may go to an upstream.
func (p *tie) allows(s *station) bool { return p == nil || p.Upstream == s.name }

func (p *tie) allowsKey(key *apiKey) bool { return p == nil || key == nil || p.Project == key.project }

// tieLife is for how long the origin of a thought signature is remembered after
// it was last seen.
const tieLife = 24 * time.Hour

// tie remembers where the parts of an answer belong, unless that is what is
// assumed anyway.
func (r *router) tie(x *exchange) {
	here := tie{Upstream: x.upstream}
	if !x.isOwnKey {
		here.Project = x.project
	}
	if here == r.home(x) {
		return
	}
	now := r.now()
	for _, name := range x.facts.ties {
		r.state.ties.put(name, here, now.Add(tieLife), now)
	}
}
