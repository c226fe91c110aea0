// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// strongOf makes a strong print of a number.
func strongOf(n int) (strong [16]byte) {
	binary.BigEndian.PutUint64(strong[:], uint64(n))
	return strong
}

var (
	softBlock = blockRecord{Class: classBlocked, Reason: "IMAGE_SAFETY", Stage: stageOutput}
	hardBlock = blockRecord{Class: classForbidden, Reason: "PROHIBITED_CONTENT", Stage: stagePrompt}
)

func TestGuardRemembersBlocksPerAccount(t *testing.T) {
	g := newGuard()
	hour := noon.Add(time.Hour)
	g.remember("a", 1, strongOf(1), softBlock, hour, noon)
	g.remember("a", 2, strongOf(2), hardBlock, hour, noon)
	g.remember("a", 3, strongOf(3), hardBlock, noon.Add(time.Minute), noon)
	g.remember("b", 1, strongOf(1), softBlock, noon.Add(time.Minute), noon)
	g.remember("c", 1, strongOf(1), softBlock, hour, noon)
	g.remember("c", 1, strongOf(1), hardBlock, hour, noon)
	g.remember("c", 1, strongOf(1), softBlock, hour, noon)
	for i, test := range []struct {
		account         string
		n               int
		now             time.Time
		knows, suspects bool
		record          blockRecord // zero: none
	}{
		{"a", 1, noon, true, true, softBlock},
		{"a", 2, noon, true, true, hardBlock},
		{"a", 3, noon, true, true, hardBlock},
		{"a", 3, noon.Add(time.Minute), true, false, blockRecord{}},
		{"a", 4, noon, true, false, blockRecord{}},
		{"a", 1, hour, false, false, blockRecord{}},
		{"b", 1, noon, true, true, softBlock},
		{"b", 2, noon, true, false, blockRecord{}},
		{"b", 1, noon.Add(time.Minute), false, false, blockRecord{}},
		{"c", 1, noon, true, true, hardBlock}, // outweighs the soft one
		{"d", 1, noon, false, false, blockRecord{}},
		{"", 1, noon, false, false, blockRecord{}},
	} {
		knows := g.knows(test.account, test.now)
		suspects := g.suspects(test.account, uint64(test.n), test.now)
		record, ok := g.recall(test.account, strongOf(test.n), test.now)
		if knows != test.knows || suspects != test.suspects || record != test.record || ok != (test.record != blockRecord{}) {
			t.Errorf("Test %d: expected %t, %t, %v; got %t, %t, %v (%t)",
				i, test.knows, test.suspects, test.record, knows, suspects, record, ok)
		}
	}
}

func TestGuardTellsApartPromptsWithTheSameQuickPrint(t *testing.T) {
	g := newGuard()
	g.remember("a", 7, strongOf(1), softBlock, noon.Add(time.Hour), noon)
	if !g.suspects("a", 7, noon) {
		t.Error("the quick print should be suspect")
	}
	if b, ok := g.recall("a", strongOf(2), noon); ok {
		t.Errorf("another prompt was recalled as %v", b)
	}
}

func TestGuardRemembersTheLongerTime(t *testing.T) {
	g := newGuard()
	g.remember("a", 1, strongOf(1), softBlock, noon.Add(time.Hour), noon)
	g.remember("a", 1, strongOf(1), softBlock, noon.Add(time.Minute), noon)
	now := noon.Add(time.Minute)
	if _, ok := g.recall("a", strongOf(1), now); !ok || !g.suspects("a", 1, now) || !g.knows("a", now) {
		t.Error("the block was forgotten early")
	}
}

func TestSoftBlocksDoNotDisplaceHardOnes(t *testing.T) {
	g := newGuard()
	g.remember("a", 0, strongOf(0), hardBlock, noon.Add(time.Minute), noon) // the first to expire
	for i := 1; i <= maxSoftBlocks+1000; i++ {
		g.remember("b", uint64(i), strongOf(i), softBlock, noon.Add(time.Hour), noon)
	}
	if n := len(g.soft.entries) + len(g.hard.entries); n != maxSoftBlocks+1 {
		t.Errorf("%d blocks are kept, expected %d", n, maxSoftBlocks+1)
	}
	if _, ok := g.recall("a", strongOf(0), noon); !ok {
		t.Error("the hard block was forgotten")
	}
}

// TestIndexOfGuardFollowsItsBlocks looks for blocks that cannot be found, and
// for leftovers of those that are gone.
func TestIndexOfGuardFollowsItsBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	g := newGuard()
	g.soft.limit, g.hard.limit = 40, 20
	now := noon
	for range 5000 {
		now = now.Add(time.Second)
		n, record := random.IntN(60), softBlock
		if random.IntN(3) == 0 {
			record = hardBlock
		}
		account := string(rune('a' + random.IntN(5)))
		g.remember(account, uint64(n%30), strongOf(n), record, now.Add(time.Duration(random.IntN(90))*time.Second), now)
	}
	blocks, accounts, prints := 0, make(map[string]int), make(map[suspect]int)
	for _, m := range []*memory[block]{g.soft, g.hard} {
		for _, e := range m.entries {
			blocks++
			accounts[e.value.account]++
			prints[suspect{e.value.account, e.value.quick}]++
			if now.Before(e.until) && (!g.knows(e.value.account, now) || !g.suspects(e.value.account, e.value.quick, now)) {
				t.Errorf("%v cannot be found", e.value)
			}
		}
	}
	if blocks == 0 || blocks > 60 {
		t.Errorf("%d blocks are kept", blocks)
	}
	if len(accounts) != len(g.accounts) || len(prints) != len(g.prints) {
		t.Errorf("expected %d accounts and %d prints, got %d and %d", len(accounts), len(prints), len(g.accounts), len(g.prints))
	}
	for account, n := range accounts {
		if g.accounts[account].blocks != n {
			t.Errorf("account %s: expected %d blocks, got %d", account, n, g.accounts[account].blocks)
		}
	}
	for p, n := range prints {
		if g.prints[p].blocks != n {
			t.Errorf("print %v: expected %d blocks, got %d", p, n, g.prints[p].blocks)
		}
	}
}
