// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"sync"
	"time"
)

// blockRates are the block rates of all projects that this process has served,
// whatever the configuration: suspension threatens accounts, not sites.
var blockRates = &rateBook{limit: maxProjects}

// maxProjects is how many projects are counted apart; further ones share one
// account, so that clients with keys of their own cannot use up memory.
const maxProjects = 1000

// rateBook counts, per project and day, how many calls were made and how many
// of them were blocked.
type rateBook struct {
	limit    int
	mu       sync.Mutex
	projects map[string]*dayRate
}

type dayRate struct {
	day            string
	calls, blocked int
}

// count adds a call of a project on the day of a Pacific time, and returns the
// name under which it was counted and the share of that day's calls that were
// blocked.
func (b *rateBook) count(project string, blocked bool, now time.Time) (name string, ratio float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rate := b.projects[project]
	if rate == nil && len(b.projects) >= b.limit {
		project = other
		rate = b.projects[project]
	}
	if rate == nil {
		if b.projects == nil {
			b.projects = make(map[string]*dayRate)
		}
		rate = new(dayRate)
		b.projects[project] = rate
	}
	if day := now.Format(time.DateOnly); rate.day != day {
		*rate = dayRate{day: day}
	}
	rate.calls++
	if blocked {
		rate.blocked++
	}
	return project, float64(rate.blocked) / float64(rate.calls)
}
