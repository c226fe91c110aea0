// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// plainDirect makes plain connections, and never goes through a proxy.
func plainDirect(t testing.TB) *direct {
	t.Helper()
	d := &direct{
		dial:      new(net.Dialer).DialContext,
		proxy:     func(*http.Request) (*url.URL, error) { return nil, nil },
		maxHeader: 1 << 20,
		pool:      connPool{perHost: 2},
	}
	t.Cleanup(d.close)
	return d
}

// rawUpstream accepts connections and hands them over, with their number.
func rawUpstream(t *testing.T, serve func(n int, c net.Conn, in *bufio.Reader)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for n := 1; ; n++ {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// readCall reads a request to its end.
func readCall(in *bufio.Reader) (*http.Request, []byte, error) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	return r, body, err
}

// answering answers every call on a connection with the same bytes.
func answering(answer string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, in *bufio.Reader) {
		for {
			if _, _, err := readCall(in); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

func callTo(t testing.TB, ctx context.Context, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// whole sends a call and reads its answer to the end.
func whole(d *direct, r *http.Request) (status int, body string, err error) {
	res, err := d.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	return res.StatusCode, string(read), err
}

// Whatever comes back is understood as net/http understands it, and the connection is
// used again if, and only if, nothing of the call is left on it.
func TestDirectAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		body   string
		fault  string // in the words of RFC 9209
		isKept bool
	}{
		"length":            {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", body: "{}", isKept: true},
		"chunked":           {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", body: "{}", isKept: true},
		"trailer":           {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: b\r\n\r\n", body: "{}", isKept: true},
		"no body":           {answer: "HTTP/1.1 204 No Content\r\n\r\n", isKept: true},
		"early hints":       {answer: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", body: "{}", isKept: true},
		"asks to close":     {answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", body: "{}"},
		"old":               {answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", body: "{}"},
		"says too much":     {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n", body: "{}"},
		"not HTTP":          {answer: "SSH-2.0-OpenSSH\r\n\r\n", fault: "http_protocol_error"},
		"bad header":        {answer: "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", fault: "http_protocol_error"},
		"bad chunk":         {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", fault: "http_response_transfer_coding"},
		"long header":       {answer: "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", fault: "http_response_header_section_size"},
		"hints without end": {answer: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1<<16), fault: "http_response_header_section_size"},
	} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int32
			serve := answering(c.answer)
			at := rawUpstream(t, func(n int, conn net.Conn, in *bufio.Reader) {
				conns.Store(int32(n))
				serve(n, conn, in)
			})
			d := plainDirect(t)
			for range 2 {
				_, body, err := whole(d, callTo(t, t.Context(), at, "{}"))
				switch {
				case c.fault != "" && (err == nil || faultOf(err) != c.fault):
					t.Fatalf("got %v, want a %s", err, c.fault)
				case c.fault == "" && (err != nil || body != c.body):
					t.Fatalf("got %q (%v), want %q", body, err, c.body)
				}
			}
			want := int32(2)
			if c.isKept {
				want = 1
			}
			if got := conns.Load(); got != want {
				t.Errorf("two calls took %d connections, want %d", got, want)
			}
		})
	}
}

// An upload that is refused before its end is answered, and its connection not used
// again.
func TestDirectEarlyAnswer(t *testing.T) {
	at := rawUpstream(t, func(_ int, c net.Conn, in *bufio.Reader) {
		_, _ = http.ReadRequest(in)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}")
		_, _ = io.Copy(io.Discard, in)
	})
	d := plainDirect(t)
	upload, more := io.Pipe()
	defer more.Close()
	go func() { _, _ = more.Write(bytes.Repeat([]byte{'a'}, 1<<20)) }() // and no end
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, at, upload)
	r.ContentLength = -1
	if status, body, err := whole(d, r); status != http.StatusRequestEntityTooLarge || body != "{}" || err != nil {
		t.Errorf("got %d %q (%v)", status, body, err)
	}
	if len(d.pool.idle) > 0 {
		t.Error("the connection was kept")
	}
}

// When the body fails there will be no answer, and that is why.
func TestDirectBodyFails(t *testing.T) {
	errBody := errors.New("the client is gone")
	got := make(chan error, 1)
	at := rawUpstream(t, func(_ int, _ net.Conn, in *bufio.Reader) {
		_, _, err := readCall(in)
		got <- err
	})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, at, io.MultiReader(strings.NewReader("{"), failing{errBody}))
	r.ContentLength = 1 << 20
	if _, _, err := whole(plainDirect(t), r); !errors.Is(err, errBody) {
		t.Errorf("got %v, want %v", err, errBody)
	}
	if err := <-got; err == nil {
		t.Error("the upstream took the call for a whole one")
	}
}

// A call that is given up ends at once, wherever it is, and so does its connection.
func TestDirectIsCancelled(t *testing.T) {
	errGivenUp := errors.New("given up")
	for name, answer := range map[string]string{
		"before headers":  "",
		"inside headers":  "HTTP/1.1 200 OK\r\nContent-",
		"inside the body": "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			said := make(chan struct{})
			at := rawUpstream(t, func(_ int, c net.Conn, in *bufio.Reader) {
				defer close(ended)
				_, _, _ = readCall(in)
				_, _ = io.WriteString(c, answer)
				close(said)
				_, _ = in.ReadByte() // until the other side hangs up
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-said
				cancel(errGivenUp)
			}()
			if _, _, err := whole(plainDirect(t), callTo(t, ctx, at, "{}")); err == nil {
				t.Error("the call has ended well")
			} else if name != "inside the body" && !errors.Is(err, errGivenUp) {
				t.Errorf("got %v, want %v", err, errGivenUp)
			}
			<-ended
		})
	}
}

// begun is an answer that has begun and does not end; ended is closed when its
// connection is.
func begun(t *testing.T, d *direct) (body io.ReadCloser, ended chan struct{}) {
	t.Helper()
	ended = make(chan struct{})
	at := rawUpstream(t, func(_ int, c net.Conn, in *bufio.Reader) {
		defer close(ended)
		_, _, _ = readCall(in)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{")
		_, _ = in.ReadByte()
	})
	res, err := d.RoundTrip(callTo(t, t.Context(), at, "{}"))
	if err != nil {
		t.Fatal(err)
	}
	return res.Body, ended
}

// An answer that is not read to its end takes its connection with it.
func TestDirectClose(t *testing.T) {
	body, ended := begun(t, plainDirect(t))
	_ = body.Close()
	<-ended
	if n, err := body.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a closed body can be read")
	}
}

// Close ends a read that somebody else waits in.
func TestDirectCloseWhileReading(t *testing.T) {
	d := plainDirect(t)
	body, ended := begun(t, d)
	go func() { _ = body.Close() }()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the answer has ended well")
	}
	<-ended
	if len(d.pool.idle) > 0 {
		t.Error("the connection was kept")
	}
}

// TLS speaks HTTP/1.1, keeps its connections, and refuses who cannot prove who it is.
func TestDirectTLS(t *testing.T) {
	var conns atomic.Int32
	u := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto)
	}))
	u.EnableHTTP2 = true
	u.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	u.StartTLS()
	t.Cleanup(u.Close)
	d := plainDirect(t)
	d.tls = u.Client().Transport.(*http.Transport).TLSClientConfig
	for range 3 {
		if _, body, err := whole(d, callTo(t, t.Context(), u.URL, "{}")); body != "HTTP/1.1" || err != nil {
			t.Errorf("got %q (%v)", body, err)
		}
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	d = plainDirect(t)
	d.tls = new(tls.Config)
	if _, _, err := whole(d, callTo(t, t.Context(), u.URL, "{}")); err == nil || faultOf(err) != "tls_certificate_error" {
		t.Errorf("got %v, want a tls_certificate_error", err)
	}
}

// What goes beyond plain connections of HTTP/1.1 is left to Caddy's transport.
func TestDirectIsPlain(t *testing.T) {
	if !hearsUnquiet {
		t.Skip("all connections are Caddy's here")
	}
	for config, want := range map[string]struct{ http, https bool }{
		`{}`:                                  {true, true},
		`{"dial_timeout":1000000000}`:         {true, true},
		`{"versions":["1.1"]}`:                {true, true},
		`{"versions":["1.1","2"]}`:            {true, false},
		`{"versions":["2"]}`:                  {},
		`{"versions":["h2c","2"]}`:            {},
		`{"max_conns_per_host":5}`:            {},
		`{"response_header_timeout":1000000}`: {true, true},
		`{"read_buffer_size":4096}`:           {},
		`{"keep_alive":{"max_idle_conns":5}}`: {},
		`{"keep_alive":{"enabled":false}}`:    {},
	} {
		for isTLS, want := range map[bool]bool{false: want.http, true: want.https} {
			var module reverseproxy.HTTPTransport
			if err := json.Unmarshal([]byte(config), &module); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
			defer cancel()
			if err := module.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			if got := newDirect(&module, json.RawMessage(config), isTLS) != nil; got != want {
				t.Errorf("%q, TLS %t: direct is %t, want %t", config, isTLS, got, want)
			}
		}
	}
}

// The wait for headers is bounded, from the end of the request on.
func TestDirectHeaderTimeout(t *testing.T) {
	for _, body := range []string{"{}", strings.Repeat("a", 1<<20)} {
		at := rawUpstream(t, func(_ int, _ net.Conn, in *bufio.Reader) {
			_, _, _ = readCall(in)
			_, _ = in.ReadByte()
		})
		d := plainDirect(t)
		d.headerTimeout = 20 * time.Millisecond
		if _, _, err := whole(d, callTo(t, t.Context(), at, body)); err == nil || faultOf(err) != "http_response_timeout" || !isTimeout(err) {
			t.Errorf("got %v, want a timeout", err)
		}
	}
}

// A body that is kept goes out from where it is, and never beyond its length.
func TestDirectSendsKeptBodies(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	arrived := make(chan []byte, 1)
	at := rawUpstream(t, func(_ int, c net.Conn, in *bufio.Reader) {
		_, got, err := readCall(in)
		if err != nil {
			got = nil
		}
		arrived <- got
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	})
	for declared, isWhole := range map[int]bool{len(body): true, len(body) - 1: false, len(body) + 1: false} {
		in := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		kept := newRequestBody(in, completion{}, 1<<30, true)
		t.Cleanup(kept.release)
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, at, kept.reader(rendering{}))
		r.ContentLength = int64(declared)
		_, _, err := whole(plainDirect(t), r)
		if got := <-arrived; isWhole != bytes.Equal(got, body) || isWhole != (err == nil) {
			t.Errorf("%d of %d bytes declared: %d arrived (%v)", declared, len(body), len(got), err)
		}
	}
}
