// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"time"
)

// station is an upstream on the way of a call.
type station struct {
	*upstream
	model string // what it is asked for
	draws bool   // an image may come of it
	way   way    // how the call gets there
	seats []seat // in the order in which they are tried

	isUntold bool    // whether its form has words for the call is still to be found out
	isEdit   bool    // of images, see course
	dialect  dialect // what the other one of Google's APIs has to be told differently

	rule   *limitRule // nil: no limits of the configuration
	demand demand     // what the call takes of them

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
	project  string // the same for people
	spent    bool   // it has been rejected in this call
	refusals int    // for its limits, in this call

	gate   *gate // nil: no limits of the configuration
	bounds bounds
}

// leg is one attempt: where it goes, how long it has to wait before, and what
// is sent.
type leg struct {
	*station
	*seat
	wait       time.Duration
	standing   standing
	isDoubtful bool // demoted, or its key has been rejected: only if there is nothing else
	fits       bool // the wait ends before the deadline, and is not longer than a queue may be
	cause      cause
	own        time.Time // before, this call leaves it alone
	shared     time.Time // before, no call of its scope can be sent
	ticket     *ticket   // its place in the line of a gate, while it waits or when it has passed

	boarded  time.Time
	trial    trial // its place at the upstream
	sent     rendering
	repaired string // what had to be changed
}

// station is an upstream with its keys in the order of this call.
func (t *trip) station(u *upstream) station {
	s := station{upstream: u, model: u.mapModel(t.x.model)}
	s.draws = t.isImageModel(t.x.model, s.model)
	s.rule = t.ruleFor(t.x.model, s.model)
	if len(u.keys) == 0 {
		s.seats = []seat{t.seat(&s, nil)}
		return s
	}
	s.seats = make([]seat, 0, len(u.keys))
	first := 0
	if len(u.keys) > 1 {
		first = int(u.rotation.Add(1)-1) & (1<<16 - 1)
	}
	keys := t.x.keysOf(u)
	for i := range keys {
		if key := keys[(first+i)%len(keys)]; key != nil {
			s.seats = append(s.seats, t.seat(&s, key))
		}
	}
	return s
}

func (t *trip) seat(s *station, key *apiKey) seat {
	switch {
	case key != nil:
		return seat{key: key, account: key.account, project: key.project}
	case s.credential != nil:
		return seat{account: vertexAccount(s.project), project: s.project}
	case s.hasCredential:
		return seat{account: "upstream-" + s.name, project: s.name}
	}
	// A key of Google's is another account at an aggregator.
	return seat{account: t.x.clientProject + "@" + cmp.Or(s.base, t.x.base).Host, project: t.x.clientProject}
}

// vertexAccount is who is held responsible for calls with Google's credentials.
func vertexAccount(project string) string { return "vertex-" + project }

// attributed is a verdict that knows whose filter has spoken.
func (s *station) attributed(v verdict) verdict {
	v.isForeign = v.isForeign || s.format == formatOpenAI && v.class.isBlock()
	return v
}

// scope is what shares a quota: an account and a model (wire §10).
func scope(s *station, at *seat) string { return at.account + "\n" + bareModel(s.model) }

// isBetter prefers what can be in time to what works, that to what is ready at
// once, and that to what comes first in the configuration.
func (l leg) isBetter(than leg) bool {
	switch {
	case l.fits != than.fits:
		return l.fits
	case l.fits && l.isDoubtful != than.isDoubtful: // where none fits, the client hears of the shortest wait
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
