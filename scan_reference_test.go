// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

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
	cause        string // a block that the finish is another company's word for
	thought      bool   // of the part being read
	speech       bool
	image        bool

	isInteraction      bool
	problem, diagnosis *googleError

	isMarkdown bool // of which the reference knows nothing
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
	r.thought, r.speech, r.image = false, false, false
	r.isInteraction, r.diagnosis = false, nil
	r.walk("", v)
	if r.image {
		r.endPart()
	}
	if r.failed && r.diagnosis != nil {
		r.fault = graver(r.fault, r.diagnosis)
	}
	if r.isInteraction {
		r.tie(tieName(atInteraction, r.responseID))
	}
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
	case !r.expect.stream: // what is well so far may be an array's first object
		if v := r.withoutImage(&r.expect); v.class != classOK {
			r.settle(v)
		}
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
	if rest, isTold := strings.CutPrefix(path, ".interaction.errors"); isTold { // by an event
		path = ".errors" + rest
	}
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

// partPaths are parts, or what stands for one.
var partPaths = []string{
	partPath, ".choices[].message", ".choices[].delta", ".predictions[]", ".data[]", ".steps[].content[]", ".step.content[]", ".delta", ".outputs[]",
}

// picturePaths are where chats have their images.
var picturePaths = []string{
	".choices[].message.images[].imageUrl.url", ".choices[].delta.images[].imageUrl.url",
	".choices[].message.content[].imageUrl.url", ".choices[].delta.content[].imageUrl.url",
	".choices[].message.images[].imageUrl", ".choices[].delta.images[].imageUrl",
	".choices[].message.content[].imageUrl", ".choices[].delta.content[].imageUrl",
}

func (r *reference) enter(path string) {
	if slices.Contains(partPaths, path) {
		r.thought, r.speech, r.image = false, false, false
	}
	switch path {
	case ".candidates[]", ".choices[]":
		r.candidates++
		r.finish, r.cause = "", ""
	case ".error", ".errors[]", ".choices[].error":
		r.problem = new(googleError)
	case partPath + ".functionCall", ".choices[].message.toolCalls[]", ".choices[].delta.toolCalls[]":
		r.toolCall, r.content = true, true
	case partPath + ".executableCode", partPath + ".codeExecutionResult":
		r.content = true
	case ".usageMetadata", ".usage", ".interaction.usage":
		r.tally = tokenTally{}
	case detailsPath, ".usage.outputTokensByModality[]", ".interaction.usage.outputTokensByModality[]":
		r.modality = modalityCount{}
	}
}

func (r *reference) leave(path string) {
	if slices.Contains(partPaths, path) {
		r.endPart()
	}
	switch path {
	case ".error", ".choices[].error":
		r.fault = graver(r.fault, r.problem)
	case ".errors[]":
		r.diagnosis = graver(r.diagnosis, r.problem)
	case ".usageMetadata", ".usage", ".interaction.usage":
		if r.tally != (tokenTally{}) {
			r.usage = r.tally.usage()
		}
	case detailsPath, ".usage.outputTokensByModality[]", ".interaction.usage.outputTokensByModality[]":
		if r.modality.isImage {
			r.tally[tallyImage] += r.modality.tokens
		}
	case ".candidates[]", ".choices[]":
		if r.finish = cmp.Or(r.cause, r.finish); r.finish != "" {
			r.facts.finish, r.finishSaid = r.finish, r.said
		}
		c := hardened(finishReasons[r.finish], r.said)
		isGraver := c > r.stoppedClass || c == classBlocked && r.stoppedClass == c && guarded[r.finish] && !guarded[r.stopped]
		if c.isBlock() && isGraver {
			r.stopped, r.stoppedClass = r.finish, c
		}
		r.finish, r.cause, r.said = "", "", ""
	}
}

func (r *reference) endPart() {
	switch {
	case !r.image || r.speech:
	case r.thought:
		r.drafts++
	default:
		r.endImage()
	}
	r.thought, r.speech, r.image = false, false, false
}

func (r *reference) endImage() {
	r.images++
	if r.expect.thoughts && !r.stopping() {
		r.settle(verdict{})
	}
}

func (r *reference) stopping() bool {
	return r.stopped != "" || finishReasons[r.finish].isBlock() || r.cause != "" || blockReasons[r.blockReason].isBlock()
}

func (r *reference) scalar(path string, v gjson.Result) {
	kind := map[gjson.Type]jsonKind{gjson.String: jsonString, gjson.Number: jsonNumber, gjson.True: jsonTrue, gjson.False: jsonFalse}[v.Type]
	if v.Type == gjson.Number {
		v.Raw = v.Raw[:min(len(v.Raw), maxScalar)] // which is what is read of one
	}
	word, isString := v.Raw, v.Type == gjson.String
	switch v.Type {
	case gjson.String:
		word = v.String()
	case gjson.True, gjson.False:
		word = ""
	}
	if slices.Contains(picturePaths, path) && isString && v.Raw != `""` {
		r.content = true
		if !r.expect.thoughts && !r.stopping() {
			r.settle(verdict{})
		}
		r.endImage()
	}
	for _, part := range partPaths[5:] {
		if field, ok := strings.CutPrefix(path, part+"."); ok {
			r.interactionContent(field, word, v)
		}
	}
	for _, at := range []string{".error.", ".choices[].error.", ".errors[]."} {
		field, ok := strings.CutPrefix(path, at)
		if isShort := field == "code" || field == "message"; ok && (isShort || at != ".errors[].") {
			r.errorField(field, word)
		}
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
		r.speech = isNoImage(word)
	case partPath + ".inlineData.data", partPath + ".fileData.fileUri", ".predictions[].bytesBase64Encoded", ".predictions[].gcsUri", ".data[].b64Json", ".data[].url", ".b64Json":
		r.beginImage(v)
	case ".partialImageIndex":
		r.thought = v.Type == gjson.Number
	case partPath + ".text", ".choices[].message.content", ".choices[].delta.content", ".choices[].message.refusal", ".choices[].delta.refusal",
		".choices[].message.content[].text", ".choices[].delta.content[].text":
		r.content = r.content || isString && v.Raw != `""`
		r.isMarkdown = r.isMarkdown || strings.Contains(strings.ToLower(word), "](data:")
	case ".steps[].type", ".step.type":
		if word == "function_call" {
			r.toolCall, r.content = true, true
		}
	case ".status", ".interaction.status":
		r.isInteraction, r.failed = true, word == "failed"
		r.toolCall = r.toolCall || word == "requires_action"
		if end := interactionEnds[word]; end != "" {
			r.facts.finish = end
		}
	case ".choices[].nativeFinishReason":
		r.cause = blockWord([]byte(word))
	case ".candidates[].finishMessage", ".choices[].finishMessage":
		r.said = word[:min(len(word), maxMessage)]
	case ".predictions[].raiFilteredReason":
		if r.filtered == "" || hardened(classBlocked, word) == classForbidden {
			r.filtered = word
		}
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

// errorField is a member of an error.
func (r *reference) errorField(name, word string) {
	short := word[:min(len(word), maxWord)]
	switch name {
	case "code":
		if n, err := strconv.Atoi(word); err == nil {
			r.problem.code = n
		} else {
			r.problem.word = short
		}
	case "type":
		r.problem.kind = short
	case "status":
		r.problem.status = short
	case "param":
		r.problem.param = short
	case "message":
		r.problem.message = word[:min(len(word), maxMessage)]
	case "details[].reason":
		r.problem.reason = short
	case "innererror.code", "innerError.code":
		r.problem.inner = short
	case "moderationDetails.moderationStage":
		r.problem.stage = short
	case "moderationDetails.categories[]", "metadata.reasons[]":
		r.problem.isAboutMinors = r.problem.isAboutMinors || strings.Contains(short, minors)
	case "metadata.flaggedInput":
		r.problem.isFlagged = true
	}
}

// beginImage is told of a member that holds one.
func (r *reference) beginImage(v gjson.Result) {
	if v.Type != gjson.String || v.Raw == `""` {
		return
	}
	r.image, r.content = true, true
	if !r.expect.thoughts && !r.thought && !r.speech && !r.stopping() {
		r.settle(verdict{})
	}
}

// isNoImage tells a type that is not one of images, nor one that says nothing.
func isNoImage(mime string) bool {
	_, isImage := imageMime(mime[:min(len(mime), maxWord)])
	return !isImage
}

// interactionContent is told of a member of a content.
func (r *reference) interactionContent(field, word string, v gjson.Result) {
	switch field {
	case "data", "uri":
		r.beginImage(v)
	case "type":
		r.speech = r.speech || notImages[word]
	case "mimeType":
		r.speech = isNoImage(word)
	case "text":
		r.content = r.content || v.Type == gjson.String && v.Raw != `""`
	}
}

// compare holds the facts of a delivered answer against the reference.
func (r *reference) compare(t *testing.T, body string, got *facts) {
	t.Helper()
	type counts struct {
		images, drafts, candidates, objects int
		usage                               usage
		model, id                           string
	}
	want := counts{r.images, r.drafts, r.candidates, r.objects, r.usage, r.modelVersion, r.responseID}
	if have := (counts{got.images, got.drafts, got.candidates, got.objects, got.usage, got.modelVersion, got.responseID}); have != want {
		t.Fatalf("%.3000q: %+v, want %+v", body, have, want)
	}
}
