package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// eventPace is the time between two events of pacedStream, and the rest of
// restedAnswer: long enough for every process on the way to go back to sleep.
const eventPace = 5 * time.Millisecond

const streamEvents = 20

// answer is what the upstream sends to one call.
type answer struct {
	contentType string
	writes      [][]byte      // one write each
	flush       bool          // after every write
	pace        time.Duration // before every write, which is then stamped with the time it is sent
	rest        time.Duration // after the first write

	// packed are the writes of the same as gzip, for which the upstream has to
	// be asked; nil if it does not compress.
	packed func() [][]byte
}

const (
	jsonType = "application/json; charset=UTF-8"
	sseType  = "text/event-stream"
)

// Google's unary answers, pretty-printed as on the wire.
const (
	unaryHead = `{
  "candidates": [
    {
      "content": {
        "parts": [
          {
            `
	unaryTail = `
          }
        ],
        "role": "model"
      },
      "finishReason": "STOP",
      "index": 0
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 16,
    "candidatesTokenCount": 1120,
    "totalTokenCount": 1136
  },
  "modelVersion": "gemini-3-pro-image-preview",
  "responseId": "bench"
}
`
	imagePart = `"inlineData": {
              "mimeType": "image/jpeg",
              "data": "%s"
            },
            "thoughtSignature": "RW5jcnlwdGVkIHRob3VnaHRz"`
	blockedBody = `{
  "candidates": [
    {
      "content": {},
      "finishReason": "IMAGE_SAFETY",
      "finishMessage": "Unable to show the generated image. Try rephrasing the prompt.",
      "index": 0
    }
  ],
  "usageMetadata": {
    "promptTokenCount": 18,
    "totalTokenCount": 238,
    "thoughtsTokenCount": 220
  },
  "modelVersion": "gemini-3-pro-image-preview",
  "responseId": "bench"
}
`
)

func textAnswer() answer {
	room := 1000 - len(unaryHead) - len(`"text": ""`) - len(unaryTail)
	return answer{contentType: jsonType, writes: pieces(unaryHead + `"text": "` + plainText(room) + `"` + unaryTail)}
}

// imageAnswer is one image whose base64 text has size bytes.
func imageAnswer(size int) func() answer {
	return func() answer {
		body := unaryHead + fmt.Sprintf(imagePart, base64Text(size)) + unaryTail
		return answer{contentType: jsonType, writes: pieces(body)}
	}
}

// restedAnswer is an imageAnswer whose first bytes need not fight the rest of
// it for the cores, as they never do behind a real network.
func restedAnswer(size int) func() answer {
	return func() answer {
		a := imageAnswer(size)()
		a.rest = eventPace
		return a
	}
}

// gzipped is an answer that is compressed on its way, once for all calls.
func gzipped(build func() answer) func() answer {
	return func() answer {
		a := build()
		a.packed = sync.OnceValue(func() [][]byte { return pieces(string(zipped(bytes.Join(a.writes, nil)))) })
		return a
	}
}

// zipped looks for no repetitions, of which an image in base64 has none.
func zipped(text []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.HuffmanOnly) // there is such a level
	_, _ = z.Write(text)                                // into memory
	_ = z.Close()
	return out.Bytes()
}

func blockAnswer() answer {
	return answer{contentType: jsonType, writes: pieces(blockedBody)}
}

// textStream sends its events as fast as they are taken.
func textStream() answer {
	a := answer{contentType: sseType, flush: true}
	for i := range streamEvents {
		a.writes = append(a.writes, []byte(event(`{"text":"`+plainText(120)+`"}`, i == streamEvents-1)))
	}
	return a
}

// pacedStream sends events whose text is the time at which each was sent.
func pacedStream() answer {
	a := answer{contentType: sseType, flush: true, pace: eventPace}
	for i := range streamEvents {
		a.writes = append(a.writes, []byte(event(`{"text":"`+stampBlank+`"}`, i == streamEvents-1)))
	}
	return a
}

// imageStream is a text, a whole image in one event as Google sends it, and
// the end.
func imageStream() answer {
	image := event(`{"inlineData":{"mimeType":"image/jpeg","data":"`+base64Text(1.5*MB)+`"}}`, false)
	a := answer{contentType: sseType, flush: true}
	a.writes = append(a.writes, []byte(event(`{"text":"Here it is"}`, false)))
	a.writes = append(a.writes, pieces(image)...)
	a.writes = append(a.writes, []byte(event(`{"text":""}`, true)))
	return a
}

// event is one server-sent event around a part.
func event(part string, last bool) string {
	finish := ""
	if last {
		finish = `"finishReason":"STOP",`
	}
	return `data: {"candidates":[{"content":{"parts":[` + part + `],"role":"model"},` + finish + `"index":0}],` +
		`"usageMetadata":{"promptTokenCount":16,"totalTokenCount":1136},"modelVersion":"gemini","responseId":"bench"}` + "\r\n\r\n"
}

// pieces cuts a body into writes of the sizes that arrive from Google: a TLS
// record, or a few of them at once.
func pieces(body string) [][]byte {
	sizes := []int{16 << 10, 64 << 10, 32 << 10}
	var out [][]byte
	for i := 0; len(body) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(body))
		out = append(out, []byte(body[:n]))
		body = body[n:]
	}
	return out
}

// base64Text is n characters of base64, 20 MB at most, that look like an image
// and are the same in every process.
func base64Text(n int) string { return noise()[:n] }

var noise = sync.OnceValue(func() string {
	raw := make([]byte, 15*MB)
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
})

func plainText(n int) string {
	const words = "The lighthouse keeper counts the ships that pass at dawn. "
	return strings.Repeat(words, n/len(words)+1)[:n]
}
