// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// scanned are answers to inspect.
var scanned = []struct {
	name     string
	isStream bool
	body     func() string
}{
	{"text", false, func() string {
		return `{"candidates":[{"content":{"parts":[{"text":"` + strings.Repeat("word ", 200) + `"}]},"finishReason":"STOP"}]}`
	}},
	{"image20M", false, func() string { return imageOf(20 << 20) }},
	{"events", true, func() string { return strings.Repeat(textEvent, 20) }},
	{"image event", true, func() string { return "data: " + strings.ReplaceAll(imageOf(6<<20), "\n", "") + "\r\n\r\n" }},
}

const textEvent = `data: {"candidates": [{"content": {"parts": [{"text": " will generate an image of the Eiffel Tower"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 15,"candidatesTokenCount": 17,"totalTokenCount": 32,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 15}]},"modelVersion": "gemini-2.5-flash","responseId": "mS77aIOaD5qFvr0P1b_T4AY"}` + "\r\n\r\n"

func imageOf(size int) string {
	return strings.Replace(okImage, "aGVsbG8=", strings.Repeat("aGVsbG8h", size/8), 1)
}

// BenchmarkScan shows what inspecting an answer costs, in pieces of a TLS record,
// of net/http's buffers, and of the copy loop: it must be a small part of what
// moving its bytes costs.
func BenchmarkScan(b *testing.B) {
	for _, c := range scanned {
		body := []byte(c.body())
		for _, piece := range []int{4 << 10, 16 << 10, 32 << 10, 256 << 10} {
			b.Run(fmt.Sprintf("%s/%dK", c.name, piece>>10), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					scanPieces(newAnswerScanner(new(facts), c.isStream, geminiEnums), body, piece)
				}
			})
		}
	}
}

func scanPieces(s *answerScanner, body []byte, size int) {
	for len(body) > 0 {
		for piece := body[:min(len(body), size)]; len(piece) > 0; {
			n, _ := s.write(piece)
			piece, body = piece[n:], body[n:]
		}
	}
}

// BenchmarkComplete is what completing a request of 10 MB costs by itself:
// finding out where something is missing.
func BenchmarkComplete(b *testing.B) {
	body := []byte(largeRequest())
	for _, piece := range []int{4 << 10, 32 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dK", piece>>10), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				c := newCompleter(testCompletion)
				for p := body; len(p) > 0; p = p[min(len(p), piece):] {
					if err := c.write(p[:min(len(p), piece)]); err != nil {
						b.Fatal(err)
					}
				}
				if err := c.finish(); err != nil || len(c.slots()) == 0 {
					b.Fatal("not completed", err)
				}
			}
		})
	}
}

// BenchmarkCheck looks into as much of a string of a request as is looked into.
func BenchmarkCheck(b *testing.B) {
	text := bytes.Repeat([]byte("a small red lighthouse at dawn. "), maxStrict/32)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var s jsonScanner
		if bad := s.check(text); bad >= 0 {
			b.Fatal(bad)
		}
	}
}
