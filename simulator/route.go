// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/http"
	"regexp"
	"strings"
)

// surface is one of the API's dialects.
type surface interface {
	// parse reads a request body into the call.
	parse(c *call, body string) *apiError
	// render writes an answer.
	render(x *exchange, a answer) error
	// failure gives the body in which this dialect reports an error.
	failure(c *call, e *apiError) any
}

// framing is how the native dialect lays out an answer; the URL says it.
type framing int

const (
	unary  framing = iota // one object
	sse                   // ?alt=sse: events
	chunks                // a stream without alt=sse: one array
)

// call is a request, understood.
type call struct {
	surface surface
	version string
	model   string
	method  string // generateContent, …
	vertex  bool
	framing framing
	stream  bool // of the dialects whose body says so

	prompt    string // the text of the last user turn
	text      bool   // may answer with text
	image     bool   // may answer with an image
	thoughts  bool   // the client wants to see thoughts
	aspect    string
	size      string
	samples   int  // how many images
	continued bool // resumes after CONTINUATION
	raiReason bool // Imagen: say why images are missing

	modalitiesKey string    // responseModalities as the client spells it; empty if it is not there
	signed        bool      // the history has thought signatures where it needs them
	unsigned      *apiError // what is wrong if it lacks one; nil for a call without history

	promptTokens int // of text
	promptImages int
}

const (
	geminiModel = `^/(?P<version>v1|v1beta|v1alpha)/(?:models|tunedModels)/(?P<model>[^/:]+)`
	vertexModel = `^/(?P<version>v1|v1beta1)/(?:projects/[^/]+/locations/[^/]+/)?(?P<vertex>publishers)/google/models/(?P<model>[^/:]+)`
	openAI      = `^/(?P<version>v1|v1beta|v1alpha)/openai`
)

type route struct {
	method  string
	path    *regexp.Regexp
	surface surface
	serve   func(*exchange) error
}

// routes are the paths of the API. The ":" of a verb arrives decoded when a
// client sends "%3A".
var routes = []route{
	{http.MethodPost, regexp.MustCompile(geminiModel + `:(?P<method>generateContent|streamGenerateContent)$`), native{}, generate},
	{http.MethodPost, regexp.MustCompile(vertexModel + `:(?P<method>generateContent|streamGenerateContent)$`), native{}, generate},
	{http.MethodPost, regexp.MustCompile(geminiModel + `:(?P<method>countTokens)$`), native{}, countTokens},
	{http.MethodPost, regexp.MustCompile(vertexModel + `:(?P<method>countTokens)$`), native{}, countTokens},
	{http.MethodPost, regexp.MustCompile(geminiModel + `:(?P<method>predict)$`), imagen{}, generate},
	{http.MethodPost, regexp.MustCompile(vertexModel + `:(?P<method>predict)$`), imagen{}, generate},
	{http.MethodPost, regexp.MustCompile(openAI + `/chat/completions$`), chat{}, generate},
	{http.MethodPost, regexp.MustCompile(`^/(?P<version>v1|v1beta1)/projects/[^/]+/locations/[^/]+/endpoints/openapi/chat/completions$`), chat{}, generate},
	{http.MethodPost, regexp.MustCompile(openAI + `/images/generations$`), images{}, generate},
	{http.MethodPost, regexp.MustCompile(`^/(?P<version>v1|v1beta|v1alpha)/interactions$`), interactions{}, generate},
	{http.MethodGet, regexp.MustCompile(openAI + `/models$`), chat{}, listOpenAIModels},
	{http.MethodGet, regexp.MustCompile(`^/(?P<version>v1|v1beta|v1alpha)/models$`), native{}, listModels},
	{http.MethodGet, regexp.MustCompile(geminiModel + `$`), native{}, getModel},
}

// recognise fills in what the URL says and returns what serves it; nil means
// that the API has no such method.
func recognise(c *call, r *http.Request) func(*exchange) error {
	for _, route := range routes {
		match := route.path.FindStringSubmatch(r.URL.Path)
		if match == nil || r.Method != route.method {
			continue
		}
		group := func(name string) string {
			if i := route.path.SubexpIndex(name); i >= 0 {
				return match[i]
			}
			return ""
		}
		*c = call{
			surface: route.surface,
			version: group("version"),
			model:   group("model"),
			method:  group("method"),
			vertex:  group("vertex") != "",
		}
		if c.method == "streamGenerateContent" {
			c.framing = chunks
			if strings.EqualFold(r.URL.Query().Get("alt"), "sse") {
				c.framing = sse
			}
		}
		return route.serve
	}
	return nil
}

// hasKey tells whether the caller shows any credential. Which one is not
// looked at.
func hasKey(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return r.Header.Get("X-Goog-Api-Key") != "" ||
		r.URL.Query().Get("key") != "" ||
		strings.EqualFold(scheme, "Bearer") && strings.TrimSpace(token) != ""
}
