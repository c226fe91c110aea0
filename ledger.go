// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
)

// ledger is what a Pacific day has used so far, by project, upstream and model
// (issue #4). Each instance of those that share a storage has rows of its own,
// in which nothing ever gets less, so that what they have saved can be put
// together in any order. It is safe for concurrent use.
type ledger struct {
	self    string // the instance that this process is
	changed func() // is called, without the lock, when something is to be saved; may be nil

	mu       sync.Mutex
	day      *day
	rows     map[rowID]*totals
	own      int                // how many of them are this instance's
	spending map[string]nanoUSD // by upstream, of all instances
}

const (
	// maxRows is how many rows an instance has: clients choose projects, by their
	// keys, and models.
	maxRows = 5_000
	// maxPeerRows is how many rows of other instances are known. Who has been
	// restarted is another one.
	maxPeerRows = 11_000
)

// ledgerKey is what totals are made for. A day has one row for each.
type ledgerKey struct {
	Project  string `json:"project"`
	Upstream string `json:"upstream"`
	Model    string `json:"model"`
}

type rowID struct {
	instance string
	ledgerKey
}

// totals are sums over attempts: each is one at Google.
type totals struct {
	Calls    int64            `json:"calls"` // that ended with one of the attempts
	Attempts int64            `json:"attempts"`
	Retries  int64            `json:"retries"` // attempts that were not the first of their call
	Images   int64            `json:"images"`  // that were delivered
	Judged   int64            `json:"judged"`  // attempts that were blocked, or could have been
	Blocked  int64            `json:"blocked"`
	Blocks   map[string]int64 `json:"blocks,omitempty"` // by reason

	Tokens tokenTotals `json:"tokens"`

	Cost        nanoUSD `json:"cost_usd"`
	CostBlocked nanoUSD `json:"cost_blocked_usd"` // of that, what blocked attempts have cost
	Unpriced    int64   `json:"unpriced"`         // attempts whose cost is not known
}

type tokenTotals struct {
	Input    int64 `json:"input"`
	Output   int64 `json:"output"`
	Thinking int64 `json:"thinking"`
}

// booking is one attempt, as the ledger takes it down.
type booking struct {
	ledgerKey
	answered
	delivered int // images that the client got
	verdict   verdict
	endsCall  bool // the call has ended with it, well or badly
	isRetry   bool // it was not the first of its call
	cost      nanoUSD
	isPriced  bool
}

func newLedger(self string) *ledger {
	return &ledger{self: self, rows: make(map[rowID]*totals), spending: make(map[string]nanoUSD)}
}

// book takes down an attempt that has ended on a day.
func (l *ledger) book(d *day, b booking) {
	b.Project, b.Model = storable(b.Project), storable(b.Model)
	l.mu.Lock()
	l.beginDay(d)
	l.row(b.ledgerKey).add(&b)
	l.spending[b.Upstream] += b.cost
	l.mu.Unlock()
	if l.changed != nil {
		l.changed()
	}
}

// row returns this instance's row. What there is no room for shares one.
func (l *ledger) row(key ledgerKey) *totals {
	id := rowID{l.self, key}
	if row := l.rows[id]; row != nil {
		return row
	}
	if l.own >= maxRows {
		id.Project, id.Model = other, other
		if row := l.rows[id]; row != nil {
			return row
		}
	}
	row := new(totals)
	id.Model = strings.Clone(id.Model) // it is part of a path
	l.rows[id] = row
	l.own++
	return row
}

// spent is what an upstream's answers have cost on a day, in USD, as far as it
// is known. Other instances' part is as they have saved it.
func (l *ledger) spent(d *day, upstream string) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginDay(d)
	return l.spending[upstream].usd()
}

// beginDay empties what belongs to another day.
func (l *ledger) beginDay(d *day) {
	if !d.replaces(l.day) {
		return
	}
	l.day, l.own = d, 0
	clear(l.rows)
	clear(l.spending)
}

// replaces tells whether a day is to be counted instead of the one that is being
// counted. The day before that one is not: what comes late for it, because it was
// under way at midnight, counts today. Any other is, past or future: the clock has
// been set.
func (d *day) replaces(counted *day) bool {
	return counted == nil || d.name != counted.name && !d.ends.Equal(counted.begins)
}

// adopt takes over a row of another instance's, as of a day, unless what is
// known of it is newer.
func (l *ledger) adopt(d *day, of string, id rowID, t totals) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginDay(d)
	known := l.rows[id]
	switch {
	case of != l.day.name || id.instance == l.self:
		return
	case known == nil && len(l.rows)-l.own >= maxPeerRows:
		return
	case known == nil:
		known = new(totals)
		l.rows[id] = known
	case known.Attempts >= t.Attempts:
		return
	}
	l.spending[id.Upstream] += t.Cost - known.Cost
	*known = t
}

// each visits the rows of all instances, in order. The lock is free meanwhile.
func (l *ledger) each(d *day, visit func(of string, id rowID, t totals)) {
	l.mu.Lock()
	l.beginDay(d)
	of, rows := l.day.name, make(map[rowID]totals, len(l.rows))
	for id, row := range l.rows {
		t := *row
		t.Blocks = maps.Clone(t.Blocks)
		rows[id] = t
	}
	l.mu.Unlock()
	for _, id := range slices.SortedFunc(maps.Keys(rows), rowID.compare) {
		visit(of, id, rows[id])
	}
}

func (id rowID) compare(with rowID) int {
	return cmp.Or(id.ledgerKey.compare(with.ledgerKey), cmp.Compare(id.instance, with.instance))
}

func (k ledgerKey) compare(with ledgerKey) int {
	return cmp.Or(cmp.Compare(k.Project, with.Project), cmp.Compare(k.Upstream, with.Upstream), cmp.Compare(k.Model, with.Model))
}

// ledgerRow is what the status page tells of a day (contract §6).
type ledgerRow struct {
	ledgerKey
	totals
	BlockRatio   float64  `json:"block_ratio"`        // 0 to 1, of judged attempts
	CostPerImage *float64 `json:"cost_per_image_usd"` // everything by images delivered; nil without any
}

// today is what all instances have used, in the order of projects, upstreams and
// models.
func (l *ledger) today(d *day) (all []ledgerRow) {
	l.each(d, func(_ string, id rowID, t totals) {
		if n := len(all); n == 0 || all[n-1].ledgerKey != id.ledgerKey {
			all = append(all, ledgerRow{ledgerKey: id.ledgerKey})
		}
		all[len(all)-1].merge(&t)
	})
	for i := range all {
		row := &all[i]
		if row.Judged > 0 {
			row.BlockRatio = float64(row.Blocked) / float64(row.Judged)
		}
		if row.Images > 0 {
			row.CostPerImage = new(row.Cost.usd() / float64(row.Images))
		}
	}
	return all
}

func (t *totals) add(b *booking) {
	t.Attempts++
	if b.endsCall {
		t.Calls++
	}
	if b.isRetry {
		t.Retries++
	}
	t.Images += int64(b.delivered)
	used := b.billed()
	t.Tokens.Input += used.input
	t.Tokens.Output += used.output
	t.Tokens.Thinking += used.thinking
	t.Cost += b.cost
	if !b.isPriced {
		t.Unpriced++
	}
	if b.verdict.class == classOK {
		t.Judged++
	}
	if !b.verdict.class.isBlock() {
		return
	}
	t.Judged++
	t.Blocked++
	t.CostBlocked += b.cost
	t.block(cmp.Or(knownReason(b.verdict.reason), other), 1)
}

func (t *totals) block(reason string, n int64) {
	if t.Blocks == nil {
		t.Blocks = make(map[string]int64)
	}
	t.Blocks[reason] += n
}

// merge adds the totals of another instance.
func (t *totals) merge(with *totals) {
	t.Calls += with.Calls
	t.Attempts += with.Attempts
	t.Retries += with.Retries
	t.Images += with.Images
	t.Judged += with.Judged
	t.Blocked += with.Blocked
	for reason, n := range with.Blocks {
		t.block(reason, n)
	}
	t.Tokens.Input += with.Tokens.Input
	t.Tokens.Output += with.Tokens.Output
	t.Tokens.Thinking += with.Tokens.Thinking
	t.Cost += with.Cost
	t.CostBlocked += with.CostBlocked
	t.Unpriced += with.Unpriced
}

var errTotals = errors.New("absurd totals")

// check refuses what cannot have been counted.
func (t *totals) check() error {
	for _, part := range []struct{ n, of int64 }{
		{t.Attempts, maxSum},
		{t.Calls, t.Attempts},
		{t.Retries, t.Attempts},
		{t.Unpriced, t.Attempts},
		{t.Judged, t.Attempts},
		{t.Blocked, t.Judged},
		{t.Images, maxSum},
		{t.Tokens.Input, maxSum},
		{t.Tokens.Output, maxSum},
		{t.Tokens.Thinking, maxSum},
		{int64(t.Cost), maxSum},
		{int64(t.CostBlocked), int64(t.Cost)},
	} {
		if part.n < 0 || part.n > part.of {
			return errTotals
		}
	}
	if t.Attempts == 0 || len(t.Blocks) > maxReasons {
		return errTotals
	}
	blocked := t.Blocked
	for reason, n := range t.Blocks {
		if blocked -= n; reason == "" || reason != asWord(reason) || n <= 0 || blocked < 0 {
			return errTotals
		}
	}
	return nil
}

// maxReasons is more than there are for a block.
const maxReasons = 64
