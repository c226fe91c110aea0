// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// TestDialectGolden has a body, what becomes of it in the API that the name of its
// file begins with, and what is left out, or why it cannot go there.
func TestDialectGolden(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "translate", "dialect", "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n----------\n")
			if len(golden) != 3 {
				t.Fatalf("%d sections, not body, result and remarks", len(golden))
			}
			toVertex := strings.HasPrefix(filepath.Base(path), "vertex_")
			result, remarks := dialectOf(t, golden[0], toVertex)
			if result != golden[1] || remarks != golden[2] {
				t.Errorf("got\n%s\n%s\nwant\n%s\n%s", result, remarks, golden[1], golden[2])
			}
		})
	}
}

// dialectOf is the same for pieces of any size.
func dialectOf(t *testing.T, body string, toVertex bool) (result, remarks string) {
	t.Helper()
	d, foreign, err := dialectEdits(strings.NewReader(body), toVertex)
	again, _, _ := dialectEdits(iotest.OneByteReader(strings.NewReader(body)), toVertex)
	if err != nil || !slices.EqualFunc(d.edits, again.edits, sameEdit) {
		t.Fatalf("edits %v, byte by byte %v: %v", d.edits, again.edits, err)
	}
	if foreign != nil {
		return body, "foreign " + foreign.param + ": " + foreign.message
	}
	return applyEdits(body, d.edits), "dropped " + strings.Join(d.dropped, ", ")
}

func sameEdit(a, b edit) bool {
	return a.at == b.at && a.remove == b.remove && bytes.Equal(a.insert, b.insert)
}

// TestLonelyFields sends every field of one API alone to the other, among others and
// without them.
func TestLonelyFields(t *testing.T) {
	const number = `"b" : 12345678901234567890123456789012345678901`
	for _, lonely := range lonelyFields {
		for _, around := range [][2][]string{{}, {{`"a":1`}, nil}, {nil, {`"b":[2]`}}, {{`"a":"x" `, number}, {number}}} {
			steps := strings.Split(lonely.path, ".")
			name := steps[len(steps)-1]
			within := func(members ...string) string {
				object := "{" + strings.Join(members, " , ") + "}"
				for _, step := range slices.Backward(steps[:len(steps)-1]) {
					if step == "tools" || step == "parts" || step == "contents" {
						object = "[" + object + "]"
					}
					object = `{"` + snakeCase(step) + `":` + object + `}`
				}
				return object
			}
			body := within(slices.Concat(around[0], []string{`"` + name + `" : {"x":[1,{}]}`}, around[1])...)
			toVertex := lonely.home == formatGemini
			result, remarks := dialectOf(t, body, toVertex)
			rest := within(slices.Concat(around[0], around[1])...)
			switch {
			case lonely.foreign && !strings.HasPrefix(remarks, "foreign "+lonely.path+": "):
				t.Errorf("%s: %s", body, remarks)
			case !lonely.foreign && (remarks != "dropped "+lonely.path || !sameButForRoles(t, result, rest)):
				t.Errorf("%s\nbecame %s, not %s; %s", body, result, rest, remarks)
			}
			if home, remarks := dialectOf(t, body, !toVertex); strings.Contains(remarks, name) || !strings.Contains(home, name) {
				t.Errorf("%s, which stays, became %s: %s", body, home, remarks)
			}
		}
	}
}

// sameButForRoles compares bodies by value. The role of the user is the default.
func sameButForRoles(t testing.TB, a, b string) bool {
	t.Helper()
	var values [2]any
	for i, text := range [...]string{a, b} {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&values[i]); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		dropRoles(values[i])
	}
	return reflect.DeepEqual(values[0], values[1])
}

func dropRoles(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["role"] == "user" {
			delete(v, "role")
		}
		for _, member := range v {
			dropRoles(member)
		}
	case []any:
		for _, element := range v {
			dropRoles(element)
		}
	}
}

func compactJSON(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return b.String()
}

// TestDialectAndAdditions adds to what has lost all it had.
func TestDialectAndAdditions(t *testing.T) {
	const (
		settings = `"safetySettings":[` + settingsJSON + `]`
		config   = `"generationConfig":{"responseModalities":[` + modalitiesJSON + `]}`
	)
	for body, want := range map[string]string{
		`{"labels":{}}`: `{` + settings + `,` + config + `}`,
		`{"safetySettings":[{"category":"HARM_CATEGORY_JAILBREAK"} ]}`:                               `{` + settings + `,` + config + `}`,
		`{"safetySettings":[{"category":10},{"category":6}],"generationConfig":{"modelConfig":{} }}`: `{` + settings + `,` + config + `}`,
		`{"labels":1,"safetySettings":[],"generationConfig":{"modelConfig":{},"topK":1}}`:            `{` + settings + `,"generationConfig":{"topK":1,"responseModalities":[` + modalitiesJSON + `]}}`,
		`{"generationConfig":{"topK":1,"modelConfig":{}},"labels":{"a":"b"}}`:                        `{"generationConfig":{"topK":1,"responseModalities":[` + modalitiesJSON + `]},` + settings + `}`,
	} {
		if got := dialectCompleted(t, body, false, testCompletion); compactJSON(t, got) != want {
			t.Errorf("%s\n got %s\nwant %s", body, got, want)
		}
	}
}

// dialectCompleted is a body with the changes of a dialect and all else that is
// changed in a body; "" if it cannot be had.
func dialectCompleted(t testing.TB, body string, toVertex bool, c completion) string {
	t.Helper()
	d, foreign, err := dialectEdits(strings.NewReader(body), toVertex)
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	if foreign != nil {
		return ""
	}
	c.vertex = !toVertex
	slots, _, err := runCompleter(t, body, c, len(body)+1)
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	for i := range slots {
		slots[i].joins = slots[i].joins || slices.Contains(d.emptied, slots[i].at)
	}
	said, err := lastTurn(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	var prompt []edit
	for _, text := range said {
		prompt = append(prompt, edit{text.at, int(text.end - text.at), []byte(`"other"`)})
	}
	edits := merged(merged(prompt, d.edits), (&rendering{}).resolve(slots))
	end := int64(0)
	for _, e := range edits {
		if e.at < end {
			t.Fatalf("%q: %v reaches into what is before it", body, e)
		}
		end = e.at + int64(e.remove)
	}
	return applyEdits(body, edits)
}

func TestDialectLimits(t *testing.T) {
	many := `{"contents":[` + strings.TrimSuffix(strings.Repeat(`{},`, maxDialectEdits), ",") + `]}`
	if d, foreign, err := dialectEdits(strings.NewReader(many), true); len(d.edits) != maxDialectEdits || foreign != nil || err != nil {
		t.Errorf("%d edits, foreign %v: %v", len(d.edits), foreign, err)
	}
	more := strings.Replace(many, "{},", "{},{},", 1)
	if d, foreign, err := dialectEdits(strings.NewReader(more), true); len(d.edits) > 0 || foreign == nil || err != nil {
		t.Errorf("%d edits, foreign %v: %v", len(d.edits), foreign, err)
	}
	if _, _, err := dialectEdits(strings.NewReader(`{"contents":[}`), true); !errors.Is(err, errMalformed) {
		t.Errorf("a broken body: %v", err)
	}
	broken := errors.New("broken")
	if _, _, err := dialectEdits(iotest.ErrReader(broken), true); !errors.Is(err, broken) {
		t.Errorf("a broken reader: %v", err)
	}
}

// TestDialectRecorded takes recorded requests to Vertex AI and back.
func TestDialectRecorded(t *testing.T) {
	for name, body := range requestFixtures(t) {
		there, remarks := dialectOf(t, string(body), true)
		if remarks != "dropped " {
			t.Errorf("%s: %s", name, remarks)
		}
		back, remarks := dialectOf(t, there, false)
		if remarks != "dropped " || !sameButForRoles(t, back, string(body)) {
			t.Errorf("%s: %s\n%s", name, remarks, back)
		}
	}
}
