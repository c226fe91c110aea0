// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []byte // protobuf, in which text is as it is
}

func collect(t *testing.T) *collector {
	t.Helper()
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading spans: %v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.spans = append(c.spans, body...)
	}))
	t.Cleanup(c.Close)
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20") // milliseconds until spans are sent
	return c
}

func (c *collector) contains(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.spans, []byte(text))
}

// What Caddy's own tracing exports tells what became of a call, through either
// door, and neither its prompt nor its key.
func TestTracing(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	for name, directives := range map[string]string{
		"handler":   gemini("upstream traced " + u.URL),
		"transport": "reverse_proxy " + u.URL + " {\n\ttransport gemini {\n\t\tretry off\n\t\tguard off\n\t\tupstream traced " + u.URL + "\n\t}\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := collect(t)
			g := run(t, "tracing\n"+directives)
			g.post(t, unaryPath+"?key="+clientKey, promptJSON).fails(t, 400, "IMAGE_SAFETY")
			eventually(t, "the span arrives", func() bool { return c.contains("gen_ai.operation.name") })
			for _, text := range []string{
				"generate_content", "gen_ai.provider.name", "gcp.gemini", "gen_ai.request.model", imageModel,
				"gen_ai.usage.input_tokens", "error.type", "IMAGE_SAFETY", "caddy.gemini.upstream", "traced", "caddy.gemini.verdict", "blocked",
			} {
				if !c.contains(text) {
					t.Errorf("%s is not in the span", text)
				}
			}
			for _, secret := range []string{clientKey, prompt} {
				if c.contains(secret) {
					t.Errorf("the span tells %q", secret)
				}
			}
		})
	}
}
