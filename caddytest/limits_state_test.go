// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// reloaded is a site that differs from another in nothing that matters.
func reloaded(site string, n int) string { return fmt.Sprintf("%sheader X-Reloaded %d\n", site, n) }

// Nobody in a queue is lost when the site changes, nor does anybody who comes later
// pass them.
func TestQueueSurvivesAReload(t *testing.T) {
	const every = 150 * time.Millisecond
	_, u := newStudio(t, 0)
	same := siteOf(t, u, paced(every))
	for name, next := range map[string]string{
		"to the same":     reloaded(same, 1),
		"to other limits": siteOf(t, u, paced(every/3)),
	} {
		t.Run(name, func(t *testing.T) {
			u.play(u.answer)
			g := watch(t, same)
			began := time.Now()
			calls := g.line(t, 0, 4)
			g.load(t, next)
			calls = append(calls, g.line(t, 4, 6)...)
			for id, p := range calls {
				if s := p.ends(); !s.isDelivery(t, id) {
					t.Errorf("call %d ended with %d: %s", id, s.StatusCode, s.body)
				}
			}
			u.arrived(t, "0 1 2 3 4 5", began, every/3)
		})
	}
	t.Run("to a site without one", func(t *testing.T) {
		u.play(u.answer)
		g := watch(t, same)
		began := time.Now()
		calls := g.line(t, 0, 4)
		g.load(t, "respond 204\n")
		for id, p := range calls {
			if s := p.ends(); !s.isDelivery(t, id) {
				t.Errorf("call %d ended with %d: %s", id, s.StatusCode, s.body)
			}
		}
		u.arrived(t, "0 1 2 3", began, every)
	})
}

// What has been used stays used; only limits that change are others.
func TestLimitSurvivesReloads(t *testing.T) {
	u := scripted(t, uncounted)
	site := func(rpm string) string { return siteOf(t, u, limit("rpm "+rpm, "rpd 10")) }
	g := watch(t, site("3"))
	for i, c := range []struct {
		rpm    string
		passes int // of three calls
	}{{"3", 3}, {"3", 0}, {"5", 2}, {"2", 0}, {"6", 1}} {
		g.load(t, reloaded(site(c.rpm), i))
		for n := range 3 {
			s := g.post(t, unaryPath, promptJSON)
			if n < c.passes {
				if s.StatusCode != 200 {
					t.Errorf("call %d of rpm %s was refused: %s", n, c.rpm, s.body)
				}
				continue
			}
			wall{quota: quotaRPM, value: c.rpm, class: "limited"}.refuses(t, s)
		}
	}
	if n := len(u.received()); n != 6 {
		t.Errorf("the upstream received %d calls, want 6", n)
	}
	if row := g.row(t, "rpd"); row.Used != 6 || row.Value != 10 {
		t.Errorf("the status page says %+v", row)
	}
}

// restarts are ways to lose what is in memory only.
var restarts = map[string]func(t *testing.T, g *watched){
	"unloaded": func(t *testing.T, g *watched) { g.load(t, "respond 204\n") },
	"restarted": func(t *testing.T, _ *watched) {
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	},
}

// Counts, cooldowns and learned limits are in storage.
func TestLimitSurvivesARestart(t *testing.T) {
	for way, restart := range restarts {
		for name, c := range map[string]struct {
			option string
			plays  http.HandlerFunc
			calls  int
			then   int // of three calls pass
			wall   wall
		}{
			"rpm":      {"rpm 3", uncounted, 2, 1, wall{quota: quotaRPM, value: "3", class: "limited"}},
			"rpd":      {"rpd 3", uncounted, 2, 1, wall{quota: quotaRPD, value: "3", class: "exhausted"}},
			"ipm":      {"ipm 3", uncounted, 2, 1, wall{quota: quotaIPM, value: "3", class: "limited"}},
			"tpm":      {"tpm 40", uncounted, 2, 1, wall{quota: quotaTPM, value: "40", class: "limited"}},
			"cooldown": {"rpm 10", limited("600s"), 1, 0, wall{quota: quotaRPM, class: "limited"}},
			"day":      {"rpm 10", answers(429, jsonType, exhaustedJSON), 1, 0, wall{quota: quotaRPD, class: "exhausted"}},
			"learned":  {"rpm 10", lowering("GenerateRequestsPerMinutePerProjectPerModel", "2"), 1, 1, wall{quota: quotaRPM, value: "2", class: "limited"}},
		} {
			t.Run(way+"/"+name, func(t *testing.T) {
				u := scripted(t, c.plays)
				g := behind(t, u, limit(c.option))
				for range c.calls {
					g.post(t, unaryPath, promptJSON)
				}
				restart(t, g)
				g.load(t, siteOf(t, u, limit(c.option)))
				if name == "learned" { // with a rest of a millisecond, which is saved as the next full second
					time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
				}
				u.play(uncounted)
				for n := range 3 {
					s := g.post(t, unaryPath, promptJSON)
					if n < c.then {
						if s.StatusCode != 200 {
							t.Errorf("call %d was refused: %s", n, s.body)
						}
						continue
					}
					c.wall.refuses(t, s)
				}
				if n := len(u.received()); n != c.then {
					t.Errorf("the upstream received %d calls, want %d", n, c.then)
				}
			})
		}
	}
}

// What has been used is saved while Caddy runs, so that a crash costs little.
func TestLimitSurvivesACrash(t *testing.T) {
	u := scripted(t, uncounted)
	g := behind(t, u, limit("rpm 2"))
	g.post(t, unaryPath, promptJSON)
	file := filepath.Join(g.dir, "gemini", "limits.json")
	eventually(t, "the count is saved", func() bool { return readFile(t, file) != "" })
	saved := readFile(t, file)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(saved), 0o600); err != nil { // what its end has saved is lost
		t.Fatal(err)
	}
	g.load(t, siteOf(t, u, limit("rpm 2")))
	g.post(t, unaryPath, promptJSON)
	wall{quota: quotaRPM, value: "2", class: "limited"}.refuses(t, g.post(t, unaryPath, promptJSON))
	if n := len(u.received()); n != 2 {
		t.Errorf("the upstream received %d calls, want 2", n)
	}
}

// A file that cannot be read costs its counts, and nothing else.
func TestLimitSurvivesABadFile(t *testing.T) {
	for name, content := range map[string]string{
		"empty":          "",
		"garbage":        "\x00\xff not JSON",
		"cut off":        `{"version":1,"entries":[{"instance":"x","scope":"studio\nm","day":"2026-01-01","today":1`,
		"newer":          `{"version":2,"entries":[]}`,
		"null":           `{"version":1,"entries":[null]}`,
		"negative":       `{"version":1,"entries":[{"instance":"x","scope":"s","day":"2026-01-01","today":-1}]}`,
		"absurd":         `{"version":1,"entries":[{"instance":"x","scope":"s","day":"2026-01-01","today":1,"recent":[[9223372036854775807,1,1,1]]}]}`,
		"not a document": `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, uncounted)
			g := watch(t, "respond 204\n")
			file := filepath.Join(g.dir, "gemini", "limits.json")
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			site := siteOf(t, u, limit("rpm 2"))
			g.load(t, site)
			g.post(t, unaryPath, promptJSON)
			g.load(t, "respond 204\n")
			if got := readFile(t, file+".corrupt"); got != content {
				t.Errorf("%q was set aside, want %q", got, content)
			}
			for _, warning := range []string{"ignoring a file in storage", "a file in storage has been moved aside"} {
				if n := strings.Count(g.log(t), `"msg":"`+warning+`","file":"gemini/limits.json"`); n != 1 {
					t.Errorf("%d warnings say %q, want one", n, warning)
				}
			}
			g.load(t, site)
			g.post(t, unaryPath, promptJSON)
			wall{quota: quotaRPM, value: "2", class: "limited"}.refuses(t, g.post(t, unaryPath, promptJSON))
			if n := len(u.received()); n != 2 {
				t.Errorf("the upstream received %d calls, want 2", n)
			}
			g.checkStored(t, "limits.json")
		})
	}
}

// lowering is a refusal for a limit, for next to no time.
func lowering(quota, value string) http.HandlerFunc {
	violation := `{"quotaMetric":"generativelanguage.googleapis.com/generate_requests_per_model","quotaId":"` + quota + `","quotaValue":"` + value + `"}`
	return answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Quota exceeded",
		`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[`+violation+`]}`, retryInfo("0.001s")))
}

// What an upstream has told one call, the next ones go by: they wait, or are
// refused, and are not sent before.
func TestLimitIsTold(t *testing.T) {
	for _, c := range []struct {
		name, queue string
		plays       http.HandlerFunc
		least       time.Duration // until the next calls are sent; 0: they are refused
		wall        wall
	}{
		{"queue", "queue 3m", limited("0.3s"), 300 * time.Millisecond, wall{}},
		{"no queue", "queue 0", limited("60s"), 0, wall{quota: quotaRPM, class: "limited"}},
		{"queue that is too short", "queue 10s", limited("60s"), 0, wall{quota: quotaRPM, class: "limited"}},
		{"day", "queue 3m", answers(429, jsonType, exhaustedJSON), 0, wall{quota: quotaRPD, class: "exhausted"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, inTurn(c.plays, uncounted))
			g := behind(t, u, limit("rpm 100", c.queue))
			if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 429 || strings.Contains(string(s.body), "RATE_LIMITED") {
				t.Errorf("the call that found out got %d: %s", s.StatusCode, s.body)
			}
			sent := 1
			for _, s := range g.volley(t, 5, unaryPath, promptJSON) {
				if c.least == 0 {
					c.wall.refuses(t, s)
					continue
				}
				sent++
				if s.StatusCode != 200 {
					t.Errorf("a call that could wait got %d: %s", s.StatusCode, s.body)
				}
			}
			all := u.received()
			if len(all) != sent {
				t.Errorf("the upstream received %d calls, want %d", len(all), sent)
			}
			for _, r := range all[1:] {
				if after := r.Time.Sub(all[0].Time); after < c.least {
					t.Errorf("a call was sent after %v, want %v", after, c.least)
				}
			}
			if until := g.status(t).Upstreams[0].CooldownUntil; c.least == 0 && (until == nil || until.Before(time.Now())) {
				t.Errorf("the status page says %v", until)
			}
		})
	}
}

// With another upstream nobody waits for what the first one has said.
func TestLimitIsToldAndReroutes(t *testing.T) {
	first, second := scripted(t, limited("600s")), scripted(t, uncounted)
	places := []string{place("first", first, ownKey(t, "first", "a")), place("second", second, ownKey(t, "second", "b"))}
	g := watch(t, several(places, limit("rpm 100", "queue 3m"), retry(hasty)))
	for range 4 {
		if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 200 {
			t.Errorf("status %d: %s", s.StatusCode, s.body)
		}
	}
	went(t, "first second second second second", first, second)
}

// A limit that an upstream names is used if it is below the configured one, and
// the operator is told. A reset takes back what upstreams have said.
func TestLimitIsLearned(t *testing.T) {
	const warning = "the upstream has told of a limit below the configured one"
	for _, c := range []struct {
		quota, value, limit string
		learned             int64
		wall                wall
	}{
		{quotaRPM, "2", "rpm", 2, wall{quota: quotaRPM, value: "2", class: "limited"}},
		{quotaRPM, "500", "rpm", 10, wall{}},
		{"GenerateRequestsPerDayPerProjectPerModel-FreeTier", "2", "rpd", 2, wall{quota: quotaRPD, class: "exhausted"}},
	} {
		t.Run(c.quota+" "+c.value, func(t *testing.T) {
			u := scripted(t, inTurn(lowering(c.quota, c.value), uncounted))
			g := behind(t, u, limit("rpm 10", "rpd 20", "queue 10s"))
			g.post(t, unaryPath, promptJSON)
			told := fmt.Sprintf(`"model":"%s","limit":"%s"`, imageModel, c.limit)
			isLearned := c.wall != wall{}
			if isLearned {
				eventually(t, "a warning", func() bool {
					return strings.Contains(g.log(t), warning) && strings.Contains(g.log(t), told)
				})
			}
			var s *reply
			for range 2 { // the first call has used one
				s = g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "5")
			}
			if row := g.row(t, c.limit); isLearned && c.wall.quota == quotaRPM && row.Value != c.learned {
				t.Errorf("the status page says %+v, want %d", row, c.learned)
			}
			if !isLearned {
				if s.StatusCode != 200 || strings.Contains(g.log(t), warning) {
					t.Errorf("a limit above the configured one is used: %d %s", s.StatusCode, s.body)
				}
				return
			}
			c.wall.refuses(t, s)
			sent := len(u.received())

			var done map[string]any
			g.ask(t, http.MethodPost, "/gemini/reset?project=other", &done)
			c.wall.refuses(t, g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "5"))
			g.ask(t, http.MethodPost, "/gemini/reset?project=studio", &done)
			if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 200 || len(u.received()) != sent+1 {
				t.Errorf("after a reset the call got %d: %s", s.StatusCode, s.body)
			}
			page := g.status(t)
			if rpm, rpd := g.row(t, "rpm").Value, g.row(t, "rpd").Value; rpm != 10 || rpd != 20 || page.Upstreams[0].CooldownUntil != nil {
				t.Errorf("after a reset the status page says %d, %d and %v", rpm, rpd, page.Upstreams[0].CooldownUntil)
			}
		})
	}
}

// A reset lets those go on at once who wait for what an upstream has said.
func TestResetFreesTheQueue(t *testing.T) {
	u := scripted(t, inTurn(limited("60s"), uncounted))
	g := behind(t, u, limit("rpm 100", "queue 3m"))
	g.post(t, unaryPath, promptJSON).exactly(t, 429, limitedJSON("60s"))
	waits := g.begin(t, unaryPath, promptJSON)
	g.queues(t, 1)
	var done map[string]any
	g.ask(t, http.MethodPost, "/gemini/reset", &done)
	if s := g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "20"); s.StatusCode != 200 {
		t.Errorf("a call that came after the reset got %d: %s", s.StatusCode, s.body)
	}
	eventually(t, "the call that waited is sent", func() bool { return len(u.received()) == 3 })
	if s := waits.ends(); s.StatusCode != 200 {
		t.Errorf("the call that waited got %d: %s", s.StatusCode, s.body)
	}
}

// Clients cannot make the gateway grow by bringing ever new keys and models.
func TestLimitIsBounded(t *testing.T) {
	g := watch(t, "metrics /metrics\n"+gemini("upstream first http://127.0.0.1:9 {\n\ttransport caddytest_stub\n}", limit("rpm 1", "rpd 1", "queue 3m")))
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		t.Fatal(err)
	}
	server := app.(*caddyhttp.App).Servers["srv0"]
	used := func() (bytes uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	series, goroutines, heap := len(g.counters(t)), runtime.NumGoroutine(), used()
	for id := range flood {
		r := g.newRequest(t, http.MethodPost, fmt.Sprintf("/v1beta/models/gemini-%d:generateContent", id), strings.NewReader(promptJSON))
		r.Header.Set("X-Goog-Api-Key", fmt.Sprint("AIzaSyFlood", id))
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Code != 200 {
			t.Fatalf("call %d: %d %s", id, w.Code, w.Body)
		}
	}
	page := g.status(t)
	for what, c := range map[string]struct{ got, most int }{
		"rows of limits": {len(page.Limits), 2 * min(flood, 10_000)},
		"rows of usage":  {len(page.Today), min(flood, 5_001)},
		"series":         {len(g.counters(t)) - series, 2_050},
		"goroutines":     {runtime.NumGoroutine() - goroutines, 50},
		"megabytes":      {int(int64(used()-heap) >> 20), 64},
	} {
		if c.got > c.most {
			t.Errorf("%d %s, want %d at the most", c.got, what, c.most)
		}
	}
}
