// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"cmp"
	"strconv"
)

// openAIWriter writes answers in OpenAI's forms, piece by piece. Images go out as they
// come; text is held until it is known where it belongs.
type openAIWriter struct {
	out  *bytes.Buffer
	opts *openAIRelay

	model  string // as a JSON string; "" if the answer has not named it in time
	begun  bool   // the message has, or the first delta
	images int
	text   []byte // as in a JSON string, escapes and all
}

func (w *openAIWriter) write(texts ...string) {
	for _, text := range texts {
		w.out.WriteString(text)
	}
}

// name sets the model that the answer names, unless another has been named before:
// the chunks of a stream agree.
func (w *openAIWriter) name(model string) {
	if w.model == "" && model != "" {
		w.model = string(encode(model))
	}
}

// head begins an object, up to its list of choices.
func (w *openAIWriter) head(object string) {
	w.name(w.opts.model)
	w.write(`{"id":`, string(encode(w.opts.id)), `,"object":"`, object, `","created":`, strconv.FormatInt(w.opts.created, 10))
	w.write(`,"model":`, cmp.Or(w.model, `""`), `,"choices":[`)
}

// beginMessage begins the only message of an answer that is no stream.
func (w *openAIWriter) beginMessage() {
	if !w.begun {
		w.begun = true
		w.head("chat.completion")
		w.write(`{"index":0,"message":{"role":"assistant"`)
	}
}

// beginDelta begins a chunk with content. The first says who is speaking.
func (w *openAIWriter) beginDelta() {
	w.write("data: ")
	w.head("chat.completion.chunk")
	w.write(`{"index":0,"delta":{`)
	if !w.begun {
		w.begun = true
		w.write(`"role":"assistant",`)
	}
}

func (w *openAIWriter) endDelta() { w.write(`},"finish_reason":null}]}` + "\n\n") }

func (w *openAIWriter) beginImage(mime string) {
	prefix := "data:" + mime + ";base64,"
	if w.opts.to == toImages && !w.opts.asURL {
		w.beginItem(`{"b64_json":"`)
		return
	}
	w.beginURL(prefix)
}

func (w *openAIWriter) beginFile(string) { w.beginURL("") }

func (w *openAIWriter) beginURL(prefix string) {
	if w.opts.to == toImages {
		w.beginItem(`{"url":"` + prefix)
		return
	}
	w.beginItem(`{"type":"image_url","index":` + strconv.Itoa(w.images) + `,"image_url":{"url":"` + prefix)
}

// beginItem begins an image in the list of the form.
func (w *openAIWriter) beginItem(opening string) {
	switch {
	case w.opts.to == toChatEvents:
		w.textChunk() // what has been said before it
		w.beginDelta()
		w.write(`"images":[`)
	case w.images > 0:
		w.write(",")
	case w.opts.to == toChat:
		w.beginMessage()
		w.write(`,"images":[`)
	}
	w.write(opening)
	w.images++
}

func (w *openAIWriter) data(raw []byte) { w.out.Write(raw) }

func (w *openAIWriter) endImage() {
	switch w.opts.to {
	case toImages:
		w.write(`"}`)
	case toChat:
		w.write(`"}}`)
	case toChatEvents:
		w.write(`"}}]`)
		w.endDelta()
	}
}

// textChunk writes a chunk of the text that is held.
func (w *openAIWriter) textChunk() {
	if len(w.text) == 0 {
		return
	}
	w.beginDelta()
	w.write(`"content":"`)
	w.out.Write(w.text)
	w.write(`"`)
	w.endDelta()
	w.text = w.text[:0]
}

// end ends the answer.
func (w *openAIWriter) end(finish, usage string) {
	finish = cmp.Or(finish, "stop")
	switch w.opts.to {
	case toImages:
	case toChat:
		w.endMessage(finish, usage)
	case toChatEvents:
		w.endStream(finish, usage)
	}
}

func (w *openAIWriter) endMessage(finish, usage string) {
	w.beginMessage()
	if w.images > 0 {
		w.write("]")
	}
	w.write(`,"content":`)
	if len(w.text) > 0 {
		w.write(`"`)
		w.out.Write(w.text)
		w.write(`"`)
	} else {
		w.write("null")
	}
	w.write(`},"finish_reason":"`, finish, `"}],"usage":`, usage, "}")
}

func (w *openAIWriter) endStream(finish, usage string) {
	role := ""
	if !w.begun {
		role = `"role":"assistant"`
	}
	w.write("data: ")
	w.head("chat.completion.chunk")
	w.write(`{"index":0,"delta":{`, role, `},"finish_reason":"`, finish, `"}]}`, "\n\n")
	if w.opts.streamUsage {
		w.write("data: ")
		w.head("chat.completion.chunk")
		w.write(`],"usage":`, usage, "}\n\n")
	}
	w.write("data: [DONE]\n\n")
}

// failure ends the answer with an error, if there is room for one.
func (w *openAIWriter) failure(body []byte) error {
	switch {
	case w.opts.to == toChatEvents:
		w.write("data: ", string(body), "\n\n")
	case w.opts.to == toChat && !w.begun:
		w.write(string(body))
	default:
		return errAnswerFailed
	}
	return nil
}
