// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A redirect is no answer to a generate call. It is not followed, and the client is not
// sent there either.
func TestRedirectOfAGenerateCall(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		elsewhere := scripted(t, drawn)
		u := scripted(t, with("Location", elsewhere.URL+unaryPath, answers(status, jsonType, "")))
		for name, g := range map[string]string{"directive": gemini(place("scripted", u, "api_key {env.CADDYTEST_KEY}")), "transport": proxied(u.URL, once())} {
			u.play(u.answer)
			s := run(t, g).post(t, unaryPath, promptJSON)
			s.fails(t, 503, "EMPTY_RESPONSE")
			if at := s.Header.Get("Location"); at != "" {
				t.Errorf("%s: the client is sent to %s", name, at)
			}
			u.only(t)
		}
		elsewhere.untouched(t)
	}
}

// What is forwarded may be redirected: by way of the gateway where the place is at the
// upstream, which knows the key. With a key of the operator's, clients are sent nowhere
// else: theirs is for this site.
func TestRedirectOfAForwardedCall(t *testing.T) {
	const path, refused = "/v1beta/files/abc:download?alt=media", "503"
	elsewhere := scripted(t, drawn)
	for _, c := range []struct {
		name, location string // OWN is the upstream's address
		ours, theirs   string // what a client gets, with the operator's key and with its own
	}{
		{"its own place", "OWN/a/download/v1beta/files/abc?alt=media#x", "/download/v1beta/files/abc?alt=media#x", "/download/v1beta/files/abc?alt=media#x"},
		{"a path", "/a/v1beta/files/b", "/v1beta/files/b", "/v1beta/files/b"},
		{"a relative path", "../models", "/v1beta/models", "/v1beta/models"},
		{"its own place, with the key", "OWN/a/v1beta/x?key=" + clientKey, "/v1beta/x", "/v1beta/x?key=" + clientKey},
		{"another path of its own", "OWN/login", refused, "OWN/login"},
		{"two slashes", "OWN/a//evil.example/v1beta", refused, "OWN/a//evil.example/v1beta"},
		{"elsewhere", elsewhere.URL + "/a/v1beta/files/abc", refused, elsewhere.URL + "/a/v1beta/files/abc"},
		{"elsewhere, without a scheme", "//" + strings.TrimPrefix(elsewhere.URL, "http://") + "/a/v1beta", refused, "//" + strings.TrimPrefix(elsewhere.URL, "http://") + "/a/v1beta"},
		{"another scheme", "https" + strings.TrimPrefix("OWN", "http") + "/a/v1beta", refused, "httpsOWN/a/v1beta"},
		{"nonsense", "http://[", refused, "http://["},
		{"none", "", "", ""}, // 308 is how Google's uploads say that more is to come
	} {
		for _, status := range []int{302, 307, 308} {
			t.Run(fmt.Sprint(c.name, "/", status), func(t *testing.T) {
				u := scripted(t, nil)
				u.play(with("Location", strings.ReplaceAll(c.location, "OWN", u.URL), answers(status, jsonType, "")))
				for want, options := range map[string][]string{"ours: " + c.ours: {"api_key {env.CADDYTEST_KEY}"}, "theirs: " + c.theirs: nil} {
					whose, want, _ := strings.Cut(want, ": ")
					want = strings.ReplaceAll(want, "OWN", u.URL)
					g := run(t, gemini(placeAt("scripted", u.URL+"/a", options...)))
					s := do(t, g.newRequest(t, http.MethodGet, path, nil))
					if want == refused {
						s.fails(t, 503, "EMPTY_RESPONSE")
						want = ""
					} else if s.StatusCode != status {
						t.Errorf("%s: status %d", whose, s.StatusCode)
					}
					if got := s.Header.Get("Location"); got != want {
						t.Errorf("%s: the client is sent to %q, want %q", whose, got, want)
					}
				}
				for _, r := range u.received() {
					if r.URI != "/a"+path {
						t.Errorf("the upstream received %s", r.URI)
					}
				}
			})
		}
	}
	elsewhere.untouched(t)
}

// The way back begins with what the site has cut off.
func TestRedirectBehindAPrefix(t *testing.T) {
	u := scripted(t, nil)
	u.play(with("Location", u.URL+"/v1beta/files/b", answers(302, jsonType, "")))
	g := run(t, "handle_path /google/* {\n"+gemini(place("scripted", u, "api_key {env.CADDYTEST_KEY}"))+"}\n")
	r := g.newRequest(t, http.MethodGet, "/google/v1beta/files/a", nil)
	r.Header.Del("X-Goog-Api-Key") // which Caddy logs when it rewrites a path, at debug level
	s := do(t, r)
	if at := s.Header.Get("Location"); at != "/google/v1beta/files/b" {
		t.Errorf("the client is sent to %s", at)
	}
}

// Whoever gives out tokens cannot send elsewhere what they are given out for.
func TestRedirectOfATokenRequest(t *testing.T) {
	elsewhere, u := scripted(t, issues(vertexToken)), scripted(t, drawn)
	tokens := scripted(t, with("Location", elsewhere.URL+"/", answers(307, jsonType, "")))
	g := run(t, gemini(place("cloud", u, "format vertex", "credentials "+accountOf(t, tokens))))
	g.post(t, unaryPath, promptJSON).fails(t, 503, "UPSTREAM_UNAVAILABLE")
	elsewhere.untouched(t)
	u.untouched(t)
	if len(tokens.received()) == 0 {
		t.Error("no token was asked for")
	}
}
