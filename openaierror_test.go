// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// openAIBody is an error as OpenAI's API has it; code is JSON.
func openAIBody(code, kind, message, more string) string {
	return `{"error":{"message":"` + message + `","type":"` + kind + `","param":null,"code":` + code + more + `}}`
}

func TestOpenAIErrors(t *testing.T) {
	const (
		user     = "image_generation_user_error"
		invalid  = "invalid_request_error"
		rejected = "Your request was rejected by the safety system. safety_violations=[sexual]."
		azure    = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
	)
	stage := func(s string) string {
		return `,"moderation_details":{"moderation_stage":"` + s + `","categories":["sexual"]}`
	}
	perMinute := "Rate limit reached for gpt-image-1 in organization org-x on images per min. Limit: 5, Used 5. Please try again in 12s."
	perDay := "Rate limit reached for gpt-image-1 on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s."
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   verdict // but for what is said and for the status
		after  string  // Retry-After
	}{
		{"moderation", 400, openAIBody(`"moderation_blocked"`, user, rejected, ""), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"of the input", 400, openAIBody(`"moderation_blocked"`, user, rejected, stage("input")), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"of the output", 400, openAIBody(`"moderation_blocked"`, user, rejected, stage("output")), verdict{class: classBlocked, reason: "IMAGE_SAFETY", stage: stageOutput, ours: true, isForeign: true}, ""},
		{"content policy", 400, openAIBody(`"content_policy_violation"`, invalid, "no", ""), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"Azure", 400, openAIBody(`"content_filter"`, "", azure, `,"innererror":{"code":"ResponsibleAIPolicyViolation"}`), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"Azure, inside alone", 400, openAIBody(`"BadRequest"`, "", azure, `,"inner_error":{"code":"ResponsibleAIPolicyViolation"}`), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"an aggregator that has lost the code", 500, openAIBody(`500`, "upstream_error", rejected, ""), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"minors by category", 400, openAIBody(`"moderation_blocked"`, user, "no", `,"moderation_details":{"moderation_stage":"output","categories":["sexual/minors"]}`), verdict{class: classForbidden, reason: "IMAGE_SAFETY", stage: stageOutput, ours: true, isForeign: true}, ""},
		{"minors in the message", 400, openAIBody(`"moderation_blocked"`, user, "rejected, safety_violations=[violence, sexual/minors]", ""), verdict{class: classForbidden, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"flagged by an aggregator", 403, openAIBody("403", "", "Forbidden", `,"metadata":{"reasons":["violence"],"flagged_input":"a","provider_name":"b"}`), verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"flagged for minors", 403, openAIBody("403", "", "Forbidden", `,"metadata":{"reasons":["sexual/minors"],"flagged_input":"a"}`), verdict{class: classForbidden, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, ""},
		{"forbidden by an aggregator", 403, openAIBody("403", "", "Forbidden", `,"metadata":{"provider_name":"b","raw":"no"}`), verdict{class: classAccount}, ""},
		{"the user's other errors", 400, openAIBody(`"invalid_image_file"`, user, "Invalid image file.", ""), verdict{class: classClient, reason: "INVALID_IMAGE_FILE"}, ""},
		{"without a code", 400, openAIBody(`null`, invalid, "Unknown parameter: 'x'.", ""), verdict{class: classClient, reason: "INVALID_REQUEST_ERROR"}, ""},

		{"no credit", 429, openAIBody(`"insufficient_quota"`, "insufficient_quota", "You exceeded your current quota.", ""), verdict{class: classAccount, reason: "INSUFFICIENT_QUOTA"}, ""},
		{"no credit, by type", 429, openAIBody(`null`, "insufficient_quota", "", ""), verdict{class: classAccount, reason: "INSUFFICIENT_QUOTA"}, ""},
		{"hard limit", 400, openAIBody(`"billing_hard_limit_reached"`, invalid, "", ""), verdict{class: classAccount, reason: "BILLING_HARD_LIMIT_REACHED"}, ""},
		{"not paid", 429, openAIBody(`"billing_not_active"`, "billing_not_active", "", ""), verdict{class: classAccount, reason: "BILLING_NOT_ACTIVE"}, ""},
		{"bad key", 401, openAIBody(`"invalid_api_key"`, invalid, "Incorrect API key provided.", ""), verdict{class: classAccount, reason: "INVALID_API_KEY"}, ""},
		{"bad key elsewhere", 400, openAIBody(`"invalid_api_key"`, invalid, "", ""), verdict{class: classAccount, reason: "INVALID_API_KEY"}, ""},
		{"401", 401, openAIBody(`null`, "", "", ""), verdict{class: classAccount}, ""},
		{"403", 403, openAIBody(`"organization_must_be_verified"`, invalid, "", ""), verdict{class: classAccount, reason: "ORGANIZATION_MUST_BE_VERIFIED"}, ""},
		{"country", 403, openAIBody(`"unsupported_country_region_territory"`, "request_forbidden", "", ""), verdict{class: classRegion, reason: "UNSUPPORTED_COUNTRY_REGION_TERRITORY"}, ""},
		{"model", 404, openAIBody(`"model_not_found"`, invalid, "", ""), verdict{class: classClient, reason: "MODEL_NOT_FOUND"}, ""},
		{"model of others", 403, openAIBody(`"model_not_found"`, invalid, "", ""), verdict{class: classClient, reason: "MODEL_NOT_FOUND"}, ""},
		{"limit", 429, openAIBody(`"rate_limit_exceeded"`, "images", perMinute, ""), verdict{class: classLimited, reason: "RATE_LIMIT_EXCEEDED"}, "12"},
		{"limit per day", 429, openAIBody(`"rate_limit_exceeded"`, "requests", perDay, ""), verdict{class: classExhausted, reason: "RATE_LIMIT_EXCEEDED"}, "43200"},
		{"tokens per day", 429, openAIBody(`"rate_limit_exceeded"`, "tokens", "Limit on tokens (TPD) reached", ""), verdict{class: classExhausted, reason: "RATE_LIMIT_EXCEEDED"}, "43200"},
		{"limit without a word", 429, openAIBody(`null`, "requests", "", ""), verdict{class: classLimited, reason: "REQUESTS"}, ""},
		{"server", 500, openAIBody(`null`, "server_error", "", ""), verdict{class: classTransient, reason: "SERVER_ERROR"}, ""},
		{"overload", 503, openAIBody(`"overloaded"`, "server_error", "", ""), verdict{class: classTransient, reason: "OVERLOADED"}, ""},
		{"a number", 502, openAIBody(`502`, "", "Provider returned error", ""), verdict{class: classTransient}, ""},
		{"odd types", 400, `{"error":{"code":{},"type":[],"innererror":7,"moderation_details":"x"}}`, verdict{class: classClient}, ""},
		{"no word for a header", 400, openAIBody(`"a \"b\"\n"`, "", "", ""), verdict{class: classClient, reason: "A"}, ""},

		{"Interactions", 400, `{"error":{"code":"safety","message":"no"}}`, verdict{class: classBlocked, reason: "SAFETY", stage: stageOutput}, ""},
		{"its image filter", 400, `{"error":{"code":"image_other"}}`, verdict{class: classBlocked, reason: "IMAGE_OTHER", stage: stageOutput}, ""},
		{"without an image", 400, `{"error":{"code":"no_image"}}`, verdict{class: classBlocked, reason: "NO_IMAGE", stage: stageOutput}, ""},
		{"without a cause", 400, `{"error":{"code":"content_blocked"}}`, verdict{class: classBlocked, reason: "CONTENT_BLOCKED", stage: stageOutput}, ""},
		{"its hard blocks", 400, `{"error":{"code":"spii"}}`, verdict{class: classForbidden, reason: "SPII", stage: stageOutput}, ""},
		{"a child", 400, `{"error":{"code":"image_safety","message":"Support code: 58061214"}}`, verdict{class: classForbidden, reason: "IMAGE_SAFETY", stage: stageOutput}, ""},
		{"a block by its message", 400, `{"error":{"code":"invalid_request","message":"Request blocked due to safety."}}`, verdict{class: classBlocked, reason: "OTHER", stage: stagePrompt, ours: true}, ""},
		{"its own request errors", 400, `{"error":{"code":"invalid_request","message":"Invalid value."}}`, verdict{class: classClient, reason: "INVALID_REQUEST"}, ""},
		{"lost signature", 400, `{"error":{"code":"missing_thought_signature"}}`, verdict{class: classClient, reason: "MISSING_THOUGHT_SIGNATURE"}, ""},
		{"fault of the model", 400, `{"error":{"code":"malformed_function_call"}}`, verdict{class: classClient, reason: "MALFORMED_FUNCTION_CALL"}, ""},
		{"quota", 429, `{"error":{"code":"quota_exceeded"}}`, verdict{class: classExhausted, reason: "QUOTA_EXCEEDED"}, "43200"},
		{"rate", 429, `{"error":{"code":"rate_limit_exceeded","message":"Please retry in 3.2s."}}`, verdict{class: classLimited, reason: "RATE_LIMIT_EXCEEDED"}, "4"},
		{"key", 401, `{"error":{"code":"authentication"}}`, verdict{class: classAccount, reason: "AUTHENTICATION"}, ""},
		{"payment", 402, `{"error":{"code":"payment_required"}}`, verdict{class: classAccount, reason: "PAYMENT_REQUIRED"}, ""},
		{"permission", 403, `{"error":{"code":"permission_denied"}}`, verdict{class: classAccount, reason: "PERMISSION_DENIED"}, ""},
		{"unknown interaction", 404, `{"error":{"code":"not_found"}}`, verdict{class: classClient, reason: "NOT_FOUND"}, ""},
		{"service", 503, `{"error":{"code":"service_unavailable"}}`, verdict{class: classTransient, reason: "SERVICE_UNAVAILABLE"}, ""},
		{"as an event", 400, `{"event_type":"error","error":{"code":"recitation"}}`, verdict{class: classBlocked, reason: "RECITATION", stage: stageOutput}, ""},

		{"Imagen, a child", 400, `{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"The prompt could not be submitted. Support codes: 17301594"}}`, verdict{class: classForbidden, reason: "IMAGE_SAFETY", stage: stagePrompt, ours: true}, ""},
		{"Imagen, a code alone", 400, `{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"Image generation failed. Support codes: 42876398"}}`, verdict{class: classBlocked, reason: "IMAGE_SAFETY", stage: stagePrompt, ours: true}, ""},
		{"Imagen, a mistake", 400, `{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"Image generation failed: sampleCount 9 is too large."}}`, verdict{class: classClient, reason: "INVALID_ARGUMENT"}, ""},
	} {
		e := parseGoogleError(c.status, []byte(c.body))
		e.isPredict = strings.HasPrefix(c.name, "Imagen")
		c.want.status = c.status
		if c.want.class.isBlock() {
			c.want.said = gjson.Get(c.body, "error.message").Str
		}
		if got := e.verdict(); got != c.want || e.class() != c.want.class {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if after := e.retryAfter(noonThere, dayOf(noonThere).ends); after != c.after {
			t.Errorf("%s: Retry-After %q, want %q", c.name, after, c.after)
		}
	}
}

// An error inside a 200 says what it is by a number or by a word; the gravest of
// several counts.
func TestErrorsInsideAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   string
		class  class
		status int // 0: no error
	}{
		{"word", `{"error":{"code":"rate_limit_exceeded"}}`, classLimited, 429},
		{"block", `{"error":{"code":"content_filter","message":"no"}}`, classBlocked, 400},
		{"type", `{"error":{"type":"server_error","code":null}}`, classTransient, 500},
		{"unknown word", `{"error":{"type":"x","code":"y"}}`, classClient, 400},
		{"word in odd case", `{"error":{"code":"SERVER_ERROR"}}`, classTransient, 500},
		{"number", `{"error":{"code":502,"message":"Provider returned error"},"choices":[]}`, classTransient, 502},
		{"the graver", `[{"error":{"code":"spii"}},{"error":{"code":503}}]`, classForbidden, 400},
		{"the graver at last", `[{"error":{"code":503}},{"error":{"code":"spii"}}]`, classForbidden, 400},
		{"no number of HTTP", `{"error":{"code":13}}`, classOK, 0},
		{"message alone", `{"error":{"message":"?"}}`, classOK, 0},
		{"no object", `{"error":[{"code":"spii"}],"errors":["spii"]}`, classOK, 0},
		{"null", `{"error":null}`, classOK, 0},
	} {
		f := factsOf(t, formArray, c.body)
		if v, failed := f.failure(); failed != (c.status > 0) || v.status != c.status || v.class != c.class {
			t.Errorf("%s: %+v %t, want %v %d", c.name, v, failed, c.class, c.status)
		}
	}
}

func TestOpenAIDelay(t *testing.T) {
	now := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, message string
		status        int
		header        map[string]string
		want          time.Duration
	}{
		{"seconds", "Please try again in 20s.", 429, nil, 20 * time.Second},
		{"a fraction", "Please try again in 1.5s.", 429, nil, 1500 * time.Millisecond},
		{"minutes", "Please try again in 6m0s. Contact us.", 429, nil, 6 * time.Minute},
		{"milliseconds", "Please try again in 120ms.", 429, nil, 120 * time.Millisecond},
		{"message before header", "Please try again in 20s.", 429, map[string]string{"Retry-After": "7"}, 20 * time.Second},
		{"exact header first", "", 429, map[string]string{"Retry-After": "2", "Retry-After-Ms": "1340.5"}, 1340500 * time.Microsecond},
		{"header", "", 503, map[string]string{"Retry-After": "7"}, 7 * time.Second},
		{"reset", "", 429, map[string]string{"X-Ratelimit-Reset-Requests": "6m0s"}, 6 * time.Minute},
		{"short reset", "", 429, map[string]string{"X-Ratelimit-Reset-Requests": "1s"}, time.Second},
		{"header before reset", "", 429, map[string]string{"Retry-After": "7", "X-Ratelimit-Reset-Requests": "6m0s"}, 7 * time.Second},
		{"reset of no limit", "", 500, map[string]string{"X-Ratelimit-Reset-Requests": "6m0s"}, 0},
		{"a point in time", "", 429, map[string]string{"X-Ratelimit-Reset-Requests": "1788375600"}, 0},
		{"odd headers", "", 429, map[string]string{"Retry-After-Ms": "NaN", "X-Ratelimit-Reset-Requests": "-3s"}, 0},
		{"negative", "", 429, map[string]string{"Retry-After-Ms": "-5"}, 0},
	} {
		header := http.Header{}
		for name, value := range c.header {
			header.Set(name, value)
		}
		e := parseGoogleError(c.status, []byte(openAIBody(`"x"`, "requests", c.message, "")))
		if got := e.delay(header, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestGoogleErrorInOpenAIForm(t *testing.T) {
	for _, c := range []struct {
		status     int
		body       string
		kind, code string
		message    string
	}{
		{400, `{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"` + rpcType + `ErrorInfo","reason":"API_KEY_INVALID"}]}}`, "invalid_request_error", "api_key_invalid", "API key not valid."},
		{400, `[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]`, "invalid_request_error", "invalid_argument", "bad"},
		{404, `{"error":{"message":"gone","status":"NOT_FOUND"}}`, "invalid_request_error", "not_found", "gone"},
		{429, `{"error":{"message":"slow","status":"RESOURCE_EXHAUSTED"}}`, "rate_limit_error", "rate_limit_exceeded", "slow"},
		{429, `{"error":{"message":"Your prepayment credits are depleted.","status":"RESOURCE_EXHAUSTED"}}`, "insufficient_quota", "insufficient_quota", "Your prepayment credits are depleted."},
		{413, `Request Entity Too Large`, "invalid_request_error", "request_too_large", "Request Entity Too Large"},
		{503, `{"error":{"message":"overloaded","status":"UNAVAILABLE"}}`, "server_error", "unavailable", "overloaded"},
		{502, `<html>`, "server_error", "unavailable", "Bad Gateway"},
	} {
		var got struct{ Error map[string]any }
		if err := json.Unmarshal(parseGoogleError(c.status, []byte(c.body)).openAI(), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"message": c.message, "type": c.kind, "code": c.code, "param": nil}
		if !reflect.DeepEqual(got.Error, want) {
			t.Errorf("%s: %v, want %v", c.body, got.Error, want)
		}
	}
}

func TestOpenAIErrorInGooglesForm(t *testing.T) {
	const info = `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":`
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{
			400, `{"error":{"message":"Unknown parameter: 'foo'.","type":"invalid_request_error","param":"foo","code":"unknown_parameter"}}`,
			`{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"Unknown parameter: 'foo'.","details":[` + info + `"UNKNOWN_PARAMETER","domain":"openai-compatible","metadata":{"param":"foo","type":"invalid_request_error"}}]}}`,
		},
		{
			429, openAIBody(`"rate_limit_exceeded"`, "requests", "Please try again in 1.5s.", ""),
			`{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please try again in 1.5s.","details":[` + info + `"RATE_LIMIT_EXCEEDED","domain":"openai-compatible","metadata":{"type":"requests"}},` +
				`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}]}}`,
		},
		{
			429, openAIBody(`"rate_limit_exceeded"`, "", "Limit on requests per day (RPD).", ""),
			`{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Limit on requests per day (RPD).","details":[` + info + `"RATE_LIMIT_EXCEEDED","domain":"openai-compatible","metadata":{}},` +
				`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"openai-compatible","quotaId":"LimitPerDay","quotaDimensions":{}}]}]}}`,
		},
		{401, `{"error":{"message":"no key"}}`, `{"error":{"code":401,"status":"UNAUTHENTICATED","message":"no key","details":[]}}`},
		{502, `<html>`, `{"error":{"code":502,"status":"UNAVAILABLE","message":"Bad Gateway","details":[]}}`},
	} {
		if got := string(parseGoogleError(c.status, []byte(c.body)).native()); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
	again := parseGoogleError(429, parseGoogleError(429, []byte(openAIBody(`"rate_limit_exceeded"`, "requests", "Please try again in 1.5s.", ""))).native())
	if again.class() != classLimited || again.retryDelay != 1500*time.Millisecond || strings.ToLower(again.reason) != "rate_limit_exceeded" {
		t.Errorf("not understood: %+v", again)
	}
}
