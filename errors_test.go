// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

var imageSafety = verdict{
	class: classBlocked, reason: "IMAGE_SAFETY", stage: stageOutput,
	said: "Unable to show the generated image. The image was filtered out because it violated Google's Generative AI Prohibited Use policy. You will not be charged for blocked images. Try rephrasing the prompt.",
}

func errorFor(v verdict, status int) *apiError {
	return &apiError{code: status, verdict: v, model: "gemini-3-pro-image-preview", upstream: "google", attempts: 1}
}

// The error of the contract's example, to the byte: clients parse it.
func TestNativeError(t *testing.T) {
	const want = `{"error":{"code":400,"status":"INVALID_ARGUMENT",` +
		`"message":"IMAGE_SAFETY: the generated image was stopped by Google's output filter, which no setting turns off. Change the prompt before trying again.` +
		` (Gemini said: Unable to show the generated image. The image was filtered out because it violated Google's Generative AI Prohibited Use policy. You will not be charged for blocked images. Try rephrasing the prompt.)",` +
		`"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"IMAGE_SAFETY","domain":"caddy-gemini",` +
		`"metadata":{"attempts":"1","class":"blocked","configurable":"false","finishReason":"IMAGE_SAFETY","model":"gemini-3-pro-image-preview","stage":"output","upstream":"google"}},` +
		`{"@type":"type.googleapis.com/google.rpc.LocalizedMessage","locale":"en","message":"The picture was created but does not follow the content rules, so it cannot be shown. Please change your request and try again."},` +
		`{"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Gemini image generation and responsible AI","url":"https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/capabilities/gemini-image-responsible-ai"}]}]}}`
	if got := string(errorFor(imageSafety, 400).native()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNativeErrorDetails(t *testing.T) {
	for _, c := range []struct {
		name     string
		verdict  verdict
		status   int
		code     string // of Google's
		metadata map[string]string
	}{
		{"prompt", verdict{class: classForbidden, reason: "PROHIBITED_CONTENT", stage: stagePrompt}, 400, "INVALID_ARGUMENT", map[string]string{"class": "forbidden", "stage": "prompt", "blockReason": "PROHIBITED_CONTENT", "configurable": "false"}},
		{"prompt of Imagen", verdict{class: classBlocked, reason: "IMAGE_SAFETY", stage: stagePrompt, ours: true}, 400, "INVALID_ARGUMENT", map[string]string{"class": "blocked", "stage": "prompt", "configurable": "false"}},
		{"an upstream's own filter", verdict{class: classBlocked, reason: "SAFETY", stage: stagePrompt, ours: true, isForeign: true}, 400, "INVALID_ARGUMENT", map[string]string{"class": "blocked", "stage": "prompt", "configurable": "false"}},
		{"settings can change it", verdict{class: classBlocked, reason: "SAFETY", stage: stageOutput}, 422, "INVALID_ARGUMENT", map[string]string{"class": "blocked", "stage": "output", "finishReason": "SAFETY", "configurable": "true"}},
		{"nothing came", verdict{class: classTransient, reason: reasonEmpty}, 503, "UNAVAILABLE", map[string]string{"class": "transient"}},
		{"too late", verdict{class: classTransient, reason: reasonDeadline}, 504, "DEADLINE_EXCEEDED", map[string]string{"class": "transient"}},
		{"too large", verdict{class: classClient, reason: reasonTooLarge}, 413, "INVALID_ARGUMENT", map[string]string{"class": "client"}},
		{"malformed", verdict{class: classClient, reason: reasonMalformed}, 400, "INVALID_ARGUMENT", map[string]string{"class": "client"}},
		{"Google's own in a 200", verdict{class: classTransient, reason: "INTERNAL", status: 500}, 500, "INTERNAL", map[string]string{"class": "transient"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := errorFor(c.verdict, c.status).native()
			e := gjson.GetBytes(body, "error")
			if !json.Valid(body) || e.Get("code").Int() != int64(c.status) || e.Get("status").String() != c.code {
				t.Errorf("wrong error %s", body)
			}
			if message := e.Get("message").String(); !strings.HasPrefix(message, c.verdict.reason+": ") || strings.Contains(message, "Gemini said") {
				t.Errorf("message %q", message)
			}
			c.metadata["model"], c.metadata["upstream"], c.metadata["attempts"] = "gemini-3-pro-image-preview", "google", "1"
			got := map[string]string{}
			e.Get("details.0.metadata").ForEach(func(key, value gjson.Result) bool {
				got[key.String()] = value.String()
				return true
			})
			if want, _ := json.Marshal(c.metadata); string(want) != e.Get("details.0.metadata").Raw {
				t.Errorf("metadata %s, want %s", e.Get("details.0.metadata").Raw, want)
			}
		})
	}
}

func TestErrorMessages(t *testing.T) {
	for _, c := range []struct {
		name     string
		verdict  verdict
		detail   string
		has, not string
	}{
		{"the text instead of an image", verdict{reason: reasonNoImage, stage: stageOutput, text: " I can't draw that.\n"}, "", "(Gemini said: I can't draw that.)", ""},
		{"another upstream", verdict{reason: "SAFETY", stage: stagePrompt, said: "No.", isForeign: true}, "", "the content filter of the upstream, which safetySettings do not change. Change the prompt before trying again. (The upstream said: No.)", "Google"},
		{"another upstream, no image", verdict{reason: reasonNoImage, stage: stageOutput, text: "No.", isForeign: true}, "", "declined", "Gemini"},
		{"support code", verdict{reason: "IMAGE_SAFETY", stage: stageOutput, said: "Filtered. Support codes: 39322892, 11030041"}, "", "Support code 39322892: People/Face. ", "Support code 11030041:"},
		{"a child is concerned", verdict{class: classForbidden, reason: "IMAGE_SAFETY", stage: stageOutput, said: "Support code: 58061214"}, "", adviseNever, adviseChange},
		{"detail", verdict{reason: reasonMalformed}, "expected a colon at byte 17", "MALFORMED_REQUEST: expected a colon at byte 17. ", "explanation"},
		{"nobody knows", verdict{class: classBlocked, reason: "NEWS", stage: stagePrompt}, "", "NEWS: the prompt was stopped by Google", ""},
		{"cut in a character", verdict{reason: reasonNoImage, stage: stageOutput, text: "Nein, über\xc3"}, "", "(Gemini said: Nein, über)", "\uFFFD"},
		{"markup", verdict{reason: reasonNoImage, stage: stageOutput, text: "<b>&\n\"no\""}, "", "<b>&\n\"no\"", ""},
	} {
		e := errorFor(c.verdict, 400)
		e.detail = c.detail
		for _, body := range [][]byte{e.native(), e.openAI()} {
			message := gjson.GetBytes(body, "error.message").String()
			if !strings.Contains(message, c.has) || c.not != "" && strings.Contains(message, c.not) {
				t.Errorf("%s: %q", c.name, message)
			}
			if strings.Contains(string(body), "\n") || strings.Contains(string(body), `\u003c`) {
				t.Errorf("%s: cannot stand in an event: %q", c.name, body)
			}
		}
	}
}

func TestLocalizedError(t *testing.T) {
	e := errorFor(imageSafety, 400)
	e.language = "de, ru;q=0.9"
	if got := gjson.GetBytes(e.native(), "error.details.1.locale").String(); got != "ru" {
		t.Errorf("locale %q", got)
	}
}

func TestOpenAIError(t *testing.T) {
	for _, c := range []struct {
		verdict  verdict
		status   int
		kind     string
		code     string
		notAgain bool
	}{
		{imageSafety, 400, "invalid_request_error", "content_policy_violation", true},
		{verdict{class: classForbidden, reason: "SPII", stage: stageOutput}, 400, "invalid_request_error", "content_policy_violation", true},
		{verdict{class: classClient, reason: reasonMalformed}, 400, "invalid_request_error", "malformed_request", true},
		{verdict{class: classClient, reason: reasonTooLarge}, 413, "invalid_request_error", "request_too_large", true},
		{verdict{class: classLimited, reason: "RATE_LIMITED"}, 429, "rate_limit_error", "rate_limit_exceeded", false},
		{verdict{class: classTransient, reason: reasonUnavailable}, 503, "server_error", "upstream_unavailable", true},
		{verdict{class: classTransient, reason: reasonDeadline}, 504, "server_error", "deadline_exceeded", true},
	} {
		res := errorFor(c.verdict, c.status).response(surfaceOpenAI)
		var body struct{ Error map[string]any }
		if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		_, hasParam := body.Error["param"]
		if body.Error["type"] != c.kind || body.Error["code"] != c.code || !hasParam || body.Error["param"] != nil || len(body.Error) != 4 {
			t.Errorf("%s: %v", c.verdict.reason, body.Error)
		}
		if res.StatusCode != c.status || res.Header.Get("Content-Type") != "application/json; charset=UTF-8" || (res.Header.Get("X-Should-Retry") == "false") != c.notAgain {
			t.Errorf("%s: %d %v", c.verdict.reason, res.StatusCode, res.Header)
		}
		if length := res.Header.Get("Content-Length"); length != strconv.FormatInt(res.ContentLength, 10) {
			t.Errorf("%s: length %s of %d", c.verdict.reason, length, res.ContentLength)
		}
		if closes := res.Header.Get("Connection") == "close"; closes != (c.status == http.StatusRequestEntityTooLarge) {
			t.Errorf("%s: closes %v", c.verdict.reason, closes)
		}
	}
}

// noonThere is noon in Los Angeles.
var noonThere = time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)

func TestGoogleErrors(t *testing.T) {
	for _, c := range []struct {
		file   string
		status int
		class  class
		word   string
		delay  time.Duration
		after  string
	}{
		{"error_400_api_key_expired.json", 400, classAccount, "API_KEY_INVALID", 0, ""},
		{"error_400_api_key_invalid.json", 400, classAccount, "API_KEY_INVALID", 0, ""},
		{"error_400_aspect_ratio.json", 400, classClient, "INVALID_ARGUMENT", 0, ""},
		{"error_400_imagen_prompt_blocked.json", 400, classClient, "INVALID_ARGUMENT", 0, ""}, // of another verb than predict
		{"error_400_invalid_modality_value.json", 400, classClient, "INVALID_ARGUMENT", 0, ""},
		{"error_400_openai_compat_array.json", 400, classClient, "INVALID_ARGUMENT", 0, ""},
		{"error_400_thought_signature_image_part.json", 400, classClient, "INVALID_ARGUMENT", 0, ""},
		{"error_400_thought_signature_short.json", 400, classClient, "INVALID_ARGUMENT", 0, ""},
		{"error_400_unknown_field.json", 400, classClient, "INVALID_ARGUMENT", 0, ""},
		{"error_400_user_location.json", 400, classRegion, "FAILED_PRECONDITION", 0, ""},
		{"error_403_key_leaked.json", 403, classAccount, "PERMISSION_DENIED", 0, ""},
		{"error_403_service_disabled.json", 403, classAccount, "SERVICE_DISABLED", 0, ""},
		{"error_403_unregistered_caller.json", 403, classAccount, "PERMISSION_DENIED", 0, ""},
		{"error_404_count_tokens.json", 404, classClient, "NOT_FOUND", 0, ""},
		{"error_404_retired_model.json", 404, classClient, "NOT_FOUND", 0, ""},
		{"error_404_stream_request.json", 404, classClient, "NOT_FOUND", 0, ""},
		{"error_429_fractional_delay.json", 429, classLimited, "RESOURCE_EXHAUSTED", 34400 * time.Millisecond, "35"},
		{"error_429_free_tier_minute_and_day.json", 429, classExhausted, "RESOURCE_EXHAUSTED", 19 * time.Second, "43200"},
		{"error_429_free_tier_per_day_short_delay.json", 429, classExhausted, "RESOURCE_EXHAUSTED", 41 * time.Second, "43200"},
		{"error_429_free_tier_rpm.json", 429, classLimited, "RESOURCE_EXHAUSTED", 56 * time.Second, "56"},
		{"error_429_generic.json", 429, classLimited, "RESOURCE_EXHAUSTED", 0, ""},
		{"error_429_image_limit_zero.json", 429, classAccount, "RESOURCE_EXHAUSTED", 37 * time.Second, ""},
		{"error_429_image_model_rpm.json", 429, classLimited, "RESOURCE_EXHAUSTED", 34 * time.Second, "34"},
		{"error_429_paid_input_tokens_per_minute.json", 429, classLimited, "RESOURCE_EXHAUSTED", 48 * time.Second, "48"},
		{"error_429_prepay_depleted.json", 429, classAccount, "RESOURCE_EXHAUSTED", 0, ""},
		{"error_429_spend_cap.json", 429, classAccount, "RESOURCE_EXHAUSTED", 0, ""},
		{"error_429_vertex_shared_quota_array.json", 429, classLimited, "RESOURCE_EXHAUSTED", 0, ""},
		{"error_500_internal.json", 500, classTransient, "INTERNAL", 0, ""},
		{"error_503_overloaded.json", 503, classTransient, "UNAVAILABLE", 0, ""},
		{"error_503_service_unavailable.json", 503, classTransient, "UNAVAILABLE", 0, ""},
		{"error_504_deadline.json", 504, classTransient, "DEADLINE_EXCEEDED", 0, ""},
	} {
		t.Run(c.file, func(t *testing.T) {
			e := parseGoogleError(c.status, fixture(t, c.file))
			if e.class() != c.class || e.verdict().reason != c.word || e.retryDelay != c.delay {
				t.Errorf("%v %s %v, want %v %s %v", e.class(), e.verdict().reason, e.retryDelay, c.class, c.word, c.delay)
			}
			if after := e.retryAfter(noonThere, dayOf(noonThere).ends); after != c.after {
				t.Errorf("Retry-After %q, want %q", after, c.after)
			}
			if delay := e.delay(http.Header{"Retry-After": {"7"}}, noonThere); delay.Truncate(time.Second) != cmp.Or(c.delay.Truncate(time.Second), 7*time.Second) {
				t.Errorf("delay %v, want that of the body, or else of the header", delay)
			}
		})
	}
}

func TestGoogleErrorsWithoutARecording(t *testing.T) {
	quota := func(status int, message, details string) string {
		return `{"error":{"code":` + strconv.Itoa(status) + `,"message":"` + message + `","details":[` + details + `]}}`
	}
	violation := func(id string) string {
		return `{"@type":"` + rpcType + `QuotaFailure","violations":[{"quotaId":"` + id + `"}]}`
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		class  class
		after  string
	}{
		{"delay in the message alone", 429, quota(429, "Please retry in 1h52m56.4s.", ""), classLimited, "6777"},
		{"delay in milliseconds", 429, quota(429, "Please retry in 539.477544ms.", ""), classLimited, "1"},
		{"detail before message", 429, quota(429, "Please retry in 48.9s.", `{"@type":"`+rpcType+`RetryInfo","retryDelay":"0.539477544s"}`), classLimited, "1"},
		{"hours", 429, quota(429, "", `{"@type":"`+rpcType+`RetryInfo","retryDelay":"6776s"}`), classLimited, "6776"},
		{"odd delays", 429, quota(429, "retry in ..s", `{"@type":"`+rpcType+`RetryInfo","retryDelay":"-3s"},{"@type":"`+rpcType+`RetryInfo","retryDelay":7}`), classLimited, ""},
		{"day in a second detail", 429, quota(429, "", violation("XPerMinute")+","+violation("XPerDay")), classExhausted, "43200"},
		{"limit: 0 among others", 429, quota(429, "limit: 20, x\\n* limit: 0, y", violation("XPerDay")), classAccount, ""},
		{"limit: 05", 429, quota(429, "limit: 05", ""), classLimited, ""},
		{"empty account", 402, quota(402, "Your prepayment credits are depleted.", ""), classAccount, ""},
		{"expired token", 401, ``, classAccount, ""},
		{"HTML", 502, `<html>`, classTransient, ""},
		{"nothing", 503, ``, classTransient, ""},
		{"cut", 429, `{"error":{"code":429,"message":"Please retry in 5s.`, classLimited, ""},
		{"odd types", 400, `{"error":[{"details":"x"}],"status":{}}`, classClient, ""},
		{"a string", 400, `{"error":"invalid_request"}`, classClient, ""},
		{"empty array", 500, `[]`, classTransient, ""},
		{"another precondition", 400, `{"error":{"status":"FAILED_PRECONDITION","message":"File is not active."}}`, classClient, ""},
		{"too large", 413, `Request Entity Too Large`, classClient, ""},
		{"client went away", 499, `{"error":{"status":"CANCELLED"}}`, classClient, ""},
	} {
		e := parseGoogleError(c.status, []byte(c.body))
		after := e.retryAfter(noonThere, dayOf(noonThere).ends)
		if e.class() != c.class || after != c.after {
			t.Errorf("%s: %v after %q, want %v after %q", c.name, e.class(), after, c.class, c.after)
		}
	}
}

// Daily quotas end at midnight in Los Angeles, also on the two days of the
// year that do not have 24 hours.
func TestPacificMidnight(t *testing.T) {
	e := &googleError{code: 429, perDay: true, retryDelay: 41 * time.Second}
	for now, want := range map[string]string{
		"2026-03-07T23:59:59.5-08:00": "1",
		"2026-03-08T00:00:00-08:00":   "82800", // 23 hours: clocks go forward at 02:00
		"2026-03-08T04:00:00-07:00":   "72000",
		"2026-03-09T00:00:00-07:00":   "86400",
		"2026-11-01T00:00:00-07:00":   "90000", // 25 hours: clocks go back at 02:00
		"2026-11-01T01:30:00-07:00":   "84600",
		"2026-11-01T01:30:00-08:00":   "81000",
		"2026-12-31T23:00:00-08:00":   "3600",
		"2026-07-01T06:59:00Z":        "60",
	} {
		at, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.retryAfter(at, dayOf(at).ends); got != want {
			t.Errorf("%s: %s, want %s", now, got, want)
		}
	}
}

func FuzzGoogleError(f *testing.F) {
	for _, body := range []string{
		`{"error":{"code":429,"message":"Please retry in 1h2m3.5s. limit: 0","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}`,
		`[{"error":{"status":"X","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"PerDay"}]}]}}]`,
		`{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":{"seconds":"315576000000","nanos":5}}]}}`, `[`, ``, `{"error":`,
	} {
		f.Add(429, []byte(body), "7")
	}
	f.Add(429, []byte(`{"error":{"message":"Please retry in 48.9s.","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"48s"}]}}`), "")
	f.Add(400, []byte(`{"error":{"message":"rejected by the safety system, safety_violations=[sexual/minors]","type":"image_generation_user_error","code":"moderation_blocked","moderation_details":{"moderation_stage":"output"}}}`), "")
	f.Add(500, []byte(`{"status":"failed","errors":[{"code":"safety","message":"Try again in 6m0s, limit per day. Support code: 58061214"}]}`), "")
	f.Add(503, []byte(`{}`), "Wed, 02 Sep 2026 19:01:30 GMT")
	now := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, status int, body []byte, header string) {
		e := parseGoogleError(status, body)
		if e.class() == classOK || e.class() != e.verdict().class || e.retryDelay < 0 {
			t.Errorf("%v, %+v, %v", e.class(), e.verdict(), e.retryDelay)
		}
		if !json.Valid(e.openAI()) || !json.Valid(e.native()) {
			t.Errorf("restated as %s and %s", e.openAI(), e.native())
		}
		if delay := e.delay(http.Header{"Retry-After": {header}}, now); delay < 0 || e.retryDelay > 0 && delay.Truncate(time.Second) != min(e.retryDelay, maxCooldown).Truncate(time.Second) {
			t.Errorf("delay %v of %v", delay, e.retryDelay)
		}
		if after := e.retryAfter(now, dayOf(now).ends); after != "" {
			if n, err := strconv.Atoi(after); err != nil || n < 1 {
				t.Errorf("Retry-After %q", after)
			}
		}
		if strings.ContainsAny(e.verdict().reason, "\" \r\n") {
			t.Errorf("word %q", e.verdict().reason)
		}
	})
}
