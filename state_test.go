// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
)

// joined gets hold of the shared state as a handler does.
func joined(t *testing.T, s *shelf) *state {
	t.Helper()
	got, err := joinState(&lease{s, zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func references() int {
	n, _ := states.References(memoriesKey)
	return n
}

func TestStateSurvivesReload(t *testing.T) {
	defer nothingRuns(t, goleak.IgnoreCurrent())
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		one := joined(t, storage)
		one.block("a", 1, softBlock, time.Hour)
		one.ties.put("signature", tie{"google", "a"}, time.Now().Add(time.Hour), time.Now())
		healthy := one.healthOf("google", "https://example.com")

		two := joined(t, storage)
		one.release()
		one.release() // Cleanup may follow a failure to provision
		if n := references(); n != 1 {
			t.Fatalf("expected one hold on the state, got %d", n)
		}
		one.block("a", 2, softBlock, time.Hour) // a call that is under way
		if two.recalls("a", 1) != softBlock || two.recalls("a", 2) != softBlock {
			t.Error("blocks were lost")
		}
		if belongs, _ := two.ties.get("signature", time.Now()); belongs != (tie{"google", "a"}) {
			t.Errorf("the tie was lost: %v", belongs)
		}
		if two.healthOf("google", "https://example.com") != healthy {
			t.Error("the health was lost")
		}
		if storage.stored() > 0 {
			t.Error("the first release has saved")
		}
		two.release()
		if n := references(); n != 0 {
			t.Errorf("expected no hold on the state, got %d", n)
		}
		two.block("a", 3, softBlock, time.Hour) // has nowhere to go, and does no harm

		three := joined(t, storage)
		defer three.release()
		if three.recalls("a", 1) != softBlock || three.recalls("a", 2) != softBlock {
			t.Error("blocks were not saved by the last release")
		}
	})
}

func TestReleaseOfNothing(*testing.T) {
	var s *state
	s.release()
	newState().release()
}

// A reload may come while the old storage is being written to: the new one gets all of
// that, too.
func TestStorageChangesDuringARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := newShelf(), newShelf()
		one := joined(t, before)
		one.block("a", 1, softBlock, time.Hour)
		before.lock <- struct{}{}
		time.Sleep(saveInterval + time.Second)
		synctest.Wait() // the round waits for the lock
		two := joined(t, after)
		defer two.release()
		<-before.lock
		one.release()
		time.Sleep(3 * saveInterval)
		synctest.Wait()
		if saved := before.file("gemini/blocks.json"); saved == "" || after.file("gemini/blocks.json") != saved {
			t.Errorf("the new storage has %q, the old one %q", after.file("gemini/blocks.json"), saved)
		}
	})
}

func TestStateUsesTheStorageOfTheNewestConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after, failed := newShelf(), newShelf(), newShelf()
		after.files["gemini/rejected_keys.json"] = `{"version":1,"entries":[{"key":"a","until":946688400}]}`
		one := joined(t, before)
		one.block("a", 1, softBlock, time.Hour)
		time.Sleep(3 * saveInterval)

		two := joined(t, after)
		one.release()
		before.fail(errors.New("closed"))
		time.Sleep(3 * saveInterval)
		synctest.Wait()
		if after.file("gemini/blocks.json") != before.file("gemini/blocks.json") {
			t.Errorf("what was remembered is not in the new storage: %s, but %s", before.file("gemini/blocks.json"), after.file("gemini/blocks.json"))
		}
		if _, ok := two.rejected.get("a", time.Now()); !ok {
			t.Error("what the new storage holds was not taken over")
		}

		three := joined(t, failed) // a configuration that is given up
		three.release()
		failed.fail(errors.New("closed"))
		two.block("a", 2, softBlock, time.Hour)
		two.release()
		if got := len(failed.files); got > 0 {
			t.Errorf("%d files are in the storage that was given up", got)
		}
		four := joined(t, after)
		defer four.release()
		if four.recalls("a", 2) != softBlock {
			t.Error("the last block is not in the storage of the last configuration")
		}
	})
}

func TestStateInConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Go(func() {
				for i := range 30 {
					s := joined(t, storage)
					now := time.Now()
					s.block("a", n*100+i, softBlock, time.Hour)
					s.cooldowns.put(fmt.Sprint(n, i), cooldown{classLimited}, now.Add(time.Minute), now)
					s.rejected.put("k", struct{}{}, now.Add(time.Minute), now)
					s.rejected.dropAll(isKey("k"))
					s.recalls("a", i)
					s.healthOf("a", fmt.Sprint(i%3))
					time.Sleep(time.Duration(n+1) * time.Second)
					s.release()
				}
			})
		}
		wg.Wait()
		s := joined(t, storage)
		defer s.release()
		for n := range 4 {
			for i := range 30 {
				if s.recalls("a", n*100+i) != softBlock {
					t.Errorf("block %d was lost", n*100+i)
				}
			}
		}
	})
}

func TestHealthIsKeptPerUpstream(t *testing.T) {
	m := newMemories()
	google := m.healthOf("google", "https://a.example")
	for _, other := range []*health{m.healthOf("google", "https://b.example"), m.healthOf("other", "https://a.example")} {
		if other == google {
			t.Error("two upstreams share their health")
		}
	}
}

func TestStateIsKeptInCaddysStorage(t *testing.T) {
	dir := t.TempDir()
	storage, err := json.Marshal(map[string]string{"module": "file_system", "root": dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&caddy.Config{StorageRaw: storage})
	if err != nil {
		t.Fatal(err)
	}
	s, err := loadState(ctx, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.block("a", 1, softBlock, time.Hour)
	s.release()
	if _, err := os.Stat(filepath.Join(dir, "gemini", "blocks.json")); err != nil {
		t.Error(err)
	}
}
