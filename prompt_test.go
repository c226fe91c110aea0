// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

// turnOf finds the last turn of a body, which must not depend on how it is cut.
func turnOf(t testing.TB, body string) turn {
	t.Helper()
	var found turn
	for i, size := range []int{0, 1, 2, 3, 7, 64} {
		last, err := lastTurn(&pieces{body: body, size: size})
		if err != nil {
			t.Fatalf("%.200q in pieces of %d: %v", body, size, err)
		}
		if i > 0 && !slices.Equal(last, found) {
			t.Fatalf("%.200q in pieces of %d: %v, as a whole %v", body, size, last, found)
		}
		found = last
	}
	for _, text := range found {
		var value string
		if err := json.Unmarshal([]byte(body[text.at:text.end]), &value); err != nil || value != text.value {
			t.Errorf("%.200q has %q at %d, expected %q", body, body[text.at:text.end], text.at, text.value)
		}
	}
	return found
}

func TestLastTurn(t *testing.T) {
	long := strings.Repeat("x", maxTurn)
	for name, tt := range map[string]struct {
		body string
		want []string
	}{
		"one part":         {`{"contents":[{"role":"user","parts":[{"text":"a cat"}]}]}`, []string{"a cat"}},
		"no role":          {`{"contents":[{"parts":[{"text":"a cat"}]}]}`, []string{"a cat"}},
		"empty role":       {`{"contents":[{"parts":[{"text":"a cat"}],"role":""}]}`, []string{"a cat"}},
		"role is null":     {`{"contents":[{"parts":[{"text":"a cat"}],"role":null}]}`, []string{"a cat"}},
		"escapes":          {`{"contents" : [ { "parts" : [ { "te\u0078t" : "\u0061 \"cat\"\n\ud83d\ude00\/" } ] } ] }`, []string{"a \"cat\"\n😀/"}},
		"role in escapes":  {`{"contents":[{"parts":[{"text":"a"}],"role":"\u0075ser"}]}`, []string{"a"}},
		"several parts":    {`{"contents":[{"parts":[{"text":"a"},{"inline_data":{"data":"eA==","text":"no"}},{"text":"b"}]}]}`, []string{"a", "b"}},
		"the last of them": {`{"contents":[{"parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"b"}]},{"role":"user","parts":[{"text":"c"}]}]}`, []string{"c"}},
		"role at the end":  {`{"contents":[{"parts":[{"text":"a"}],"role":"user"},{"parts":[{"text":"b"}],"role":"model"}]}`, []string{"a"}},
		"without parts":    {`{"contents":[{"parts":[{"text":"a"}]},{"role":"user","parts":[]},{"role":"user"},{}]}`, []string{"a"}},
		"without text":     {`{"contents":[{"parts":[{"text":"a"}]},{"parts":[{"functionResponse":{"response":{"text":"b"}}}]}]}`, nil},
		"thoughts":         {`{"contents":[{"parts":[{"text":"a","thought":true},{"thought":true,"text":"b"},{"text":"c","thought":false}]}]}`, []string{"c"}},
		"no list":          {`{"contents":{"role":"user","parts":{"text":"a"}}}`, []string{"a"}},
		"no text at all":   {`{"contents":[{"parts":[{"text":null},{"text":1},{"text":{"text":"a"}},"b"]}]}`, nil},
		"other texts":      {`{"systemInstruction":{"parts":[{"text":"s"}]},"contents":[{"parts":[{"text":"a"}]}],"text":"x"}`, []string{"a"}},
		"no prompt":        {`{}`, nil},
		"no object":        {`["a"]`, nil},

		"messages":         {`{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`, []string{"a"}},
		"parts of message": {`{"messages":[{"content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"b"}],"role":"user"}]}`, []string{"a", "b"}},
		"no role there":    {`{"messages":[{"content":"a"}]}`, nil},
		"empty message":    {`{"messages":[{"role":"user","content":"a"},{"role":"user","content":null}]}`, []string{"a"}},
		"images":           {`{"model":"m","prompt":"a cat","n":1}`, []string{"a cat"}},
		"predict":          {`{"instances":[{"prompt":"a cat"},{"prompt":"b"}],"parameters":{}}`, []string{"a cat"}},
		"not the first":    {`{"instances":[{},{"prompt":"b"}]}`, nil},

		"Interactions":         {`{"model":"m","input":"a cat"}`, []string{"a cat"}},
		"contents of an input": {`{"input":[{"type":"text","text":"a"},{"type":"image","data":"QQ"},{"text":"b","type":"text"}]}`, []string{"a", "b"}},
		"one content":          {`{"input":{"type":"text","text":"a"}}`, []string{"a"}},
		"texts":                {`{"input":["a","b"]}`, []string{"a", "b"}},
		"steps":                {`{"input":[{"type":"user_input","content":[{"type":"text","text":"a"}]},{"type":"model_output","content":[{"type":"text","text":"b"}]},{"type":"thought","signature":"QQ","summary":[{"type":"text","text":"c"}]}]}`, []string{"a"}},
		"the last step":        {`{"input":[{"content":"a","type":"user_input"},{"content":[{"text":"b"}],"type":"model_output"},{"content":[{"text":"c"},{"type":"image","uri":"x"},{"text":"d"}],"type":"user_input"}]}`, []string{"c", "d"}},
		"turns":                {`{"input":[{"role":"user","content":"a"},{"role":"model","content":"b"}]}`, []string{"a"}},
		"results of tools":     {`{"input":[{"type":"user_input","content":"a"},{"type":"function_result","result":{"text":"b"}}]}`, []string{"a"}},
		"an input of no text":  {`{"input":[{"type":"image","data":"QQ"}],"previous_interaction_id":"v1_a"}`, nil},

		"as long as it may be": {`{"contents":[{"parts":[{"text":"` + long + `"}]}]}`, []string{long}},
		"too long":             {`{"contents":[{"parts":[{"text":"` + long + `x"}]}]}`, nil},
		"too long together":    {`{"contents":[{"parts":[{"text":"a"},{"text":"` + long + `"}]}]}`, nil},
		"long history":         {`{"contents":[{"parts":[{"text":"` + long + `x"}]},{"role":"model","parts":[{"text":"` + long + `"}]},{"parts":[{"text":"a"}]}]}`, []string{"a"}},
		"too long an input":    {`{"input":["a","` + long + `","b"]}`, nil},
		"long answers before":  {`{"input":[{"type":"user_input","content":"a"},{"type":"model_output","content":"` + long + `x"},{"type":"user_input","content":"b"}]}`, []string{"b"}},
		"too long a prompt":    {`{"prompt":"` + long + `x"}`, nil},
	} {
		if got := turnOf(t, tt.body).values(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %.200q, expected %.200q", name, got, tt.want)
		}
	}
}

func TestLastTurnFails(t *testing.T) {
	for _, body := range []string{"", `{"contents":`, `{"contents":[{"parts":[{"text":"a"}]}]]`} {
		if _, err := lastTurn(strings.NewReader(body)); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %v", body, err)
		}
	}
}
