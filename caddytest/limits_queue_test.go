// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// arrived checks that calls reached the upstream in the order of their numbers,
// from the first one on, and none before its time.
func (u *upstream) arrived(t *testing.T, want string, began time.Time, every time.Duration) {
	t.Helper()
	var got []string
	all := u.received() // as their bodies have been read, which takes some longer than others
	slices.SortFunc(all, func(a, b *request) int { return a.Time.Compare(b.Time) })
	for i, r := range all {
		if match := order.FindSubmatch(r.Body); match != nil {
			got = append(got, string(match[1]))
		}
		if after, least := r.Time.Sub(began), time.Duration(i)*every-time.Millisecond; after < least {
			t.Errorf("call %d in order reached the upstream after %v, want %v", i, after, least)
		}
	}
	if line := strings.Join(got, " "); line != want {
		t.Errorf("the calls were sent in the order %q, want %q", line, want)
	}
}

// line lets calls come one after the other: each has its place before the next
// one comes.
func (g *watched) line(t *testing.T, from, to int) (all []*pending) {
	t.Helper()
	for id := from; id < to; id++ {
		all = append(all, g.begin(t, pathOf(id), orderJSON(id)))
		eventually(t, fmt.Sprintf("call %d has its place", id), func() bool {
			for _, row := range g.status(t).Limits {
				if row.Limit == "rpm" {
					return int(row.Used)+row.Waiting == id+1
				}
			}
			return false
		})
	}
	return all
}

// Who comes first is served first.
func TestQueueOrder(t *testing.T) {
	_, u := newStudio(t, 0)
	g := behind(t, u, paced(100*time.Millisecond))
	began := time.Now()
	for id, p := range g.line(t, 0, 6) {
		if s := p.ends(); !s.isDelivery(t, id) {
			t.Errorf("call %d ended with %d: %s", id, s.StatusCode, s.body)
		}
	}
	u.arrived(t, "0 1 2 3 4 5", began, 100*time.Millisecond)
	g.queues(t, 0)
}

// Nobody is lost in a long line, and nobody passes early.
func TestQueueUnderLoad(t *testing.T) {
	for _, c := range []struct {
		callers int
		every   time.Duration
	}{{50, 10 * time.Millisecond}, {300, 2 * time.Millisecond}} {
		t.Run(fmt.Sprint(c.callers), func(t *testing.T) {
			u := scripted(t, uncounted)
			g := behind(t, u, paced(c.every), retry("attempts 1", "deadline 1m"))
			began := time.Now()
			for i, s := range g.volley(t, c.callers, unaryPath, promptJSON) {
				if s.StatusCode != 200 {
					t.Errorf("call %d ended with %d: %s", i, s.StatusCode, s.body)
				}
			}
			u.arrived(t, "", began, c.every)
			if n := len(u.received()); n != c.callers {
				t.Errorf("the upstream received %d calls, want %d", n, c.callers)
			}
			if row := g.row(t, "rpm"); row.Waiting != 0 || int(row.Used) != c.callers {
				t.Errorf("the status page says %+v", row)
			}
		})
	}
}

// aMinuteEach makes every call but the first wait for the one before it.
const aMinuteEach = "rpm 1"

// Who leaves makes room: those behind move up, and nothing is sent.
func TestQueueIsLeft(t *testing.T) {
	u := scripted(t, drawn)
	g := watch(t, accessLog+siteOf(t, u, limit(aMinuteEach, "queue 1h"), retry("deadline 1h")))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	first := g.leaving(t, unaryPath, promptJSON)
	g.queues(t, 1)
	second := g.leaving(t, streamPath, promptJSON)
	g.queues(t, 2)

	refused := wall{quota: quotaRPM, value: "1", class: "limited", waiting: 2}
	for _, leave := range []func(){first, second, func() {}} {
		refused.refuses(t, g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "5"))
		leave()
		refused.waiting = max(refused.waiting-1, 0)
		g.queues(t, refused.waiting)
	}
	u.only(t)
	gone := 0
	for _, line := range g.accessLines(t) {
		gone += strings.Count(line, `"status":499`)
	}
	if gone != 2 {
		t.Errorf("%d calls ended because their clients were gone, want 2", gone)
	}
}

// A wait that would be too long is not begun.
func TestQueueIsTooLong(t *testing.T) {
	for _, c := range []struct {
		name, queue, deadline, timeout string
		waiting                        int
	}{
		{"for the queue", "queue 30s", "deadline 1h", "", 0},
		{"for the queue, behind others", "queue 90s", "deadline 1h", "", 1},
		{"for the client", "queue 1h", "deadline 1h", "20", 0},
		{"for the client, behind others", "queue 1h", "deadline 1h", "90", 1},
		{"for the operator, whatever the client says", "queue 20s", "deadline 20s", "600", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, drawn)
			g := behind(t, u, limit(aMinuteEach, c.queue), retry(c.deadline))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			for range c.waiting {
				t.Cleanup(g.leaving(t, unaryPath, promptJSON))
			}
			g.queues(t, c.waiting)
			began := time.Now()
			s := g.post(t, unaryPath, promptJSON, "X-Server-Timeout", c.timeout)
			if took := time.Since(began); took > soon {
				t.Errorf("the client waited %v", took)
			}
			wall{quota: quotaRPM, value: "1", class: "limited", waiting: c.waiting}.refuses(t, s)
			g.queues(t, c.waiting)
			u.only(t)
		})
	}
}

// weighing is a prompt that is thought to have that many tokens.
func weighing(tokens int) string {
	return `{"contents":[{"parts":[{"text":"` + strings.Repeat("abcd", tokens) + `"}]}]}`
}

// Small calls that there is room for do not overtake a large one that waits.
func TestQueueStarvesNobody(t *testing.T) {
	u := scripted(t, uncounted)
	g := behind(t, u, limit("tpm 100", "rpm 1000", "queue 3m"))
	g.post(t, unaryPath, weighing(60))
	leave := g.leaving(t, unaryPath, weighing(80))
	g.queues(t, 1)
	for range 3 {
		s := g.post(t, unaryPath, weighing(10), "X-Server-Timeout", "20")
		wall{quota: quotaTPM, value: "100", class: "limited"}.refuses(t, s)
	}
	u.only(t)
	leave()
	g.queues(t, 0)
	if s := g.post(t, unaryPath, weighing(10), "X-Server-Timeout", "20"); s.StatusCode != 200 {
		t.Errorf("the call was refused though nobody waits: %s", s.body)
	}
}

// Those in line are told as soon as it is certain that their turn comes too late.
func TestQueueIsTold(t *testing.T) {
	arrived, goOn := make(chan struct{}), make(chan struct{})
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-goOn
		limited("3600s")(w, r)
	})
	g := behind(t, u, limit(aMinuteEach, "queue 3m"))
	first := g.begin(t, unaryPath, promptJSON)
	wait(t, "the first call arrives", arrived)
	second := g.begin(t, unaryPath, promptJSON)
	g.queues(t, 1)
	close(goOn)
	first.ends().exactly(t, 429, limitedJSON("3600s"))
	if delay := (wall{quota: quotaRPM, class: "limited"}).refuses(t, second.ends()); delay < 50*time.Minute {
		t.Errorf("there is room in %v", delay)
	}
	u.only(t)
}

// A project has its limits once, whatever sites and upstreams it is used by. Each
// model has its own, and so has each project.
func TestLimitIsShared(t *testing.T) {
	u := scripted(t, uncounted)
	other := "http://" + freeAddress(t)
	mine, theirs := ownKey(t, "k1", "studio"), ownKey(t, "k2", "studio")
	g := watch(t, gemini(place("first", u, mine), limit("rpm 3"))+"}\n"+
		other+" {\n\tbind 127.0.0.1\n"+gemini(place("second", u, theirs), limit("rpm 3")))
	here := g.url
	post := func(url, path string) *reply {
		g.url = url
		defer func() { g.url = here }()
		return g.post(t, path, promptJSON)
	}
	for _, url := range []string{here, other, here} {
		if s := post(url, unaryPath); s.StatusCode != 200 {
			t.Errorf("a call was refused: %s", s.body)
		}
	}
	for _, url := range []string{here, other} {
		if s := post(url, unaryPath); s.StatusCode != 429 {
			t.Errorf("%s lets a call through", url)
		}
		if s := post(url, strings.Replace(unaryPath, "gemini-3-pro", "gemini-2.5-flash", 1)); s.StatusCode != 200 {
			t.Errorf("%s refuses a call for another model: %s", url, s.body)
		}
	}
	used(t, "k1 k2 k1 k1 k2", u)
}

// A full limit is a reason to go elsewhere, not to wait or to be refused.
func TestLimitReroutes(t *testing.T) {
	for name, option := range map[string]string{"and refuses": "queue 0", "and queues": "queue 3m"} {
		t.Run(name, func(t *testing.T) {
			first, second := scripted(t, uncounted), scripted(t, uncounted)
			places := []string{place("first", first, ownKey(t, "first", "a")), place("second", second, ownKey(t, "second", "b"))}
			g := watch(t, several(places, limit("rpm 2", option), "retry off"))
			for range 4 {
				if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 200 {
					t.Errorf("a call was refused: %s", s.body)
				}
			}
			s := g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "20")
			wall{quota: quotaRPM, value: "2", class: "limited"}.refuses(t, s)
			went(t, "first first second second", first, second)
		})
	}
}

// The same holds for the keys of a pool: those of a project share its limits.
func TestLimitOfAPool(t *testing.T) {
	u := scripted(t, uncounted)
	g := watch(t, several([]string{pool(t, "first", u, "a", "a", "b")}, limit("rpm 2"), "retry off"))
	for range 4 {
		if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 200 {
			t.Errorf("a call was refused: %s", s.body)
		}
	}
	wall{quota: quotaRPM, value: "2", class: "limited"}.refuses(t, g.post(t, unaryPath, promptJSON))
	counts := make(map[string]int)
	for _, r := range u.received() {
		counts[strings.NewReplacer("k1", "a", "k2", "a", "k3", "b").Replace(keyName(r))]++
	}
	if counts["a"] != 2 || counts["b"] != 2 {
		t.Errorf("the calls were made with %s", keysUsed(u))
	}
}

// waitLog also tells how long calls have waited.
var waitLog = accessLog + "log_append placeholder_wait {http.gemini.wait}\n"

// The wait of a call is in the log, in the metrics, and while it lasts on the
// status page.
func TestQueueIsSeen(t *testing.T) {
	u := scripted(t, uncounted)
	g := watch(t, "metrics /metrics\n"+waitLog+siteOf(t, u, paced(250*time.Millisecond)))
	before := g.counters(t)
	began := time.Now()
	g.volley(t, 4, unaryPath, promptJSON)
	took := time.Since(began).Seconds()
	sum := 0.0
	eventually(t, "four lines in the access log", func() bool { return len(g.callLines(t)) == 4 })
	for _, line := range g.callLines(t) {
		facts, _ := line["gemini"].(map[string]any)
		waited, ok := facts["wait"].(float64)
		if !ok || line["placeholder_wait"] != waited || waited < 0 || waited > took {
			t.Errorf("the log says %v and %v, of %v", facts["wait"], line["placeholder_wait"], took)
		}
		sum += waited
	}
	if sum == 0 {
		t.Error("nobody has waited")
	}
	after := g.counters(t)
	if n := after["queue_seconds_count"] - before["queue_seconds_count"]; n != 4 {
		t.Errorf("%v waits were counted, want 4", n)
	}
	if queued := after["queue_seconds_sum"] - before["queue_seconds_sum"]; queued < sum-0.001 || queued > 4*took {
		t.Errorf("the metrics say %v s, the log %v s", queued, sum)
	}
}

// callLines are those of the access log that are about calls.
func (g *gateway) callLines(t *testing.T) (all []accessLine) {
	t.Helper()
	for _, text := range g.accessLines(t) {
		var line accessLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if _, ok := line["gemini"]; ok {
			all = append(all, line)
		}
	}
	return all
}

// A call that is refused is told as such, by the upstream whose limit it was, and as no
// attempt. What is used of a
// limit can be seen, for models that nobody knows under one name.
func TestLimitIsSeen(t *testing.T) {
	u := scripted(t, uncounted)
	g := watch(t, "metrics /metrics\n"+waitLog+gemini(place("seen", u, ownKey(t, "seen", "seen-project")), limit("rpm 2", "rpd 8")))
	before := g.counters(t)
	for range 2 {
		g.post(t, unaryPath, promptJSON)
	}
	g.post(t, "/v1beta/models/invented-by-a-client:generateContent", promptJSON)
	if s := g.post(t, unaryPath, promptJSON); s.StatusCode != http.StatusTooManyRequests {
		t.Errorf("status %d", s.StatusCode)
	}
	eventually(t, "four lines in the access log", func() bool { return len(g.callLines(t)) == 4 })
	line := g.callLines(t)[3]
	facts, _ := line["gemini"].(map[string]any)
	want := imageModel + " generateContent seen seen-project 0 limited RATE_LIMITED 0 0"
	if got := line.fields(facts, ""); got != want || facts["wait"] != 0.0 || line["status"] != 429.0 {
		t.Errorf("the access log says %q, %v, %v, want %q", got, facts["wait"], line["status"], want)
	}
	after := g.counters(t)
	for series, want := range map[string]float64{
		`requests_total{model="` + imageModel + `",reason="",upstream="seen",verdict="ok"}`:                  2,
		`requests_total{model="` + imageModel + `",reason="RATE_LIMITED",upstream="seen",verdict="limited"}`: 1,
		`attempts_total{upstream="seen",verdict="ok"}`:                                                       3,
		`attempts_total{upstream="seen",verdict="limited"}`:                                                  0,
	} {
		if got := after[series] - before[series]; got != want {
			t.Errorf("%s rose by %v, want %v", series, got, want)
		}
	}
	for series, want := range map[string]float64{
		`limit_used_ratio{limit="rpm",model="` + imageModel + `",project="seen-project"}`: 1,
		`limit_used_ratio{limit="rpd",model="` + imageModel + `",project="seen-project"}`: 0.25,
		`limit_used_ratio{limit="rpm",model="other",project="seen-project"}`:              0.5,
	} {
		if got, ok := after[series]; !ok || got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	for series := range after {
		if strings.Contains(series, "invented") {
			t.Errorf("a client has made the series %s", series)
		}
	}
}
