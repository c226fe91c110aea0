// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The files gpt….go play OpenAI's own API, in OpenAI's manners, at /v1/chat and
// /v1/images; openai.go is Google's imitation of it.

// gptForm is what an error has in OpenAI's form besides its message.
type gptForm struct {
	kind       string // error.type
	param      string // empty = null
	word       string // error.code; empty = null
	moderation object // error.moderation_details; nil = none
}

// gptErrorBody is the body of an error. Google's errors, which scenarios end
// in, are put into the form by their status.
func gptErrorBody(e *apiError) object {
	form := e.gpt
	if form == nil {
		form = &gptForm{kind: "invalid_request_error"}
		if e.code >= 499 { // a cancelled operation is no fault of the client's here
			form.kind = "server_error"
		}
	}
	inner := object{{"message", e.message}, {"type", form.kind}, {"param", orNull(form.param)}, {"code", orNull(form.word)}}
	if form.moderation != nil {
		inner = append(inner, member{"moderation_details", form.moderation})
	}
	return object{{"error", inner}}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func gptError(code int, kind, word, message string) *apiError {
	return &apiError{code: code, message: message, gpt: &gptForm{kind: kind, word: word}}
}

// badParam is a 400 about one parameter.
func badParam(param, word, format string, args ...any) *apiError {
	return &apiError{
		code: http.StatusBadRequest, message: fmt.Sprintf(format, args...),
		gpt: &gptForm{kind: "invalid_request_error", param: param, word: word},
	}
}

func missingParam(name string) *apiError {
	return badParam(name, "missing_required_parameter", "Missing required parameter: '%s'.", name)
}

func unknownParam(name string) *apiError {
	return badParam(name, "unknown_parameter", "Unknown parameter: '%s'.", name)
}

// invalidChoice says what a parameter may be instead, two words at least.
func invalidChoice(param, value string, choices ...string) *apiError {
	last, conjunction := len(choices)-1, "', and '"
	if last == 1 {
		conjunction = "' and '"
	}
	return badParam(param, "invalid_value", "Invalid value: '%s'. Supported values are: '%s%s%s'.",
		value, strings.Join(choices[:last], "', '"), conjunction, choices[last])
}

var (
	errNoGPTKey = gptError(401, "invalid_request_error", "",
		"You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from https://platform.openai.com/account/api-keys.")
	errGPTKey = gptError(401, "invalid_request_error", "invalid_api_key",
		"Incorrect API key provided: sk-***. You can find your API key at https://platform.openai.com/account/api-keys.")
	errGPTScope = gptError(403, "invalid_request_error", "missing_scope",
		"You have insufficient permissions for this operation. Missing scopes: model.request. Check that you have the correct role in your organization and project.")
	errGPTRegion = gptError(403, "request_forbidden", "unsupported_country_region_territory",
		"Country, region, or territory not supported")
	errGPTTooLong = gptError(400, "invalid_request_error", "context_length_exceeded",
		"This model's maximum context length is 1048576 tokens. However, your messages resulted in 1048577 tokens. Please reduce the length of the messages.")
	errGPTQuota = gptError(429, "insufficient_quota", "insufficient_quota",
		"You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.")
	errGPTLimit = gptError(429, "requests", "rate_limit_exceeded",
		"Rate limit reached. Please try again later.")
	errGPTServer = gptError(500, "server_error", "server_error",
		"The server had an error while processing your request. Sorry about that!")
	errGPTOverloaded = gptError(503, "server_error", "server_error",
		"The engine is currently overloaded, please try again later.")
	errGPTTimeout = gptError(504, "server_error", "server_error",
		"The server took too long to process your request.")
)

// gptPlays are the scenarios that are other errors at OpenAI than Google's in
// another form.
var gptPlays = map[string]play{
	"bad_key":           always(errGPTKey),
	"expired_key":       always(errGPTKey),
	"leaked_key":        always(errGPTKey),
	"unauthenticated":   always(errGPTKey),
	"forbidden":         always(errGPTScope),
	"service_disabled":  always(errGPTScope),
	"region":            always(errGPTRegion),
	"token_limit":       always(errGPTTooLong),
	"not_found":         gptModelNotFound,
	"billing":           always(errGPTQuota),
	"billing_429":       always(errGPTQuota),
	"spend_cap":         always(errGPTQuota),
	"limit_zero":        always(errGPTQuota),
	"quota_generic":     always(errGPTLimit),
	"shared_quota":      always(errGPTLimit),
	"rate_limit":        gptLimited("requests", "requests per min (RPM)", 500),
	"rate_limit_tokens": gptLimited("tokens", "tokens per min (TPM)", 1_000_000),
	"rate_limit_day":    gptLimited("requests", "requests per day (RPD)", 1000),
	"500":               always(errGPTServer),
	"503":               always(errGPTOverloaded),
	"504":               always(errGPTTimeout),
}

func gptModelNotFound(x *exchange) error {
	return x.fail(gptError(404, "invalid_request_error", "model_not_found",
		"The model `"+x.call.gpt.model+"` does not exist or you do not have access to it."))
}

// gptLimited is a 429 that tells when to come back in its message and in a
// Retry-After.
func gptLimited(kind, limit string, value int) play {
	return func(x *exchange) error {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(x.wait.Seconds()))))
		return x.fail(gptError(429, kind, "rate_limit_exceeded",
			fmt.Sprintf("Rate limit reached for %s in organization org-simulator on %s: Limit %d, Used %d, Requested 1. Please try again in %v. Visit https://platform.openai.com/account/rate-limits to learn more.",
				x.call.gpt.model, limit, value, value, x.wait.Round(time.Millisecond))))
	}
}

// moderated are the finishReasons that OpenAI's API has a filter for. After any
// other an image is only missing.
var moderated = map[string]bool{
	"SAFETY": true, "RECITATION": true, "BLOCKLIST": true, "PROHIBITED_CONTENT": true, "SPII": true, "MODEL_ARMOR": true,
	"IMAGE_SAFETY": true, "IMAGE_PROHIBITED_CONTENT": true, "IMAGE_RECITATION": true,
}

// The stages of moderation.
const (
	ofPrompt = "input"
	ofImage  = "output"
)

// moderationError is the 400 of a block: OpenAI's image models have one code for
// it, its older models and everybody who sells other ones have another.
func (c *call) moderationError(stage string) *apiError {
	if c.isGPTImage() {
		e := gptError(400, "image_generation_user_error", "moderation_blocked",
			"Your request was rejected by the safety system. If you believe this is an error, contact us at help.openai.com and include the request ID req_simulator. safety_violations=[violence].")
		e.gpt.moderation = object{{"moderation_stage", stage}, {"categories", array{"violence"}}}
		return e
	}
	message := "Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed by our safety system."
	if stage == ofImage {
		message = "This request has been blocked by our content filters."
	}
	return gptError(400, "invalid_request_error", "content_policy_violation", message)
}
