// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

const (
	gptChatPath  = "/v1/chat/completions"
	gptDrawPath  = "/v1/images/generations"
	gptEditPath  = "/v1/images/edits"
	pngStart     = "iVBORw0KGgo=" // all that is looked at
	pngReference = "data:image/png;base64," + pngStart
)

// gptPost sends a request as OpenAI's clients do.
func gptPost(t testing.TB, h *Handler, path, contentType, body string) reply {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer any")
	r.Header.Set("Content-Type", contentType)
	return serve(t, h, r)
}

func ask(t testing.TB, h *Handler, path, body string) reply {
	t.Helper()
	return gptPost(t, h, path, "application/json", body)
}

// file is a part of a form that is no plain field.
type file struct{ name, contentType, content string }

// form writes a multipart body.
func form(t testing.TB, fields map[string]string, files ...file) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, value := range fields {
		if err := w.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		part, err := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {fmt.Sprintf(`form-data; name=%q; filename="a.png"`, f.name)},
			"Content-Type":        {f.contentType},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write([]byte(f.content))
	}
	_ = w.Close()
	return w.FormDataContentType(), b.String()
}

var aPNG = file{"image", "image/png", "\x89PNG\r\n\x1a\n"}

func TestGPTImages(t *testing.T) {
	h := provisioned(t)
	got := ask(t, h, gptDrawPath, `{"model":"gpt-image-1","prompt":"twelve bytes","n":2,"size":"16x16","quality":"low","user":"u","style":null}`)
	first, format := decode(t, got.get("data.0.b64_json").Str)
	second, _ := decode(t, got.get("data.1.b64_json").Str)
	if got.status != 200 || format != "png" || len(got.get("data").Array()) != 2 || got.get("data.0.b64_json").Str == got.get("data.1.b64_json").Str {
		t.Errorf("%d: %s, %v, %v", got.status, format, first.Bounds(), second.Bounds())
	}
	for path, value := range map[string]string{
		"output_format": `"png"`, "quality": `"low"`, "background": `"auto"`, "size": `"16x16"`,
		"usage": `{"input_tokens":3,"input_tokens_details":{"image_tokens":0,"text_tokens":3},"output_tokens":1494,"output_tokens_details":{"image_tokens":1494,"text_tokens":0},"total_tokens":1497}`,
	} {
		if raw := got.get(path + "|@ugly").Raw; raw != value {
			t.Errorf("%s: %s", path, raw)
		}
	}
	if got.get("created").Int() == 0 || got.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(got.header.Get("X-Request-Id"), "req_") || got.header.Get("X-Gemini-Service-Tier") != "" {
		t.Errorf("not OpenAI's manners: %v", got.header)
	}
}

// How pictures are delivered depends on the model's name and on the wish.
func TestGPTImageFormats(t *testing.T) {
	h := provisioned(t)
	for _, tc := range []struct{ model, more, member, prefix, size string }{
		{"gpt-image-1", `,"size":"16x16"`, "b64_json", "iVBORw0KGgo", "16x16"},
		{"gpt-image-1", `,"size":"auto","output_format":"jpeg","output_compression":50`, "b64_json", "/9j/", "1024x1024"},
		{"google/gemini-2.5-flash-image", `,"response_format":"b64_json","size":"512x300"`, "b64_json", "iVBORw0KGgo", "512x300"},
		{"nano-banana-pro", `,"response_format":"url","size":"64x512"`, "url", pngReference[:len(pngReference)-1], "64x512"},
		{"dall-e-3", `,"size":"16x16"`, "url", pngReference[:len(pngReference)-1], "16x16"},
	} {
		got := ask(t, h, gptDrawPath, `{"model":"`+tc.model+`","prompt":"a cat"`+tc.more+`}`)
		picture := got.get("data.0").Map()
		if len(picture) != 1 || !strings.HasPrefix(picture[tc.member].Str, tc.prefix) || got.get("size").Str != tc.size {
			t.Errorf("%s %s: %d %.200s", tc.model, tc.more, got.status, got.body)
		}
	}
}

func TestGPTSizes(t *testing.T) {
	for size, want := range map[string]string{
		"16x16": "512", "512x512": "512", "1024x1024": "1K", "1792x1024": "1K", "2048x2048": "2K", "3840x2160": "4K",
	} {
		var c call
		if fail := c.setGPTSize(size); fail != nil || c.size != want || c.aspect != strings.Replace(size, "x", ":", 1) {
			t.Errorf("%s: %q %q %v", size, c.size, c.aspect, fail)
		}
	}
	width, height := pictureKey{aspect: "1024:1536", size: "1K"}.dimensions()
	if 3*width/2 != height {
		t.Errorf("%d×%d", width, height)
	}
}

func TestGPTEdits(t *testing.T) {
	h := provisioned(t)
	fields := map[string]string{"model": "gpt-image-1", "prompt": "twelve bytes", "n": "2", "size": "16x16", "stream": "false"}
	formType, formBody := form(t, fields, aPNG, file{"image[]", "image/jpeg", "\xFF\xD8\xFF"}, file{"mask", "image/png", aPNG.content})
	for name, tc := range map[string]struct{ contentType, body string }{
		"form": {formType, formBody},
		"JSON": {"application/json", `{"model":"gpt-image-1","prompt":"twelve bytes","n":2,"size":"16x16","images":[{"image_url":"` + pngReference + `"},{"image_url":"https://example.com/a.png"}]}`},
	} {
		got := gptPost(t, h, gptEditPath, tc.contentType, tc.body)
		if got.status != 200 || len(got.get("data.#.b64_json").Array()) != 2 {
			t.Errorf("%s: %d %.300s", name, got.status, got.body)
		}
		if tokens := got.get("usage.input_tokens_details|@ugly").Raw; tokens != `{"image_tokens":2200,"text_tokens":3}` {
			t.Errorf("%s: %s", name, tokens)
		}
	}
	formType, formBody = form(t, map[string]string{"prompt": "sim:503"}, aPNG)
	if got := gptPost(t, h, gptEditPath, formType, formBody); got.status != 503 {
		t.Errorf("a scenario in a form: %d %s", got.status, got.body)
	}
}

func TestGPTStreamedImages(t *testing.T) {
	h := provisioned(t)
	kinds := func(body string) (list []string) {
		for event := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
			name, data, _ := strings.Cut(event, "\ndata: ")
			kind := gjson.Get(data, "type").Str
			if "event: "+kind != name || !gjson.Valid(data) || gjson.Get(data, "b64_json").Str == "" {
				t.Errorf("%.100s", event)
			}
			list = append(list, kind)
		}
		return list
	}
	got := ask(t, h, gptDrawPath, `{"prompt":"a cat","size":"16x16","stream":true,"partial_images":2}`)
	if want := []string{"image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"}; !slices.Equal(kinds(got.body), want) {
		t.Errorf("got %v", kinds(got.body))
	}
	got = ask(t, h, gptEditPath, `{"prompt":"a cat","size":"16x16","stream":true,"images":[{"image_url":"`+pngReference+`"}]}`)
	if want := []string{"image_edit.completed"}; !slices.Equal(kinds(got.body), want) {
		t.Errorf("got %v", kinds(got.body))
	}
	if got := ask(t, h, gptDrawPath, `{"prompt":"sim:image_safety","stream":true}`); got.status != 400 || got.get("error.code").Str != "moderation_blocked" {
		t.Errorf("blocked: %d %s", got.status, got.body)
	}
}

func TestGPTStrictness(t *testing.T) {
	h := provisioned(t)
	const model, hi = `"model":"m",`, `"messages":[{"role":"user","content":"hi"}]`
	user := func(content string) string {
		return `{` + model + `"messages":[{"role":"user","content":` + content + `}]}`
	}
	edit := func(images string) string { return `{"prompt":"a cat","images":` + images + `}` }
	for _, tc := range []struct{ name, path, body, code, param, message string }{
		{"no JSON", gptDrawPath, `{"prompt":`, "", "", "We could not parse the JSON body of your request."},
		{"no prompt", gptDrawPath, `{}`, "missing_required_parameter", "prompt", "Missing required parameter: 'prompt'."},
		{"unknown field", gptDrawPath, `{"prompt":"a","safety_settings":[]}`, "unknown_parameter", "safety_settings", "Unknown parameter: 'safety_settings'."},
		{"format of gpt-image", gptDrawPath, `{"model":"gpt-image-1","prompt":"a","response_format":"b64_json"}`, "unknown_parameter", "response_format", "Unknown parameter: 'response_format'."},
		{"type", gptDrawPath, `{"prompt":7}`, "invalid_type", "prompt", "Invalid type for 'prompt': expected a string, but got an integer instead."},
		{"too many", gptDrawPath, `{"prompt":"a","n":11}`, "integer_above_max_value", "n", "Expected a value <= 10, but got 11 instead."},
		{"too few", gptDrawPath, `{"prompt":"a","n":0}`, "integer_below_min_value", "n", "Expected a value >= 1, but got 0 instead."},
		{"drafts", gptDrawPath, `{"prompt":"a","partial_images":4}`, "integer_above_max_value", "partial_images", ""},
		{"size", gptDrawPath, `{"prompt":"a","size":"2K"}`, "invalid_value", "size", "Invalid value: '2K'. Supported values are: '1024x1024', '1024x1536', '1536x1024', and 'auto'."},
		{"size of nothing", gptDrawPath, `{"prompt":"a","size":"0x16"}`, "invalid_value", "size", ""},
		{"ratio", gptDrawPath, `{"prompt":"a","size":"16x1600"}`, "invalid_value", "size", "no more than 8 times"},
		{"quality", gptDrawPath, `{"prompt":"a","quality":"best"}`, "invalid_value", "quality", ""},
		{"WebP", gptDrawPath, `{"prompt":"a","output_format":"webp"}`, "invalid_value", "output_format", "Supported values are: 'png' and 'jpeg'."},

		{"no image", gptEditPath, `{"prompt":"a"}`, "missing_required_parameter", "images", ""},
		{"too many images", gptEditPath, edit(`[` + strings.Repeat(`{"image_url":"`+pngReference+`"},`, 16) + `{"image_url":"https://example.com"}]`), "array_above_max_length", "images", ""},
		{"images as strings", gptEditPath, edit(`["` + pngReference + `"]`), "invalid_type", "images[0]", "expected an object, but got a string"},
		{"image of a chat", gptEditPath, edit(`[{"image_url":{"url":"` + pngReference + `"}}]`), "invalid_type", "images[0].image_url", ""},
		{"bare base64", gptEditPath, edit(`[{"image_url":"` + pngStart + `"}]`), "invalid_value", "images[0].image_url", ""},
		{"no base64", gptEditPath, edit(`[{"image_url":"` + pngReference + `?"}]`), "invalid_image", "images[0].image_url", ""},
		{"URL-safe base64", gptEditPath, edit(`[{"image_url":"data:image/jpeg;base64,_9j_"}]`), "invalid_image", "images[0].image_url", ""},
		{"no padding", gptEditPath, edit(`[{"image_url":"` + strings.TrimSuffix(pngReference, "=") + `"}]`), "invalid_image", "images[0].image_url", ""},
		{"no image data", gptEditPath, edit(`[{"image_url":"data:image/png;base64,AAAA"}]`), "invalid_image", "images[0].image_url", ""},
		{"a file elsewhere", gptEditPath, edit(`[{"file_id":"file-1"}]`), "file_not_found", "images[0].image_url", "No such File object: file-1"},
		{"unknown field of an image", gptEditPath, edit(`[{"url":"` + pngReference + `"}]`), "unknown_parameter", "images[0].url", ""},

		{"no model", gptChatPath, `{` + hi + `}`, "", "", "you must provide a model parameter"},
		{"no messages", gptChatPath, `{"model":"m"}`, "missing_required_parameter", "messages", ""},
		{"empty messages", gptChatPath, `{"model":"m","messages":[]}`, "empty_array", "messages", ""},
		{"unknown field of a chat", gptChatPath, `{` + model + hi + `,"extra_body":{}}`, "unknown_parameter", "extra_body", ""},
		{"unknown field of a message", gptChatPath, `{` + model + `"messages":[{"role":"user","parts":[]}]}`, "unknown_parameter", "messages[0].parts", "Unknown parameter: 'messages[0].parts'."},
		{"role", gptChatPath, `{` + model + `"messages":[{"role":"model","content":"hi"}]}`, "invalid_value", "messages[0].role", "Invalid value: 'model'."},
		{"content", gptChatPath, user(`[{"type":"inlineData"}]`), "invalid_value", "messages[0].content[0].type", ""},
		{"image of a chat as in an edit", gptChatPath, user(`[{"type":"image_url","image_url":"` + pngReference + `"}]`), "invalid_type", "messages[0].content[0].image_url", "expected an object, but got a string"},
		{"bad image", gptChatPath, user(`[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]`), "invalid_image", "messages[0].content[0].image_url.url", ""},
		{"modality", gptChatPath, `{` + model + hi + `,"modalities":["IMAGE"]}`, "invalid_value", "modalities[0]", "Supported values are: 'text' and 'image'."},
		{"two answers", gptChatPath, `{` + model + hi + `,"n":2}`, "integer_above_max_value", "n", ""},
		{"ratio of a chat", gptChatPath, `{` + model + hi + `,"image_config":{"aspect_ratio":"7:1"}}`, "", "", "Aspect ratio 7:1 is not supported"},
		{"unknown scenario", gptChatPath, user(`"sim:nonsense"`), "", "", `no scenario "nonsense"`},
	} {
		got := ask(t, h, tc.path, tc.body)
		failure := got.get("error")
		if got.status != 400 || failure.Get("type").Str != "invalid_request_error" || failure.Get("code").Str != tc.code ||
			failure.Get("param").Str != tc.param || !strings.Contains(failure.Get("message").Str, tc.message) {
			t.Errorf("%s: got %d %.400s", tc.name, got.status, got.body)
		}
	}
	const exact = `{"error":{"message":"Unknown parameter: 'foo'.","type":"invalid_request_error","param":"foo","code":"unknown_parameter"}}`
	if got := ask(t, h, gptDrawPath, `{"prompt":"a","foo":null}`); got.get("@ugly").Raw != exact {
		t.Errorf("layout: %s", got.body)
	}
}

func TestGPTFormStrictness(t *testing.T) {
	h := provisioned(t)
	prompt := map[string]string{"prompt": "a cat"}
	for _, tc := range []struct {
		name   string
		fields map[string]string
		files  []file
		code   string
		param  string
	}{
		{"no prompt", nil, []file{aPNG}, "missing_required_parameter", "prompt"},
		{"no image", prompt, nil, "missing_required_parameter", "image"},
		{"too many images", prompt, slices.Repeat([]file{aPNG}, maxReferences+1), "array_above_max_length", "image"},
		{"no type", prompt, []file{{"image", "application/octet-stream", aPNG.content}}, "unsupported_file_mimetype", "image"},
		{"no image data", prompt, []file{{"image[]", "image/png", "AAAA"}}, "invalid_image_file", "image[]"},
		{"a mask that is none", prompt, []file{aPNG, {"mask", "image/png", ""}}, "invalid_image_file", "mask"},
		{"unknown field", map[string]string{"prompt": "a", "safety_settings": "[]"}, []file{aPNG}, "unknown_parameter", "safety_settings"},
		{"no number", map[string]string{"prompt": "a", "n": "two"}, []file{aPNG}, "invalid_type", "n"},
		{"size", map[string]string{"prompt": "a", "size": "big"}, []file{aPNG}, "invalid_value", "size"},
	} {
		contentType, body := form(t, tc.fields, tc.files...)
		got := gptPost(t, h, gptEditPath, contentType, body)
		if got.status != 400 || got.get("error.code").Str != tc.code || got.get("error.param").Str != tc.param {
			t.Errorf("%s: got %d %.400s", tc.name, got.status, got.body)
		}
	}
	contentType, body := form(t, prompt, aPNG)
	if got := gptPost(t, h, gptEditPath, contentType, body[:len(body)/2]); got.status != 400 {
		t.Errorf("half a form: %d %s", got.status, got.body)
	}
}

func TestGPTChat(t *testing.T) {
	h := provisioned(t)
	body := func(model, more string) string {
		return `{"model":"` + model + `","messages":[{"role":"system","content":"sim:500"},{"role":"user","content":"a cat"}],"image_config":{"aspect_ratio":"16:9","image_size":"512"}` + more + `}`
	}
	for _, tc := range []struct{ model, more, delivers string }{
		{"google/gemini-2.5-flash-image", "", "text image/png"},
		{"google/gemini-3-pro-image", `,"modalities":["image","text"]`, "text image/jpeg"},
		{"nano-banana", `,"modalities":["image"]`, "image/jpeg"},
		{"gpt-4o", "", "text"},
		{"gpt-4o", `,"modalities":[]`, "text"},
		{"gemini-2.5-flash-image", `,"modalities":["text"]`, "text"},
		{"whatever", `,"modalities":["text","image"],"temperature":0.5,"max_tokens":5,"stop":"x","user":null`, "text image/jpeg"},
	} {
		got := ask(t, h, gptChatPath, body(tc.model, tc.more))
		message := got.get("choices.0.message")
		if kinds := delivered(t, message); got.status != 200 || kinds != tc.delivers {
			t.Errorf("%s %s: %d %q %.300s", tc.model, tc.more, got.status, kinds, got.body)
		}
		if got.get("object").Str != "chat.completion" || got.get("model").Str != tc.model || got.get("choices.0.finish_reason").Str != "stop" || message.Get("role").Str != "assistant" {
			t.Errorf("%s %s: %.300s", tc.model, tc.more, got.body)
		}
		if u := got.get("usage"); u.Get("total_tokens").Int() != u.Get("prompt_tokens").Int()+u.Get("completion_tokens").Int() || u.Get("prompt_tokens").Int() != 4 {
			t.Errorf("%s: %s", tc.model, u.Raw)
		}
	}
}

// delivered names what a message or a delta holds.
func delivered(t testing.TB, message gjson.Result) string {
	t.Helper()
	var kinds []string
	if message.Get("content").Str != "" {
		kinds = append(kinds, "text")
	}
	for i, image := range message.Get("images").Array() {
		mime, data, _ := strings.Cut(image.Get("image_url.url").Str, ";base64,")
		if _, format := decode(t, data); mime != "data:image/"+format || image.Get("type").Str != "image_url" || image.Get("index").Int() != int64(i) {
			t.Errorf("not an image: %.100s", image.Raw)
		}
		kinds = append(kinds, strings.TrimPrefix(mime, "data:"))
	}
	return strings.Join(kinds, " ")
}

// Images count wherever they are in a conversation, an aggregator's own included.
func TestGPTHistory(t *testing.T) {
	image := `{"type":"image_url","image_url":{"url":"` + pngReference + `"}}`
	got := ask(t, provisioned(t), gptChatPath, `{"model":"gemini-2.5-flash","messages":[
		{"role":"developer","content":"1234"},
		{"role":"user","content":[{"type":"text","text":"sim:503"},`+image+`]},
		{"role":"assistant","content":"1234","images":[`+image+`]},
		{"role":"user","content":[{"type":"text","text":"go on"}]},
		{"role":"user","content":[`+image+`]}]}`)
	if got.status != 200 || got.get("usage.prompt_tokens").Int() != 1+2+1+2+3*258 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestGPTStreamLayout(t *testing.T) {
	got := ask(t, provisioned(t), gptChatPath, `{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"sim:late_block"}],"stream":true,"stream_options":{"include_usage":true}}`)
	id := got.body[len(`data: {"id":"`):strings.Index(got.body, `","object"`)]
	created := gjson.Get(strings.TrimPrefix(got.body, "data: "), "created").Raw
	head := `data: {"id":"` + id + `","object":"chat.completion.chunk","created":` + created + `,"model":"gemini-2.5-flash","choices":[`
	chunk := func(delta, finish string) string {
		return head + `{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}],"usage":null}` + "\n\n"
	}
	exact := chunk(`{"role":"assistant","content":"","refusal":null}`, "null") +
		chunk(`{"content":"Of course! Here "}`, "null") + chunk(`{"content":"is the picture that "}`, "null") + chunk(`{"content":"you asked for: "}`, "null") +
		chunk(`{}`, `"content_filter"`) +
		head + `],"usage":{"prompt_tokens":4,"completion_tokens":13,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":0}}}` + "\n\n" +
		"data: [DONE]\n\n"
	if got.body != exact || !strings.HasPrefix(id, "chatcmpl-") || got.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got\n%s\nexpected\n%s", got.body, exact)
	}
}

func TestGPTStreams(t *testing.T) {
	h := provisioned(t)
	for _, tc := range []struct{ text, delivers, finish, last string }{
		{"a cat", "text text text image/png", "stop", "[DONE]"},
		{"sim:image_safety", "", "content_filter", "[DONE]"},
		{"sim:no_image", "", "stop", "[DONE]"},
		{"sim:max_tokens", "", "length", "[DONE]"},
		{"sim:no_finish_reason", "text text text image/png", "", "[DONE]"},
		{"sim:mid_stream_error", "text", "", `{"error":{"message":"The operation was cancelled.","type":"server_error","param":null,"code":null}}`},
	} {
		got := ask(t, h, gptChatPath, `{"model":"gemini-2.5-flash-image","messages":[{"role":"user","content":"`+tc.text+`"}],"stream":true,"image_config":{"image_size":"512"}}`)
		var kinds []string
		var finish, last string
		for event := range strings.SplitSeq(strings.TrimSuffix(got.body, "\n\n"), "\n\n") {
			last = strings.TrimPrefix(event, "data: ")
			if kind := delivered(t, gjson.Get(last, "choices.0.delta")); kind != "" {
				kinds = append(kinds, kind)
			}
			finish += gjson.Get(last, "choices.0.finish_reason").Str
			if gjson.Get(last, "usage").Exists() {
				t.Errorf("%s: usage that nobody asked for", tc.text)
			}
		}
		if strings.Join(kinds, " ") != tc.delivers || finish != tc.finish || last != tc.last {
			t.Errorf("%s: %v %q %.200s", tc.text, kinds, finish, last)
		}
	}
	if got := ask(t, h, gptChatPath, `{"model":"m","messages":[{"role":"user","content":"sim:prompt_safety"}],"stream":true}`); got.status != 400 || got.get("error.code").Str != "content_policy_violation" {
		t.Errorf("blocked prompt: %d %s", got.status, got.body)
	}
}

func TestGPTWantsABearer(t *testing.T) {
	h := provisioned(t)
	for _, path := range []string{gptChatPath, gptDrawPath, gptEditPath} {
		got := post(t, h, path, `{}`) // with x-goog-api-key
		if got.status != 401 || !strings.Contains(got.get("error.message").Str, "You didn't provide an API key.") || got.get("error.type").Str != "invalid_request_error" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func TestModelsOfV1BelongToTheClient(t *testing.T) {
	h := provisioned(t)
	r := httptest.NewRequest("GET", "/v1/models", nil)
	r.Header.Set("Authorization", "Bearer any")
	if got := serve(t, h, r); got.get("object").Str != "list" || len(got.get("data.#.id").Array()) != len(knownModels) || got.header.Get("Openai-Version") == "" {
		t.Errorf("OpenAI's client: %d %s", got.status, got.body)
	}
	if got := send(t, h, "GET", "/v1/models", ""); !got.get("models").Exists() {
		t.Errorf("Google's client: %d %s", got.status, got.body)
	}
	r = httptest.NewRequest("GET", "/v1beta/models", nil)
	r.Header.Set("Authorization", "Bearer any")
	if got := serve(t, h, r); !got.get("models").Exists() {
		t.Errorf("Google's path: %d %s", got.status, got.body)
	}
}
