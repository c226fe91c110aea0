// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// requestFixtures returns the recorded requests by name.
func requestFixtures(t testing.TB) map[string][]byte {
	t.Helper()
	dir := os.Getenv("GEMINI_FIXTURES")
	if dir == "" {
		dir = filepath.Join("..", "shared", "fixtures")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "request_*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Skip("no recorded requests: set GEMINI_FIXTURES to their directory")
	}
	files := make(map[string][]byte)
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = body
	}
	return files
}

func TestCompleteRecordedRequests(t *testing.T) {
	for name, body := range requestFixtures(t) {
		t.Run(name, func(t *testing.T) {
			got, _ := complete(t, string(body), testCompletion)
			checkCompleted(t, body, []byte(got))
			slots, _, _ := runCompleter(t, string(body), testCompletion, 7)
			for _, s := range slots {
				if s.remove > 0 {
					t.Errorf("removed %d bytes at %d", s.remove, s.at)
				}
			}
			var parsed struct {
				Safety      []SafetySetting `json:"safetySettings"`
				SafetySnake []SafetySetting `json:"safety_settings"`
			}
			if err := json.Unmarshal([]byte(got), &parsed); err != nil {
				t.Fatal(err)
			}
			categories := map[string]int{}
			for _, s := range append(parsed.Safety, parsed.SafetySnake...) {
				categories[s.Category]++
			}
			for _, s := range testSafety {
				if categories[s.Category] != 1 {
					t.Errorf("%s is there %d times", s.Category, categories[s.Category])
				}
			}
		})
	}
}

// checkCompleted parses both bodies and takes out of the completed one what
// may have been added.
func checkCompleted(t testing.TB, body, completed []byte) {
	t.Helper()
	parse := func(text []byte) (v any) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return v
	}
	before, after := parse(body), parse(completed)
	if !equalButForAdditions(before, after) {
		t.Fatalf("more than additions\nbefore %s\nafter  %s", body, completed)
	}
}

func equalButForAdditions(before, after any) bool {
	b, isObject := before.(map[string]any)
	if !isObject {
		return reflect.DeepEqual(before, after)
	}
	a, ok := after.(map[string]any)
	if !ok {
		return false
	}
	for key, was := range b {
		is := a[key]
		switch key {
		case "safetySettings", "safety_settings", "responseModalities", "response_modalities":
			wasList, _ := was.([]any)
			isList, _ := is.([]any)
			if was == nil || len(isList) > len(wasList) && wasList != nil {
				if len(isList) < len(wasList) || !reflect.DeepEqual(append([]any{}, wasList...), append([]any{}, isList[:len(wasList)]...)) {
					return false
				}
				continue
			}
		case "generationConfig", "generation_config":
			if was == nil {
				was = map[string]any{}
				if is == nil {
					continue
				}
			}
			if _, isObject := was.(map[string]any); isObject && equalButForAdditions(was, is) {
				continue
			}
		}
		if !reflect.DeepEqual(was, is) {
			return false
		}
	}
	for key := range a {
		if _, was := b[key]; !was && !slices.Contains([]string{
			"safetySettings", "safety_settings", "generationConfig", "generation_config",
			"responseModalities", "response_modalities",
		}, key) {
			return false
		}
	}
	return true
}

func FuzzComplete(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"contents":[{"parts":[{"text":"\"safetySettings\":[]"}]}]}`,
		`{"safetySettings":[],"generationConfig":null}`, `{"safety_settings":null,"generation_config":{"topK":1}}`,
		`{"safetySettings":[{"category":7}],"safety_settings":[{"category":"HARM_CATEGORY_HATE_SPEECH"}]}`,
		`{"generationConfig":{"response_modalities":[],"responseModalities":null}}`, `[{}]`, `"x"`, `{"model":"m"}`,
		`{"safety\u0053ettings":[{"c\u0061tegory":10.0}],"x":[[],{}]}`, `{"generationConfig":[]} `,
		`{"model":"m","safetySettings":null,"model":"n\u006e","generationConfig":{}}`,
		`{"contents":[{"parts":[{"thoughtSignature":"s"},{"fileData":{"fileUri":"files/f"}}]}],"cached_content":"c"}`,
	} {
		f.Add([]byte(seed), byte(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, piece byte) {
		if !json.Valid(body) {
			return
		}
		slots, _, err := runCompleter(t, string(body), testCompletion, int(piece)+1)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		edits := editsOf(slots, rendering{})
		got := applyEdits(string(body), edits)
		checkCompleted(t, body, []byte(got))
		if whole, _, _ := runCompleter(t, string(body), testCompletion, len(body)); !reflect.DeepEqual(whole, slots) {
			t.Fatalf("%q: %v in pieces, %v as a whole", body, slots, whole)
		}
		// Taking the edits out again gives the body.
		var rebuilt strings.Builder
		at, shift := 0, 0
		for _, e := range edits {
			if removed := string(body[e.at : int(e.at)+e.remove]); removed != "" && removed != "null" {
				t.Fatalf("%q: removed %q", body, removed)
			}
			start := int(e.at) + shift
			rebuilt.WriteString(got[at:start])
			rebuilt.Write(body[e.at : int(e.at)+e.remove])
			at = start + len(e.insert)
			shift += len(e.insert) - e.remove
		}
		rebuilt.WriteString(got[at:])
		if rebuilt.String() != string(body) {
			t.Fatalf("%q became %q", body, got)
		}
		checkRenderings(t, string(body), int(piece)+1)
	})
}

// checkRenderings sends a body once in part and then twice, while it is still
// being read and when it is complete.
func checkRenderings(t testing.TB, body string, piece int) {
	t.Helper()
	slots, _, err := runCompleter(t, body, keptCompletion, len(body))
	if errors.Is(err, errMalformed) { // too many models
		return
	}
	for as, d := range testRenderings {
		want := applyEdits(body, editsOf(slots, d))
		if !json.Valid([]byte(want)) {
			t.Fatalf("%q, %s, is no JSON: %q", body, as, want)
		}
		b := bodyOf(stepped(body, piece), -1, "", keptCompletion, testLimit, true)
		first := make([]byte, len(want)/2)
		if _, err := io.ReadFull(b.reader(d), first); err != nil || string(first) != want[:len(first)] {
			t.Fatalf("%q, %s, begins with %q: %v", body, as, first, err)
		}
		for range 2 {
			var second bytes.Buffer
			_, err = io.CopyBuffer(&second, b.reader(d), make([]byte, piece))
			if err != nil || second.String() != want || b.length(d) != int64(len(want)) {
				t.Fatalf("%q, %s, is %q: %v", body, as, second.Bytes(), err)
			}
		}
		b.release()
	}
}
