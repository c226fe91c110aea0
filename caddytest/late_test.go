// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// checkLateError checks what stands behind the events of a stream: the error
// twice, because some clients only see the event and some only the bare object.
func checkLateError(t *testing.T, behind, reason string) {
	t.Helper()
	inEvent, bare, ok := strings.Cut(strings.TrimPrefix(behind, "data: "), "\r\n\r\n")
	if !ok || !strings.HasPrefix(behind, "data: {") {
		t.Fatalf("behind the last event stands %q", behind)
	}
	if strings.TrimSpace(bare) != inEvent {
		t.Errorf("event %s\nbare  %s", inEvent, bare)
	}
	e := parseError(t, []byte(inEvent))
	if e.Code != 400 || e.Status != "INVALID_ARGUMENT" {
		t.Errorf("error %+v", e)
	}
	checkReason(t, e, reason)
}

func TestLateBlock(t *testing.T) {
	recitation := strings.Replace(blockedJSON, "IMAGE_SAFETY", "RECITATION", 1)
	secondBlocked := strings.Replace(blockedJSON, `"index":0`, `"index":1`, 1)
	crlf := "\r\n\r\n"
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		options    []string
		passes     string // before the error
		reason     string
	}{
		{"text model", textPath, events(textChunk, textChunk, recitation), nil, event(textChunk) + event(textChunk) + event(recitation), "RECITATION"},
		{"LF framing", textPath, answers(200, eventType, "data: "+textChunk+"\n\ndata: "+recitation+"\n\n"), nil, "data: " + textChunk + "\n\ndata: " + recitation, "RECITATION"},
		{"second candidate", streamPath, events(imageChunk, secondBlocked), nil, event(imageChunk) + event(secondBlocked), "IMAGE_SAFETY"},
		{"text may go", streamPath, events(textChunk, blockedJSON), []string{"stream_commit text"}, event(textChunk) + event(blockedJSON), "IMAGE_SAFETY"},
		{"with a length", textPath, func(w http.ResponseWriter, r *http.Request) {
			answers(200, eventType, event(textChunk)+event(recitation))(w, r)
		}, nil, event(textChunk) + event(recitation), "RECITATION"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, c.plays)
			s := inFront(t, u, c.options...).post(t, c.path, promptJSON)
			if s.StatusCode != 200 || s.err != nil {
				t.Fatalf("status %d, %v", s.StatusCode, s.err)
			}
			// The block's own event may lose its end to the error's framing.
			behind, ok := strings.CutPrefix(string(s.body), strings.TrimSuffix(c.passes, crlf))
			if !ok {
				t.Fatalf("the client saw %q\nwant %q", shortened(string(s.body)), shortened(c.passes))
			}
			checkLateError(t, strings.TrimLeft(behind, "\r\n"), c.reason)
			u.only(t)
		})
	}
}

// The stream without alt=sse is an array, and stays one.
func TestLateBlockInArray(t *testing.T) {
	recitation := strings.Replace(blockedJSON, "IMAGE_SAFETY", "RECITATION", 1)
	u := scripted(t, answers(200, jsonType, "["+textChunk+"\n,\r\n"+recitation+"\n]\n"))
	s := inFront(t, u).post(t, strings.TrimSuffix(textPath, "?alt=sse"), promptJSON)
	var elements []json.RawMessage
	if err := json.Unmarshal(s.body, &elements); err != nil || len(elements) != 3 {
		t.Fatalf("no array of three (%v): %s", err, s.body)
	}
	if string(elements[0]) != textChunk || string(elements[1]) != recitation {
		t.Errorf("the client saw %s", s.body)
	}
	checkReason(t, parseError(t, elements[2]), "RECITATION")
	u.only(t)
}

// An OpenAI stream gets OpenAI's form of the error, and no [DONE].
func TestLateBlockInOpenAIStream(t *testing.T) {
	const (
		path  = "/v1beta/openai/chat/completions"
		chunk = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Here is"}}]}`
		stop  = `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`
	)
	u := scripted(t, answers(200, eventType, event(chunk)+event(stop)+event("[DONE]")))
	s := inFront(t, u).post(t, path, `{"model":"`+textModel+`","stream":true,"messages":[]}`)
	behind, ok := strings.CutPrefix(string(s.body), event(chunk)+"data: "+stop)
	if s.StatusCode != 200 || !ok {
		t.Fatalf("the client saw %d %q", s.StatusCode, s.body)
	}
	if strings.Contains(behind, "[DONE]") {
		t.Errorf("the stream seems to have ended well: %q", behind)
	}
	var parsed struct {
		Error struct{ Type, Code, Message string }
	}
	last := strings.TrimSpace(behind)
	if err := json.Unmarshal([]byte(strings.TrimPrefix(last, "data: ")), &parsed); err != nil {
		t.Fatalf("%v: %q", err, last)
	}
	if e := parsed.Error; e.Type != "invalid_request_error" || e.Code != "content_policy_violation" || !strings.HasPrefix(e.Message, "CONTENT_FILTER: ") {
		t.Errorf("error %+v", e)
	}
}

// Errors on OpenAI-compatible paths have OpenAI's form.
func TestOpenAIErrors(t *testing.T) {
	const chat, images = "/v1beta/openai/chat/completions", "/v1beta/openai/images/generations"
	for _, c := range []struct {
		name, path, answer string
		option             string
		status             int
		kind, code         string
		format             string // of the upstream
	}{
		{"content filter", chat, `{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"content_filter"}]}`, "", 400, "invalid_request_error", "content_policy_violation", ""},
		{"no image", images, `{"created":1,"data":[]}`, "", 400, "invalid_request_error", "content_policy_violation", "format openai"},
		{"no image of Gemini's", images, textJSON, "", 400, "invalid_request_error", "content_policy_violation", ""},
		{"too large", chat, "", "max_body 10B", 413, "invalid_request_error", "request_too_large", ""},
		{"empty", chat, "", "", 503, "server_error", "empty_response", ""},
		{"Vertex", "/v1/projects/p/locations/us/endpoints/openapi/chat/completions", `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`, "", 400, "invalid_request_error", "content_policy_violation", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(200, jsonType, c.answer))
			body := chatJSON(textModel)
			if c.path == images {
				body = drawJSON()
			}
			s := run(t, gemini(place("scripted", u, c.format), c.option)).post(t, c.path, body)
			var parsed struct {
				Error map[string]any `json:"error"`
			}
			if err := json.Unmarshal(s.body, &parsed); err != nil || s.StatusCode != c.status {
				t.Fatalf("status %d (%v): %s", s.StatusCode, err, s.body)
			}
			if parsed.Error["type"] != c.kind || parsed.Error["code"] != c.code || parsed.Error["message"] == "" {
				t.Errorf("error %v", parsed.Error)
			}
			if param, ok := parsed.Error["param"]; !ok || param != nil {
				t.Errorf("param %v", param)
			}
		})
	}
}
