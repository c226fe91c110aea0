// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func init() {
	caddy.RegisterModule(Transport{})
}

// Transport is the gateway for sites that have a reverse_proxy already: it
// completes, tries, judges and accounts calls as the handler does, and leaves
// everything else about the proxy as it is configured.
//
// Without upstreams of its own it sends calls to the address that reverse_proxy
// has chosen, with the client's own key. With them, that address is not dialled.
type Transport struct {
	Options

	// Whether the address of the reverse_proxy speaks TLS. A Caddyfile has it
	// in the scheme of the address. It does not concern upstreams. Default:
	// false.
	TLS bool `json:"tls,omitempty"`

	gateway *gateway
}

// proxiedName is what the address of a reverse_proxy is called where upstreams
// have names.
const proxiedName = "reverse_proxy"

// CaddyModule returns the Caddy module information.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport.gemini",
		New: func() caddy.Module { return new(Transport) },
	}
}

// Provision sets up the transport. It makes no connection.
func (t *Transport) Provision(ctx caddy.Context) error {
	if len(t.Upstreams) == 0 {
		t.Upstreams = []Upstream{t.proxied()}
	}
	t.setDefaults()
	if err := t.check(); err != nil {
		return err
	}
	var err error
	t.gateway, err = t.build(ctx)
	return err
}

// proxied stands for the address of the reverse_proxy.
func (t *Transport) proxied() Upstream {
	own := new(reverseproxy.HTTPTransport)
	if t.TLS {
		own.TLS = new(reverseproxy.TLSConfig)
	}
	return Upstream{
		Name:         proxiedName,
		TransportRaw: caddyconfig.JSONModuleObject(own, "protocol", "http", nil),
		proxied:      true,
	}
}

// Cleanup gives back what Provision has taken. Requests may still be on their
// way: nothing that they need ends here.
func (t *Transport) Cleanup() error {
	if t.gateway == nil {
		return nil
	}
	t.gateway.cleanup()
	return nil
}

// RoundTrip answers a request that reverse_proxy has prepared.
func (t *Transport) RoundTrip(proxied *http.Request) (*http.Response, error) {
	in := withoutPassword(proxied.WithContext(proxied.Context()))
	hideKeys(proxied)
	c := recognise(in)
	var x *exchange
	if c.generates {
		x = t.gateway.open(in, c)
	} else {
		x = newExchange(in, c)
		x.query, x.mount = in.URL.RawQuery, mountOf(in)
	}
	x.base = &url.URL{Scheme: "http", Host: in.URL.Host}
	if t.TLS {
		x.base.Scheme = "https"
	}
	if !c.generates {
		return t.gateway.router.serve(in, x)
	}
	// Who is reading cannot be woken from here, but finds the time over.
	late := time.AfterFunc(x.deadline.Sub(x.arrived), func() { x.body.expire(func() {}) })
	res, err := t.gateway.router.serve(in, x)
	late.Stop()
	if err != nil {
		t.gateway.abandoned(x)
		x.body.release()
		return nil, err
	}
	res.Body = &accountedBody{ReadCloser: res.Body, gateway: t.gateway, x: x, status: res.StatusCode}
	return res, nil
}

// hideKeys takes the client's keys out of a request that reverse_proxy logs at
// debug level when it has been answered. Before it is sent again its headers are
// made anew, because there are RequestHeaderOps.
func hideKeys(r *http.Request) {
	r.Header = r.Header.Clone()
	takeCredentials(r.Header)
	if keyIn(r.URL.RawQuery) != "" {
		shown := *r.URL
		shown.RawQuery = withoutKey(shown.RawQuery)
		r.RequestURI = shown.RequestURI()
	}
}

// accountedBody is an answer that is accounted for when reverse_proxy closes
// it.
type accountedBody struct {
	io.ReadCloser
	gateway *gateway
	x       *exchange
	status  int
	broken  error // how the answer broke off
	once    sync.Once
}

// Read reads the answer.
func (b *accountedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.broken = err
	}
	return n, err
}

// Close ends the call.
func (b *accountedBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() {
		if b.x.left() != nil {
			b.broken = nil // the client has left
		}
		b.gateway.delivered(b.x, b.status, b.broken)
		b.x.body.release()
	})
	return err
}

// TLSEnabled tells whether the address of the reverse_proxy speaks TLS.
func (t *Transport) TLSEnabled() bool { return t.TLS }

// EnableTLS is called for an https:// address. What it could be told about
// certificates is what the transport of an upstream can be told.
func (t *Transport) EnableTLS(*reverseproxy.TLSConfig) error {
	t.TLS = true
	return nil
}

// EnableH2C refuses an h2c:// address, which would get HTTP/1.1 otherwise.
func (t *Transport) EnableH2C() error {
	return fmt.Errorf("transport gemini: an h2c:// address needs an upstream block of its own, with transport http { versions h2c }")
}

// OverrideHealthCheckScheme lets active health checks speak TLS.
func (t *Transport) OverrideHealthCheckScheme(base *url.URL, _ string) {
	if t.TLS {
		base.Scheme = "https"
	}
}

// RequestHeaderOps names the address in the Host header, as Caddy's own
// transport does for TLS: Google's servers go by it. There are some in any case,
// so that reverse_proxy makes the headers anew when it sends a request again; see
// hideKeys.
func (t *Transport) RequestHeaderOps() *headers.HeaderOps {
	if !t.TLS {
		return new(headers.HeaderOps)
	}
	return &headers.HeaderOps{Set: http.Header{"Host": {"{http.reverse_proxy.upstream.hostport}"}}}
}

// Interface guards
var (
	_ caddy.Provisioner                                = (*Transport)(nil)
	_ caddy.CleanerUpper                               = (*Transport)(nil)
	_ caddyfile.Unmarshaler                            = (*Transport)(nil)
	_ http.RoundTripper                                = (*Transport)(nil)
	_ reverseproxy.TLSTransport                        = (*Transport)(nil)
	_ reverseproxy.H2CTransport                        = (*Transport)(nil)
	_ reverseproxy.HealthCheckSchemeOverriderTransport = (*Transport)(nil)
	_ reverseproxy.RequestHeaderOpsTransport           = (*Transport)(nil)
)
