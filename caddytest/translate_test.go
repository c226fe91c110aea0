// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
)

const (
	imagesPath = "/v1/images/generations"
	editsPath  = "/v1/images/edits"
	chatPath   = "/v1/chat/completions"
)

// drawJSON is what OpenAI's client sends for an image.
func drawJSON(members ...string) string {
	return completed(`{"model":"`+imageModel+`"}`, append([]string{`"prompt":"` + prompt + `"`}, members...)...)
}

// imagesOf are the images of an answer in OpenAI's form.
func imagesOf(t *testing.T, s *reply) (images [][]byte) {
	t.Helper()
	var answer struct {
		Data []struct {
			B64 string `json:"b64_json"`
		} `json:"data"`
		Usage struct {
			Output int `json:"output_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal(s.body, &answer); err != nil || s.StatusCode != 200 {
		t.Fatalf("status %d, no answer with images (%v): %s", s.StatusCode, err, shortened(string(s.body)))
	}
	for _, d := range answer.Data {
		image, err := base64.StdEncoding.DecodeString(d.B64)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, image)
	}
	if want := 1290 * len(images); answer.Usage.Output < want { // blocked ones cost, too
		t.Errorf("%d tokens of output, want %d", answer.Usage.Output, want)
	}
	return images
}

// failsAsOpenAI checks an error in OpenAI's form.
func (s *reply) failsAsOpenAI(t *testing.T, status int, code, says string) {
	t.Helper()
	var answer struct {
		Error struct{ Message, Type, Code, Param string }
	}
	if err := json.Unmarshal(s.body, &answer); err != nil {
		t.Fatalf("no error of OpenAI's: %s", shortened(string(s.body)))
	}
	if s.StatusCode != status || answer.Error.Code != code || !strings.Contains(answer.Error.Message, says) {
		t.Errorf("status %d, error %+v, want %d with the code %s and %q", s.StatusCode, answer.Error, status, code, says)
	}
}

// An OpenAI client's call for an image arrives as generateContent, with what the
// gateway adds to any, and its answer comes back in OpenAI's form.
func TestOpenAIImageIsDrawnByGemini(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u)
	for _, path := range []string{imagesPath, "/v1beta/openai/images/generations"} {
		u.play(drawn)
		s := g.post(t, path, drawJSON(`"size":"1536x1024"`, `"user":"u1"`), "Authorization", "Bearer "+clientKey)
		if images := imagesOf(t, s); len(images) != 1 || !bytes.Equal(images[0], picture) {
			t.Errorf("%d images, want the picture", len(images))
		}
		if via := s.Header.Get("Proxy-Status"); !strings.Contains(via, `details="dropped user"`) {
			t.Errorf("Proxy-Status %q does not tell what was dropped", via)
		}
		r := u.only(t)
		if r.URI != unaryPath || r.Header.Get("X-Goog-Api-Key") != upstreamKey || r.Header.Get("Authorization") != "" {
			t.Errorf("the upstream received %s with %v", r.URI, r.Header)
		}
		body, _ := json.Marshal(r.json(t))
		for _, part := range []string{
			`"text":"` + prompt, `"aspectRatio":"3:2"`, `"imageSize":"1K"`, `"responseModalities":["IMAGE"]`, `"threshold":"BLOCK_NONE"`,
		} {
			if !strings.Contains(string(body), part) {
				t.Errorf("the upstream received %s without %s", body, part)
			}
		}
	}
}

// Several images are as many calls; the client gets those that there are.
func TestSeveralImages(t *testing.T) {
	for name, c := range map[string]struct {
		plays  http.HandlerFunc
		images int
	}{
		"all":         {drawn, 3},
		"one blocked": {inTurn(answers(200, jsonType, blockedJSON), drawn), 2},
		"one failed":  {inTurn(overloaded, drawn), 2},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, c.plays)
			s := inFront(t, u).post(t, imagesPath, drawJSON(`"n":3`))
			if images := imagesOf(t, s); len(images) != c.images {
				t.Errorf("%d images, want %d", len(images), c.images)
			}
			if n := len(u.received()); n != 3 {
				t.Errorf("the upstream received %d requests, want one for each image", n)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		u := scripted(t, answers(200, jsonType, blockedJSON))
		s := inFront(t, u).post(t, imagesPath, drawJSON(`"n":3`))
		s.failsAsOpenAI(t, 400, "content_policy_violation", "IMAGE_SAFETY")
	})
	t.Run("beyond the limits", func(t *testing.T) {
		u := scripted(t, drawn)
		g := inFront(t, u, "rate_limit * {\n\tipm 2\n}")
		if images := imagesOf(t, g.post(t, imagesPath, drawJSON(`"n":3`))); len(images) != 2 {
			t.Errorf("%d images, want the two that the limit allows", len(images))
		}
		g.post(t, imagesPath, drawJSON(`"n":2`)).failsAsOpenAI(t, 429, "rate_limit_exceeded", "Try again in")
		if n := len(u.received()); n != 2 {
			t.Errorf("the upstream received %d requests, want two", n)
		}
	})
}

// What cannot be translated is refused by its name, and sent nowhere.
func TestForeignFields(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u)
	for member, c := range map[string]struct{ param, code string }{
		`"frobnicate":1`:             {"frobnicate", "unknown_parameter"},
		`"background":"transparent"`: {"background", "unsupported_value"},
		`"n":11`:                     {"n", "invalid_value"},
		`"size":"huge"`:              {"size", "invalid_value"},
		`"extra_body":{"google":{"frobnicate":1}}`: {"extra_body.google.frobnicate", "unknown_parameter"},
	} {
		s := g.post(t, imagesPath, drawJSON(member))
		s.failsAsOpenAI(t, 400, c.code, c.param)
		if !strings.Contains(string(s.body), `"param":"`+c.param+`"`) {
			t.Errorf("%s: %s does not name %s", member, s.body, c.param)
		}
	}
	g.post(t, imagesPath, `{"model":`).failsAsOpenAI(t, 400, "malformed_request", "at byte 9")
	u.untouched(t)
}

// Without a model there is nothing to ask for, unless the upstream has one for all, or
// takes the call as it is.
func TestMissingModel(t *testing.T) {
	const asked = `{"prompt":"` + prompt + `"}`
	kind, form := formOf(t, map[string]string{"prompt": prompt}, []byte("\x89PNG\r\n\x1a\n"))
	for _, c := range []struct{ to, path, body, kind, want string }{ // want: where it goes
		{"format gemini", imagesPath, asked, jsonType, ""},
		{"format gemini", imagesPath, `{"model":"",` + asked[1:], jsonType, ""},
		{"format gemini", imagesPath, `{"n":2,` + asked[1:], jsonType, ""},
		{"format gemini", editsPath, form, kind, ""},
		{"format gemini", chatPath, completed(`{"modalities":["image","text"]}`, `"messages":[{"role":"user","content":"`+prompt+`"}]`), jsonType, ""},
		{"format vertex", imagesPath, asked, jsonType, ""},
		{"format openai chat", imagesPath, asked, jsonType, ""},
		{"format gemini\n\tmodel * " + imageModel, imagesPath, asked, jsonType, unaryPath},
		{"format openai", imagesPath, asked, jsonType, imagesPath},
		{"format openai", editsPath, form, kind, editsPath},
	} {
		t.Run(c.to+c.path, func(t *testing.T) {
			u := scripted(t, inEveryForm(drawing))
			g := run(t, gemini(place("only", u, c.to, "api_key {env.CADDYTEST_KEY}")))
			s := g.post(t, c.path, c.body, "Content-Type", c.kind)
			if c.want != "" {
				if r := u.only(t); s.StatusCode != 200 || r.URI != c.want {
					t.Errorf("status %d, the upstream received %s", s.StatusCode, r.URI)
				}
				return
			}
			s.failsAsOpenAI(t, 400, "missing_required_parameter", "Missing required parameter: 'model'.")
			if !strings.Contains(string(s.body), `"param":"model"`) {
				t.Errorf("%s does not name the model", s.body)
			}
			u.untouched(t)
		})
	}
}

// formOf is what OpenAI's client sends for an image to be edited.
func formOf(t *testing.T, fields map[string]string, images ...[]byte) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, image := range images {
		part, err := w.CreateFormFile("image[]", "a.png")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write(image)
	}
	for name, value := range fields {
		_ = w.WriteField(name, value)
	}
	_ = w.Close()
	return w.FormDataContentType(), b.String()
}

// A form's image goes out as base64, and is recognised when it was blocked.
func TestFormIsDrawnByGemini(t *testing.T) {
	png := append([]byte("\x89PNG\r\n\x1a\n"), picture...)
	u := scripted(t, drawn)
	g := inFront(t, u, "guard 1h")
	post := func(text string) *reply {
		kind, body := formOf(t, map[string]string{"model": imageModel, "prompt": text}, png, png)
		return g.post(t, editsPath, body, "Content-Type", kind)
	}
	if images := imagesOf(t, post(prompt)); len(images) != 1 {
		t.Errorf("%d images, want one", len(images))
	}
	if body := string(u.only(t).Body); strings.Count(body, base64.StdEncoding.EncodeToString(png)) != 2 || !strings.Contains(body, prompt) {
		t.Errorf("the upstream received %s", shortened(body))
	}
	u.play(answers(200, jsonType, blockedJSON))
	post("something else").failsAsOpenAI(t, 400, "content_policy_violation", "IMAGE_SAFETY")
	post("something else").failsAsOpenAI(t, 400, "content_policy_violation", "REPEATED_BLOCK")
	if n := len(u.received()); n != 1 {
		t.Errorf("the blocked form was sent %d times", n)
	}
}

// Chats that draw are translated, streams included; others go to Google's own
// endpoint for them.
func TestChatIsDrawnByGemini(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u)
	chat := `{"model":"nano-banana-pro","messages":[{"role":"user","content":"` + prompt + `"}]`
	s := g.post(t, chatPath, chat+"}")
	if !strings.Contains(string(s.body), `"url":"data:image/png;base64,`+base64.StdEncoding.EncodeToString(picture)) || !strings.Contains(string(s.body), `"finish_reason":"stop"`) {
		t.Errorf("answer %s", shortened(string(s.body)))
	}
	if r := u.only(t); r.URI != "/v1beta/models/gemini-3-pro-image:generateContent" {
		t.Errorf("the upstream received %s", r.URI)
	}
	u.play(events(textChunk, imageChunk, lastChunk))
	s = g.post(t, chatPath, chat+`,"stream":true}`)
	if body := string(s.body); !strings.HasSuffix(body, "data: [DONE]\n\n") || !strings.Contains(body, "Here is") || s.Header.Get("Content-Type") != eventType {
		t.Errorf("answer %s", shortened(body))
	}
	if r := u.only(t); r.URI != "/v1beta/models/gemini-3-pro-image:streamGenerateContent?alt=sse" {
		t.Errorf("the upstream received %s", r.URI)
	}
	u.play(events(textChunk, imageChunk, strings.Replace(blockedJSON, "IMAGE_SAFETY", "PROHIBITED_CONTENT", 1)))
	s = g.post(t, chatPath, chat+`,"stream":true}`)
	if body := string(s.body); strings.Contains(body, "[DONE]") || !strings.Contains(body, `data: {"error":{"message":"PROHIBITED_CONTENT`) {
		t.Errorf("answer %s", shortened(body))
	}
	u.play(answers(200, jsonType, `{"choices":[{"index":0,"message":{"role":"assistant","content":"Here"},"finish_reason":"stop"}]}`))
	text := `{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"hello"}],"tools":[{"type":"function"}]}`
	g.post(t, chatPath, text)
	if r := u.only(t); r.URI != "/v1beta/openai/chat/completions" || string(r.Body) != text || r.Header.Get("Authorization") != "Bearer "+upstreamKey {
		t.Errorf("the upstream received %s %s", r.URI, r.Body)
	}
}

// openAIImageJSON is the answer of an upstream that speaks OpenAI's API.
var openAIImageJSON = `{"created":1,"data":[{"b64_json":"` + base64.StdEncoding.EncodeToString(append([]byte("\x89PNG\r\n\x1a\n"), picture...)) + `"}],` +
	`"usage":{"input_tokens":16,"output_tokens":1290,"total_tokens":1306}}`

// A native call is served by an upstream that speaks OpenAI's API, in each of the
// native forms of an answer.
func TestNativeCallAtOpenAI(t *testing.T) {
	u := scripted(t, answers(200, jsonType, openAIImageJSON))
	g := run(t, gemini(place("backup", u, "format openai", "api_key {env.CADDYTEST_KEY}", "model * gpt-image-1")))
	for path, kind := range map[string]string{unaryPath: jsonType, streamPath: eventType, arrayPath: jsonType} {
		u.play(answers(200, jsonType, openAIImageJSON))
		s := g.post(t, path, `{"contents":[{"parts":[{"text":"`+prompt+`"}]}],"generationConfig":{"imageConfig":{"aspectRatio":"3:2"}}}`)
		if s.StatusCode != 200 || s.Header.Get("Content-Type") != kind || !strings.Contains(string(s.body), `"finishReason":"STOP"`) {
			t.Errorf("%s: status %d, %s", path, s.StatusCode, shortened(string(s.body)))
		}
		r := u.only(t)
		if body := r.json(t); r.URI != imagesPath || r.Header.Get("Authorization") != "Bearer "+upstreamKey || r.Header.Get("X-Goog-Api-Key") != "" ||
			body["model"] != "gpt-image-1" || body["prompt"] != prompt || body["size"] != "1536x1024" {
			t.Errorf("the upstream received %s %v %s", r.URI, r.Header, r.Body)
		}
	}
	for answer, c := range map[string]struct {
		status int
		reason string
	}{
		`{"created":1,"data":[]}`: {200, "NO_IMAGE"},
		`{"error":{"message":"Your request was rejected by the safety system.","type":"image_generation_user_error","param":null,"code":"moderation_blocked"}}`: {400, "SAFETY"},
		`{"error":{"message":"Your request was rejected.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}`:                      {400, "SAFETY"},
	} {
		u.play(answers(c.status, "application/json", answer))
		g.post(t, unaryPath, promptJSON).fails(t, 400, c.reason)
		u.only(t)
	}
}

// With an image in the prompt it becomes a form, in which the image is itself.
func TestNativeEditAtOpenAI(t *testing.T) {
	u := scripted(t, answers(200, jsonType, openAIImageJSON))
	g := run(t, gemini(place("backup", u, "format openai")))
	s := g.post(t, unaryPath, `{"contents":[{"parts":[{"text":"`+prompt+`"},`+imagePart+`]}]}`)
	if s.StatusCode != 200 {
		t.Fatalf("status %d: %s", s.StatusCode, s.body)
	}
	r := u.only(t)
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	read, err := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"]).ReadForm(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer read.RemoveAll()
	if r.URI != editsPath || r.Header.Get("Authorization") != "Bearer "+clientKey || read.Value["prompt"][0] != prompt || len(read.File["image"]) != 1 ||
		read.File["image"][0].Size != int64(len(picture)) {
		t.Errorf("the upstream received %s %v %v", r.URI, r.Header, read)
	}
}

// A call goes on to an upstream of another form, but only if it means the same
// there.
func TestRerouteToAnotherForm(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, answers(200, jsonType, openAIImageJSON))
	g := inFrontOf(t, []string{place("google", first, "format gemini"), place("backup", second, "format openai")})
	if s := g.post(t, unaryPath, promptJSON); s.StatusCode != 200 || !strings.Contains(string(s.body), "inlineData") {
		t.Errorf("status %d: %s", s.StatusCode, shortened(string(s.body)))
	}
	went(t, "first second", first, second)
	for name, body := range map[string]string{
		"tools":             completed(promptJSON, `"tools":[{"googleSearch":{}}]`),
		"cachedContent":     completed(promptJSON, `"cachedContent":"cachedContents/1"`),
		"thought signature": `{"contents":[{"role":"model","parts":[{"text":"a","thoughtSignature":"c2ln"}]},{"parts":[{"text":"b"}]}]}`,
		"conversation":      `{"contents":[{"role":"model","parts":[{"text":"a"}]},{"parts":[{"text":"b"}]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			first.play(overloaded)
			second.play(answers(200, jsonType, openAIImageJSON))
			if s := g.post(t, unaryPath, body); s.StatusCode != 503 {
				t.Errorf("status %d, want Google's own error: %s", s.StatusCode, shortened(string(s.body)))
			}
			second.untouched(t)
		})
	}
	first.play(overloaded)
	second.play(answers(200, jsonType, openAIImageJSON))
	g.post(t, imagesPath, drawJSON(`"frobnicate":true`))
	first.untouched(t)
	if r := second.only(t); r.URI != imagesPath || string(r.Body) != drawJSON(`"frobnicate":true`) {
		t.Errorf("the upstream received %s %s", r.URI, r.Body)
	}
}

// Errors that nothing can be done about come in the form of the client.
func TestErrorsAreTranslated(t *testing.T) {
	u := scripted(t, answers(404, jsonType, `{"error":{"code":404,"message":"models/x is not found","status":"NOT_FOUND"}}`))
	inFront(t, u).post(t, imagesPath, drawJSON()).failsAsOpenAI(t, 404, "not_found", "models/x is not found")

	u = scripted(t, answers(404, "application/json", `{"error":{"message":"The model 'x' does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}`))
	s := run(t, gemini(place("backup", u, "format openai"))).post(t, unaryPath, promptJSON)
	if e := parseError(t, s.body); s.StatusCode != 404 || e.Code != 404 || e.Status != "NOT_FOUND" || !strings.Contains(e.Message, "does not exist") {
		t.Errorf("status %d, error %+v", s.StatusCode, e)
	}
}
