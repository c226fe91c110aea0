// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// FuzzAnswer compares the incremental scanner, fed in pieces of any size, with
// a reference that has the whole body decoded by gjson.
func FuzzAnswer(f *testing.F) {
	for _, c := range fixtures {
		if body, ok := recorded(c.file); ok && c.form != formEvents {
			f.Add(body, uint(7), uint(0))
		}
	}
	for i, body := range []string{
		hello, pixel, safety, array(hello, pixel, safety, trail), array(choice, filtered), `{"candidates":[{"finishReason":3},{"index":1,"finishReason":"STOP"}]}`,
		`{"prompt_feedback":{"block_reason":2,"block_reason_message":"Support code: 58061214"}}`, `[[{"error":{"code":503}}]]`, `{"predictions":[{"raiFilteredReason":"no"}]}`,
		`{"usageMetadata":{"promptTokenCount":5,"candidatesTokensDetails":[{"tokenCount":9,"modality":2}]},"modelVersion":"m","responseId":"i"}`,
		`{"interaction":{"id":"a","usage":{"total_input_tokens":7,"total_tokens":9,"output_tokens_by_modality":[{"modality":"image","tokens":1}]}}}`,
		`{"usage":{"prompt_tokens":1,"completion_tokens":9,"total_tokens":10,"completion_tokens_details":{"reasoning_tokens":3,"image_tokens":5}}}`,
		`{"id":"v1_a","status":"completed","steps":[{"type":"thought","signature":"AA"},{"content":[{"mime_type":"image/png","data":"A","type":"image"},{"type":"audio","data":"A"},{"text":"no"}]}]}`,
		`[{"interaction":{"id":"v1_a","status":"in_progress"}},{"delta":{"data":"A","type":"image"}},{"event_type":"error","error":{"code":"safety","message":"no"}}]`,
		`{"status":"failed","errors":[{"code":"api_error"},{"code":"spii","message":"safety_violations=[sexual/minors]"}]}`,
		`[{"event_type":"interaction.completed","interaction":{"status":"failed","errors":[{"code":"safety","message":"no"}]}}]`,
		`{"choices":[{"message":{"refusal":"no","content":[{"text":"a"},{"image_url":{"url":"data:A"}}],"images":[{"image_url":{"url":"A"}},{"image_url":{"url":""}}]}}]}`,
		`[{"partial_image_index":0,"b64_json":"A"},{"b64_json":"A"},{"error":{"type":"server_error","code":null}}]`,
		`{"choices":[{"message":{"content":"![](data:image/png;base64,A)"}}]}`, `{"id":1111111111111111111111111111111111111111,"error":{"code":11111111111111111111111111111111111111111}}`,
		candidateWith(`"finishReason":"NO_IMAGE",` + parts(`{"thought":true,"inlineData":{"data":"A"}},{"inlineData":{"mimeType":"audio/x","data":"A"}}`)),
	} {
		f.Add([]byte(body), uint(i), uint(i*5))
	}
	// A unary call that is answered by an array whose block is not in its first object.
	f.Add([]byte(array(hello, safety, trail)), uint(3), uint(1))
	f.Fuzz(func(t *testing.T, body []byte, size, options uint) { checkAnswer(t, body, size, options) })
}

// TestAnswerRandom does the same with answers of fields that matter.
func TestAnswerRandom(t *testing.T) {
	bodies := newBodies(answerSchema, `"STOP"`, `"SAFETY"`, `"IMAGE_SAFETY"`, `"PROHIBITED_CONTENT"`, `"content_filter"`, `"image/png"`, `"image"`, `"audio/x"`,
		`"failed"`, `"completed"`, `"function_call"`, `"AAAA"`, `"data:image/png;base64,AAAA"`, `3`, `503`)
	for range 500 {
		checkAnswer(t, []byte(bodies.next()), bodies.Uint(), bodies.Uint())
	}
}

func checkAnswer(t *testing.T, body []byte, size, options uint) {
	t.Helper()
	if !json.Valid(body) || len(body) > 1<<16 {
		return
	}
	e := expectation{
		image: options&1 > 0, imagesAlone: options&2 > 0, thoughts: options&4 > 0, imageAPI: options&8 > 0,
		commitText: options&16 > 0, noImage: []noImage{noImageAuto, noImageError, noImagePass}[options/32%3],
	}
	form := streamForm(options / 128 % 4)
	e.stream = form != formUnary
	documents, wire := framed(string(body), form)
	want := reference{expect: e, enums: geminiEnums}
	if form == formOpenAI {
		want.enums = openAIEnums
	}
	if want.read(documents); want.isMarkdown {
		return
	}
	for _, size := range []int{1, int(size % 64), 0} {
		p := play(&pieces{body: wire, size: size}, form, e, noLimit)
		if p.verdict.class != want.verdict.class || p.verdict.reason != want.verdict.reason || p.verdict.stage != want.verdict.stage {
			t.Fatalf("%.3000q, pieces of %d, form %d: %+v, want %+v\n%+v", wire, size, form, p.verdict, want.verdict, e)
		}
		if p.verdict.class != classOK {
			continue
		}
		got := p.body(t)
		if len(p.late) == 0 && got != wire {
			t.Fatalf("pieces of %d, form %d: delivered %q of %q", size, form, got, wire)
		}
		if len(p.late) == 0 {
			want.compare(t, wire, p.scan.facts)
		}
	}
}

// framed puts a body into the frame of a form: the elements of an array become
// the events of a stream.
func framed(body string, form streamForm) (documents []gjson.Result, wire string) {
	whole := gjson.Parse(body)
	if form != formEvents && form != formOpenAI {
		return []gjson.Result{whole}, body
	}
	documents = []gjson.Result{whole}
	if whole.IsArray() {
		documents = whole.Array()
	}
	end := "\n\n"
	if form == formOpenAI {
		end = "\r\n\r\n"
	}
	var b strings.Builder
	for _, d := range documents {
		b.WriteString("data: " + strings.NewReplacer("\n", " ", "\r", " ").Replace(d.Raw) + end)
	}
	return documents, b.String()
}

// FuzzSSE: any bytes, in any pieces, are delivered as they are or not at all, and
// break off behind the last one where they end inside a document.
func FuzzSSE(f *testing.F) {
	for _, c := range fixtures {
		if body, ok := recorded(c.file); ok {
			f.Add(body, uint(13))
		}
	}
	for i, body := range []string{
		events(hello, safety, trail), events(choice, filtered, "[DONE]"), array(hello, safety), "data: " + hello + "\n\n{\n \"error\": {\"code\": 499}}\n", ": c\r\ndata:{}\n\ndata: [1\n",
	} {
		f.Add([]byte(body), uint(i*37))
	}
	const limited = 64
	f.Add([]byte(`{"candidates": [], "promptFeedback": {"blockReasonMessage": "cut off behind the limit`), uint(limited))
	f.Fuzz(func(t *testing.T, body []byte, options uint) {
		e := expectation{image: options&1 > 0, thoughts: options&2 > 0, imagesAlone: options&4 > 0, commitText: options&8 > 0}
		form := streamForm(options / 16 % 4)
		limit := int64(noLimit)
		if options&limited > 0 {
			limit = 64
		}
		var first *played
		for _, size := range []int{0, 1, int(options / 128 % 64)} {
			p := play(&pieces{body: string(body), size: size}, form, e, limit)
			if first == nil {
				first = p
			} else if limit == noLimit && p.verdict != first.verdict {
				t.Fatalf("pieces of %d: %+v, else %+v", size, p.verdict, first.verdict)
			}
			if p.verdict.class != classOK {
				continue
			}
			parts, err := p.rest()
			got := strings.Join(parts, "")
			if err != nil && (!errors.Is(err, io.ErrUnexpectedEOF) || got != string(body) || gjson.ValidBytes(body)) {
				t.Fatalf("pieces of %d: delivered %q of %q, and %v", size, got, body, err)
			}
			kept, _, isTold := strings.Cut(got, `{"error":{"status":"`)
			cut := isTold && form != formUnary && len(p.late) > 0 && strings.HasPrefix(string(body), strings.TrimRight(strings.TrimSuffix(kept, "data: "), ",\r\n"))
			if got != string(body) && !cut {
				t.Fatalf("pieces of %d: delivered %q of %q", size, got, body)
			}
		}
	})
}

// recorded is a fixture, if there are any, and if it is small enough for a
// fuzzer to make something of it.
func recorded(name string) ([]byte, bool) {
	body, err := os.ReadFile(filepath.Join(fixtureDir(), name))
	return body, err == nil && len(body) < 800
}
