// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// settleTime is how long after its end a call is judged, so that what goes on
	// behind it shows.
	settleTime = 5 * time.Second
	// maxTold is how many faults are told of while the load goes on.
	maxTold = 100
	// longestCall is when a call hangs.
	longestCall = 5 * time.Minute
)

// soak is a run.
type soak struct {
	options
	gateway  *gateway
	upstream *upstream
	ledger   *ledger
	caller   *caller
	choices  []*scenario // each as often as its weight

	started  time.Time
	numbers  int
	underWay sync.WaitGroup // calls, up to their judgement
	reloads  sync.WaitGroup
	loading  sync.Mutex

	mu       sync.Mutex
	reloaded []reload
	repeats  []dueRepeat
	counts   *counts
	outcomes map[string]map[string]int // of scenarios
	unbegun  int
	faults   []fault
	samples  []sample
}

// dueRepeat is a blocked prompt that is to be asked for again.
type dueRepeat struct {
	at, forgotten time.Time
	prompt        int
}

func (s *soak) blame(kind, format string, a ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(fault{kind, fmt.Sprintf(format, a...)})
}

// note takes down faults, and tells of them at once.
func (s *soak) note(faults ...fault) {
	for _, f := range faults {
		if s.faults = append(s.faults, f); len(s.faults) <= maxTold {
			fmt.Fprintf(os.Stderr, "%v, %s: %s\n", time.Since(s.started).Round(time.Second), f.kind, f.text)
		}
	}
}

// Write is told of what a client's transport has logged: bytes that nobody has
// asked for.
func (s *soak) Write(line []byte) (int, error) {
	s.blame(wrongBody, "%s", line)
	return len(line), nil
}

// run is the load, up to its end.
func (s *soak) run(ctx context.Context) {
	for _, one := range scenarios() {
		s.choices = append(s.choices, slices.Repeat([]*scenario{one}, one.weight)...)
	}
	s.started = time.Now()
	end := time.After(s.length)
	tick, reload, quiet, scrape := time.NewTicker(time.Second/time.Duration(s.rate)), time.NewTicker(s.reloadEvery), time.NewTicker(s.quietEvery), time.NewTicker(time.Second)
	defer tick.Stop()
	defer reload.Stop()
	defer quiet.Stop()
	defer scrape.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.gateway.Exited:
			return
		case <-end:
			s.rest(ctx)
			return
		case <-tick.C:
			s.start(ctx)
		case <-scrape.C:
			s.beside(func() { s.look(ctx) })
		case <-reload.C:
			s.beside(func() { s.reload(ctx) })
		case <-quiet.C:
			s.rest(ctx)
			// What was due meanwhile would come at once.
			reload.Reset(s.reloadEvery)
		}
	}
}

// beside does something while the load goes on.
func (s *soak) beside(do func()) { s.reloads.Go(do) }

// look is what an operator does all day.
func (s *soak) look(ctx context.Context) {
	for _, path := range []string{"/gemini/status", "/metrics"} {
		if _, err := s.gateway.ask(ctx, http.MethodGet, path, ""); err != nil && ctx.Err() == nil {
			s.blame(breakdown, "%v", err)
		}
	}
}

// reload loads the other configuration, unless the last one still is on its way.
func (s *soak) reload(ctx context.Context) {
	if !s.loading.TryLock() {
		return
	}
	defer s.loading.Unlock()
	began := time.Now()
	s.keep(reload{began, began.Add(time.Hour)})
	if err := s.gateway.reload(ctx); err != nil && ctx.Err() == nil {
		s.blame(breakdown, "reload %d: %v", s.gateway.loads, err)
	}
	s.keep(reload{began, time.Now()})
}

// keep takes down a reload; what is known of it when it ends replaces what was
// known before.
func (s *soak) keep(r reload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloaded = slices.DeleteFunc(s.reloaded, func(known reload) bool { return known.began.Equal(r.began) })
	s.reloaded = append(s.reloaded, r)
}

// start begins a call: a repetition if one is due, else what chance wants.
func (s *soak) start(ctx context.Context) {
	s.numbers++
	c := &call{number: s.numbers, prompt: s.numbers, scenario: s.choices[rand.N(len(s.choices))]}
	if due, isDue := s.nextRepeat(time.Now()); isDue {
		c.scenario, c.prompt, c.forgotten = repeat, due.prompt, due.forgotten
	}
	if !c.scenario.want[0].text {
		// Most are small: 1.5 to 6 MB.
		u := rand.Float64()
		c.size = int(1.5*mB+4.5*mB*u*u*u) / 4 * 4
	}
	s.ledger.open(c)
	s.underWay.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, longestCall)
		defer cancel()
		c.began = time.Now()
		s.caller.make(ctx, c)
		time.Sleep(settleTime)
		s.ledger.close(c)
		s.conclude(c)
	})
}

func (s *soak) nextRepeat(now time.Time) (due dueRepeat, isDue bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.repeats) > 0 && !now.Before(s.repeats[0].at) {
		due, s.repeats = s.repeats[0], s.repeats[1:]
		if now.Before(due.forgotten) {
			return due, true
		}
	}
	return due, false
}

// guard is how long blocked prompts are remembered: as short as it can be, so
// that memory for them stops growing, and long enough for a repetition behind a
// reload.
func (s *soak) guard() time.Duration { return 4 * s.reloadEvery }

func (s *soak) conclude(c *call) {
	visits := c.seen()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.scenario == repeat && c.ended.After(c.forgotten) {
		return // the guard may have, as it should
	}
	o := judge(c, visits, s.reloaded)
	s.counts.add(c, len(visits), o)
	s.note(o.faults...)
	if o.isUnseen {
		s.unbegun++
	}
	name := c.scenario.String()
	if s.outcomes[name] == nil {
		s.outcomes[name] = make(map[string]int)
	}
	s.outcomes[name][o.outcome]++
	if c.scenario.isRepeatable && o.verdict != "" && visits[0].upstream != "reserve" { // which the other configuration has not
		s.repeats = append(s.repeats, dueRepeat{c.ended.Add(s.reloadEvery * 5 / 4), c.began.Add(s.guard()), c.number})
	}
}

// rest ends all calls, looks whether all is as it was, and lets go on.
func (s *soak) rest(ctx context.Context) {
	s.reloads.Wait()
	s.underWay.Wait()
	if s.gateway.loads%2 == 1 { // samples are of the same configuration
		s.reload(ctx)
	}
	s.caller.transport.CloseIdleConnections()
	s.upstream.hangUp()
	// Keys that were set aside are used again.
	if _, err := s.gateway.ask(ctx, http.MethodPost, "/gemini/reset", ""); err != nil && ctx.Err() == nil {
		s.blame(breakdown, "%v", err)
	}
	time.Sleep(2 * time.Second)
	now, m, err := s.gateway.take(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.blame(breakdown, "sample: %v", err)
		}
		return
	}
	now.at, now.calls = time.Since(s.started), s.numbers
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, now)
	s.note(s.counts.compare(m)...)
}

// finish adds what can be said only in the end.
func (s *soak) finish() {
	if err := s.gateway.crashes(); err != nil {
		s.blame(breakdown, "%v", err)
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	for _, stray := range s.ledger.strays {
		s.blame(sentAgain, "%s", stray)
	}
	// Less than a minute, for what is between the gateway's clock and this one.
	if n := overLimit(s.ledger.limited, limitRPM, 55*time.Second); n > 0 {
		s.blame(wrongVerdict, "%d calls of the limited site have arrived within 55 seconds, allowed %d a minute", n, limitRPM)
	}
	s.note(leaks(s.samples[min(len(s.samples), s.warmUp):])...)
}
