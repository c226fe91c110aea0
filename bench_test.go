// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// cannedTransport answers without a network.
type cannedTransport struct{ body []byte }

func (c cannedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(c.body)), ContentLength: -1,
	}, nil
}

// BenchmarkServeHTTP is all that the gateway does to a small call, without the
// sockets and without Caddy's server: with its defaults, with what a call that
// needs no retry could need, and with limits in addition.
func BenchmarkServeHTTP(b *testing.B) {
	for _, c := range servings {
		b.Run(c.name, func(b *testing.B) {
			call := caller(b, c.handler(b))
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
		b.Run(c.name+"/parallel", func(b *testing.B) {
			h := c.handler(b)
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				call := caller(b, h)
				for p.Next() {
					call()
				}
			})
		})
	}
}

// serving is a handler with a configuration, and what one small call to it
// allocates at most, the client's request included. Those of several upstreams
// have blocks on record.
type serving struct {
	name    string
	options Options
	names   []string // of the upstreams
	most    float64
}

var servings = []serving{
	{"defaults", Options{}, []string{"fake"}, 87},
	{"several", Options{}, []string{"fake", "second", "third"}, 109},
	{"limited", Options{RateLimits: []RateLimit{{Match: "*", RPM: 1 << 40, TPM: 1 << 40, IPM: 1 << 40, RPD: 1 << 40}}}, []string{"fake", "second", "third"}, 121},
}

func (s serving) handler(tb testing.TB) *Handler {
	answer := cannedTransport{[]byte(`{"candidates":[{"content":{"parts":[{"text":"` + strings.Repeat("word ", 200) + `"}]},"finishReason":"STOP"}]}`)}
	h := handlerOver(tb, answer)
	var upstreams []*upstream
	for _, name := range s.names {
		u := upstreamAt(tb, "http://127.0.0.1:1", answer)
		u.name = name
		upstreams = append(upstreams, u)
	}
	r := testRouter(s.options, upstreams...)
	h.gateway.router, h.gateway.state = r, r.state
	if len(upstreams) > 1 {
		upstreams[0].keys = []*apiKey{keyOf("first"), keyOf("second")}
		now := time.Now() // another prompt has been blocked
		r.state.guard.remember("fake", 1, [16]byte{}, blockRecord{Class: classBlocked}, now.Add(time.Hour), now)
	}
	return h
}

// caller returns how to make one small call after the other.
func caller(tb testing.TB, h *Handler) (call func()) {
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{})
	ctx = context.WithValue(ctx, caddyhttp.ExtraLogFieldsCtxKey, new(caddyhttp.ExtraLogFields))
	return func() {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, imagePath, strings.NewReader(prompt))
		r.Header.Set(apiKeyHeader, "key")
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, r, nil); err != nil || w.Code != http.StatusOK {
			tb.Error(w.Code, err)
		}
	}
}
