// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/base64"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// said are the texts of a request, of whatever form.
func (r *request) said(t *testing.T) (texts []string) {
	t.Helper()
	if kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "multipart/form-data" {
		form, err := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"]).ReadForm(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		return form.Value["prompt"]
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, member := range v {
				if text, ok := member.(string); ok && slices.Contains([]string{"text", "prompt", "content"}, key) {
					texts = append(texts, text)
				}
				walk(member)
			}
		case []any:
			for _, element := range v {
				walk(element)
			}
		}
	}
	walk(any(r.json(t)))
	return texts
}

// editJSON, editChat and editNative ask for the same as each other.
var (
	pixels     = base64.StdEncoding.EncodeToString([]byte("\x89PNG\r\n\x1a\nthe rest"))
	editJSON   = `{"model":"` + imageModel + `","prompt":"` + prompt + `","image":"data:image/png;base64,` + pixels + `"}`
	editChat   = `{"model":"` + imageModel + `","messages":[{"role":"user","content":[{"type":"text","text":"` + prompt + `"},{"type":"image_url","image_url":{"url":"data:image/png;base64,` + pixels + `"}}]}]}`
	editNative = `{"contents":[{"role":"user","parts":[{"text":"` + prompt + `"},{"inlineData":{"mimeType":"image/png","data":"` + pixels + `"}}]}]}`
	plainChat  = chatJSON(imageModel)
)

// A prompt that was blocked is known again in whatever form it comes, if it comes to
// the same at the same account.
func TestGuardAcrossForms(t *testing.T) {
	kind, form := formOf(t, map[string]string{"model": imageModel, "prompt": prompt}, []byte("\x89PNG\r\n\x1a\nthe rest"))
	const draw, edit = "draw", "edit"
	calls := map[string]struct {
		path, body, kind string
		same             string // those that come to the same, and
		endpoint         string // of OpenAI's, where such calls are sent as they are
	}{
		"native":               {unaryPath, promptJSON, "", draw, "images"},
		"stream":               {streamPath, promptJSON, "", draw, "images"},
		"images":               {imagesPath, drawJSON(), "", draw, "images"},
		"images, another size": {imagesPath, drawJSON(`"size":"1024x1024"`, `"n":2`), "", draw, "images"},
		"chat":                 {chatPath, plainChat, "", draw, "chat"},
		"streamed chat":        {chatPath, completed(plainChat, `"stream":true`), "", draw, "chat"},

		"edit, native": {unaryPath, editNative, "", edit, "form"},
		"edit, form":   {editsPath, form, kind, edit, "form"},
		"edit, JSON":   {editsPath, editJSON, "", edit, "images"},
		"edit, chat":   {chatPath, editChat, "", edit, "chat"},
	}
	for _, format := range []string{"gemini", "vertex", "openai", "openai chat"} {
		options := []string{"format " + format, "api_key {env.CADDYTEST_KEY} studio"}
		if format == "vertex" {
			options[1] = "credentials " + serviceAccount(t)
		}
		for first, c := range calls {
			t.Run(format+"/"+first, func(t *testing.T) {
				post := func(g *gateway, name string) *reply {
					c := calls[name]
					header := []string{}
					if c.kind != "" {
						header = []string{"Content-Type", c.kind}
					}
					return g.post(t, c.path, c.body, header...)
				}
				u := scripted(t, blockedInForm)
				g := run(t, gemini(place("only", u, options...), guarding))
				if s := post(g, first); s.StatusCode != 400 || strings.Contains(string(s.body), "REPEATED_BLOCK") {
					t.Fatalf("status %d: %s", s.StatusCode, shortened(string(s.body)))
				}
				for again, other := range calls {
					if other.same != c.same || format == "openai" && other.endpoint != c.endpoint {
						continue
					}
					u.play(inEveryForm(drawing))
					s := post(g, again)
					if s.StatusCode != 400 || !strings.Contains(string(s.body), "REPEATED_BLOCK") {
						t.Errorf("then %s: status %d, the upstream received %d requests", again, s.StatusCode, len(u.received()))
					}
				}
			})
		}
	}
}

// blockedInForm blocks in the form of what it receives.
func blockedInForm(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1/images") || strings.HasPrefix(r.URL.Path, "/v1/chat") {
		answers(400, "application/json", `{"error":{"message":"Your request was rejected by the safety system.","type":"image_generation_user_error","param":null,"code":"moderation_blocked"}}`)(w, r)
		return
	}
	blockedNatively(w, r)
}

// Prompts are rephrased in the form in which they go out.
func TestTranslatedCallsAreRephrased(t *testing.T) {
	rules := "rephrase {\n\treplace \"a cat\" \"an owl\"\n\tprefix \"Ink:\" \"Oil:\"\n}"
	for _, c := range []struct{ name, path, body, format string }{
		{"images", imagesPath, drawJSON(), "gemini"},
		{"chat", chatPath, plainChat, "gemini"},
		{"edit in JSON", editsPath, editJSON, "gemini"},
		{"native", unaryPath, promptJSON, "openai"},
		{"native edit", unaryPath, editNative, "openai"},
		{"native edit", unaryPath, editNative, "openai chat"},
		{"images", imagesPath, drawJSON(), "openai chat"},
		{"images, as they are", imagesPath, drawJSON(), "openai"},
	} {
		t.Run(c.name+" to "+c.format, func(t *testing.T) {
			u := scripted(t, inTurn(blockedInForm, blockedInForm, inEveryForm(drawing)))
			g := run(t, gemini(place("only", u, "format "+c.format, "api_key {env.CADDYTEST_KEY}"), rules, guarding, quickly))
			s := g.post(t, c.path, c.body)
			if s.StatusCode != 200 {
				t.Fatalf("status %d: %s", s.StatusCode, shortened(string(s.body)))
			}
			owl := strings.Replace(prompt, "a cat", "an owl", 1)
			var got []string
			for _, r := range u.received() {
				got = append(got, strings.Join(r.said(t), "|"))
			}
			want := []string{prompt, "Ink: " + owl, "Oil: " + owl}
			if !slices.Equal(got, want) {
				t.Errorf("the upstream received %q, want %q", got, want)
			}
		})
	}
	t.Run("a form, which is not", func(t *testing.T) {
		kind, form := formOf(t, map[string]string{"model": imageModel, "prompt": prompt}, []byte("\x89PNG\r\n\x1a\nthe rest"))
		u := scripted(t, inTurn(blockedInForm, drawn))
		g := run(t, gemini(place("only", u, "format gemini", "api_key {env.CADDYTEST_KEY}"), rules, guarding, quickly))
		g.post(t, editsPath, form, "Content-Type", kind).failsAsOpenAI(t, 400, "content_policy_violation", "IMAGE_SAFETY")
		u.only(t)
	})
}

// What has failed is sent again as it was.
func TestTranslatedCallsAreTriedAgain(t *testing.T) {
	kind, form := formOf(t, map[string]string{"model": imageModel, "prompt": prompt}, []byte("\x89PNG\r\n\x1a\nthe rest"))
	for _, c := range []struct{ name, path, body, kind, format string }{
		{"images", imagesPath, drawJSON(), "", "gemini"},
		{"form", editsPath, form, kind, "gemini"},
		{"form by chat", editsPath, form, kind, "openai chat"},
		{"chat", chatPath, completed(plainChat, `"stream":true`), "", "vertex"},
		{"native edit", unaryPath, editNative, "", "openai"},
		{"native", streamPath, promptJSON, "", "openai chat"},
	} {
		t.Run(c.name+" to "+c.format, func(t *testing.T) {
			for name, fault := range map[string]http.HandlerFunc{"503": overloaded, "reset": resets(), "limit": limited("0.01s"), "cut short": breaksOff(jsonType, `{"cand`)} {
				good := drawing
				if strings.Contains(c.body+c.path, "stream") {
					good = drawingLive
				}
				u := scripted(t, inTurn(fault, fault, inEveryForm(good)))
				options := []string{"format " + c.format, "api_key {env.CADDYTEST_KEY}"}
				if c.format == "vertex" {
					options[1] = "credentials " + serviceAccount(t)
				}
				g := run(t, gemini(place("only", u, options...), quickly))
				header := []string{}
				if c.kind != "" {
					header = []string{"Content-Type", c.kind}
				}
				if s := g.post(t, c.path, c.body, header...); s.StatusCode != 200 || s.err != nil {
					t.Errorf("%s: status %d: %s", name, s.StatusCode, shortened(string(s.body)))
				}
				all := u.received()
				if len(all) != 3 {
					t.Fatalf("%s: %d requests", name, len(all))
				}
				for _, r := range all[1:] {
					if r.URI != all[0].URI || !slices.Equal(r.said(t), all[0].said(t)) || len(r.Body) != len(all[0].Body) {
						t.Errorf("%s: the upstream received %s and then %s", name, all[0].Body, r.Body)
					}
				}
			}
		})
	}
}

// Under block_status pass a block is no error for the clients of OpenAI either: their
// form has a word for it in chats, and nothing instead of an image.
func TestBlocksPassTranslated(t *testing.T) {
	u := scripted(t, nil)
	g := run(t, gemini(place("only", u, "format gemini", "api_key {env.CADDYTEST_KEY}"), "block_status pass"))
	for _, c := range []struct {
		name, path, body string
		plays            http.HandlerFunc
		want             []string
	}{
		{"images", imagesPath, drawJSON(), gives(blockedJSON), []string{`"data":[]`}},
		{"prompt", imagesPath, drawJSON(), gives(promptBlockedJSON), []string{`"data":[]`}},
		{"chat", chatPath, plainChat, gives(blockedJSON), []string{`"finish_reason":"content_filter"`}},
		{"prompt of a chat", chatPath, plainChat, gives(promptBlockedJSON), []string{`"finish_reason":"content_filter"`}},
		{"stream", chatPath, completed(plainChat, `"stream":true`), events(textChunk, blockedJSON), []string{`"finish_reason":"content_filter"`, "data: [DONE]\n\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(c.plays)
			s := g.post(t, c.path, c.body)
			if s.StatusCode != 200 || s.err != nil || strings.Contains(string(s.body), `"error"`) {
				t.Errorf("status %d (%v): %s", s.StatusCode, s.err, s.body)
			}
			for _, want := range c.want {
				if !strings.Contains(string(s.body), want) {
					t.Errorf("%s is not in %s", want, s.body)
				}
			}
			if via := s.Header.Get("Proxy-Status"); !strings.Contains(via, "_") {
				t.Errorf("Proxy-Status %q", via)
			}
		})
	}
	u.play(blockedInForm)
	g.load(t, gemini(place("only", u, "format openai", "api_key {env.CADDYTEST_KEY}"), "block_status pass"))
	if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 400 || !strings.Contains(string(s.body), "rejected by the safety system") {
		t.Errorf("status %d: %s", s.StatusCode, s.body)
	}
}

// With inject off nothing is added to a translated call either.
func TestNothingIsInjectedIntoTranslatedCalls(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, gemini(place("only", u, "format gemini", "api_key {env.CADDYTEST_KEY}"), "inject off"))
	for path, body := range map[string]string{imagesPath: drawJSON(), chatPath: plainChat, editsPath: editJSON} {
		u.play(drawn)
		g.post(t, path, body)
		r := u.only(t)
		if strings.Contains(string(r.Body), "afety") || path == chatPath && strings.Contains(string(r.Body), "odalities") {
			t.Errorf("the upstream received %s", r.Body)
		}
	}
	u.play(drawn)
	g.post(t, imagesPath, drawJSON(`"safety_settings":[{"category":"HARASSMENT","threshold":"BLOCK_ONLY_HIGH"}]`))
	if r := u.only(t); strings.Count(string(r.Body), "HARM_CATEGORY") != 1 {
		t.Errorf("the upstream received %s", r.Body)
	}
}

// A client that says how long it waits is answered in its form by then.
func TestDeadlineOfTranslatedCalls(t *testing.T) {
	for _, format := range []string{"gemini", "openai chat"} {
		u := scripted(t, hangs())
		g := run(t, gemini(place("only", u, "format "+format, "api_key {env.CADDYTEST_KEY}"), quickly))
		briefly := having("X-Server-Timeout", "1")
		calls := []*pending{g.begin(t, imagesPath, drawJSON(), briefly), g.begin(t, editsPath, editJSON, briefly)}
		want := len(calls)
		if format != "gemini" {
			want++
			g.begin(t, unaryPath, promptJSON, briefly).ends().fails(t, 504, "DEADLINE_EXCEEDED")
		}
		for _, p := range calls {
			p.ends().failsAsOpenAI(t, 504, "deadline_exceeded", "DEADLINE_EXCEEDED")
		}
		if n := len(u.received()); n != want {
			t.Errorf("%s: the upstream received %d requests, want %d", format, n, want)
		}
		for _, r := range u.received() {
			if !slices.Contains(r.said(t), prompt) {
				t.Errorf("%s: the upstream received %s", format, r.Body)
			}
		}
	}
}
