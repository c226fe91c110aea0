// SPDX-License-Identifier: Apache-2.0

// Package gemini is a Caddy HTTP handler that stands between unmodified clients
// and Google's Gemini API: it completes requests, judges answers while they
// stream through, and turns blocks that hide behind a 200 OK into errors.
//
// handler.go and router.go tell the whole story; what they call, from call.go
// to metrics.go, has a file for each concern.
package gemini

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler is a gateway for Google's Gemini API, made for its image models. It
// completes requests that lack safety settings or response modalities, sends
// them to an upstream, and reads the answers as they stream through: a content
// filter that hides behind a 200 OK becomes an explicit error.
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
// `{http.gemini.upstream}` | The upstream that was asked
// `{http.gemini.project}` | The project whose key was used, or a hash of the client's own key
// `{http.gemini.attempts}` | How often the call was sent
// `{http.gemini.verdict}` | `ok`, `transient`, `limited`, `exhausted`, `account`, `region`, `client`, `blocked` or `forbidden`
// `{http.gemini.reason}` | The reason of a verdict that is not `ok`, e.g. `IMAGE_SAFETY`
// `{http.gemini.images}` | How many images the answer had
// `{http.gemini.tokens}` | How many tokens the call used, thinking included
type Handler struct {
	// What to send for the four harm categories that can be configured, where
	// the client sets nothing. Default: BLOCK_NONE for each. (What Google
	// applies to a request without settings is OFF on current models.)
	SafetySettings []SafetySetting `json:"safety_settings,omitempty"`

	// What to ask image models for where the client asks for nothing: TEXT,
	// IMAGE, AUDIO. Default: TEXT and IMAGE, which is what these models do by
	// themselves. IMAGE alone makes refusals machine-readable.
	ResponseModalities []string `json:"response_modalities,omitempty"`

	// Which models make images, as shell patterns in which * matches any run
	// of characters. Default: `*-image` and `*-image-*`.
	ImageModels []string `json:"image_models,omitempty"`

	// Whether requests are completed: `missing` adds what is missing, `off`
	// leaves every request as it is. Default: `missing`.
	Inject string `json:"inject,omitempty"`

	// The HTTP status of an answer that a content filter has blocked, 400 to
	// 599, or `pass` to leave Google's 200 and mark it in headers, logs and
	// metrics only. Default: 400, which every official client raises at once
	// and none repeats.
	BlockStatus caddyhttp.WeakString `json:"block_status,omitempty"`

	// What to make of an answer that ended well but has no image: `error`
	// reports it as a block with the reason NO_IMAGE, `pass` lets it through,
	// `auto` reports it only to clients that asked for images alone. Default:
	// `auto`.
	NoImage string `json:"no_image,omitempty"`

	// The largest request body, in bytes after decompression. Larger ones get
	// 413. Default: 128 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// The most of one answer that may wait for its verdict, in bytes. An answer
	// that outgrows it is delivered. Default: 4 MiB.
	Hold int64 `json:"hold,omitempty"`

	// What lets the stream of an image model go to the client: `image`, so
	// that a block that follows some text is still an error with a status of
	// its own, or `text`. Default: `image`.
	StreamCommit string `json:"stream_commit,omitempty"`

	// Where calls are sent; one at the most. Default: the Gemini API, with the
	// client's own key.
	Upstreams []Upstream `json:"upstreams,omitempty"`

	logger     *zap.Logger
	router     *router
	proxy      *reverseproxy.Handler // the client's side of everything that is not a generate call
	proxyReady bool
	settings   []SafetySetting
	notes      *noteLog
	metrics    *metrics
}

// Upstream is a place that answers calls.
type Upstream struct {
	// What it is called in logs, metrics and headers: letters, digits, dashes
	// and underscores.
	Name string `json:"name"`

	// Its base URL, http or https; a path is put before the path of every
	// call.
	URL string `json:"url"`

	// The key to use instead of the client's own, one at the most.
	APIKeys []APIKey `json:"api_keys,omitempty"`

	// What to ask for instead of the models that clients name. The first rule
	// that matches applies.
	Models []ModelRule `json:"models,omitempty"`

	// How to connect to it. Default: Caddy's `http` transport.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`
}

// APIKey is a key for an upstream.
type APIKey struct {
	// The key. Write it as `{env.NAME}` or `{file./path}`, so that it stays out
	// of the configuration that Caddy shows and saves. Global placeholders are
	// resolved once, when the configuration is loaded.
	Key string `json:"key"`

	// The name of the project that the key belongs to. Default: the name of the
	// upstream.
	Project string `json:"project,omitempty"`
}

// ModelRule replaces a model by another.
type ModelRule struct {
	// The models it applies to, as a shell pattern.
	Match string `json:"match"`

	// What to ask for instead.
	Model string `json:"model"`
}

// Defaults of the configuration.
const (
	defaultName      = "google"
	defaultURL       = "https://generativelanguage.googleapis.com"
	defaultMaxBody   = 128 << 20
	defaultHold      = 4 << 20
	defaultThreshold = "BLOCK_NONE"
)

var (
	defaultImageModels = []string{"*-image", "*-image-*"}
	defaultModalities  = []string{"TEXT", "IMAGE"}
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gemini",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler. It makes no connection.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.notes = new(noteLog)
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		return fmt.Errorf("loading the time zone of Google's daily quotas (build with time/tzdata): %w", err)
	}
	u, err := h.Upstreams[0].provision(ctx)
	if err != nil {
		return fmt.Errorf("upstream %q: %w", h.Upstreams[0].Name, err)
	}
	h.router = &router{upstream: u, hold: h.Hold, pacific: pacific, now: time.Now}
	if h.BlockStatus != blockPass {
		h.router.blockStatus, _ = strconv.Atoi(h.BlockStatus.String())
	}
	if h.metrics, err = registerMetrics(ctx.GetMetricsRegistry(), h.knownModels()); err != nil {
		return err
	}
	warnUnfilteredAccessLogs(ctx, h.logger)
	return h.provisionProxy(ctx)
}

const (
	injectOff     = "off"
	injectMissing = "missing"
	blockPass     = "pass"
	commitImage   = "image"
	commitText    = "text"
)

func (h *Handler) setDefaults() {
	h.settings = completeSettings(h.SafetySettings)
	if h.ResponseModalities == nil {
		h.ResponseModalities = defaultModalities
	}
	if h.ImageModels == nil {
		h.ImageModels = defaultImageModels
	}
	if h.Inject == "" {
		h.Inject = injectMissing
	}
	if h.BlockStatus == "" {
		h.BlockStatus = "400"
	}
	if h.NoImage == "" {
		h.NoImage = string(noImageAuto)
	}
	if h.MaxBody == 0 {
		h.MaxBody = defaultMaxBody
	}
	if h.Hold == 0 {
		h.Hold = defaultHold
	}
	if h.StreamCommit == "" {
		h.StreamCommit = commitImage
	}
	if len(h.Upstreams) == 0 {
		h.Upstreams = []Upstream{{Name: defaultName, URL: defaultURL}}
	}
}

// provision resolves the keys and loads the transport.
func (u *Upstream) provision(ctx caddy.Context) (*upstream, error) {
	base, err := url.Parse(u.URL)
	if err != nil {
		return nil, err
	}
	up := &upstream{name: u.Name, base: base, models: u.Models}
	for _, k := range u.APIKeys {
		up.key = strings.TrimSpace(caddy.NewReplacer().ReplaceAll(k.Key, ""))
		if up.key == "" {
			return nil, fmt.Errorf("the api_key is empty: is the variable or file that it names there?")
		}
		if strings.ContainsFunc(up.key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("the api_key has characters that cannot be in a header")
		}
		up.project = k.Project
		if up.project == "" {
			up.project = u.Name
		}
	}
	up.transport, err = u.loadTransport(ctx)
	return up, err
}

// loadTransport leaves the transport's life to Caddy: it closes idle
// connections when the configuration is unloaded.
func (u *Upstream) loadTransport(ctx caddy.Context) (http.RoundTripper, error) {
	load := func() (any, error) { return ctx.LoadModuleByID("http.reverse_proxy.transport.http", nil) }
	if gjson.GetBytes(u.TransportRaw, "proxy_protocol").String() != "" {
		return nil, fmt.Errorf("transport: proxy_protocol does not fit an API; remove it")
	}
	if u.TransportRaw != nil {
		load = func() (any, error) { return ctx.LoadModule(u, "TransportRaw") }
	}
	module, err := load()
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	return module.(http.RoundTripper), nil
}

// provisionProxy sets up the client's side of calls that are forwarded. Its
// only upstream is never dialled: the router is its transport. The name shows
// in Caddy's own list of upstreams.
func (h *Handler) provisionProxy(ctx caddy.Context) error {
	h.proxy = &reverseproxy.Handler{
		Transport: h.router,
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
	if h.proxyReady {
		return h.proxy.Cleanup()
	}
	return nil
}

// knownModels are the models that may appear in metrics by their own name.
func (h *Handler) knownModels() []string {
	models := slices.Clone(googleModels)
	for _, u := range h.Upstreams {
		for _, rule := range u.Models {
			models = append(models, rule.Model)
			if !strings.ContainsAny(rule.Match, `*?[\`) {
				models = append(models, rule.Match)
			}
		}
	}
	return models
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
