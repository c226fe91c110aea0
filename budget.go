// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"sync"
	"time"
)

// budgetWindow is how many seconds a retryBudget looks back.
const budgetWindow = 60

// retryBudget keeps an outage from being multiplied by the retries of all calls
// (issue #3): in a minute there are at most ratio retries for each call, or min if
// that is more. With a ratio of 1 an outage doubles the load at most, however many
// attempts a call may make. A bad hour in which 45 % of all attempts fail takes
// 0.8 retries a call, which fits. The min is for few calls, which are at the mercy
// of chance. A nil budget has no bound.
type retryBudget struct {
	ratio float64
	min   int

	mu     sync.Mutex
	start  time.Time
	newest int64 // the second after start that is counted now
	slots  [budgetWindow]budgetCount
	sum    budgetCount // of the slots
}

// budgetCount is what happened in a second.
type budgetCount struct{ calls, retries int }

// newRetryBudget expects a ratio and a floor of 0 or more.
func newRetryBudget(ratio float64, floor int) *retryBudget {
	return &retryBudget{ratio: ratio, min: floor}
}

// call counts a call, before its first attempt.
func (b *retryBudget) call(now time.Time) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slot(now).calls++
	b.sum.calls++
}

// retry takes one retry out of the budget, if there is one left.
func (b *retryBudget) retry(now time.Time) bool { return b.take(now, 1) }

// hasRetry tells whether there is one left.
func (b *retryBudget) hasRetry(now time.Time) bool { return b.take(now, 0) }

func (b *retryBudget) take(now time.Time, n int) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	slot := b.slot(now)
	if float64(b.sum.retries+1) > max(float64(b.min), b.ratio*float64(b.sum.calls)) {
		return false
	}
	slot.retries += n
	b.sum.retries += n
	return true
}

// slot forgets what is older than the window and returns the count of this
// second. Callers do not come in the order in which they looked at the clock: a
// little earlier is as good as now. Much earlier means that the clock was set
// back, which voids all, like a long silence.
func (b *retryBudget) slot(now time.Time) *budgetCount {
	second := int64(now.Sub(b.start) / time.Second)
	if second >= b.newest+budgetWindow || second <= b.newest-budgetWindow { // also at the very start
		b.start, b.newest, second = now, 0, 0
		b.slots, b.sum = [budgetWindow]budgetCount{}, budgetCount{}
	}
	for b.newest < second {
		b.newest++
		oldest := &b.slots[b.newest%budgetWindow]
		b.sum.calls -= oldest.calls
		b.sum.retries -= oldest.retries
		*oldest = budgetCount{}
	}
	return &b.slots[b.newest%budgetWindow]
}
