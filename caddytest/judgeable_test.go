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
	u.play(drawn)
	r := g.newRequest(t, http.MethodPost, unaryPath+"?key=another", strings.NewReader(promptJSON))
	r.Header.Del("X-Goog-Api-Key")
	r.Header.Set("Authorization", "Bearer "+clientKey)
	do(t, r).repeats(t, "forbidden", "prompt", "PROHIBITED_CONTENT")
	u.untouched(t)
}

// A password is no key: it takes the place of none, and leaves none out.
func TestPasswordsAreNoKeys(t *testing.T) {
	for option, want := range map[string]string{"format gemini": "", "format vertex": clientKey, "format openai": "Bearer " + clientKey} {
		u := scripted(t, inEveryForm(drawing))
		g := run(t, gemini(place("only", u, option)))
		r := g.newRequest(t, http.MethodPost, unaryPath+"?key="+clientKey, strings.NewReader(promptJSON))
		r.Header.Del("X-Goog-Api-Key")
		r.SetBasicAuth("user", "password")
		if s := do(t, r); s.StatusCode != 200 {
			t.Errorf("%s: %d %s", option, s.StatusCode, s.body)
		}
		got := u.only(t)
		if want == "" {
			if !strings.HasSuffix(got.URI, "?key="+clientKey) {
				t.Errorf("%s: the upstream got %s", option, got.URI)
			}
		} else if key := got.Header.Get("X-Goog-Api-Key") + got.Header.Get("Authorization"); key != want {
			t.Errorf("%s: the upstream got %q", option, key)
		}
	}
}

// Where the API of the upstream has one place for a key, that of the client which counts
// is put there.
func TestTheKeyThatCountsGoesOn(t *testing.T) {
	u := scripted(t, gives(textJSON))
	g := run(t, gemini("upstream scripted "+u.URL))
	for _, query := range []string{"?key=another", "?key=" + clientKey + "&access_token=another"} {
		r := g.newRequest(t, http.MethodPost, strings.Replace(unaryPath, imageModel, textModel, 1)+query, strings.NewReader(promptJSON))
		r.Header.Del("X-Goog-Api-Key")
		if query == "?key=another" {
			r.Header.Set("Authorization", "Bearer "+clientKey)
		}
		do(t, r).exactly(t, 200, textJSON)
	}
	for _, got := range u.received() {
		if strings.Contains(got.URI, "another") || !strings.Contains(got.URI+got.Header.Get("Authorization"), clientKey) {
			t.Errorf("the upstream got %s, %v", got.URI, got.Header)
		}
	}
}
