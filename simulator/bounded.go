// SPDX-License-Identifier: Apache-2.0

package simulator

import "sync"

// bounded is a map for concurrent use that forgets an arbitrary entry when it
// is full: enough for caches, and for counts that live for seconds.
type bounded[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]V
	limit   int
}

func newBounded[K comparable, V any](limit int) *bounded[K, V] {
	return &bounded[K, V]{entries: make(map[K]V), limit: limit}
}

func (b *bounded[K, V]) get(key K) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	value, ok := b.entries[key]
	return value, ok
}

// update replaces the value of key by what change makes of it, or drops it
// when change says not to keep it.
func (b *bounded[K, V]) update(key K, change func(V) (value V, keep bool)) V {
	b.mu.Lock()
	defer b.mu.Unlock()
	value, keep := change(b.entries[key])
	if !keep {
		delete(b.entries, key)
		return value
	}
	if _, known := b.entries[key]; !known && len(b.entries) >= b.limit {
		for victim := range b.entries {
			delete(b.entries, victim)
			break
		}
	}
	b.entries[key] = value
	return value
}
