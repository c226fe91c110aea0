// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// gptFields are the parameters of an object by name.
type gptFields map[string]gptField

// gptField is the type of a parameter in OpenAI's words, "" for any, and what
// its object, or each object of its array, may hold; nil for anything.
type gptField struct {
	kind string
	of   gptFields
}

// as gives fields of one kind.
func as(kind, names string) gptFields {
	all := make(gptFields)
	for name := range strings.FieldsSeq(names) {
		all[name] = gptField{kind: kind}
	}
	return all
}

func (f gptFields) and(more gptFields) gptFields {
	maps.Copy(f, more)
	return f
}

var (
	imageURLFields = gptFields{"type": {}, "index": {}, "image_url": {"object", as("string", "url detail")}}

	contentFields = as("string", "type text refusal").
			and(as("object", "input_audio file")).
			and(gptFields{"image_url": {"object", as("string", "url detail")}})

	messageFields = as("string", "role name tool_call_id refusal").
			and(as("", "tool_calls function_call audio")).
			and(gptFields{
			"content": {"", contentFields},
			"images":  {"array", imageURLFields}, // an aggregator's own answer, sent back
		})

	// image_config is how aggregators take Google's imageConfig.
	chatFields = as("string", "model reasoning_effort service_tier verbosity user safety_identifier prompt_cache_key").
			and(as("integer", "n max_tokens max_completion_tokens seed top_logprobs")).
			and(as("number", "temperature top_p presence_penalty frequency_penalty")).
			and(as("boolean", "stream store logprobs parallel_tool_calls")).
			and(as("array", "modalities tools functions")).
			and(as("object", "metadata logit_bias audio prediction web_search_options response_format")).
			and(as("", "stop tool_choice function_call")).
			and(gptFields{
			"messages":       {"array", messageFields},
			"stream_options": {"object", as("boolean", "include_usage include_obfuscation")},
			"image_config":   {"object", as("string", "aspect_ratio image_size")},
		})

	generationFields = as("string", "prompt model size quality background moderation output_format response_format style user").
				and(as("integer", "n output_compression partial_images")).
				and(as("boolean", "stream"))

	referenceFields = as("string", "image_url file_id")

	editFields = maps.Clone(generationFields).
			and(as("string", "input_fidelity")).
			and(gptFields{"images": {"array", referenceFields}, "mask": {"object", referenceFields}})
)

// gptChoices are the parameters that take certain words only. The simulator
// encodes no WebP.
var gptChoices = []struct {
	name    string
	choices []string
}{
	{"quality", []string{"low", "medium", "high", "auto", "standard", "hd"}},
	{"background", []string{"transparent", "opaque", "auto"}},
	{"moderation", []string{"low", "auto"}},
	{"output_format", []string{"png", "jpeg"}},
	{"response_format", []string{"url", "b64_json"}},
	{"input_fidelity", []string{"high", "low"}},
}

// check finds the first parameter that is not known or not of its type. null is
// as good as nothing.
func (f gptFields) check(at string, v gjson.Result) (fail *apiError) {
	if !v.IsObject() {
		return invalidType(at, "object", v)
	}
	v.ForEach(func(key, value gjson.Result) bool {
		name := join(at, key.Str)
		field, known := f[key.Str]
		switch {
		case !known:
			fail = unknownParam(name)
		case value.Type == gjson.Null:
		case field.kind != "" && !isKind(field.kind, value):
			fail = invalidType(name, field.kind, value)
		case field.of != nil:
			fail = field.of.checkEach(name, value)
		}
		return fail == nil
	})
	return fail
}

func (f gptFields) checkEach(at string, v gjson.Result) *apiError {
	if v.IsObject() {
		return f.check(at, v)
	}
	if !v.IsArray() {
		return nil
	}
	for i, item := range v.Array() {
		if fail := f.check(fmt.Sprintf("%s[%d]", at, i), item); fail != nil {
			return fail
		}
	}
	return nil
}

func invalidType(name, kind string, v gjson.Result) *apiError {
	return badParam(name, "invalid_type", "Invalid type for '%s': expected %s, but got %s instead.", name, withArticle(kind), withArticle(kindOf(v)))
}

func isKind(kind string, v gjson.Result) bool {
	got := kindOf(v)
	return got == kind || got == "integer" && kind == "number"
}

func kindOf(v gjson.Result) string {
	switch {
	case v.Type == gjson.String:
		return "string"
	case v.IsObject():
		return "object"
	case v.IsArray():
		return "array"
	case v.IsBool():
		return "boolean"
	case v.Type == gjson.Number && v.Num == float64(v.Int()):
		return "integer"
	case v.Type == gjson.Number:
		return "number"
	default:
		return "null"
	}
}

func withArticle(kind string) string {
	if strings.ContainsRune("aio", rune(kind[0])) {
		return "an " + kind
	}
	return "a " + kind
}

// integer reads a parameter with bounds; least is also its default.
func integer(v gjson.Result, name string, least, most int) (int, *apiError) {
	field := v.Get(name)
	n := int(field.Int())
	switch {
	case !isGiven(field):
		return least, nil
	case n < least:
		return 0, badParam(name, "integer_below_min_value", "Invalid '%s': integer below minimum value. Expected a value >= %d, but got %d instead.", name, least, n)
	case n > most:
		return 0, badParam(name, "integer_above_max_value", "Invalid '%s': integer above maximum value. Expected a value <= %d, but got %d instead.", name, most, n)
	default:
		return n, nil
	}
}

func isGiven(v gjson.Result) bool { return v.Exists() && v.Type != gjson.Null }

// checkChoices looks at the words in v.
func checkChoices(v gjson.Result) *apiError {
	for _, c := range gptChoices {
		if word := v.Get(c.name); isGiven(word) && !slices.Contains(c.choices, word.Str) {
			return invalidChoice(c.name, word.Str, c.choices...)
		}
	}
	return nil
}

// parseGPT reads a JSON body.
func parseGPT(body string, known gptFields) (gjson.Result, *apiError) {
	root, fail := parseJSON(body)
	if fail != nil {
		return root, gptError(400, "invalid_request_error", "",
			"We could not parse the JSON body of your request. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.")
	}
	return root, known.check("", root)
}
