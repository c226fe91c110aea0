// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzEvents frames documents as servers do, by the bytes of a script, and reads
// them again: the same documents, however the stream is framed and cut.
func FuzzEvents(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, "a cat", uint(1))
	f.Add([]byte{4, 8, 16, 32, 64, 128}, "data: {\n\n", uint(2))
	f.Add([]byte{255, 0, 255, 7, 15, 31}, "\r\n\r\n\"}", uint(7))
	f.Add([]byte{0}, strings.Repeat("\x00", 84), uint(7))
	f.Fuzz(func(t *testing.T, script []byte, text string, size uint) {
		text = string([]rune(text))
		if len(script)*(len(encode(text))+1) > maxText { // which is all that is kept
			return
		}
		var stream strings.Builder
		want := ""
		for i, frame := range script {
			text := fmt.Sprint(i%10, text)
			want += text
			stream.WriteString(framedEvent(text, frame))
		}
		body := stream.String()
		if size&1 > 0 {
			body = strings.TrimRight(body, "\r\n") // the last event has no end
		}
		found := new(facts)
		s := newAnswerScanner(found, true, geminiEnums)
		for rest := []byte(body); len(rest) > 0; {
			n, _ := s.write(rest[:min(int(size%16)+1, len(rest))])
			rest = rest[n:]
		}
		s.finish()
		if string(found.text) != want || found.objects != len(script) || found.cutOff {
			t.Fatalf("%q has %d documents of %d, with %q, not %q (cut off: %t)", body, found.objects, len(script), found.text, want, found.cutOff)
		}
	})
}

// framedEvent is an event that says a text. The bits of the frame choose among the
// ways to write it (html.spec.whatwg.org, "Interpreting an event stream").
func framedEvent(text string, frame byte) string {
	lineEnd := []string{"\n", "\r\n"}[frame&1]
	head, tail, _ := strings.Cut(candidateWith(parts(`{"text":`+string(encode(text))+`}`)), `{"text":`)
	tail = `{"text":` + tail
	data := []string{"data: ", "data:", "data:   "}[frame/2%3]
	event := data + head + tail + lineEnd
	switch frame / 8 % 4 {
	case 1: // in two lines
		event = data + head + lineEnd + data + tail + lineEnd
	case 2:
		event = ": a comment with data: {}" + lineEnd + event
	case 3:
		event = "event: message" + lineEnd + "id: 7" + lineEnd + event + "retry: 10" + lineEnd
	}
	if frame/32%2 == 1 {
		event = lineEnd + event
	}
	return event + lineEnd
}
