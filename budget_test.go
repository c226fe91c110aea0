// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math/rand/v2"
	"testing"
	"time"
)

// trafficTick is the step of the simulated clock.
const trafficTick = 250 * time.Millisecond

// traffic is what a simulation has seen.
type traffic struct{ calls, attempts, denied int }

// simulate sends calls, on average so many a minute, of up to five attempts each
// with the waits of the defaults: 1, 2, 4 and 8 seconds.
func simulate(b *retryBudget, perMinute float64, length time.Duration, failing float64) (s traffic) {
	random := rand.New(rand.NewPCG(uint64(perMinute), 7))
	start := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	due := map[int][]int{} // numbers of attempts, by tick
	attempt := func(tick, n int) {
		s.attempts++
		if n < 5 && random.Float64() < failing {
			again := tick + int(time.Second<<(n-1)/trafficTick)
			due[again] = append(due[again], n+1)
		}
	}
	for tick := range int(length / trafficTick) {
		now := start.Add(time.Duration(tick) * trafficTick)
		for _, n := range due[tick] {
			if b.retry(now) {
				attempt(tick, n)
			} else {
				s.denied++
			}
		}
		delete(due, tick)
		for expected := perMinute * trafficTick.Minutes(); expected > 0; expected-- {
			if random.Float64() < expected {
				b.call(now)
				s.calls++
				attempt(tick, 1)
			}
		}
	}
	return s
}

// In a bad hour each attempt fails with 45 %. Five of them lose 1.8 % of all
// calls; the budget takes next to none.
func TestBudgetOfABadHour(t *testing.T) {
	for _, perMinute := range []float64{100, 300, 1200} {
		length := max(time.Hour, time.Duration(10_000/perMinute*float64(time.Minute)))
		s := simulate(newRetryBudget(1, 10), perMinute, length, 0.45)
		if share := float64(s.denied) / float64(s.calls); share > 0.005 {
			t.Errorf("%v calls a minute: %d of %d lost for want of a retry", perMinute, s.denied, s.calls)
		}
	}
}

// In an outage an upstream gets one retry for a call, or ten a minute, although
// each call would make four.
func TestBudgetOfAnOutage(t *testing.T) {
	const minutes = 10
	for _, perMinute := range []float64{1, 12, 60, 300, 1200} {
		s := simulate(newRetryBudget(1, 10), perMinute, minutes*time.Minute, 1)
		if s.attempts > 2*s.calls+10*minutes || perMinute > 12 && s.denied == 0 {
			t.Errorf("%v calls a minute: %d attempts for %d calls", perMinute, s.attempts, s.calls)
		}
	}
	b, now := newRetryBudget(1, 10), time.Now()
	attempts := 0
	for range 200 { // at once
		b.call(now)
		attempts++
	}
	for range 200 * 4 {
		if b.retry(now) {
			attempts++
		}
	}
	if attempts != 2*200 {
		t.Errorf("%d attempts for 200 calls", attempts)
	}
}

func TestBudget(t *testing.T) {
	start := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	// take counts the retries that are left.
	take := func(b *retryBudget, now time.Time) (n int) {
		for n < 1000 && b.retry(now) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		name  string
		ratio float64
		floor int
		calls int // at the start
		later time.Duration
		want  int // and again after all has been taken, a second later
	}{
		{"nothing yet", 1, 10, 0, 0, 10},
		{"calls above the floor", 1, 10, 25, 0, 25},
		{"half", 0.5, 3, 25, 0, 12},
		{"no whole retry", 0.5, 0, 1, 0, 0},
		{"floor alone", 0, 2, 100, 0, 2},
		{"nothing at all", 0, 0, 100, 0, 0},
		{"within the minute", 1, 10, 25, 59 * time.Second, 25},
		{"after the minute", 1, 10, 25, 60 * time.Second, 10},
		{"after a night", 1, 10, 25, 12 * time.Hour, 10},
		{"after three hundred years", 1, 10, 25, 1<<63 - 1, 10},
		{"a little earlier", 1, 10, 25, -time.Second, 25},
		{"clock set back by an hour", 1, 10, 25, -time.Hour, 10},
		{"clock set back by a century", 1, 10, 25, -100 * 365 * 24 * time.Hour, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRetryBudget(c.ratio, c.floor)
			for range c.calls {
				b.call(start)
			}
			now := start.Add(c.later)
			if got := take(b, now); got != c.want {
				t.Errorf("%d retries, want %d", got, c.want)
			}
			if got := take(b, now); got != 0 {
				t.Errorf("%d retries beyond the budget", got)
			}
			if got := take(b, now.Add(2*budgetWindow*time.Second)); got != c.floor {
				t.Errorf("%d retries later, want %d", got, c.floor)
			}
		})
	}
}

// Retries come back a minute after they were taken, second by second.
func TestBudgetSlides(t *testing.T) {
	b, start := newRetryBudget(0, 10), time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for second := range 10 {
		if !b.retry(at(second)) {
			t.Fatalf("no retry in second %d", second)
		}
	}
	for second := 10; second < 200; second++ {
		if got, want := b.retry(at(second)), second%60 < 10; got != want {
			t.Errorf("second %d: %v", second, got)
		}
	}
}

func TestBudgetIsShared(t *testing.T) {
	b, now := newRetryBudget(1, 10), time.Now()
	allowed := make(chan int)
	for range 8 {
		go func() {
			n := 0
			for range 100 {
				b.call(now)
				for range 3 {
					if b.retry(now) {
						n++
					}
				}
			}
			allowed <- n
		}()
	}
	sum := 0
	for range 8 {
		sum += <-allowed
	}
	if sum > 810 {
		t.Errorf("%d retries for 800 calls", sum)
	}
}
