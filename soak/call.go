// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"
	"time"
)

// call is one call of the load: what was planned for it, and what became of it
// on both sides of the gateway.
type call struct {
	number    int
	scenario  *scenario
	prompt    int       // the number of the call whose prompt it sends: its own, unless it repeats one
	size      int       // of the images of its answer, in characters of base64
	upload    int       // of the image in its request, likewise
	parts     int       // as many calls as the gateway makes of it; 0 is one
	forgotten time.Time // when the gateway need not know any longer that its prompt was blocked
	began     time.Time
	ended     time.Time // the client's side of it

	result result // of the client

	mu     sync.Mutex
	visits []*visit // of the upstreams
}

// name is by what the call is known to all sides.
func (c *call) name() string { return callName(c.number) }

func callName(number int) string { return fmt.Sprintf("soak-%07d", number) }

// promptText is the prompt as the client sends it, unique to its call.
func (c *call) promptText() string { return "Draw " + callName(c.prompt) }

// visit is one arrival of a call at an upstream.
type visit struct {
	call     *call
	number   int // of its call, from 1
	upstream string
	account  string // the key it came with
	prompt   string // what it asked for, rephrased perhaps
	form     form
	at       time.Time
	fault    string // what was wrong with it

	// Guarded by the call's lock.
	ended     bool // the upstream has done with it
	delivered bool // an answer was written to its last byte
	blocked   bool // a filter has stopped it for good
}

// arrive notes that a call has reached an upstream.
func (c *call) arrive(v *visit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.visits = append(c.visits, v)
	v.call, v.number = c, len(c.visits)
}

func (v *visit) end(delivered, blocked bool) {
	v.call.mu.Lock()
	defer v.call.mu.Unlock()
	v.ended, v.delivered, v.blocked = true, delivered, blocked
}

// seen is what has arrived so far.
func (c *call) seen() []visit {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]visit, len(c.visits))
	for i, v := range c.visits {
		all[i] = *v
	}
	return all
}

// result is what the client got.
type result struct {
	status     int    // 0: no answer
	reason     string // of an error: the gateway's, else the upstream's own status
	retryAfter string
	images     []imageID // that are whole and what the upstream has drawn
	owner      imageID   // whose answer it is, by its words
	late       string    // reason of an error inside a stream
	isCut      bool      // the answer broke off
	flaw       string    // what is wrong with the answer
	left       bool      // the client has left, as it was meant to
	err        error     // why there is no answer
	isReused   bool      // the connection had been used before
}

// imageID is the call and the visit that an image was drawn for.
type imageID struct{ call, visit int }
