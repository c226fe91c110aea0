// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A body is completed by adding to it: what the client wrote arrives as it was.
func TestRequestIsCompleted(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := inFront(t, u)
	for _, c := range []struct {
		name, body string
		header     []string
		send       string // on the wire; empty = body
		chunked    bool
	}{
		{name: "plain", body: promptJSON},
		{name: "chunked", body: promptJSON, chunked: true},
		{name: "gzip", body: promptJSON, send: gzipped(promptJSON), header: []string{"Content-Encoding", "gzip"}},
		{name: "gzip, chunked", body: promptJSON, send: gzipped(promptJSON), header: []string{"Content-Encoding", "gzip"}, chunked: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(u.answer)
			var body io.Reader = strings.NewReader(c.body)
			if c.send != "" {
				body = strings.NewReader(c.send)
			}
			if c.chunked {
				body = struct{ io.Reader }{body}
			}
			r := g.newRequest(t, http.MethodPost, unaryPath, body)
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Set(c.header[i], c.header[i+1])
			}
			do(t, r).exactly(t, 200, imageJSON)

			received := u.only(t)
			if got := string(received.Body); got != completedJSON {
				t.Errorf("the upstream received %s\nwant %s", got, completedJSON)
			}
			if encoding := received.Header.Get("Content-Encoding"); encoding != "" {
				t.Errorf("Content-Encoding %q", encoding)
			}
		})
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

func unzipped(t *testing.T, b []byte) string {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// What is complete, or is not to be touched, arrives byte for byte.
func TestRequestStaysAsItIs(t *testing.T) {
	const notJSON = `{"contents": [}`
	for _, c := range []struct{ name, path, body, option string }{
		{"nothing missing", unaryPath, completedJSON, ""},
		{"no object", unaryPath, `["contents"]`, ""},
		{"inject off", unaryPath, promptJSON, "inject off"},
		{"no JSON and inject off", unaryPath, notJSON, "inject off"},
		{"another schema", "/v1beta/openai/chat/completions", `{"model":"gemini-2.5-flash","messages":[]}`, ""},
		{"no JSON in another schema", "/v1beta/models/imagen-4.0-generate-001:predict", notJSON, ""},
		{"interactions", "/v1beta/interactions", `{"model":"gemini-3.1-flash-image","input":"a cat"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(400, jsonType, googleErrorJSON))
			inFront(t, u, c.option).post(t, c.path, c.body).exactly(t, 400, googleErrorJSON)
			if got := string(u.only(t).Body); got != c.body {
				t.Errorf("the upstream received %s\nwant %s", got, c.body)
			}
		})
	}
}

func TestRequestIsMalformed(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := inFront(t, u)
	for _, c := range []struct {
		name, body, offset string
	}{
		{"wrong token", `{"contents": [}`, "at byte 14"},
		{"cut off", `{"contents": [`, "at byte 14"},
		{"something behind it", `{"contents": []} x`, "at byte 17"},
		{"long", `{"contents": [}` + strings.Repeat(" ", 4<<20), "at byte 14"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := g.post(t, unaryPath, c.body).fails(t, 400, "MALFORMED_REQUEST")
			if !strings.Contains(e.Message, c.offset) {
				t.Errorf("message %q does not name %s", e.Message, c.offset)
			}
			if class := e.metadata("class"); class != "client" {
				t.Errorf("class %q", class)
			}
		})
	}
	u.untouched(t)
}

func TestRequestIsTooLarge(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := inFront(t, u, "max_body 1KiB")
	large := `{"contents":[{"parts":[{"text":"` + strings.Repeat("x", 4<<20) + `"}]}]}`
	for _, c := range []struct {
		name    string
		body    io.Reader
		gzipped bool
	}{
		{"declared", strings.NewReader(large), false},
		{"chunked", struct{ io.Reader }{strings.NewReader(large)}, false},
		{"small until it is decoded", strings.NewReader(gzipped(large[:4000])), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := g.newRequest(t, http.MethodPost, unaryPath, c.body)
			if c.gzipped {
				r.Header.Set("Content-Encoding", "gzip")
			}
			s := do(t, r)
			s.fails(t, 413, "BODY_TOO_LARGE")
			if !s.Close {
				t.Error("no Connection: close: the client would send all the rest")
			}
		})
	}
	u.untouched(t)
}

// Keys: the one of the upstream takes the place of the client's, wherever the
// client puts its own.
func TestKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(upstreamKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := scripted(t, answers(200, jsonType, imageJSON))
	own := gemini("upstream scripted " + u.URL + " {\n\tapi_key {env.CADDYTEST_KEY}\n}")
	const openAI = "/v1beta/openai/chat/completions"
	for _, c := range []struct {
		name, path string
		header     []string // that the client sends
		key, auth  string   // that the upstream receives
		uri        string   // likewise; empty = path
		directive  string
	}{
		{"header", unaryPath, []string{"X-Goog-Api-Key", clientKey}, upstreamKey, "", "", own},
		{"query", unaryPath + "?key=" + clientKey, nil, upstreamKey, "", unaryPath, own},
		{"query, among others", unaryPath + "?$alt=json;enum-encoding=int&key=" + clientKey + "&x=1", nil, upstreamKey, "", unaryPath + "?$alt=json;enum-encoding=int&x=1", own},
		{"bearer", unaryPath, []string{"Authorization", "Bearer " + clientKey}, upstreamKey, "", "", own},
		{"OpenAI path", openAI, []string{"Authorization", "Bearer " + clientKey}, "", "Bearer " + upstreamKey, "", own},
		{"forwarded call", "/v1beta/models?key=" + clientKey, []string{"X-Goog-Api-Key", clientKey}, upstreamKey, "", "/v1beta/models", own},
		{"none at all", unaryPath, nil, upstreamKey, "", "", own},
		{"from a file", unaryPath, nil, upstreamKey, "", "", gemini("upstream scripted " + u.URL + " {\n\tapi_key {file." + file + "}\n}")},

		{"client's own in the header", unaryPath, []string{"X-Goog-Api-Key", clientKey}, clientKey, "", "", gemini("upstream scripted " + u.URL)},
		{"client's own in the query", unaryPath + "?key=" + clientKey, nil, "", "", "", gemini("upstream scripted " + u.URL)},
		{"client's own, forwarded", "/v1beta/models?key=" + clientKey, nil, "", "", "", gemini("upstream scripted " + u.URL)},
		{"client's own token", openAI, []string{"Authorization", "Bearer " + clientKey}, "", "Bearer " + clientKey, "", gemini("upstream scripted " + u.URL)},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(u.answer)
			g := run(t, c.directive)
			r := g.newRequest(t, http.MethodPost, c.path, strings.NewReader(promptJSON))
			r.Header.Del("X-Goog-Api-Key")
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Set(c.header[i], c.header[i+1])
			}
			do(t, r).exactly(t, 200, imageJSON)

			received := u.only(t)
			if key := received.Header.Get("X-Goog-Api-Key"); key != c.key {
				t.Errorf("the upstream received the key %q, want %q", key, c.key)
			}
			if auth := received.Header.Get("Authorization"); auth != c.auth {
				t.Errorf("the upstream received Authorization %q, want %q", auth, c.auth)
			}
			uri := c.uri
			if uri == "" {
				uri = c.path
			}
			if received.URI != uri {
				t.Errorf("the upstream received %s, want %s", received.URI, uri)
			}
		})
	}
}

// A key from the environment is not in the configuration that Caddy shows and
// saves.
func TestKeyStaysOutOfTheConfiguration(t *testing.T) {
	t.Setenv("CADDYTEST_KEY", upstreamKey)
	config, err := adapt(":80 {\n" + gemini("upstream google https://example.com {\n\tapi_key {env.CADDYTEST_KEY}\n}") + "}")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(config, []byte(upstreamKey)) || !bytes.Contains(config, []byte("{env.CADDYTEST_KEY}")) {
		t.Errorf("adapted to %s", config)
	}
}

// Nothing about the client or the way to the gateway reaches the upstream of a
// generate call; forwarded calls keep the client's own headers.
func TestRequestHeaders(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := inFront(t, u)
	for _, c := range []struct {
		name, path string
		want       []string
	}{
		{"generate call", unaryPath, []string{
			"Content-Length", "Content-Type", "User-Agent", "X-Goog-Api-Client", "X-Goog-Api-Key", "X-Server-Timeout",
		}},
		{"forwarded call", "/v1beta/models/" + imageModel + ":countTokens", []string{
			"Accept-Encoding", "Content-Length", "Content-Type", "Referer", "User-Agent",
			"X-Goog-Api-Client", "X-Goog-Api-Key", "X-Other", "X-Server-Timeout",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(u.answer)
			g.post(
				t, c.path, promptJSON,
				"X-Forwarded-For", "192.0.2.7", "X-Forwarded-Host", "inside.example", "X-Forwarded-Proto", "https",
				"Forwarded", "for=192.0.2.7", "Via", "1.1 inside", "Cookie", "session=1", "Referer", "https://inside.example/",
				"X-Http-Method-Override", "POST", "X-Method-Override", "POST", "X-Http-Method", "POST",
				"X-Other", "1", "Connection", "X-Hop", "X-Hop", "1",
				"User-Agent", "google-genai-sdk/3.1.0 gl-node/v20", "X-Goog-Api-Client", "google-genai-sdk/3.1.0", "X-Server-Timeout", "60",
			).exactly(t, 200, imageJSON)
			got := u.only(t).Header
			names := make([]string, 0, len(got))
			for name := range got {
				names = append(names, name)
			}
			slices.Sort(names)
			if !slices.Equal(names, c.want) {
				t.Errorf("the upstream received the headers %q, want %q", names, c.want)
			}
			if agent := got.Get("User-Agent"); agent != "google-genai-sdk/3.1.0 gl-node/v20" {
				t.Errorf("User-Agent %q", agent)
			}
		})
	}
}

func TestModelIsMapped(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := run(t, gemini("upstream scripted "+u.URL+"/a/b {\n\tmodel nano-* "+imageModel+"\n\tmodel flash-* "+textModel+"\n}"))
	for _, c := range []struct{ path, body, uri, received string }{
		{"/v1beta/models/nano-banana:generateContent", promptJSON, "/a/b" + unaryPath, completedJSON},
		{"/v1/models/nano-banana%3AgenerateContent", promptJSON, "/a/b/v1/models/" + imageModel + "%3AgenerateContent", completedJSON},
		{unaryPath, promptJSON, "/a/b" + unaryPath, completedJSON},
		{
			"/v1beta/openai/chat/completions", `{"model": "flash-lite", "n":1}`,
			"/a/b/v1beta/openai/chat/completions", `{"model": "` + textModel + `", "n":1}`,
		},
	} {
		u.play(u.answer)
		g.post(t, c.path, c.body).exactly(t, 200, imageJSON)
		received := u.only(t)
		if received.URI != c.uri || string(received.Body) != c.received {
			t.Errorf("%s: the upstream received %s %s\nwant %s %s", c.path, received.URI, received.Body, c.uri, c.received)
		}
		if host := strings.TrimPrefix(u.URL, "http://"); received.Host != host {
			t.Errorf("the upstream received the host %s, want %s", received.Host, host)
		}
	}
}
