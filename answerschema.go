// SPDX-License-Identifier: Apache-2.0

package gemini

import "maps"

const (
	_ fieldID = iota
	fieldRoot
	fieldBlockReason
	fieldBlockMessage
	fieldCandidates
	fieldOpenAI // the candidates or images of an answer in OpenAI's form
	fieldCandidate
	fieldIndex
	fieldFinishReason
	fieldNativeReason // Google's word, beside another company's
	fieldFinishMessage
	fieldPart
	fieldText
	fieldThought
	fieldDraft // OpenAI's word for it
	fieldSignature
	fieldImage
	fieldPicture // an image that needs no part around it
	fieldMimeType
	fieldContentType
	fieldStepType
	fieldToolCall
	fieldOther
	fieldStatus    // of an interaction
	fieldError     // an error object where an answer should be
	fieldDiagnosis // one of the errors of an interaction
	fieldFiltered
	fieldModelVersion
	fieldResponseID
	fieldUsage
	fieldInputCount    // of one modality of the input
	fieldModalityCount // of one modality of the output
	fieldModality
	fieldModalityTokens
	fieldTokens // and behind it, one for each place of a tally
)

// answerSchema is what a verdict and the accounts depend on, in all forms that
// are judged: what is at the root of several of them, and what each has of its own.
var answerSchema = func() *field {
	paths := map[string]field{
		"modelVersion": {id: fieldModelVersion, keep: maxWord},
		"responseId":   {id: fieldResponseID, keep: maxWord},
		"model":        {id: fieldModelVersion, keep: maxWord},
		"id":           {id: fieldResponseID, keep: maxWord},
		"usage":        {id: fieldUsage},
	}
	for _, at := range []string{"error", "choices[].error"} { // the latter is OpenRouter's
		maps.Copy(paths, errorFields(at, field{id: fieldError}))
	}
	for _, form := range []map[string]field{contentFields, predictFields, imagesAnswerFields, chatAnswerFields, interactionFields()} {
		maps.Copy(paths, form)
	}
	root := newSchema(paths)
	choice := root.member("choices").element
	*choice.member("delta") = *choice.member("message")
	root.id = fieldRoot
	root.element = root                       // a stream without alt=sse is an array of answers (wire §1)
	interaction := root.member("interaction") // an event has the answer in this member
	for _, name := range []string{"model", "id", "usage", "status", "errors"} {
		*interaction.member(name) = *root.member(name)
	}
	return root
}()

// contentFields are those of generateContent.
var contentFields = map[string]field{
	"promptFeedback.blockReason":                       {id: fieldBlockReason, keep: maxWord},
	"promptFeedback.blockReasonMessage":                {id: fieldBlockMessage, keep: maxMessage},
	"candidates":                                       {id: fieldCandidates},
	"candidates[]":                                     {id: fieldCandidate},
	"candidates[].index":                               {id: fieldIndex},
	"candidates[].finishReason":                        {id: fieldFinishReason, keep: maxWord},
	"candidates[].finishMessage":                       {id: fieldFinishMessage, keep: maxMessage},
	"candidates[].content.parts[]":                     {id: fieldPart},
	"candidates[].content.parts[].text":                {id: fieldText, keep: maxText},
	"candidates[].content.parts[].thought":             {id: fieldThought},
	"candidates[].content.parts[].thoughtSignature":    {id: fieldSignature, keep: maxSignature * maxEscape},
	"candidates[].content.parts[].inlineData.data":     {id: fieldImage},
	"candidates[].content.parts[].inlineData.mimeType": {id: fieldMimeType, keep: maxWord},
	"candidates[].content.parts[].fileData.fileUri":    {id: fieldImage},
	"candidates[].content.parts[].fileData.mimeType":   {id: fieldMimeType, keep: maxWord},
	"candidates[].content.parts[].functionCall":        {id: fieldToolCall},
	"candidates[].content.parts[].executableCode":      {id: fieldOther},
	"candidates[].content.parts[].codeExecutionResult": {id: fieldOther},

	"usageMetadata":                                      {id: fieldUsage},
	"usageMetadata.promptTokenCount":                     {id: fieldTokens + tallyPrompt},
	"usageMetadata.toolUsePromptTokenCount":              {id: fieldTokens + tallyTools},
	"usageMetadata.candidatesTokenCount":                 {id: fieldTokens + tallyOutput},
	"usageMetadata.thoughtsTokenCount":                   {id: fieldTokens + tallyThinking},
	"usageMetadata.totalTokenCount":                      {id: fieldTokens + tallyTotal},
	"usageMetadata.promptTokensDetails[]":                {id: fieldInputCount},
	"usageMetadata.promptTokensDetails[].modality":       {id: fieldModality, keep: maxWord},
	"usageMetadata.promptTokensDetails[].tokenCount":     {id: fieldModalityTokens},
	"usageMetadata.candidatesTokensDetails[]":            {id: fieldModalityCount},
	"usageMetadata.candidatesTokensDetails[].modality":   {id: fieldModality, keep: maxWord},
	"usageMetadata.candidatesTokensDetails[].tokenCount": {id: fieldModalityTokens},
}

// predictFields are those of Imagen.
var predictFields = map[string]field{
	"predictions[]":                    {id: fieldPart},
	"predictions[].bytesBase64Encoded": {id: fieldImage},
	"predictions[].gcsUri":             {id: fieldImage},
	"predictions[].raiFilteredReason":  {id: fieldFiltered, keep: maxMessage},
}

// imagesAnswerFields are those of OpenAI's images. Streamed, the root is what is one
// element of data else, and a partial image is a draft of it.
var imagesAnswerFields = map[string]field{
	"data":              {id: fieldOpenAI},
	"data[]":            {id: fieldPart},
	"data[].b64Json":    {id: fieldImage},
	"data[].url":        {id: fieldImage},
	"b64Json":           {id: fieldImage},
	"partialImageIndex": {id: fieldDraft},

	"usage.inputTokens":                     {id: fieldTokens + tallyPrompt},
	"usage.outputTokens":                    {id: fieldTokens + tallyOutput},
	"usage.outputTokensDetails.imageTokens": {id: fieldTokens + tallyImage},
}

// chatAnswerFields are those of OpenAI's chat. A choice is a candidate whose message is
// both content and part, except for its images. Those stand in a list of their own
// (OpenRouter, LiteLLM), among the parts that the content may be made of, or in its text,
// which is raw for that.
var chatAnswerFields = map[string]field{
	"choices":                                       {id: fieldOpenAI},
	"choices[]":                                     {id: fieldCandidate},
	"choices[].index":                               {id: fieldIndex},
	"choices[].finishReason":                        {id: fieldFinishReason, keep: maxWord},
	"choices[].nativeFinishReason":                  {id: fieldNativeReason, keep: maxWord}, // OpenRouter's
	"choices[].message":                             {id: fieldPart},
	"choices[].message.content":                     {id: fieldText, keep: maxText, raw: true},
	"choices[].message.content[].text":              {id: fieldText, keep: maxText, raw: true},
	"choices[].message.content[].imageUrl":          {id: fieldPicture},
	"choices[].message.content[].imageUrl.url":      {id: fieldPicture},
	"choices[].message.refusal":                     {id: fieldText, keep: maxText},
	"choices[].message.toolCalls[]":                 {id: fieldToolCall},
	"choices[].message.images[].imageUrl":           {id: fieldPicture},
	"choices[].message.images[].imageUrl.url":       {id: fieldPicture},
	"usage.promptTokens":                            {id: fieldTokens + tallyPrompt},
	"usage.completionTokens":                        {id: fieldTokens + tallyOutput},
	"usage.totalTokens":                             {id: fieldTokens + tallyTotal},
	"usage.completionTokensDetails.imageTokens":     {id: fieldTokens + tallyImage},
	"usage.completionTokensDetails.reasoningTokens": {id: fieldTokens + tallyReasoning},
}

// interactionFields are those of Interactions (wire §9): of an answer as a whole,
// and of the events that its steps are streamed in. What thoughts consist of is not
// among them.
func interactionFields() map[string]field {
	fields := map[string]field{
		"status":                                  {id: fieldStatus, keep: maxWord},
		"usage.totalInputTokens":                  {id: fieldTokens + tallyPrompt},
		"usage.totalToolUseTokens":                {id: fieldTokens + tallyTools},
		"usage.totalOutputTokens":                 {id: fieldTokens + tallyOutput},
		"usage.totalThoughtTokens":                {id: fieldTokens + tallyThinking},
		"usage.outputTokensByModality[]":          {id: fieldModalityCount},
		"usage.outputTokensByModality[].modality": {id: fieldModality, keep: maxWord},
		"usage.outputTokensByModality[].tokens":   {id: fieldModalityTokens},
	}
	all := errorFields("errors[]", field{id: fieldDiagnosis})
	for _, path := range []string{"errors[]", "errors[].code", "errors[].message"} { // they have no others
		fields[path] = all[path]
	}
	for _, step := range []string{"steps[]", "step"} {
		fields[step+".type"] = field{id: fieldStepType, keep: maxWord}
		fields[step+".signature"] = field{id: fieldSignature, keep: maxSignature * maxEscape}
	}
	// Before May 2026 there were no steps but outputs.
	for _, content := range []string{"steps[].content[]", "step.content[]", "delta", "outputs[]"} {
		fields[content] = field{id: fieldPart}
		fields[content+".type"] = field{id: fieldContentType, keep: maxWord}
		fields[content+".text"] = field{id: fieldText, keep: maxText}
		fields[content+".signature"] = field{id: fieldSignature, keep: maxSignature * maxEscape}
		fields[content+".data"] = field{id: fieldImage}
		fields[content+".uri"] = field{id: fieldImage}
		fields[content+".mimeType"] = field{id: fieldMimeType, keep: maxWord}
	}
	return fields
}
