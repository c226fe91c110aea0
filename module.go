// SPDX-License-Identifier: Apache-2.0

// Package gemini is a Caddy HTTP handler that stands between unmodified clients
// and Google's Gemini API: it keeps calls below the limits of their projects,
// completes requests, judges answers while they stream through, turns blocks that
// hide behind a 200 OK into errors, and keeps account of what was used.
//
// handler.go and router.go tell the whole story; what they call has a file for
// each concern, which CONTRIBUTING.md lists.
package gemini

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler is a gateway for Google's Gemini API, made for its image models. It
// completes requests that lack safety settings or response modalities, sends
// them to an upstream that has room for them, and reads the answers as they
// stream through: a content filter that hides behind a 200 OK becomes an explicit
// error. It counts what was used, what it cost, and how much was blocked.
//
// Requests outside the Gemini, Vertex and OpenAI-compatible APIs go to the next
// handler of the route. Requests that do not generate content (file uploads,
// model lists, countTokens, the Live API) are proxied untouched.
//
// Placeholders that are set when a generate call has ended, for access logs and
// for handlers that act after the answer:
//
// Placeholder | Description
// ------------|-------------
// `{http.gemini.model}` | The model that the client named
// `{http.gemini.method}` | The API method, e.g. `generateContent`
// `{http.gemini.upstream}` | The upstream that was asked, or whose limit refused the call
// `{http.gemini.project}` | The project whose key was used, or a hash of the client's own key
// `{http.gemini.attempts}` | How often the call was sent
// `{http.gemini.wait}` | How long it waited for its turn and between attempts, in seconds
// `{http.gemini.verdict}` | `ok`, `transient`, `limited`, `exhausted`, `account`, `region`, `client`, `repairable`, `blocked` or `forbidden`
// `{http.gemini.reason}` | The reason of a verdict that is not `ok`, e.g. `IMAGE_SAFETY`
// `{http.gemini.images}` | How many images the client was sent
// `{http.gemini.tokens}` | How many tokens the call used, thinking included
// `{http.gemini.cost}` | What all its attempts have cost, in USD, as far as prices are known
type Handler struct {
	Options

	gateway    *gateway
	proxy      *reverseproxy.Handler // the client's side of everything that is not a generate call
	proxyReady bool
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gemini",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. It makes no connection.
func (h *Handler) Provision(ctx caddy.Context) (err error) {
	h.setDefaults()
	if err = h.check(); err != nil {
		return err
	}
	if h.gateway, err = h.build(ctx); err != nil {
		return err
	}
	warnUnfilteredAccessLogs(ctx, h.gateway.logger)
	return h.provisionProxy(ctx)
}

// provisionProxy sets up the client's side of calls that are forwarded. Its
// only upstream is never dialled: the router is its transport. The name shows
// in Caddy's own list of upstreams.
func (h *Handler) provisionProxy(ctx caddy.Context) error {
	h.proxy = &reverseproxy.Handler{
		Transport: h.gateway.router,
		Upstreams: reverseproxy.UpstreamPool{{Dial: "gemini-" + h.Upstreams[0].Name + ":443"}},
	}
	if err := h.proxy.Provision(ctx); err != nil {
		return fmt.Errorf("setting up the proxy: %w", err)
	}
	h.proxyReady = true
	return nil
}

// Cleanup gives back what Provision has taken. Requests may still be on their
// way: nothing that they need ends here.
func (h *Handler) Cleanup() error {
	if h.gateway != nil {
		h.gateway.cleanup()
	}
	if h.proxyReady {
		return h.proxy.Cleanup()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
