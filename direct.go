// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// direct is an http.RoundTripper for HTTP/1.1 that does its work in the goroutine of
// its caller. net/http's own has two goroutines for every connection, and hands each
// call over from one to the other and back: that costs more than all that the gateway
// does to a small call (bench/README.md, text-1k). Requests and answers are written
// and parsed by net/http all the same; this is only about who waits for whom.
//
// It is for calls that are judged. Connections are made by Caddy's transport, and what
// goes beyond them is left to it.
type direct struct {
	dial             func(ctx context.Context, network, address string) (net.Conn, error)
	proxy            func(*http.Request) (*url.URL, error)
	tls              *tls.Config
	handshakeTimeout time.Duration // 0: none
	headerTimeout    time.Duration // from the end of a request to the headers of its answer; 0: none
	maxHeader        int64         // of an answer, in bytes
	pool             connPool
	indirect         http.RoundTripper // for calls through a proxy
}

// maxIdlePerHost is how many connections to an upstream are kept where the
// configuration does not say. HTTP/1.1 takes one for each call under way; with
// Caddy's 32, which are meant for HTTP/2 as well, most would be made anew.
const maxIdlePerHost = 256

// transportConfig is what has been configured of a transport, where that differs from its
// defaults.
type transportConfig struct {
	Versions  []string `json:"versions"`
	KeepAlive struct {
		MaxIdlePerHost int `json:"max_idle_conns_per_host"`
	} `json:"keep_alive"`
}

// newDirect is nil if the transport is not for plain connections of HTTP/1.1.
func newDirect(t *reverseproxy.HTTPTransport, config json.RawMessage, isTLS bool) *direct {
	var said transportConfig
	if !hearsUnquiet || json.Unmarshal(config, &said) != nil {
		return nil
	}
	n := t.Transport
	goesBeyond := n.DialTLSContext != nil || t.ProxyProtocol != "" || n.MaxConnsPerHost > 0 || n.MaxIdleConns > 0 ||
		n.ReadBufferSize > 0 || n.WriteBufferSize > 0 || n.DisableKeepAlives
	if goesBeyond || !said.isPlain(isTLS) {
		return nil
	}
	d := &direct{
		dial: n.DialContext, proxy: n.Proxy, tls: n.TLSClientConfig, indirect: t,
		handshakeTimeout: n.TLSHandshakeTimeout, headerTimeout: n.ResponseHeaderTimeout,
		maxHeader: cmp.Or(n.MaxResponseHeaderBytes, maxAnswerHeader),
		pool:      connPool{perHost: maxIdlePerHost, maxIdle: n.IdleConnTimeout},
	}
	if said.KeepAlive.MaxIdlePerHost != 0 {
		d.pool.perHost = said.KeepAlive.MaxIdlePerHost
	}
	return d
}

// isPlain tells that the versions allow for HTTP/1.1, and ask for nothing else. Only
// TLS can negotiate HTTP/2.
func (s *transportConfig) isPlain(isTLS bool) bool {
	if len(s.Versions) == 0 {
		return true
	}
	mayBe := []string{"1.1"}
	if !isTLS {
		mayBe = append(mayBe, "2")
	}
	isOther := func(version string) bool { return !slices.Contains(mayBe, version) }
	return slices.Contains(s.Versions, "1.1") && !slices.ContainsFunc(s.Versions, isOther)
}

// RoundTrip sends a request and returns its answer as soon as the headers are there.
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if through, err := d.proxy(r); through != nil || err != nil {
		return d.indirect.RoundTrip(r)
	}
	ctx := r.Context()
	c, err := d.connect(ctx, r.URL)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	// Closing ends whatever the connection is waiting for. A deadline in the past
	// would be moved on by Caddy's connections that have timeouts.
	c.disarm = context.AfterFunc(ctx, c.kill)
	res, err := c.exchange(r, d.headerTimeout, d.maxHeader)
	if err != nil {
		c.abandon()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	res.Body, res.Trailer = newDirectBody(res, c), nil // chunkedBody drops trailers
	return res, nil
}

// close gives up the connections that are kept.
func (d *direct) close() {
	if d != nil {
		d.pool.close()
	}
}

// connect takes a kept connection, or makes a new one.
func (d *direct) connect(ctx context.Context, u *url.URL) (*conn, error) {
	to := endpoint{u.Scheme, addressOf(u)}
	if c := d.pool.get(to); c != nil {
		return c, nil
	}
	raw, err := d.dial(ctx, "tcp", to.address)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, stream: raw, pool: &d.pool, endpoint: to}
	if u.Scheme == "https" {
		c.wire = &wire{Conn: raw}
		if c.stream, err = d.handshake(ctx, c.wire, u.Hostname()); err != nil {
			c.kill()
			return nil, err
		}
	}
	return c, nil
}

// handshake begins TLS, for HTTP/1.1.
func (d *direct) handshake(ctx context.Context, raw net.Conn, host string) (net.Conn, error) {
	config := d.tls.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	config.NextProtos = nil
	if d.handshakeTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.handshakeTimeout)
		defer cancel()
	}
	secure := tls.Client(raw, config)
	return secure, secure.HandshakeContext(ctx)
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

func addressOf(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), defaultPorts[u.Scheme])
}

// directBody is the body of an answer. As with net/http's, Close may come while
// somebody reads, and ends that.
type directBody struct {
	source  io.Reader
	chunks  chunkedBody // is the source of an answer in chunks
	mayKeep bool

	mu        sync.Mutex
	conn      *conn // nil when it has been given back
	isReading bool
	failure   error // of reads from now on
}

func newDirectBody(res *http.Response, c *conn) *directBody {
	isOther := res.StatusCode == http.StatusSwitchingProtocols // what follows is no HTTP
	b := &directBody{source: res.Body, mayKeep: !res.Close && !isOther, conn: c}
	if len(res.TransferEncoding) > 0 && res.Body != http.NoBody { // net/http knows no other than chunks
		b.chunks.source, b.source = c.in, &b.chunks
	}
	return b
}

// Read reads from the upstream. With the end of the answer, its connection is free.
func (b *directBody) Read(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	n, err := b.source.Read(p)
	return n, b.end(err)
}

func (b *directBody) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isReading = b.failure == nil
	return b.failure
}

// end gives the connection back, or up, after the last read.
func (b *directBody) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.isReading = false
	b.failure = cmp.Or(b.failure, err)
	if b.failure != nil && b.conn != nil {
		b.conn.leave(b.mayKeep && errors.Is(b.failure, io.EOF) && !b.chunks.surplus)
		b.conn = nil
	}
	return b.failure
}

// Close ends the connection of an answer that has not been read to its end.
func (b *directBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.conn == nil:
	case b.isReading:
		b.failure = http.ErrBodyReadAfterClose
		b.conn.kill()
	default:
		b.failure = http.ErrBodyReadAfterClose
		b.conn.abandon()
		b.conn = nil
	}
	return nil
}

// Interface guards
var (
	_ http.RoundTripper = (*direct)(nil)
)
