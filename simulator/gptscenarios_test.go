// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"strconv"
	"strings"
	"testing"
)

// gptWant is how a scenario ends at OpenAI's paths: with a status and a code of
// an error ("" = null), or with that many images; and a chat with a reason.
type gptWant struct {
	status  int // default 200
	code    string
	images  int
	finish  string // of a chat that is 200; "" = null
	message string // must be in it
}

var (
	gptModerated = gptWant{status: 400, code: "moderation_blocked", finish: "content_filter"}
	gptBlocked   = gptWant{status: 400, code: "moderation_blocked"}
	gptMissing   = gptWant{finish: "stop"}
	gptWhole     = gptWant{images: 1, finish: "stop"}
)

// gptWanted has one line for each scenario that answers in OpenAI's form.
var gptWanted = map[string]gptWant{
	"stop": gptWhole, "refusal": gptMissing, "text_only": gptMissing, "stop_no_parts": gptMissing,
	"draft_then_no_image": gptMissing, "only_draft": gptMissing,
	"unflagged_drafts": {images: 3, finish: "stop"},
	"late_block":       gptModerated, "candidates": gptWhole,
	"no_finish_reason": {images: 1},
	"mid_stream_error": {status: 499, message: "The operation was cancelled."},

	"max_tokens": {finish: "length"}, "continuation": {finish: "length"},
	"safety": gptModerated, "recitation": gptModerated, "blocklist": gptModerated, "prohibited_content": gptModerated,
	"spii": gptModerated, "model_armor": gptModerated,
	"image_safety": gptModerated, "image_prohibited_content": gptModerated, "image_recitation": gptModerated,
	"language": gptMissing, "other": gptMissing, "image_other": gptMissing, "no_image": gptMissing,
	"malformed_function_call":   {finish: "malformed_function_call"},
	"unexpected_tool_call":      {finish: "unexpected_tool_call"},
	"too_many_tool_calls":       {finish: "too_many_tool_calls"},
	"malformed_response":        {finish: "malformed_response"},
	"missing_thought_signature": {finish: "missing_thought_signature"},
	"escalation":                {finish: "escalation"},
	"finish_reason_unspecified": gptWhole,
	"unknown_reason":            {images: 1, finish: "fake_new_finish_reason"},

	"prompt_safety": gptBlocked, "prompt_other": gptBlocked, "prompt_blocklist": gptBlocked, "prompt_prohibited_content": gptBlocked,
	"prompt_image_safety": gptBlocked, "prompt_model_armor": gptBlocked, "prompt_jailbreak": gptBlocked, "prompt_unknown": gptBlocked,
	"prompt_unspecified": gptWhole, "prompt_ratings": gptWhole,

	"unknown_field":       gptWhole, // there is no such field
	"missing_signature":   {status: 400, message: "missing a thought_signature"},
	"corrupted_signature": {status: 400, message: "Corrupted thought signature."},
	"bad_key":             {status: 401, code: "invalid_api_key"},
	"expired_key":         {status: 401, code: "invalid_api_key"},
	"leaked_key":          {status: 401, code: "invalid_api_key"},
	"unauthenticated":     {status: 401, code: "invalid_api_key"},
	"token_limit":         {status: 400, code: "context_length_exceeded"},
	"region":              {status: 403, code: "unsupported_country_region_territory"},
	"forbidden":           {status: 403, code: "missing_scope"},
	"service_disabled":    {status: 403, code: "missing_scope"},
	"not_found":           {status: 404, code: "model_not_found", message: "The model `gpt-image-1` does not exist"},
	"billing":             {status: 429, code: "insufficient_quota"},
	"billing_429":         {status: 429, code: "insufficient_quota"},
	"spend_cap":           {status: 429, code: "insufficient_quota"},
	"limit_zero":          {status: 429, code: "insufficient_quota"},
	"rate_limit=20s":      {status: 429, code: "rate_limit_exceeded", message: "Please try again in 20s."},
	"rate_limit_tokens":   {status: 429, code: "rate_limit_exceeded", message: "on tokens per min (TPM): Limit 1000000, Used 1000000, Requested 1. Please try again in 48.94s."},
	"rate_limit_day":      {status: 429, code: "rate_limit_exceeded", message: "Please try again in 1h52m56.4s."},
	"quota_generic":       {status: 429, code: "rate_limit_exceeded"},
	"shared_quota":        {status: 429, code: "rate_limit_exceeded"},
	"499":                 {status: 499},
	"500":                 {status: 500, code: "server_error"},
	"503":                 {status: 503, code: "server_error"},
	"504":                 {status: 504, code: "server_error"},
	"twice_503":           {status: 503},
	"slow=1ms":            gptWhole,
	"trickle=0s":          gptWhole,
}

func TestEveryScenarioInGPTForm(t *testing.T) {
	h := provisioned(t)
	for name, want := range gptWanted {
		if want.status == 0 {
			want.status = 200
		}
		got := ask(t, h, gptDrawPath, `{"model":"gpt-image-1","prompt":"draw sim:`+name+` please","size":"16x16"}`)
		checkGPT(t, "images, sim:"+name, got, want)
		if n := len(got.get("data.#.b64_json").Array()); n != want.images || want.status == 200 && !got.get("data").IsArray() {
			t.Errorf("images, sim:%s: %d images", name, n)
		}
		if blocked := got.get("error.moderation_details.moderation_stage").Str; blocked != "" && (blocked == "input") != strings.HasPrefix(name, "prompt_") {
			t.Errorf("images, sim:%s: stage %s", name, blocked)
		}

		if want.finish != "" {
			want.status = 200
		}
		got = ask(t, h, gptChatPath, `{"model":"gpt-image-1","messages":[{"role":"user","content":"chat sim:`+name+` please"}],"image_config":{"image_size":"512"}}`)
		checkGPT(t, "chat, sim:"+name, got, want)
		if n := len(got.get("choices.0.message.images").Array()); n != want.images {
			t.Errorf("chat, sim:%s: %d images", name, n)
		}
		if finish := got.get("choices.0.finish_reason").Str; finish != want.finish {
			t.Errorf("chat, sim:%s: finish_reason %q", name, finish)
		}
	}
}

// checkGPT looks at the status and, where it is an error, at its form.
func checkGPT(t *testing.T, name string, got reply, want gptWant) {
	t.Helper()
	if got.status != want.status {
		t.Errorf("%s: %d %.300s", name, got.status, got.body)
		return
	}
	if want.status == 200 {
		return
	}
	failure := got.get("error")
	for _, field := range []string{"message", "type", "param", "code"} {
		if !failure.Get(field).Exists() {
			t.Errorf("%s: no %s in %s", name, field, got.body)
		}
	}
	if failure.Get("code").Str != want.code && want.finish == "" || !strings.Contains(failure.Get("message").Str, want.message) {
		t.Errorf("%s: %s", name, got.body)
	}
	seconds := got.header.Get("Retry-After")
	if told := strings.Contains(failure.Get("message").Str, "Please try again in"); told != (seconds != "") {
		t.Errorf("%s: Retry-After %q, %s", name, seconds, got.body)
	}
}

// No scenario is without a test.
func TestEveryScenarioIsTestedInGPTForm(t *testing.T) {
	tested := map[string]bool{"hang": true, "cut": true, "cut_before": true, "empty": true, "null": true, "html": true} // the same in all forms
	for name := range gptWanted {
		name, _, _ = strings.Cut(name, "=")
		tested[name] = true
	}
	for _, s := range scenarios {
		if !tested[s.name] {
			t.Errorf("sim:%s has no test", s.name)
		}
	}
	for name := range gptPlays {
		if !tested[name] {
			t.Errorf("sim:%s has no scenario", name)
		}
	}
}

func TestGPTRetryAfterIsRoundedUp(t *testing.T) {
	h := provisioned(t)
	for wait, seconds := range map[string]int{"20s": 20, "1.5s": 2, "10ms": 1, "2m": 120} {
		got := ask(t, h, gptDrawPath, `{"prompt":"sim:rate_limit=`+wait+`"}`)
		if got.header.Get("Retry-After") != strconv.Itoa(seconds) {
			t.Errorf("%s: Retry-After %q", wait, got.header.Get("Retry-After"))
		}
	}
}

// The models of others have other words for a block.
func TestModerationDependsOnTheModel(t *testing.T) {
	h := provisioned(t)
	for _, tc := range []struct{ model, scenario, code, kind, message string }{
		{"gpt-image-1", "prompt_safety", "moderation_blocked", "image_generation_user_error", "rejected by the safety system"},
		{"openai/gpt-image-2", "image_safety", "moderation_blocked", "image_generation_user_error", "safety_violations="},
		{"nano-banana", "prompt_safety", "content_policy_violation", "invalid_request_error", "Your prompt may contain text"},
		{"google/gemini-3-pro-image", "image_safety", "content_policy_violation", "invalid_request_error", "blocked by our content filters"},
	} {
		got := ask(t, h, gptDrawPath, `{"model":"`+tc.model+`","prompt":"sim:`+tc.scenario+`"}`)
		if got.status != 400 || got.get("error.code").Str != tc.code || got.get("error.type").Str != tc.kind || !strings.Contains(got.get("error.message").Str, tc.message) {
			t.Errorf("%s, sim:%s: %d %s", tc.model, tc.scenario, got.status, got.body)
		}
	}
}
