// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Google takes parameters with which an answer has no block in it, or is no JSON, as all
// its APIs do (cloud.google.com/apis/docs/system-parameters). A call that is judged has
// none of them.
func TestAnswersStayJudgeable(t *testing.T) {
	const kept = "x=1&$alt=json;enum-encoding=int&prettyPrint=false"
	for name, site := range map[string]func(u *upstream) string{
		"directive": func(u *upstream) string { return gemini("upstream scripted " + u.URL) },
		"transport": func(u *upstream) string { return proxied(u.URL, once()) },
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, drawn)
			g := run(t, site(u))
			for _, mask := range []string{"fields=candidates", "$fields=candidates", "%24fields=a&fields=b", "f%69elds=modelVersion"} {
				u.play(drawn)
				g.post(t, unaryPath+"?"+mask+"&"+kept, promptJSON, "X-Goog-FieldMask", "candidates").exactly(t, 200, imageJSON)
				got := u.only(t)
				if _, query, _ := strings.Cut(got.URI, "?"); query != kept || got.Header.Get("X-Goog-FieldMask") != "" {
					t.Errorf("%s: the upstream got %s, %v", mask, query, got.Header)
				}
			}
			u.play(drawn)
			for _, form := range []string{"alt=proto", "$alt=media", "%24alt=proto", "alt=sse&alt=proto", "callback=draw", "$callback=draw"} {
				e := g.post(t, unaryPath+"?"+form, promptJSON).fails(t, 400, "MALFORMED_REQUEST")
				if !strings.Contains(e.Message, "not JSON") {
					t.Errorf("%s: %q does not say why", form, e.Message)
				}
			}
			u.untouched(t)
		})
	}
}

// A prompt that was blocked for a key is known by that key, wherever else a client puts
// one: of two the header's counts, and it alone goes on.
func TestOneKeyCounts(t *testing.T) {
	u := scripted(t, gives(promptBlockedJSON))
	g := run(t, gemini("upstream scripted "+u.URL, "guard 24h"))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "PROHIBITED_CONTENT") // with clientKey, in the header
	u.play(drawn)
	for _, credential := range []string{"key", "$key", "%24key", "access_token", "oauth_token"} {
		query := credential + "=" + url.QueryEscape(clientKey)
		r := g.newRequest(t, http.MethodPost, unaryPath+"?"+query, strings.NewReader(promptJSON))
		r.Header.Del("X-Goog-Api-Key")
		do(t, r).repeats(t, "forbidden", "prompt", "PROHIBITED_CONTENT")
		g.post(t, unaryPath+"?"+credential+"=another", promptJSON).repeats(t, "forbidden", "prompt", "PROHIBITED_CONTENT")
	}
	u.untouched(t)
	g.post(t, unaryPath+"?key=another&x=1", `{"contents":[{"parts":[{"text":"A lighthouse"}]}]}`).exactly(t, 200, imageJSON)
	if got := u.only(t); !strings.HasSuffix(got.URI, "?x=1") || got.Header.Get("X-Goog-Api-Key") != clientKey {
		t.Errorf("the upstream got %s, %v", got.URI, got.Header)
	}
}
