// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// proxied is the second door: a reverse_proxy whose transport is the gateway.
func proxied(address string, options []string, around ...string) string {
	return "reverse_proxy " + address + " {\n" + strings.Join(around, "\n") +
		"\ntransport gemini {\n" + strings.Join(options, "\n") + "\n}\n}\n"
}

// once are options for calls that are made once and forgotten.
func once(options ...string) []string { return append(options, "retry off", "guard off") }

// Calls are completed and judged as they are by the handler.
func TestTransport(t *testing.T) {
	const chat = "/v1beta/openai/chat/completions"
	filtered := `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`
	array := "[" + textChunk + "\n,\r\n" + imageChunk + "]"
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		option     string
		status     int
		answer     string // byte for byte, or
		reason     string // of an error
	}{
		{"image", unaryPath, drawn, "", 200, imageJSON, ""},
		{"events", streamPath, events(textChunk, imageChunk, lastChunk), "", 200, event(textChunk) + event(imageChunk) + event(lastChunk), ""},
		{"array", arrayPath, answers(200, jsonType, array), "", 200, array, ""},
		{"gzip", unaryPath, compressed(imageJSON), "", 200, imageJSON, ""},
		{"block", unaryPath, answers(200, jsonType, blockedJSON), "", 400, "", "IMAGE_SAFETY"},
		{"block in events", streamPath, events(textChunk, blockedJSON), "", 400, "", "IMAGE_SAFETY"},
		{"block in gzip", unaryPath, compressed(promptBlockedJSON), "", 400, "", "PROHIBITED_CONTENT"},
		{"block_status 422", unaryPath, answers(200, jsonType, blockedJSON), "block_status 422", 422, "", "IMAGE_SAFETY"},
		{"block_status pass", unaryPath, answers(200, jsonType, blockedJSON), "block_status pass", 200, blockedJSON, ""},
		{"no image", unaryPath, answers(200, jsonType, textJSON), "no_image error", 400, "", "NO_IMAGE"},
		{"an error of Google's", unaryPath, overloaded, "", 503, googleErrorJSON, ""},
		{"nothing", unaryPath, answers(200, jsonType, ""), "", 503, "", "EMPTY_RESPONSE"},
		{"too large", unaryPath, drawn, "max_body 10B", 413, "", "BODY_TOO_LARGE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			g := run(t, proxied(u.URL, once(c.option)))
			s := g.post(t, c.path, promptJSON, "Accept-Encoding", "gzip, br", "Cookie", "session=1")
			if c.reason != "" {
				s.fails(t, c.status, c.reason)
			} else {
				s.exactly(t, c.status, c.answer)
			}
			if c.status == 413 {
				u.untouched(t)
				return
			}
			if via := s.Header.Get("Proxy-Status"); !strings.HasPrefix(via, `caddy-gemini; next-hop="reverse_proxy"; received-status=`) {
				t.Errorf("Proxy-Status %q", via)
			}
			r := u.only(t)
			if r.URI != c.path || string(r.Body) != completedJSON {
				t.Errorf("the upstream received %s %s", r.URI, r.Body)
			}
			if key := r.Header.Values("X-Goog-Api-Key"); len(key) != 1 || key[0] != clientKey {
				t.Errorf("the upstream received the keys %q", key)
			}
			for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "Via", "Cookie"} {
				if value := r.Header.Get(name); value != "" {
					t.Errorf("the upstream received %s: %s", name, value)
				}
			}
		})
	}
	t.Run("OpenAI", func(t *testing.T) {
		u := scripted(t, answers(200, jsonType, filtered))
		s := run(t, proxied(u.URL, once())).post(t, chat, `{"model":"x","messages":[]}`)
		if s.StatusCode != 400 || !strings.Contains(string(s.body), `"code":"content_policy_violation"`) {
			t.Errorf("%d %s", s.StatusCode, s.body)
		}
	})
}

// With upstreams of its own, nothing goes to the address of the reverse_proxy,
// which need not even be there. They speak TLS like those of the handler.
func TestTransportWithUpstreams(t *testing.T) {
	address := scripted(t, drawn)
	first, second := scripted(t, overloaded), scripted(t, nil)
	second.Server = httptest.NewTLSServer(second)
	t.Cleanup(second.Server.Close)
	second.play(drawn)
	own := place("one", first, theKey("a")) + place("two", second, theKey("b"), "transport http {\ntls_insecure_skip_verify\n}")
	for _, to := range []string{address.URL, "http://" + freeAddress(t), "https://" + freeAddress(t)} {
		first.play(overloaded)
		second.play(drawn)
		g := run(t, proxied(to, []string{quickly, guarding, own}))
		s := g.post(t, unaryPath, promptJSON)
		s.exactly(t, 200, imageJSON)
		if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="two"; received-status=200; attempts=2` {
			t.Errorf("Proxy-Status %q", via)
		}
		for i, v := range went(t, "first second", first, second) {
			at := []*upstream{first, second}[i]
			if _, host, _ := strings.Cut(at.URL, "//"); v.Host != host || v.Header.Get("X-Goog-Api-Key") != upstreamKey {
				t.Errorf("%s received the host %s and the headers %v", at.URL, v.Host, v.Header)
			}
		}
		do(t, g.newRequest(t, http.MethodGet, "/v1beta/models?key="+clientKey, nil)).exactly(t, 503, googleErrorJSON)
		if r := first.received()[1]; r.URI != "/v1beta/models" || r.Header.Get("X-Goog-Api-Key") != upstreamKey {
			t.Errorf("the upstream received %s %v", r.URI, r.Header)
		}
	}
	address.untouched(t)
}

// An https:// address is spoken to in TLS, and has to prove who it is.
func TestTransportVerifiesItsAddress(t *testing.T) {
	u := httptest.NewTLSServer(drawn)
	defer u.Close()
	s := run(t, proxied(u.URL, once())).post(t, unaryPath, promptJSON)
	s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
	if via := s.Header.Get("Proxy-Status"); !strings.Contains(via, "error=tls_certificate_error") {
		t.Errorf("Proxy-Status %q", via)
	}
}

// What follows a failure or a block does not depend on the door.
func TestTransportTriesAgain(t *testing.T) {
	body := strings.Replace(completedJSON, `"`+prompt+`"`, "%s", 1)
	block := answers(200, jsonType, blockedJSON)
	t.Run("retry", func(t *testing.T) {
		u := scripted(t, inTurn(overloaded, limited("0.01s"), drawn))
		s := run(t, proxied(u.URL, []string{quickly})).post(t, unaryPath, promptJSON)
		s.exactly(t, 200, imageJSON)
		if via := s.Header.Get("Proxy-Status"); !strings.HasSuffix(via, "; attempts=3") {
			t.Errorf("Proxy-Status %q", via)
		}
		u.checkWordings(t, body, [][]string{{prompt}, {prompt}, {prompt}})
	})
	t.Run("repair", func(t *testing.T) {
		u := scripted(t, rejecting("responseModalities", "/v1/", unknownModalities))
		run(t, proxied(u.URL, []string{quickly})).post(t, v1Path, promptJSON).exactly(t, 200, imageJSON)
		went(t, "first first", u)
	})
	t.Run("rephrase", func(t *testing.T) {
		u := scripted(t, inTurn(block, drawn))
		run(t, proxied(u.URL, []string{quickly, opted})).post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
		u.checkWordings(t, body, [][]string{{prompt}, {"Digital art illustration: " + prompt}})
	})
	t.Run("guard", func(t *testing.T) {
		u := scripted(t, inTurn(block, drawn))
		g := run(t, proxied(u.URL, []string{guarding, quickly}))
		g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
		g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		u.only(t)
		// It is one memory: whatever door a call comes through.
		g.load(t, gemini(place("direct", u), guarding))
		g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		u.only(t)
		g.post(t, unaryPath, promptJSON, "X-Goog-Api-Key", otherKey).exactly(t, 200, imageJSON)
	})
	t.Run("late block", func(t *testing.T) {
		u := scripted(t, events(textChunk, blockedJSON))
		g := run(t, proxied(u.URL, []string{guarding}))
		s := g.post(t, textPath, promptJSON)
		behind, _ := strings.CutPrefix(string(s.body), event(textChunk)+event(blockedJSON))
		checkLateError(t, behind, "IMAGE_SAFETY")
		g.post(t, textPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		u.only(t)
	})
}

// Metrics, placeholders and the access log tell what the handler's do.
func TestTransportAccounts(t *testing.T) {
	u := scripted(t, nil)
	g := run(t, accessLog+"metrics /metrics\n"+proxied("http://"+freeAddress(t), once(place("accounted", u, theKey("studio")))))
	before := g.counters(t)
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		status     float64
		want       string
	}{
		{"image", unaryPath, drawn, 200, imageModel + " generateContent accounted studio 1 ok  1 1306"},
		{"block", unaryPath + "?key=" + clientKey, answers(200, jsonType, blockedJSON), 400, imageModel + " generateContent accounted studio 1 blocked IMAGE_SAFETY 0 238"},
		{"late block", textPath, events(textChunk, blockedJSON), 200, textModel + " streamGenerateContent accounted studio 1 blocked IMAGE_SAFETY 0 238"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(c.plays)
			line := g.accessLineOf(t, func() { g.post(t, c.path, promptJSON) })
			facts, _ := line["gemini"].(map[string]any)
			if line["status"] != c.status {
				t.Errorf("status %v, want %v", line["status"], c.status)
			}
			if got := line.fields(facts, ""); got != c.want {
				t.Errorf("fields %q\nwant   %q", got, c.want)
			}
			if got := line.fields(line, "placeholder_"); got != c.want {
				t.Errorf("placeholders %q\nwant         %q", got, c.want)
			}
		})
	}
	after := g.counters(t)
	for series, want := range map[string]float64{
		`requests_total{model="` + imageModel + `",reason="",upstream="accounted",verdict="ok"}`:                  1,
		`requests_total{model="` + imageModel + `",reason="IMAGE_SAFETY",upstream="accounted",verdict="blocked"}`: 1,
		`attempts_total{upstream="accounted",verdict="blocked"}`:                                                  2,
		`images_total{model="` + imageModel + `",upstream="accounted"}`:                                           1,
	} {
		if got := after[series] - before[series]; got != want {
			t.Errorf("%s rose by %v, want %v", series, got, want)
		}
	}
}

// accessLineOf is the line that a call leaves in the access log.
func (g *gateway) accessLineOf(t *testing.T, call func()) (line accessLine) {
	t.Helper()
	before := len(g.accessLines(t))
	call()
	eventually(t, "a line in the access log", func() bool {
		for _, text := range g.accessLines(t)[before:] {
			if !strings.Contains(text, `"uri":"/metrics"`) {
				return json.Unmarshal([]byte(text), &line) == nil
			}
		}
		return false
	})
	return line
}

// A client that leaves is no failure of anybody's, and ends the call.
func TestClientLeavesTheTransport(t *testing.T) {
	asked, cancelled := make(chan struct{}), make(chan struct{})
	u := scripted(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(cancelled)
	})
	g := run(t, accessLog+proxied(u.URL, []string{quickly}))
	line := g.accessLineOf(t, func() {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))
			res, err := newTransport(t).RoundTrip(r.WithContext(ctx))
			if err == nil {
				_ = res.Body.Close()
			}
			left <- err
		}()
		wait(t, "the upstream is asked", asked)
		leave()
		wait(t, "the upstream's request is cancelled", cancelled)
		if err := <-left; err == nil {
			t.Error("the client got an answer")
		}
	})
	facts, _ := line["gemini"].(map[string]any)
	if line["status"] != 499.0 || facts["verdict"] != "client" || facts["reason"] != "CANCELLED" || facts["attempts"] != 1.0 {
		t.Errorf("status %v, fields %v", line["status"], facts)
	}
	u.only(t)
}

// Events reach the client as they come.
func TestTransportHoldsNothingBack(t *testing.T) {
	next := make(chan struct{})
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", eventType)
		send(w, event(textChunk))
		select {
		case <-next:
			send(w, event(lastChunk))
		case <-r.Context().Done():
		}
	})
	g := run(t, proxied(u.URL, once()))
	res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, textPath, strings.NewReader(promptJSON)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, len(event(textChunk)))
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != event(textChunk) {
		t.Fatalf("the client saw %q (%v)", first, err)
	}
	close(next)
	if rest, err := io.ReadAll(res.Body); err != nil || string(rest) != event(lastChunk) {
		t.Errorf("the client saw %q (%v)", rest, err)
	}
}

// Calls that generate nothing pass both ways untouched.
func TestTransportForwards(t *testing.T) {
	upload := strings.Repeat("\x00\xffnot JSON\r\n", 20_000)
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Goog-Upload-Url", "https://example.com/upload")
		answers(201, jsonType, blockedJSON)(w, r)
	})
	g := run(t, proxied(u.URL, []string{"max_body 1KiB"}))
	for _, c := range []struct{ name, method, uri, body string }{
		{"upload", "POST", "/upload/v1beta/files?uploadType=resumable", upload},
		{"models", "GET", "/v1beta/models?pageSize=50&pageToken=a%2Fb", ""},
		{"countTokens", "POST", "/v1beta/models/" + imageModel + ":countTokens", promptJSON},
		{"deletion", "DELETE", "/v1beta/files/abc-123", ""},
		{"no API at all", "PUT", "/somewhere/else?x=%20", upload},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(u.answer)
			r := g.newRequest(t, c.method, c.uri, strings.NewReader(c.body))
			r.Header.Set("X-Goog-Upload-Command", "start, upload")
			s := do(t, r)
			s.exactly(t, 201, blockedJSON)
			if s.Header.Get("X-Goog-Upload-Url") == "" {
				t.Error("a header of the answer is missing")
			}
			received := u.only(t)
			if received.Method != c.method || received.URI != c.uri || string(received.Body) != c.body {
				t.Errorf("the upstream received %s %s with %d bytes", received.Method, received.URI, len(received.Body))
			}
			if received.Header.Get("X-Goog-Upload-Command") == "" || received.Header.Get("X-Goog-Api-Key") != clientKey {
				t.Errorf("the upstream received the headers %v", received.Header)
			}
		})
	}
}

// The Live API is a websocket.
func TestTransportLiveAPI(t *testing.T) {
	const path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
	u := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n")
		line, _ := buffered.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	})
	for _, directives := range []string{
		proxied(u.URL, nil),
		proxied("http://"+freeAddress(t), []string{place("live", u, theKey("a"))}),
	} {
		u.play(u.answer)
		g := run(t, directives)
		conn, err := net.DialTimeout("tcp", g.address, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET %s?alt=x HTTP/1.1\r\nHost: %s\r\nX-Goog-Api-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly\n", path, g.address, clientKey)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("the client saw %v (%v)", res, err)
		}
		for _, want := range []string{"hello\n", "echo early\n"} {
			if line, err := in.ReadString('\n'); err != nil || line != want {
				t.Fatalf("the client saw %q (%v), want %q", line, err, want)
			}
		}
		if r := u.only(t); r.URI != path+"?alt=x" || r.Header.Get("Upgrade") != "websocket" {
			t.Errorf("the upstream received %s %v", r.URI, r.Header)
		}
	}
}
