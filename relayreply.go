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
	replyFaultCode
	replyFaultType
	replyFaultMessage
	replyFaultParam
	replyFaultInner
	replyFaultStage
	replyFaultCategory
	replyFaultFlagged
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
	maps.Copy(paths, faultFields("error"))
	maps.Copy(paths, faultFields("choices[].error")) // OpenRouter's
	root := newSchema(paths)
	root.id = replyRoot
	choice := root.member("choices").element
	*choice.member("delta") = *choice.member("message")
	return root
}()

// faultFields are those of an error, see words.
func faultFields(at string) map[string]field {
	return map[string]field{
		at:                      {id: replyFault, keep: maxMessage},
		at + ".code":            {id: replyFaultCode, keep: maxWord},
		at + ".type":            {id: replyFaultType, keep: maxWord},
		at + ".message":         {id: replyFaultMessage, keep: maxMessage},
		at + ".param":           {id: replyFaultParam, keep: maxWord},
		at + ".innererror.code": {id: replyFaultInner, keep: maxWord},
		at + ".innerError.code": {id: replyFaultInner, keep: maxWord},
		at + ".moderationDetails.moderationStage": {id: replyFaultStage, keep: maxWord},
		at + ".moderationDetails.categories[]":    {id: replyFaultCategory, keep: maxWord},
		at + ".metadata.reasons[]":                {id: replyFaultCategory, keep: maxWord},
		at + ".metadata.flaggedInput":             {id: replyFaultFlagged},
	}
}
