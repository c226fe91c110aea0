// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Calls that generate nothing pass both ways untouched.
func TestForwarded(t *testing.T) {
	upload := strings.Repeat("\x00\xffnot JSON\r\n", 20_000)
	u := scripted(t, nil)
	g := inFront(t, u, "max_body 1KiB")
	for _, c := range []struct{ name, method, uri, body, contentType string }{
		{"file upload", "POST", "/upload/v1beta/files?uploadType=resumable", upload, "image/png"},
		{"file", "GET", "/v1beta/files/abc-123", "", ""},
		{"file deletion", "DELETE", "/v1beta/files/abc-123", "", ""},
		{"download", "GET", "/download/v1beta/files/abc-123:download?alt=media", "", ""},
		{"model list", "GET", "/v1beta/models?pageSize=50&pageToken=a%2Fb", "", ""},
		{"model", "GET", "/v1beta/models/" + imageModel, "", ""},
		{"OpenAI's model list", "GET", "/v1beta/openai/models", "", ""},
		{"OpenAI's embeddings", "POST", "/v1beta/openai/embeddings", `{"input":"x"}`, "application/json"},
		{"countTokens", "POST", "/v1beta/models/" + imageModel + ":countTokens", promptJSON, "application/json"},
		{"batch", "POST", "/v1beta/models/" + imageModel + ":batchGenerateContent", promptJSON, "application/json"},
		{"caches", "POST", "/v1beta/cachedContents", `not JSON`, "application/json"},
		{"OPTIONS", "OPTIONS", unaryPath, "", ""},
		{"interaction", "GET", "/v1beta/interactions/v1_abc", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			// What would be a block on a generate call means nothing here.
			u.play(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Goog-Upload-Url", "https://example.com/upload")
				answers(201, jsonType, blockedJSON)(w, r)
			})
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			r := g.newRequest(t, c.method, c.uri, body)
			r.Header.Set("X-Goog-Upload-Command", "start, upload")
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			s := do(t, r)
			s.exactly(t, 201, blockedJSON)
			if s.Header.Get("X-Goog-Upload-Url") == "" {
				t.Error("a header of the answer is missing")
			}
			if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="scripted"; received-status=201` {
				t.Errorf("Proxy-Status %q", via)
			}

			received := u.only(t)
			if received.Method != c.method || received.URI != c.uri || string(received.Body) != c.body {
				t.Errorf("the upstream received %s %s with %d bytes", received.Method, received.URI, len(received.Body))
			}
			if received.Header.Get("X-Goog-Upload-Command") == "" || received.Header.Get("Content-Type") != c.contentType {
				t.Errorf("the upstream received the headers %v", received.Header)
			}
		})
	}
}

// A base URL may end with the version already, as aggregators write theirs. It is not
// sent twice, and where the upstream leads to has it again.
func TestVersionIsForwardedOnce(t *testing.T) {
	for base, prefix := range map[string]string{"": "/v1", "/api": "/api/v1", "/api/v1": "/api/v1", "/api/v1/": "/api/v1", "/openai": "/openai"} {
		u := scripted(t, nil)
		g := run(t, gemini(placeAt("only", u.URL+base, "format openai chat", "api_key {env.CADDYTEST_KEY}")))
		for _, c := range []struct{ method, path string }{
			{"POST", "/embeddings"},
			{"GET", "/models?limit=2"},
			{"POST", "/responses"},
			{"POST", "/audio/speech"},
			{"GET", "/files/v1/content"},
			{"POST", "/images/variations"},
		} {
			u.play(with("Location", prefix+"/files/a?b=c", answers(302, jsonType, "{}")))
			s := do(t, g.newRequest(t, c.method, "/v1"+c.path, nil))
			s.exactly(t, 302, "{}")
			if r := u.only(t); r.Method != c.method || r.URI != prefix+c.path {
				t.Errorf("base %q: the upstream received %s %s, want %s", base, r.Method, r.URI, prefix+c.path)
			}
			if at := s.Header.Get("Location"); at != "/v1/files/a?b=c" {
				t.Errorf("base %q: the client is sent to %s", base, at)
			}
		}
		u.play(answers(200, jsonType, "{}"))
		do(t, g.newRequest(t, "GET", "/v1beta/models", nil)).exactly(t, 200, "{}")
		if r := u.only(t); r.URI != strings.TrimSuffix(base, "/")+"/v1beta/models" {
			t.Errorf("base %q: the upstream received %s", base, r.URI)
		}
	}
}

// Paths of no known API belong to the rest of the site.
func TestOtherPathsGoToTheNextHandler(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := run(t, gemini("upstream scripted "+u.URL)+"respond \"next: {method} {uri}\" 418\n")
	for _, c := range []struct{ method, uri string }{
		{"GET", "/"},
		{"GET", "/index.html"},
		{"POST", "/v2/models/x:generateContent"},
		{"POST", "/api/v1beta/models/x:generateContent"},
		{"GET", "/v1"},
		{"GET", "/wsx"},
	} {
		s := do(t, g.newRequest(t, c.method, c.uri, nil))
		s.exactly(t, 418, "next: "+c.method+" "+c.uri)
		if via := s.Header.Get("Proxy-Status"); via != "" {
			t.Errorf("%s %s: Proxy-Status %q", c.method, c.uri, via)
		}
	}
	u.untouched(t)
}

// A forwarded call that nobody answers ends in a status, like any proxied one.
func TestForwardedWithoutUpstream(t *testing.T) {
	g := run(t, gemini("upstream gone http://"+freeAddress(t)+" {\n\tapi_key {env.CADDYTEST_KEY}\n}"))
	r := g.newRequest(t, http.MethodGet, "/v1beta/models?key="+clientKey, nil)
	s := do(t, r)
	s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
}

// The Live API is a websocket: bytes pass both ways at once, also those that
// either side sends before it has seen the other's handshake.
func TestLiveAPI(t *testing.T) {
	const path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
	u := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: abc\r\n\r\nhello\n")
		for {
			line, err := buffered.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(conn, "echo "+line)
		}
	})
	g := inFront(t, u)

	conn, err := net.DialTimeout("tcp", g.address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s?key=%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly\n", path, clientKey, g.address)

	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Accept") != "abc" {
		t.Fatalf("the client saw %s %v", res.Status, res.Header)
	}
	expect := func(want string) {
		t.Helper()
		if line, err := in.ReadString('\n'); err != nil || line != want {
			t.Fatalf("the client saw %q (%v), want %q", line, err, want)
		}
	}
	expect("hello\n")
	expect("echo early\n")
	fmt.Fprint(conn, "later\n")
	expect("echo later\n")

	received := u.only(t)
	if received.URI != path || received.Header.Get("X-Goog-Api-Key") != upstreamKey || received.Header.Get("Upgrade") != "websocket" {
		t.Errorf("the upstream received %s %v", received.URI, received.Header)
	}
}

// What is left of an upload that an upstream has refused before its end must not
// be taken for the next request: it would pass by all that guards the site.
func TestRestOfAnUploadIsNoRequest(t *testing.T) {
	const (
		size     = 16 << 20 // more than all that may be on its way
		smuggled = "GET /v1beta/models HTTP/1.1\r\nHost: example.com\r\n\r\n"
	)
	for door, site := range map[string]string{
		"handler":   gemini("upstream scripted $URL"),
		"transport": "reverse_proxy $URL {\n\ttransport " + gemini("") + "}\n",
	} {
		t.Run(door, func(t *testing.T) {
			var arrived atomic.Int32
			u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				arrived.Add(1)
				w.WriteHeader(http.StatusForbidden)
			}))
			t.Cleanup(u.Close)
			g := run(t, strings.ReplaceAll(site, "$URL", u.URL))
			conn, err := net.DialTimeout("tcp", g.address, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST /upload/v1beta/files HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", g.address, size)
			go fmt.Fprint(conn, strings.Repeat(smuggled, size/len(smuggled))) // to its end, or that of the connection

			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusForbidden || !res.Close {
				t.Errorf("status %d, and the connection is closed: %v", res.StatusCode, res.Close)
			}
			if res, err := http.ReadResponse(in, nil); err == nil {
				t.Errorf("another answer: %s", res.Status)
				_ = res.Body.Close()
			}
			if n := arrived.Load(); n != 1 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
}
