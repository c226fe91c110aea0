// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genai"
)

// attemptsCase is what two upstreams do to one call of a client library. The
// second accepts what was blocked at the first.
type attemptsCase struct {
	name          string
	first, second http.HandlerFunc
	went          string // where the call was sent, in order
	reason        string // of the exception; none = there is an image
	status        int
}

// inForm plays what the client has asked for.
func inForm(unary string, chunks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ":streamGenerateContent") {
			events(chunks...)(w, r)
			return
		}
		answers(200, jsonType, unary)(w, r)
	}
}

// attemptsCases are those of the Gemini API, for streams as well. Their scripts
// can be played once.
func attemptsCases() []attemptsCase {
	draws := inForm(imageJSON, imageChunk, lastChunk)
	blocks := inForm(blockedJSON, textChunk, blockedJSON)
	forbids := inForm(promptBlockedJSON, promptBlockedJSON)
	limits := func(delay string) http.HandlerFunc {
		return answers(429, jsonType, strings.Replace(limitedJSON(delay), `"code":0`, `"code":429`, 1))
	}
	return []attemptsCase{
		{"failure", overloaded, draws, "first second", "", 0},
		{"failure twice", inTurn(overloaded, draws), overloaded, "first second first", "", 0},
		{"reset", resetting, draws, "first second", "", 0},
		{"limit", limits("0.05s"), draws, "first second", "", 0},
		{"limit twice", inTurn(limits("0.05s"), draws), limits("3600s"), "first second first", "", 0},
		{"block", blocks, draws, "first second", "", 0},
		{"failures", overloaded, overloaded, "first second first", "The model is overloaded", 503},
		{"resets", resetting, resetting, "first second first", "UPSTREAM_UNAVAILABLE", 503},
		{"limits", limits("3600s"), limits("3600s"), "first second", "Quota exceeded", 429},
		{"blocks", blocks, blocks, "first second", "IMAGE_SAFETY", 400},
		{"hard block", forbids, draws, "first", "PROHIBITED_CONTENT", 400},
	}
}

// resetting breaks off before it says anything.
func resetting(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// through sends a call through a gateway of its own, and makes sure that the
// client has made it once, whatever became of it on the way.
func (c *attemptsCase) through(t *testing.T, call func(g *gateway)) {
	t.Helper()
	first, second := scripted(t, c.first), scripted(t, c.second)
	g := run(t, accessLog+gemini(place("one", first, theKey("a"))+accepting("two", second, theKey("b")), quickly, guarding))
	line := g.accessLineOf(t, func() { call(g) })
	all := went(t, c.went, first, second)
	facts, _ := line["gemini"].(map[string]any)
	if facts["attempts"] != float64(len(strings.Fields(c.went))) {
		t.Errorf("the client's first request took %v attempts, of %d that were made", facts["attempts"], len(all))
	}
	if n := len(g.accessLines(t)); n != 1 {
		t.Errorf("the client made %d requests", n)
	}
}

// checkSeen wants an image that is whole, or none.
func (c *attemptsCase) checkSeen(t *testing.T, images [][]byte, text string) {
	t.Helper()
	content := clientCase{image: c.reason == ""}
	content.checkContent(t, images, text)
}

// eachForm runs a test for each case, on a unary call and on a stream.
func eachForm(t *testing.T, test func(t *testing.T, c attemptsCase, stream bool)) {
	t.Helper()
	for name, stream := range map[string]bool{"unary": false, "stream": true} {
		for _, c := range attemptsCases() {
			t.Run(name+"/"+c.name, func(t *testing.T) { test(t, c, stream) })
		}
	}
}

func TestGoClientSeesOneResult(t *testing.T) {
	eachForm(t, func(t *testing.T, c attemptsCase, stream bool) {
		ask := generate
		if stream {
			ask = generateStream
		}
		c.through(t, func(g *gateway) {
			s := ask(t.Context(), newGenAI(t, g), imageModel, nil)
			c.checkSeen(t, s.images, s.text)
			var raised genai.APIError
			switch isError := errors.As(s.err, &raised); {
			case c.reason == "" && s.err == nil:
			case c.reason == "", !isError, raised.Code != c.status, !strings.HasPrefix(raised.Message, c.reason):
				t.Errorf("the client raised %v, want %d %s", s.err, c.status, c.reason)
			}
		})
	})
}

func TestJSClientsSeeOneResult(t *testing.T) {
	for _, library := range []string{"@google/genai", "@google/genai-2"} {
		t.Run(strings.TrimPrefix(library, "@google/"), func(t *testing.T) {
			client := startJS(t, "genai.mjs", library)
			eachForm(t, func(t *testing.T, c attemptsCase, stream bool) {
				c.through(t, func(g *gateway) {
					s := client.call(t, jsCall{URL: g.url, Model: imageModel, Stream: stream})
					c.checkSeen(t, s.Images, s.Text)
					raised := clientCase{reason: c.reason, status: c.status}
					raised.checkJSError(t, s)
				})
			})
		})
	}
}

// OpenAI's client tries again by itself what it may: what the gateway has tried
// often enough, it may not.
func TestOpenAIClientsSeeOneResult(t *testing.T) {
	const (
		text  = `{"choices":[{"index":0,"message":{"role":"assistant","content":"Here is"},"finish_reason":"stop"}]}`
		cut   = `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`
		chunk = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Here is"}}]}`
		end   = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
		stops = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`
	)
	for _, form := range []struct {
		call          jsCall
		draws, blocks http.HandlerFunc
		text, reason  string
	}{
		{jsCall{Method: "images.generate", Model: imageModel}, gives(imageJSON), gives(blockedJSON), "", "IMAGE_SAFETY"},
		{jsCall{Method: "chat", Model: textModel}, answers(200, jsonType, text), answers(200, jsonType, cut), "Here is", "CONTENT_FILTER"},
		{jsCall{Method: "chat in a stream", Model: textModel, Stream: true}, events(chunk, end, "[DONE]"), events(stops, "[DONE]"), "Here is", "CONTENT_FILTER"},
	} {
		for _, library := range openAILibraries {
			client := startJS(t, "openai.mjs", library)
			for _, c := range []attemptsCase{
				{"failure", overloaded, form.draws, "first second", "", 0},
				{"failure twice", inTurn(overloaded, form.draws), overloaded, "first second first", "", 0},
				{"limit", limited("0.05s"), form.draws, "first second", "", 0},
				{"limit twice", inTurn(limited("0.05s"), form.draws), limited("3600s"), "first second first", "", 0},
				{"block", form.blocks, form.draws, "first second", "", 0},
				{"blocks", form.blocks, form.blocks, "first second", form.reason, 400},
				{"resets", resetting, resetting, "first second first", "UPSTREAM_UNAVAILABLE", 503},
				{"failures", overloaded, overloaded, "first second first", "The model is overloaded", 503},
			} {
				t.Run(library+"/"+form.call.Method+"/"+c.name, func(t *testing.T) {
					c.through(t, func(g *gateway) {
						call := form.call
						call.URL = g.url
						s := client.call(t, call)
						content := clientCase{image: c.reason == "" && form.text == "", text: form.text}
						if c.reason != "" {
							content.text = ""
						}
						content.checkContent(t, s.Images, s.Text)
						switch {
						case c.reason == "" && s.Error == nil:
						case c.reason == "", s.Error == nil, s.Error.Status != c.status, !strings.Contains(s.Error.Message, c.reason):
							t.Errorf("the client raised %+v, want %d %s", s.Error, c.status, c.reason)
						}
					})
				})
			}
		}
	}
}
