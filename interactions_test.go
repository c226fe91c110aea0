// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
)

// The shapes of wire §9, in the order in which members have been recorded.
const (
	actTexts   = `{"id":"v1_a","status":"completed","steps":[{"type":"thought","signature":"QUJD"},{"content":[{"text":"I can't draw that.","type":"text"}],"type":"model_output"}],"object":"interaction","model":"m"}`
	actImages  = `{"id":"v1_a","status":"completed","steps":[{"type":"model_output","content":[{"type":"text","text":"Here"},{"type":"image","mime_type":"image/png","data":"AAAA"},{"mime_type":"image/png","uri":"https://x/y","type":"image"}]}],"object":"interaction"}`
	actCreated = `{"interaction":{"id":"v1_a","status":"in_progress","object":"interaction","model":"m"},"event_type":"interaction.created"}`
	actStatus  = `{"interaction_id":"v1_a","status":"in_progress","event_type":"interaction.status_update"}`
	actThinks  = `{"index":0,"step":{"type":"thought"},"event_type":"step.start"}`
	actThought = `{"index":0,"delta":{"content":{"type":"image","mime_type":"image/png","data":"AAAA"},"type":"thought_summary"},"event_type":"step.delta"}`
	actSigned  = `{"index":0,"delta":{"signature":"QUJD","type":"thought_signature"},"event_type":"step.delta"}`
	actStarts  = `{"index":1,"step":{"type":"model_output"},"event_type":"step.start"}`
	actSays    = `{"index":1,"delta":{"text":"I can't draw that.","type":"text"},"event_type":"step.delta"}`
	actDraws   = `{"index":1,"delta":{"mime_type":"image/jpeg","data":"AAAA","type":"image"},"event_type":"step.delta"}`
	actStops   = `{"index":1,"event_type":"step.stop"}`
	actDone    = `{"interaction":{"id":"v1_a","status":"completed","usage":{"total_tokens":9,"total_input_tokens":2,"total_output_tokens":7},"object":"interaction","model":"m"},"event_type":"interaction.completed"}`
)

func actEnding(status string) string {
	return strings.Replace(actTexts, "completed", status, 1)
}

func actFailing(code string) string {
	return `{"event_type":"error","error":{"code":"` + code + `","message":"Try later."}}`
}

func TestInteractions(t *testing.T) {
	stream := func(more ...string) string {
		return events(append([]string{actCreated, actStatus, actThinks}, more...)...)
	}
	for _, c := range []struct {
		name   string
		form   streamForm
		expect expectation
		body   string
		class  class
		reason string
		images int // delivered
	}{
		{"images", formUnary, imagesAlone, actImages, classOK, "", 2},
		{"drafts asked for", formUnary, withDrafts, actImages, classOK, "", 2},
		{"a thought is no image", formUnary, imagesAlone, `{"status":"completed","steps":[{"type":"thought","summary":[{"type":"image","data":"AAAA"}]}]}`, classBlocked, "NO_IMAGE", 0},
		{"neither is speech", formUnary, imagesAlone, `{"status":"completed","steps":[{"type":"model_output","content":[{"type":"audio","data":"AA"},{"mime_type":"video/mp4","uri":"x"}]}]}`, classBlocked, "NO_IMAGE", 0},
		{"the older form", formUnary, imagesAlone, `{"id":"v1_a","status":"completed","outputs":[{"signature":"QQ","type":"thought"},{"mime_type":"image/jpeg","data":"AAAA","type":"image"}],"role":"model"}`, classOK, "", 1},
		{"words", formUnary, imagesAlone, actTexts, classBlocked, "NO_IMAGE", 0},
		{"words where they will do", formUnary, imageCall, actTexts, classOK, "", 0},
		{"words of a text model", formUnary, textCall, actTexts, classOK, "", 0},
		{"incomplete", formUnary, imagesAlone, actEnding("incomplete"), classOK, "", 0},
		{"budget", formUnary, imagesAlone, actEnding("budget_exceeded"), classOK, "", 0},
		{"cancelled", formUnary, imagesAlone, actEnding("cancelled"), classOK, "", 0},
		{"to be continued", formUnary, imagesAlone, actEnding("requires_continuation"), classOK, "", 0},
		{"in the background", formUnary, imagesAlone, `{"id":"v1_a","status":"in_progress","object":"interaction"}`, classOK, "", 0},
		{"a new status", formUnary, imagesAlone, actEnding("dreaming"), classOK, "", 0},
		{"a tool call", formUnary, imagesAlone, actEnding("requires_action"), classOK, "", 0},
		{"a tool call that is completed", formUnary, imagesAlone, `{"status":"completed","steps":[{"type":"function_call","id":"a","name":"f","arguments":{"steps":[{"content":[{"data":"A"}]}]}}]}`, classOK, "", 0},
		{"failed", formUnary, imagesAlone, actEnding("failed"), classTransient, reasonInteractionFailed, 0},
		{"failed for a reason", formUnary, imagesAlone, `{"errors":[{"code":"api_error"},{"code":"safety","message":"no"},{"code":"api_error"}],"status":"failed"}`, classBlocked, "SAFETY", 0},
		{"errors of what has not failed", formUnary, textCall, `{"errors":[{"code":"api_error","message":"a tool"}],"status":"completed","steps":[]}`, classOK, "", 0},
		{"no answer", formUnary, textCall, `{}`, classTransient, reasonEmpty, 0},

		{"images, streamed", formEvents, imagesAlone, stream(actSigned, actStarts, actDraws, actDraws, actStops, actDone), classOK, "", 2},
		{"draft in a thought", formEvents, imagesAlone, stream(actThought, actStarts, actSays, actDone), classBlocked, "NO_IMAGE", 0},
		{"content with the start", formEvents, imagesAlone, stream(`{"index":1,"step":{"type":"model_output","content":[{"type":"image","data":"AAAA"}]},"event_type":"step.start"}`, actDone), classOK, "", 1},
		{"words, streamed", formEvents, imagesAlone, stream(actStarts, actSays, actStops, actDone), classBlocked, "NO_IMAGE", 0},
		{"words where they will do, streamed", formEvents, imageCall, stream(actStarts, actSays, actStops, actDone), classOK, "", 0},
		{"words of a text model, streamed", formEvents, textCall, stream(actStarts, actSays, actDone), classOK, "", 0},
		{"a tool call, streamed", formEvents, imagesAlone, stream(`{"index":1,"step":{"id":"a","type":"function_call","name":"f","arguments":{}},"event_type":"step.start"}`, strings.Replace(actDone, "completed", "requires_action", 1)), classOK, "", 0},
		{"a block", formEvents, imagesAlone, stream(actFailing("image_safety")), classBlocked, "IMAGE_SAFETY", 0},
		{"a hard block", formEvents, textCall, stream(actFailing("prohibited_content")), classForbidden, "PROHIBITED_CONTENT", 0},
		{"a block behind a status", formEvents, textCall, stream(strings.Replace(actStatus, "in_progress", "failed", 1), actFailing("safety")), classBlocked, "SAFETY", 0},
		{"a limit", formEvents, textCall, stream(actFailing("rate_limit_exceeded")), classLimited, "RATE_LIMIT_EXCEEDED", 0},
		{"an overload", formEvents, textCall, stream(actFailing("service_unavailable")), classTransient, "SERVICE_UNAVAILABLE", 0},
		{"a new error", formEvents, textCall, stream(actFailing("dreaming")), classClient, "DREAMING", 0},
		{"failed for a reason, streamed", formEvents, textCall, stream(`{"interaction":{"errors":[{"code":"safety"}],"status":"failed"},"event_type":"interaction.completed"}`), classBlocked, "SAFETY", 0},
		{"failed, streamed", formEvents, textCall, stream(strings.Replace(actDone, `"completed"`, `"failed"`, 1)), classTransient, reasonInteractionFailed, 0},
		{"broken off", formEvents, imagesAlone, stream(actStarts) + `data: {"index":1,`, classTransient, reasonUnavailable, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			variants(t, c.body, func(name string, source io.Reader) {
				p := play(source, c.form, c.expect, noLimit)
				if v := p.verdict; v.class != c.class || v.reason != c.reason {
					t.Fatalf("%s: %+v, want %v %s", name, v, c.class, c.reason)
				}
				if c.class != classOK {
					return
				}
				if got := p.body(t); got != c.body || p.scan.delivered() != c.images || len(p.late) > 0 {
					t.Fatalf("%s: %d images, late %v, delivered %q", name, p.scan.delivered(), p.late, got)
				}
			})
		})
	}
}

// A body that ends too early is a broken one or, once an image has begun, on its
// way; it is never taken for a refusal. Where it is cut in two makes no difference.
func TestEveryCutOfAnInteraction(t *testing.T) {
	for name, c := range map[string]struct {
		form   streamForm
		body   string
		expect expectation
	}{
		"image":           {formUnary, string(fixture(t, "interactions_ok_image.json")), imagesAlone},
		"text":            {formUnary, string(fixture(t, "interactions_ok_text.json")), textCall},
		"refusal":         {formUnary, string(fixture(t, "interactions_refusal_text.json")), imagesAlone},
		"stream":          {formEvents, string(fixture(t, "interactions_stream_text.sse")), imagesAlone},
		"streamed image":  {formEvents, events(actCreated, actStarts, actSays, actDraws, actStops, actDone), imagesAlone},
		"streamed error":  {formEvents, events(actCreated, actFailing("recitation")), imagesAlone},
		"several of each": {formUnary, actImages, withDrafts},
	} {
		t.Run(name, func(t *testing.T) {
			want := play(strings.NewReader(c.body), c.form, c.expect, noLimit).verdict
			for cut := range len(c.body) {
				whole := play(&pieces{body: c.body, size: max(cut, 1)}, c.form, c.expect, noLimit)
				if whole.verdict != want {
					t.Fatalf("in pieces of %d: %+v, want %+v", cut, whole.verdict, want)
				}
				p := play(strings.NewReader(c.body[:cut]), c.form, c.expect, noLimit)
				v := p.verdict
				isBroken := v.class == classTransient && (v.reason == reasonUnavailable || v.reason == reasonEmpty)
				isDone := c.form == formUnary && json.Valid([]byte(c.body[:cut]))
				if c.form == formEvents { // what ends between events has ended
					isDone = v == want || v == verdict{}
				}
				if !isBroken && !isDone && !p.scan.imageBegun {
					t.Fatalf("cut at %d: %+v behind %q", cut, v, c.body[max(0, cut-80):cut])
				}
			}
		})
	}
}

// A conversation that goes on names what came before.
func TestAnswersOfInteractionsAreTies(t *testing.T) {
	for _, c := range []struct {
		form streamForm
		body string
		want []string
	}{
		{formUnary, actTexts, []string{"signature:QUJD", "interaction:v1_a"}},
		{formEvents, events(actCreated, actStatus, actSigned, actSays, actDone), []string{"interaction:v1_a", "signature:QUJD"}},
		{formEvents, events(strings.Replace(actCreated, "v1_a", "", 1), strings.Replace(actDone, "v1_a", "", 1)), nil}, // not stored
		{formUnary, `{"id":"chatcmpl-1","choices":[]}`, nil},
		{formUnary, `{"status":"completed","id":"` + strings.Repeat("v", 9*maxWord) + `"}`, []string{"interaction:" + strings.Repeat("v", maxWord)}},
	} {
		if got := factsOf(t, c.form, c.body).ties; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%.100s: %q, want %q", c.body, got, c.want)
		}
	}
}

// What a refusal says is repeated, what the model thought is not.
func TestWordsOfInteractions(t *testing.T) {
	for _, c := range []struct {
		form streamForm
		body string
	}{
		{formUnary, actTexts},
		{formEvents, events(actCreated, actThinks, `{"delta":{"content":{"type":"text","text":"Hm."},"type":"thought_summary"}}`, actStarts, actSays[:strings.Index(actSays, "draw")]+`","type":"text"}}`, `{"delta":{"type":"text","text":"draw that."}}`, actDone)},
	} {
		p := play(strings.NewReader(c.body), c.form, imagesAlone, noLimit)
		if p.verdict.text != "I can't draw that." {
			t.Errorf("%s: %q", c.body, p.verdict.text)
		}
	}
}

// A block that comes behind content is accounted, though Google has told of it.
func TestLateErrorOfAnInteraction(t *testing.T) {
	body := events(actCreated, actStarts, actDraws, actFailing("image_prohibited_content"))
	p := play(strings.NewReader(body), formEvents, imagesAlone, noLimit)
	if got := p.body(t); !strings.HasPrefix(got, body) || p.verdict.class != classOK {
		t.Errorf("%+v, delivered %q", p.verdict, got)
	}
	if len(p.late) != 1 || p.late[0].class != classForbidden || p.late[0].reason != "IMAGE_PROHIBITED_CONTENT" {
		t.Errorf("accounted %+v", p.late)
	}
}

func TestInteractionError(t *testing.T) {
	for _, c := range []struct {
		verdict verdict
		status  int
		code    string
	}{
		{imageSafety, 400, "image_safety"},
		{verdict{class: classBlocked, reason: reasonRepeated, blocked: "SAFETY", stage: stagePrompt}, 400, "repeated_block"},
		{verdict{class: classLimited, reason: reasonRateLimited}, 429, "rate_limit_exceeded"},
		{verdict{class: classTransient, reason: reasonUnavailable}, 503, "upstream_unavailable"},
	} {
		e := errorFor(c.verdict, c.status)
		var got struct {
			Event string `json:"event_type"`
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(e.interaction(), &got); err != nil || got.Event != "error" || got.Error.Code != c.code || got.Error.Message != e.message() {
			t.Errorf("%s: %s", c.verdict.reason, e.interaction())
		}
	}
}
