// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// want is the shape of a unary answer; what is empty is not looked at.
type want struct {
	status int // default 200
	finish string
	parts  string // as describe says it
	body   string // must be in it
	path   string // must exist, or with a leading "!" not exist
}

const (
	cand    = "candidates.0."
	details = `error.details.#(@type%"*`
)

// wanted has one line for each scenario that answers at once.
var wanted = map[string]want{
	"stop":                      {finish: "STOP", parts: "text image"},
	"max_tokens":                {finish: "MAX_TOKENS", path: cand + "content.role"},
	"continuation":              {finish: "CONTINUATION", parts: "text", path: cand + "continuationToken"},
	"safety":                    {finish: "SAFETY", path: cand + `safetyRatings.#(blocked==true)`},
	"recitation":                {finish: "RECITATION", parts: "text"},
	"language":                  {finish: "LANGUAGE", path: cand + "content"},
	"other":                     {finish: "OTHER", path: "!" + cand + "content"},
	"blocklist":                 {finish: "BLOCKLIST"},
	"prohibited_content":        {finish: "PROHIBITED_CONTENT", path: cand + "finishMessage"},
	"spii":                      {finish: "SPII", body: `"parts": null`},
	"image_safety":              {finish: "IMAGE_SAFETY", body: `"content": {},`, path: cand + "finishMessage"},
	"image_prohibited_content":  {finish: "IMAGE_PROHIBITED_CONTENT", body: "Support code: 11030041"},
	"image_recitation":          {finish: "IMAGE_RECITATION", body: `"parts": []`},
	"image_other":               {finish: "IMAGE_OTHER", path: cand + "finishMessage"},
	"no_image":                  {finish: "NO_IMAGE", path: "!" + cand + "finishMessage"},
	"malformed_function_call":   {finish: "MALFORMED_FUNCTION_CALL"},
	"unexpected_tool_call":      {finish: "UNEXPECTED_TOOL_CALL"},
	"too_many_tool_calls":       {finish: "TOO_MANY_TOOL_CALLS"},
	"model_armor":               {finish: "MODEL_ARMOR", path: "!" + cand + "content"},
	"malformed_response":        {finish: "MALFORMED_RESPONSE"},
	"missing_thought_signature": {finish: "MISSING_THOUGHT_SIGNATURE"},
	"escalation":                {finish: "ESCALATION"},
	"finish_reason_unspecified": {finish: "FINISH_REASON_UNSPECIFIED", parts: "text image"},
	"unknown_reason":            {finish: "FAKE_NEW_FINISH_REASON", parts: "text image"},

	"prompt_safety":             {body: `"blockReason": "SAFETY"`, path: `promptFeedback.safetyRatings.#(probability=="HIGH")`},
	"prompt_other":              {body: `"blockReason": "OTHER"`, path: "!candidates"},
	"prompt_blocklist":          {body: `"blockReason": "BLOCKLIST"`, path: "!candidates"},
	"prompt_prohibited_content": {body: `"blockReason": "PROHIBITED_CONTENT"`, path: "!usageMetadata.thoughtsTokenCount"},
	"prompt_image_safety":       {body: `"blockReason": "IMAGE_SAFETY"`, path: "!candidates"},
	"prompt_model_armor":        {body: `"blockReason": "MODEL_ARMOR"`, path: "promptFeedback.blockReasonMessage"},
	"prompt_jailbreak":          {body: `"blockReason": "JAILBREAK"`, path: "!candidates"},
	"prompt_unknown":            {body: `"blockReason": "FAKE_NEW_BLOCK_REASON"`, path: "!candidates"},
	"prompt_unspecified":        {body: `"blockReason": "BLOCK_REASON_UNSPECIFIED"`, finish: "STOP", parts: "text image"},
	"prompt_ratings":            {finish: "STOP", parts: "text image", path: "!promptFeedback.blockReason"},

	"refusal":             {finish: "STOP", parts: "text"},
	"text_only":           {finish: "STOP", parts: "text"},
	"stop_no_parts":       {finish: "STOP", body: `"content": {},`, path: `usageMetadata.candidatesTokensDetails.#(modality=="IMAGE")`},
	"draft_then_no_image": {finish: "NO_IMAGE", parts: "image!"},
	"only_draft":          {finish: "STOP", parts: "image!"},
	"unflagged_drafts":    {finish: "STOP", parts: "image image image"},
	"late_block":          {finish: "IMAGE_SAFETY", parts: "text"},
	"candidates":          {finish: "STOP", parts: "text image", path: `candidates.#(finishReason=="IMAGE_SAFETY")`},
	"no_finish_reason":    {parts: "text image", path: "!" + cand + "finishReason"},
	"mid_stream_error":    {status: 499, body: "The operation was cancelled."},
	"empty":               {body: ""},
	"null":                {body: "null"},
	"html":                {body: "<!DOCTYPE html>"},

	"bad_key":             {status: 400, path: details + `ErrorInfo").reason`, body: "API_KEY_INVALID"},
	"expired_key":         {status: 400, path: details + `ErrorInfo").reason`, body: "API key expired"},
	"unknown_field":       {finish: "STOP", parts: "text image"}, // for a request without the field
	"missing_signature":   {status: 400, body: "missing a thought_signature"},
	"corrupted_signature": {status: 400, body: "Corrupted thought signature."},
	"token_limit":         {status: 400, body: "exceeds the maximum number of tokens"},
	"region":              {status: 400, body: "FAILED_PRECONDITION"},
	"unauthenticated":     {status: 401, body: "UNAUTHENTICATED"},
	"billing":             {status: 402, body: "prepayment credits are depleted"},
	"billing_429":         {status: 429, body: "prepayment credits are depleted", path: "!error.details"},
	"forbidden":           {status: 403, body: "IAM_PERMISSION_DENIED"},
	"service_disabled":    {status: 403, path: details + `Help").links.0.url`, body: "SERVICE_DISABLED"},
	"leaked_key":          {status: 403, body: "reported as leaked"},
	"not_found":           {status: 404, body: "models/gemini-2.5-flash-image is not found for API version v1beta, or is not supported for generateContent"},
	"rate_limit":          {status: 429, path: details + `QuotaFailure").violations.#(quotaId%"*PerMinute*").quotaValue`, body: `"retryDelay": "34s"`},
	"rate_limit_tokens":   {status: 429, path: details + `QuotaFailure").violations.#(quotaId%"*InputTokens*")`, body: "Please retry in 48.939935699s."},
	"rate_limit_day":      {status: 429, path: details + `QuotaFailure").violations.#(quotaId%"*PerDay*")`, body: "Please retry in 1h52m56.4s."},
	"limit_zero":          {status: 429, path: "!" + details + `QuotaFailure").violations.0.quotaValue`, body: "limit: 0, model: gemini-2.5-flash-image"},
	"quota_generic":       {status: 429, path: "!error.details", body: "Resource has been exhausted (e.g. check quota)."},
	"spend_cap":           {status: 429, path: "!error.details", body: "monthly spending cap"},
	"shared_quota":        {status: 429, path: "error.errors.0.reason", body: "error-code-429"},
	"499":                 {status: 499, body: "CANCELLED"},
	"500":                 {status: 500, body: "INTERNAL"},
	"503":                 {status: 503, body: "UNAVAILABLE"},
	"504":                 {status: 504, body: "DEADLINE_EXCEEDED"},
	"twice_503":           {status: 503, body: "overloaded"},
	"slow=1ms":            {finish: "STOP", parts: "text image"},
	"trickle=0s":          {finish: "STOP", parts: "text image"},
}

func TestEveryScenario(t *testing.T) {
	h := provisioned(t)
	for name, want := range wanted {
		got := post(t, h, flashPath, small("draw sim:"+name+" please"))
		if want.status == 0 {
			want.status = 200
		}
		if got.status != want.status {
			t.Errorf("sim:%s: status %d", name, got.status)
		}
		if want.status != 200 && (got.get("error.code").Int() != int64(want.status) || got.get("error.status").Str == "") {
			t.Errorf("sim:%s: not Google's form: %s", name, got.body)
		}
		if !strings.Contains(got.body, want.body) {
			t.Errorf("sim:%s: %q is not in %.500s", name, want.body, got.body)
		}
		if want.finish != "" && got.get(cand+"finishReason").Str != want.finish {
			t.Errorf("sim:%s: finishReason %q", name, got.get(cand+"finishReason").Str)
		}
		if parts := describe(got.get(cand + "content.parts")); parts != want.parts {
			t.Errorf("sim:%s: parts %q", name, parts)
		}
		if path, absent := strings.CutPrefix(want.path, "!"); path != "" && got.get(path).Exists() == absent {
			t.Errorf("sim:%s: %s exists: %v", name, path, !absent)
		}
		if got.header.Get("Retry-After") != "" {
			t.Errorf("sim:%s: Google sends no Retry-After", name)
		}
	}
}

// No scenario is without a test.
func TestEveryScenarioIsTested(t *testing.T) {
	elsewhere := map[string]bool{"hang": true, "cut": true, "cut_before": true}
	for name := range wanted {
		name, _, _ = strings.Cut(name, "=")
		elsewhere[name] = true
	}
	for _, s := range scenarios {
		if !elsewhere[s.name] {
			t.Errorf("sim:%s has no test", s.name)
		}
		delete(elsewhere, s.name)
	}
	for name := range elsewhere {
		t.Errorf("sim:%s is tested but does not exist", name)
	}
}

// The errors are those that were recorded.
func TestErrorsAreAsRecorded(t *testing.T) {
	h := provisioned(t)
	for scenario, name := range map[string]string{
		"bad_key":          "error_400_api_key_invalid.json",
		"region":           "error_400_user_location.json",
		"service_disabled": "error_403_service_disabled.json",
		"leaked_key":       "error_403_key_leaked.json",
		"rate_limit":       "error_429_image_model_rpm.json",
		"billing_429":      "error_429_prepay_depleted.json",
		"spend_cap":        "error_429_spend_cap.json",
		"quota_generic":    "error_429_generic.json",
		"500":              "error_500_internal.json",
		"503":              "error_503_overloaded.json",
		"504":              "error_504_deadline.json",
	} {
		recorded := fixture(t, name)
		model := "gemini-2.5-flash-preview-image" // the name in the recorded quota
		got := post(t, h, "/v1beta/models/"+model+":generateContent", prompt("sim:"+scenario))
		var a, b any
		if json.Unmarshal([]byte(recorded), &a) != nil || json.Unmarshal([]byte(got.body), &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("sim:%s: %s\nrecorded: %s", scenario, got.body, recorded)
		}
	}
}

func TestRetryDelayIsChosenByThePrompt(t *testing.T) {
	h := provisioned(t)
	for argument, delay := range map[string]string{"2s": "2s", "500ms": "0.5s", "1m30s": "90s", "1.5s": "1s"} {
		got := post(t, h, proPath, prompt("sim:rate_limit="+argument+"."))
		if retry := got.get(details + `RetryInfo").retryDelay`).Str; retry != delay {
			t.Errorf("%s: retryDelay %q", argument, retry)
		}
	}
}

// What was wrong with a request can be mended.
func TestUnknownFieldIsAboutTheField(t *testing.T) {
	h := provisioned(t)
	for config, complaint := range map[string]string{
		`"generationConfig":{"responseModalities":["IMAGE"]}`:   `Unknown name \"responseModalities\" at 'generation_config'`,
		`"generation_config":{"response_modalities":["IMAGE"]}`: `Unknown name \"response_modalities\" at 'generation_config'`,
		`"generationConfig":{"responseModalities":null}`:        `Unknown name \"responseModalities\" at 'generation_config'`,
		`"generationConfig":null`:                               "",
		`"generationConfig":{"temperature":1}`:                  "",
	} {
		got := post(t, h, flashPath, strings.TrimSuffix(prompt("sim:unknown_field"), "}")+","+config+"}")
		if complaint == "" {
			if got.status != 200 {
				t.Errorf("%s: %s", config, got.body)
			}
			continue
		}
		if got.status != 400 || !strings.Contains(got.body, complaint) || got.get(details+`BadRequest").fieldViolations.0.field`).Str != "generation_config" {
			t.Errorf("%s: %d %s", config, got.status, got.body)
		}
	}
}

func TestMissingSignatureIsAboutTheHistory(t *testing.T) {
	const image = "Image part is missing a thought_signature in content position 2, part position "
	const call = "Function call is missing a thought_signature in functionCall parts, content position 2, part position "
	h := provisioned(t)
	for model, complaint := range map[string]string{
		`{"text":"Here it is"}`:                                                                           image + "1.", // nothing to sign: as without history
		`{"text":"Here it is"},{"inlineData":{"data":"AAAA"}}`:                                            image + "2.",
		`{"inline_data":{"data":"AAAA"},"thought_signature":""}`:                                          image + "1.",
		`{"fileData":{"fileUri":"x"},"thoughtSignature":"c2ln"},{"functionCall":{"name":"f"}}`:            call + "2.",
		`{"inlineData":{"data":"AAAA"},"thoughtSignature":"c2ln"}`:                                        "",
		`{"text":"!"},{"inline_data":{},"thought_signature":"c2ln"}`:                                      "",
		`{"functionCall":{"name":"f"},"thoughtSignature":"skip_thought_signature_validator"},{"text":""}`: "",
	} {
		got := post(t, h, textPath, `{"contents":[
			{"role":"user","parts":[{"inlineData":{"data":"AAAA"}}]},
			{"role":"model","parts":[`+model+`]},
			{"role":"user","parts":[{"text":"sim:missing_signature"}]}]}`)
		if complaint == "" {
			if got.status != 200 || got.get(cand+"finishReason").Str != "STOP" {
				t.Errorf("%s: %d %s", model, got.status, got.body)
			}
			continue
		}
		if got.status != 400 || !strings.HasPrefix(got.get("error.message").Str, complaint) {
			t.Errorf("%s: %d %s", model, got.status, got.body)
		}
	}
}

func TestContinuationEnds(t *testing.T) {
	h := provisioned(t)
	first := post(t, h, textPath, prompt("sim:continuation"))
	token := first.get(cand + "continuationToken").Str
	got := post(t, h, textPath, strings.TrimSuffix(prompt("sim:continuation"), "}")+`,"continuationToken":"`+token+`"}`)
	if got.get(cand+"finishReason").Str != "STOP" {
		t.Errorf("got %s", got.body)
	}
}

func TestRefusalDependsOnTheModalities(t *testing.T) {
	h := provisioned(t)
	for model, reason := range map[string]string{
		"gemini-2.5-flash-image": "NO_IMAGE", "gemini-3.1-flash-image": "NO_IMAGE", "gemini-3-pro-image": "IMAGE_SAFETY",
	} {
		path := "/v1beta/models/" + model + ":generateContent"
		only := strings.TrimSuffix(prompt("sim:refusal"), "}") + `,"generationConfig":{"responseModalities":["IMAGE"]}}`
		if got := post(t, h, path, only).get(cand + "finishReason").Str; got != reason {
			t.Errorf("%s, [IMAGE]: %q", model, got)
		}
		if got := post(t, h, path, prompt("sim:refusal")); got.get(cand+"finishReason").Str != "STOP" || describe(got.get(cand+"content.parts")) != "text" {
			t.Errorf("%s: %s", model, got.body)
		}
	}
}

func TestTwice503CountsPerPromptAndKey(t *testing.T) {
	h := provisioned(t)
	ask := func(text, key string) int {
		r := httptest.NewRequest("POST", textPath, strings.NewReader(prompt(text)))
		r.Header.Set("X-Goog-Api-Key", key)
		return serve(t, h, r).status
	}
	var got []int
	for range 3 {
		got = append(got, ask("sim:twice_503", "a"), ask("sim:twice_503", "b"), ask("other sim:twice_503", "a"))
	}
	got = append(got, ask("sim:twice_503", "a")) // and from the start again
	if want := []int{503, 503, 503, 503, 503, 503, 200, 200, 200, 503}; !reflect.DeepEqual(got, want) {
		t.Errorf("expected %v, got %v", want, got)
	}
}

func TestSignatures(t *testing.T) {
	h := provisioned(t)
	parts := post(t, h, proPath, prompt("a cat")).get(cand + "content.parts")
	for _, part := range parts.Array() {
		if n := len(part.Get("thoughtSignature").Str); n < 1_100_000 || n > 1_200_000 {
			t.Errorf("a signature of %d bytes", n)
		}
	}
	if signed := post(t, h, flashPath, prompt("a cat")).get(cand + "content.parts.#.thoughtSignature"); signed.Raw != "[]" {
		t.Error("2.5 models sign nothing")
	}
	// thought comes after the data: a reader cannot know early.
	draft := post(t, h, proPath, prompt("sim:draft_then_no_image")).get(cand + "content.parts.0").Raw
	if strings.Index(draft, `"thought"`) < strings.Index(draft, `"data"`) {
		t.Error("thought before the data")
	}
}

func TestHangEndsWithTheClient(t *testing.T) {
	s := server(t, provisioned(t))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := request(ctx, s, textPath, "sim:hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	// server.Close waits for the handler: the test ends only if it did.
}

func TestCutBeforeSendsNothing(t *testing.T) {
	s := server(t, provisioned(t))
	if res, err := request(t.Context(), s, textPath, "sim:cut_before"); err == nil {
		res.Body.Close()
		t.Errorf("got status %d", res.StatusCode)
	}
}

func TestCutStopsHalfWay(t *testing.T) {
	h := provisioned(t)
	s := server(t, h)
	for _, path := range []string{
		flashPath,
		textPath,
		"/v1beta/models/gemini-2.5-flash-image:streamGenerateContent?alt=sse",
		"/v1beta/models/gemini-2.5-flash:streamGenerateContent",
	} {
		whole := len(post(t, h, path, prompt("not:cut")).body) // a prompt as long, uncut
		res, err := request(t.Context(), s, path, "sim:cut")
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: status %d, %v", path, res.StatusCode, err)
		}
		// Two pictures differ by a few kilobytes, and gzip takes the last bytes.
		if share := float64(len(got)) / float64(whole); share < 0.45 || share > 0.55 {
			t.Errorf("%s: %d of %d bytes", path, len(got), whole)
		}
	}
}

func TestTrickleIsTheSameAnswer(t *testing.T) {
	s := server(t, provisioned(t))
	res, err := request(t.Context(), s, textPath, "sim:trickle=1ms")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || gjson.GetBytes(body, cand+"finishReason").Str != "STOP" {
		t.Errorf("%v: %s", err, body)
	}
}

// request posts a prompt over a real connection.
func request(ctx context.Context, s *httptest.Server, path, text string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", s.URL+path, strings.NewReader(prompt(text)))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Goog-Api-Key", "any")
	return s.Client().Do(r)
}
