// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

const (
	usageFile = "gemini/usage.json"
	ratesFile = "gemini/block_rates.json"
)

// book takes down an attempt that ends now.
func (m *memories) book(b booking) { m.ledger.book(m.calendar.day(time.Now()), b) }

// count adds judged attempts, and tells how often the alarm was raised.
func (m *memories) count(project string, blocked, passed int) (alarms int) {
	return m.blockRates.counts(m.calendar.day(time.Now()), project, blocked, passed)
}

func (m *memories) today() []ledgerRow { return m.ledger.today(m.calendar.day(time.Now())) }

func (m *memories) spent() float64 { return m.ledger.spent(m.calendar.day(time.Now()), "google") }

// The files are read by other versions and instances.
func TestSavedLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		self := m.ledger.self
		m.book(drawn("b", "pro"))
		m.book(stopped("b", "pro", "SAFETY"))
		m.book(drawn("a", "pro"))
		m.count("b", 20, 1)
		m.count("a", 0, 1)
		m.blockRates.reset("a", time.Now())
		m.count("a", 1, 1)
		m.blockRates.pause("b", "b", time.Now())
		stop(t, m)
		for key, want := range map[string]string{
			usageFile: `{"version":1,"entries":[` +
				`{"instance":"SELF","day":"1999-12-31","project":"a","upstream":"google","model":"pro","calls":1,"attempts":1,"retries":0,"images":1,"judged":1,"blocked":0,"tokens":{"input":10,"output":1300,"thinking":170},"cost_usd":0.1,"cost_blocked_usd":0,"unpriced":0},` +
				`{"instance":"SELF","day":"1999-12-31","project":"b","upstream":"google","model":"pro","calls":2,"attempts":2,"retries":0,"images":1,"judged":2,"blocked":1,"blocks":{"SAFETY":1},"tokens":{"input":20,"output":1300,"thinking":340},"cost_usd":0.11,"cost_blocked_usd":0.01,"unpriced":0}]}`,
			ratesFile: `{"version":1,"entries":[` +
				`{"account":"a","project":"a","reset":946684800,"day":"1999-12-31","counts":{"SELF":{"judged":2,"blocked":1}}},` +
				`{"account":"b","project":"b","paused":946684800,"day":"1999-12-31","alarmed":true,"counts":{"SELF":{"judged":21,"blocked":20}}}]}`,
		} {
			want = strings.ReplaceAll(want, "SELF", self)
			if got := storage.file(key); got != want {
				t.Errorf("%s: expected\n%s\ngot\n%s", key, want, got)
			}
		}
		if !isInstance(self) {
			t.Errorf("%q is no instance", self)
		}
	})
}

// TestKill is about a process that has no time to save what it knows.
func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		for range 3 {
			m.book(drawn("a", "pro"))
			m.book(stopped("b", "flash", "IMAGE_SAFETY"))
		}
		if alarms := m.count("b", 30, 0); alarms != 1 {
			t.Errorf("expected one alarm, got %d", alarms)
		}
		m.blockRates.pause("b", "b", time.Now())
		want := m.today()
		time.Sleep(saveInterval)
		synctest.Wait()
		m.book(drawn("a", "pro")) // is lost
		killed := newShelf()
		killed.files[usageFile], killed.files[ratesFile] = storage.file(usageFile), storage.file(ratesFile)
		stop(t, m)

		again, logs := instance(t, killed)
		defer stop(t, again)
		if got := again.today(); !reflect.DeepEqual(got, want) {
			t.Errorf("expected\n%+v\ngot\n%+v", want, got)
		}
		if got := again.spent(); got != 0.33 {
			t.Errorf("expected 0.33 USD, got %v", got)
		}
		if alarms := again.count("b", 30, 0); alarms != 0 {
			t.Errorf("the alarm was raised again, %d times", alarms)
		}
		if !again.blockRates.isPaused("b") || again.blockRates.isPaused("a") {
			t.Error("the pause was lost")
		}
		if len(logs.All()) > 0 {
			t.Errorf("unexpected log: %v", messages(logs))
		}
		again.book(drawn("a", "pro")) // goes on from there, in a row of its own
		if rows := again.today(); len(rows) != 2 || rows[0].Attempts != 4 || again.spent() != 0.43 {
			t.Errorf("expected two rows and 0.43 USD, got %v USD in %+v", again.spent(), rows)
		}
	})
}

func TestLedgerSurvivesReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		one := joined(t, storage)
		one.book(drawn("a", "pro"))
		one.count("a", 30, 0)
		two := joined(t, storage)
		one.release()
		one.book(drawn("a", "pro")) // a call that is under way
		if got := two.spent(); got != 0.2 {
			t.Errorf("expected 0.2 USD, got %v", got)
		}
		if alarms := two.count("a", 30, 0); alarms > 0 {
			t.Error("the alarm was raised again")
		}
		two.release()
		three := joined(t, storage)
		defer three.release()
		if got := three.spent(); got != 0.2 {
			t.Errorf("expected 0.2 USD after a restart, got %v", got)
		}
	})
}

func TestInstancesAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		one, _ := instance(t, storage)
		defer stop(t, one)
		two, _ := instance(t, storage)
		defer stop(t, two)
		for range 5 { // each saves, and reads what the other has saved
			one.book(drawn("a", "pro"))
			two.book(drawn("a", "pro"))
			two.book(drawn("b", "pro"))
			one.count("a", 2, 0)
			two.count("a", 0, 1)
			time.Sleep(saveInterval)
			synctest.Wait()
		}
		one.book(drawn("a", "pro"))
		two.book(drawn("a", "pro"))
		alarms := one.count("a", 5, 0)
		time.Sleep(3 * saveInterval)
		one.book(drawn("a", "pro"))
		alarms += two.count("a", 5, 0)
		time.Sleep(3 * saveInterval)
		two.book(drawn("b", "pro")) // reads what the first has saved last
		time.Sleep(3 * saveInterval)
		synctest.Wait()
		if one, two := one.today(), two.today(); two[0].Attempts != 13 || len(one) != 2 || one[0].Images != 12+1 {
			t.Errorf("expected 13 attempts for a, got\n%+v\n%+v", one, two)
		}
		if got := two.spent(); got != 1.9 {
			t.Errorf("expected 1.9 USD, got %v", got)
		}
		if alarms != 1 {
			t.Errorf("expected one alarm in both instances, got %d", alarms)
		}
	})
}

// TestPauseDoesNotComeBack has a reset that nobody else knows of yet.
func TestPauseDoesNotComeBack(t *testing.T) {
	for _, project := range []string{"a", ""} {
		t.Run("reset of "+project, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := newShelf()
				one, _ := instance(t, storage)
				one.count("a", 30, 0)
				one.blockRates.pause("a", "a", time.Now())
				time.Sleep(3 * saveInterval)
				two, _ := instance(t, storage)
				old := storage.file(ratesFile)
				if !two.blockRates.isPaused("a") {
					t.Fatal("the second instance does not know of the pause")
				}
				one.blockRates.reset(project, time.Now())
				two.count("b", 1, 0) // saves what it knows
				time.Sleep(3 * saveInterval)
				two.count("b", 1, 0)
				time.Sleep(3 * saveInterval)
				synctest.Wait()
				if one.blockRates.isPaused("a") || two.blockRates.isPaused("a") {
					t.Errorf("after the reset, one has a paused: %t, two: %t", one.blockRates.isPaused("a"), two.blockRates.isPaused("a"))
				}
				storage.mu.Lock()
				storage.files[ratesFile] = old
				storage.mu.Unlock()
				two.count("b", 1, 0)
				time.Sleep(3 * saveInterval)
				stop(t, one)
				stop(t, two)
				three, _ := instance(t, storage)
				defer stop(t, three)
				if one.blockRates.isPaused("a") || two.blockRates.isPaused("a") || three.blockRates.isPaused("a") {
					t.Error("an old file has brought back the pause")
				}
				if alarms := three.count("a", 19, 0); alarms > 0 {
					t.Error("what was before the reset is counted again")
				}
			})
		})
	}
}

func TestOldDaysAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		m.book(drawn("a", "pro"))
		m.count("a", 30, 0)
		m.count("b", 30, 0)
		m.blockRates.pause("b", "b", time.Now())
		time.Sleep(24 * time.Hour)
		m.book(drawn("b", "pro"))
		m.count("c", 1, 0)
		stop(t, m)
		if got := storage.file(usageFile); strings.Contains(got, "1999-12-31") || !strings.Contains(got, `"day":"2000-01-01","project":"b"`) {
			t.Errorf("unexpected rows: %s", got)
		}
		rates := storage.file(ratesFile)
		for text, want := range map[string]bool{`"account":"a"`: false, `"account":"b"`: true, `"account":"c"`: true, `"alarmed"`: false} {
			if strings.Contains(rates, text) != want {
				t.Errorf("%s is among the rates: %t\n%s", text, !want, rates)
			}
		}

		time.Sleep(24 * time.Hour)
		again, logs := instance(t, storage)
		defer stop(t, again)
		if rows := again.today(); len(rows) > 0 || again.spent() > 0 || len(logs.All()) > 0 {
			t.Errorf("yesterday's rows are today's: %+v; log: %v", rows, messages(logs))
		}
		if !again.blockRates.isPaused("b") {
			t.Error("the pause has ended with its day")
		}
	})
}

func TestRowsThatCannotBe(t *testing.T) {
	const sound = `{"instance":"0123456789abcdef","day":"1999-12-31","project":"a","upstream":"google","model":"pro",` +
		`"calls":4,"attempts":5,"retries":1,"images":3,"judged":4,"blocked":2,"blocks":{"SAFETY":1,"other":1},` +
		`"tokens":{"input":1,"output":2,"thinking":3},"cost_usd":0.5,"cost_blocked_usd":0.25,"unpriced":1}`
	refuses(t, usageFile, sound, map[string][2]string{
		"nothing":               {sound, `{}`},
		"no instance":           {`0123456789abcdef`, ``},
		"no name of instance":   {`0123456789abcdef`, `0123456789abcdeg`},
		"long name of instance": {`0123456789abcdef`, `0123456789abcdef00`},
		"no day":                {`1999-12-31`, ``},
		"no date":               {`1999-12-31`, `1999-12-32`},
		"no upstream":           {`"google"`, `""`},
		"long model":            {`"pro"`, `"` + strings.Repeat("m", longestKey+1) + `"`},
		"nothing sent":          {`"attempts":5`, `"attempts":0`},
		"negative":              {`"images":3`, `"images":-3`},
		"a fraction":            {`"images":3`, `"images":3.5`},
		"absurd images":         {`"images":3`, `"images":562949953421313`},
		"beyond all numbers":    {`"input":1`, `"input":1e300`},
		"absurd tokens":         {`"output":2`, `"output":9223372036854775807`},
		"more calls":            {`"calls":4`, `"calls":6`},
		"more retries":          {`"retries":1`, `"retries":6`},
		"more judged":           {`"judged":4`, `"judged":6`},
		"more blocked":          {`"blocked":2`, `"blocked":5`},
		"more reasons":          {`"SAFETY":1`, `"SAFETY":2`},
		"more unpriced":         {`"unpriced":1`, `"unpriced":6`},
		"no word":               {`"SAFETY":1`, `"A prompt":1`},
		"empty reason":          {`"SAFETY":1`, `"":1`},
		"negative reason":       {`"SAFETY":1`, `"SAFETY":-1`},
		"negative money":        {`"cost_usd":0.5`, `"cost_usd":-0.5`},
		"absurd money":          {`"cost_usd":0.5`, `"cost_usd":1e300`},
		"no money":              {`"cost_usd":0.5`, `"cost_usd":"NaN"`},
		"more money blocked":    {`"cost_blocked_usd":0.25`, `"cost_blocked_usd":0.75`},
	}, func(m *memories) bool { return len(m.today()) == 0 })
}

func TestRatesThatCannotBe(t *testing.T) {
	const sound = `{"account":"a","project":"a","paused":946684800,"reset":946684700,"day":"1999-12-31","alarmed":true,` +
		`"counts":{"0123456789abcdef":{"judged":30,"blocked":20}}}`
	many := make([]string, maxInstances+2)
	for i := range many {
		many[i] = fmt.Sprintf(`"%s":{"judged":1}`, instanceOf(i))
	}
	refuses(t, ratesFile, sound, map[string][2]string{
		"long account":        {`"account":"a"`, `"account":"` + strings.Repeat("a", longestKey+1) + `"`},
		"long project":        {`"project":"a"`, `"project":"` + strings.Repeat("a", longestKey+1) + `"`},
		"before time":         {`946684800`, `-1`},
		"far future":          {`946684700`, `9223372036854775807`},
		"no date":             {`1999-12-31`, `yesterday`},
		"no instance":         {`0123456789abcdef`, `one`},
		"negative":            {`"blocked":20`, `"blocked":-20`},
		"more blocked":        {`"blocked":20`, `"blocked":31`},
		"nothing judged":      {`"judged":30,"blocked":20`, `"judged":0`},
		"absurd":              {`"judged":30`, `"judged":562949953421313`},
		"beyond all numbers":  {`"judged":30`, `"judged":1e300`},
		"too many instances":  {`"0123456789abcdef":{"judged":30,"blocked":20}`, strings.Join(many, ",")},
		"alarm of wrong type": {`"alarmed":true`, `"alarmed":1`},
	}, func(m *memories) bool { return len(m.blockRates.accounts) == 0 })
}

// refuses loads a file with a sound entry and one in which something is replaced.
// Nothing of it may be used; the sound one alone may.
func refuses(t *testing.T, file, sound string, replaced map[string][2]string, isEmpty func(*memories) bool) {
	t.Helper()
	load := func(t *testing.T, entries string) (m *memories, refused bool) {
		t.Helper()
		storage := newShelf()
		storage.files[file] = `{"version":1,"entries":[` + entries + `]}`
		m, logs := instance(t, storage)
		stop(t, m)
		return m, logs.FilterMessage("ignoring a file in storage").Len() == 1
	}
	synctest.Test(t, func(t *testing.T) {
		if m, refused := load(t, sound); refused || isEmpty(m) {
			t.Error("the sound entry was refused")
		}
	})
	for name, c := range replaced {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if !strings.Contains(sound, c[0]) {
					t.Fatalf("%s is not in the entry", c[0])
				}
				if m, refused := load(t, sound+","+strings.Replace(sound, c[0], c[1], 1)); !refused || !isEmpty(m) {
					t.Errorf("refused: %t, nothing of it used: %t", refused, isEmpty(m))
				}
			})
		})
	}
}

// A million clients in an hour do not make the files grow.
func TestSavedLedgerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := newShelf()
		m, _ := instance(t, storage)
		for i := range 3 * maxRows {
			project := fmt.Sprint("client-", i)
			m.book(drawn(project, "pro"))
			m.count(project, 1, 0)
		}
		stop(t, m)
		again := newMemories()
		again.saver.start(&lease{storage, zap.NewNop()})
		defer stop(t, again)
		if n := len(again.today()); n != maxRows+1 {
			t.Errorf("expected %d rows, got %d", maxRows+1, n)
		}
		if n := len(storage.file(usageFile)); n > 3<<20 {
			t.Errorf("the file has %d bytes", n)
		}
		if got, want := again.spent(), m.spent(); got != want {
			t.Errorf("expected %v USD, got %v", want, got)
		}
	})
}
