// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"strconv"
	"strings"
)

// chat puts a brief into the words of chat/completions, with those of OpenRouter for
// what OpenAI has none for: image_config, and the images of a model's turn
// (openrouter.ai/docs/features/multimodal/image-generation).
func (b *brief) chat(t translation) (*layout, *foreign) {
	if f := cmp.Or(b.foreign, b.strangeImage()); f != nil {
		return nil, f
	}
	if t.stream && b.count > 1 {
		return nil, &severalStreams
	}
	w := chatWriter{newLayout("application/json", t.edits), b, drawingModelOf(t.model)}
	w.dropped = b.losses("user")
	w.write(`{"model":`)
	w.quote(passage{text: t.model})
	w.messages()
	w.output()
	w.settings()
	for _, f := range b.own {
		if f.name == "user" {
			w.write(`,"user":`)
			w.quote(f.value)
		}
	}
	if b.count > 0 {
		w.write(`,"n":` + strconv.Itoa(b.count))
	}
	if t.stream {
		w.write(`,"stream":true,"stream_options":{"include_usage":true}`)
	}
	w.write("}")
	return w.layout, nil
}

// severalStreams is refused because the pieces of several answers come in any order:
// an image that one of them has begun in its text would end in another's.
var severalStreams = foreign{code: "unsupported_parameter", message: "Several answers cannot come as one stream from this upstream."}

type chatWriter struct {
	*layout
	brief *brief
	model drawingModel
}

func (w chatWriter) messages() {
	w.write(`,"messages":[`)
	if system := w.brief.system; len(system) > 0 {
		parts := make([]briefPart, len(system))
		for i, p := range system {
			parts[i].text = p
		}
		w.message("system", parts)
	}
	for i, turn := range w.brief.turns {
		if i > 0 || len(w.brief.system) > 0 {
			w.write(",")
		}
		if turn.isModel {
			w.message("assistant", turn.parts)
		} else {
			w.message("user", turn.parts)
		}
	}
	w.write("]")
}

// message writes what one side has said. The images of a model are not in the
// content, but beside it.
func (w chatWriter) message(role string, parts []briefPart) {
	var images []briefPart
	if role == "assistant" {
		parts, images = split(parts)
	}
	w.write(`{"role":"` + role + `","content":`)
	switch {
	case len(parts) == 0:
		w.write("null")
	case len(parts) == 1 && parts[0].image == nil:
		w.quote(parts[0].text) // not every provider knows parts
	default:
		w.parts(parts)
	}
	if len(images) > 0 {
		w.write(`,"images":`)
		w.parts(images)
	}
	w.write("}")
}

func (w chatWriter) parts(parts []briefPart) {
	w.write("[")
	for i, p := range parts {
		if i > 0 {
			w.write(",")
		}
		if p.image == nil {
			w.write(`{"type":"text","text":`)
			w.quote(p.text)
			w.write("}")
			continue
		}
		w.write(`{"type":"image_url","image_url":{"url":`)
		w.image(p.image)
		w.write("}}")
	}
	w.write("]")
}

// image writes a URL.
func (w chatWriter) image(i *briefImage) {
	if i.uri != "" {
		w.quote(passage{text: i.uri})
		return
	}
	mime, _ := imageMime(i.mime)
	w.write(`"data:` + cmp.Or(mime, likelyMime) + `;base64,`)
	w.base64(i)
	w.write(`"`)
}

// output writes what the answer is to be.
func (w chatWriter) output() {
	b := w.brief
	switch {
	case b.imagesAlone:
		w.write(`,"modalities":["image"]`)
	case b.draws:
		w.write(`,"modalities":["image","text"]`)
	case b.writes:
		w.write(`,"modalities":["text"]`)
	}
	config := make(map[string]string)
	aspect, size, lost := w.model.fit(b)
	if aspect != "" {
		config["aspect_ratio"] = aspect
	}
	switch size {
	case "":
	case "512":
		config["image_size"] = halfK
	default:
		config["image_size"] = size
	}
	if len(config) > 0 {
		w.write(`,"image_config":` + string(encode(config)))
	}
	for _, name := range lost {
		w.drop(name, true)
	}
	w.drop("output_format", b.outputMime != "")
	w.drop("output_compression", b.compression != "")
}

func (w chatWriter) settings() {
	for _, s := range sharedSettings {
		value, isSet := w.brief.settings[s.native]
		isKnown := s.openAI != ""
		if s.native == "thinkingLevel" {
			value = strings.ToLower(value) // Google's may be in capitals
			isKnown = efforts[strings.Trim(value, `"`)] != ""
		}
		if isSet && isKnown {
			w.write(`,"` + s.openAI + `":` + value)
		}
		w.drop(snakeCase(s.native), isSet && !isKnown)
	}
	w.drop("safety_settings", len(w.brief.safety) > 0)
}

// drop takes down that a field is left out, if it is.
func (w chatWriter) drop(name string, isLost bool) {
	if isLost {
		w.dropped = appendNew(w.dropped, name)
	}
}
