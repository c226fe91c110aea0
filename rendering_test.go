// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRenderings leaves out what an upstream rejects; what remains is JSON.
func TestRenderings(t *testing.T) {
	const (
		settings = `[` + settingsJSON + `]`
		list     = `[` + modalitiesJSON + `]`
		config   = `"generationConfig":{"responseModalities":` + list + `}`
	)
	tests := map[string]struct{ body, both, noSafety, noModalities string }{
		"nothing": {
			`{}`,
			`{"safetySettings":` + settings + `,` + config + `}`,
			`{` + config + `}`,
			`{"safetySettings":` + settings + `}`,
		},
		"white space": {
			"{ \n}\n",
			"{ \n\"safetySettings\":" + settings + "," + config + "}\n",
			"{ \n" + config + "}\n",
			"{ \n\"safetySettings\":" + settings + "}\n",
		},
		"other members": {
			`{"a":1}`,
			`{"a":1,"safetySettings":` + settings + `,` + config + `}`,
			`{"a":1,` + config + `}`,
			`{"a":1,"safetySettings":` + settings + `}`,
		},
		"snake_case": {
			`{"system_instruction":{}}`,
			`{"system_instruction":{},"safety_settings":` + settings + `,"generation_config":{"response_modalities":` + list + `}}`,
			`{"system_instruction":{},"generation_config":{"response_modalities":` + list + `}}`,
			`{"system_instruction":{},"safety_settings":` + settings + `}`,
		},
		"null": {
			`{"safetySettings":null,"generationConfig":null}`,
			`{"safetySettings":` + settings + `,` + config + `}`,
			`{"safetySettings":null,` + config + `}`,
			`{"safetySettings":` + settings + `,"generationConfig":null}`,
		},
		"modalities null": {
			`{"generation_config":{"response_modalities":null}}`,
			`{"generation_config":{"response_modalities":` + list + `},"safety_settings":` + settings + `}`,
			`{"generation_config":{"response_modalities":` + list + `}}`,
			`{"generation_config":{"response_modalities":null},"safety_settings":` + settings + `}`,
		},
		"empty": {
			`{"generationConfig":{},"safetySettings":[ ]}`,
			`{` + config + `,"safetySettings":[ ` + settingsJSON + `]}`,
			`{` + config + `,"safetySettings":[ ]}`,
			`{"generationConfig":{},"safetySettings":[ ` + settingsJSON + `]}`,
		},
		"modalities empty": {
			`{"generationConfig":{"responseModalities":[]}}`,
			`{` + config + `,"safetySettings":` + settings + `}`,
			`{` + config + `}`,
			`{"generationConfig":{"responseModalities":[]},"safetySettings":` + settings + `}`,
		},
		"in part": {
			`{"safetySettings":[{"category":7},{"category":8},{"category":9}],"generationConfig":{"topK":1}}`,
			`{"safetySettings":[{"category":7},{"category":8},{"category":9},` + dangerousJSON + `],"generationConfig":{"topK":1,"responseModalities":` + list + `}}`,
			`{"safetySettings":[{"category":7},{"category":8},{"category":9}],"generationConfig":{"topK":1,"responseModalities":` + list + `}}`,
			`{"safetySettings":[{"category":7},{"category":8},{"category":9},` + dangerousJSON + `],"generationConfig":{"topK":1}}`,
		},
		"set": {
			`{"safetySettings":` + settings + `,"generationConfig":{"responseModalities":["TEXT"]}}`,
			`{"safetySettings":` + settings + `,"generationConfig":{"responseModalities":["TEXT"]}}`,
			`{"safetySettings":` + settings + `,"generationConfig":{"responseModalities":["TEXT"]}}`,
			`{"safetySettings":` + settings + `,"generationConfig":{"responseModalities":["TEXT"]}}`,
		},
		"config last": {
			`{"safetySettings":` + settings + `}`,
			`{"safetySettings":` + settings + `,` + config + `}`,
			`{"safetySettings":` + settings + `,` + config + `}`,
			`{"safetySettings":` + settings + `}`,
		},
	}
	for name, tt := range tests {
		for omit, want := range map[additions]string{
			0: tt.both, addedSafety: tt.noSafety, addedModalities: tt.noModalities, allAdditions: tt.body,
		} {
			d := rendering{omit: omit}
			got, _ := completeAs(t, tt.body, testCompletion, d)
			if got != want || !json.Valid([]byte(got)) {
				t.Errorf("%s without %d:\n got %s\nwant %s", name, omit, got, want)
			}
			b := bodyOf(strings.NewReader(tt.body), int64(len(tt.body)), "", testCompletion, testLimit, false)
			if err := b.readAhead(); err != nil {
				t.Fatal(name, err)
			}
			if b.length(d) != int64(len(want)) {
				t.Errorf("%s without %d: length() = %d, want %d", name, omit, b.length(d), len(want))
			}
			b.release()
		}
	}
}

// TestRenderingEdits has the prompt changed as well.
func TestRenderingEdits(t *testing.T) {
	const body = `{"model":"a","contents":[{"parts":[{"text":"a cat"}]}],"safetySettings":[]}`
	at := int64(strings.Index(body, "a cat"))
	d := rendering{
		model: func(string) string { return "b" },
		edits: []edit{{at: at, insert: []byte("Digital art: ")}, {at: at + 2, remove: 3, insert: []byte("dog")}, {at: at + 5, insert: []byte("!")}},
	}
	const want = `{"model":"b","contents":[{"parts":[{"text":"Digital art: a dog!"}]}],"safetySettings":[` + settingsJSON + `]}`
	for name, pad := range map[string]string{"flat": "", "long": strings.Repeat(" ", 2*flatBody)} {
		b := bodyOf(strings.NewReader(body+pad), -1, "", completion{safety: testSafety, renames: true}, testLimit, true)
		if err := b.readAll(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := checkReader(b.reader(d), want+pad); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if b.length(d) != int64(len(want+pad)) {
				t.Errorf("%s: length() = %d, want %d", name, b.length(d), len(want+pad))
			}
		}
		b.release()
	}
}
