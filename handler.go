// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// statusClientGone is what Caddy and nginx log for a client that left before
// its answer.
const statusClientGone = 499

// ServeHTTP recognises a call, completes it, has it sent and judged, delivers
// the answer and accounts for it. What is no generate call is forwarded.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	c := recognise(r)
	if c.surface == surfaceNone {
		return next.ServeHTTP(w, r)
	}
	x := &exchange{
		ctx:      r.Context(),
		call:     c,
		model:    c.model,
		language: strings.Join(r.Header["Accept-Language"], ","),
		client:   clientVersion(r.Header),
	}
	if !c.generates {
		return h.forward(w, r, x, next)
	}
	started := time.Now()
	x.publish(r)
	x.project = clientProject(r)
	x.imageModel = c.completable() && h.isImageModel(x.model)
	x.body = newRequestBody(r, h.completion(r, x), h.MaxBody)
	x.expect = func() expectation { return h.expectation(x) }
	defer x.body.release()

	res, err := h.router.RoundTrip(r.WithContext(withExchange(r.Context(), x)))
	if err != nil {
		w.WriteHeader(statusClientGone) // for the access log; nobody reads it
		if !x.verdict.class.isBlock() {
			x.verdict = verdict{class: classClient, reason: reasonCancelled}
		}
		h.account(x, statusClientGone, time.Since(started))
		return nil
	}
	defer res.Body.Close()
	err = deliver(w, res, x.streamed() || isEventStream(res))
	brokeOff := err != nil && !errors.Is(err, errClientGone) && r.Context().Err() == nil
	if brokeOff {
		x.verdict, x.cause = verdict{class: classTransient, reason: reasonUnavailable}, err
	}
	h.account(x, res.StatusCode, time.Since(started))
	if x.body.err() != nil {
		linger(w, r)
	}
	if brokeOff {
		panic(http.ErrAbortHandler) // the only way to tell the client that its answer is not whole
	}
	return nil
}

// completion is what the call's body must carry.
func (h *Handler) completion(r *http.Request, x *exchange) completion {
	isForm := strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/")
	c := completion{vertex: x.call.surface == surfaceVertex}
	if x.call.namesModelInBody() && len(h.router.upstream.models) > 0 && !isForm {
		c.mapModel = h.router.upstream.mapModel
	}
	if h.Inject == injectOff || !x.call.completable() {
		return c
	}
	c.safety = h.settings
	if x.imageModel {
		c.modalities = h.ResponseModalities
	}
	return c
}

// isImageModel goes by the name that the client used and by the name that the
// upstream is asked for.
func (h *Handler) isImageModel(model string) bool {
	mapped := h.router.upstream.mapModel(model)
	return matchesAny(h.ImageModels, model) || mapped != model && matchesAny(h.ImageModels, mapped)
}

// expectation is what the client wants, once its body has been read.
func (h *Handler) expectation(x *exchange) expectation {
	wants := x.body.wants()
	api := x.call.imageAPI()
	return expectation{
		stream:      x.call.events || x.call.array || x.call.surface == surfaceOpenAI && wants.stream,
		image:       api || x.call.completable() && (wants.images || x.imageModel),
		imageAPI:    api,
		imagesAlone: wants.imagesAlone,
		thoughts:    wants.thoughts,
		noImage:     noImage(h.NoImage),
		commitText:  h.StreamCommit == commitText,
		unjudged:    x.call.surface == surfaceInteractions,
	}
}

// streamed tells whether the client waits for events.
func (x *exchange) streamed() bool {
	return x.call.events || x.call.array || x.call.namesModelInBody() && x.body.wants().stream
}

// forward proxies a call untouched. The client's credentials travel beside the
// request, because the proxy logs requests at debug level.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, x *exchange, next caddyhttp.Handler) error {
	out := r.WithContext(withExchange(r.Context(), x))
	out.Header = r.Header.Clone()
	out.Header.Del(apiKeyHeader)
	x.apiKey = r.Header[apiKeyHeader]
	x.query = r.URL.RawQuery
	url := *r.URL
	url.RawQuery = withoutKey(url.RawQuery)
	out.URL, out.RequestURI = &url, url.RequestURI()

	err := h.proxy.ServeHTTP(w, out, next)
	if failed, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		// Not returned: Caddy's error log prints the request with its keys.
		h.logger.Debug("forwarding failed", zap.Int("status", failed.StatusCode), zap.Error(failed.Err))
		w.WriteHeader(failed.StatusCode)
		return nil
	}
	return err
}

const apiKeyHeader = "X-Goog-Api-Key"

// clientVersion is what the client's software calls itself, shortened.
func clientVersion(h http.Header) string {
	version := cmp.Or(h.Get("X-Goog-Api-Client"), h.Get("User-Agent"))
	return version[:min(len(version), 200)]
}

// clientProject names whoever holds the client's key without telling the key.
func clientProject(r *http.Request) string {
	key := r.Header.Get(apiKeyHeader)
	if key == "" {
		key = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if key == "" {
		key = keyIn(r.URL.RawQuery)
	}
	if key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(key))
	return "client-" + hex.EncodeToString(sum[:6])
}

// publish offers the placeholders and the fields of the access log. Both are
// worked out only if somebody asks, which is when the call has ended.
func (x *exchange) publish(r *http.Request) {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(x.placeholder)
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Object("gemini", x))
	}
}

// seen is what others are told about a call, by the names of placeholders and
// log fields.
var seen = []struct {
	name  string
	value func(x *exchange) any
}{
	{"model", func(x *exchange) any { return x.model }},
	{"method", func(x *exchange) any { return x.call.method }},
	{"upstream", func(x *exchange) any { return x.upstream }},
	{"project", func(x *exchange) any { return x.project }},
	{"attempts", func(x *exchange) any { return x.attempts }},
	{"verdict", func(x *exchange) any { return x.verdict.class.String() }},
	{"reason", func(x *exchange) any { return x.verdict.reason }},
	{"images", func(x *exchange) any { return x.facts.delivered() }},
	{"tokens", func(x *exchange) any { return x.facts.usage.total() }},
}

// placeholder resolves {http.gemini.*}.
func (x *exchange) placeholder(key string) (any, bool) {
	name, ours := strings.CutPrefix(key, "http.gemini.")
	if !ours {
		return nil, false
	}
	for _, s := range seen {
		if s.name == name {
			return s.value(x), true
		}
	}
	return nil, false
}

// MarshalLogObject writes the fields of the access log.
func (x *exchange) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, s := range seen {
		zap.Any(s.name, s.value(x)).AddTo(enc)
	}
	return nil
}

// Interface guard
var _ zapcore.ObjectMarshaler = (*exchange)(nil)
