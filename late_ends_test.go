// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// breaksOff answers with the beginning of an answer.
func breaksOff(contentType, beginning string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, beginning)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(20 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}
}

// guardedRetries are three attempts that do not wait, and a guard.
func guardedRetries(f format) routerOption {
	return func(r *router, _ *exchange) {
		r.upstreams[0].format, r.upstreams[0].takesVertex, r.upstreams[0].imagesByChat = f, false, true
		r.retry.attempts = 3
		r.pacing.initial, r.pacing.max = time.Millisecond, time.Millisecond
		r.guardFor = time.Hour
	}
}

// A block that has been read is one, however the answer ends.
func TestBlocksOfBrokenAnswers(t *testing.T) {
	const filtered = `data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}` + "\n\n" +
		`data: {"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"%s}]}` + "\n\n"
	soft, hard := fmt.Sprintf(filtered, ""), fmt.Sprintf(filtered, `,"native_finish_reason":"PROHIBITED_CONTENT"`)
	array := strings.Replace(streamPath, "?alt=sse", "", 1)
	for name, c := range map[string]struct {
		format             format
		path, kind, answer string
		class              class
		status             int
	}{
		"behind the reason":           {formatGemini, imagePath, contentType, `{"candidates":[{"content":{},"finishReason":"PROHIBITED_CONTENT"`, classForbidden, 400},
		"inside what is said":         {formatGemini, imagePath, contentType, `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY","finishMessage":"Unable to`, classBlocked, 400},
		"behind the candidate":        {formatGemini, imagePath, contentType, `{"candidates":[{"content":{},"finishReason":"PROHIBITED_CONTENT"}`, classForbidden, 400},
		"behind an image":             {formatGemini, imagePath, contentType, `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},"finishReason":"STOP","index":0},{"content":{},"finishReason":"PROHIBITED_CONTENT","index":1}],"usageMetadata":{`, classForbidden, 200},
		"in a stream of OpenAI's":     {formatOpenAI, streamPath, "text/event-stream", soft, classBlocked, 400},
		"in one that becomes unary":   {formatOpenAI, imagePath, "text/event-stream", soft, classBlocked, 400},
		"in one that becomes a list":  {formatOpenAI, array, "text/event-stream", soft, classBlocked, 400},
		"hard, in OpenAI's":           {formatOpenAI, streamPath, "text/event-stream", hard, classForbidden, 400},
		"hard, before OpenAI's usage": {formatOpenAI, streamPath, "text/event-stream", hard + `data: {"choices":[],"usage":{"prompt_tok`, classForbidden, 400},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, breaksOff(c.kind, c.answer))
			got := send(t, u.URL, c.path, prompt, guardedRetries(c.format))
			if len(u.seen()) != 1 || got.status != c.status || got.x.verdict.class != c.class {
				t.Errorf("sent %d times, %d, %+v", len(u.seen()), got.status, got.x.verdict)
			}
		})
	}
}

// What an upstream says is over is over, even if its connection breaks.
func TestDoneBeforeTheBreak(t *testing.T) {
	const answer = `data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
	source := io.MultiReader(strings.NewReader(answer), failing{io.ErrUnexpectedEOF})
	got, err := relayed(newNativeRelay(io.NopCloser(source), nativeRelay{from: fromChat, events: true, to: formEvents}))
	if err != nil || !strings.Contains(got, `"STOP"`) {
		t.Errorf("%v %s", err, got)
	}
}

// A server may repeat the key that it was called with anywhere.
func TestHeadersDoNotTellTheKey(t *testing.T) {
	const secret = "operators-own-secret-key"
	for _, status := range []int{200, 400, 401, 503} {
		u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
			key := r.Header.Get(apiKeyHeader)
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Www-Authenticate", `Bearer error_description="key `+key+` is wrong"`)
			w.Header().Set("X-Debug-Url", "https://x/?key="+key)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, okImage)
		})
		got := send(t, u.URL, imagePath, prompt, func(r *router, _ *exchange) { r.upstreams[0].keys = []*apiKey{keyNamed(secret)} })
		if all := fmt.Sprint(got.header); strings.Contains(all, secret) || status == 200 && !strings.Contains(all, "***") {
			t.Errorf("%d: %s", status, all)
		}
		if key := u.seen()[0].header.Get(apiKeyHeader); key != secret {
			t.Errorf("%d: the upstream got %q", status, key)
		}
	}
}

// An upstream may answer in events that nobody has asked for: the first says nothing of
// the last.
func TestEventsNobodyAskedFor(t *testing.T) {
	stream := "data: " + `{"candidates":[{"content":{"parts":[{"text":"Here is"}]}}]}` + "\r\n\r\ndata: " + strings.ReplaceAll(okImage, "\n", "") + "\r\n\r\n"
	u := scripted(t, answerWith(200, "text/event-stream", stream))
	status, body := imagesThrough(t, upstreamAt(t, u.URL, http.DefaultTransport), 1)
	if status != 200 || !strings.Contains(body, `"b64_json":"aGVsbG8="`) {
		t.Errorf("%d %s", status, body)
	}
}

// So may one that speaks OpenAI's form where Google's is expected, for each of several
// images.
func TestPartsInTheClientsForm(t *testing.T) {
	u := scripted(t, answerWith(200, "application/json", `{"created":1,"data":[{"b64_json":"iVBORw0KGgoAAAAN"}]}`))
	for n := 1; n < 3; n++ {
		got := send(t, u.URL, "/v1beta/openai/images/generations", fmt.Sprintf(`{"model":"gemini-2.5-flash-image","prompt":"a cat","n":%d}`, n))
		if images := strings.Count(got.body, "iVBORw0KGgoAAAAN"); got.status != 200 || images != n {
			t.Errorf("%d of %d images: %d %s", images, n, got.status, got.body)
		}
	}
}
