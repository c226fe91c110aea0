// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestVertexPath(t *testing.T) {
	for _, tt := range []struct{ version, project, location, model, want string }{
		{"v1", "p", "europe-west4", "gemini-2.5-flash-image", "/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-flash-image:verb"},
		{"v1beta", "p", "", "m", "/v1beta1/projects/p/locations/global/publishers/google/models/m:verb"},
		{"v1alpha", "p", "global", "m", "/v1beta1/projects/p/locations/global/publishers/google/models/m:verb"},
		{"v1beta1", "", "", "m", "/v1beta1/publishers/google/models/m:verb"},
		{"v1", "", "us-central1", "m", "/v1/publishers/google/models/m:verb"},
		{"", "p", "us", "m", "/v1beta1/projects/p/locations/us/publishers/google/models/m:verb"},
		{"v1", "example.com:p", "us", "models/google/m", "/v1/projects/example.com:p/locations/us/publishers/google/models/m:verb"},
		{"v1", "p", "us", "a/b c%2Fd?e#f", "/v1/projects/p/locations/us/publishers/google/models/a%2Fb%20c%252Fd%3Fe%23f:verb"},
	} {
		if got := vertexPath(tt.version, tt.project, tt.location, tt.model, "verb"); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

func TestGeminiPath(t *testing.T) {
	for model, want := range map[string]string{
		"gemini-3-pro-image": "/v1beta/models/gemini-3-pro-image:streamGenerateContent",
		"models/m":           "/v1beta/models/m:streamGenerateContent",
		"../x":               "/v1beta/models/..%2Fx:streamGenerateContent",
	} {
		if got := geminiPath(model, "streamGenerateContent"); got != want {
			t.Errorf("%s: got %s, want %s", model, got, want)
		}
	}
}

func TestOpenAIPath(t *testing.T) {
	for _, tt := range []struct {
		format       format
		method, want string
	}{
		{formatGemini, "chat.completions", "/v1beta/openai/chat/completions"},
		{formatVertex, "chat.completions", "/v1/projects/p/locations/eu/endpoints/openapi/chat/completions"},
		{formatOpenAI, "chat.completions", "/v1/chat/completions"},
		{formatGemini, "images.generations", "/v1beta/openai/images/generations"},
		{formatOpenAI, "images.edits", "/v1/images/edits"},
	} {
		if got := openAIPathOf(tt.format, tt.method, "p", "eu"); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

// TestPathsAreRecognised has every path taken for what it was made for.
func TestPathsAreRecognised(t *testing.T) {
	const model = "gemini-3-pro-image"
	for path, want := range map[string]call{
		vertexPath("v1beta", "p", "us", model, "generateContent"): {surface: surfaceVertex, version: "v1beta1", method: "generateContent", model: model, project: "p"},
		vertexPath("v1", "", "", model, "generateContent"):        {surface: surfaceVertex, version: "v1", method: "generateContent", model: model},
		geminiPath(model, "generateContent"):                      {surface: surfaceGemini, version: "v1beta", method: "generateContent", model: model},
		openAIPathOf(formatGemini, "chat.completions", "", ""):    {surface: surfaceOpenAI, version: "v1beta", method: "chat.completions"},
		openAIPathOf(formatVertex, "chat.completions", "p", ""):   {surface: surfaceOpenAI, version: "v1", method: "chat.completions", project: "p"},
	} {
		got := recognise(httptest.NewRequest(http.MethodPost, path, nil))
		if got.surface != want.surface || got.version != want.version || got.method != want.method ||
			got.model != want.model || got.project != want.project || !got.generates {
			t.Errorf("%s: got %+v", path, got)
		}
	}
}
