// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Two images cost exactly what twoImages says: 16 tokens in, 170 of text and 1120
// of the image are 0.136472 USD (wire §10).
const twoImages = "budget 0.272944"

// overBudget checks all that a refusal for a spent budget says.
func (s *reply) overBudget(t *testing.T) {
	t.Helper()
	if s.StatusCode != 429 || s.Header.Get("Content-Type") != jsonType {
		t.Fatalf("status %d, %s: %s", s.StatusCode, s.Header.Get("Content-Type"), shortened(string(s.body)))
	}
	if _, ok := s.Header["X-Should-Retry"]; ok {
		t.Error("X-Should-Retry on a 429")
	}
	if got := s.Header.Get("Proxy-Status"); got != `caddy-gemini; details="BUDGET_EXCEEDED"` {
		t.Errorf("Proxy-Status %q", got)
	}
	after := s.Header.Get("Retry-After")
	checkMidnight(t, after)
	e := parseError(t, s.body)
	if e.Code != 429 || e.Status != "RESOURCE_EXHAUSTED" || !strings.HasPrefix(e.Message, "BUDGET_EXCEEDED: ") ||
		!strings.Contains(e.Message, "budget") || !strings.Contains(e.Message, "Try again in "+after+" seconds.") {
		t.Errorf("code %d, status %q, message %q", e.Code, e.Status, e.Message)
	}
	for key, want := range map[string]string{"class": "exhausted", "attempts": "0", "upstream": "first"} {
		if got := e.metadata(key); got != want {
			t.Errorf("metadata %s %q, want %q", key, got, want)
		}
	}
	if details := fmt.Sprint(e.Details); !strings.Contains(details, "PerDay") || !strings.Contains(details, "RetryInfo") {
		t.Errorf("details %s", details)
	}
}

// A budget that has been reached is refused for the rest of the day, whatever is
// asked for, and however often Caddy starts anew.
func TestBudgetIsSpent(t *testing.T) {
	for name, options := range map[string][]string{
		"no retries": nil,
		"retries":    {quickly},
		"a queue":    {quickly, limit("rpm 100", "queue 9s")},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, drawn)
			site := func(budget string) string {
				return gemini(place("first", u, ownKey(t, "first", "studio"), budget), options...)
			}
			g := oversee(t, site(twoImages))
			for n := range 2 {
				g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
				eventually(t, "the image is booked", func() bool { return g.ledger(t, "studio")[0].Images == n+1 })
			}
			refuses := func() {
				t.Helper()
				u.play(answers(200, jsonType, textJSON))
				for _, path := range []string{unaryPath, streamPath, plainPath} {
					g.post(t, path, promptJSON).overBudget(t)
				}
				s := g.post(t, openAIChatPath, chatJSON(textModel))
				if e := string(s.body); s.StatusCode != 429 || !strings.Contains(e, `"rate_limit_error"`) || !strings.Contains(e, "BUDGET_EXCEEDED") {
					t.Errorf("status %d: %s", s.StatusCode, e)
				}
				checkMidnight(t, s.Header.Get("Retry-After"))
				u.untouched(t)
				if first := g.upstreams(t)[0]; first["spent_usd"] != 0.272944 || first["budget_usd"] != 0.272944 {
					t.Errorf("the status page says %v", first)
				}
			}
			refuses()
			g.load(t, site(twoImages)+"header X-Reloaded 1\n")
			refuses()
			g.restart(t, site(twoImages))
			refuses()

			do(t, g.newRequest(t, http.MethodGet, "/v1beta/files", nil)).exactly(t, 200, textJSON)
			g.load(t, site("budget 0.272945"))
			g.post(t, plainPath, promptJSON).exactly(t, 200, textJSON)
			eventually(t, "the last call is refused as well", func() bool { return g.post(t, plainPath, promptJSON).StatusCode == 429 })
		})
	}
}

// As long as there are others, calls go to them instead.
func TestBudgetPrefersOthers(t *testing.T) {
	first, second := scripted(t, drawn), scripted(t, drawn)
	g := oversee(t, several([]string{
		place("first", first, ownKey(t, "first"), twoImages), place("second", second, ownKey(t, "second"), "price * 0.5", "budget 1"),
	}))
	for n := range 4 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
		eventually(t, "the image is booked", func() bool {
			images := 0
			for _, l := range g.ledger(t, "") {
				images += l.Images
			}
			return images == n+1
		})
	}
	went(t, "first first second second", first, second)
	g.post(t, unaryPath, promptJSON).overBudget(t)

	// What belongs to the first may not go to another.
	g.load(t, several([]string{
		place("first", first, ownKey(t, "first"), twoImages), place("second", second, ownKey(t, "second")),
	}))
	const pinned = `{"cachedContent":"cachedContents/abc","contents":[{"parts":[{"text":"and now?"}]}]}`
	g.post(t, unaryPath, pinned).overBudget(t)
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first first second second second", first, second)
}
