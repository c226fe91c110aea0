// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// interactions is the dialect of POST …/interactions, in a simple form: one
// call, nothing stored, the input's text is the prompt.
type interactions struct{}

// interactionCodes are this dialect's string codes for the HTTP statuses.
var interactionCodes = map[int]string{
	400: "invalid_request", 401: "authentication", 402: "payment_required", 403: "permission_denied",
	404: "not_found", 429: "rate_limit_exceeded", 499: "cancelled", 503: "unavailable", 504: "deadline_exceeded",
}

func (interactions) failure(_ *call, e *apiError) any {
	code, known := interactionCodes[e.code]
	if !known {
		code = "internal"
	}
	return interactionError(code, e.message)
}

func interactionError(code, message string) object {
	return object{{"error", object{{"code", code}, {"message", message}}}}
}

func (interactions) parse(c *call, body string) *apiError {
	root, fail := parseJSON(body)
	if fail != nil {
		return fail
	}
	if !root.Get("input").Exists() {
		return invalidArgument("input is not specified")
	}
	c.setPrompt(plainText(root.Get("input")))
	c.model = modelName(root.Get("model").Str)
	asked := root.Get("response_modalities")
	c.image = isImageModel(c.model) && (!asked.Exists() || strings.Contains(asked.Raw, `"image"`))
	c.text = !c.image || strings.Contains(asked.Raw, `"text"`)
	c.samples = 1
	if root.Get("stream").Bool() {
		c.stream = true
	}
	return nil
}

// render ends a refusal in words as "completed" with a text step, and every
// block as an error of its own code.
func (interactions) render(x *exchange, a answer) error {
	if a.breaks != nil {
		return x.fail(a.breaks)
	}
	if reason := a.reason(); reason != "" && reason != "STOP" && reason != "MAX_TOKENS" {
		code := strings.TrimPrefix(strings.ToLower(reason), "image_")
		return x.print(http.StatusBadRequest, jsonType, interactionError(code, "The interaction was stopped: "+reason+"."))
	}
	id := "v1_" + rand.Text()
	if x.call.stream {
		return x.interactionStream(id, a)
	}
	return x.json(append(interaction(x.call, id, "completed", a.usage), member{"steps", a.steps(x.call)}))
}

// reason is why the answer ended: the prompt's block or the first candidate's.
func (a answer) reason() string {
	if a.block != "" || len(a.candidates) == 0 {
		return a.block
	}
	return a.candidates[0].finish
}

func interaction(c *call, id, status string, u usage) object {
	return object{
		{"id", id},
		{"status", status},
		{"object", "interaction"},
		{"model", c.model},
		{"service_tier", "standard"},
		{"created", time.Now().UTC().Format(time.RFC3339)},
		{"usage", object{
			{"total_tokens", u.prompt() + u.candidates() + u.thoughts},
			{"total_input_tokens", u.prompt()},
			{"total_output_tokens", u.candidates()},
			{"total_thought_tokens", u.thoughts},
		}},
	}
}

func (a answer) steps(c *call) array {
	steps := array{}
	if c.image && isGemini3(c.model) {
		steps = append(steps, object{{"type", "thought"}, {"signature", signature()}})
	}
	return append(steps, object{{"type", "model_output"}, {"content", a.outputs()}})
}

func (a answer) outputs() array {
	outputs := array{}
	for _, c := range a.candidates {
		if words := c.words(); words != "" {
			outputs = append(outputs, object{{"type", "text"}, {"text", words}})
		}
		for _, p := range c.pictures() {
			outputs = append(outputs, object{{"type", "image"}, {"mime_type", p.mime}, {"data", p.data}})
		}
	}
	return outputs
}

// interactionStream sends the model's output as one step, a delta per item.
func (x *exchange) interactionStream(id string, a answer) error {
	events := []object{
		{{"interaction", interaction(x.call, id, "in_progress", usage{})}, {"event_type", "interaction.created"}},
		{{"index", 0}, {"step", object{{"type", "model_output"}}}, {"event_type", "step.start"}},
	}
	for _, output := range a.outputs() {
		events = append(events, object{{"index", 0}, {"delta", output}, {"event_type", "step.delta"}})
	}
	events = append(events,
		object{{"index", 0}, {"event_type", "step.stop"}},
		object{{"interaction", interaction(x.call, id, "completed", a.usage)}, {"event_type", "interaction.completed"}})

	out := x.open(http.StatusOK, eventStream)
	for _, event := range events {
		if err := x.event(out, event); err != nil {
			return err
		}
	}
	return out.close()
}

// plainText joins the text of a string, of a list of strings or text items,
// or of turns that hold either.
func plainText(v gjson.Result) string {
	switch {
	case v.Type == gjson.String:
		return v.Str
	case v.IsArray():
		var texts []string
		for _, item := range v.Array() {
			if text := plainText(item); text != "" {
				texts = append(texts, text)
			}
		}
		return strings.Join(texts, "\n")
	case v.Get("text").Exists():
		return v.Get("text").String()
	case v.Get("content").Exists():
		return plainText(v.Get("content"))
	default:
		return ""
	}
}

// modelName strips the "models/" that names may have in a body.
func modelName(name string) string { return strings.TrimPrefix(name, "models/") }
