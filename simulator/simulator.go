// SPDX-License-Identifier: Apache-2.0

// Package simulator is a Caddy handler that plays the Gemini API offline: the
// native, Vertex AI, Imagen, OpenAI-compatible and Interactions surfaces, and
// OpenAI's own image and chat APIs, with real images of realistic size, and
// every way in which these are known to fail. Nothing leaves the machine and no
// key is checked, only that there is one. It stands in for Google and OpenAI and
// so knows nothing of the gateway.
package simulator

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("gemini_simulator", parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder("gemini_simulator", httpcaddyfile.Before, "reverse_proxy")
}

// Handler answers every request as Google's API or, on its paths, OpenAI's
// would; it never calls the next handler. A prompt that contains `sim:<scenario>` chooses how the call
// ends; `GET /` lists the scenarios.
type Handler struct {
	// How long to wait before each answer to a well-formed generate call,
	// whether it is a success or a scenario's failure. Default: 0.
	Latency caddy.Duration `json:"latency,omitempty"`

	pictures *gallery
	attempts *bounded[attemptKey, int] // of sim:twice_503
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gemini_simulator",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the two small memories of the simulator.
func (h *Handler) Provision(caddy.Context) error {
	h.pictures = newGallery()
	h.attempts = newBounded[attemptKey, int](maxAttempts)
	return nil
}

// Validate refuses a latency that cannot be waited for.
func (h *Handler) Validate() error {
	if h.Latency < 0 {
		return errors.New("latency must not be negative")
	}
	return nil
}

// ServeHTTP plays the API that the path belongs to.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	x := &exchange{sim: h, w: w, r: r, call: &call{api: &geminiAPI, surface: native{}}}
	if r.URL.Path == "/" {
		return x.raw(http.StatusOK, "text/plain; charset=utf-8", help())
	}
	serve := recognise(x.call, r)
	if serve == nil {
		return x.fail(errMethodNotFound)
	}
	if fail := x.call.api.admit(r); fail != nil {
		return x.fail(fail)
	}
	err := serve(x)
	if r.Context().Err() != nil {
		return nil // nobody is left to be told
	}
	return err
}

// generate serves the calls that have a prompt: it waits out the latency, then
// plays what the prompt asks for.
func generate(x *exchange) error {
	body, fail := readBody(x.w, x.r)
	if fail == nil {
		fail = x.call.surface.parse(x.call, body)
	}
	if fail != nil {
		return x.fail(fail)
	}
	scene, wait, fail := chooseScenario(x.call)
	if fail != nil {
		return x.fail(fail)
	}
	x.wait = wait
	if err := x.pause(time.Duration(x.sim.Latency)); err != nil {
		return err
	}
	return scene(x)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	gemini_simulator [<matcher>] {
//		latency <duration>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "latency":
			if h.Latency != 0 {
				return d.Err("latency is already set")
			}
			var text string
			if !d.AllArgs(&text) {
				return d.ArgErr()
			}
			latency, err := caddy.ParseDuration(text)
			if err != nil {
				return d.Errf("latency '%s' is not a duration such as 250ms: %v", text, err)
			}
			if latency < 0 {
				return d.Errf("latency '%s' must not be negative", text)
			}
			h.Latency = caddy.Duration(latency)
		default:
			return d.Errf("unknown option '%s'; the only one is latency", d.Val())
		}
	}
	return nil
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	var handler Handler
	err := handler.UnmarshalCaddyfile(h.Dispenser)
	return &handler, err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
