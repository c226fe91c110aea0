// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
)

// candidateWith is an answer with one candidate of these members.
func candidateWith(members string) string { return `{"candidates":[{` + members + `}]}` }

// parts is a candidate's content.
func parts(list string) string { return `"content":{"parts":[` + list + `]}` }

// chatAnswerWith is an answer of OpenAI's chat with a message of these members.
func chatAnswerWith(members string) string {
	return `{"choices":[{"index":0,"message":{"role":"assistant",` + members + `},"finish_reason":"STOP"}]}`
}

// TestShapes tries what answers may look like: order, spelling and type of
// fields promise nothing.
func TestShapes(t *testing.T) {
	const (
		image   = `{"inlineData":{"mimeType":"image/png","data":"AAAA"}}`
		draft   = `{"inlineData":{"data":"AAAA"},"thought":true}`
		speech  = `{"inlineData":{"mimeType":"audio/L16","data":"AAAA"}}`
		words   = `{"text":"Sorry, no."}`
		noImage = `"finishReason":"NO_IMAGE"`
		blocked = `"finishReason":"IMAGE_SAFETY"`
		stop    = `"finishReason":"STOP"`
		prompt  = `"promptFeedback":{"blockReason":"SAFETY"}`
		lookout = `{"text":"\"finishReason\":\"IMAGE_SAFETY\" {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}} \\"}`
		empty   = reasonEmpty
		cut     = reasonUnavailable
	)
	for _, c := range []struct {
		name   string
		expect expectation
		body   string
		reason string // of the verdict; none = delivered
	}{
		// Order.
		{"finish before content", imageCall, candidateWith(noImage + "," + parts(image)), "NO_IMAGE"},
		{"finish before content, drafts asked for", withDrafts, candidateWith(noImage + "," + parts(image)), "NO_IMAGE"},
		{"finish before content and no block", imagesAlone, candidateWith(stop + "," + parts(image)), ""},
		{"thought before data", withDrafts, candidateWith(noImage + "," + parts(`{"thought":true,"inlineData":{"data":"AA"}}`)), "NO_IMAGE"},
		{"thought after data", withDrafts, candidateWith(parts(draft) + "," + noImage), "NO_IMAGE"},
		{"block of the prompt behind empty candidates", imageCall, `{"candidates":[],` + prompt + `}`, "SAFETY"},
		{"block of the prompt behind a candidate", textCall, `{"candidates":[{` + stop + `}],` + prompt + `}`, "SAFETY"},
		{"block of the prompt before an image", imageCall, `{` + prompt + `,"candidates":[{` + parts(image) + `}]}`, "SAFETY"},
		{"second candidate blocked", textCall, `{"candidates":[{` + stop + `},{` + blocked + `}]}`, "IMAGE_SAFETY"},
		{"first candidate blocked, second an image", imageCall, `{"candidates":[{` + blocked + `},{` + parts(image) + `}]}`, "IMAGE_SAFETY"},
		{"index behind finish", textCall, candidateWith(blocked + `,"index":3`), "IMAGE_SAFETY"},

		// Drafts.
		{"only a draft, STOP", withDrafts, candidateWith(parts(draft) + "," + stop), ""},
		{"only a draft, STOP, images alone", expectation{image: true, imagesAlone: true, thoughts: true}, candidateWith(parts(draft) + "," + stop), ""},
		{"not a draft", withDrafts, candidateWith(parts(`{"inlineData":{"data":"AA"},"thought":false}`) + "," + noImage), ""},
		{"a draft and words", expectation{image: true, imagesAlone: true, thoughts: true}, candidateWith(parts(`{"text":"hm","thought":true},`+words) + "," + stop), "NO_IMAGE"},

		// Text that quotes an answer, and keys elsewhere.
		{"quoted", textCall, candidateWith(parts(lookout) + "," + stop), ""},
		{"quoted in escapes", textCall, candidateWith(parts(`{"text":"\u0022finishReason\u0022:\u0022IMAGE_SAFETY\u0022"}`) + "," + stop), ""},
		{"keys of an argument", textCall, candidateWith(parts(`{"functionCall":{"args":{"finishReason":"SAFETY","candidates":[{"finishReason":"SAFETY"}]}}}`) + "," + stop), ""},
		{"keys of other objects", textCall, `{"finishReason":"SAFETY","blockReason":"SAFETY","x":{"promptFeedback":{"blockReason":"SAFETY"},"candidates":[{"finishReason":"SAFETY"}]},"candidates":[{"content":{"finishReason":"SAFETY"},"y":[{"finishReason":"SAFETY"}]}]}`, ""},
		{"one level too deep", textCall, `{"candidates":[[{"finishReason":"SAFETY"}]],"promptFeedback":[{"blockReason":"SAFETY"}]}`, ""},
		{"escaped key", textCall, candidateWith(`"finish\u0052eason":"SAFETY"`), "SAFETY"},
		{"escaped colon", textCall, candidateWith(`"\u0066inishReason":"SAFETY","finishMessage":"\":{}[]"`), "SAFETY"},
		{"snake case", textCall, `{"prompt_feedback":{"block_reason":"SAFETY"}}`, "SAFETY"},
		{"white space", textCall, "\n\t{ \"candidates\"\r\n : [ { \"finishReason\" \n:\t\"SAFETY\" } ] } \n", "SAFETY"},

		// Types.
		{"candidates an object", textCall, `{"candidates":{"0":{"finishReason":"SAFETY"}}}`, ""},
		{"candidates null", textCall, `{"candidates":null}`, ""},
		{"candidates null and an unknown block", textCall, `{"candidates":null,"promptFeedback":{"blockReason":"NEWS"}}`, "NEWS"},
		{"candidates and an unknown block", textCall, `{"candidates":[{}],"promptFeedback":{"blockReason":"NEWS"}}`, ""},
		{"candidates of odd types", textCall, `{"candidates":[null,1,"a",[],{"finishReason":"SAFETY"}]}`, "SAFETY"},
		{"parts null", imagesAlone, candidateWith(`"content":{"parts":null},` + stop), "NO_IMAGE"},
		{"parts of odd types", imagesAlone, candidateWith(`"content":{"parts":[null,{},[],"a",{"inlineData":null},{"inlineData":{"data":""}}]},` + stop), "NO_IMAGE"},
		{"feedback without reason", textCall, `{"promptFeedback":{"safetyRatings":[{"probability":"HIGH"}]}}`, ""},
		{"feedback null", textCall, `{"promptFeedback":null}`, ""},

		// What is due.
		{"words", imagesAlone, candidateWith(parts(words) + "," + stop), "NO_IMAGE"},
		{"words where no_image is error", expectation{image: true, noImage: noImageError}, candidateWith(parts(words) + "," + stop), "NO_IMAGE"},
		{"words where no_image is pass", expectation{image: true, noImage: noImagePass, imagesAlone: true}, candidateWith(parts(words) + "," + stop), ""},
		{"words of a text model", expectation{noImage: noImageError}, candidateWith(parts(words) + "," + stop), ""},
		{"words and CONTINUATION", imagesAlone, candidateWith(parts(words) + `,"finishReason":"CONTINUATION"`), ""},
		{"a tool call", imagesAlone, candidateWith(parts(`{"functionCall":{"name":"f"}}`) + "," + stop), ""},
		{"speech", imagesAlone, candidateWith(parts(speech) + "," + stop), "NO_IMAGE"},
		{"Imagen", imagenCall, `{"predictions":[{"bytesBase64Encoded":"AA","mimeType":"image/png"}]}`, ""},
		{"Imagen in a bucket", imagenCall, `{"predictions":[{"gcsUri":"gs://b/o"}]}`, ""},
		{"Imagen, one filtered", imagenCall, `{"predictions":[{"raiFilteredReason":"no"},{"bytesBase64Encoded":"AA"}]}`, ""},
		{"Imagen, all filtered", imagenCall, `{"predictions":[{"raiFilteredReason":"no"}]}`, "IMAGE_SAFETY"},
		{"Imagen, filtered without a word", imagenCall, `{}`, "NO_IMAGE"},
		{"OpenAI", imagenCall, `{"created":1,"data":[{"b64_json":"AA"}]}`, ""},
		{"OpenAI by URL", imagenCall, `{"data":[{"url":"https://x/y"}]}`, ""},
		{"OpenAI's images, streamed", imagenCall, `{"type":"image_generation.completed","b64_json":"AA"}`, ""},
		{"chat image", imagesAlone, chatAnswerWith(`"content":"","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]`), ""},
		{"chat image of empty URL", imagesAlone, chatAnswerWith(`"content":"no","images":[{"image_url":{"url":""}},{"image_url":{"url":null}},{"image_url":""},{"image_url":[{"url":"x"}]}]`), "NO_IMAGE"},
		{"chat image, its URL alone", imagesAlone, chatAnswerWith(`"content":"","images":[{"image_url":"data:image/png;base64,AA"}]`), ""},
		{"chat image in words", imagesAlone, chatAnswerWith(`"content":"Here: ![a [cat]](data:image/png;base64,AA==) it is"`), ""},
		{"chat image in the words of a part", imagesAlone, chatAnswerWith(`"content":[{"type":"text","text":"![](data:image\/png;base64,AA==)"}]`), ""},
		{"chat with a link", imagesAlone, chatAnswerWith(`"content":"![it](https://x/y.png)"`), "NO_IMAGE"},
		{"chat with half an image", imagesAlone, chatAnswerWith(`"content":"![it](data:image/png"`), "NO_IMAGE"},
		{"chat image behind Google's cause", imagesAlone, `{"choices":[{"native_finish_reason":"IMAGE_SAFETY","finish_reason":"stop","message":{"content":"![](data:image/png;base64,AA)"}}]}`, "IMAGE_SAFETY"},
		{"chat, another company's cause", imageCall, `{"choices":[{"message":{"content":"no"},"finish_reason":"stop","native_finish_reason":"end_turn"}]}`, ""},
		{"chat, an error of the choice", imageCall, `{"choices":[{"message":{"content":"no"},"finish_reason":"error","error":{"code":"server_error"}}]}`, "SERVER_ERROR"},
		{"chat, none of the choice", imageCall, `{"choices":[{"message":{"content":"no"},"finish_reason":"stop","error":null}]}`, ""},
		{"chat image among parts", imagesAlone, chatAnswerWith(`"content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://x/y"}}]`), ""},
		{"chat without an image", imagesAlone, chatAnswerWith(`"content":"no"`), "NO_IMAGE"},
		{"chat, a refusal", imagesAlone, chatAnswerWith(`"content":null,"refusal":"no"`), "NO_IMAGE"},
		{"chat where words will do", imageCall, chatAnswerWith(`"content":"no"`), ""},
		{"chat image behind a block", imagesAlone, `{"promptFeedback":{"blockReason":"SAFETY"},` + chatAnswerWith(`"images":[{"image_url":{"url":"A"}}]`)[1:], "SAFETY"},
		{"chat, a tool call", imagesAlone, chatAnswerWith(`"content":null,"tool_calls":[{}]`), ""},
		{"OpenAI without an image", imagenCall, `{"created":1,"data":[]}`, "NO_IMAGE"},

		// No answers.
		{"nothing", textCall, "", empty},
		{"white space alone", textCall, " \n", empty},
		{"empty object", textCall, "{}", empty},
		{"empty array", textCall, "[]", empty},
		{"null", textCall, "null", empty},
		{"a string", textCall, `"hello"`, empty},
		{"a number", textCall, "42", empty},
		{"HTML", imageCall, "<!DOCTYPE html><html>{}</html>", empty},
		{"events nobody asked for", textCall, events(hello), empty},
		{"cut", textCall, `{"candidates":[{"content":{"parts":[{"text":"He`, cut},
		{"cut before the last bracket", imageCall, `{"candidates":[{"finishReason":"STOP"}]`, cut},
		{"cut behind a block", imageCall, `{"candidates":[{"finishReason":"SAFETY"}]`, "SAFETY"},
		{"not quite JSON", textCall, `{"candidates":[{]}`, cut},
		{"an error in a 200", imageCall, `{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}`, "UNAVAILABLE"},
		{"its code as a string", imageCall, `{"error":{"code":"503","status":"UNAVAILABLE"}}`, "UNAVAILABLE"},
		{"an error behind words", imagesAlone, `{"candidates":[{` + stop + `}],"error":{"code":500,"status":"INTERNAL"}}`, "INTERNAL"},
		{"an error with its reason", textCall, `{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{},{"reason":"API_KEY_INVALID"}]}}`, "API_KEY_INVALID"},
		{"an error that is none", textCall, `{"error":{"code":200},"candidates":[]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			variants(t, c.body, func(name string, source io.Reader) {
				p := play(source, formUnary, c.expect, noLimit)
				if p.verdict.reason != c.reason {
					t.Fatalf("%s: %+v, want %s", name, p.verdict, c.reason)
				}
				if c.reason == "" && p.body(t) != c.body {
					t.Fatalf("%s: not the same bytes", name)
				}
			})
		})
	}
}

// A child-safety code makes any block final.
func TestChildSafetyIsFinal(t *testing.T) {
	const said = `Filtered. Support codes: 39322892, 58061214`
	for _, said := range []string{
		"Support codes: 39322892 and 58061214", "Support codes: 39322892; 58061214", "Support codes: 39322892 (People), 58061214 (Child)",
		"Support code (58061214)", "support code #17301594", "Error code: 58061214", "17301594",
	} {
		for _, reason := range []string{"SAFETY", "STOP"} {
			body := candidateWith(`"finishMessage":"` + said + `","finishReason":"` + reason + `"`)
			if p := play(strings.NewReader(body), formUnary, imagenCall, noLimit); p.verdict.class != classForbidden {
				t.Errorf("%s: %+v", body, p.verdict)
			}
		}
	}
	for _, body := range []string{
		candidateWith(`"finishReason":"IMAGE_SAFETY","finishMessage":"` + said + `"`),
		candidateWith(`"finishMessage":"` + said + `","finishReason":"IMAGE_SAFETY"`),
		`{"promptFeedback":{"blockReasonMessage":"` + said + `","blockReason":"IMAGE_SAFETY"}}`,
		`{"predictions":[{"raiFilteredReason":"` + said + `"}]}`,
	} {
		p := play(strings.NewReader(body), formUnary, imagenCall, noLimit)
		if p.verdict.class != classForbidden || p.verdict.reason != "IMAGE_SAFETY" || p.verdict.said != said {
			t.Errorf("%s: %+v", body, p.verdict)
		}
	}
}

func TestFactsForTheAccounts(t *testing.T) {
	for _, c := range []struct {
		form streamForm
		body string
		want facts // of what is compared
	}{
		{formUnary, `{"usageMetadata":{"promptTokenCount":16,"candidatesTokenCount":1518,"totalTokenCount":1708,"thoughtsTokenCount":174},"modelVersion":"gemini-3-pro-image"}`, facts{usage: usage{input: 16, output: 1518, thinking: 174}}},
		{formUnary, `{"usageMetadata":{"promptTokenCount":16,"candidatesTokenCount":-1,"thoughtsTokenCount":1e99}}`, facts{usage: usage{input: 16}}},
		{formUnary, `{"usageMetadata":{"promptTokenCount":99999999999999999999,"promptTokensDetails":[{"tokenCount":3}]}}`, facts{}},
		{formEvents, events(`{"usageMetadata":{"promptTokenCount":4}}`, `{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":7}}`), facts{usage: usage{input: 5, output: 7}}},
		{formOpenAI, events(`{"model":"gemini-2.5-flash","choices":[]}`, `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}`, "[DONE]"), facts{usage: usage{input: 3, output: 4}}},
		{formUnary, `{"data":[{"b64_json":"AA"},{"b64_json":"AA"},{"revised_prompt":"x"}]}`, facts{images: 2}},
		{formUnary, candidateWith(parts(`{"inlineData":{"mimeType":"IMAGE/PNG","data":"A"}},{"inlineData":{"data":"A","mimeType":"audio/wav"}},{"fileData":{"mimeType":"video/mp4","fileUri":"x"}},{"inlineData":{"data":"A"},"thought":true}`)), facts{images: 1, drafts: 1}},
		{formArray, array(pixel, pixel), facts{images: 2}},
		{formUnary, chatAnswerWith(`"images":[{"image_url":{"url":"A"}},{"image_url":{"url":"B"}}],"content":[{"image_url":{"url":"C"}},{"text":"D"}]`), facts{images: 3}},
		{formOpenAI, events(`{"choices":[{"delta":{"content":"a"}}]}`, `{"choices":[{"delta":{"images":[{"image_url":{"url":"A"}},{"image_url":{"url":"B"}}]}}]}`, `{"choices":[{"delta":{"content":[{"image_url":{"url":"C"}}]}}]}`, "[DONE]"), facts{images: 3}},
		{formOpenAI, events(`{"choices":[{"delta":{"content":"A ![b"}}]}`, `{"choices":[{"delta":{"content":"](data:image/png;base64,AA"}}]}`, `{"choices":[{"delta":{"content":"AA) c! ![](data:image/png;base64,"}}]}`, "[DONE]"), facts{images: 1}},
		{formUnary, `{"usageMetadata":{"promptTokenCount":260,"promptTokensDetails":[{"modality":"IMAGE","tokenCount":200},{"modality":"TEXT","tokenCount":2},{"modality":"IMAGE","tokenCount":58}]}}`, facts{usage: usage{input: 260}, inputImage: 258}},
		{formOpenAI, events(`{"type":"image_generation.partial_image","b64_json":"A","partial_image_index":0}`, `{"partial_image_index":1,"b64_json":"A"}`, `{"b64_json":"A","usage":{"input_tokens":3}}`), facts{images: 1, drafts: 2, usage: usage{input: 3}}},
	} {
		p := play(strings.NewReader(c.body), c.form, expectation{}, noLimit)
		p.body(t)
		got := facts{usage: p.scan.usage, inputImage: p.scan.inputImage, images: p.scan.images, drafts: p.scan.drafts}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.body, got, c.want)
		}
	}
}

// What a client is told of a refusal: all that was said, but no more than is worth it.
func TestTextOfAChat(t *testing.T) {
	long := strings.Repeat("long ", maxText)
	for _, c := range []struct {
		form streamForm
		body string
		want string
	}{
		{formUnary, chatAnswerWith(`"content":"No."`), "No."},
		{formUnary, chatAnswerWith(`"content":null,"refusal":"No."`), "No."},
		{formUnary, chatAnswerWith(`"content":[{"text":"No, "},{"type":"text","text":"thanks."}]`), "No, thanks."},
		{formUnary, chatAnswerWith(`"content":"` + long + `","refusal":"No."`), long[:maxText]},
		{formOpenAI, events(`{"choices":[{"delta":{"content":"No, "}}]}`, `{"choices":[{"delta":{"refusal":"thanks."}}]}`, "[DONE]"), "No, thanks."},
	} {
		if got := string(factsOf(t, c.form, c.body).text); got != c.want {
			t.Errorf("%.100s: %q, want %q", c.body, got, c.want)
		}
	}
}

// factsOf is what an answer says, when it is only listened to.
func factsOf(t *testing.T, form streamForm, body string) *facts {
	t.Helper()
	p := play(strings.NewReader(body), form, expectation{}, noLimit)
	_, _ = io.Copy(io.Discard, p) // some are cut
	return p.scan.facts
}

func TestUsage(t *testing.T) {
	metadata := func(members string) string { return `{"usageMetadata":{` + members + `}}` }
	openAI := func(members string) string { return `{"choices":[],"usage":{` + members + `}}` }
	for _, c := range []struct {
		name string
		form streamForm
		body string
		want usage
	}{
		{"image tokens, modality first", formUnary, metadata(`"candidatesTokenCount":9,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":7}]`), usage{output: 9, image: 7}},
		{"count first, details before the count", formUnary, metadata(`"candidatesTokensDetails":[{"tokenCount":7,"modality":"IMAGE"}],"candidatesTokenCount":9`), usage{output: 9, image: 7}},
		{"several images among others", formUnary, metadata(`"candidatesTokenCount":20,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":7},{"modality":"TEXT","tokenCount":5},{"tokenCount":1},{"modality":"IMAGE","tokenCount":8}]`), usage{output: 20, image: 15}},
		{"modality as a number", formUnary, metadata(`"candidatesTokenCount":9,"candidatesTokensDetails":[{"modality":1,"tokenCount":2},{"modality":2,"tokenCount":7}]`), usage{output: 9, image: 7}},
		{"images of the prompt", formUnary, metadata(`"promptTokenCount":260,"promptTokensDetails":[{"modality":"IMAGE","tokenCount":258}]`), usage{input: 260}},
		{"snake case", formUnary, `{"usage_metadata":{"prompt_token_count":3,"candidates_token_count":9,"candidates_tokens_details":[{"modality":"IMAGE","token_count":7}]}}`, usage{input: 3, output: 9, image: 7}},
		{"details without their sum", formUnary, metadata(`"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":7}]`), usage{output: 7, image: 7}},
		{"details of odd types", formUnary, metadata(`"candidatesTokenCount":9,"candidatesTokensDetails":[null,3,[{"modality":"IMAGE","tokenCount":7}],{"modality":["IMAGE"],"tokenCount":7},{"modality":"IMAGE","tokenCount":null},{"modality":"IMAGE","tokenCount":-4}]`), usage{output: 9}},
		{"tools", formUnary, metadata(`"promptTokenCount":80,"toolUsePromptTokenCount":237,"candidatesTokenCount":173,"thoughtsTokenCount":60,"totalTokenCount":550`), usage{input: 317, output: 173, thinking: 60}},
		{"output that mirrors the thoughts", formUnary, metadata(`"promptTokenCount":18,"candidatesTokenCount":220,"thoughtsTokenCount":220,"totalTokenCount":238`), usage{input: 18, thinking: 220}},
		{"not whole", formUnary, metadata(`"promptTokenCount":3.5,"candidatesTokenCount":"7","thoughtsTokenCount":true`), usage{}},
		{"more than there can be", formUnary, metadata(`"promptTokenCount":2147483648,"candidatesTokenCount":2147483647`), usage{output: 1<<31 - 1}},

		{"the last chunk replaces all", formEvents, events(
			metadata(`"promptTokenCount":5,"candidatesTokenCount":9,"thoughtsTokenCount":4,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":7}]`),
			metadata(`"promptTokenCount":5,"candidatesTokenCount":8`),
		), usage{input: 5, output: 8}},
		{"a chunk without numbers replaces nothing", formEvents, events(
			metadata(`"promptTokenCount":5,"candidatesTokenCount":9,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":7}]`),
			metadata(`"trafficType":"ON_DEMAND"`), `{"usageMetadata":null}`, `{"usageMetadata":[]}`,
		), usage{input: 5, output: 9, image: 7}},
		{"a chunk that is cut", formEvents, events(metadata(`"promptTokenCount":5`)) + `data: {"usageMetadata":{"promptTokenCount":6`, usage{input: 5}},
		{"array", formArray, array(metadata(`"promptTokenCount":5`), metadata(`"promptTokenCount":6`)), usage{input: 6}},

		{"OpenAI counts thinking within the output", formUnary, openAI(`"prompt_tokens":3,"completion_tokens":10,"total_tokens":13,"completion_tokens_details":{"reasoning_tokens":4}`), usage{input: 3, output: 6, thinking: 4}},
		{"without a total", formUnary, openAI(`"completion_tokens_details":{"reasoning_tokens":4},"completion_tokens":10,"prompt_tokens":3`), usage{input: 3, output: 6, thinking: 4}},
		{"more thinking than output", formUnary, openAI(`"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"completion_tokens_details":{"reasoning_tokens":4}`), usage{input: 3, thinking: 2}},
		{"thinking beside the output", formUnary, openAI(`"prompt_tokens":21,"completion_tokens":0,"total_tokens":81,"completion_tokens_details":{"reasoning_tokens":60}`), usage{input: 21, thinking: 60}},
		{"Google tells OpenAI's clients in the total alone", formOpenAI, events(openAI(`"completion_tokens":1,"prompt_tokens":9,"total_tokens":103`), openAI(`"completion_tokens":3,"prompt_tokens":9,"total_tokens":105`), "[DONE]"), usage{input: 9, output: 3, thinking: 93}},
		{"images by chat", formUnary, openAI(`"completion_tokens":1337,"prompt_tokens":533,"total_tokens":1870,"completion_tokens_details":{"reasoning_tokens":217,"text_tokens":0,"image_tokens":1120}`), usage{input: 533, output: 1120, thinking: 217, image: 1120}},
		{"images", formUnary, `{"data":[{"b64_json":"AA"}],"usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40},"output_tokens_details":{"image_tokens":45,"text_tokens":5}}}`, usage{input: 50, output: 50, image: 45}},
		{"null", formOpenAI, events(openAI(`"prompt_tokens":3`), `{"choices":[],"usage":null}`), usage{input: 3}},

		{"Interactions", formUnary, `{"usage":{"total_tokens":1549,"total_input_tokens":10,"total_output_tokens":1524,"output_tokens_by_modality":[{"modality":"image","tokens":1120}],"total_thought_tokens":8,"total_tool_use_tokens":7}}`, usage{input: 17, output: 1524, thinking: 8, image: 1120}},
		{"Interactions, streamed", formEvents, events(`{"interaction":{"status":"in_progress"}}`, `{"interaction":{"usage":{"total_tokens":148,"total_input_tokens":7,"total_output_tokens":26,"total_thought_tokens":115}}}`), usage{input: 7, output: 26, thinking: 115}},
	} {
		if got := factsOf(t, c.form, c.body).usage; got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestRecordedUsage(t *testing.T) {
	for _, c := range []struct {
		file      string
		form      streamForm
		want      usage
		model, id string
	}{
		{"image_ok_gemini20_flash_edit.json", formUnary, usage{input: 266, output: 1355, image: 1290}, "gemini-2.0-flash-preview-image-generation", "vi6maLTBCKbP_uMPm5TcqQI"},
		{"image_ok_gemini3_pro_ga.json", formUnary, usage{input: 22, output: 1216, thinking: 179, image: 1120}, "gemini-3-pro-image", "8cxparnuJ-aCg8UPx8HfwQM"},
		{"image_ok_vertex_gemini25_flash.json", formUnary, usage{input: 9, output: 1295, image: 1290}, "gemini-2.5-flash-image", "xm7vaOLiB56L3dAPsp7kmA0"},
		{"image_stream_gemini20_flash.sse", formEvents, usage{input: 15, output: 1318, image: 1290}, "gemini-2.0-flash-preview-image-generation", "mS77aIOaD5qFvr0P1b_T4AY"},
		{"thought_stream_gemini25.sse", formEvents, usage{input: 10, output: 48, thinking: 540}, "gemini-2.5-flash", "0J-HaJetAqv0jrEPwu-tsQ0"},
		{"blocked_image_safety_gemini3_pro.json", formUnary, usage{input: 18, thinking: 220}, "gemini-3-pro-image", "RECONSTRUCTED"},
		{"prompt_blocked_prohibited_content_array_stream.json", formArray, usage{input: 8175}, "gemini-3-pro-preview", "-nV9aePBK962odAPgsTH8QQ"},
		{"interactions_ok_image.json", formUnary, usage{input: 10, output: 1524, image: 1120}, "gemini-3.1-flash-image", "v1_ChdGT09YYW9VTl9yN25zRVB2NW5Td1Fv"},
		{"interactions_stream_text.sse", formEvents, usage{input: 7, output: 26, thinking: 115}, "gemini-2.5-flash", "v1_ChdUR3NIYXVyQkFlYVA2ZGtQajZERThBVRIXVEdzSGF1ckJBZWFQNmRrUGo2REU4QVU"},
	} {
		got := factsOf(t, c.form, string(fixture(t, c.file)))
		if got.usage != c.want || got.modelVersion != c.model || got.responseID != c.id {
			t.Errorf("%s: %+v %s %s", c.file, got.usage, got.modelVersion, got.responseID)
		}
	}
}

func TestAnswerNames(t *testing.T) {
	for _, c := range []struct{ body, model, id string }{
		{`{"modelVersion":"gemini-3-pro-image","responseId":"-ySmaKa_0"}`, "gemini-3-pro-image", "-ySmaKa_0"},
		{`{"id":"chatcmpl-1","model":"google/gemini-2.5-flash:free","choices":[]}`, "google/gemini-2.5-flash:free", "chatcmpl-1"},
		{`{"modelVersion":"a b","responseId":"x\ny","model":"caf\u00e9"}`, "", ""},
		{`{"modelVersion":null,"responseId":7}`, "", "7"},
		{`{"candidates":[{"modelVersion":"m"}],"x":{"id":"i"}}`, "", ""},
		{`[{"modelVersion":"first","responseId":""},{"modelVersion":"second","responseId":"i"}]`, "first", "i"},
		{`{"responseId":"` + strings.Repeat("i", 9*maxWord) + `"}`, "", strings.Repeat("i", maxWord)},
	} {
		if got := factsOf(t, formArray, c.body); got.modelVersion != c.model || got.responseID != c.id {
			t.Errorf("%.80s: %q %q", c.body, got.modelVersion, got.responseID)
		}
	}
}

// TestFramings has the same block, and the same answer, in every frame.
func TestFramings(t *testing.T) {
	big := candidateWith(parts(`{"text":"` + strings.Repeat("long ", 1<<18) + `","thoughtSignature":"` + strings.Repeat("AAAA", 1<<18) + `"}`))
	pretty := "{\n  \"candidates\": [\n    {\n      \"finishReason\": \"SAFETY\"\n    }\n  ]\n}\n"
	usage := `{"usageMetadata":{"promptTokenCount":5}}`
	for _, c := range []struct {
		name   string
		form   streamForm
		body   string
		reason string
	}{
		{"LF", formEvents, "data: " + usage + "\n\ndata: " + safety + "\n\n", "SAFETY"},
		{"CRLF", formEvents, "data: " + usage + "\r\n\r\ndata: " + safety + "\r\n\r\n", "SAFETY"},
		{"mixed", formEvents, "data: " + usage + "\r\n\ndata: " + safety + "\n\r\n", "SAFETY"},
		{"no space", formEvents, "data:" + safety + "\n\n", "SAFETY"},
		{"no blank line at the end", formEvents, "data: " + usage + "\n\ndata: " + safety, "SAFETY"},
		{"no blank line between", formEvents, "data: " + usage + "\ndata: " + safety + "\n\n", "SAFETY"},
		{"blank lines before", formEvents, "\n\r\n\ndata: " + safety + "\n\n", "SAFETY"},
		{"comments and other fields", formEvents, ": hi\nevent: message\nid: {\nretry: 3\ndat\ndatas: {\ndata: " + safety + "\n\n", "SAFETY"},
		{"an object over several lines", formEvents, "data: {\"candidates\":[{\ndata: \"finishReason\":\ndata:\"SAFETY\"}]}\n\n", "SAFETY"},
		{"a broken event before", formEvents, "data: {]}\n\ndata: \"\n\ndata: " + safety + "\n\n", "SAFETY"},
		{"a cut event before", formEvents, "data: {\"candidates\":[\n\ndata: " + safety + "\n\n", "SAFETY"},
		{"megabytes", formEvents, "data: " + big + "\n\ndata: " + safety + "\n\n", ""},
		{"bare object", formEvents, pretty, "SAFETY"},
		{"bare object behind an event", formEvents, "data: " + usage + "\n\n" + pretty, "SAFETY"},
		{"broken bare lines", formEvents, "[DONE]\n{]}\ndata: " + safety + "\n\n", "SAFETY"},
		{"bare error", formEvents, "data: " + usage + "\r\n\r\n{\n  \"error\": {\n    \"code\": 503,\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n", "UNAVAILABLE"},
		{"a JSON array where events are due", formEvents, array(usage, safety), "SAFETY"},
		{"cut", formEvents, "data: " + usage + "\n\ndata: {\"candi", reasonUnavailable},
		{"[DONE] alone", formOpenAI, "data: [DONE]\n\n", reasonEmpty},
		{"no events", formEvents, ": nothing\n\n", reasonEmpty},
		{"OpenAI", formOpenAI, events(filtered, "[DONE]"), "CONTENT_FILTER"},
		{"OpenAI delivered", formOpenAI, events(choice, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, "[DONE]"), ""},
		{"array", formArray, array(usage, safety), "SAFETY"},
		{"array without white space", formArray, "[" + usage + "," + safety + "]", "SAFETY"},
		{"array, megabytes", formArray, array(big, safety), ""},
		{"array with an error", formArray, array(`{"error":{"code":503,"status":"UNAVAILABLE"}}`), "UNAVAILABLE"},
		{"array cut", formArray, "[" + usage + ",\n", reasonUnavailable},
		{"array never begun", formArray, " ", reasonEmpty},
		{"an object where an array is due", formArray, pretty, "SAFETY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{0, 1, 2, 3, 7, 64, 4096} {
				if len(c.body) > 1<<20 && size > 0 && size < 4096 {
					continue
				}
				p := play(&pieces{body: c.body, size: size}, c.form, textCall, noLimit)
				if p.verdict.reason != c.reason {
					t.Fatalf("pieces of %d: %+v, want %s", size, p.verdict, c.reason)
				}
				if c.reason == "" && !strings.HasPrefix(p.body(t), c.body[:min(len(c.body), 2<<20)]) {
					t.Fatalf("pieces of %d: not the same bytes", size)
				}
			}
		})
	}
}

func TestExamplesAreJSON(t *testing.T) {
	for _, body := range []string{hello, hello1, pixel, safety, done1, trail, choice, filtered, late, array(hello, safety)} {
		if !json.Valid([]byte(body)) {
			t.Errorf("%s is no JSON", body)
		}
	}
}
