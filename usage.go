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

// rateBook counts, per project, how many of a day's calls were blocked.
type rateBook struct {
	limit    int
	mu       sync.Mutex
	day      string
	projects map[string]*rate
}

type rate struct{ calls, blocked int }

// share is what a call did to the rates: the share of its project's calls that
// were blocked, the name under which the project is counted, and whether the
// call was the first of a day, so that all other rates are void.
type share struct {
	project string
	blocked float64
	isFirst bool
}

// count adds a call on the day of a Pacific time.
func (b *rateBook) count(project string, blocked bool, now time.Time) share {
	b.mu.Lock()
	defer b.mu.Unlock()
	isFirst := false
	if day := now.Format(time.DateOnly); day != b.day {
		b.day, b.projects, isFirst = day, make(map[string]*rate), true
	}
	if b.projects[project] == nil && len(b.projects) >= b.limit {
		project = other
	}
	r := b.projects[project]
	if r == nil {
		r = new(rate)
		b.projects[project] = r
	}
	r.calls++
	if blocked {
		r.blocked++
	}
	return share{project, float64(r.blocked) / float64(r.calls), isFirst}
}
