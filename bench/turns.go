package main

import "time"

// turn is the right to make a call.
type turn struct {
	call int
	due  time.Time // zero in a closed loop
}

// begin is when the time of the call starts. In an open loop that is when it was
// due: what it then waited for, a connection most of all, is the proxy's delay.
func (t turn) begin() time.Time {
	if t.due.IsZero() {
		return time.Now()
	}
	return t.due
}

// turns hands out n calls: in a closed loop whenever somebody is free, in an open
// one at a constant rate, no matter how the calls before are faring.
func turns(n int, every time.Duration) <-chan turn {
	out := make(chan turn, n) // a call that is due waits for nobody to take it
	go func() {
		defer close(out)
		start := time.Now()
		for i := range n {
			t := turn{call: i}
			if every > 0 {
				t.due = start.Add(time.Duration(i) * every)
				sleepUntil(t.due)
			}
			out <- t
		}
	}()
	return out
}
