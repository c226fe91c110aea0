// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What a client may not say ends in an error, its connection is closed where nobody
// can know what comes next, and no upstream hears of it, let alone of two requests
// in one.
func TestRequestsOnTheWire(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u)
	length := len(promptJSON)
	withLength := fmt.Sprintf("Content-Length: %d\r\n", length)
	inOne := spoken(unaryPath, inChunks, chunked(promptJSON, 7)+lastPiece)
	const smuggled = "POST /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	for _, c := range []struct {
		name, says string
		statuses   string // of the answers, in order
		asked      int
		isOpen     bool // the connection, for another call
	}{
		{"length", sized(unaryPath, length, promptJSON), "200", 1, true},
		{"chunks", inOne, "200", 1, true},
		{"length and chunks", spoken(unaryPath, withLength+inChunks, chunked(promptJSON, 7)+lastPiece), "200", 1, true},
		{"length within chunks", spoken(unaryPath, "Content-Length: 4\r\n"+inChunks, chunked(promptJSON, 7)+lastPiece), "200", 1, true},
		{"length beyond chunks", spoken(unaryPath, "Content-Length: 5000\r\n"+inChunks, chunked(promptJSON, 7)+lastPiece), "200", 1, true},
		{"length twice", spoken(unaryPath, withLength+withLength, promptJSON), "200", 1, true},
		{"two lengths", spoken(unaryPath, withLength+"Content-Length: 5\r\n", promptJSON), "400", 0, false},
		{"two lengths in one", spoken(unaryPath, fmt.Sprintf("Content-Length: %d, 5\r\n", length), promptJSON), "400", 0, false},
		{"length with a sign", spoken(unaryPath, fmt.Sprintf("Content-Length: +%d\r\n", length), promptJSON), "400", 0, false},
		{"negative length", sized(unaryPath, -1, promptJSON), "400", 0, false},
		{"length in chunks' place", spoken(unaryPath, "Transfer-Encoding: identity\r\n"+withLength, promptJSON), "501", 0, false},
		{"identity, chunked", spoken(unaryPath, "Transfer-Encoding: identity, chunked\r\n", chunked(promptJSON, 7)+lastPiece), "501", 0, false},
		{"chunked twice", spoken(unaryPath, inChunks+inChunks, chunked(promptJSON, 7)+lastPiece), "501", 0, false},
		{"chunked, misspelt", spoken(unaryPath, "Transfer-Encoding: xchunked\r\n"+withLength, promptJSON), "501", 0, false},
		{"chunked, hidden", spoken(unaryPath, "Transfer-Encoding : chunked\r\n"+withLength, promptJSON), "400", 0, false},
		{"extensions of chunks", spoken(unaryPath, inChunks, fmt.Sprintf("%x;name=\"value\";x\r\n%s\r\n0;last\r\n\r\n", length, promptJSON)), "200", 1, true},
		{"trailer", spoken(unaryPath, inChunks+"Trailer: X-Goog-Api-Key\r\n", chunked(promptJSON, 7)+"0\r\nX-Goog-Api-Key: other\r\n\r\n"), "200", 1, true},
		{"no chunk", spoken(unaryPath, inChunks, "zz\r\n"+promptJSON), "400", 0, false},
		{"chunk without an end", spoken(unaryPath, inChunks, fmt.Sprintf("%x\r\n%sXX0\r\n\r\n", length, promptJSON)), "400", 0, false},
		{"chunk of absurd length", spoken(unaryPath, inChunks, "fffffffffffffffff\r\n"+promptJSON), "400", 0, false},
		{"more than declared", sized(unaryPath, length, promptJSON+"0123456789\r\n\r\n"), "200 400", 1, false},
		{"a request behind the length", sized(unaryPath, length, promptJSON+smuggled), "200 200", 1, true}, // a call of its own, which is none
		{"less JSON than sent", sized(unaryPath, length-2, promptJSON+"\r\n\r\n"), "400 400", 0, false},
		{"folded header", spoken(unaryPath, "X-Goog-Api-Client: a\r\n b\r\n"+withLength, promptJSON), "200", 1, true},
		{"folded length", spoken(unaryPath, "Content-Length:\r\n "+strconv.Itoa(length)+"\r\n", promptJSON), "200", 1, true},
		{"NUL in a header", spoken(unaryPath, "X-Goog-Api-Client: a\x00b\r\n"+withLength, promptJSON), "400", 0, false},
		{"NUL in a name", spoken(unaryPath, "X-Goog\x00: a\r\n"+withLength, promptJSON), "400", 0, false},
		{"CR in a header", spoken(unaryPath, "X-Goog-Api-Client: a\rb\r\n"+withLength, promptJSON), "400", 0, false},
		{"header flood", spoken(unaryPath, strings.Repeat("X-Goog-Flood: "+strings.Repeat("x", 1000)+"\r\n", 40)+withLength, promptJSON), "431", 0, false},
		{"one long header", spoken(unaryPath, "X-Goog-Flood: "+strings.Repeat("x", 1<<20)+"\r\n"+withLength, promptJSON), "431", 0, false},
		{"HTTP/1.0", strings.Replace(sized(unaryPath, length, promptJSON), "HTTP/1.1", "HTTP/1.0", 1), "200", 1, false},
		{"HTTP/1.0, kept alive", strings.Replace(spoken(unaryPath, "Connection: keep-alive\r\n"+withLength, promptJSON), "HTTP/1.1", "HTTP/1.0", 1), "200", 1, false},
		{"HTTP/3.7", strings.Replace(sized(unaryPath, length, promptJSON), "HTTP/1.1", "HTTP/3.7", 1), "505", 0, false},
		{"absolute target", strings.Replace(sized(unaryPath, length, promptJSON), unaryPath, "http://127.0.0.1"+unaryPath, 1), "200", 1, true},
		{"to be a websocket", spoken(unaryPath, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+withLength, promptJSON), "200", 1, true},
		{"another expectation", spoken(unaryPath, "Expect: 200-ok\r\n"+withLength, promptJSON), "417", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(drawn)
			w := g.dial(t)
			go func() { _, _ = io.WriteString(w, c.says) }() // what is refused is not read
			for status := range strings.FieldsSeq(c.statuses) {
				if s := w.hears(t); strconv.Itoa(s.StatusCode) != status || s.err != nil {
					t.Fatalf("status %d (%v), want %s: %s", s.StatusCode, s.err, status, shortened(string(s.body)))
				}
			}
			u.asked(t, c.asked)
			for _, r := range u.received() {
				r.isClean(t)
			}
			if !c.isOpen {
				w.isHungUp(t)
			} else {
				w.says(t, sized(unaryPath, length, promptJSON))
				w.hears(t).exactly(t, 200, imageJSON)
			}
		})
	}
}

// isClean fails if anything of the client's connection has reached the upstream.
func (r *request) isClean(t *testing.T) {
	t.Helper()
	if r.URI != unaryPath {
		t.Errorf("the upstream received %s", r.URI)
	}
	for name, values := range r.Header {
		if len(values) > 1 || strings.ContainsAny(values[0], "\r\n\x00") {
			t.Errorf("the upstream received %s: %q", name, values)
		}
	}
	for _, name := range []string{"Connection", "Upgrade", "Trailer", "Expect", "Transfer-Encoding", "Sec-Websocket-Key"} {
		if value, ok := r.Header[name]; ok {
			t.Errorf("the upstream received %s: %q", name, value)
		}
	}
}

// What the gateway says of a body that is not there, or none, it says in the form of
// Google's errors.
func TestBrokenBodies(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, accessLog+gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", quickly))
	for _, c := range []struct {
		name, says string
		status     int
		reason     string
	}{
		{"no chunk", spoken(unaryPath, inChunks, "zz\r\n"), 400, "MALFORMED_REQUEST"},
		{"less than declared", sized(unaryPath, 5000, half), 499, "CANCELLED"},
		{"less than a chunk", spoken(unaryPath, inChunks, "100\r\n"+half), 499, "CANCELLED"},
		{"no last chunk", spoken(unaryPath, inChunks, chunked(promptJSON, 20)), 499, "CANCELLED"},
		{"nothing", sized(unaryPath, 5000, ""), 499, "CANCELLED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *reply
			line := g.accessLineOf(t, func() {
				w := g.dial(t)
				w.says(t, c.says)
				if err := w.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				s = w.hears(t)
				w.isHungUp(t)
			})
			s.fails(t, c.status, c.reason)
			if line["status"] != float64(c.status) {
				t.Errorf("the access log says %v", line["status"])
			}
		})
	}
	u.untouched(t)
}

// A server cannot tell a client that has closed its side of the connection from one
// that has left: Go's and nginx take it for gone. It is told so, at least.
func TestHalfClosedConnection(t *testing.T) {
	cancelled := make(chan struct{})
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		hangs()(w, r)
		close(cancelled)
	})
	g := run(t, accessLog+gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}"))
	line := g.accessLineOf(t, func() {
		w := g.dial(t)
		w.says(t, sized(unaryPath, len(promptJSON), promptJSON))
		eventually(t, "the upstream is asked", func() bool { return len(u.received()) == 1 })
		if err := w.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		w.hears(t).fails(t, 499, "CANCELLED")
		w.isHungUp(t)
	})
	wait(t, "the attempt is cancelled", cancelled)
	if line["status"] != 499.0 {
		t.Errorf("the access log says %v", line["status"])
	}
	u.asked(t, 1)
}

// Whoever does not wait for an answer before the next call gets all of them, in
// order, errors among them.
func TestPipelinedCalls(t *testing.T) {
	_, u := newStudio(t, 0)
	g := inFront(t, u)
	var says strings.Builder
	for id := range 6 {
		body := orderJSON(id)
		if id%3 == 1 {
			body = body[:len(body)-3]
		}
		says.WriteString(sized(pathOf(id), len(body), body))
	}
	w := g.dial(t)
	w.says(t, says.String())
	for id := range 6 {
		s := w.hears(t)
		if id%3 == 1 {
			s.fails(t, 400, "MALFORMED_REQUEST")
		} else if !s.isDelivery(t, id) {
			t.Errorf("answer %d is %d: %s", id, s.StatusCode, shortened(string(s.body)))
		}
	}
	if n := len(u.received()); n != 4 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// A client that asks first is told to go on, unless what it declares is too much.
func TestExpectation(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u, "max_body 1MiB")
	expecting := func(length int) string {
		return spoken(unaryPath, fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", length), "")
	}
	w := g.dial(t)
	w.says(t, expecting(len(promptJSON)))
	if line, err := w.in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("the client heard %q (%v)", line, err)
	}
	_, _ = w.in.ReadString('\n')
	w.says(t, promptJSON)
	w.hears(t).exactly(t, 200, imageJSON)
	u.asked(t, 1)

	w = g.dial(t)
	w.says(t, expecting(200*megabyte))
	w.hears(t).fails(t, 413, "BODY_TOO_LARGE") // http.ReadResponse would have read the 100
	w.isHungUp(t)
	u.asked(t, 1)
}

// A body of a call that has none by its nature reaches the upstream as it is.
func TestBodyOfAGet(t *testing.T) {
	u := scripted(t, answers(200, jsonType, "{}"))
	g := inFront(t, u)
	s := do(t, g.newRequest(t, http.MethodGet, "/v1beta/models/"+imageModel, strings.NewReader(promptJSON)))
	s.exactly(t, 200, "{}")
	if r := u.only(t); r.Method != http.MethodGet || string(r.Body) != promptJSON {
		t.Errorf("the upstream received %s %q", r.Method, r.Body)
	}
}

// Websockets pass on paths that nobody knows, and on those of calls.
func TestWebsocketOnAnyPath(t *testing.T) {
	u := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	})
	g := inFront(t, u)
	for _, path := range []string{unaryPath, "/v1alpha/live/of/the/future", "/ws/google.ai.x"} {
		t.Run(path, func(t *testing.T) {
			u.play(u.answer)
			w := g.dial(t)
			w.says(t, "GET "+path+" HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Goog-Api-Key: "+clientKey+"\r\nConnection: upgrade, X-Goog-Api-Key\r\nUpgrade: websocket\r\n\r\n")
			res, err := http.ReadResponse(w.in, nil)
			if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("the client heard %v (%v)", res, err)
			}
			w.says(t, "echo\n")
			if line, err := w.in.ReadString('\n'); err != nil || line != "echo\n" {
				t.Errorf("the client heard %q (%v)", line, err)
			}
			if r := u.only(t); r.Header.Get("X-Goog-Api-Key") != upstreamKey || r.Header.Get("Upgrade") != "websocket" {
				t.Errorf("the upstream received %v", r.Header)
			}
		})
	}
}

// Credentials and the kind of a body are one each, whatever a client says twice or
// wants to have removed.
func TestHeadersSaidTwice(t *testing.T) {
	const second = "AIzaSySecondSecondSecondSecondSecond333"
	u := scripted(t, drawn)
	own, theirs := "upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", "upstream scripted "+u.URL
	for _, c := range []struct {
		name, upstream, path string
		header               []string
		key, auth, uri       string
	}{
		{"two keys", own, unaryPath, []string{"X-Goog-Api-Key", second}, upstreamKey, "", unaryPath},
		{"key in the query as well", own, unaryPath + "?key=" + second + "&key=" + second, nil, upstreamKey, "", unaryPath},
		{"token as well", own, unaryPath, []string{"Authorization", "Bearer " + second}, upstreamKey, "", unaryPath},
		{"key to be removed", own, unaryPath, []string{"Connection", "X-Goog-Api-Key, Content-Type"}, upstreamKey, "", unaryPath},
		{"two kinds of body", own, unaryPath, []string{"Content-Type", "text/plain"}, upstreamKey, "", unaryPath},
		{"client's own, two keys", theirs, unaryPath, []string{"X-Goog-Api-Key", second}, clientKey, "", unaryPath},
		{"client's own, two tokens", theirs, unaryPath, []string{"Authorization", "Bearer a", "Authorization", "Bearer b"}, clientKey, "Bearer a", unaryPath},
		{"client's own, two kinds of body", theirs, unaryPath, []string{"Content-Type", "text/plain"}, clientKey, "", unaryPath},
		{"forwarded, two keys", theirs, "/v1beta/files", []string{"X-Goog-Api-Key", second}, clientKey, "", "/v1beta/files"},
		{"forwarded, key to be removed", own, "/v1beta/files", []string{"Connection", "X-Goog-Api-Key"}, upstreamKey, "", "/v1beta/files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(drawn)
			g := run(t, gemini(c.upstream))
			r := g.newRequest(t, http.MethodPost, c.path, strings.NewReader(promptJSON))
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Add(c.header[i], c.header[i+1])
			}
			do(t, r).exactly(t, 200, imageJSON)
			got := u.only(t)
			for name, want := range map[string]string{"X-Goog-Api-Key": c.key, "Authorization": c.auth, "Content-Type": "application/json"} {
				if values := strings.Join(got.Header[name], " + "); values != want {
					t.Errorf("the upstream received %s: %q, want %q", name, values, want)
				}
			}
			if got.URI != c.uri {
				t.Errorf("the upstream received %s", got.URI)
			}
		})
	}
}

// Whoever sends a byte at a time is waited for, as long as the server does, and sent
// on once.
func TestClientSendsSlowly(t *testing.T) {
	u := scripted(t, drawn)
	site := gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", quickly)
	g := run(t, site)
	w := g.dial(t)
	for _, b := range []byte(sized(unaryPath, len(promptJSON), promptJSON)) {
		w.says(t, string(b))
		time.Sleep(time.Millisecond / 4)
	}
	w.hears(t).exactly(t, 200, imageJSON)
	u.asked(t, 1)

	u.play(drawn)
	for _, option := range []string{"read_body 300ms", "read_body_idle 300ms"} {
		g.loadWith(t, "servers {\n\ttimeouts {\n\t\t"+option+"\n\t}\n}", site)
		w = g.dial(t)
		w.says(t, sized(unaryPath, 5000, half))
		w.hears(t).fails(t, 499, "CANCELLED")
		w.isHungUp(t)
	}
	u.untouched(t)

	w = g.dial(t)
	w.says(t, sized(unaryPath, 9*megabyte, halfLarge))
	w.hears(t).fails(t, 499, "CANCELLED")
	w.isHungUp(t)
	eventually(t, "the upstream's request ends", func() bool { return len(u.received()) == 1 })
	if u.received()[0].Err == nil {
		t.Error("the upstream took half a request for a whole one")
	}
}

// Headers must come in time, too.
func TestClientSendsHeadersSlowly(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, "respond 204\n")
	g.loadWith(t, "servers {\n\ttimeouts {\n\t\tread_header 200ms\n\t}\n}", gemini("upstream scripted "+u.URL))
	w := g.dial(t)
	w.says(t, "POST "+unaryPath+" HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Goog")
	if _, err := bufio.NewReader(w).ReadByte(); err == nil {
		w.isHungUp(t)
	}
	u.untouched(t)
}
