// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/tidwall/gjson"
)

// checker finds the first fault in a JSON value; at is its place in Google's
// notation, such as generation_config.response_modalities[0].
type checker func(at string, v gjson.Result) *apiError

// message checks an object: its fields by their lowerCamelCase names, nil for
// those whose content does not matter here. Like every protobuf parser it
// knows the snake_case names as well, and no two spellings at once.
func message(fields map[string]checker) checker {
	return func(at string, v gjson.Result) (fail *apiError) {
		if !v.IsObject() {
			return invalidValue(at, v, "")
		}
		seen := make(map[string]bool, len(fields))
		v.ForEach(func(key, value gjson.Result) bool {
			name := camelCase(key.Str)
			check, known := fields[name]
			switch {
			case !known:
				fail = unknownField(key.Str, at)
			case seen[name]:
				fail = duplicateField(snakeCase(name), at)
			case check != nil && value.Type != gjson.Null: // null counts as unset
				fail = check(join(at, snakeCase(name)), value)
			}
			seen[name] = true
			return fail == nil
		})
		return fail
	}
}

// repeated checks each element. A single object stands for a list of one:
// Google's own curl examples write contents and parts that way.
func repeated(element checker) checker {
	return func(at string, v gjson.Result) *apiError {
		if v.IsObject() {
			return element(at+"[0]", v)
		}
		if !v.IsArray() {
			return invalidValue(at, v, "")
		}
		for i, item := range v.Array() {
			if fail := element(fmt.Sprintf("%s[%d]", at, i), item); fail != nil {
				return fail
			}
		}
		return nil
	}
}

// enum checks a value against the names of a protobuf enum; numbers pass.
func enum(typeName string, equal func(a, b string) bool, names ...string) checker {
	return func(at string, v gjson.Result) *apiError {
		known := func(name string) bool { return equal(name, v.Str) }
		if v.Type == gjson.Number || v.Type == gjson.String && slices.ContainsFunc(names, known) {
			return nil
		}
		return invalidValue(at, v, typeName)
	}
}

func same(a, b string) bool { return a == b }

func checkText(at string, v gjson.Result) *apiError {
	if v.Type != gjson.String {
		return invalidValue(at, v, "TYPE_STRING")
	}
	return nil
}

// fields is shorthand for a table of fields, most of which may hold anything.
func fields(unchecked string, checked map[string]checker) map[string]checker {
	all := make(map[string]checker)
	for name := range strings.FieldsSeq(unchecked) {
		all[name] = nil
	}
	maps.Copy(all, checked)
	return all
}

var (
	// Old Google samples write "Text" and "Image", and Google has accepted it.
	modalitySchema = enum("GenerationConfig.Modality", strings.EqualFold, "MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO")

	thresholdSchema = enum("SafetySetting.HarmBlockThreshold", same, "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
		"BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF")

	categories = []string{
		"HARM_CATEGORY_HARASSMENT", "HARM_CATEGORY_HATE_SPEECH", "HARM_CATEGORY_SEXUALLY_EXPLICIT",
		"HARM_CATEGORY_DANGEROUS_CONTENT", "HARM_CATEGORY_CIVIC_INTEGRITY", "HARM_CATEGORY_JAILBREAK",
	}
	vertexCategories = append(slices.Clone(categories), "HARM_CATEGORY_IMAGE_HATE",
		"HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT", "HARM_CATEGORY_IMAGE_HARASSMENT", "HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT")
)

// extras are the fields that one of Google's two APIs has and the other refuses.
type extras struct {
	request, part, generation, image, safety string
	categories                               []string
}

var (
	geminiRequest = requestSchema(extras{
		request:    "store",
		part:       "toolCall toolResponse partMetadata mediaProcessing",
		generation: "enableEnhancedCivicAnswers",
		categories: categories,
	})
	vertexRequest = requestSchema(extras{
		request:    "labels modelArmorConfig outputConfig",
		generation: "audioTimestamp routingConfig modelSelectionConfig",
		image:      "personGeneration prominentPeople outputMimeType outputCompressionQuality imageOutputOptions",
		safety:     "method",
		categories: vertexCategories,
	})
)

// requestSchema is GenerateContentRequest: what the two APIs have in common,
// and more.
func requestSchema(more extras) checker {
	part := message(fields(`inlineData fileData functionCall functionResponse executableCode codeExecutionResult
		thought thoughtSignature videoMetadata mediaResolution audioTranscription speechMetadata `+more.part,
		map[string]checker{"text": checkText}))
	content := message(fields("role", map[string]checker{"parts": repeated(part)}))
	generationConfig := message(fields(`candidateCount stopSequences maxOutputTokens temperature topP topK seed
		responseMimeType responseSchema responseJsonSchema presencePenalty frequencyPenalty responseLogprobs logprobs
		enableAffectiveDialog speechConfig mediaResolution responseFormat translationConfig
		audioTranscriptionConfig `+more.generation,
		map[string]checker{
			"responseModalities": repeated(modalitySchema),
			"imageConfig":        message(fields("aspectRatio imageSize "+more.image, nil)),
			"thinkingConfig":     message(fields("includeThoughts thinkingBudget thinkingLevel", nil)),
		}))
	safetySetting := message(fields(more.safety, map[string]checker{
		"category":  enum("HarmCategory", same, more.categories...),
		"threshold": thresholdSchema,
	}))
	return message(fields("model tools toolConfig cachedContent serviceTier continuationToken "+more.request,
		map[string]checker{
			"contents":          repeated(content),
			"systemInstruction": content,
			"safetySettings":    repeated(safetySetting),
			"generationConfig":  generationConfig,
		}))
}

// get reads a field in whichever spelling it has; null is as good as none.
func get(v gjson.Result, name string) gjson.Result {
	for _, key := range []string{name, snakeCase(name)} {
		if found := v.Get(key); found.Exists() && found.Type != gjson.Null {
			return found
		}
	}
	return gjson.Result{}
}

// elements gives the elements of a repeated field, in the sense of repeated.
func elements(v gjson.Result) []gjson.Result {
	if v.IsObject() {
		return []gjson.Result{v}
	}
	return v.Array()
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func snakeCase(camel string) string {
	var b strings.Builder
	for _, r := range camel {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// camelCase ignores a leading underscore: some SDKs send _responseJsonSchema.
func camelCase(snake string) string {
	words := strings.Split(strings.TrimPrefix(snake, "_"), "_")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "")
}
