// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// upstream is one place that answers calls.
type upstream struct {
	name      string
	base      *url.URL // scheme, host and an optional path prefix
	transport http.RoundTripper
	key       string // empty: the client's own key is passed on
	project   string // whose limits the key counts against
	models    []ModelRule
}

// mapModel says what to ask for instead of a model; the first rule decides.
func (u *upstream) mapModel(model string) string {
	for _, rule := range u.models {
		if ok, _ := path.Match(rule.Match, model); ok {
			return rule.Model
		}
	}
	return model
}

// request is a call as it goes to the upstream. It has a context of its own
// kind: that of the handler, not that of the proxy around it, whose dial
// information names no real address, and a map of variables of its own, because
// transports write to it while Caddy's handlers read theirs.
func (u *upstream) request(in *http.Request, x *exchange) *http.Request {
	ctx := x.ctx
	if vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	}
	out := (&http.Request{
		Method:     in.Method,
		URL:        u.url(in.URL, x),
		Host:       u.base.Host,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     u.header(in.Header, x),
	}).WithContext(ctx)
	return out
}

// url puts the path of a call behind the upstream's prefix. The path is taken
// in its escaped form, in which clients distinguish "%3A" from ":".
func (u *upstream) url(in *url.URL, x *exchange) *url.URL {
	escaped, query := in.EscapedPath(), in.RawQuery
	if x.forwarded() {
		query = x.query
	} else if model := u.mapModel(x.call.model); x.call.model != "" && model != x.call.model {
		escaped = escaped[:x.call.modelAt] + model + escaped[x.call.modelEnd:]
	}
	if u.key != "" {
		query = withoutKey(query)
	}
	escaped = strings.TrimSuffix(u.base.EscapedPath(), "/") + escaped
	out := &url.URL{Scheme: u.base.Scheme, Host: u.base.Host, RawQuery: query}
	out.Path, out.RawPath = escaped, escaped
	if unescaped, err := url.PathUnescape(escaped); err == nil {
		out.Path = unescaped
	}
	return out
}

// isCredential recognises the fields of a query that prove who is calling.
func isCredential(name string) bool {
	if unescaped, err := url.QueryUnescape(name); err == nil {
		name = unescaped
	}
	return name == "key" || name == "access_token"
}

// withoutKey takes credentials out of a query and leaves the rest as it is.
func withoutKey(query string) string {
	kept := make([]string, 0, 4)
	for field := range strings.SplitSeq(query, "&") {
		if key, _, _ := strings.Cut(field, "="); !isCredential(key) {
			kept = append(kept, field)
		}
	}
	return strings.Join(kept, "&")
}

// neededPrefixes begin the names of Google's own request headers: what Vertex
// AI bills a call to, and the apps that a key is restricted to.
var neededPrefixes = []string{"X-Goog-", "X-Vertex-", "X-Android-", "X-Ios-"}

func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// neededHeaders are the other request headers that mean something to a
// provider. The rest is the client's and the network's business: cookies,
// addresses, referrers.
var neededHeaders = map[string]bool{
	"Accept":           true,
	"Accept-Language":  true,
	"Api-Revision":     true,
	"Authorization":    true,
	"Content-Type":     true,
	"User-Agent":       true,
	"X-Server-Timeout": true,
}

// header selects what goes to the upstream. Generate calls carry only what is
// needed, and no Accept-Encoding, so that the transport undoes the compression
// it asks for. Other calls keep their headers.
func (u *upstream) header(in http.Header, x *exchange) http.Header {
	out := make(http.Header, 8)
	for name, values := range in {
		needed := neededHeaders[name] || hasPrefix(name, neededPrefixes)
		if x.forwarded() {
			needed = !notForwarded[name]
		}
		if needed {
			out[name] = values
		}
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{""} // or net/http sends its own
	}
	if x.forwarded() && len(x.apiKey) > 0 {
		out[apiKeyHeader] = x.apiKey
	}
	if u.key != "" {
		u.authorize(out, &x.call)
	}
	return out
}

// keyIn finds a credential in a query.
func keyIn(query string) string {
	for field := range strings.SplitSeq(query, "&") {
		if key, value, _ := strings.Cut(field, "="); isCredential(key) {
			return value
		}
	}
	return ""
}

// notForwarded are the headers that stay here even if all others go: what this
// server's proxy adds about the client, and what the client keeps for this site.
var notForwarded = map[string]bool{
	"Cookie":            true,
	"Forwarded":         true,
	"Via":               true,
	"X-Forwarded-For":   true,
	"X-Forwarded-Host":  true,
	"X-Forwarded-Proto": true,
}

// authorize replaces the client's credentials by the upstream's.
func (u *upstream) authorize(h http.Header, c *call) {
	delete(h, "Authorization")
	delete(h, apiKeyHeader)
	delete(h, "X-Goog-User-Project") // names who pays for the client's own token
	if c.surface == surfaceOpenAI {
		h["Authorization"] = []string{"Bearer " + u.key}
		return
	}
	h[apiKeyHeader] = []string{u.key}
}
