// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

// upstream is one place that answers calls.
type upstream struct {
	name          string
	base          *url.URL // scheme, host and an optional path prefix; nil: the address of the request
	transport     http.RoundTripper
	keys          []*apiKey // empty: the client's own key is passed on
	models        []ModelRule
	acceptBlocked bool          // may receive prompts that were blocked elsewhere
	probe         time.Duration // between canaries while it is demoted
	prices        []Price       // of images, instead of Google's
	budget        float64       // USD a day; 0: none
	headers       *headers.HeaderOps
	hasCredential bool // by headers
	health        *health

	turn atomic.Uint32 // of the keys, which rotate
}

// apiKey is a key of an upstream's own.
type apiKey struct {
	secret  string
	project string // whose limits it counts against, for people
	account string // the same for machines: no two have one by accident
	id      string // by which it is known in memory and logs: a hash
	// pattern makes a key for each call, of placeholders that only a request
	// knows; nil for a key that is the same for all calls.
	pattern *APIKey
}

// newAPIKey is a key without placeholders. A project without a name is that of
// the key alone.
func newAPIKey(secret, project, upstream string) *apiKey {
	k := &apiKey{secret: secret, project: project, account: project, id: keyID(secret)}
	if project == "" {
		k.project, k.account = upstream, "key-"+k.id
	}
	return k
}

// keyID is a name for a key that does not tell the key.
func keyID(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:6])
}

// keysOf are the keys of an upstream as this call has them, each in its place;
// nil stands for one that the call does not have. They are made once, so that
// all that becomes of the call goes by the same keys.
func (x *exchange) keysOf(u *upstream) []*apiKey {
	if !slices.ContainsFunc(u.keys, func(k *apiKey) bool { return k.pattern != nil }) {
		return u.keys
	}
	if keys, ok := x.keys[u]; ok {
		return keys
	}
	keys := make([]*apiKey, len(u.keys))
	for i, k := range u.keys {
		if k.pattern != nil {
			k = x.keyFrom(k.pattern, u.name)
		}
		isSame := func(before *apiKey) bool { return before != nil && before.secret == k.secret }
		if k != nil && !slices.ContainsFunc(keys[:i], isSame) { // one account must not look like two
			keys[i] = k
		}
	}
	if x.keys == nil {
		x.keys = make(map[*upstream][]*apiKey)
	}
	x.keys[u] = keys
	return keys
}

// keyFrom is nil if the call has no such key. Braces are no part of any key:
// they are a placeholder's, which came out of another and is not looked up,
// because a client may have sent it.
func (x *exchange) keyFrom(pattern *APIKey, upstream string) *apiKey {
	expand := x.expand
	if expand == nil {
		expand = func(text string) string { return text }
	}
	secret := strings.TrimSpace(expand(pattern.Key))
	if secret == "" || !fitsHeader(secret) || strings.ContainsAny(secret, "{}") {
		return nil
	}
	return newAPIKey(secret, projectName(expand(pattern.Project)), upstream)
}

// fitsHeader tells whether a key can be sent.
func fitsHeader(secret string) bool {
	return !strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' })
}

// maxProjectName is how many characters of a project's name count: clients may
// choose it, and it stands in logs, metrics and memory.
const maxProjectName = 64

// projectName makes a name of what a client may have sent.
func projectName(text string) string {
	printable := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text))
	return strings.TrimSpace(string(printable[:min(len(printable), maxProjectName)]))
}

// mapModel says what to ask for instead of a model; the first rule decides.
func (u *upstream) mapModel(model string) string {
	for _, rule := range u.models {
		if matches(rule.Match, model) {
			return rule.Model
		}
	}
	return model
}

// request is a call as it goes to the upstream with one of its keys, or with
// the client's own.
func (u *upstream) request(ctx context.Context, in *http.Request, x *exchange, key *apiKey) *http.Request {
	target := u.url(in.URL, x, key)
	out := (&http.Request{
		Method:     in.Method,
		URL:        target,
		Host:       target.Host,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     u.header(in.Header, x, key),
	}).WithContext(ctx)
	if u.base == nil {
		out.Host = in.Host // as the proxy around it has set it
	}
	if u.headers != nil {
		out.Header = out.Header.Clone() // its values are shared with the client's request
		u.headers.ApplyToRequest(out)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or net/http sends its own
	}
	return out
}

// context is that of one attempt. It is made from that of the call, not from
// that of a proxy around it.
func (u *upstream) context(x *exchange) context.Context {
	own := attemptContext{Context: x.ctx, isProxied: u.base == nil}
	if vars, ok := x.ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		own.vars = maps.Clone(vars)
	}
	return own
}

// attemptContext hides from a transport what belongs to the request around it:
// the variables, which transports write to while Caddy's handlers read theirs;
// the trace that passes 1xx answers on to the client; and, unless the call goes
// where the proxy wants it to go, the proxy's dial information.
type attemptContext struct {
	context.Context
	vars      map[string]any
	isProxied bool
}

const dialInfo caddy.CtxKey = "reverse_proxy.dial_info"

func (c attemptContext) Value(key any) any {
	switch key {
	case caddyhttp.VarsCtxKey:
		return c.vars
	case dialInfo:
		if !c.isProxied {
			return nil
		}
	}
	value := c.Context.Value(key)
	if _, traced := value.(*httptrace.ClientTrace); traced {
		return nil
	}
	return value
}

// url puts the path of a call behind the upstream's prefix. The path is taken
// in its escaped form, in which clients distinguish "%3A" from ":".
func (u *upstream) url(in *url.URL, x *exchange, key *apiKey) *url.URL {
	base := u.base
	if base == nil {
		base = x.base
	}
	escaped, query := in.EscapedPath(), in.RawQuery
	if x.forwarded() {
		query = x.query
	} else if model := u.mapModel(x.call.model); x.call.model != "" && model != x.call.model {
		escaped = escaped[:x.call.modelAt] + model + escaped[x.call.modelEnd:]
	}
	if key != nil {
		query = withoutKey(query)
	}
	escaped = strings.TrimSuffix(base.EscapedPath(), "/") + escaped
	out := &url.URL{Scheme: base.Scheme, Host: base.Host, RawQuery: query}
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
func (u *upstream) header(in http.Header, x *exchange, key *apiKey) http.Header {
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
	if x.forwarded() && len(x.apiKey) > 0 {
		out[apiKeyHeader] = x.apiKey
	}
	if key != nil {
		key.authorize(out, &x.call)
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

// authorize replaces the client's credentials by the key.
func (k *apiKey) authorize(h http.Header, c *call) {
	delete(h, "Authorization")
	delete(h, apiKeyHeader)
	delete(h, "X-Goog-User-Project") // names who pays for the client's own token
	if c.surface == surfaceOpenAI {
		h["Authorization"] = []string{"Bearer " + k.secret}
		return
	}
	h[apiKeyHeader] = []string{k.secret}
}
