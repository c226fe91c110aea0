// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/genai"
)

// newGenAI is the official Go client, pointed at the gateway as its users do.
func newGenAI(t *testing.T, g *gateway) *genai.Client {
	t.Helper()
	return newGeminiClient(t, g.url)
}

func newGeminiClient(t *testing.T, url string) *genai.Client {
	t.Helper()
	client, err := genai.NewClient(t.Context(), &genai.ClientConfig{
		APIKey:      clientKey,
		Backend:     genai.BackendGeminiAPI,
		HTTPOptions: genai.HTTPOptions{BaseURL: url},
		HTTPClient:  &http.Client{Transport: newTransport(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// newVertexClient is the same client as it speaks to Vertex AI. It makes its
// own HTTP client, which is what puts the access token into its requests.
func newVertexClient(t *testing.T, url string) *genai.Client {
	t.Helper()
	client, err := genai.NewClient(t.Context(), &genai.ClientConfig{
		Backend:     genai.BackendVertexAI,
		Project:     vertexProject,
		Location:    vertexLocation,
		Credentials: auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: staticToken(clientToken)}),
		HTTPOptions: genai.HTTPOptions{BaseURL: url},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

const (
	vertexProject  = "project-of-a-client"
	vertexLocation = "europe-west4"

	// clientToken has the form of an access token. Where it is logged,
	// clientKey is found.
	clientToken = "ya29." + clientKey
)

// staticToken is an access token that nobody has to be asked for.
type staticToken string

func (s staticToken) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: string(s), Type: "Bearer", Expiry: time.Now().Add(time.Hour)}, nil
}

// seen is what a user of a client library gets.
type seen struct {
	images [][]byte
	text   string
	chunks int
	err    error
}

func (s *seen) add(res *genai.GenerateContentResponse) {
	s.chunks++
	for _, c := range res.Candidates {
		if c.Content == nil {
			continue
		}
		for _, part := range c.Content.Parts {
			s.text += part.Text
			if part.InlineData != nil {
				s.images = append(s.images, part.InlineData.Data)
			}
		}
	}
}

func generate(ctx context.Context, c *genai.Client, model string, config *genai.GenerateContentConfig) (s seen) {
	res, err := c.Models.GenerateContent(ctx, model, genai.Text(prompt), config)
	if s.err = err; err == nil {
		s.add(res)
	}
	return s
}

func generateStream(ctx context.Context, c *genai.Client, model string, config *genai.GenerateContentConfig) (s seen) {
	for res, err := range c.Models.GenerateContentStream(ctx, model, genai.Text(prompt), config) {
		if err != nil {
			s.err = err
			return s
		}
		s.add(res)
	}
	return s
}

// clientCase is a call of a client library: what the upstream plays, and what
// the user of the library must see of it.
type clientCase struct {
	name   string
	model  string
	stream bool
	plays  http.HandlerFunc

	image  bool   // arrives byte for byte
	text   string // arrives before anything else
	reason string // of the error that is raised
	status int    // of that error
	class  string
}

const blockedClass, forbiddenClass = "blocked", "forbidden"

// clientCases are the same for every client of the Gemini API.
var clientCases = []clientCase{
	{
		name: "image", model: imageModel,
		plays: answers(200, jsonType, imageJSON),
		image: true,
	},
	{
		name: "image in a stream", model: imageModel, stream: true,
		plays: events(textChunk, imageChunk, lastChunk),
		image: true, text: "Here is",
	},
	{
		name: "text", model: textModel,
		plays: answers(200, jsonType, textJSON),
		text:  "Here is what I think",
	},
	{
		name: "block of the image", model: imageModel,
		plays:  answers(200, jsonType, blockedJSON),
		reason: "IMAGE_SAFETY", status: 400, class: blockedClass,
	},
	{
		name: "block of the prompt", model: imageModel,
		plays:  answers(200, jsonType, promptBlockedJSON),
		reason: "PROHIBITED_CONTENT", status: 400, class: forbiddenClass,
	},
	{
		name: "block in a stream before its first content", model: imageModel, stream: true,
		plays:  events(blockedJSON),
		reason: "IMAGE_SAFETY", status: 400, class: blockedClass,
	},
	{
		name: "block in an image stream behind text", model: imageModel, stream: true,
		plays:  events(textChunk, blockedJSON),
		reason: "IMAGE_SAFETY", status: 400, class: blockedClass,
	},
	{
		name: "block of a prompt in a stream", model: textModel, stream: true,
		plays:  events(promptBlockedJSON),
		reason: "PROHIBITED_CONTENT", status: 400, class: forbiddenClass,
	},
	{
		name: "block in a text stream behind text", model: textModel, stream: true,
		plays: events(textChunk, strings.Replace(blockedJSON, "IMAGE_SAFETY", "RECITATION", 1)),
		text:  "Here is", reason: "RECITATION", status: 400, class: blockedClass,
	},
	{
		name: "block in an image stream behind the image", model: imageModel, stream: true,
		plays: events(imageChunk, strings.Replace(blockedJSON, `"index":0`, `"index":1`, 1)),
		image: true, reason: "IMAGE_SAFETY", status: 400, class: blockedClass,
	},
	{
		name: "Google's own error in the middle of a stream", model: textModel, stream: true,
		plays: func(w http.ResponseWriter, r *http.Request) {
			events(textChunk)(w, r)
			time.Sleep(100 * time.Millisecond) // or both arrive as one, which JavaScript's 2.10 does not understand
			send(w, googleErrorJSON)
		},
		text: "Here is", reason: "The model is overloaded", status: 503,
	},
	{
		name: "Google's own error", model: imageModel,
		plays:  answers(503, jsonType, googleErrorJSON),
		reason: "The model is overloaded", status: 503,
	},
	{
		name: "Google's own error instead of a stream", model: imageModel, stream: true,
		plays:  answers(503, eventType, googleErrorJSON),
		reason: "The model is overloaded", status: 503,
	},
}

func TestGoClient(t *testing.T) {
	u := scripted(t, nil)
	client := newGenAI(t, inFront(t, u))
	for _, c := range clientCases {
		t.Run(c.name, func(t *testing.T) {
			u.play(c.plays)
			ask := generate
			if c.stream {
				ask = generateStream
			}
			s := ask(t.Context(), client, c.model, nil)

			c.checkContent(t, s.images, s.text)
			if c.reason == "" {
				if s.err != nil {
					t.Errorf("the client raised %v", s.err)
				}
			} else {
				checkAPIError(t, c, s.err)
			}
			c.checkUpstream(t, u)
		})
	}
}

// checkContent compares what has arrived before an error or instead of one.
func (c *clientCase) checkContent(t *testing.T, images [][]byte, text string) {
	t.Helper()
	if text != c.text {
		t.Errorf("the client saw the text %q, want %q", text, c.text)
	}
	if c.image != (len(images) == 1) || c.image && !bytes.Equal(images[0], picture) {
		t.Errorf("the client saw %d images, want one that is whole: %t", len(images), c.image)
	}
}

// checkUpstream makes sure that the call was sent once, completed, with the
// right key.
func (c *clientCase) checkUpstream(t *testing.T, u *upstream) {
	t.Helper()
	r := u.only(t)
	method := ":generateContent"
	if c.stream {
		method = ":streamGenerateContent?alt=sse"
	}
	if _, call, _ := strings.Cut(r.URI, "/models/"); call != c.model+method {
		t.Errorf("the upstream received %s, want %s", r.URI, c.model+method)
	}
	if key := r.Header.Values("X-Goog-Api-Key"); !slices.Equal(key, []string{upstreamKey}) {
		t.Errorf("the upstream received the key %q", key)
	}
	body := r.json(t)
	if settings, _ := body["safetySettings"].([]any); len(settings) != 4 {
		t.Errorf("the upstream received safetySettings %v, want four", body["safetySettings"])
	}
	config, _ := body["generationConfig"].(map[string]any)
	modalities, _ := config["responseModalities"].([]any)
	if want := c.model == imageModel; (len(modalities) == 2) != want {
		t.Errorf("the upstream received responseModalities %v, want them completed: %t", modalities, want)
	}
}

// checkAPIError is for errors of the Go client; all of it comes from the body.
func checkAPIError(t *testing.T, c clientCase, err error) {
	t.Helper()
	var raised genai.APIError
	if !errors.As(err, &raised) {
		t.Fatalf("the client raised %v, want a genai.APIError", err)
	}
	if raised.Code != c.status {
		t.Errorf("code %d, want %d", raised.Code, c.status)
	}
	if !strings.HasPrefix(raised.Message, c.reason) {
		t.Errorf("message %q does not begin with %q", raised.Message, c.reason)
	}
	if c.class == "" {
		return // not an error of the gateway's
	}
	if raised.Status != "INVALID_ARGUMENT" {
		t.Errorf("status %q, want INVALID_ARGUMENT", raised.Status)
	}
	if len(raised.Details) != 3 || raised.Details[0]["reason"] != c.reason || raised.Details[0]["domain"] != "caddy-gemini" {
		t.Fatalf("details %v", raised.Details)
	}
	metadata, _ := raised.Details[0]["metadata"].(map[string]any)
	if metadata["class"] != c.class || metadata["model"] != c.model || metadata["upstream"] != "scripted" || metadata["attempts"] != "1" {
		t.Errorf("metadata %v, want class %s", metadata, c.class)
	}
}

// What the client sets is left alone.
func TestGoClientKeepsItsSettings(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	client := newGenAI(t, inFront(t, u))
	s := generate(t.Context(), client, imageModel, &genai.GenerateContentConfig{
		ResponseModalities: []string{"IMAGE"},
		ImageConfig:        &genai.ImageConfig{AspectRatio: "16:9", ImageSize: "2K"},
		SafetySettings: []*genai.SafetySetting{
			{Category: genai.HarmCategoryHarassment, Threshold: genai.HarmBlockThresholdBlockLowAndAbove},
		},
	})
	if s.err != nil || len(s.images) != 1 {
		t.Fatalf("the client saw %d images and %v", len(s.images), s.err)
	}
	body := string(u.only(t).Body)
	for _, want := range []string{
		`"responseModalities":["IMAGE"]`, `"aspectRatio":"16:9"`,
		`{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_LOW_AND_ABOVE"}`,
	} {
		if strings.Count(body, want) != 1 {
			t.Errorf("the upstream received no %s: %s", want, body)
		}
	}
	if n := strings.Count(body, "HARM_CATEGORY_"); n != 4 {
		t.Errorf("the upstream received %d categories, want four: %s", n, body)
	}
}

// A client that asks for images alone is told of a refusal in words.
func TestGoClientTextInsteadOfImage(t *testing.T) {
	u := scripted(t, answers(200, jsonType, textJSON))
	client := newGenAI(t, inFront(t, u))
	s := generate(t.Context(), client, imageModel, &genai.GenerateContentConfig{ResponseModalities: []string{"IMAGE"}})
	checkAPIError(t, clientCase{model: imageModel, reason: "NO_IMAGE", status: 400, class: blockedClass}, s.err)
	if !strings.Contains(s.err.Error(), "Here is what I think") {
		t.Errorf("the error does not say what the model said: %v", s.err)
	}
	u.only(t)
}
