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
	direct        *direct // for calls that are judged; nil: transport has them as well
	format        format
	takesVertex   bool   // calls in the form of Vertex AI as well, as they are; see guessFormat
	imagesByChat  bool   // of those that speak OpenAI's API
	project       string // of Vertex AI; empty in express mode
	location      string
	credential    *credential // of Vertex AI; nil: keys
	aliases       map[string]string
	keys          []*apiKey // empty: the client's own key is passed on
	models        []ModelRule
	acceptBlocked bool          // may receive prompts that were blocked elsewhere
	probe         time.Duration // between canaries while it is demoted
	prices        []Price       // of images, instead of Google's
	budget        float64       // USD a day; 0: none
	headers       *headers.HeaderOps
	hasCredential bool // by headers
	health        *health

	rotation atomic.Uint32 // of the keys
}

// connection is what judged calls are sent through.
func (u *upstream) connection() http.RoundTripper {
	if u.direct != nil {
		return u.direct
	}
	return u.transport
}

// accounts are those under which an upstream is called, as far as that is known
// before a call. If they are open, calls bring others.
func (u *upstream) accounts() (known []seat, areOpen bool) {
	switch {
	case len(u.keys) > 0:
		for _, k := range u.keys {
			at := seat{key: k, account: k.account, project: k.project}
			if k.pattern != nil {
				at, areOpen = seat{key: k, project: u.name}, true // where a call names no project
			}
			known = append(known, at)
		}
		return known, areOpen
	case u.credential != nil:
		return []seat{{account: vertexAccount(u.project), project: u.project}}, false
	case u.hasCredential:
		return []seat{{account: "upstream-" + u.name, project: u.name}}, false
	}
	return nil, true
}

// owns tells whether calls are sent to an upstream under an account.
func (u *upstream) owns(account string) bool {
	known, areOpen := u.accounts()
	isKnown := slices.ContainsFunc(known, func(at seat) bool { return at.account == account })
	isClients := u.base == nil || strings.HasSuffix(account, "@"+u.base.Host)
	return isKnown || areOpen && isClients == (len(u.keys) == 0) // keys that a call fills in are no client's own
}

// apiKey is a key of an upstream's own.
type apiKey struct {
	secret  string
	project string // whose limits it counts against, for people
	account string // the same for machines: no two have one by accident
	id      string // by which it is known in memory and logs: a hash
	isToken bool   // an access token, which is no key to Google
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

// mapModel says what to ask for instead of a model; the first rule decides. Rules
// can be for an alias, and for the model that it stands for.
func (u *upstream) mapModel(model string) string {
	mapped, isMapped := u.replacement(model)
	if known, isAlias := u.aliases[bareModel(model)]; isAlias && !isMapped {
		mapped, _ = u.replacement(known)
	}
	return mapped
}

func (u *upstream) replacement(model string) (name string, isMapped bool) {
	for _, rule := range u.models {
		if matches(rule.Match, model) {
			return rule.Model, true
		}
	}
	return model, false
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
