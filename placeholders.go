// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"maps"
	"net/http"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// expander replaces the placeholders that a request knows; others are empty.
// What comes out of them is not looked into: it may be the client's.
func expander(ctx context.Context) func(string) string {
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return nil
	}
	return func(text string) string { return repl.ReplaceAll(text, "") }
}

// publish offers the placeholders and the fields of the access log. Both are
// worked out only if somebody asks: before the call has ended they say what is known.
func (x *exchange) publish(r *http.Request) {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(x.placeholder)
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Object("gemini", x))
	}
}

// publishedFields are what others are told about a call, by the names of
// placeholders and log fields.
var publishedFields = []struct {
	name  string
	value func(x *exchange) any
}{
	{"model", func(x *exchange) any { return x.model }},
	{"method", func(x *exchange) any { return x.call.method }},
	{"upstream", func(x *exchange) any { return x.upstream }},
	{"project", func(x *exchange) any { return x.project }},
	{"attempts", func(x *exchange) any { return x.attempts }},
	{"wait", func(x *exchange) any { return x.waited.Seconds() }},
	{"verdict", func(x *exchange) any { return x.verdict.class.String() }},
	{"reason", func(x *exchange) any { return x.verdict.reason }},
	{"images", func(x *exchange) any { return x.images() }},
	{"tokens", func(x *exchange) any { return x.used().total() }},
	{"cost", func(x *exchange) any { return x.cost() }},
}

// placeholder resolves {http.gemini.*}.
func (x *exchange) placeholder(key string) (any, bool) {
	name, ours := strings.CutPrefix(key, "http.gemini.")
	if !ours {
		return nil, false
	}
	for _, f := range publishedFields {
		switch {
		case f.name != name:
		case x.group != nil && x.group.isAsking: // what becomes of the whole is being written down
			return nil, true
		default:
			return f.value(x), true
		}
	}
	return nil, false
}

// MarshalLogObject writes the fields of the access log.
func (x *exchange) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, f := range publishedFields {
		zap.Any(f.name, f.value(x)).AddTo(enc)
	}
	return nil
}

// contextOf is the context of a part, whose placeholders and variables are apart from
// those of the call: others would write to them at the same time.
func (g *group) contextOf(ctx context.Context, part *exchange) context.Context {
	if vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	}
	if shared, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, g.replacer(part, shared))
	}
	return ctx
}

// replacer looks up placeholders for a part: its own, and those of the request.
func (g *group) replacer(part *exchange, shared *caddy.Replacer) *caddy.Replacer {
	own := caddy.NewEmptyReplacer()
	own.Map(part.placeholder)
	own.Map(func(key string) (value any, ok bool) {
		g.lookUp(func() {
			g.isAsking = true
			value, ok = shared.Get(key)
			g.isAsking = false
		})
		return value, ok
	})
	return own
}

// lookUp looks up placeholders of the request, one part after the other: that may write
// to the request, as {http.request.uuid} does, which the parts share with who writes the
// header of their answer.
func (g *group) lookUp(f func()) {
	if g != nil {
		g.lookups.Lock()
		defer g.lookups.Unlock()
	}
	f()
}

// Interface guard
var _ zapcore.ObjectMarshaler = (*exchange)(nil)
