// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"sync"
	"time"
)

// connPool keeps connections for the next call.
type connPool struct {
	perHost int           // how many are kept for one endpoint; negative: none
	maxIdle time.Duration // for how long; 0: for ever

	mu      sync.Mutex
	idle    map[endpoint][]*conn // the one that was used last at the end
	isEnd   bool
	sweeper *time.Timer // nil: nothing is going to be too old
}

// endpoint is where a connection leads to.
type endpoint struct{ scheme, address string }

// get returns a connection that is still open, nil if there is none. The one that was
// used last comes first, so that surplus ones grow old.
func (p *connPool) get(to endpoint) *conn {
	for {
		c := p.pop(to)
		if c == nil || !c.isStale() {
			return c
		}
		c.kill()
	}
}

func (p *connPool) pop(to endpoint) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[to]
	if len(kept) == 0 {
		return nil
	}
	last := len(kept) - 1
	c := kept[last]
	kept[last] = nil
	p.idle[to] = kept[:last]
	return c
}

// put keeps a connection, if there is room.
func (p *connPool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isEnd || len(p.idle[c.endpoint]) >= p.perHost {
		c.kill()
		return
	}
	if p.idle == nil {
		p.idle = make(map[endpoint][]*conn)
	}
	c.idleSince = time.Now()
	p.idle[c.endpoint] = append(p.idle[c.endpoint], c)
	if p.sweeper == nil && p.maxIdle > 0 {
		p.sweeper = time.AfterFunc(p.maxIdle, func() { p.sweep(time.Now()) })
	}
}

// sweep ends the connections that have not been used for too long.
func (p *connPool) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweeper = nil
	isOld := func(c *conn) bool { return now.Sub(c.idleSince) >= p.maxIdle }
	var next time.Time
	for to, kept := range p.idle {
		for _, c := range kept {
			if isOld(c) {
				c.kill()
			}
		}
		if kept = slices.DeleteFunc(kept, isOld); len(kept) == 0 {
			delete(p.idle, to)
			continue
		}
		p.idle[to] = kept
		if oldest := kept[0].idleSince; next.IsZero() || oldest.Before(next) {
			next = oldest
		}
	}
	if !next.IsZero() && !p.isEnd {
		p.sweeper = time.AfterFunc(next.Add(p.maxIdle).Sub(now), func() { p.sweep(time.Now()) })
	}
}

// close ends the connections that are kept, and keeps no more.
func (p *connPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isEnd = true
	for _, kept := range p.idle {
		for _, c := range kept {
			c.kill()
		}
	}
	clear(p.idle)
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
}
