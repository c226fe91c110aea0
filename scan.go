// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"strconv"
	"strings"
)

// facts is what an answer says about itself, as far as it has been read. They
// do not grow with the answer.
type facts struct {
	begun   bool // an object has been opened
	objects int  // objects completed: one answer, or the chunks of a stream
	empty   bool // the last object had no members
	cutOff  bool // the end came in the middle of an object

	blockReason  string // promptFeedback.blockReason
	blockMessage string // promptFeedback.blockReasonMessage (Vertex)
	candidates   int
	finish       string // the last finishReason
	stopped      string // the gravest finishReason that is a block, and the first of those
	stoppedSaid  string // its finishMessage
	stoppedClass class
	seen, ended  uint64 // candidates that have appeared, and that have a finishReason

	imageBegun bool   // bytes of an image have been seen, before any block and any sign of a draft
	imageEnded bool   // one such image is complete, and no draft
	images     int    // completed images that are not drafts
	drafts     int    // completed images flagged as thoughts
	toolCall   bool   // the model called a function
	content    bool   // anything that a client could use
	text       []byte // the beginning of the visible text
	filtered   string // raiFilteredReason of the first filtered Imagen prediction, or of one that is final

	errorCode    int // of an error object inside a 200
	errorStatus  string
	errorMessage string

	ties []string // the first of its thought signatures, see wants

	usage                    usage
	modelVersion, responseID string // see setWord
}

// maxAnswerTies is how many thought signatures of an answer are enough to recognise it
// when it comes back as history.
const maxAnswerTies = 4

// imageReady tells whether an image is on its way. It does not change once it is
// true, so that a verdict does not depend on how the network cut the answer.
func (f *facts) imageReady(e *expectation) bool {
	if e.thoughts {
		return f.imageEnded // the flag "thought" follows the data (wire §6)
	}
	return f.imageBegun
}

// delivered counts the images a client gets: a draft stands for the image when
// the answer ended in STOP with nothing else (Lixpi issue #135).
func (f *facts) delivered() int {
	if f.images == 0 && f.drafts > 0 && f.finish == "STOP" {
		return 1
	}
	return f.images
}

// unfinished tells whether a candidate is still being written.
func (f *facts) unfinished() bool { return f.seen&^f.ended != 0 }

const (
	// maxText is how much of a refusal is worth repeating in an error.
	maxText = 500
	// maxWord is longer than any reason, even one written entirely in \u escapes.
	maxWord = 256
	// maxMessage is longer than any message of Google's; the support codes
	// stand at its end.
	maxMessage = 2000
)

const (
	_ fieldID = iota
	fieldRoot
	fieldBlockReason
	fieldBlockMessage
	fieldCandidates
	fieldCandidate
	fieldIndex
	fieldFinishReason
	fieldFinishMessage
	fieldPart
	fieldText
	fieldThought
	fieldSignature
	fieldImage
	fieldMimeType
	fieldToolCall
	fieldOther
	fieldErrorCode
	fieldErrorStatus
	fieldErrorMessage
	fieldFiltered
	fieldModelVersion
	fieldResponseID
	fieldUsage
	fieldModalityCount // of one modality of the output
	fieldModality
	fieldModalityTokens
	fieldTokens // and behind it, one for each place of a tally
)

// answerSchema is what a verdict and the accounts depend on, in all forms that
// are judged: generateContent, Imagen's predict, and OpenAI's images and chat.
// An OpenAI choice is a candidate whose message is both content and part.
var answerSchema = func() *field {
	root := newSchema(map[string]field{
		"promptFeedback.blockReason":                       {id: fieldBlockReason, keep: maxWord},
		"promptFeedback.blockReasonMessage":                {id: fieldBlockMessage, keep: maxMessage},
		"candidates":                                       {id: fieldCandidates},
		"candidates[]":                                     {id: fieldCandidate},
		"candidates[].index":                               {id: fieldIndex},
		"candidates[].finishReason":                        {id: fieldFinishReason, keep: maxWord},
		"candidates[].finishMessage":                       {id: fieldFinishMessage, keep: maxMessage},
		"candidates[].content.parts[]":                     {id: fieldPart},
		"candidates[].content.parts[].text":                {id: fieldText, keep: maxText},
		"candidates[].content.parts[].thought":             {id: fieldThought},
		"candidates[].content.parts[].thoughtSignature":    {id: fieldSignature, keep: maxSignature * maxEscape},
		"candidates[].content.parts[].inlineData.data":     {id: fieldImage},
		"candidates[].content.parts[].inlineData.mimeType": {id: fieldMimeType, keep: maxWord},
		"candidates[].content.parts[].fileData.fileUri":    {id: fieldImage},
		"candidates[].content.parts[].fileData.mimeType":   {id: fieldMimeType, keep: maxWord},
		"candidates[].content.parts[].functionCall":        {id: fieldToolCall},
		"candidates[].content.parts[].executableCode":      {id: fieldOther},
		"candidates[].content.parts[].codeExecutionResult": {id: fieldOther},
		"error.code":    {id: fieldErrorCode},
		"error.status":  {id: fieldErrorStatus, keep: maxWord},
		"error.message": {id: fieldErrorMessage, keep: maxMessage},
		"modelVersion":  {id: fieldModelVersion, keep: maxWord},
		"responseId":    {id: fieldResponseID, keep: maxWord},

		"usageMetadata":                                      {id: fieldUsage},
		"usageMetadata.promptTokenCount":                     {id: fieldTokens + tallyPrompt},
		"usageMetadata.toolUsePromptTokenCount":              {id: fieldTokens + tallyTools},
		"usageMetadata.candidatesTokenCount":                 {id: fieldTokens + tallyOutput},
		"usageMetadata.thoughtsTokenCount":                   {id: fieldTokens + tallyThinking},
		"usageMetadata.totalTokenCount":                      {id: fieldTokens + tallyTotal},
		"usageMetadata.candidatesTokensDetails[]":            {id: fieldModalityCount},
		"usageMetadata.candidatesTokensDetails[].modality":   {id: fieldModality, keep: maxWord},
		"usageMetadata.candidatesTokensDetails[].tokenCount": {id: fieldModalityTokens},

		"predictions[]":                    {id: fieldPart},
		"predictions[].bytesBase64Encoded": {id: fieldImage},
		"predictions[].gcsUri":             {id: fieldImage},
		"predictions[].raiFilteredReason":  {id: fieldFiltered, keep: maxMessage},

		"data[]":                              {id: fieldPart},
		"data[].b64Json":                      {id: fieldImage},
		"data[].url":                          {id: fieldImage},
		"choices":                             {id: fieldCandidates},
		"choices[]":                           {id: fieldCandidate},
		"choices[].index":                     {id: fieldIndex},
		"choices[].finishReason":              {id: fieldFinishReason, keep: maxWord},
		"choices[].message":                   {id: fieldPart},
		"choices[].message.content":           {id: fieldText, keep: maxText},
		"choices[].message.toolCalls[]":       {id: fieldToolCall},
		"choices[].message.images[].imageUrl": {id: fieldOther},
		"choices[].delta":                     {id: fieldPart},
		"choices[].delta.content":             {id: fieldText, keep: maxText},
		"choices[].delta.toolCalls[]":         {id: fieldToolCall},
		"choices[].delta.images[].imageUrl":   {id: fieldOther},
		"model":                               {id: fieldModelVersion, keep: maxWord},
		"id":                                  {id: fieldResponseID, keep: maxWord},

		"usage":                  {id: fieldUsage},
		"usage.promptTokens":     {id: fieldTokens + tallyPrompt},
		"usage.completionTokens": {id: fieldTokens + tallyOutput},
		"usage.totalTokens":      {id: fieldTokens + tallyTotal},
		"usage.completionTokensDetails.reasoningTokens": {id: fieldTokens + tallyReasoning},
		"usage.completionTokensDetails.imageTokens":     {id: fieldTokens + tallyImage},
		"usage.inputTokens":                             {id: fieldTokens + tallyPrompt}, // images/generations
		"usage.outputTokens":                            {id: fieldTokens + tallyOutput},
		"usage.outputTokensDetails.imageTokens":         {id: fieldTokens + tallyImage},
		"usage.totalInputTokens":                        {id: fieldTokens + tallyPrompt}, // Interactions, as all that follow
		"usage.totalToolUseTokens":                      {id: fieldTokens + tallyTools},
		"usage.totalOutputTokens":                       {id: fieldTokens + tallyOutput},
		"usage.totalThoughtTokens":                      {id: fieldTokens + tallyThinking},
		"usage.outputTokensByModality[]":                {id: fieldModalityCount},
		"usage.outputTokensByModality[].modality":       {id: fieldModality, keep: maxWord},
		"usage.outputTokensByModality[].tokens":         {id: fieldModalityTokens},
	})
	root.id = fieldRoot
	root.element = root                       // a stream without alt=sse is an array of answers (wire §1)
	interaction := root.member("interaction") // an event has the answer in this member
	for _, name := range []string{"model", "id", "usage"} {
		*interaction.member(name) = *root.member(name)
	}
	return root
}()

// answerScanner reads an answer in passing, whatever its form: one JSON object,
// an array of them, or server-sent events.
type answerScanner struct {
	*facts
	json   jsonScanner
	events *eventReader // nil unless the answer is an event stream
	enums  *enums

	arrayClosed bool // the array around the chunks of a stream

	position  int       // of the candidate in its list
	candidate candidate // being read
	part      part      // being read

	tally    tokenTally    // of the usage being read
	modality modalityCount // being read
}

type candidate struct {
	index        int
	finish, said string
}

type part struct {
	text    []byte
	thought bool
	image   bool // or other data, of which only the type can tell
	noImage bool // its type is not one of images: speech, video
}

func newAnswerScanner(f *facts, events bool, e *enums) *answerScanner {
	s := &answerScanner{facts: f, enums: e}
	s.json.init(s, answerSchema)
	if events {
		s.events = &eventReader{}
	}
	return s
}

// write scans a piece up to the end of the next object, if one ends in it, and
// returns how far it came.
func (s *answerScanner) write(p []byte) (n int, object bool) {
	if s.events != nil {
		return s.events.write(p, s)
	}
	return s.scanJSON(p)
}

func (s *answerScanner) scanJSON(p []byte) (n int, object bool) {
	before := s.objects
	n, _ = s.json.write(p) // what is not JSON leaves no object behind
	return n, s.objects > before
}

// finish is told that the answer has ended.
func (s *answerScanner) finish() {
	if !s.json.untouched() && s.json.state != isBroken {
		s.cutOff = s.json.finish() != nil
	}
}

func (s *answerScanner) open(f *field, _ []byte, array bool, _ int64) {
	switch f.id {
	case fieldRoot:
		s.begun = s.begun || !array
	case fieldCandidates:
		s.position = 0
	case fieldCandidate:
		s.candidates++
		s.candidate = candidate{index: s.position}
		s.position++
	case fieldPart:
		s.part = part{text: s.part.text[:0]}
	case fieldToolCall:
		s.toolCall, s.content = true, true
	case fieldOther:
		s.content = true
	case fieldUsage:
		s.tally = tokenTally{}
	case fieldModalityCount:
		s.modality = modalityCount{}
	}
}

func (s *answerScanner) close(f *field, array, empty bool, _ int64) (pause bool) {
	switch {
	case f.id == fieldRoot && array:
		s.arrayClosed = s.json.state == isDone
		return true
	case f.id == fieldRoot:
		s.objects++
		s.empty = empty
		return true
	case f.id == fieldPart:
		s.endPart()
	case f.id == fieldCandidate:
		s.endCandidate()
	case f.id == fieldUsage && s.tally != tokenTally{}: // chunks that only tell a tier or traffic type have one, too
		s.usage = s.tally.usage()
	case f.id == fieldModalityCount && s.modality.isImage:
		s.tally[tallyImage] += s.modality.tokens
	}
	return false
}

func (s *answerScanner) begin(f *field) {
	switch f.id {
	case fieldImage:
		s.part.image, s.content = true, true
		s.imageBegun = s.imageBegun || !s.part.thought && !s.part.noImage && !s.blocked()
	case fieldText:
		s.content = true
	}
}

// blocked tells whether a block is known already: fields come in any order.
func (s *answerScanner) blocked() bool {
	return s.stopped != "" || finishReasons[s.candidate.finish].isBlock() || blockReasons[s.blockReason].isBlock()
}

func (s *answerScanner) scalar(f *field, _ []byte, kind jsonKind, value []byte, _ int64) {
	if kind == jsonNull {
		return
	}
	switch f.id {
	case fieldBlockReason:
		s.blockReason = s.enums.block.name(kind, value)
	case fieldBlockMessage:
		s.blockMessage = string(value)
	case fieldIndex:
		s.candidate.index, _ = strconv.Atoi(string(value))
	case fieldFinishReason:
		s.candidate.finish = s.enums.finish.name(kind, value)
	case fieldFinishMessage:
		s.candidate.said = string(value)
	case fieldMimeType:
		s.part.noImage = !strings.HasPrefix(strings.ToLower(string(value)), "image/")
	case fieldThought:
		s.part.thought = kind == jsonTrue
	case fieldSignature:
		if name := tieName(atSignature, string(value)); name != "" && len(s.ties) < maxAnswerTies {
			s.ties = append(s.ties, name)
		}
	case fieldText:
		s.part.text = append(s.part.text[:0], value...)
	case fieldFiltered:
		if s.filtered == "" || hardened(classBlocked, string(value)) == classForbidden {
			s.filtered = string(value)
		}
	case fieldErrorCode:
		s.errorCode, _ = strconv.Atoi(string(value))
	case fieldErrorStatus:
		s.errorStatus = string(value)
	case fieldErrorMessage:
		s.errorMessage = string(value)
	case fieldModelVersion:
		setWord(&s.modelVersion, value)
	case fieldResponseID:
		setWord(&s.responseID, value)
	case fieldModality:
		s.modality.isImage = isEnum(kind, value, "IMAGE", 2) // in both APIs' definitions
	case fieldModalityTokens:
		s.modality.tokens = number(value)
	default:
		if f.id >= fieldTokens {
			s.tally[f.id-fieldTokens] = number(value)
		}
	}
}

// endPart comes late on purpose: the flag "thought" follows the data (wire §6).
func (s *answerScanner) endPart() {
	switch {
	case !s.part.image || s.part.noImage:
	case s.part.thought:
		s.drafts++
	default:
		s.images++
		s.imageEnded = s.imageEnded || !s.blocked()
	}
	if !s.part.thought {
		room := max(0, maxText-len(s.text))
		s.text = append(s.text, s.part.text[:min(room, len(s.part.text))]...)
	}
	s.part = part{text: s.part.text[:0]}
}

func (s *answerScanner) endCandidate() {
	c := s.candidate
	s.candidate = candidate{}
	bit := uint64(1) << min(max(c.index, 0), 63)
	s.seen |= bit
	if c.finish == "" {
		return
	}
	s.ended |= bit
	s.facts.finish = c.finish
	if class := hardened(finishReasons[c.finish], c.said); class.isBlock() && class > s.stoppedClass {
		s.stopped, s.stoppedSaid, s.stoppedClass = c.finish, c.said, class
	}
}
