// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
)

// openAIRelay says how a native answer becomes one in OpenAI's form.
type openAIRelay struct {
	to      clientForm
	events  bool   // the source is an event stream; arrays are recognised
	model   string // of an answer whose beginning does not name one
	created int64  // seconds since 1970
	id      string
	asURL   bool // images of images/generations are data URLs
	// streamUsage asks for a chunk with the usage at the end of a stream.
	streamUsage bool
	// failed is called at the end of the source. It returns the error, in OpenAI's
	// form, that is told instead of the answer's end; nil if all went well.
	failed func() []byte
}

// clientForm is what a client has asked for.
type clientForm uint8

const (
	toImages     clientForm = iota // the elements of data, without what stands around them
	toChat                         // a chat.completion
	toChatEvents                   // a stream of chat.completion.chunk
)

const (
	_ fieldID = iota
	resultRoot
	resultBlockReason
	resultCandidate
	resultFinish
	resultPart
	resultText
	resultThought
	resultData
	resultURI
	resultMime
	resultModel
	resultFault
	resultFaultCode
	resultFaultStatus
	resultFaultMessage
	resultUsage
	resultCached
	resultInput
	resultOutput
	resultModality
	resultModalityTokens
	resultTokens // and behind it, one for each place of a tally
)

// resultSchema is what can be said in OpenAI's forms.
var resultSchema = func() *field {
	mime := field{id: resultMime, keep: maxWord}
	modality, tokens := field{id: resultModality, keep: maxWord}, field{id: resultModalityTokens}
	root := newSchema(map[string]field{
		"promptFeedback.blockReason":                       {id: resultBlockReason, keep: maxWord},
		"candidates[]":                                     {id: resultCandidate},
		"candidates[].finishReason":                        {id: resultFinish, keep: maxWord},
		"candidates[].content.parts[]":                     {id: resultPart},
		"candidates[].content.parts[].text":                {id: resultText, raw: true},
		"candidates[].content.parts[].thought":             {id: resultThought},
		"candidates[].content.parts[].inlineData.data":     {id: resultData, raw: true},
		"candidates[].content.parts[].inlineData.mimeType": mime,
		"candidates[].content.parts[].fileData.fileUri":    {id: resultURI, raw: true},
		"candidates[].content.parts[].fileData.mimeType":   mime,
		"modelVersion":                                     {id: resultModel, keep: maxWord},
		"error":                                            {id: resultFault},
		"error.code":                                       {id: resultFaultCode},
		"error.status":                                     {id: resultFaultStatus, keep: maxWord},
		"error.message":                                    {id: resultFaultMessage, keep: maxMessage},

		"usageMetadata":                                      {id: resultUsage},
		"usageMetadata.promptTokenCount":                     {id: resultTokens + tallyPrompt},
		"usageMetadata.cachedContentTokenCount":              {id: resultCached},
		"usageMetadata.toolUsePromptTokenCount":              {id: resultTokens + tallyTools},
		"usageMetadata.candidatesTokenCount":                 {id: resultTokens + tallyOutput},
		"usageMetadata.thoughtsTokenCount":                   {id: resultTokens + tallyThinking},
		"usageMetadata.totalTokenCount":                      {id: resultTokens + tallyTotal},
		"usageMetadata.promptTokensDetails[]":                {id: resultInput},
		"usageMetadata.promptTokensDetails[].modality":       modality,
		"usageMetadata.promptTokensDetails[].tokenCount":     tokens,
		"usageMetadata.candidatesTokensDetails[]":            {id: resultOutput},
		"usageMetadata.candidatesTokensDetails[].modality":   modality,
		"usageMetadata.candidatesTokensDetails[].tokenCount": tokens,
	})
	root.id = resultRoot
	root.element = root // a stream without alt=sse is an array of answers (wire §1)
	return root
}()

// maxRelayText bounds the text of an answer, or of one event, that waits for its
// end: whether it is a thought is said behind it, and images go before it.
const maxRelayText = 4 << 20

var errTooMuchText = errors.New("the answer has more text than can be held")

// openAIRelayReader makes an answer in OpenAI's form of a native one. All candidates
// become one choice: a client that wants several is served by several calls.
type openAIRelayReader struct {
	relay
	opts   openAIRelay
	writer openAIWriter
	image  imageReader
	part   resultPartState // being read

	answered   bool // there has been an answer, be it empty
	candidates int
	blocked    string // promptFeedback.blockReason
	finish     string // in OpenAI's words
	fault      answerFault

	tally    tokenTally    // being read
	inputs   inputTally    // likewise
	modality modalityCount // likewise
	spent    usage
	input    inputTally // of what is spent
	model    string
}

type resultPartState struct {
	thought bool
	mime    string // of its data
	text    int    // where its text begins in what is held
}

func newOpenAIRelay(source io.ReadCloser, opts openAIRelay) *openAIRelayReader {
	o := &openAIRelayReader{opts: opts}
	o.init(source, resultSchema, opts.events, o)
	o.writer = openAIWriter{out: &o.out, opts: &o.opts}
	o.image.to = &o.writer
	return o
}

func (o *openAIRelayReader) open(f *field, _ []byte, array bool, _ int64) {
	if array {
		return
	}
	switch f.id {
	case resultRoot:
		o.beginObject()
	case resultCandidate:
		o.candidates++
	case resultPart:
		o.part = resultPartState{text: len(o.writer.text)}
	case resultFault:
		o.fault = answerFault{isTold: true}
	case resultUsage:
		o.tally, o.inputs = tokenTally{}, inputTally{}
	case resultInput, resultOutput:
		o.modality = modalityCount{}
	}
}

func (o *openAIRelayReader) close(f *field, array, _ bool, _ int64) (pause bool) {
	if array {
		return false
	}
	switch f.id {
	case resultRoot:
		o.endObject()
		o.answered = true
		o.writer.name(o.model)
		if o.opts.to == toChatEvents {
			o.writer.textChunk()
		}
	case resultPart:
		if o.part.thought {
			o.writer.text = o.writer.text[:min(o.part.text, len(o.writer.text))]
		}
	case resultInput:
		if o.modality.isImage {
			o.inputs.image += o.modality.tokens
		}
	case resultOutput:
		if o.modality.isImage {
			o.tally[tallyImage] += o.modality.tokens
		}
	case resultUsage:
		if o.tally != (tokenTally{}) { // chunks that only tell a tier or traffic type have one, too
			o.spent, o.input = o.tally.usage(), o.inputs
		}
	}
	return false
}

// begin begins an image at once: should it turn out to be a draft, it has gone out.
// Google says so behind the data (wire §6).
func (o *openAIRelayReader) begin(f *field) {
	mime, isImage := imageMime(o.part.mime)
	if o.part.thought || !isImage { // speech, video
		return
	}
	switch {
	case f.id == resultURI:
		o.image.beginAs(o.writer.beginFile, mime)
	case f.id != resultData:
	case mime != "":
		o.image.beginAs(o.writer.beginImage, mime)
	default:
		o.image.begin(false, "")
	}
}

func (o *openAIRelayReader) piece(f *field, raw []byte) {
	switch {
	case f.id != resultText:
		o.image.write(raw)
	case o.part.thought, o.opts.to == toImages, o.err != nil:
	case len(o.writer.text)+len(raw) > maxRelayText:
		o.fail(errTooMuchText)
	default:
		o.writer.text = append(o.writer.text, raw...)
	}
}

func (o *openAIRelayReader) scalar(f *field, _ []byte, kind jsonKind, value []byte, _ int64) {
	if kind == jsonNull {
		return
	}
	switch f.id {
	case resultData, resultURI:
		o.image.end()
	case resultThought:
		o.part.thought = kind == jsonTrue
	case resultMime:
		o.part.mime = string(value)
	case resultBlockReason:
		o.blocked = geminiEnums.block.name(kind, value)
	case resultFinish:
		if word := geminiEnums.finish.name(kind, value); o.finish != chatBlocked {
			o.finish = chatFinish(word)
		}
	case resultModel:
		setWord(&o.model, value)
	case resultFaultCode:
		o.fault.setCode(string(value))
	case resultFaultStatus:
		o.fault.status = string(value)
	case resultFaultMessage:
		o.fault.message = string(value)
	case resultCached:
		o.inputs.cached = number(value)
	case resultModality:
		o.modality.isImage = isEnum(kind, value, "IMAGE", 2)
	case resultModalityTokens:
		o.modality.tokens = number(value)
	default:
		if f.id >= resultTokens {
			o.tally[f.id-resultTokens] = number(value)
		}
	}
}

// end writes the end of the answer, or its failure.
func (o *openAIRelayReader) end() error {
	if failure := o.failure(); failure != nil {
		return o.writer.failure(failure)
	}
	if !o.answered {
		return io.ErrUnexpectedEOF // it was none: there is nothing to say that would be true
	}
	prompt := facts{blockReason: o.blocked, candidates: o.candidates}
	if prompt.promptBlock().class.isBlock() {
		o.finish = chatBlocked
	}
	o.writer.end(o.finish, o.spent.chat(o.input))
	return nil
}

// failure is the error that ends the answer, be it one of the upstream's own.
func (o *openAIRelayReader) failure() []byte {
	if o.opts.failed != nil {
		if body := o.opts.failed(); body != nil {
			return body
		}
	}
	if o.fault.isTold {
		return o.fault.error().openAI()
	}
	return nil
}

func (o *openAIRelayReader) breakOff() {}
