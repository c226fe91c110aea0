// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

const (
	kB = 1 << 10
	mB = 1 << 20
)

// form is how an answer is written.
type form uint8

const (
	formUnary form = iota
	formEvents
	formArray
	formImages     // OpenAI's images
	formChat       // OpenAI's chat
	formChatEvents // likewise, as a stream
	formOther      // no answer of a model
)

func (f form) isStream() bool { return f == formEvents || f == formArray || f == formChatEvents }

// document is an answer: its pieces are events, or all there is.
type document struct {
	contentType string
	pieces      []string
}

const (
	jsonType   = "application/json; charset=UTF-8"
	eventsType = "text/event-stream"
)

func (d document) String() string { return strings.Join(d.pieces, "") }

// image is base64 that begins like a JPEG and has its name at both ends.
func image(id imageID, size int) string {
	// 30 bytes, so that their base64 needs no padding.
	name := base64.StdEncoding.EncodeToString([]byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00 " + mark(id) + "  "))
	at := id.call * 4093 % (noiseSize / 4) * 4
	var b strings.Builder
	b.Grow(size + 2*len(name))
	b.WriteString(name)
	for left := size / 4 * 4; left > 0; at = 0 {
		n := min(left, noiseSize-at)
		b.WriteString(noise()[at : at+n])
		left -= n
	}
	b.WriteString(name)
	return b.String()
}

const noiseSize = 8 * mB

var noise = sync.OnceValue(func() string {
	raw := make([]byte, noiseSize/4*3)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
})

// mark is the words of an answer: whose it is.
func mark(id imageID) string { return fmt.Sprintf("%s.%03d", callName(id.call), id.visit) }

// signatures are few, so that what the gateway remembers of them is bounded.
func signature(id imageID) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "signature %03d", id.call%64))
}

const usageJSON = `"usageMetadata":{"promptTokenCount":16,"candidatesTokenCount":1120,"totalTokenCount":1136},"modelVersion":"gemini-3-pro-image"`

// object is one object of Google's, with parts and whatever ends the candidate.
func object(id imageID, parts, ending string) string {
	return `{"candidates":[{"content":{"parts":[` + parts + `],"role":"model"}` + ending + `,"index":0}],` + usageJSON +
		`,"responseId":"` + mark(id) + `"}`
}

const stops = `,"finishReason":"STOP"`

func textPart(text string) string { return `{"text":"` + text + `"}` }

func imagePart(id imageID, size int) string {
	return `{"inlineData":{"mimeType":"image/jpeg","data":"` + image(id, size) + `"},"thoughtSignature":"` + signature(id) + `"}`
}

// picture is an answer with an image, or words alone where size is 0.
func picture(f form, id imageID, size int) document {
	words := textPart(mark(id))
	if !f.isGoogles() {
		return openAIPicture(f, id, size)
	}
	if f == formUnary {
		if size > 0 {
			words += "," + imagePart(id, size)
		}
		return document{jsonType, []string{object(id, words, stops) + "\n"}}
	}
	objects := []string{object(id, words, "")}
	if size > 0 {
		objects = append(objects, object(id, imagePart(id, size), ""))
	}
	return framed(f, append(objects, object(id, textPart(""), stops)))
}

func (f form) isGoogles() bool { return f <= formArray }

// framed puts the objects of a stream into its form (wire §1, §3).
func framed(f form, objects []string) document {
	if f == formUnary {
		return document{jsonType, objects[len(objects)-1:]}
	}
	d := document{contentType: eventsType}
	if f == formArray {
		d.contentType = jsonType
	}
	for i, o := range objects {
		switch {
		case f == formArray && i == 0:
			o = "[" + o
		case f == formArray:
			o = "\n,\r\n" + o
		default:
			o = "data: " + o + "\r\n\r\n"
		}
		d.pieces = append(d.pieces, o)
	}
	if f == formArray {
		d.pieces[len(d.pieces)-1] += "]"
	}
	return d
}

func openAIPicture(f form, id imageID, size int) document {
	data := image(id, max(size, 4))
	if f == formImages {
		return document{jsonType, []string{`{"created":1,"data":[{"b64_json":"` + data + `"}],"usage":{"input_tokens":16,"output_tokens":1120,"total_tokens":1136}}`}}
	}
	images := `"images":[{"type":"image_url","index":0,"image_url":{"url":"data:image/jpeg;base64,` + data + `"}}]`
	head := `{"id":"` + mark(id) + `","created":1,"model":"gemini-3-pro-image",`
	usage := `"usage":{"prompt_tokens":16,"completion_tokens":1120,"total_tokens":1136}`
	if f == formChat {
		return document{jsonType, []string{head + `"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` +
			mark(id) + `",` + images + `},"finish_reason":"stop"}],` + usage + `}`}}
	}
	chunk := func(delta, ending string) string {
		return "data: " + head + `"object":"chat.completion.chunk","choices":[{"index":0,"delta":{` + delta + `},"finish_reason":` + ending + "}]}\n\n"
	}
	return document{eventsType, []string{
		chunk(`"role":"assistant","content":"`+mark(id)+`"`, "null"),
		chunk(images, "null"),
		chunk("", `"stop"`),
		"data: [DONE]\n\n",
	}}
}

// stopped is an answer that a filter has taken the image from: what a prompt
// block and a candidate's look like is wire §5.
func stopped(f form, id imageID, reason string) document {
	switch f {
	case formImages, formChat, formChatEvents:
		return document{jsonType, []string{`{"error":{"message":"` + mark(id) +
			` was rejected by the safety system.","type":"invalid_request_error","code":"content_policy_violation","param":null}}`}}
	}
	return framed(f, []string{object(id, "", `,"finishReason":"`+reason+`","finishMessage":"Unable to show the generated image."`)})
}

func promptStopped(f form, id imageID, reason string) document {
	return framed(f, []string{`{"promptFeedback":{"blockReason":"` + reason + `"},` + usageJSON + `,"responseId":"` + mark(id) + `"}`})
}

// stoppedLate is a stream that is blocked behind its first words.
func stoppedLate(f form, id imageID, reason string) document {
	return framed(f, []string{object(id, textPart(mark(id)), ""), object(id, "", `,"finishReason":"`+reason+`"`)})
}

// failure is an error of Google's; details may be empty.
func failure(id imageID, status int, word, details string) string {
	return fmt.Sprintf(`{"error":{"code":%d,"message":"%s","status":"%s","details":[%s]}}`, status, mark(id), word, details)
}
