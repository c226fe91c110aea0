// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genai"
)

// promptTokens is the estimate for promptJSON: a token for four bytes.
const promptTokens = (len(prompt) + 3) / 4

// uncounted is a good and small answer that does not say what it has used, so that what was
// thought before stands.
var uncounted = answers(200, jsonType, `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"cGljdHVyZQ=="}}]},"finishReason":"STOP"}]}`)

const (
	vertexPath     = "/v1beta1/projects/p/locations/global/publishers/google/models/" + imageModel + ":generateContent"
	openAIChatPath = "/v1beta/openai/chat/completions"
	openAIDrawPath = "/v1beta/openai/images/generations"
)

func chatJSON(model string) string {
	return `{"model":"` + model + `","messages":[{"role":"user","content":"` + prompt + `"}]}`
}

// Each limit lets through what it says, and tells of itself when it is used up.
var fullWalls = []struct {
	option string
	passes int
	wall   wall
}{
	{"rpm 3", 3, wall{quota: quotaRPM, value: "3", class: "limited"}},
	{"rpd 3", 3, wall{quota: quotaRPD, value: "3", class: "exhausted"}},
	{"ipm 3", 3, wall{quota: quotaIPM, value: "3", class: "limited"}},
	{fmt.Sprintf("tpm %d", 4*promptTokens-1), 3, wall{quota: quotaTPM, value: fmt.Sprint(4*promptTokens - 1), class: "limited"}},
}

// A refusal has the same form whatever was asked for: a stream gets the plain
// object, too. It costs nothing.
func TestLimitRefuses(t *testing.T) {
	for _, c := range fullWalls {
		t.Run(strings.Fields(c.option)[0], func(t *testing.T) {
			u := scripted(t, uncounted)
			g := behind(t, u, limit(c.option))
			for range c.passes {
				g.post(t, unaryPath, promptJSON)
			}
			for _, path := range []string{unaryPath, streamPath, arrayPath, vertexPath} {
				c.wall.refuses(t, g.post(t, path, promptJSON))
			}
			if n := len(u.received()); n != c.passes {
				t.Errorf("the upstream received %d calls, want %d", n, c.passes)
			}
			row := g.row(t, strings.Fields(c.option)[0])
			if fmt.Sprint(row.Value) != c.wall.value || row.Waiting != 0 || row.Project != "studio" || row.ResetsAt == nil {
				t.Fatalf("the status page says %+v", row)
			}
			if left := time.Until(*row.ResetsAt); left <= 0 || c.wall.quota != quotaRPD && left > time.Minute {
				t.Errorf("the status page says that there is room in %v", left)
			}
		})
	}
}

// However many come at once, not one too many gets through. Of several limits that
// are used up, the one counts that lasts longest.
func TestLimitUnderLoad(t *testing.T) {
	const most = 20
	rpm, rpd, ipm, tpm := fmt.Sprintf("rpm %d", most), fmt.Sprintf("rpd %d", most), fmt.Sprintf("ipm %d", most), fmt.Sprintf("tpm %d", most*promptTokens)
	for _, c := range []struct {
		callers int
		options []string
		wall    wall
	}{
		{50, []string{rpm}, wall{quota: quotaRPM, value: "20", class: "limited"}},
		{50, []string{rpd}, wall{quota: quotaRPD, value: "20", class: "exhausted"}},
		{50, []string{ipm}, wall{quota: quotaIPM, value: "20", class: "limited"}},
		{50, []string{tpm}, wall{quota: quotaTPM, value: fmt.Sprint(most * promptTokens), class: "limited"}},
		{1000, []string{rpm, rpd, ipm, tpm}, wall{quota: quotaRPD, value: "20", class: "exhausted"}},
	} {
		t.Run(fmt.Sprintf("%d/%s", c.callers, strings.Join(c.options, " ")), func(t *testing.T) {
			u := scripted(t, uncounted)
			g := behind(t, u, limit(c.options...))
			passed := 0
			for _, s := range g.volley(t, c.callers, unaryPath, promptJSON) {
				if s.StatusCode == 200 {
					passed++
					continue
				}
				c.wall.refuses(t, s)
			}
			if n := len(u.received()); passed != most || n != most {
				t.Errorf("%d of %d calls passed, and %d reached the upstream, want %d", passed, c.callers, n, most)
			}
		})
	}
}

// The other door counts as well.
func TestLimitOfTheTransport(t *testing.T) {
	u := scripted(t, uncounted)
	g := watch(t, proxied(u.URL, once(limit("rpm 2"))))
	for _, want := range []int{200, 200, 429, 429} {
		r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))
		r.Header.Del("X-Goog-Api-Key") // reverse_proxy prints headers at debug level
		if s := do(t, r); s.StatusCode != want {
			t.Errorf("status %d, want %d: %s", s.StatusCode, want, s.body)
		}
	}
	if n := len(u.received()); n != 2 {
		t.Errorf("the upstream received %d calls, want 2", n)
	}
}

// What alone is too much will never have room, and is told no time.
func TestLimitIsSmallerThanACall(t *testing.T) {
	u := scripted(t, drawn)
	g := behind(t, u, limit("tpm 5", "queue 3m"))
	s := g.post(t, unaryPath, promptJSON)
	e := wall{quota: quotaTPM, value: "5", class: "limited"}.checkError(t, s)
	if _, ok := s.Header["Retry-After"]; ok || len(e.Details) != 4 || strings.Contains(e.Message, "seconds") {
		t.Errorf("there will be room after %q: %s", s.Header.Get("Retry-After"), s.body)
	}
	u.untouched(t)
}

// OpenAI's clients get their own form.
func TestLimitRefusesOpenAIClients(t *testing.T) {
	for path, body := range map[string]string{
		openAIChatPath: chatJSON(imageModel),
		openAIDrawPath: `{"model":"` + imageModel + `","prompt":"` + prompt + `","n":1}`,
	} {
		for _, full := range fullWalls {
			t.Run(path+" "+full.option, func(t *testing.T) {
				u := scripted(t, uncounted)
				g := behind(t, u, limit(full.option))
				for range full.passes {
					g.post(t, path, body)
				}
				s := g.post(t, path, body)
				if n := len(u.received()); n != full.passes || s.StatusCode != 429 {
					t.Fatalf("the upstream received %d calls, want %d, and the client %d", n, full.passes, s.StatusCode)
				}
				after := s.Header.Get("Retry-After")
				if full.wall.quota == quotaRPD {
					checkMidnight(t, after)
				} else if seconds, err := strconv.Atoi(after); err != nil || seconds < 1 || seconds > 60 {
					t.Errorf("Retry-After %q", after)
				}
				if _, ok := s.Header["X-Should-Retry"]; ok || s.Header.Get("Content-Type") != jsonType {
					t.Errorf("header %v", s.Header)
				}
				var got map[string]map[string]any
				if err := json.Unmarshal(s.body, &got); err != nil {
					t.Fatal(err)
				}
				message, _ := got["error"]["message"].(string)
				delete(got["error"], "message")
				want := map[string]map[string]any{"error": {"type": "rate_limit_error", "code": "rate_limit_exceeded", "param": nil}}
				if fmt.Sprint(got) != fmt.Sprint(want) || !strings.HasPrefix(message, "RATE_LIMITED: ") || !strings.Contains(message, "Try again in "+after+" seconds.") {
					t.Errorf("the client got %s", s.body)
				}
			})
		}
	}
}

// The person in front of the app is told in words of their own.
func TestLimitIsTranslated(t *testing.T) {
	u := scripted(t, drawn)
	g := behind(t, u, limit("rpm 1"))
	g.post(t, unaryPath, promptJSON)
	said := make(map[any]string)
	for language, locale := range map[string]string{"": "en", "ru-RU,en;q=0.5": "ru", "fr-CA": "fr", "zh-CN": "zh-Hans", "zh-TW": "zh-Hant", "tlh": "en"} {
		s := g.post(t, unaryPath, promptJSON, "Accept-Language", language)
		wall{quota: quotaRPM, value: "1", class: "limited"}.refuses(t, s)
		detail := parseError(t, s.body).Details[1]
		if detail["locale"] != locale {
			t.Errorf("Accept-Language %q is answered in %v, want %s", language, detail["locale"], locale)
		}
		if other, ok := said[detail["message"]]; ok && other != locale {
			t.Errorf("%s and %s read the same: %v", other, locale, detail["message"])
		}
		said[detail["message"]] = locale
	}
	u.only(t)
}

// The official client raises its own exception, and makes one call of a call.
func TestLimitRaisesInTheGoClient(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *genai.Client, string, *genai.GenerateContentConfig) seen{
		"unary": generate, "stream": generateStream,
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, inForm(imageJSON, imageChunk, lastChunk))
			g := behind(t, u, limit("rpm 1"))
			if s := ask(t.Context(), newGenAI(t, g.gateway), imageModel, nil); s.err != nil || len(s.images) != 1 {
				t.Fatalf("the client saw %d images and %v", len(s.images), s.err)
			}
			s := ask(t.Context(), newGenAI(t, g.gateway), imageModel, nil)
			var raised genai.APIError
			if !errors.As(s.err, &raised) {
				t.Fatalf("the client raised %v", s.err)
			}
			if raised.Code != 429 || raised.Status != "RESOURCE_EXHAUSTED" || !strings.HasPrefix(raised.Message, "RATE_LIMITED: ") {
				t.Errorf("the client raised %+v", raised)
			}
			if len(raised.Details) != 5 || raised.Details[0]["reason"] != "RATE_LIMITED" || raised.Details[4]["retryDelay"] == "" {
				t.Errorf("details %v", raised.Details)
			}
			u.only(t)
		})
	}
}

// Generate calls of all APIs count for the same limit, however they spell the
// model. What is only forwarded is neither counted nor refused.
func TestLimitCountsAllAPIs(t *testing.T) {
	type call struct{ method, path, body string }
	generates := map[string]call{
		"Gemini":                  {http.MethodPost, unaryPath, promptJSON},
		"Gemini, escaped":         {http.MethodPost, "/v1beta/models/gemini%2D3-pro-image-preview%3AgenerateContent", promptJSON},
		"Gemini, v1":              {http.MethodPost, v1Path, promptJSON},
		"stream":                  {http.MethodPost, streamPath, promptJSON},
		"Vertex":                  {http.MethodPost, vertexPath, promptJSON},
		"Vertex express":          {http.MethodPost, "/v1/publishers/google/models/" + imageModel + ":generateContent", promptJSON},
		"OpenAI":                  {http.MethodPost, openAIChatPath, chatJSON(imageModel)},
		"OpenAI, full name":       {http.MethodPost, openAIChatPath, chatJSON("models/" + imageModel)},
		"OpenAI, images":          {http.MethodPost, openAIDrawPath, `{"model":"` + imageModel + `","prompt":"x"}`},
		"OpenAI on Vertex":        {http.MethodPost, "/v1/projects/p/locations/l/endpoints/openapi/chat/completions", chatJSON("google/" + imageModel)},
		"Interactions":            {http.MethodPost, "/v1beta/interactions", `{"model":"` + imageModel + `","input":"x"}`},
		"Interactions, full name": {http.MethodPost, "/v1beta/interactions", `{"model":"models/` + imageModel + `","input":"x"}`},
	}
	forwarded := []call{
		{http.MethodPost, "/v1beta/models/" + imageModel + ":countTokens", promptJSON},
		{http.MethodGet, "/v1beta/models/" + imageModel, ""},
		{http.MethodGet, "/v1beta/files", ""},
		{http.MethodGet, "/v1beta/openai/models", ""},
	}
	u := scripted(t, uncounted)
	send := func(g *watched, c call) int {
		r := g.newRequest(t, c.method, c.path, strings.NewReader(c.body))
		return do(t, r).StatusCode
	}
	for name, c := range generates {
		t.Run(name, func(t *testing.T) {
			u.play(uncounted)
			g := behind(t, u, limitOf("gemini-*", "rpm 2"))
			for _, f := range forwarded {
				send(g, f)
			}
			if first, second, third := send(g, c), send(g, generates["Gemini"]), send(g, c); first == 429 || second == 429 || third != 429 {
				t.Errorf("with two calls a minute, these were answered with %d, %d and %d", first, second, third)
			}
			for _, f := range forwarded {
				if status := send(g, f); status != 200 {
					t.Errorf("%s %s: %d, though it is no generate call", f.method, f.path, status)
				}
			}
			if n := len(u.received()); n != 2*len(forwarded)+2 {
				t.Errorf("the upstream received %d requests, want %d", n, 2*len(forwarded)+2)
			}
		})
	}
}

// Google counts every attempt, and so do limits. One for which there is no room is
// not made, and the client gets what was answered before.
func TestLimitCountsAttempts(t *testing.T) {
	u := scripted(t, inTurn(overloaded, drawn, overloaded))
	g := behind(t, u, limit("rpm 3"), quickly)
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	if row := g.row(t, "rpm"); row.Used != 2 {
		t.Errorf("a call with two attempts has used %d", row.Used)
	}
	g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	wall{quota: quotaRPM, value: "3", class: "limited"}.refuses(t, g.post(t, unaryPath, promptJSON))
	if n := len(u.received()); n != 3 {
		t.Errorf("the upstream received %d calls, want 3", n)
	}
}

// A call takes the images that it asks for, or those that it gets, and the tokens
// that the upstream counts.
func TestLimitIsSettled(t *testing.T) {
	three := answers(200, jsonType, candidate(strings.Join([]string{imagePart, imagePart, imagePart}, ","), `"STOP"`))
	for _, c := range []struct {
		name, option string
		plays        http.HandlerFunc
		path, body   string
		used         int64
	}{
		{"images asked for", "ipm 4", overloaded, imagenPath, imagenJSON, 2},
		{"candidates asked for", "ipm 4", overloaded, unaryPath, `{"contents":[{"parts":[{"text":"a cat"}]}],"generationConfig":{"candidateCount":3}}`, 3},
		{"images delivered", "ipm 4", three, unaryPath, promptJSON, 3},
		{"no images", "ipm 4", answers(200, jsonType, textJSON), "/v1beta/models/" + textModel + ":generateContent", promptJSON, 0},
		{"tokens, more than thought", "tpm 1000", drawn, unaryPath, promptJSON, 16},
		{"tokens of a block", "tpm 1000", answers(200, jsonType, blockedJSON), unaryPath, promptJSON, 18},
		{"tokens of a stream", "tpm 1000", events(imageChunk, strings.Replace(lastChunk, `"index":0}]`, `"index":0}],"usageMetadata":{"promptTokenCount":7}`, 1)), streamPath, promptJSON, 7},
		{"tokens as thought", "tpm 1000", uncounted, unaryPath, promptJSON, int64(promptTokens)},
		{"tokens of a failure", "tpm 1000", overloaded, unaryPath, promptJSON, int64(promptTokens)},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			g := behind(t, u, limit(c.option))
			g.post(t, c.path, c.body)
			g.uses(t, strings.Fields(c.option)[0], c.used)
			u.only(t)
		})
	}
}

// Whoever brings a key of their own has limits of their own, wherever the key
// stands. No key gets onto the status page.
func TestLimitOfClients(t *testing.T) {
	u := scripted(t, uncounted)
	g := watch(t, gemini(place("first", u), limit("rpm 3")))
	send := func(path, body, field, value string) int {
		r := g.newRequest(t, http.MethodPost, path, strings.NewReader(body))
		r.Header.Del("X-Goog-Api-Key")
		r.Header.Set(field, value)
		return do(t, r).StatusCode
	}
	for _, key := range []string{clientKey, otherKey} {
		for _, want := range []int{200, 429} {
			for name, status := range map[string]int{
				"header": send(unaryPath, promptJSON, "X-Goog-Api-Key", key),
				"query":  send(unaryPath+"?key="+key, promptJSON, "X-Other", "1"),
				"bearer": send(openAIChatPath, chatJSON(imageModel), "Authorization", "Bearer "+key),
			} {
				if status != want {
					t.Errorf("a call with a key in the %s was answered with %d, want %d", name, status, want)
				}
			}
		}
	}
	rows := g.status(t).Limits
	if page := fmt.Sprint(rows); len(rows) != 2 || strings.Contains(page, "AIza") {
		t.Errorf("the status page says %s", page)
	}
}

// A key splits the limits of a project: every value has all of them.
func TestLimitOfTenants(t *testing.T) {
	u := scripted(t, uncounted)
	g := behind(t, u, limit("rpm 1", "key {http.request.header.X-Tenant}"))
	tenants := []string{"acme", "zoo", "", "{env.CADDYTEST_KEY}"}
	for _, tenant := range tenants {
		if s := g.post(t, unaryPath, promptJSON, "X-Tenant", tenant); s.StatusCode != 200 {
			t.Errorf("%q was refused: %s", tenant, s.body)
		}
		wall{quota: quotaRPM, value: "1", class: "limited"}.refuses(t, g.post(t, unaryPath, promptJSON, "X-Tenant", tenant))
	}
	shown := make(map[string]int64)
	for _, row := range g.status(t).Limits {
		shown[row.Key] = row.Used
	}
	for _, tenant := range tenants {
		if shown[tenant] != 1 {
			t.Errorf("the status page says %v", shown)
		}
	}
}
