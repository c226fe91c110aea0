// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// surface is the API a call is written for: the first thing that decides what
// its body and its answer look like (wire §1).
type surface uint8

const (
	surfaceNone   surface = iota // no API this module knows
	surfaceGemini                // generativelanguage.googleapis.com
	surfaceVertex                // aiplatform.googleapis.com, express mode included
	surfaceOpenAI                // OpenAI-compatible paths of both
	surfaceInteractions
)

// call is what a request is, as far as its path says.
type call struct {
	surface surface
	version string // of the API, the first segment of the path
	// method is the verb of the API: generateContent, streamGenerateContent,
	// predict, chat.completions, images.generations, interactions, …; empty
	// where the path has none.
	method string
	// model as the path names it; calls that name it in the body have none.
	model string
	// modelAt is where the model stands in the escaped path.
	modelAt, modelEnd int
	// project is the one that a path of Vertex AI names.
	project string
	// isGoogles tells an OpenAI-compatible path of Google's from OpenAI's own.
	isGoogles bool
	// isTuned tells a customer's own model on the Gemini API.
	isTuned bool
	// isPublishers tells a model of Google's on Vertex AI from an endpoint of a
	// customer's.
	isPublishers bool
	// generates tells a call that produces content, which this module works
	// on, from all others, which it forwards untouched.
	generates bool
	// events and array are the forms of a streamed answer.
	events, array bool
	// unreadable is the field of the query that asks for an answer which cannot be
	// judged.
	unreadable string
}

// versions are the first segments of paths that belong to an API.
var versions = map[string]bool{"v1": true, "v1beta": true, "v1alpha": true, "v1beta1": true}

// googleCollections stand behind v1 in Google's APIs. Many sites have a /v1 of their
// own; the other versions are Google's alone.
var googleCollections = map[string]bool{
	"models": true, "tunedModels": true, "files": true, "cachedContents": true, "batches": true, "operations": true,
	"interactions": true, "corpora": true, "fileSearchStores": true, "auth_tokens": true, "openai": true,
	"projects": true, "publishers": true, "media": true, "agents": true,
}

// isCompanion recognises the paths that do not begin with a version: media
// upload and download, and the websockets of the Live API. A site may have
// paths of its own that begin alike.
func isCompanion(segments []string) bool {
	if len(segments) < 2 {
		return false
	}
	switch segments[0] {
	case "upload", "download":
		return versions[segments[1]]
	case "ws":
		return strings.HasPrefix(segments[1], "google.")
	}
	return false
}

// recognise finds out what a request is. A request of no known API has the
// surface surfaceNone.
func recognise(r *http.Request) call {
	escaped := r.URL.EscapedPath()
	segments := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	last := segments[len(segments)-1]
	for i, segment := range segments {
		if unescaped, err := url.PathUnescape(segment); err == nil {
			segments[i] = unescaped // "model%73" is "models" to Google, too
		}
		if leadsElsewhere(segments[i]) {
			return call{} // which no client writes
		}
	}
	if isCompanion(segments) {
		return call{surface: surfaceGemini}
	}
	if !versions[segments[0]] || len(segments) < 2 || segments[1] == "" {
		return call{}
	}
	if collection, _, _ := strings.Cut(segments[1], ":"); segments[0] == "v1" && !googleCollections[collection] && !openAICollections[collection] {
		return call{}
	}
	c := recognisePath(segments[1:])
	c.version = segments[0]
	if segments[1] == "projects" && len(segments) > 2 {
		c.project = segments[2]
	}
	if c.model != "" {
		c.modelAt, c.modelEnd = len(escaped)-len(last), len(escaped)
		if end := lastColon(last); end > 0 {
			c.modelEnd = c.modelAt + end
		}
	}
	c.generates = c.generates && strings.EqualFold(r.Method, http.MethodPost) // which some servers read without case
	if c.generates {
		c.events, c.unreadable = answerForm(r.URL.RawQuery)
		isStream := c.method == "streamGenerateContent"
		c.events, c.array = isStream && c.events, isStream && !c.events
	}
	return c
}

// answerForm tells whether a query asks for events, with alt=sse, and names what asks
// for something that cannot be judged because it is no JSON. The query is not parsed with
// net/url because that drops fields with a semicolon, such as $alt=json;enum-encoding=int.
func answerForm(query string) (events bool, unreadable string) {
	if query == "" {
		return false, ""
	}
	for field := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(field, "=")
		switch name = parameter(name); {
		case name == "callback", name == "alt" && value != "" && !strings.HasPrefix(value, "json") && !strings.HasPrefix(value, "sse"):
			unreadable = name
		case name == "alt":
			events = events || strings.HasPrefix(value, "sse")
		}
	}
	return events, unreadable
}

// openAIMethods are the OpenAI-compatible paths behind the openai segment.
var openAIMethods = map[string]string{
	"chat/completions":   "chat.completions",
	"images/generations": "images.generations",
	"images/edits":       "images.edits",
}

// openAICollections stand behind the version in OpenAI's own paths, and in none of
// Google's.
var openAICollections = map[string]bool{
	"chat": true, "images": true, "completions": true, "embeddings": true, "responses": true, "audio": true, "moderations": true,
}

// recognisePath looks at the segments behind the version.
func recognisePath(segments []string) call {
	if segments[0] == "openai" {
		return openAICall(segments[1:], true)
	}
	if openAICollections[segments[0]] {
		return openAICall(segments, false)
	}
	if segments[0] == "interactions" {
		c := call{surface: surfaceInteractions}
		if len(segments) == 1 {
			c.method, c.generates = "interactions", true
		}
		return c
	}
	if i := indexOf(segments, "endpoints", "openapi"); i > 0 {
		return openAICall(segments[i+2:], true)
	}
	if n := len(segments); n == 5 && segments[0] == "projects" && segments[4] == "interactions" {
		return call{surface: surfaceInteractions, method: "interactions", generates: true}
	}
	c := call{surface: surfaceGemini}
	if segments[0] == "projects" || segments[0] == "publishers" {
		c.surface = surfaceVertex
		c.isPublishers = indexOf(segments, "publishers", "google") >= 0
	}
	if len(segments) >= 2 && isCollection[segments[len(segments)-2]] {
		c.isTuned = segments[len(segments)-2] == "tunedModels"
		c.model, c.method = splitVerb(segments[len(segments)-1])
		c.generates = generators[c.method] || c.method == "predict" && matchesAny(imagenModels, c.model)
	}
	return c
}

// openAICall looks at the segments that OpenAI's own paths have behind the version.
func openAICall(segments []string, isGoogles bool) call {
	method := openAIMethods[strings.Join(segments, "/")]
	return call{surface: surfaceOpenAI, method: method, generates: method != "", isGoogles: isGoogles}
}

// isCollection are the collections whose members have verbs: models, tuned
// models, and Vertex endpoints.
var isCollection = map[string]bool{"models": true, "tunedModels": true, "endpoints": true}

// generators are the verbs that produce content.
var generators = map[string]bool{"generateContent": true, "streamGenerateContent": true}

// imagenModels produce images by the verb predict, which on Vertex also serves
// embeddings, captions and the models of customers.
var imagenModels = []string{"imagen*", "imagegeneration*"}

// splitVerb splits "model:verb".
func splitVerb(segment string) (model, verb string) {
	if i := strings.LastIndexByte(segment, ':'); i > 0 {
		return segment[:i], segment[i+1:]
	}
	return segment, ""
}

// lastColon finds the last colon of an escaped segment, which some clients escape.
func lastColon(escaped string) int {
	return max(strings.LastIndexByte(escaped, ':'), strings.LastIndex(escaped, "%3A"), strings.LastIndex(escaped, "%3a"))
}

// indexOf finds two neighbouring segments.
func indexOf(segments []string, first, second string) int {
	for i := range len(segments) - 1 {
		if segments[i] == first && segments[i+1] == second {
			return i
		}
	}
	return -1
}

// isNative tells a generate call in Google's own form.
func (c *call) isNative() bool {
	return c.generates && (c.surface == surfaceGemini || c.surface == surfaceVertex)
}

// isOpenAPI tells the OpenAI-compatible paths of Vertex AI.
func (c *call) isOpenAPI() bool { return c.surface == surfaceOpenAI && c.project != "" }

// isImages tells OpenAI's endpoints for images.
func (c *call) isImages() bool { return strings.HasPrefix(c.method, "images.") }

// completable tells whether safetySettings and responseModalities belong into
// the body: the other APIs have other schemas and answer 400 (wire §2).
func (c *call) completable() bool {
	return c.method == "generateContent" || c.method == "streamGenerateContent"
}

// mayDraw tells whether an image may come back, by the model or by the body.
func (c *call) mayDraw() bool {
	return c.completable() || c.method == "chat.completions" || c.surface == surfaceInteractions
}

// namesModelInBody tells whether the model stands in the body, not in the path.
func (c *call) namesModelInBody() bool {
	return c.surface == surfaceOpenAI || c.surface == surfaceInteractions
}

// imageAPI tells whether the call can return nothing but images.
func (c *call) imageAPI() bool {
	return c.method == "predict" || c.isImages()
}

// enums are the numbers and spellings of what answers a call.
func (s *station) enums(c *call) *enums {
	switch {
	case c.surface == surfaceOpenAI && s.way == wayAsIs:
		return openAIEnums
	case c.surface == surfaceOpenAI && s.way == wayNative:
		return eitherEnums
	case s.way > wayNative: // translated into the Gemini API's
		return geminiEnums
	case s.format == formatVertex, s.takesVertex && c.surface == surfaceVertex:
		return vertexEnums
	}
	return geminiEnums
}

// matchesAny tells whether a model matches one of the globs.
func matchesAny(globs []string, model string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool { return matches(glob, model) })
}

// matches tells whether a model matches a glob, which has been checked when the
// configuration was loaded: by its name, or by its bare name. A slash in it is a
// character like any other, which path.Match does not think.
func matches(glob, model string) bool {
	if !strings.Contains(model, "/") {
		return matchesName(glob, model)
	}
	ok, _ := path.Match(strings.ReplaceAll(glob, "/", "\x00"), strings.ReplaceAll(model, "/", "\x00"))
	bare := bareModel(model)
	return ok || bare != model && matches(glob, bare)
}

// matchesName is path.Match for a name without slashes. Every call is held against two
// dozen globs: most differ from its model before their first star, and hardly any has
// more than one word behind it.
func matchesName(glob, model string) bool {
	for i := range len(glob) {
		switch c := glob[i]; {
		case c == '*':
			return matchesStar(glob[i:], model[i:])
		case strings.IndexByte(globMeta, c) >= 0:
			ok, _ := path.Match(glob[i:], model[i:])
			return ok
		case i == len(model) || model[i] != c:
			return false
		}
	}
	return len(model) == len(glob)
}

// matchesStar is matchesName for a glob that begins with a star.
func matchesStar(glob, model string) bool {
	word, isOpen := strings.CutSuffix(glob[1:], "*")
	switch {
	case strings.ContainsAny(word, globMeta):
		ok, _ := path.Match(glob, model)
		return ok
	case isOpen:
		return strings.Contains(model, word)
	}
	return strings.HasSuffix(model, word)
}

// globMeta is what path.Match does not take literally.
const globMeta = `*?[\`

// bareModel is the name of a model without the prefixes that the
// OpenAI-compatible surfaces of Google's APIs take or want.
func bareModel(model string) string {
	return strings.TrimPrefix(strings.TrimPrefix(model, "models/"), "google/")
}
