// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"strconv"
	"strings"
)

// need is what a call takes of a project's limits: tokens of input, and images
// asked for. It is an estimate, which the answer corrects.
type need struct{ tokens, images int64 }

// measured is what a request's body says about that, whatever the model.
type measured struct {
	bytes int64 // of text, in UTF-8
	media int64 // images, and other files
	asked int64 // how many images, or candidates; 0 if the body does not say
}

const (
	// bytesPerToken is what Google documents as "about 4 characters"
	// (ai.google.dev/gemini-api/docs/tokens), which holds for English. Tokenizers
	// begin with UTF-8, of which other scripts need more. By bytes, Chinese and
	// Japanese come to 0.75 tokens per character, where tokenizers that know them
	// well need 0.6 to 0.8 (headroomlabs-ai/headroom#1093); by characters, it
	// would be a third of that. Russian comes to 0.5.
	bytesPerToken = 4
	// mediaTokens is what an image takes of the models not in oldMediaTokens: the
	// default of Gemini 3 (ai.google.dev/gemini-api/docs/media-resolution), of which
	// a recorded call used 1069. A media_resolution may make that a quarter, or
	// twice as much. Documents, sound and video count like one image: their length
	// is not looked for.
	mediaTokens = 1120
	// imagenImages is what Imagen makes where sampleCount is missing
	// (GenerateImagesConfig.NumberOfImages in google.golang.org/genai); all others
	// make one.
	imagenImages = 4
	// maxImages bounds what a client can ask for; no API makes more than ten.
	maxImages = 1000
)

// oldMediaTokens is what an image takes of a model whose name begins so: 258 per tile
// of 768 pixels (ai.google.dev/gemini-api/docs/tokens). Recorded calls of image models
// used one tile (wire §10); its size is not looked for.
var oldMediaTokens = []struct {
	models string
	tokens int64
}{
	{"gemini-1", 258},
	{"gemini-2", 258},
}

// need estimates what the call takes of a model. It draws if an image may come
// back.
func (m measured) need(c *call, model string, draws bool) need {
	d := need{tokens: (m.bytes+bytesPerToken-1)/bytesPerToken + m.media*tokensPerMedium(model)}
	if !draws {
		return d
	}
	d.images = max(m.asked, 1)
	if m.asked == 0 && c.method == "predict" {
		d.images = imagenImages
	}
	d.images = min(d.images, maxImages)
	return d
}

// tokensPerMedium knows a model also by its full name, such as
// "models/gemini-2.5-flash-image" in a body.
func tokensPerMedium(model string) int64 {
	model = model[strings.LastIndexByte(model, '/')+1:]
	for _, old := range oldMediaTokens {
		if strings.HasPrefix(model, old.models) {
			return old.tokens
		}
	}
	return mediaTokens
}

const (
	_ fieldID = iota
	measureText
	measureValue // JSON that the model gets to see as it is
	measureMedium
	measureAsked
)

// measureSchema is what fills a model's context, of all surfaces at once: a body
// has only the fields of its own. Base64 and thought signatures are not in it.
var measureSchema = func() *field {
	text := field{id: measureText, raw: true}
	value, medium, asked := field{id: measureValue}, field{id: measureMedium}, field{id: measureAsked}
	root := newSchema(map[string]field{
		"contents.parts.text":                                text,
		"contents.parts.inlineData":                          medium,
		"contents.parts.fileData":                            medium,
		"contents.parts.functionCall":                        value,
		"contents.parts.functionResponse.response":           value,
		"contents.parts.functionResponse.parts[].inlineData": medium,
		"contents.parts.functionResponse.parts[].fileData":   medium,
		"contents.parts.executableCode":                      value,
		"contents.parts.codeExecutionResult":                 value,
		"systemInstruction":                                  text, // a string in Interactions
		"systemInstruction.parts.text":                       text,
		"tools":                                              value,
		"generationConfig.candidateCount":                    asked,

		"instances[].prompt":     text, // predict
		"parameters.sampleCount": asked,

		"messages[].content":            text, // OpenAI-compatible
		"messages[].content[].text":     text,
		"messages[].content[].imageUrl": medium,
		"messages[].toolCalls":          value,
		"prompt":                        text,
		"n":                             asked,
		"image":                         medium,
		"images":                        medium,

		"input":              text, // Interactions: a text, contents, or steps with contents
		"input.text":         text,
		"input.data":         medium,
		"input.uri":          medium,
		"input.content":      text,
		"input.content.text": text,
		"input.content.data": medium,
		"input.content.uri":  medium,
		"input.arguments":    value,
		"input.result":       value,
	})
	contents, system, input := root.member("contents"), root.member("systemInstruction"), root.member("input")
	for _, list := range []*field{contents, contents.member("parts"), system.member("parts"), input, input.member("content"), root.member("image"), root.member("images")} {
		list.repeatable()
	}
	return root
}()

// measure reads a request's body, without its Content-Encoding, for its need. It
// keeps nothing of it. What is neither JSON nor a form counts nothing, and neither
// does what follows an error: such a call is refused, here or by the upstream. It
// fails only with what reading failed with.
func measure(body io.Reader, c *call, contentType string) (measured, error) {
	if kind, params, _ := mime.ParseMediaType(contentType); kind == formType && c.isImages() {
		return measureForm(body, params["boundary"])
	}
	return measureJSON(body)
}

func measureJSON(body io.Reader) (measured, error) {
	m := new(meter)
	m.text = newUnescaper(m)
	m.scan.init(m, measureSchema)
	err := m.scan.scanFrom(body)
	m.text.end()
	if errors.Is(err, errMalformed) {
		err = nil
	}
	return m.measured, err
}

// meter measures JSON.
type meter struct {
	measured
	scan jsonScanner
	text unescaper // writes texts to the meter
	from int64     // where the value begins that is being read
}

// Write counts what is left of a text without its escapes.
func (m *meter) Write(p []byte) (int, error) {
	m.bytes += int64(len(p))
	return len(p), nil
}

func (m *meter) begin(*field) {}

func (m *meter) piece(_ *field, raw []byte) { m.text.write(raw) }

func (m *meter) open(f *field, _ []byte, array bool, at int64) {
	switch {
	case f.id == measureValue:
		m.from = at
	case f.id == measureMedium && !array:
		m.media++
	}
}

func (m *meter) close(f *field, _, _ bool, at int64) (pause bool) {
	if f.id == measureValue {
		m.bytes += at + 1 - m.from
	}
	return false
}

func (m *meter) scalar(f *field, _ []byte, kind jsonKind, value []byte, start int64) {
	switch {
	case f.id == measureAsked:
		m.asked = number(value)
	case kind != jsonString:
	case f.id == measureText:
		m.text.end()
	case f.id == measureValue:
		m.bytes += m.scan.end - start
	case f.id == measureMedium:
		m.media++
	}
}

// measureForm measures the form that OpenAI's clients edit images with.
func measureForm(body io.Reader, boundary string) (m measured, err error) {
	form := newFormScanner(body, boundary)
	for err == nil {
		var part formPart
		if part, err = form.next(); err == nil {
			err = m.addPart(form, part)
		}
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, errMalformed) {
		return m, err
	}
	if _, err = io.Copy(io.Discard, form.body); err != nil { // behind the end, or what is no form any more
		return m, fmt.Errorf("reading the request body: %w", err)
	}
	return m, nil
}

func (m *measured) addPart(form *formScanner, part formPart) error {
	switch {
	case part.file != "":
		m.media++
	case part.name == "n":
		text, _, err := form.text(maxScalar)
		m.asked = number([]byte(text))
		return err
	case part.name == "prompt":
		for {
			text, err := form.bytes()
			if err != nil || len(text) == 0 {
				return err
			}
			m.bytes += int64(len(text))
		}
	}
	return nil
}

// usage counts the tokens of a call as the answer reports them.
type usage struct {
	input, output, thinking int64
	image                   int64 // of output, those of images; 0 if the answer does not tell them apart
}

func (u usage) total() int64 { return u.input + u.output + u.thinking }

func (u *usage) add(other usage) {
	u.input += other.input
	u.output += other.output
	u.thinking += other.thinking
	u.image += other.image
}

// tokenTally is what an answer's usage says, in the words of its surface.
type tokenTally [tallyPlaces]int64

const (
	tallyPrompt = iota
	tallyTools  // what tools have answered: input, but not in the prompt
	tallyOutput
	tallyThinking  // beside the output, or within it where the total says so
	tallyReasoning // within the output
	tallyImage     // within the output
	tallyTotal
	tallyPlaces
)

// usage tells thinking and output apart. OpenAI counts thinking within the output,
// and so do some blocked answers of Google's (wire §5), whose total shows it.
// Google's OpenAI-compatible answers have it in the total alone
// (discuss.ai.google.dev/t/127400).
func (t *tokenTally) usage() usage {
	u := usage{
		input:    t[tallyPrompt] + t[tallyTools],
		output:   max(t[tallyOutput], t[tallyImage]),
		thinking: max(t[tallyThinking], t[tallyReasoning]),
		image:    t[tallyImage],
	}
	visible := u.input + u.output
	switch total := t[tallyTotal]; {
	case total == visible, total == 0 && t[tallyReasoning] > 0:
		u.thinking = min(u.thinking, u.output-u.image)
		u.output -= u.thinking
	case total > u.total():
		u.thinking = total - visible
	}
	return u
}

// modalityCount is an element of a list of tokens by modality.
type modalityCount struct {
	isImage bool
	tokens  int64
}

// number reads a count. What Google's definitions, where counts are int32, have no
// room for is as good as missing.
func number(value []byte) int64 {
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// setWord sets a name that the chunks of a stream repeat. One that could be
// anything but a name is not taken over: it ends up in traces.
func setWord(word *string, value []byte) {
	if *word != "" {
		return
	}
	for _, c := range value {
		isLetter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		isDigit := c >= '0' && c <= '9'
		if !isLetter && !isDigit && strings.IndexByte("-_.:/@+=~", c) < 0 {
			return
		}
	}
	*word = string(value)
}
