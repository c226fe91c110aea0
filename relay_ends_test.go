// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// What has been made of an answer in OpenAI's form is judged like a native one.
func TestRelayedAnswersAreJudged(t *testing.T) {
	for _, c := range []struct {
		file   string
		expect expectation
		class  class
		reason string
	}{
		{"images-usage.json", imagesAlone, classOK, ""},
		{"images-urls.json", imagesAlone, classOK, ""},
		{"images-none.json", imagesAlone, classBlocked, reasonNoImage},
		{"images-missing.json", imageCall, classBlocked, reasonNoImage},
		{"images-block.json", imageCall, classBlocked, "SAFETY"},
		{"images-cut.json", withDrafts, classTransient, reasonUnavailable},
		{"images-broken.json", withDrafts, classOK, ""}, // the image is complete
		{"images-page.json", imageCall, classTransient, reasonEmpty},
		{"chat-images.json", imagesAlone, classOK, ""},
		{"chat-markdown.json", imagesAlone, classOK, ""},
		{"chat-parts.json", imagesAlone, classOK, ""},
		{"chat-error.json", imageCall, classLimited, "RESOURCE_EXHAUSTED"},
		{"chat-error-behind.json", textCall, classTransient, "SERVER_ERROR"},
		{"chat-empty.json", imageCall, classTransient, reasonEmpty},
		{"chat-no-choices.json", imageCall, classTransient, reasonEmpty},
		{"chat-null.json", imageCall, classTransient, reasonEmpty},
		{"chat-stream.sse", imagesAlone, classOK, ""},
		{"chat-stream-blank.sse", imageCall, classBlocked, "SAFETY"},
		{"chat-stream-no-end.sse", textCall, classOK, ""},
		{"chat-stream-late-usage.sse", imagesAlone, classBlocked, reasonNoImage},
		{"chat-stream-error.sse", imageCall, classTransient, "SERVER_ERROR"},
		{"chat-stream-error-first.sse", imageCall, classBlocked, "SAFETY"},
		{"chat-stream-cut.sse", imageCall, classTransient, reasonUnavailable},
		{"chat-stream-lost-end.sse", imageCall, classTransient, reasonUnavailable},
	} {
		t.Run(c.file, func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join(answerFolder, c.file))
			if err != nil {
				t.Fatal(err)
			}
			for form, r := range relays(c.file) {
				p := play(r.of(io.NopCloser(strings.NewReader(string(body)))), streamForm(form), c.expect, noLimit)
				if p.verdict.class != c.class || p.verdict.reason != c.reason {
					t.Errorf("%s: %+v, want %v %s", r.name, p.verdict, c.class, c.reason)
				}
			}
		})
	}
}

func TestFinishWords(t *testing.T) {
	for word, want := range map[string]string{
		"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "function_call": "STOP", "": "",
		"content_filter": "SAFETY", "content_filter: IMAGE_SAFETY": "IMAGE_SAFETY", "content_filter: WEATHER": "SAFETY",
		"recitation": "RECITATION", "other": "FINISH_REASON_UNSPECIFIED", "OTHER": "OTHER", "CONTINUATION": "CONTINUATION", `e"rr`: "ERR",
	} {
		if got := finishOf([]byte(word)); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	for word, want := range map[string]string{
		"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length", "IMAGE_SAFETY": "content_filter",
		"NO_IMAGE": "content_filter", "SPII": "content_filter", "MALFORMED_FUNCTION_CALL": "stop", "NEWS": "stop",
	} {
		if got := chatFinish(word); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	for fault, want := range map[string]string{
		`{"code":"rate_limit_exceeded","message":"m"}`: "429 RESOURCE_EXHAUSTED m",
		`{"code":null,"type":"rate_limit_error"}`:      "429 RESOURCE_EXHAUSTED Too Many Requests",
		`{"type":"insufficient_quota"}`:                "429 RESOURCE_EXHAUSTED Too Many Requests",
		`{"code":"invalid_api_key"}`:                   "401 UNAUTHENTICATED Unauthorized",
		`{"type":"server_error","code":402}`:           "402 INVALID_ARGUMENT Payment Required",
		`{"type":"server_error","code":200}`:           "500 INTERNAL Internal Server Error",
		`{"type":"overloaded_error"}`:                  "503 UNAVAILABLE Service Unavailable",
		`{"code":"503"}`:                               "503 UNAVAILABLE Service Unavailable",
		`{"message":"\u0022"}`:                         "500 INTERNAL \"",
		`"words"`:                                      "500 INTERNAL words",
		`{"type":"nobody_knows"}`:                      "400 INVALID_ARGUMENT Bad Request",
		`{"code":"moderation_blocked","message":"no"}`: "SAFETY no",
		`{"code":400,"type":"content_filter"}`:         "SAFETY ",
		`{"code":"content_policy_violation","type":"invalid_request_error","message":""}`:                              "SAFETY ",
		`{"code":"x","innererror":{"code":"ResponsibleAIPolicyViolation"}}`:                                            "SAFETY ",
		`{"code":403,"message":"m","metadata":{"flagged_input":"a","reasons":["b"]}}`:                                  "SAFETY m",
		`{"code":403,"metadata":{"flagged_input":"a","reasons":["sexual/minors"]}}`:                                    "PROHIBITED_CONTENT ",
		`{"code":"spii","message":"m"}`:                                                                                "ended by SPII m",
		`{"code":"moderation_blocked","moderation_details":{"moderation_stage":"output","categories":["violence"]}}`:   "ended by IMAGE_SAFETY ",
		`{"code":"moderation_blocked","moderation_details":{"moderation_stage":"output","categories":["a","minors"]}}`: "ended by PROHIBITED_CONTENT ",
		`{"code":"content_blocked","message":"m"}`:                                                                     "CONTENT_BLOCKED m",
		`null`: "", `{}`: "", `""`: "",
	} {
		r := newNativeRelay(io.NopCloser(strings.NewReader(`{"error":`+fault+`}`)), nativeRelay{from: fromChat})
		body, err := relayed(r)
		if err != nil {
			t.Fatal(err)
		}
		e, feedback, candidate := gjson.Get(body, "error"), gjson.Get(body, "promptFeedback"), gjson.Get(body, "candidates.0")
		got := ""
		switch {
		case e.Exists():
			got = e.Get("code").Raw + " " + e.Get("status").Str + " " + e.Get("message").Str
		case feedback.Exists():
			got = feedback.Get("blockReason").Str + " " + feedback.Get("blockReasonMessage").Str
		case candidate.Exists():
			got = "ended by " + candidate.Get("finishReason").Str + " " + candidate.Get("finishMessage").Str
		}
		if got != want {
			t.Errorf("%s: %q, want %q", fault, got, want)
		}
	}
}

// A failure of which the judge of the answer knows is told where there is room.
func TestRelayFailed(t *testing.T) {
	const image = `{"inlineData":{"mimeType":"image/png","data":"AAAA"}}`
	failed := func() []byte { return []byte(`{"error":{"code":"x"}}`) }
	for _, c := range []struct {
		name, parts string
		to          clientForm
		want        string // the end
		err         error
	}{
		{"events", image, toChatEvents, "\n\ndata: {\"error\":{\"code\":\"x\"}}\n\n", nil},
		{"events without content", "", toChatEvents, "data: {\"error\":{\"code\":\"x\"}}\n\n", nil},
		{"chat", `{"text":"Hi"}`, toChat, `{"error":{"code":"x"}}`, nil},
		{"chat with an image", image, toChat, `AAAA"}}`, errAnswerFailed},
		{"images", image, toImages, `AAAA"}`, errAnswerFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := io.NopCloser(strings.NewReader(candidateWith(parts(c.parts))))
			got, err := relayed(newOpenAIRelay(source, openAIRelay{to: c.to, failed: failed}))
			if !strings.HasSuffix(got, c.want) || !errors.Is(err, c.err) || strings.Contains(got, "[DONE]") {
				t.Errorf("%s, %v, want %s, %v", got, err, c.want, c.err)
			}
		})
	}
}

// Text is held, so that it has a limit. What is left out has none.
func TestRelayTextLimit(t *testing.T) {
	for _, c := range []struct {
		name string
		to   clientForm
		size int
		part string
		err  error
	}{
		{"fits", toChat, maxRelayText, `"text":"`, nil},
		{"too much", toChat, maxRelayText + 1, `"text":"`, errTooMuchText},
		{"too much of an event", toChatEvents, maxRelayText + 1, `"text":"`, errTooMuchText},
		{"thought", toChat, maxRelayText + 1, `"thought":true,"text":"`, nil},
		{"signature", toChat, maxRelayText + 1, `"thoughtSignature":"`, nil},
		{"of no interest", toImages, maxRelayText + 1, `"text":"`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := repeated(`{"candidates":[{"content":{"parts":[{`+c.part, c.size, `"}]}}]}`)
			if _, err := relayed(newOpenAIRelay(source, openAIRelay{to: c.to})); !errors.Is(err, c.err) {
				t.Errorf("%v, want %v", err, c.err)
			}
		})
	}
}

// TestDoneOfAStreamThatGoesOn: an upstream that speaks Google's API may end its stream as
// OpenAI does, and not close the connection. The client of OpenAI's that waits gets all,
// and nothing that is still being read is given back.
func TestDoneOfAStreamThatGoesOn(t *testing.T) {
	const event = "data: " + `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgoAAAAN"}}]},"finishReason":"STOP"}]}` + "\r\n\r\n"
	at := rawUpstream(t, func(_ int, c net.Conn, in *bufio.Reader) {
		if _, _, err := readCall(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for _, chunk := range []string{event, "data: [DONE]\n\n"} { // [DONE] behind the verdict
			_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", len(chunk), chunk)
			time.Sleep(20 * time.Millisecond)
		}
		_, _ = in.ReadByte()
	})
	u := upstreamAt(t, at, http.DefaultTransport)
	u.direct = plainDirect(t)
	h := handlerOver(t, http.DefaultTransport)
	h.gateway.router.upstreams = []*upstream{u}
	for range 3 { // the second call gets the memory of the first
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1beta/openai/chat/completions",
			strings.NewReader(`{"model":"gemini-2.5-flash-image","stream":true,"messages":[{"role":"user","content":"A lighthouse"}]}`))
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, r, nil); err != nil {
			t.Fatal(err)
		}
		if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, "iVBORw0KGgoAAAAN") || !strings.HasSuffix(body, "data: [DONE]\n\n") {
			t.Errorf("%d %s", w.Code, body)
		}
	}
	time.Sleep(2 * maxDrainTime) // what goes off late
}
