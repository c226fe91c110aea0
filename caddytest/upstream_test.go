// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// upstream is a server on the loopback that answers by script and records what
// it is asked.
type upstream struct {
	*httptest.Server
	begun    atomic.Int32 // how many requests have arrived, be it without their bodies
	mu       sync.Mutex
	answer   http.HandlerFunc
	requests []*request
}

// request is what an upstream has received.
type request struct {
	Method, URI, Host string
	Header            http.Header
	Body              []byte
	Err               error // the body did not come to its end
	Time              time.Time
}

// scripted starts an upstream.
func scripted(t *testing.T, answer http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{answer: answer}
	u.Server = httptest.NewServer(u)
	t.Cleanup(func() {
		u.CloseClientConnections() // or Close waits for handlers that wait for a test that has failed
		u.Close()
	})
	return u
}

// ServeHTTP records the request, its body included, and answers.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.begun.Add(1)
	received := &request{Method: r.Method, URI: r.RequestURI, Host: r.Host, Header: r.Header.Clone(), Time: time.Now()}
	received.Body, received.Err = io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(received.Body))
	u.mu.Lock()
	u.requests = append(u.requests, received)
	answer := u.answer
	u.mu.Unlock()
	answer(w, r)
}

// play changes the script and forgets what was received before.
func (u *upstream) play(answer http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer, u.requests = answer, nil
}

func (u *upstream) received() []*request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*request(nil), u.requests...)
}

// only is the one request that the upstream must have received.
func (u *upstream) only(t *testing.T) *request {
	t.Helper()
	all := u.received()
	if len(all) != 1 {
		t.Fatalf("the upstream received %d requests, want exactly one", len(all))
	}
	if all[0].Err != nil {
		t.Fatalf("the upstream received half a request: %v", all[0].Err)
	}
	return all[0]
}

// untouched fails if the upstream has received anything.
func (u *upstream) untouched(t *testing.T) {
	t.Helper()
	if n := len(u.received()); n > 0 {
		t.Errorf("the upstream received %d requests, want none", n)
	}
}

// json is the body, decoded.
func (r *request) json(t *testing.T) map[string]any {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(r.Body, &body); err != nil {
		t.Fatalf("the upstream received a body that is no JSON object: %v\n%s", err, r.Body)
	}
	return body
}

const (
	jsonType  = "application/json; charset=UTF-8"
	eventType = "text/event-stream"
)

// answers plays one body in one piece.
func answers(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// events plays a stream as the Gemini API frames it, each event in a write of
// its own.
func events(chunks ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", eventType)
		w.Header().Set("Content-Disposition", "attachment")
		for _, chunk := range chunks {
			send(w, event(chunk))
		}
	}
}

func event(chunk string) string { return "data: " + chunk + "\r\n\r\n" }

// send writes and flushes.
func send(w http.ResponseWriter, piece string) {
	_, _ = io.WriteString(w, piece)
	_ = http.NewResponseController(w).Flush()
}

// breaksOff plays pieces and then cuts the connection.
func breaksOff(contentType string, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, piece := range pieces {
			send(w, piece)
		}
		panic(http.ErrAbortHandler)
	}
}

// picture is an image of a size that no buffer holds at once. What is in it is
// of no importance: nothing on its way looks into it.
var picture = func() []byte {
	b := make([]byte, 300_000)
	for i, x := range b {
		b[i] = x + byte(i*i>>5) ^ byte(i)
	}
	return b
}()

// The answers of the Gemini API that most tests need.
var (
	imagePart  = fmt.Sprintf(`{"inlineData":{"mimeType":"image/png","data":%q}}`, base64.StdEncoding.EncodeToString(picture))
	imageJSON  = candidate(imagePart, `"STOP"`)
	textJSON   = candidate(`{"text":"Here is what I think"}`, `"STOP"`)
	textChunk  = `{"candidates":[{"content":{"parts":[{"text":"Here is"}],"role":"model"},"index":0}]}`
	imageChunk = `{"candidates":[{"content":{"parts":[` + imagePart + `],"role":"model"},"index":0}]}`
	lastChunk  = `{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}]}`

	blockedJSON = `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY","finishMessage":"Unable to show the generated image.","index":0}],` +
		`"usageMetadata":{"promptTokenCount":18,"totalTokenCount":238,"thoughtsTokenCount":220}}`
	promptBlockedJSON = `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":18,"totalTokenCount":18}}`
	googleErrorJSON   = `{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}`
)

// candidate is a complete answer with one part.
func candidate(part, finishReason string) string {
	return `{"candidates":[{"content":{"parts":[` + part + `],"role":"model"},"finishReason":` + finishReason + `,"index":0}],` +
		`"usageMetadata":{"promptTokenCount":16,"candidatesTokenCount":1290,"totalTokenCount":1306}}`
}

// The paths that most tests use.
const (
	imageModel = "gemini-3-pro-image-preview"
	textModel  = "gemini-2.5-flash"
	unaryPath  = "/v1beta/models/" + imageModel + ":generateContent"
	streamPath = "/v1beta/models/" + imageModel + ":streamGenerateContent?alt=sse"
	arrayPath  = "/v1beta/models/" + imageModel + ":streamGenerateContent"
	textPath   = "/v1beta/models/" + textModel + ":streamGenerateContent?alt=sse"
)

// promptJSON is what a client sends that sets nothing.
const promptJSON = `{"contents": [ {"role":"user","parts":[{"text":"` + prompt + `"}]} ]}`

// completedJSON is promptJSON as the upstream of an image model receives it.
var completedJSON = completed(promptJSON,
	`"safetySettings":[`+strings.Join([]string{
		setting("HARASSMENT"), setting("HATE_SPEECH"), setting("SEXUALLY_EXPLICIT"), setting("DANGEROUS_CONTENT"),
	}, ",")+`]`,
	`"generationConfig":{"responseModalities":["TEXT","IMAGE"]}`)

// translatedJSON is what becomes of drawJSON on its way to an image model.
var translatedJSON = strings.NewReplacer(`: [ `, `:[`, `} ]`, `}]`, `"TEXT",`, ``).Replace(completedJSON)

func setting(category string) string {
	return `{"category":"HARM_CATEGORY_` + category + `","threshold":"BLOCK_NONE"}`
}

// completed is a JSON object with members added behind its last one.
func completed(object string, members ...string) string {
	return strings.TrimSuffix(object, "}") + "," + strings.Join(members, ",") + "}"
}
