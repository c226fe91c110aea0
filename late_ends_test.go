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
		"behind the reason":           {formatGemini, imagePath, jsonContentType, `{"candidates":[{"content":{},"finishReason":"PROHIBITED_CONTENT"`, classForbidden, 400},
		"inside what is said":         {formatGemini, imagePath, jsonContentType, `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY","finishMessage":"Unable to`, classBlocked, 400},
		"behind the candidate":        {formatGemini, imagePath, jsonContentType, `{"candidates":[{"content":{},"finishReason":"PROHIBITED_CONTENT"}`, classForbidden, 400},
		"behind an image":             {formatGemini, imagePath, jsonContentType, `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},"finishReason":"STOP","index":0},{"content":{},"finishReason":"PROHIBITED_CONTENT","index":1}],"usageMetadata":{`, classForbidden, 200},
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

// An error in OpenAI's form means the same behind the beginning of an answer as alone.
func TestLateErrorsInOpenAIForm(t *testing.T) {
	for fault, want := range map[string]verdict{
		`{"code":"moderation_blocked","moderation_details":{"moderation_stage":"output","categories":["sexual/minors"]}}`: {class: classForbidden, reason: reasonImageSafety},
		`{"code":"moderation_blocked","moderation_details":{"moderation_stage":"output","categories":["violence"]}}`:      {class: classBlocked, reason: reasonImageSafety},
		`{"code":403,"message":"m","metadata":{"flagged_input":"a","reasons":["sexual/minors"]}}`:                         {class: classForbidden, reason: "SAFETY"},
		`{"code":403,"message":"m","metadata":{"flagged_input":"a"}}`:                                                     {class: classBlocked, reason: "SAFETY"},
		`{"code":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}`:                                               {class: classBlocked, reason: "SAFETY"},
		`{"code":"rate_limit_exceeded","message":"Limit reached on requests per day (RPD)"}`:                              {class: classExhausted, reason: "RATE_LIMIT_EXCEEDED"},
	} {
		alone := parseGoogleError(http.StatusBadRequest, []byte(`{"error":`+fault+`}`)).verdict()
		p := play(strings.NewReader(events(choice, `{"error":`+fault+`}`)), formOpenAI, textCall, noLimit)
		if p.verdict.class != classOK {
			t.Fatalf("%s: %+v before the commit", fault, p.verdict)
		}
		p.body(t)
		if len(p.late) != 1 || p.late[0].class != want.class || p.late[0].reason != want.reason {
			t.Errorf("%s: %+v, want %+v", fault, p.late, want)
		}
		if alone.class.isBlock() && alone.class != want.class {
			t.Errorf("%s: alone %+v, want %+v", fault, alone, want)
		}
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
			w.Header().Set("Content-Type", jsonContentType)
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

// A soft block says nothing of what stands behind it: a hard one is final, however it has
// come and whatever may be tried again.
func TestHardBlockBehindASoftOne(t *testing.T) {
	ends := func(reason string) string { return `{"candidates":[{"finishReason":"` + reason + `","index":0}]}` }
	second := `{"candidates":[{"finishReason":"IMAGE_PROHIBITED_CONTENT","index":1}]}`
	child := `{"candidates":[{"finishReason":"IMAGE_OTHER","finishMessage":"Support codes: 39322892 and 58061214","index":0}]}`
	prompted := `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}`
	list := strings.Replace(streamPath, "?alt=sse", "", 1)
	for name, c := range map[string]struct {
		path   string
		answer []string
		reason string
		class  class
	}{
		"hard":                 {streamPath, []string{ends("IMAGE_OTHER"), ends("PROHIBITED_CONTENT")}, "PROHIBITED_CONTENT", classForbidden},
		"hard, in a list":      {list, []string{ends("IMAGE_OTHER"), ends("SPII")}, "SPII", classForbidden},
		"of the prompt":        {streamPath, []string{ends("IMAGE_OTHER"), prompted}, "PROHIBITED_CONTENT", classForbidden},
		"of another candidate": {streamPath, []string{ends("SAFETY"), second}, "IMAGE_PROHIBITED_CONTENT", classForbidden},
		"a child":              {streamPath, []string{ends("IMAGE_OTHER"), child}, "IMAGE_OTHER", classForbidden},
		"soft, but guarded":    {streamPath, []string{ends("NO_IMAGE"), ends("IMAGE_SAFETY")}, "IMAGE_SAFETY", classBlocked},
	} {
		for _, way := range []struct {
			pause  time.Duration
			status int
		}{{0, 400}, {10 * time.Millisecond, 400}, {0, 0}} {
			t.Run(fmt.Sprint(name, way), func(t *testing.T) {
				u := scripted(t, inPieces(c.path, c.answer, way.pause))
				got := send(t, u.URL, c.path, prompt, guardedRetries(formatGemini), func(r *router, _ *exchange) {
					r.blockStatus = way.status
					r.rephrasing = &rephrasing{prefixes: []string{"Art: "}}
				})
				want := 1
				if c.class == classBlocked {
					want = 2 // the rephrased one
				}
				if v := got.x.verdict; len(u.seen()) != want || v.class != c.class || v.reason != c.reason {
					t.Errorf("sent %d times, %d, %+v", len(u.seen()), got.status, v)
				}
			})
		}
	}
}

// inPieces answers with objects, the last in a write of its own if there is time before
// it.
func inPieces(path string, objects []string, pause time.Duration) http.HandlerFunc {
	kind, body := "text/event-stream", events(objects...)
	if path != streamPath {
		kind, body = jsonContentType, array(objects...)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		head, rest, _ := strings.Cut(body, objects[len(objects)-1])
		if pause == 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			head, rest = body, ""
		} else {
			rest = objects[len(objects)-1] + rest
		}
		_, _ = io.WriteString(w, head)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(pause)
		_, _ = io.WriteString(w, rest)
	}
}

// HTTP can end well where its JSON does not: without a length, or with a wrong one. Half
// an image is never a whole answer.
func TestCutAnswersBreakOff(t *testing.T) {
	list := strings.Replace(streamPath, "?alt=sse", "", 1)
	for name, c := range map[string]struct{ path, kind, answer string }{
		"image":   {imagePath, jsonContentType, okImage[:110]},
		"stream":  {streamPath, "text/event-stream", events(okImage)[:110]},
		"list":    {list, jsonContentType, array(okImage)[:110]},
		"chat":    {"/v1beta/openai/chat/completions", jsonContentType, `{"choices":[{"message":{"images":[{"image_url":{"url":"data:image/png;base64,aGVs`},
		"in time": {streamPath, "text/event-stream", events(okImage) + events(okImage)[:110]},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				_, _ = io.WriteString(w, c.answer)
				_ = http.NewResponseController(w).Flush() // no length, then
			})
			body := prompt
			if name == "chat" {
				body = `{"model":"gemini-3-pro-image","messages":[{"role":"user","content":"a cat"}],"modalities":["image"]}`
			}
			got := send(t, u.URL, c.path, body, guardedRetries(formatGemini))
			if got.status != 200 || got.body != c.answer || got.err == nil || got.header.Get("Content-Length") != "" {
				t.Errorf("%d, error %v, %v: %s", got.status, got.err, got.header, got.body)
			}
			if n := len(u.seen()); n != 1 {
				t.Errorf("sent %d times", n)
			}
		})
	}
}
