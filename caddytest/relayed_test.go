// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// verdictHeader tells a client what the gateway thinks of an answer.
const verdictHeader = "header >X-Verdict {http.gemini.verdict}\n"

// tinyPNG is an image in base64 that begins like one.
const tinyPNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"

// chatAnswer is an answer of chat/completions with one choice; message and more are
// members.
func chatAnswer(message, finish string, more ...string) string {
	members := strings.Join(append([]string{`"index":0`, `"message":{"role":"assistant",` + message + `}`, `"finish_reason":` + finish}, more...), ",")
	return `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{` + members + `}]}`
}

// chatChunk is the same of a stream.
func chatChunk(delta, finish string, more ...string) string {
	return strings.Replace(chatAnswer(delta, finish, more...), `"message"`, `"delta"`, 1)
}

const chatPicture = `"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + tinyPNG + `"}}]`

// openAIFault is an error in OpenAI's form; code is JSON.
func openAIFault(code, kind, message string, more ...string) string {
	members := append([]string{`"code":` + code, `"type":"` + kind + `"`, `"message":"` + message + `"`, `"param":null`}, more...)
	return `{"error":{` + strings.Join(members, ",") + `}}`
}

// relayedVerdicts are what an upstream that speaks OpenAI's API may say instead of an
// image, and what it means, be it translated for the client or not.
var relayedVerdicts = []struct {
	name    string
	images  bool // by images/generations, else by chat/completions
	status  int
	answer  string
	class   string
	reason  string // for a native client
	asItIs  string // the same for one of OpenAI's; "-" if it does not differ
	becomes int    // the client's status
}{
	{"filtered", false, 200, chatAnswer(`"content":null`, `"content_filter"`), "blocked", "SAFETY", "CONTENT_FILTER", 400},
	{"filtered behind words", false, 200, chatAnswer(`"content":"Here is"`, `"content_filter"`), "blocked", "SAFETY", "CONTENT_FILTER", 400},
	{"filtered, Google's cause", false, 200, chatAnswer(`"content":null`, `"content_filter"`, `"native_finish_reason":"PROHIBITED_CONTENT"`), "forbidden", "PROHIBITED_CONTENT", "-", 400},
	{"stopped, Google's cause", false, 200, chatAnswer(`"content":""`, `"stop"`, `"native_finish_reason":"IMAGE_SAFETY"`), "blocked", "IMAGE_SAFETY", "-", 400},
	{"Google's cause alone", false, 200, chatAnswer(`"content":""`, `null`, `"native_finish_reason":"IMAGE_SAFETY"`), "blocked", "IMAGE_SAFETY", "-", 400},
	{"refusal", false, 200, chatAnswer(`"content":null,"refusal":"I cannot draw that."`, `"stop"`), "blocked", "NO_IMAGE", "-", 400},
	{"words", false, 200, chatAnswer(`"content":"I cannot draw that."`, `"stop"`), "blocked", "NO_IMAGE", "-", 400},
	{"error of the choice", false, 200, chatAnswer(`"content":""`, `"error"`, `"error":{"code":502,"message":"Provider returned error"}`), "transient", "", "-", 502},
	{"block of the choice", false, 200, chatAnswer(`"content":""`, `"error"`, `"error":{"code":"content_filter","message":"no"}`), "blocked", "SAFETY", "-", 400},

	{"image", false, 200, chatAnswer(`"content":"",`+chatPicture, `"stop"`), "ok", "", "-", 200},
	{"image in Markdown", false, 200, chatAnswer(`"content":"Here: ![it](data:image/png;base64,`+tinyPNG+`)"`, `"stop"`), "ok", "", "-", 200},
	{"image as a part", false, 200, chatAnswer(`"content":[{"type":"image_url","image_url":"data:image/png;base64,`+tinyPNG+`"}]`, `"stop"`), "ok", "", "-", 200},

	{"no image", true, 200, `{"created":1,"data":[]}`, "blocked", "NO_IMAGE", "-", 400},
	{"an image of nothing", true, 200, `{"created":1,"data":[{"b64_json":null,"url":null,"revised_prompt":"x"}]}`, "blocked", "NO_IMAGE", "-", 400},
	{"address", true, 200, `{"created":1,"data":[{"url":"https://example.com/a.png"}]}`, "ok", "", "-", 200},
	{"data URL", true, 200, `{"created":1,"data":[{"url":"data:image/webp;base64,UklGRg=="}]}`, "ok", "", "-", 200},

	{"moderation in a 200", true, 200, openAIFault(`"moderation_blocked"`, "image_generation_user_error", "Rejected."), "blocked", "SAFETY", "-", 400},
	{"of the output in a 200", true, 200, openAIFault(`"moderation_blocked"`, "x", "Rejected.", `"moderation_details":{"moderation_stage":"output","categories":["sexual"]}`), "blocked", "IMAGE_SAFETY", "-", 400},
	{"a child in a 200", true, 200, openAIFault(`"moderation_blocked"`, "x", "Rejected.", `"moderation_details":{"moderation_stage":"input","categories":["sexual/minors"]}`), "forbidden", "PROHIBITED_CONTENT", "SAFETY", 400},
	{"Azure in a 200", false, 200, openAIFault(`"BadRequest"`, "", "Filtered.", `"innererror":{"code":"ResponsibleAIPolicyViolation"}`), "blocked", "SAFETY", "-", 400},
	{"a hard word in a 200", false, 200, openAIFault(`"spii"`, "", "no"), "forbidden", "SPII", "-", 400},
	{"flagged", false, 403, `{"error":{"code":403,"message":"Forbidden","metadata":{"reasons":["violence"],"flagged_input":"x","provider_name":"P","model_slug":"a/b"}}}`, "blocked", "SAFETY", "-", 400},
	{"flagged in a 200", false, 200, `{"error":{"code":403,"message":"Forbidden","metadata":{"reasons":["sexual/minors"],"flagged_input":"x"}}}`, "forbidden", "PROHIBITED_CONTENT", "SAFETY", 400},

	{"no money in a 200", true, 200, openAIFault(`"insufficient_quota"`, "insufficient_quota", "You exceeded it."), "account", "INSUFFICIENT_QUOTA", "-", 429},
	{"bad key in a 200", false, 200, openAIFault(`"invalid_api_key"`, "invalid_request_error", "Incorrect API key."), "account", "INVALID_API_KEY", "-", 401},
	{"limit in a 200", true, 200, openAIFault(`"rate_limit_exceeded"`, "requests", "Please try again in 12s."), "limited", "RATE_LIMIT_EXCEEDED", "-", 429},
	{"limit per day in a 200", true, 200, openAIFault(`"rate_limit_exceeded"`, "requests", "Limit on requests per day (RPD)."), "exhausted", "RATE_LIMIT_EXCEEDED", "-", 429},
	{"failure in a 200", false, 200, openAIFault(`"server_error"`, "server_error", "It happens."), "transient", "SERVER_ERROR", "-", 500},
	{"only a number in a 200", false, 200, `{"error":{"code":502,"message":"Provider returned error"},"choices":[]}`, "transient", "", "-", 502},

	{"nothing", false, 200, ``, "transient", "EMPTY_RESPONSE", "-", 503},
	{"null", true, 200, `null`, "transient", "EMPTY_RESPONSE", "-", 503},
	{"a page", false, 200, `<!DOCTYPE html><title>Welcome</title>`, "transient", "EMPTY_RESPONSE", "-", 503},
	{"half", false, 200, `{"choices":[{"message":{"content":"Her`, "transient", "UPSTREAM_UNAVAILABLE", "-", 503},
}

// atOpenAI runs a gateway in front of an upstream that speaks OpenAI's API.
func atOpenAI(t *testing.T, u *upstream, images bool, options ...string) *gateway {
	t.Helper()
	format := "format openai chat"
	if images {
		format = "format openai"
	}
	return run(t, verdictHeader+gemini(place("backup", u, format), options...))
}

// alone asks for an image and for nothing else.
const alone = `"generationConfig":{"responseModalities":["IMAGE"]}`

// An answer means the same, whether it is translated or not.
func TestVerdictsOfOpenAI(t *testing.T) {
	for _, c := range relayedVerdicts {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(c.status, jsonType, c.answer))
			g := atOpenAI(t, u, c.images)
			check := func(client, path, body, reason string) {
				t.Helper()
				s := g.post(t, path, body)
				if verdict := s.Header.Get("X-Verdict"); s.StatusCode != c.becomes || verdict != c.class {
					t.Errorf("%s: status %d, verdict %s, want %d, %s: %s", client, s.StatusCode, verdict, c.becomes, c.class, shortened(string(s.body)))
				}
				if via := s.Header.Get("Proxy-Status"); reason != "" && !strings.Contains(via, `details="`+reason+`"`) {
					t.Errorf("%s: Proxy-Status %q, want %s", client, via, reason)
				}
			}
			check("native", unaryPath, completed(promptJSON, alone), c.reason)
			asItIs := c.asItIs
			if asItIs == "-" {
				asItIs = c.reason
			}
			if c.images {
				check("OpenAI", imagesPath, drawJSON(), asItIs)
				return
			}
			check("OpenAI", chatPath, completed(chatJSON(imageModel), `"modalities":["image"]`), asItIs)
			check("OpenAI, by chat", imagesPath, drawJSON(), c.reason) // there and back
		})
	}
}

// The same for what Google may say to clients of OpenAI's.
func TestVerdictsOfGoogle(t *testing.T) {
	said := `{"text":"I cannot draw that."}`
	for _, c := range []struct {
		name, answer string
		class        string // of a call for images
		status       int
		says         string
		chat         int    // the status of a chat
		chatSays     string // by then
	}{
		{"image", candidate(imagePart, `"STOP"`), "ok", 200, `"b64_json":"`, 200, `"finish_reason":"stop"`},
		{"words and an image", candidate(said+","+imagePart, `"STOP"`), "ok", 200, `"b64_json":"`, 200, `"content":"I cannot draw that."},"finish_reason":"stop"`},
		{"an image and words", candidate(imagePart+","+said, `"STOP"`), "ok", 200, `"b64_json":"`, 200, `"content":"I cannot draw that."},"finish_reason":"stop"`},
		{"too long", candidate(imagePart, `"MAX_TOKENS"`), "ok", 200, `"b64_json":"`, 200, `"finish_reason":"length"`},
		{"too long for parts", `{"candidates":[{"content":{},"finishReason":"MAX_TOKENS"}]}`, "blocked", 400, "NO_IMAGE: ", 200, `"content":null},"finish_reason":"length"`},
		{"words", candidate(said, `"STOP"`), "blocked", 400, "(Gemini said: I cannot draw that.)", 200, `"content":"I cannot draw that."},"finish_reason":"stop"`},
		{"no image", candidate(said, `"NO_IMAGE"`), "blocked", 400, "NO_IMAGE: ", 400, "NO_IMAGE: "},
		{"drafts and no image", candidate(`{"thought":true,`+imagePart[1:], `"NO_IMAGE"`), "blocked", 400, "NO_IMAGE: ", 400, "NO_IMAGE: "},
		{"prompt", promptBlockedJSON, "forbidden", 400, "PROHIBITED_CONTENT: ", 400, "PROHIBITED_CONTENT: "},
		{"hard word for a prompt", strings.Replace(promptBlockedJSON, "PROHIBITED_CONTENT", "SPII", 1), "forbidden", 400, "SPII: ", 400, "SPII: "},
		{"error in a 200", googleErrorJSON, "transient", 503, `"code":"unavailable"`, 503, "The model is overloaded."},
		{"nothing", "", "transient", 503, "EMPTY_RESPONSE: ", 503, "EMPTY_RESPONSE: "},
		{"null", "null", "transient", 503, "EMPTY_RESPONSE: ", 503, "EMPTY_RESPONSE: "},
		{"a page", "<html>", "transient", 503, "EMPTY_RESPONSE: ", 503, "EMPTY_RESPONSE: "},
		{"half", imageJSON[:20], "transient", 503, "UPSTREAM_UNAVAILABLE: ", 503, "UPSTREAM_UNAVAILABLE: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(200, jsonType, c.answer))
			g := run(t, verdictHeader+gemini(place("google", u, "format gemini")))
			s := g.post(t, imagesPath, drawJSON())
			if verdict := s.Header.Get("X-Verdict"); s.err != nil || s.StatusCode != c.status || verdict != c.class || !strings.Contains(string(s.body), c.says) {
				t.Errorf("status %d, verdict %s, %v: %s, want %d, %s, %s", s.StatusCode, verdict, s.err, shortened(string(s.body)), c.status, c.class, c.says)
			}
			s = g.post(t, chatPath, chatJSON(imageModel))
			if s.err != nil || s.StatusCode != c.chat || !strings.Contains(string(s.body), c.chatSays) {
				t.Errorf("status %d, %v: %s, want %d, %s", s.StatusCode, s.err, shortened(string(s.body)), c.chat, c.chatSays)
			}
		})
	}
}

// Upstreams may compress without having been asked, which some transports leave as it is.
func TestCompressedAnswersAreRelayed(t *testing.T) {
	for _, transport := range []string{"", "transport http {\n\tcompression off\n}"} {
		u := scripted(t, compressed(imageJSON))
		g := run(t, gemini(place("google", u, "format gemini", transport)))
		if images := imagesOf(t, g.post(t, imagesPath, drawJSON())); len(images) != 1 {
			t.Errorf("%d images, want one", len(images))
		}
		u.play(compressed(openAIImageJSON))
		g = run(t, gemini(place("backup", u, "format openai", transport)))
		s := g.post(t, unaryPath, promptJSON)
		if body := string(s.body); s.StatusCode != 200 || s.Header.Get("Content-Encoding") != "" || !strings.Contains(body, `"finishReason":"STOP"`) {
			t.Errorf("status %d: %s", s.StatusCode, shortened(body))
		}
	}
}

// The blocks of other companies' filters are not explained as Google's.
func TestForeignBlocksAreExplained(t *testing.T) {
	u := scripted(t, answers(200, jsonType, chatAnswer(`"content":null`, `"content_filter"`)))
	e := atOpenAI(t, u, false).post(t, unaryPath, promptJSON).fails(t, 400, "SAFETY")
	if strings.Contains(e.Message, "Google") || e.metadata("configurable") != "false" || e.metadata("stage") != "output" {
		t.Errorf("error %+v", e)
	}
}

// Errors that an upstream puts into a 200 reach the client in its own form, with all
// that it has said.
func TestErrorsInsideAnswers(t *testing.T) {
	limit := openAIFault(`"rate_limit_exceeded"`, "requests", "Please try again in 12s.")
	u := scripted(t, answers(200, jsonType, limit))
	g := atOpenAI(t, u, true)
	s := g.post(t, unaryPath, promptJSON)
	e := parseError(t, s.body)
	if s.StatusCode != 429 || e.Code != 429 || e.Status != "RESOURCE_EXHAUSTED" || len(e.Details) == 0 || e.Details[0]["reason"] != "RATE_LIMIT_EXCEEDED" {
		t.Errorf("status %d, error %+v", s.StatusCode, e)
	}
	if after := s.Header.Get("Retry-After"); after != "12" {
		t.Errorf("Retry-After %q, want 12", after)
	}
	for name, body := range map[string]string{"as it is": drawJSON(), "as two calls": drawJSON(`"n":2`)} {
		t.Run(name, func(t *testing.T) {
			s := run(t, gemini(place("backup", u, "format openai")+place("google", u, "format gemini"), "retry off")).post(t, imagesPath, body)
			s.failsAsOpenAI(t, 429, "rate_limit_exceeded", "try again in 12s")
		})
	}
}

// A limit that an upstream tells of in a header is told where the client looks.
func TestDelaysAreTranslated(t *testing.T) {
	for _, c := range []struct{ field, value, header, body string }{
		{"Retry-After", "20", "20", "20s"},
		{"Retry-After-Ms", "1500", "2", "1.5s"},
		{"X-Ratelimit-Reset-Requests", "1m30s", "90", "90s"},
	} {
		t.Run(c.field, func(t *testing.T) {
			u := scripted(t, with(c.field, c.value, answers(429, jsonType, openAIFault(`"rate_limit_exceeded"`, "requests", "Too many."))))
			s := atOpenAI(t, u, true).post(t, unaryPath, promptJSON)
			if after := s.Header.Get("Retry-After"); s.StatusCode != 429 || after != c.header {
				t.Errorf("status %d, Retry-After %q, want %s", s.StatusCode, after, c.header)
			}
			if want := `"retryDelay":"` + c.body + `"`; !strings.Contains(string(s.body), want) {
				t.Errorf("error %s, want %s", s.body, want)
			}
		})
	}
	u := scripted(t, answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Please retry in 34.2s.")))
	s := inFront(t, u).post(t, imagesPath, drawJSON())
	s.failsAsOpenAI(t, 429, "rate_limit_exceeded", "34.2s")
	if after := s.Header.Get("Retry-After"); after != "35" {
		t.Errorf("Retry-After %q, want 35", after)
	}
}

// What the upstream's headers say of its own answer, and of its own API, is not true
// of what the client gets.
func TestHeadersOfTranslatedAnswers(t *testing.T) {
	theirs := map[string]string{
		"Content-Disposition": "attachment", "Etag": `"1"`, "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT", "Content-Md5": "x", "Digest": "x",
		"Content-Digest": "x", "Repr-Digest": "x", "Accept-Ranges": "bytes", "Openai-Organization": "org-secret", "Openai-Processing-Ms": "7",
		"X-Ratelimit-Remaining-Requests": "9", "X-Gemini-Service-Tier": "standard",
	}
	plays := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for field, value := range theirs {
				w.Header().Set(field, value)
			}
			w.Header().Set("X-Request-Id", "r1")
			answers(status, jsonType, body)(w, r)
		}
	}
	toOpenAI, toGoogle := scripted(t, nil), scripted(t, nil)
	native := atOpenAI(t, toOpenAI, true)
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"answer": {200, openAIImageJSON}, "error": {404, openAIFault(`"model_not_found"`, "", "no")}, "error in a 200": {200, openAIFault(`"model_not_found"`, "", "no")},
	} {
		toOpenAI.play(plays(c.status, c.body))
		checkHeaders(t, name, native.post(t, unaryPath, promptJSON), theirs)
	}
	openAI := inFront(t, toGoogle)
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"OpenAI's answer": {200, imageJSON}, "OpenAI's error": {404, googleError("NOT_FOUND", "no")},
	} {
		toGoogle.play(plays(c.status, c.body))
		checkHeaders(t, name, openAI.post(t, imagesPath, drawJSON()), theirs)
	}
}

func checkHeaders(t *testing.T, name string, s *reply, theirs map[string]string) {
	t.Helper()
	for field := range theirs {
		if value := s.Header.Get(field); value != "" {
			t.Errorf("%s: the client received %s: %s", name, field, value)
		}
	}
	if s.Header.Get("X-Request-Id") != "r1" || s.Header.Get("Content-Type") != jsonType {
		t.Errorf("%s: headers %v", name, s.Header)
	}
	if length := s.Header.Get("Content-Length"); length != "" && length != fmt.Sprint(len(s.body)) {
		t.Errorf("%s: Content-Length %s of %d bytes", name, length, len(s.body))
	}
}

// What was used is told in the words of either form.
func TestUsageIsTranslated(t *testing.T) {
	const used = `"usageMetadata":{"promptTokenCount":300,"cachedContentTokenCount":40,"candidatesTokenCount":1295,"thoughtsTokenCount":100,"totalTokenCount":1695,` +
		`"promptTokensDetails":[{"modality":"TEXT","tokenCount":42},{"modality":"IMAGE","tokenCount":258}],"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1290}]}`
	answer := `{"candidates":[{"content":{"parts":[` + imagePart + `]},"finishReason":"STOP"}],` + used + `}`
	g := inFront(t, scripted(t, answers(200, jsonType, answer)))
	for path, c := range map[string]struct{ body, want string }{
		imagesPath: {drawJSON(), `{"input_tokens":300,"input_tokens_details":{"text_tokens":42,"image_tokens":258},"output_tokens":1395,"output_tokens_details":{"text_tokens":105,"image_tokens":1290},"total_tokens":1695}`},
		chatPath:   {chatJSON(imageModel), `{"prompt_tokens":300,"prompt_tokens_details":{"cached_tokens":40,"image_tokens":258},"completion_tokens":1395,"completion_tokens_details":{"reasoning_tokens":100,"image_tokens":1290},"total_tokens":1695}`},
	} {
		s := g.post(t, path, c.body)
		sameJSON(t, path, member(t, s.body, "usage"), c.want)
	}

	const chatUsed = `"usage":{"prompt_tokens":300,"prompt_tokens_details":{"cached_tokens":40,"text_tokens":42,"image_tokens":258},"completion_tokens":1395,"completion_tokens_details":{"reasoning_tokens":100,"image_tokens":1290},"total_tokens":1695}`
	const imagesUsed = `"usage":{"input_tokens":300,"input_tokens_details":{"text_tokens":42,"image_tokens":258},"output_tokens":1395,"total_tokens":1695}`
	for name, c := range map[string]struct {
		images bool
		answer string
		want   string
	}{
		"chat": {false, completed(chatAnswer(`"content":"",`+chatPicture, `"stop"`), chatUsed), `{` + used + `}`},
		"images": {true, completed(`{"created":1,"data":[{"b64_json":"`+tinyPNG+`"}]}`, imagesUsed), `{"usageMetadata":{"promptTokenCount":300,"candidatesTokenCount":1395,"totalTokenCount":1695,` +
			`"promptTokensDetails":[{"modality":"TEXT","tokenCount":42},{"modality":"IMAGE","tokenCount":258}]}}`},
	} {
		s := atOpenAI(t, scripted(t, answers(200, jsonType, c.answer)), c.images).post(t, unaryPath, promptJSON)
		sameJSON(t, name, member(t, s.body, "usageMetadata"), string(member(t, []byte(c.want), "usageMetadata")))
	}
}

func member(t *testing.T, body []byte, name string) json.RawMessage {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatalf("%v: %s", err, shortened(string(body)))
	}
	return members[name]
}

func sameJSON(t *testing.T, name string, got json.RawMessage, want string) {
	t.Helper()
	var a, b any
	if json.Unmarshal(got, &a) != nil || json.Unmarshal([]byte(want), &b) != nil {
		t.Fatalf("%s: no JSON: %s", name, got)
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%s: %s\nwant %s", name, got, want)
	}
}
