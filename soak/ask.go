// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// ask is how a client asks: the request for a call, and the form in which it
// wants the answer.
type ask func(c *call) question

type question struct {
	method    string
	path      string
	body      io.Reader
	length    int64 // of the body; -1: the client does not say
	form      form
	isEndless bool // there is more of the body, which does not come before the answer
}

const (
	imageModel = "gemini-3-pro-image"
	textModel  = "gemini-2.5-flash"
)

func nativePath(model, verb string) string { return "/v1beta/models/" + model + ":" + verb }

// contents is the request of all native calls; more is what stands beside the
// contents.
func contents(c *call, more string) string {
	return `{"contents":[{"role":"user","parts":[{"text":"` + c.promptText() + `"}]}]` + more + `}`
}

func post(path string, f form, body string) question {
	return question{method: http.MethodPost, path: path, body: strings.NewReader(body), length: int64(len(body)), form: f}
}

func askNative(model, verb string, f form, more string) ask {
	return func(c *call) question { return post(nativePath(model, verb), f, contents(c, more)) }
}

var (
	askUnary      = askNative(imageModel, "generateContent", formUnary, "")
	askEvents     = askNative(imageModel, "streamGenerateContent?alt=sse", formEvents, "")
	askArray      = askNative(imageModel, "streamGenerateContent", formArray, "")
	askText       = askNative(textModel, "generateContent", formUnary, "")
	askTextEvents = askNative(textModel, "streamGenerateContent?alt=sse", formEvents, "")
	askTextArray  = askNative(textModel, "streamGenerateContent", formArray, "")
	askAlone      = askNative(imageModel, "generateContent", formUnary, `,"generationConfig":{"responseModalities":["IMAGE"]}`)
	askCount      = askNative(imageModel, "countTokens", formOther, "")
)

func askVertex(c *call) question {
	const model = "/v1beta1/projects/soak/locations/global/publishers/google/models/" + imageModel
	return post(model+":generateContent", formUnary, contents(c, ""))
}

func askImages(c *call) question { return imagesOf(c, 1) }

func askThree(c *call) question { return imagesOf(c, 3) }

func imagesOf(c *call, n int) question {
	c.parts = n
	return post("/v1/images/generations", formImages,
		fmt.Sprintf(`{"model":"nano-banana-pro","prompt":"%s","n":%d,"response_format":"b64_json"}`, c.promptText(), n))
}

func askChat(c *call) question { return chat(c, formChat, "") }

func askChatEvents(c *call) question { return chat(c, formChatEvents, `,"stream":true`) }

func chat(c *call, f form, more string) question {
	return post("/v1/chat/completions", f,
		`{"model":"nano-banana-pro","modalities":["image","text"],"messages":[{"role":"user","content":"`+c.promptText()+`"}]`+more+`}`)
}

// askUpload sends an image of a size between two, in characters of base64.
func askUpload(least, most int) ask {
	return func(c *call) question {
		c.upload = (least + c.number*7919%(most-least)) / 4 * 4
		return post(nativePath(imageModel, "generateContent"), formUnary,
			`{"contents":[{"role":"user","parts":[{"text":"`+c.promptText()+`"},{"inlineData":{"mimeType":"image/jpeg","data":"`+
				image(imageID{call: c.number}, c.upload)+`"}}]}]}`)
	}
}

// maxBody is the limit of the gateway.
const maxBody = 24 * mB

// askTooMuch says that it will send too much, and sends the beginning of it.
func askTooMuch(c *call) question {
	q := post(nativePath(imageModel, "generateContent"), formUnary, "")
	q.length = maxBody + 1
	q.body, q.isEndless = strings.NewReader(tooMuch(c)[:64*kB]), true
	return q
}

// askTooMuchUnsaid sends what is too much by a byte.
func askTooMuchUnsaid(c *call) question {
	q := post(nativePath(imageModel, "generateContent"), formUnary, "")
	q.length = -1
	q.body, q.isEndless = strings.NewReader(tooMuch(c)), true
	return q
}

func tooMuch(c *call) string {
	head := `{"contents":[{"parts":[{"text":"` + c.promptText() + `"},{"inlineData":{"mimeType":"image/jpeg","data":"`
	return head + strings.Repeat(noise(), maxBody/noiseSize+1)[:maxBody+1-len(head)]
}

func askMalformed(c *call) question {
	return post(nativePath(imageModel, "generateContent"), formUnary, `{"contents":[{"parts":[{"text":"`+c.promptText()+`"}]}],}`)
}

func askModels(*call) question {
	return question{method: http.MethodGet, path: "/v1beta/models?pageSize=5", form: formOther}
}

func askFile(c *call) question {
	return post("/upload/v1beta/files", formOther, image(imageID{call: c.number}, mB))
}

func askElsewhere(*call) question {
	return question{method: http.MethodGet, path: elsewhere, form: formOther}
}
