// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// TestDirectWriteTimeout: an upstream that takes nothing does not keep a call for
// longer than the transport allows.
func TestDirectWriteTimeout(t *testing.T) {
	at := rawUpstream(t, func(int, net.Conn, *bufio.Reader) { <-t.Context().Done() })
	config := json.RawMessage(`{"write_timeout":50000000}`)
	var module reverseproxy.HTTPTransport
	if err := json.Unmarshal(config, &module); err != nil {
		t.Fatal(err)
	}
	provided, stop := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer stop()
	if err := module.Provision(provided); err != nil {
		t.Fatal(err)
	}
	d := newDirect(&module, config, false)
	defer d.close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, _, err := whole(d, callTo(t, ctx, at, strings.Repeat("a", 32<<20)))
	if err == nil || ctx.Err() != nil || faultOf(err) != "connection_write_timeout" {
		t.Errorf("%v (%v)", err, ctx.Err())
	}
}

// TestDirectForgetsFailedCalls: the wait for headers that will not come keeps nothing
// alive.
func TestDirectForgetsFailedCalls(t *testing.T) {
	at := rawUpstream(t, func(_ int, _ net.Conn, in *bufio.Reader) { _, _, _ = readCall(in) })
	d := plainDirect(t)
	d.headerTimeout = time.Hour
	type marked struct{ net.Conn }
	var made, freed atomic.Int32
	dial := d.dial
	d.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		m := &marked{c}
		made.Add(1)
		runtime.AddCleanup(m, func(int) { freed.Add(1) }, 0)
		return m, err
	}
	for range 10 {
		if _, _, err := whole(d, callTo(t, t.Context(), at, "{}")); err == nil {
			t.Fatal("an answer")
		}
	}
	for range 50 {
		runtime.GC()
		if freed.Load() > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if freed.Load() == 0 {
		t.Errorf("all %d connections are kept", made.Load())
	}
}

// TestDirectAfterSwitchingProtocols: what follows is no HTTP.
func TestDirectAfterSwitchingProtocols(t *testing.T) {
	var conns atomic.Int32
	serve := answering("HTTP/1.1 101 Switching Protocols\r\n\r\n")
	at := rawUpstream(t, func(n int, c net.Conn, in *bufio.Reader) {
		conns.Add(1)
		serve(n, c, in)
	})
	d := plainDirect(t)
	for range 2 {
		if status, _, err := whole(d, callTo(t, t.Context(), at, "{}")); status != http.StatusSwitchingProtocols || err != nil {
			t.Error(status, err)
		}
	}
	if conns.Load() != 2 {
		t.Errorf("%d connections", conns.Load())
	}
}

// TestDirectDropsTrailers: none is announced that does not come.
func TestDirectDropsTrailers(t *testing.T) {
	at := rawUpstream(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n"))
	res, err := plainDirect(t).RoundTrip(callTo(t, t.Context(), at, "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "{}" || err != nil || res.Trailer != nil {
		t.Errorf("%q, %v, trailers %v", body, err, res.Trailer)
	}
}

// cutConn keeps the last bytes of what is written back, when it is told to.
type cutConn struct {
	net.Conn
	isCutting bool
}

func (c *cutConn) Write(p []byte) (int, error) {
	if !c.isCutting {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:len(p)-3])
	return n + 3, err
}

// TestDirectGivesUpHalfARecord: what has come of a TLS record belongs to an answer that
// nobody has asked for.
func TestDirectGivesUpHalfARecord(t *testing.T) {
	known := httptest.NewTLSServer(nil)
	known.Close()
	var conns atomic.Int32
	sent := make(chan struct{}, 2)
	at := rawUpstream(t, func(_ int, raw net.Conn, _ *bufio.Reader) {
		conns.Add(1)
		cut := &cutConn{Conn: raw}
		c := tls.Server(cut, &tls.Config{Certificates: known.TLS.Certificates})
		in := bufio.NewReader(c)
		for {
			if _, _, err := readCall(in); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
			cut.isCutting = true
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
			sent <- struct{}{}
		}
	})
	d := plainDirect(t)
	d.tls = known.Client().Transport.(*http.Transport).TLSClientConfig
	for range 2 {
		res, err := d.RoundTrip(callTo(t, t.Context(), strings.Replace(at, "http:", "https:", 1), "{}"))
		if err != nil {
			t.Fatal(err)
		}
		<-sent
		body, err := io.ReadAll(res.Body)
		if string(body) != "first" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
		_ = res.Body.Close()
	}
	if conns.Load() != 2 {
		t.Errorf("%d connections", conns.Load())
	}
}
