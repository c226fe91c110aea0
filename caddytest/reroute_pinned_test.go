// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strings"
	"testing"
)

// conversation is a call that goes on from what a model has drawn.
func conversation(part string) string {
	return strings.Replace(promptJSON, `"contents": [ `, `"contents": [ {"role":"model","parts":[`+part+`]},`, 1)
}

// signedBy is an image with the signature of whoever drew it.
func signedBy(name string) string {
	return strings.TrimSuffix(imagePart, "}") + `,"thoughtSignature":"` + signatureOf(name) + `"}`
}

// signatureOf is long, as signatures are, and different from its beginning on.
func signatureOf(name string) string { return name + strings.Repeat("Q2F0", 5000) }

// What only one upstream knows is not sent to another, though that would answer:
// the call is tried again where it belongs.
func TestPinnedCallsAreNotRerouted(t *testing.T) {
	for name, body := range map[string]string{
		"a file of the API":            conversation(`{"fileData":{"mimeType":"image/png","fileUri":"https://generativelanguage.googleapis.com/v1beta/files/abc"}}`),
		"a file of the API, in snake":  conversation(`{"file_data":{"mime_type":"image/png","file_uri":"https://generativelanguage.googleapis.com/v1beta/files/abc"}}`),
		"a cache":                      completed(promptJSON, `"cachedContent":"cachedContents/abc"`),
		"a signature":                  conversation(`{"inlineData":{"mimeType":"image/png","data":"AAAA"},"thoughtSignature":"c2lnbmVk"}`),
		"a signature of a large image": conversation(signedBy("nobody")),
		"a signature of a text":        conversation(`{"text":"I think","thought_signature":"c2lnbmVk"}`),
	} {
		for _, c := range []struct {
			name   string
			plays  http.HandlerFunc
			went   string
			status int
			answer string
		}{
			{"a failure", inTurn(overloaded, drawn), "first first", 200, imageJSON},
			{"failures", overloaded, "first first first", 503, googleErrorJSON},
			{"a limit", inTurn(limited("0.02s"), drawn), "first first", 200, imageJSON},
			{"a long limit", limited("3600s"), "first", 429, limitedJSON("3600s")},
			{"a reset", inTurn(resets(), drawn), "first first", 200, imageJSON},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				first, second := scripted(t, c.plays), scripted(t, drawn)
				g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"), "accept_blocked")})
				g.post(t, unaryPath, body).exactly(t, c.status, c.answer)
				all := went(t, c.went, first, second)
				for _, v := range all {
					if string(v.Body) != string(all[0].Body) {
						t.Error("a retry had another body")
					}
				}
			})
		}
	}
}

// What any upstream can use pins nothing.
func TestUnpinnedCallsAreRerouted(t *testing.T) {
	for name, body := range map[string]string{
		"an image":                conversation(imagePart),
		"a file of the web":       conversation(`{"fileData":{"mimeType":"image/png","fileUri":"https://example.com/files/cat.png"}}`),
		"a documented signature":  conversation(`{"functionCall":{"name":"x"},"thoughtSignature":"skip_thought_signature_validator"}`),
		"an empty signature":      conversation(`{"text":"I think","thoughtSignature":""}`),
		"words about a signature": strings.Replace(promptJSON, prompt, prompt+` \"thoughtSignature\":\"c2lnbmVk\"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			first, second := scripted(t, overloaded), scripted(t, drawn)
			g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))})
			g.post(t, unaryPath, body).exactly(t, 200, imageJSON)
			went(t, "first second", first, second)
		})
	}
}

// A block of a pinned call is final: who accepts blocks could not use it.
func TestPinnedBlockIsNotRerouted(t *testing.T) {
	for name, signature := range map[string]string{"small": `{"text":"","thoughtSignature":"c2lnbmVk"}`, "behind a large image": signedBy("nobody")} {
		t.Run(name, func(t *testing.T) {
			first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
			g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"), "accept_blocked")})
			g.post(t, unaryPath, conversation(signature)).fails(t, 400, "IMAGE_SAFETY")
			went(t, "first", first, second)
		})
	}
}

// A conversation goes on where it was answered, as long as it lasts: with the
// second upstream if the first one had failed, also when the first is back, and
// after a reload.
func TestConversationStaysWithItsUpstream(t *testing.T) {
	image := signedBy("second")
	for _, c := range []struct{ name, path, answer string }{
		{"unary", unaryPath, candidate(image, `"STOP"`)},
		{"events", streamPath, event(`{"candidates":[{"content":{"parts":[`+image+`],"role":"model"},"index":0}]}`) + event(lastChunk)},
		{
			"signature at the end", streamPath,
			event(imageChunk) + event(`{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"`+signatureOf("second")+`"}],"role":"model"},"finishReason":"STOP","index":0}]}`),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			contentType := jsonType
			if c.path == streamPath {
				contentType = eventType
			}
			good := answers(200, contentType, c.answer)
			first, second := scripted(t, overloaded), scripted(t, good)
			directives := several([]string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))})
			g := start(t, directives)
			g.post(t, c.path, promptJSON).exactly(t, 200, c.answer)
			went(t, "first second", first, second)

			first.play(good)
			for turn := range 3 {
				if turn == 1 {
					g.load(t, directives)
				}
				second.play(inTurn(overloaded, good))
				g.post(t, c.path, conversation(image)).exactly(t, 200, c.answer)
				went(t, "second second", first, second)
			}
			g.post(t, c.path, promptJSON).exactly(t, 200, c.answer)
			first.only(t)
		})
	}
}

// With a pool of keys, a conversation goes on with those of its project.
func TestConversationStaysWithItsProject(t *testing.T) {
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.Header.Get("X-Goog-Api-Key"), keyMark+"-")
		answers(200, jsonType, candidate(signedBy(name), `"STOP"`))(w, r)
	})
	g := inFrontOf(t, []string{place("first", u,
		ownKey(t, "k1", "studio"), ownKey(t, "k2", "press"), ownKey(t, "k3", "press"), ownKey(t, "k4", "fun"))})
	project := map[string]string{"k1": "studio", "k2": "press", "k3": "press", "k4": "fun"}
	drawnBy := make(map[string]bool)
	for range 4 {
		g.post(t, unaryPath, promptJSON)
	}
	for _, r := range u.received() {
		drawnBy[keyName(r)] = true
	}
	if len(drawnBy) != len(project) {
		t.Fatalf("the first calls were made with %v", drawnBy)
	}
	for name := range project {
		u.play(u.answer)
		for range 5 {
			g.post(t, unaryPath, conversation(signedBy(name)))
		}
		for _, r := range u.received() {
			if used := keyName(r); project[used] != project[name] {
				t.Errorf("a conversation of %s (%s) went on with %s (%s)", name, project[name], used, project[used])
			}
		}
	}
}
