// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// memory holds values that expire. Clients choose many of its keys, so that it
// is bounded in number and in size. It is safe for concurrent use.
type memory[V any] struct {
	limit   int
	index   index[V] // may be nil
	changed func()   // is called, without the lock, when something is to be saved; may be nil

	mu      sync.RWMutex
	entries map[string]entry[V]
	soonest time.Time // no entry expires before; zero: a sweep has to find out
}

type entry[V any] struct {
	value V
	until time.Time // exclusive
}

// index follows what a memory holds, to find it by something else than its key.
// Every value that is added is removed once, and both happen under the lock of
// the memory.
type index[V any] interface {
	added(v V, until time.Time)
	removed(v V)
}

func newMemory[V any](limit int) *memory[V] {
	return &memory[V]{limit: limit, entries: make(map[string]entry[V])}
}

// get returns a value that has not expired.
func (m *memory[V]) get(key string, now time.Time) (V, bool) {
	v, _, ok := m.find(key, now)
	return v, ok
}

// isEmpty tells that nothing is held, expired or not.
func (m *memory[V]) isEmpty() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.entries) == 0
}

// find returns a value and when it expires.
func (m *memory[V]) find(key string, now time.Time) (v V, until time.Time, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.entries[storable(key)]
	if !ok || !now.Before(e.until) {
		return v, time.Time{}, false
	}
	return e.value, e.until, true
}

// put remembers a value until a time, whatever was there before. It tells
// whether there was nothing.
func (m *memory[V]) put(key string, v V, until, now time.Time) (isNew bool) {
	m.mu.Lock()
	key = storable(key)
	before, ok := m.entries[key]
	m.set(key, v, until, now)
	m.mu.Unlock()
	m.notify()
	return !ok || !now.Before(before.until)
}

// extend remembers a value until a time, unless there is one that lasts at
// least as long. It tells whether there was none.
func (m *memory[V]) extend(key string, v V, until, now time.Time) (isLonger bool) {
	isLonger = m.adopt(key, v, until, now)
	if isLonger {
		m.notify()
	}
	return isLonger
}

// adopt is extend for what has been saved already. It tells whether the value
// was news.
func (m *memory[V]) adopt(key string, v V, until, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	key = storable(key)
	if e, ok := m.entries[key]; !now.Before(until) || ok && !e.until.Before(until) {
		return false
	}
	m.set(key, v, until, now)
	return true
}

// dropAll forgets the values whose keys match. What is saved and has been taken
// over by another instance comes back with what that instance saves.
func (m *memory[V]) dropAll(matches func(key string) bool) {
	m.mu.Lock()
	for key := range m.entries {
		if matches(key) {
			m.remove(key)
		}
	}
	m.mu.Unlock()
	m.notify()
}

// each visits what has not expired, in the order of its keys. The lock is free
// meanwhile.
func (m *memory[V]) each(now time.Time, visit func(key string, v V, until time.Time)) {
	m.mu.RLock()
	entries := maps.Clone(m.entries)
	m.mu.RUnlock()
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if e := entries[key]; now.Before(e.until) {
			visit(key, e.value, e.until)
		}
	}
}

func (m *memory[V]) notify() {
	if m.changed != nil {
		m.changed()
	}
}

func (m *memory[V]) set(key string, v V, until, now time.Time) {
	m.remove(key)
	if !now.Before(until) {
		return
	}
	if len(m.entries) >= m.limit {
		m.makeRoom(now)
	}
	if until.Before(m.soonest) {
		m.soonest = until
	}
	m.entries[key] = entry[V]{v, until}
	if m.index != nil {
		m.index.added(v, until)
	}
}

func (m *memory[V]) remove(key string) {
	e, exists := m.entries[key]
	if !exists {
		return
	}
	delete(m.entries, key)
	if m.index != nil {
		m.index.removed(e.value)
	}
}

// makeRoom forgets what has expired, or else one entry.
func (m *memory[V]) makeRoom(now time.Time) {
	if !now.Before(m.soonest) {
		m.sweep(now)
	}
	if len(m.entries) >= m.limit {
		m.remove(m.victim())
	}
}

// sweep looks at all entries, which is worth it only once soonest has passed.
func (m *memory[V]) sweep(now time.Time) {
	m.soonest = time.Time{}
	for key, e := range m.entries {
		switch {
		case !now.Before(e.until):
			m.remove(key)
		case m.soonest.IsZero() || e.until.Before(m.soonest):
			m.soonest = e.until
		}
	}
}

// victims is how many entries compete for being forgotten first. It makes the
// choice good enough without an order of all entries.
const victims = 16

// victim is the entry that expires soonest of a few. Go begins to range over a
// map at random.
func (m *memory[V]) victim() (key string) {
	var until time.Time
	n := 0
	for k, e := range m.entries {
		if n == 0 || e.until.Before(until) {
			key, until = k, e.until
		}
		if n++; n == victims {
			break
		}
	}
	return key
}

// longestKey is how long a key may be, in bytes: several times the length of any
// real model's and project's names.
const longestKey = 512

// storable is the key under which something is kept: itself, or a hash where a
// client made it longer than any real one, or not fit for JSON.
func storable(key string) string {
	if len(key) <= longestKey && utf8.ValidString(key) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256-" + hex.EncodeToString(sum[:])
}
