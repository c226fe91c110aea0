// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// printed returns both prints of a body, which must not depend on how it is cut.
func printed(t testing.TB, body, model string) string {
	t.Helper()
	var prints []string
	for _, size := range []int{len(body) + 1, 1, 2, 3, 7, 64} {
		quick, err := quickPrint(&pieces{body: body, size: size}, model)
		if err != nil {
			t.Fatalf("%q in pieces of %d: %v", body, size, err)
		}
		strong, err := strongPrint(&pieces{body: body, size: size}, model)
		if err != nil {
			t.Fatalf("%q in pieces of %d: %v", body, size, err)
		}
		prints = append(prints, fmt.Sprintf("%x %x", quick, strong))
	}
	if len(slices.Compact(slices.Clone(prints))) != 1 {
		t.Errorf("%q in pieces: %q", body, prints)
	}
	return prints[0]
}

const printBody = `{"contents":[{"role":"user","parts":[{"text":"a cat/é😀"},{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},` +
	`{"role":"model","parts":[{"functionCall":{"name":"f","args":{"n":1,"s":["x",null,true]}}}]}],` +
	`"systemInstruction":{"parts":[{"text":"be brief"}]},` +
	`"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"},{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"OFF"}],` +
	`"generationConfig":{"seed":1}}`

func TestPrintIsByValue(t *testing.T) {
	want := printed(t, printBody, "m")
	for name, replace := range map[string][]string{
		"white space":        {`":`, "\" :\r\n\t", `{`, "{ "},
		"escapes":            {`a cat/é😀`, `\u0061 cat\/\u00e9\ud83d\uDE00`, `"role"`, `"r\u006fle"`, `image/png`, `image\/png`},
		"snake_case":         {`inlineData`, `inline_data`, `mimeType`, `mime_type`, `safetySettings`, `safety_settings`, `systemI`, `system_i`},
		"order of keys":      {`"mimeType":"image/png","data":"aGVsbG8="`, `"data":"aGVsbG8=","mimeType":"image/png"`},
		"null":               {`"role":"model"`, `"role":"model","x":null`, `{"contents"`, `{"tools":[],"messages":null,"contents"`},
		"numbers":            {`"n":1`, `"n":10.0e-1`},
		"no role":            {`"role":"user",`, ``},
		"empty role":         {`"role":"user"`, `"role":""`},
		"role of a system":   {`"systemInstruction":{`, `"systemInstruction":{"role":"user",`},
		"generationConfig":   {`"seed":1`, `"seed":2,"responseModalities":["IMAGE"]`},
		"no config":          {`,"generationConfig":{"seed":1}`, ``},
		"everything else":    {`{"contents"`, `{"labels":{"a":"b"},"stream":true,"id":7,"model":"x","tools":[{}],"contents"`},
		"order of settings":  {`{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"},{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"OFF"}`, `{"threshold":"OFF","category":"HARM_CATEGORY_HATE_SPEECH"},{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"}`},
		"nothing of a value": {},
	} {
		body := strings.NewReplacer(replace...).Replace(printBody)
		if body == printBody && len(replace) > 0 {
			t.Errorf("%s: nothing was replaced", name)
		}
		if got := printed(t, body, "m"); got != want {
			t.Errorf("%s makes a difference: %s", name, body)
		}
	}
}

func TestPrintTellsApart(t *testing.T) {
	prints := map[string]string{printed(t, printBody, "m"): "the original", printed(t, printBody, "m2"): "model"}
	for name, replace := range map[string][]string{
		"text":              {`a cat`, `a bat`},
		"image":             {`aGVsbG8=`, `aGVsbG9=`},
		"type of the image": {`image/png`, `image/jpeg`},
		"threshold":         {`"BLOCK_NONE"`, `"BLOCK_ONLY_HIGH"`},
		"swapped settings":  {`"BLOCK_NONE"`, `"OFF"`, `"OFF"`, `"BLOCK_NONE"`},
		"system":            {`be brief`, `be long`},
		"role":              {`"model"`, `"user"`},
		"number":            {`"n":1`, `"n":11`},
		"sign":              {`"n":1`, `"n":-1`},
		"power":             {`"n":1`, `"n":0.1`},
		"number as text":    {`"n":1`, `"n":"1"`},
		"null in a list":    {`null,true`, `true`},
		"true":              {`null,true`, `null,false`},
		"order of a list":   {`"x",null`, `null,"x"`},
		"order of parts":    {`{"text":"a cat/é😀"},{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}`, `{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}},{"text":"a cat/é😀"}`},
		"another member":    {`"name":"f"`, `"name":"f","id":""`},
		"another key":       {`"name":"f"`, `"nome":"f"`},
		"nesting":           {`["x",null,true]`, `[["x",null,true]]`},
		"cut elsewhere":     {`"x",null`, `"x","",null`},
		"no settings":       {`"safetySettings"`, `"other"`},
		"halves moved":      {`"parts":[{"text":"a cat/é😀"},`, `"parts":[{"text":"a cat"},{"text":"/é😀"},`},
	} {
		body := strings.NewReplacer(replace...).Replace(printBody)
		print := printed(t, body, "m")
		if other, ok := prints[print]; ok {
			t.Errorf("%s and %s have the same print", name, other)
		}
		prints[print] = name
	}
}

func TestPrintSurfaces(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{`{"instances":[{"prompt":"a"}],"parameters":{"n":1}}`, `{"instances":[{"prompt":"a"}]}`, true},
		{`{"instances":[{"prompt":"a"}]}`, `{"instances":[{"prompt":"b"}]}`, false},
		{`{"prompt":"a","n":1}`, `{"n":2,"prompt":"\u0061"}`, true},
		{`{"prompt":"a"}`, `{"prompt":"b"}`, false},
		{`{"messages":[{"role":"user","content":"a"}],"stream":true}`, `{"messages":[{"content":"a","role":"user"}]}`, true},
		{`{"messages":[{"role":"user","content":"a"}]}`, `{"messages":[{"role":"system","content":"a"}]}`, false},
		{`{"extra_body":{"google":{"safety_settings":[1,2],"x":1}}}`, `{"extraBody":{"google":{"safetySettings":[2,1]}}}`, true},
		{`{"extra_body":{"google":{"safety_settings":[1]}}}`, `{"extra_body":{"google":{"safety_settings":[2]}}}`, false},
		{`{"extra_body":{"safety_settings":[1]}}`, `{"extra_body":{"safety_settings":[2]}}`, false},
		{`{"contents":{"role":"user","parts":{"text":"a"}}}`, `{"contents":{"parts":{"text":"a"}}}`, true},
		{`{"contents":"a"}`, `{"contents":"b"}`, false},
		{`{"contents":["a"]}`, `{"contents":["b"]}`, false},
		{`{"contents":[{"role":true}]}`, `{"contents":[{}]}`, false},
		{`{"contents":[{"role":{"a":"b"}}]}`, `{"contents":[{"role":{"a":"c"}}]}`, false},
		{`{"prompt":"a","image":"data:A"}`, `{"prompt":"a","image":"data:B"}`, false},
		{`{"prompt":"a","images":[{"image_url":"A"}],"mask":{"image_url":"C"}}`, `{"prompt":"a","images":[{"image_url":"B"}],"mask":{"image_url":"C"}}`, false},
		{`{"model":"m","input":"a","stream":true,"response_modalities":["image"]}`, `{"input":"\u0061","store":false}`, true},
		{`{"input":"a"}`, `{"input":"b"}`, false},
		{`{"input":[{"type":"text","text":"a"},{"type":"image","mime_type":"image/png","data":"QQ"}]}`, `{"input":[{"text":"a","type":"text"},{"data":"QQ","mimeType":"image/png","type":"image"}]}`, true},
		{`{"input":[{"type":"image","data":"QQ"}]}`, `{"input":[{"type":"image","data":"Qg"}]}`, false},
		{`{"input":"a","previous_interaction_id":"v1_a"}`, `{"input":"a","previousInteractionId":"v1_a"}`, true},
		{`{"input":"a","previous_interaction_id":"v1_a"}`, `{"input":"a","previous_interaction_id":"v1_b"}`, false},
		{`{"input":"a","system_instruction":"b"}`, `{"input":"a","system_instruction":"c"}`, false},
		{`{"input":"a","safety_settings":[{"type":"x","threshold":"off"},{"type":"y"}]}`, `{"input":"a","safetySettings":[{"type":"y"},{"threshold":"off","type":"x"}]}`, true},
		{`{"contents":[1]}`, `{"contents":[[1]]}`, false},
		{`{}`, `{"contents":null}`, true},
		{`{}`, `{"contents":[]}`, false},
	} {
		if (printed(t, tt.a, "m") == printed(t, tt.b, "m")) != tt.same {
			t.Errorf("%s and %s: expected same=%t", tt.a, tt.b, tt.same)
		}
	}
}

func TestPrintFails(t *testing.T) {
	for _, body := range []string{"", "{", `{"contents":[}`, "\xff", "{}{}", `{"contents":"a`} {
		if _, err := quickPrint(strings.NewReader(body), "m"); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %v", body, err)
		}
		if _, err := strongPrint(strings.NewReader(body), "m"); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %v", body, err)
		}
	}
	broken := errors.New("broken")
	body := io.MultiReader(strings.NewReader(`{"contents":"`), iotest.ErrReader(broken))
	if _, err := quickPrint(body, "m"); !errors.Is(err, broken) {
		t.Errorf("the reader's error is lost: %v", err)
	}
}

// writer writes a JSON value in one of the ways there are.
type writer struct {
	strings.Builder
	r *rand.Rand
}

func (w *writer) value(v any) {
	w.WriteString(strings.Repeat(" ", w.r.IntN(2)))
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		w.r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		w.WriteString("{")
		if w.r.IntN(4) == 0 {
			keys = append(keys, "none")
		}
		for i, name := range keys {
			w.comma(i)
			w.key(name)
			w.WriteString(" :")
			w.value(v[name])
		}
		w.WriteString("}")
	case []any:
		w.WriteString("[")
		for i, element := range v {
			w.comma(i)
			w.value(element)
		}
		w.WriteString("]")
	case string:
		w.text(v)
	case json.Number:
		w.WriteString(w.number(v.String()))
	default:
		fmt.Fprint(w, string(encode(v)))
	}
	w.WriteString(strings.Repeat("\n", w.r.IntN(2)))
}

func (w *writer) comma(i int) {
	if i > 0 {
		w.WriteString(",")
	}
}

func (w *writer) number(n string) string {
	if len(n) > 20 || strings.ContainsAny(n, "eE") || strings.TrimPrefix(n, "-") == "0" || w.r.IntN(2) == 0 {
		return n
	}
	if strings.Contains(n, ".") {
		return n + "00E+0"
	}
	return n + "0.0e-1"
}

// key leaves keys alone that would be longer than maxKey in escapes.
func (w *writer) key(name string) {
	if len(name) > maxKey/len(`\u0000`) {
		w.Write(encode(name))
		return
	}
	w.text(w.respelled(name))
}

// respelled changes between snake_case and camelCase, where that is exact.
func (w *writer) respelled(name string) string {
	words := strings.Split(snakeCase(name), "_")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	if camel := strings.Join(words, ""); snakeCase(camel) == snakeCase(name) && w.r.IntN(2) == 0 {
		return camel
	}
	return snakeCase(name)
}

func (w *writer) text(s string) {
	w.WriteString(`"`)
	for _, r := range s {
		switch {
		case w.r.IntN(4) == 0 && r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(w, `\u%04x\u%04X`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		case w.r.IntN(4) == 0 && r <= 0xffff:
			fmt.Fprintf(w, `\u%04X`, r)
		case r == '/' && w.r.IntN(2) == 0:
			w.WriteString(`\/`)
		default:
			quoted := encode(string(r))
			w.Write(quoted[1 : len(quoted)-1])
		}
	}
	w.WriteString(`"`)
}

// leaves collects what changes the scalars of a value.
func leaves(v any, set func(any)) (change []func()) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if member != nil {
				change = append(change, leaves(member, func(n any) { v[name] = n })...)
			}
		}
	case []any:
		for i, element := range v {
			change = append(change, leaves(element, func(n any) { v[i] = n })...)
		}
	case string:
		change = append(change, func() { set(v + "x") })
	case json.Number:
		other := json.Number("47")
		if bytes.Equal(appendCanonical(nil, []byte(v)), appendCanonical(nil, []byte(other))) {
			other = "48"
		}
		change = append(change, func() { set(other) })
	case bool:
		change = append(change, func() { set(!v) })
	case nil:
		change = append(change, func() { set("") })
	}
	return change
}

// FuzzPrint writes a value in different ways, and changes some of it.
func FuzzPrint(f *testing.F) {
	f.Add([]byte(`[{"role":"user","parts":[{"text":"a\u00e9/\ud83d\ude00"},{"inline_data":{"data":"aGV/","mimeType":null}}]}]`), uint64(1))
	f.Add([]byte(`{"fooBar":[1,-2.50,1e3,0,-0.0,true,false,null,{"a_b":{}},[],""],"role":"model"}`), uint64(2))
	f.Add([]byte(`"\ud800x\udc00"`), uint64(3))
	f.Fuzz(func(t *testing.T, value []byte, seed uint64) {
		decoder := json.NewDecoder(bytes.NewReader(value))
		decoder.UseNumber()
		var v any
		if decoder.Decode(&v) != nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		scope := []string{"contents", "systemInstruction", "safetySettings", "messages", "prompt", "instances", "input"}[seed%7]
		write := func() string {
			w := &writer{r: r}
			w.value(map[string]any{"other": json.Number(fmt.Sprint(r.IntN(9))), scope: v})
			return w.String()
		}
		body := write()
		want := printed(t, body, "m")
		for range 3 {
			if again := write(); printed(t, again, "m") != want {
				t.Fatalf("different prints\n%q\n%q", body, again)
			}
		}
		if printed(t, body, "n") == want {
			t.Errorf("%q: the model makes no difference", body)
		}
		change := leaves(v, func(n any) { v = n })
		if len(change) == 0 {
			return
		}
		change[r.IntN(len(change))]()
		if changed := write(); printed(t, changed, "m") == want {
			t.Errorf("same print\n%q\n%q", body, changed)
		}
	})
}

func BenchmarkPrint10MB(b *testing.B) {
	image := strings.Repeat("iVBORw0KGgoAAAANSUhEUgA/", 10_000_000/24)
	prefix := `{"contents":[{"role":"user","parts":[{"text":"a cat"},{"inlineData":{"mimeType":"image/png","data":"`
	for name, body := range map[string]string{
		"plain":   prefix + image + `"}}]}]}`,
		"escaped": prefix + strings.ReplaceAll(image, "/", `\/`) + `"}}]}]}`,
	} {
		for strength, print := range map[string]func(io.Reader) error{
			"quick":  func(r io.Reader) error { _, err := quickPrint(r, "m"); return err },
			"strong": func(r io.Reader) error { _, err := strongPrint(r, "m"); return err },
		} {
			b.Run(name+"/"+strength, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if err := print(struct{ io.Reader }{strings.NewReader(body)}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestUnescaper(t *testing.T) {
	for raw, want := range map[string]string{
		`plain`:                    "plain",
		`\"\\\/\b\f\n\r\t`:         "\"\\/\b\f\n\r\t",
		`a\u0041\u00e9\u20AC`:      "aAé€",
		`\ud83d\ude00`:             "😀",
		`\ud83d`:                   "\ufffd",
		`\ud83dx`:                  "\ufffdx",
		`\ud83d\n`:                 "\ufffd\n",
		`\ud83d\ud83d\ude00`:       "\ufffd😀",
		`\ude00\ud83d`:             "\ufffd\ufffd",
		`\ud83d\u0041`:             "\ufffdA",
		`\q \u12G4 \ud83d\uZZZZ \`: "\\q \\u12G4 \ufffd\\uZZZZ \\",
		`\u12`:                     `\u12`,
		"":                         "",
	} {
		for size := 1; size <= len(raw)+1; size++ {
			var got strings.Builder
			u := newUnescaper(&got)
			for range 2 { // it can be used again
				got.Reset()
				for rest := []byte(raw); len(rest) > 0; {
					n := min(size, len(rest))
					u.write(rest[:n])
					rest = rest[n:]
				}
				u.end()
			}
			if got.String() != want {
				t.Errorf("%s in pieces of %d: %q, expected %q", raw, size, got.String(), want)
			}
		}
	}
}

func TestAppendCanonical(t *testing.T) {
	for want, spellings := range map[string][]string{
		"0":       {"0", "-0", "0.000", "0e5", "-0.0E-3"},
		"+1e0":    {"1", "1.0", "1e0", "10e-1", "0.1E+1", "0.0010e3"},
		"-1e0":    {"-1", "-1.00"},
		"+12e-1":  {"1.2", "12e-1", "1.20"},
		"+1e2":    {"100", "1e2", "1E+02", "1000.0e-1"},
		"+105e-1": {"10.5", "10.50e0"},
	} {
		for _, spelling := range spellings {
			number := []byte(spelling)
			if got := string(appendCanonical(nil, number)); got != want || string(number) != spelling {
				t.Errorf("%s: got %s, expected %s", number, got, want)
			}
		}
	}
}
