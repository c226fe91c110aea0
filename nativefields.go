// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/url"
	"strconv"
	"strings"
)

// maxURI is longer than the signed URLs of any cloud.
const maxURI = 8 << 10

// nativeField says what becomes of a field of generateContent.
type nativeField struct {
	path string
	keep int    // how many bytes of a string to capture; a longer one is refused
	raw  bool   // it is base64, of any length
	drop string // the name that the field is dropped by, whatever it holds
	// take takes a scalar. It returns false if no other form can say the value.
	take func(*nativeReader, nativeValue) bool
	// begin and end are for the objects of a field; end returns what take does.
	begin func(*nativeReader)
	end   func(*nativeReader) bool
}

// nativeFields are the fields that other forms have a word for, and those that
// nothing but themselves is lost with. All others make the call foreign, known or
// not: tools, cachedContent, response schemas, speech, the calls of functions in
// the history. The ID of a field is its index.
var nativeFields = []nativeField{
	{path: ""},                        // the root, and all that is only a step on the way
	{path: "model", take: takeNaught}, // the path tells it

	{path: "systemInstruction", take: (*nativeReader).takeSystem}, // some send a string
	{path: "systemInstruction.role", take: takeNaught},
	{path: "systemInstruction.parts.text", take: (*nativeReader).takeSystem},

	{path: "contents", begin: (*nativeReader).beginTurn, end: (*nativeReader).endTurn},
	{path: "contents.role", keep: maxWord, take: (*nativeReader).takeRole},
	{path: "contents.parts", begin: (*nativeReader).beginPart, end: (*nativeReader).endPart},
	{path: "contents.parts.text", take: (*nativeReader).takeText},
	{path: "contents.parts.thought", take: (*nativeReader).takeThought},
	{path: "contents.parts.thoughtSignature", keep: maxWord, take: takePlaceholder},
	{path: "contents.parts.mediaResolution", drop: "mediaResolution"},
	{path: "contents.parts.partMetadata", drop: "partMetadata"},
	{path: "contents.parts.inlineData", begin: (*nativeReader).beginImage, end: (*nativeReader).endImage},
	{path: "contents.parts.inlineData.mimeType", keep: maxWord, take: (*nativeReader).takeMime},
	{path: "contents.parts.inlineData.data", raw: true, take: (*nativeReader).takeData},
	{path: "contents.parts.inlineData.displayName", drop: "displayName"},
	{path: "contents.parts.fileData", begin: (*nativeReader).beginImage, end: (*nativeReader).endImage},
	{path: "contents.parts.fileData.mimeType", keep: maxWord, take: (*nativeReader).takeMime},
	{path: "contents.parts.fileData.fileUri", keep: maxURI, take: (*nativeReader).takeURI},
	{path: "contents.parts.fileData.displayName", drop: "displayName"},

	{path: "safetySettings[]", begin: (*nativeReader).beginSetting, end: (*nativeReader).endSetting},
	{path: "safetySettings[].category", keep: maxWord, take: (*nativeReader).takeCategory},
	{path: "safetySettings[].threshold", keep: maxWord, take: (*nativeReader).takeThreshold},
	{path: "safetySettings[].method", drop: "safetySettings.method"},
	{path: "toolConfig", drop: "toolConfig"}, // means nothing without tools
	{path: "labels", drop: "labels"},
	{path: "serviceTier", drop: "serviceTier"},

	{path: "generationConfig.temperature", take: takeNumber("temperature")},
	{path: "generationConfig.topP", take: takeNumber("topP")},
	{path: "generationConfig.topK", take: takeNumber("topK")},
	{path: "generationConfig.maxOutputTokens", take: takeNumber("maxOutputTokens")},
	{path: "generationConfig.seed", take: takeNumber("seed")},
	{path: "generationConfig.presencePenalty", take: takeNumber("presencePenalty")},
	{path: "generationConfig.frequencyPenalty", take: takeNumber("frequencyPenalty")},
	{path: "generationConfig.stopSequences[]", keep: maxWord, take: (*nativeReader).takeStop},
	{path: "generationConfig.thinkingConfig.thinkingLevel", keep: maxWord, take: (*nativeReader).takeLevel},
	{path: "generationConfig.thinkingConfig.thinkingBudget", take: takeNumber("thinkingBudget")},
	{path: "generationConfig.thinkingConfig.includeThoughts", drop: "includeThoughts"},
	{path: "generationConfig.candidateCount", take: (*nativeReader).takeCount},
	{path: "generationConfig.mediaResolution", drop: "mediaResolution"}, // of what goes in
	{path: "generationConfig.routingConfig", drop: "routingConfig"},
	{path: "generationConfig.responseMimeType", keep: maxWord, take: takeOnly("text/plain")},
	{path: "generationConfig.responseLogprobs", take: takeFalse},
	{path: "generationConfig.responseModalities[]", keep: maxWord, take: (*nativeReader).takeModality},

	{path: "generationConfig.imageConfig.aspectRatio", keep: maxWord, take: (*nativeReader).takeAspect},
	{path: "generationConfig.imageConfig.imageSize", keep: maxWord, take: (*nativeReader).takeSize},
	{path: "generationConfig.imageConfig.outputMimeType", keep: maxWord, take: (*nativeReader).takeOutputMime},
	{path: "generationConfig.imageConfig.outputCompressionQuality", take: (*nativeReader).takeCompression},
	{path: "generationConfig.imageConfig.imageOutputOptions.mimeType", keep: maxWord, take: (*nativeReader).takeOutputMime},
	{path: "generationConfig.imageConfig.imageOutputOptions.compressionQuality", take: (*nativeReader).takeCompression},
	{path: "generationConfig.imageConfig.personGeneration", drop: "personGeneration"},
	{path: "generationConfig.imageConfig.prominentPeople", drop: "prominentPeople"},
	{path: "generationConfig.responseFormat.image.aspectRatio", keep: maxWord, take: (*nativeReader).takeAspect},
	{path: "generationConfig.responseFormat.image.imageSize", keep: maxWord, take: (*nativeReader).takeSize},
	{path: "generationConfig.responseFormat.image.mimeType", keep: maxWord, take: (*nativeReader).takeOutputMime},
	{path: "generationConfig.responseFormat.image.delivery", keep: maxWord, take: takeOnly("INLINE")},
}

func takeNaught(*nativeReader, nativeValue) bool { return true }

func takeFalse(_ *nativeReader, v nativeValue) bool { return v.kind == jsonFalse }

// takeOnly takes the one word that asks for what is usual.
func takeOnly(word string) func(*nativeReader, nativeValue) bool {
	return func(_ *nativeReader, v nativeValue) bool {
		return v.kind == jsonString && strings.EqualFold(string(v.text), word)
	}
}

// takePlaceholder leaves out what stands for a lost signature. A real one belongs to
// the backend that made it (wire §6).
func takePlaceholder(_ *nativeReader, v nativeValue) bool { return placeholders[string(v.text)] }

func (n *nativeReader) takeSystem(v nativeValue) bool {
	if v.kind != jsonString || !n.hasRoom() {
		return false
	}
	n.system = append(n.system, passage{span: v.span})
	return true
}

// hasRoom counts one more text or image.
func (n *nativeReader) hasRoom() bool {
	n.parts++
	return n.parts <= maxParts
}

func (n *nativeReader) beginTurn() { n.turn = briefTurn{} }

func (n *nativeReader) endTurn() bool {
	if len(n.turn.parts) > 0 {
		n.turns = append(n.turns, n.turn)
	}
	return true
}

// takeRole knows no "function" and no "system".
func (n *nativeReader) takeRole(v nativeValue) bool {
	n.turn.isModel = string(v.text) == "model"
	return n.turn.isModel || string(v.text) == "user"
}

func (n *nativeReader) beginPart() { n.part = nativePart{} }

// endPart leaves out what the model has thought (wire §6).
func (n *nativeReader) endPart() bool {
	switch {
	case n.part.isThought || n.part.holds == 0:
		return true
	case n.part.holds > 1 || !n.hasRoom():
		return false
	}
	n.turn.parts = append(n.turn.parts, n.part.briefPart)
	return true
}

func (n *nativeReader) takeText(v nativeValue) bool {
	if v.kind != jsonString {
		return false
	}
	n.part.text = passage{span: v.span}
	n.part.holds++
	return true
}

func (n *nativeReader) takeThought(v nativeValue) bool {
	n.part.isThought = v.kind == jsonTrue
	return v.kind == jsonTrue || v.kind == jsonFalse
}

func (n *nativeReader) beginImage() { n.image = briefImage{} }

// endImage wants the type of a file, which an API may have to know before it
// fetches it.
func (n *nativeReader) endImage() bool {
	image := n.image
	if image == (briefImage{}) {
		return true
	}
	n.part.image = &image
	n.part.holds++
	return !image.data.isEmpty() || image.uri != "" && image.mime != ""
}

// takeMime takes the type of an image, but none that could be anything.
func (n *nativeReader) takeMime(v nativeValue) bool {
	n.image.mime, _ = imageMime(string(v.text))
	return v.kind == jsonString && n.image.mime != ""
}

func (n *nativeReader) takeData(v nativeValue) bool {
	if v.kind != jsonString {
		return false
	}
	n.image.data = span{v.at + 1, v.end - 1}
	n.image.isPlain = n.watch.isPlain()
	return true
}

// takeURI takes what anybody can fetch.
func (n *nativeReader) takeURI(v nativeValue) bool {
	uri := string(v.text)
	u, err := url.Parse(uri)
	if v.kind != jsonString || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || isFileOfAPI(uri) {
		return false
	}
	n.image.uri = uri
	return true
}

// beginSetting begins with what protobuf takes for a missing word.
func (n *nativeReader) beginSetting() {
	n.setting = SafetySetting{"HARM_CATEGORY_UNSPECIFIED", thresholdNumbers[0]}
}

func (n *nativeReader) endSetting() bool {
	if len(n.safety) == maxListed {
		return false
	}
	n.safety = append(n.safety, n.setting)
	return true
}

// takeCategory lets a word pass that nobody knows yet.
func (n *nativeReader) takeCategory(v nativeValue) bool {
	known := findCategory(v.kind, v.text, n.isVertex).name
	if known == "" && v.kind == jsonString {
		known = string(v.text)
	}
	n.setting.Category = known
	return known != ""
}

func (n *nativeReader) takeThreshold(v nativeValue) bool {
	n.setting.Threshold = string(v.text)
	if v.kind != jsonNumber {
		return v.kind == jsonString
	}
	i, err := strconv.Atoi(string(v.text))
	if err != nil || i < 0 || i >= len(thresholdNumbers) {
		return false
	}
	n.setting.Threshold = thresholdNumbers[i]
	return true
}

// thresholdNumbers are the values of HarmBlockThreshold by number, in both APIs.
var thresholdNumbers = [...]string{
	"HARM_BLOCK_THRESHOLD_UNSPECIFIED", "BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF",
}

func takeNumber(name string) func(*nativeReader, nativeValue) bool {
	return func(n *nativeReader, v nativeValue) bool {
		if v.kind == jsonNumber {
			n.settings[name] = string(v.text)
		}
		return v.kind == jsonNumber
	}
}

func (n *nativeReader) takeLevel(v nativeValue) bool {
	n.settings["thinkingLevel"] = string(encode(string(v.text)))
	return v.kind == jsonString
}

func (n *nativeReader) takeStop(v nativeValue) bool {
	if v.kind != jsonString || len(n.stops) == maxListed {
		return false
	}
	n.stops = append(n.stops, string(v.text))
	return true
}

func (n *nativeReader) takeCount(v nativeValue) bool {
	n.count = int(number(v.text))
	return v.kind == jsonNumber && n.count > 0
}

func (n *nativeReader) takeModality(v nativeValue) bool {
	switch {
	case isEnum(v.kind, v.text, "TEXT", 1):
		n.writes = true
	case isEnum(v.kind, v.text, "IMAGE", 2):
		n.draws, n.listsImage = true, true
	default: // sound or video
		return false
	}
	return true
}

func (n *nativeReader) takeAspect(v nativeValue) bool { return n.takeOfImage(&n.aspect, v) }

func (n *nativeReader) takeSize(v nativeValue) bool { return n.takeOfImage(&n.size, v) }

func (n *nativeReader) takeOutputMime(v nativeValue) bool {
	isWord := n.takeOfImage(&n.outputMime, v)
	n.outputMime, _ = imageMime(n.outputMime)
	return isWord && n.outputMime != ""
}

// takeOfImage takes a word that only an image can obey.
func (n *nativeReader) takeOfImage(word *string, v nativeValue) bool {
	n.draws = true
	*word = string(v.text)
	if short, isLong := longWords[strings.ToUpper(*word)]; isLong {
		*word = short
	}
	return v.kind == jsonString
}

// longWords are how Vertex AI calls what imageConfig has shorter words for.
var longWords = func() map[string]string {
	words := map[string]string{"ASPECT_RATIO_UNSPECIFIED": "", "IMAGE_SIZE_UNSPECIFIED": ""}
	for short, long := range formatWords {
		words[long] = short
	}
	return words
}()

func (n *nativeReader) takeCompression(v nativeValue) bool {
	n.draws = true
	n.compression = string(v.text)
	return v.kind == jsonNumber
}
