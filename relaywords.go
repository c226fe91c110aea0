// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"net/http"
	"strings"
)

// finishOf is Google's word for why a choice has ended. One that is not known stays
// what it is, and passes (wire §4).
func finishOf(value []byte) string {
	word := openAIEnums.finish.name(jsonString, value)
	if word == reasonContentFilter {
		return "SAFETY" // Google's API has no word that says as little
	}
	return strings.ToUpper(asWord(word))
}

// inputTally are tokens of the input, 0 where they are not told apart.
type inputTally struct{ text, image, cached int64 }

// native is a usage in Google's words.
func (u usage) native(inputs inputTally) *nativeUsage {
	n := &nativeUsage{Prompt: u.input, Cached: inputs.cached, Candidates: u.output, Total: u.total(), Thoughts: u.thinking}
	for _, input := range []nativeCount{{"TEXT", inputs.text}, {"IMAGE", inputs.image}} {
		if input.Tokens > 0 {
			n.PromptDetails = append(n.PromptDetails, input)
		}
	}
	if u.image > 0 {
		n.Details = []nativeCount{{"IMAGE", u.image}}
	}
	return n
}

// answerFault is an error object where an answer should be.
type answerFault struct {
	isTold bool
	googleError
}

// error is what has been told, with the status that it would have had alone. What
// says nothing at all is a failure of the upstream's.
func (f *answerFault) error() *googleError {
	e := f.googleError
	if e.code < 400 || e.code > 599 {
		e.code = cmp.Or(e.statusOfWords(), http.StatusInternalServerError)
	}
	e.perDay = e.saysPerDay()
	return &e
}

// ending is that of a candidate that the error says was blocked.
func (f *answerFault) ending() (e nativeEnding, stopped bool) {
	v, _ := f.error().block()
	e = nativeEnding{finish: v.finishWord(), said: v.said}
	return e, v.stage == stageOutput && finishReasons[e.finish].isBlock()
}

// tell puts an error of OpenAI's into a native answer, as a block of the prompt if
// it is one.
func (f *answerFault) tell(rest *nativeRest) {
	if !f.isTold {
		return
	}
	e := f.error()
	if v, blocked := e.block(); blocked {
		rest.Feedback = &nativeFeedback{Reason: v.finishWord(), Message: v.said}
		return
	}
	object := e.object()
	rest.Fault = &object
}

// finishWord is Google's for a block, by which it is judged: where a child is concerned,
// that of the filter does not do.
func (v verdict) finishWord() string {
	if v.class == classForbidden && finishReasons[v.reason] != classForbidden {
		return "PROHIBITED_CONTENT"
	}
	return v.reason
}

// chatBlocked is OpenAI's word for what a filter has stopped.
const chatBlocked = "content_filter"

// chatFinish is OpenAI's word for a finishReason.
func chatFinish(word string) string {
	switch {
	case finishReasons[word].isBlock():
		return chatBlocked
	case word == "MAX_TOKENS", word == "CONTINUATION":
		return "length"
	}
	return "stop"
}

type (
	chatUsage struct {
		Prompt     int64       `json:"prompt_tokens"`
		Completion int64       `json:"completion_tokens"`
		Total      int64       `json:"total_tokens"`
		Inputs     chatInputs  `json:"prompt_tokens_details"`
		Details    chatDetails `json:"completion_tokens_details"`
	}
	chatInputs struct {
		Cached int64 `json:"cached_tokens"`
		Image  int64 `json:"image_tokens"`
	}
	chatDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
		Image     int64 `json:"image_tokens"`
	}
)

// chat is a usage in OpenAI's words, which count thinking within the completion.
func (u usage) chat(inputs inputTally) string {
	return string(encode(chatUsage{
		Prompt: u.input, Completion: u.output + u.thinking, Total: u.total(),
		Inputs:  chatInputs{Cached: inputs.cached, Image: inputs.image},
		Details: chatDetails{Reasoning: u.thinking, Image: u.image},
	}))
}
