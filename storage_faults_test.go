// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestFilesThatAreTooLargeAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		storage.files["gemini/blocks.json"] = "large"
		storage.size = maxFile + 1
		m, logs := instance(t, storage)
		if n := logs.FilterMessage("ignoring a file in storage").Len(); n != 1 {
			t.Errorf("expected one warning, got %v", messages(logs))
		}
		m.block("b", 2, hardBlock, time.Hour)
		stop(t, m)
		if !strings.HasPrefix(storage.file("gemini/blocks.json"), `{"version":1,`) {
			t.Errorf("expected the file to be replaced, got %q", storage.file("gemini/blocks.json"))
		}
	})
}

func TestStartingAndStoppingLeavesNoTrace(t *testing.T) {
	for name, content := range map[string]string{
		"no file":      "",
		"sound file":   fmt.Sprintf(`{"version":1,"entries":[{"key":"a","until":%d}]}`, time.Now().Add(time.Hour).Unix()),
		"foreign file": "something else",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if content != "" {
				if err := os.MkdirAll(filepath.Join(dir, "gemini"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "gemini", "rejected_keys.json"), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			storage := &certmagic.FileStorage{Path: dir}
			m, _ := instance(t, storage)
			m.saver.take(&lease{storage, zap.NewNop()}) // another handler of the same configuration
			stop(t, m)
			if after := tree(t, dir); after != before {
				t.Errorf("expected\n%s\ngot\n%s", before, after)
			}
		})
	}
}

func tree(t *testing.T, dir string) (all string) {
	t.Helper()
	err := filepath.Walk(dir, func(name string, info fs.FileInfo, err error) error {
		all += name + " " + info.ModTime().String() + "\n"
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStorageThatFailsIsTriedAgain(t *testing.T) {
	defer nothingRuns(t, goleak.IgnoreCurrent())
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		storage.files["gemini/rejected_keys.json"] = `{"version":1,"entries":[{"key":"a","until":946688400}]}`
		storage.fail(errors.New("no connection"))
		m, logs := instance(t, storage)
		m.block("a", 1, softBlock, time.Hour)
		time.Sleep(time.Minute)
		if n := len(logs.All()); n != 1 {
			t.Errorf("expected one warning, got %v", messages(logs))
		}
		storage.fail(nil)
		time.Sleep(3 * saveInterval)
		synctest.Wait()
		if _, ok := m.rejected.get("a", time.Now()); !ok {
			t.Error("what could not be loaded at first was forgotten")
		}
		if storage.file("gemini/blocks.json") == "" {
			t.Error("what could not be saved at first was forgotten")
		}
		storage.fail(errors.New("no connection"))
		m.block("a", 2, softBlock, time.Hour)
		time.Sleep(3 * saveInterval)
		if n := len(logs.All()); n != 2 {
			t.Errorf("expected another warning, got %v", messages(logs))
		}
		stop(t, m)
	})
}

func TestSlowStorageHoldsUpNothing(t *testing.T) {
	defer nothingRuns(t, goleak.IgnoreCurrent())
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		storage.files["gemini/rejected_keys.json"] = `{"version":1,"entries":[{"key":"a","until":946688400}]}`
		storage.stuck = make(chan struct{})
		began := time.Now()
		m, logs := instance(t, storage)
		if took := time.Since(began); took != loadLimit {
			t.Errorf("starting took %v, expected %v", took, loadLimit)
		}
		if n := len(logs.All()); n != 1 {
			t.Errorf("expected one warning, got %v", messages(logs))
		}
		began = time.Now()
		if err := m.Destruct(); !errors.Is(err, errSlowStorage) {
			t.Errorf("expected %v, got %v", errSlowStorage, err)
		}
		if took := time.Since(began); took != stopLimit {
			t.Errorf("stopping took %v, expected %v", took, stopLimit)
		}
		close(storage.stuck)
		synctest.Wait()
		if _, ok := m.rejected.get("a", time.Now()); !ok {
			t.Error("what came late was not taken over")
		}
	})
}

func TestStorageNeedNotBeComparable(t *testing.T) {
	type storage struct {
		*shelf
		_ map[string]string
	}
	value := storage{shelf: newShelf()}
	m, _ := instance(t, value)
	defer stop(t, m)
	m.saver.take(&lease{value, zap.NewNop()})
}

func TestLockOfAnotherInstanceIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		storage.lock <- struct{}{}
		m, logs := instance(t, storage)
		defer stop(t, m)
		m.block("a", 1, softBlock, time.Hour)
		time.Sleep(saveInterval + roundLimit/2)
		if n := storage.stored() + len(logs.All()); n > 0 {
			t.Errorf("%d files were written without the lock; log: %v", storage.stored(), messages(logs))
		}
		<-storage.lock
		synctest.Wait()
		if n := storage.stored(); n != 1 {
			t.Errorf("expected one file to be written, got %d", n)
		}
	})
}
