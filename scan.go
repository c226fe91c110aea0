// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"strconv"
)

// facts is what an answer says about itself, as far as it has been read. They
// do not grow with the answer.
type facts struct {
	begun   bool // an object has been opened
	objects int  // objects completed: one answer, or the chunks of a stream
	empty   bool // the last object had no members
	cutOff  bool // the end came in the middle of an object

	isOpenAI bool // it is in OpenAI's form

	blockReason  string // promptFeedback.blockReason
	blockMessage string // promptFeedback.blockReasonMessage (Vertex)
	candidates   int
	finish       string // the last finishReason
	finishSaid   string // its finishMessage
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

	fault  *googleError // the gravest error object inside a 200; nil if there is none
	failed bool         // an interaction has come to nothing and does not say why

	ties []string // the first of its thought signatures, and its own name, see wants

	usage                    usage
	inputImage               int64  // of the usage's input, those of images
	modelVersion, responseID string // see setWord
}

// maxAnswerTies is how many thought signatures of an answer are enough to recognise it
// when it comes back as history.
const maxAnswerTies = 4

// tie takes down what the answer may be known by when the conversation goes on.
func (f *facts) tie(name string) {
	if name != "" {
		f.ties = appendNew(f.ties, name)
	}
}

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
	part      part      // being read; outside of all parts, what the root itself is one of

	isInteraction bool         // what the root is, or tells of
	problem       *googleError // being read
	diagnosis     *googleError // the gravest of an interaction's errors, which count only if it has failed

	tally    tokenTally    // of the usage being read
	input    int64         // of images, likewise
	modality modalityCount // being read

	words markdown // the texts of a chat
}

type candidate struct {
	index        int
	finish, said string
	cause        string // a block that the finish is another company's word for
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
	s.words.to = textImages{s}
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
	if s.candidate.finish != "" || s.candidate.cause != "" {
		s.endCandidate() // its reason counts, however the answer ended
	}
}

func (s *answerScanner) open(f *field, _ []byte, array bool, _ int64) {
	switch f.id {
	case fieldRoot:
		s.begun = s.begun || !array
		if !array {
			s.part = part{text: s.part.text[:0]}
			s.isInteraction, s.diagnosis = false, nil
		}
	case fieldOpenAI:
		s.position, s.isOpenAI = 0, true
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
		s.tally, s.input = tokenTally{}, 0
	case fieldInputCount, fieldModalityCount:
		s.modality = modalityCount{}
	case fieldError, fieldDiagnosis:
		s.problem = new(googleError)
	}
}

func (s *answerScanner) close(f *field, array, empty bool, _ int64) (pause bool) {
	switch {
	case f.id == fieldRoot && array:
		s.arrayClosed = s.json.state == isDone
		return s.arrayClosed
	case f.id == fieldRoot:
		s.endObject(empty)
		return true
	case f.id == fieldPart:
		s.endPart()
	case f.id == fieldCandidate:
		s.endCandidate()
	case f.id == fieldUsage && s.tally != tokenTally{}: // chunks that only tell a tier or traffic type have one, too
		s.usage, s.inputImage = s.tally.usage(), s.input
	case f.id == fieldInputCount && s.modality.isImage:
		s.input += s.modality.tokens
	case f.id == fieldModalityCount && s.modality.isImage:
		s.tally[tallyImage] += s.modality.tokens
	case f.id == fieldError:
		s.fault = graver(s.fault, s.problem)
	case f.id == fieldDiagnosis:
		s.diagnosis = graver(s.diagnosis, s.problem)
	}
	return false
}

func (s *answerScanner) begin(f *field) {
	switch f.id {
	case fieldImage:
		s.part.image, s.content = true, true
		s.imageBegun = s.imageBegun || !s.part.thought && !s.part.noImage && !s.blocked()
	case fieldPicture:
		s.content = true
		s.imageBegun = s.imageBegun || !s.blocked()
	case fieldText:
		s.content = true
	}
}

// blocked tells whether a block is known already: fields come in any order.
func (s *answerScanner) blocked() bool {
	return s.stopped != "" || finishReasons[s.candidate.finish].isBlock() || s.candidate.cause != "" || blockReasons[s.blockReason].isBlock()
}

func (s *answerScanner) scalar(f *field, _ []byte, kind jsonKind, value []byte, start int64) {
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
	case fieldNativeReason:
		s.candidate.cause = blockWord(value)
	case fieldFinishMessage:
		s.candidate.said = string(value)
	case fieldMimeType:
		_, isImage := imageMime(string(value))
		s.part.noImage = !isImage
	case fieldContentType:
		s.part.noImage = s.part.noImage || notImages[string(value)]
	case fieldThought:
		s.part.thought = kind == jsonTrue
	case fieldDraft:
		s.part.thought = kind == jsonNumber
	case fieldSignature:
		if len(s.ties) < maxAnswerTies {
			s.tie(tieName(atSignature, string(value)))
		}
	case fieldText: // a message has several
		s.part.text = appendText(s.part.text, value)
		if f.raw && s.events == nil { // in a stream, the next goes on with it
			s.words.end()
		}
	case fieldPicture:
		s.endPicture(kind == jsonString && s.json.end-start > int64(len(`""`)))
	case fieldStepType:
		if string(value) == "function_call" {
			s.toolCall, s.content = true, true
		}
	case fieldStatus:
		s.status(string(value))
	case fieldFiltered:
		if s.filtered == "" || hardened(classBlocked, string(value)) == classForbidden {
			s.filtered = string(value)
		}
	case fieldModelVersion:
		setWord(&s.modelVersion, value)
	case fieldResponseID:
		setWord(&s.responseID, value)
	case fieldModality:
		s.modality.isImage = isEnum(kind, value, "IMAGE", 2) // in both APIs' definitions
	case fieldModalityTokens:
		s.modality.tokens = number(value)
	default:
		switch {
		case f.id < 0:
			s.problem.take(f.id, value)
		case f.id >= fieldTokens:
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
	switch {
	case s.part.thought:
	case len(s.text) == 0:
		s.text, s.part.text = s.part.text, s.text
	default:
		s.text = appendText(s.text, s.part.text)
	}
	s.part = part{text: s.part.text[:0]}
}

// appendText keeps no more than is worth repeating.
func appendText(text, more []byte) []byte {
	return append(text, more[:min(max(0, maxText-len(text)), len(more))]...)
}

func (s *answerScanner) endPicture(isOne bool) {
	if isOne {
		s.images++
		s.imageEnded = s.imageEnded || !s.blocked()
	}
}

// endObject ends an answer, or a chunk or event of one.
func (s *answerScanner) endObject(empty bool) {
	s.objects++
	s.empty = empty
	if s.part.image {
		s.endPart()
	}
	if s.isInteraction {
		s.tie(tieName(atInteraction, s.responseID))
	}
	if s.failed && s.diagnosis != nil {
		s.fault = graver(s.fault, s.diagnosis)
	}
}

// interactionEnds are the words for the end of an interaction (wire §9), and what
// generateContent has for them. Others pass: a background job that has just begun,
// one that was cancelled, a budget of the client's own that is spent.
var interactionEnds = map[string]string{
	"completed":             "STOP",
	"requires_action":       "STOP",
	"incomplete":            "MAX_TOKENS",
	"requires_continuation": "CONTINUATION",
}

// status is that of an interaction. What has failed may say why in its errors.
func (s *answerScanner) status(word string) {
	s.isInteraction = true
	s.failed = word == "failed"
	s.toolCall = s.toolCall || word == "requires_action"
	if end := interactionEnds[word]; end != "" {
		s.facts.finish = end
	}
}

// notImages are the types of content in Interactions whose data is something else.
var notImages = map[string]bool{"audio": true, "video": true, "document": true}

func (s *answerScanner) endCandidate() {
	c := s.candidate
	c.finish = cmp.Or(c.cause, c.finish)
	s.candidate = candidate{}
	bit := uint64(1) << min(max(c.index, 0), 63)
	s.seen |= bit
	if c.finish == "" {
		return
	}
	s.ended |= bit
	s.facts.finish, s.finishSaid = c.finish, c.said
	if class := hardened(finishReasons[c.finish], c.said); s.isOutweighedBy(c.finish, class) {
		s.stopped, s.stoppedSaid, s.stoppedClass = c.finish, c.said, class
	}
}
