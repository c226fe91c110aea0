// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
)

func TestWhatIsRememberedSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		storage := &certmagic.FileStorage{Path: dir}
		defer time.Sleep(time.Minute) // until it no longer looks after its locks
		m, _ := instance(t, storage)
		now := time.Now()
		m.block("a", 1, softBlock, time.Hour)
		m.block("b", 2, hardBlock, time.Hour+time.Millisecond)
		m.block("b", 3, hardBlock, time.Minute)
		m.cooldowns.put("a\ngemini-3-pro-image", cooldown{classExhausted}, now.Add(time.Hour), now)
		m.rejected.put("0123abcd", struct{}{}, now.Add(time.Hour), now)
		m.refused.put("v1", 1, now.Add(time.Hour), now)
		stop(t, m)
		time.Sleep(time.Minute)

		m, logs := instance(t, storage)
		defer stop(t, m)
		for i, test := range []struct {
			account string
			n       int
			want    blockRecord
		}{
			{"a", 1, softBlock},
			{"b", 2, hardBlock},
			{"b", 3, blockRecord{}}, // has expired meanwhile
			{"a", 2, blockRecord{}},
		} {
			if got := m.recalls(test.account, test.n); got != test.want {
				t.Errorf("Test %d: expected %v, got %v", i, test.want, got)
			}
		}
		c, until, _ := m.cooldowns.find("a\ngemini-3-pro-image", time.Now())
		if c.Class != classExhausted || !until.Equal(now.Add(time.Hour)) {
			t.Errorf("expected the cooldown until %v, got %v until %v", now.Add(time.Hour), c, until)
		}
		if _, ok := m.rejected.get("0123abcd", time.Now()); !ok {
			t.Error("the key is no longer set aside")
		}
		if _, ok := m.refused.get("v1", time.Now()); ok {
			t.Error("what is remembered for a day only was saved")
		}
		if len(logs.All()) > 0 {
			t.Errorf("unexpected log: %v", messages(logs))
		}
	})
}

// The files are read by other versions and instances.
func TestSavedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		now := time.Now()
		m.block("b", 1, softBlock, time.Hour)
		m.block("a", 2, softBlock, time.Hour)
		m.block("c", 3, hardBlock, time.Hour-time.Second/2)
		m.cooldowns.put("a\nmodel", cooldown{classLimited}, now.Add(time.Minute), now)
		m.rejected.put("0123abcd", struct{}{}, now.Add(time.Minute), now)
		stop(t, m)
		for key, want := range map[string]string{
			"gemini/blocks.json": `{"version":1,"entries":[` +
				`{"account":"c","quick":3,"strong":"AAAAAAAAAAMAAAAAAAAAAA==","class":"forbidden","reason":"PROHIBITED_CONTENT","stage":"prompt","until":946688400},` +
				`{"account":"a","quick":2,"strong":"AAAAAAAAAAIAAAAAAAAAAA==","class":"blocked","reason":"IMAGE_SAFETY","stage":"output","until":946688400},` +
				`{"account":"b","quick":1,"strong":"AAAAAAAAAAEAAAAAAAAAAA==","class":"blocked","reason":"IMAGE_SAFETY","stage":"output","until":946688400}]}`,
			"gemini/cooldowns.json":     `{"version":1,"entries":[{"key":"a\nmodel","class":"limited","until":946684860}]}`,
			"gemini/rejected_keys.json": `{"version":1,"entries":[{"key":"0123abcd","until":946684860}]}`,
		} {
			if got := storage.file(key); got != want {
				t.Errorf("%s: expected\n%s\ngot\n%s", key, want, got)
			}
		}
	})
}

func TestSavingIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		defer stop(t, m)
		for i := range 100 { // 100 seconds
			m.block("a", i, softBlock, time.Hour)
			time.Sleep(time.Second)
		}
		time.Sleep(saveInterval)
		synctest.Wait()
		if n := storage.stored(); n < 10 || n > 21 {
			t.Errorf("a block a second for 100 seconds was saved in %d rounds, expected one in 5 to 10 seconds", n)
		}
		before := storage.stored()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := storage.stored() - before; n > 0 {
			t.Errorf("nothing has changed, and was saved %d times", n)
		}
	})
}

// An instance that has crashed in the middle of a round gives its lock back to nobody.
func TestLockOfACrashedInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		defer stop(t, m)
		storage.lock <- struct{}{}
		m.block("a", 1, softBlock, time.Hour)
		time.Sleep(roundLimit + 2*saveInterval)
		if storage.stored() > 0 {
			t.Error("saved without the lock")
		}
		time.Sleep(roundLimit + 3*saveInterval)
		synctest.Wait()
		if storage.stored() == 0 {
			t.Error("nothing has been saved since")
		}
	})
}

func TestInstancesThatShareStorage(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		storage := &certmagic.FileStorage{Path: dir}
		defer time.Sleep(time.Minute) // until it no longer looks after its locks
		one, _ := instance(t, storage)
		two, _ := instance(t, storage)
		now := time.Now()
		one.block("a", 1, softBlock, time.Hour)
		one.cooldowns.put("both", cooldown{classLimited}, now.Add(time.Hour), now)
		time.Sleep(3 * saveInterval)
		if _, ok := two.cooldowns.get("both", time.Now()); !ok || two.recalls("a", 1) != softBlock {
			t.Error("the second, which has nothing to save, did not take over what the first had saved")
		}
		two.block("a", 2, softBlock, time.Hour)
		two.cooldowns.put("both", cooldown{classExhausted}, now.Add(2*time.Hour), now)
		time.Sleep(3 * saveInterval)
		if c, _ := one.cooldowns.get("both", time.Now()); c.Class != classExhausted || one.recalls("a", 2) != softBlock {
			t.Error("the first did not take over what the second had saved")
		}
		one.block("a", 3, softBlock, time.Hour)
		one.cooldowns.put("one", cooldown{classLimited}, now.Add(time.Hour), now)
		stop(t, one)
		stop(t, two)

		three, _ := instance(t, storage)
		defer stop(t, three)
		for n := 1; n <= 3; n++ {
			if three.recalls("a", n) != softBlock {
				t.Errorf("block %d was lost", n)
			}
		}
		if c, _ := three.cooldowns.get("both", time.Now()); c.Class != classExhausted {
			t.Errorf("expected the cooldown that lasts longer, got %v", c)
		}
	})
}

func TestWhatIsDroppedDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		m.rejected.put("key", struct{}{}, time.Now().Add(time.Hour), time.Now())
		time.Sleep(3 * saveInterval)
		if storage.file("gemini/rejected_keys.json") == "" {
			t.Error("the key was not saved")
		}
		m.rejected.dropAll(isKey("key"))
		time.Sleep(3 * saveInterval)
		if _, ok := m.rejected.get("key", time.Now()); ok {
			t.Error("the key has come back")
		}
		stop(t, m)
		if len(storage.files) > 0 {
			t.Errorf("expected no file, got %v", storage.files)
		}
	})
}

func TestForeignFilesAreMovedAside(t *testing.T) {
	const file = "gemini/blocks.json"
	const sound = `{"account":"a","quick":1,"strong":"AAAAAAAAAAEAAAAAAAAAAA==","class":"blocked","reason":"SAFETY","stage":"prompt","until":946688400}`
	with := func(old, other string) string {
		if !strings.Contains(sound, old) {
			panic(old)
		}
		return `{"version":1,"entries":[` + sound + `,` + strings.Replace(sound, old, other, 1) + `]}`
	}
	for name, content := range map[string]string{
		"empty":              "",
		"no JSON":            "\x00\x01\x02",
		"cut off":            `{"version":1,"entries":[` + sound,
		"something after it": `{"version":1,"entries":[` + sound + `]} x`,
		"an array":           `[]`,
		"null":               `null`,
		"no version":         `{"entries":[` + sound + `]}`,
		"another version":    `{"version":2,"entries":[` + sound + `]}`,
		"no array":           `{"version":1,"entries":{"a":` + sound + `}}`,
		"no objects":         `{"version":1,"entries":[1,2,3]}`,
		"null entries":       `{"version":1,"entries":[null]}`,
		"too many entries":   `{"version":1,"entries":[` + strings.Repeat("{},", maxEntries) + `{}]}`,
		"no account":         with(`"a"`, `""`),
		"wrong type":         with(`"quick":1`, `"quick":"1"`),
		"negative print":     with(`"quick":1`, `"quick":-1`),
		"short print":        with(`AAAAAAAAAAEAAAAAAAAAAA==`, `AAAA`),
		"no base64":          with(`AAAAAAAAAAEAAAAAAAAAAA==`, `?`),
		"no block":           with(`"blocked"`, `"ok"`),
		"unknown class":      with(`"blocked"`, `"Blocked"`),
		"number of class":    with(`"blocked"`, `7`),
		"no word":            with(`"SAFETY"`, `"SAFETY\r\nX: y"`),
		"no reason":          with(`"SAFETY"`, `""`),
		"unknown stage":      with(`"prompt"`, `"dawn"`),
		"no time":            with(`946688400`, `0`),
		"before time":        with(`946688400`, `-1`),
		"far future":         with(`946688400`, `9223372036854775807`),
		"beyond all numbers": with(`946688400`, `1e300`),
		"no year":            with(`946688400`, `253402300800`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := newShelf()
				storage.files[file] = content
				storage.files[file+".corrupt"] = "an earlier one"
				m, logs := instance(t, storage)
				if n := logs.FilterMessage("ignoring a file in storage").Len(); n != 1 {
					t.Errorf("expected one warning, got %v", messages(logs))
				}
				if b := m.recalls("a", 1); b != (blockRecord{}) {
					t.Errorf("part of the file was used: %v", b)
				}
				m.block("b", 2, hardBlock, time.Hour)
				stop(t, m)
				if got := storage.file(file + ".corrupt"); got != content {
					t.Errorf("expected the file set aside, got %q", got)
				}
				if n := logs.FilterMessage("a file in storage has been moved aside").Len(); n != 1 {
					t.Errorf("expected one more warning, got %v", messages(logs))
				}

				m, _ = instance(t, storage)
				defer stop(t, m)
				if m.recalls("b", 2) != hardBlock {
					t.Error("the new block was not saved")
				}
			})
		})
	}
}

// A process that starts with a clock that is behind loses nothing that counts once the
// clock is right.
func TestClockThatIsBehindAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const behind = 120 * 24 * time.Hour
		right, before := time.Now().Add(behind), newMemories()
		before.guard.remember("a", 1, strongOf(1), hardBlock, right.Add(24*time.Hour), right)
		before.guard.remember("a", 2, strongOf(2), softBlock, right.Add(24*time.Hour), right)
		before.blockRates.pause("a", "a", right)
		storage := newShelf()
		for i, data := range before.snapshot(t, right) {
			if data != "" {
				storage.files[before.saver.files[i].key] = data
			}
		}
		for _, from := range []string{"behind", "right"} {
			m, logs := instance(t, storage)
			if m.recalls("a", 1) != hardBlock || m.recalls("a", 2) != softBlock || !m.blockRates.isPaused("a") {
				t.Errorf("with a clock that is %s, a block or a pause is lost", from)
			}
			m.block("b", 3, softBlock, time.Hour)
			m.count("b", 0, 1)
			stop(t, m)
			if len(logs.All()) > 0 {
				t.Errorf("with a clock that is %s: %v", from, messages(logs))
			}
			time.Sleep(time.Until(right))
		}
	})
}

// One entry from a clock that is far ahead closes nothing for years, and costs no
// other entry.
func TestEntriesFromAClockThatIsAhead(t *testing.T) {
	gateOf := func(scope string, at int64) string {
		return fmt.Sprintf(`{"instance":"0123456789abcdef","scope":"%s","project":"p","model":"m","day":"1999-12-31","today":2,"recent":[[1,%d,1,0,0]]}`, scope, at)
	}
	for file, c := range map[string]struct {
		entries string
		has     func(m *memories, key string) bool
	}{
		"gemini/cooldowns.json": {
			`{"key":"sound","class":"limited","until":946688400},{"key":"ahead","class":"limited","until":1009756800}`,
			func(m *memories, key string) bool { return has(m.cooldowns, key) },
		},
		"gemini/rejected_keys.json": {
			`{"key":"sound","until":946688400},{"key":"ahead","until":1009756800}`,
			func(m *memories, key string) bool { return has(m.rejected, key) },
		},
		"gemini/learned_limits.json": {
			`{"key":"sound","most":1,"until":946688400},{"key":"ahead","most":1,"until":1009756800}`,
			func(m *memories, key string) bool { return has(m.learned, key) },
		},
		"gemini/limits.json": {
			gateOf("sound", 946684800000) + "," + gateOf("ahead", 1009756800000),
			func(m *memories, key string) bool { return m.gates.list()[gateID{scope: key}] != nil },
		},
	} {
		t.Run(file, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := newShelf()
				storage.files[file] = `{"version":1,"entries":[` + c.entries + `]}`
				m, logs := instance(t, storage)
				stop(t, m)
				if !c.has(m, "sound") || c.has(m, "ahead") {
					t.Errorf("has the sound one: %t, the one from ahead: %t", c.has(m, "sound"), c.has(m, "ahead"))
				}
				if len(logs.All()) > 0 {
					t.Errorf("unexpected log: %v", messages(logs))
				}
			})
		})
	}
}

func has[V any](m *memory[V], key string) bool {
	_, ok := m.get(key, time.Now())
	return ok
}
