// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strings"
	"testing"
)

// curl --http2 and Java's HttpClient offer to upgrade every call on http:// to
// HTTP/2: that must not make it anything but a call.
func TestOfferToUpgrade(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := inFront(t, u)
	s := g.post(t, unaryPath, promptJSON, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", "AAEAAEAAAAIAAAABAAMAAABk")
	s.fails(t, 400, "IMAGE_SAFETY")
	received := u.only(t)
	if len(received.json(t)["safetySettings"].([]any)) != 4 {
		t.Errorf("the upstream received %s", received.Body)
	}
	for _, name := range []string{"Upgrade", "Http2-Settings"} {
		if received.Header.Get(name) != "" {
			t.Errorf("the upstream received %s: %s", name, received.Header.Get(name))
		}
	}
}

// A limit of the site's own counts for calls of all kinds.
func TestLimitOfTheSite(t *testing.T) {
	u := scripted(t, answers(200, jsonType, "{}"))
	g := run(t, "request_body {\nmax_size 10KB\n}\n"+gemini("upstream scripted "+u.URL))
	for _, uri := range []string{unaryPath, "/upload/v1beta/files"} {
		r := g.newRequest(t, http.MethodPost, uri, strings.NewReader(`{"contents":["`+strings.Repeat("x", 100_000)+`"]}`))
		r.ContentLength = -1
		s := do(t, r)
		s.fails(t, 413, "BODY_TOO_LARGE")
	}
}

func TestUpstreamThatIsNotThere(t *testing.T) {
	g := run(t, gemini("upstream nobody http://"+freeAddress(t)))
	for _, uri := range []string{unaryPath, "/v1beta/models/" + imageModel + ":countTokens"} {
		s := g.post(t, uri, promptJSON)
		s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
		want := `caddy-gemini; next-hop="nobody"; error=connection_refused; details="UPSTREAM_UNAVAILABLE"`
		if got := s.Header.Get("Proxy-Status"); got != want {
			t.Errorf("%s: Proxy-Status %q, want %q", uri, got, want)
		}
	}
}
