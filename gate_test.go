// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var (
	midday = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC) // in California
	once   = demand{limitRPM: 1, limitRPD: 1}
)

func gateOf(tb testing.TB) *gate {
	tb.Helper()
	days, err := pacificDays()
	if err != nil {
		tb.Fatal(err)
	}
	return newGate(days, gateName{}, time.Time{})
}

// patient is a call that waits as long as it takes.
func patient(now time.Time) waitLimit {
	return waitLimit{queue: 10_000 * time.Hour, since: now, deadline: now.Add(10_000 * time.Hour)}
}

// spread is how calls pass that come at the same time: when, after the first.
func spread(tb testing.TB, b bounds, calls int) (at []time.Duration) {
	tb.Helper()
	g, now := gateOf(tb), midday
	var line []*ticket
	for range calls {
		line = append(line, g.enter(&once, &b, patient(midday), midday, midday))
	}
	for _, k := range line {
		now = maxTime(now, g.look(k, now).at)
		if !g.claim(k, now) {
			tb.Fatalf("%v: not let through at %v, as planned", b, now.Sub(midday))
		}
		at = append(at, now.Sub(midday))
	}
	return at
}

// isNear allows for what the limiter's fractions of a token leave.
func isNear(a, b time.Duration) bool { return (a - b).Abs() <= 10*time.Microsecond }

// A burst is how many calls pass at once; from then on they are spread evenly.
func TestSpreading(t *testing.T) {
	for _, c := range []struct {
		rpm, burst int64
		want       []float64 // seconds
	}{
		{10, 1, []float64{0, 6, 12, 18, 24, 30, 36, 42, 48, 54, 60, 66}},
		{10, 3, []float64{0, 0, 0, 6, 12, 18, 24, 30, 36, 42, 60, 60, 60, 66}}, // no more than 10 in any minute
		{3, 0, []float64{0, 0, 0, 60, 60, 60, 120}},
		{60, 59, append(make([]float64, 59), 1, 60, 60)},
	} {
		at := spread(t, bounds{most: demand{limitRPM: c.rpm}, burst: c.burst}, len(c.want))
		for i, want := range c.want {
			if !isNear(at[i], time.Duration(want*float64(time.Second))) {
				t.Errorf("rpm %d, burst %d: call %d passes after %v, want %v s", c.rpm, c.burst, i, at[i], want)
			}
		}
	}
}

// A call is let through when it was planned, however short the intervals are:
// rounding must not cost it its place.
func TestPlannedTimeIsKeptAtHighRates(t *testing.T) {
	for _, rpm := range []int64{7_000, 30_000, 60_001, 1_000_003} {
		at := spread(t, bounds{most: demand{limitRPM: rpm}, burst: 1}, 200)
		if got, want := at[len(at)-1], 199*time.Minute/time.Duration(rpm); !isNear(got, want) {
			t.Errorf("rpm %d: 199 intervals take %v, want %v", rpm, got, want)
		}
	}
}

// Calls look at the clock before they come to the gate, and may arrive in another
// order. That is no reason to wait.
func TestClocksThatCross(t *testing.T) {
	g, b := gateOf(t), bounds{most: demand{limitRPM: 100}}
	if _, ok := g.admit(&once, &b, midday.Add(time.Microsecond)); !ok {
		t.Fatal("not admitted")
	}
	if at, kind := g.ready(&once, &b, midday, midday); at.After(midday) {
		t.Errorf("has to wait %v for limit %d", at.Sub(midday), kind)
	}
	if _, ok := g.admit(&once, &b, midday); !ok {
		t.Error("not admitted though there is room")
	}
}

// Where the head of the line comes late, the call behind it, whose turn had come
// but who was not the next, is told of its new turn: it sleeps until then.
func TestWhoIsDueBehindALateHeadIsWoken(t *testing.T) {
	g, b := gateOf(t), bounds{most: demand{limitRPM: 10}, burst: 1}
	g.admit(&once, &b, midday)
	head, behind := g.enter(&once, &b, patient(midday), midday, midday), g.enter(&once, &b, patient(midday), midday, midday)
	late := midday.Add(13 * time.Second)
	if turn := g.look(behind, late); turn.at.After(late) || turn.isNext {
		t.Fatalf("%+v, want due and not next", turn)
	}
	if !g.claim(head, late) {
		t.Fatal("the head was not let through")
	}
	select {
	case <-behind.moved:
	default:
		t.Errorf("nobody has told it that its turn is now in %v, and that it is next", g.look(behind, late).at.Sub(late))
	}
}

// What ready foresees is what enter plans, also when the limits have changed.
func TestReadyAgreesAfterLimitsHaveChanged(t *testing.T) {
	g, before, after := gateOf(t), bounds{most: demand{limitRPM: 60}, burst: 1}, bounds{most: demand{limitRPM: 10}, burst: 1}
	g.admit(&once, &before, midday)
	at, _ := g.ready(&once, &after, midday, midday)
	if planned := g.look(g.enter(&once, &after, patient(midday), midday, midday), midday).at; !planned.Equal(at) {
		t.Errorf("foreseen in %v, planned in %v", at.Sub(midday), planned.Sub(midday))
	}
}

// passing is a call that was let through, as the world remembers it.
type passing struct {
	at time.Time
	*ticket
	took demand
}

// gateWorld lets calls come, wait, leave and pass at random, and knows by brute
// force what has to become of them.
type gateWorld struct {
	*testing.T
	*gate
	random *rand.Rand
	now    time.Time
	bounds bounds
	log    []passing
	line   []*ticket
}

// any is a number from 1 to n.
func (w *gateWorld) any(n int64) int64 { return 1 + w.random.Int64N(n) }

func (w *gateWorld) newBounds() (b bounds) {
	most := demand{limitRPM: 12, limitTPM: 1_000, limitIPM: 12, limitRPD: 40}
	for kind := range most {
		if w.random.IntN(2) == 0 {
			b.most[kind] = 1 + w.any(most[kind])
		}
	}
	if rpm := b.most[limitRPM]; rpm > 1 && w.random.IntN(2) == 0 {
		b.burst = w.any(rpm - 1)
	}
	return b
}

func (w *gateWorld) newDemand() demand {
	d := demand{1, 1, 1, 1}
	for _, kind := range []limitKind{limitTPM, limitIPM} {
		if most := w.bounds.most[kind]; most > 0 {
			d[kind] = w.any(w.any(most))
		}
	}
	return d
}

// earliest is when the limits let a call through, by the log alone. The slack is
// what the limiter's fractions of a token may take away from it.
func (w *gateWorld) earliest(d *demand, from time.Time) (at time.Time, slack time.Duration) {
	at = maxTime(from, w.now)
	for kind := range windowed {
		for _, p := range w.recent() {
			if w.bounds.most[kind] > 0 && w.sum(kind, at)+d[kind] > w.bounds.most[kind] {
				at = maxTime(at, p.at.Add(window))
			}
		}
	}
	if burst := float64(w.bounds.burst); burst > 0 {
		perSecond := float64(w.bounds.most[limitRPM]) / 60
		tokens, last := burst, midday.AddDate(-1, 0, 0)
		for _, p := range w.log {
			tokens, last = min(burst, tokens+p.at.Sub(last).Seconds()*perSecond)-1, p.at
		}
		if wait := (1 - tokens) / perSecond; wait > at.Sub(last).Seconds() {
			at = last.Add(time.Duration(wait * float64(time.Second)))
		}
		slack = time.Duration(3000/perSecond) + time.Microsecond // 3e-6 tokens
	}
	if rpd := w.bounds.most[limitRPD]; rpd > 0 && w.onDay(at) >= rpd {
		y, m, n := at.In(pacific).Date()
		at = time.Date(y, m, n+1, 0, 0, 0, 0, pacific)
	}
	return at, slack
}

// recent is the log of the last minute.
func (w *gateWorld) recent() []passing {
	n := len(w.log)
	for n > 0 && w.log[n-1].at.Add(window).After(w.now) {
		n--
	}
	return w.log[n:]
}

// sum is what was taken in the minute before, and is not yet free at a time.
func (w *gateWorld) sum(kind int, at time.Time) (sum int64) {
	for _, p := range w.recent() {
		if p.at.Add(window).After(at) {
			sum += p.took[kind]
		}
	}
	return sum
}

func (w *gateWorld) onDay(at time.Time) (n int64) {
	y, m, d := at.In(pacific).Date()
	begins, ends := time.Date(y, m, d, 0, 0, 0, 0, pacific), time.Date(y, m, d+1, 0, 0, 0, 0, pacific)
	for _, p := range w.log {
		if !p.at.Before(begins) && p.at.Before(ends) {
			n++
		}
	}
	return n
}

// pass records that a call was let through, and checks that it may.
func (w *gateWorld) pass(k *ticket) {
	w.Helper()
	if at, slack := w.earliest(&k.demand, maxTime(k.rest, w.now)); at.Sub(w.now) > slack {
		w.Fatalf("let through %v too early: %v under %v", at.Sub(w.now), k.demand, w.bounds)
	}
	w.log = append(w.log, passing{w.now, k, k.demand})
	for kind := range windowed {
		if most := w.bounds.most[kind]; most > 0 && w.sum(kind, w.now) > most {
			w.Fatalf("%d of %s in a minute, at most %d", w.sum(kind, w.now), limitNames[kind], most)
		}
	}
	if most := w.bounds.most[limitRPD]; most > 0 && w.onDay(w.now) > most {
		w.Fatalf("%d calls on one day, at most %d", w.onDay(w.now), most)
	}
}

// arrive lets a call come. It must get what ready has foreseen.
func (w *gateWorld) arrive() {
	d, from := w.newDemand(), w.now
	if w.random.IntN(10) == 0 {
		from = from.Add(time.Duration(w.any(int64(20 * time.Second))))
	}
	at, kind := w.ready(&d, &w.bounds, from, w.now)
	if at.Before(from) || kind != limitNone && w.bounds.most[kind] == 0 {
		w.Fatalf("ready in %v, from %v on, waits for limit %d", at.Sub(w.now), from.Sub(w.now), kind)
	}
	k, ok := w.admit(&d, &w.bounds, w.now)
	if want := !at.After(w.now) && len(w.line) == 0; ok != want && !from.After(w.now) {
		w.Fatalf("admitted: %v, ready in %v behind %d", ok, at.Sub(w.now), len(w.line))
	}
	if ok {
		w.pass(k)
		return
	}
	k = w.enter(&d, &w.bounds, patient(w.now), from, w.now)
	w.line = append(w.line, k)
	if planned := w.look(k, w.now).at; !isNear(planned.Sub(at), 0) {
		w.Fatalf("ready in %v, planned in %v", at.Sub(w.now), planned.Sub(w.now))
	}
}

// serve lets through whose turn has come, and checks when that of the next is.
func (w *gateWorld) serve() {
	for len(w.line) > 0 {
		head := w.line[0]
		want, slack := w.earliest(&head.demand, maxTime(head.rest, w.now))
		turn := w.look(head, w.now)
		if late := turn.at.Sub(want); turn.at.After(w.now) && (late > slack || late < -slack) {
			w.Fatalf("planned in %v, possible in %v (%v under %v)", turn.at.Sub(w.now), want.Sub(w.now), head.demand, w.bounds)
		}
		if last := w.line[len(w.line)-1]; last != head && w.claim(last, w.now) {
			w.Fatal("let through out of turn")
		}
		if isDue := !turn.at.After(w.now); w.claim(head, w.now) != isDue {
			w.Fatalf("planned in %v, and claim says otherwise", turn.at.Sub(w.now))
		} else if !isDue {
			return
		}
		w.pass(head)
		w.line = w.line[1:]
	}
}

// pause lets time pass: to the next turn exactly, or a while.
func (w *gateWorld) pause() {
	if len(w.line) > 0 && w.random.IntN(2) == 0 {
		w.now = maxTime(w.now, w.look(w.line[0], w.now).at)
		return
	}
	w.now = w.now.Add(time.Duration(math.Exp(w.random.Float64() * math.Log(float64(90*time.Second)))))
}

// disturb does what changes the plan.
func (w *gateWorld) disturb() {
	switch w.random.IntN(3) {
	case 0:
		if n := len(w.line); n > 0 {
			i := w.random.IntN(n)
			w.leave(w.line[i])
			w.line = slices.Delete(w.line, i, i+1)
		}
	case 1:
		if n := len(w.log); n > 0 {
			p := &w.log[n-1-w.random.IntN(min(n, 5))]
			tokens, images := w.any(2*p.took[limitTPM]), w.any(p.took[limitIPM]+2)
			w.settle(p.ticket, tokens, images, w.now)
			if p.at.Add(window).After(w.now) {
				p.took[limitTPM], p.took[limitIPM] = tokens, max(p.took[limitIPM], images)
			}
		}
	default:
		w.hold(w.now.Add(time.Duration(w.any(int64(5*time.Second)))), w.now)
	}
}

// Whatever happens: never more than the limits, never later than needed, in the
// order of arrival, and nothing is lost when somebody leaves.
func TestGateUnderAnyPattern(t *testing.T) {
	days := []time.Time{
		midday,
		time.Date(2026, 11, 21, 23, 59, 0, 0, pacific),
		time.Date(2026, 3, 8, 1, 59, 0, 0, pacific), time.Date(2026, 3, 8, 23, 58, 0, 0, pacific), // 23 hours
		time.Date(2026, 11, 1, 0, 59, 0, 0, pacific), time.Date(2026, 11, 1, 23, 58, 0, 0, pacific), // 25 hours
	}
	first := rand.Uint64()
	for n := range uint64(200) {
		seed := first + n
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			w := &gateWorld{T: t, gate: gateOf(t), random: random, now: days[random.IntN(len(days))]}
			w.bounds = w.newBounds()
			isCalm := random.IntN(2) == 0 // nobody interferes
			for range 100 {
				for range random.IntN(4) {
					w.arrive()
				}
				if !isCalm && random.IntN(4) == 0 {
					w.disturb()
				}
				w.serve()
				w.pause()
			}
			for _, k := range w.line {
				w.leave(k)
			}
			w.line = nil
			d := w.newDemand()
			want, slack := w.earliest(&d, w.now)
			if at, _ := w.ready(&d, &w.bounds, w.now, w.now); at.Sub(want).Abs() > slack {
				t.Errorf("after all have left: ready in %v, want %v", at.Sub(w.now), want.Sub(w.now))
			}
		})
	}
}

// What a newcomer is told holds if nobody interferes.
func TestAnnouncedTimesAreKept(t *testing.T) {
	for seed := range uint64(200) {
		w := &gateWorld{T: t, gate: gateOf(t), random: rand.New(rand.NewPCG(seed, 1)), now: midday}
		w.bounds = w.newBounds()
		for range 30 {
			w.arrive()
		}
		announced := make([]time.Time, len(w.line))
		for i, k := range w.line {
			announced[i] = w.look(k, w.now).at
		}
		for i, k := range w.line {
			w.now = maxTime(w.now, w.look(k, w.now).at)
			if !w.claim(k, w.now) || !isNear(w.now.Sub(announced[i]), 0) {
				t.Fatalf("seed %d: call %d was told %v, its turn is %v", seed, i, announced[i].Sub(midday), w.now.Sub(midday))
			}
			w.pass(k)
		}
	}
}
