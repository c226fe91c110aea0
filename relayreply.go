// SPDX-License-Identifier: Apache-2.0

package gemini

import "maps"

const (
	_ fieldID = iota
	replyRoot
	replyCreated
	replyData
	replyHolder // of one image
	replyBase64
	replyURL
	replyFormat
	replyChoices
	replyChoice
	replyIndex
	replyFinish
	replyNativeFinish
	replyText
	replyModel
	replyID
	replyFault
	replyUsage
	replyInputText
	replyInputImage
	replyInputCached
	replyTokens // and behind it, one for each place of a tally
)

// replySchema is what can be said in a native answer, of both of OpenAI's forms.
var replySchema = func() *field {
	text, holder := field{id: replyText, raw: true}, field{id: replyHolder}
	base64, url := field{id: replyBase64, raw: true}, field{id: replyURL, raw: true}
	paths := map[string]field{
		"created":        {id: replyCreated},
		"data":           {id: replyData},
		"data[]":         holder,
		"data[].b64Json": base64,
		"data[].url":     url,
		"outputFormat":   {id: replyFormat, keep: maxWord},

		"choices":                                  {id: replyChoices},
		"choices[]":                                {id: replyChoice},
		"choices[].index":                          {id: replyIndex},
		"choices[].finishReason":                   {id: replyFinish, keep: maxWord},
		"choices[].nativeFinishReason":             {id: replyNativeFinish, keep: maxWord}, // OpenRouter's
		"choices[].message.content":                text,
		"choices[].message.content[]":              holder,
		"choices[].message.content[].text":         text,
		"choices[].message.content[].imageUrl":     url,
		"choices[].message.content[].imageUrl.url": url,
		"choices[].message.images[]":               holder,
		"choices[].message.images[].imageUrl":      url,
		"choices[].message.images[].imageUrl.url":  url,
		"choices[].message.refusal":                text,

		"model": {id: replyModel, keep: maxWord},
		"id":    {id: replyID, keep: maxWord},

		"usage":                                         {id: replyUsage},
		"usage.promptTokens":                            {id: replyTokens + tallyPrompt},
		"usage.completionTokens":                        {id: replyTokens + tallyOutput},
		"usage.totalTokens":                             {id: replyTokens + tallyTotal},
		"usage.promptTokensDetails.cachedTokens":        {id: replyInputCached},
		"usage.promptTokensDetails.textTokens":          {id: replyInputText}, // LiteLLM's
		"usage.promptTokensDetails.imageTokens":         {id: replyInputImage},
		"usage.completionTokensDetails.reasoningTokens": {id: replyTokens + tallyReasoning},
		"usage.completionTokensDetails.imageTokens":     {id: replyTokens + tallyImage},
		"usage.inputTokens":                             {id: replyTokens + tallyPrompt}, // images/generations
		"usage.outputTokens":                            {id: replyTokens + tallyOutput},
		"usage.outputTokensDetails.imageTokens":         {id: replyTokens + tallyImage},
		"usage.inputTokensDetails.textTokens":           {id: replyInputText},
		"usage.inputTokensDetails.imageTokens":          {id: replyInputImage},
	}
	for _, at := range []string{"error", "choices[].error"} { // the latter is OpenRouter's
		maps.Copy(paths, errorFields(at, field{id: replyFault, keep: maxMessage}))
	}
	root := newSchema(paths)
	root.id = replyRoot
	choice := root.member("choices").element
	*choice.member("delta") = *choice.member("message")
	return root
}()
