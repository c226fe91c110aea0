// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// gptChat is OpenAI's chat/completions, with the images of aggregators: they
// are asked for by modalities and come in message.images.
type gptChat struct{}

func (gptChat) failure(_ *call, e *apiError) any { return gptErrorBody(e) }

func (gptChat) parse(c *call, body string) *apiError {
	root, fail := parseGPT(body, chatFields)
	if fail != nil {
		return fail
	}
	if root.Get("model").Str == "" {
		return gptError(400, "invalid_request_error", "", "you must provide a model parameter")
	}
	c.setGPTModel(root.Get("model").Str)
	if fail = c.readMessages(root.Get("messages")); fail != nil {
		return fail
	}
	// More than one answer is for models that write only, as with candidateCount.
	if c.samples, fail = integer(root, "n", 1, 1); fail != nil {
		return fail
	}
	c.stream = root.Get("stream").Bool()
	c.gpt.usage = root.Get("stream_options.include_usage").Bool()
	c.aspect = root.Get("image_config.aspect_ratio").Str
	c.size = root.Get("image_config.image_size").Str
	if fail = c.checkImage(); fail != nil {
		return fail
	}
	return c.readGPTModalities(root.Get("modalities"))
}

var (
	gptRoles      = []string{"system", "assistant", "user", "function", "tool", "developer"}
	gptContents   = []string{"text", "image_url", "input_audio", "refusal", "audio", "file"}
	gptModalities = []string{"text", "image"}
)

// readGPTModalities decides what to answer with. A model that draws does so
// unless told otherwise.
func (c *call) readGPTModalities(asked gjson.Result) *apiError {
	c.image = isImageModel(c.model) || strings.HasPrefix(c.model, "nano-banana")
	c.text = true
	if len(asked.Array()) == 0 {
		return nil
	}
	c.image, c.text = false, false
	for i, modality := range asked.Array() {
		if !slices.Contains(gptModalities, modality.Str) {
			return invalidChoice(fmt.Sprintf("modalities[%d]", i), modality.String(), gptModalities...)
		}
		c.image = c.image || modality.Str == "image"
		c.text = c.text || modality.Str == "text"
	}
	return nil
}

// readMessages counts the prompt and finds the text of its last user message.
func (c *call) readMessages(messages gjson.Result) *apiError {
	if !isGiven(messages) {
		return missingParam("messages")
	}
	if len(messages.Array()) == 0 {
		return badParam("messages", "empty_array", "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.")
	}
	for i, message := range messages.Array() {
		at := fmt.Sprintf("messages[%d]", i)
		role := message.Get("role").Str
		if !slices.Contains(gptRoles, role) {
			return invalidChoice(at+".role", role, gptRoles...)
		}
		text := plainText(message.Get("content"))
		c.promptTokens += countText(text)
		if role == "user" && text != "" {
			c.prompt = text
		}
		if fail := c.readImages(at, message); fail != nil {
			return fail
		}
	}
	return nil
}

// readImages looks at the images of a message: in its content, and in what the
// model has answered before.
func (c *call) readImages(at string, message gjson.Result) *apiError {
	read := func(at string, part gjson.Result) *apiError {
		c.promptImages++
		return checkImageURL(at+".image_url.url", part.Get("image_url.url").Str)
	}
	if content := message.Get("content"); content.IsArray() {
		for i, part := range content.Array() {
			at := fmt.Sprintf("%s.content[%d]", at, i)
			kind := part.Get("type").Str
			if !slices.Contains(gptContents, kind) {
				return invalidChoice(at+".type", kind, gptContents...)
			}
			if kind != "image_url" {
				continue
			}
			if fail := read(at, part); fail != nil {
				return fail
			}
		}
	}
	for i, image := range message.Get("images").Array() {
		if fail := read(fmt.Sprintf("%s.images[%d]", at, i), image); fail != nil {
			return fail
		}
	}
	return nil
}

// render ends a blocked prompt as 400 and a block of what was made by the reason
// to finish.
func (gptChat) render(x *exchange, a answer) error {
	if len(a.candidates) == 0 {
		return x.fail(x.call.moderationError(ofPrompt))
	}
	if x.call.stream {
		return x.gptStream(a)
	}
	if a.breaks != nil {
		return x.fail(a.breaks)
	}
	choices := array{}
	for i, c := range a.candidates {
		choices = append(choices, object{{"index", i}, {"message", c.gptMessage()}, {"logprobs", nil}, {"finish_reason", c.gptFinish()}})
	}
	return x.json(append(x.call.completion("chat.completion"), member{"choices", choices}, member{"usage", a.usage.gptChat()}))
}

// completion is the beginning of an answer and of each chunk of one.
func (c *call) completion(kind string) object {
	return object{{"id", "chatcmpl-" + rand.Text()}, {"object", kind}, {"created", int(time.Now().Unix())}, {"model", c.gpt.model}}
}

func (c candidate) gptMessage() object {
	message := object{{"role", "assistant"}, {"content", orNull(c.words())}, {"refusal", nil}, {"annotations", array{}}}
	if images := c.gptPictures(); len(images) > 0 {
		message = append(message, member{"images", images})
	}
	return message
}

func (c candidate) gptPictures() array {
	list := array{}
	for i, p := range c.pictures() {
		list = append(list, object{{"type", "image_url"}, {"image_url", object{{"url", dataURL{p.mime, p.data}}}}, {"index", i}})
	}
	return list
}

// gptFinishes are OpenAI's words for reasons that are no block. What neither
// table has is passed on in small letters, as some aggregators do.
var gptFinishes = map[string]any{
	"": nil, "STOP": "stop", "FINISH_REASON_UNSPECIFIED": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length",
	// An image or an answer is missing, and nobody says why.
	"NO_IMAGE": "stop", "IMAGE_OTHER": "stop", "OTHER": "stop", "LANGUAGE": "stop",
}

func (c candidate) gptFinish() any {
	if moderated[c.finish] {
		return "content_filter"
	}
	if word, known := gptFinishes[c.finish]; known {
		return word
	}
	return strings.ToLower(c.finish)
}

func (u usage) gptChat() object {
	completion := u.candidates() + u.thoughts
	return object{
		{"prompt_tokens", u.prompt()},
		{"completion_tokens", completion},
		{"total_tokens", u.prompt() + completion},
		{"prompt_tokens_details", object{{"cached_tokens", 0}}},
		{"completion_tokens_details", object{{"reasoning_tokens", u.thoughts}, {"image_tokens", u.image}}},
	}
}

// gptStream sends for each choice a chunk with its role, its text in a few, its
// pictures in one, and why it ended; then the usage, if it is wanted. An error
// takes the place of the rest, [DONE] included.
func (x *exchange) gptStream(a answer) error {
	head := x.call.completion("chat.completion.chunk")
	var chunks []object
	for i, c := range a.candidates {
		for _, d := range c.gptDeltas() {
			choice := object{{"index", i}, {"delta", d.delta}, {"logprobs", nil}, {"finish_reason", d.finish}}
			chunks = append(chunks, append(slices.Clip(head), member{"choices", array{choice}}))
		}
	}
	if x.call.gpt.usage {
		for i := range chunks {
			chunks[i] = append(chunks[i], member{"usage", nil})
		}
		chunks = append(chunks, append(slices.Clip(head), member{"choices", array{}}, member{"usage", a.usage.gptChat()}))
	}
	if a.breaks != nil {
		chunks = append(chunks[:min(2, len(chunks))], gptErrorBody(a.breaks))
	}
	out := x.open(http.StatusOK, eventStream)
	for _, chunk := range chunks {
		if err := x.gptEvent(out, chunk); err != nil {
			return err
		}
	}
	if a.breaks == nil {
		_, _ = out.WriteString("data: [DONE]\n\n")
	}
	return out.close()
}

type gptDelta struct {
	delta  object
	finish any
}

func (c candidate) gptDeltas() []gptDelta {
	deltas := []gptDelta{{delta: object{{"role", "assistant"}, {"content", ""}, {"refusal", nil}}}}
	for _, part := range c.parts {
		if part.thought || part.text == "" {
			continue
		}
		for _, p := range part.split() {
			deltas = append(deltas, gptDelta{delta: object{{"content", p.text}}})
		}
	}
	if images := c.gptPictures(); len(images) > 0 {
		deltas = append(deltas, gptDelta{delta: object{{"images", images}}})
	}
	if c.finish != "" {
		deltas = append(deltas, gptDelta{delta: object{}, finish: c.gptFinish()})
	}
	return deltas
}
