// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// pacing is how long to wait between attempts.
type pacing struct {
	initial, max time.Duration  // of backoff, before jitter
	jitter       float64        // the most that chance adds, as a share of a wait
	random       func() float64 // at least 0, less than 1
}

// backoff is the n-th wait, counted from 0 and without jitter, where nobody says
// how long to wait.
func (p pacing) backoff(n int) time.Duration {
	if n = max(n, 0); p.initial <= p.max>>n {
		return p.initial << n
	}
	return p.max
}

// maxCooldown bounds what an upstream can announce. A daily quota is never
// further away.
const maxCooldown = 24 * time.Hour

// maxJitter is enough to keep the calls that wait for one moment from arriving in
// one second; a fifth of an hour would only be lost.
const maxJitter = 5 * time.Second

// spread lengthens a wait by chance. It shortens none, because before the time
// that an upstream has announced a call is refused for certain (issue #3).
func (p pacing) spread(d time.Duration) time.Duration {
	return later(d, min(p.chance(d), maxJitter))
}

// chance is what to add to a wait, so that calls that failed together do not
// come back together.
func (p pacing) chance(d time.Duration) time.Duration {
	return seconds(p.jitter * p.random() * max(d, 0).Seconds())
}

// deadlineOf is when a call must have ended: after the operator's limit, or
// before if its client will not wait that long. serverTimeout is the client's
// X-Server-Timeout, in seconds (wire §1); what is no time is as good as none.
func deadlineOf(arrived time.Time, limit time.Duration, serverTimeout string) time.Time {
	timeout := parseSeconds(strings.TrimSuffix(strings.TrimSpace(serverTimeout), "s"))
	if timeout > 0 {
		limit = min(limit, timeout)
	}
	return arrived.Add(limit)
}

// parseSeconds reads seconds in decimal notation. What is none is zero, also a
// negative number.
func parseSeconds(text string) time.Duration {
	if text == "" || strings.Trim(text, "0123456789.") != "" { // signs, exponents, infinity
		return 0
	}
	n, _ := strconv.ParseFloat(text, 64) // 0 if it is no number, infinite if it is too large
	return seconds(n)
}

// seconds is a Duration of n seconds, or the longest there is. A float64 is exact
// to the nanosecond for three months.
func seconds(n float64) time.Duration {
	ns := math.Round(n * float64(time.Second))
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}

// later adds time to a wait, up to the longest there is.
func later(d, more time.Duration) time.Duration {
	if sum := d + more; sum >= d {
		return sum
	}
	return math.MaxInt64
}
