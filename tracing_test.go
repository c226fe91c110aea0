// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// traced sends a call through a handler in a span, and returns the span's
// attributes.
func traced(t *testing.T, path, body, answer string, sampler sdktrace.Sampler) map[string]any {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sampler))
	h := handlerOver(t, roundTripper(func(*http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		w.WriteString(answer)
		return w.Result(), nil
	}))
	ctx, span := provider.Tracer("test").Start(t.Context(), "call")
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
	r.Header.Set(apiKeyHeader, "client-key")
	if err := h.ServeHTTP(httptest.NewRecorder(), r, nil); err != nil {
		t.Fatal(err)
	}
	span.End()
	got := make(map[string]any)
	for _, s := range recorder.Ended() {
		for _, a := range s.Attributes() {
			got[string(a.Key)] = a.Value.AsInterface()
		}
	}
	return got
}

func TestSpanAttributes(t *testing.T) {
	const usage = `,"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1120,"thoughtsTokenCount":80}}`
	stopped := `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},"finishReason":"STOP"}]` + usage
	blocked := `{"candidates":[{"finishReason":"IMAGE_SAFETY"}]` + usage
	said := `{"candidates":[{"content":{"parts":[{"text":"hello"}]},"finishReason":"STOP"}]}`
	for name, c := range map[string]struct {
		path, answer string
		want         map[string]any // nil: there is no such attribute
	}{
		"image": {imagePath, stopped, map[string]any{
			"gen_ai.operation.name":                "generate_content",
			"gen_ai.provider.name":                 "gcp.gemini",
			"gen_ai.request.model":                 "gemini-3-pro-image",
			"gen_ai.request.stream":                nil,
			"gen_ai.output.type":                   "image",
			"gen_ai.response.finish_reasons":       []string{"stop"},
			"gen_ai.usage.input_tokens":            int64(3),
			"gen_ai.usage.output_tokens":           int64(1200),
			"gen_ai.usage.reasoning.output_tokens": int64(80),
			"error.type":                           nil,
			"caddy.gemini.upstream":                "fake",
			"caddy.gemini.attempts":                int64(1),
			"caddy.gemini.images":                  int64(1),
			"caddy.gemini.verdict":                 "ok",
			"caddy.gemini.wait":                    0.0,
		}},
		"block": {imagePath, blocked, map[string]any{
			"gen_ai.response.finish_reasons": []string{"image_safety"},
			"gen_ai.usage.output_tokens":     int64(1200),
			"error.type":                     "IMAGE_SAFETY",
			"caddy.gemini.verdict":           "blocked",
			"caddy.gemini.reason":            "IMAGE_SAFETY",
		}},
		"text in a stream": {"/v1beta/models/gemini-2.5-flash:streamGenerateContent", "[" + said + "]", map[string]any{
			"gen_ai.request.stream":     true,
			"gen_ai.output.type":        nil,
			"gen_ai.usage.input_tokens": nil,
		}},
		"vertex":     {"/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent", said, map[string]any{"gen_ai.provider.name": "gcp.vertex_ai"}},
		"not UTF-8":  {"/v1beta/models/gemini%ff:generateContent", said, map[string]any{"gen_ai.request.model": storable("gemini\xff")}},
		"bad answer": {"/v1beta/models/gemini-2.5-flash:generateContent", `{"promptFeedback":{"blockReason":"INVENTED"}}`, map[string]any{"error.type": other, "gen_ai.response.finish_reasons": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			got := traced(t, c.path, prompt, c.answer, sdktrace.AlwaysSample())
			for key, want := range c.want {
				if !equalValues(got[key], want) {
					t.Errorf("%s is %v, expected %v", key, got[key], want)
				}
			}
			for key, value := range got {
				if text, ok := value.(string); ok && (strings.Contains(text, "a cat") || strings.Contains(text, "client-key")) {
					t.Errorf("%s tells a secret: %s", key, text)
				}
			}
		})
	}
}

func equalValues(a, b any) bool {
	if list, ok := a.([]string); ok {
		want, _ := b.([]string)
		return slices.Equal(list, want)
	}
	return a == b
}

// Google counts each attempt, and so does the span.
func TestSpanCountsAllAttempts(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test").Start(t.Context(), "call")
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, imagePath, strings.NewReader(prompt))
	x := newExchange(r, recognise(r))
	x.body = newRequestBody(r, completion{}, defaultMaxBody, true)
	defer x.body.release()
	for range 2 {
		x.story = append(x.story, &attempt{facts: facts{usage: usage{input: 3, output: 1130, thinking: 50, image: 1120}}})
	}
	x.trace()
	span.End()
	got := make(map[string]int64)
	for _, a := range recorder.Ended()[0].Attributes() {
		if name, ok := strings.CutPrefix(string(a.Key), "gen_ai.usage."); ok {
			got[name] = a.Value.AsInt64()
		}
	}
	want := map[string]int64{"input_tokens": 6, "output_tokens": 2360, "reasoning.output_tokens": 100, "image.output_tokens": 2240}
	if !maps.Equal(got, want) {
		t.Errorf("usage %v", got)
	}
}

// A call of OpenAI's clients is a chat.
func TestSpanOfAnOpenAICall(t *testing.T) {
	got := traced(t, "/v1beta/openai/chat/completions", `{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"a cat"}]}`,
		`{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}`, sdktrace.AlwaysSample())
	for key, want := range map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.provider.name": "gcp.gemini",
		"gen_ai.request.model": "gemini-2.5-flash", "gen_ai.usage.output_tokens": int64(4),
	} {
		if got[key] != want {
			t.Errorf("%s is %v, expected %v", key, got[key], want)
		}
	}
}

// All that is told elsewhere about a call is told to its span as well.
func TestSpanHasThePlaceholders(t *testing.T) {
	got := traced(t, imagePath, prompt, okImage, sdktrace.AlwaysSample())
	for _, f := range publishedFields {
		if got["caddy.gemini."+f.name] == nil {
			t.Errorf("caddy.gemini.%s is missing from %v", f.name, slices.Sorted(maps.Keys(got)))
		}
	}
	if a := attributeOf("x", time.Second); a.Value.AsString() != "1s" {
		t.Errorf("a value of another type is %v", a.Value.AsInterface())
	}
}

// Nothing is worked out for a span that nobody records.
func TestUnrecordedSpanCostsNothing(t *testing.T) {
	if got := traced(t, imagePath, prompt, okImage, sdktrace.NeverSample()); len(got) > 0 {
		t.Errorf("an unrecorded span got %v", got)
	}
	x := &exchange{ctx: t.Context()} // without what a span would be told
	if n := testing.AllocsPerRun(100, x.trace); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
