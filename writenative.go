// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// native writes a brief as generateContent. How many images are wanted is not in
// it: image models reject a candidateCount (wire §2), so each takes a call.
func (b *brief) native(t translation) (*layout, *foreign) {
	if b.foreign != nil {
		return nil, b.foreign
	}
	w := &nativeWriter{newLayout("application/json", t.edits), b, t, drawingModelOf(t.model)}
	w.dropped = b.losses()
	w.write(`{"contents":[`)
	for i, turn := range b.turns {
		w.separate(i)
		w.turn(turn)
	}
	w.write("]")
	w.systemInstruction()
	if safety := w.safetySettings(); len(safety) > 0 {
		w.write(`,"safetySettings":` + string(encode(safety)))
	}
	if config := w.generationConfig(); len(config) > 0 {
		w.write(`,"generationConfig":` + string(encode(config)))
	}
	w.write("}")
	return w.layout, nil
}

type nativeWriter struct {
	*layout
	brief *brief
	t     translation
	model drawingModel
}

// separate writes the comma before the i-th element of a list.
func (w *nativeWriter) separate(i int) {
	if i > 0 {
		w.write(",")
	}
}

// turn names the role even of the only turn: Vertex wants it.
func (w *nativeWriter) turn(turn briefTurn) {
	role := "user"
	if turn.isModel {
		role = "model"
	}
	w.write(`{"role":"` + role + `","parts":[`)
	for i, part := range turn.parts {
		w.separate(i)
		switch {
		case part.image == nil:
			w.text(part.text)
		case turn.isModel:
			w.image(part.image, w.signature())
		default:
			w.image(part.image, "")
		}
	}
	w.write("]}")
}

func (w *nativeWriter) text(p passage) {
	w.write(`{"text":`)
	w.quote(p)
	w.write("}")
}

// image writes an image, and what else its part has.
func (w *nativeWriter) image(i *briefImage, more string) {
	if i.uri != "" {
		w.file(i, more)
		return
	}
	w.write(`{"inlineData":{"mimeType":` + string(encode(cmp.Or(i.mime, likelyMime))) + `,"data":"`)
	w.base64(i)
	w.write(`"}` + more + "}")
}

// file writes an image that Google fetches. Only the Gemini API does without a type.
func (w *nativeWriter) file(i *briefImage, more string) {
	mime := cmp.Or(i.mime, mimeOfURL(i.uri))
	if w.t.isVertex {
		mime = cmp.Or(mime, likelyMime)
	}
	w.write(`{"fileData":{"fileUri":` + string(encode(i.uri)))
	if mime != "" {
		w.write(`,"mimeType":` + string(encode(mime)))
	}
	w.write("}" + more + "}")
}

// signature is the member without which Gemini 3 rejects an image of its own in the
// history. The real one is never in a brief; a placeholder is what Google documents
// for conversations that come from elsewhere. Vertex wants none (wire §6).
func (w *nativeWriter) signature() string {
	if w.t.isVertex || !w.model.signs {
		return ""
	}
	return string(signatureMember(false))
}

func (w *nativeWriter) systemInstruction() {
	if len(w.brief.system) == 0 {
		return
	}
	w.write(`,"systemInstruction":{"parts":[`)
	for i, p := range w.brief.system {
		w.separate(i)
		w.text(p)
	}
	w.write("]}")
}

func (w *nativeWriter) safetySettings() []SafetySetting {
	settings := slices.Clone(w.brief.safety)
	for _, s := range w.t.safety {
		isSame := func(own SafetySetting) bool { return own.Category == s.Category }
		if !slices.ContainsFunc(w.brief.safety, isSame) {
			settings = append(settings, s)
		}
	}
	return slices.DeleteFunc(settings, func(s SafetySetting) bool {
		isLost := w.lacks(s.Category)
		w.drop(s.Category, isLost)
		return isLost
	})
}

// lacks tells that the API refuses a category: the other one has it, or PaLM had it,
// whose categories are in the Gemini API's definitions only (wire §2).
func (w *nativeWriter) lacks(category string) bool {
	known := findCategory(jsonString, []byte(category), w.t.isVertex)
	return known.name != "" && (known.vertex < 0 || !w.t.isVertex && known.gemini < 0)
}

// drop takes down that a field is left out, if it is.
func (w *nativeWriter) drop(name string, isLost bool) {
	if isLost {
		w.dropped = appendNew(w.dropped, name)
	}
}

func (w *nativeWriter) generationConfig() map[string]any {
	config := make(map[string]any)
	for _, s := range sharedSettings {
		value, isSet := w.brief.settings[s.native]
		if isSet && !strings.HasPrefix(s.native, "thinking") {
			config[s.native] = json.RawMessage(value)
		}
	}
	if thinking := w.thinkingConfig(); len(thinking) > 0 {
		config["thinkingConfig"] = thinking
	}
	if modalities := w.responseModalities(); len(modalities) > 0 {
		config["responseModalities"] = modalities
	}
	if image := w.imageConfig(); len(image) > 0 {
		config["imageConfig"] = image
	}
	return config
}

func (w *nativeWriter) thinkingConfig() map[string]any {
	config := make(map[string]any)
	if budget, isSet := w.brief.settings["thinkingBudget"]; isSet {
		config["thinkingBudget"] = json.RawMessage(budget)
	}
	if asked := strings.Trim(w.brief.settings["thinkingLevel"], `"`); asked != "" {
		level := w.model.level(strings.ToUpper(asked))
		if level != "" {
			config["thinkingLevel"] = level
		}
		w.drop("thinking_level", level == "")
	}
	return config
}

func (w *nativeWriter) responseModalities() []string {
	switch b := w.brief; {
	case b.imagesAlone:
		return []string{"IMAGE"}
	case b.draws && b.writes:
		return []string{"TEXT", "IMAGE"}
	case b.draws:
		return w.t.modalities
	case b.writes:
		return []string{"TEXT"}
	}
	return nil
}

func (w *nativeWriter) imageConfig() map[string]any {
	config := make(map[string]any)
	aspect, size, lost := w.model.fit(w.brief)
	if aspect != "" {
		config["aspectRatio"] = aspect
	}
	if size != "" {
		config["imageSize"] = size
	}
	for _, name := range lost {
		w.drop(name, true)
	}
	if output := w.imageOutputOptions(); len(output) > 0 {
		config["imageOutputOptions"] = output
	}
	return config
}

// imageOutputOptions are Vertex's alone (wire §2).
func (w *nativeWriter) imageOutputOptions() map[string]any {
	options := make(map[string]any)
	mime, compression := w.brief.outputMime, w.brief.compression
	isKnown := mime == "image/png" || mime == "image/jpeg"
	if w.t.isVertex && isKnown {
		options["mimeType"] = mime
	}
	if w.t.isVertex && compression != "" {
		options["compressionQuality"] = json.RawMessage(compression)
	}
	w.drop("output_format", mime != "" && options["mimeType"] == nil)
	w.drop("output_compression", compression != "" && options["compressionQuality"] == nil)
	return options
}
