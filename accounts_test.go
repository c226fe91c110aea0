// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// bookkeeper is a gateway that only keeps accounts, and what it has told.
type bookkeeper struct {
	*gateway
	logs   *observer.ObservedLogs
	events []string
}

func newBookkeeper(o Options) *bookkeeper {
	core, logs := observer.New(zapcore.InfoLevel)
	r := testRouter(o)
	b := &bookkeeper{gateway: &gateway{options: &o, router: r, state: r.state, logger: zap.New(core)}, logs: logs}
	r.tell = func(event string, data map[string]any) { b.events = append(b.events, fmt.Sprint(event, " ", data)) }
	return b
}

// rows are those of the ledger, each as "upstream model calls/attempts/retries".
func (b *bookkeeper) rows(now time.Time) (all []string) {
	for _, row := range b.state.ledger.today(b.state.calendar.day(now)) {
		all = append(all, fmt.Sprintf("%s %s %d/%d/%d", row.Upstream, row.Model, row.Calls, row.Attempts, row.Retries))
	}
	return all
}

// made is an attempt at an upstream with a key of the project a.
func made(at string, c class, facts facts) *attempt {
	return &attempt{
		at: &upstream{name: at}, upstream: at, project: "a", account: "account a", model: "gemini-3-pro-image",
		verdict: verdict{class: c, reason: "SAFETY"}, facts: facts,
	}
}

// A call has ended with the attempt whose answer the client got, or with the last
// one if it got none. All others are attempts only.
func TestCallsEndOnce(t *testing.T) {
	failed := func() *attempt { return made("one", classTransient, facts{}) }
	stays, goes := made("one", classBlocked, facts{}), made("two", classTransient, facts{})
	given := made("two", classOK, facts{images: 1})
	for name, c := range map[string]struct {
		story []*attempt
		ends  *attempt
		want  []string
	}{
		"nothing was sent": {nil, new(attempt), nil},
		"one attempt":      {[]*attempt{given}, given, []string{"two gemini-3-pro-image 1/1/0"}},
		"the last of many": {
			[]*attempt{failed(), failed(), given},
			given,
			[]string{"one gemini-3-pro-image 0/2/1", "two gemini-3-pro-image 1/1/1"},
		},
		"an earlier one": {
			[]*attempt{failed(), stays, goes},
			stays,
			[]string{"one gemini-3-pro-image 1/2/1", "two gemini-3-pro-image 0/1/1"},
		},
		"the client has left": {
			[]*attempt{failed(), goes},
			&attempt{verdict: verdict{class: classClient, reason: reasonCancelled}},
			[]string{"one gemini-3-pro-image 0/1/0", "two gemini-3-pro-image 1/1/1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i, a := range c.story {
				a.isRetry = i > 0
			}
			b := newBookkeeper(Options{})
			b.book(&exchange{attempt: c.ends, story: c.story}, noon)
			if got := b.rows(noon); !slices.Equal(got, c.want) {
				t.Errorf("expected %q, got %q", c.want, got)
			}
		})
	}
}

// The price is that of the upstream and of the model that it was asked for.
func TestAttemptsHaveTheirPrice(t *testing.T) {
	one, two, three := made("one", classOK, facts{images: 2}), made("two", classOK, facts{images: 2}), made("two", classOK, facts{images: 2})
	one.at.prices = []Price{{Match: "gemini-3-*", USDPerImage: 0.05}}
	three.model = "unheard-of"
	x := &exchange{attempt: one, story: []*attempt{one, two, three}}
	b := newBookkeeper(Options{})
	b.book(x, noon)
	for i, want := range []float64{0.1, 0.2688, 0} {
		if got := x.story[i].cost.usd(); got != want {
			t.Errorf("Test %d: expected %v USD, got %v", i, want, got)
		}
	}
	if got := x.cost(); got != 0.3688 {
		t.Errorf("expected 0.3688 USD in all, got %v", got)
	}
	unpriced := int64(0)
	for _, row := range b.state.ledger.today(dayOf(noon)) {
		unpriced += row.Unpriced
	}
	if unpriced != 1 {
		t.Errorf("expected one attempt without a price, got %d", unpriced)
	}
}

// Sums of what floats cannot tell exactly are told as they are.
func TestCostOfACallIsExact(t *testing.T) {
	var x exchange
	for range 3 {
		x.story = append(x.story, made("one", classOK, facts{usage: usage{input: 50_000}})) // 0.10 USD
	}
	x.attempt = x.story[2]
	newBookkeeper(Options{}).book(&x, noon)
	if got := x.cost(); got != 0.3 {
		t.Errorf("expected 0.3 USD, got %v", got)
	}
}

func TestWhatIsRated(t *testing.T) {
	unkeyed := made("one", classBlocked, facts{})
	unkeyed.project, unkeyed.account = "", "@example.com"
	for name, c := range map[string]struct {
		attempt *attempt
		want    map[string]float64
	}{
		"answered":    {made("one", classOK, facts{}), map[string]float64{"a": 0}},
		"blocked":     {made("one", classBlocked, facts{}), map[string]float64{"a": 1}},
		"forbidden":   {made("one", classForbidden, facts{}), map[string]float64{"a": 1}},
		"failed":      {made("one", classTransient, facts{}), map[string]float64{}},
		"limited":     {made("one", classLimited, facts{}), map[string]float64{}},
		"refused":     {made("one", classAccount, facts{}), map[string]float64{}},
		"bad":         {made("one", classClient, facts{}), map[string]float64{}},
		"without key": {unkeyed, map[string]float64{}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBookkeeper(Options{})
			b.book(&exchange{attempt: c.attempt, story: []*attempt{c.attempt}}, noon)
			if got := b.state.blockRates.shares(dayOf(noon)); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("expected %v, got %v", c.want, got)
			}
		})
	}
}

// Many blocks are a warning and an event, once a day, and a pause if the operator
// has asked for it.
func TestHighRateIsAnnounced(t *testing.T) {
	for _, pauses := range []bool{false, true} {
		t.Run(fmt.Sprint("pauses ", pauses), func(t *testing.T) {
			b := newBookkeeper(Options{PauseOnBlockRate: pauses})
			rate := func(times int, now time.Time) {
				for range times {
					a := made("one", classBlocked, facts{})
					b.book(&exchange{attempt: a, story: []*attempt{a}}, now)
				}
			}
			rate(alarmFrom-1, noon)
			if len(b.events) > 0 || b.logs.Len() > 0 || b.state.blockRates.isPaused("account a") {
				t.Fatalf("too early: %q", b.events)
			}
			rate(10, noon)
			want := []string{fmt.Sprintf("block_rate_high map[block_ratio:1 paused:%t project:a]", pauses)}
			if !slices.Equal(b.events, want) {
				t.Errorf("told %q, expected %q", b.events, want)
			}
			all := b.logs.TakeAll()
			if len(all) != 1 || all[0].Level != zapcore.WarnLevel || all[0].ContextMap()["project"] != "a" || all[0].ContextMap()["paused"] != pauses {
				t.Errorf("logged %v", all)
			}
			if got := b.state.blockRates.isPaused("account a"); got != pauses {
				t.Errorf("the account is paused: %t", got)
			}
			rate(alarmFrom, noon.AddDate(0, 0, 1))
			if len(b.events) != 2 {
				t.Errorf("told %q on two days", b.events)
			}
		})
	}
}

// What an upstream tells of limits below ours is for the operator to read.
func TestLoweredLimitIsLogged(t *testing.T) {
	b := newBookkeeper(Options{})
	a := made("one", classLimited, facts{})
	a.received, a.lowered = http.StatusTooManyRequests, []lowered{{"rpm", 500, 60}, {"tpm", 1000, 10}}
	b.book(&exchange{attempt: a, story: []*attempt{a}}, noon)
	all := b.logs.All()
	if len(all) != 2 {
		t.Fatalf("logged %v", all)
	}
	want := map[string]any{"upstream": "one", "project": "a", "model": "gemini-3-pro-image", "limit": "rpm", "configured": int64(500), "told": int64(60)}
	if got := all[0].ContextMap(); fmt.Sprint(got) != fmt.Sprint(want) || all[0].Level != zapcore.WarnLevel {
		t.Errorf("logged %v", got)
	}
}

// An account that many instances have called for a day is saved like any other:
// its pause would be lost with it.
func TestRateOfManyInstancesIsSaved(t *testing.T) {
	d := dayOf(noon)
	b := newBlockRates(newInstance())
	known := savedRate{Account: "a", Project: "a", Day: d.name, Counts: make(map[string]blockCount)}
	for range maxInstances {
		known.Counts[newInstance()] = blockCount{Judged: 1, Blocked: 1}
	}
	if err := known.check(noon); err != nil {
		t.Fatal(err)
	}
	b.adopt(d, known)
	b.count(d, "a", "a", true)
	b.pause("a", "a", noon)
	for _, e := range b.saved(d) {
		if err := e.check(noon); err != nil {
			t.Errorf("the rate of %s, which is paused, with %d instances, is not saved: %v", e.Account, len(e.Counts), err)
		}
	}
}

// An image counts as delivered only if the client got it. What it costs, and what it
// takes of a limit, is the same wherever it stayed.
func TestOnlyDeliveredImagesCount(t *testing.T) {
	said := facts{images: 1, usage: usage{input: 10, output: 1120}}
	stopped, lost, given := made("one", classBlocked, said), made("one", classOK, said), made("one", classOK, said)
	given.res = new(http.Response)
	for name, c := range map[string]struct {
		story []*attempt
		want  int
	}{
		"an error":             {[]*attempt{stopped}, 0},
		"nobody was there":     {[]*attempt{lost}, 0},
		"an answer":            {[]*attempt{given}, 1},
		"an answer after both": {[]*attempt{stopped, lost, given}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBookkeeper(Options{})
			x := &exchange{attempt: c.story[len(c.story)-1], story: c.story}
			b.book(x, noon)
			row := b.state.ledger.today(dayOf(noon))[0]
			if got := x.images(); got != c.want || row.Images != int64(c.want) {
				t.Errorf("%d images in the log and %d in the ledger, expected %d", got, row.Images, c.want)
			}
			if want := nanoUSD(len(c.story)) * usdOf(0.13442); row.Cost != want {
				t.Errorf("%v USD, expected %v", row.Cost.usd(), want.usd())
			}
			if hasShare := row.CostPerImage != nil; hasShare != (c.want > 0) {
				t.Errorf("a cost per image: %t", hasShare)
			}
		})
	}
}

// What an answer has used is not known if it ends before it says so, but under a price
// of the operator's it costs nothing without an image, whatever it has used.
func TestAnswersWithoutUsage(t *testing.T) {
	for name, c := range map[string]struct {
		match string
		want  int64
	}{
		"list price":               {"another-model", 1},
		"the upstream's own price": {"gemini-3-*", 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := made("one", classOK, facts{content: true})
			a.at.prices = []Price{{Match: c.match, USDPerImage: 0.05}}
			b := newBookkeeper(Options{})
			b.book(&exchange{attempt: a, story: []*attempt{a}}, noon)
			if row := b.state.ledger.today(dayOf(noon))[0]; row.Unpriced != c.want || row.Cost != 0 {
				t.Errorf("%d unpriced for %v USD, expected %d for 0", row.Unpriced, row.Cost.usd(), c.want)
			}
		})
	}
}
