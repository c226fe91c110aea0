// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// shown are the ways in which clients show their own key.
var shown = map[string]func(*http.Request){
	"x-goog-api-key": func(r *http.Request) { r.Header.Set("X-Goog-Api-Key", clientKey) },
	"query":          func(r *http.Request) { r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&key="+clientKey, "&") },
	"bearer":         func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+clientKey) },
	"both": func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+clientKey)
		r.Header.Set("X-Goog-Api-Key", clientKey)
	},
}

// showing makes a call with the client's own key in one of these ways.
func (g *gateway) showing(t *testing.T, way, uri, body string) *reply {
	t.Helper()
	r := g.newRequest(t, http.MethodPost, uri, strings.NewReader(body))
	r.Header.Del("X-Goog-Api-Key")
	r.Header.Set("Cookie", "session="+clientKey)
	r.Header.Set("X-Goog-User-Project", "project-of-"+clientKey)
	shown[way](r)
	return do(t, r)
}

// An upstream with a key of its own never sees the client's; one without gets it where
// its form has the place for it.
func TestKeysOfTranslatedCalls(t *testing.T) {
	const express = "format vertex"
	withKey, withHeader := "api_key {env.CADDYTEST_KEY}", `header_up Authorization "Bearer {env.CADDYTEST_KEY}"`
	for _, c := range []struct {
		path, body, format string
		place              string // of the client's own key
	}{
		{unaryPath, promptJSON, "format openai", "Authorization"},
		{streamPath, promptJSON, "format openai chat", "Authorization"},
		{unaryPath, promptJSON, express, "X-Goog-Api-Key"},
		{imagesPath, drawJSON(), "format gemini", "X-Goog-Api-Key"},
		{chatPath, plainChat, "format gemini", "X-Goog-Api-Key"},
		{"/v1beta/openai/images/generations", drawJSON(), "format gemini", "X-Goog-Api-Key"},
		{imagesPath, drawJSON(), express, "X-Goog-Api-Key"},
		{imagesPath, drawJSON(), "format openai chat", "Authorization"},
		{ofVertex(imageModel, "generateContent"), promptJSON, "format openai", "Authorization"},
		{chatPath, plainChat, "format openai", "Authorization"},
		{imagesPath, drawJSON(), "format openai", "Authorization"},
	} {
		u := scripted(t, nil)
		for option, own := range map[string]bool{withKey: true, withHeader: true, "": false} {
			g := run(t, gemini(place("only", u, c.format, option)))
			for way := range shown {
				t.Run(fmt.Sprintf("%s to %s/%s/own %t", c.path, c.format, way, own), func(t *testing.T) {
					u.play(inEveryForm(drawing))
					if strings.Contains(c.path, "stream") {
						u.play(inEveryForm(drawingLive))
					}
					if s := g.showing(t, way, c.path, c.body); s.StatusCode != 200 {
						t.Errorf("status %d: %s", s.StatusCode, shortened(string(s.body)))
					}
					r := u.only(t)
					all := r.URI + fmt.Sprint(r.Header)
					switch {
					case own && (strings.Contains(all, clientKey) || !strings.Contains(all, upstreamKey)):
						t.Errorf("the upstream received %s", all)
					case own:
					case strings.TrimPrefix(r.Header.Get(c.place), "Bearer ") != clientKey:
						t.Errorf("the upstream received %s, want the key in %s", all, c.place)
					case c.place == "Authorization" && strings.Contains(r.URI, clientKey):
						t.Errorf("the upstream received %s", r.URI)
					case r.Header.Get("Authorization") != "" && r.Header.Get("X-Goog-Api-Key") != "", r.Header.Get("Cookie") != "":
						t.Errorf("the upstream received %s", all)
					}
				})
			}
		}
	}
}

// An API that knows one place for keys gets the one that the client is known by there.
// What stands there already is left as it is.
func TestOwnKeyOfOpenAICalls(t *testing.T) {
	u := scripted(t, nil)
	g := run(t, gemini(place("only", u, "format openai")))
	for _, c := range []struct{ query, header, authorization, want string }{
		{"", clientKey, "", "Bearer " + clientKey},
		{"?key=" + clientKey, "", "", "Bearer " + clientKey},
		{"?key=other", clientKey, "Bearer another", "Bearer " + clientKey},
		{"?key=other", "", "bearer " + clientKey, "bearer " + clientKey},
		{"", "", "Basic dXNlcjpwYXNz", "Basic dXNlcjpwYXNz"},
		{"?key=" + clientKey, "", "Basic dXNlcjpwYXNz", "Bearer " + clientKey},
		{"", "", "", ""},
	} {
		u.play(inEveryForm(drawing))
		s := g.post(t, chatPath+c.query, plainChat, "X-Goog-Api-Key", c.header, "Authorization", c.authorization)
		if s.StatusCode != 200 {
			t.Errorf("%+v: status %d", c, s.StatusCode)
		}
		r := u.only(t)
		if got := r.Header.Get("Authorization"); got != c.want || r.Header.Get("X-Goog-Api-Key") != "" || r.URI != chatPath {
			t.Errorf("%+v: the upstream received %s with %q", c, r.URI, got)
		}
	}
}

// Who pays belongs to the key: OpenAI refuses a key with the organization of another.
func TestOrganizationOfTheClient(t *testing.T) {
	u := scripted(t, nil)
	for option, isOwn := range map[string]bool{"api_key {env.CADDYTEST_KEY}": true, `header_up Authorization "Bearer {env.CADDYTEST_KEY}"`: true, "": false} {
		u.play(inEveryForm(drawing))
		g := run(t, gemini(place("only", u, "format openai", option)))
		g.post(t, imagesPath, drawJSON(), "X-Goog-Api-Key", "", "Authorization", "Bearer "+clientKey, "Openai-Organization", "org-a", "Openai-Project", "proj_a")
		r := u.only(t)
		if hasPayer := r.Header.Get("Openai-Organization") != "" || r.Header.Get("Openai-Project") != ""; hasPayer == isOwn {
			t.Errorf("%q: the upstream received %v", option, r.Header)
		}
	}
}

// A key goes where it is configured for, wherever else the call goes.
func TestKeysOfReroutedCalls(t *testing.T) {
	for path, body := range map[string]string{unaryPath: promptJSON, imagesPath: drawJSON(), chatPath: plainChat, editsPath: editJSON} {
		for way := range shown {
			t.Run(path+"/"+way, func(t *testing.T) {
				first, second, third := scripted(t, overloaded), scripted(t, overloaded), scripted(t, inEveryForm(drawing))
				g := inFrontOf(t, []string{
					place("google", first, "format gemini", ownKey(t, "first")),
					place("backup", second, "format openai", ownKey(t, "second")),
					place("other", third, "format openai chat", ownKey(t, "third")),
				})
				if s := g.showing(t, way, path, body); s.StatusCode != 200 {
					t.Errorf("status %d: %s", s.StatusCode, shortened(string(s.body)))
				}
				for _, v := range went(t, "first second third", first, second, third) {
					all := v.URI + fmt.Sprint(v.Header)
					if strings.Count(all, keyMark) != 1 || !strings.Contains(all, keyOf(ordinals[v.at])) || strings.Contains(all, clientKey) {
						t.Errorf("the %s upstream received %s", ordinals[v.at], all)
					}
				}
			})
		}
	}
}

// The second door serves OpenAI's clients as well.
func TestOpenAIThroughTheTransport(t *testing.T) {
	var answered atomic.Int32
	u := scripted(t, nil)
	g := run(t, "metrics /metrics\n"+accessLog+proxied(u.URL, []string{quickly, guarding}))
	bearer := func(r *http.Request) {
		r.Header.Del("X-Goog-Api-Key")
		r.Header.Set("Authorization", "Bearer "+clientKey)
	}

	u.play(func(w http.ResponseWriter, r *http.Request) {
		if answered.Add(1) == 2 {
			overloaded(w, r)
			return
		}
		drawn(w, r)
	})
	if images := imagesOf(t, g.begin(t, imagesPath, drawSeveral(3), bearer).ends()); len(images) != 3 || !bytes.Equal(images[2], picture) {
		t.Errorf("%d images", len(images))
	}
	if n := len(u.received()); n != 4 {
		t.Errorf("%d requests", n)
	}
	for _, r := range u.received() {
		if r.URI != unaryPath || r.Header.Get("X-Goog-Api-Key") != clientKey || r.Header.Get("Authorization") != "" || r.Header.Get("X-Forwarded-For") != "" {
			t.Errorf("the upstream received %s %v", r.URI, r.Header)
		}
	}
	eventually(t, "the call is counted", func() bool {
		return sum(g.counters(t), "attempts_total", `upstream="reverse_proxy"`) >= 4
	})

	u.play(events(textChunk, imageChunk, lastChunk))
	s := g.begin(t, chatPath, completed(plainChat, `"stream":true`), bearer).ends()
	if body := string(s.body); s.StatusCode != 200 || !strings.HasSuffix(body, "data: [DONE]\n\n") || !strings.Contains(body, base64.StdEncoding.EncodeToString(picture)) {
		t.Errorf("status %d: %s", s.StatusCode, shortened(body))
	}
	kind, form := formOf(t, map[string]string{"model": imageModel, "prompt": prompt}, []byte("\x89PNG\r\n\x1a\nthe rest"))
	u.play(gives(blockedJSON))
	for _, says := range []string{"IMAGE_SAFETY", "REPEATED_BLOCK"} {
		s = g.begin(t, editsPath, form, bearer, func(r *http.Request) { r.Header.Set("Content-Type", kind) }).ends()
		s.failsAsOpenAI(t, 400, "content_policy_violation", says)
	}
	u.only(t)
	g.begin(t, imagesPath, drawJSON(`"mask":"x"`), bearer).ends().failsAsOpenAI(t, 400, "unknown_parameter", "mask")
	g.begin(t, imagesPath, `{"model":`, bearer).ends().failsAsOpenAI(t, 400, "malformed_request", "byte 9")
}

// A client that leaves the second door ends all its images, too.
func TestClientOfSeveralImagesLeavesTheTransport(t *testing.T) {
	all, gone := newBarrier(3), make(chan struct{}, 3)
	u := scripted(t, all.then(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	g := run(t, accessLog+proxied(u.URL, once()))
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		r := g.newRequest(t, http.MethodPost, imagesPath, strings.NewReader(drawSeveral(3))).WithContext(ctx)
		if res, err := newTransport(t).RoundTrip(r); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			t.Errorf("the client got %s", res.Status)
		}
	}()
	wait(t, "all images are asked for", all.full)
	leave()
	wait(t, "the client has left", left)
	for range 3 {
		wait(t, "a request ends", gone)
	}
	g.ended(t, "499")
}

// Bodies that are not what their calls should have are refused in the form of their
// client, and sent nowhere.
func TestMalformedBodiesAreNotTranslated(t *testing.T) {
	kind, form := formOf(t, map[string]string{"model": imageModel, "prompt": prompt}, []byte("\x89PNG\r\n\x1a\nthe rest"))
	u := scripted(t, inEveryForm(editing))
	gateways := map[string]string{"gemini": "format gemini", "openai": "format openai", "openai chat": "format openai chat"}
	for _, c := range []struct{ name, to, path, body, kind string }{
		{"half an object", "gemini", imagesPath, drawJSON()[:30], ""},
		{"a list", "gemini", imagesPath, `[` + drawJSON() + `]`, ""},
		{"no JSON", "gemini", imagesPath, `prompt=a`, ""},
		{"nothing", "gemini", imagesPath, ``, ""},
		{"behind the object", "gemini", imagesPath, drawJSON() + "}", ""},
		{"no prompt", "gemini", imagesPath, `{"model":"` + imageModel + `"}`, ""},
		{"prompt of another type", "gemini", imagesPath, `{"model":"` + imageModel + `","prompt":{"a":1}}`, ""},
		{"half a chat", "gemini", chatPath, plainChat[:60], ""},
		{"no messages", "gemini", chatPath, `{"model":"` + imageModel + `"}`, ""},
		{"half a form", "gemini", editsPath, form[:len(form)-30], kind},
		{"no boundary", "gemini", editsPath, form, "multipart/form-data"},
		{"another boundary", "gemini", editsPath, form, "multipart/form-data; boundary=other"},
		{"form without a prompt", "gemini", editsPath, strings.Replace(form, `name="prompt"`, `name="user"`, 1), kind},
		{"image that is none", "gemini", editsPath, strings.Replace(editJSON, "base64,", "base64,%%%", 1), ""},

		{"half a native call", "openai", unaryPath, promptJSON[:40], ""},
		{"native list", "openai", unaryPath, `[` + promptJSON + `]`, ""},
		{"native nothing", "openai chat", unaryPath, ``, ""},
		{"native image that is none", "openai", unaryPath, strings.Replace(editNative, pixels, "%%%%", 1), ""},
		{"native text of another type", "openai", unaryPath, strings.Replace(promptJSON, `"`+prompt+`"`, `{"a":1}`, 1), ""},
		{"native without contents", "openai", unaryPath, `{"contents":[]}`, ""},
	} {
		t.Run(c.name+" to "+c.to, func(t *testing.T) {
			u.play(inEveryForm(editing))
			g := run(t, gemini(place("only", u, gateways[c.to], "api_key {env.CADDYTEST_KEY}"), quickly))
			header := []string{"Authorization", "Bearer " + clientKey}
			if c.kind != "" {
				header = append(header, "Content-Type", c.kind)
			}
			s := g.post(t, c.path, c.body, header...)
			if isNative := strings.Contains(string(s.body), `"status":"INVALID_ARGUMENT"`); s.StatusCode != 400 || !strings.Contains(string(s.body), `"error":{`) || isNative != (c.to != "gemini") {
				t.Errorf("status %d: %s", s.StatusCode, shortened(string(s.body)))
			}
			for _, r := range u.received() {
				t.Errorf("the upstream received %s %s", r.URI, shortened(string(r.Body)))
			}
		})
	}
}
