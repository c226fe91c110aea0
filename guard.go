// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/hex"
	"sync"
	"time"
)

// How many blocked prompts are remembered, 50,000 in all: a day (the default of
// guard) in which 35 prompts a minute are blocked. With their index they take
// some 20 MB of memory, and 10 MB when saved. Hard blocks have room of their
// own, so that no number of soft ones displaces what must never be sent again.
const (
	maxSoftBlocks = 40_000
	maxHardBlocks = 10_000
)

// guard remembers the prompts that a filter has blocked, per account: Google
// suspends accounts that send them again (issue #3). It holds no prompts, only
// their prints: a quick one to find out cheaply that a prompt is new, and a
// strong one to be certain that it is not.
type guard struct {
	soft, hard *memory[block]

	mu       sync.RWMutex
	accounts tally[string]
	prints   tally[suspect]
}

// blockRecord is what a client is told about a block that it would repeat.
type blockRecord struct {
	Class  class  `json:"class"` // classBlocked or classForbidden
	Reason string `json:"reason"`
	Stage  string `json:"stage"`
}

// block is a prompt that was blocked, and how.
type block struct {
	account string
	quick   uint64
	strong  [16]byte
	blockRecord
}

type suspect struct {
	account string
	quick   uint64
}

func newGuard() *guard {
	g := &guard{
		soft:     newMemory[block](maxSoftBlocks),
		hard:     newMemory[block](maxHardBlocks),
		accounts: make(tally[string]),
		prints:   make(tally[suspect]),
	}
	g.soft.index, g.hard.index = g, g
	return g
}

// remember notes that a prompt of an account was blocked.
func (g *guard) remember(account string, quick uint64, strong [16]byte, b blockRecord, until, now time.Time) {
	g.memoryOf(b.Class).extend(blockKey(account, strong), block{account, quick, strong, b}, until, now)
}

// knows tells whether any block of the account is on record. If not, no prompt
// of it needs a print.
func (g *guard) knows(account string, now time.Time) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.accounts.has(account, now)
}

// suspects tells whether a block of the account has this quick print, so that
// the strong one is worth its price.
func (g *guard) suspects(account string, quick uint64, now time.Time) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.prints.has(suspect{account, quick}, now)
}

// recall returns how the prompt was blocked. A hard block outweighs a soft one.
func (g *guard) recall(account string, strong [16]byte, now time.Time) (blockRecord, bool) {
	key := blockKey(account, strong)
	for _, m := range []*memory[block]{g.hard, g.soft} {
		if b, ok := m.get(key, now); ok {
			return b.blockRecord, true
		}
	}
	return blockRecord{}, false
}

// adopt is remember for a block that has been saved already.
func (g *guard) adopt(b block, until, now time.Time) {
	g.memoryOf(b.Class).adopt(blockKey(b.account, b.strong), b, until, now)
}

// each visits all blocks.
func (g *guard) each(now time.Time, visit func(b block, until time.Time)) {
	for _, m := range []*memory[block]{g.hard, g.soft} {
		m.each(now, func(_ string, b block, until time.Time) { visit(b, until) })
	}
}

func (g *guard) memoryOf(c class) *memory[block] {
	if c == classForbidden {
		return g.hard
	}
	return g.soft
}

func blockKey(account string, strong [16]byte) string {
	return account + " " + hex.EncodeToString(strong[:])
}

// added and removed keep the index of both memories.
func (g *guard) added(b block, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accounts.add(b.account, until)
	g.prints.add(suspect{b.account, b.quick}, until)
}

func (g *guard) removed(b block) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accounts.remove(b.account)
	g.prints.remove(suspect{b.account, b.quick})
}

// tally counts blocks that have something in common.
type tally[K comparable] map[K]count

type count struct {
	blocks int
	until  time.Time // when the last of them expires, or a little later if that one is gone
}

func (t tally[K]) add(key K, until time.Time) {
	c := t[key]
	if c.until.Before(until) {
		c.until = until
	}
	t[key] = count{c.blocks + 1, c.until}
}

func (t tally[K]) remove(key K) {
	c := t[key]
	if c.blocks--; c.blocks == 0 {
		delete(t, key)
		return
	}
	t[key] = c
}

func (t tally[K]) has(key K, now time.Time) bool {
	return now.Before(t[key].until)
}

// Interface guard
var _ index[block] = (*guard)(nil)
