// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

const (
	projectPath = "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent"
	expressPath = "/v1/publishers/google/models/gemini-2.5-flash:generateContent"
)

func TestVertexWantsAnAccessToken(t *testing.T) {
	h := provisioned(t)
	for _, path := range []string{projectPath, expressPath, strings.Replace(projectPath, ":generate", ":streamGenerate", 1) + "?alt=sse"} {
		for _, tc := range []struct{ name, header, value, reason string }{
			{"a token", "Authorization", "Bearer ya29.any", ""},
			{"a key", "X-Goog-Api-Key", "AIzaAny", ""},
			{"nothing", "Authorization", "", "CREDENTIALS_MISSING"},
			{"another scheme", "Authorization", "Basic YTpi", "CREDENTIALS_MISSING"},
			{"a key for a token", "Authorization", "Bearer AIzaAny", "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
			{"a new key for a token", "Authorization", "bearer AQ.Any", "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
		} {
			r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(prompt("hi")))
			r.Header.Set(tc.header, tc.value)
			got := serve(t, h, r)
			if tc.reason == "" {
				if got.status != 200 {
					t.Errorf("%s, %s: %d %s", path, tc.name, got.status, got.body)
				}
				continue
			}
			if got.status != 401 || got.get("error.status").Str != "UNAUTHENTICATED" || got.get(details+`ErrorInfo").reason`).Str != tc.reason {
				t.Errorf("%s, %s: %d %s", path, tc.name, got.status, got.body)
			}
		}
	}
}

func TestVertexModelNotFound(t *testing.T) {
	got := post(t, provisioned(t), projectPath, prompt("sim:not_found"))
	if got.status != 404 || !strings.HasPrefix(got.get("error.message").Str, "Publisher Model `publishers/google/models/gemini-2.5-flash` was not found") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestVertexChoosesTheMIMEType(t *testing.T) {
	body := strings.TrimSuffix(prompt("a cat"), "}") + `,"generationConfig":{"imageConfig":{"imageSize":"512","imageOutputOptions":{"mimeType":"image/png"}}}}`
	got := post(t, provisioned(t), "/v1/publishers/google/models/gemini-3-pro-image:generateContent", body)
	image := got.get(cand + "content.parts.1.inlineData")
	if _, format := decode(t, image.Get("data").Str); format != "png" || image.Get("mimeType").Str != "image/png" {
		t.Errorf("%d: %s", got.status, image.Get("mimeType").Str)
	}
}

func TestTokens(t *testing.T) {
	h := provisioned(t)
	exchange := func(grant, assertion string) reply {
		form := url.Values{"grant_type": {grant}, "assertion": {assertion}}
		r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(form.Encode())) // without a key
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return serve(t, h, r)
	}
	got := exchange(signedGrant, "a.b.c")
	token := got.get("access_token").Str
	if got.status != 200 || !strings.HasPrefix(token, "sim-") || got.get("expires_in").Raw != "3600" || got.get("token_type").Str != "Bearer" {
		t.Errorf("%d %s", got.status, got.body)
	}
	r := httptest.NewRequest(http.MethodPost, projectPath, strings.NewReader(prompt("hi")))
	r.Header.Set("Authorization", "Bearer "+token)
	if used := serve(t, h, r); used.status != 200 {
		t.Errorf("the token is not taken: %d %s", used.status, used.body)
	}
	if again := exchange(signedGrant, "a.b.c"); again.get("access_token").Str == token {
		t.Error("the same token twice")
	}
	for _, tc := range []struct{ grant, assertion, reason string }{
		{"", "a.b.c", "invalid_request"},
		{"password", "a.b.c", "unsupported_grant_type"},
		{signedGrant, "", "invalid_grant"},
		{signedGrant, "a.b", "invalid_grant"},
	} {
		if got := exchange(tc.grant, tc.assertion); got.status != 400 || got.get("error").Str != tc.reason || got.get("error_description").Str == "" {
			t.Errorf("%+v: %d %s", tc, got.status, got.body)
		}
	}
	if got := post(t, h, "/token", "%"); got.status != 400 || got.get("error").Str != "invalid_request" {
		t.Errorf("no form: %d %s", got.status, got.body)
	}
}
