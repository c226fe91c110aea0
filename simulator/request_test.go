// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

func TestModalitiesDecideWhatIsDelivered(t *testing.T) {
	h := provisioned(t)
	for _, tc := range []struct{ model, config, parts string }{
		{"gemini-3-pro-image", `"seed":1`, "text image"},
		{"gemini-3-pro-image", `"responseModalities":[]`, "text image"},
		{"gemini-3-pro-image", `"responseModalities":null`, "text image"},
		{"gemini-3-pro-image", `"responseModalities":["TEXT","IMAGE"]`, "text image"},
		{"gemini-3-pro-image", `"responseModalities":["Text","Image"]`, "text image"},
		{"gemini-3-pro-image", `"response_modalities":["IMAGE"]`, "image"},
		{"gemini-3-pro-image", `"responseModalities":["TEXT"]`, "text"},
		{"gemini-2.5-flash-image", `"responseModalities":["IMAGE"]`, "image"},
		{"gemini-2.5-flash-image", `"responseModalities":["TEXT"]`, "text image"}, // ignored by this model
		{"gemini-2.5-flash", `"seed":1`, "text"},
		{"gemini-3-pro-image", `"thinkingConfig":{"includeThoughts":true}`, "text! image! text image"},
		{"gemini-2.5-flash-image", `"thinkingConfig":{"includeThoughts":true}`, "text image"}, // it does not think
	} {
		body := `{"contents":[{"parts":[{"text":"a cat"}]}],"generationConfig":{"imageConfig":{"imageSize":"512"},` + tc.config + `}}`
		got := post(t, h, "/v1beta/models/"+tc.model+":generateContent", body)
		if parts := describe(got.get("candidates.0.content.parts")); parts != tc.parts {
			t.Errorf("%s {%s}: expected %q, got %q", tc.model, tc.config, tc.parts, parts)
		}
		if reason := got.get("candidates.0.finishReason").Str; reason != "STOP" {
			t.Errorf("%s {%s}: finishReason %q", tc.model, tc.config, reason)
		}
	}
}

// describe names the kinds of the parts; "!" marks thoughts.
func describe(parts gjson.Result) string {
	var kinds []string
	for _, part := range parts.Array() {
		kind := "text"
		if part.Get("inlineData").Exists() {
			kind = "image"
		}
		if part.Get("thought").Bool() {
			kind += "!"
		}
		kinds = append(kinds, kind)
	}
	return strings.Join(kinds, " ")
}

func TestStrictness(t *testing.T) {
	h := provisioned(t)
	const contents = `"contents":[{"parts":[{"text":"hi"}]}]`
	const spoken = `"contents":[{"role":"user","parts":[{"text":"hi"}]}]`
	const vertexPath = "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-3-pro-image:generateContent"
	for _, tc := range []struct{ name, path, body, message string }{
		{"no JSON", proPath, `{"contents":[}`, "Unexpected token.\n{\"contents\":[}\n             ^"},
		{"half JSON", proPath, `{"contents":[`, "Invalid JSON payload received."},
		{"trailing bytes", proPath, `{} {}`, "Unexpected token."},
		{"not an object", proPath, `[]`, "Root element must be a message."},
		{"nothing", proPath, ``, "Invalid JSON payload received."},
		{"no contents", proPath, `{}`, "contents is not specified"},
		{"null contents", proPath, `{"contents":null}`, "contents is not specified"},
		{"contents of a wrong type", proPath, `{"contents":"hi"}`, `Invalid value at 'contents'`},
		{"misplaced safetySettings", proPath, `{` + contents + `,"generationConfig":{"safetySettings":[]}}`, `Unknown name "safetySettings" at 'generation_config': Cannot find field.`},
		{"unknown field on top", proPath, `{` + contents + `,"imageConfig":{}}`, `Unknown name "imageConfig": Cannot find field.`},
		{"unknown field in a part", proPath, `{"contents":[{"parts":[{"txt":"hi"}]}]}`, `Unknown name "txt" at 'contents[0].parts[0]'`},
		{"two spellings", proPath, `{` + contents + `,"generationConfig":{},"generation_config":{}}`, `Duplicate field "generation_config".`},
		{"two spellings further down", proPath, `{` + contents + `,"generationConfig":{"responseModalities":["IMAGE"],"response_modalities":["IMAGE"]}}`, `Duplicate field "response_modalities" at 'generation_config'.`},
		{"bad category", proPath, `{` + contents + `,"safetySettings":[{"category":"HARM_CATEGORY_BOREDOM","threshold":"OFF"}]}`, `Invalid value at 'safety_settings[0].category' (type.googleapis.com/google.ai.generativelanguage.v1beta.HarmCategory), "HARM_CATEGORY_BOREDOM"`},
		{"Vertex AI category", proPath, `{` + contents + `,"safetySettings":[{"category":"HARM_CATEGORY_IMAGE_HATE","threshold":"OFF"}]}`, `'safety_settings[0].category'`},
		{"bad threshold", proPath, `{` + contents + `,"safety_settings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"block_none"}]}`, `'safety_settings[0].threshold'`},
		{"Vertex AI method", proPath, `{` + contents + `,"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","method":"SEVERITY"}]}`, `Unknown name "method" at 'safety_settings[0]'`},
		{"bad modality", proPath, `{` + contents + `,"generationConfig":{"responseModalities":["BANANA"]}}`, `Invalid value at 'generation_config.response_modalities[0]'`},
		{"Vertex AI image option", proPath, `{` + contents + `,"generationConfig":{"imageConfig":{"personGeneration":"ALLOW_ALL"}}}`, `Unknown name "personGeneration" at 'generation_config.image_config'`},
		{"Vertex AI labels", proPath, `{` + contents + `,"labels":{}}`, `Unknown name "labels": Cannot find field.`},
		{"Vertex AI model selection", proPath, `{` + contents + `,"generationConfig":{"modelSelectionConfig":{}}}`, `Unknown name "modelSelectionConfig" at 'generation_config'`},
		{"Gemini API store on Vertex AI", vertexPath, `{` + spoken + `,"store":true}`, `Unknown name "store": Cannot find field.`},
		{"Gemini API part on Vertex AI", vertexPath, `{"contents":[{"role":"user","parts":[{"text":"hi","part_metadata":{}}]}]}`, `Unknown name "part_metadata" at 'contents[0].parts[0]'`},
		{"Gemini API setting on Vertex AI", vertexPath, `{` + spoken + `,"generationConfig":{"enableEnhancedCivicAnswers":true}}`, `Unknown name "enableEnhancedCivicAnswers" at 'generation_config'`},
		{"unknown field on Vertex AI", vertexPath, `{` + spoken + `,"generationConfig":{"dreams":1}}`, `Unknown name "dreams" at 'generation_config': Cannot find field.`},
		{"no role on Vertex AI", vertexPath, `{` + contents + `}`, "Please use a valid role: user, model."},
		{"one role missing on Vertex AI", vertexPath, `{"contents":[{"role":"user","parts":[{"text":"hi"}]},{"parts":[{"text":"hi"}]}]}`, "Please use a valid role: user, model."},
		{"another role on Vertex AI", vertexPath, `{"contents":[{"role":"assistant","parts":[{"text":"hi"}]}]}`, "Please use a valid role: user, model."},
		{"MIME type of pictures on Vertex AI", vertexPath, `{` + spoken + `,"generationConfig":{"imageConfig":{"imageOutputOptions":{"mimeType":"image/gif"}}}}`, "Output MIME type image/gif is not supported for this model"},
		{"aspect ratio", proPath, `{` + contents + `,"generationConfig":{"imageConfig":{"aspectRatio":"1:4"}}}`, "Aspect ratio 1:4 is not supported for this model"},
		{"image size", proPath, `{` + contents + `,"generationConfig":{"imageConfig":{"imageSize":"2k"}}}`, "Image size 2k is not supported for this model"},
		{"two candidates", proPath, `{` + contents + `,"generationConfig":{"candidateCount":2}}`, "Multiple candidates is not enabled"},
		{"image from a text model", textPath, `{` + contents + `,"generationConfig":{"responseModalities":["TEXT","IMAGE"]}}`, "response modalities (TEXT, IMAGE) is not supported by the model"},
		{"unknown scenario", proPath, prompt("sim:nonsense"), `no scenario "nonsense". It knows: stop, max_tokens,`},
		{"a duration too many", proPath, prompt("sim:500=1s"), "takes no duration"},
		{"no duration", proPath, prompt("sim:slow=long"), "takes a duration such as 500ms"},
		{"too long a duration", proPath, prompt("sim:slow=1000h"), "takes a duration such as 500ms"},

		{"accepted: snake_case", proPath, `{` + contents + `,"generation_config":{"image_config":{"aspect_ratio":"1:1"}},"safety_settings":[]}`, ""},
		{"accepted: single objects for lists", proPath, `{"contents":{"parts":{"text":"hi"}},"systemInstruction":{"parts":{"text":"be brief"}}}`, ""},
		{"accepted: nulls", proPath, `{` + contents + `,"generationConfig":null,"safetySettings":null}`, ""},
		{"accepted: civic integrity", proPath, `{` + contents + `,"safetySettings":[{"category":"HARM_CATEGORY_CIVIC_INTEGRITY","threshold":"OFF"}]}`, ""},
		{"accepted: numbers for enums", proPath, `{` + contents + `,"safetySettings":[{"category":7,"threshold":4}]}`, ""},
		{"accepted on Vertex AI", vertexPath, `{` + spoken + `,"safetySettings":[{"category":"HARM_CATEGORY_IMAGE_HATE","threshold":"OFF","method":"SEVERITY"}],"generationConfig":{"imageConfig":{"personGeneration":"ALLOW_ALL"},"audioTimestamp":true},"labels":{"team":"a"},"modelArmorConfig":{}}`, ""},
		{"accepted on the Gemini API", proPath, `{"contents":[{"parts":[{"text":"hi","partMetadata":{}}]}],"store":false,"generationConfig":{"enableEnhancedCivicAnswers":true}}`, ""},
	} {
		got := post(t, h, tc.path, tc.body)
		if tc.message == "" {
			if got.status != 200 {
				t.Errorf("%s: got %d %.300s", tc.name, got.status, got.body)
			}
			continue
		}
		if got.status != 400 || got.get("error.code").Int() != 400 || got.get("error.status").Str != "INVALID_ARGUMENT" || !strings.Contains(got.get("error.message").Str, tc.message) {
			t.Errorf("%s: expected 400 with %q, got %d %.400s", tc.name, tc.message, got.status, got.body)
		}
	}
}

// The prompt that counts is the last one a user wrote.
func TestScenarioOfAnEarlierTurnIsOver(t *testing.T) {
	h := provisioned(t)
	turns := func(last string) string {
		return `{"contents":[{"role":"user","parts":[{"text":"sim:503"}]},{"role":"model","parts":[{"text":"sim:504"}]},{"role":"user","parts":[{"text":"` + last + `"}]}]}`
	}
	if got := post(t, h, textPath, turns("and now?")); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := post(t, h, textPath, turns("please SIM:500.")); got.status != 500 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestUsage(t *testing.T) {
	h := provisioned(t)
	body := `{"contents":[{"parts":[{"text":"twelve bytes"},{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}]}`
	got := post(t, h, flashPath, body).get("usageMetadata")
	if text, image := got.Get("promptTokensDetails.0.tokenCount").Int(), got.Get("promptTokensDetails.1.tokenCount").Int(); text != 3 || image != 258 {
		t.Errorf("prompt: %s", got.Raw)
	}
	got = post(t, h, proPath, body).get("usageMetadata")
	prompt, candidates, thoughts := got.Get("promptTokenCount").Int(), got.Get("candidatesTokenCount").Int(), got.Get("thoughtsTokenCount").Int()
	if prompt != 1103 || thoughts == 0 || got.Get("totalTokenCount").Int() != prompt+candidates+thoughts {
		t.Errorf("total: %s", got.Raw)
	}
	if over := candidates - got.Get("candidatesTokensDetails.0.tokenCount").Int(); over < 88 || over > 630 {
		t.Errorf("candidates exceed their details by %d", over)
	}
}

func TestCountTokens(t *testing.T) {
	h := provisioned(t)
	for _, body := range []string{
		prompt("twelve bytes"),
		`{"generateContentRequest":` + prompt("twelve bytes") + `}`,
	} {
		if got := post(t, h, "/v1beta/models/gemini-2.5-flash:countTokens", body); got.get("totalTokens").Int() != 3 {
			t.Errorf("%s: got %d %s", body, got.status, got.body)
		}
	}
	if got := post(t, h, "/v1beta/models/gemini-2.5-flash:countTokens", `{}`); got.status != 400 {
		t.Errorf("no contents: got %d %s", got.status, got.body)
	}
}

// What the official clients send is understood.
func TestRecordedRequests(t *testing.T) {
	h := provisioned(t)
	for name, path := range map[string]string{
		"request_js_genai_3.1.json":                    "/v1/models/gemini-3-pro-image:generateContent",
		"request_js_genai_minimal.json":                "/v1/models/gemini-3-pro-image:generateContent",
		"request_python_genai_2.19.json":               proPath,
		"request_go_genai_1.77.json":                   proPath,
		"request_legacy_js_mixed_case_modalities.json": flashPath,
		"request_langchain_empty_safety_settings.json": flashPath,
		"request_snake_case.json":                      textPath,
		"request_snake_case_all.json":                  proPath,
		"request_openai_images.json":                   "/v1beta/openai/images/generations",
		"request_ai_sdk_imagen_predict.json":           "/v1beta/models/imagen-4.0-generate-001:predict",
		"request_interactions.json":                    "/v1/interactions",
	} {
		if got := post(t, h, path, fixture(t, name)); got.status != 200 {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(prompt("a cat"))
	f.Add(`{"contents":{"parts":{"text":"hi"}},"generation_config":{"response_modalities":["IMAGE"],"imageConfig":{"aspectRatio":"1:8"}}}`)
	f.Add(`{"contents":[{"parts":[{"text":"\ud83d`)
	f.Add(`{"instances":[{"prompt":"a"}],"messages":[{"role":"user","content":[{"text":"a"}]}],"prompt":"a","input":["a",{"content":"b"}]}`)
	f.Add(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}],"modalities":["image"]}`)
	f.Add(`{"prompt":"a","n":2,"size":"16x16","images":[{"image_url":"https://a.example/b.png"}]}`)
	f.Add("--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cat\r\n--b--\r\n")
	dialects := []surface{native{}, imagen{}, chat{}, images{}, interactions{}, gptChat{}, gptImages{}, gptImages{edits: true}}
	types := []string{"application/json", "multipart/form-data; boundary=b"}
	f.Fuzz(func(t *testing.T, body string) {
		for i := range len(dialects) * len(types) {
			dialect, contentType := dialects[i/len(types)], types[i%len(types)]
			c := &call{surface: dialect, model: "gemini-3.1-flash-image", contentType: contentType}
			if fail := dialect.parse(c, body); fail != nil {
				if fail.code != 400 || fail.message == "" {
					t.Errorf("%T: refused with %d %q", dialect, fail.code, fail.message)
				}
				continue
			}
			if !gjson.Valid(body) && c.promptImages == 0 { // else it was a form
				t.Errorf("%T: accepted what is no JSON", dialect)
			}
			if c.samples < 1 || c.promptTokens < 0 {
				t.Errorf("%T: %d samples, %d tokens", dialect, c.samples, c.promptTokens)
			}
		}
	})
}
