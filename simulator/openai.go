// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"time"

	"github.com/tidwall/gjson"
)

// chat is the OpenAI-compatible chat/completions, in a simple form: the text
// of the messages counts, and "n" does not. Pictures arrive as message.images.
type chat struct{}

// failure is in an array: that is how Google reports errors on these paths.
func (chat) failure(_ *call, e *apiError) any { return array{e.object()} }

func (chat) parse(c *call, body string) *apiError {
	root, fail := parseJSON(body)
	if fail != nil {
		return fail
	}
	if google := root.Get("extra_body.google"); get(google, "safetySettings").Exists() {
		return unknownField("safety_settings", "extra_body.google")
	}
	messages := root.Get("messages").Array()
	if len(messages) == 0 {
		return errNoContents
	}
	for _, message := range messages {
		words := plainText(message.Get("content"))
		c.promptTokens += countText(words)
		if message.Get("role").Str == "user" {
			c.prompt = words
		}
	}
	c.model = modelName(root.Get("model").Str)
	c.image = isImageModel(c.model)
	c.text, c.samples = true, 1
	if root.Get("stream").Bool() {
		c.stream = true
	}
	return nil
}

func (chat) render(x *exchange, a answer) error {
	if a.breaks != nil {
		return x.fail(a.breaks)
	}
	completion := object{{"id", rand.Text()[:22]}, {"object", "chat.completion"}, {"created", int(time.Now().Unix())}, {"model", x.call.model}}
	if x.call.stream {
		completion[1].value = "chat.completion.chunk"
		return x.chatStream(completion, a)
	}
	choices := array{}
	for i, c := range a.choices() {
		choices = append(choices, object{{"index", i}, {"message", c.chatMessage()}, {"finish_reason", c.finishReason()}})
	}
	return x.json(append(completion, member{"choices", choices}, member{"usage", a.usage.openAI()}))
}

// chatStream sends each choice as one event and closes with [DONE].
func (x *exchange) chatStream(completion object, a answer) error {
	out := x.open(http.StatusOK, eventStream)
	for i, c := range a.choices() {
		choice := object{{"index", i}, {"delta", c.chatMessage()}, {"finish_reason", c.finishReason()}}
		if err := x.event(out, append(completion, member{"choices", array{choice}})); err != nil {
			return err
		}
	}
	_, _ = out.WriteString("data: [DONE]\n\n")
	return out.close()
}

// choices are the candidates; a blocked prompt is a choice without content.
func (a answer) choices() []candidate {
	if len(a.candidates) == 0 {
		return []candidate{{finish: "SAFETY"}}
	}
	return a.candidates
}

func (c candidate) chatMessage() object {
	message := object{{"role", "assistant"}}
	if words := c.words(); words != "" {
		message = append(message, member{"content", words})
	}
	list := array{}
	for _, p := range c.pictures() {
		list = append(list, object{{"type", "image_url"}, {"image_url", object{{"url", dataURL{p.mime, p.data}}}}})
	}
	if len(list) > 0 {
		message = append(message, member{"images", list})
	}
	return message
}

// finishReason is OpenAI's word for the reason.
func (c candidate) finishReason() string {
	switch c.finish {
	case "", "STOP":
		return "stop"
	case "MAX_TOKENS", "CONTINUATION":
		return "length"
	default:
		return "content_filter"
	}
}

func (u usage) openAI() object {
	completion := u.candidates() + u.thoughts
	return object{{"prompt_tokens", u.prompt()}, {"completion_tokens", completion}, {"total_tokens", u.prompt() + completion}}
}

// images is the OpenAI-compatible images/generations.
type images struct{}

// maxImages is the upper bound of n.
const maxImages = 10

func (images) failure(c *call, e *apiError) any { return chat{}.failure(c, e) }

func (images) parse(c *call, body string) *apiError {
	root, fail := parseJSON(body)
	if fail != nil {
		return fail
	}
	if root.Get("prompt").Type != gjson.String {
		return invalidArgument("prompt is not specified")
	}
	c.setPrompt(root.Get("prompt").Str)
	c.model = modelName(root.Get("model").Str)
	c.image = true
	c.samples = int(cmp.Or(root.Get("n").Int(), 1))
	if c.samples < 1 || c.samples > maxImages {
		return invalidArgument("n must be between 1 and 10.")
	}
	return nil
}

// render leaves out what was blocked: on this path a block is a missing image.
func (images) render(x *exchange, a answer) error {
	if a.breaks != nil {
		return x.fail(a.breaks)
	}
	data := array{}
	for _, c := range a.candidates {
		for _, p := range c.pictures() {
			data = append(data, object{{"b64_json", p.data}})
		}
	}
	return x.json(object{{"created", int(time.Now().Unix())}, {"data", data}})
}
