// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"strings"
)

// drawingModel is what one of Google's image models understands of a request.
type drawingModel struct {
	prefix string   // of its name
	sizes  []string // that imageSize may be; it is refused if there are none
	levels []string // of thinking, from the least on
	strips bool     // has the aspect ratios from 1:4 to 8:1, too
	signs  bool     // wants its images back with their signatures (wire §6)
}

// drawingModels are those that are known to lack something: wire §10, and
// ai.google.dev/gemini-api/docs/image-generation.
var drawingModels = []drawingModel{
	{prefix: "gemini-2"},
	{prefix: "gemini-3-pro-image", sizes: []string{"1K", "2K", "4K"}, levels: allLevels, signs: true},
	{prefix: "gemini-3.1-flash-lite-image", sizes: []string{"1K"}, levels: []string{"MINIMAL", "HIGH"}, strips: true, signs: true},
	{prefix: "gemini-3.1-flash-image", sizes: allSizes, levels: []string{"MINIMAL", "HIGH"}, strips: true, signs: true},
}

var (
	allSizes  = []string{"512", "1K", "2K", "4K"}
	allLevels = []string{"MINIMAL", "LOW", "MEDIUM", "HIGH"}
)

// drawingModelOf takes a model that is not known to lack anything for one that has
// all: Google refuses the call if it has not.
func drawingModelOf(name string) drawingModel {
	name = bareModel(name)
	i := slices.IndexFunc(drawingModels, func(m drawingModel) bool { return strings.HasPrefix(name, m.prefix) })
	if i < 0 {
		return drawingModel{sizes: allSizes, levels: allLevels, strips: true, signs: true}
	}
	return drawingModels[i]
}

// fit is the shape and size of an image that come nearest to what a brief wants, of
// those that the model has, and the fields that lose by it. A size that it has not is
// left to the model, whose choice is 1K.
func (m *drawingModel) fit(b *brief) (aspect, size string, lost []string) {
	aspect, size = b.aspect, b.imageSize()
	if shape, known := shapeOf(aspect); known && !m.strips {
		aspect = nearestShape(shape.pixels, imageShapes[:commonShapes]).aspect
	}
	if aspect != b.aspect {
		lost = append(lost, "aspect_ratio")
	}
	scale, known := scaleOf(size)
	switch {
	case !known:
	case slices.Contains(m.sizes, scale.word):
		size = scale.word
	default:
		size = ""
		if scale.word != "1K" {
			lost = append(lost, "size")
		}
	}
	return aspect, size, lost
}

// level is the nearest level of thinking that the model has; "" if it has none.
func (m *drawingModel) level(level string) string {
	i := slices.Index(allLevels, level)
	switch {
	case len(m.levels) == 0:
		return ""
	case i < 0 || slices.Contains(m.levels, level):
		return level
	case i < len(allLevels)/2:
		return m.levels[0]
	}
	return m.levels[len(m.levels)-1]
}
