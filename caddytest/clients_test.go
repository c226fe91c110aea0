// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"iter"
	"maps"
	"slices"
	"testing"

	"google.golang.org/genai"
)

// kind is what a user wants of a client library.
type kind string

const (
	drawing      kind = "image"
	editing      kind = "edited image"
	chatting     kind = "text"
	drawingLive  kind = "image in a stream"
	chattingLive kind = "text in a stream"
)

var kinds = []kind{drawing, editing, chatting, drawingLive, chattingLive}

func (k kind) draws() bool   { return k != chatting && k != chattingLive }
func (k kind) streams() bool { return k == drawingLive || k == chattingLive }

// call is a wish, before it is put in the words of a library.
type call struct {
	kind
	model, prompt string
	n             int
	config        map[string]any // more of the request, in the library's words
}

// newCall is the plainest call of a kind.
func newCall(k kind) call {
	if k.draws() {
		return call{kind: k, model: imageModel, prompt: prompt}
	}
	return call{kind: k, model: textModel, prompt: prompt}
}

// outcome is what the user of a library got, in the words of none.
type outcome struct {
	images [][]byte
	text   string
	chunks int
	raised *raised // nil = nothing
}

// raised is an error that a library raised. Not every library fills in all.
type raised struct {
	Name    string
	Status  int // of HTTP
	Code    string
	Message string
}

// caller makes calls with one library, whatever the gateway.
type caller func(t *testing.T, url string, c call) outcome

// client is a library in one of the ways in which people use it.
type client struct {
	name   string
	path   string // what the paths of its requests begin with
	raises string // its error for a 400
	can    []kind
	start  func(t *testing.T) caller
}

// clients are all that the gateway promises to serve.
var clients = []client{
	goClient("Go genai", "/v1beta/models/", newGeminiClient),
	goClient("Go genai, Vertex AI", vertexModels, newVertexClient),

	script{"genai.mjs", "@google/genai", jsCall{}, native}.client("JS genai 3", "/v1/models/", "ApiError"),
	script{"genai.mjs", "@google/genai", vertex, native}.client("JS genai 3, Vertex AI", vertexModels, "ApiError"),
	script{"genai.mjs", "@google/genai", vertex, imagen}.client("JS genai 3, Imagen on Vertex AI", vertexModels, "ApiError"),
	script{"genai.mjs", "@google/genai", express, native}.client("JS genai 3, Vertex AI express", "/v1beta1/publishers/google/models/", "ApiError"),
	script{"genai.mjs", "@google/genai", interactions, native}.client("JS genai 3, Interactions", "/v1/interactions", "BadRequestError"),
	script{"genai.mjs", "@google/genai-2", jsCall{}, native}.client("JS genai 2", "/v1beta/models/", "ApiError"),
	script{"genai.mjs", "@google/genai-2", vertex, native}.client("JS genai 2, Vertex AI", vertexModels, "ApiError"),

	script{"openai.mjs", "openai", openAI, openAIImages}.client("openai 7", "/v1/", "BadRequestError"),
	script{"openai.mjs", "openai", openAI, openAIChat}.client("openai 7, images in chat", "/v1/chat/", "BadRequestError"),
	script{"openai.mjs", "openai", jsCall{}, openAIImages}.client("openai 7, Google's path", "/v1beta/openai/", "BadRequestError"),
	script{"openai.mjs", "openai-5", openAI, openAIImages}.client("openai 5", "/v1/", "BadRequestError"),
	script{"openai.mjs", "openai-4", openAI, openAIImages}.client("openai 4", "/v1/", "BadRequestError"),

	script{"ai.mjs", "@ai-sdk/google", jsCall{}, vercelImages}.client("Vercel AI SDK, Google", "/v1beta/models/", "APICallError"),
	script{"ai.mjs", "@ai-sdk/google", jsCall{}, vercelText}.client("Vercel AI SDK, Google, images in chat", "/v1beta/models/", "APICallError"),
	script{"ai.mjs", "@ai-sdk/openai", openAI, vercelImages}.client("Vercel AI SDK, OpenAI", "/v1/", "APICallError"),
}

const vertexModels = "/v1beta1/projects/" + vertexProject + "/locations/" + vertexLocation + "/publishers/google/models/"

// goClient is the official Go client.
func goClient(name, path string, connect func(*testing.T, string) *genai.Client) client {
	return client{
		name: name, path: path, raises: "APIError",
		can: kinds,
		start: func(*testing.T) caller {
			return func(t *testing.T, url string, c call) outcome {
				t.Helper()
				return c.inGo(t, connect(t, url))
			}
		},
	}
}

func (c *call) inGo(t *testing.T, client *genai.Client) outcome {
	t.Helper()
	parts := []*genai.Part{genai.NewPartFromText(c.prompt)}
	if c.kind == editing {
		parts = append(parts, genai.NewPartFromBytes(sketch, "image/png"))
	}
	var s seen
	for res, err := range c.responses(t, client, genai.NewContentFromParts(parts, genai.RoleUser)) {
		if s.err = err; err == nil {
			s.add(res)
		}
	}
	return outcome{s.images, s.text, s.chunks, raisedInGo(s.err)}
}

// responses are those of a stream, or the only one.
func (c *call) responses(t *testing.T, client *genai.Client, content *genai.Content) iter.Seq2[*genai.GenerateContentResponse, error] {
	t.Helper()
	contents, config := []*genai.Content{content}, c.configInGo(t)
	if c.streams() {
		return client.Models.GenerateContentStream(t.Context(), c.model, contents, config)
	}
	return func(yield func(*genai.GenerateContentResponse, error) bool) {
		yield(client.Models.GenerateContent(t.Context(), c.model, contents, config))
	}
}

// configInGo has the same words as in JavaScript.
func (c *call) configInGo(t *testing.T) *genai.GenerateContentConfig {
	t.Helper()
	words, err := json.Marshal(c.config)
	if err != nil {
		t.Fatal(err)
	}
	var config genai.GenerateContentConfig
	if err := json.Unmarshal(words, &config); err != nil {
		t.Fatal(err)
	}
	return &config
}

func raisedInGo(err error) *raised {
	var e genai.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return &raised{Name: "APIError", Status: e.Code, Code: e.Status, Message: e.Message}
	default:
		return &raised{Name: fmt.Sprintf("%T", err), Message: err.Error()}
	}
}

// script is a JavaScript library, and how its script is told what to do.
type script struct {
	file, library string
	common        jsCall // of all its calls
	ways          map[kind]way
}

// way is what a script is told for a kind of call, beside what is common.
type way struct {
	method string
	stream bool
	model  string         // instead of the one that is asked for
	config map[string]any // before the one of the call
}

var (
	vertex       = jsCall{VertexAI: true, Project: vertexProject, Location: vertexLocation, Key: clientToken}
	express      = jsCall{VertexAI: true}
	interactions = jsCall{Method: "interactions.create"}
	openAI       = jsCall{Base: "/v1"}

	native = map[kind]way{drawing: {}, editing: {}, chatting: {}, drawingLive: {stream: true}, chattingLive: {stream: true}}
	imagen = map[kind]way{drawing: {method: "models.generateImages", model: "imagen-4.0-generate-001"}}

	openAIImages = map[kind]way{
		drawing: {method: "images.generate"}, editing: {method: "images.edit"},
		chatting: {method: "chat"}, chattingLive: {method: "chat", stream: true},
	}
	modalities = map[string]any{"modalities": []string{"image", "text"}}
	openAIChat = map[kind]way{drawing: {config: modalities}, editing: {config: modalities}, drawingLive: {stream: true, config: modalities}}

	vercelImages = map[kind]way{
		drawing: {method: "generateImage"}, editing: {method: "generateImage"},
		chatting: {method: "generateText"}, chattingLive: {method: "streamText"},
	}
	vercelText = map[kind]way{drawing: {method: "generateText"}, editing: {method: "generateText"}, drawingLive: {method: "streamText"}}
)

func (s script) client(name, path, raises string) client {
	isUnable := func(k kind) bool { _, isAble := s.ways[k]; return !isAble }
	return client{name: name, path: path, raises: raises, can: slices.DeleteFunc(slices.Clone(kinds), isUnable), start: s.start}
}

// start starts the library's process, which lives as long as the test.
func (s script) start(t *testing.T) caller {
	t.Helper()
	process := startJS(t, s.file, s.library)
	return func(t *testing.T, url string, c call) outcome {
		t.Helper()
		seen := process.call(t, s.tell(url, &c))
		return outcome{seen.Images, seen.Text, seen.Chunks, seen.Error}
	}
}

// tell puts a call in the words of the script.
func (s script) tell(url string, c *call) jsCall {
	way, told := s.ways[c.kind], s.common
	told.URL, told.Model, told.Prompt, told.N, told.Stream = url, c.model, c.prompt, c.n, way.stream
	if way.method != "" {
		told.Method = way.method
	}
	if way.model != "" {
		told.Model = way.model
	}
	if c.kind == editing {
		told.Images = [][]byte{sketch}
	}
	told.Config = map[string]any{}
	maps.Copy(told.Config, way.config)
	maps.Copy(told.Config, c.config)
	return told
}

// sketch is an image to be edited: a real one, for libraries look at its type.
var sketch = func() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
		panic(err)
	}
	return b.Bytes()
}()
