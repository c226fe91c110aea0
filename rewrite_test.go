// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// settingsJSON and modalitiesJSON are the elements that testCompletion adds.
const (
	harassmentJSON = `{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"}`
	hateJSON       = `{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"BLOCK_NONE"}`
	sexualJSON     = `{"category":"HARM_CATEGORY_SEXUALLY_EXPLICIT","threshold":"BLOCK_NONE"}`
	dangerousJSON  = `{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","threshold":"BLOCK_NONE"}`
	settingsJSON   = harassmentJSON + "," + hateJSON + "," + sexualJSON + "," + dangerousJSON
	modalitiesJSON = `"TEXT","IMAGE"`
)

var testSafety = []SafetySetting{
	{"HARM_CATEGORY_HARASSMENT", "BLOCK_NONE"},
	{"HARM_CATEGORY_HATE_SPEECH", "BLOCK_NONE"},
	{"HARM_CATEGORY_SEXUALLY_EXPLICIT", "BLOCK_NONE"},
	{"HARM_CATEGORY_DANGEROUS_CONTENT", "BLOCK_NONE"},
}

var testCompletion = completion{safety: testSafety, modalities: []string{"TEXT", "IMAGE"}}

// runCompleter gives a body to a completer in pieces. It fails if a slot comes
// for bytes that had been declared safe.
func runCompleter(t testing.TB, body string, c completion, piece int) ([]slot, *completer, error) {
	t.Helper()
	comp := newCompleter(c)
	var slots []slot
	var safe int64
	decided := func(more []slot) {
		for _, s := range more {
			if s.at < safe {
				t.Fatalf("%q in pieces of %d: slot at %d, but %d was safe", body, piece, s.at, safe)
			}
		}
		slots = append(slots, more...)
	}
	for rest := []byte(body); len(rest) > 0; {
		n := min(piece, len(rest))
		if err := comp.write(rest[:n]); err != nil {
			return nil, comp, err
		}
		decided(comp.slots())
		if now := comp.safe(); now < safe || now > int64(len(body)) {
			t.Fatalf("%q in pieces of %d: safe went from %d to %d", body, piece, safe, now)
		} else {
			safe = now
		}
		rest = rest[n:]
	}
	if err := comp.finish(); err != nil {
		return nil, comp, err
	}
	decided(comp.slots())
	return slots, comp, nil
}

// editsOf is what a reader makes of slots, all at once.
func editsOf(slots []slot, d rendering) []edit {
	edits := slices.Concat(d.edits, d.resolve(slots))
	sortEdits(edits)
	return edits
}

// applyEdits is the plain form of what a cursor does.
func applyEdits(body string, edits []edit) string {
	var out strings.Builder
	at := 0
	for _, e := range edits {
		out.WriteString(body[at:e.at])
		out.Write(e.insert)
		at = int(e.at) + e.remove
	}
	out.WriteString(body[at:])
	return out.String()
}

// complete returns the completed body, the same for any size of pieces.
func complete(t testing.TB, body string, c completion) (string, *completer) {
	t.Helper()
	return completeAs(t, body, c, rendering{})
}

func completeAs(t testing.TB, body string, c completion, d rendering) (string, *completer) {
	t.Helper()
	slots, comp, err := runCompleter(t, body, c, len(body)+1)
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	whole := applyEdits(body, editsOf(slots, d))
	for piece := 1; piece <= 64; piece++ {
		slots, _, err := runCompleter(t, body, c, piece)
		if err != nil {
			t.Fatalf("%q in pieces of %d: %v", body, piece, err)
		}
		if got := applyEdits(body, editsOf(slots, d)); got != whole {
			t.Fatalf("%q in pieces of %d:\n%s\nas a whole:\n%s", body, piece, got, whole)
		}
	}
	return whole, comp
}

func TestComplete(t *testing.T) {
	const (
		safety   = `"safetySettings":[` + settingsJSON + `]`
		config   = `"generationConfig":{"responseModalities":[` + modalitiesJSON + `]}`
		bothTail = safety + "," + config
	)
	// What is in «» is added, what is in ‹› goes.
	tests := map[string]string{
		"nothing there": `{"contents":[]«,` + bothTail + `»}`,
		"empty":         `{«` + bothTail + `»}`,
		"white space":   " { «" + bothTail + "»}\r\n",
		"formatted":     "{\n  \"contents\": [ 1.50e+3 ]\n«," + bothTail + "»}",

		"safety null":     `{"safetySettings": ‹null›«[` + settingsJSON + `]»,` + config + `}`,
		"safety empty":    `{"safetySettings":[ «` + settingsJSON + `»],` + config + `}`,
		"safety snake":    `{"safety_settings":[«` + settingsJSON + `»],` + config + `}`,
		"safety escaped":  `{"safety\u0053ettings":[«` + settingsJSON + `»],` + config + `}`,
		"safety complete": `{` + safety + `,` + config + `}`,
		"safety in part": `{"safetySettings":[{"threshold":"OFF","category":"HARM_CATEGORY_HATE_SPEECH"} «,` +
			harassmentJSON + "," + sexualJSON + "," + dangerousJSON + `»],` + config + `}`,
		"category escaped": `{"safetySettings":[{"c\u0061tegory":"HARM_\u0043ATEGORY_HARASSMENT"}«,` +
			hateJSON + "," + sexualJSON + "," + dangerousJSON + `»],` + config + `}`,
		"category in lower case": `{"safetySettings":[{"category":"harm_category_harassment"}«,` +
			hateJSON + "," + sexualJSON + "," + dangerousJSON + `»],` + config + `}`,
		"category numbers": `{"safetySettings":[{"category":7},{"category":8},{"category":10.0}«,` +
			sexualJSON + `»],` + config + `}`,
		"category null": `{"safetySettings":[{"category":null},null,{},[],"HARM_CATEGORY_HARASSMENT"«,` +
			settingsJSON + `»],` + config + `}`,
		"other categories": `{"safetySettings":[{"category":"HARM_CATEGORY_CIVIC_INTEGRITY","threshold":"OFF"}«,` +
			settingsJSON + `»],` + config + `}`,
		"nested category": `{"safetySettings":[{"x":{"category":"HARM_CATEGORY_HARASSMENT"}},[{"category":7}]«,` +
			settingsJSON + `»],` + config + `}`,
		"safety is a string":  `{"safetySettings":"x",` + config + `}`,
		"safety is an object": `{"safetySettings":{"category":7},` + config + `}`,
		"safety is false":     `{"safetySettings":false,` + config + `}`,

		"config null":               `{` + safety + `,"generationConfig":‹null›«{"responseModalities":[` + modalitiesJSON + `]}» }`,
		"config null snake":         `{` + safety + `,"generation_config":‹null›«{"response_modalities":[` + modalitiesJSON + `]}»}`,
		"config empty":              `{` + safety + `,"generationConfig":{ «"responseModalities":[` + modalitiesJSON + `]»}}`,
		"config snake":              `{` + safety + `,"generation_config":{«"response_modalities":[` + modalitiesJSON + `]»}}`,
		"config with members":       `{` + safety + `,"generationConfig":{"temperature":1«,"responseModalities":[` + modalitiesJSON + `]»}}`,
		"config with snakes":        `{` + safety + `,"generationConfig":{"image_config":{}«,"response_modalities":[` + modalitiesJSON + `]»}}`,
		"config with snakes within": `{` + safety + `,"generationConfig":{"thinkingConfig":{"include_thoughts":true}«,"responseModalities":[` + modalitiesJSON + `]»}}`,
		"config is a string":        `{` + safety + `,"generationConfig":"x"}`,
		"config is an array":        `{` + safety + `,"generationConfig":[{}]}`,

		"modalities null":        `{` + safety + `,"generationConfig":{"responseModalities":‹null›«[` + modalitiesJSON + `]»,"topP":1}}`,
		"modalities empty":       `{` + safety + `,"generationConfig":{"responseModalities":[«` + modalitiesJSON + `»],"topP":1}}`,
		"modalities snake":       `{` + safety + `,"generationConfig":{"response_modalities":[«` + modalitiesJSON + `»]}}`,
		"modalities set":         `{` + safety + `,"generationConfig":{"responseModalities":["Image"]}}`,
		"modalities are numbers": `{` + safety + `,"generation_config":{"response_modalities":[2]}}`,
		"modalities a string":    `{` + safety + `,"generationConfig":{"responseModalities":"IMAGE"}}`,
		"modalities an object":   `{` + safety + `,"generationConfig":{"responseModalities":{}}}`,

		"root in snake_case": `{"system_instruction":{}«,"safety_settings":[` + settingsJSON +
			`],"generation_config":{"response_modalities":[` + modalitiesJSON + `]}»}`,
		"root in snake_case by its config": `{"generation_config":{"response_modalities":[1]}«,"safety_settings":[` + settingsJSON + `]»}`,
		"snakes elsewhere":                 `{"contents":[{"inline_data":{"mime_type":"a_b"}}]«,` + bothTail + `»}`,

		"both, one set":               `{"safetySettings":[],"safety_settings":[` + settingsJSON + `],` + config + `}`,
		"both, other set":             `{"safety_settings":[` + settingsJSON + `],"safetySettings":null,` + config + `}`,
		"both, none set":              `{"safetySettings":‹null›«[` + settingsJSON + `]»,"safety_settings":[],` + config + `}`,
		"both set in part":            `{"safetySettings":[{"category":7}],"safety_settings":[{"category":8}«,` + harassmentJSON + "," + sexualJSON + "," + dangerousJSON + `»],` + config + `}`,
		"both configs":                `{` + safety + `,"generationConfig":{},"generation_config":{"topK":1«,"response_modalities":[` + modalitiesJSON + `]»}}`,
		"both configs, set":           `{` + safety + `,"generationConfig":{"topK":1},"generation_config":{"responseModalities":["TEXT"]}}`,
		"both configs, empty":         `{` + safety + `,"generationConfig":{«"responseModalities":[` + modalitiesJSON + `]»},"generation_config":{}}`,
		"both configs, neither empty": `{` + safety + `,"generationConfig":{"topK":1},"generation_config":{"topK":1«,"response_modalities":[` + modalitiesJSON + `]»}}`,
		"both modalities":             `{` + safety + `,"generationConfig":{"responseModalities":[],"response_modalities":["TEXT"]}}`,

		"text like keys": `{"contents":[{"parts":[{"text":"\"safetySettings\":[],\"generationConfig\":{}}"}]}],"x":"\\"«,` + bothTail + `»}`,
		"keys elsewhere": `{"contents":[{"safetySettings":[],"generationConfig":{"responseModalities":["IMAGE"]}}],` +
			`"x":{"safetySettings":null}«,` + bothTail + `»}`,
		"keys in each other": `{"generationConfig":{"safetySettings":[]«,"responseModalities":[` + modalitiesJSON + `]»},` +
			`"responseModalities":[]«,` + safety + `»}`,

		"not an object: array":  `[{"safetySettings":null}]`,
		"not an object: string": `"safetySettings"`,
		"not an object: null":   ` null`,
		"not an object: number": `12`,
	}
	strip := func(s, from, to string, keep bool) string {
		for {
			before, rest, found := strings.Cut(s, from)
			if !found {
				return s
			}
			marked, after, _ := strings.Cut(rest, to)
			if !keep {
				marked = ""
			}
			s = before + marked + after
		}
	}
	for name, marked := range tests {
		t.Run(name, func(t *testing.T) {
			body := strip(strip(marked, "«", "»", false), "‹", "›", true)
			want := strip(strip(marked, "«", "»", true), "‹", "›", false)
			got, _ := complete(t, body, testCompletion)
			if got != want {
				t.Errorf("%s\n got %s\nwant %s", body, got, want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("not JSON: %s", got)
			}
			if again, _ := complete(t, got, testCompletion); again != got && !strings.HasPrefix(name, "both") {
				t.Errorf("a completed body was completed again: %s", again)
			}
			if same, _ := complete(t, body, completion{}); same != body {
				t.Errorf("nothing was asked for, but: %s", same)
			}
		})
	}
}

func TestCompleteVertexNumbers(t *testing.T) {
	body := `{"safetySettings":[{"category":1},{"category":3}]}`
	got, _ := complete(t, body, completion{safety: testSafety, vertex: true})
	if want := `{"safetySettings":[{"category":1},{"category":3},` + sexualJSON + "," + dangerousJSON + `]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCompleteModel(t *testing.T) {
	asked := completion{renames: true}
	other := rendering{model: func(model string) string {
		if model == "kept" {
			return model
		}
		return `other "model"`
	}}
	for body, want := range map[string]string{
		`{"model" : "gemini\u002d2","input":"a"}`:           `{"model" : "other \"model\"","input":"a"}`,
		`{"a":{"model":"x"},"model":"y"}`:                   `{"a":{"model":"x"},"model":"other \"model\""}`,
		`{"model":"x","model":"y"}`:                         `{"model":"other \"model\"","model":"other \"model\""}`,
		`{"model":"other \"model\""}`:                       `{"model":"other \"model\""}`,
		`{"model":"k\u0065pt"}`:                             `{"model":"k\u0065pt"}`,
		`{"model":null}`:                                    `{"model":null}`,
		`{"prompt":"model"}`:                                `{"prompt":"model"}`,
		`{"model":"` + strings.Repeat("m", 2*maxKey) + `"}`: `{"model":"other \"model\""}`,
	} {
		if got, _ := completeAs(t, body, asked, other); got != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
		if got, _ := completeAs(t, body, completion{}, other); got != body {
			t.Errorf("nothing may be replaced, but %s\n became %s", body, got)
		}
		if got, _ := complete(t, body, asked); got != body {
			t.Errorf("nothing is replaced, but %s\n became %s", body, got)
		}
	}
	many := `{"model":"x"` + strings.Repeat(`,"model":"x"`, maxModels) + `}`
	if _, comp, err := runCompleter(t, many, asked, 7); !errors.Is(err, errMalformed) || !comp.needed() {
		t.Errorf("%d models: %v, needed() = %t", maxModels+1, err, comp.needed())
	}
}

func TestWants(t *testing.T) {
	tests := map[string]struct {
		body string
		want wants
	}{
		"nothing":           {`{"contents":[]}`, wants{}},
		"text and image":    {`{"generationConfig":{"responseModalities":["TEXT","IMAGE"]}}`, wants{images: true}},
		"mixed case":        {`{"generationConfig":{"responseModalities":["Text","Image"]}}`, wants{images: true}},
		"image alone":       {`{"generationConfig":{"responseModalities":["IMAGE"]}}`, wants{images: true, imagesAlone: true}},
		"image by number":   {`{"generation_config":{"response_modalities":[2]}}`, wants{images: true, imagesAlone: true}},
		"numbers":           {`{"generation_config":{"response_modalities":[1,2]}}`, wants{images: true}},
		"text alone":        {`{"generationConfig":{"responseModalities":["TEXT"]}}`, wants{}},
		"audio":             {`{"generationConfig":{"responseModalities":[3]}}`, wants{}},
		"image config":      {`{"generationConfig":{"imageConfig":{}}}`, wants{images: true, imagesAlone: true}},
		"image config null": {`{"generationConfig":{"image_config":null}}`, wants{}},
		"response format":   {`{"generationConfig":{"responseFormat":{"image":{"imageSize":"1K"}}}}`, wants{images: true, imagesAlone: true}},
		"interactions":      {`{"model":"m","response_modalities":["image"],"stream":true}`, wants{images: true, imagesAlone: true, stream: true, model: "m"}},
		"format image":      {`{"input":"a","response_format":{"type":"image","aspect_ratio":"1:1"}}`, wants{images: true, imagesAlone: true}},
		"formats":           {`{"response_format":[{"type":"image"},{"type":"text","mime_type":"application/json"}]}`, wants{images: true}},
		"images as formats": {`{"response_format":[{"type":"image"}]}`, wants{images: true, imagesAlone: true}},
		"other formats":     {`{"response_format":[{"type":"text"},"image",null]}`, wants{}},
		"no format":         {`{"response_format":"b64_json"}`, wants{}},
		"image of config":   {`{"input":"a","generation_config":{"image_config":{"image_size":"2K"}}}`, wants{images: true, imagesAlone: true}},
		"modalities":        {`{"model":"m","messages":[],"modalities":["image","text"]}`, wants{images: true, model: "m"}},
		"one modality":      {`{"modalities":["image"]}`, wants{images: true, imagesAlone: true}},
		"other modalities":  {`{"modalities":["text","audio"]}`, wants{}},
		"goes on":           {`{"input":"a","previous_interaction_id":"v1_Ab-_"}`, wants{ties: []string{"interaction:v1_Ab-_"}}},
		"not streaming":     {`{"model":"m","stream":false}`, wants{model: "m"}},
		"thoughts":          {`{"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}`, wants{thoughts: true}},
		"thoughts in snake": {`{"generation_config":{"thinking_config":{"include_thoughts":true}}}`, wants{thoughts: true}},
		"no thoughts":       {`{"generationConfig":{"thinkingConfig":{"includeThoughts":false}}}`, wants{}},
		"elsewhere":         {`{"x":{"generationConfig":{"imageConfig":{}}},"contents":[{"model":"m","stream":true}]}`, wants{}},
		"off": {
			`{"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"OFF"},{"threshold":5,"category":8},{"threshold":"OFF"}]}`,
			wants{notes: []string{"threshold OFF for HARM_CATEGORY_HARASSMENT", "threshold OFF for HARM_CATEGORY_HATE_SPEECH"}},
		},
		"old categories": {
			`{"safetySettings":[{"category":"HARM_CATEGORY_CIVIC_INTEGRITY"},{"category":11},{"category":"HARM_CATEGORY_TOXICITY"},{"category":"<script>","threshold":"OFF"}]}`,
			wants{notes: []string{"deprecated category HARM_CATEGORY_CIVIC_INTEGRITY", "PaLM category HARM_CATEGORY_TOXICITY"}},
		},
		"misplaced":     {`{"generationConfig":{"safety_settings":[{"category":7}]}}`, wants{notes: []string{noteMisplaced}}},
		"not misplaced": {`{"generationConfig":{"safetySettings":null}}`, wants{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, asked := range []completion{{}, testCompletion} {
				if _, comp := complete(t, tt.body, asked); !reflect.DeepEqual(comp.wants(), tt.want) {
					t.Errorf("%s\n got %+v\nwant %+v", tt.body, comp.wants(), tt.want)
				}
			}
		})
	}
}

func TestCompleterRefusesMalformed(t *testing.T) {
	const set = `"safetySettings":[` + settingsJSON + `],"generationConfig":{"responseModalities":["IMAGE"]}`
	tests := map[string]struct {
		body   string
		offset int64
		needed bool
	}{
		"empty":              {"", 0, true},
		"white space":        {" \n", 2, true},
		"truncated":          {`{"contents":[`, 13, true},
		"no JSON":            {`a=b`, 0, true},
		"trailing comma":     {`{"a":1,}`, 7, true},
		"two documents":      {`{} {}`, 3, true},
		"bad null":           {`{"safetySettings":nil}`, 19, true},
		"array":              {`[1,}`, 3, false},
		"after the settings": {`{` + set + `,"contents":x}`, int64(len(set)) + 13, false},
	}
	for name, tt := range tests {
		for piece := 1; piece <= 64; piece++ {
			_, comp, err := runCompleter(t, tt.body, testCompletion, piece)
			var malformed *jsonError
			if !errors.As(err, &malformed) || malformed.offset != tt.offset || !errors.Is(err, errMalformed) {
				t.Errorf("%s: got %v, want an error at %d", name, err, tt.offset)
			}
			if comp.needed() != tt.needed {
				t.Errorf("%s: needed() = %t", name, comp.needed())
			}
			if _, comp, _ := runCompleter(t, tt.body, completion{}, piece); comp.needed() {
				t.Errorf("%s: needed although nothing was asked for", name)
			}
		}
	}
}

// TestSafe has the bodies of SDKs stream and others wait where they must.
func TestSafe(t *testing.T) {
	const set = `"safetySettings":[` + settingsJSON + `],"generationConfig":{"responseModalities":["IMAGE"]}`
	tests := map[string]struct {
		sent, held string // of a body that is still being read
	}{
		"contents first":   {`{"contents":[{"parts":[{"text":"`, ``},
		"settings first":   {`{` + set + `,"contents":["`, ``},
		"settings in part": {`{"safetySettings":[{"category":7}`, `],"contents":["`},
		"settings empty":   {`{"safetySettings":[`, `],"contents":["`},
		"settings null":    {`{"safetySettings":`, `nu`},
		"settings string":  {`{"safetySettings":"nu`, ``},
		"settings later":   {`{"safetySettings":[],` + set + `,"contents":["`, ``},
		"open list":        {`{"safetySettings":[{"category":7},{`, ``},
		"config":           {`{"generationConfig":{"temperature":1`, `},"contents":["`},
		"end":              {`{"contents":[]`, `}`},
		"complete end":     {`{` + set + `}`, ``},
		"array":            {`[null,"`, ``},
		"other literals":   {`{"tools":nul`, ``},
	}
	for name, tt := range tests {
		body := tt.sent + tt.held
		for piece := 1; piece <= len(body); piece++ {
			comp := newCompleter(testCompletion)
			for part := range slices.Chunk([]byte(body), piece) {
				if err := comp.write(part); err != nil {
					t.Fatal(name, err)
				}
			}
			if got := comp.safe(); got != int64(len(tt.sent)) {
				t.Errorf("%s: safe up to %q, want %q", name, body[:got], tt.sent)
			}
		}
	}
}
