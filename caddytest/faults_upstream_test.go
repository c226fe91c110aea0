// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// verbatim answers with bytes as they are, whatever they are, and closes the
// connection.
func verbatim(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for i, piece := range pieces {
			if i > 0 {
				time.Sleep(5 * time.Millisecond)
			}
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
	}
}

// endless repeats bytes behind others until nobody takes them any more.
func endless(first, again string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for piece := first; err == nil; piece = again {
			_, err = io.WriteString(conn, piece)
		}
	}
}

// wire makes an answer of header lines and of what follows them. The connection
// says that it is closed, so that no call after it waits for it.
func wire(contentType string, lines ...string) string {
	body := lines[len(lines)-1]
	return "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: " + contentType + "\r\n" +
		strings.Join(append(lines[:len(lines)-1], "", body), "\r\n")
}

const chunkedLine = "Transfer-Encoding: chunked"

func lengthLine(n int) string { return fmt.Sprintf("Content-Length: %d", n) }

func wireChunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// zipped is a gzip answer of these bytes.
func zippedWire(contentType, body string) string {
	return wire(contentType, "Content-Encoding: gzip", lengthLine(len(body)), body)
}

// fields are header lines of n fields.
func fields(n, size int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-Flood-%d: %s\r\n", i, strings.Repeat("x", size))
	}
	return strings.TrimSuffix(b.String(), "\r\n")
}

// spoilt changes one bit of the checksum behind a gzip.
func spoilt(z string) string {
	b := []byte(z)
	b[len(b)-6] ^= 1
	return string(b)
}

// broken is a way of an upstream to give an answer that is none. Its wire is made
// of a body: of a text, or of a stream that is held.
type broken struct {
	name   string
	wire   func(contentType, body string) string
	reason string // UPSTREAM_UNAVAILABLE, unless it says otherwise
	reveal string // in Proxy-Status
}

const answered = "; received-status=200; error="

var brokenAnswers = []broken{
	{name: "closed at once", wire: func(string, string) string { return "" }, reveal: "; error=http_response_incomplete"},
	{name: "no HTTP", wire: func(string, string) string { return "SSH-2.0-OpenSSH_9.7\r\n\r\n" }, reveal: "; error=http_protocol_error"},
	{name: "half a status line", wire: func(string, string) string { return "HTTP/1.1 20" }, reveal: "; error=http_protocol_error"},
	{name: "half a header", wire: func(string, string) string { return "HTTP/1.1 200 OK\r\nContent-Type: " }, reveal: "; error=http_response_incomplete"},
	{name: "no field", wire: func(c, body string) string { return wire(c, "no colon", body) }, reveal: "; error=http_protocol_error"},
	{name: "two lengths", wire: func(c, body string) string { return wire(c, lengthLine(5), lengthLine(6), body) }, reveal: "; error=http_protocol_error"},
	{name: "no length", wire: func(c, body string) string { return wire(c, "Content-Length: some", body) }, reveal: "; error=http_protocol_error"},
	{name: "unknown coding", wire: func(c, body string) string { return wire(c, "Transfer-Encoding: rot13", body) }, reveal: "; error=http_response_transfer_coding"},
	{name: "10,000 fields", wire: func(c, body string) string { return wire(c, fields(10_000, 10), lengthLine(len(body)), body) }, reveal: "; error=http_response_header_section_size"},
	{name: "field of 2 MB", wire: func(c, body string) string { return wire(c, fields(1, 2<<20), lengthLine(len(body)), body) }, reveal: "; error=http_response_header_section_size"},
	{name: "10,000 early answers", wire: func(c, body string) string {
		return strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 10_000) + wire(c, lengthLine(len(body)), body)
	}, reveal: "; error=http_response_header_section_size"},
	{name: "204 with a body", wire: func(c, body string) string {
		return strings.Replace(wire(c, lengthLine(len(body)), body), "200 OK", "204 No Content", 1)
	}, reason: "EMPTY_RESPONSE", reveal: "; received-status=204"},
	{name: "304 with a body", wire: func(c, body string) string {
		return strings.Replace(wire(c, lengthLine(len(body)), body), "200 OK", "304 Not Modified", 1)
	}, reason: "EMPTY_RESPONSE", reveal: "; received-status=304"},
	{name: "length too long", wire: func(c, body string) string { return wire(c, lengthLine(len(body)), body[:60]) }, reveal: answered + "http_response_incomplete"},
	{name: "length too short", wire: func(c, body string) string { return wire(c, lengthLine(60), body) }, reveal: "; received-status=200"},
	{name: "no chunk size", wire: func(c, body string) string { return wire(c, chunkedLine, wireChunk(body[:60])+"zz\r\n"+body[60:]) }, reveal: answered + "http_response_transfer_coding"},
	{name: "large chunk size", wire: func(c, body string) string { return wire(c, chunkedLine, "fffffffffffffffff\r\n"+body) }, reveal: answered + "http_response_transfer_coding"},
	{name: "wrong chunk size", wire: func(c, body string) string { return wire(c, chunkedLine, "10\r\n"+body+"\r\n0\r\n\r\n") }, reveal: answered + "http_response_transfer_coding"},
	{name: "missing chunks", wire: func(c, body string) string { return wire(c, chunkedLine, wireChunk(body[:60])) }, reveal: answered + "http_response_incomplete"},
	{name: "half a gzip", wire: func(c, body string) string { z := gzipped(body); return zippedWire(c, z[:len(z)/2]) }, reveal: answered + "http_response_incomplete"},
	{name: "no gzip", wire: zippedWire, reveal: answered + "http_response_content_coding"},
	{name: "brackets without end", wire: func(c, body string) string {
		brackets := body[:strings.Index(body, "{")] + strings.Repeat("[", 100_000)
		return wire(c, lengthLine(len(brackets)), brackets)
	}, reveal: "; received-status=200"},
}

// wholeButBroken are answers whose JSON is whole, but which are not: an answer
// without an image is held to its end, and has not been delivered by then.
var wholeButBroken = []broken{
	{name: "length too long, JSON whole", wire: func(c, body string) string { return wire(c, lengthLine(len(body)+1), body) }, reveal: answered + "http_response_incomplete"},
	{name: "missing last chunk", wire: func(c, body string) string { return wire(c, chunkedLine, wireChunk(body)) }, reveal: answered + "http_response_incomplete"},
	{name: "trailer that is none", wire: func(c, body string) string { return wire(c, chunkedLine, wireChunk(body)+"0\r\nno colon\r\n\r\n") }, reveal: answered + "http_protocol_error"},
	{name: "trailer flood", wire: func(c, body string) string {
		return wire(c, chunkedLine, wireChunk(body)+"0\r\n"+fields(10_000, 10)+"\r\n\r\n")
	}, reveal: answered + "http_response_transfer_coding"},
	{name: "gzip without its sum", wire: func(c, body string) string { z := gzipped(body); return zippedWire(c, z[:len(z)-8]) }, reveal: answered + "http_response_incomplete"},
	{name: "gzip with a wrong sum", wire: func(c, body string) string { return zippedWire(c, spoilt(gzipped(body))) }, reveal: answered + "http_response_content_coding"},
	{name: "gzip and something else", wire: func(c, body string) string { return zippedWire(c, gzipped(body)+"something else") }, reveal: answered + "http_response_content_coding"},
}

// faultSite is a Caddy before an upstream that is alone, or has another behind
// it, as the client says in a header. It is one for all rows of a table: to start
// one takes longer than most of them.
type faultSite struct {
	*gateway
	first, second *upstream
}

// withoutDelay sends a call twice, at once.
const withoutDelay = "retry {\n\tattempts 2\n\tbackoff 1ms 1ms\n\tbudget off\n\tdeadline 20s\n}"

func newFaultSite(t *testing.T, options string) *faultSite {
	t.Helper()
	s := &faultSite{first: scripted(t, drawn), second: scripted(t, drawn)}
	options += "\n\tprobe 1ns" // what went before demotes it, but every call may be the canary
	alone := strings.Replace(gemini(inOrder(options, s.first), withoutDelay), "gemini {", "gemini @alone {", 1)
	s.gateway = run(t, "@alone header X-Alone yes\n"+alone+gemini(inOrder(options, s.first, s.second), withoutDelay))
	s.isWell(t) // with which all connections are there that are kept
	s.reroutes(t, unaryPath, overloaded)
	s.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	return s
}

// fails plays a fault to a call that has nowhere else to go, and to one that
// has; and then the upstream is well, and serves the next call.
func (s *faultSite) fails(t *testing.T, path string, plays http.HandlerFunc, status int, reason, reveal string) {
	t.Helper()
	s.first.play(plays)
	alone := s.post(t, path, promptJSON, "X-Alone", "yes")
	e := alone.fails(t, status, reason)
	s.first.asked(t, 2)
	if e.metadata("class") != "transient" || e.metadata("attempts") != "2" || e.metadata("upstream") != "first" {
		t.Errorf("details: %v", e.Details)
	}
	want := `caddy-gemini; next-hop="first"` + reveal + `; attempts=2; details="` + reason + `"`
	if got := alone.Header.Get("Proxy-Status"); got != want {
		t.Errorf("Proxy-Status %s\nwant         %s", got, want)
	}
	s.reroutes(t, path, plays)
	s.isWell(t)
}

// reroutes plays a fault to a call that another upstream can serve.
func (s *faultSite) reroutes(t *testing.T, path string, plays http.HandlerFunc) {
	t.Helper()
	s.first.play(plays)
	s.second.play(drawn)
	other := s.post(t, path, promptJSON)
	other.exactly(t, 200, imageJSON)
	s.first.asked(t, 1)
	s.second.asked(t, 1)
	if got, want := other.Header.Get("Proxy-Status"), `caddy-gemini; next-hop="second"; received-status=200; attempts=2`; got != want {
		t.Errorf("Proxy-Status %s\nwant         %s", got, want)
	}
}

// isWell fails unless the next call is served at once.
func (s *faultSite) isWell(t *testing.T) {
	t.Helper()
	s.first.play(drawn)
	next := s.post(t, unaryPath, promptJSON, "X-Alone", "yes")
	next.exactly(t, 200, imageJSON)
	s.first.asked(t, 1)
}

// leavesNothing fails if there are more goroutines after a test than before it.
func leavesNothing(t *testing.T, test func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	test()
	for end := time.Now().Add(patient); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			var stacks bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Fatalf("%d goroutines, there were %d before\n%s", runtime.NumGoroutine(), before, shortened(stacks.String()))
		}
	}
}

// What is broken before the verdict is transient, is tried again, and reaches no
// client.
func TestBrokenAnswersOfUpstreams(t *testing.T) {
	s := newFaultSite(t, "")
	leavesNothing(t, func() {
		for _, b := range brokenAnswers {
			t.Run(b.name, func(t *testing.T) { s.breaks(t, &b, unaryPath, jsonType, textJSON) })
			if strings.HasPrefix(b.reveal, "; received-status=200") {
				t.Run(b.name+" in events", func(t *testing.T) { s.breaks(t, &b, streamPath, eventType, event(textChunk)+event(textChunk)) })
			}
		}
		for _, b := range wholeButBroken {
			t.Run(b.name, func(t *testing.T) { s.breaks(t, &b, unaryPath, jsonType, textJSON) })
		}
	})
}

func (s *faultSite) breaks(t *testing.T, b *broken, path, contentType, body string) {
	t.Helper()
	reason := b.reason
	if reason == "" {
		reason = "UPSTREAM_UNAVAILABLE"
	}
	s.fails(t, path, verbatim(b.wire(contentType, body)), 503, reason, b.reveal)
}

// What has no end before its verdict is not read to it.
func TestEndlessHeadersOfUpstreams(t *testing.T) {
	s := newFaultSite(t, "")
	for name, plays := range map[string]http.HandlerFunc{
		"fields":        endless("HTTP/1.1 200 OK\r\n", fields(1000, 100)+"\r\n"),
		"a field":       endless("HTTP/1.1 200 OK\r\nX-Long: ", strings.Repeat("x", 10_000)),
		"early answers": endless("", "HTTP/1.1 102 Processing\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			s.fails(t, unaryPath, plays, 503, "UPSTREAM_UNAVAILABLE", "; error=http_response_header_section_size")
		})
	}
}

// The operator's bound on the header counts, not ours.
func TestBoundOfHeadersIsTheTransports(t *testing.T) {
	s := newFaultSite(t, "\ttransport http {\n\t\tmax_response_header 1MiB\n\t}")
	s.first.play(verbatim(wire(jsonType, fields(10_000, 10), lengthLine(len(imageJSON)), imageJSON)))
	s.post(t, unaryPath, promptJSON, "X-Alone", "yes").exactly(t, 200, imageJSON)
	s.fails(t, unaryPath, verbatim(wire(jsonType, fields(1, 2<<20), lengthLine(len(imageJSON)), imageJSON)),
		503, "UPSTREAM_UNAVAILABLE", "; error=http_response_header_section_size")
}

// What is odd but whole is delivered, byte for byte, and spoils nothing that
// comes after it on the same connection.
func TestOddAnswersOfUpstreams(t *testing.T) {
	const kept = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	invalid := candidate("{\"text\":\"a\xff\xfe\x80\xc0\xafb\"}", `"STOP"`)
	deep := `{"extra":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `,` + strings.TrimPrefix(textJSON, "{")
	drop := []string{wire(jsonType, lengthLine(len(textJSON)), textJSON[:len(textJSON)-40])}
	drop = append(drop, strings.Split(textJSON[len(textJSON)-40:], "")...)
	s := newFaultSite(t, "")
	for _, c := range []struct {
		name, want string
		plays      http.HandlerFunc
	}{
		{"early hints", textJSON, verbatim("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", wire(jsonType, lengthLine(len(textJSON)), textJSON))},
		{"a trailer", textJSON, verbatim(wire(jsonType, "Trailer: X-Sum", chunkedLine, wireChunk(textJSON)+"0\r\nX-Sum: 1\r\n\r\n"))},
		{"more than the length", textJSON, verbatim(kept + lengthLine(len(textJSON)) + "\r\n\r\n" + textJSON + "HTTP/1.1 200 OK\r\n\r\nsmuggled")},
		{"more behind the last chunk", textJSON, verbatim(kept + chunkedLine + "\r\n\r\n" + wireChunk(textJSON) + "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nsmuggled")},
		{"length and chunks", textJSON, verbatim(wire(jsonType, lengthLine(7), chunkedLine, wireChunk(textJSON)+"0\r\n\r\n"))},
		{"until the connection closes", textJSON, verbatim("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + textJSON)},
		{"one byte after the other", textJSON, verbatim(drop...)},
		{"invalid UTF-8", invalid, answers(200, jsonType, invalid)},
		{"JSON 100,000 levels deep", deep, answers(200, jsonType, deep)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.first.play(c.plays)
			r := s.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))
			r.Header.Set("X-Alone", "yes")
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
					t.Errorf("the client got a %d", code)
					return nil
				},
			}))
			do(t, r).exactly(t, 200, c.want)
			s.first.asked(t, 1)
			s.isWell(t)
		})
	}
}

// An error that is itself broken keeps its status, and what it means.
func TestBrokenErrorsOfUpstreams(t *testing.T) {
	s := newFaultSite(t, "")
	for _, c := range []struct {
		name   string
		status int
		times  int
		line   string
	}{
		{"503", 503, 2, lengthLine(5000)},
		{"404", 404, 1, lengthLine(5000)},
		{"503 that is no gzip", 503, 2, "Content-Encoding: gzip"},
		{"404 that is no gzip", 404, 1, "Content-Encoding: gzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := strings.Replace(wire(jsonType, c.line, googleErrorJSON), "200 OK", fmt.Sprintf("%d Error", c.status), 1)
			s.first.play(verbatim(body))
			a := s.post(t, unaryPath, promptJSON, "X-Alone", "yes")
			e := parseError(t, a.body)
			if a.StatusCode != c.status || e.Code != c.status || a.Header.Get("X-Should-Retry") != "false" || a.Header.Get("Content-Encoding") != "" {
				t.Errorf("status %d, error %+v, header %v", a.StatusCode, e, a.Header)
			}
			s.first.asked(t, c.times)
			s.isWell(t)
		})
	}
}

// What there is of a short answer that breaks off reaches the client, as with
// reverse_proxy: it may be all of an image.
func TestShortAnswersThatBreakOff(t *testing.T) {
	const length = 400
	image := `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]},"finishReason":"STOP"}]}`
	u := scripted(t, verbatim(wire(jsonType, lengthLine(length), image)))
	g := inFront(t, u)
	got := do(t, g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON)))
	if got.StatusCode != 200 || got.ContentLength != length || string(got.body) != image || got.err == nil {
		t.Errorf("%d, length %d, %v: %s", got.StatusCode, got.ContentLength, got.err, got.body)
	}
	u.only(t)
}
