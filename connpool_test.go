// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

// A kept connection that the upstream has closed is not used: a call that is lost on it
// could have been made, and paid for.
func TestDirectStaleConnections(t *testing.T) {
	var calls atomic.Int32
	closed := make(chan struct{})
	at := rawUpstream(t, func(n int, c net.Conn, in *bufio.Reader) {
		_, _, err := readCall(in)
		if err != nil {
			t.Errorf("connection %d: %v", n, err)
			return
		}
		calls.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		_ = c.Close()
		closed <- struct{}{}
	})
	d := plainDirect(t)
	for range 5 {
		if _, _, err := whole(d, callTo(t, t.Context(), at, "{}")); err != nil {
			t.Fatal(err)
		}
		<-closed
	}
	if got := calls.Load(); got != 5 {
		t.Errorf("the upstream got %d calls, want 5", got)
	}
}

// What an upstream says beyond its answer is not taken for the next one, wherever it
// has got to: behind the answer in a buffer, in one of TLS, or in the socket's.
func TestDirectUnaskedAnswers(t *testing.T) {
	const unasked = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake"
	body := strings.Repeat("a", 20_000)
	withLength := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	chunked := fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	for _, answer := range []string{withLength, chunked} {
		for _, isTLS := range []bool{false, true} {
			var conns atomic.Int32
			written := make(chan struct{}, 3)
			u := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				conns.Add(1)
				_, _ = io.WriteString(c, answer)
				_, _ = io.WriteString(c, unasked)
				written <- struct{}{}
				_, _ = io.Copy(io.Discard, c)
			}))
			d := plainDirect(t)
			d.tls = &tls.Config{RootCAs: x509.NewCertPool()}
			if isTLS {
				u.StartTLS()
				d.tls.RootCAs.AddCert(u.Certificate())
			} else {
				u.Start()
			}
			for range 3 {
				res, err := d.RoundTrip(callTo(t, t.Context(), u.URL, "{}"))
				if err != nil {
					t.Fatal(err)
				}
				select {
				case <-written:
				case <-time.After(30 * time.Second):
					t.Errorf("TLS %t: an answer has come from nowhere", isTLS)
				}
				var got strings.Builder
				// With room for more, what follows is read as well.
				if _, err := io.CopyBuffer(writerOnly{&got}, res.Body, make([]byte, 64<<10)); got.String() != body || err != nil {
					t.Errorf("TLS %t: got %d bytes (%v)", isTLS, got.Len(), err)
				}
			}
			if conns.Load() != 3 {
				t.Errorf("TLS %t: three calls took %d connections", isTLS, conns.Load())
			}
			d.close()
			u.Close()
		}
	}
}

// Connections that nobody needs are not kept for ever.
func TestConnPool(t *testing.T) {
	pipe := func(to string) *conn {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = theirs.Close() })
		return &conn{endpoint: endpoint{"http", to}, raw: ours, stream: ours}
	}
	isClosed := func(c *conn) bool {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
		_, err := c.raw.Read(make([]byte, 1))
		return errors.Is(err, io.ErrClosedPipe)
	}
	p := &connPool{perHost: 2, maxIdle: time.Hour}
	t.Cleanup(p.close)
	first, second, third, other := pipe("a"), pipe("a"), pipe("a"), pipe("b")
	for _, c := range []*conn{first, second, third, other} {
		p.put(c)
	}
	if !isClosed(third) || isClosed(first) || isClosed(second) || isClosed(other) {
		t.Error("two are to be kept for each place")
	}
	if got := p.pop(endpoint{"http", "a"}); got != second {
		t.Error("the one that was used last is to be used first")
	}
	first.idleSince = first.idleSince.Add(-time.Hour)
	p.sweep(time.Now())
	if !isClosed(first) || isClosed(other) {
		t.Error("only what is too old is to be closed")
	}
	if p.sweeper == nil {
		t.Error("nobody is going to close the other one")
	}
	p.close()
	if !isClosed(other) {
		t.Error("a connection is still open")
	}
	if p.put(second); !isClosed(second) {
		t.Error("a connection was kept for nobody")
	}
}
