// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"reflect"
	"strings"
	"testing"
)

const (
	onVertex    = "/v1beta1/projects/p/locations/us-central1"
	vertexModel = onVertex + "/publishers/google/models/"
)

// Every URL of wire §1, and what only looks like one.
func TestRecognise(t *testing.T) {
	const (
		get  = http.MethodGet
		post = http.MethodPost
	)
	for _, c := range []struct {
		http, target string
		want         call // without the places
	}{
		{"post", "/v1beta/models/m:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "m", generates: true}},
		{post, "/v1beta/models/gemini-2.5-flash-image:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "gemini-2.5-flash-image", generates: true}},
		{post, "/v1/models/gemini-3-pro-image:generateContent?key=AIza", call{surface: surfaceGemini, method: "generateContent", model: "gemini-3-pro-image", generates: true}},
		{post, "/v1alpha/models/m:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "m", generates: true}},
		{post, "/v1beta/models/m%3AgenerateContent", call{surface: surfaceGemini, method: "generateContent", model: "m", generates: true}},
		{post, "/v1beta/models/m%3agenerateContent", call{surface: surfaceGemini, method: "generateContent", model: "m", generates: true}},
		{post, "/v1beta/tunedModels/my-model-7:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "my-model-7", generates: true}},
		{post, "/v1/models/a:b:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "a:b", generates: true}},
		{post, "/v1/models/a:b%3AgenerateContent", call{surface: surfaceGemini, method: "generateContent", model: "a:b", generates: true}},
		{post, "/v1/models/m%253AgenerateContent", call{surface: surfaceGemini, model: "m%3AgenerateContent"}},
		{post, "/v1/models/a%2Fb:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "a/b", generates: true}},
		{post, "/v1beta/model%73/m:generateConten%74", call{surface: surfaceGemini, method: "generateContent", model: "m", generates: true}},
		{get, "/v1/users", call{}},
		{post, "/v1/users/models:find", call{}},
		{get, "/v1/models", call{surface: surfaceGemini}},
		{get, "/v1beta/anything", call{surface: surfaceGemini}},

		{post, "/v1beta/models/m:streamGenerateContent?alt=sse", call{surface: surfaceGemini, method: "streamGenerateContent", model: "m", generates: true, events: true}},
		{post, "/v1beta/models/m:streamGenerateContent?key=x&%24alt=sse", call{surface: surfaceGemini, method: "streamGenerateContent", model: "m", generates: true, events: true}},
		{post, "/v1beta/models/m:streamGenerateContent?$alt=sse;enum-encoding=int", call{surface: surfaceGemini, method: "streamGenerateContent", model: "m", generates: true, events: true}},
		{post, "/v1beta/models/m:streamGenerateContent?$alt=json;enum-encoding=int", call{surface: surfaceGemini, method: "streamGenerateContent", model: "m", generates: true, array: true}},
		{post, "/v1beta/models/m:streamGenerateContent?x=alt=sse&salt=sse", call{surface: surfaceGemini, method: "streamGenerateContent", model: "m", generates: true, array: true}},
		{post, "/v1beta/models/m:streamGenerateContent", call{surface: surfaceGemini, method: "streamGenerateContent", model: "m", generates: true, array: true}},
		{post, "/v1beta/models/m:generateContent?$alt=json;enum-encoding=int", call{surface: surfaceGemini, method: "generateContent", model: "m", generates: true}},

		{post, vertexModel + "m:generateContent", call{surface: surfaceVertex, method: "generateContent", model: "m", generates: true}},
		{post, vertexModel + "m:streamGenerateContent?alt=sse", call{surface: surfaceVertex, method: "streamGenerateContent", model: "m", generates: true, events: true}},
		{post, "/v1/publishers/google/models/m:streamGenerateContent", call{surface: surfaceVertex, method: "streamGenerateContent", model: "m", generates: true, array: true}},
		{post, onVertex + "/endpoints/1234:generateContent", call{surface: surfaceVertex, method: "generateContent", model: "1234", generates: true}},
		{post, vertexModel + "imagen-4.0-generate-001:predict", call{surface: surfaceVertex, method: "predict", model: "imagen-4.0-generate-001", generates: true}},
		{post, vertexModel + "imagegeneration@006:predict", call{surface: surfaceVertex, method: "predict", model: "imagegeneration@006", generates: true}},
		{post, "/v1beta/models/imagen-4.0-generate-001:predict", call{surface: surfaceGemini, method: "predict", model: "imagen-4.0-generate-001", generates: true}},

		{post, "/v1beta/openai/chat/completions", call{surface: surfaceOpenAI, method: "chat.completions", generates: true}},
		{post, "/v1beta/openai/images/generations", call{surface: surfaceOpenAI, method: "images.generations", generates: true}},
		{post, "/v1/images/generations", call{surface: surfaceOpenAI, method: "images.generations", generates: true}},
		{post, "/v1/images/edits", call{surface: surfaceOpenAI, method: "images.edits", generates: true}},
		{post, "/v1/chat/completions", call{surface: surfaceOpenAI, method: "chat.completions", generates: true}},
		{get, "/v1/chat/completions", call{surface: surfaceOpenAI, method: "chat.completions"}},
		{post, "/v1/images/variations", call{surface: surfaceOpenAI}},
		{post, "/v1/embeddings", call{surface: surfaceOpenAI}},
		{post, onVertex + "/endpoints/openapi/chat/completions", call{surface: surfaceOpenAI, method: "chat.completions", generates: true}},
		{post, "/v1beta/interactions", call{surface: surfaceInteractions, method: "interactions", generates: true}},
		{post, "/v1/interactions", call{surface: surfaceInteractions, method: "interactions", generates: true}},

		// Forwarded untouched.
		{post, "/v1beta/models/m:countTokens", call{surface: surfaceGemini, method: "countTokens", model: "m"}},
		{post, "/v1beta/models/m:batchGenerateContent", call{surface: surfaceGemini, method: "batchGenerateContent", model: "m"}},
		{post, "/v1beta/models/veo-3:predictLongRunning", call{surface: surfaceGemini, method: "predictLongRunning", model: "veo-3"}},
		{post, vertexModel + "text-embedding-005:predict", call{surface: surfaceVertex, method: "predict", model: "text-embedding-005"}},
		{post, vertexModel + "imagetext@001:predict", call{surface: surfaceVertex, method: "predict", model: "imagetext@001"}},
		{post, onVertex + "/endpoints/1234:predict", call{surface: surfaceVertex, method: "predict", model: "1234"}},
		{post, "/v1beta/models/m:embedContent", call{surface: surfaceGemini, method: "embedContent", model: "m"}},
		{get, "/v1beta/models", call{surface: surfaceGemini}},
		{get, "/v1beta/models/m", call{surface: surfaceGemini, model: "m"}},
		{post, onVertex + "/interactions", call{surface: surfaceInteractions, method: "interactions", generates: true}},
		{get, "/v1beta/openai/models", call{surface: surfaceOpenAI}},
		{post, "/v1beta/openai/embeddings", call{surface: surfaceOpenAI}},
		{get, "/v1beta/interactions/v1_abc", call{surface: surfaceInteractions}},
		{post, "/v1beta/interactions/v1_abc/cancel", call{surface: surfaceInteractions}},
		{get, "/v1beta/files/abc", call{surface: surfaceGemini}},
		{post, "/v1beta/cachedContents", call{surface: surfaceGemini}},
		{get, "/v1beta/batches/abc", call{surface: surfaceGemini}},
		{post, "/upload/v1beta/files?uploadType=resumable", call{surface: surfaceGemini}},
		{get, "/download/v1beta/files/abc:download?alt=media", call{surface: surfaceGemini}},
		{get, "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=x", call{surface: surfaceGemini}},
		{get, "/v1beta/models/m:generateContent", call{surface: surfaceGemini, method: "generateContent", model: "m"}},
		{http.MethodOptions, "/v1beta/openai/chat/completions", call{surface: surfaceOpenAI, method: "chat.completions"}},
		{post, "/v1beta/models/m:generateContent/", call{surface: surfaceGemini}},
		{post, "/v1beta/models/:generateContent", call{surface: surfaceGemini, model: ":generateContent"}},

		// Somebody else's.
		{get, "/", call{}},
		{get, "/v1", call{}},
		{get, "/v1/", call{}},
		{post, "//v1/models/m:generateContent", call{}},
		{post, "/v2/models/m:generateContent", call{}},
		{post, "/v1beta2/models/m:generateContent", call{}},
		{post, "/api/v1/models/m:generateContent", call{}},
		{post, "/models/m:generateContent", call{}},
		{post, "/upload", call{}},
		{post, "/upload/avatar.png", call{}},
		{get, "/download/setup.exe", call{}},
		{get, "/ws/chat", call{}},
		{get, "/v1betamax/models", call{}},
	} {
		t.Run(c.http+" "+c.target, func(t *testing.T) {
			r := httptest.NewRequest(c.http, c.target, nil)
			got := recognise(r)
			if got.model != "" {
				if at, _ := url.PathUnescape(r.URL.EscapedPath()[got.modelAt:got.modelEnd]); at != got.model {
					t.Errorf("the model is said to stand at %q", at)
				}
			}
			if got.version != "" && !strings.HasPrefix(c.target, "/"+got.version+"/") {
				t.Errorf("the version is said to be %q", got.version)
			}
			if named := strings.Contains(c.target, "/projects/p/"); (got.project == "p") != named {
				t.Errorf("the project is said to be %q", got.project)
			}
			if isGoogles := strings.Contains(c.target, "/open"); got.isGoogles != isGoogles {
				t.Errorf("said to be a path of Google's: %v", got.isGoogles)
			}
			if isPublishers := strings.Contains(c.target, "/publishers/google/"); got.isPublishers != isPublishers {
				t.Errorf("said to be a model of Google's: %v", got.isPublishers)
			}
			if isTuned := strings.Contains(c.target, "/tunedModels/"); got.isTuned != isTuned {
				t.Errorf("said to be a tuned model: %v", got.isTuned)
			}
			got.modelAt, got.modelEnd, got.version, got.project = 0, 0, "", ""
			got.isGoogles, got.isPublishers, got.isTuned = false, false, false
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			r.Header.Set("Upgrade", "h2c") // as curl --http2 and Java's client offer it
			if recognise(r).generates != c.want.generates {
				t.Error("an offer to upgrade changes what the call is")
			}
		})
	}
}

func TestWhatACallAllows(t *testing.T) {
	for target, want := range map[string]struct {
		completable, modelInBody, imageAPI bool
		enums                              *enums
	}{
		"/v1beta/models/m:generateContent":               {true, false, false, geminiEnums},
		"/v1beta/models/m:streamGenerateContent":         {true, false, false, geminiEnums},
		vertexModel + "m:generateContent":                {true, false, false, vertexEnums},
		vertexModel + "imagen-4:predict":                 {false, false, true, vertexEnums},
		"/v1beta/models/m:countTokens":                   {false, false, false, geminiEnums},
		"/v1beta/openai/chat/completions":                {false, true, false, openAIEnums},
		"/v1beta/openai/images/generations":              {false, true, true, openAIEnums},
		"/v1beta/interactions":                           {false, true, false, geminiEnums},
		"/v1beta/models/m:batchGenerateContent":          {false, false, false, geminiEnums},
		onVertex + "/endpoints/openapi/chat/completions": {false, true, false, openAIEnums},
	} {
		c := recognise(httptest.NewRequest(http.MethodPost, target, nil))
		onItsWay := &station{upstream: &upstream{takesVertex: true}, way: wayAsIs}
		if c.completable() != want.completable || c.namesModelInBody() != want.modelInBody || c.imageAPI() != want.imageAPI || onItsWay.enums(&c) != want.enums {
			t.Errorf("%s: %v %v %v", target, c.completable(), c.namesModelInBody(), c.imageAPI())
		}
	}
}

func TestUpstreamURL(t *testing.T) {
	for _, c := range []struct {
		name, base, target, key string
		models                  []ModelRule
		want                    string
	}{
		{"as it is", "https://g", "/v1beta/models/m%3AgenerateContent?key=x&b=%20", "", nil, "https://g/v1beta/models/m%3AgenerateContent?key=x&b=%20"},
		{"prefix", "https://g/base/", "/v1/models/m:generateContent", "", nil, "https://g/base/v1/models/m:generateContent"},
		{"escaped prefix", "https://g/a%2Fb", "/v1/models/m:generateContent", "", nil, "https://g/a%2Fb/v1/models/m:generateContent"},
		{"own key", "https://g", "/v1/models/m:generateContent?a=1&key=x&$alt=json;enum-encoding=int&key=y", "k", nil, "https://g/v1/models/m:generateContent?a=1&$alt=json;enum-encoding=int"},
		{"only a key", "https://g", "/v1/models/m:generateContent?key=x", "k", nil, "https://g/v1/models/m:generateContent"},
		{"mapped", "https://g/base", "/v1/models/m%3AgenerateContent?alt=sse", "", []ModelRule{{"x*", "no"}, {"m*", "other-model"}, {"m", "no"}}, "https://g/base/v1/models/other-model%3AgenerateContent?alt=sse"},
		{"mapped on Vertex", "https://g", vertexModel + "m:generateContent", "", []ModelRule{{"*", "n"}}, "https://g" + vertexModel + "n:generateContent"},
		{"a model that is part of the path", "https://g", "/v1/models/models:generateContent", "", []ModelRule{{"models", "n"}}, "https://g/v1/models/n:generateContent"},
		{"no model in the path", "https://g", "/v1beta/openai/chat/completions", "", []ModelRule{{"*", "n"}}, "https://g/v1beta/openai/chat/completions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base, err := url.Parse(c.base)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodPost, c.target, nil)
			u := &upstream{base: base, models: c.models, takesVertex: true}
			x := &exchange{call: recognise(r)}
			if got := u.url(r, x, keyOf(c.key), course{way: wayAsIs, model: u.mapModel(x.call.model)}).String(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// Credentials are found however they are written, and taken out of a query that
// is left alone otherwise.
func TestWithoutKey(t *testing.T) {
	for query, want := range map[string]string{
		"":                             "",
		"key":                          "",
		"key=":                         "",
		"alt=sse":                      "alt=sse",
		"alt=sse&key=a%20b&x=%zz;y=+1": "alt=sse&x=%zz;y=+1",
		"monkey=1&keys=2&Key=3&key=4":  "monkey=1&keys=2&Key=3",
		"a=key=1&key=2&b":              "a=key=1&b",
		"%6Bey=a&alt=sse":              "alt=sse",
		"alt=sse&access_token=a":       "alt=sse",
		"$key=a&%24key=b&x&oauth_token=c&$access_token=d": "x",
	} {
		if got := withoutKey(query); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}

// A generate call carries what the API needs and nothing about the client.
func TestRequestHeaders(t *testing.T) {
	in := http.Header{
		"Accept":                   {"*/*"},
		"Accept-Encoding":          {"gzip"},
		"Accept-Language":          {"ru"},
		"Api-Revision":             {"2026-01-01"},
		"Authorization":            {"Bearer client"},
		"Connection":               {"keep-alive"},
		"Content-Encoding":         {"gzip"},
		"Content-Length":           {"3"},
		"Content-Type":             {"application/json"},
		"Cookie":                   {"session=1"},
		"Forwarded":                {"for=1.2.3.4"},
		"Origin":                   {"https://app"},
		"Referer":                  {"https://app/secret"},
		"User-Agent":               {"google-genai-sdk/1.77.0 gl-go/go1.26"},
		"Via":                      {"1.1 caddy"},
		"X-Forwarded-For":          {"1.2.3.4"},
		"X-Goog-Api-Client":        {"google-genai-sdk/1.77.0"},
		"X-Goog-Api-Key":           {"client"},
		"X-Goog-User-Project":      {"theirs"},
		"X-Goog-Vertex-Ai-Unknown": {"1"},
		"X-Server-Timeout":         {"60"},
		"X-Stainless-Lang":         {"js"},
	}
	kept := http.Header{}
	for _, name := range []string{
		"Accept", "Accept-Language", "Api-Revision", "Authorization", "Content-Type", "User-Agent",
		"X-Goog-Api-Client", "X-Goog-Api-Key", "X-Goog-User-Project", "X-Goog-Vertex-Ai-Unknown", "X-Server-Timeout",
	} {
		kept[name] = in[name]
	}
	withKey := kept.Clone()
	withKey.Del("Authorization")
	withKey.Del("X-Goog-User-Project")
	bearer := withKey.Clone()
	withKey["X-Goog-Api-Key"] = []string{"ours"}
	bearer.Del("X-Goog-Api-Key")
	bearer["Authorization"] = []string{"Bearer ours"}
	for _, c := range []struct {
		name, target, key string
		want              http.Header
	}{
		{"client's key", "/v1/models/m:generateContent", "", kept},
		{"own key", "/v1/models/m:generateContent", "ours", withKey},
		{"own key on an OpenAI path", "/v1beta/openai/chat/completions", "ours", bearer},
	} {
		r := httptest.NewRequest(http.MethodPost, c.target, nil)
		r.Header = in
		x := &exchange{call: recognise(r)}
		u := new(upstream)
		if got := u.header(r, x, keyOf(c.key), course{way: wayAsIs}); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/models/m:generateContent", nil)
	x := &exchange{call: recognise(r), ctx: t.Context()}
	sent := (&upstream{base: r.URL}).request(t.Context(), r, x, nil, course{way: wayAsIs}).Header
	if names := sent["User-Agent"]; len(sent) != 1 || len(names) != 1 || names[0] != "" {
		t.Errorf("headers appear from nowhere: %v", sent)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		glob, model string
		want        bool
	}{
		{"*", "", true},
		{"*-image", "gemini-3-pro-image", true},
		{"*-image", "gemini-3-pro", false},
		{"*", "google/gemini-3-pro-image", true},
		{"gemini-3-*", "google/gemini-3-pro-image", true},
		{"gemini-3-*", "models/gemini-3-pro-image", true},
		{"google/*", "google/gemini-3-pro-image", true},
		{"google/*", "gemini-3-pro-image", false},
		{"gemini-3-*", "black-forest/gemini-3-pro-image", false},
		{"*/gemini-3-*", "black-forest/gemini-3-pro-image", true},
		{"gemini-?-pro", "gemini-3-pro", true},
	} {
		if got := matches(c.glob, c.model); got != c.want {
			t.Errorf("%q, %q: %v", c.glob, c.model, got)
		}
	}
}

// TestMatchesNameLikePath holds the short ways to path.Match, with globs and names that
// nearly fit each other.
func TestMatchesNameLikePath(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 1))
	text := func(letters string, most int) string {
		b := make([]byte, random.IntN(most+1))
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	hits := 0
	for range 200_000 {
		glob, name := text(`aab-**?\[]`, 7), text("aab-", 6)
		want, err := path.Match(glob, name)
		if err != nil {
			continue // refused when it is configured
		}
		if got := matchesName(glob, name); got != want {
			t.Fatalf("%q, %q: %v", glob, name, got)
		}
		if want {
			hits++
		}
	}
	if hits < 5000 {
		t.Errorf("only %d of the names fitted their globs", hits)
	}
}
