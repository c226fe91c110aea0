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

// BenchmarkScan shows what inspecting an answer costs: it must be a small part
// of what moving its bytes costs.
func BenchmarkScan(b *testing.B) {
	image := strings.Replace(okImage, "aGVsbG8=", strings.Repeat("aGVsbG8h", 20<<20/8), 1)
	event := `data: {"candidates": [{"content": {"parts": [{"text": " will generate an image of the Eiffel Tower"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 15,"candidatesTokenCount": 17,"totalTokenCount": 32,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 15}]},"modelVersion": "gemini-2.5-flash","responseId": "mS77aIOaD5qFvr0P1b_T4AY"}` + "\r\n\r\n"
	for name, answer := range map[string]string{"events": strings.Repeat(event, 20), "text": `{"candidates":[{"content":{"parts":[{"text":"` + strings.Repeat("word ", 200) + `"}]},"finishReason":"STOP"}]}`, "image20M": image} {
		b.Run(name, func(b *testing.B) {
			body := []byte(answer)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				s := newAnswerScanner(new(facts), name == "events", geminiEnums)
				for p := body; len(p) > 0; {
					n, _ := s.write(p[:min(len(p), 32<<10)])
					p = p[n:]
				}
			}
		})
	}
}

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
// sockets and without Caddy's server: with its defaults, and with what a call
// that needs no retry could need.
func BenchmarkServeHTTP(b *testing.B) {
	body := []byte(`{"candidates":[{"content":{"parts":[{"text":"` + strings.Repeat("word ", 200) + `"}]},"finishReason":"STOP"}]}`)
	b.Run("defaults", func(b *testing.B) { serve(b, handlerOver(b, cannedTransport{body})) })
	b.Run("several", func(b *testing.B) {
		h := handlerOver(b, cannedTransport{body})
		r := h.gateway.router
		for _, name := range []string{"second", "third"} {
			u := upstreamAt(b, "http://127.0.0.1:1", cannedTransport{body})
			u.name = name
			r.upstreams = append(r.upstreams, u)
		}
		r.upstreams[0].keys = []*apiKey{keyOf("first"), keyOf("second")}
		now := time.Now() // another prompt has been blocked
		r.state.guard.remember("fake", 1, [16]byte{}, blockRecord{Class: classBlocked}, now.Add(time.Hour), now)
		serve(b, h)
	})
}

// serve lets a handler serve one call after the other.
func serve(b *testing.B, h *Handler) {
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{})
	ctx = context.WithValue(ctx, caddyhttp.ExtraLogFieldsCtxKey, new(caddyhttp.ExtraLogFields))
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, imagePath, strings.NewReader(prompt))
		r.Header.Set(apiKeyHeader, "key")
		if err := h.ServeHTTP(httptest.NewRecorder(), r, nil); err != nil {
			b.Fatal(err)
		}
	}
}
