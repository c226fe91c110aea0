// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"testing"
)

// ask is a brief with one text, whatever else.
func ask(b brief, parts ...briefPart) *brief {
	b.turns = []briefTurn{{parts: append([]briefPart{{text: passage{text: "a"}}}, parts...)}}
	return &b
}

func TestChat(t *testing.T) {
	const prompt = `{"model":"m","messages":[{"role":"user","content":"a"}]`
	binary := briefPart{image: &briefImage{mime: "image/png", data: span{1, 4}, isBinary: true}}
	for name, tt := range map[string]struct {
		brief *brief
		to    translation
		want  string
		drops []string
	}{
		"nothing else": {ask(brief{}), translation{}, prompt + "}", nil},
		"stream":       {ask(brief{}), translation{stream: true}, prompt + `,"stream":true,"stream_options":{"include_usage":true}}`, nil},
		"draws":        {ask(brief{draws: true}), translation{}, prompt + `,"modalities":["image","text"]}`, nil},
		"images alone": {ask(brief{draws: true, imagesAlone: true}), translation{}, prompt + `,"modalities":["image"]}`, nil},
		"writes":       {ask(brief{writes: true}), translation{}, prompt + `,"modalities":["text"]}`, nil},
		"half":         {ask(brief{size: "512"}), translation{}, prompt + `,"image_config":{"image_size":"0.5K"}}`, nil},
		"count":        {ask(brief{count: 2}), translation{}, prompt + `,"n":2}`, nil},
		"capitals":     {ask(brief{settings: map[string]string{"thinkingLevel": `"HIGH"`}}), translation{}, prompt + `,"reasoning_effort":"high"}`, nil},
		"no word for it": {
			ask(brief{
				settings: map[string]string{"thinkingLevel": `"MAX"`, "thinkingBudget": "1", "topK": "2"}, safety: testSafety,
				outputMime: "image/png", compression: "1", dropped: []string{"user", "top_k"},
			}),
			translation{},
			prompt + "}",
			[]string{"user", "top_k", "output_format", "output_compression", "thinking_level", "thinking_budget", "safety_settings"},
		},
		"binary": {
			ask(brief{}, binary),
			translation{},
			`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,eHl6"}}]}]}`, nil,
		},
		"images of a model": {
			&brief{turns: []briefTurn{{isModel: true, parts: []briefPart{binary}}}},
			translation{},
			`{"model":"m","messages":[{"role":"assistant","content":null,"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,eHl6"}}]}]}`, nil,
		},
		"nobody knows the type": {
			&brief{turns: []briefTurn{{parts: []briefPart{{image: &briefImage{data: span{1, 4}, isPlain: true}}}}}},
			translation{},
			`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,xyz"}}]}]}`, nil,
		},
	} {
		tt.to.model = "m"
		l, f := tt.brief.chat(tt.to)
		if f != nil {
			t.Errorf("%s: %+v", name, f)
			continue
		}
		got, err := laidOut(l, "-xyz-")
		if err != nil || got != tt.want || !slices.Equal(l.dropped, tt.drops) || l.contentType != "application/json" {
			t.Errorf("%s: %v\n got %s %q\nwant %s %q", name, err, got, l.dropped, tt.want, tt.drops)
		}
	}
}

// TestRewordedPrompt puts other words in the place of the prompt's.
func TestRewordedPrompt(t *testing.T) {
	const body = `{"prompt":"red"}`
	to := translation{model: "m", edits: []edit{{at: 10, remove: 5, insert: []byte(`"bl\u0075e"`)}}}
	b := mustReadOpenAI(t, kindGenerations, body)
	chat, _ := b.chat(to)
	images, _, _, err := b.imagesAPI(to, textIn(body, to.edits...))
	if err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]*layout{
		`{"model":"m","messages":[{"role":"user","content":"bl\u0075e"}],"modalities":["image"]}`: chat,
		`{"model":"m","prompt":"bl\u0075e","response_format":"b64_json"}`:                         images,
	} {
		if got, err := laidOut(l, body); got != want || err != nil {
			t.Errorf("%v\n got %s\nwant %s", err, got, want)
		}
	}
}

func TestChatForeign(t *testing.T) {
	own := &foreign{param: "x"}
	if _, f := ask(brief{foreign: own}).chat(translation{}); f != own {
		t.Error(f)
	}
	if _, f := ask(brief{}, briefPart{image: &briefImage{mime: "video/mp4"}}).chat(translation{}); f == nil {
		t.Error("a video has become an image")
	}
	if _, f := ask(brief{count: 2}).chat(translation{stream: true}); f == nil {
		t.Error("two answers have become one stream")
	}
	if _, f := ask(brief{count: 1}).chat(translation{stream: true}); f != nil {
		t.Error(f)
	}
}
