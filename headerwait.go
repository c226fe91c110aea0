// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"sync"
	"time"
)

// headerWait ends the wait for the headers of an answer, when it has taken too long from the
// end of the request.
type headerWait struct {
	limit time.Duration // 0: none

	mu     sync.Mutex
	timer  *time.Timer
	isEnd  bool // there are headers
	isLate bool
}

var errHeaderTimeout = &timeoutError{"timeout awaiting response headers"}

// timeoutError is a net.Error.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string { return e.text }
func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }

func (w *headerWait) begin(c *conn) {
	if w.limit == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isEnd {
		w.timer = time.AfterFunc(w.limit, func() { w.expire(c) })
	}
}

func (w *headerWait) expire(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isEnd {
		w.isLate = true
		c.kill()
	}
}

func (w *headerWait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isEnd = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *headerWait) isOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.isLate
}
