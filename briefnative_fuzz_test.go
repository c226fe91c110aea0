// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzBriefNative reads what it has written. A body that is cut in pieces reads the
// same.
func FuzzBriefNative(f *testing.F) {
	paths, err := filepath.Glob("testdata/translate/native/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		seed, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed, byte(3))
	}
	f.Add([]byte("{\"contents\":{\"parts\":{\"fileData\":{\"fileUri\":\"https://a/\xff\xfe\",\"mimeType\":\"image/png\"}}}}"), byte(3))
	f.Add([]byte("{\"contents\":{\"parts\":{\"text\":\"a\"}},\"generationConfig\":{\"stopSequences\":[\"\xff\u2028\"]}}"), byte(3))
	f.Add([]byte(`{"contents":{"parts":{"text":"a"}},"generationConfig":{"stopSequences":["`+strings.Repeat("\xff", 43)+`"]}}`), byte(3))
	f.Fuzz(func(t *testing.T, body []byte, piece byte) { checkBriefNative(t, body, piece) })
}

// TestBriefNativeRandom does the same with bodies of fields that matter.
func TestBriefNativeRandom(t *testing.T) {
	bodies := newBodies(nativeSchema, `"IMAGE"`, `"TEXT"`, `"user"`, `"model"`, `"16:9"`, `"2K"`, `"image/png"`, `"image/jpeg"`, `"AAAA"`, `"_-8"`, `"gs://b/a.png"`,
		`"HARM_CATEGORY_HARASSMENT"`, `"BLOCK_NONE"`, `"HIGH"`, `7`, `0.5`)
	for range 1000 {
		checkBriefNative(t, []byte(bodies.next()), byte(bodies.Uint()))
	}
}

func checkBriefNative(t *testing.T, body []byte, piece byte) {
	t.Helper()
	b, err := readBriefNative(strings.NewReader(string(body)), false)
	inPieces, err2 := readBriefNative(&pieces{body: string(body), size: int(piece) + 1}, false)
	if !reflect.DeepEqual(b, inPieces) || fmt.Sprint(err) != fmt.Sprint(err2) {
		t.Fatalf("%q: %+v, %v, in pieces %+v, %v", body, b, err, inPieces, err2)
	}
	isValid := json.Valid(body)
	if isValid && err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	if err != nil || b.foreign != nil {
		return
	}
	for _, to := range nativeTargets {
		l, _ := b.native(to)
		written, err := laidOut(l, string(body))
		if isValid && err == nil { // nor is anything sent that is no base64
			checkReadsBack(t, b, string(body), written, to)
		}
	}
}

// checkReadsBack reads what was written of a brief, apart from what is left out.
func checkReadsBack(t *testing.T, b *brief, body, written string, to translation) {
	t.Helper()
	if !json.Valid([]byte(written)) {
		t.Fatalf("%q became %q", body, written)
	}
	again, err := readBriefNative(strings.NewReader(written), to.isVertex)
	if err != nil {
		t.Fatalf("%q became %q: %v", body, written, err)
	}
	if again.foreign != nil && (growsInJSON(body) || len(b.safety)+len(to.safety) > maxListed) {
		return
	}
	if got, want := told(again, written), told(expected(b, to), body); got != want {
		t.Fatalf("%q became %q\n got %s\nwant %s", body, written, got, want)
	}
}

// growsInJSON tells a body that is longer when it is written again: what just fits into
// a limit is too long then.
func growsInJSON(body string) bool {
	return !utf8.ValidString(body) || strings.ContainsAny(body, "\u2028\u2029")
}

// expected is a brief as a translation says it.
func expected(b *brief, to translation) *brief {
	e := *b
	e.count, e.dropped = 0, nil
	e.safety = slices.Clone(b.safety)
	for _, s := range to.safety {
		if !slices.ContainsFunc(b.safety, func(own SafetySetting) bool { return own.Category == s.Category }) {
			e.safety = append(e.safety, s)
		}
	}
	w := &nativeWriter{t: to}
	e.safety = slices.DeleteFunc(e.safety, func(s SafetySetting) bool { return w.lacks(s.Category) })
	if !to.isVertex {
		e.outputMime, e.compression = "", ""
	}
	if e.outputMime != "image/png" && e.outputMime != "image/jpeg" {
		e.outputMime = ""
	}
	model := drawingModelOf(to.model)
	e.aspect, e.size, _ = model.fit(b)
	if level := strings.Trim(b.settings["thinkingLevel"], `"`); level != "" {
		e.settings = maps.Clone(b.settings)
		e.settings["thinkingLevel"] = ""
		if level = model.level(strings.ToUpper(level)); level != "" {
			e.settings["thinkingLevel"] = string(encode(level))
		}
	}
	if e.draws && !e.imagesAlone && to.modalities != nil {
		e.writes = true
	}
	if e.draws && !e.imagesAlone && !e.writes { // only its details say so
		e.draws = e.aspect != "" || e.size != "" || e.outputMime != "" || e.compression != ""
	}
	e.turns = nil
	for _, turn := range b.turns {
		turn.parts = slices.Clone(turn.parts)
		for i, p := range turn.parts {
			if p.image != nil && p.image.mime == "" {
				named := *p.image
				named.mime = "image/png"
				turn.parts[i].image = &named
			}
		}
		e.turns = append(e.turns, turn)
	}
	return &e
}
