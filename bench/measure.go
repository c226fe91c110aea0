package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// idleCalls bring a fresh process to the state that counts as idle: its code
// is in memory and its connections are open.
const idleCalls = 16

// bout is a case with a job for each target.
type bout struct {
	spec          *benchCase
	direct        *job // nil where the way without a proxy says nothing
	bare, gateway *job
}

// open starts fresh processes for a case. The bout is to be closed in any case.
func (e *environment) open(ctx context.Context, c *benchCase) (*bout, error) {
	b := &bout{spec: c}
	bare, err := e.bare(ctx, c)
	if err != nil {
		return b, err
	}
	b.bare = newJob(c, bare)
	gateway, err := e.gateway(ctx, c)
	if err != nil {
		return b, err
	}
	gateway.completes = gateway.completes && !c.untouched
	b.gateway = newJob(c, gateway)
	if !c.isBurst() {
		b.direct = newJob(c, e.direct(c))
	}
	for _, j := range b.jobs() {
		if err := j.prepare(ctx); err != nil {
			return b, j.target.explain(err)
		}
	}
	return b, b.setRate(ctx)
}

// jobs are those that there are.
func (b *bout) jobs() []*job {
	return slices.DeleteFunc([]*job{b.direct, b.bare, b.gateway}, func(j *job) bool { return j == nil })
}

func (b *bout) close() {
	for _, j := range b.jobs() {
		j.target.stop()
	}
}

// setRate finds out how many calls bare Caddy makes in a closed loop, and gives
// all targets the same part of that.
func (b *bout) setRate(ctx context.Context) error {
	if b.spec.load == 0 {
		return nil
	}
	s, err := b.bare.block(ctx, b.spec.calls)
	if err != nil {
		return b.bare.target.explain(err)
	}
	every := time.Duration(float64(time.Second) / (b.spec.load * s[throughput.key]))
	for _, j := range b.jobs() {
		j.every = every
	}
	return nil
}

// measure runs one case on fresh processes, in rounds that alternate their
// order, so that what drifts in the machine drifts for all.
func (e *environment) measure(ctx context.Context, c *benchCase, o *options) (caseResult, error) {
	result := caseResult{Name: c.name, rows: c.rows}
	b, err := e.open(ctx, c)
	defer b.close()
	if err != nil {
		return result, err
	}
	jobs := b.jobs()
	for range o.pairs {
		round := make(map[*job]sample)
		for _, j := range jobs {
			s, err := j.block(ctx, c.calls)
			if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
				return result, j.target.explain(err)
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s, %s: %v failed: %v\n", c.name, j.target.name, s[failedKey], err)
			}
			round[j] = s
		}
		result.Pairs = append(result.Pairs, pair{Direct: round[b.direct], Bare: round[b.bare], Gateway: round[b.gateway]})
		slices.Reverse(jobs)
	}
	if o.profiles == "" {
		return result, nil
	}
	return result, e.profile(ctx, b, o.profiles)
}

// prepare makes a target ready for a case: idle memory taken, answer checked,
// connections open.
func (j *job) prepare(ctx context.Context) error {
	c, t := j.spec, j.target
	small := cases[0]
	if _, err := newJob(&small, t).block(ctx, idleCalls); err != nil {
		return err
	}
	if u := t.usage(false); u != nil {
		t.idle = u.RSS
	}
	if c.primed && t.completes {
		if err := newJob(&refusal, t).check(ctx); err != nil {
			return err
		}
	}
	// On the direct way there is nobody but the client.
	t.transport.DisableCompression = c.unzips && t.pid > 0
	if err := j.check(ctx); err != nil {
		return err
	}
	if c.together {
		j.together = c.calls
	}
	if c.isBurst() {
		return nil
	}
	_, err := j.block(ctx, max(c.conns, c.calls/10))
	return err
}
