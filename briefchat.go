// SPDX-License-Identifier: Apache-2.0

package gemini

import "io"

// openAIMessage is the message being read.
type openAIMessage struct {
	role   string
	parts  []briefPart // of its content
	images []briefPart // those that a model has made: they follow the content
	part   briefPart   // being read
}

// chatFields are those of chat/completions (platform.openai.com/docs/api-reference/chat).
// A message of an assistant may have images as OpenRouter answers with them
// (openrouter.ai/docs/features/multimodal/image-generation).
var chatFields = func() openAIFields {
	text := openAIField{kinds: takesText, take: (*openAIReader).takePartText}
	url := openAIField{kinds: takesText, keep: maxURI, isURL: true, take: (*openAIReader).takePartImage}
	ignored := openAIField{kinds: takesAny, take: (*openAIReader).ignore}
	fields := openAIFields{
		"model":                                {kinds: takesText, take: (*openAIReader).ignore},
		"messages[]":                           {end: (*openAIReader).endMessage},
		"messages[].role":                      {kinds: takesText, keep: maxWord, take: (*openAIReader).takeRole},
		"messages[].content":                   {kinds: takesText, take: (*openAIReader).takeContent},
		"messages[].content[]":                 {end: (*openAIReader).endPart},
		"messages[].content[].type":            {kinds: takesText, keep: maxWord, take: usual("text", "image_url")},
		"messages[].content[].text":            text,
		"messages[].content[].imageUrl":        url,
		"messages[].content[].imageUrl.url":    url,
		"messages[].content[].imageUrl.detail": ignored, // how closely to look at it
		"messages[].images[]":                  {end: (*openAIReader).endImage},
		"messages[].images[].type":             {kinds: takesText, keep: maxWord, take: usual("image_url")},
		"messages[].images[].index":            ignored,
		"messages[].images[].imageUrl":         url,
		"messages[].images[].imageUrl.url":     url,
		"temperature":                          settingField("temperature"),
		"topP":                                 settingField("topP"),
		"maxTokens":                            {kinds: takesNumber, take: (*openAIReader).takeMaxTokens},
		"maxCompletionTokens":                  settingField("maxOutputTokens"),
		"seed":                                 settingField("seed"),
		"presencePenalty":                      settingField("presencePenalty"),
		"frequencyPenalty":                     settingField("frequencyPenalty"),
		"stop":                                 {kinds: takesText, keep: maxWord, take: (*openAIReader).takeStop},
		"stop[]":                               {kinds: takesText, keep: maxWord, take: (*openAIReader).takeStop},
		"reasoningEffort":                      {kinds: takesText, keep: maxWord, take: (*openAIReader).takeEffort},
		"modalities":                           {end: (*openAIReader).endModalities},
		"modalities[]":                         {kinds: takesText, keep: maxWord, take: (*openAIReader).takeModality},
		"n":                                    {kinds: takesNumber, take: (*openAIReader).takeChoices},
		"stream":                               {kinds: takesFlag, take: (*openAIReader).takeStream},
		"streamOptions.includeUsage":           {kinds: takesFlag, take: (*openAIReader).takeStreamUsage},
		"responseFormat.type":                  {kinds: takesText, keep: maxWord, take: usual("text")},
		"toolChoice":                           {kinds: takesText | takesNested, keep: maxWord, take: usual("none", "auto")},
		"functionCall":                         {kinds: takesText | takesNested, keep: maxWord, take: usual("none", "auto")},
		"logprobs":                             {kinds: takesFlag, take: usual("false")},
		"topLogprobs":                          {kinds: takesNumber, take: usual("0")},
	}
	for _, path := range []string{
		"messages[].name", "messages[].refusal", "messages[].annotations", "messages[].reasoning", "messages[].reasoningContent",
		"user", "metadata", "store", "serviceTier", "parallelToolCalls", "promptCacheKey", "promptCacheRetention",
		"safetyIdentifier", "verbosity", "streamOptions.includeObfuscation",
	} {
		fields[path] = openAIField{kinds: takesAny, take: (*openAIReader).drop}
	}
	for _, path := range []string{
		"messages[].toolCalls", "messages[].toolCallId", "messages[].functionCall", "messages[].audio",
		"messages[].content[].inputAudio", "messages[].content[].file", "messages[].content[].videoUrl", "messages[].content[].refusal",
		"tools", "functions", "logitBias", "audio", "prediction", "webSearchOptions", "responseFormat.jsonSchema",
	} {
		fields[path] = openAIField{kinds: takesAny, take: (*openAIReader).refuseField}
	}
	return fields
}()

var chatSchema = newOpenAISchema(chatFields, extraFields)

// efforts are what Google makes of reasoning_effort where a model has levels
// (ai.google.dev/gemini-api/docs/openai#thinking): there is none below low that all
// models have, and none above high.
var efforts = map[string]string{
	"none": "low", "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high",
}

// readBriefChat reads the JSON of chat/completions. It fails with a *jsonError, or
// with what the body failed with.
func readBriefChat(body io.Reader) (*brief, error) {
	r := newOpenAIReader(chatSchema)
	if err := r.read(body); err != nil {
		return nil, err
	}
	if len(r.turns) == 0 {
		r.refuseMissing("messages")
	}
	return r.finish(), nil
}

func (r *openAIReader) takeRole(v openAIValue) { r.message.role = v.text }

func (r *openAIReader) takeContent(v openAIValue) {
	r.addPart(&r.message.parts, briefPart{text: passage{v.span, v.text}})
}

func (r *openAIReader) takePartText(v openAIValue) { r.message.part.text = passage{v.span, v.text} }

func (r *openAIReader) takePartImage(v openAIValue) { r.message.part.image = r.image(v) }

func (r *openAIReader) endPart() { r.endPartOf(&r.message.parts) }

func (r *openAIReader) endImage() { r.endPartOf(&r.message.images) }

func (r *openAIReader) endPartOf(list *[]briefPart) {
	p := r.message.part
	r.message.part = briefPart{}
	if p.text != (passage{}) {
		r.addPart(list, briefPart{text: p.text})
	}
	if p.image != nil {
		r.addPart(list, briefPart{image: p.image})
	}
}

func (r *openAIReader) addPart(list *[]briefPart, p briefPart) {
	if r.hasRoom() {
		*list = append(*list, p)
	}
}

func (r *openAIReader) endMessage() {
	m := r.message
	r.message = openAIMessage{}
	parts := append(m.parts, m.images...)
	switch m.role {
	case "system", "developer":
		r.addSystem(parts)
	case "user", "assistant":
		if len(parts) > 0 {
			r.turns = append(r.turns, briefTurn{isModel: m.role == "assistant", parts: parts})
		}
	case "":
		r.refuseMissing(r.path(true) + ".role")
	default: // tool and function among them
		r.refuseValue("its role must be system, developer, user or assistant")
	}
}

func (r *openAIReader) addSystem(parts []briefPart) {
	for _, p := range parts {
		if p.image != nil {
			r.refuseValue("a system message can only have text")
			return
		}
		r.system = append(r.system, p.text)
	}
}

// takeStop takes one of the words at which the model stops.
func (r *openAIReader) takeStop(v openAIValue) {
	if len(r.stops) == maxListed {
		r.refuseValue("there are too many")
		return
	}
	r.stops = append(r.stops, v.text)
}

// takeMaxTokens takes the old name of max_completion_tokens, if that is not there.
func (r *openAIReader) takeMaxTokens(v openAIValue) {
	if _, isSet := r.settings["maxOutputTokens"]; !isSet {
		r.settings["maxOutputTokens"] = v.text
	}
}

func (r *openAIReader) takeEffort(v openAIValue) {
	level, ok := efforts[v.text]
	if !ok {
		r.refuseValue("it must be none, minimal, low, medium, high or xhigh")
		return
	}
	r.settings["thinkingLevel"] = string(encode(level))
}

// takeChoices takes one choice: image models make no more at once (wire §2).
func (r *openAIReader) takeChoices(v openAIValue) {
	if v.text != "1" {
		r.refuseValue("it must be 1")
		return
	}
	r.count = 1
}

func (r *openAIReader) takeStream(v openAIValue) { r.stream = v.kind == jsonTrue }

func (r *openAIReader) takeStreamUsage(v openAIValue) { r.streamUsage = v.kind == jsonTrue }
