// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Upstreams that fail in different ways: what each of them is still asked, and
// whose answer the client gets.
func TestMixedDecisions(t *testing.T) {
	block := answers(200, jsonType, blockedJSON)
	hardBlock := answers(200, jsonType, promptBlockedJSON)
	unclear := answers(200, jsonType, `{"candidates":[{"content":{},"finishReason":"IMAGE_OTHER","index":0}]}`)
	noRegion := answers(400, jsonType, noRegionJSON)
	refused := answers(400, jsonType, badRequestJSON)
	const accepts = "accept_blocked"
	for _, c := range []struct {
		name   string
		plays  []http.HandlerFunc
		with   []string // an option of each upstream
		went   string
		status int
		answer string // byte for byte, or
		reason string // of an explicit error
	}{
		{"a block ends the retries of what has failed before", plays(overloaded, block), nil, "first second", 400, "", "IMAGE_SAFETY"},
		{"a bad request ends them", plays(overloaded, refused), nil, "first second", 400, badRequestJSON, ""},
		{"a region is not asked again", plays(noRegion, inTurn(overloaded, drawn)), nil, "first second second", 200, imageJSON, ""},
		{"an upstream that does not accept blocks is passed over", plays(block, drawn, drawn), []string{"", "", accepts}, "first third", 200, imageJSON, ""},
		{"who accepts blocks is asked but once", plays(block, block), []string{accepts, accepts}, "first second", 400, "", "IMAGE_SAFETY"},
		{"who accepts blocks hands them on", plays(block, block, drawn), []string{accepts, accepts, accepts}, "first second third", 200, imageJSON, ""},
		{"who accepts blocks is retried if it fails", plays(block, inTurn(overloaded, drawn)), []string{"", accepts}, "first second second", 200, imageJSON, ""},
		{"a block is worth more than a failure", plays(block, overloaded), []string{"", accepts}, "first second second", 400, "", "IMAGE_SAFETY"},
		{"a hard block is worth more than a soft one", plays(block, hardBlock, drawn), []string{"", accepts, accepts}, "first second", 400, "", "PROHIBITED_CONTENT"},
		{"what may pass has one chance, not one at each upstream", plays(unclear, unclear, drawn), nil, "first second", 400, "", "IMAGE_OTHER"},
		{"then it is a block like any other", plays(unclear, unclear, drawn), []string{"", "", accepts}, "first second third", 200, imageJSON, ""},
		{"what may pass and then fails", plays(unclear, overloaded), nil, "first second first", 400, "", "IMAGE_OTHER"},
		{"Google's words are worth more than silence", plays(overloaded, resets()), nil, "first second first", 503, googleErrorJSON, ""},
		{"a limit, then a failure", plays(limited("3600s"), overloaded), nil, "first second second", 503, googleErrorJSON, ""},
		{"three that fail", plays(overloaded, overloaded, answers(500, jsonType, "last")), nil, "first second third", 500, "last", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var upstreams []*upstream
			var places []string
			for i, play := range c.plays {
				u := scripted(t, play)
				upstreams = append(upstreams, u)
				places = append(places, place(ordinals[i], u, ownKey(t, ordinals[i]), strings.Join(c.with[min(i, len(c.with)):min(i+1, len(c.with))], "")))
			}
			s := inFrontOf(t, places).post(t, unaryPath, promptJSON)
			for i, v := range went(t, c.went, upstreams...) {
				if string(v.Body) != completedJSON {
					t.Errorf("attempt %d received %s", i+1, v.Body)
				}
			}
			if c.reason != "" {
				s.fails(t, c.status, c.reason)
				return
			}
			s.exactly(t, c.status, c.answer)
		})
	}
}

func plays(scripts ...http.HandlerFunc) []http.HandlerFunc { return scripts }

const badRequestJSON = `{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"Aspect ratio 1:4 is not supported for this model"}}`

// An account that has blocked a prompt is not asked again under another name.
func TestAcceptBlockedOfTheSameProject(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
	g := inFrontOf(t, []string{
		place("first", first, ownKey(t, "first", "studio")),
		place("second", second, ownKey(t, "second", "studio"), "accept_blocked"),
	})
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	went(t, "first", first, second)
}

// A block that passes as a 200 is still one that another upstream may take.
func TestBlockThatPassesMayBeAccepted(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
	lone := []string{place("first", first, ownKey(t, "first"))}
	g := inFrontOf(t, lone, "block_status pass")
	g.post(t, unaryPath, promptJSON).exactly(t, 200, blockedJSON)
	went(t, "first", first, second)

	first.play(first.answer)
	g.load(t, several(append(lone, place("second", second, ownKey(t, "second"), "accept_blocked")), "block_status pass"))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first second", first, second)
}

// A connection that is refused is a failure like any other.
func TestRefusedConnection(t *testing.T) {
	dead := placeAt("first", "http://"+freeAddress(t), ownKey(t, "first"))
	second := scripted(t, drawn)
	g := inFrontOf(t, []string{dead})
	s := g.post(t, unaryPath, promptJSON)
	e := s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
	const want = `caddy-gemini; next-hop="first"; error=connection_refused; attempts=3; details="UPSTREAM_UNAVAILABLE"`
	if via := s.Header.Get("Proxy-Status"); via != want || e.metadata("class") != "transient" {
		t.Errorf("Proxy-Status %s, class %s", via, e.metadata("class"))
	}

	g.load(t, several([]string{dead, place("second", second, ownKey(t, "second"))}))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	second.only(t)
}

// Without retries a call goes to the first upstream, and that is all.
func TestNoRetries(t *testing.T) {
	for _, option := range []string{"retry off", "retry {\n\tattempts 1\n}"} {
		first, second := scripted(t, overloaded), scripted(t, drawn)
		g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))}, option)
		g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
		went(t, "first", first, second)
	}
}

// Where rephrasing is configured, a soft block is followed by another wording, a
// hard one by nothing, and no other answer by another wording.
func TestOnlySoftBlocksAreRephrased(t *testing.T) {
	const rephrase = "rephrase {\n\tprefix \"Digital art illustration:\"\n}"
	original, rephrased := completedJSON, strings.Replace(completedJSON, prompt, "Digital art illustration: "+prompt, 1)
	wordings := map[string][]string{
		"blocked":                 {original, rephrased},
		"transient, then blocked": {original, original, rephrased},
		"forbidden":               {original},
		"transient":               {original, original, original},
		"limited":                 {original, original, original},
		"client":                  {original},
		"region":                  {original},
		"account":                 {original},
	}
	for verdict, all := range specimens {
		want, ok := wordings[verdict]
		if !ok {
			continue
		}
		for _, s := range all {
			if s.request != "" {
				continue
			}
			t.Run(verdict+"/"+s.name, func(t *testing.T) {
				s.load(t)
				u := scripted(t, s.unary)
				got := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, rephrase).post(t, unaryPath, promptJSON)
				if got.StatusCode != s.status {
					t.Errorf("status %d, want %d", got.StatusCode, s.status)
				}
				received := u.received()
				if len(received) != len(want) {
					t.Fatalf("%d attempts, want %d", len(received), len(want))
				}
				for i, r := range received {
					if string(r.Body) != want[i] {
						t.Errorf("attempt %d received %s\nwant %s", i+1, r.Body, want[i])
					}
				}
			})
		}
	}
}

// A call on an OpenAI-compatible path is decided alike, and answered in OpenAI's
// form.
func TestDecisionsOnOpenAIPaths(t *testing.T) {
	const path = "/v1beta/openai/chat/completions"
	request := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}]}`, textModel, prompt)
	const good = `{"choices":[{"index":0,"message":{"role":"assistant","content":"A cat."},"finish_reason":"stop"}]}`
	const filtered = `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`
	arrayed := "[" + googleErrorJSON + "]"
	for _, c := range []struct {
		name   string
		plays  http.HandlerFunc
		went   string
		status int
		answer string // byte for byte, or
		code   string
	}{
		{"failure", answers(503, jsonType, arrayed), "first second", 200, good, ""},
		{"limit", answers(429, jsonType, "["+limitedJSON("3600s")+"]"), "first second", 200, good, ""},
		{"bad request", answers(400, jsonType, "["+badRequestJSON+"]"), "first", 400, "[" + badRequestJSON + "]", ""},
		{"block", answers(200, jsonType, filtered), "first", 400, "", "content_policy_violation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := scripted(t, c.plays), scripted(t, answers(200, jsonType, good))
			g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))})
			s := g.post(t, path, request)
			for _, v := range went(t, c.went, first, second) {
				if string(v.Body) != request || v.Header.Get("Authorization") != "Bearer "+keyOf(ordinals[v.at]) {
					t.Errorf("the %s upstream received %s with %q", ordinals[v.at], v.Body, v.Header.Get("Authorization"))
				}
			}
			if c.code == "" {
				s.exactly(t, c.status, c.answer)
			} else if s.StatusCode != c.status || !strings.Contains(string(s.body), `"code":"`+c.code+`"`) {
				t.Errorf("status %d: %s", s.StatusCode, s.body)
			}
		})
	}
}
