// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// form is how a path answers.
type form struct {
	path                  string   // its end
	picture, words        string   // in one piece
	pictureLive, wordLive []string // in a stream
}

const someWords = "Here is what I think"

// forms are all that clients speak.
var forms = []form{
	{
		path:    ":generateContent",
		picture: imageJSON, words: textJSON,
	},
	{
		path:        ":streamGenerateContent",
		pictureLive: []string{imageChunk, lastChunk}, wordLive: []string{textJSON},
	},
	{
		path:    ":predict",
		picture: `{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"` + pictureData + `"}]}`,
	},
	{
		path:    "/images/generations",
		picture: imagesData,
	},
	{
		path:    "/images/edits",
		picture: imagesData,
	},
	{
		path:    "/chat/completions",
		picture: completion("message", pictureMessage), words: completion("message", wordsMessage),
		pictureLive: []string{completion("delta", pictureMessage), "[DONE]"},
		wordLive:    []string{completion("delta", wordsMessage), "[DONE]"},
	},
	{
		path:    "/interactions",
		picture: interaction(pictureContent), words: interaction(wordsContent),
		pictureLive: interactionEvents(pictureContent), wordLive: interactionEvents(wordsContent),
	},
}

var (
	pictureData    = base64.StdEncoding.EncodeToString(picture)
	imagesData     = `{"created":1,"data":[{"b64_json":"` + pictureData + `"}]}`
	pictureMessage = `{"role":"assistant","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + pictureData + `"}}]}`
	wordsMessage   = `{"role":"assistant","content":"` + someWords + `"}`
	pictureContent = `{"type":"image","mime_type":"image/png","data":"` + pictureData + `"}`
	wordsContent   = `{"type":"text","text":"` + someWords + `"}`
)

func completion(member, message string) string {
	return `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"` + member + `":` + message + `,"finish_reason":"stop"}]}`
}

func interaction(content string) string {
	return `{"id":"i","status":"completed","model":"m","steps":[{"type":"model_output","content":[` + content + `]}]}`
}

func interactionEvents(content string) []string {
	return []string{
		`{"event_type":"interaction.created","interaction":{"id":"i","status":"in_progress"}}`,
		`{"event_type":"step.start","index":0,"step":{"type":"model_output"}}`,
		`{"event_type":"step.delta","index":0,"delta":` + content + `}`,
		`{"event_type":"step.stop","index":0}`,
		`{"event_type":"interaction.completed","interaction":{"id":"i","status":"completed"}}`,
	}
}

// inEveryForm answers a call of the kind, whoever makes it.
func inEveryForm(k kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := slices.IndexFunc(forms, func(f form) bool { return strings.HasSuffix(r.URL.Path, f.path) })
		if at < 0 {
			http.NotFound(w, r)
			return
		}
		forms[at].plays(k)(w, r)
	}
}

func (f *form) plays(k kind) http.HandlerFunc {
	unary, live := f.words, f.wordLive
	if k.draws() {
		unary, live = f.picture, f.pictureLive
	}
	if k.streams() && len(live) > 0 {
		return events(live...)
	}
	return answers(200, jsonType, unary)
}

// What shows who calls: a token on Vertex AI, and elsewhere a key.
func TestClientsOfVertexShowATokenAlone(t *testing.T) {
	for _, c := range clients {
		if c.path != vertexModels {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, inEveryForm(drawing))
			checkOutcome(t, drawing, c.start(t)(t, u.URL, newCall(drawing)))
			r := u.only(t)
			if shown := r.Header.Values("Authorization"); !slices.Equal(shown, []string{"Bearer " + clientToken}) {
				t.Errorf("Authorization is %q", shown)
			}
			if shown := r.Header.Values("X-Goog-Api-Key"); len(shown) > 0 {
				t.Errorf("X-Goog-Api-Key is %q", shown)
			}
		})
	}
}

// What a call adds to the plainest one gets into the request.
func TestClientsPassOnWhatTheyAreTold(t *testing.T) {
	type settings = map[string]any
	for _, c := range []struct {
		name string
		call call
		want []string
	}{
		{"Go genai", call{config: settings{"responseModalities": []string{"IMAGE"}}}, []string{`"responseModalities":["IMAGE"]`}},
		{"JS genai 3", call{config: settings{"imageConfig": settings{"aspectRatio": "16:9"}}}, []string{`"imageConfig":{"aspectRatio":"16:9"}`}},
		{"JS genai 3, Imagen on Vertex AI", call{n: 3}, []string{`"sampleCount":3`}},
		{"JS genai 3, Interactions", call{config: settings{"response_modalities": []string{"image"}}}, []string{`"response_modalities":["image"]`}},
		{"openai 7", call{n: 2, config: settings{"size": "1024x1536", "safety_settings": []any{}}}, []string{`"n":2`, `"size":"1024x1536"`, `"safety_settings":[]`}},
		{"openai 7, images in chat", call{config: settings{"image_config": settings{"aspect_ratio": "1:1"}}}, []string{`"modalities":["image","text"]`, `"image_config":{"aspect_ratio":"1:1"}`}},
		{"Vercel AI SDK, Google", call{config: settings{"aspectRatio": "16:9"}}, []string{`"imageConfig":{"aspectRatio":"16:9"}`}},
		{"Vercel AI SDK, OpenAI", call{n: 2, config: settings{"maxImagesPerCall": 2}}, []string{`"n":2`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, inEveryForm(drawing))
			plain := newCall(drawing)
			plain.n, plain.config = c.call.n, c.call.config
			checkOutcome(t, drawing, named(t, c.name).start(t)(t, u.URL, plain))
			body := string(u.only(t).Body)
			for _, want := range c.want {
				if !strings.Contains(body, want) {
					t.Errorf("the upstream received no %s: %s", want, body)
				}
			}
		})
	}
}

func named(t *testing.T, name string) client {
	t.Helper()
	at := slices.IndexFunc(clients, func(c client) bool { return c.name == name })
	if at < 0 {
		t.Fatalf("there is no client %q", name)
	}
	return clients[at]
}

// Forms of an answer, and of an error, that only some libraries and providers
// know.
func TestClientsSeeOtherForms(t *testing.T) {
	url := `{"url":"data:image/png;base64,` + pictureData + `"}`
	for _, c := range []struct {
		name, client string
		kind         kind
		plays        http.HandlerFunc
		want         outcome
		requests     int // default 1
	}{
		{
			name: "URL of data", client: "openai 7", kind: drawing,
			plays: answers(200, jsonType, `{"created":1,"data":[`+url+`]}`),
			want:  outcome{images: [][]byte{picture}},
		},
		{
			name: "parts of the content", client: "openai 7, images in chat", kind: drawing,
			plays: answers(200, jsonType, completion("message", `{"content":[{"type":"text","text":"Here"},{"type":"image_url","image_url":`+url+`}]}`)),
			want:  outcome{images: [][]byte{picture}, text: "Here"},
		},
		{
			name: "code", client: "openai 7", kind: chatting,
			plays: answers(400, jsonType, `{"error":{"code":"content_policy_violation","message":"No","type":"invalid_request_error","param":null}}`),
			want:  outcome{raised: &raised{"BadRequestError", 400, "content_policy_violation", "400 No"}},
		},
		{
			name: "code, to Vercel's", client: "Vercel AI SDK, OpenAI", kind: drawing,
			plays: answers(400, jsonType, `{"error":{"code":"content_policy_violation","message":"No","type":"invalid_request_error","param":null}}`),
			want:  outcome{raised: &raised{"APICallError", 400, "content_policy_violation", "No"}},
		},
		{
			name: "error, again and again", client: "Vercel AI SDK, Google", kind: drawing,
			plays:    with("Retry-After-Ms", "1", overloaded),
			want:     outcome{raised: &raised{"RetryError", 503, "503", "Failed after 3 attempts. Last error: The model is overloaded. Please try again later."}},
			requests: 3,
		},
		{
			name: "error behind content", client: "Vercel AI SDK, OpenAI", kind: chattingLive,
			plays: events(completion("delta", `{"content":"Here"}`), `{"error":{"code":"content_policy_violation","message":"No","type":"invalid_request_error","param":null}}`),
			want:  outcome{text: "Here", raised: &raised{"Object", 0, "content_policy_violation", "No"}},
		},
		{
			name: "error behind content", client: "JS genai 3, Interactions", kind: chattingLive,
			plays: events(interactionEvents(`{"type":"text","text":"Here"}`)[2], `{"event_type":"error","error":{"code":"safety","message":"No"}}`),
			want:  outcome{text: "Here", raised: &raised{"ErrorEvent", 0, "safety", "No"}},
		},
	} {
		t.Run(c.client+"/"+c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			got := named(t, c.client).start(t)(t, u.URL, newCall(c.kind))
			if !reflect.DeepEqual(got.raised, c.want.raised) || got.text != c.want.text || !slices.EqualFunc(got.images, c.want.images, bytes.Equal) {
				t.Errorf("the client saw %q, %d images and %+v, want %q, %d and %+v",
					got.text, len(got.images), got.raised, c.want.text, len(c.want.images), c.want.raised)
			}
			if n := len(u.received()); n != max(c.requests, 1) {
				t.Errorf("the client made %d requests", n)
			}
		})
	}
}

func checkOutcome(t *testing.T, k kind, s outcome) {
	t.Helper()
	if s.raised != nil {
		t.Errorf("the client raised %+v", s.raised)
	}
	want := clientCase{image: k.draws()}
	if !k.draws() {
		want.text = someWords
	}
	want.checkContent(t, s.images, s.text)
	if s.chunks == 0 {
		t.Error("the client saw nothing")
	}
}
