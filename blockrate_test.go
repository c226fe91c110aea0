// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// counts adds attempts of a project, the blocked ones first, and tells how often
// the alarm was raised.
func (b *blockRates) counts(d *day, project string, blocked, passed int) (alarms int) {
	for i := range blocked + passed {
		if b.count(d, project, project, i < blocked).isAlarming {
			alarms++
		}
	}
	return alarms
}

func TestRatesOfADay(t *testing.T) {
	b, calendar := newBlockRates("self"), newCalendar(pacific)
	for i, c := range []struct {
		project string
		blocked bool
		now     time.Time
		want    share
	}{
		{"a", false, noon, share{project: "a", blocked: 0, isAlarming: false}},
		{"a", true, noon, share{project: "a", blocked: 0.5, isAlarming: false}},
		{"b", true, noon, share{project: "b", blocked: 1, isAlarming: false}},
		{"a", true, noon.Add(19 * time.Hour), share{project: "a", blocked: 2. / 3, isAlarming: false}},
		{"b", false, noon.Add(20 * time.Hour), share{project: "b", blocked: 0, isAlarming: false}},
		{"a", false, noon.Add(21 * time.Hour), share{project: "a", blocked: 0, isAlarming: false}},
		{"a", true, noon.Add(19 * time.Hour), share{project: "a", blocked: 0.5, isAlarming: false}}, // late, from the day before
	} {
		if got := b.count(calendar.day(c.now), "account "+c.project, c.project, c.blocked); got != c.want {
			t.Errorf("Test %d: expected %v, got %v", i, c.want, got)
		}
	}
}

func TestRatesAreBounded(t *testing.T) {
	b, d := newBlockRates("self"), dayOf(noon)
	b.count(d, "client-0", "client-0", false)
	alarms := 0
	for i := range 1_000_000 {
		project := "client-" + strconv.Itoa(i)
		s := b.count(d, project, project, true)
		if i >= maxProjects && s.project != other {
			t.Fatalf("project %d is counted apart", i)
		}
		if s.isAlarming {
			alarms++
		}
	}
	if n := len(b.accounts); n != maxProjects+1 {
		t.Errorf("%d accounts are kept, expected %d and one for all others", n, maxProjects)
	}
	if s := b.count(d, "client-0", "client-0", true); s.project != "client-0" || s.blocked != 2./3 {
		t.Errorf("what was counted apart no longer is: %v", s)
	}
	if alarms > 0 {
		t.Errorf("%d alarms for many accounts with one attempt each", alarms)
	}
	b.pause("client-999999", "client-999999", noon)
	if b.isPaused("client-999999") || b.isPaused(other) {
		t.Error("many accounts were paused for one")
	}
}

func TestAlarm(t *testing.T) {
	for name, c := range map[string]struct {
		blocked, passed int
		want            int
	}{
		"too few":               {19, 0, 0},
		"enough":                {20, 0, 1},
		"one in five":           {4, 16, 0},
		"more than one in five": {6, 14, 1},
		"long before":           {30, 1000, 1},
		"with one that passed":  {5, 15, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := newBlockRates("self").counts(dayOf(noon), "a", c.blocked, c.passed); got != c.want {
				t.Errorf("expected %d alarms, got %d", c.want, got)
			}
		})
	}
}

func TestAlarmIsRaisedOnceADay(t *testing.T) {
	b, calendar := newBlockRates("self"), newCalendar(pacific)
	today, tomorrow := calendar.day(noon), calendar.day(noon.AddDate(0, 0, 1))
	for i, c := range []struct {
		day     *day
		project string
		blocked int
		passed  int
		want    int
	}{
		{today, "a", 30, 0, 1},
		{today, "b", 30, 0, 1},
		{today, "a", 0, 200, 0}, // well below again
		{today, "a", 100, 0, 0}, // and above
		{tomorrow, "a", 10, 0, 0},
		{tomorrow, "a", 10, 0, 1},
	} {
		if got := b.counts(c.day, c.project, c.blocked, c.passed); got != c.want {
			t.Errorf("Test %d: expected %d alarms, got %d", i, c.want, got)
		}
	}
}

func TestPauseLastsUntilReset(t *testing.T) {
	b, calendar := newBlockRates("self"), newCalendar(pacific)
	now := noon
	if b.isPaused("account a") {
		t.Error("an account is paused that nobody knows")
	}
	for range alarmFrom {
		b.count(calendar.day(now), "account a", "a", true)
	}
	b.pause("account a", "a", now)
	for range 3 {
		now = now.AddDate(0, 0, 1)
		b.count(calendar.day(now), "account b", "b", true)
		if !b.isPaused("account a") || b.isPaused("account b") || b.isPaused("a") {
			t.Fatalf("on %v, a is paused: %t, b: %t", now, b.isPaused("account a"), b.isPaused("account b"))
		}
	}
	if got := b.pauses(); len(got) != 1 || got[0] != (pausedProject{"a", noon}) {
		t.Errorf("unexpected pauses: %v", got)
	}
	for i, c := range []struct {
		project string
		lifted  int
	}{{"b", 0}, {"c", 0}, {"a", 1}, {"a", 0}} {
		if got := b.reset(c.project, now); got != c.lifted {
			t.Errorf("Test %d: expected %d pauses to be lifted, got %d", i, c.lifted, got)
		}
	}
	if b.isPaused("account a") || len(b.pauses()) > 0 {
		t.Error("the reset has not lifted the pause")
	}
	b.pause("account a", "a", now) // in the same second
	if !b.isPaused("account a") {
		t.Error("a reset lasts longer than its moment")
	}
}

func TestResetBeginsToCountAnew(t *testing.T) {
	b, d := newBlockRates("self"), dayOf(noon)
	b.counts(d, "a", 100, 0)
	b.counts(d, "b", 100, 0)
	b.reset("a", noon)
	if s := b.count(d, "a", "a", false); s.blocked != 0 || s.isAlarming {
		t.Errorf("the rate is %v after a reset", s.blocked)
	}
	if s := b.count(d, "b", "b", true); s.blocked != 1 {
		t.Errorf("another project's rate is %v", s.blocked)
	}
	if got := b.counts(d, "a", alarmFrom, 0); got != 1 {
		t.Errorf("expected the alarm again for what came since, got %d", got)
	}
}

func TestResetOfAll(t *testing.T) {
	b, d := newBlockRates("self"), dayOf(noon)
	for _, project := range []string{"a", "b", "c"} {
		b.counts(d, project, 100, 0)
	}
	b.pause("a", "a", noon)
	b.pause("b", "b", noon)
	if lifted := b.reset("", noon); lifted != 2 {
		t.Errorf("expected two pauses to be lifted, got %d", lifted)
	}
	for _, project := range []string{"a", "b", "c"} {
		if s := b.count(d, project, project, false); s.blocked != 0 || b.isPaused(project) {
			t.Errorf("%s: the rate is %v after a reset", project, s.blocked)
		}
	}
}

// TestResetOfAllMeetsOthers is about accounts that only another instance knows.
func TestResetOfAllMeetsOthers(t *testing.T) {
	one, two, d := newBlockRates("one"), newBlockRates("two"), dayOf(noon)
	one.reset("", noon)
	two.counts(d, "a", 30, 0)
	two.pause("a", "a", noon.Add(-time.Minute))
	for _, e := range two.saved(d) {
		one.adopt(d, e)
	}
	if one.isPaused("a") || len(one.accounts) > 0 {
		t.Error("what was before the reset of all was taken over")
	}
	one.counts(d, "b", 3, 1)
	for _, e := range one.saved(d) {
		two.adopt(d, e)
	}
	if s := two.count(d, "b", "b", false); two.isPaused("a") || s.blocked != 3./5 {
		t.Errorf("the other has a paused: %t, and for b a rate of %v", two.isPaused("a"), s.blocked)
	}
}

// TestResetBehindOtherClocks has instances that are ahead.
func TestResetBehindOtherClocks(t *testing.T) {
	b, d := newBlockRates("self"), dayOf(noon)
	ahead := unixTimeOf(noon.Add(time.Minute))
	b.adopt(d, savedRate{Account: "a", Project: "a", Paused: ahead})
	if lifted := b.reset("a", noon); lifted != 1 || b.isPaused("a") {
		t.Errorf("%d pauses were lifted", lifted)
	}
	b.adopt(d, savedRate{Account: "a", Project: "a", Reset: ahead + 1})
	b.reset("a", noon)
	if got := b.saved(d)[0].Reset; got != ahead+2 {
		t.Errorf("the newest reset is %d seconds behind another", ahead+2-got)
	}
}

// instanceOf is the name of the n-th instance.
func instanceOf(n int) string { return fmt.Sprintf("%016x", n) }

// TestWhatOthersSave is about instances that share a storage: self has counted
// ten blocked attempts, and reads what another has saved.
func TestWhatOthersSave(t *testing.T) {
	const early, soon, late = 1, 2, 3
	at := func(when unixTime) unixTime { return unixTimeOf(noon) + when }
	one, two := instanceOf(1), instanceOf(2)
	for name, c := range map[string]struct {
		before func(b *blockRates)
		saved  []savedRate

		paused bool
		sum    blockCount
		alarms int // of the next attempt that is blocked
	}{
		"counts":                {nil, []savedRate{{Counts: map[string]blockCount{one: {5, 1}, two: {2, 0}}}}, false, blockCount{17, 11}, 0},
		"counts that alarm":     {nil, []savedRate{{Counts: map[string]blockCount{one: {9, 0}}}}, false, blockCount{19, 10}, 1},
		"alarmed there":         {nil, []savedRate{{Alarmed: true, Counts: map[string]blockCount{one: {9, 0}}}}, false, blockCount{19, 10}, 0},
		"newer counts":          {nil, []savedRate{{Counts: map[string]blockCount{one: {5, 1}}}, {Counts: map[string]blockCount{one: {7, 2}}}}, false, blockCount{17, 12}, 0},
		"older counts":          {nil, []savedRate{{Counts: map[string]blockCount{one: {7, 2}}}, {Counts: map[string]blockCount{one: {5, 1}}}}, false, blockCount{17, 12}, 0},
		"own counts":            {nil, []savedRate{{Counts: map[string]blockCount{"self": {99, 0}}}}, false, blockCount{10, 10}, 0},
		"counts of another day": {nil, []savedRate{{Day: "2026-11-20", Alarmed: true, Counts: map[string]blockCount{one: {9, 0}}}}, false, blockCount{10, 10}, 0},
		"pause":                 {nil, []savedRate{{Paused: at(soon)}}, true, blockCount{10, 10}, 0},
		"pause of another day":  {nil, []savedRate{{Paused: at(soon), Day: "2026-11-20"}}, true, blockCount{10, 10}, 0},
		"pause and reset":       {nil, []savedRate{{Paused: at(soon)}, {Reset: at(late)}}, false, blockCount{}, 0},
		"reset and pause":       {nil, []savedRate{{Reset: at(late)}, {Paused: at(soon)}}, false, blockCount{}, 0},
		"pause after a reset":   {nil, []savedRate{{Reset: at(soon), Paused: at(late)}}, true, blockCount{}, 0},
		"counts after a reset":  {nil, []savedRate{{Reset: at(soon), Counts: map[string]blockCount{one: {5, 1}}}}, false, blockCount{5, 1}, 0},
		"counts before a reset": {
			func(b *blockRates) { b.reset("a", at(soon).time()) },
			[]savedRate{{Alarmed: true, Counts: map[string]blockCount{one: {50, 40}}}},
			false,
			blockCount{},
			0,
		},
		"pause before a reset": {
			func(b *blockRates) { b.reset("a", at(soon).time()) }, []savedRate{{Paused: at(early)}}, false, blockCount{}, 0,
		},
		"pause before a reset of all": {
			func(b *blockRates) { b.reset("", at(soon).time()) }, []savedRate{{Paused: at(early)}}, false, blockCount{}, 0,
		},
		"reset there, paused since": {
			func(b *blockRates) { b.pause("a", "a", at(late).time()) }, []savedRate{{Reset: at(soon)}}, true, blockCount{}, 0,
		},
		"reset there": {
			func(b *blockRates) { b.pause("a", "a", at(early).time()) }, []savedRate{{Reset: at(soon)}}, false, blockCount{}, 0,
		},
		"reset of all there": {
			func(b *blockRates) { b.pause("a", "a", at(early).time()) },
			[]savedRate{{Account: "all", Reset: at(soon)}, {Paused: at(early)}},
			false,
			blockCount{},
			0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, d := newBlockRates("self"), dayOf(noon)
			b.counts(d, "a", 10, 0)
			if c.before != nil {
				c.before(b)
			}
			for _, e := range c.saved {
				switch e.Account {
				case "":
					e.Account, e.Project = "a", "a"
				case "all":
					e.Account = ""
				}
				if e.Day == "" {
					e.Day = d.name
				}
				b.adopt(d, e)
			}
			if b.isPaused("a") != c.paused {
				t.Errorf("paused: %t", b.isPaused("a"))
			}
			var sum blockCount
			if r := b.accounts["a"]; r != nil {
				sum = r.sum
			}
			if sum != c.sum {
				t.Errorf("expected %v, got %v", c.sum, sum)
			}
			if got := b.counts(d, "a", 1, 0); got != c.alarms {
				t.Errorf("expected %d alarms, got %d", c.alarms, got)
			}
		})
	}
}

func TestWhatOthersSaveIsBounded(t *testing.T) {
	b, d := newBlockRates("self"), dayOf(noon)
	for i := range 2 * maxInstances {
		b.adopt(d, savedRate{Account: "a", Day: d.name, Counts: map[string]blockCount{instanceOf(i): {1, 1}}})
	}
	for i := range 2 * maxProjects {
		b.adopt(d, savedRate{Account: fmt.Sprint(i), Paused: unixTimeOf(noon)})
	}
	b.count(d, "a", "a", true)
	if n := len(b.accounts["a"].counts); n > maxInstances+1 {
		t.Errorf("%d instances' counts are known", n)
	}
	if n := len(b.accounts); n > maxProjects {
		t.Errorf("%d accounts are known", n)
	}
}

// A reset is remembered for as long as another instance might bring back what was
// before it, but not forever.
func TestResetsAreForgotten(t *testing.T) {
	b := newBlockRates("self")
	b.counts(dayOf(noon), "a", 1, 0)
	b.reset("a", noon)
	for days, want := range map[int]int{1: 1, 99: 1, 102: 0} {
		copied, later := newBlockRates("copy"), dayOf(noon.AddDate(0, 0, days))
		for _, e := range b.saved(dayOf(noon)) {
			copied.adopt(later, e)
		}
		if got := len(copied.saved(later)); got != want {
			t.Errorf("after %d days, expected %d resets to be remembered, got %d", days, want, got)
		}
	}
}

func TestRatesAreShared(t *testing.T) {
	b, d := newBlockRates("self"), dayOf(noon)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			project := fmt.Sprint("p", i%3)
			for n := range 300 {
				if b.count(d, project, project, n%2 == 0).isAlarming {
					b.pause(project, project, noon)
				}
				b.isPaused(project)
				if n%100 == 0 {
					b.saved(d)
					b.pauses()
					b.adopt(d, savedRate{Account: project, Day: d.name, Counts: map[string]blockCount{instanceOf(1): {int64(n + 1), 0}}})
				}
			}
		})
	}
	wg.Wait()
	for project, r := range b.accounts {
		if got := r.counts["self"].Judged + r.counts[instanceOf(1)].Judged; got != r.sum.Judged || !b.isPaused(project) {
			t.Errorf("%s: %d were counted, %d in all; paused: %t", project, got, r.sum.Judged, b.isPaused(project))
		}
	}
}
