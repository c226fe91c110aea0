// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framed is an upstream that speaks HTTP/2 without TLS, frame by frame. One script
// is for one request, over all connections; the last is for all that follow.
type framed struct {
	calls   atomic.Int32
	scripts []func(*frames)
}

// frames is what a script writes: frames of the stream of one request.
type frames struct {
	*http2.Framer
	stream uint32
	conn   net.Conn
}

// newFramed starts such an upstream.
func newFramed(t *testing.T, scripts ...func(*frames)) (f *framed, u *upstream) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f = &framed{scripts: scripts}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return f, &upstream{Server: &httptest.Server{URL: "http://" + l.Addr().String()}}
}

// serve hands each request to its script when it has come to its end.
func (f *framed) serve(conn net.Conn) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.DataFrame:
			if !frame.StreamEnded() {
				continue
			}
			n := int(f.calls.Add(1))
			f.scripts[min(n, len(f.scripts))-1](&frames{framer, frame.StreamID, conn})
		}
	}
}

// head writes the header of an answer.
func (f *frames) head(fields ...string) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	first := block.Next(16 << 10)
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.stream, BlockFragment: first, EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		next := block.Next(16 << 10)
		_ = f.WriteContinuation(f.stream, block.Len() == 0, next)
	}
}

func (f *frames) ok(more ...string) {
	f.head(append([]string{":status", "200", "content-type", "application/json"}, more...)...)
}

// data writes a body, in frames that fit.
func (f *frames) data(body string, end bool) {
	for len(body) > 16<<10 {
		_ = f.WriteData(f.stream, false, []byte(body[:16<<10]))
		body = body[16<<10:]
	}
	_ = f.WriteData(f.stream, end, []byte(body))
}

func (f *frames) reset(code http2.ErrCode) { _ = f.WriteRSTStream(f.stream, code) }

// goAway says that nothing after the last stream has been seen, and leaves.
func (f *frames) goAway(last uint32, code http2.ErrCode) {
	_ = f.WriteGoAway(last, code, nil)
	_ = f.conn.Close()
}

func draws(f *frames) {
	f.ok()
	f.data(textJSON, true)
}

const overH2C = "\ttransport http {\n\t\tversions h2c\n\t}"

// A stream that is reset, or a connection that goes away, ends a call like a
// connection that breaks off. One that the upstream says it has not begun is sent
// again by the transport, and is no attempt.
func TestHTTP2Faults(t *testing.T) {
	var flood []string
	for i := range 10_000 {
		flood = append(flood, "x-flood-"+strconv.Itoa(i), "x")
	}
	for _, c := range []struct {
		name    string
		plays   func(*frames)
		isFree  bool // it is no attempt
		reveal  string
		arrives int // how often the upstream is asked, alone, with two attempts
	}{
		{"reset before the header", func(f *frames) { f.reset(http2.ErrCodeInternal) }, false, "; error=connection_terminated", 2},
		{"reset inside the body", func(f *frames) { f.ok(); f.data(textJSON[:60], false); f.reset(http2.ErrCodeInternal) }, false, "; received-status=200; error=connection_terminated", 2},
		{"reset behind a whole JSON", func(f *frames) { f.ok(); f.data(textJSON, false); f.reset(http2.ErrCodeCancel) }, false, "; received-status=200; error=connection_terminated", 2},
		{"gone before the header", func(f *frames) { f.goAway(f.stream, http2.ErrCodeInternal) }, false, "; error=connection_terminated", 2},
		{"gone inside the body", func(f *frames) {
			f.ok()
			f.data(textJSON[:60], false)
			f.goAway(f.stream, http2.ErrCodeEnhanceYourCalm)
		}, false, "; received-status=200; error=connection_terminated", 2},
		{"body that is too short", func(f *frames) { f.ok("content-length", "5000"); f.data(textJSON, true) }, false, "; received-status=200; error=http_response_incomplete", 2},
		{"header flood", func(f *frames) { f.ok(flood...); f.data(textJSON, true) }, false, "; error=connection_terminated", 2},
		{"refused", func(f *frames) { f.reset(http2.ErrCodeRefusedStream) }, true, "", 2},
		{"gone before it was begun", func(f *frames) { f.goAway(f.stream-1, http2.ErrCodeNo) }, true, "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, u := newFramed(t, c.plays, c.plays, draws)
			if c.isFree {
				f.scripts = f.scripts[1:]
			}
			g := run(t, gemini(inOrder(overH2C, u), withoutDelay))
			s := g.post(t, unaryPath, promptJSON)
			if c.isFree {
				s.exactly(t, 200, textJSON)
				if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="first"; received-status=200` {
					t.Errorf("Proxy-Status %s", via)
				}
			} else {
				s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
				if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="first"`+c.reveal+`; attempts=2; details="UPSTREAM_UNAVAILABLE"` {
					t.Errorf("Proxy-Status %s", via)
				}
			}
			if n := int(f.calls.Load()); n != c.arrives {
				t.Errorf("the upstream was asked %d times, want %d", n, c.arrives)
			}
			g.post(t, unaryPath, promptJSON).exactly(t, 200, textJSON)
			if c.isFree {
				return
			}
			f, u = newFramed(t, c.plays)
			second := scripted(t, drawn)
			g.load(t, gemini(inOrder(overH2C, u, second), withoutDelay))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			second.asked(t, 1)
			if n := f.calls.Load(); n != 1 {
				t.Errorf("the first upstream was asked %d times", n)
			}
		})
	}
}

// One that begins no call, ever, is sent each attempt twice at the most.
func TestHTTP2RefusesForever(t *testing.T) {
	for name, plays := range map[string]func(*frames){
		"refused": func(f *frames) { f.reset(http2.ErrCodeRefusedStream) },
		"gone":    func(f *frames) { f.goAway(f.stream-1, http2.ErrCodeNo) },
	} {
		t.Run(name, func(t *testing.T) {
			f, u := newFramed(t, plays)
			g := run(t, gemini(inOrder(overH2C, u)))
			g.post(t, unaryPath, promptJSON).fails(t, 503, "UPSTREAM_UNAVAILABLE")
			if n := f.calls.Swap(0); n != 2 {
				t.Errorf("with retry off, the upstream was asked %d times", n)
			}
			second := scripted(t, drawn)
			g.load(t, gemini(inOrder(overH2C, u, second), withoutDelay))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			second.asked(t, 1)
			if n := f.calls.Load(); n != 2 {
				t.Errorf("beside another, the upstream was asked %d times", n)
			}
		})
	}
}

// Behind the commit, the client can see that its answer is not whole.
func TestHTTP2FaultsBehindTheCommit(t *testing.T) {
	for name, ends := range map[string]func(*frames){
		"reset": func(f *frames) { f.reset(http2.ErrCodeInternal) },
		"gone":  func(f *frames) { f.goAway(f.stream, http2.ErrCodeInternal) },
	} {
		t.Run(name, func(t *testing.T) {
			begun := make(chan struct{}) // the answer, for the client: it might be held until it fails
			f, u := newFramed(t, func(f *frames) {
				f.ok()
				f.data(imageJSON[:earlyBytes], false)
				<-begun
				ends(f)
			})
			second := scripted(t, drawn)
			g := run(t, gemini(inOrder(overH2C, u, second), withoutDelay))
			release := sync.OnceFunc(func() { close(begun) })
			t.Cleanup(release)
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON)).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			release()
			s := read(res)
			if s.StatusCode != 200 || s.err == nil || ctx.Err() != nil || !strings.HasPrefix(imageJSON, string(s.body)) {
				t.Errorf("status %d, error %v, %d bytes", s.StatusCode, s.err, len(s.body))
			}
			if n := f.calls.Load(); n != 1 {
				t.Errorf("the first upstream was asked %d times", n)
			}
			second.untouched(t)
		})
	}
}
