// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// scenario is a way for a call to end that a prompt can ask for.
type scenario struct {
	name  string
	about string        // one line, for the list at / and for docs/simulator.md
	wait  time.Duration // the default of "=<duration>" after the name; 0 = takes none
	play  play
}

// play carries a scenario out.
type play func(*exchange) error

// Google's explanations, as recorded.
const (
	notShown       = "Unable to show the generated image. "
	msgUsePolicy   = notShown + "The image was filtered out because it violated Google's Generative AI Prohibited Use policy. You will not be charged for blocked images. Try rephrasing the prompt."
	msgPractices   = notShown + "The image was filtered out because it violated Google's Responsible AI practices. Try rephrasing the prompt. If you think this was an error, send feedback. Support code: 11030041."
	msgCouldNot    = notShown + "The model could not generate the image based on the prompt provided. You will not be charged for this request. Try rephrasing the prompt."
	msgInternal    = "Model failed to generate content due to internal error."
	msgProhibited  = "The response was blocked because it contains prohibited content."
	msgArmor       = "The response violated Responsible AI Safety settings (Hate Speech, Harassment, Dangerous) filters."
	msgArmorPrompt = "The prompt violated Prompt Injection and Jailbreak filters."
)

// scenarios is everything that "sim:" can be followed by.
var scenarios = []scenario{
	// One per finishReason. Contents without parts take all the recorded forms.
	{"stop", "what an ordinary prompt gets", 0, natural},
	{"max_tokens", "finishReason MAX_TOKENS, no parts", 0, finish("MAX_TOKENS", contentRole, "")},
	{"continuation", "finishReason CONTINUATION after some text; a call with the token gets the rest", 0, continuation},
	{"safety", "finishReason SAFETY, with the guilty category", 0, safety},
	{"recitation", "finishReason RECITATION after some text", 0, finishAfterText("RECITATION", "")},
	{"language", "finishReason LANGUAGE", 0, finish("LANGUAGE", contentObject, "")},
	{"other", "finishReason OTHER, no content at all", 0, finish("OTHER", contentMissing, msgInternal)},
	{"blocklist", "finishReason BLOCKLIST", 0, finish("BLOCKLIST", contentObject, "")},
	{"prohibited_content", "finishReason PROHIBITED_CONTENT", 0, finish("PROHIBITED_CONTENT", contentObject, msgProhibited)},
	{"spii", "finishReason SPII", 0, finish("SPII", contentNullParts, "")},
	{"image_safety", "finishReason IMAGE_SAFETY", 0, finish("IMAGE_SAFETY", contentObject, msgUsePolicy)},
	{"image_prohibited_content", "finishReason IMAGE_PROHIBITED_CONTENT, with a support code", 0, finish("IMAGE_PROHIBITED_CONTENT", contentRole, msgPractices)},
	{"image_recitation", "finishReason IMAGE_RECITATION", 0, finish("IMAGE_RECITATION", contentNoParts, "")},
	{"image_other", "finishReason IMAGE_OTHER", 0, finish("IMAGE_OTHER", contentObject, msgCouldNot)},
	{"no_image", "finishReason NO_IMAGE", 0, finish("NO_IMAGE", contentObject, "")},
	{"malformed_function_call", "finishReason MALFORMED_FUNCTION_CALL", 0, finish("MALFORMED_FUNCTION_CALL", contentObject, "Malformed function call")},
	{"unexpected_tool_call", "finishReason UNEXPECTED_TOOL_CALL", 0, finish("UNEXPECTED_TOOL_CALL", contentObject, "")},
	{"too_many_tool_calls", "finishReason TOO_MANY_TOOL_CALLS", 0, finish("TOO_MANY_TOOL_CALLS", contentObject, "")},
	{"model_armor", "finishReason MODEL_ARMOR (Vertex AI)", 0, finish("MODEL_ARMOR", contentMissing, msgArmor)},
	{"malformed_response", "finishReason MALFORMED_RESPONSE", 0, finish("MALFORMED_RESPONSE", contentObject, "")},
	{"missing_thought_signature", "finishReason MISSING_THOUGHT_SIGNATURE", 0, finish("MISSING_THOUGHT_SIGNATURE", contentObject, "")},
	{"escalation", "finishReason ESCALATION", 0, finish("ESCALATION", contentObject, "")},
	{"finish_reason_unspecified", "finishReason FINISH_REASON_UNSPECIFIED on a whole answer", 0, finishNatural("FINISH_REASON_UNSPECIFIED")},
	{"unknown_reason", "a finishReason that nobody knows yet, on a whole answer", 0, finishNatural("FAKE_NEW_FINISH_REASON")},

	// One per promptFeedback.blockReason.
	{"prompt_safety", "blockReason SAFETY, with ratings", 0, blockPrompt("SAFETY", "", ratings("HARM_CATEGORY_HATE_SPEECH", "HIGH", false))},
	{"prompt_other", "blockReason OTHER", 0, blockPrompt("OTHER", "", nil)},
	{"prompt_blocklist", "blockReason BLOCKLIST", 0, blockPrompt("BLOCKLIST", "", nil)},
	{"prompt_prohibited_content", "blockReason PROHIBITED_CONTENT", 0, blockPrompt("PROHIBITED_CONTENT", "", nil)},
	{"prompt_image_safety", "blockReason IMAGE_SAFETY", 0, blockPrompt("IMAGE_SAFETY", "", nil)},
	{"prompt_model_armor", "blockReason MODEL_ARMOR, with blockReasonMessage (Vertex AI)", 0, blockPrompt("MODEL_ARMOR", msgArmorPrompt, nil)},
	{"prompt_jailbreak", "blockReason JAILBREAK (Vertex AI)", 0, blockPrompt("JAILBREAK", "", nil)},
	{"prompt_unknown", "a blockReason that nobody knows yet", 0, blockPrompt("FAKE_NEW_BLOCK_REASON", "", nil)},
	{"prompt_unspecified", "blockReason BLOCK_REASON_UNSPECIFIED beside a whole answer: no block", 0, feedbackOnly("BLOCK_REASON_UNSPECIFIED")},
	{"prompt_ratings", "promptFeedback with ratings alone beside a whole answer: no block", 0, feedbackOnly("")},

	// Answers that are not what they seem.
	{"refusal", "how the model refuses: STOP and text, but under [\"IMAGE\"] NO_IMAGE or (3 Pro) IMAGE_SAFETY", 0, refusal},
	{"text_only", "STOP with a refusal in words and no image, always", 0, textOnly},
	{"stop_no_parts", "STOP, image tokens billed, and no parts", 0, stopNoParts},
	{"draft_then_no_image", "a draft image flagged thought, then NO_IMAGE", 0, draftThenNoImage},
	{"only_draft", "STOP where the only image is flagged thought: it is the final one", 0, onlyDraft},
	{"unflagged_drafts", "three images and no thought flag: the last is the final one", 0, unflaggedDrafts},
	{"late_block", "text first, then IMAGE_SAFETY", 0, finishAfterText("IMAGE_SAFETY", msgUsePolicy)},
	{"candidates", "two candidates, the second one stopped by IMAGE_SAFETY", 0, twoCandidates},
	{"no_finish_reason", "a whole answer without any finishReason", 0, finishNatural("")},
	{"mid_stream_error", "a bare JSON error (499) after two events; the same as a plain error where nothing is streamed", 0, midStreamError},
	{"empty", "200 with zero bytes", 0, rawBody("application/json; charset=UTF-8", "")},
	{"null", "200 with the body null", 0, rawBody("application/json; charset=UTF-8", "null")},
	{"html", "200 with an HTML page", 0, rawBody("text/html; charset=UTF-8", "<!DOCTYPE html><html><head><title>Sorry…</title></head><body><h1>We're sorry…</h1></body></html>\n")},

	// Errors.
	{"bad_key", "400 API_KEY_INVALID", 0, always(keyInvalid("API key not valid. Please pass a valid API key."))},
	{"expired_key", "400 API_KEY_INVALID, the key expired", 0, always(keyInvalid("API key expired. Please renew the API key."))},
	{"unknown_field", "400 that rejects generationConfig.responseModalities, as /v1 once did; without that field an answer", 0, unknownModalities},
	{"missing_signature", "400 unless every image and function call of the model's in the history has a thought signature", 0, missingSignature},
	{"corrupted_signature", "400 for a thought signature that was changed", 0, always(invalidArgument("Corrupted thought signature."))},
	{"token_limit", "400 for a prompt that is too long", 0, always(errTokenLimit)},
	{"region", "400 FAILED_PRECONDITION, location not supported", 0, always(errRegion)},
	{"unauthenticated", "401 for an OAuth token that expired (Vertex AI)", 0, always(errUnauthenticated)},
	{"billing", "402, prepaid credits depleted", 0, always(exhausted(402, msgPrepay))},
	{"billing_429", "the same as it was before October 2026: 429", 0, always(exhausted(429, msgPrepay))},
	{"forbidden", "403 IAM_PERMISSION_DENIED", 0, always(errForbidden)},
	{"service_disabled", "403 SERVICE_DISABLED", 0, always(serviceDisabled())},
	{"leaked_key", "403, the key was reported as leaked", 0, always(errLeakedKey)},
	{"not_found", "404, no such model", 0, notFound},
	{"rate_limit", "429 per minute; the duration is its retryDelay", 34286670503 * time.Nanosecond, limited(quotaPerMinute)},
	{"rate_limit_tokens", "429 for input tokens per minute", 48939935699 * time.Nanosecond, limited(quotaTokens)},
	{"rate_limit_day", "429 per day; its retryDelay says little about when to come back", 6776400 * time.Millisecond, limited(quotaPerDay)},
	{"limit_zero", "429 with limit: 0, as free tiers get for image models", 37821803198 * time.Nanosecond, limited(quotaFreeDay, quotaFreeMin)},
	{"quota_generic", "429 without details", 0, always(exhausted(429, "Resource has been exhausted (e.g. check quota)."))},
	{"spend_cap", "429, monthly spending cap reached", 0, always(exhausted(429, msgSpendCap))},
	{"shared_quota", "429 of Vertex AI's shared capacity", 0, always(errSharedQuota)},
	{"499", "499 CANCELLED", 0, always(errCancelled)},
	{"500", "500 INTERNAL", 0, always(&apiError{code: 500, status: "INTERNAL", message: "An internal error has occurred. Please retry or report in https://developers.generativeai.google/guide/troubleshooting"})},
	{"503", "503 UNAVAILABLE, the model is overloaded", 0, always(errOverloaded)},
	{"504", "504 DEADLINE_EXCEEDED", 0, always(&apiError{code: 504, status: "DEADLINE_EXCEEDED", message: "Deadline expired before operation could complete."})},
	{"twice_503", "503 twice, then an answer, for each prompt and key", 0, twice503},

	// Trouble on the way.
	{"slow", "an answer after the duration", 5 * time.Second, slow},
	{"hang", "nothing, until the client leaves", 0, hang},
	{"cut_before", "the connection is dropped before the answer", 0, cutBefore},
	{"cut", "the connection is dropped in the middle of the answer", 0, cut},
	{"trickle", "the answer in pieces of 1, 2, 4… bytes, up to 32 KiB, with the duration between them", 20 * time.Millisecond, trickle},
}

// scenarioPattern is how a prompt names a scenario: sim:slow, sim:slow=2s.
var scenarioPattern = regexp.MustCompile(`(?i)\bsim:([a-z0-9_]+)(?:=([0-9a-zµ.]*[0-9a-zµ]))?`)

// maxWait bounds the durations that a prompt may ask for.
const maxWait = 24 * time.Hour

// chooseScenario returns what to play for a call, and the duration that its
// prompt gives or that is the default. The first "sim:" counts.
func chooseScenario(c *call) (play, time.Duration, *apiError) {
	match := scenarioPattern.FindStringSubmatch(c.prompt)
	if match == nil {
		return natural, 0, nil
	}
	name, argument := strings.ToLower(match[1]), match[2]
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		return nil, 0, invalidArgument(fmt.Sprintf("The simulator knows no scenario %q. It knows: %s.", name, strings.Join(scenarioNames(), ", ")))
	}
	s := scenarios[i]
	if own := c.api.plays[name]; own != nil {
		s.play = own
	}
	if argument == "" {
		return s.play, s.wait, nil
	}
	if s.wait == 0 {
		return nil, 0, invalidArgument(fmt.Sprintf("The simulator's scenario %q takes no duration.", name))
	}
	wait, err := time.ParseDuration(argument)
	if err != nil || wait < 0 || wait > maxWait {
		return nil, 0, invalidArgument(fmt.Sprintf("The simulator's scenario %q takes a duration such as 500ms, up to %v; %q is none.", name, maxWait, argument))
	}
	return s.play, wait, nil
}

func scenarioNames() []string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.name
	}
	return names
}

// help is the page at /.
func help() string {
	var page strings.Builder
	page.WriteString(`This is gemini_simulator: it plays the Gemini API, Vertex AI and OpenAI's image
and chat APIs offline.

Point an app's base URL here and give it any API key:

  curl -H 'x-goog-api-key: any' -H 'Content-Type: application/json' \
    -d '{"contents":[{"parts":[{"text":"a cat on a bicycle"}]}]}' \
    <this address>/v1beta/models/gemini-3-pro-image:generateContent

  curl -H 'Authorization: Bearer any' -H 'Content-Type: application/json' \
    -d '{"model":"gpt-image-1","prompt":"a cat on a bicycle"}' \
    <this address>/v1/images/generations

Which API is played is up to the path:

  Gemini API   /v1beta/models/…:generateContent, :streamGenerateContent,
               :countTokens, :predict; /v1beta/interactions; in OpenAI's form,
               but with Google's errors, /v1beta/openai/chat/completions and
               /v1beta/openai/images/generations
  Vertex AI    the same verbs at /v1/projects/…/publishers/google/models/… and,
               with an API key, /v1/publishers/google/models/…
  OpenAI       /v1/chat/completions, /v1/images/generations, /v1/images/edits
  OAuth        /token, for the token_uri of a service-account file; Vertex AI
               takes these access tokens and any others

GET /v1/models is OpenAI's for a client whose key is in Authorization alone.

A prompt that contains sim:<scenario> decides how its call ends. The durations
shown are defaults; sim:slow=2s sets another.

In OpenAI's form a scenario comes to what is nearest to it:

  - a block of the prompt is a 400, moderation_blocked for gpt-image models and
    content_policy_violation for all others
  - SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII, MODEL_ARMOR,
    IMAGE_SAFETY, IMAGE_PROHIBITED_CONTENT and IMAGE_RECITATION are the same 400
    from images/… (moderation_blocked has the stage "output") and the
    finish_reason content_filter in a chat; after other reasons "data" is empty,
    or the message has no images
  - there are no drafts and no thoughts: what is only a draft is missing
  - rejected keys are 401 invalid_api_key; rate limits 429 rate_limit_exceeded
    with Retry-After; what is unpaid, and limit_zero, 429 insufficient_quota
  - mid_stream_error is an event with an error, and no [DONE]

In the Interactions API a refusal is "completed" with a text, and a block an
error of its own code.

`)
	for _, s := range scenarios {
		name := s.name
		if s.wait > 0 {
			name += "=" + s.wait.String()
		}
		fmt.Fprintf(&page, "  sim:%-26s %s\n", name, s.about)
	}
	return page.String()
}
