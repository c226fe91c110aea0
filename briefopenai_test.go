// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// openAIKind is a kind of request, by the beginning of the names of its golden files.
type openAIKind string

const (
	kindGenerations openAIKind = "generations"
	kindEdits       openAIKind = "edits"
	kindForm        openAIKind = "form"
	kindChat        openAIKind = "chat"
)

// testBoundary is that of the forms of these tests.
const testBoundary = "boundary"

func readOpenAIPieces(kind openAIKind, body string, size int) (*brief, error) {
	p := &pieces{body: body, size: size}
	switch kind {
	case kindGenerations:
		return readBriefImages(p, false)
	case kindEdits:
		return readBriefImages(p, true)
	case kindForm:
		return readBriefForm(p, testBoundary)
	}
	return readBriefChat(p)
}

// readOpenAI reads a body, however it is cut.
func readOpenAI(t testing.TB, kind openAIKind, body string) (*brief, error) {
	t.Helper()
	whole, wholeErr := readOpenAIPieces(kind, body, 0)
	for _, size := range []int{1, 2, 7, 64} {
		b, err := readOpenAIPieces(kind, body, size)
		if !reflect.DeepEqual(b, whole) || !reflect.DeepEqual(err, wholeErr) {
			t.Fatalf("%.200q in pieces of %d: %+v, %v, as a whole %+v, %v", body, size, b, err, whole, wholeErr)
		}
	}
	return whole, wholeErr
}

func mustReadOpenAI(t testing.TB, kind openAIKind, body string) *brief {
	t.Helper()
	b, err := readOpenAI(t, kind, body)
	if err != nil {
		t.Fatalf("%.200q: %v", body, err)
	}
	return b
}

// told is a brief in lines, with what it has of the body. A byte that is no UTF-8
// counts as what encoding/json writes for it: U+FFFD, one for each, in an escape.
func told(b *brief, body string) string {
	var d strings.Builder
	line := func(what string, value any) {
		if !reflect.ValueOf(value).IsZero() {
			fmt.Fprintf(&d, "%s %v\n", what, value)
		}
	}
	if b.foreign != nil {
		return fmt.Sprintf("foreign %s %s: %s\n", b.foreign.code, b.foreign.param, b.foreign.message)
	}
	for _, p := range b.system {
		line("system", string(encode(textOf(p, body))))
	}
	for _, turn := range b.turns {
		d.WriteString(map[bool]string{false: "user\n", true: "model\n"}[turn.isModel])
		for _, p := range turn.parts {
			switch i := p.image; {
			case i == nil:
				fmt.Fprintf(&d, "  text %s\n", encode(textOf(p.text, body)))
			case i.uri != "":
				fmt.Fprintf(&d, "  image at %s\n", i.uri)
			default:
				fmt.Fprintf(&d, "  image %s %q\n", i.mime, bytesOf(i, body))
			}
		}
	}
	line("draws", b.draws)
	line("images alone", b.imagesAlone)
	line("writes", b.writes)
	line("aspect", b.aspect)
	line("size", b.size)
	line("fine", b.isFine)
	for _, f := range b.own {
		line("own", f.name+" "+textOf(f.value, body))
	}
	line("output", b.outputMime)
	line("compression", b.compression)
	line("count", b.count)
	line("as URL", b.asURL)
	line("stream", b.stream)
	line("stream usage", b.streamUsage)
	for _, s := range b.safety {
		line("safety", s.Category+" "+s.Threshold)
	}
	for _, s := range sharedSettings {
		line(s.native, b.settings[s.native])
	}
	line("dropped", strings.Join(b.dropped, ", "))
	return strings.ReplaceAll(string([]rune(d.String())), `\ufffd`, "\ufffd")
}

func textOf(p passage, body string) string {
	text := p.text
	if p.at != p.end {
		if err := json.Unmarshal([]byte(body[p.at:p.end]), &text); err != nil {
			return "? " + err.Error()
		}
	}
	return text
}

// bytesOf are those of an image, or its base64 if it is none.
func bytesOf(i *briefImage, body string) []byte {
	raw := []byte(body[i.data.at:i.data.end])
	if i.isBinary {
		return raw
	}
	if image, err := unbase64(string(raw)); err == nil {
		return image
	}
	return raw
}

func unbase64(raw string) ([]byte, error) {
	var text string
	if err := json.Unmarshal([]byte(`"`+raw+`"`), &text); err != nil {
		return nil, err
	}
	text = strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(text)
	return base64.RawStdEncoding.DecodeString(text)
}

// laidOut puts a layout together. What is random in it gets a name.
func laidOut(l *layout, body string) (string, error) {
	var b strings.Builder
	for _, s := range l.segments {
		raw := ""
		if s.literal == nil {
			raw = body[s.at:s.end]
		}
		switch {
		case s.literal != nil:
			b.Write(s.literal)
		case s.coding == codingEncode:
			b.WriteString(base64.StdEncoding.EncodeToString([]byte(raw)))
		case s.coding == codingDecode:
			image, err := unbase64(raw)
			if err != nil {
				return "", err
			}
			b.Write(image)
		case s.coding == codingTidy:
			image, err := unbase64(raw)
			if err != nil {
				return "", err
			}
			b.WriteString(base64.StdEncoding.EncodeToString(image))
		default:
			b.WriteString(raw)
		}
	}
	if _, boundary, isForm := strings.Cut(l.contentType, "boundary="); isForm {
		return strings.ReplaceAll(b.String(), boundary, testBoundary), nil
	}
	return b.String(), nil
}

func textIn(body string, edits ...edit) func(passage) (string, error) {
	return func(p passage) (string, error) {
		for _, e := range edits {
			if e.at == p.at && p.at != p.end {
				return textOf(passage{span: span{0, int64(len(e.insert))}}, string(e.insert)), nil
			}
		}
		return textOf(p, body), nil
	}
}
