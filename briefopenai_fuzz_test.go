// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzBriefOpenAI reads what there is of a request, writes it in another form of
// OpenAI's, and reads it again.
func FuzzBriefOpenAI(f *testing.F) {
	kinds := []openAIKind{kindGenerations, kindEdits, kindForm, kindChat}
	paths, _ := filepath.Glob("testdata/translate/openai/*.in")
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		kind, _, _ := strings.Cut(filepath.Base(path), "_")
		f.Add(body, uint(slices.Index(kinds, openAIKind(kind))))
	}
	f.Add([]byte(`{"prompt":"a","image":"https:`+strings.Repeat("\x8a", maxURI-10)+`"}`), uint(1)) // three times as long in valid UTF-8
	f.Add([]byte(`{"messages":[{"role":"user","content":"a"}],"stop":["`+strings.Repeat("\xff", 43)+`"]}`), uint(3))
	f.Fuzz(func(t *testing.T, input []byte, choice uint) {
		if len(input) > 1<<14 {
			return
		}
		checkBriefOpenAI(t, kinds[choice%uint(len(kinds))], string(input))
	})
}

// TestBriefOpenAIRandom does the same with bodies of fields that matter.
func TestBriefOpenAIRandom(t *testing.T) {
	for kind, schema := range map[openAIKind]*openAISchema{kindGenerations: generationsSchema, kindEdits: editsSchema, kindChat: chatSchema} {
		bodies := newBodies(schema.root, `"image"`, `"text"`, `"user"`, `"assistant"`, `"system"`, `"16:9"`, `"2K"`, `"1792x1024"`, `"auto"`, `"high"`, `"png"`, `"b64_json"`, `"url"`,
			`"https://a.example/b.png"`, `"data:image/png;base64,AAAA"`, `"data:;base64,_-8"`, `"image_url"`, `"harassment"`, `"BLOCK_NONE"`, `2`, `0.5`, `50`)
		for range 500 {
			checkBriefOpenAI(t, kind, bodies.next())
		}
	}
}

func checkBriefOpenAI(t *testing.T, kind openAIKind, body string) {
	t.Helper()
	b, err := readOpenAI(t, kind, body)
	if err != nil || b.foreign != nil {
		return
	}
	thereAndBackByChat(t, b, body)
	thereAndBackByImages(t, kind, b, body)
}

func thereAndBackByChat(t *testing.T, b *brief, body string) {
	l, f := b.chat(translation{model: "m", stream: b.stream})
	if f != nil {
		t.Fatalf("%q has become foreign: %+v", body, f)
	}
	written, err := laidOut(l, body)
	if err != nil || b.count > 1 { // which no chat takes
		return
	}
	again := mustReadOpenAI(t, kindChat, written)
	if again.foreign != nil && growsInJSON(body) {
		return
	}
	want, got := told(alike(b), body), told(alike(again), written)
	if got != want {
		t.Errorf("%q became %q\n got %s\nwant %s", body, written, got, want)
	}
}

// alike is a brief without what a chat cannot say, and with what it cannot leave
// open.
func alike(b *brief) *brief {
	a := *b
	a.dropped, a.safety, a.outputMime, a.compression, a.asURL = nil, nil, "", "", false
	a.own, a.size, a.isFine = nil, b.imageSize(), false
	a.stream, a.streamUsage = false, false // the caller's to say
	a.writes = b.writes || b.draws && !b.imagesAlone
	a.settings = make(map[string]string)
	for _, s := range sharedSettings {
		if s.openAI != "" {
			a.settings[s.native] = strings.Replace(b.settings[s.native], "minimal", "low", 1)
		}
	}
	a.turns = nil
	for _, turn := range b.turns {
		parts := named(turn.parts)
		if turn.isModel {
			texts, images := split(parts)
			parts = append(texts, images...)
		}
		a.turns = append(a.turns, briefTurn{turn.isModel, parts})
	}
	return &a
}

// named gives images the type that they have where nobody knows it.
func named(parts []briefPart) []briefPart {
	parts = slices.Clone(parts)
	for i, p := range parts {
		if p.image != nil && p.image.mime == "" {
			image := *p.image
			image.mime = likelyMime
			parts[i].image = &image
		}
	}
	return parts
}

func thereAndBackByImages(t *testing.T, kind openAIKind, b *brief, body string) {
	l, isEdit, f, err := b.imagesAPI(translation{model: "m"}, textIn(body))
	if err != nil {
		t.Fatal(err)
	}
	if f != nil {
		return
	}
	written, err := laidOut(l, body)
	if err != nil {
		return // no base64
	}
	back := kindGenerations
	if isEdit {
		back = kindForm
	}
	again := mustReadOpenAI(t, back, written)
	if again.foreign != nil && growsInJSON(body) {
		return
	}
	if again.foreign != nil {
		t.Fatalf("%q became %q: %+v", body, written, again.foreign)
	}
	if kind == kindChat { // which may have several texts, between images
		return
	}
	tell := func(b *brief, body string) string {
		a := alike(b)
		a.own, a.size, a.isFine = b.own, b.size, b.isFine
		a.settings, a.writes, a.imagesAlone = nil, false, true
		a.outputMime, a.compression = b.outputMime, b.compression
		switch {
		case !a.exact.isEmpty():
		case a.aspect != "" || a.size != "" && !isEdit:
			a.aspect, a.size, _ = fitSize(pixelSize(a.aspect, a.size, "m"))
		default:
			a.size = ""
		}
		return told(a, body)
	}
	if want, got := tell(b, body), tell(again, written); got != want {
		t.Errorf("%q became %q\n got %s\nwant %s", body, written, got, want)
	}
}
