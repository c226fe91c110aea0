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

// interactionPlays: the model refuses in words here, whatever it was asked for
// (wire §9).
var interactionPlays = map[string]play{"refusal": textOnly}

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
		return x.print(http.StatusBadRequest, googleJSON, interactionError(code, "The interaction was stopped: "+reason+"."))
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
		{"usage", u.interaction()},
	}
}

func (u usage) interaction() object {
	o := object{
		{"total_tokens", u.prompt() + u.candidates() + u.thoughts},
		{"total_input_tokens", u.prompt()},
		{"total_output_tokens", u.candidates()},
	}
	if u.image > 0 {
		o = append(o, member{"output_tokens_by_modality", array{object{{"modality", "image"}, {"tokens", u.image}}}})
	}
	return append(o, member{"total_thought_tokens", u.thoughts})
}

// steps are the output, after a signed thought if there is a picture in it: a
// refusal comes without one.
func (a answer) steps(c *call) array {
	steps := array{}
	if a.thinks(c) {
		steps = append(steps, object{{"type", "thought"}, {"signature", signature()}})
	}
	return append(steps, object{{"type", "model_output"}, {"content", a.outputs()}})
}

func (a answer) thinks(c *call) bool { return len(a.pictures()) > 0 && isGemini3(c.model) }

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

// interactionStream sends the steps one after the other, with a delta for each
// thing in them.
func (x *exchange) interactionStream(id string, a answer) error {
	begun := object{{"id", id}, {"status", "in_progress"}, {"object", "interaction"}, {"model", x.call.model}}
	events := []object{
		{{"interaction", begun}, {"event_type", "interaction.created"}},
		{{"interaction_id", id}, {"status", "in_progress"}, {"event_type", "interaction.status_update"}},
	}
	step := 0
	add := func(kind string, deltas array) {
		events = append(events, object{{"index", step}, {"step", object{{"type", kind}}}, {"event_type", "step.start"}})
		for _, delta := range deltas {
			events = append(events, object{{"index", step}, {"delta", delta}, {"event_type", "step.delta"}})
		}
		events = append(events, object{{"index", step}, {"event_type", "step.stop"}})
		step++
	}
	if a.thinks(x.call) {
		add("thought", array{object{{"signature", signature()}, {"type", "thought_signature"}}})
	}
	add("model_output", a.outputs())
	events = append(events, object{{"interaction", interaction(x.call, id, "completed", a.usage)}, {"event_type", "interaction.completed"}})

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
