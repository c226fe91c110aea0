// SPDX-License-Identifier: Apache-2.0

package gemini

// reasonText is what a developer is told about a reason, and which sentence the person in front of the app gets.
// The whole message reads: reason + ": " + what + ". " + next.
type reasonText struct {
	what         string      // a clause without full stop: what happened, and which layer decided it
	next         string      // a full sentence: what to do now
	configurable bool        // safetySettings can change the outcome; true for SAFETY alone, see below
	say          userMessage // the sentence of localized.go
	helpLink
}

// helpLink is the page that a google.rpc.Help detail points to.
type helpLink struct {
	help      string // the URL
	helpTitle string
}

// Google's pages on what stops a call, by subject.
var (
	aboutSafety = helpLink{
		"https://ai.google.dev/gemini-api/docs/safety-settings",
		"Safety settings of the Gemini API",
	}
	aboutImageSafety = helpLink{
		"https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/capabilities/gemini-image-responsible-ai",
		"Gemini image generation and responsible AI",
	}
	aboutAbuse = helpLink{
		"https://ai.google.dev/gemini-api/docs/usage-policies",
		"How Google monitors the Gemini API for abuse, and what follows",
	}
	aboutModelArmor = helpLink{
		"https://docs.cloud.google.com/model-armor/overview",
		"Model Armor overview",
	}
	aboutReasons = helpLink{
		"https://ai.google.dev/api/generate-content#FinishReason",
		"Reasons of the Gemini API",
	}
	aboutImages = helpLink{
		"https://ai.google.dev/gemini-api/docs/image-generation",
		"Image generation with the Gemini API",
	}
	aboutModels = helpLink{
		"https://ai.google.dev/gemini-api/docs/models",
		"Gemini models",
	}
	aboutTools = helpLink{
		"https://ai.google.dev/gemini-api/docs/function-calling",
		"Function calling with the Gemini API",
	}
	aboutSignatures = helpLink{
		"https://ai.google.dev/gemini-api/docs/thought-signatures",
		"Thought signatures",
	}
	aboutLimits = helpLink{
		"https://ai.google.dev/gemini-api/docs/rate-limits",
		"Rate limits of the Gemini API",
	}
	aboutFiles = helpLink{
		"https://ai.google.dev/gemini-api/docs/files",
		"Files API",
	}
	aboutOpenAI = helpLink{
		"https://ai.google.dev/gemini-api/docs/openai",
		"OpenAI compatibility of the Gemini API",
	}
	aboutInteractions = helpLink{
		"https://ai.google.dev/gemini-api/docs/api-errors",
		"Errors of the Interactions API",
	}
	aboutModeration = helpLink{
		"https://platform.openai.com/docs/guides/image-generation#content-moderation",
		"Content moderation of OpenAI's image generation",
	}
	aboutErrors = helpLink{
		"https://ai.google.dev/gemini-api/docs/troubleshooting",
		"Troubleshooting the Gemini API",
	}
)

// Advice that several reasons share. LangChain reads error messages and acts on the words "billing", "exceeded your
// quota" and "try again in N seconds" (async_caller of @langchain/core), so none of these may stand in any text here.
const (
	adviseChange = "Change the prompt before trying again."
	adviseNever  = "Do not send it again: accounts are suspended for it."
	adviseLater  = "Try again later."
)

// reasonAt is a reason and where it struck. Most reasons read alike in both places; only those that do not have a
// second row for the prompt.
type reasonAt struct{ reason, stage string }

const (
	anyStage  = ""
	anyReason = ""
)

// reasonTexts explains every reason of Google's that is a block or a fault, and this module's own.
//
// Thresholds in safetySettings (BLOCK_NONE and OFF included) govern four harm categories whose verdict is SAFETY;
// the image filters, prohibited content and personal data are beyond them:
// https://ai.google.dev/gemini-api/docs/safety-settings
var reasonTexts = map[reasonAt]reasonText{
	{"SAFETY", stagePrompt}: {
		what:         "the prompt was stopped by Google's safety filter because a harm category reached its threshold in safetySettings",
		next:         "Change the prompt, or the threshold of that category where the application calls for it.",
		configurable: true, say: sayPromptRefused, helpLink: aboutSafety,
	},
	{"SAFETY", anyStage}: {
		what:         "the answer was stopped by Google's safety filter because a harm category reached its threshold in safetySettings",
		next:         "Change the prompt, or the threshold of that category where the application calls for it.",
		configurable: true, say: sayResultWithheld, helpLink: aboutSafety,
	},
	{reasonImageSafety, stagePrompt}: {
		what: "the prompt was stopped as unsafe by Google's image filter, which no setting turns off",
		next: adviseChange,
		say:  sayPromptRefused, helpLink: aboutImageSafety,
	},
	{reasonImageSafety, anyStage}: {
		what: "the generated image was stopped by Google's output filter, which no setting turns off",
		next: adviseChange,
		say:  sayImageWithheld, helpLink: aboutImageSafety,
	},
	{"OTHER", stagePrompt}: {
		what: "the prompt was stopped by Google, which names no reason; an unsupported language or other harmful content can be the cause",
		next: adviseChange,
		say:  sayPromptRefused, helpLink: aboutErrors,
	},
	{"OTHER", anyStage}: {
		what: "Google stopped the answer and names no reason",
		next: adviseChange,
		say:  sayNotFinished, helpLink: aboutErrors,
	},
	{"RECITATION", anyStage}: {
		what: "the answer was stopped by Google's recitation check because it came too close to existing material",
		next: "Ask for something more original.",
		say:  sayTooSimilar, helpLink: aboutErrors,
	},
	{"IMAGE_RECITATION", anyStage}: {
		what: "the generated image was stopped by Google's recitation check because it may repeat existing material",
		next: "Ask for something more original.",
		say:  sayTooSimilar, helpLink: aboutReasons,
	},
	{"LANGUAGE", anyStage}: {
		what: "Google stopped the answer because the model does not support its language",
		next: "Use a language that the model supports.",
		say:  sayWrongLanguage, helpLink: aboutModels,
	},
	{"IMAGE_OTHER", anyStage}: {
		what: "Google stopped the image generation and names no reason",
		next: "Try again later, or change the prompt.",
		say:  sayNoImage, helpLink: aboutReasons,
	},
	// Google's own NO_IMAGE, and this module's for STOP with words alone.
	{reasonNoImage, anyStage}: {
		what: "the model ended its answer without an image, most often because it declined, or saw no picture to draw in the prompt",
		next: "Say plainly which picture is wanted, or ask for a different one.",
		say:  sayNoImage, helpLink: aboutImages,
	},
	// An error of the Interactions API.
	{"CONTENT_BLOCKED", anyStage}: {
		what: "the answer was stopped by one of Google's content filters, and the Interactions API does not say which",
		next: adviseChange,
		say:  sayResultWithheld, helpLink: aboutInteractions,
	},
	// The OpenAI-compatible API's finish_reason "content_filter" stands for any of Google's reasons.
	{reasonContentFilter, anyStage}: {
		what: "one of Google's content filters stopped the answer, and the OpenAI-compatible API does not say which",
		next: adviseChange,
		say:  sayResultWithheld, helpLink: aboutOpenAI,
	},

	// Hard blocks.
	{"PROHIBITED_CONTENT", stagePrompt}: {
		what: "the prompt was stopped by Google's filter for prohibited content, which no setting turns off",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	{"PROHIBITED_CONTENT", anyStage}: {
		what: "the answer was stopped by Google's filter for prohibited content, which no setting turns off",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	{"IMAGE_PROHIBITED_CONTENT", anyStage}: {
		what: "the generated image was stopped by Google's filter for prohibited content and third-party rights, which no setting turns off",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	{"BLOCKLIST", stagePrompt}: {
		what: "the prompt was stopped because it contains a term on Google's blocklist, which safetySettings do not change",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	{"BLOCKLIST", anyStage}: {
		what: "the answer was stopped because it contains a term on Google's blocklist, which safetySettings do not change",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	{"SPII", anyStage}: {
		what: "the answer was stopped by Google's filter for sensitive personal information, which no setting turns off",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	{"JAILBREAK", anyStage}: {
		what: "the prompt was stopped by Google as an attempt to get around its safeguards",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutAbuse,
	},
	// Here the project's own administrators make the rules: to speak of suspended accounts would be wrong.
	{"MODEL_ARMOR", stagePrompt}: {
		what: "the prompt was stopped by Model Armor under the policy of the Google Cloud project, which safetySettings do not change",
		next: "Do not send it again: ask the project's administrators about their Model Armor policy.",
		say:  sayForbidden, helpLink: aboutModelArmor,
	},
	{"MODEL_ARMOR", anyStage}: {
		what: "the answer was stopped by Model Armor under the policy of the Google Cloud project, which safetySettings do not change",
		next: "Do not send it again: ask the project's administrators about their Model Armor policy.",
		say:  sayForbidden, helpLink: aboutModelArmor,
	},

	// Faults of the model or of the client's conversation.
	{"MALFORMED_FUNCTION_CALL", anyStage}: {
		what: "the model wrote a function call that is not valid",
		next: "Try again later, or declare simpler functions.",
		say:  sayNotFinished, helpLink: aboutTools,
	},
	{"UNEXPECTED_TOOL_CALL", anyStage}: {
		what: "the model called a tool that the request does not declare",
		next: "Declare every tool that the conversation mentions.",
		say:  sayNotFinished, helpLink: aboutTools,
	},
	{"TOO_MANY_TOOL_CALLS", anyStage}: {
		what: "Google stopped the answer because the model kept calling tools",
		next: "Ask for less at once, or declare fewer tools.",
		say:  sayNotFinished, helpLink: aboutTools,
	},
	{"MALFORMED_RESPONSE", anyStage}: {
		what: "the model wrote an answer that is not valid, and Google did not deliver it",
		next: adviseLater,
		say:  sayNotFinished, helpLink: aboutErrors,
	},
	{"MISSING_THOUGHT_SIGNATURE", anyStage}: {
		what: "Google stopped the answer because a thought signature is missing from the conversation",
		next: "Send the parts of earlier answers back as they came, thoughtSignature included.",
		say:  sayBadRequest, helpLink: aboutSignatures,
	},

	// This gateway's own.
	{reasonEmpty, anyStage}: {
		what: "the upstream reported success but sent no Gemini answer, which this gateway does not pass on",
		next: adviseLater,
		say:  sayUnavailable, helpLink: aboutErrors,
	},
	{reasonUnavailable, anyStage}: {
		what: "this gateway got no answer from its upstream",
		next: adviseLater,
		say:  sayUnavailable, helpLink: aboutErrors,
	},
	{reasonInteractionFailed, anyStage}: {
		what: "the model's interaction has failed, and Google names no cause",
		next: adviseLater,
		say:  sayNotFinished, helpLink: aboutErrors,
	},
	{reasonDeadline, anyStage}: {
		what: "this gateway got no answer from its upstream before the deadline of the call",
		next: "Try again later, or give the call more time.",
		say:  sayUnavailable, helpLink: aboutErrors,
	},
	{reasonTooLarge, anyStage}: {
		what: "the request body is larger than this gateway accepts",
		next: "Send fewer or smaller images, or upload them with the Files API and name them by fileUri.",
		say:  sayTooLarge, helpLink: aboutFiles,
	},
	{reasonRepeated, anyStage}: {
		what: "this gateway did not send the prompt, because a filter has blocked the same one for this account before",
		next: adviseChange,
		say:  sayPromptRefused, helpLink: aboutAbuse,
	},
	{reasonRateLimited, anyStage}: {
		what: "this gateway sends no more calls for now, because a limit on them is used up",
		next: adviseLater,
		say:  sayBusy, helpLink: aboutLimits,
	},
	{reasonOverBudget, anyStage}: {
		what: "the daily budget of this gateway is spent",
		next: adviseLater,
		say:  sayUnavailable, helpLink: aboutLimits,
	},
	{reasonPaused, anyStage}: {
		what: "this gateway sends no more image calls for this project, because content filters have blocked too many of them",
		next: "Find out which prompts are blocked; then an operator can lift the pause with POST /gemini/reset.",
		say:  sayUnavailable, helpLink: aboutAbuse,
	},
	{reasonUnsupported, anyStage}: {
		what: "no upstream of this gateway takes the call as it is, and it cannot be put into another form",
		next: "Leave the field out, or have an upstream that speaks the form of the call.",
		say:  sayBadRequest, helpLink: aboutErrors,
	},
	{reasonCancelled, anyStage}: {
		what: "this gateway gave the call up, because its client closed the connection, or one side of it, or stopped sending, before it had its answer",
		next: "Keep it open until the answer has arrived.",
		say:  sayNotFinished, helpLink: aboutErrors,
	},
	{reasonMalformed, anyStage}: {
		what: "the request body is not valid JSON, so this gateway did not send it on",
		next: "Correct the body and send it again.",
		say:  sayBadRequest, helpLink: aboutErrors,
	},

	// Google adds reasons without notice.
	{anyReason, stagePrompt}: {
		what: "the prompt was stopped by Google for a reason that this gateway has no explanation for",
		next: adviseChange,
		say:  sayPromptRefused, helpLink: aboutReasons,
	},
	{anyReason, anyStage}: {
		what: "Google stopped the answer for a reason that this gateway has no explanation for",
		next: adviseChange,
		say:  sayNotFinished, helpLink: aboutReasons,
	},
}

// foreignTexts explain the blocks of upstreams that are not Google's: OpenAI, Azure, and those behind an aggregator.
var foreignTexts = map[reasonAt]reasonText{
	{"SAFETY", stagePrompt}: {
		what: "the prompt was stopped by the content filter of the upstream, which safetySettings do not change",
		next: adviseChange,
		say:  sayPromptRefused, helpLink: aboutModeration,
	},
	{"SAFETY", stageOutput}: {
		what: "the answer was stopped by the content filter of the upstream, which safetySettings do not change",
		next: adviseChange,
		say:  sayResultWithheld, helpLink: aboutModeration,
	},
	{"PROHIBITED_CONTENT", stagePrompt}: {
		what: "the prompt was stopped by a filter of the upstream for prohibited content, which no setting turns off",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutModeration,
	},
	{"PROHIBITED_CONTENT", stageOutput}: {
		what: "the answer was stopped by a filter of the upstream for prohibited content, which no setting turns off",
		next: adviseNever,
		say:  sayForbidden, helpLink: aboutModeration,
	},
	{reasonImageSafety, stageOutput}: {
		what: "the generated image was stopped by the content filter of the upstream, which safetySettings do not change",
		next: adviseChange,
		say:  sayImageWithheld, helpLink: aboutModeration,
	},
	{reasonContentFilter, stageOutput}: {
		what: "the answer was stopped by the content filter of the upstream, which safetySettings do not change",
		next: adviseChange,
		say:  sayResultWithheld, helpLink: aboutModeration,
	},
}

// explain finds the text for a reason at the verdict's stage, be it the verdict's own or one that says more.
func (v verdict) explain(reason string) reasonText {
	if text, ok := foreignTexts[reasonAt{reason, v.stage}]; ok && v.isForeign {
		return text
	}
	return explain(reason, v.stage)
}

// explain finds the text for a reason at a stage ("prompt" or "output"); a reason nobody knows gets an honest general text.
func explain(reason, stage string) reasonText {
	for _, at := range []reasonAt{{reason, stage}, {reason, anyStage}, {anyReason, stage}} {
		if text, ok := reasonTexts[at]; ok {
			return text
		}
	}
	return reasonTexts[reasonAt{anyReason, anyStage}]
}
