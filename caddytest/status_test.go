// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const nothingToTell = `{"upstreams":[],"limits":[],"today":[],"paused":[]}` + "\n"

// A Caddy without a gateway has nothing to tell, but says so in the same form.
func TestStatusWithoutAGateway(t *testing.T) {
	u := scripted(t, drawn)
	g := oversee(t, "respond 204\n")
	empty := func() {
		t.Helper()
		s := g.tell(t, http.MethodGet, "/gemini/status")
		s.exactly(t, 200, nothingToTell)
		if kind := s.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("Content-Type %q", kind)
		}
		g.reset(t, "?project=studio", 0)
		g.reset(t, "", 0)
	}
	empty()
	g.load(t, siteOf(t, u, limit("rpm 10")))
	g.draws(t, 1)
	g.books(t, "studio", "first "+imageModel+": 1 calls, 1 images, 16+1290+0 tokens, 0.136472 USD, 0.136472 each")
	g.load(t, "respond 204\n")
	eventually(t, "nothing is left", func() bool {
		return string(g.tell(t, http.MethodGet, "/gemini/status").body) == nothingToTell
	})
	empty()
}

// kindOf is what a value of the status page is.
func kindOf(v any) string {
	if text, ok := v.(string); ok {
		if _, err := time.Parse(time.RFC3339, text); err == nil && strings.HasSuffix(text, "Z") {
			return "time"
		}
	}
	return map[string]string{"string": "text", "float64": "number", "bool": "bool", "<nil>": "null", "[]interface {}": "list"}[fmt.Sprintf("%T", v)]
}

// statusShape are the fields of the contract (§6), in all rows of their lists.
var statusShape = map[string]map[string]string{
	"upstreams": {
		"name": "text", "healthy": "bool", "success_ratio": "number", "latency_seconds": "number", "cooldown_until": "time or null",
	},
	"limits": {
		"project": "text", "model": "text", "limit": "text", "value": "number", "used": "number", "waiting": "number", "resets_at": "time or null",
	},
	"today": {
		"project": "text", "upstream": "text", "model": "text", "calls": "number", "images": "number", "blocked": "number", "block_ratio": "number",
		"retries": "number", "cost_usd": "number", "cost_per_image_usd": "number or null",
	},
	"paused": {"project": "text", "since": "time"},
}

func TestStatusShape(t *testing.T) {
	first, second := scripted(t, limited("3600s")), scripted(t, drawn)
	g := oversee(t, several([]string{
		place("first", first, ownKey(t, "first", "studio")), place("second", second, ownKey(t, "second", "press")),
	}, limit("rpm 100", "rpd 100", "tpm 1M", "ipm 100"), "pause_on_block_rate"))
	before := time.Now()
	g.draws(t, 1)
	after := time.Now()
	g.judged(t, second, "press", 0, 20)
	second.play(answers(200, jsonType, blockedJSON))
	for range 6 {
		g.post(t, unaryPath, promptJSON)
	}
	eventually(t, "the project is paused", func() bool { return len(g.says("gemini.block_rate_high")) == 1 })

	var page map[string][]map[string]any
	g.ask(t, http.MethodGet, "/gemini/status", &page)
	if lists := slices.Sorted(maps.Keys(page)); !slices.Equal(lists, []string{"limits", "paused", "today", "upstreams"}) {
		t.Errorf("lists %q", lists)
	}
	rows := map[string]int{"upstreams": 2, "limits": 16, "today": 4, "paused": 1}
	for list, fields := range statusShape {
		if n := len(page[list]); n != rows[list] {
			t.Errorf("%d %s, want %d", n, list, rows[list])
		}
		for field, want := range fields {
			for _, row := range page[list] {
				switch value, ok := row[field]; {
				case !ok:
					t.Errorf("there is no %s in %v of %s", field, row, list)
				case !strings.Contains(want, kindOf(value)):
					t.Errorf("%s of %s is %v, want a %s", field, list, value, want)
				}
			}
		}
	}
	limits := page["limits"][0]
	if limits["resets_at"] == nil || limits["waiting"] != 0. {
		t.Errorf("limit %v", limits)
	}
	one, two := page["upstreams"][0], page["upstreams"][1]
	if one["name"] != "first" || two["name"] != "second" || two["cooldown_until"] != nil || two["latency_seconds"].(float64) <= 0 {
		t.Errorf("upstreams %v\n%v", one, two)
	}
	text, _ := one["cooldown_until"].(string)
	until, err := time.Parse(time.RFC3339, text)
	if err != nil || until.Before(before.Add(time.Hour)) || until.After(after.Add(time.Hour+time.Second)) {
		t.Errorf("cooldown until %q, asked at %v for an hour", text, before)
	}
}

// What an upstream has said about limits is shown as long as it lasts, whoever's
// key it was about, and forgotten by a reset.
func TestStatusOfCooldowns(t *testing.T) {
	isolated := "api_key {env.CADDYTEST_KEY} {header.X-Project}"
	for name, key := range map[string]string{
		"of a project": "api_key {env.CADDYTEST_KEY} studio", "of no project": "api_key {env.CADDYTEST_KEY}",
		"of a tenant": isolated, "of a client": "",
	} {
		t.Run(name, func(t *testing.T) {
			u, idle := scripted(t, limited("3600s")), scripted(t, drawn)
			site := several([]string{place("first", u, key), place("second", idle, ownKey(t, "second", "another"))}, limit("rpm 100"))
			g := oversee(t, site)
			cooling := func(want bool) {
				t.Helper()
				rows := g.upstreams(t)
				until, _ := rows[0]["cooldown_until"].(string)
				if at, err := time.Parse(time.RFC3339, until); want != (err == nil && at.After(time.Now())) {
					t.Errorf("the first cools down until %v", rows[0]["cooldown_until"])
				}
				if rows[1]["cooldown_until"] != nil {
					t.Errorf("the second cools down until %v", rows[1]["cooldown_until"])
				}
			}
			draw := func() { g.post(t, unaryPath, promptJSON, "X-Project", "studio").exactly(t, 200, imageJSON) }
			draw()
			cooling(true)
			g.load(t, site+"header X-Reloaded 1\n")
			cooling(true)
			g.restart(t, site)
			cooling(true)
			u.play(drawn)
			g.reset(t, "?project=another", 0)
			draw()
			u.untouched(t)

			eventually(t, "a call is booked", func() bool { return len(g.ledger(t, "")) > 0 })
			projects := map[string]bool{"studio": true, "": true}
			for _, l := range g.ledger(t, "") {
				if l.Upstream == "first" {
					projects[l.Project] = true
				}
			}
			delete(projects, "")
			for project := range projects {
				g.reset(t, "?project="+project, 0)
			}
			cooling(false)
			draw()
			u.only(t)
			g.restart(t, site)
			cooling(false)
		})
	}
}

// Upstreams that a reload has removed are gone, and those of a configuration that
// cannot be loaded do not come.
func TestStatusFollowsTheConfiguration(t *testing.T) {
	u := scripted(t, drawn)
	site := func(names ...string) (all string) {
		for _, name := range names {
			all += "@" + name + " header X-Tenant " + name + "\nhandle @" + name + " {\n" + gemini(place(name, u)) + "}\n"
		}
		return all
	}
	g := oversee(t, site("stays", "goes"))
	has := func(want ...string) {
		t.Helper()
		var names []string
		eventually(t, "the upstreams are "+strings.Join(want, " "), func() bool {
			names = names[:0]
			for _, s := range g.upstreams(t) {
				names = append(names, fmt.Sprint(s["name"]))
			}
			return slices.Equal(names, want)
		})
		metrics := g.counters(t)
		for _, name := range []string{"stays", "goes", "comes", "ghost"} {
			for _, gauge := range []string{"upstream_healthy", "upstream_success_ratio"} {
				if _, ok := metrics[gauge+`{upstream="`+name+`"}`]; ok != slices.Contains(want, name) {
					t.Errorf("%s of %s: %t", gauge, name, ok)
				}
			}
		}
	}
	has("goes", "stays")
	g.post(t, unaryPath, promptJSON, as("goes")...).exactly(t, 200, imageJSON)
	g.load(t, site("stays", "comes"))
	has("comes", "stays")

	broken, err := adapt("{\nadmin " + g.admin + "\npersist_config off\nstorage file_system " + t.TempDir() + "\n}\nhttp://" + freeAddress(t) + " {\n" +
		site("ghost") + "handle {\n" + gemini("upstream broken "+u.URL+" {\n\tapi_key {env.CADDYTEST_MISSING}\n}") + "}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(broken, true); err == nil {
		t.Fatal("a configuration without its key was loaded")
	}
	has("comes", "stays")
	if rows := g.ledger(t, ""); len(rows) != 1 || rows[0].Upstream != "goes" {
		t.Errorf("the ledger has %v", rows)
	}
}

// Neither keys nor prompts nor images are in anything that is written, though
// upstreams quote them.
func TestNothingTellsSecrets(t *testing.T) {
	u := scripted(t, nil)
	const both = "retry off"
	site := "@own header X-Tenant own\nhandle @own {\n" + gemini(place("own", u), guarding, both, "no_image error", "pause_on_block_rate") + "}\n" +
		"handle {\n" + gemini(pool(t, "first", u, "studio", ""), guarding, both, "no_image error", "pause_on_block_rate", limit("rpd 1000")) + "}\n"
	g := oversee(t, accessLog+site)
	quoting := strings.NewReplacer("Unable to show the generated image.", prompt, "Here is what I think", prompt, `"blockReason"`, `"blockReasonMessage":"`+prompt+`","blockReason"`)
	keys := clientKey + " " + keyOf("k1") + " " + keyOf("k2")
	for i, plays := range []http.HandlerFunc{
		drawn,
		answers(200, jsonType, quoting.Replace(blockedJSON)),
		answers(200, jsonType, quoting.Replace(promptBlockedJSON)),
		answers(200, jsonType, quoting.Replace(textJSON)),
		answers(400, jsonType, googleError("INVALID_ARGUMENT", "API key "+keys+" not valid", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}`)),
		breaksOff(jsonType, imageJSON[:100_000]),
		answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Quota of "+keys+" for "+prompt, quotaFailure(quotaRPM), retryInfo("3600s"))),
	} {
		u.play(plays)
		body := strings.Replace(promptJSON, prompt, fmt.Sprint(prompt, " ", i), 1) // else guard knows it
		g.post(t, unaryPath, body)
		g.post(t, unaryPath, body)
		g.post(t, unaryPath, body, as("own")...)
		g.post(t, unaryPath+"?key="+otherKey, body, "X-Goog-Api-Key", "", "X-Tenant", "own")
		g.post(t, openAIChatPath, chatJSON(lightModel), "X-Goog-Api-Key", "", "Authorization", "Bearer "+otherKey, "X-Tenant", "own")
	}
	u.play(answers(200, jsonType, quoting.Replace(blockedJSON)))
	for i := range 40 {
		g.post(t, "/v1beta/models/"+lightModel+":generateContent", strings.Replace(promptJSON, prompt, fmt.Sprint(prompt, " again ", i), 1), as("own")...)
	}
	eventually(t, "a project is paused", func() bool { return len(g.says("gemini.block_rate_high")) > 0 })

	told := map[string]string{
		"the status page": string(g.tell(t, http.MethodGet, "/gemini/status").body),
		"the metrics":     string(do(t, g.newRequest(t, http.MethodGet, "/metrics", nil)).body),
	}
	g.restart(t, accessLog+site) // saves everything
	told["the status page after a restart"] = string(g.tell(t, http.MethodGet, "/gemini/status").body)
	book, _ := heard.Load(g.dir)
	for _, e := range book.(*eventBook).all() {
		told["event "+e.Name()] += fmt.Sprint(e.Data)
	}
	for _, name := range g.files(t) {
		told[name] = readFile(t, name)
	}
	for _, want := range []string{"event gemini.blocked", "event gemini.key_rejected", "event gemini.block_rate_high"} {
		if told[want] == "" {
			t.Errorf("there was no %s", want)
		}
	}
	for _, name := range []string{"blocks", "cooldowns", "rejected_keys", "usage", "block_rates", "limits"} {
		if told[filepath.Join(g.dir, "gemini", name+".json")] == "" {
			t.Errorf("%s were not stored", name)
		}
	}
	secrets := []string{clientKey, otherKey, keyMark, "AIzaSy", prompt, "only the model", imagePart[60:120]}
	for where, text := range told {
		for _, secret := range secrets {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s tells %q: %s", where, secret, text[max(0, at-200):min(len(text), at+100)])
			}
		}
	}
}
