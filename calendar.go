// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	_ "time/tzdata" // for systems that have none, whoever builds Caddy
)

// calendar knows the days of Google's daily quotas, which end at midnight
// Pacific time (wire §7). It is safe for concurrent use.
type calendar struct {
	pacific *time.Location
	last    atomic.Pointer[day] // the one asked for last: nearly always the one that is asked for next
}

// day is one of these days: 23 or 25 hours long when the clocks change.
type day struct {
	name   string    // such as 2026-11-21
	begins time.Time // inclusive
	ends   time.Time // exclusive
}

func newCalendar(pacific *time.Location) *calendar { return &calendar{pacific: pacific} }

// pacificDays is the calendar of this process. It fails where the data of time
// zones is missing.
var pacificDays = sync.OnceValues(func() (*calendar, error) {
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		return nil, fmt.Errorf("loading the time zone of Google's daily quotas (build with time/tzdata): %w", err)
	}
	return newCalendar(pacific), nil
})

// day is the one that a moment belongs to.
func (c *calendar) day(now time.Time) *day {
	if d := c.last.Load(); d != nil && !now.Before(d.begins) && now.Before(d.ends) {
		return d
	}
	y, m, n := now.In(c.pacific).Date()
	d := &day{begins: time.Date(y, m, n, 0, 0, 0, 0, c.pacific), ends: time.Date(y, m, n+1, 0, 0, 0, 0, c.pacific)}
	d.name = d.begins.Format(time.DateOnly)
	c.last.Store(d)
	return d
}
