// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRephrase(t *testing.T) {
	swap := []replacement{
		{regexp.MustCompile(`(?i)\bphoto of (\w+)`), "drawing of $1"},
		{regexp.MustCompile(`drawing`), "sketch"},
	}
	const one = `{"contents":[{"parts":[{"text":"a cat"}]}]}`
	const two = `{"contents":[{"parts":[{"text":"Photo of x"},{"inlineData":{"data":"eA=="}},{"text":"now"}]}], "generationConfig":{}}`
	for name, tt := range map[string]struct {
		how  rephrasing
		body string
		want []string // per variant, the old texts replaced in the body
	}{
		"nothing":         {rephrasing{}, one, nil},
		"prefixes":        {rephrasing{prefixes: []string{"Art:", "Oil\t"}}, one, []string{`"Art: a cat"`, `"Oil\ta cat"`}},
		"suffixes":        {rephrasing{suffixes: []string{"as art", ", oil", "\nin oil"}}, one, []string{`"a cat as art"`, `"a cat, oil"`, `"a cat\nin oil"`}},
		"one list longer": {rephrasing{prefixes: []string{"A"}, suffixes: []string{"b", "c"}}, one, []string{`"A a cat b"`, `"a cat c"`}},
		"no HTML escapes": {rephrasing{prefixes: []string{`<&> "é"`}}, one, []string{`"<&> \"é\" a cat"`}},
		"replacements":    {rephrasing{replace: swap}, two, []string{`"sketch of x"`}},
		"no match":        {rephrasing{replace: swap}, one, []string{``}},
		"several texts": {
			rephrasing{replace: swap, prefixes: []string{"A"}, suffixes: []string{"b"}},
			two,
			[]string{`"A sketch of x"` + "\x00" + `"now b"`},
		},
	} {
		turn := turnOf(t, tt.body)
		if got := tt.how.variants(); got != len(tt.want) {
			t.Errorf("%s: %d variants, expected %d", name, got, len(tt.want))
			continue
		}
		for n, want := range tt.want {
			var inserted []string
			for _, e := range tt.how.edits(turn, n) {
				inserted = append(inserted, string(e.insert))
			}
			if got := strings.Join(inserted, "\x00"); got != want {
				t.Errorf("%s: variant %d: %q, expected %q", name, n, got, want)
			}
		}
	}
}

// TestRephraseKeepsTheRest compares with the body byte by byte.
func TestRephraseKeepsTheRest(t *testing.T) {
	const before, after = "{ \"safety_settings\" : [ ],\t\"contents\":[{\"role\":\"user\",\"parts\":[{\"inline_data\":{\"data\":\"\\/9j\\/\"}},{\"text\": ", " } ] }],\"x\":1.0}\n"
	body := before + `"a \u0063at"` + after
	how := rephrasing{prefixes: []string{"Art:"}}
	n, edits, ok := how.next(turnOf(t, body), 0)
	if n != 0 || !ok {
		t.Fatalf("variant %d, %t", n, ok)
	}
	if got, want := applyEdits(body, edits), before+`"Art: a cat"`+after; got != want {
		t.Errorf("%s\nexpected\n%s", got, want)
	}
}

func TestRephraseSkipsEqualVariants(t *testing.T) {
	const body = `{"contents":[{"parts":[{"text":"a cat"}]}]}`
	none := regexp.MustCompile(`dog`)
	for name, tt := range map[string]struct {
		how  rephrasing
		body string
		want []int
	}{
		"none":             {rephrasing{}, body, nil},
		"all":              {rephrasing{prefixes: []string{"A", "B"}}, body, []int{0, 1}},
		"empty prefix":     {rephrasing{prefixes: []string{"", "B"}}, body, []int{1}},
		"twice":            {rephrasing{prefixes: []string{"A", "B", "A ", "A"}}, body, []int{0, 1}},
		"nothing replaced": {rephrasing{replace: []replacement{{none, "x"}}}, body, nil},
		"no text":          {rephrasing{prefixes: []string{"A"}}, `{"contents":[{"parts":[{"inlineData":{}}]}]}`, nil},
	} {
		turn := turnOf(t, tt.body)
		var got []int
		for n, edits, ok := tt.how.next(turn, 0); ok; n, edits, ok = tt.how.next(turn, n+1) {
			if len(edits) == 0 {
				t.Errorf("%s: variant %d changes nothing", name, n)
			}
			got = append(got, n)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, expected %v", name, got, tt.want)
		}
	}
	how := rephrasing{prefixes: []string{"A", "A", "B"}}
	if n, _, ok := how.next(turnOf(t, body), 1); n != 2 || !ok {
		t.Errorf("from 1: %d, %t: what came before must be known", n, ok)
	}
}

// FuzzRephrase applies the edits and reads the body again.
func FuzzRephrase(f *testing.F) {
	f.Add(`{"contents":[{"parts":[{"text":"a \u0063at"},{"text":"b"}]}]}`, "Art:", ", oil", byte(2))
	f.Add(`{"messages":[{"role":"user","content":"\ud83d\ude00"}]}`, "<\n", "c", byte(1))
	f.Add(`{"prompt":"a"}`, "", "\u2028", byte(3))
	f.Add(`{"instances":[{"prompt":"a"}]}`, "é", "", byte(3))
	f.Fuzz(func(t *testing.T, body, prefix, suffix string, size byte) {
		if !json.Valid([]byte(body)) || !utf8.ValidString(body) || !utf8.ValidString(prefix) || !utf8.ValidString(suffix) {
			return
		}
		turn := turnOf(t, body)
		how := rephrasing{
			replace:  []replacement{{regexp.MustCompile(`(a)(.)`), "$2$1<"}},
			prefixes: []string{prefix}, suffixes: []string{suffix, prefix},
		}
		for n := range how.variants() {
			edits := how.edits(turn, n)
			changed := applyEdits(body, edits)
			if !json.Valid([]byte(changed)) {
				t.Fatalf("%q became %q", body, changed)
			}
			if got, want := turnOf(t, changed).values(), how.texts(turn, n); !slices.Equal(got, want) {
				t.Fatalf("%q: %q, expected %q", changed, got, want)
			}
		}
	})
}
