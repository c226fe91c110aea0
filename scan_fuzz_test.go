// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
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
		candidateWith(`"finishReason":"NO_IMAGE",` + parts(`{"thought":true,"inlineData":{"data":"A"}},{"inlineData":{"mimeType":"audio/x","data":"A"}}`)),
	} {
		f.Add([]byte(body), uint(i), uint(i*5))
	}
	f.Fuzz(func(t *testing.T, body []byte, size, options uint) {
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
		want.read(documents)
		for _, size := range []int{1, int(size % 64), 0} {
			p := play(&pieces{body: wire, size: size}, form, e, noLimit)
			if p.verdict.class != want.verdict.class || p.verdict.reason != want.verdict.reason || p.verdict.stage != want.verdict.stage {
				t.Fatalf("pieces of %d, form %d: %+v, want %+v\n%+v", size, form, p.verdict, want.verdict, e)
			}
			if p.verdict.class != classOK {
				continue
			}
			got := p.body(t)
			if len(p.late) == 0 && got != wire {
				t.Fatalf("pieces of %d, form %d: delivered %q of %q", size, form, got, wire)
			}
			if len(p.late) == 0 {
				want.compare(t, p.scan.facts)
			}
		}
	})
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

// reference reads a whole body with gjson, one answer after the other, in the
// order of the document, and judges it by what it has gathered.
type reference struct {
	facts
	expect  expectation
	enums   *enums
	verdict verdict
	settled bool

	tally    tokenTally // of the usage being read
	modality modalityCount

	finish, said string // of the candidate being read
	thought      bool   // of the part being read
	speech       bool
	image        bool
}

func (r *reference) read(documents []gjson.Result) {
	for _, d := range documents {
		r.answers(d)
	}
	switch {
	case r.settled:
	case r.objects == 0:
		r.verdict = verdict{class: classTransient, reason: reasonEmpty}
	default:
		r.verdict = r.withoutImage(&r.expect)
	}
}

// answers finds the objects in a document, which may be an array of them.
func (r *reference) answers(v gjson.Result) {
	if v.IsArray() {
		for _, element := range v.Array() {
			r.answers(element)
		}
	}
	if !v.IsObject() {
		return
	}
	r.walk("", v)
	r.objects++
	empty := r.objects == 1 && len(v.Map()) == 0
	blocked, isBlock := r.block()
	failed, isFailure := r.failure()
	switch {
	case r.settled:
	case empty && !r.expect.stream && !r.expect.imageAPI:
		r.settle(verdict{class: classTransient, reason: reasonEmpty})
	case isBlock:
		r.settle(blocked)
	case isFailure:
		r.settle(failed)
	case !r.expect.stream:
		r.settle(r.withoutImage(&r.expect))
	case r.mayGo(&r.expect):
		r.settle(verdict{})
	}
}

func (r *reference) settle(v verdict) {
	if !r.settled {
		r.verdict, r.settled = v, true
	}
}

// camel is a key in camelCase, if it is known in both spellings, with nothing
// in it that looks like a path.
func camel(key string) string {
	words := strings.Split(key, "_")
	for i, w := range words[1:] {
		if w != "" {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	if joined := strings.Join(words, ""); snakeCase(joined) == key {
		key = joined
	}
	return strings.NewReplacer(".", "?", "[", "?").Replace(key)
}

func (r *reference) walk(path string, v gjson.Result) {
	switch {
	case v.IsObject():
		r.enter(path)
		v.ForEach(func(key, member gjson.Result) bool {
			r.walk(path+"."+camel(key.String()), member)
			return true
		})
		r.leave(path)
	case v.IsArray():
		r.enter(path)
		for _, element := range v.Array() {
			r.walk(path+"[]", element)
		}
		r.leave(path)
	case v.Type != gjson.Null:
		r.scalar(path, v)
	}
}

const (
	partPath    = ".candidates[].content.parts[]"
	detailsPath = ".usageMetadata.candidatesTokensDetails[]"
)

// tokenPaths are where the places of a tally are filled from.
var tokenPaths = map[string]int{
	".usageMetadata.promptTokenCount": tallyPrompt, ".usageMetadata.toolUsePromptTokenCount": tallyTools,
	".usageMetadata.candidatesTokenCount": tallyOutput, ".usageMetadata.thoughtsTokenCount": tallyThinking,
	".usageMetadata.totalTokenCount": tallyTotal,

	".usage.promptTokens": tallyPrompt, ".usage.inputTokens": tallyPrompt, ".usage.totalInputTokens": tallyPrompt,
	".usage.totalToolUseTokens": tallyTools, ".usage.totalTokens": tallyTotal,
	".usage.completionTokens": tallyOutput, ".usage.outputTokens": tallyOutput, ".usage.totalOutputTokens": tallyOutput,
	".usage.totalThoughtTokens": tallyThinking, ".usage.completionTokensDetails.reasoningTokens": tallyReasoning,
	".usage.completionTokensDetails.imageTokens": tallyImage, ".usage.outputTokensDetails.imageTokens": tallyImage,
}

func (r *reference) enter(path string) {
	switch path {
	case ".candidates[]", ".choices[]":
		r.candidates++
		r.finish = ""
	case partPath, ".choices[].message", ".choices[].delta", ".predictions[]", ".data[]":
		r.thought, r.speech, r.image = false, false, false
	case partPath + ".functionCall", ".choices[].message.toolCalls[]", ".choices[].delta.toolCalls[]":
		r.toolCall, r.content = true, true
	case partPath + ".executableCode", partPath + ".codeExecutionResult", ".choices[].message.images[].imageUrl", ".choices[].delta.images[].imageUrl":
		r.content = true
	case ".usageMetadata", ".usage", ".interaction.usage":
		r.tally = tokenTally{}
	case detailsPath, ".usage.outputTokensByModality[]", ".interaction.usage.outputTokensByModality[]":
		r.modality = modalityCount{}
	}
}

func (r *reference) leave(path string) {
	switch path {
	case ".usageMetadata", ".usage", ".interaction.usage":
		if r.tally != (tokenTally{}) {
			r.usage = r.tally.usage()
		}
	case detailsPath, ".usage.outputTokensByModality[]", ".interaction.usage.outputTokensByModality[]":
		if r.modality.isImage {
			r.tally[tallyImage] += r.modality.tokens
		}
	case ".candidates[]", ".choices[]":
		if r.finish != "" {
			r.facts.finish = r.finish
		}
		if c := hardened(finishReasons[r.finish], r.said); c.isBlock() && c > r.stoppedClass {
			r.stopped, r.stoppedClass = r.finish, c
		}
		r.finish, r.said = "", ""
	case partPath, ".choices[].message", ".choices[].delta", ".predictions[]", ".data[]":
		switch {
		case !r.image || r.speech:
		case r.thought:
			r.drafts++
		default:
			r.images++
			if r.expect.thoughts && !r.stopping() {
				r.settle(verdict{})
			}
		}
		r.thought, r.speech, r.image = false, false, false
	}
}

func (r *reference) stopping() bool {
	return r.stopped != "" || finishReasons[r.finish].isBlock() || blockReasons[r.blockReason].isBlock()
}

func (r *reference) scalar(path string, v gjson.Result) {
	kind := map[gjson.Type]jsonKind{gjson.String: jsonString, gjson.Number: jsonNumber, gjson.True: jsonTrue, gjson.False: jsonFalse}[v.Type]
	word, isString := v.Raw, v.Type == gjson.String
	switch v.Type {
	case gjson.String:
		word = v.String()
	case gjson.True, gjson.False:
		word = ""
	}
	switch path {
	case ".promptFeedback.blockReason":
		r.blockReason = r.enums.block.name(kind, []byte(word))
	case ".promptFeedback.blockReasonMessage":
		r.blockMessage = word
	case ".candidates[].finishReason", ".choices[].finishReason":
		r.finish = r.enums.finish.name(kind, []byte(word))
	case partPath + ".thought":
		r.thought = v.Bool() && v.Type == gjson.True
	case partPath + ".inlineData.mimeType", partPath + ".fileData.mimeType":
		r.speech = !strings.HasPrefix(strings.ToLower(word), "image/")
	case partPath + ".inlineData.data", partPath + ".fileData.fileUri", ".predictions[].bytesBase64Encoded", ".predictions[].gcsUri", ".data[].b64Json", ".data[].url":
		if !isString || v.Raw == `""` {
			return
		}
		r.image, r.content = true, true
		if !r.expect.thoughts && !r.thought && !r.speech && !r.stopping() {
			r.settle(verdict{})
		}
	case partPath + ".text", ".choices[].message.content", ".choices[].delta.content":
		r.content = r.content || isString && v.Raw != `""`
	case ".candidates[].finishMessage", ".choices[].finishMessage":
		r.said = word[:min(len(word), maxMessage)]
	case ".predictions[].raiFilteredReason":
		if r.filtered == "" || hardened(classBlocked, word) == classForbidden {
			r.filtered = word
		}
	case ".error.code":
		r.errorCode, _ = strconv.Atoi(v.Raw)
	case ".error.status":
		r.errorStatus = word
	case ".modelVersion", ".model", ".interaction.model":
		setWord(&r.modelVersion, []byte(word[:min(len(word), maxWord)]))
	case ".responseId", ".id", ".interaction.id":
		setWord(&r.responseID, []byte(word[:min(len(word), maxWord)]))
	case detailsPath + ".modality", ".usage.outputTokensByModality[].modality", ".interaction.usage.outputTokensByModality[].modality":
		r.modality.isImage = isEnum(kind, []byte(word), "IMAGE", 2)
	case detailsPath + ".tokenCount", ".usage.outputTokensByModality[].tokens", ".interaction.usage.outputTokensByModality[].tokens":
		r.modality.tokens = number([]byte(v.Raw))
	}
	if place, ok := tokenPaths[strings.TrimPrefix(path, ".interaction")]; ok {
		r.tally[place] = number([]byte(v.Raw))
	}
}

// compare holds the facts of a delivered answer against the reference.
func (r *reference) compare(t *testing.T, got *facts) {
	t.Helper()
	type counts struct {
		images, drafts, candidates, objects int
		usage                               usage
		model, id                           string
	}
	want := counts{r.images, r.drafts, r.candidates, r.objects, r.usage, r.modelVersion, r.responseID}
	if have := (counts{got.images, got.drafts, got.candidates, got.objects, got.usage, got.modelVersion, got.responseID}); have != want {
		t.Fatalf("%+v, want %+v", have, want)
	}
}

// FuzzSSE: any bytes, in any pieces, are delivered as they are or not at all.
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
	f.Fuzz(func(t *testing.T, body []byte, options uint) {
		e := expectation{image: options&1 > 0, thoughts: options&2 > 0, imagesAlone: options&4 > 0, commitText: options&8 > 0}
		form := streamForm(options / 16 % 4)
		limit := int64(noLimit)
		if options&64 > 0 {
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
			got := p.body(t)
			kept, _, _ := strings.Cut(got, `{"error":{"status":"`)
			reported := form != formUnary && len(p.late) > 0
			cut := reported && strings.HasPrefix(string(body), strings.TrimRight(strings.TrimSuffix(kept, "data: "), ",\r\n"))
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
