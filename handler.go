// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

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
	r = withoutPassword(r)
	if !c.generates {
		return h.forward(w, r, newExchange(r, c), next)
	}
	x := h.gateway.open(r, c)
	x.sharesItself = decidesSharing(w.Header())
	defer x.body.release()
	wake := func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) } // who reads the body
	late := time.AfterFunc(x.deadline.Sub(x.arrived), func() { x.body.expire(wake) })
	defer late.Stop()

	res, err := h.gateway.router.serve(r, x)
	if err != nil {
		late.Stop()
		h.gateway.abandoned(x)
		gone := x.farewell(r)
		defer gone.Body.Close()
		writeHead(w, gone)
		_ = deliver(r.Context(), w, gone, false) // for the access log, and for who has closed one side alone
		x.body.hush(wake)
		return nil
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusBadRequest && x.attempts > 0 {
		x.body.expire(wake) // net/http writes no header while somebody waits for the body, which nobody wants any more
	}
	x.group.lookUp(func() { writeHead(w, res) })
	err = deliver(r.Context(), w, res, x.streamed() || isEventStream(res))
	if errors.Is(err, errClientGone) || x.left() != nil {
		err = nil
	}
	h.gateway.delivered(x, res.StatusCode, err)
	if x.body.err() != nil {
		linger(w, r, &x.body.reading)
	}
	if err != nil {
		_ = http.NewResponseController(w).Flush() // what has come may be an image that is paid for
		panic(http.ErrAbortHandler)               // the only way to tell the client that its answer is not whole
	}
	return nil
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
	x.credentials = takeCredentials(out.Header)
	x.query, x.mount = r.URL.RawQuery, mountOf(r)
	x.sharesItself = decidesSharing(w.Header())
	url := *r.URL
	url.RawQuery = withoutKey(url.RawQuery)
	out.URL, out.RequestURI = &url, url.RequestURI()

	x.withheld = make(http.Header)
	w = &withheldWriter{&caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, x}
	err := h.proxy.ServeHTTP(w, out, next)
	if failed, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		// Not returned: Caddy's error log prints the request with its keys.
		h.gateway.logger.Debug("forwarding failed", zap.Int("status", failed.StatusCode), zap.Error(unquoted{failed.Err}))
		w.WriteHeader(failed.StatusCode)
		return nil
	}
	return err
}

// mountOf is what the site has cut off the path of a request, with handle_path for
// example.
func mountOf(r *http.Request) string {
	original, _ := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if original.URL == nil {
		return ""
	}
	mount, isCut := strings.CutSuffix(original.URL.EscapedPath(), r.URL.EscapedPath())
	if !isCut {
		return ""
	}
	return mount
}

// withoutPassword keeps a password that the site has asked for, with basic_auth for
// example, from going to an upstream: it is no credential of its API.
func withoutPassword(r *http.Request) *http.Request {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if _, _, isBasic := r.BasicAuth(); !isBasic || !ok {
		return r
	}
	if _, isUser := repl.Get("http.auth.user.id"); !isUser {
		return r
	}
	out := r.WithContext(r.Context())
	out.Header = r.Header.Clone()
	out.Header.Del("Authorization")
	return out
}

const apiKeyHeader = "X-Goog-Api-Key"

// clientVersion is what the client's software calls itself, shortened.
func clientVersion(h http.Header) string {
	version := cmp.Or(h.Get("X-Goog-Api-Client"), h.Get("User-Agent"))
	return version[:min(len(version), 200)]
}

// clientProject names whoever calls with a key of its own, without telling the
// key. Vertex AI has tokens that change by the hour, and the project in the path.
func clientProject(r *http.Request, c call) string {
	if c.project != "" {
		return projectName(c.project) // clients write paths: it goes into logs, metrics and files
	}
	key := cmp.Or(clientKey(r), bearer(r.Header.Get("Authorization"))) // be it a password: that is no key, but somebody's
	if key == "" {
		return ""
	}
	return "client-" + keyID(key)
}

// bearer is what stands behind the scheme, which has no case (RFC 9110 §11.1).
// Another scheme is part of who calls.
func bearer(authorization string) string {
	if scheme, token, _ := strings.Cut(authorization, " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return authorization
}
