// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"io"
)

// nativeRelay says how an answer in OpenAI's form becomes a native one.
type nativeRelay struct {
	from   upstreamForm
	events bool       // the source is an event stream
	to     streamForm // formUnary, formEvents or formArray
	model  string     // that was asked for: the modelVersion of an answer that names none
}

// upstreamForm is what an upstream was asked for.
type upstreamForm uint8

const (
	fromImages upstreamForm = iota // images/generations, images/edits
	fromChat                       // chat/completions
)

// nativeRelayReader makes a native answer of one in OpenAI's form. It writes one
// object for each of the source's that has content. What the others say waits for
// the next that has, or for the end: Google's clients look at the candidates of
// every chunk.
type nativeRelayReader struct {
	relay
	opts   nativeRelay
	writer answerWriter
	words  markdown    // the texts
	image  imageReader // what is an image by its field

	isAnswer  bool // it is one of images, be there any or not
	hasImage  bool // the one that a holder holds has been seen
	format    string
	position  int          // of the next choice in its list
	choice    nativeEnding // being read
	cause     string       // why it was blocked, in Google's words
	owed      nativeEnding // of the last choice, if nothing has been written since
	fault     answerFault
	told      []byte     // the last error that has been written, as an object of its own
	tally     tokenTally // being read
	inputs    inputTally // likewise
	usage     *nativeUsage
	model, id string
}

func newNativeRelay(source io.ReadCloser, opts nativeRelay) io.ReadCloser {
	n := &nativeRelayReader{opts: opts}
	n.init(source, replySchema, opts.events, n)
	n.writer = answerWriter{out: &n.out, form: opts.to}
	n.words.to, n.image.to = n, n
	return n
}

// lateFault is what the stream has told of in an event, see faultTeller.
func (n *nativeRelayReader) lateFault() []byte { return n.told }

// merges tells whether the chunks of a stream become one answer. What they say of
// several choices becomes one candidate then.
func (n *nativeRelayReader) merges() bool { return n.opts.to == formUnary && n.opts.events }

func (n *nativeRelayReader) open(f *field, _ []byte, array bool, _ int64) {
	switch {
	case f.id == replyChoices:
		n.position = 0
	case f.id == replyData:
		n.isAnswer = true
	case array:
	case f.id == replyRoot:
		n.beginObject()
	case f.id == replyChoice:
		n.choice, n.cause = nativeEnding{index: n.position}, ""
		n.position++
	case f.id == replyHolder:
		n.hasImage = false
	case f.id == replyFault:
		n.fault = answerFault{}
	case f.id == replyUsage:
		n.tally, n.inputs = tokenTally{}, inputTally{}
	}
}

func (n *nativeRelayReader) close(f *field, array, empty bool, _ int64) (pause bool) {
	switch {
	case array:
	case f.id == replyRoot:
		n.endObject()
		n.endReply()
	case f.id == replyChoice:
		n.endChoice()
	case f.id == replyFault:
		n.fault.isTold = !empty
	case f.id == replyUsage && n.tally != tokenTally{}:
		n.usage = n.tally.usage().native(n.inputs)
	}
	return false
}

func (n *nativeRelayReader) begin(f *field) {
	if f.id != replyBase64 && f.id != replyURL || n.hasImage {
		return // some send the same image in both fields
	}
	n.hasImage = true
	mime, _ := imageMime("image/" + n.format)
	n.image.begin(f.id == replyURL, mime)
}

func (n *nativeRelayReader) piece(f *field, raw []byte) {
	if f.id == replyText {
		n.words.write(raw)
		return
	}
	n.image.write(raw)
}

func (n *nativeRelayReader) scalar(f *field, _ []byte, kind jsonKind, value []byte, _ int64) {
	if kind == jsonNull {
		return
	}
	switch f.id {
	case replyText:
		n.endText()
	case replyBase64, replyURL:
		n.image.end()
	case replyCreated:
		n.isAnswer = true
	case replyFormat:
		n.format = string(value)
	case replyIndex:
		n.choice.index = int(number(value))
	case replyFinish:
		n.choice.finish = finishOf(value)
	case replyNativeFinish:
		n.cause = blockWord(value)
	case replyModel:
		setWord(&n.model, value)
	case replyID:
		setWord(&n.id, value)
	case replyFault:
		n.fault = answerFault{isTold: len(value) > 0, googleError: googleError{message: string(value)}}
	case replyInputText:
		n.inputs.text = number(value)
	case replyInputImage:
		n.inputs.image = number(value)
	case replyInputCached:
		n.inputs.cached = number(value)
	default:
		switch {
		case f.id < 0:
			n.fault.take(f.id, value)
		case f.id >= replyTokens:
			n.tally[f.id-replyTokens] = number(value)
		}
	}
}

// beginPart begins a part. What is owed for a candidate goes before it.
func (n *nativeRelayReader) beginPart(opening, closing string) {
	if n.writer.depth == inNothing && !n.merges() {
		n.payOwed()
	}
	n.writer.beginPart(opening, closing)
}

func (n *nativeRelayReader) text(raw []byte) {
	if n.writer.depth != inPart && len(raw) > 0 {
		n.beginPart(`{"text":"`, `"}`)
	}
	n.out.Write(raw)
}

func (n *nativeRelayReader) beginImage(mime string) {
	n.words.end()
	n.beginPart(`{"inlineData":{"mimeType":"`+mime+`","data":"`, `"}}`)
}

func (n *nativeRelayReader) beginFile(mime string) {
	n.words.end()
	n.beginPart(`{"fileData":{"mimeType":"`+mime+`","fileUri":"`, `"}}`)
}

func (n *nativeRelayReader) data(raw []byte) { n.out.Write(raw) }

func (n *nativeRelayReader) endImage() { n.writer.endPart() }

// endText ends a string of text. That of a stream goes on in the next event: what
// is held of it may be half of an image.
func (n *nativeRelayReader) endText() {
	if !n.opts.events {
		n.words.end()
	}
	if !n.words.inImage() && !n.merges() {
		n.writer.endPart()
	}
}

func (n *nativeRelayReader) endChoice() {
	n.choice.finish = cmp.Or(n.cause, n.choice.finish)
	if n.choice.finish != "" {
		n.words.end()
	}
	switch {
	case n.words.inImage(): // goes on
	case n.merges():
		if n.choice.finish != "" {
			n.owed.finish = n.choice.finish
		}
	case n.opts.to == formUnary:
		n.writer.beginCandidate()
		n.writer.endCandidate(n.choice)
	case n.writer.depth >= inCandidate:
		n.writer.endCandidate(n.choice)
	case n.choice.finish != "":
		n.payOwed()
		n.owed = n.choice
	}
}

// payOwed writes an object for an ending that has been kept back.
func (n *nativeRelayReader) payOwed() {
	if n.owed.finish != "" {
		n.writer.beginCandidate()
		n.writer.endCandidate(n.owed)
		n.owed = nativeEnding{}
		n.endNative()
	}
}

// endReply ends an object of the source.
func (n *nativeRelayReader) endReply() {
	if n.fault.isTold {
		n.words.end()
		n.owed, n.isDone = nativeEnding{}, true // what has failed has not ended, and nothing follows
		n.beginFault()
	} else if n.opts.from == fromImages && !n.words.inImage() {
		n.endImages()
	}
	if !n.merges() && !n.words.inImage() {
		n.endNative()
	}
}

// beginFault opens what an error belongs into: an answer like any other, or a candidate
// that a filter has stopped.
func (n *nativeRelayReader) beginFault() {
	if ending, stopped := n.fault.ending(); stopped {
		n.writer.beginCandidate()
		n.writer.endCandidate(ending)
		n.fault = answerFault{}
		return
	}
	n.writer.beginObject()
}

// endImages gives images the finishReason that OpenAI has no word for.
func (n *nativeRelayReader) endImages() {
	if n.writer.depth < inCandidate && (!n.isAnswer || n.writer.candidates > 0) {
		return
	}
	n.writer.beginCandidate()
	finish := "STOP"
	if n.writer.parts == 0 {
		finish = reasonNoImage
	}
	n.writer.endCandidate(nativeEnding{finish: finish})
}

// endNative ends an object of the answer's, if one has been begun.
func (n *nativeRelayReader) endNative() {
	if n.writer.depth == inNothing {
		return
	}
	n.writer.endCandidate(nativeEnding{})
	rest := nativeRest{Usage: n.usage, ModelVersion: n.model, ResponseID: n.id}
	if rest.ModelVersion == "" {
		rest.ModelVersion = n.opts.model
	}
	n.fault.tell(&rest)
	n.writer.endObject(rest)
	if rest.Fault != nil {
		n.told = encode(errorBody{Error: *rest.Fault})
	}
	n.usage, n.fault = nil, answerFault{}
}

// end writes what is owed. An image inside a text whose end has not come is no image.
func (n *nativeRelayReader) end() error {
	if n.words.inImage() {
		return io.ErrUnexpectedEOF
	}
	n.words.end()
	usageAlone := n.usage != nil && n.writer.objects > 0 && n.writer.depth == inNothing
	if usageAlone || n.owed.finish != "" {
		n.writer.beginCandidate()
	}
	n.writer.endCandidate(n.owed)
	if n.fault.isTold {
		n.beginFault()
	}
	n.endNative()
	n.writer.end()
	return nil
}

// breakOff tells of a block that has been kept back: its prompt must not be tried again.
func (n *nativeRelayReader) breakOff() {
	if finishReasons[n.owed.finish].isBlock() {
		n.words.end()
		n.writer.beginCandidate()
		n.writer.endCandidate(n.owed)
		n.endNative()
	}
}
