// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

const (
	predictPath  = "/v1beta/models/imagen-4.0-generate-001:predict"
	chatPath     = "/v1beta/openai/chat/completions"
	imagesPath   = "/v1beta/openai/images/generations"
	interactPath = "/v1beta/interactions"
)

func TestPredict(t *testing.T) {
	h := provisioned(t)
	ask := func(text, parameters string) reply {
		return post(t, h, predictPath, `{"instances":[{"prompt":"`+text+`"}],"parameters":{`+parameters+`}}`)
	}
	got := ask("a cat", `"sampleCount":2,"aspectRatio":"3:4"`)
	first, second := got.get("predictions.0.bytesBase64Encoded").Str, got.get("predictions.1.bytesBase64Encoded").Str
	if _, format := decode(t, first); format != "png" || got.get("predictions.0.mimeType").Str != "image/png" {
		t.Errorf("picture: %s", format)
	}
	if n := len(got.get("predictions").Array()); n != 2 || first == second {
		t.Errorf("%d predictions, alike: %v", n, first == second)
	}
	if got := ask("sim:prompt_safety", ""); got.status != 400 || !strings.Contains(got.get("error.message").Str, "The prompt could not be submitted") {
		t.Errorf("blocked prompt: %d %s", got.status, got.body)
	}
	if got := ask("sim:image_safety", `"includeRaiReason":true`); got.status != 200 || !strings.Contains(got.get("predictions.0.raiFilteredReason").Str, "filtered out") {
		t.Errorf("filtered: %d %s", got.status, got.body)
	}
	if got := ask("sim:image_safety", ""); got.status != 200 || got.get("predictions").Exists() {
		t.Errorf("filtered, no reasons asked for: %d %s", got.status, got.body)
	}
	for _, parameters := range []string{`"sampleCount":9`, `"sampleCount":-1`, `"aspectRatio":"7:1"`, `"sampleImageSize":"9K"`} {
		if got := ask("a cat", parameters); got.status != 400 {
			t.Errorf("%s: %d", parameters, got.status)
		}
	}
	if got := post(t, h, predictPath, `{"instances":[]}`); got.status != 400 {
		t.Errorf("no prompt: %d %s", got.status, got.body)
	}
}

func TestChat(t *testing.T) {
	h := provisioned(t)
	ask := func(model, text, more string) reply {
		return post(t, h, chatPath, `{"model":"`+model+`","messages":[{"role":"system","content":"sim:500"},{"role":"user","content":`+text+`}]`+more+`}`)
	}
	got := ask("gemini-2.5-flash", `"hello"`, "")
	if got.status != 200 || got.get("choices.0.finish_reason").Str != "stop" || !strings.Contains(got.get("choices.0.message.content").Str, "hello") || got.get("usage.total_tokens").Int() == 0 {
		t.Errorf("text: %d %s", got.status, got.body)
	}
	got = ask("models/gemini-3-pro-image", `[{"type":"text","text":"a cat"}]`, "")
	_, data, _ := strings.Cut(got.get("choices.0.message.images.0.image_url.url").Str, "data:image/jpeg;base64,")
	if _, format := decode(t, data); format != "jpeg" {
		t.Errorf("image: %s", format)
	}
	if got := ask("gemini-2.5-flash-image", `"sim:image_safety"`, ""); got.get("choices.0.finish_reason").Str != "content_filter" {
		t.Errorf("blocked: %d %s", got.status, got.body)
	}
	if got := ask("gemini-2.5-flash-image", `"sim:prompt_blocklist"`, ""); got.get("choices.0.finish_reason").Str != "content_filter" {
		t.Errorf("blocked prompt: %d %s", got.status, got.body)
	}
	if got := ask("gemini-2.5-flash", `"sim:503"`, ""); got.status != 503 || got.get("0.error.status").Str != "UNAVAILABLE" {
		t.Errorf("errors come in an array: %d %s", got.status, got.body)
	}
	if got := ask("gemini-2.5-flash", `"hi"`, `,"extra_body":{"google":{"safety_settings":[]}}`); got.status != 400 || !strings.Contains(got.body, "safety_settings") {
		t.Errorf("extra_body: %d %s", got.status, got.body)
	}
	got = ask("gemini-2.5-flash", `"hello"`, `,"stream":true`)
	if list, rest := events(t, got.body); rest != "data: [DONE]\n\n" || list[0].Get("object").Str != "chat.completion.chunk" || list[0].Get("choices.0.delta.content").Str == "" {
		t.Errorf("stream: %s", got.body)
	}
}

func TestImagesGenerations(t *testing.T) {
	h := provisioned(t)
	got := post(t, h, imagesPath, `{"model":"gemini-2.5-flash-image","prompt":"a cat","n":2,"response_format":"b64_json"}`)
	if _, format := decode(t, got.get("data.1.b64_json").Str); format != "png" || got.get("created").Int() == 0 {
		t.Errorf("got %d", got.status)
	}
	// A block is a missing image.
	got = post(t, h, imagesPath, `{"model":"gemini-2.5-flash-image","prompt":"sim:image_safety"}`)
	if got.status != 200 || got.get("data").Raw != "[]" {
		t.Errorf("blocked: %d %s", got.status, got.body)
	}
	for _, body := range []string{`{}`, `{"prompt":"a cat","n":11}`} {
		if got := post(t, h, imagesPath, body); got.status != 400 || got.get("0.error.code").Int() != 400 {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
}

func TestInteractions(t *testing.T) {
	h := provisioned(t)
	ask := func(input, more string) reply {
		return post(t, h, interactPath, `{"model":"gemini-3.1-flash-image","input":`+input+more+`}`)
	}
	got := ask(`"a cat"`, `,"response_modalities":["image"]`)
	if got.get("status").Str != "completed" || got.get("steps.0.type").Str != "thought" {
		t.Errorf("got %d %.300s", got.status, got.body)
	}
	if _, format := decode(t, got.get("steps.1.content.0.data").Str); format != "jpeg" {
		t.Errorf("picture: %s", format)
	}
	got = ask(`[{"role":"user","content":[{"type":"text","text":"sim:text_only"}]}]`, "")
	if got.status != 200 || got.get("status").Str != "completed" || got.get(`steps.#(type=="model_output").content.0.type`).Str != "text" {
		t.Errorf("refusal: %d %.300s", got.status, got.body)
	}
	for scenario, code := range map[string]string{
		"image_safety": "safety", "prompt_prohibited_content": "prohibited_content", "no_image": "no_image",
		"not_found": "not_found", "rate_limit": "rate_limit_exceeded", "billing": "payment_required", "500": "internal",
	} {
		if got := ask(`"sim:`+scenario+`"`, ""); got.get("error.code").Str != code || got.status < 400 {
			t.Errorf("sim:%s: %d %s", scenario, got.status, got.body)
		}
	}
	list, rest := events(t, ask(`"a cat"`, `,"stream":true`).body)
	if rest != "" || list[0].Get("event_type").Str != "interaction.created" || list[len(list)-1].Get("interaction.status").Str != "completed" {
		t.Errorf("stream: %d events, then %q", len(list), rest)
	}
	if got := ask(`null`, ""); got.status != 200 {
		t.Errorf("empty input: %d %s", got.status, got.body)
	}
	if got := post(t, h, interactPath, `{"model":"gemini-3.1-flash-image"}`); got.get("error.code").Str != "invalid_request" {
		t.Errorf("no input: %d %s", got.status, got.body)
	}
}

// Answers have the fields that were recorded, in their order.
func TestInteractionsAreAsRecorded(t *testing.T) {
	h := provisioned(t)
	for name, input := range map[string]string{"interactions_ok_image.json": "a cat", "interactions_refusal_text.json": "sim:refusal"} {
		want := slices.DeleteFunc(fieldsOf("", gjson.Parse(fixture(t, name))), func(field string) bool { return field == "usage.raw_prompt_token" })
		got := post(t, h, interactPath, `{"model":"gemini-3.1-flash-image","input":"`+input+`","response_modalities":["image"]}`)
		if fields := fieldsOf("", gjson.Parse(got.body)); !slices.Equal(fields, want) {
			t.Errorf("%s: got\n%v\nrecorded\n%v", name, fields, want)
		}
	}
}

func TestInteractionStreamsAreAsRecorded(t *testing.T) {
	types := func(body string) (list []string) {
		for line := range strings.Lines(body) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				list = append(list, gjson.Get(data, "event_type").Str+" "+gjson.Get(data, "step.type").Str+" "+gjson.Get(data, "delta.type").Str)
			}
		}
		return list
	}
	recorded := types(fixture(t, "interactions_stream_text.sse"))
	for i := range recorded {
		recorded[i] = strings.Replace(recorded[i], "delta  text", "delta  image", 1)
	}
	got := post(t, provisioned(t), interactPath, `{"model":"gemini-3.1-flash-image","input":"a cat","response_modalities":["image"],"stream":true}`)
	if list := types(got.body); !slices.Equal(list, recorded) {
		t.Errorf("got\n%v\nrecorded\n%v", list, recorded)
	}
}

// fieldsOf lists the paths in a JSON value.
func fieldsOf(at string, v gjson.Result) []string {
	if !v.IsObject() && !v.IsArray() {
		return []string{at}
	}
	var list []string
	v.ForEach(func(key, value gjson.Result) bool {
		list = append(list, fieldsOf(join(at, key.String()), value)...)
		return true
	})
	return list
}
