// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"
)

// dayOf is the Pacific day of a moment.
func dayOf(now time.Time) *day { return newCalendar(pacific).day(now) }

// usesOf is a key of the ledger, with the upstream google.
func usesOf(project, model string) ledgerKey { return ledgerKey{project, "google", model} }

// drawn is an attempt that ended a call with an image, for ten cents.
func drawn(project, model string) booking {
	return booking{
		ledgerKey: usesOf(project, model),
		answered:  answered{usage: usage{input: 10, output: 1300, thinking: 170, image: 1120}, images: 1},
		delivered: 1,
		endsCall:  true, cost: usdOf(0.1), isPriced: true,
	}
}

// stopped is an attempt that a filter has stopped, for a cent.
func stopped(project, model, reason string) booking {
	return booking{
		ledgerKey: usesOf(project, model), answered: answered{usage: usage{input: 10, thinking: 170}, isStopped: true},
		verdict: verdict{class: classBlocked, reason: reason}, endsCall: true, cost: usdOf(0.01), isPriced: true,
	}
}

func TestLedger(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	failed := booking{ledgerKey: usesOf("b", "pro"), verdict: verdict{class: classTransient}, isPriced: true}
	retried := drawn("b", "pro")
	retried.isRetry = true
	unpriced := drawn("a", "new")
	unpriced.cost, unpriced.isPriced = 0, false
	elsewhere := drawn("b", "pro")
	elsewhere.Upstream = "vertex"
	for _, b := range []booking{
		failed, retried, elsewhere, unpriced, drawn("b", "pro"), drawn("b", "pro"),
		stopped("b", "pro", "IMAGE_SAFETY"), stopped("b", "pro", "IMAGE_SAFETY"), stopped("b", "pro", "INVENTED"), stopped("b", "pro", ""),
	} {
		l.book(d, b)
	}
	got, err := json.MarshalIndent(l.today(d), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `[
 {
  "project": "a",
  "upstream": "google",
  "model": "new",
  "calls": 1,
  "attempts": 1,
  "retries": 0,
  "images": 1,
  "judged": 1,
  "blocked": 0,
  "tokens": {
   "input": 10,
   "output": 1300,
   "thinking": 170
  },
  "cost_usd": 0,
  "cost_blocked_usd": 0,
  "unpriced": 1,
  "block_ratio": 0,
  "cost_per_image_usd": 0
 },
 {
  "project": "b",
  "upstream": "google",
  "model": "pro",
  "calls": 7,
  "attempts": 8,
  "retries": 1,
  "images": 3,
  "judged": 7,
  "blocked": 4,
  "blocks": {
   "IMAGE_SAFETY": 2,
   "other": 2
  },
  "tokens": {
   "input": 70,
   "output": 3900,
   "thinking": 1190
  },
  "cost_usd": 0.34,
  "cost_blocked_usd": 0.04,
  "unpriced": 0,
  "block_ratio": 0.5714285714285714,
  "cost_per_image_usd": 0.11333333333333334
 },
 {
  "project": "b",
  "upstream": "vertex",
  "model": "pro",
  "calls": 1,
  "attempts": 1,
  "retries": 0,
  "images": 1,
  "judged": 1,
  "blocked": 0,
  "tokens": {
   "input": 10,
   "output": 1300,
   "thinking": 170
  },
  "cost_usd": 0.1,
  "cost_blocked_usd": 0,
  "unpriced": 0,
  "block_ratio": 0,
  "cost_per_image_usd": 0.1
 }
]`
	if string(got) != want {
		t.Errorf("expected\n%s\ngot\n%s", want, got)
	}
	for upstream, want := range map[string]float64{"google": 0.34, "vertex": 0.1, "none": 0} {
		if got := l.spent(d, upstream); got != want {
			t.Errorf("%s: expected %v USD, got %v", upstream, want, got)
		}
	}
}

func TestRowWithoutImagesHasNoPriceOfOne(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	l.book(d, booking{ledgerKey: usesOf("a", "pro"), verdict: verdict{class: classTransient}})
	row := l.today(d)[0]
	if row.CostPerImage != nil || row.BlockRatio != 0 {
		t.Errorf("a failed attempt has %v USD per image and a block ratio of %v", row.CostPerImage, row.BlockRatio)
	}
}

// TestDays goes over midnight, also when the clocks change.
func TestDays(t *testing.T) {
	calendar := newCalendar(pacific)
	for name, midnight := range map[string]time.Time{
		"an ordinary day":  time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC),
		"before 23 hours":  time.Date(2026, 3, 8, 8, 0, 0, 0, time.UTC),
		"after 23 hours":   time.Date(2026, 3, 9, 7, 0, 0, 0, time.UTC),
		"before 25 hours":  time.Date(2026, 11, 1, 7, 0, 0, 0, time.UTC),
		"after 25 hours":   time.Date(2026, 11, 2, 8, 0, 0, 0, time.UTC),
		"the turn of 2027": time.Date(2027, 1, 1, 8, 0, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			before, after := calendar.day(midnight.Add(-time.Millisecond)), calendar.day(midnight)
			l := newLedger("self")
			l.book(before, drawn("a", "pro"))
			l.book(calendar.day(midnight.Add(-22*time.Hour)), drawn("a", "pro"))
			if got := l.spent(before, "google"); got != 0.2 {
				t.Fatalf("expected 0.2 USD before midnight, got %v", got)
			}
			if got := l.spent(after, "google"); got != 0 || len(l.today(after)) > 0 {
				t.Fatalf("a new day begins with %v USD and %d rows", got, len(l.today(after)))
			}
			l.book(after, drawn("a", "pro"))
			l.book(before, drawn("a", "pro")) // was under way
			if got := l.spent(after, "google"); got != 0.2 || len(l.today(after)) != 1 {
				t.Errorf("expected 0.2 USD with what came late, got %v in %d rows", got, len(l.today(after)))
			}
		})
	}
}

func TestDaysAfterTheClockWasSet(t *testing.T) {
	l := newLedger("self")
	for i, now := range []time.Time{noon, noon.AddDate(3, 0, 0), noon, noon.AddDate(-1, 0, 0)} {
		l.book(dayOf(now), drawn("a", "pro"))
		if got := l.spent(dayOf(now), "google"); got != 0.1 {
			t.Errorf("Test %d: expected 0.1 USD on a day of its own, got %v", i, got)
		}
	}
}

func TestLedgerIsBounded(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	const clients = 1_000_000
	for i := range clients {
		l.book(d, drawn("client-"+strconv.Itoa(i), "invented-"+strconv.Itoa(i)))
	}
	l.book(d, drawn("client-0", "invented-0"))
	rows := l.today(d)
	if len(rows) != maxRows+1 {
		t.Fatalf("expected %d rows and one for all others, got %d", maxRows, len(rows))
	}
	var sum totals
	for _, row := range rows {
		if sum.merge(&row.totals); row.ledgerKey == usesOf("client-0", "invented-0") && row.Attempts != 2 {
			t.Errorf("what had a row of its own lost it: %+v", row)
		}
	}
	if sum.Attempts != clients+1 || sum.Cost.usd() != (clients+1)/10. || l.spent(d, "google") != sum.Cost.usd() {
		t.Errorf("%d attempts of %v USD are in the rows, %v USD were spent", sum.Attempts, sum.Cost.usd(), l.spent(d, "google"))
	}
}

// Names that clients choose must come back from storage.
func TestLedgerKeepsNamesThatCanBeSaved(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	l.book(d, drawn("client-\xff", string(make([]byte, longestKey+1))))
	for _, row := range l.today(d) {
		if row.Project != storable(row.Project) || row.Model != storable(row.Model) {
			t.Errorf("a row of %q and %q", row.Project, row.Model)
		}
	}
}

func TestLedgerIsShared(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				l.book(d, drawn(fmt.Sprint("p", i%4), "pro"))
				l.book(d, stopped("p0", fmt.Sprint("m", n%7), "SAFETY"))
				if n%100 == 0 {
					l.today(d)
					l.adopt(d, d.name, rowID{"peer", usesOf("p1", "pro")}, totals{Attempts: int64(n + 1), Cost: usdOf(1)})
				}
				l.spent(d, "google")
			}
		})
	}
	wg.Wait()
	if got, want := l.spent(d, "google"), 8*500*0.11+1; got != want {
		t.Errorf("expected %v USD, got %v", want, got)
	}
}

func TestLedgerTakesOverOthersRows(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	l.book(d, drawn("a", "pro"))
	row := func(attempts int64, cost float64) totals { return totals{Attempts: attempts, Cost: usdOf(cost)} }
	id := func(instance string) rowID { return rowID{instance, usesOf("a", "pro")} }
	for i, c := range []struct {
		of string
		id rowID
		t  totals

		attempts int64 // of all
		spent    float64
	}{
		{d.name, id("one"), row(5, 1), 6, 1.1},
		{d.name, id("two"), row(2, 0.5), 8, 1.6},
		{d.name, id("one"), row(7, 1.5), 10, 2.1}, // has gone on
		{d.name, id("one"), row(7, 1.5), 10, 2.1}, // the same again
		{d.name, id("one"), row(6, 1.2), 10, 2.1}, // an older file
		{d.name, id("self"), row(99, 9), 10, 2.1}, // knows better itself
		{"2026-11-20", id("two"), row(99, 9), 10, 2.1},
		{"2026-11-22", id("two"), row(99, 9), 10, 2.1},
	} {
		l.adopt(d, c.of, c.id, c.t)
		rows := l.today(d)
		if len(rows) != 1 || rows[0].Attempts != c.attempts || rows[0].Cost != usdOf(c.spent) || l.spent(d, "google") != c.spent {
			t.Errorf("Test %d: expected %d attempts and %v USD in one row, got %+v and %v", i, c.attempts, c.spent, rows, l.spent(d, "google"))
		}
	}
	for i := range 2 * maxPeerRows {
		l.adopt(d, d.name, rowID{"three", usesOf("a", fmt.Sprint(i))}, row(1, 0.01))
	}
	if n := len(l.today(d)); n > maxPeerRows+1 {
		t.Errorf("%d rows were taken over from other instances", n)
	}
}

// A row that somebody looks at must not change any more.
func TestRowsAreCopies(t *testing.T) {
	l, d := newLedger("self"), dayOf(noon)
	l.book(d, stopped("a", "pro", "SAFETY"))
	rows := l.today(d)
	l.book(d, stopped("a", "pro", "SAFETY"))
	if want := map[string]int64{"SAFETY": 1}; !reflect.DeepEqual(rows[0].Blocks, want) || rows[0].Blocked != 1 {
		t.Errorf("expected %v, got %v", want, rows[0].Blocks)
	}
}

func BenchmarkLedger(b *testing.B) {
	m := newMemories()
	d := m.calendar.day(noon)
	for i := range maxRows {
		m.ledger.book(d, drawn(fmt.Sprint("client-", i), "gemini-3-pro-image"))
	}
	one := drawn("client-77", "gemini-3-pro-image")
	b.Run("book", func(b *testing.B) {
		for b.Loop() {
			m.ledger.book(d, one)
		}
	})
	b.Run("spent", func(b *testing.B) {
		for b.Loop() {
			m.ledger.spent(d, "google")
		}
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			m.blockRates.count(d, "client-77", "client-77", false)
		}
	})
	b.Run("isPaused", func(b *testing.B) {
		for b.Loop() {
			m.blockRates.isPaused("client-77")
		}
	})
}
