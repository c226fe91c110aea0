// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// pixels are the width and height of an image.
type pixels struct{ width, height int }

func (p pixels) isEmpty() bool { return p.width == 0 || p.height == 0 }

func (p pixels) String() string { return strconv.Itoa(p.width) + "x" + strconv.Itoa(p.height) }

// distance tells how different two shapes are, whatever their sizes; 0 if they are
// the same.
func (p pixels) distance(other pixels) float64 {
	return math.Abs(math.Log(float64(p.width*other.height) / float64(p.height*other.width)))
}

// nearest is the one of them whose shape is nearest to p.
func (p pixels) nearest(all []pixels) pixels {
	return slices.MinFunc(all, func(a, b pixels) int { return cmp.Compare(p.distance(a), p.distance(b)) })
}

// imageShape is an aspect ratio of Google's, with what the Gemini 3 models make of
// it at 1K.
type imageShape struct {
	aspect string
	pixels
}

// commonShapes is how many of the imageShapes every model has.
const commonShapes = 10

// imageShapes are in ai.google.dev/gemini-api/docs/image-generation.
var imageShapes = []imageShape{
	{"1:1", pixels{1024, 1024}},
	{"2:3", pixels{848, 1264}},
	{"3:2", pixels{1264, 848}},
	{"3:4", pixels{896, 1200}},
	{"4:3", pixels{1200, 896}},
	{"4:5", pixels{928, 1152}},
	{"5:4", pixels{1152, 928}},
	{"9:16", pixels{768, 1376}},
	{"16:9", pixels{1376, 768}},
	{"21:9", pixels{1584, 672}},
	{"1:4", pixels{512, 2048}},
	{"4:1", pixels{2048, 512}},
	{"1:8", pixels{384, 3072}},
	{"8:1", pixels{3072, 384}},
}

// imageScale is a word of Google's for how large an image is.
type imageScale struct {
	word   string
	halves int // of what a side has at 1K
	below  int // the first area, in pixels, that is too large for it
}

// imageScales are also there. At 512 the documentation has half of 1K, but for
// 21:9, where its 792x168 is of another shape. The limits are not half-way between
// the sizes, so that 1920x1080 is 2K and 3840x2160 is 4K, as everybody calls them,
// and dall-e-3's 1792x1024 is 1K.
var imageScales = []imageScale{
	{"512", 1, 300_000},
	{"1K", 2, 2_000_000},
	{"2K", 4, 8_000_000},
	{"4K", 8, math.MaxInt},
}

// maxSide is more pixels than any API has ever made of a side.
const maxSide = 1 << 17

// fitSize puts a size of OpenAI's, such as "1792x1024", into Google's words by
// nearest fit. It knows these words, too. What a size does not say remains empty.
func fitSize(size string) (aspect, imageSize string, ok bool) {
	if shape, known := shapeOf(size); known {
		return shape.aspect, "", true
	}
	if scale, known := scaleOf(size); known {
		return "", scale.word, true
	}
	asked := pixelsOf(size)
	if asked.isEmpty() {
		return "", "", false
	}
	scale := slices.IndexFunc(imageScales, func(s imageScale) bool { return asked.width*asked.height < s.below })
	return nearestShape(asked, imageShapes).aspect, imageScales[scale].word, true
}

// pixelsOf reads a size such as "1792x1024", empty if it is none.
func pixelsOf(size string) pixels {
	width, height, _ := strings.Cut(strings.ToLower(size), "x")
	return pixels{side(width), side(height)}
}

func nearestShape(to pixels, all []imageShape) imageShape {
	return slices.MinFunc(all, func(a, b imageShape) int { return cmp.Compare(to.distance(a.pixels), to.distance(b.pixels)) })
}

// pixelSize puts Google's words for a size into OpenAI's: what Google makes of
// them, or what comes nearest to it of the sizes that the model has. A word that is
// missing stands for Google's default, 1:1 and 1K; one that nobody knows makes it
// empty.
func pixelSize(aspect, imageSize, model string) string {
	shape, ok := shapeOf(cmp.Or(aspect, "1:1"))
	scale, known := scaleOf(cmp.Or(imageSize, "1K"))
	if !ok || !known {
		return ""
	}
	made := pixels{shape.width * scale.halves / 2, shape.height * scale.halves / 2}
	if all := familyOf(model).sizes; len(all) > 0 {
		made = made.nearest(all)
	}
	return made.String()
}

func shapeOf(aspect string) (imageShape, bool) {
	i := slices.IndexFunc(imageShapes, func(s imageShape) bool { return s.aspect == aspect })
	if i < 0 {
		return imageShape{}, false
	}
	return imageShapes[i], true
}

// scaleOf knows a size in either case, and 512 also by OpenRouter's name for it.
func scaleOf(word string) (imageScale, bool) {
	word = strings.ToUpper(word)
	if word == halfK {
		word = "512"
	}
	i := slices.IndexFunc(imageScales, func(s imageScale) bool { return s.word == word })
	if i < 0 {
		return imageScale{}, false
	}
	return imageScales[i], true
}

// halfK is 512 in OpenRouter's image_config.
const halfK = "0.5K"

// side reads a number of pixels, 0 if it is none.
func side(digits string) int {
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n > maxSide {
		return 0
	}
	return int(n)
}

// openAIFamily is what is particular about models of OpenAI's own, where others
// that speak its form go by Google's sizes.
type openAIFamily struct {
	prefix string
	sizes  []pixels // all that there are
	// base64Only means that response_format is refused: there is no other.
	base64Only bool
	// pngOnly means that output_format and output_compression are refused.
	pngOnly bool
	own     []string // that the model has of the fields that only this form has; nil for all
	fine    string   // its highest quality; "" for what the client calls so
}

// openAIFamilies are in platform.openai.com/docs/api-reference/images/create.
var openAIFamilies = []openAIFamily{
	{prefix: "gpt-image-", sizes: gptImageSizes, base64Only: true, own: gptImageOwn, fine: "high"},
	{prefix: "chatgpt-image-", sizes: gptImageSizes, base64Only: true, own: gptImageOwn, fine: "high"},
	{prefix: "dall-e-3", sizes: []pixels{{1024, 1024}, {1792, 1024}, {1024, 1792}}, pngOnly: true, own: []string{"quality", "style", "user"}, fine: "hd"},
	{prefix: "dall-e-2", sizes: []pixels{{1024, 1024}, {512, 512}, {256, 256}}, pngOnly: true, own: []string{"user"}},
}

var (
	gptImageSizes = []pixels{{1024, 1024}, {1536, 1024}, {1024, 1536}}
	gptImageOwn   = []string{"quality", "background", "moderation", "user", "input_fidelity"}
)

// familyOf knows a model also by an aggregator's name, such as openai/gpt-image-1.
func familyOf(model string) openAIFamily {
	model = model[strings.LastIndexByte(model, '/')+1:]
	for _, family := range openAIFamilies {
		if strings.HasPrefix(model, family.prefix) {
			return family
		}
	}
	return openAIFamily{}
}
