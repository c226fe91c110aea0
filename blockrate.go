// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// blockRates count which share of a Pacific day's attempts a filter has stopped,
// by account: Google suspends accounts for it (issue #4). An account that has too
// many can be paused. Instances that share a storage put together what they have
// counted. It is safe for concurrent use.
type blockRates struct {
	self    string // the instance that this process is
	changed func() // is called, without the lock, when something is to be saved; may be nil

	paused atomic.Pointer[map[string]bool] // every attempt asks; nil if there is none

	mu       sync.Mutex
	day      *day
	resetAt  unixTime
	accounts map[string]*blockRate
}

// blockRate is the rate of an account.
type blockRate struct {
	project   string   // what people call it
	pausedAt  unixTime // 0: never
	resetAt   unixTime // it counts what came since; not before that of all accounts
	isAlarmed bool     // on this day and since the reset
	counts    map[string]blockCount
	sum       blockCount // of all instances' counts
}

// blockCount is what an instance has counted.
type blockCount struct {
	Judged  int64 `json:"judged"`
	Blocked int64 `json:"blocked"`
}

const (
	// maxProjects is how many accounts are counted apart; further ones share one
	// rate, so that clients with keys of their own cannot use up memory.
	maxProjects = 1_000
	// crowd is the account of those that share one. No other has a name like it.
	crowd = "\n" + other
	// maxInstances is how many instances' counts are known of an account. Who has
	// been restarted is another one.
	maxInstances = 100

	// A rate is alarming when more than one of alarmRatio attempts is blocked, of
	// at least alarmFrom (contract §6).
	alarmRatio = 5
	alarmFrom  = 20
)

// share is what an attempt did to the rates: the share of its project's attempts
// that were blocked, and the name under which the project is counted.
type share struct {
	project    string
	blocked    float64
	isHigh     bool // too many are
	isAlarming bool // for the first time on the day, and since a reset
}

func newBlockRates(self string) *blockRates {
	return &blockRates{self: self, accounts: make(map[string]*blockRate)}
}

// count adds a judged attempt on a day.
func (b *blockRates) count(d *day, account, project string, blocked bool) share {
	b.mu.Lock()
	b.beginDay(d)
	r := b.at(storable(account), storable(project))
	r.add(b.self, blocked)
	s := share{project: r.project, blocked: r.sum.share()}
	s.isHigh = r.sum.isAlarming() && r != b.accounts[crowd] // which is many
	s.isAlarming = s.isHigh && !r.isAlarmed
	r.isAlarmed = r.isAlarmed || s.isHigh
	b.mu.Unlock()
	b.notify()
	return s
}

// shares are those of all projects on a day; of accounts that people call the
// same, the highest.
func (b *blockRates) shares(d *day) map[string]float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginDay(d)
	all := make(map[string]float64, len(b.accounts))
	for _, r := range b.accounts {
		if r.sum.Judged > 0 {
			all[r.project] = max(all[r.project], r.sum.share())
		}
	}
	return all
}

// at returns the rate of an account, or the one that those share for which there
// is no room.
func (b *blockRates) at(account, project string) *blockRate {
	r := b.accounts[account]
	if r == nil && len(b.accounts) >= maxProjects {
		account, project = crowd, other
		r = b.accounts[crowd]
	}
	if r == nil {
		r = &blockRate{resetAt: b.resetAt}
		b.accounts[account] = r
	}
	r.project = project
	return r
}

// pause is to keep calls from an account until it is reset, on whatever day.
func (b *blockRates) pause(account, project string, now time.Time) {
	b.mu.Lock()
	if r := b.at(storable(account), storable(project)); r != b.accounts[crowd] {
		r.pausedAt = max(unixTimeOf(now), r.resetAt+1)
		b.publish()
	}
	b.mu.Unlock()
	b.notify()
}

// isPaused waits for no lock.
func (b *blockRates) isPaused(account string) bool {
	paused := b.paused.Load()
	return paused != nil && (*paused)[storable(account)]
}

// publish tells isPaused.
func (b *blockRates) publish() {
	var paused map[string]bool
	for account, r := range b.accounts {
		if r.isPaused() {
			if paused == nil {
				paused = make(map[string]bool)
			}
			paused[account] = true
		}
	}
	b.paused.Store(&paused)
}

// reset lifts the pause of a project, or of all if it is "", and begins to count
// anew, so that the same attempts do not pause it again. It tells how many pauses
// it has lifted.
func (b *blockRates) reset(project string, now time.Time) (lifted int) {
	b.mu.Lock()
	var affected []*blockRate
	at := unixTimeOf(now)
	for account, r := range b.accounts {
		if project != "" && project != r.project && project != account {
			continue
		}
		affected = append(affected, r)
		at = max(at, r.pausedAt, r.resetAt+1) // clocks differ
		if r.isPaused() {
			lifted++
		}
	}
	for _, r := range affected {
		r.restart(at)
	}
	if project == "" {
		b.resetAt = max(at, b.resetAt)
	}
	b.publish()
	b.mu.Unlock()
	b.notify()
	return lifted
}

// pausedProject is what the status page tells of a pause.
type pausedProject struct {
	Project string    `json:"project"`
	Since   time.Time `json:"since"`
}

// pauses are in the order of projects.
func (b *blockRates) pauses() (all []pausedProject) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.accounts {
		if r.isPaused() {
			all = append(all, pausedProject{r.project, r.pausedAt.time().UTC()})
		}
	}
	slices.SortFunc(all, func(one, two pausedProject) int {
		return cmp.Or(cmp.Compare(one.Project, two.Project), one.Since.Compare(two.Since))
	})
	return all
}

// beginDay empties what belongs to another day.
func (b *blockRates) beginDay(d *day) {
	if !d.replaces(b.day) {
		return
	}
	b.day = d
	for _, r := range b.accounts {
		r.clear()
	}
	maps.DeleteFunc(b.accounts, func(_ string, r *blockRate) bool { return !b.matters(r) })
}

// matters tells whether a rate says anything. A reset does: it has to meet the
// pauses and counts from before it that other instances remember.
func (b *blockRates) matters(r *blockRate) bool {
	isReset := r.resetAt > b.resetAt && r.resetAt.time().Add(horizon).After(b.day.begins)
	return r.sum.Judged > 0 || r.isPaused() || isReset
}

// adopt takes over what others have counted, paused and reset. Whatever is from
// before a reset is void; of a pause and a reset, the newer one holds.
func (b *blockRates) adopt(d *day, e savedRate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginDay(d)
	if e.Account == "" {
		b.adoptReset(e.Reset)
		return
	}
	r := b.accounts[e.Account]
	if r == nil {
		if len(b.accounts) >= maxProjects {
			return
		}
		r = &blockRate{project: e.Project, resetAt: b.resetAt}
		b.accounts[e.Account] = r
	}
	wasPaused := r.isPaused()
	if e.Reset > r.resetAt {
		r.restart(e.Reset)
	}
	r.pausedAt = max(r.pausedAt, e.Paused)
	if e.Reset == r.resetAt && e.Day == b.day.name {
		r.isAlarmed = r.isAlarmed || e.Alarmed
		r.merge(e.Counts, b.self)
	}
	if !b.matters(r) {
		delete(b.accounts, e.Account)
	}
	if r.isPaused() != wasPaused {
		b.publish()
	}
}

// adoptReset is the reset of all by another instance.
func (b *blockRates) adoptReset(at unixTime) {
	b.resetAt = max(b.resetAt, at)
	for _, r := range b.accounts {
		if r.resetAt < at {
			r.restart(at)
		}
	}
	maps.DeleteFunc(b.accounts, func(_ string, r *blockRate) bool { return !b.matters(r) })
	b.publish()
}

// saved is what other instances have to know, in the order of accounts.
func (b *blockRates) saved(d *day) (all []savedRate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beginDay(d)
	if b.resetAt > 0 {
		all = append(all, savedRate{Reset: b.resetAt})
	}
	for _, account := range slices.Sorted(maps.Keys(b.accounts)) {
		r := b.accounts[account]
		e := savedRate{
			Account: account, Project: r.project, Reset: r.resetAt,
			Day: b.day.name, Alarmed: r.isAlarmed, Counts: maps.Clone(r.counts),
		}
		if r.isPaused() {
			e.Paused = r.pausedAt
		}
		all = append(all, e)
	}
	return all
}

func (b *blockRates) notify() {
	if b.changed != nil {
		b.changed()
	}
}

func (r *blockRate) isPaused() bool { return r.pausedAt > r.resetAt }

// restart makes all void that is from before a time.
func (r *blockRate) restart(at unixTime) {
	r.resetAt = at
	r.clear()
}

// clear forgets what has been counted.
func (r *blockRate) clear() { r.counts, r.sum, r.isAlarmed = nil, blockCount{}, false }

func (r *blockRate) add(self string, blocked bool) {
	c := blockCount{Judged: 1}
	if blocked {
		c.Blocked = 1
	}
	own := r.counts[self]
	r.set(self, blockCount{own.Judged + c.Judged, own.Blocked + c.Blocked})
}

// merge takes the counts of other instances that are newer than what is known of
// them: none ever gets less.
func (r *blockRate) merge(counts map[string]blockCount, self string) {
	for _, instance := range slices.Sorted(maps.Keys(counts)) {
		known, isKnown := r.counts[instance]
		if instance == self || counts[instance].Judged <= known.Judged || !isKnown && len(r.counts) >= maxInstances {
			continue
		}
		r.set(instance, counts[instance])
	}
}

func (r *blockRate) set(instance string, c blockCount) {
	if r.counts == nil {
		r.counts = make(map[string]blockCount)
	}
	r.sum.Judged += c.Judged - r.counts[instance].Judged
	r.sum.Blocked += c.Blocked - r.counts[instance].Blocked
	r.counts[instance] = c
}

func (c blockCount) share() float64 { return float64(c.Blocked) / float64(c.Judged) }

func (c blockCount) isAlarming() bool {
	return c.Judged >= alarmFrom && alarmRatio*c.Blocked > c.Judged
}
