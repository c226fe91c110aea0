// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"regexp"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

const streamOf = "/v1beta/models/"

// masked replaces what differs from call to call.
func masked(body string) string {
	return regexp.MustCompile(`"responseId": "[^"]{22}"`).ReplaceAllString(body, `"responseId": "ID"`)
}

func TestUnaryLayout(t *testing.T) {
	got := post(t, provisioned(t), "/v1beta/models/gemini-2.5-flash-image:generateContent", prompt("sim:no_image"))
	const exact = `{
  "candidates": [
    {
      "content": {},
      "finishReason": "NO_IMAGE",
      "index": 0
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 3,
    "totalTokenCount": 3,
    "promptTokensDetails": [
      {
        "modality": "TEXT",
        "tokenCount": 3
      }
    ],
    "serviceTier": "standard"
  },
  "modelVersion": "gemini-2.5-flash-image",
  "responseId": "ID"
}
`
	if masked(got.body) != exact {
		t.Errorf("got %s", got.body)
	}
	if got.header.Get("Content-Type") != "application/json; charset=UTF-8" {
		t.Errorf("Content-Type %q", got.header.Get("Content-Type"))
	}
}

func TestSSELayout(t *testing.T) {
	got := post(t, provisioned(t), streamOf+"gemini-2.5-flash-image:streamGenerateContent?alt=sse", prompt("sim:late_block"))
	const usage = `"usageMetadata": {"promptTokenCount": 4,"candidatesTokenCount": `
	const tail = `,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 4}],"serviceTier": "standard"},"modelVersion": "gemini-2.5-flash-image","responseId": "ID"}` + "\r\n\r\n"
	exact := `data: {"candidates": [{"content": {"parts": [{"text": "Of course! Here "}],"role": "model"},"index": 0}],` + usage + `4,"totalTokenCount": 8` + tail +
		`data: {"candidates": [{"content": {"parts": [{"text": "is the picture that "}],"role": "model"},"index": 0}],` + usage + `9,"totalTokenCount": 13` + tail +
		`data: {"candidates": [{"content": {"parts": [{"text": "you asked for: "}],"role": "model"},"index": 0}],` + usage + `13,"totalTokenCount": 17` + tail +
		`data: {"candidates": [{"content": {},"finishReason": "IMAGE_SAFETY","finishMessage": "` + msgUsePolicy + `","index": 0}],` + usage + `13,"totalTokenCount": 17` + tail
	if masked(got.body) != exact {
		t.Errorf("got\n%s\nexpected\n%s", masked(got.body), exact)
	}
	if got.header.Get("Content-Type") != "text/event-stream" || got.header.Get("Content-Disposition") != "attachment" {
		t.Errorf("header %v", got.header)
	}
}

func TestArrayLayout(t *testing.T) {
	got := post(t, provisioned(t), streamOf+"gemini-2.5-flash-image:streamGenerateContent", prompt("sim:mid_stream_error"))
	const exact = `[{
  "candidates": [
    {
      "content": {
        "parts": [
          {
            "text": "First "
          }
        ],
        "role": "model"
      },
      "index": 0
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 5,
    "candidatesTokenCount": 2,
    "totalTokenCount": 7,
    "promptTokensDetails": [
      {
        "modality": "TEXT",
        "tokenCount": 5
      }
    ],
    "serviceTier": "standard"
  },
  "modelVersion": "gemini-2.5-flash-image",
  "responseId": "ID"
}
,` + "\r" + `
{`
	if !strings.HasPrefix(masked(got.body), exact) {
		t.Errorf("got %s", masked(got.body))
	}
	list := gjson.Parse(got.body).Array()
	if !gjson.Valid(got.body) || !strings.HasSuffix(got.body, "}]") || len(list) != 3 || list[2].Get("error.code").Int() != 499 {
		t.Errorf("not two responses and an error: %s", got.body)
	}
	if got.header.Get("Content-Type") != "application/json; charset=UTF-8" {
		t.Errorf("Content-Type %q", got.header.Get("Content-Type"))
	}
}

// events gives the data of each event, and what is no event.
func events(t testing.TB, body string) (list []gjson.Result, rest string) {
	t.Helper()
	for {
		data, isEvent := strings.CutPrefix(body, "data: ")
		event, after, ended := strings.Cut(data, "\r\n\r\n")
		if !isEvent || !ended {
			return list, body
		}
		if strings.ContainsAny(event, "\r\n") || !gjson.Valid(event) {
			t.Errorf("not one line of JSON: %.200s", event)
		}
		list, body = append(list, gjson.Parse(event)), after
	}
}

func TestStreamedImage(t *testing.T) {
	h := provisioned(t)
	for model, signed := range map[string]bool{"gemini-3-pro-image": true, "gemini-2.5-flash-image": false} {
		got := post(t, h, streamOf+model+":streamGenerateContent?alt=sse", prompt("a cat"))
		list, rest := events(t, got.body)
		if rest != "" || len(list) != textChunks+2 {
			t.Fatalf("%s: %d events, then %q", model, len(list), rest)
		}
		image, last := list[textChunks], list[textChunks+1]
		if _, format := decode(t, image.Get(cand+"content.parts.0.inlineData.data").Str); format == "" {
			t.Errorf("%s: no picture", model)
		}
		if last.Get(cand+"finishReason").Str != "STOP" || last.Get(cand+"content.parts.0.text").Raw != `""` {
			t.Errorf("%s: last event %.200s", model, last.Raw)
		}
		for _, event := range []gjson.Result{image, last} {
			if event.Get(cand+"content.parts.0.thoughtSignature").Exists() != signed {
				t.Errorf("%s: signature expected: %v", model, signed)
			}
		}
		for i, event := range list[:len(list)-1] {
			if event.Get(cand + "finishReason").Exists() {
				t.Errorf("%s: event %d has a finishReason", model, i)
			}
			next := list[i+1].Get("usageMetadata.totalTokenCount").Int()
			if event.Get("usageMetadata.totalTokenCount").Int() > next {
				t.Errorf("%s: usage shrinks after event %d", model, i)
			}
		}
	}
}

func TestStreamedScenarios(t *testing.T) {
	h := provisioned(t)
	path := streamOf + "gemini-3.1-flash-image:streamGenerateContent?alt=sse"
	for name, want := range map[string]struct {
		events int
		last   string // path in the last event
		value  string
	}{
		"no_image":            {1, cand + "finishReason", "NO_IMAGE"},
		"prompt_safety":       {1, "promptFeedback.blockReason", "SAFETY"},
		"text_only":           {textChunks + 1, cand + "finishReason", "STOP"},
		"draft_then_no_image": {2, cand + "finishReason", "NO_IMAGE"},
		"candidates":          {textChunks + 3, cand + "finishReason", "IMAGE_SAFETY"},
		"no_finish_reason":    {textChunks + 1, cand + "finishReason", ""},
		"stop_no_parts":       {1, cand + "finishReason", "STOP"},
	} {
		list, rest := events(t, post(t, h, path, prompt("sim:"+name)).body)
		if len(list) != want.events || rest != "" {
			t.Errorf("sim:%s: %d events, then %q", name, len(list), rest)
			continue
		}
		if got := list[len(list)-1].Get(want.last).Str; got != want.value {
			t.Errorf("sim:%s: last event has %q", name, got)
		}
	}
}

func TestMidStreamErrorIsBare(t *testing.T) {
	got := post(t, provisioned(t), streamOf+"gemini-2.5-flash:streamGenerateContent?alt=sse", prompt("sim:mid_stream_error"))
	list, rest := events(t, got.body)
	if len(list) != 2 || !strings.HasPrefix(rest, "{\n  \"error\": {\n    \"code\": 499,") {
		t.Errorf("%d events, then %s", len(list), rest)
	}
}

// Refused before it began, a stream keeps its content type and loses its form.
func TestRefusedStreams(t *testing.T) {
	h := provisioned(t)
	got := post(t, h, streamOf+"gemini-2.5-flash:streamGenerateContent?alt=sse", prompt("sim:503"))
	if got.status != 503 || got.header.Get("Content-Type") != "text/event-stream" || got.get("error.code").Int() != 503 {
		t.Errorf("alt=sse: %d %v %s", got.status, got.header, got.body)
	}
	got = post(t, h, streamOf+"gemini-2.5-flash:streamGenerateContent", prompt("sim:503"))
	if got.status != 503 || got.get("0.error.code").Int() != 503 {
		t.Errorf("array: %d %s", got.status, got.body)
	}
}
