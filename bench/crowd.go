package main

import (
	"context"
	"sync"
	"time"
)

// crowd makes calls wait for each other.
type crowd struct {
	mu      sync.Mutex
	present int
	all     chan struct{} // closed when everybody may go; nil if nobody is there
}

// join returns when n calls have joined and some time has passed, or when the
// caller has left.
func (c *crowd) join(ctx context.Context, n int) {
	all := c.enter(n)
	select {
	case <-all:
	case <-ctx.Done():
		c.leave(all)
	}
}

func (c *crowd) enter(n int) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(chan struct{})
	}
	all := c.all
	if c.present++; c.present == n {
		c.present, c.all = 0, nil
		time.AfterFunc(allInFlight, func() { close(all) })
	}
	return all
}

func (c *crowd) leave(all chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == all {
		c.present--
	}
}
