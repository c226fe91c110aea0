// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"maps"
	"slices"
	"strings"
)

// extraFields are what requests of OpenAI's have beyond its own fields: what its
// Python client puts into the root out of extra_body, and the same in an extra_body
// that was sent as such, as Google has it (ai.google.dev/gemini-api/docs/openai).
var extraFields = func() openAIFields {
	extra := openAIFields{
		"safetySettings[]":           {end: (*openAIReader).endSafety},
		"safetySettings[].category":  {kinds: takesText, keep: maxWord, take: (*openAIReader).takeCategory},
		"safetySettings[].threshold": {kinds: takesText, keep: maxWord, take: (*openAIReader).takeThreshold},
		"imageConfig.aspectRatio":    aspectField, // OpenRouter's words, and Google's
		"imageConfig.imageSize":      {kinds: takesText, keep: maxWord, take: (*openAIReader).takeImageSize},
	}
	google := openAIFields{
		"responseModalities":             {end: (*openAIReader).endModalities},
		"responseModalities[]":           {kinds: takesText, keep: maxWord, take: (*openAIReader).takeModality},
		"thinkingConfig.thinkingBudget":  settingField("thinkingBudget"),
		"thinkingConfig.thinkingLevel":   {kinds: takesText, keep: maxWord, take: (*openAIReader).takeLevel},
		"thinkingConfig.includeThoughts": {kinds: takesFlag, take: usual("false")},
		"cachedContent":                  {kinds: takesAny, take: (*openAIReader).refuseField},
	}
	maps.Copy(google, extra)
	maps.Copy(extra, google.under("google"))
	maps.Copy(extra, extra.under("extraBody"))
	return extra
}()

var aspectField = openAIField{kinds: takesText, keep: maxWord, take: (*openAIReader).takeAspect}

// settingField is a number that has a name in Google's generationConfig.
func settingField(native string) openAIField {
	return openAIField{kinds: takesNumber, take: func(r *openAIReader, v openAIValue) { r.settings[native] = v.text }}
}

func (r *openAIReader) takeCategory(v openAIValue) {
	name := strings.ToUpper(v.text)
	if !strings.HasPrefix(name, harmPrefix) {
		name = harmPrefix + name
	}
	r.takeHarm(&r.categories, findCategory(jsonString, []byte(name), false).name, "it must be one of Google's categories of harm")
}

func (r *openAIReader) takeThreshold(v openAIValue) {
	name := strings.ToUpper(v.text)
	if !slices.Contains(harmThresholds, name) {
		name = ""
	}
	r.takeHarm(&r.thresholds, name, "it must be one of "+strings.Join(harmThresholds, ", "))
}

func (r *openAIReader) takeHarm(list *[]string, name, otherwise string) {
	if name == "" || len(*list) == maxListed {
		r.refuseValue(otherwise)
		return
	}
	*list = append(*list, name)
}

// endSafety ends one setting. In a form, the two halves of all come in any order.
func (r *openAIReader) endSafety() {
	if len(r.categories) != len(r.thresholds) {
		r.refuseValue("it must have a category and a threshold")
	}
}

// setSafety lets the last setting of a category count: Google refuses two.
func (r *openAIReader) setSafety(s SafetySetting) {
	i := slices.IndexFunc(r.safety, func(has SafetySetting) bool { return has.Category == s.Category })
	if i < 0 {
		r.safety = append(r.safety, s)
		return
	}
	r.safety[i] = s
}

func (r *openAIReader) takeAspect(v openAIValue) {
	if v.text == "auto" {
		return
	}
	shape, ok := shapeOf(v.text)
	if !ok {
		r.refuseValue("it must be an aspect ratio that Google has, such as 16:9")
		return
	}
	r.aspect, r.draws = shape.aspect, true
}

func (r *openAIReader) takeImageSize(v openAIValue) {
	scale, ok := scaleOf(v.text)
	if !ok {
		r.refuseValue("it must be 512, 1K, 2K or 4K")
		return
	}
	r.size, r.draws = scale.word, true
}

func (r *openAIReader) takeModality(v openAIValue) {
	r.outputs++
	switch strings.ToLower(v.text) {
	case "text":
	case "image":
		r.pictures++
	default:
		r.refuseValue("it must be text or image")
	}
}

func (r *openAIReader) endModalities() {
	if r.pictures > 0 {
		r.draws, r.imagesAlone = true, r.pictures == r.outputs
	}
	r.writes = r.pictures < r.outputs
	r.outputs, r.pictures = 0, 0
}

// takeLevel takes one of Google's words, which it spells in either case.
func (r *openAIReader) takeLevel(v openAIValue) {
	level := strings.ToLower(v.text)
	if !slices.Contains([]string{"minimal", "low", "medium", "high"}, level) {
		r.refuseValue("it must be minimal, low, medium or high")
		return
	}
	r.settings["thinkingLevel"] = string(encode(level))
}
