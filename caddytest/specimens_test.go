// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// specimen is an answer, to a unary call and to one for events, and what the
// client gets when nothing is left.
type specimen struct {
	name          string
	fixture       func(t *testing.T, s *specimen) // loads a recording, if it is one
	unary, events http.HandlerFunc
	request       string // promptJSON, if it is empty
	status        int
	body          string // the upstream's own error, or
	reason        string // that of an explicit one
	retryAfter    string
	repaired      string // what the upstream receives the second time
}

// specimens are answers by their verdicts. Those with the names of files are
// recordings.
var specimens = map[string][]specimen{
	"transient": {
		recorded("error_500_internal.json"),
		refusal("500", 500, googleError("INTERNAL", "An internal error has occurred.")),
		refusal("503", 503, googleErrorJSON),
		refusal("504", 504, googleError("DEADLINE_EXCEEDED", "Deadline expired.")),
		refusal("502 of a proxy", 502, "<html>Bad Gateway</html>"),
		recorded("error_503_overloaded.json"),
		recorded("error_503_service_unavailable.json"),
		recorded("error_504_deadline.json"),
		fails("an error in a 200", answers(200, jsonType, googleErrorJSON), events(textChunk, googleErrorJSON)),
		silence("reset before headers", "UPSTREAM_UNAVAILABLE", resets(), resets()),
		silence("cut", "UPSTREAM_UNAVAILABLE", breaksOff(jsonType, textJSON[:60]), breaksOff(eventType, event(textChunk))),
		silence("half an object", "UPSTREAM_UNAVAILABLE", answers(200, jsonType, textJSON[:60]), answers(200, eventType, event(textChunk[:60]))),
		silence("zero bytes", "EMPTY_RESPONSE", answers(200, jsonType, ""), answers(200, eventType, "")),
		silence("null", "EMPTY_RESPONSE", answers(200, jsonType, "null"), answers(200, jsonType, "null")),
		silence("a page", "EMPTY_RESPONSE", answers(200, "text/html", "<html></html>"), answers(200, "text/html", "<html></html>")),
	},
	"transient, then blocked": {
		endedBy("IMAGE_OTHER"), endedBy("IMAGE_RECITATION"),
		recordedBlock("blocked_image_other_gemini31_flash.json"),
		recordedBlock("blocked_image_recitation_gemini31_flash.json"),
	},
	"limited": {
		after("1", refusal("RetryInfo", 429, limitedJSON("0.02s"))),
		recorded("error_429_generic.json"),
		recorded("error_429_vertex_shared_quota_array.json"),
	},
	"limited, beyond the deadline": {
		after("3600", refusal("RetryInfo", 429, limitedJSON("3600s"))),
		after("34", recorded("error_429_image_model_rpm.json")),
		after("35", recorded("error_429_fractional_delay.json")),
		after("56", recorded("error_429_free_tier_rpm.json")),
		after("48", recorded("error_429_paid_input_tokens_per_minute.json")),
	},
	"exhausted": {
		after("midnight", refusal("PerDay", 429, exhaustedJSON)),
		after("midnight", recorded("error_429_free_tier_minute_and_day.json")),
		after("midnight", recorded("error_429_free_tier_per_day_short_delay.json")),
	},
	"account": {
		refusal("API_KEY_INVALID", 400, invalidKeyJSON),
		refusal("limit: 0", 429, googleError("RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0, model: x", retryInfo("0.02s"))),
		refusal("no credits", 429, googleError("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")),
		recorded("error_400_api_key_invalid.json"),
		recorded("error_400_api_key_expired.json"),
		refusal("401", 401, googleError("UNAUTHENTICATED", "Request had invalid authentication credentials.")),
		refusal("402", 402, googleError("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")),
		refusal("403", 403, googleError("PERMISSION_DENIED", "Your API key was reported as leaked.")),
		recorded("error_403_key_leaked.json"),
		recorded("error_403_service_disabled.json"),
		recorded("error_403_unregistered_caller.json"),
		recorded("error_429_image_limit_zero.json"),
		recorded("error_429_prepay_depleted.json"),
		recorded("error_429_spend_cap.json"),
	},
	"region": {
		refusal("location", 400, noRegionJSON),
		recorded("error_400_user_location.json"),
	},
	"repairable": {
		mended(refusal("a field of ours", 400, unknownField), promptJSON, withoutModalities),
		mended(recorded("error_400_invalid_modality_value.json"), promptJSON, withoutModalities),
		mended(refusal("no signature", 400, noSignatureJSON), unsignedJSON, signedJSON),
		mended(recorded("error_400_thought_signature_image_part.json"), unsignedJSON, signedJSON),
		mended(recorded("error_400_thought_signature_short.json"), unsignedJSON, signedJSON),
	},
	"client": {
		recorded("error_400_aspect_ratio.json"),
		asking(imagesAlone, recorded("error_400_invalid_modality_value.json")), // the client's own
		asking(completedJSON, refusal("a field of the client's", 400, unknownField)),
		asking(signedJSON, refusal("a signature of the client's", 400, noSignatureJSON)),
		refusal("400", 400, badRequestJSON),
		refusal("404", 404, googleError("NOT_FOUND", "This model is no longer available.")),
		recorded("error_400_imagen_prompt_blocked.json"),
		recorded("error_400_openai_compat_array.json"),
		recorded("error_404_retired_model.json"),
		recorded("error_404_stream_request.json"),
		refusal("413", 413, googleError("INVALID_ARGUMENT", "Request payload size exceeds the limit.")),
	},
	"blocked": {
		endedBy("SAFETY"), endedBy("IMAGE_SAFETY"), endedBy("OTHER"), endedBy("NO_IMAGE"), endedBy("RECITATION"), endedBy("LANGUAGE"),
		promptEndedBy("SAFETY"), promptEndedBy("OTHER"), promptEndedBy("IMAGE_SAFETY"), promptEndedBy("A_NEW_WORD"),
		asking(imagesAlone, explicit("no image where one was due", "NO_IMAGE", answers(200, jsonType, textJSON), events(textChunk, lastChunk))),
		recordedBlock("blocked_image_safety_gemini3_pro.json"),
		recordedBlock("blocked_no_image_no_content.json"),
		recordedBlock("prompt_blocked_safety_with_message.json"),
	},
	"forbidden": {
		endedBy("PROHIBITED_CONTENT"), endedBy("IMAGE_PROHIBITED_CONTENT"), endedBy("BLOCKLIST"), endedBy("SPII"), endedBy("MODEL_ARMOR"), endedBy("JAILBREAK"),
		promptEndedBy("PROHIBITED_CONTENT"), promptEndedBy("BLOCKLIST"), promptEndedBy("MODEL_ARMOR"), promptEndedBy("JAILBREAK"),
		childSafety("58061214"), childSafety("17301594"),
		recordedBlock("blocked_image_prohibited_content_gemini31_flash.json"),
		recordedBlock("prompt_blocked_prohibited_content.json"),
	},
}

// refusal is an error of the upstream's own. On a call for events it has the type
// of events, and is one plain object all the same (wire §7).
func refusal(name string, status int, body string) specimen {
	return specimen{name: name, unary: answers(status, jsonType, body), events: answers(status, eventType, body), status: status, body: body}
}

// recorded is a refusal in Google's words; its file is named by its status.
func recorded(fixture string) specimen {
	return specimen{name: fixture, fixture: func(t *testing.T, s *specimen) {
		t.Helper()
		status, err := strconv.Atoi(fixture[len("error_") : len("error_")+3])
		if err != nil {
			t.Fatal(err)
		}
		r := refusal(fixture, status, readFile(t, filepath.Join(fixtures(t), fixture)))
		s.unary, s.events, s.status, s.body = r.unary, r.events, r.status, r.body
	}}
}

// fails is Google's own 503 in the clothes of a 200.
func fails(name string, unary, events http.HandlerFunc) specimen {
	return specimen{name: name, unary: unary, events: events, status: 503, body: googleErrorJSON}
}

func silence(name, reason string, unary, events http.HandlerFunc) specimen {
	return specimen{name: name, unary: unary, events: events, status: 503, reason: reason}
}

// explicit is a block that becomes an error.
func explicit(name, reason string, unary, events http.HandlerFunc) specimen {
	return specimen{name: name, unary: unary, events: events, status: 400, reason: reason}
}

func blockOf(name, reason, body string) specimen {
	return explicit(name, reason, answers(200, jsonType, body), events(textChunk, body))
}

func endedBy(reason string) specimen {
	return blockOf(reason, reason, `{"candidates":[{"content":{},"finishReason":"`+reason+`","index":0}]}`)
}

func promptEndedBy(reason string) specimen {
	body := `{"promptFeedback":{"blockReason":"` + reason + `"}}`
	return explicit(reason+" of the prompt", reason, answers(200, jsonType, body), events(body))
}

func childSafety(code string) specimen {
	const body = `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY","finishMessage":"Filtered. Support code: %s","index":0}]}`
	return blockOf("support code "+code, "IMAGE_SAFETY", fmt.Sprintf(body, code))
}

func recordedBlock(fixture string) specimen {
	return specimen{name: fixture, fixture: func(t *testing.T, s *specimen) {
		t.Helper()
		body := strings.Fields(readFile(t, filepath.Join(fixtures(t), fixture)))
		*s = blockOf(fixture, blockedFixtures[fixture].reason, strings.Join(body, " "))
	}}
}

func after(seconds string, s specimen) specimen {
	s.retryAfter = seconds
	return s
}

func asking(request string, s specimen) specimen {
	s.request = request
	return s
}

func mended(s specimen, request, repaired string) specimen {
	s.request, s.repaired = request, repaired
	return s
}

var (
	unknownField = googleError("INVALID_ARGUMENT", `Invalid JSON payload received. Unknown name \"responseModalities\" at 'generation_config': Cannot find field.`)

	noSignatureJSON = googleError("INVALID_ARGUMENT", "Image part is missing a thought_signature in content position 1, part position 1.")
	noRegionJSON    = googleError("FAILED_PRECONDITION", "User location is not supported for the API use.")
	exhaustedJSON   = googleError("RESOURCE_EXHAUSTED", "Quota exceeded", quotaFailure("GenerateRequestsPerDayPerProjectPerModel"), retryInfo("0.02s"))

	withoutModalities = strings.Replace(completedJSON, `,"generationConfig":{"responseModalities":["TEXT","IMAGE"]}`, "", 1)

	// unsignedJSON is complete but for the signature of the model's image.
	unsignedJSON = strings.Replace(completedJSON, `"contents": [ `, `"contents": [ `+modelTurn(""), 1)
	signedJSON   = strings.Replace(completedJSON, `"contents": [ `, `"contents": [ `+modelTurn(`,"thoughtSignature":"skip_thought_signature_validator"`), 1)
)

// modelTurn is what a client sends back of an earlier answer.
func modelTurn(signature string) string {
	return `{"role":"model","parts":[{"inlineData":{"mimeType":"image/png","data":"AAAA"}` + signature + `}]},`
}

// load reads a recording.
func (s *specimen) load(t *testing.T) {
	t.Helper()
	if s.fixture != nil {
		s.fixture(t, s)
	}
	if s.request == "" {
		s.request = promptJSON
	}
}
