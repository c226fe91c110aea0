// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Every block is an error before anything else reaches the client, whatever it
// would have accepted; every image is the upstream's, byte for byte.
func TestAnswers(t *testing.T) {
	array := "[" + textChunk + "\n,\r\n" + imageChunk + "\n,\r\n" + lastChunk + "]"
	for _, c := range []struct {
		name, path, body string
		plays            http.HandlerFunc
		options          []string
		status           int
		answer           string // byte for byte, or
		reason           string // of an error
	}{
		{name: "image", path: unaryPath, plays: answers(200, jsonType, imageJSON), status: 200, answer: imageJSON},
		{name: "image in events", path: streamPath, plays: events(textChunk, imageChunk, lastChunk), status: 200, answer: event(textChunk) + event(imageChunk) + event(lastChunk)},
		{name: "image in an array", path: arrayPath, plays: answers(200, jsonType, array), status: 200, answer: array},
		{name: "block", path: unaryPath, plays: answers(200, jsonType, blockedJSON), status: 400, reason: "IMAGE_SAFETY"},
		{name: "block in events", path: streamPath, plays: events(textChunk, blockedJSON), status: 400, reason: "IMAGE_SAFETY"},
		{name: "block in an array", path: arrayPath, plays: answers(200, jsonType, "["+textChunk+"\n,\r\n"+blockedJSON+"]"), status: 400, reason: "IMAGE_SAFETY"},
		{name: "block in gzip that nobody asked for", path: unaryPath, plays: compressed(blockedJSON), status: 400, reason: "IMAGE_SAFETY"},
		{name: "image in gzip", path: unaryPath, plays: compressed(imageJSON), status: 200, answer: imageJSON},

		{name: "block_status 422", path: unaryPath, plays: answers(200, jsonType, blockedJSON), options: []string{"block_status 422"}, status: 422, reason: "IMAGE_SAFETY"},
		{name: "block_status pass", path: unaryPath, plays: answers(200, jsonType, blockedJSON), options: []string{"block_status pass"}, status: 200, answer: blockedJSON},
		{name: "block_status pass in events", path: streamPath, plays: events(textChunk, blockedJSON), options: []string{"block_status pass"}, status: 200, answer: event(textChunk) + event(blockedJSON)},

		{name: "no_image auto, text and images asked for", path: unaryPath, plays: answers(200, jsonType, textJSON), status: 200, answer: textJSON},
		{name: "no_image auto, images alone asked for", path: unaryPath, body: imagesAlone, plays: answers(200, jsonType, textJSON), status: 400, reason: "NO_IMAGE"},
		{name: "no_image auto, an image format asked for", path: unaryPath, body: imageFormat, plays: answers(200, jsonType, textJSON), status: 400, reason: "NO_IMAGE"},
		{name: "no_image error", path: unaryPath, plays: answers(200, jsonType, textJSON), options: []string{"no_image error"}, status: 400, reason: "NO_IMAGE"},
		{name: "no_image error in events", path: streamPath, plays: events(textChunk, lastChunk), options: []string{"no_image error"}, status: 400, reason: "NO_IMAGE"},
		{name: "no_image pass", path: unaryPath, body: imagesAlone, plays: answers(200, jsonType, textJSON), options: []string{"no_image pass"}, status: 200, answer: textJSON},
		{name: "snake case", path: unaryPath, body: snakeCase, plays: answers(200, jsonType, textJSON), status: 400, reason: "NO_IMAGE"},

		{name: "nothing at all", path: unaryPath, plays: answers(200, jsonType, ""), status: 503, reason: "EMPTY_RESPONSE"},
		{name: "an error page", path: unaryPath, plays: answers(200, "text/html", "<html>busy</html>"), status: 503, reason: "EMPTY_RESPONSE"},
		{name: "not an answer", path: unaryPath, plays: answers(200, jsonType, "null"), status: 503, reason: "EMPTY_RESPONSE"},
		{name: "cut before the verdict", path: unaryPath, plays: breaksOff(jsonType, blockedJSON[:strings.Index(blockedJSON, `"finishReason"`)]), status: 503, reason: "UPSTREAM_UNAVAILABLE"},
		{name: "cut behind a block", path: unaryPath, plays: breaksOff(jsonType, blockedJSON[:60]), status: 400, reason: "IMAGE_SAFETY"},
		{name: "cut before the verdict in events", path: streamPath, plays: breaksOff(eventType, event(textChunk)), status: 503, reason: "UPSTREAM_UNAVAILABLE"},
		{name: "cut before the first byte", path: unaryPath, plays: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, status: 503, reason: "UPSTREAM_UNAVAILABLE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			g := inFront(t, u, c.options...)
			for _, encoding := range []string{"identity", "gzip", "gzip, deflate, br, zstd"} {
				u.play(c.plays)
				body := c.body
				if body == "" {
					body = promptJSON
				}
				s := g.post(t, c.path, body, "Accept-Encoding", encoding)
				if c.reason != "" {
					s.fails(t, c.status, c.reason)
				} else {
					s.exactly(t, c.status, c.answer)
				}
				if got := s.Header.Get("Content-Encoding"); got != "" {
					t.Errorf("Content-Encoding %q", got)
				}
				u.only(t)
			}
		})
	}
}

const (
	imagesAlone = `{"contents":[{"parts":[{"text":"` + prompt + `"}]}],"generationConfig":{"responseModalities":["IMAGE"]}}`
	imageFormat = `{"contents":[{"parts":[{"text":"` + prompt + `"}]}],"generationConfig":{"imageConfig":{"aspectRatio":"16:9"}}}`
	snakeCase   = `{"contents":[{"parts":[{"text":"` + prompt + `"}]}],"generation_config":{"response_modalities":["IMAGE"]}}`
)

// compressed plays an answer in gzip, as Google does when it may.
func compressed(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		answers(200, jsonType, gzipped(body))(w, r)
	}
}

// A block under block_status pass can still be told from an image.
func TestBlockThatPassesIsMarked(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	s := inFront(t, u, "block_status pass").post(t, unaryPath, promptJSON)
	if got := s.Header.Get("Proxy-Status"); got != `caddy-gemini; next-hop="scripted"; received-status=200; details="IMAGE_SAFETY"` {
		t.Errorf("Proxy-Status %q", got)
	}
}

// The site's own encode works on answers that the gateway has read.
func TestEncodeInFront(t *testing.T) {
	u := scripted(t, answers(200, jsonType, imageJSON))
	g := run(t, "encode gzip\n"+gemini("upstream scripted "+u.URL))
	s := g.post(t, unaryPath, promptJSON, "Accept-Encoding", "gzip")
	if got := s.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding %q", got)
	}
	s.body = []byte(unzipped(t, s.body))
	s.exactly(t, 200, imageJSON)

	u.play(answers(200, jsonType, blockedJSON))
	s = g.post(t, unaryPath, promptJSON, "Accept-Encoding", "gzip")
	if s.Header.Get("Content-Encoding") == "gzip" {
		s.body = []byte(unzipped(t, s.body))
	}
	s.fails(t, 400, "IMAGE_SAFETY")
}

// An error of Google's is passed on as it is, or in the form of the call, with the
// Retry-After that Google leaves out.
func TestLimitIsPassedOn(t *testing.T) {
	const limit = `{
  "error": {
    "code": 429, "message": "You exceeded your current quota.\nPlease retry in 34.286670503s.", "status": "RESOURCE_EXHAUSTED",
    "details": [ {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"} ]
  }
}
`
	for path, body := range map[string]string{
		unaryPath: promptJSON, streamPath: promptJSON, openAIChatPath: chatJSON(textModel), openAIDrawPath: drawJSON(),
	} {
		u := scripted(t, answers(429, jsonType, limit))
		s := inFront(t, u).post(t, path, body)
		if path == openAIDrawPath { // which is sent as generateContent
			s.failsAsOpenAI(t, 429, "rate_limit_exceeded", "Please retry in 34.286670503s.")
		} else {
			s.exactly(t, 429, limit)
		}
		if after := s.Header.Get("Retry-After"); after != "34" {
			t.Errorf("%s: Retry-After %q, want 34", path, after)
		}
		if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="scripted"; received-status=429; details="RESOURCE_EXHAUSTED"` {
			t.Errorf("%s: Proxy-Status %q", path, via)
		}
		u.only(t)
	}
}

func TestNoUpstream(t *testing.T) {
	g := run(t, gemini("upstream gone http://"+freeAddress(t)))
	e := g.post(t, unaryPath, promptJSON).fails(t, 503, "UPSTREAM_UNAVAILABLE")
	if e.Status != "UNAVAILABLE" || e.metadata("class") != "transient" || e.metadata("upstream") != "gone" {
		t.Errorf("error %+v", e)
	}
	if strings.Contains(e.Message, "127.0.0.1") {
		t.Errorf("the client is told of the network behind the gateway: %s", e.Message)
	}
}

// Once content has been sent, the client can only be told by breaking off too.
func TestUpstreamBreaksOff(t *testing.T) {
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		arrives    string
	}{
		{"events", textPath, breaksOff(eventType, event(textChunk)), event(textChunk)},
		{"image", unaryPath, breaksOff(jsonType, imageJSON[:200_000]), imageJSON[:200_000]},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			s := inFront(t, u).post(t, c.path, promptJSON)
			if s.StatusCode != 200 || s.err == nil {
				t.Errorf("status %d and the error %v, want 200 and an answer that breaks off", s.StatusCode, s.err)
			}
			if !strings.HasPrefix(c.arrives, string(s.body)) {
				t.Errorf("the client saw %s", shortened(string(s.body)))
			}
			u.only(t)
		})
	}
}

// A call ends at the upstream when its client has left.
func TestClientLeaves(t *testing.T) {
	for _, c := range []struct {
		name, path string
		first      string
	}{
		{"before the verdict", unaryPath, `{"candidates":[`},
		{"in the middle of a stream", textPath, event(textChunk)},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked, cancelled := make(chan struct{}), make(chan struct{})
			u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", eventType)
				send(w, c.first)
				close(asked)
				<-r.Context().Done()
				close(cancelled)
			})
			g := inFront(t, u)
			ctx, leave := context.WithCancel(t.Context())
			r := g.newRequest(t, http.MethodPost, c.path, strings.NewReader(promptJSON)).WithContext(ctx)
			left := make(chan struct{})
			go func() {
				defer close(left)
				res, err := newTransport(t).RoundTrip(r)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the client saw %v", err)
				}
			}()
			wait(t, "the upstream is asked", asked)
			leave()
			wait(t, "the upstream's request is cancelled", cancelled)
			wait(t, "the client is gone", left)
			u.only(t)
		})
	}
}

// Events reach the client as they come, without waiting for the next.
func TestEventsAreNotHeldBack(t *testing.T) {
	m := inMidStream(t, lastChunk)
	if rest := m.goOn(t); rest != event(lastChunk) {
		t.Errorf("the client saw %q", rest)
	}
}

// midStream is a stream of text of which the client has read the first event,
// while the upstream waits with the last.
type midStream struct {
	upstream *upstream
	gateway  *gateway
	answer   *http.Response
	next     chan struct{}
}

func inMidStream(t *testing.T, last string) *midStream {
	t.Helper()
	next := make(chan struct{})
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", eventType)
		send(w, event(textChunk))
		select {
		case <-next:
			send(w, event(last))
		case <-r.Context().Done():
		}
	})
	g := inFront(t, u)
	res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, textPath, strings.NewReader(promptJSON)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	first := make([]byte, len(event(textChunk)))
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != event(textChunk) {
		t.Fatalf("the client saw %q (%v)", first, err)
	}
	return &midStream{u, g, res, next}
}

// goOn lets the upstream end the stream and returns what the client gets of it.
func (m *midStream) goOn(t *testing.T) string {
	t.Helper()
	close(m.next)
	rest, err := io.ReadAll(m.answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(rest)
}

// Each piece of an answer costs two writes to the client's connection, so that images
// leave in large ones, as far as Caddy's own limit allows if an operator has set it.
func TestImagesLeaveInLargePieces(t *testing.T) {
	large := candidate(`{"inlineData":{"mimeType":"image/png","data":"`+strings.Repeat("iVBO", 1<<18)+`"}}`, `"STOP"`)
	u := scripted(t, answers(200, jsonType, large))
	directives := gemini("upstream scripted " + u.URL)
	for _, c := range []struct {
		globals string
		largest int
	}{
		{"", 96 << 10},
		{"servers {\n\ttimeouts {\n\t\twrite_max_chunk 32KiB\n\t}\n}", 32 << 10},
	} {
		client := runWith(t, c.globals, directives).dial(t)
		client.says(t, sized(unaryPath, len(promptJSON), promptJSON))
		for line := "-"; line != "\r\n"; {
			var err error
			if line, err = client.in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		largest := 0
		for size := -1; size != 0; {
			if _, err := fmt.Fscanf(client.in, "%x\r\n", &size); err != nil {
				t.Fatal(err)
			}
			if _, err := client.in.Discard(size + len("\r\n")); err != nil {
				t.Fatal(err)
			}
			largest = max(largest, size)
		}
		if largest != c.largest {
			t.Errorf("with %q the largest piece has %d bytes, want %d", c.globals, largest, c.largest)
		}
	}
}
