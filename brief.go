// SPDX-License-Identifier: Apache-2.0

package gemini

import "slices"

// brief is what a generate call asks for, in the words of no API: all that can be
// said in more than one of them. Texts and images stay where they are in the
// client's body; a brief tells where.
type brief struct {
	model  string    // that a form names; JSON is asked before it is read as a whole
	system []passage // what the model is told beforehand
	turns  []briefTurn

	draws        bool   // an image is asked for by the body or by the API itself
	imagesAlone  bool   // and nothing else will do
	writes       bool   // a text is asked for by the body
	aspect, size string // in Google's words, "16:9" and "2K"; "" leaves it to the model
	isFine       bool   // the image is to be fine, where the size does not say how large
	exact        pixels // what the size has been fitted to, if anything
	outputMime   string // "image/png"; "" leaves it to the model
	compression  string // of the output, a JSON number; "" leaves it to the model
	count        int    // of images or answers; 0 if it is not said
	asURL        bool   // images are wanted as data URLs (OpenAI's response_format)
	stream       bool   // events are wanted, where the body says so
	streamUsage  bool   // with the usage at their end (OpenAI's stream_options)

	safety   []SafetySetting   // that the client has set
	settings map[string]string // of sampling and thinking, as JSON, by their names in generationConfig; see sharedSettings

	own []ownField // of OpenAI's images API, which no other form has

	// dropped are the fields that are left out, because nothing but them is lost
	// with them. Proxy-Status names them.
	dropped []string
	// foreign is the first field without which the call would be another one, and
	// which no other form has a word for; nil if there is none.
	foreign *foreign
}

// briefTurn is what one side has said.
type briefTurn struct {
	isModel bool // it was the model
	parts   []briefPart
}

// briefPart is a text or an image.
type briefPart struct {
	text  passage
	image *briefImage // nil: it is a text
}

// span is a run of bytes in the client's body.
type span struct{ at, end int64 }

// passage is a text: the place of its JSON string in the body, both quotes
// included, or, if that is empty, the text itself.
type passage struct {
	span
	text string
}

// briefImage is an image that goes with the prompt: in the body, or where anybody
// can fetch it.
type briefImage struct {
	mime string // "image/png"; "" if nobody has said it
	// data is base64 inside a JSON string, whose quotes are outside; it may have
	// JSON's escapes, be in the URL-safe alphabet, and lack its padding.
	data     span
	isPlain  bool   // data is base64 that everybody reads: standard, padded, without escapes
	isBinary bool   // data is the image itself instead, out of a form
	uri      string // instead of data
}

// ownField is a field of one form alone.
type ownField struct {
	name    string
	value   passage
	isMeant bool // something is lost without it
}

// foreign is a field that cannot be said in another form.
type foreign struct {
	param string // its path in the client's spelling, such as "extra_body.google.foo"
	// message is a sentence for whoever wrote the call, such as "Unknown parameter: 'foo'."
	message string
	code    string // in OpenAI's words: unknown_parameter, invalid_value, unsupported_parameter
}

// sharedSettings are the numbers and words that the forms have in common, by their
// names in Google's generationConfig and in OpenAI's chat/completions; "" where one
// has none.
var sharedSettings = []struct{ native, openAI string }{
	{"temperature", "temperature"},
	{"topP", "top_p"},
	{"topK", ""},
	{"maxOutputTokens", "max_completion_tokens"},
	{"seed", "seed"},
	{"presencePenalty", "presence_penalty"},
	{"frequencyPenalty", "frequency_penalty"},
	{"stopSequences", "stop"},
	{"thinkingLevel", "reasoning_effort"}, // below thinkingConfig
	{"thinkingBudget", ""},                // likewise
}

// translation is what a brief is put into words for.
type translation struct {
	model      string          // as the upstream knows it
	isVertex   bool            // the native form of Vertex AI, not of the Gemini API
	stream     bool            // the answer is to come as events
	safety     []SafetySetting // what to set where the client has not; native only
	modalities []string        // what to ask for where the client has not; native only
	edits      []edit          // of the prompt: each replaces the whole JSON string of a passage
}

// imageSize is the size for a form that has no quality.
func (b *brief) imageSize() string {
	if b.size == "" && b.isFine {
		return "2K"
	}
	return b.size
}

// losses are what is left out of a form that is not OpenAI's images API, but has some
// of its fields.
func (b *brief) losses(has ...string) []string {
	lost := slices.Clone(b.dropped)
	for _, f := range b.own {
		if f.isMeant && !slices.Contains(has, f.name) {
			lost = append(lost, f.name)
		}
	}
	return lost
}

// keySet finds keys that an object has twice, in whichever spelling. Parsers do not
// agree on which of the two counts, or refuse both (wire §2).
type keySet struct {
	keys  []*field // of the open objects
	opens []int    // where those of each open container begin
}

func (s *keySet) open() { s.opens = append(s.opens, len(s.keys)) }

func (s *keySet) close() {
	last := len(s.opens) - 1
	s.keys, s.opens = s.keys[:s.opens[last]], s.opens[:last]
}

// has tells whether a key of the innermost object has been there, and adds it.
func (s *keySet) has(f *field) bool {
	if slices.Contains(s.keys[s.opens[len(s.opens)-1]:], f) {
		return true
	}
	s.keys = append(s.keys, f)
	return false
}

// openAI is the error of a call that has such a field, in OpenAI's form.
func (f *foreign) openAI() []byte {
	o := openAIError{Message: f.message, Type: "invalid_request_error", Code: f.code}
	if f.param != "" {
		o.Param = &f.param
	}
	return encode(map[string]openAIError{"error": o})
}

// appendNew adds what a list does not hold yet.
func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
