// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"strconv"
	"testing"
	"time"
)

// BenchmarkAdmission is what the limits cost a call: to find its gate, to ask when
// there is room, and to pass. Issue #4 allows two microseconds.
func BenchmarkAdmission(b *testing.B) {
	const models = 1_000
	var ids [models]gateID
	for i := range ids {
		ids[i] = gateID{scope: "project-of-a-client@generativelanguage.googleapis.com\nmodel-" + strconv.Itoa(i)}
	}
	wide := bounds{most: demand{limitRPM: 1_000, limitTPM: 1 << 40, limitIPM: 1_000, limitRPD: 1 << 40}}
	spread := bounds{most: wide.most, burst: 100}
	d := demand{1, 1_000, 1, 1}
	pass := func(b *testing.B, s *gates, limits *bounds, i int, now time.Time) {
		g := s.at(ids[i%models], gateName{}, now)
		if at, _ := g.ready(&d, limits, now, now); at.After(now) {
			b.Fatal("no room")
		}
		g.admit(&d, limits, now)
	}
	for name, limits := range map[string]*bounds{"passes": &wide, "spread": &spread} {
		b.Run(name, func(b *testing.B) {
			s, now := newState().gates, midday
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now = now.Add(time.Millisecond) // sixty calls a minute at each
				pass(b, s, limits, i, now)
			}
		})
	}
	b.Run("full", func(b *testing.B) {
		s := newState().gates
		g := s.at(ids[0], gateName{}, midday)
		for range wide.most[limitRPM] {
			g.admit(&d, &wide, midday)
		}
		b.ReportAllocs()
		for b.Loop() {
			if at, _ := s.at(ids[0], gateName{}, midday).ready(&d, &wide, midday, midday); !at.After(midday) {
				b.Fatal("room")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		s := newState().gates
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for i := 0; p.Next(); i++ {
				now := time.Now()
				g := s.at(ids[i%models], gateName{}, now)
				g.ready(&d, &wide, now, now)
				g.admit(&d, &wide, now)
			}
		})
	})
}

// BenchmarkLine is what it costs to take a place in line, to ask for one's turn
// and to go away again, behind those who wait already.
func BenchmarkLine(b *testing.B) {
	for _, waiting := range []int{0, 1, 1_000} {
		b.Run(strconv.Itoa(waiting), func(b *testing.B) {
			come := lineOf(waiting)
			b.ReportAllocs()
			for b.Loop() {
				come()
			}
		})
	}
}

// lineOf returns how a call comes and goes at a gate that is closed for a minute,
// and where so many wait.
func lineOf(waiting int) (come func()) {
	limits := bounds{most: demand{limitRPM: 1_000, limitTPM: 1 << 40}}
	d := demand{limitRPM: 1, limitTPM: 1_000}
	g := newState().gates.at(gateID{scope: "full"}, gateName{}, midday)
	for range limits.most[limitRPM] {
		g.admit(&d, &limits, midday)
	}
	patience := waitLimit{queue: time.Hour, since: midday, deadline: midday.Add(time.Hour)}
	enter := func() *ticket { return g.enter(&d, &limits, patience, midday, midday) }
	for range waiting {
		enter()
	}
	return func() {
		k := enter()
		g.look(k, midday)
		g.leave(k)
	}
}
