// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// install puts the client libraries into js/node_modules, unless those of this
// lockfile are there already.
var install = sync.OnceValues(func() (output []byte, err error) {
	lock, err := os.Stat("js/package-lock.json")
	if err != nil {
		return nil, err
	}
	installed, err := os.Stat("js/node_modules/.package-lock.json")
	if err == nil && installed.ModTime().After(lock.ModTime()) {
		return nil, nil
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = "js"
	return npm.CombinedOutput()
})

// jsClient is a client library in a process of its own.
type jsClient struct {
	in  io.Writer
	out *bufio.Reader
}

// jsCall is a call, as the scripts understand it. They leave out of a request
// what is not set here.
type jsCall struct {
	URL    string         `json:"url"`
	Base   string         `json:"base,omitempty"` // path of the API, where the library's user chooses it
	Key    string         `json:"key"`            // default clientKey
	Method string         `json:"method,omitempty"`
	Model  string         `json:"model"`
	Prompt string         `json:"prompt"`           // default prompt
	Images [][]byte       `json:"images,omitempty"` // PNG, to be edited
	N      int            `json:"n,omitempty"`
	Stream bool           `json:"stream"`
	Config map[string]any `json:"config,omitempty"` // more of the request, in the library's words

	// For @google/genai. With a project, the key is an access token.
	VertexAI bool   `json:"vertexai,omitempty"`
	Project  string `json:"project,omitempty"`
	Location string `json:"location,omitempty"`
}

type jsSeen struct {
	Images [][]byte `json:"images"`
	Text   string   `json:"text"`
	Chunks int      `json:"chunks"`
	Error  *raised  `json:"error"`
}

// startJS starts one of the scripts with a client library.
func startJS(t *testing.T, script, library string) *jsClient {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: the JavaScript clients are not tested", tool)
		}
	}
	if output, err := install(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, output)
	}
	node := exec.CommandContext(t.Context(), "node", script, library)
	node.Dir = "js"
	node.Stderr = os.Stderr
	in, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = node.Wait()
	})
	return &jsClient{in: in, out: bufio.NewReader(out)}
}

// call makes a call and waits for what the library's user sees.
func (c *jsClient) call(t *testing.T, call jsCall) (s jsSeen) {
	t.Helper()
	call.Key, call.Prompt = cmp.Or(call.Key, clientKey), cmp.Or(call.Prompt, prompt)
	if err := json.NewEncoder(c.in).Encode(call); err != nil {
		t.Fatal(err)
	}
	line := make(chan []byte, 1)
	go func() {
		b, _ := c.out.ReadBytes('\n')
		line <- b
	}()
	select {
	case b := <-line:
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatalf("the script printed %q: %v", b, err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the script does not answer")
	}
	return s
}

// The official JavaScript client, in its present and its last major version.
func TestJSClients(t *testing.T) {
	for _, library := range []string{"@google/genai", "@google/genai-2"} {
		t.Run(strings.TrimPrefix(library, "@google/"), func(t *testing.T) {
			client := startJS(t, "genai.mjs", library)
			u := scripted(t, nil)
			g := inFront(t, u)
			for _, c := range clientCases {
				t.Run(c.name, func(t *testing.T) {
					u.play(c.plays)
					s := client.call(t, jsCall{URL: g.url, Model: c.model, Stream: c.stream})
					c.checkContent(t, s.Images, s.Text)
					c.checkJSError(t, s)
					c.checkUpstream(t, u)
				})
			}
		})
	}
}

// checkJSError is for ApiError, whose message is the whole error as JSON.
func (c *clientCase) checkJSError(t *testing.T, s jsSeen) {
	t.Helper()
	if c.reason == "" {
		if s.Error != nil {
			t.Errorf("the client raised %+v", s.Error)
		}
		return
	}
	if s.Error == nil {
		t.Fatal("the client raised nothing")
	}
	if s.Error.Name != "ApiError" || s.Error.Status != c.status {
		t.Errorf("the client raised %+v, want an ApiError with status %d", s.Error, c.status)
	}
	if !strings.Contains(s.Error.Message, c.reason) {
		t.Errorf("message %q does not name %s", s.Error.Message, c.reason)
	}
	if c.class != "" && !strings.Contains(s.Error.Message, `"class":"`+c.class+`"`) {
		t.Errorf("message %q has no class %s", s.Error.Message, c.class)
	}
}

// What the JavaScript client sets is left alone.
func TestJSClientKeepsItsSettings(t *testing.T) {
	client := startJS(t, "genai.mjs", "@google/genai")
	u := scripted(t, answers(200, jsonType, textJSON))
	s := client.call(t, jsCall{URL: inFront(t, u).url, Model: imageModel, Config: map[string]any{"responseModalities": []string{"IMAGE"}}})
	c := clientCase{reason: "NO_IMAGE", status: 400, class: blockedClass}
	c.checkJSError(t, s)
	if body := string(u.only(t).Body); strings.Count(body, `"responseModalities":["IMAGE"]`) != 1 || strings.Contains(body, `"TEXT"`) {
		t.Errorf("the upstream received %s", body)
	}
}

// openAILibraries are OpenAI's client in its present version and in old ones that
// are still around.
var openAILibraries = []string{"openai", "openai-5", "openai-4"}

// OpenAI's client, at an upstream that speaks its form.
func TestOpenAIClients(t *testing.T) {
	const (
		text      = `{"choices":[{"index":0,"message":{"role":"assistant","content":"Here is"},"finish_reason":"stop"}]}`
		filtered  = `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`
		chunk     = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Here is"}}]}`
		stopped   = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
		cut       = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`
		violation = "content_policy_violation"
	)
	for _, library := range openAILibraries {
		t.Run(library, func(t *testing.T) {
			client := startJS(t, "openai.mjs", library)
			u := scripted(t, nil)
			g := run(t, gemini(place("scripted", u, "format openai", "api_key {env.CADDYTEST_KEY}")))
			for _, c := range []struct {
				name, method  string
				stream        bool
				plays         http.HandlerFunc
				image         bool
				text          string
				err, reason   string
				code          string
				status, count int
			}{
				{name: "image", method: "images.generate", plays: answers(200, jsonType, imagesData), image: true},
				{name: "no image", method: "images.generate", plays: answers(200, jsonType, `{"created":1,"data":[]}`), err: "BadRequestError", status: 400, code: violation, reason: "NO_IMAGE"},
				{name: "text", plays: answers(200, jsonType, text), text: "Here is"},
				{name: "content filter", plays: answers(200, jsonType, filtered), err: "BadRequestError", status: 400, code: violation, reason: "CONTENT_FILTER"},
				{name: "stream", stream: true, plays: answers(200, eventType, event(chunk)+event(stopped)+event("[DONE]")), text: "Here is"},
				{name: "content filter before the first content", stream: true, plays: answers(200, eventType, event(cut)+event("[DONE]")), err: "BadRequestError", status: 400, code: violation, reason: "CONTENT_FILTER"},
				{name: "content filter behind content", stream: true, plays: events(chunk, cut, "[DONE]"), text: "Here is", err: "APIError", code: violation, reason: "CONTENT_FILTER"},
				{name: "no answer", plays: answers(200, jsonType, ""), err: "InternalServerError", status: 503, code: "empty_response", reason: "EMPTY_RESPONSE"},
			} {
				t.Run(c.name, func(t *testing.T) {
					u.play(c.plays)
					model := textModel
					if c.method == "images.generate" {
						model = imageModel
					}
					s := client.call(t, jsCall{URL: g.url, Method: c.method, Model: model, Stream: c.stream})
					content := clientCase{image: c.image, text: c.text}
					content.checkContent(t, s.Images, s.Text)
					switch {
					case c.err == "" && s.Error != nil, c.err != "" && s.Error == nil:
						t.Errorf("the client raised %+v, want %q", s.Error, c.err)
					case c.err == "":
					case s.Error.Name != c.err || s.Error.Status != c.status || s.Error.Code != c.code || !strings.Contains(s.Error.Message, c.reason):
						t.Errorf("the client raised %+v, want %s with status %d, code %s and %s", s.Error, c.err, c.status, c.code, c.reason)
					}
					r := u.only(t)
					if auth := r.Header.Values("Authorization"); !slices.Equal(auth, []string{"Bearer " + upstreamKey}) || !strings.HasPrefix(r.URI, "/v1/") {
						t.Errorf("the upstream received %s with Authorization %q", r.URI, auth)
					}
				})
			}
		})
	}
}
