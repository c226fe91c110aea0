// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// maxBody is more than the largest request that Google has been seen to take.
// A compressed one may not unpack to more either.
const maxBody = 256 << 20

// readBody reads a request to its end, which is also what lets net/http notice
// a client that leaves. The body is a string as gjson then does not copy it.
func readBody(w http.ResponseWriter, r *http.Request) (string, *apiError) {
	var reader io.Reader = http.MaxBytesReader(w, r.Body, maxBody)
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		unzipped, err := gzip.NewReader(reader)
		if err != nil {
			return "", invalidArgument("Request body is not valid gzip.")
		}
		reader = http.MaxBytesReader(w, unzipped, maxBody)
	}
	var body strings.Builder
	_, err := io.Copy(&body, reader)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return "", errBodyTooLarge
	}
	if err != nil {
		return "", invalidArgument("Request body could not be read.")
	}
	return body.String(), nil
}

// parseJSON refuses what is no JSON object, showing the place as Google does.
func parseJSON(body string) (gjson.Result, *apiError) {
	if gjson.Valid(body) {
		root := gjson.Parse(body)
		if !root.IsObject() {
			return root, malformedJSON("Root element must be a message.", "")
		}
		return root, nil
	}
	var syntax *json.SyntaxError
	if !errors.As(json.Unmarshal([]byte(body), new(json.RawMessage)), &syntax) {
		return gjson.Result{}, malformedJSON("Unexpected end of string. Expected a value.", "")
	}
	at := min(max(int(syntax.Offset)-1, 0), len(body))
	before, after := body[max(0, at-20):at], body[at:min(len(body), at+20)]
	return gjson.Result{}, malformedJSON("Unexpected token.", strings.ToValidUTF8(before+after, "?")+"\n"+strings.Repeat(" ", len(before))+"^")
}

// parse reads a GenerateContentRequest.
func (native) parse(c *call, body string) *apiError {
	root, fail := parseJSON(body)
	if fail != nil {
		return fail
	}
	schema := geminiRequest
	if c.vertex {
		schema = vertexRequest
	}
	if fail := schema("", root); fail != nil {
		return fail
	}
	if len(elements(get(root, "contents"))) == 0 {
		return errNoContents
	}
	if c.vertex && !allHaveRoles(root) {
		return errNoRole
	}
	c.samples = 1
	c.continued = get(root, "continuationToken").Str != ""
	c.readContents(root)
	c.readSignatures(elements(get(root, "contents")))
	return c.readConfig(get(root, "generationConfig"))
}

// allHaveRoles tells whether each turn has a speaker, as only Vertex AI demands.
func allHaveRoles(root gjson.Result) bool {
	for _, turn := range elements(get(root, "contents")) {
		if role := turn.Get("role").Str; role != "user" && role != "model" {
			return false
		}
	}
	return true
}

// readContents counts the prompt and finds the text of its last user turn.
func (c *call) readContents(root gjson.Result) {
	turns := append(elements(get(root, "systemInstruction")), elements(get(root, "contents"))...)
	for _, turn := range turns {
		var texts []string
		for _, part := range elements(turn.Get("parts")) {
			if text := part.Get("text").String(); text != "" {
				texts = append(texts, text)
			}
			if get(part, "inlineData").Exists() || get(part, "fileData").Exists() {
				c.promptImages++
			}
		}
		text := strings.Join(texts, "\n")
		c.promptTokens += countText(text)
		if turn.Get("role").String() != "model" && text != "" {
			c.prompt = text
		}
	}
}

// readConfig decides what to answer with, by the table of what Google's image
// models do: both text and image unless told otherwise, and a 2.5 model is not
// told otherwise by ["TEXT"].
func (c *call) readConfig(config gjson.Result) *apiError {
	config.ForEach(func(key, _ gjson.Result) bool {
		if camelCase(key.Str) == "responseModalities" {
			c.modalitiesKey = key.Str
		}
		return true
	})
	var asked []string
	for _, modality := range elements(get(config, "responseModalities")) {
		asked = append(asked, strings.ToUpper(modality.Str))
	}
	c.image = isImageModel(c.model) && (len(asked) == 0 || slices.Contains(asked, "IMAGE") || !isGemini3(c.model))
	c.text = len(asked) == 0 || slices.Contains(asked, "TEXT") || !c.image
	c.thoughts = get(get(config, "thinkingConfig"), "includeThoughts").Bool()

	image := get(config, "imageConfig")
	c.aspect, c.size = get(image, "aspectRatio").Str, get(image, "imageSize").Str
	c.mime = get(get(image, "imageOutputOptions"), "mimeType").Str // of Vertex AI
	switch {
	case slices.Contains(asked, "IMAGE") && !isImageModel(c.model):
		return unsupportedModalities(c, asked)
	case isImageModel(c.model) && get(config, "candidateCount").Int() > 1:
		return errManyCandidates
	}
	return c.checkImage()
}

// checkImage refuses pictures that cannot be drawn.
func (c *call) checkImage() *apiError {
	known := slices.Contains(aspects, c.aspect) || slices.Contains(narrowAspects, c.aspect) && drawsNarrow(c.model)
	if c.aspect != "" && !known {
		return invalidArgument("Aspect ratio " + c.aspect + " is not supported for this model")
	}
	if _, known := imageFormats[c.mime]; c.mime != "" && !known {
		return invalidArgument("Output MIME type " + c.mime + " is not supported for this model")
	}
	if _, known := imageSizes[c.size]; c.size != "" && !known {
		return invalidArgument("Image size " + c.size + " is not supported for this model")
	}
	return nil
}

// countText estimates tokens: four bytes each.
func countText(text string) int { return (len(text) + 3) / 4 }

// countTokens serves :countTokens, whose body is a list of contents or a whole
// generateContentRequest.
func countTokens(x *exchange) error {
	body, fail := readBody(x.w, x.r)
	if fail != nil {
		return x.fail(fail)
	}
	root, fail := parseJSON(body)
	if fail != nil {
		return x.fail(fail)
	}
	if whole := get(root, "generateContentRequest"); whole.Exists() {
		root = whole
	}
	if len(elements(get(root, "contents"))) == 0 {
		return x.fail(errNoContents)
	}
	x.call.readContents(root)
	u := x.call.usage()
	return x.json(object{{"totalTokens", u.prompt()}, {"promptTokensDetails", u.promptDetails()}})
}
