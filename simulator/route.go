// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/http"
	"regexp"
	"strings"
)

// surface is one of the dialects that the APIs are spoken in.
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
	api     *api
	surface surface
	version string
	model   string
	method  string // generateContent, …
	vertex  bool   // Vertex AI
	framing framing
	stream  bool // of the dialects whose body says so

	contentType string // of the request

	prompt    string // the text of the last user turn
	text      bool   // may answer with text
	image     bool   // may answer with an image
	thoughts  bool   // the client wants to see thoughts
	aspect    string
	size      string
	mime      string // of the pictures; empty = what the model likes best
	samples   int    // how many images
	continued bool   // resumes after CONTINUATION
	raiReason bool   // Imagen: say why images are missing

	modalitiesKey string    // responseModalities as the client spells it; empty if it is not there
	signed        bool      // the history has thought signatures where it needs them
	unsigned      *apiError // what is wrong if it lacks one; nil for a call without history

	promptTokens int // of text
	promptImages int

	gpt gptOptions
}

const (
	geminiModel = `^/(?P<version>v1|v1beta|v1alpha)/(?:models|tunedModels)/(?P<model>[^/:]+)`
	vertexModel = `^/(?P<version>v1|v1beta1)/(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/(?P<model>[^/:]+)`
	openAI      = `^/(?P<version>v1|v1beta|v1alpha)/openai`
)

type route struct {
	method  string
	path    *regexp.Regexp
	api     *api
	surface surface
	serve   func(*exchange) error
}

const (
	vertexOpenAI = `^/(?P<version>v1|v1beta1)/projects/[^/]+/locations/[^/]+/endpoints/openapi`
	gpt          = `^/(?P<version>v1)`
)

// routes are the paths of the APIs, the first that fits counts. The ":" of a
// verb arrives decoded when a client sends "%3A".
var routes = []route{
	{http.MethodPost, whole(geminiModel + `:(?P<method>generateContent|streamGenerateContent)`), &geminiAPI, native{}, generate},
	{http.MethodPost, whole(vertexModel + `:(?P<method>generateContent|streamGenerateContent)`), &vertexAPI, native{}, generate},
	{http.MethodPost, whole(geminiModel + `:(?P<method>countTokens)`), &geminiAPI, native{}, countTokens},
	{http.MethodPost, whole(vertexModel + `:(?P<method>countTokens)`), &vertexAPI, native{}, countTokens},
	{http.MethodPost, whole(geminiModel + `:(?P<method>predict)`), &geminiAPI, imagen{}, generate},
	{http.MethodPost, whole(vertexModel + `:(?P<method>predict)`), &vertexAPI, imagen{}, generate},
	{http.MethodPost, whole(openAI + `/chat/completions`), &geminiAPI, chat{}, generate},
	{http.MethodPost, whole(vertexOpenAI + `/chat/completions`), &vertexAPI, chat{}, generate},
	{http.MethodPost, whole(openAI + `/images/generations`), &geminiAPI, images{}, generate},
	{http.MethodPost, whole(`^/(?P<version>v1|v1beta|v1alpha)/interactions`), &interactionsAPI, interactions{}, generate},
	{http.MethodPost, whole(gpt + `/chat/completions`), &gptAPI, gptChat{}, generate},
	{http.MethodPost, whole(gpt + `/images/generations`), &gptAPI, gptImages{}, generate},
	{http.MethodPost, whole(gpt + `/images/edits`), &gptAPI, gptImages{edits: true}, generate},
	{http.MethodPost, whole(`^/token`), &tokenAPI, native{}, issueToken},
	{http.MethodGet, whole(openAI + `/models`), &geminiAPI, chat{}, listOpenAIModels},
	{http.MethodGet, whole(`^/(?P<version>v1|v1beta|v1alpha)/models`), &geminiAPI, native{}, listModels},
	{http.MethodGet, whole(geminiModel), &geminiAPI, native{}, getModel},
}

func whole(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern + `$`) }

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
			api:         route.api,
			surface:     route.surface,
			version:     group("version"),
			model:       group("model"),
			method:      group("method"),
			vertex:      route.api == &vertexAPI,
			contentType: r.Header.Get("Content-Type"),
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
