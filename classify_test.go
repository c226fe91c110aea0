// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

var imagenCall = expectation{image: true, imageAPI: true, noImage: noImageAuto}

// judged is what a fixture must be taken for; the zero verdict: to be delivered.
type judged struct {
	file   string
	form   streamForm
	expect expectation
	class  class
	reason string
	stage  string
	images int // delivered
}

var fixtures = []judged{
	{"image_ok_gemini20_flash_edit.json", formUnary, imageCall, classOK, "", "", 1},
	{"image_ok_gemini20_flash_preview.json", formUnary, imageCall, classOK, "", "", 1},
	{"image_ok_gemini25_flash_no_generation_config.json", formUnary, imageCall, classOK, "", "", 1},
	{"image_ok_gemini25_flash_text_and_image.json", formUnary, imageCall, classOK, "", "", 1},
	{"image_ok_gemini25_flash_text_then_image.json", formUnary, withDrafts, classOK, "", "", 1},
	{"image_ok_gemini31_flash_lite.json", formUnary, imagesAlone, classOK, "", "", 1},
	{"image_ok_gemini3_pro_ga.json", formUnary, imagesAlone, classOK, "", "", 1},
	{"image_ok_gemini3_pro_text_and_image.json", formUnary, withDrafts, classOK, "", "", 1},
	{"image_ok_vertex_empty_part.json", formUnary, imageCall, classOK, "", "", 1},
	{"image_ok_vertex_empty_safety_ratings.json", formUnary, imageCall, classOK, "", "", 1},
	{"image_ok_vertex_gemini25_flash.json", formUnary, withDrafts, classOK, "", "", 1},
	{"image_stream_gemini20_flash.sse", formEvents, imageCall, classOK, "", "", 1},
	{"image_stream_gemini25_flash_empty_parts.sse", formEvents, imagesAlone, classOK, "", "", 1},

	{"noimage_stop_text_only_gemini25_flash.json", formUnary, imageCall, classOK, "", "", 0},
	{"noimage_stop_text_only_gemini25_flash.json", formUnary, imagesAlone, classBlocked, "NO_IMAGE", stageOutput, 0},
	{"notblocked_empty_content.json", formUnary, imageCall, classOK, "", "", 0},
	{"notblocked_max_tokens_no_parts.json", formUnary, imagesAlone, classOK, "", "", 0},
	{"blocked_unknown_finish_reason.json", formUnary, textCall, classOK, "", "", 0},
	{"prompt_feedback_message_without_reason.json", formUnary, textCall, classOK, "", "", 0},
	{"stream_no_finish_reason_empty_content.sse", formEvents, textCall, classOK, "", "", 0},
	{"stream_no_finish_reason_empty_content.sse", formEvents, imageCall, classOK, "", "", 0},
	{"text_stream_gemini20_flash.sse", formEvents, textCall, classOK, "", "", 0},
	{"text_stream_gemini25_flash.sse", formEvents, textCall, classOK, "", "", 0},
	{"text_stream_gemini3_signature_on_empty_text.sse", formEvents, textCall, classOK, "", "", 0},
	{"error_midstream_499_bare_json.sse", formEvents, textCall, classOK, "", "", 0},
	{"thought_stream_gemini25.sse", formEvents, textCall, classOK, "", "", 0},
	{"thought_text_part_gemini25.json", formUnary, textCall, classOK, "", "", 0},
	{"thought_image_then_final_image.json", formUnary, withDrafts, classOK, "", "", 1},
	{"thought_only_image_is_flagged_thought.json", formUnary, withDrafts, classOK, "", "", 1},
	// The flag stands behind the data: only a client that has not asked for
	// thoughts gets its first byte before it is known for a draft.
	{"notblocked_thought_image_then_no_image.json", formUnary, withDrafts, classBlocked, "NO_IMAGE", stageOutput, 0},
	{"notblocked_thought_image_then_no_image.json", formUnary, imageCall, classOK, "", "", 0},
	{"interactions_ok_image.json", formUnary, imageCall, classOK, "", "", 1},
	{"interactions_ok_image.json", formUnary, imagesAlone, classOK, "", "", 1},
	{"interactions_ok_text.json", formUnary, textCall, classOK, "", "", 0},
	{"interactions_refusal_text.json", formUnary, imageCall, classOK, "", "", 0},
	{"interactions_refusal_text.json", formUnary, imagesAlone, classBlocked, "NO_IMAGE", stageOutput, 0},
	{"interactions_stream_text.sse", formEvents, textCall, classOK, "", "", 0},
	{"interactions_stream_text.sse", formEvents, imageCall, classOK, "", "", 0},
	{"interactions_stream_text.sse", formEvents, imagesAlone, classBlocked, "NO_IMAGE", stageOutput, 0},

	{"blocked_candidate_model_armor.json", formUnary, textCall, classForbidden, "MODEL_ARMOR", stageOutput, 0},
	{"blocked_image_other_gemini31_flash.json", formUnary, imageCall, classBlocked, "IMAGE_OTHER", stageOutput, 0},
	{"blocked_image_prohibited_content_gemini31_flash.json", formUnary, imageCall, classForbidden, "IMAGE_PROHIBITED_CONTENT", stageOutput, 0},
	{"blocked_image_prohibited_content_gemini3_pro_stream.sse", formEvents, withDrafts, classForbidden, "IMAGE_PROHIBITED_CONTENT", stageOutput, 0},
	{"blocked_image_recitation_gemini31_flash.json", formUnary, imageCall, classBlocked, "IMAGE_RECITATION", stageOutput, 0},
	{"blocked_image_safety_gemini3_pro.json", formUnary, imagesAlone, classBlocked, "IMAGE_SAFETY", stageOutput, 0},
	{"blocked_no_image_content_empty.json", formUnary, imageCall, classBlocked, "NO_IMAGE", stageOutput, 0},
	{"blocked_no_image_no_content.json", formUnary, imageCall, classBlocked, "NO_IMAGE", stageOutput, 0},
	{"blocked_no_image_stream_after_text.sse", formEvents, imageCall, classBlocked, "NO_IMAGE", stageOutput, 0},
	{"blocked_other_with_message_no_content.json", formUnary, textCall, classBlocked, "OTHER", stageOutput, 0},
	{"blocked_prohibited_content_candidate.json", formUnary, textCall, classForbidden, "PROHIBITED_CONTENT", stageOutput, 0},
	{"blocked_safety_gemini15_content_empty.json", formUnary, textCall, classBlocked, "SAFETY", stageOutput, 0},
	{"blocked_safety_gpt4free_2341.json", formUnary, textCall, classBlocked, "SAFETY", stageOutput, 0},
	{"blocked_safety_vertex_no_content.json", formUnary, textCall, classBlocked, "SAFETY", stageOutput, 0},
	{"imagen_all_filtered.json", formUnary, imagenCall, classBlocked, "IMAGE_SAFETY", stageOutput, 0},
	{"prompt_blocked_image_safety.json", formUnary, imageCall, classBlocked, "IMAGE_SAFETY", stagePrompt, 0},
	{"prompt_blocked_model_armor.json", formUnary, textCall, classForbidden, "MODEL_ARMOR", stagePrompt, 0},
	{"prompt_blocked_other.json", formUnary, textCall, classBlocked, "OTHER", stagePrompt, 0},
	{"prompt_blocked_prohibited_content.json", formUnary, textCall, classForbidden, "PROHIBITED_CONTENT", stagePrompt, 0},
	{"prompt_blocked_prohibited_content_array_stream.json", formArray, textCall, classForbidden, "PROHIBITED_CONTENT", stagePrompt, 0},
	{"prompt_blocked_prohibited_content_stream.sse", formEvents, textCall, classForbidden, "PROHIBITED_CONTENT", stagePrompt, 0},
	{"prompt_blocked_safety_stream.sse", formEvents, textCall, classBlocked, "SAFETY", stagePrompt, 0},
	{"prompt_blocked_safety_with_message.json", formUnary, textCall, classBlocked, "SAFETY", stagePrompt, 0},
}

// variants calls f with a body in pieces of every size, plain and compressed.
func variants(t *testing.T, body string, f func(name string, source io.Reader)) {
	t.Helper()
	compressed := zipped(t, body)
	for size := range 65 {
		f(fmt.Sprintf("pieces of %d", size), &pieces{body: body, size: size})
		f(fmt.Sprintf("compressed, pieces of %d", size), unzipped(&pieces{body: compressed, size: size}))
	}
}

func TestFixtures(t *testing.T) {
	for _, c := range fixtures {
		t.Run(c.file, func(t *testing.T) {
			body := string(fixture(t, c.file))
			variants(t, body, func(name string, source io.Reader) {
				p := play(source, c.form, c.expect, noLimit)
				v := p.verdict
				if v.class != c.class || v.reason != c.reason || v.stage != c.stage {
					t.Fatalf("%s: %v %s %s, want %v %s %s", name, v.class, v.reason, v.stage, c.class, c.reason, c.stage)
				}
				if c.class != classOK {
					return
				}
				if got := p.body(t); got != body {
					t.Fatalf("%s: delivered %q", name, got)
				}
				if got := p.scan.delivered(); got != c.images {
					t.Fatalf("%s: %d images, want %d", name, got, c.images)
				}
			})
		})
	}
}

// The text of this recording has gone out when its block comes.
func TestFixtureOfALateBlock(t *testing.T) {
	body := string(fixture(t, "recitation_stream_googleai.sse"))
	variants(t, body, func(name string, source io.Reader) {
		p := play(source, formEvents, textCall, noLimit)
		got := p.body(t)
		kept, _, cut := strings.Cut(got, "\r\n\r\ndata: {\"error\"")
		if p.verdict.class != classOK || !cut || !strings.HasPrefix(body, kept) || !strings.Contains(kept, "RECITATION") {
			t.Fatalf("%s: %+v, delivered %q", name, p.verdict, got)
		}
		if len(p.late) != 1 || p.late[0].reason != "RECITATION" || p.late[0].stage != stageOutput {
			t.Fatalf("%s: accounted %+v", name, p.late)
		}
	})
}

// Google's words and numbers (wire §3, §4): a number means what its surface
// says, and what is not known passes.
func TestReasons(t *testing.T) {
	finish := func(value string) string { return `{"candidates":[{"finishReason":` + value + `}]}` }
	prompt := func(value string) string { return `{"promptFeedback":{"blockReason":` + value + `}}` }
	soft := func(reason string) verdict { return verdict{class: classBlocked, reason: reason} }
	hard := func(reason string) verdict { return verdict{class: classForbidden, reason: reason} }
	type table map[string]verdict
	passing := table{"null": {}, `""`: {}, "true": {}, "{}": {}, `["SAFETY"]`: {}, "0": {}, "99": {}, "-3": {}, "3.5": {}}
	for _, c := range []struct {
		name  string
		enums *enums
		body  func(string) string
		stage string
		table table
	}{
		{"finishReason", geminiEnums, finish, stageOutput, table{
			`"SAFETY"`: soft("SAFETY"), `"RECITATION"`: soft("RECITATION"), `"LANGUAGE"`: soft("LANGUAGE"), `"OTHER"`: soft("OTHER"),
			`"IMAGE_SAFETY"`: soft("IMAGE_SAFETY"), `"IMAGE_RECITATION"`: soft("IMAGE_RECITATION"), `"IMAGE_OTHER"`: soft("IMAGE_OTHER"), `"NO_IMAGE"`: soft("NO_IMAGE"),
			`"BLOCKLIST"`: hard("BLOCKLIST"), `"PROHIBITED_CONTENT"`: hard("PROHIBITED_CONTENT"), `"SPII"`: hard("SPII"),
			`"IMAGE_PROHIBITED_CONTENT"`: hard("IMAGE_PROHIBITED_CONTENT"), `"MODEL_ARMOR"`: hard("MODEL_ARMOR"), `"JAILBREAK"`: hard("JAILBREAK"),
			`"STOP"`: {}, `"MAX_TOKENS"`: {}, `"CONTINUATION"`: {}, `"MALFORMED_FUNCTION_CALL"`: {}, `"UNEXPECTED_TOOL_CALL"`: {}, `"TOO_MANY_TOOL_CALLS"`: {},
			`"MALFORMED_RESPONSE"`: {}, `"MISSING_THOUGHT_SIGNATURE"`: {}, `"ESCALATION"`: {}, `"FINISH_REASON_UNSPECIFIED"`: {}, `"NEWS"`: {}, `"safety"`: {},
			`"S\u0041FETY"`: soft("SAFETY"), escaped("IMAGE_PROHIBITED_CONTENT"): hard("IMAGE_PROHIBITED_CONTENT"),
		}},
		{"finishReason by number", geminiEnums, finish, stageOutput, table{
			"1": {}, "2": {}, "3": soft("SAFETY"), "4": soft("RECITATION"), "5": soft("OTHER"), "6": soft("LANGUAGE"), "7": hard("BLOCKLIST"),
			"8": hard("PROHIBITED_CONTENT"), "9": hard("SPII"), "10": {}, "11": soft("IMAGE_SAFETY"), "12": {}, "13": {},
			"14": hard("IMAGE_PROHIBITED_CONTENT"), "15": soft("IMAGE_OTHER"), "16": soft("NO_IMAGE"), "17": soft("IMAGE_RECITATION"), "18": {}, "99": {},
		}},
		{"finishReason by number on Vertex", vertexEnums, finish, stageOutput, table{
			"1": {}, "2": {}, "3": soft("SAFETY"), "4": soft("RECITATION"), "5": soft("OTHER"), "6": hard("BLOCKLIST"),
			"7": hard("PROHIBITED_CONTENT"), "8": hard("SPII"), "9": {}, "10": hard("MODEL_ARMOR"), "11": soft("IMAGE_SAFETY"),
			"12": hard("IMAGE_PROHIBITED_CONTENT"), "13": soft("IMAGE_RECITATION"), "14": soft("IMAGE_OTHER"), "15": {}, "16": soft("NO_IMAGE"), "17": {},
		}},
		{"blockReason", geminiEnums, prompt, stagePrompt, table{
			`"SAFETY"`: soft("SAFETY"), `"OTHER"`: soft("OTHER"), `"IMAGE_SAFETY"`: soft("IMAGE_SAFETY"), `"BLOCKLIST"`: hard("BLOCKLIST"),
			`"PROHIBITED_CONTENT"`: hard("PROHIBITED_CONTENT"), `"MODEL_ARMOR"`: hard("MODEL_ARMOR"), `"JAILBREAK"`: hard("JAILBREAK"),
			`"SPII"`: hard("SPII"), `"IMAGE_PROHIBITED_CONTENT"`: hard("IMAGE_PROHIBITED_CONTENT"), `"RECITATION"`: soft("RECITATION"),
			`"BLOCK_REASON_UNSPECIFIED"`: {}, `"BLOCKED_REASON_UNSPECIFIED"`: {}, `"NEWS"`: soft("NEWS"), `"A \"new\" one\n"`: soft("A"),
			"1": soft("SAFETY"), "2": soft("OTHER"), "3": hard("BLOCKLIST"), "4": hard("PROHIBITED_CONTENT"), "5": soft("IMAGE_SAFETY"), "6": soft("6"),
			"99": soft("99"), "-3": soft("3"), "3.5": soft("35"),
		}},
		{"blockReason by number on Vertex", vertexEnums, prompt, stagePrompt, table{
			"5": hard("MODEL_ARMOR"), "6": hard("JAILBREAK"), "99": soft("99"), "-3": soft("3"), "3.5": soft("35"),
		}},
		{"finish_reason", openAIEnums, func(value string) string { return `{"choices":[{"finish_reason":` + value + `}]}` }, stageOutput, table{
			`"stop"`: {}, `"length"`: {}, `"tool_calls"`: {}, `"content_filter"`: soft("CONTENT_FILTER"), `"new: SAFETY"`: {},
			`"content_filter: RECITATION"`: soft("RECITATION"), `"content_filter: PROHIBITED_CONTENT"`: hard("PROHIBITED_CONTENT"), `"content_filter: NEWS"`: soft("CONTENT_FILTER"),
			`"SAFETY"`: soft("SAFETY"), `"safety"`: soft("SAFETY"), `"prohibited_content"`: hard("PROHIBITED_CONTENT"), `"function_call"`: {}, `"other"`: {},
		}},
	} {
		for _, table := range []table{passing, c.table} {
			for value, want := range table {
				if _, ok := c.table[value]; ok {
					want = c.table[value]
				}
				s := newAnswerScanner(new(facts), false, c.enums)
				s.write([]byte(c.body(value)))
				s.finish()
				got, _ := s.judge(&textCall, answerEnd)
				if want.class.isBlock() {
					want.stage = c.stage
				}
				if got != want {
					t.Errorf("%s %s: %+v, want %+v", c.name, value, got, want)
				}
			}
		}
	}
}

// escaped writes a word as JSON, every letter of it escaped.
func escaped(word string) string {
	var b strings.Builder
	for _, r := range word {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return `"` + b.String() + `"`
}
