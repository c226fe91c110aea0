// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// heard is what a client hears in a native answer.
type heard struct {
	images []string // their types and data, or addresses
	text   string
	finish string
	usage  usage
}

// hear reads a native answer with gjson, and its end with the scanner that judges it.
func hear(t testing.TB, body string, events bool) (h heard) {
	t.Helper()
	s := newAnswerScanner(new(facts), events, geminiEnums)
	for rest := []byte(body); len(rest) > 0; {
		n, _ := s.write(rest)
		rest = rest[n:]
	}
	s.finish()
	if s.cutOff {
		t.Fatalf("cut off: %s", body)
	}
	h.usage, h.finish = s.usage, chatFinish(s.facts.finish)
	if s.stopped != "" || s.promptBlock().class.isBlock() {
		h.finish = chatBlocked
	}
	for _, answer := range answersIn(body, events) {
		for _, part := range answer.Get("candidates.#.content.parts|@flatten").Array() {
			switch {
			case part.Get("inlineData").Exists():
				h.images = append(h.images, part.Get("inlineData.mimeType").Str+" "+part.Get("inlineData.data").Str)
			case part.Get("fileData").Exists():
				h.images = append(h.images, part.Get("fileData.fileUri").Str)
			case !part.Get("thought").Bool():
				h.text += part.Get("text").Str
			}
		}
	}
	return h
}

// answersIn are the objects of an answer, however it is framed.
func answersIn(body string, events bool) (all []gjson.Result) {
	if !events {
		if whole := gjson.Parse(body); whole.IsArray() {
			return whole.Array()
		}
		return []gjson.Result{gjson.Parse(body)}
	}
	for line := range strings.Lines(body) {
		if data, ok := strings.CutPrefix(line, dataPrefix); ok {
			all = append(all, gjson.Parse(data))
		}
	}
	return all
}

// thereAndBack are the ways of a native answer through OpenAI's forms.
var thereAndBack = []struct {
	name   string
	to     clientForm
	from   upstreamForm
	events bool // of what comes back
	back   streamForm
}{
	{"images", toImages, fromImages, false, formUnary},
	{"chat", toChat, fromChat, false, formUnary},
	{"chat as events", toChat, fromChat, false, formEvents},
	{"events", toChatEvents, fromChat, true, formEvents},
	{"events as an array", toChatEvents, fromChat, true, formArray},
	{"events as one", toChatEvents, fromChat, true, formUnary},
}

// goThereAndBack is what comes back on each way. A source that breaks on its way
// there does not come back.
func goThereAndBack(t testing.TB, body string, events bool, size int, check func(name string, to clientForm, back heard)) {
	t.Helper()
	for _, w := range thereAndBack {
		there := newOpenAIRelay(io.NopCloser(&pieces{body: body, size: size}), openAIRelay{
			to: w.to, events: events, asURL: true, model: "m", id: "i", streamUsage: true,
		})
		var source io.Reader = there
		if w.to == toImages {
			source = io.MultiReader(strings.NewReader(`{"created":1,"data":[`), there, strings.NewReader(`]}`))
		}
		relay := newNativeRelay(io.NopCloser(source), nativeRelay{from: w.from, events: w.events, to: w.back})
		back, err := relayed(relay)
		if err != nil {
			t.Fatalf("%s: %v behind %s", w.name, err, back)
		}
		check(w.name, w.to, hear(t, back, w.back == formEvents))
	}
}

// Recorded answers say the same when they come back.
func TestThereAndBackRecorded(t *testing.T) {
	var files []string
	for _, kind := range []string{"image_*", "noimage_*", "text_*", "thought_*", "recitation_*", "stream_*", "blocked_*", "notblocked_*", "prompt_*"} {
		found, err := filepath.Glob(filepath.Join(fixtureDir(), kind))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		t.Skip("no recorded traffic here, set GEMINI_FIXTURES to its folder")
	}
	for _, file := range files {
		name, ext := filepath.Base(file), filepath.Ext(file)
		if ext == ".headers" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := hear(t, string(body), ext == ".sse")
			goThereAndBack(t, string(body), ext == ".sse", 0, func(name string, to clientForm, back heard) {
				if to == toImages {
					back.text, back.finish, back.usage = want.text, want.finish, want.usage
				}
				if !reflect.DeepEqual(back, want) {
					t.Errorf("%s: %+v, want %+v", name, back, want)
				}
			})
		})
	}
}

// FuzzRelay puts texts and images into a native answer that goes through OpenAI's
// forms and back, and any bytes at all through every relay: how they are cut makes
// no difference, and what ends well is well formed.
func FuzzRelay(f *testing.F) {
	files, err := os.ReadDir(answerFolder)
	if err != nil {
		f.Fatal(err)
	}
	for i, file := range files {
		if filepath.Ext(file.Name()) == ".golden" {
			continue
		}
		body, err := os.ReadFile(filepath.Join(answerFolder, file.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, "Here ![it](is)", "caf\u00e9\n\\", "/9j/4AAQ", uint(i))
	}
	f.Add([]byte("data:\t[DONE]\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"), "![](DATA:image/png;base64,AA)", "", "", uint(0))
	f.Add([]byte(`{"choices":[{"message":{"content":"![](data:image/png;base64,AA\\\")"}}]}`), "\u2028<", "\x00\xff", "data:,", uint(3))
	f.Fuzz(func(t *testing.T, body []byte, first, second, data string, size uint) {
		fuzzCuts(t, string(body), int(size%64)+1)
		fuzzThereAndBack(t, first, second, data, int(size%64)+1)
	})
}

func fuzzCuts(t *testing.T, body string, size int) {
	if len(body) > maxStrict { // beyond which strings are not looked into
		return
	}
	for _, events := range []bool{false, true} {
		all := append(openAISources(fromChat, events), openAISources(fromImages, events)...)
		for _, r := range append(all, nativeSources(events)...) {
			whole, wholeErr := relayed(r.of(io.NopCloser(strings.NewReader(body))))
			cut, cutErr := relayed(r.of(io.NopCloser(&pieces{body: body, size: size})))
			same := whole == cut || wholeErr != nil && (strings.HasPrefix(whole, cut) || strings.HasPrefix(cut, whole)) // before it broke off
			if !same || !errors.Is(cutErr, wholeErr) {
				t.Fatalf("%s, in pieces of %d: %q, %v, as a whole %q, %v", r.name, size, cut, cutErr, whole, wholeErr)
			}
			if wholeErr == nil && !wellFormed(r.name, whole) {
				t.Fatalf("%s: not well formed: %q", r.name, whole)
			}
		}
	}
}

// wellFormed tells whether a client can read what a relay has made.
func wellFormed(relay, body string) bool {
	switch relay {
	case "images", "images as URLs":
		return json.Valid([]byte("[" + body + "]"))
	case "unary", "array", "chat":
		return body == "" || json.Valid([]byte(body))
	}
	for event := range strings.SplitSeq(strings.ReplaceAll(body, "\r\n", "\n"), "\n\n") {
		data, isData := strings.CutPrefix(event, "data: ")
		if event != "" && (!isData || data != "[DONE]" && !json.Valid([]byte(data))) {
			return false
		}
	}
	return true
}

func fuzzThereAndBack(t *testing.T, first, second, data string, size int) {
	if strings.Contains(strings.ToLower(first+second), "data:") { // may be an image in Markdown
		return
	}
	image, err := json.Marshal(base64Only(data))
	if err != nil {
		t.Fatal(err)
	}
	answer := candidateWith(parts(`{"text":`+string(encode(first))+`},{"text":"not this","thought":true},`+
		`{"inlineData":{"data":`+string(image)+`}},{"text":`+string(encode(second))+`}`) + `,"finishReason":"MAX_TOKENS"`)
	answer = strings.TrimSuffix(answer, "}") + `,"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":9,"thoughtsTokenCount":2,"totalTokenCount":14}}`
	for _, events := range []bool{false, true} {
		body := answer
		if events {
			body = "data: " + answer + "\r\n\r\n"
		}
		want := hear(t, body, events)
		want.images = nil
		if only := base64Only(data); only != "" {
			mime := cmp.Or(sniffBase64(only), likelyMime)
			want.images = []string{mime + " " + only}
		}
		goThereAndBack(t, body, events, size, func(name string, to clientForm, back heard) {
			if to == toImages {
				back.text, back.finish, back.usage = want.text, want.finish, want.usage
			}
			if !reflect.DeepEqual(back, want) {
				t.Fatalf("%s, in pieces of %d: %+v, want %+v", name, size, back, want)
			}
		})
	}
}

// base64Only is what is left of a text when it is base64.
func base64Only(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && isBase64(byte(r)) {
			return r
		}
		return -1
	}, s)
}

// Text that comes in halves of characters, and in escapes, is the same in the end.
func TestRelayKeepsEscapes(t *testing.T) {
	const text = "\u2603\U0001f600 \"/\\\b\f\n\r\t\u2028<&>"
	escaped := ""
	for _, unit := range utf16.Encode([]rune(text)) {
		escaped += fmt.Sprintf(`\u%04x`, unit)
	}
	for _, said := range []string{escaped, strings.Trim(string(encode(text)), `"`)} {
		body := candidateWith(parts(`{"text":"` + said + `"}`))
		goThereAndBack(t, body, false, 1, func(name string, to clientForm, back heard) {
			if to != toImages && back.text != text {
				t.Errorf("%s: %q, want %q", name, back.text, text)
			}
		})
	}
}
