// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"strconv"
	"strings"
)

// wants is what the client asked for, as far as its body says.
type wants struct {
	images      bool     // an image may come back
	imagesAlone bool     // an answer without an image is no answer
	thoughts    bool     // drafts and thoughts are to be sent, too
	stream      bool     // "stream": true (OpenAI-compatible, Interactions)
	model       string   // "model" (OpenAI-compatible, Interactions)
	ties        []string // what binds the call to where it came from, the last at the end; see tie
	notes       []string // findings for the log; constant strings, never the client's text
}

const (
	_ fieldID = iota
	atRoot
	atSafety
	atSetting
	atCategory
	atThreshold
	atConfig
	atModalities
	atOwnModalities // of OpenAI's chat and the Interactions API: never completed
	atModality
	atFormats // of the Interactions API: one, or several
	atImageConfig
	atThoughts
	atMisplaced
	atStream
	atModel
	atSignature
	atFile
	atCache
	atInteraction // the one that this one goes on with
	atOther       // shows how the client spells its keys, no more
)

// requestSchema is what completing a request depends on (wire §2).
var requestSchema = newSchema(map[string]field{
	"":                                                {id: atRoot},
	"model":                                           {id: atModel, keep: maxKey},
	"stream":                                          {id: atStream},
	"safetySettings":                                  {id: atSafety},
	"safetySettings[]":                                {id: atSetting},
	"safetySettings[].category":                       {id: atCategory, keep: maxKey},
	"safetySettings[].threshold":                      {id: atThreshold, keep: maxKey},
	"responseModalities":                              {id: atOwnModalities},
	"responseModalities[]":                            {id: atModality, keep: maxKey},
	"systemInstruction":                               {id: atOther},
	"toolConfig":                                      {id: atOther},
	"cachedContent":                                   {id: atCache, keep: maxKey},
	"contents[].parts[].thoughtSignature":             {id: atSignature, keep: maxEscape * maxSignature},
	"contents[].parts[].fileData.fileUri":             {id: atFile, keep: maxKey},
	"generationConfig":                                {id: atConfig},
	"generationConfig.safetySettings":                 {id: atMisplaced},
	"generationConfig.responseModalities":             {id: atModalities},
	"generationConfig.responseModalities[]":           {id: atModality, keep: maxKey},
	"generationConfig.imageConfig":                    {id: atImageConfig},
	"generationConfig.responseFormat":                 {id: atOther},
	"generationConfig.responseFormat.image":           {id: atImageConfig},
	"generationConfig.thinkingConfig":                 {id: atOther},
	"generationConfig.thinkingConfig.includeThoughts": {id: atThoughts},
	"generationConfig.candidateCount":                 {id: atOther},
	"generationConfig.maxOutputTokens":                {id: atOther},
	"generationConfig.responseMimeType":               {id: atOther},
	"generationConfig.stopSequences":                  {id: atOther},
	"generationConfig.topK":                           {id: atOther},
	"generationConfig.topP":                           {id: atOther},

	"modalities":   {id: atOwnModalities}, // OpenAI's chat
	"modalities[]": {id: atModality, keep: maxKey},

	"responseFormat":        {id: atFormats}, // Interactions, as all that follow
	"responseFormat.type":   {id: atModality, keep: maxKey},
	"responseFormat[].type": {id: atModality, keep: maxKey},
	"previousInteractionId": {id: atInteraction, keep: maxKey},
	"input[].signature":     {id: atSignature, keep: maxEscape * maxSignature},
	"input[].uri":           {id: atFile, keep: maxKey},
	"input[].content[].uri": {id: atFile, keep: maxKey},
})

// key is a key in the client's spelling, with its colon.
func key(camel string, snake bool) string {
	if snake {
		camel = snakeCase(camel)
	}
	return `"` + camel + `":`
}

func isSnake(name []byte) bool { return bytes.IndexByte(name, '_') >= 0 }

// SafetySetting says how strictly Google filters one category of harm.
type SafetySetting struct {
	// Category is one of the four that can be set: HARM_CATEGORY_HARASSMENT,
	// HARM_CATEGORY_HATE_SPEECH, HARM_CATEGORY_SEXUALLY_EXPLICIT and
	// HARM_CATEGORY_DANGEROUS_CONTENT.
	Category string `json:"category"`
	// Threshold is the HarmBlockThreshold from which on content is blocked: OFF,
	// BLOCK_NONE, BLOCK_ONLY_HIGH, BLOCK_MEDIUM_AND_ABOVE or BLOCK_LOW_AND_ABOVE.
	Threshold string `json:"threshold"`
}

type harmCategory struct {
	name           string
	gemini, vertex int    // its numbers in the protobuf definitions, -1 for none
	past           string // why it has no effect any more
}

// harmCategories are all that either API has had.
var harmCategories = []harmCategory{
	{"HARM_CATEGORY_HARASSMENT", 7, 3, ""},
	{"HARM_CATEGORY_HATE_SPEECH", 8, 1, ""},
	{"HARM_CATEGORY_SEXUALLY_EXPLICIT", 9, 4, ""},
	{"HARM_CATEGORY_DANGEROUS_CONTENT", 10, 2, ""},
	{"HARM_CATEGORY_CIVIC_INTEGRITY", 11, 5, "deprecated"},
	{"HARM_CATEGORY_IMAGE_HATE", -1, 6, ""},
	{"HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT", -1, 7, ""},
	{"HARM_CATEGORY_IMAGE_HARASSMENT", -1, 8, ""},
	{"HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT", -1, 9, ""},
	{"HARM_CATEGORY_JAILBREAK", -1, 10, ""},
	{"HARM_CATEGORY_DEROGATORY", 1, -1, "PaLM"},
	{"HARM_CATEGORY_TOXICITY", 2, -1, "PaLM"},
	{"HARM_CATEGORY_VIOLENCE", 3, -1, "PaLM"},
	{"HARM_CATEGORY_SEXUAL", 4, -1, "PaLM"},
	{"HARM_CATEGORY_MEDICAL", 5, -1, "PaLM"},
	{"HARM_CATEGORY_DANGEROUS", 6, -1, "PaLM"},
}

// findCategory returns the category that a JSON value names; its name is
// empty if nobody knows it.
func findCategory(kind jsonKind, value []byte, vertex bool) harmCategory {
	for _, h := range harmCategories {
		number := h.gemini
		if vertex {
			number = h.vertex
		}
		if isEnum(kind, value, h.name, number) {
			return h
		}
	}
	return harmCategory{}
}

// isEnum compares a value of an enum by name or number. Google has accepted
// any case of a name (wire §2).
func isEnum(kind jsonKind, value []byte, name string, number int) bool {
	switch kind {
	case jsonString:
		return strings.EqualFold(string(value), name)
	case jsonNumber:
		n, err := strconv.ParseFloat(string(value), 64)
		return err == nil && n == float64(number)
	}
	return false
}
