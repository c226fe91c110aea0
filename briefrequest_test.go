// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"io"
	"slices"
	"strings"
	"testing"
)

// A field that is there twice has no meaning that everybody agrees on: the call is
// not put into other words.
func TestTwice(t *testing.T) {
	for _, tt := range []struct {
		kind  openAIKind // "": native
		body  string
		param string // "" takes it
	}{
		{"", `{"contents":[{"parts":[{"text":"a"}]}],"contents":[{"parts":[{"text":"b"}]}]}`, "contents"},
		{"", `{"contents":[{"parts":[{"text":"a"}],"parts":{"text":"b"}}]}`, "contents.parts"},
		{"", `{"contents":[{"role":"user","role":"model","parts":[{"text":"a"}]}]}`, "contents.role"},
		{"", `{"generationConfig":{"topP":1},"generation_config":{"topK":1}}`, "generation_config"},
		{"", `{"generationConfig":{"imageConfig":{"imageSize":"1K","image_size":"2K"}}}`, "generationConfig.imageConfig.image_size"},
		{"", `{"contents":[{"parts":[{"inlineData":{"data":"AAAA"}},{"inlineData":{"data":"AAAA"}}]},{"parts":[{"text":"a"}]}]}`, ""},
		{"", `{"contents":null,"contents":[],"contents":[{"parts":[{"text":"a"}]}],"contents":""}`, ""},
		{kindGenerations, `{"prompt":"a","prompt":"b"}`, "prompt"},
		{kindGenerations, `{"prompt":"a","aspectRatio":"1:1","aspect_ratio":"1:1"}`, "aspect_ratio"},
		{kindGenerations, `{"prompt":"a","google":{"image_config":{"image_size":"1K"}},"google":{"image_config":{"image_size":"2K"}}}`, "google"},
		{kindGenerations, `{"prompt":"a","prompt":null,"prompt":""}`, ""},
		{kindEdits, `{"prompt":"a","image":["https://a","https://b"],"images":"https://c"}`, ""},
		{kindChat, `{"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"b"}]}`, "messages"},
		{kindChat, `{"messages":[{"role":"user","content":"a","content":[{"text":"b"}]}]}`, "messages[0].content"},
		{kindChat, `{"messages":[{"role":"user","content":[{"image_url":"https://a","image_url":{"url":"https://b"}}]}]}`, "messages[0].content[0].image_url"},
		{kindChat, `{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}],"stop":["a","a"]}`, ""},
	} {
		var b *brief
		if tt.kind == "" {
			b = readNative(t, tt.body, false)
		} else {
			b = mustReadOpenAI(t, tt.kind, tt.body)
		}
		switch {
		case tt.param == "" && b.foreign != nil:
			t.Errorf("%s: %+v", tt.body, b.foreign)
		case tt.param != "" && (b.foreign == nil || b.foreign.param != tt.param || b.foreign.code != "invalid_value" || !strings.Contains(b.foreign.message, "twice")):
			t.Errorf("%s: %+v, want %s", tt.body, b.foreign, tt.param)
		}
	}
}

// What only OpenAI's images API has a word for reaches an upstream that speaks it,
// where the call does not go as it is: in parts, or under another model's name.
func TestOwnWords(t *testing.T) {
	const (
		fields = `"quality":"low","background":"opaque","style":"vivid","moderation":"low","user":"u\u0031","input_fidelity":"high"`
		json   = `{"prompt":"a","n":1,"size":"1792x1024","output_format":"webp",` + fields
		image  = `,"image":"data:image/png;base64,eA=="}`
		lost   = "quality style moderation input_fidelity"
	)
	form := formOf(t, promptField, imageField, []string{"quality", "low"}, []string{"size", "1792x1024"}, []string{"user", "u1"})
	for name, tt := range map[string]struct {
		kind        openAIKind
		body, model string
		images      string // what goes out has this
		dropped     string // from it
		chat        string // what a chat leaves out
	}{
		"generations": {kindGenerations, json + "}", "m", `"size":"1792x1024","response_format":"b64_json","output_format":"webp",` + fields, "", lost + " output_format"},
		"edits":       {kindEdits, json + image, "m", "name=\"user\"\r\n\r\nu1\r\n", "", lost + " output_format"},
		"a form":      {kindForm, form, "m", "name=\"quality\"\r\n\r\nlow\r\n", "", "quality"},
		"means nothing": {
			kindGenerations, `{"prompt":"a","quality":"auto","background":"auto","size":"auto"}`, "m", `"quality":"auto","background":"auto"`, "", "",
		},
		"high":            {kindGenerations, `{"prompt":"a","quality":"high"}`, "gpt-image-1", `"prompt":"a","quality":"high"`, "", ""},
		"a size it has":   {kindGenerations, `{"prompt":"a","size":"512x512"}`, "dall-e-2", `"size":"512x512"`, "", ""},
		"one it has not":  {kindGenerations, `{"prompt":"a","size":"1792x1024"}`, "gpt-image-1", `"size":"1536x1024"`, "", ""},
		"hd":              {kindGenerations, `{"prompt":"a","quality":"hd","style":"vivid"}`, "gpt-image-1", `"prompt":"a","quality":"high"}`, "style", "style"},
		"high, of old":    {kindGenerations, `{"prompt":"a","quality":"high","background":"auto","user":"u"}`, "dall-e-3", `"b64_json","quality":"hd","user":"u"}`, "", ""},
		"twice":           {kindForm, formOf(t, promptField, imageField, []string{"user", "u1"}, []string{"user", "u2"}), "m", "name=\"user\"\r\n\r\nu2\r\n", "", ""},
		"no word":         {kindGenerations, `{"prompt":"a","style":{"a":1},"user":7}`, "m", `"prompt":"a","response_format":"b64_json"}`, "style user", "style user"},
		"in capitals":     {kindGenerations, `{"prompt":"a","size":"1024X1024"}`, "m", `"size":"1024x1024"`, "", ""},
		"a ratio as well": {kindGenerations, `{"prompt":"a","size":"1024x1024","aspect_ratio":"16:9"}`, "m", `"size":"1376x768"`, "", ""},
	} {
		b := mustReadOpenAI(t, tt.kind, tt.body)
		l, _, f, err := b.imagesAPI(translation{model: tt.model}, textIn(tt.body))
		if f != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, f, err)
			continue
		}
		written, err := laidOut(l, tt.body)
		if err != nil || !strings.Contains(written, tt.images) || strings.Join(l.dropped, " ") != tt.dropped {
			t.Errorf("%s: %v, without %q\n got %s\nwant %s", name, err, l.dropped, written, tt.images)
		}
		chat, _ := b.chat(translation{model: "m"})
		if said, err := laidOut(chat, tt.body); err != nil || strings.Contains(said, `"user":"u`) != strings.Contains(written, "user") {
			t.Errorf("%s: %v, in a chat %s", name, err, said)
		}
		if got, want := slices.Sorted(slices.Values(chat.dropped)), slices.Sorted(strings.FieldsSeq(tt.chat)); !slices.Equal(got, want) {
			t.Errorf("%s: a chat is without %q, want %q", name, got, want)
		}
	}
}

// An image that is fetched has the type that its name tells. The Gemini API finds
// out by itself, Vertex AI must be told.
func TestFetchedImage(t *testing.T) {
	for uri, want := range map[string][2]string{
		"https://x/a.JPG?b=c.png": {`,"mimeType":"image/jpeg"`, `,"mimeType":"image/jpeg"`},
		"https://x/a%2Ewebp#b":    {`,"mimeType":"image/webp"`, `,"mimeType":"image/webp"`},
		"https://x/a":             {``, `,"mimeType":"image/png"`},
		"https://x/%zz.png":       {``, `,"mimeType":"image/png"`},
	} {
		body := `{"prompt":"a","image":"` + uri + `"}`
		b := mustReadOpenAI(t, kindEdits, body)
		for i, isVertex := range []bool{false, true} {
			text, _ := writeNative(t, b, body, translation{model: "gemini-3-pro-image", isVertex: isVertex})
			if part := `{"fileData":{"fileUri":"` + uri + `"` + want[i] + `}}`; !strings.Contains(text, part) {
				t.Errorf("%s\nwithout %s", text, part)
			}
		}
	}
}

// Images that not everybody could read are made readable.
func TestReadableImages(t *testing.T) {
	for inside, want := range map[string]string{
		"iVBORw0KGgo=":        "", // as it is
		"_-8=":                "/+8=",
		"_-8":                 "/+8=",
		"QUI":                 "QUI=",
		`\/\/8=`:              "//8=",
		`QUJD\r\nQUJD`:        "QUJDQUJD",
		`\u0051UJD`:           "QUJD",
		"QUJDQUJDQUJDQUJDQUI": "QUJDQUJDQUJDQUJDQUI=",
	} {
		native := `{"contents":[{"parts":[{"text":"a"},{"inlineData":{"mimeType":"image/png","data":"` + inside + `"}}]}]}`
		ours := `{"prompt":"a","image":"data:image/png;base64,` + inside + `"}`
		for body, b := range map[string]*brief{native: readNative(t, native, false), ours: mustReadOpenAI(t, kindEdits, ours)} {
			chat, f := b.chat(translation{model: "m"})
			if f != nil {
				t.Fatal(f)
			}
			own, _ := b.native(translation{model: "m"})
			for _, l := range []*layout{chat, own} {
				kept := keptBody(t, body)
				length, err := kept.lengthOf(l)
				written, err2 := io.ReadAll(kept.laidOut(l))
				if err != nil || err2 != nil || int64(len(written)) != length {
					t.Errorf("%s: %d bytes for %d, %v, %v", inside, len(written), length, err, err2)
				}
				data := want
				if data == "" {
					data = inside
				}
				if isAsIs := l.length() > 0; !strings.Contains(string(written), data+`"`) || isAsIs != (want == "") {
					t.Errorf("%s became %s, as it is %v", inside, written, isAsIs)
				}
			}
		}
	}
}

// A ratio counts more than a size, in whichever order they come.
func TestRatioBesideSize(t *testing.T) {
	for _, body := range []string{
		`{"prompt":"a","size":"1024x1024","aspect_ratio":"16:9"}`,
		`{"prompt":"a","aspect_ratio":"16:9","size":"1024x1024"}`,
		`{"google":{"image_config":{"image_size":"1K","aspect_ratio":"16:9"}},"size":"2048x2048","prompt":"a"}`,
		`{"size":"2048x2048","prompt":"a","google":{"image_config":{"image_size":"1K","aspect_ratio":"16:9"}}}`,
	} {
		if b := mustReadOpenAI(t, kindGenerations, body); b.foreign != nil || b.aspect != "16:9" || b.size != "1K" {
			t.Errorf("%s: %s %s %+v", body, b.aspect, b.size, b.foreign)
		}
	}
}

func TestNoPrompt(t *testing.T) {
	for _, body := range []string{`{"contents":[]}`, `{}`, `{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}]}`} {
		if _, _, f, err := readNative(t, body, false).imagesAPI(translation{}, textIn(body)); err != nil || f == nil || !strings.Contains(f.message, "needs a prompt") {
			t.Errorf("%s: %+v, %v", body, f, err)
		}
	}
}

func TestForeignWithoutField(t *testing.T) {
	if got := string(noRoom("a conversation").openAI()); !strings.Contains(got, `"param":null`) {
		t.Error(got)
	}
}
