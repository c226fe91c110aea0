// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// isKey matches a single key.
func isKey(key string) func(string) bool {
	return func(other string) bool { return other == key }
}

func TestMemoryKeepsValuesUntilTheyExpire(t *testing.T) {
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	for name, test := range map[string]struct {
		do    func(m *memory[string])
		now   time.Time
		value string // empty: none
		until time.Time
	}{
		"nothing":                   {func(*memory[string]) {}, noon, "", time.Time{}},
		"put":                       {func(m *memory[string]) { m.put("k", "a", at(2), noon) }, at(1), "a", at(2)},
		"put, expired":              {func(m *memory[string]) { m.put("k", "a", at(2), noon) }, at(2), "", time.Time{}},
		"put of what has expired":   {func(m *memory[string]) { m.put("k", "a", at(2), noon); m.put("k", "b", noon, noon) }, noon, "", time.Time{}},
		"put with an earlier end":   {func(m *memory[string]) { m.put("k", "a", at(2), noon); m.put("k", "b", at(1), noon) }, noon, "b", at(1)},
		"extend":                    {func(m *memory[string]) { m.put("k", "a", at(2), noon); m.extend("k", "b", at(3), noon) }, at(2), "b", at(3)},
		"extend to an earlier end":  {func(m *memory[string]) { m.put("k", "a", at(2), noon); m.extend("k", "b", at(1), noon) }, noon, "a", at(2)},
		"extend to the past":        {func(m *memory[string]) { m.extend("k", "b", noon, noon) }, noon, "", time.Time{}},
		"extend what has expired":   {func(m *memory[string]) { m.put("k", "a", at(1), noon); m.extend("k", "b", at(3), at(2)) }, at(2), "b", at(3)},
		"drop":                      {func(m *memory[string]) { m.put("k", "a", at(2), noon); m.dropAll(isKey("k")) }, noon, "", time.Time{}},
		"drop of what is not there": {func(m *memory[string]) { m.dropAll(isKey("k")) }, noon, "", time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory[string](10)
			test.do(m)
			value, until, ok := m.find("k", test.now)
			if value != test.value || ok != (test.value != "") || !until.Equal(test.until) {
				t.Errorf("expected %q until %v, got %q (%t) until %v", test.value, test.until, value, ok, until)
			}
		})
	}
}

func TestMemoryTellsOfChanges(t *testing.T) {
	changes := 0
	m := newMemory[int](10)
	m.changed = func() {
		changes++
		m.get("k", noon) // does not hang: the lock is free
	}
	later := noon.Add(time.Hour)
	for i, step := range []struct {
		do   func()
		want int
	}{
		{func() { m.put("k", 1, later, noon) }, 1},
		{func() { m.extend("k", 1, later, noon) }, 1},
		{func() { m.extend("k", 1, later.Add(1), noon) }, 2},
		{func() { m.adopt("k", 1, later.Add(2), noon) }, 2},
		{func() { m.dropAll(isKey("k")) }, 3},
	} {
		if step.do(); changes != step.want {
			t.Errorf("Step %d: expected %d changes so far, got %d", i, step.want, changes)
		}
	}
}

func TestMemoryIsVisitedInOrderWithoutItsLock(t *testing.T) {
	m := newMemory[int](10)
	for i, key := range []string{"c", "a", "expired", "b"} {
		until := noon.Add(time.Hour)
		if key == "expired" {
			until = noon.Add(time.Minute)
		}
		m.put(key, i, until, noon)
	}
	var seen string
	m.each(noon.Add(time.Minute), func(key string, _ int, _ time.Time) {
		seen += key
		m.dropAll(isKey(key))
	})
	if seen != "abc" {
		t.Errorf("expected a, b and c, got %q", seen)
	}
}

func TestFullMemoryForgetsWhatIsWorthLeast(t *testing.T) {
	const limit = victims // so that all entries compete
	for name, test := range map[string]struct {
		after time.Duration // when one more is put
		gone  []int
	}{
		"nothing has expired": {0, []int{0}},
		"some have expired":   {3 * time.Minute, []int{0, 1, 2}},
		"all have expired":    {time.Hour, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory[int](limit)
			for i := range limit {
				m.put(fmt.Sprint(i), i, noon.Add(time.Duration(i+1)*time.Minute), noon.Add(-2*time.Hour))
			}
			now := noon.Add(test.after)
			m.put("new", limit, now.Add(time.Minute), now)
			if _, ok := m.get("new", now); !ok {
				t.Error("the new entry is missing")
			}
			if want := limit + 1 - len(test.gone); len(m.entries) != want {
				t.Errorf("expected %d entries, got %d", want, len(m.entries))
			}
			for _, i := range test.gone {
				if _, ok := m.entries[fmt.Sprint(i)]; ok {
					t.Errorf("entry %d should have gone first", i)
				}
			}
		})
	}
}

func TestMemoryStaysBoundedWhateverTheKeys(t *testing.T) {
	const limit = 100
	m := newMemory[int](limit)
	for i := range 20 * limit {
		now := noon.Add(time.Duration(i) * time.Second)
		m.put(fmt.Sprint(i, strings.Repeat("x", i)), i, now.Add(time.Duration(i%300)*time.Second), now)
		if len(m.entries) > limit {
			t.Fatalf("%d entries after %d, expected %d at the most", len(m.entries), i, limit)
		}
	}
	for key := range m.entries {
		if len(key) > longestKey {
			t.Fatalf("a key of %d bytes is kept", len(key))
		}
	}
}

func TestMemoryDistinguishesKeysThatItShortens(t *testing.T) {
	m := newMemory[int](10)
	keys := []string{"", "a", strings.Repeat("x", 10_000), strings.Repeat("x", 9_999) + "y", "\xff", "\xfe", "�"}
	for i, key := range keys {
		m.put(key, i, noon.Add(time.Hour), noon)
	}
	for i, key := range keys {
		if got, ok := m.get(key, noon); !ok || got != i {
			t.Errorf("Test %d: expected %d, got %d (%t)", i, i, got, ok)
		}
	}
}

func TestMemoryIsSafeForConcurrentUse(t *testing.T) {
	m := newMemory[int](50)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 500 {
				now := noon.Add(time.Duration(i) * time.Second)
				key := fmt.Sprint(i * n % 90)
				m.put(key, i, now.Add(time.Minute), now)
				m.extend(key, i, now.Add(2*time.Minute), now)
				m.get(key, now)
				if i%100 == 0 {
					m.each(now, func(string, int, time.Time) {})
					m.dropAll(isKey(key))
				}
			}
		})
	}
	wg.Wait()
	if len(m.entries) > 50 {
		t.Errorf("%d entries are kept, expected 50 at the most", len(m.entries))
	}
}
