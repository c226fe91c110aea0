// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"

	"github.com/tidwall/gjson"
)

// imagen is the dialect of Imagen's :predict.
type imagen struct{}

const (
	imagenBlocked  = "Image generation failed with the following error: The prompt could not be submitted. This prompt contains sensitive words that violate Google's Responsible AI practices. Try rephrasing the prompt. If you think this was an error, send feedback. Support codes: 42876398"
	imagenFiltered = "Unable to show generated images. All images were filtered out because they violated Vertex AI's usage guidelines. You will not be charged for blocked images. Try rephrasing the prompt. If you think this was an error, send feedback. Support codes: 39322892, 29310472"
)

// maxSamples is sampleCount's upper bound.
const maxSamples = 4

func (imagen) failure(_ *call, e *apiError) any { return e.object() }

func (imagen) parse(c *call, body string) *apiError {
	root, fail := parseJSON(body)
	if fail != nil {
		return fail
	}
	prompt := root.Get("instances.0.prompt")
	if prompt.Type != gjson.String {
		return invalidArgument("Invalid request: instances[0].prompt is not specified.")
	}
	parameters := root.Get("parameters")
	c.setPrompt(prompt.Str)
	c.image = true
	c.samples = int(cmp.Or(parameters.Get("sampleCount").Int(), 1))
	c.aspect = parameters.Get("aspectRatio").Str
	c.size = parameters.Get("sampleImageSize").Str
	c.raiReason = parameters.Get("includeRaiReason").Bool()
	if c.samples < 1 || c.samples > maxSamples {
		return invalidArgument("sampleCount must be between 1 and 4.")
	}
	return c.checkImage()
}

// render gives one prediction per picture. A blocked prompt is a 400; a
// filtered picture leaves its reason, if the client asked for reasons, and
// else nothing at all.
func (imagen) render(x *exchange, a answer) error {
	if a.breaks != nil {
		return x.fail(a.breaks)
	}
	if a.block != "" {
		return x.fail(invalidArgument(imagenBlocked))
	}
	predictions := array{}
	for _, c := range a.candidates {
		pictures := c.pictures()
		for _, p := range pictures {
			predictions = append(predictions, object{{"mimeType", p.mime}, {"bytesBase64Encoded", p.data}})
		}
		if len(pictures) == 0 && x.call.raiReason {
			predictions = append(predictions, object{{"raiFilteredReason", imagenFiltered}})
		}
	}
	if len(predictions) == 0 {
		return x.json(object{})
	}
	return x.json(object{{"predictions", predictions}})
}

// setPrompt is for the dialects whose whole request is one prompt.
func (c *call) setPrompt(prompt string) {
	c.prompt = prompt
	c.promptTokens = countText(prompt)
}

// pictures are those delivered, drafts not counted.
func (c candidate) pictures() []*picture {
	var found []*picture
	for _, p := range c.parts {
		if p.picture != nil && !p.thought {
			found = append(found, p.picture)
		}
	}
	return found
}

// words is the text delivered, thoughts not counted.
func (c candidate) words() string {
	var words string
	for _, p := range c.parts {
		if !p.thought {
			words += p.text
		}
	}
	return words
}
