// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"io"
	"slices"
	"strconv"
)

// maxImagesAsked is how many images OpenAI makes of one prompt.
const maxImagesAsked = 10

// imagesFields are those of images/generations, and of images/edits as well
// (platform.openai.com/docs/api-reference/images).
var imagesFields = openAIFields{
	"model":             {kinds: takesText, keep: maxKey, take: (*openAIReader).takeModel},
	"prompt":            {kinds: takesText, take: (*openAIReader).takePrompt},
	"n":                 {kinds: takesNumber, take: (*openAIReader).takeCount},
	"size":              {kinds: takesText, keep: maxWord, take: (*openAIReader).takeSize},
	"aspectRatio":       aspectField, // of many aggregators
	"quality":           {kinds: takesText, keep: maxWord, take: (*openAIReader).takeQuality},
	"background":        {kinds: takesText, keep: maxWord, take: (*openAIReader).takeBackground},
	"responseFormat":    {kinds: takesText, keep: maxWord, take: (*openAIReader).takeResponseFormat},
	"outputFormat":      {kinds: takesText, keep: maxWord, take: (*openAIReader).takeOutputFormat},
	"outputCompression": {kinds: takesNumber, take: (*openAIReader).takeCompression},
	"stream":            {kinds: takesFlag, take: usual("false")},
	"partialImages":     {kinds: takesNumber, take: usual("0")},
	"style":             {kinds: takesAny, take: ownWord("style")},
	"moderation":        {kinds: takesAny, take: ownWord("moderation")},
	"user":              {kinds: takesAny, take: ownWord("user")},
	"inputFidelity":     {kinds: takesAny, take: ownWord("input_fidelity")},
}

// editsFields are where images/edits has its images: as JSON in images, in forms
// in image or image[], and in either as other programs write them.
var editsFields = func() openAIFields {
	image := openAIField{kinds: takesText, keep: maxURI, isURL: true, take: (*openAIReader).takeImage}
	fields := openAIFields{"mask": {kinds: takesAny, take: (*openAIReader).refuseField}}
	for _, list := range []string{"image", "images"} {
		fields[list] = image
		fields[list+"[]"] = image
		fields[list+"[].url"] = image
		fields[list+"[].imageUrl"] = image
		fields[list+"[].imageUrl.url"] = image
		fields[list+"[].fileId"] = openAIField{kinds: takesAny, take: (*openAIReader).refuseField}
	}
	return fields
}()

var (
	generationsSchema = newOpenAISchema(imagesFields, extraFields)
	editsSchema       = newOpenAISchema(imagesFields, editsFields, extraFields)
)

// readBriefImages reads the JSON of images/generations, or of images/edits. It
// fails with a *jsonError, or with what the body failed with.
func readBriefImages(body io.Reader, edits bool) (*brief, error) {
	schema := generationsSchema
	if edits {
		schema = editsSchema
	}
	r := newImagesReader(schema)
	if err := r.read(body); err != nil {
		return nil, err
	}
	return r.finishImages(), nil
}

func newImagesReader(schema *openAISchema) *openAIReader {
	r := newOpenAIReader(schema)
	r.draws, r.imagesAlone = true, true
	return r
}

// finishImages puts the prompt before its images, as Google's examples do: in
// JSON, the order of the two says nothing.
func (r *openAIReader) finishImages() *brief {
	if r.prompt == (passage{}) {
		r.refuseMissing("prompt")
	}
	if r.schema == editsSchema && len(r.images) == 0 {
		r.refuseMissing("image")
	}
	r.turns = []briefTurn{{parts: append([]briefPart{{text: r.prompt}}, r.images...)}}
	r.finishSize()
	return r.finish()
}

// finishSize lets the size say what nothing else does.
func (r *openAIReader) finishSize() {
	if r.aspect+r.size != "" {
		r.exact = pixels{}
	}
	r.aspect, r.size = cmp.Or(r.aspect, r.fitted[0]), cmp.Or(r.size, r.fitted[1])
	for i := range r.own {
		f := &r.own[i]
		f.isMeant = f.isMeant || f.name == "quality" && r.isFine && r.size != ""
	}
}

// keepOwn keeps a field for an upstream with the same API. A form may have it twice.
func (r *openAIReader) keepOwn(name string, v openAIValue, isMeant bool) {
	r.own = slices.DeleteFunc(r.own, func(f ownField) bool { return f.name == name })
	if r.keeps(v.text) {
		r.own = append(r.own, ownField{name, passage{v.span, v.text}, isMeant})
	}
}

// ownWord is for a text without which nothing but itself is lost.
func ownWord(name string) func(*openAIReader, openAIValue) {
	return func(r *openAIReader, v openAIValue) {
		if v.kind != jsonString || v.span.isEmpty() && v.text == "" {
			r.drop(v)
			return
		}
		r.keepOwn(name, v, true)
	}
}

func (r *openAIReader) takePrompt(v openAIValue) { r.prompt = passage{v.span, v.text} }

func (r *openAIReader) takeImage(v openAIValue) {
	if i := r.image(v); i != nil {
		r.addImage(i)
	}
}

func (r *openAIReader) addImage(i *briefImage) {
	if r.hasRoom() {
		r.images = append(r.images, briefPart{image: i})
	}
}

func (r *openAIReader) takeCount(v openAIValue) {
	n, err := strconv.Atoi(v.text)
	if err != nil || n < 1 || n > maxImagesAsked {
		r.refuseValue("it must be a number from 1 to " + strconv.Itoa(maxImagesAsked))
		return
	}
	r.count = n
}

func (r *openAIReader) takeSize(v openAIValue) {
	if v.text == "auto" {
		return
	}
	aspect, size, ok := fitSize(v.text)
	if !ok {
		r.refuseValue("it must be WIDTHxHEIGHT, an aspect ratio that Google has, 512, 1K, 2K, 4K or auto")
		return
	}
	r.fitted, r.exact = [2]string{aspect, size}, pixelsOf(v.text)
}

// takeQuality makes a high quality a large image, where nothing else says how
// large: Google has no other word for it. It has none for a low one.
func (r *openAIReader) takeQuality(v openAIValue) {
	switch v.text {
	case "high", "hd":
		r.isFine = true
		r.keepOwn("quality", v, false)
	case "auto", "standard":
		r.keepOwn("quality", v, false)
	case "low", "medium":
		r.keepOwn("quality", v, true)
	default:
		r.refuseValue("it must be auto, low, medium, high, standard or hd")
	}
}

// takeBackground takes what Google's images have anyway.
func (r *openAIReader) takeBackground(v openAIValue) {
	usual("auto", "opaque")(r, v)
	r.keepOwn("background", v, false)
}

func (r *openAIReader) takeResponseFormat(v openAIValue) {
	switch v.text {
	case "b64_json":
		r.asURL = false
	case "url":
		r.asURL = true
	default:
		r.refuseValue("it must be b64_json or url")
	}
}

func (r *openAIReader) takeOutputFormat(v openAIValue) {
	if !slices.Contains([]string{"png", "jpeg", "webp"}, v.text) {
		r.refuseValue("it must be png, jpeg or webp")
		return
	}
	r.outputMime = "image/" + v.text
}

func (r *openAIReader) takeCompression(v openAIValue) {
	if n, err := strconv.Atoi(v.text); err != nil || n < 0 || n > 100 {
		r.refuseValue("it must be a number from 0 to 100")
		return
	}
	r.compression = v.text
}
