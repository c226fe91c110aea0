// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// guarding is for tests in which nothing is forgotten.
const guarding = "guard 1h"

// theKey is the option that gives an upstream a key of a project.
func theKey(project string) string { return "api_key {env.CADDYTEST_KEY} " + project }

// stopped and refused are how Google blocks an output and a prompt.
func stopped(reason string) string { return strings.Replace(blockedJSON, "IMAGE_SAFETY", reason, 1) }

func refused(reason string) string {
	return strings.Replace(promptBlockedJSON, "PROHIBITED_CONTENT", reason, 1)
}

// repeats fails unless the gateway has refused to repeat a block of this kind.
func (s *reply) repeats(t *testing.T, class, stage, reason string) {
	t.Helper()
	e := s.fails(t, 400, "REPEATED_BLOCK")
	want := [...]string{class, stage, reason, "0", ""}
	got := [...]string{e.metadata("class"), e.metadata("stage"), e.metadata("blockedReason"), e.metadata("attempts"), e.metadata("upstream")}
	if got != want {
		t.Errorf("class, stage, blockedReason, attempts and upstream %q, want %q", got, want)
	}
	if via := s.Header.Get("Proxy-Status"); strings.Contains(via, "next-hop") {
		t.Errorf("Proxy-Status %q: nothing has been sent", via)
	}
}

// What a safety or policy filter has blocked is not sent again; what only went
// wrong may be asked for again (contract §1).
func TestGuard(t *testing.T) {
	const child = "Blocked. Support code: 58061214"
	const imagen = "/v1beta/models/imagen-4.0-generate-001:predict"
	filtered := `{"predictions":[{"raiFilteredReason":"Unable to show generated images."}]}`
	type test struct {
		name, path, answer   string
		option               string
		status               int    // of the first answer
		class, stage, reason string // of the block; no class = it may be asked for again
	}
	tests := []test{
		{name: "number", answer: strings.Replace(refused("SAFETY"), `"SAFETY"`, "1", 1), class: "blocked", stage: "prompt", reason: "SAFETY"},
		{name: "code", answer: strings.Replace(blockedJSON, "Unable to show the generated image.", child, 1), class: "forbidden", stage: "output", reason: "IMAGE_SAFETY"},
		{name: "stream", path: streamPath, answer: event(textChunk) + event(blockedJSON), class: "blocked", stage: "output", reason: "IMAGE_SAFETY"},
		{name: "array", path: arrayPath, answer: "[" + refused("SAFETY") + "]", class: "blocked", stage: "prompt", reason: "SAFETY"},
		{name: "predict", path: imagen, answer: filtered, class: "blocked", stage: "output", reason: "IMAGE_SAFETY"},
		{name: "pass", option: "block_status pass", status: 200, answer: blockedJSON, class: "blocked", stage: "output", reason: "IMAGE_SAFETY"},
		{name: "pass, hard", option: "block_status pass", status: 200, answer: promptBlockedJSON, class: "forbidden", stage: "prompt", reason: "PROHIBITED_CONTENT"},
		{name: "422", option: "block_status 422", status: 422, answer: blockedJSON, class: "blocked", stage: "output", reason: "IMAGE_SAFETY"},
		{name: "text instead of an image", option: "no_image error", answer: textJSON},
	}
	for _, reason := range []string{"SAFETY", "IMAGE_SAFETY", "OTHER", "A_NEW_FILTER"} {
		tests = append(tests, test{name: "prompt " + reason, answer: refused(reason), class: "blocked", stage: "prompt", reason: reason})
	}
	for _, reason := range []string{"PROHIBITED_CONTENT", "BLOCKLIST", "MODEL_ARMOR", "JAILBREAK"} {
		tests = append(tests, test{name: "prompt " + reason, answer: refused(reason), class: "forbidden", stage: "prompt", reason: reason})
	}
	for _, reason := range []string{"SAFETY", "IMAGE_SAFETY"} {
		tests = append(tests, test{name: reason, answer: stopped(reason), class: "blocked", stage: "output", reason: reason})
	}
	for _, reason := range hardReasons {
		tests = append(tests, test{name: reason, answer: stopped(reason), class: "forbidden", stage: "output", reason: reason})
	}
	for _, reason := range []string{"NO_IMAGE", "OTHER", "RECITATION", "LANGUAGE", "IMAGE_OTHER", "IMAGE_RECITATION"} {
		tests = append(tests, test{name: reason, answer: stopped(reason)})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			path, body, kind, status := unaryPath, promptJSON, jsonType, 400
			if c.path != "" {
				path = c.path
			}
			if c.path == imagen {
				body = `{"instances":[{"prompt":"` + prompt + `"}],"parameters":{"sampleCount":1}}`
			}
			if c.path == streamPath {
				kind = eventType
			}
			if c.status > 0 {
				status = c.status
			}
			u := scripted(t, answers(200, kind, c.answer))
			g := inFront(t, u, guarding, c.option)
			if s := g.post(t, path, body); s.StatusCode != status {
				t.Fatalf("status %d, want %d: %s", s.StatusCode, status, shortened(string(s.body)))
			}
			u.only(t)
			u.play(answers(200, jsonType, imageJSON))
			s := g.post(t, path, body)
			if c.class == "" {
				s.exactly(t, 200, imageJSON)
				return
			}
			s.repeats(t, c.class, c.stage, c.reason)
			u.untouched(t)
		})
	}
}

// hardReasons end a candidate for good (contract §1).
var hardReasons = []string{"PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "MODEL_ARMOR", "JAILBREAK"}

// On OpenAI-compatible paths the refusal has OpenAI's form.
func TestGuardOnOpenAIPaths(t *testing.T) {
	const (
		chat     = "/v1beta/openai/chat/completions"
		images   = "/v1beta/openai/images/generations"
		vertex   = "/v1/projects/p/locations/us/endpoints/openapi/chat/completions"
		messages = `{"model":"` + imageModel + `","messages":[{"role":"user","content":"` + prompt + `"}]}`
		streamed = `{"messages":[{"content":"` + prompt + `","role":"user"}],"stream":true,"model":"` + imageModel + `"}`
		drawn    = `{"model":"` + imageModel + `","prompt":"` + prompt + `","n":1}`
		larger   = `{"model":"` + imageModel + `","prompt":"` + prompt + `","size":"1024x1024","n":2}`
		filtered = `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`
		recited  = `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter: RECITATION"}]}`
		first    = `{"choices":[{"index":0,"delta":{"content":"Here"}}]}`
		last     = `{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`
		answer   = `{"choices":[{"index":0,"message":{"role":"assistant","content":"Here"},"finish_reason":"stop"}]}`
	)
	for _, c := range []struct {
		name, path, body string
		plays            http.HandlerFunc
		again            string // is asked then
		isRepeat         bool
	}{
		{"chat", chat, messages, answers(200, jsonType, filtered), messages, true},
		{"chat, then a stream", chat, messages, answers(200, jsonType, filtered), streamed, true},
		{"stream, then chat", chat, streamed, events(first, last, "[DONE]"), messages, true},
		{"Vertex", vertex, messages, answers(200, jsonType, filtered), messages, true},
		{"image", images, drawn, answers(200, jsonType, filtered), larger, true},
		{"no image", images, drawn, answers(200, jsonType, `{"created":1,"data":[]}`), drawn, false},
		{"recitation", chat, messages, answers(200, jsonType, recited), messages, false},
		{"another prompt", chat, messages, answers(200, jsonType, filtered), strings.Replace(messages, prompt, "a dog", 1), false},
		{"another model", chat, messages, answers(200, jsonType, filtered), strings.Replace(messages, imageModel, textModel, 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			g := inFront(t, u, guarding)
			g.post(t, c.path, c.body)
			u.only(t)
			u.play(answers(200, jsonType, answer))
			s := g.post(t, c.path, c.again)
			if !c.isRepeat {
				u.only(t)
				return
			}
			u.untouched(t)
			var parsed struct {
				Error struct{ Type, Code, Message string }
			}
			if err := json.Unmarshal(s.body, &parsed); err != nil || s.StatusCode != 400 {
				t.Fatalf("status %d (%v): %s", s.StatusCode, err, s.body)
			}
			if e := parsed.Error; e.Type != "invalid_request_error" || e.Code != "content_policy_violation" || !strings.HasPrefix(e.Message, "REPEATED_BLOCK: ") {
				t.Errorf("error %+v", e)
			}
		})
	}
}

// guarded is a body with all that can matter and some that does not.
const guarded = `{"contents":[` +
	`{"role":"user","parts":[{"text":"Draw a \"café\" / now"},{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]},` +
	`{"role":"model","parts":[{"text":"Which?"}]},` +
	`{"role":"user","parts":[{"text":"` + prompt + `"}]}],` +
	`"systemInstruction":{"parts":[{"text":"Be terse"}]},"generationConfig":{"temperature":0.5}}`

// A repeat is one by what a request means, not by how it is written (contract §4,
// Guard).
func TestGuardGoesByValue(t *testing.T) {
	var indented bytes.Buffer
	var parsed map[string]any
	if err := json.Unmarshal([]byte(guarded), &parsed); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.Marshal(parsed)
	if err != nil || json.Indent(&indented, []byte(guarded), "\t", "  ") != nil {
		t.Fatal(err)
	}
	but := func(pairs ...string) string {
		body := strings.NewReplacer(pairs...).Replace(guarded)
		if body == guarded {
			t.Fatalf("%q changes nothing", pairs)
		}
		return body
	}
	in := func(setting string) string { return completed(guarded, `"safetySettings":[`+setting+`]`) }
	four := []string{setting("DANGEROUS_CONTENT"), setting("SEXUALLY_EXPLICIT"), setting("HARASSMENT"), setting("HATE_SPEECH")}

	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := inFront(t, u, guarding)
	g.post(t, unaryPath, guarded).fails(t, 400, "IMAGE_SAFETY")
	for _, c := range []struct{ name, path, body string }{
		{"itself", unaryPath, guarded},
		{"formatting", unaryPath, indented.String()},
		{"order of keys", unaryPath, string(sorted)},
		{"snake case", unaryPath, but("inlineData", "inline_data", "mimeType", "mime_type", "systemInstruction", "system_instruction", "generationConfig", "generation_config")},
		{"escapes", unaryPath, but("é", `\u00e9`, " / ", ` \/ `, "a cat", `\u0061 \u0063at`)},
		{"no role", unaryPath, but(`{"role":"user","parts":[{"text":"Draw`, `{"parts":[{"text":"Draw`)},
		{"events", streamPath, guarded},
		{"array", arrayPath, guarded},
		{"another version", strings.Replace(unaryPath, "v1beta", "v1", 1), guarded},
		{"another generationConfig", unaryPath, but("0.5", `1,"imageConfig":{"imageSize":"2K"},"seed":7`)},
		{"no generationConfig", unaryPath, but(`,"generationConfig":{"temperature":0.5}`, "")},
		{"labels", unaryPath, completed(guarded, `"labels":{"team":"a"}`)},
		{"tools", unaryPath, completed(guarded, `"tools":[{"googleSearch":{}}]`, `"toolConfig":{}`)},
		{"what the gateway adds", unaryPath, in(strings.Join(four, ","))},
		{"some of what the gateway adds", unaryPath, in(four[1])},
	} {
		t.Run("repeat/"+c.name, func(t *testing.T) {
			u.play(answers(200, jsonType, imageJSON))
			g.post(t, c.path, c.body).repeats(t, "blocked", "output", "IMAGE_SAFETY")
			u.untouched(t)
		})
	}
	t.Run("repeat/gzip", func(t *testing.T) {
		u.play(answers(200, jsonType, imageJSON))
		g.post(t, unaryPath, gzipped(guarded), "Content-Encoding", "gzip").repeats(t, "blocked", "output", "IMAGE_SAFETY")
		u.untouched(t)
	})
	for _, c := range []struct{ name, path, body string }{
		{"text", unaryPath, but("hat", "Hat")},
		{"text of an earlier turn", unaryPath, but("café", "cafe")},
		{"a byte of an image", unaryPath, but("iVBORw0KGgo=", "iVBORw0KGgp=")},
		{"type of an image", unaryPath, but("image/png", "image/webp")},
		{"role", unaryPath, but(`"model"`, `"user"`)},
		{"model", strings.Replace(unaryPath, imageModel, "gemini-2.5-flash-image", 1), guarded},
		{"systemInstruction", unaryPath, but("Be terse", "Be long")},
		{"safetySettings", unaryPath, in(strings.Replace(four[0], "BLOCK_NONE", "BLOCK_ONLY_HIGH", 1))},
	} {
		t.Run("another/"+c.name, func(t *testing.T) {
			u.play(answers(200, jsonType, imageJSON))
			g.post(t, c.path, c.body).exactly(t, 200, imageJSON)
			u.only(t)
		})
	}
}

// A body that nothing has to be added to is not read in gzip, but it is guarded.
func TestGuardLooksIntoGzip(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := inFront(t, u, guarding, "inject off")
	g.post(t, unaryPath, gzipped(promptJSON), "Content-Encoding", "gzip").fails(t, 400, "IMAGE_SAFETY")
	u.play(answers(200, jsonType, imageJSON))
	g.post(t, unaryPath, gzipped(promptJSON), "Content-Encoding", "gzip").repeats(t, "blocked", "output", "IMAGE_SAFETY")
	u.untouched(t)
}

// Names of a model are one model where they are mapped to one.
func TestGuardGoesByTheModelThatIsAsked(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := run(t, gemini(place("scripted", u, "model nano-* "+imageModel), guarding))
	g.post(t, "/v1beta/models/nano-banana:generateContent", promptJSON).fails(t, 400, "IMAGE_SAFETY")
	g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	u.only(t)
}

// A block that comes when content has gone out already is remembered as well.
func TestGuardRemembersLateBlocks(t *testing.T) {
	second := strings.Replace(blockedJSON, `"index":0`, `"index":1`, 1)
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		option     string
	}{
		{"text", textPath, events(textChunk, stopped("IMAGE_SAFETY")), ""},
		{"text, marked only", textPath, events(textChunk, blockedJSON), "block_status pass"},
		{"array", strings.TrimSuffix(textPath, "?alt=sse"), answers(200, jsonType, "["+textChunk+",\n"+blockedJSON+"]"), ""},
		{"second candidate", streamPath, events(imageChunk, second), ""},
		{"text may go", streamPath, events(textChunk, blockedJSON), "stream_commit text"},
		{"beyond what is held", streamPath, events(textChunk, textChunk, blockedJSON), "hold 100B"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			g := inFront(t, u, guarding, c.option)
			if s := g.post(t, c.path, promptJSON); s.StatusCode != 200 {
				t.Fatalf("status %d: the block is not late", s.StatusCode)
			}
			u.play(events(imageChunk, lastChunk))
			g.post(t, c.path, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
			u.untouched(t)
		})
	}
}

// Bodies that are sent before they have been read to their end are guarded by
// all they hold.
func TestGuardReadsLargeBodies(t *testing.T) {
	image := strings.Repeat("iVBORw0KGgoAAAAN", 2<<20/16)
	body := `{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + image + `"}},{"text":"` + prompt + `"}]}]}`
	for _, declared := range []bool{true, false} {
		t.Run(fmt.Sprintf("declared %t", declared), func(t *testing.T) {
			u := scripted(t, answers(200, jsonType, blockedJSON))
			g := inFront(t, u, guarding)
			ask := func(body string) *reply {
				r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(body))
				if !declared {
					r.ContentLength = -1
				}
				return do(t, r)
			}
			ask(body).fails(t, 400, "IMAGE_SAFETY")
			u.play(answers(200, jsonType, imageJSON))
			ask(body).repeats(t, "blocked", "output", "IMAGE_SAFETY")
			u.untouched(t)
			ask(strings.Replace(body, "AAAAN\"", "AAAAM\"", 1)).exactly(t, 200, imageJSON)
			u.only(t)
		})
	}
}
