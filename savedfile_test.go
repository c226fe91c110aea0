// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"
)

// FuzzSavedFile loads what anybody may have put into storage. What is accepted
// must be accepted again after it has been saved.
func FuzzSavedFile(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{"version":1}`, `{"version":1,"entries":[]}`, `{"version":1,"entries":null}`, `{"version":2,"entries":[]}`,
		`{"version":1,"entries":[{"account":"a","quick":18446744073709551615,"strong":"AAAAAAAAAAEAAAAAAAAAAA==","class":"blocked","reason":"SAFETY","stage":"prompt","until":1795262400}]}`,
		`{"version":1,"entries":[{"key":"a\nmodel","class":"limited","until":1795262400},{"key":"a\nmodel","class":"exhausted","until":1795262401}]}`,
		`{"version":1,"entries":[{"key":"\ud800","class":"limited","until":1795262400},{"key":"","class":"account","until":1}]}`,
		`{"version":1,"entries":[{"key":"0123abcd","until":1795262400}],"more":{"x":[1,2]}}`,
		`{"version":1,"entries":[{"until":9223372036854775807}],"entries":{}}`,
		`{"version":1,"entries":[{"instance":"0123456789abcdef","scope":"p\nm","key":"t","project":"p","model":"m","name":"t","day":"2026-11-21","today":3,"recent":[[1795262390000,1,3,1],[1795262399000,1,0,4]]}]}`,
		`{"version":1,"entries":[{"instance":"0123456789abcdef","scope":"p\nm","project":"p","model":"m","day":"2026-11-21","today":-3}]}`,
		`{"version":1,"entries":[{"key":"p\nm\nrpm","most":5,"until":1795262400},{"key":"p\nm\nrpd","most":0,"until":1795262400}]}`,
		`{"version":1,"entries":[{"instance":"0123456789abcdef","day":"2026-11-21","project":"p","upstream":"u","model":"m","calls":1,"attempts":2,"retries":1,"images":1,"judged":2,"blocked":1,"blocks":{"SAFETY":1},"tokens":{"input":9,"output":3,"thinking":5},"cost_usd":0.5,"cost_blocked_usd":0.1,"unpriced":0}]}`,
		`{"version":1,"entries":[{"reset":1795262400},{"account":"a","project":"p","paused":1795262401,"reset":1795262400,"day":"2026-11-21","alarmed":true,"counts":{"0123456789abcdef":{"judged":20,"blocked":5}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, saved []byte) {
		for i := range newMemories().files() {
			m := newMemories()
			file := m.saver.files[i]
			if err := file.adopt(saved, noon); err != nil {
				if data, _ := file.encode(noon); data != nil {
					t.Fatalf("%s: a file was refused, and part of it taken over: %s", file.key, data)
				}
				continue
			}
			data, err := file.encode(noon)
			if err != nil {
				t.Fatalf("%s: %v", file.key, err)
			}
			if data == nil {
				continue
			}
			again := newMemories().saver.files[i]
			if err := again.adopt(data, noon); err != nil {
				t.Fatalf("%s: what was saved cannot be loaded: %v\n%s", file.key, err, data)
			}
			if copied, _ := again.encode(noon); !bytes.Equal(copied, data) {
				t.Fatalf("%s: saved\n%s\nand then\n%s", file.key, data, copied)
			}
		}
	})
}

// FuzzSavedMerge has two instances work by a script and save twice: a third knows
// the same in the end, whichever of the two it hears first, and hearing the end of it
// again is no news.
func FuzzSavedMerge(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"))
	f.Add([]byte("\x03\x0a\x13\x1a\x23\x2a\x33\x3a\x43\x4a\x53\x5a\x63\x6a"))
	f.Add([]byte("\x04\x0d\x05\x0c\x84\x8d\x85\x8c\x06\x0f\x07\x0e\xff"))
	later := noon.Add(time.Minute)
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 16 {
			return
		}
		var saved [2][]string // by instance, one behind the other
		for i := range saved {
			m := newMemories()
			for n, b := range script {
				now := noon.Add(time.Duration(n) * time.Second)
				if int(b>>3&1) == i {
					m.live(b, now)
				}
				if n == len(script)/2 {
					saved[i] = m.snapshot(t, now)
				}
			}
			saved[i] = append(saved[i], m.snapshot(t, later)...)
		}
		there, back := newMemories(), newMemories()
		there.hear(saved[0], later)
		there.hear(saved[1], later)
		back.hear(saved[1], later)
		back.hear(saved[0], later)
		want := there.snapshot(t, later)
		if got := back.snapshot(t, later); !slices.Equal(got, want) {
			t.Fatalf("%v:\n%s, the other way around\n%s", script, want, got)
		}
		there.hear(want, later)
		if got := there.snapshot(t, later); !slices.Equal(got, want) {
			t.Fatalf("%v:\n%s, and again\n%s", script, want, got)
		}
	})
}

// live is a moment in the life of an instance; three bits say what happens, and
// four to whom.
func (m *memories) live(what byte, now time.Time) {
	day, who := m.calendar.day(now), fmt.Sprint("p", what>>4)
	until := now.Add(time.Hour) // which tells entries of one moment apart
	switch what & 7 {
	case 0:
		m.guard.remember(who, uint64(what), [16]byte{what}, blockRecord{classBlocked, "SAFETY", stagePrompt}, until, now)
	case 1:
		m.guard.remember(who, uint64(what), [16]byte{what}, blockRecord{classForbidden, "SPII", stageOutput}, until, now)
	case 2:
		m.cooldowns.extend(who, cooldown{classLimited}, until, now)
		m.rejected.put(who, struct{}{}, until, now)
	case 3:
		m.learned.put(who, learned{int64(what)}, until, now)
	case 4:
		m.ledger.book(day, drawn(who, "pro"))
	case 5:
		m.blockRates.count(day, who, who, what>>7 == 0)
	case 6:
		m.blockRates.pause(who, who, now)
	case 7:
		m.gates.at(gateID{scope: who}, gateName{who, "m", ""}, now).admit(&once, &bounds{most: demand{limitRPM: 10, limitRPD: 20}}, now)
	}
}

// snapshot is what an instance has in storage.
func (m *memories) snapshot(t *testing.T, now time.Time) (all []string) {
	t.Helper()
	for _, file := range m.saver.files {
		data, err := file.encode(now)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(data))
	}
	return all
}

// hear takes over what was in storage, one file after the other.
func (m *memories) hear(saved []string, now time.Time) {
	for i, data := range saved {
		_ = m.saver.files[i%len(m.saver.files)].adopt([]byte(data), now)
	}
}
