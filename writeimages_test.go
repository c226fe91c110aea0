// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
)

func TestGenerations(t *testing.T) {
	const prompt = `{"model":"m","prompt":"a"`
	for name, tt := range map[string]struct {
		brief *brief
		model string
		want  string
		drops []string
	}{
		"nothing else":  {ask(brief{}), "m", prompt + `,"response_format":"b64_json"}`, nil},
		"of OpenAI":     {ask(brief{aspect: "16:9", outputMime: "image/webp", compression: "70", count: 2}), "gpt-image-1", `{"model":"gpt-image-1","prompt":"a","n":2,"size":"1536x1024","output_format":"webp","output_compression":70}`, nil},
		"of an old one": {ask(brief{size: "4K", outputMime: "image/png", compression: "70"}), "dall-e-3", `{"model":"dall-e-3","prompt":"a","size":"1024x1024","response_format":"b64_json"}`, []string{"output_format", "output_compression"}},
		"of Google":     {ask(brief{aspect: "21:9", size: "2K"}), "m", prompt + `,"size":"3168x1344","response_format":"b64_json"}`, nil},
		"unknown words": {ask(brief{aspect: "5:7", outputMime: "text/plain"}), "m", prompt + `,"response_format":"b64_json"}`, []string{"size", "output_format"}},
		"settings": {
			ask(brief{settings: map[string]string{"temperature": "1", "maxOutputTokens": "5"}, safety: testSafety, dropped: []string{"temperature"}}), "m",
			prompt + `,"response_format":"b64_json"}`,
			[]string{"temperature", "max_output_tokens", "safety_settings"},
		},
		"several texts": {ask(brief{}, briefPart{text: passage{text: "b"}}, briefPart{text: passage{span: span{1, 4}}}), "m", `{"model":"m","prompt":"a\nb\nx","response_format":"b64_json"}`, nil},
	} {
		const body = `-"x"-`
		l, isEdit, f, err := tt.brief.imagesAPI(translation{model: tt.model}, textIn(body))
		if f != nil || err != nil || isEdit {
			t.Errorf("%s: %v %+v %v", name, isEdit, f, err)
			continue
		}
		got, err := laidOut(l, body)
		if err != nil || got != tt.want || !slices.Equal(l.dropped, tt.drops) || l.contentType != "application/json" {
			t.Errorf("%s: %v\n got %s %q\nwant %s %q", name, err, got, l.dropped, tt.want, tt.drops)
		}
	}
}

// TestEdits has another implementation read the form.
func TestEdits(t *testing.T) {
	const body = `{"prompt":"red","image":"eHl6"}xyz`
	images := []briefPart{
		{image: &briefImage{mime: "image/jpeg", data: span{25, 29}}},
		{image: &briefImage{data: span{31, 34}, isBinary: true}},
	}
	edits := []edit{{at: 10, remove: 5, insert: []byte(`"bl\u0075e"`)}}
	for n, want := range []string{
		1: "model|||m prompt|||blue\na size|||768x1376 response_format|||b64_json image|image1.jpg|image/jpeg|xyz",
		2: "model|||m prompt|||blue\na size|||768x1376 response_format|||b64_json image[]|image1.jpg|image/jpeg|xyz image[]|image2.png|image/png|xyz",
	} {
		if n == 0 {
			continue
		}
		b := &brief{aspect: "9:16", turns: []briefTurn{{parts: slices.Concat(images[:n], []briefPart{{text: passage{span: span{10, 15}}}, {text: passage{text: "a"}}})}}}
		l, isEdit, f, err := b.imagesAPI(translation{model: "m", edits: edits}, textIn(body, edits...))
		if f != nil || err != nil || !isEdit {
			t.Fatal(isEdit, f, err)
		}
		written, err := laidOut(l, body)
		if err != nil {
			t.Fatal(err)
		}
		kind, about, err := mime.ParseMediaType(l.contentType)
		if err != nil || kind != "multipart/form-data" || about["boundary"] == "" {
			t.Fatal(l.contentType, err)
		}
		if got := partsOf(t, written); got != want {
			t.Errorf("%d images\n got %s\nwant %s", n, got, want)
		}
	}
}

func partsOf(t *testing.T, body string) string {
	t.Helper()
	var all []string
	form := multipart.NewReader(strings.NewReader(body), testBoundary)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return strings.Join(all, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		value, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.Join([]string{part.FormName(), part.FileName(), part.Header.Get("Content-Type"), string(value)}, "|"))
	}
}

// TestEditsKeepTheShape leaves the size of an edited image to the model, unless an
// aspect ratio is asked for.
func TestEditsKeepTheShape(t *testing.T) {
	b := ask(brief{size: "4K"}, briefPart{image: &briefImage{data: span{0, 3}, isBinary: true}})
	l, _, _, err := b.imagesAPI(translation{model: "m"}, textIn(""))
	if err != nil || !slices.Equal(l.dropped, []string{"image_size"}) {
		t.Fatal(l.dropped, err)
	}
	if written, _ := laidOut(l, "xyz"); strings.Contains(written, `"size"`) {
		t.Error(written)
	}
}

func TestImagesForeign(t *testing.T) {
	own, errRead := &foreign{param: "x"}, errors.New("read")
	picture := func(i briefImage) briefPart { return briefPart{image: &i} }
	for name, b := range map[string]*brief{
		"what it is anyway":    ask(brief{foreign: own}),
		"a system instruction": ask(brief{system: []passage{{text: "s"}}}),
		"no turn":              {},
		"two turns":            {turns: []briefTurn{{}, {}}},
		"a model's turn":       {turns: []briefTurn{{isModel: true}}},
		"no prompt":            {turns: []briefTurn{{parts: []briefPart{picture(briefImage{isBinary: true}), {text: passage{span: span{0, 2}}}}}}},
		"an address":           ask(brief{}, picture(briefImage{uri: "https://x"})),
		"a video":              ask(brief{}, picture(briefImage{mime: "video/mp4"})),
		"a header":             ask(brief{}, picture(briefImage{mime: "image/png\r\nX: y"})),
		"a long prompt":        ask(brief{}, briefPart{text: passage{span: span{0, maxTurn + 2}}}),
	} {
		l, _, f, err := b.imagesAPI(translation{}, textIn(""))
		if f == nil || l != nil || err != nil {
			t.Errorf("%s: %+v %+v %v", name, l, f, err)
		}
	}
	b := ask(brief{}, briefPart{text: passage{text: "b"}})
	if _, _, _, err := b.imagesAPI(translation{}, func(passage) (string, error) { return "", errRead }); !errors.Is(err, errRead) {
		t.Error(err)
	}
}
