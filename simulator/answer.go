// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"hash/fnv"
)

// answer is what the model says, whatever the dialect it is put in.
type answer struct {
	block        string // promptFeedback.blockReason: there are no candidates then
	blockMessage string // blockReasonMessage
	ratings      array  // promptFeedback.safetyRatings
	candidates   []candidate
	usage        usage
	breaks       *apiError // ends a stream after two events
}

type candidate struct {
	parts   []piece
	empty   emptiness // what content looks like when there are no parts
	finish  string    // finishReason; empty = none is ever sent
	message string    // finishMessage
	ratings array     // safetyRatings
	token   string    // continuationToken
}

// piece is a part of the content: text or a picture.
type piece struct {
	text    string
	picture *picture
	thought bool
	signed  bool // carries a thought signature
}

// emptiness is the form of a content without parts; all have been seen.
type emptiness int

const (
	contentObject    emptiness = iota // "content": {}
	contentMissing                    // no key at all
	contentRole                       // "content": {"role": "model"}
	contentNoParts                    // "content": {"parts": []}
	contentNullParts                  // "content": {"parts": null}, seen through gateways
)

// natural is the answer of a model that nothing is wrong with.
func (x *exchange) natural() answer {
	c := x.call
	signs := c.image && isGemini3(c.model)
	var parts []piece
	if c.thoughts && isGemini3(c.model) {
		parts = append(parts, piece{text: "**Considering the request**\n\nThinking about what the prompt asks for.\n", thought: true})
		if c.image {
			parts = append(parts, x.draft())
		}
	}
	if c.text {
		parts = append(parts, piece{text: c.words(), signed: signs})
	}
	if c.image {
		for sample := range c.samples {
			parts = append(parts, piece{picture: x.picture(sample), signed: signs})
		}
	}
	return answer{
		candidates: []candidate{{parts: parts, finish: "STOP"}},
		usage:      c.usage().delivered(parts),
	}
}

// words is the text of an answer. It repeats the prompt, so that whoever reads
// answers for reasons to stop meets one that only looks like it.
func (c *call) words() string {
	const longest = 200
	prompt := []rune(c.prompt)
	if len(prompt) > longest {
		prompt = append(prompt[:longest], '…')
	}
	if c.image {
		return "Here is the picture that you asked for: \"" + string(prompt) + "\". "
	}
	return "This is the simulator, so nobody has thought about your prompt: \"" + string(prompt) + "\". A model would have written a few sentences here instead."
}

// picture draws the n-th picture for the prompt.
func (x *exchange) picture(n int) *picture {
	p := x.sim.pictures.picture(pictureKey{
		seed: hash(x.call.prompt) + uint64(n), mime: x.call.imageMIME(), aspect: x.call.aspect, size: x.call.size,
	})
	return &p
}

// draft is the picture that a thinking model shows before the final one.
func (x *exchange) draft() piece {
	p := x.sim.pictures.picture(pictureKey{
		seed: ^hash(x.call.prompt), mime: x.call.imageMIME(), aspect: x.call.aspect, size: x.call.size,
	})
	return piece{picture: &p, thought: true}
}

// stopped is an answer whose candidate ended for a reason of its own, after
// parts if there are any.
func (x *exchange) stopped(reason string, empty emptiness, message string, parts ...piece) answer {
	return answer{
		candidates: []candidate{{parts: parts, empty: empty, finish: reason, message: message}},
		usage:      x.call.usage().delivered(parts),
	}
}

// usage is what usageMetadata counts.
type usage struct {
	model                   string
	size                    string
	vertex                  bool
	promptText, promptImage int
	text, image             int // delivered; image is tokens
	thoughts                int
}

// usage counts the prompt, and the thoughts of models that think.
func (c *call) usage() usage {
	u := usage{
		model: c.model, size: c.size, vertex: c.vertex,
		promptText:  c.promptTokens,
		promptImage: c.promptImages * inputImageTokens(c.model),
	}
	if isGemini3(c.model) {
		u.thoughts = 120 + int(hash(c.prompt)%160)
	}
	return u
}

// delivered adds what was delivered. Drafts count as thoughts.
func (u usage) delivered(parts []piece) usage {
	for _, part := range parts {
		switch {
		case part.thought:
		case part.picture != nil:
			u.image += tokensPerImage(u.model, u.size)
		default:
			u.text += countText(part.text)
		}
	}
	return u
}

// unlistedTokens is by how much candidatesTokenCount of a Gemini 3 image
// exceeds the sum of its details.
const unlistedTokens = 96

func (u usage) prompt() int { return u.promptText + u.promptImage }

func (u usage) candidates() int {
	if u.image > 0 && isGemini3(u.model) {
		return u.text + u.image + unlistedTokens
	}
	return u.text + u.image
}

func (u usage) promptDetails() array {
	return modalities(u.promptText, u.promptImage)
}

func modalities(text, image int) array {
	details := array{}
	if text > 0 {
		details = append(details, object{{"modality", "TEXT"}, {"tokenCount", text}})
	}
	if image > 0 {
		details = append(details, object{{"modality", "IMAGE"}, {"tokenCount", image}})
	}
	return details
}

// object is usageMetadata. Details of the candidates list images, not text,
// except on Vertex AI; zero counts are absent.
func (u usage) object() object {
	o := object{{"promptTokenCount", u.prompt()}}
	if n := u.candidates(); n > 0 {
		o = append(o, member{"candidatesTokenCount", n})
	}
	o = append(o, member{"totalTokenCount", u.prompt() + u.candidates() + u.thoughts},
		member{"promptTokensDetails", u.promptDetails()})
	listed := modalities(0, u.image)
	if u.vertex {
		listed = modalities(u.text, u.image)
	}
	if len(listed) > 0 {
		o = append(o, member{"candidatesTokensDetails", listed})
	}
	if u.thoughts > 0 {
		o = append(o, member{"thoughtsTokenCount", u.thoughts})
	}
	if u.vertex {
		return append(o, member{"trafficType", "ON_DEMAND"})
	}
	return append(o, member{"serviceTier", "standard"})
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
