// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// FuzzDialect compares the edits of a body with what a plain program makes of its
// values.
func FuzzDialect(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `"x"`, ` 12 `, `{"labels":{},"contents":[{},{"role":null},{"parts":[{"partMetadata":1,"text":"a"}]}]}`,
		`{"safetySettings":[{"category":6},{"category":7,"method":2},{"category":"HARM_CATEGORY_TOXICITY"},null,[{"category":1}]]}`,
		`{"safety_settings":{"category":10,"method":null},"store":"","generation_config":{"image_config":{"output_mime_type":"a"},"model_config":1}}`,
		`{"generationConfig":{"responseFormat":{"image":{"aspectRatio":"16:9","imageSize":"1K"}},"audioTimestamp":1,"responseModalities":["VIDEO",4]}}`,
		`{"generationConfig":{"audioTimestamp":true,"responseFormat":[[],{"image":{"mimeType":"image\/jpeg"}}]},"store":1}`,
		`{"tools":[{"fileSearch":{}},{"exa_ai_search":null}],"cached\u0043ontent":"\u0061"}`, `{"contents":{"role":"","parts":{"fileData":{"fileUri":"gs://b"}}}}`,
		`{"safetySettings":[{"category":"HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT"}]}`,
		`{"generationConfig":[{"audioTimestamp":1}],"contents":[[{"parts":[[{"partMetadata":[]}]]}]]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if json.Valid(body) {
			checkDialects(t, string(body))
		}
	})
}

// TestDialectRandom does the same with bodies of fields that matter.
func TestDialectRandom(t *testing.T) {
	bodies := newBodies(dialectSchema, `12345678901234567890123456789012345678901234567890`, `"HARM_CATEGORY_JAILBREAK"`, `"harm_category_medical"`, `"gs://b"`, `"16:9"`, `"VIDEO"`, `"user"`, `"files/a"`, `6`)
	for range 2000 {
		checkDialects(t, bodies.next())
	}
}

// checkDialects takes a body to both APIs, and back.
func checkDialects(t *testing.T, body string) {
	t.Helper()
	for _, toVertex := range []bool{true, false} {
		there := checkDialect(t, body, toVertex)
		if there == "" {
			continue
		}
		checkDialect(t, there, !toVertex)
		if again := checkDialect(t, there, toVertex); again != there {
			t.Fatalf("%q became %q, and then %q", body, there, again)
		}
		for _, c := range []completion{testCompletion, {safety: testSafety}, {modalities: []string{"IMAGE"}}} {
			if got := dialectCompleted(t, body, toVertex, c); !json.Valid([]byte(got)) {
				t.Fatalf("%q with additions is no JSON: %q", body, got)
			}
		}
	}
}

// checkDialect returns the body for the other API; "" if it cannot go there.
func checkDialect(t *testing.T, body string, toVertex bool) string {
	t.Helper()
	d, foreign, err := dialectEdits(strings.NewReader(body), toVertex)
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	got := applyEdits(body, d.edits)
	if !json.Valid([]byte(got)) {
		t.Fatalf("%q to Vertex AI (%t) is no JSON: %q", body, toVertex, got)
	}
	if hasDuplicates([]byte(body)) {
		return "" // what they mean is for Google to say
	}
	m := &dialectModel{toVertex: toVertex, dropped: map[string]bool{}}
	want, _ := m.convert("", decodeJSON(t, body), false)
	if m.foreign != (foreign != nil) {
		t.Fatalf("%q to Vertex AI (%t): foreign %v", body, toVertex, foreign)
	}
	if foreign != nil {
		return ""
	}
	if !reflect.DeepEqual(decodeJSON(t, got), want) {
		t.Fatalf("%q to Vertex AI (%t)\ngot  %q\nwant %v", body, toVertex, got, want)
	}
	if !slices.Equal(slices.Sorted(slices.Values(d.dropped)), slices.Sorted(maps.Keys(m.dropped))) {
		t.Fatalf("%q to Vertex AI (%t) drops %q, not %v", body, toVertex, d.dropped, m.dropped)
	}
	return got
}

// dialectModel does with values what a dialectScanner does with bytes.
type dialectModel struct {
	toVertex, foreign bool
	dropped           map[string]bool
}

var dialectLists = map[string]bool{
	"contents": true, "contents.parts": true, "safetySettings": true, "tools": true,
	"generationConfig.responseModalities": true, "generationConfig.responseFormat": true,
}

// convert returns what becomes of a value, and whether it stays at all.
func (m *dialectModel) convert(path string, v any, inList bool) (result any, stays bool) {
	isSet := v != nil && v != "" && !reflect.DeepEqual(v, []any{}) && !reflect.DeepEqual(v, map[string]any{})
	for _, lonely := range lonelyFields {
		switch {
		case lonely.path != path || (lonely.home == formatVertex) == m.toVertex:
		case lonely.foreign:
			m.foreign = m.foreign || v != nil && v != ""
		default:
			if isSet {
				m.dropped[path] = true
			}
			return nil, false
		}
	}
	switch v := v.(type) {
	case map[string]any:
		return m.object(path, v, inList)
	case []any:
		if !dialectLists[path] {
			return v, true
		}
		list := []any{}
		for _, element := range v {
			if element, stays := m.convert(path, element, true); stays {
				list = append(list, element)
			}
		}
		if path != "generationConfig.responseFormat" || m.toVertex {
			return list, true
		}
		m.foreign = m.foreign || len(list) > 1
		return append(list, map[string]any{})[0], true
	default:
		return m.scalar(path, v), true
	}
}

func (m *dialectModel) object(path string, v map[string]any, inList bool) (any, bool) {
	out := map[string]any{}
	for key, member := range v {
		at := m.below(path, key)
		if at == "" {
			out[key] = member
		} else if member, stays := m.convert(at, member, false); stays {
			out[key] = member
		}
	}
	switch path {
	case "contents":
		if _, hasRole := out["role"]; m.toVertex && !hasRole {
			out["role"] = "user"
		}
	case "safetySettings":
		kind, text := jsonString, ""
		switch category := v["category"].(type) {
		case json.Number:
			kind, text = jsonNumber, category.String()
			text = text[:min(len(text), maxScalar)]
		case string:
			text = category
		}
		h := findCategory(kind, []byte(text), !m.toVertex)
		if h.name != "" && (m.toVertex && h.vertex < 0 || !m.toVertex && h.gemini < 0) {
			m.dropped[h.name] = true
			return nil, false
		}
		if h.name != "" && kind == jsonNumber {
			out["category"] = h.name
		}
	case "generationConfig.responseFormat":
		if m.toVertex && !inList {
			return []any{out}, true
		}
	}
	return out, true
}

// below is the path of a member; "" if nothing is known of it.
func (m *dialectModel) below(path, key string) string {
	f := dialectSchema
	for step := range strings.SplitSeq(path, ".") {
		if path != "" {
			f = f.members[step]
		}
	}
	for name, member := range f.members {
		if member == f.members[key] && f.members[key] != nil && !strings.Contains(name, "_") {
			return strings.TrimPrefix(path+"."+name, ".")
		}
	}
	return ""
}

func (m *dialectModel) scalar(path string, v any) any {
	text, isString := v.(string)
	switch path {
	case "contents.role":
		if (v == nil || v == "") && m.toVertex {
			return "user"
		}
	case "contents.parts.fileData.fileUri":
		m.foreign = m.foreign || m.toVertex && isFileOfAPI(text) || !m.toVertex && strings.HasPrefix(text, "gs://")
	case "cachedContent":
		m.foreign = m.foreign || v != nil && v != ""
	case "generationConfig.responseModalities":
		number, _ := v.(json.Number)
		n, err := number.Float64()
		m.foreign = m.foreign || !m.toVertex && (strings.EqualFold(text, "VIDEO") || err == nil && n == 4)
	default:
		if word := formatWords[text]; isString && word != "" && m.toVertex && strings.HasPrefix(path, "generationConfig.responseFormat.image.") {
			return word
		}
	}
	return v
}

func decodeJSON(t testing.TB, text string) (v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return v
}

// hasDuplicates tells that an object has a key twice, or in two spellings: whatever
// becomes of it, no decoder tells.
func hasDuplicates(body []byte) bool {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	var stack []map[string]bool // nil for a list
	isKey := false
	for {
		token, err := d.Token()
		if err == io.EOF {
			return false
		}
		if len(stack) > 0 && stack[len(stack)-1] != nil {
			isKey = !isKey
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				stack = append(stack, map[json.Delim]map[string]bool{'{': {}}[token])
				isKey = false
				continue
			}
			stack = stack[:len(stack)-1]
			isKey = false
		case string:
			if isKey {
				if key := snakeCase(token); stack[len(stack)-1][key] {
					return true
				} else {
					stack[len(stack)-1][key] = true
				}
			}
		}
	}
}
