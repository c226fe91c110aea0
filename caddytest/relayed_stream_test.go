// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// chatStream are the chunks of a stream in OpenAI's form, without its end.
func chatStream(chunks ...string) string {
	var b strings.Builder
	for _, chunk := range chunks {
		b.WriteString("data: " + chunk + "\n\n")
	}
	return b.String()
}

const doneEvent = "data: [DONE]\n\n"

var (
	chatText  = chatChunk(`"content":"Here is"`, "null")
	chatImage = chatChunk(chatPicture, "null")
	chatStop  = chatChunk(`"content":""`, `"stop"`)
)

// What an upstream in OpenAI's form says behind an image is told to native clients in
// the two forms that they understand, a block as this module's error, all else as the
// upstream's own. Nothing is told twice, and nothing behind it.
func TestLateEndsForNativeClients(t *testing.T) {
	block := chatChunk(`"content":""`, `"content_filter"`)
	failure := `{"id":"c1","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"code":"server_error","message":"Provider disconnected"}}`
	moderation := openAIFault(`"moderation_blocked"`, "x", "Rejected.")
	for _, c := range []struct {
		name, end, reason string
		isTheirs          bool
	}{
		{"block", block, "SAFETY", false},
		{"block by Google", chatChunk(`"content":""`, `"content_filter"`, `"native_finish_reason":"IMAGE_PROHIBITED_CONTENT"`), "IMAGE_PROHIBITED_CONTENT", false},
		{"moderation", moderation, "SAFETY", false},
		{"failure", failure, "SERVER_ERROR", true},
	} {
		for name, ends := range map[string]string{"": "", ", done": doneEvent, ", stopped": chatStream(chatStop) + doneEvent} {
			t.Run(c.name+name, func(t *testing.T) {
				u := scripted(t, answers(200, eventType, chatStream(chatImage, c.end)+ends))
				g := atOpenAI(t, u, false)
				s := g.post(t, streamPath, promptJSON)
				if s.StatusCode != 200 || s.err != nil || strings.Count(string(s.body), tinyPNG) != 1 || strings.Contains(string(s.body), "DONE") {
					t.Fatalf("status %d, %v: %s", s.StatusCode, s.err, shortened(string(s.body)))
				}
				before, behind, _ := strings.Cut(string(s.body), `data: {"error"`)
				behind = `{"error"` + behind
				inEvent, bare, _ := strings.Cut(behind, "\r\n\r\n")
				if strings.Contains(before, `"error"`) || strings.Count(behind, `"error"`) != 2 {
					t.Errorf("not told in two forms: %s", s.body)
				}
				sameError(t, inEvent, bare)
				e := parseError(t, []byte(bare))
				if !c.isTheirs {
					checkReason(t, e, c.reason)
					return
				}
				if e.Code != 500 || e.Message != "Provider disconnected" || e.Details[0]["reason"] != c.reason {
					t.Errorf("error %+v, want the upstream's own", e)
				}
			})
		}
		t.Run(c.name+" in an array", func(t *testing.T) {
			u := scripted(t, answers(200, eventType, chatStream(chatImage, c.end)+doneEvent))
			s := atOpenAI(t, u, false).post(t, arrayPath, promptJSON)
			var elements []map[string]json.RawMessage
			if err := json.Unmarshal(s.body, &elements); err != nil {
				t.Fatalf("%v: %s", err, shortened(string(s.body)))
			}
			for i, e := range elements {
				if isLast := i == len(elements)-1; (e["error"] != nil) != isLast {
					t.Errorf("element %d of %d: %s", i, len(elements), shortened(string(s.body)))
				}
			}
		})
	}
}

func sameError(t *testing.T, a, b string) {
	t.Helper()
	x, y := parseError(t, []byte(a)), parseError(t, []byte(b))
	if x.Code != y.Code || x.Status != y.Status || x.Message != y.Message || len(x.Details) != len(y.Details) {
		t.Errorf("%s\nis not %s", a, b)
	}
}

// The same for clients of OpenAI's: one event, and no [DONE].
func TestLateEndsForOpenAIClients(t *testing.T) {
	for _, c := range []struct{ name, end, code, says string }{
		{"block", event(blockedJSON), "content_policy_violation", "IMAGE_SAFETY: "},
		{"prompt", event(promptBlockedJSON), "content_policy_violation", "PROHIBITED_CONTENT: "},
		{"failure", googleErrorJSON + "\r\n", "unavailable", "The model is overloaded. Please try again later."},
		{"failure in an event", event(googleErrorJSON), "unavailable", "The model is overloaded. Please try again later."},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(200, eventType, event(textChunk)+event(imageChunk)+c.end))
			s := inFront(t, u).post(t, chatPath, completed(chatJSON(imageModel), `"stream":true`))
			before, last, _ := strings.Cut(string(s.body), `data: {"error":`)
			if s.StatusCode != 200 || s.err != nil || strings.Count(before, `"images"`) != 1 || strings.Contains(last, "data:") {
				t.Fatalf("status %d, %v: %s", s.StatusCode, s.err, shortened(string(s.body)))
			}
			s.body, s.StatusCode = []byte(`{"error":`+last), 400
			s.failsAsOpenAI(t, 400, c.code, c.says)
		})
	}
}

// An image that the client has got is not taken back by what is said behind it, if
// there is no other way to tell; a mere draft is no image.
func TestBlockBehindAnImage(t *testing.T) {
	blocked := candidate(imagePart, `"IMAGE_SAFETY"`)
	draft := candidate(strings.TrimSuffix(imagePart, "}")+`,"thought":true}`, `"NO_IMAGE"`)
	u := scripted(t, nil)
	g := inFront(t, u)
	for path, body := range map[string]string{imagesPath: drawJSON(), chatPath: chatJSON(imageModel)} {
		u.play(answers(200, jsonType, blocked))
		s := g.post(t, path, body)
		if s.err != nil || s.StatusCode != 200 || !strings.Contains(string(s.body), base64.StdEncoding.EncodeToString(picture)) {
			t.Errorf("%s: status %d, %v: %s", path, s.StatusCode, s.err, shortened(string(s.body)))
		}
		if path == chatPath && !strings.Contains(string(s.body), `"finish_reason":"content_filter"`) {
			t.Errorf("the answer does not tell: %s", shortened(string(s.body)))
		}
		u.play(answers(200, jsonType, draft))
		if s := g.post(t, path, body); s.err == nil {
			t.Errorf("%s: a draft was delivered as an image: %s", path, shortened(string(s.body)))
		}
	}
}

// Under block_status pass a block is an answer like any other, in any form.
func TestBlocksPassRelayed(t *testing.T) {
	u := scripted(t, nil)
	google := inFront(t, u, "block_status pass")
	streams := completed(chatJSON(imageModel), `"stream":true`)
	for _, c := range []struct{ name, path, body, kind, answer, says string }{
		{"images", imagesPath, drawJSON(), jsonType, blockedJSON, `"data":[],"usage"`},
		{"prompt of images", imagesPath, drawJSON(), jsonType, promptBlockedJSON, `"data":[],"usage"`},
		{"chat", chatPath, chatJSON(imageModel), jsonType, blockedJSON, `"content":null},"finish_reason":"content_filter"`},
		{"prompt of a chat", chatPath, chatJSON(imageModel), jsonType, promptBlockedJSON, `"content":null},"finish_reason":"content_filter"`},
		{"stream", chatPath, streams, eventType, event(blockedJSON), `"delta":{"role":"assistant"},"finish_reason":"content_filter"`},
		{"late in a stream", chatPath, streams, eventType, event(imageChunk) + event(blockedJSON), `"delta":{},"finish_reason":"content_filter"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(answers(200, c.kind, c.answer))
			s := google.post(t, c.path, c.body)
			body := string(s.body)
			if s.StatusCode != 200 || s.err != nil || !strings.Contains(body, c.says) || strings.Contains(body, "error") {
				t.Errorf("status %d, %v: %s, want %s", s.StatusCode, s.err, shortened(body), c.says)
			}
			if c.kind == eventType && !strings.HasSuffix(body, doneEvent) {
				t.Errorf("no [DONE]: %s", shortened(body))
			}
		})
	}
}

// The same for native clients of an upstream in OpenAI's form.
func TestBlocksOfOpenAIPass(t *testing.T) {
	u := scripted(t, nil)
	g := atOpenAI(t, u, false, "block_status pass")
	filtered := chatChunk(`"content":""`, `"content_filter"`)
	for _, c := range []struct{ name, path, kind, answer, says string }{
		{"unary", unaryPath, jsonType, chatAnswer(`"content":null`, `"content_filter"`), `"finishReason":"SAFETY"`},
		{"stream", streamPath, eventType, chatStream(filtered) + doneEvent, `"finishReason":"SAFETY"`},
		{"late", streamPath, eventType, chatStream(chatImage, filtered) + doneEvent, `"finishReason":"SAFETY"`},
		{"late in an array", arrayPath, eventType, chatStream(chatImage, filtered) + doneEvent, `"finishReason":"SAFETY"`},
	} {
		u.play(answers(200, c.kind, c.answer))
		s := g.post(t, c.path, promptJSON)
		if body := string(s.body); s.StatusCode != 200 || s.err != nil || !strings.Contains(body, c.says) || strings.Contains(body, "error") {
			t.Errorf("%s: status %d, %v: %s", c.name, s.StatusCode, s.err, shortened(body))
		}
	}
}

// A stream is one, whatever its upstream calls it, and an object is none.
func TestMisnamedStreams(t *testing.T) {
	streams := completed(chatJSON(imageModel), `"stream":true`)
	native := event(textChunk) + event(imageChunk) + event(lastChunk)
	chat := chatStream(chatText, chatImage, chatStop) + doneEvent
	for _, kind := range []string{jsonType, "text/plain", "application/octet-stream", eventType} {
		u := scripted(t, nil)
		google := inFront(t, u)
		for name, answer := range map[string]string{"stream": native, "object": imageJSON} {
			u.play(answers(200, kind, answer))
			s := google.post(t, chatPath, streams)
			if body := string(s.body); s.err != nil || strings.Count(body, `"images"`) != 1 || !strings.HasSuffix(body, doneEvent) {
				t.Errorf("%s as %s: status %d, %v: %s", name, kind, s.StatusCode, s.err, shortened(body))
			}
		}
		openAI := atOpenAI(t, u, false)
		for name, answer := range map[string]string{"stream": chat, "object": chatAnswer(`"content":"Here",`+chatPicture, `"stop"`)} {
			u.play(answers(200, kind, answer))
			s := openAI.post(t, streamPath, promptJSON)
			if body := string(s.body); s.err != nil || strings.Count(body, `"inlineData"`) != 1 || strings.Count(body, `"finishReason":"STOP"`) != 1 {
				t.Errorf("%s as %s: status %d, %v: %s", name, kind, s.StatusCode, s.err, shortened(body))
			}
		}
	}
}

// slowAnswers are answers that stop in the middle, in all forms and for all clients.
var slowAnswers = []struct {
	name       string
	atOpenAI   bool
	path, body string
	kind       string
	begins     string // all that the upstream says
	arrives    string // what the client must have by then
}{
	{"native to images", false, imagesPath, drawJSON(), jsonType, `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + tinyPNG, tinyPNG},
	{"native to chat", false, chatPath, chatJSON(imageModel), jsonType, `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"` + tinyPNG, tinyPNG},
	{"native to a chat's stream", false, chatPath, completed(chatJSON(imageModel), `"stream":true`), eventType, `data: {"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + tinyPNG, tinyPNG},
	{"an event of native to a chat's stream", false, chatPath, completed(chatJSON(imageModel), `"stream":true`), eventType, event(imageChunk) + event(textChunk), "Here is"},
	{"images to native", true, unaryPath, promptJSON, jsonType, `{"created":1,"data":[{"b64_json":"` + tinyPNG, tinyPNG},
	{"images to a stream", true, streamPath, promptJSON, jsonType, `{"created":1,"data":[{"b64_json":"` + tinyPNG, tinyPNG},
	{"images to an array", true, arrayPath, promptJSON, jsonType, `{"created":1,"data":[{"b64_json":"` + tinyPNG, tinyPNG},
	{"chat to native", true, unaryPath, promptJSON, jsonType, `{"choices":[{"message":{"images":[{"image_url":{"url":"data:image/png;base64,` + tinyPNG, tinyPNG},
	{"Markdown to native", true, unaryPath, promptJSON, jsonType, `{"choices":[{"message":{"content":"![](data:image/png;base64,` + tinyPNG, tinyPNG},
	{"a chat's stream to native", true, streamPath, promptJSON, eventType, `data: {"choices":[{"delta":{"images":[{"image_url":{"url":"data:image/png;base64,` + tinyPNG, tinyPNG},
	{"an event of a chat's stream", true, streamPath, promptJSON, eventType, chatStream(chatImage, chatText), "Here is"},
	{"a chat's stream to an array", true, arrayPath, promptJSON, eventType, chatStream(chatImage, chatText), "Here is"},
}

// atEither runs a gateway for one of the slow answers.
func atEither(t *testing.T, u *upstream, isOpenAI bool, begins string) *gateway {
	t.Helper()
	if isOpenAI {
		return atOpenAI(t, u, strings.Contains(begins, `"b64_json"`))
	}
	return inFront(t, u)
}

// Nobody waits for the end of an image, or for an event after that which has come.
// Should the client leave then, the upstream is told, and nothing is left of the call.
func TestSlowAnswersAreRelayed(t *testing.T) {
	for _, c := range slowAnswers {
		t.Run(c.name, func(t *testing.T) {
			cancelled := make(chan struct{})
			u := scripted(t, with("Content-Type", c.kind, func(w http.ResponseWriter, r *http.Request) {
				hangs(c.begins)(w, r)
				close(cancelled)
			}))
			g := atEither(t, u, c.atOpenAI, c.begins)
			ctx, leave := context.WithTimeout(t.Context(), soon)
			defer leave()
			res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, c.path, strings.NewReader(c.body)).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, buf := "", make([]byte, 32<<10)
			for !strings.Contains(got, c.arrives) {
				n, err := res.Body.Read(buf)
				if got += string(buf[:n]); err != nil {
					t.Fatalf("%v behind %s", err, shortened(got))
				}
			}
			leave()
			wait(t, "the upstream is told", cancelled)
		})
	}
}

// What breaks off on its way breaks off for the client, too.
func TestBrokenAnswersAreRelayed(t *testing.T) {
	for _, c := range slowAnswers {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, breaksOff(c.kind, c.begins))
			s := atEither(t, u, c.atOpenAI, c.begins).post(t, c.path, c.body)
			if s.err == nil || !strings.Contains(string(s.body), c.arrives) || strings.Contains(string(s.body), "[DONE]") {
				t.Errorf("%v behind %s", s.err, shortened(string(s.body)))
			}
			if r := u.only(t); !strings.Contains(string(r.Body), prompt) {
				t.Errorf("the upstream received %s", r.Body)
			}
		})
	}
}

// Not every server closes the connection behind [DONE].
func TestDoneEndsAStream(t *testing.T) {
	u := scripted(t, with("Content-Type", eventType, hangs(chatStream(chatImage, chatStop), "data: [DO", "NE]\n\n")))
	g := atOpenAI(t, u, false)
	for _, path := range []string{streamPath, arrayPath} {
		began := time.Now()
		s := g.post(t, path, promptJSON)
		if took := time.Since(began); s.err != nil || !strings.Contains(string(s.body), `"finishReason":"STOP"`) || took > soon {
			t.Errorf("%s: after %v: %v, %s", path, took, s.err, shortened(string(s.body)))
		}
	}
}

// Clients that leave in the middle take everything with them.
func TestRelaysLeaveNothing(t *testing.T) {
	u := scripted(t, nil)
	google, c := inFront(t, u), slowAnswers[0]
	u.play(with("Content-Type", c.kind, hangs(c.begins)))
	transport := newTransport(t)
	once := func() {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		res, err := transport.RoundTrip(google.newRequest(t, http.MethodPost, c.path, strings.NewReader(drawJSON(`"n":3`))).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(res.Body, make([]byte, 64))
		leave()
		_ = res.Body.Close()
	}
	once()
	settled := runtime.NumGoroutine() + 10
	for range 20 {
		once()
	}
	eventually(t, "the goroutines of all calls end", func() bool {
		transport.CloseIdleConnections()
		return runtime.NumGoroutine() <= settled
	})
}
