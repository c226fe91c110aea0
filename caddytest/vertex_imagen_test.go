// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// OpenAI's clients reach Vertex AI: what draws is translated, what chats goes to its
// own OpenAI-compatible endpoint.
func TestOpenAICallAtVertex(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, gemini(vertexPlace(t, "cloud", u)))
	bearer := []string{"X-Goog-Api-Key", "", "Authorization", "Bearer " + clientKey}
	s := g.post(t, imagesPath, drawJSON(`"size":"1024x1024"`), bearer...)
	if images := imagesOf(t, s); len(images) != 1 || !bytes.Equal(images[0], picture) {
		t.Errorf("%d images", len(images))
	}
	r := u.only(t)
	if !strings.HasSuffix(r.URI, strings.TrimPrefix(atVertex(imageModel, "generateContent"), "/v1beta1")) || !strings.Contains(string(r.Body), `"role":"user"`) || !strings.Contains(string(r.Body), `"threshold":"BLOCK_NONE"`) {
		t.Errorf("the upstream received %s %s", r.URI, r.Body)
	}
	r.bearsOnly(t, vertexToken)

	u.play(events(textChunk, imageChunk, lastChunk))
	s = g.post(t, chatPath, completed(chatJSON("nano-banana"), `"stream":true`), bearer...)
	if body := string(s.body); !strings.HasSuffix(body, "data: [DONE]\n\n") || !strings.Contains(body, "data:image/png;base64,") {
		t.Errorf("status %d: %s", s.StatusCode, shortened(body))
	}
	r = u.only(t)
	if !strings.HasSuffix(r.URI, strings.TrimPrefix(atVertex(lightModel, "streamGenerateContent"), "/v1beta1")+"?alt=sse") {
		t.Errorf("the upstream received %s", r.URI)
	}

	u.play(gives(saidJSON))
	g.post(t, chatPath, chatJSON(textModel), bearer...).exactly(t, 200, saidJSON)
	r = u.only(t)
	if r.URI != "/v1/projects/theirs/locations/europe-west4/endpoints/openapi/chat/completions" {
		t.Errorf("the upstream received %s %s", r.URI, r.Body)
	}
	r.bearsOnly(t, vertexToken)
}

// The OpenAI-compatible endpoint of Vertex AI wants the publisher with the model.
func TestModelOfAChatAtVertex(t *testing.T) {
	u := scripted(t, gives(saidJSON))
	g := run(t, gemini(vertexPlace(t, "cloud", u)))
	for _, model := range []string{textModel, "models/" + textModel, "google/" + textModel} {
		u.play(gives(saidJSON))
		g.post(t, chatPath, chatJSON(model)).exactly(t, 200, saidJSON)
		if got := u.only(t).json(t)["model"]; got != "google/"+textModel {
			t.Errorf("%s arrived as %v", model, got)
		}
	}
}

// The version in OpenAI's paths is not Google's: v1 of Vertex AI lacks what image
// models need.
func TestVersionOfAnOpenAICallAtVertex(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, gemini(vertexPlace(t, "cloud", u)))
	for _, path := range []string{imagesPath, "/v1beta/openai/images/generations"} {
		u.play(drawn)
		g.post(t, path, drawJSON())
		if r := u.only(t); r.URI != atVertex(imageModel, "generateContent") {
			t.Errorf("the upstream received %s", r.URI)
		}
	}
}

// Express mode has keys instead of tokens, and no project in its paths.
func TestVertexExpress(t *testing.T) {
	u := scripted(t, drawn)
	for name, c := range map[string]struct{ option, key string }{
		"the operator's key": {"api_key {env.CADDYTEST_KEY}", upstreamKey},
		"the client's key":   {"", clientKey},
	} {
		t.Run(name, func(t *testing.T) {
			g := run(t, gemini(place("express", u, "format vertex", c.option)))
			const express = "/v1beta1/publishers/google/models/"
			for _, path := range []string{unaryPath, unaryPath + "?key=" + clientKey, express + imageModel + ":generateContent", imagesPath, "/v1beta1/publishers/google/models/" + imageModel + ":generateContent?key=" + clientKey} {
				body, header := promptJSON, []string{"X-Goog-Api-Key", clientKey}
				if strings.Contains(path, "key=") {
					header[1] = ""
				}
				if path == imagesPath {
					body, header = drawJSON(), []string{"X-Goog-Api-Key", "", "Authorization", "Bearer " + clientKey}
				}
				u.play(drawn)
				if s := g.post(t, path, body, header...); s.StatusCode != 200 {
					t.Errorf("%s: status %d: %s", path, s.StatusCode, shortened(string(s.body)))
				}
				r := u.only(t)
				uri, query, _ := strings.Cut(r.URI, "?")
				key := cmp.Or(r.Header.Get("X-Goog-Api-Key"), strings.TrimPrefix(query, "key="))
				if !strings.HasSuffix(uri, strings.TrimPrefix(express, "/v1beta1")+imageModel+":generateContent") || key != c.key || r.Header.Get("Authorization") != "" {
					t.Errorf("%s: the upstream received %s with %v", path, r.URI, r.Header)
				}
				if c.key == upstreamKey && query != "" {
					t.Errorf("the upstream received %s", r.URI)
				}
			}
		})
	}
}

// What Imagen leaves out of its answers is told, and what it has refused is not sent
// again.
func TestImagenAtVertex(t *testing.T) {
	const filtered = `{"raiFilteredReason":"Unable to show generated images. Support code: 29310472"}`
	for _, c := range []struct {
		name          string
		plays         http.HandlerFunc
		reason, stage string // of the block; "" if there is none
		isGuarded     bool
	}{
		{"images", gives(`{"predictions":[` + paintingJSON + `,` + paintingJSON + `]}`), "", "", false},
		{"some filtered", gives(`{"predictions":[` + filtered + `,` + paintingJSON + `]}`), "", "", false},
		{"all filtered", gives(`{"predictions":[` + filtered + `,` + filtered + `]}`), "IMAGE_SAFETY", "output", true},
		{"empty", gives(`{"predictions":[]}`), "NO_IMAGE", "output", false},
		{"missing", gives(`{}`), "NO_IMAGE", "output", false},
		{"prompt", answers(400, jsonType, googleError("INVALID_ARGUMENT", "Image generation failed with the following error: The prompt could not be submitted. Support codes: 58061214")), "IMAGE_SAFETY", "prompt", true},
	} {
		for _, path := range []string{ofVertex(imagenModel, "predict"), imagenPath} {
			t.Run(c.name+path, func(t *testing.T) {
				u := scripted(t, c.plays)
				g := run(t, gemini(vertexPlace(t, "cloud", u), guarding))
				s := g.post(t, path, imagenJSON)
				if r := u.only(t); r.URI != atVertex(imagenModel, "predict") || string(r.Body) != imagenJSON {
					t.Errorf("the upstream received %s %s", r.URI, r.Body)
				}
				if c.reason == "" {
					if s.StatusCode != 200 || !strings.Contains(string(s.body), paintingJSON) {
						t.Errorf("status %d: %s", s.StatusCode, s.body)
					}
					return
				}
				e := s.fails(t, 400, c.reason)
				if e.metadata("stage") != c.stage {
					t.Errorf("stage %q, want %q", e.metadata("stage"), c.stage)
				}
				class := e.metadata("class")
				if isChild := c.name == "prompt"; isChild != (class == forbiddenClass) {
					t.Errorf("class %s", class)
				}
				u.play(gives(`{"predictions":[` + paintingJSON + `]}`))
				s = g.post(t, path, imagenJSON)
				if c.isGuarded {
					s.repeats(t, class, c.stage, c.reason)
					u.untouched(t)
					return
				}
				s.exactly(t, 200, `{"predictions":[`+paintingJSON+`]}`)
			})
		}
	}
}

// Calls with the gateway's credentials count for the project that they are billed
// to, in whatever form they come.
func TestVertexCallsAreCounted(t *testing.T) {
	u := scripted(t, nil)
	g := watch(t, gemini(vertexPlace(t, "cloud", u), limitOf("imagen*", "ipm 7"), limit("rpm 100", "ipm 100")))
	u.play(drawn)
	g.post(t, unaryPath, promptJSON)
	g.post(t, ofVertex(imageModel, "generateContent"), promptJSON)
	g.post(t, imagesPath, drawJSON(`"n":2`))
	u.play(gives(`{"predictions":[` + paintingJSON + `]}`))
	g.post(t, ofVertex(imagenModel, "predict"), imagenJSON)
	g.books(t, "theirs",
		"cloud "+imageModel+": 3 calls, 4 images, 64+5160+0 tokens, 0.545888 USD, 0.136472 each",
		"cloud "+imagenModel+": 1 calls, 1 images, 0+0+0 tokens, 0.04 USD, 0.04 each")
	used := map[string]int64{}
	for _, row := range g.status(t).Limits {
		if row.Project != "theirs" {
			t.Errorf("a limit of the project %q", row.Project)
		}
		used[row.Model+" "+row.Limit] = row.Used
	}
	want := map[string]int64{imageModel + " rpm": 4, imageModel + " ipm": 4, imagenModel + " ipm": 2}
	if fmt.Sprint(used) != fmt.Sprint(want) {
		t.Errorf("used %v, want %v", used, want)
	}
}

// Nobody knows what a host speaks that is not Google's. Where no format is given
// anywhere it gets what clients write; where one is, others are what they always
// were: the Gemini API.
func TestVertexCallAtAnUnknownHost(t *testing.T) {
	path := ofVertex(imageModel, "generateContent")
	body := completed(promptJSON, `"labels":{"a":"b"}`)
	first, second := scripted(t, drawn), scripted(t, drawn)
	token := []string{"X-Goog-Api-Key", "", "Authorization", "Bearer " + clientToken}

	g := run(t, gemini(place("first", first)))
	g.post(t, path, body, token...).exactly(t, 200, imageJSON)
	if r := first.only(t); r.URI != path || !strings.Contains(string(r.Body), `"labels"`) || r.Header.Get("Authorization") != "Bearer "+clientToken {
		t.Errorf("the upstream received %s %v %s", r.URI, r.Header, r.Body)
	}
	first.play(drawn)
	g.load(t, gemini(place("first", first)+place("second", second, "format openai")))
	g.post(t, path, body, token...).exactly(t, 200, imageJSON)
	r := first.only(t)
	if r.URI != unaryPath || strings.Contains(string(r.Body), `"labels"`) {
		t.Errorf("the upstream received %s %s", r.URI, r.Body)
	}
	second.untouched(t)
	var parsed map[string]any
	if json.Unmarshal(r.Body, &parsed) != nil {
		t.Errorf("the upstream received %s", r.Body)
	}
}
