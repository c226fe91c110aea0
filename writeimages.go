// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
)

// imagesAPI puts a brief into the words of images/generations or, if images go with
// the prompt, into the form of images/edits. Both have a single prompt, which is
// read with text where it cannot go from body to body as it is.
func (b *brief) imagesAPI(t translation, text func(passage) (string, error)) (l *layout, isEdit bool, f *foreign, err error) {
	if f := b.besidesPrompt(); f != nil {
		return nil, false, f, nil
	}
	w := imagesWriter{newLayout("application/json", t.edits), b, t}
	w.dropped = slices.Clone(b.dropped)
	texts, images := split(b.turns[0].parts)
	isEdit = len(images) > 0
	if len(texts) == 1 && !isEdit {
		w.generation(texts[0].text)
		return w.layout, false, nil, nil
	}
	prompt, err := promptOf(texts, text)
	switch {
	case err != nil:
	case isEdit:
		err = w.edit(prompt, images, text)
	default:
		w.generation(passage{text: prompt})
	}
	if err != nil {
		return nil, false, nil, err
	}
	return w.layout, isEdit, nil, nil
}

// besidesPrompt is what a request for images has no room for, nil if there is
// nothing.
func (b *brief) besidesPrompt() *foreign {
	switch {
	case b.foreign != nil:
		return b.foreign
	case len(b.system) > 0:
		return noRoom("a system instruction")
	case len(b.turns) == 0:
		return noPrompt
	case len(b.turns) > 1 || b.turns[0].isModel:
		return noRoom("a conversation")
	}
	var length int64
	for _, p := range b.turns[0].parts {
		switch {
		case p.image == nil:
			length += int64(len(p.text.text)) + max(0, p.text.end-p.text.at-int64(len(`""`)))
		case p.image.uri != "":
			return noRoom("an image that is named by its address")
		}
	}
	switch {
	case length == 0:
		return noPrompt
	case length > maxTurn:
		return noRoom("so long a prompt")
	}
	return b.strangeImage()
}

var noPrompt = &foreign{code: "unsupported_parameter", message: "A request for images needs a prompt."}

func noRoom(what string) *foreign {
	return &foreign{code: "unsupported_parameter", message: "A request for images has no room for " + what + "."}
}

// strangeImage is for an image whose type is something else; nil if there is none.
func (b *brief) strangeImage() *foreign {
	for _, turn := range b.turns {
		for _, p := range turn.parts {
			if p.image == nil {
				continue
			}
			if _, ok := imageMime(p.image.mime); !ok {
				return &foreign{code: "invalid_value", message: "Something that goes with the prompt is no image."}
			}
		}
	}
	return nil
}

// split tells texts and images apart.
func split(parts []briefPart) (texts, images []briefPart) {
	for _, p := range parts {
		if p.image == nil {
			texts = append(texts, p)
		} else {
			images = append(images, p)
		}
	}
	return texts, images
}

// promptOf puts the texts of a prompt together, line by line.
func promptOf(texts []briefPart, text func(passage) (string, error)) (string, error) {
	lines := make([]string, len(texts))
	for i, p := range texts {
		line, err := text(p.text)
		if err != nil {
			return "", err
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n"), nil
}

// imagesWriter writes a request for images.
type imagesWriter struct {
	*layout
	brief *brief
	t     translation
}

// generation writes JSON.
func (w imagesWriter) generation(prompt passage) {
	w.write(`{"model":`)
	w.quote(passage{text: w.t.model})
	w.write(`,"prompt":`)
	w.quote(prompt)
	w.fields(func(name, value string, isNumber bool) {
		w.write(`,"` + name + `":`)
		if isNumber {
			w.write(value)
		} else {
			w.quote(passage{text: value})
		}
	})
	for _, f := range w.own() {
		w.write(`,"` + f.name + `":`)
		w.quote(f.value)
	}
	w.write("}")
}

// edit writes a form. Several images are a list, in the way of OpenAI's clients.
func (w imagesWriter) edit(prompt string, images []briefPart, text func(passage) (string, error)) error {
	form := formWriter{w.layout, "caddy-gemini-" + rand.Text()} // is in no image
	w.contentType = "multipart/form-data; boundary=" + form.boundary
	field := func(name, value string, _ bool) { form.field(name, value) }
	field("model", w.t.model, false)
	field("prompt", prompt, false)
	w.fields(field)
	for _, f := range w.own() {
		value, err := text(f.value)
		if err != nil {
			return err
		}
		form.field(f.name, value)
	}
	name := "image"
	if len(images) > 1 {
		name = "image[]"
	}
	for i, p := range images {
		form.file(name, "image"+strconv.Itoa(i+1), p.image)
	}
	form.end()
	return nil
}

// formWriter writes a form (RFC 7578).
type formWriter struct {
	*layout
	boundary string
}

func (w formWriter) part(header string) {
	w.write("--" + w.boundary + "\r\nContent-Disposition: form-data; " + header + "\r\n\r\n")
}

func (w formWriter) field(name, value string) {
	w.part(`name="` + name + `"`)
	w.write(value + "\r\n")
}

func (w formWriter) file(name, file string, i *briefImage) {
	mime, _ := imageMime(i.mime)
	mime = cmp.Or(mime, likelyMime)
	w.part(`name="` + name + `"; filename="` + file + extensionOf(mime) + "\"\r\nContent-Type: " + mime)
	w.binary(i)
	w.write("\r\n")
}

func (w formWriter) end() { w.write("--" + w.boundary + "--\r\n") }

// fields writes what is asked for beside the prompt, and drops what the model has no
// word for.
func (w imagesWriter) fields(field func(name, value string, isNumber bool)) {
	b, family := w.brief, familyOf(w.t.model)
	if b.count > 0 {
		field("n", strconv.Itoa(b.count), true)
	}
	if size := w.size(); size != "" {
		field("size", size, false)
	}
	if !family.base64Only {
		field("response_format", "b64_json", false)
	}
	format, isImage := strings.CutPrefix(b.outputMime, "image/")
	switch {
	case format == "":
	case isImage && !family.pngOnly:
		field("output_format", format, false)
	default:
		w.drop("output_format")
	}
	switch {
	case b.compression == "":
	case family.pngOnly:
		w.drop("output_compression")
	default:
		field("output_compression", b.compression, true)
	}
	for _, s := range sharedSettings {
		if b.settings[s.native] != "" {
			w.drop(snakeCase(s.native))
		}
	}
	if len(b.safety) > 0 {
		w.drop("safety_settings")
	}
}

// own are the fields that the client has written for this form, so far as the model
// has them.
func (w imagesWriter) own() (all []ownField) {
	family := familyOf(w.t.model)
	for _, f := range w.brief.own {
		switch {
		case family.own != nil && !slices.Contains(family.own, f.name):
			if f.isMeant {
				w.drop(f.name)
			}
			continue
		case f.name == "quality" && w.brief.isFine && family.fine != "":
			f.value = passage{text: family.fine}
		}
		all = append(all, f)
	}
	return all
}

// size is what the client has said in this form, if the model has it. It is empty if
// the model may choose. Without an aspect ratio it has to where images are edited,
// whose shape it keeps.
func (w imagesWriter) size() string {
	_, images := split(w.brief.turns[0].parts)
	aspect, scale, exact := w.brief.aspect, w.brief.size, w.brief.exact
	if all := familyOf(w.t.model).sizes; !exact.isEmpty() && (len(all) == 0 || slices.Contains(all, exact)) {
		return exact.String()
	}
	if aspect == "" && (scale == "" || len(images) > 0) {
		if scale != "" {
			w.drop("image_size")
		}
		return ""
	}
	size := pixelSize(aspect, scale, w.t.model)
	if size == "" {
		w.drop("size")
	}
	return size
}

func (w imagesWriter) drop(name string) {
	w.dropped = appendNew(w.dropped, name)
}
