// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// TestOpenAIForeign has what no other form has a word for, and what OpenAI itself
// refuses.
func TestOpenAIForeign(t *testing.T) {
	many := strings.Repeat(`"x",`, maxListed)
	for _, tt := range []struct {
		kind openAIKind
		body string
		want string // "" takes it
	}{
		{kindGenerations, `{"prompt":"a"}`, ""},
		{kindGenerations, `{}`, "missing_required_parameter prompt: Missing required parameter: 'prompt'."},
		{kindGenerations, `{"prompt":""}`, "missing_required_parameter prompt"},
		{kindGenerations, `{"prompt":null}`, "missing_required_parameter prompt"},
		{kindGenerations, `{"prompt":["a"]}`, "invalid_type prompt: Invalid type for 'prompt': expected a string."},
		{kindGenerations, `["a"]`, "invalid_type : Invalid type for 'body': expected an object or a list."},
		{kindGenerations, `"a"`, "invalid_type : "},
		{kindGenerations, `{"foo":1,"prompt":"a"}`, "unknown_parameter foo: Unknown parameter: 'foo'."},
		{kindGenerations, `{"foo":{"bar":1},"prompt":"a"}`, "unknown_parameter foo"},
		{kindGenerations, `{"foo":null,"bar":"","baz":[],"qux":{},"prompt":"a"}`, ""},
		{kindGenerations, `{"first":1,"second":2}`, "unknown_parameter first"},
		{kindGenerations, `{"image":"data:image/png;base64,eA==","prompt":"a"}`, "unknown_parameter image"},
		{kindGenerations, `{"prompt":"a","n":0}`, "invalid_value n: Invalid value for 'n': it must be a number from 1 to 10."},
		{kindGenerations, `{"prompt":"a","n":11}`, "invalid_value n"},
		{kindGenerations, `{"prompt":"a","n":1.5}`, "invalid_value n"},
		{kindGenerations, `{"prompt":"a","n":"1"}`, "invalid_type n: Invalid type for 'n': expected a number."},
		{kindGenerations, `{"prompt":"a","n":1` + strings.Repeat("0", maxScalar) + `}`, "invalid_value n"},
		{kindGenerations, `{"prompt":"a","size":"1024"}`, "invalid_value size"},
		{kindGenerations, `{"prompt":"a","size":1024}`, "invalid_type size"},
		{kindGenerations, `{"prompt":"a","size":"` + strings.Repeat("1", maxWord+1) + `"}`, "invalid_value size: Invalid value for 'size': it is too long."},
		{kindGenerations, `{"prompt":"a","aspect_ratio":"16:10"}`, "invalid_value aspect_ratio"},
		{kindGenerations, `{"prompt":"a","quality":"best"}`, "invalid_value quality"},
		{kindGenerations, `{"prompt":"a","background":"transparent"}`, "unsupported_value background"},
		{kindGenerations, `{"prompt":"a","background":"opaque","stream":false,"partial_images":0}`, ""},
		{kindGenerations, `{"prompt":"a","stream":true}`, "unsupported_value stream"},
		{kindGenerations, `{"prompt":"a","partial_images":1}`, "unsupported_value partial_images"},
		{kindGenerations, `{"prompt":"a","response_format":"png"}`, "invalid_value response_format"},
		{kindGenerations, `{"prompt":"a","output_format":"gif"}`, "invalid_value output_format"},
		{kindGenerations, `{"prompt":"a","output_compression":101}`, "invalid_value output_compression"},
		{kindGenerations, `{"prompt":"a","safety_settings":[{"category":"HARM","threshold":"OFF"}]}`, "invalid_value safety_settings[0].category"},
		{kindGenerations, `{"prompt":"a","safety_settings":[{"category":"HARASSMENT","threshold":"ON"}]}`, "invalid_value safety_settings[0].threshold"},
		{kindGenerations, `{"prompt":"a","safetySettings":[{"category":"HARASSMENT","threshold":"OFF"},{"category":"HATE_SPEECH"}]}`, "invalid_value safetySettings[1]: "},
		{kindGenerations, `{"prompt":"a","safety_settings":[{"category":"HARASSMENT","threshold":"OFF","method":"SEVERITY"}]}`, "unknown_parameter safety_settings[0].method"},
		{kindGenerations, `{"prompt":"a","safety_settings":{"category":"HARASSMENT"}}`, "invalid_type safety_settings"},
		{kindGenerations, `{"prompt":"a","safety_settings":["HARASSMENT"]}`, "invalid_type safety_settings[0]"},
		{kindGenerations, `{"prompt":"a","extra_body":{"google":{"foo":1}}}`, "unknown_parameter extra_body.google.foo: Unknown parameter: 'extra_body.google.foo'."},
		{kindGenerations, `{"prompt":"a","extraBody":{"foo":1}}`, "unknown_parameter extraBody.foo"},
		{kindGenerations, `{"prompt":"a","google":{"cached_content":"c"}}`, "unsupported_parameter google.cached_content"},
		{kindGenerations, `{"prompt":"a","google":{"thinking_config":{"include_thoughts":true}}}`, "unsupported_value google.thinking_config.include_thoughts"},
		{kindGenerations, `{"prompt":"a","google":{"thinking_config":{"include_thoughts":false,"thinking_level":"MAX"}}}`, "invalid_value google.thinking_config.thinking_level"},
		{kindGenerations, `{"prompt":"a","google":{"response_modalities":["AUDIO"]}}`, "invalid_value google.response_modalities[0]"},
		{kindGenerations, `{"prompt":"a","image_config":{"image_size":"3K"}}`, "invalid_value image_config.image_size"},

		{kindEdits, `{"prompt":"a"}`, "missing_required_parameter image"},
		{kindEdits, `{"prompt":"a","image":"data:image/png;base64,eA=="}`, ""},
		{kindEdits, `{"prompt":"a","images":[{"file_id":"f"}]}`, "unsupported_parameter images[0].file_id"},
		{kindEdits, `{"prompt":"a","image":"eA=="}`, "invalid_value image: Invalid value for 'image': it must be a data URL, or a URL with http or https."},
		{kindEdits, `{"prompt":"a","image":["data:image/png,eA=="]}`, "invalid_value image[0]: Invalid value for 'image[0]': it must be an image in base64."},
		{kindEdits, `{"prompt":"a","image":"data:image/png;base64"}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"data:image/png;base64,"}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"data:image/png;base64\u002ceA=="}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"data:image/png;base64\u002ceA==,eA=="}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"data:application/pdf;base64,eA=="}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"data:image/p\"ng;base64,eA=="}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"data:image/png\r\n;base64,eA=="}`, ""},
		{kindEdits, `{"prompt":"a","image":"gs://bucket/image.png"}`, "invalid_value image"},
		{kindEdits, `{"prompt":"a","image":"https://` + strings.Repeat("x", maxURI) + `"}`, "invalid_value image: Invalid value for 'image': it is too long."},
		{kindEdits, `{"prompt":"a","image":"https://x","mask":{"image_url":"https://x"}}`, "unsupported_parameter mask"},
		{kindEdits, `{"prompt":"a","image":"https://x","mask":null}`, ""},

		{kindChat, `{}`, "missing_required_parameter messages"},
		{kindChat, `{"messages":"a"}`, "invalid_type messages"},
		{kindChat, `{"messages":{"role":"user","content":"a"}}`, "invalid_type messages"},
		{kindChat, `{"messages":[{"role":"system","content":"a"}]}`, "missing_required_parameter messages"},
		{kindChat, `{"messages":[{"content":"a"}]}`, "missing_required_parameter messages[0].role"},
		{kindChat, `{"messages":[{"role":"tool","content":"a"}]}`, "invalid_value messages[0]"},
		{kindChat, `{"messages":[{"role":"user","content":{"text":"a"}}]}`, "invalid_type messages[0].content"},
		{kindChat, `{"messages":[{"role":"user","content":["a"]}]}`, "invalid_type messages[0].content[0]"},
		{kindChat, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"input_audio","input_audio":{"data":"x"}}]}]}`, "unsupported_value messages[0].content[1].type"},
		{kindChat, `{"messages":[{"role":"user","content":[{"file":{"file_id":"x"},"type":"file"}]}]}`, "unsupported_parameter messages[0].content[0].file"},
		{kindChat, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"x"}]}]}`, "unsupported_parameter messages[1].tool_calls"},
		{kindChat, `{"messages":[{"role":"user","content":"a","foo":"b"}]}`, "unknown_parameter messages[0].foo"},
		{kindChat, `{"messages":[{"role":"system","content":[{"type":"image_url","image_url":{"url":"https://x"}}]}]}`, "invalid_value messages[0]"},
		{kindChat, `{"messages":[{"role":"user","content":[{"image_url":{"url":"x"}}]}]}`, "invalid_value messages[0].content[0].image_url.url"},
		{kindChat, chatWith(`"tools":[{"type":"function"}]`), "unsupported_parameter tools: Unsupported parameter: 'tools' is not supported with this model."},
		{kindChat, chatWith(`"tools":[],"tool_choice":"auto","functions":[],"function_call":"none","logit_bias":{},"logprobs":false,"top_logprobs":0`), ""},
		{kindChat, chatWith(`"tool_choice":"required"`), "unsupported_value tool_choice"},
		{kindChat, chatWith(`"tool_choice":{"type":"function"}`), "unsupported_value tool_choice"},
		{kindChat, chatWith(`"logit_bias":{"1":1}`), "unsupported_parameter logit_bias"},
		{kindChat, chatWith(`"logprobs":true`), "unsupported_value logprobs"},
		{kindChat, chatWith(`"response_format":{"type":"text"}`), ""},
		{kindChat, chatWith(`"response_format":{"type":"json_object"}`), "unsupported_value response_format.type"},
		{kindChat, chatWith(`"response_format":{"json_schema":{"name":"x"}}`), "unsupported_parameter response_format.json_schema"},
		{kindChat, chatWith(`"n":2`), "invalid_value n"},
		{kindChat, chatWith(`"size":"1024x1024"`), "unknown_parameter size"},
		{kindChat, chatWith(`"modalities":["text","audio"]`), "invalid_value modalities[1]"},
		{kindChat, chatWith(`"modalities":"image"`), "invalid_type modalities"},
		{kindChat, chatWith(`"temperature":"1"`), "invalid_type temperature"},
		{kindChat, chatWith(`"temperature":0.` + strings.Repeat("1", maxScalar)), "invalid_value temperature: Invalid value for 'temperature': it is too long."},
		{kindChat, chatWith(`"stream":"true"`), "invalid_type stream: Invalid type for 'stream': expected true or false."},
		{kindChat, chatWith(`"reasoning_effort":"maximal"`), "invalid_value reasoning_effort"},
		{kindChat, chatWith(`"stop":[` + many + `"x"]`), "invalid_value stop"},
		{kindChat, chatWith(`"stop":"` + strings.Repeat("x", maxWord+1) + `"`), "invalid_value stop"},
		{kindChat, chatWith(`"image_config":{"strength":1}`), "unknown_parameter image_config.strength"},
	} {
		got := strings.TrimPrefix(told(mustReadOpenAI(t, tt.kind, tt.body), tt.body), "foreign ")
		if tt.want == "" && strings.Contains(got, "_parameter ") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%.300s\n got %s\nwant %s", tt.body, got, tt.want)
		}
	}
}

// chatWith is a chat with other fields.
func chatWith(fields string) string {
	return `{"messages":[{"role":"user","content":"a"}],` + fields + `}`
}

// TestOpenAITold has what the golden files would have at too great a length.
func TestOpenAITold(t *testing.T) {
	const chatA = "user\n  text \"a\"\n"
	for _, tt := range []struct {
		kind       openAIKind
		body, want string
	}{
		{kindChat, chatWith(`"reasoning_effort":"none"`), chatA + "thinkingLevel \"low\"\n"},
		{kindChat, chatWith(`"reasoning_effort":"xhigh"`), chatA + "thinkingLevel \"high\"\n"},
		{kindChat, chatWith(`"max_tokens":5`), chatA + "maxOutputTokens 5\n"},
		{kindChat, chatWith(`"max_tokens":5,"max_completion_tokens":7`), chatA + "maxOutputTokens 7\n"},
		{kindChat, chatWith(`"max_completion_tokens":7,"max_tokens":5`), chatA + "maxOutputTokens 7\n"},
		{kindChat, chatWith(`"image_config":{"aspect_ratio":"auto"}`), chatA},
		{kindChat, chatWith(`"stop":"x\u0079"`), chatA + "stopSequences [\"xy\"]\n"},
		{kindChat, chatWith(`"modalities":["text"]`), chatA + "writes true\n"},
		{kindChat, chatWith(`"modalities":["IMAGE"]`), chatA + "draws true\nimages alone true\n"},
		{kindChat, chatWith(`"modalities":[]`), chatA},
		{kindChat, chatWith(`"imageConfig":{"aspectRatio":"8:1","imageSize":"0.5k"}`), chatA + "draws true\naspect 8:1\nsize 512\n"},
		{kindChat, chatWith(`"store":false,"parallel_tool_calls":true,"metadata":{"a":"b"}`), chatA + "dropped parallel_tool_calls, metadata\n"},
		{kindChat, `{"messages":[{"content":"a","role":"user","name":"n"},{"content":"b","name":"n","role":"user"},{"role":"assistant","content":null,"refusal":null}]}`, chatA + "user\n  text \"b\"\ndropped messages[].name\n"},
		{kindChat, chatWith(`"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}`), chatA + "stream true\nstream usage true\n"},
		{kindGenerations, `{"prompt":"a","quality":"hd"}`, "user\n  text \"a\"\ndraws true\nimages alone true\nfine true\nown quality hd\n"},
		{kindGenerations, `{"quality":"high","prompt":"a","size":"1024x1024"}`, "user\n  text \"a\"\ndraws true\nimages alone true\naspect 1:1\nsize 1K\nfine true\nown quality high\n"},
		{kindGenerations, `{"prompt":"a","quality":"high","size":"16:9"}`, "user\n  text \"a\"\ndraws true\nimages alone true\naspect 16:9\nfine true\nown quality high\n"},
		{kindGenerations, `{"prompt":"a","quality":"low","style":"vivid","user":"u","moderation":"low","output_format":"webp"}`, "user\n  text \"a\"\ndraws true\nimages alone true\nown quality low\nown style vivid\nown user u\nown moderation low\noutput image/webp\n"},
		{kindGenerations, `{"prompt":"a","google":{"response_modalities":["TEXT","IMAGE"]}}`, "user\n  text \"a\"\ndraws true\nwrites true\n"},
		{
			kindGenerations, `{"prompt":"a","safety_settings":[{"threshold":"off","category":"harassment"}],"extra_body":{"safety_settings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"},{"category":"HARM_CATEGORY_JAILBREAK","threshold":"OFF"}]}}`,
			"user\n  text \"a\"\ndraws true\nimages alone true\nsafety HARM_CATEGORY_HARASSMENT BLOCK_NONE\nsafety HARM_CATEGORY_JAILBREAK OFF\n",
		},
		{kindEdits, `{"image":["data:;base64,iVBORw0KGgo=","data:image\/jpg;x=y;BASE64,\u0065A==",{"url":"HTTPS:\/\/x"}],"prompt":"a"}`, "user\n  text \"a\"\n  image image/png \"\\x89PNG\\r\\n\\x1a\\n\"\n  image image/jpeg \"x\"\n  image at HTTPS://x\ndraws true\nimages alone true\n"},
		{kindEdits, `{"images":[{"image_url":{"url":"data:application/octet-stream;base64,_9j_"}}],"prompt":"a"}`, "user\n  text \"a\"\n  image image/jpeg \"\\xff\\xd8\\xff\"\ndraws true\nimages alone true\n"},
	} {
		if got := told(mustReadOpenAI(t, tt.kind, tt.body), tt.body); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.body, got, tt.want)
		}
	}
}

// TestOpenAIIsBounded takes no more than a brief may have, in whichever way it comes.
func TestOpenAIIsBounded(t *testing.T) {
	address := `"https://` + strings.Repeat("x", maxURI-len("https://")) + `"`
	for name, tt := range map[string]struct {
		kind               openAIKind
		limit              int
		before, one, after string
		param              string
	}{
		"parts":     {kindChat, maxParts, `{"messages":[{"role":"user","content":[`, `{"text":"a"}`, `]}]}`, "messages[0].content[10000]"},
		"messages":  {kindChat, maxParts, `{"messages":[`, `{"content":"a","role":"user"}`, `]}`, "messages[10000].content"},
		"images":    {kindEdits, maxParts, `{"prompt":"a","image":[`, `"data:image/png;base64,eA=="`, `]}`, "image[10000]"},
		"addresses": {kindEdits, maxKept / maxURI, `{"prompt":"a","image":[`, address, `]}`, "image[128]"},
		"settings":  {kindChat, maxListed, `{"messages":[{"role":"user","content":"a"}],"safety_settings":[`, `{"category":"HARASSMENT","threshold":"OFF"}`, `]}`, "safety_settings[64].category"},
		"stops":     {kindChat, maxListed, `{"messages":[{"role":"user","content":"a"}],"stop":[`, `"a"`, `]}`, "stop[64]"},
	} {
		for _, more := range []int{0, 1} {
			body := tt.before + strings.Repeat(tt.one+",", tt.limit+more-1) + tt.one + tt.after
			b, err := readOpenAIPieces(tt.kind, body, 0)
			if err != nil || (b.foreign == nil) != (more == 0) || more == 1 && (b.foreign.param != tt.param || b.foreign.code != "invalid_value") {
				t.Errorf("%s and %d: %+v %v", name, more, b.foreign, err)
			}
		}
	}
}

func TestOpenAIReadersFail(t *testing.T) {
	for _, kind := range []openAIKind{kindGenerations, kindEdits, kindChat} {
		for _, body := range []string{"", "{", `{"prompt":"a"`, `{"prompt":"\x"}`, `{"prompt":"a"}{}`, `{"foo":1,}`} {
			if b, err := readOpenAI(t, kind, body); !errors.Is(err, errMalformed) || b != nil {
				t.Errorf("%s %q: %+v, %v", kind, body, b, err)
			}
		}
	}
	broken := iotest.ErrReader(os.ErrDeadlineExceeded)
	if _, err := readBriefChat(broken); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := readBriefForm(broken, testBoundary); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
