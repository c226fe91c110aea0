// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestTies(t *testing.T) {
	long := strings.Repeat("Signature/", 200_000)
	part := func(members ...string) string {
		return `{"contents":[{"role":"user","parts":[{"text":"x"}]},{"parts":[{` + strings.Join(members, `},{`) + `}]}]}`
	}
	file := func(uri string) string { return part(`"fileData":{"mimeType":"image/png","fileUri":"` + uri + `"}`) }
	many := make([]string, 10)
	var last []string
	for i := range many {
		many[i] = fmt.Sprintf(`"thoughtSignature":"s%d"`, i)
		if i >= 2 {
			last = append(last, fmt.Sprintf("signature:s%d", i))
		}
	}
	tests := map[string]struct {
		body string
		want []string
	}{
		"none":               {part(`"text":"cached"`, `"inlineData":{"data":"files/abc"}`), nil},
		"signature":          {part(`"thoughtSignature":"AbC+/=","text":"x"`), []string{"signature:AbC+/="}},
		"long signature":     {part(`"text":"x","thoughtSignature":"` + long + `"`), []string{"signature:" + long[:maxSignature]}},
		"escaped signature":  {part(`"thought_signature":"` + strings.ReplaceAll(long, "/", `\u002f`) + `"`), []string{"signature:" + long[:maxSignature]}},
		"all escaped":        {part(`"thoughtSignature":"` + strings.Repeat(`\u0041`, 500) + `"`), []string{"signature:" + strings.Repeat("A", maxSignature)}},
		"empty signature":    {part(`"thoughtSignature":""`), nil},
		"no signature":       {part(`"thoughtSignature":null`, `"thoughtSignature":5`), nil},
		"placeholders":       {part(`"thoughtSignature":"skip_thought_signature_validator"`, `"thoughtSignature":"context_engineering_is_the_way_to_go"`), nil},
		"name of a file":     {file("files/abc-123"), []string{"file:files/abc-123"}},
		"URL of a file":      {file(`https:\/\/generativelanguage.googleapis.com\/v1beta\/files\/abc`), []string{"file:https://generativelanguage.googleapis.com/v1beta/files/abc"}},
		"snake_case":         {part(`"file_data":{"file_uri":"files/a"}`), []string{"file:files/a"}},
		"bucket":             {file("gs://bucket/files/a"), nil},
		"file elsewhere":     {file("https://example.com/v1beta/files/a"), nil},
		"host in a path":     {file("https://example.com/generativelanguage.googleapis.com/files/a"), nil},
		"video":              {file("https://www.youtube.com/watch?v=x"), nil},
		"other path":         {file("https://generativelanguage.googleapis.com/v1beta/models"), nil},
		"no URL":             {file("https://%zz"), nil},
		"cache":              {`{"cachedContent":"cachedContents/abc","contents":[]}`, []string{"cache:cachedContents/abc"}},
		"cache, snake":       {`{"cached_content":"cachedContents/abc"}`, []string{"cache:cachedContents/abc"}},
		"no cache":           {`{"cachedContent":"","cached_content":null}`, nil},
		"all":                {`{"cachedContent":"c",` + part(`"thoughtSignature":"s"`, `"fileData":{"fileUri":"files/f"}`)[1:], []string{"cache:c", "signature:s", "file:files/f"}},
		"interaction":        {`{"previous_interaction_id":"v1_a","input":"x"}`, []string{"interaction:v1_a"}},
		"no interaction":     {`{"previous_interaction_id":"","input":"x"}`, nil},
		"steps":              {`{"input":[{"type":"thought","signature":"AbC"},{"type":"user_input","content":[{"type":"image","uri":"files/a"}]},{"type":"image","uri":"files/b"},{"uri":"https://x/y"}]}`, []string{"signature:AbC", "file:files/a", "file:files/b"}},
		"many":               {part(many...), last},
		"twice":              {part(`"thoughtSignature":"a"`, `"thoughtSignature":"b"`, `"thoughtSignature":"a"`), []string{"signature:b", "signature:a"}},
		"elsewhere":          {`{"tools":[{"thoughtSignature":"s"}],"systemInstruction":{"parts":[{"fileData":{"fileUri":"files/f"}}]}}`, nil},
		"outside of a part":  {`{"contents":[{"thoughtSignature":"s","fileData":{"fileUri":"files/f"}}]}`, nil},
		"in a function call": {part(`"functionCall":{"args":{"thoughtSignature":"s"}}`), nil},
	}
	for name, tt := range tests {
		for _, piece := range []int{7, 1000, len(tt.body)} {
			_, comp, err := runCompleter(t, tt.body, testCompletion, piece)
			if err != nil {
				t.Fatal(name, err)
			}
			if got := comp.wants().ties; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s in pieces of %d:\n got %q\nwant %q", name, piece, got, tt.want)
			}
		}
	}
}
