// SPDX-License-Identifier: Apache-2.0

package simulator

import "strings"

// knownModels are the models that ListModels lists. Any other name is answered
// too, as whatever kind of model it looks like.
var knownModels = []struct{ name, title string }{
	{"gemini-3-pro-image", "Nano Banana Pro"},
	{"gemini-3-pro-image-preview", "Nano Banana Pro Preview"},
	{"gemini-3.1-flash-image", "Nano Banana 2"},
	{"gemini-3.1-flash-image-preview", "Nano Banana 2 Preview"},
	{"gemini-3.1-flash-lite-image", "Nano Banana 2 Lite"},
	{"gemini-2.5-flash-image", "Nano Banana"},
	{"gemini-3-pro-preview", "Gemini 3 Pro Preview"},
	{"gemini-2.5-flash", "Gemini 2.5 Flash"},
	{"imagen-4.0-generate-001", "Imagen 4"},
}

// gptModelsSince is when they were made, as far as OpenAI's list is concerned.
const gptModelsSince = 1_745_000_000

func isImagen(model string) bool { return strings.HasPrefix(model, "imagen-") }

// isImageModel tells the models that answer with images unless told otherwise.
func isImageModel(model string) bool { return strings.Contains(model, "-image") }

// isGemini3 tells the image models that think, sign their thoughts and deliver
// JPEG from the older ones, which do none of it and deliver PNG.
func isGemini3(model string) bool {
	return !strings.HasPrefix(model, "gemini-2") && !isImagen(model)
}

// imageMIME is what the pictures of an answer are encoded in.
func (c *call) imageMIME() string {
	switch {
	case c.mime != "":
		return c.mime
	case isGemini3(c.model):
		return "image/jpeg"
	default:
		return "image/png"
	}
}

// imageTokens are the tokens that one image is billed as, per size. The first
// model that is a prefix counts.
var imageTokens = []struct {
	model  string
	tokens map[string]int
}{
	{"gemini-2", map[string]int{"512": 1290, "1K": 1290, "2K": 1290, "4K": 1290}},
	{"gemini-3-pro-image", map[string]int{"512": 1120, "1K": 1120, "2K": 1120, "4K": 2000}},
	{"", map[string]int{"512": 747, "1K": 1120, "2K": 1680, "4K": 2520}},
}

func tokensPerImage(model, size string) int {
	if size == "" {
		size = defaultImageSize
	}
	for _, row := range imageTokens {
		if strings.HasPrefix(model, row.model) {
			return row.tokens[size]
		}
	}
	return 0
}

// inputImageTokens is what one image in the request counts.
func inputImageTokens(model string) int {
	if isGemini3(model) {
		return 1100
	}
	return 258
}

// Only the flash models of the 3.1 generation draw these; the others answer
// "Aspect ratio 1:4 is not supported for this model".
var narrowAspects = []string{"1:4", "4:1", "1:8", "8:1"}

var aspects = []string{
	"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9",
}

func drawsNarrow(model string) bool {
	return isGemini3(model) && !strings.HasPrefix(model, "gemini-3-pro-image")
}

func listModels(x *exchange) error {
	if x.call.version == "v1" && fromGPTClient(x.r) {
		return listGPTModels(x)
	}
	list := array{}
	for _, m := range knownModels {
		list = append(list, modelObject(m.name, m.title))
	}
	return x.json(object{{"models", list}})
}

func getModel(x *exchange) error {
	for _, m := range knownModels {
		if m.name == x.call.model {
			return x.json(modelObject(m.name, m.title))
		}
	}
	return x.fail(modelNotFound(x.call))
}

func modelObject(name, title string) object {
	methods := array{"generateContent", "countTokens"}
	if isImagen(name) {
		methods = array{"predict"}
	}
	return object{
		{"name", "models/" + name},
		{"version", "001"},
		{"displayName", title},
		{"description", "Played by the simulator"},
		{"inputTokenLimit", 65536},
		{"outputTokenLimit", 32768},
		{"supportedGenerationMethods", methods},
	}
}

func listOpenAIModels(x *exchange) error {
	list := array{}
	for _, m := range knownModels {
		list = append(list, object{{"id", "models/" + m.name}, {"object", "model"}, {"owned_by", "google"}})
	}
	return x.json(object{{"object", "list"}, {"data", list}})
}

// listGPTModels is for OpenAI's clients, whose path is one of Google's.
func listGPTModels(x *exchange) error {
	x.call.api = &gptAPI
	list := array{}
	for _, m := range knownModels {
		list = append(list, object{{"id", m.name}, {"object", "model"}, {"created", gptModelsSince}, {"owned_by", "simulator"}})
	}
	return x.json(object{{"object", "list"}, {"data", list}})
}
