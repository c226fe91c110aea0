// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
)

// group is a call for several images that is made of as many calls, because
// Google's models make one at a time. They go their ways at the same time, each
// inside the limits, and their answers become one (issue #5).
type group struct {
	x        *exchange
	parts    []*exchange
	cancel   context.CancelFunc
	lookups  sync.Mutex     // see lookUp
	isAsking bool           // it is a part that looks something up, by way of a map perhaps
	ended    chan *exchange // as their verdicts become certain
	done     []*exchange    // those that have come out of it; nobody else touches them any more
	left     int            // those that have not
	given    []*exchange    // those whose answers make up that of the call
	loss     *exchange      // the gravest of those without an answer
}

// split divides a call into a group, if it asks for several images and cannot be
// sent as it is. It fails if the body cannot be read.
func (r *router) split(x *exchange) (*group, error) {
	if !x.call.isImages() || !r.mayTranslate(&x.call) {
		return nil, nil
	}
	if err := x.understandBody(); err != nil {
		return nil, err
	}
	if x.brief.foreign != nil || x.brief.count < 2 {
		return nil, nil
	}
	x.model = cmp.Or(x.model, x.brief.model)
	g := &group{x: x, parts: make([]*exchange, x.brief.count), left: x.brief.count}
	g.ended = make(chan *exchange, g.left)
	ctx, cancel := context.WithCancel(x.ctx)
	g.cancel = cancel
	for i := range g.parts {
		part := *x
		part.partOf, part.attempt = g, &attempt{project: x.clientProject}
		part.ctx = g.contextOf(ctx, &part)
		part.expand = expander(part.ctx)
		g.parts[i] = &part
	}
	x.group = g
	return g, nil
}

// travel sends the parts. The client gets every image that there is, since each has
// been paid for, and an error if there is none. It fails only when the client has
// left.
func (g *group) travel(r *router, in *http.Request) (*http.Response, error) {
	for _, part := range g.parts {
		go func() {
			defer func() {
				if cause := recover(); cause != nil { // of a transport: net/http looks after its own goroutines alone
					part.collapsed(cause)
				}
				g.ended <- part
			}()
			_ = r.travel(in, part) // fails with the context alone
		}()
	}
	first := g.next()
	if err := g.x.ctx.Err(); err != nil {
		return nil, err
	}
	if first == nil {
		g.x.attempt = g.loss.attempt
		g.join()
		return g.x.response(in), nil
	}
	g.x.attempt, g.x.attempts = first.attempt, first.attempts
	g.x.repaired, g.x.dropped = first.repaired, first.dropped
	res := g.x.response(in)
	res.Body = newCollection(g.x, g.give(first), func() io.ReadCloser { return g.give(g.next()) })
	return res, nil
}

// give is the answer of a part, which its reader closes; nil for no part.
func (g *group) give(part *exchange) io.ReadCloser {
	if part == nil {
		return nil
	}
	g.given = append(g.given, part)
	return part.res.Body
}

// next waits for a part that has an answer; nil if there is none left.
func (g *group) next() *exchange {
	for g.left > 0 {
		part := g.await()
		if part.res != nil && part.res.StatusCode == http.StatusOK {
			return part
		}
		if g.loss == nil || part.isGraver(g.loss) {
			g.loss = part
		}
	}
	return nil
}

// await waits for a part to come out.
func (g *group) await() *exchange {
	part := <-g.ended
	g.left--
	g.done = append(g.done, part)
	return part
}

// isGraver compares what became of parts: what an upstream has said tells the client
// more than that a part was not sent for it.
func (x *exchange) isGraver(than *exchange) bool {
	if isSent := x.attempts > 0; isSent != (than.attempts > 0) {
		return isSent
	}
	return x.attempt.weight() > than.attempt.weight()
}

// join ends the parts that are still under way, and adds up what became of all.
func (g *group) join() {
	g.cancel()
	for g.left > 0 {
		g.await()
	}
	x := g.x
	x.attempts, x.story = 0, nil
	for _, part := range g.parts {
		if part.attempt != x.attempt && !slices.Contains(g.given, part) {
			part.attempt.discard()
		}
		x.attempts += part.attempts
		x.story = append(x.story, part.story...)
		x.waited, x.queued = max(x.waited, part.waited), max(x.queued, part.queued)
		x.isLimited = x.isLimited || part.isLimited
	}
}

// each calls f for the parts of a call that have ended, or for the call itself.
func (x *exchange) each(f func(*exchange)) {
	if x.group == nil {
		f(x)
		return
	}
	for _, part := range x.group.done {
		f(part)
	}
}

// images counts those that the client got.
func (x *exchange) images() (n int) {
	x.each(func(part *exchange) { n += part.attempt.delivered() })
	return n
}

// answered is the usage that the answers of the call have told.
func (x *exchange) answered() (sum usage) {
	x.each(func(part *exchange) { sum.add(part.facts.usage) })
	return sum
}
