// SPDX-License-Identifier: Apache-2.0

package gemini

import "strings"

// lonelyFields are what one of the two APIs has and the other refuses: wire §2, and
// what the Go SDK 1.77 refuses to send (models.go).
var lonelyFields = []struct {
	path    string
	home    format // the API that has it
	foreign bool   // without it the call would be another one; the others are left out
}{
	{"labels", formatVertex, false},
	{"modelArmorConfig", formatVertex, true},
	{"outputConfig", formatVertex, true},
	{"safetySettings.method", formatVertex, false},
	{"generationConfig.routingConfig", formatVertex, false},
	{"generationConfig.modelConfig", formatVertex, false},
	{"generationConfig.audioTimestamp", formatVertex, false},
	{"generationConfig.imageConfig.personGeneration", formatVertex, false},
	{"generationConfig.imageConfig.prominentPeople", formatVertex, false},
	{"generationConfig.imageConfig.outputMimeType", formatVertex, false},
	{"generationConfig.imageConfig.outputCompressionQuality", formatVertex, false},
	{"generationConfig.imageConfig.imageOutputOptions", formatVertex, false},
	{"generationConfig.responseFormat.video", formatVertex, true},
	{"tools.retrieval", formatVertex, true},
	{"tools.enterpriseWebSearch", formatVertex, true},
	{"tools.parallelAiSearch", formatVertex, true},
	{"tools.exaAiSearch", formatVertex, true},

	{"store", formatGemini, false},
	{"generationConfig.enableEnhancedCivicAnswers", formatGemini, false},
	{"contents.parts.partMetadata", formatGemini, false},
	{"contents.parts.toolCall", formatGemini, true},
	{"contents.parts.toolResponse", formatGemini, true},
	{"tools.fileSearch", formatGemini, true},
	{"toolConfig.includeServerSideToolInvocations", formatGemini, true},
}

const (
	_ fieldID = iota
	dialectContent
	dialectRole
	dialectFile
	dialectCache
	dialectModality
	dialectSetting
	dialectCategory
	dialectFormat     // responseFormat: an object in the Gemini API, a list of them in Vertex AI
	dialectFormatWord // in it
	dialectOther      // a neighbour of what may be left out
	dialectLonely     // and all above: an index into lonelyFields
)

var dialectSchema = func() *field {
	other := &field{id: dialectOther}
	paths := map[string]field{
		"":                                    {rest: other},
		"cachedContent":                       {id: dialectCache, keep: maxEscape},
		"contents":                            {id: dialectContent},
		"contents.role":                       {id: dialectRole, keep: maxEscape},
		"contents.parts":                      {id: dialectOther, rest: other},
		"contents.parts.fileData":             {id: dialectOther},
		"contents.parts.fileData.fileUri":     {id: dialectFile, keep: maxKey},
		"safetySettings":                      {id: dialectSetting, rest: other},
		"safetySettings.category":             {id: dialectCategory, keep: maxKey},
		"generationConfig":                    {id: dialectOther, rest: other},
		"generationConfig.imageConfig":        {id: dialectOther, rest: other},
		"generationConfig.responseModalities": {id: dialectModality, keep: maxWord},
		"generationConfig.responseFormat":     {id: dialectFormat},
		"generationConfig.responseFormat.image.aspectRatio": {id: dialectFormatWord, keep: maxWord},
		"generationConfig.responseFormat.image.imageSize":   {id: dialectFormatWord, keep: maxWord},
		"generationConfig.responseFormat.image.mimeType":    {id: dialectFormatWord, keep: maxWord},
	}
	for i, lonely := range lonelyFields {
		paths[lonely.path] = field{id: dialectLonely + fieldID(i), keep: maxEscape}
	}
	root := newSchema(paths)
	for _, list := range []string{"contents", "contents.parts", "safetySettings", "tools", "generationConfig.responseModalities", "generationConfig.responseFormat"} {
		f := root
		for key := range strings.SplitSeq(list, ".") {
			f = f.member(key)
		}
		f.repeatable()
	}
	return root
}()

// apiNames are for people.
var apiNames = map[format]string{formatGemini: "The Gemini API", formatVertex: "Vertex AI"}

// formatWords are the values of responseFormat.image as Vertex AI names them
// (aiplatform v1, revision 20261012). The Gemini API knows these names as well as
// the short ones, which its examples have.
var formatWords = map[string]string{
	"1:1":  "ASPECT_RATIO_ONE_BY_ONE",
	"1:4":  "ASPECT_RATIO_ONE_BY_FOUR",
	"1:8":  "ASPECT_RATIO_ONE_BY_EIGHT",
	"2:3":  "ASPECT_RATIO_TWO_BY_THREE",
	"3:2":  "ASPECT_RATIO_THREE_BY_TWO",
	"3:4":  "ASPECT_RATIO_THREE_BY_FOUR",
	"4:1":  "ASPECT_RATIO_FOUR_BY_ONE",
	"4:3":  "ASPECT_RATIO_FOUR_BY_THREE",
	"4:5":  "ASPECT_RATIO_FOUR_BY_FIVE",
	"5:4":  "ASPECT_RATIO_FIVE_BY_FOUR",
	"8:1":  "ASPECT_RATIO_EIGHT_BY_ONE",
	"9:16": "ASPECT_RATIO_NINE_BY_SIXTEEN",
	"16:9": "ASPECT_RATIO_SIXTEEN_BY_NINE",
	"21:9": "ASPECT_RATIO_TWENTY_ONE_BY_NINE",
	"512":  "IMAGE_SIZE_FIVE_TWELVE",
	"1K":   "IMAGE_SIZE_ONE_K",
	"2K":   "IMAGE_SIZE_TWO_K",
	"4K":   "IMAGE_SIZE_FOUR_K",

	"image/jpeg": "IMAGE_JPEG",
}
