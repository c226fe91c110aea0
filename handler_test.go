// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
)

// handlerOver is a handler with its defaults and a transport, without Caddy.
func handlerOver(tb testing.TB, transport http.RoundTripper) *Handler {
	tb.Helper()
	h := new(Handler)
	h.setDefaults()
	h.gateway = &gateway{options: &h.Options, router: testRouter(h.Options, upstreamAt(tb, "http://127.0.0.1:1", transport)), notes: new(noteLog), logger: zap.NewNop()}
	h.gateway.state = h.gateway.router.state
	var err error
	if h.gateway.metrics, err = registerMetrics(prometheus.NewRegistry(), h.knownModels()); err != nil {
		tb.Fatal(err)
	}
	return h
}

// keyOf is a key, or none.
func keyOf(secret string) *apiKey {
	if secret == "" {
		return nil
	}
	return &apiKey{secret: secret, project: "fake", account: "fake", id: keyID(secret)}
}

// testRouter is a router as options make it, that shares its state with nobody.
func testRouter(o Options, upstreams ...*upstream) *router {
	o.setDefaults()
	r := o.newRouter()
	r.state = newState()
	r.upstreams = upstreams
	return r
}

var pacific = func() *time.Location {
	zone, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err)
	}
	return zone
}()

// upstreamAt is an upstream called "fake".
func upstreamAt(tb testing.TB, base string, transport http.RoundTripper) *upstream {
	tb.Helper()
	u, err := url.Parse(base)
	if err != nil {
		tb.Fatal(err)
	}
	return &upstream{name: "fake", base: u, transport: transport, health: newHealth(), takesVertex: true}
}

// stalled answers with the beginning of a body and ends it with its caller.
type stalled struct{ begun func() }

func (s stalled) RoundTrip(r *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, `{"candidates":[`)
		s.begun()
		<-r.Context().Done()
		_ = w.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, ContentLength: -1}, nil
}

// A client that leaves while its answer is held says nothing about the upstream.
func TestClientThatLeavesBeforeTheVerdict(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	h := handlerOver(t, stalled{leave})
	repl := caddy.NewReplacer()
	r := httptest.NewRequestWithContext(context.WithValue(ctx, caddy.ReplacerCtxKey, repl), http.MethodPost, imagePath, strings.NewReader(prompt))
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, r, nil); err != nil {
		t.Fatal(err)
	}
	seen := repl.ReplaceAll("{http.gemini.verdict} {http.gemini.reason} {http.gemini.attempts}", "")
	if w.Code != statusClientGone || seen != "client CANCELLED 1" {
		t.Errorf("status %d, seen as %q", w.Code, seen)
	}
}

// Who calls with a key of its own is one project, wherever the key stands.
func TestProjectOfTheClient(t *testing.T) {
	key := "client-" + keyID("k")
	for _, c := range []struct{ field, value, query, want string }{
		{apiKeyHeader, "k", "", key},
		{"Authorization", "Bearer k", "", key},
		{"Authorization", "bearer  k", "", key},
		{"Authorization", "Bearer", "", ""},
		{"Authorization", "Basic k", "", "client-" + keyID("Basic k")},
		{"Accept", "*/*", "?key=k", key},
		{"Accept", "*/*", "", ""},
	} {
		r := httptest.NewRequest(http.MethodPost, imagePath+c.query, nil)
		r.Header.Set(c.field, c.value)
		if got := clientProject(r, call{}); got != c.want {
			t.Errorf("%s: %s %s: %q, want %q", c.field, c.value, c.query, got, c.want)
		}
	}
}
