// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// rated is a gateway whose clients name their projects.
func rated(u *upstream, options ...string) string {
	return gemini(place("first", u, "api_key {env.CADDYTEST_KEY} {header.X-Project}"), options...)
}

// judged makes calls for a project, the blocked ones first, and waits until they
// are counted.
func (g *overseen) judged(t *testing.T, u *upstream, project string, blocked, passed int) {
	t.Helper()
	before := 0
	for _, l := range g.ledger(t, project) {
		before += l.Attempts
	}
	for i := range blocked + passed {
		u.play(answers(200, jsonType, textJSON))
		if i < blocked {
			u.play(answers(200, jsonType, blockedJSON))
		}
		g.post(t, plainPath, promptJSON, "X-Project", project)
	}
	eventually(t, "the calls are counted", func() bool {
		n := 0
		for _, l := range g.ledger(t, project) {
			n += l.Attempts
		}
		return n == before+blocked+passed
	})
}

const rateWarning = `"msg":"content filters block many calls of a project`

// alarmed checks how many alarms there have been, and returns the last event.
func (g *overseen) alarmed(t *testing.T, want int) (last caddy.Event) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events", want), func() bool { return len(g.says("gemini.block_rate_high")) >= want })
	warnings := 0
	for line := range strings.Lines(g.log(t)) {
		if strings.Contains(line, rateWarning) && strings.Contains(line, `"level":"warn"`) {
			warnings++
		}
	}
	all := g.says("gemini.block_rate_high")
	if len(all) != want || warnings != want {
		t.Fatalf("%d events and %d warnings, want %d", len(all), warnings, want)
	}
	if want > 0 {
		last = all[want-1]
	}
	return last
}

// More than one blocked call in five, of at least twenty, is told of once: at the
// call that makes it so.
func TestBlockRateAlarm(t *testing.T) {
	u := scripted(t, nil)
	g := oversee(t, rated(u))
	ratio := func(project string, want float64) {
		t.Helper()
		if got := g.counters(t)[`block_ratio{project="`+project+`"}`]; got != want {
			t.Errorf("block_ratio of %s is %v, want %v", project, got, want)
		}
	}
	g.judged(t, u, "one-in-five", 4, 16)
	g.judged(t, u, "nineteen", 19, 0)
	g.alarmed(t, 0)
	ratio("one-in-five", 0.2)

	g.judged(t, u, "one-in-five", 1, 0)
	e := g.alarmed(t, 1)
	if e.Data["project"] != "one-in-five" || e.Data["block_ratio"] != 5./21 || e.Data["paused"] != false || len(e.Data) != 3 {
		t.Errorf("the event says %v", e.Data)
	}
	ratio("one-in-five", 5./21)
	g.judged(t, u, "nineteen", 1, 0)
	if e := g.alarmed(t, 2); e.Data["project"] != "nineteen" || e.Data["block_ratio"] != 1. {
		t.Errorf("the event says %v", e.Data)
	}

	g.judged(t, u, "nineteen", 1, 100) // well below, and above again
	g.judged(t, u, "nineteen", 20, 0)
	g.load(t, rated(u)+"header X-Reloaded 1\n")
	g.judged(t, u, "nineteen", 20, 0)
	g.restart(t, rated(u))
	g.judged(t, u, "nineteen", 20, 0)
	ratio("nineteen", 81./181)
	g.judged(t, u, "another", 20, 0) // an alarm of nineteen's would have come before
	if e := g.alarmed(t, 3); e.Data["project"] != "another" {
		t.Errorf("the event says %v", e.Data)
	}
	if s := g.post(t, unaryPath, promptJSON, "X-Project", "another"); s.StatusCode == 403 {
		t.Error("a project is paused though nobody has asked for that")
	}
}

// What has failed says nothing about a project's prompts.
func TestBlockRateOfFailures(t *testing.T) {
	u := scripted(t, nil)
	g := oversee(t, rated(u, quickly)) // an attempt counts, as it does at Google
	fails := map[string]http.HandlerFunc{"503": overloaded, "400": answers(400, jsonType, badRequestJSON), "retried": inTurn(answers(200, jsonType, stopped("IMAGE_OTHER")), drawn)}
	for project, plays := range fails {
		g.judged(t, u, project, 15, 0)
		for range 10 {
			u.play(plays)
			g.post(t, unaryPath, promptJSON, "X-Project", project)
			if project == "retried" {
				plays = drawn
			}
		}
	}
	eventually(t, "the last one is alarming", func() bool { return len(g.says("gemini.block_rate_high")) > 0 })
	if e := g.alarmed(t, 1); e.Data["project"] != "retried" {
		t.Errorf("the event says %v", e.Data)
	}
}

// However many calls make it so at the same time, it is one piece of news.
func TestBlockRateAlarmIsOne(t *testing.T) {
	const calls = 40
	var together sync.WaitGroup // or the pause comes before the last of them
	together.Add(calls)
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait()
		answers(200, jsonType, blockedJSON)(w, r)
	})
	g := oversee(t, rated(u, "pause_on_block_rate"))
	g.volley(t, calls, unaryPath, promptJSON)
	eventually(t, "the calls are counted", func() bool { return g.ledger(t, "first")[0].Calls == calls })
	g.alarmed(t, 1)
}

// A project may be called what this module calls all others.
func TestBlockRateOfAnyName(t *testing.T) {
	for _, project := range []string{"other", "client-0123456789ab", "a@b.c", "ü 🐱", strings.Repeat("long", 16)} {
		t.Run(project, func(t *testing.T) {
			u := scripted(t, nil)
			g := oversee(t, rated(u, "pause_on_block_rate"))
			g.judged(t, u, project, 20, 0)
			if e := g.alarmed(t, 1); e.Data["project"] != project {
				t.Errorf("the event says %v", e.Data)
			}
			g.isPaused(t, u, project)
			g.restart(t, rated(u, "pause_on_block_rate"))
			g.isPaused(t, u, project)
			g.reset(t, "?project="+url.QueryEscape(project), 1)
			u.play(drawn)
			g.isNotPaused(t, project)
		})
	}
}

// The call that makes a rate high may be on its way while a site is replaced.
func TestBlockRateAlarmDuringAReload(t *testing.T) {
	u := scripted(t, nil)
	g := oversee(t, rated(u))
	g.judged(t, u, "studio", 19, 0)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	u.play(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-goOn
		answers(200, jsonType, blockedJSON)(w, r)
	})
	p := g.begin(t, plainPath, promptJSON, func(r *http.Request) { r.Header.Set("X-Project", "studio") })
	wait(t, "the call arrives", arrived)
	g.load(t, rated(u)+"header X-Reloaded 1\n")
	close(goOn)
	p.ends().fails(t, 400, "IMAGE_SAFETY")
	g.alarmed(t, 1)
}

// paused starts a gateway in which a project has just been paused.
func paused(t *testing.T, u *upstream) *overseen {
	t.Helper()
	g := oversee(t, rated(u, "pause_on_block_rate"))
	g.judged(t, u, "bad", 20, 0)
	if e := g.alarmed(t, 1); e.Data["project"] != "bad" || e.Data["paused"] != true {
		t.Errorf("the event says %v", e.Data)
	}
	u.play(drawn)
	return g
}

// isPaused fails unless an image call of a project is refused, as it must be.
func (g *overseen) isPaused(t *testing.T, u *upstream, project string) {
	t.Helper()
	u.play(drawn)
	e := g.post(t, unaryPath, promptJSON, "X-Project", project).fails(t, 403, "PROJECT_PAUSED")
	if e.Status != "PERMISSION_DENIED" || e.metadata("class") != "account" || e.metadata("attempts") != "0" {
		t.Errorf("status %s, details %v", e.Status, e.Details)
	}
	u.untouched(t)
}

func (g *overseen) isNotPaused(t *testing.T, project string) {
	t.Helper()
	g.post(t, unaryPath, promptJSON, "X-Project", project).exactly(t, 200, imageJSON)
}

// reset lets an operator lift the pause of a project, or of all.
func (g *overseen) reset(t *testing.T, query string, want int) {
	t.Helper()
	var got struct {
		Lifted *int `json:"pauses_lifted"`
	}
	g.ask(t, http.MethodPost, "/gemini/reset"+query, &got)
	if got.Lifted == nil || *got.Lifted != want {
		t.Errorf("POST /gemini/reset%s lifts %v, want %d", query, got.Lifted, want)
	}
}

// A paused project gets no images, by whatever door, until somebody resets it.
func TestPause(t *testing.T) {
	u := scripted(t, nil)
	g := paused(t, u)
	g.isPaused(t, u, "bad")
	asksForImages := strings.Replace(promptJSON, `{"contents"`, `{"generationConfig":{"responseModalities":["IMAGE"]},"contents"`, 1)
	for name, c := range map[string]struct{ path, body string }{
		"stream":        {streamPath, promptJSON},
		"array":         {arrayPath, promptJSON},
		"Vertex":        {vertexPath, promptJSON},
		"Imagen":        {imagenPath, imagenJSON},
		"modality":      {plainPath, asksForImages},
		"OpenAI images": {openAIDrawPath, `{"model":"` + lightModel + `","prompt":"` + prompt + `"}`},
		"OpenAI chat":   {openAIChatPath, chatJSON(lightModel)},
		"Interactions":  {"/v1beta/interactions", `{"model":"` + lightModel + `","input":"` + prompt + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			u.play(drawn)
			s := g.post(t, c.path, c.body, "X-Project", "bad")
			if s.StatusCode != 403 || !strings.Contains(string(s.body), "PROJECT_PAUSED") {
				t.Errorf("status %d: %s", s.StatusCode, shortened(string(s.body)))
			}
			u.untouched(t)
		})
	}
	g.isNotPaused(t, "good")
	u.play(answers(200, jsonType, textJSON))
	g.post(t, plainPath, promptJSON, "X-Project", "bad").exactly(t, 200, textJSON)
	g.post(t, openAIChatPath, chatJSON(textModel), "X-Project", "bad").exactly(t, 200, textJSON)
	const refused = `requests_total{model="` + imageModel + `",reason="PROJECT_PAUSED",upstream="",verdict="account"}`
	if all := g.counters(t); all[refused] < 1 {
		for series := range all {
			if strings.HasPrefix(series, "requests_total") && strings.Contains(series, "account") {
				t.Errorf("the metrics have %s", series)
			}
		}
	}
	for _, l := range g.ledger(t, "bad") {
		if l.Model != textModel {
			t.Errorf("the ledger has %s", l)
		}
	}
}

// A pause survives whatever Caddy does, and ends with the option or by a reset.
func TestPauseLasts(t *testing.T) {
	u := scripted(t, nil)
	began := time.Now()
	g := paused(t, u)
	on, off := rated(u, "pause_on_block_rate"), rated(u)
	since := func() string {
		t.Helper()
		var page struct{ Paused []map[string]string }
		g.ask(t, http.MethodGet, "/gemini/status", &page)
		if len(page.Paused) != 1 || page.Paused[0]["project"] != "bad" || len(page.Paused[0]) != 2 {
			t.Fatalf("paused: %v", page.Paused)
		}
		return page.Paused[0]["since"]
	}
	at, err := time.Parse(time.RFC3339, since())
	if err != nil || at.Before(began.Truncate(time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("paused since %s, at %v", since(), began)
	}
	for name, change := range map[string]func(){
		"reload":              func() { g.load(t, on+"header X-Reloaded 1\n") },
		"restart":             func() { g.restart(t, on) },
		"restart and reload":  func() { g.restart(t, on+"header X-Reloaded 1\n"); g.load(t, on) },
		"another's reset":     func() { g.reset(t, "?project=good", 0); g.reset(t, "?project=unknown", 0) },
		"restart without it":  func() { g.restart(t, off); g.isNotPaused(t, "bad"); g.load(t, on) },
		"an upstream is gone": func() { g.load(t, "respond 418\n"); g.load(t, on) },
	} {
		change()
		g.isPaused(t, u, "bad")
		if got := since(); got != at.Format(time.RFC3339) {
			t.Errorf("%s: paused since %s, want %s", name, got, at.Format(time.RFC3339))
		}
		u.play(drawn)
	}
	g.alarmed(t, 1)
}

// What has led to a pause does not lead to it again once it has been lifted.
func TestResetLiftsAPause(t *testing.T) {
	for _, query := range []string{"?project=bad", ""} {
		t.Run("reset"+query, func(t *testing.T) {
			u := scripted(t, nil)
			g := paused(t, u)
			g.judged(t, u, "good", 4, 15)
			for _, c := range []struct{ method, uri, allow string }{
				{http.MethodGet, "/gemini/reset?project=bad", "POST"},
				{http.MethodDelete, "/gemini/reset", "POST"},
				{http.MethodPost, "/gemini/status", "GET"},
			} {
				s := g.tell(t, c.method, c.uri)
				var told struct{ Error string }
				if err := json.Unmarshal(s.body, &told); err != nil || s.StatusCode != 405 || s.Header.Get("Allow") != c.allow || told.Error == "" {
					t.Errorf("%s %s: %s, Allow %q: %s", c.method, c.uri, s.Status, s.Header.Get("Allow"), s.body)
				}
			}
			g.isPaused(t, u, "bad")
			g.reset(t, query, 1)
			g.reset(t, query, 0)
			g.isNotPaused(t, "bad")
			g.restart(t, rated(u, "pause_on_block_rate"))
			g.isNotPaused(t, "bad")
			g.judged(t, u, "bad", 16, 0)
			u.play(drawn)
			g.isNotPaused(t, "bad") // the nineteenth call since
			g.alarmed(t, 1)
			g.judged(t, u, "bad", 1, 0)
			g.isPaused(t, u, "bad")
			if e := g.alarmed(t, 2); e.Data["project"] != "bad" || e.Data["block_ratio"] != 17./20 {
				t.Errorf("the event says %v", e.Data)
			}
			for _, l := range g.ledger(t, "bad") { // what was counted stays counted
				if l.Model == textModel && l.Blocked != 37 {
					t.Errorf("the ledger has %s", l)
				}
			}
		})
	}
}

// A pause concerns one project: other keys of the pool and other upstreams go on.
func TestPauseGoesElsewhere(t *testing.T) {
	block := answers(200, jsonType, blockedJSON)
	first, second := scripted(t, byKey("k1", block, drawn)), scripted(t, drawn)
	g := oversee(t, several([]string{pool(t, "first", first, "bad", "good"), place("second", second, ownKey(t, "other", "other"))}, "pause_on_block_rate"))
	for range 40 {
		g.post(t, unaryPath, promptJSON)
	}
	g.alarmed(t, 1)
	first.play(byKey("k1", block, drawn))
	g.draws(t, 3)
	used(t, "k2 k2 k2", first, second)

	first.play(byKey("k1", drawn, block)) // another project, whose rate is not its own
	for range 30 {
		g.post(t, unaryPath, promptJSON)
	}
	g.alarmed(t, 2)
	first.play(drawn)
	second.play(drawn)
	g.draws(t, 3)
	used(t, "other other other", first, second)
	g.reset(t, "?project=bad", 1)
	g.draws(t, 2)
	used(t, "other other other k1 k1", first, second)
}
