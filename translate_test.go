// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// How each kind of call gets to each kind of upstream.
func TestWays(t *testing.T) {
	const (
		vertex  = "/v1beta1/projects/p/locations/l/"
		google  = vertex + "publishers/google/models/"
		asIs    = wayAsIs
		native  = wayNative
		images  = wayImages
		chat    = wayChat
		nowhere = wayNone
	)
	for _, c := range []struct {
		target, model string
		// The Gemini API, Vertex AI, the same without a project, OpenAI's images, and
		// its chats.
		want [5]way
	}{
		{"/v1beta/models/gemini-3-pro-image:generateContent", "", [5]way{asIs, asIs, asIs, images, chat}},
		{"/v1beta/models/gemini-3-pro:streamGenerateContent", "", [5]way{asIs, asIs, asIs, chat, chat}},
		{"/v1beta/tunedModels/mine:generateContent", "", [5]way{asIs, nowhere, nowhere, chat, chat}},
		{"/v1beta/models/imagen-4:predict", "", [5]way{asIs, asIs, asIs, nowhere, nowhere}},
		{google + "gemini-3-pro-image:generateContent", "", [5]way{asIs, asIs, asIs, images, chat}},
		{google + "imagen-4:predict", "", [5]way{nowhere, asIs, asIs, nowhere, nowhere}},
		{vertex + "endpoints/7:generateContent", "", [5]way{nowhere, asIs, asIs, chat, chat}},
		{"/v1beta/interactions", "gemini-3-pro-image", [5]way{asIs, nowhere, nowhere, nowhere, nowhere}},
		{vertex + "interactions", "gemini-3-pro-image", [5]way{nowhere, asIs, asIs, nowhere, nowhere}},
		{"/v1/images/generations", "nano-banana", [5]way{native, native, native, asIs, chat}},
		{"/v1/images/generations", "whatever", [5]way{native, native, native, asIs, chat}},
		{"/v1/images/generations", "imagen-4", [5]way{asIs, nowhere, nowhere, asIs, chat}},
		{"/v1beta/openai/images/edits", "nano-banana", [5]way{native, native, native, asIs, chat}},
		{"/v1/chat/completions", "nano-banana", [5]way{native, native, native, asIs, asIs}},
		{"/v1/chat/completions", "gemini-3-pro", [5]way{asIs, asIs, nowhere, asIs, asIs}},
	} {
		upstreams := []*upstream{
			{format: formatGemini}, {format: formatVertex, project: "ours"}, {format: formatVertex}, {format: formatOpenAI}, {format: formatOpenAI, imagesByChat: true},
		}
		var got [5]way
		for i, u := range upstreams {
			x := &exchange{call: recognise(httptest.NewRequest(http.MethodPost, c.target, nil))}
			if x.model = c.model; c.model == "" {
				x.model = x.call.model
			}
			u.aliases = new(Options).aliases()
			trip := &trip{router: &router{imageModels: defaultImageModels, upstreams: upstreams}, x: x}
			s := &station{upstream: u, model: u.mapModel(x.model)}
			s.draws = trip.isImageModel(x.model, s.model) || x.call.imageAPI()
			got[i] = trip.wayTo(s)
		}
		if got != c.want {
			t.Errorf("%s of %q: %v, want %v", c.target, c.model, got, c.want)
		}
	}
}

// Where calls go at upstreams of another form.
func TestTranslatedAddress(t *testing.T) {
	const model = "gemini-3-pro-image"
	for _, c := range []struct {
		target, base string
		u            *upstream
		course       course
		want         string
	}{
		{"/v1/chat/completions?key=x", "https://h", &upstream{}, course{way: wayNative, model: model}, "https://h/v1beta/models/" + model + ":generateContent"},
		{"/v1/chat/completions", "https://h/p", &upstream{}, course{way: wayNative, model: model, stream: true}, "https://h/p/v1beta/models/" + model + ":streamGenerateContent?alt=sse"},
		{"/v1/images/edits", "https://h", &upstream{format: formatVertex, project: "p", location: "l"}, course{way: wayNative, model: model}, "https://h/v1beta1/projects/p/locations/l/publishers/google/models/" + model + ":generateContent"},
		{"/v1/models/m:generateContent?key=x", "https://h", &upstream{format: formatOpenAI}, course{way: wayImages, model: "m"}, "https://h/v1/images/generations"},
		{"/v1/models/m:generateContent", "https://h/v1", &upstream{format: formatOpenAI}, course{way: wayImages, model: "m", isEdit: true}, "https://h/v1/images/edits"},
		{"/v1/models/m:generateContent", "https://h/v1beta/openai/", &upstream{format: formatOpenAI}, course{way: wayChat, model: "m"}, "https://h/v1beta/openai/chat/completions"},
		{"/v1/chat/completions", "https://h", &upstream{}, course{way: wayAsIs}, "https://h/v1beta/openai/chat/completions"},
		{"/v1beta/openai/chat/completions", "https://h", &upstream{format: formatOpenAI}, course{way: wayAsIs}, "https://h/v1/chat/completions"},
		{"/v1/chat/completions", "https://h", &upstream{format: formatVertex, project: "p"}, course{way: wayAsIs}, "https://h/v1/projects/p/locations/global/endpoints/openapi/chat/completions"},
		{"/v1beta/models/m:generateContent?x=1", "https://h", &upstream{format: formatVertex}, course{way: wayAsIs, model: "n"}, "https://h/v1beta1/publishers/google/models/n:generateContent?x=1"},
		{"/v1/projects/a/locations/b/publishers/google/models/m:streamGenerateContent?alt=sse", "https://h", &upstream{}, course{way: wayAsIs, model: "m"}, "https://h/v1beta/models/m:streamGenerateContent?alt=sse"},
		{"/v1/projects/a/locations/b/publishers/google/models/m:generateContent", "https://h", &upstream{format: formatVertex, project: "p", location: "l"}, course{way: wayAsIs, model: "m"}, "https://h/v1/projects/p/locations/l/publishers/google/models/m:generateContent"},
		{"/v1/projects/a/locations/b/endpoints/7:generateContent", "https://h", &upstream{format: formatVertex, project: "p"}, course{way: wayAsIs, model: "7"}, "https://h/v1/projects/a/locations/b/endpoints/7:generateContent"},
	} {
		r := httptest.NewRequest(http.MethodPost, c.target, nil)
		u := c.u
		var err error
		if u.base, err = url.Parse(c.base); err != nil {
			t.Fatal(err)
		}
		if got := u.url(r, &exchange{call: recognise(r)}, nil, c.course).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.target, got, c.want)
		}
	}
}

// A key goes where the upstream's form has it, whosever it is.
func TestKeysInAnotherForm(t *testing.T) {
	client := func(field, value string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/v1/chat/completions", nil)
		r.Header.Set(field, value)
		return r
	}
	for name, c := range map[string]struct {
		in        *http.Request
		u         *upstream
		key       *apiKey
		way       way
		held, who string
	}{
		"OpenAI client at Gemini": {client("Authorization", "Bearer AIza"), &upstream{}, nil, wayNative, "AIza", ""},
		"token at Gemini":         {client("Authorization", "Bearer ya29.a"), &upstream{}, nil, wayNative, "", "Bearer ya29.a"},
		"Gemini client at OpenAI": {client(apiKeyHeader, "AIza"), &upstream{format: formatOpenAI}, nil, wayChat, "", "Bearer AIza"},
		"own key at OpenAI":       {client(apiKeyHeader, "AIza"), &upstream{format: formatOpenAI}, keyOf("ours"), wayChat, "", "Bearer ours"},
		"own key at Gemini":       {client("Authorization", "Bearer sk"), &upstream{}, keyOf("ours"), wayNative, "ours", ""},
		"own header":              {client(apiKeyHeader, "AIza"), &upstream{hasCredential: true}, nil, wayNative, "", ""},
		"token of Vertex AI":      {client(apiKeyHeader, "AIza"), &upstream{format: formatVertex}, &apiKey{secret: "t", isToken: true}, wayNative, "", "Bearer t"},
		"none":                    {client("Accept", "*/*"), &upstream{}, nil, wayNative, "", ""},
	} {
		x := &exchange{call: recognise(c.in)}
		h := c.u.header(c.in, x, c.key, course{way: c.way})
		if h.Get(apiKeyHeader) != c.held || h.Get("Authorization") != c.who {
			t.Errorf("%s: %v", name, h)
		}
	}
}
