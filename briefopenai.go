// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// openAIField says what becomes of a field of a request in OpenAI's form.
type openAIField struct {
	kinds openAIKinds // of values that it takes; none if it only holds other fields
	keep  int         // how many bytes of a string to capture; a longer one is refused
	isURL bool        // it may be a data URL, of any length, or a file in a form
	take  func(*openAIReader, openAIValue)
	end   func(*openAIReader) // of an object or list that is not empty
}

// openAIKinds are kinds of values, by the bits of their jsonKind.
type openAIKinds uint8

const (
	takesText   openAIKinds = 1 << jsonString
	takesNumber openAIKinds = 1 << jsonNumber
	takesFlag   openAIKinds = 1<<jsonTrue | 1<<jsonFalse
	takesNested openAIKinds = 1 << 7 // an object or list, whatever is in it
	takesAny                = takesText | takesNumber | takesFlag | takesNested
)

// openAIFields are the fields that other forms have a word for, those that nothing
// but themselves is lost with, and those that are known to be neither. They are by
// their paths, in camelCase.
type openAIFields map[string]openAIField

// under puts fields into an object.
func (fields openAIFields) under(object string) openAIFields {
	all := make(openAIFields, len(fields))
	for path, row := range fields {
		all[object+"."+path] = row
	}
	return all
}

// openAISchema is what there is to know of a kind of request.
type openAISchema struct {
	root *field
	rows []openAIField // by the ID of their field
}

const (
	openAIStep    fieldID = iota // on the way to other fields
	openAIUnknown                // not among the fields
)

func newOpenAISchema(groups ...openAIFields) *openAISchema {
	s := &openAISchema{rows: []openAIField{
		openAIStep:    {},
		openAIUnknown: {kinds: takesAny, take: (*openAIReader).refuseUnknown},
	}}
	paths := make(map[string]field)
	for _, fields := range groups {
		for path, row := range fields {
			paths[path] = field{id: fieldID(len(s.rows)), keep: row.keep, raw: row.isURL}
			s.rows = append(s.rows, row)
		}
	}
	s.root = newSchema(paths)
	s.root.noticeAll(&field{id: openAIUnknown})
	return s
}

// openAIValue is a scalar, or nothing for a field that takesNested. Of a string
// that is not captured only the place is known, of one in a form only the text.
type openAIValue struct {
	kind jsonKind
	text string
	cut  bool // that is not all of it
	span
}

// openAIReader makes a brief of a request. What it refuses makes the brief foreign;
// it reads on, since what follows may still be no JSON.
type openAIReader struct {
	brief
	scan   jsonScanner
	schema *openAISchema
	keys   keySet
	place  []openAIPlace // of what is being read, from the root on
	named  string        // instead of that, in a form

	comma  int64       // in the string being read, from behind its quote; -1 if none has come
	length int64       // of what has come
	watch  base64Watch // of what is behind the comma

	parts int // how many the brief has
	kept  int // bytes of it that are copies

	categories, thresholds []string // of harm, in pairs
	stops                  []string
	outputs, pictures      int // elements of a list of modalities, and images among them

	prompt  passage     // of images
	images  []briefPart // that go with it
	fitted  [2]string   // aspect and size that the size was fitted to
	message openAIMessage
}

// openAIPlace is a value that has not ended, and where it is in its object or list.
type openAIPlace struct {
	key     string
	index   int
	isIndex bool
	isList  bool
	length  int // of the list, so far
}

func newOpenAIReader(schema *openAISchema) *openAIReader {
	r := &openAIReader{schema: schema, brief: brief{settings: make(map[string]string)}}
	r.scan.init(r, schema.root)
	r.scan.strict = true // strings go out as they came in
	return r
}

// read reads JSON. It fails with a *jsonError, or with what the body failed with.
func (r *openAIReader) read(body io.Reader) error { return r.scan.scanFrom(body) }

// finish takes what fields say together. In a form, whose lists have no end, that is
// known no sooner.
func (r *openAIReader) finish() *brief {
	if r.outputs > 0 {
		r.endModalities()
	}
	if len(r.categories) != len(r.thresholds) {
		r.refuse("safety_settings", "invalid_value", "Invalid value for '%s': it must be pairs of a category and a threshold.")
	}
	for i := range min(len(r.categories), len(r.thresholds)) {
		r.setSafety(SafetySetting{Category: r.categories[i], Threshold: r.thresholds[i]})
	}
	if len(r.stops) > 0 {
		r.settings["stopSequences"] = string(encode(r.stops))
	}
	b := r.brief // without the reader's memory
	return &b
}

func (r *openAIReader) open(_ *field, key []byte, array bool, _ int64) {
	r.keys.open()
	r.enter(key, array)
}

func (r *openAIReader) close(f *field, array, empty bool, _ int64) (pause bool) {
	row := &r.schema.rows[f.id]
	isExpected := f.members != nil
	if array {
		isExpected = f.element != nil
	}
	switch {
	case empty:
	case isExpected && row.end != nil:
		row.end(r)
	case isExpected:
	case row.kinds&takesNested != 0:
		row.take(r, openAIValue{})
	default:
		r.refuseKind(row)
	}
	r.keys.close()
	if !empty {
		r.meet(f)
	}
	r.leave()
	return false
}

func (r *openAIReader) begin(*field) { r.comma, r.length, r.watch = -1, 0, base64Watch{} }

// piece looks for the comma of a data URL: what follows it stays where it is.
func (r *openAIReader) piece(_ *field, raw []byte) {
	start := r.length
	r.length += int64(len(raw))
	if r.comma < 0 {
		i := bytes.IndexByte(raw, ',')
		if i < 0 {
			return
		}
		r.comma = start + int64(i)
		raw = raw[i+1:]
	}
	r.watch.write(raw)
}

func (r *openAIReader) scalar(f *field, key []byte, kind jsonKind, text []byte, start int64) {
	r.enter(key, false)
	defer r.leave()
	v := openAIValue{kind: kind}
	switch kind {
	case jsonNull:
		return
	case jsonTrue:
		v.text = "true"
	case jsonFalse:
		v.text = "false"
	case jsonNumber:
		v.text, v.cut = string(text), len(text) == maxScalar
	case jsonString:
		if v.span = (span{start, r.scan.end}); v.end-v.at == int64(len(`""`)) {
			return
		}
		v.text, v.cut = string(text), r.scan.cut && f.keep > 0
	}
	r.meet(f)
	r.take(&r.schema.rows[f.id], v)
}

// meet refuses a field that its object has twice.
func (r *openAIReader) meet(f *field) {
	parent := len(r.place) - 2
	if parent >= 0 && !r.place[parent].isList && f.id != openAIUnknown && r.keys.has(f) {
		r.refuseValue("it is there twice")
	}
}

// take takes a value that says something.
func (r *openAIReader) take(row *openAIField, v openAIValue) {
	switch {
	case row.kinds&(1<<v.kind) == 0:
		r.refuseKind(row)
	case v.cut && !row.isURL:
		r.refuseValue("it is too long")
	default:
		row.take(r, v)
	}
}

func (r *openAIReader) enter(key []byte, isList bool) {
	p := openAIPlace{isList: isList}
	if n := len(r.place); n > 0 {
		if top := &r.place[n-1]; top.isList {
			p.index, p.isIndex = top.length, true
			top.length++
		} else {
			p.key = string(key)
		}
	}
	r.place = append(r.place, p)
}

func (r *openAIReader) leave() { r.place = r.place[:len(r.place)-1] }

// path is where the reader is, in the client's spelling: "messages[0].name", or
// "messages[].name" for all of a list.
func (r *openAIReader) path(withIndex bool) string {
	if r.named != "" || len(r.place) == 0 {
		return r.named
	}
	var b strings.Builder
	for _, p := range r.place[1:] {
		switch {
		case p.isIndex && withIndex:
			b.WriteString("[" + strconv.Itoa(p.index) + "]")
		case p.isIndex:
			b.WriteString("[]")
		case b.Len() > 0:
			b.WriteString("." + p.key)
		default:
			b.WriteString(p.key)
		}
	}
	return b.String()
}

// refuse makes the call foreign, for the first reason that is found. The message
// has room for the name.
func (r *openAIReader) refuse(param, code, message string) {
	if r.foreign == nil {
		r.foreign = &foreign{param: param, code: code, message: fmt.Sprintf(message, cmp.Or(param, "body"))}
	}
}

func (r *openAIReader) refuseUnknown(openAIValue) {
	r.refuse(r.path(true), "unknown_parameter", "Unknown parameter: '%s'.")
}

// refuseField is for what OpenAI knows, and no other form.
func (r *openAIReader) refuseField(openAIValue) {
	r.refuse(r.path(true), "unsupported_parameter", "Unsupported parameter: '%s' is not supported with this model.")
}

func (r *openAIReader) refuseValue(why string) {
	r.refuse(r.path(true), "invalid_value", "Invalid value for '%s': "+why+".")
}

func (r *openAIReader) refuseKind(row *openAIField) {
	expected := "an object or a list"
	switch {
	case row.kinds&takesText != 0:
		expected = "a string"
	case row.kinds&takesNumber != 0:
		expected = "a number"
	case row.kinds&takesFlag != 0:
		expected = "true or false"
	}
	r.refuse(r.path(true), "invalid_type", "Invalid type for '%s': expected "+expected+".")
}

func (r *openAIReader) refuseMissing(param string) {
	r.refuse(param, "missing_required_parameter", "Missing required parameter: '%s'.")
}

// drop leaves a field out. One that is false says no more than a missing one.
func (r *openAIReader) drop(v openAIValue) {
	if v.text != "false" {
		r.dropped = appendNew(r.dropped, r.path(false))
	}
}

// ignore is for what is read elsewhere, or means nothing.
func (r *openAIReader) ignore(openAIValue) {}

func (r *openAIReader) takeModel(v openAIValue) { r.brief.model = v.text }

// usual takes the words that ask for what happens anyway.
func usual(words ...string) func(*openAIReader, openAIValue) {
	return func(r *openAIReader, v openAIValue) {
		if !slices.Contains(words, v.text) {
			r.refuse(r.path(true), "unsupported_value", "Unsupported value: '%s' does not support this value with this model.")
		}
	}
}

// hasRoom counts a text or image of the brief, if there may be one more.
func (r *openAIReader) hasRoom() bool {
	r.parts++
	if r.parts > maxParts {
		r.refuseValue("there are more than " + strconv.Itoa(maxParts) + " texts and images")
	}
	return r.parts <= maxParts
}

// keeps counts bytes that the brief has a copy of, if there may be so many more.
func (r *openAIReader) keeps(text string) bool {
	r.kept += len(text)
	if r.kept > maxKept {
		r.refuseValue("the request has too many long values")
	}
	return r.kept <= maxKept
}

// image finds the image that a URL stands for; nil if it is refused.
func (r *openAIReader) image(v openAIValue) *briefImage {
	scheme, rest, _ := strings.Cut(v.text, ":")
	switch scheme = strings.ToLower(scheme); {
	case scheme == "data":
		return r.dataImage(rest, v.span)
	case (scheme == "http" || scheme == "https") && utf8.ValidString(v.text): // or it would grow when it is written
		if v.cut {
			r.refuseValue("it is too long")
			return nil
		}
		if !r.keeps(v.text) {
			return nil
		}
		return &briefImage{uri: v.text}
	}
	r.refuseValue("it must be a data URL, or a URL with http or https")
	return nil
}

// dataImage finds the image in a data URL (RFC 2397), of which head is what has been
// captured behind "data:".
func (r *openAIReader) dataImage(head string, url span) *briefImage {
	about, data, hasData := strings.Cut(head, ",")
	mime, isImage := dataURLMime("data:" + about)
	i := briefImage{mime: mime, isPlain: r.watch.isPlain()}
	i.data = span{url.at + int64(len(`"`)) + r.comma + int64(len(`,`)), url.end - int64(len(`"`))}
	isEscaped := r.comma < 0 || strings.Contains(data, ",") // so that the comma is not where it seems to be
	if !hasData || !isImage || isEscaped || i.data.at >= i.data.end {
		r.refuseValue("it must be an image in base64")
		return nil
	}
	if mime == "" {
		i.mime = sniffBase64(data)
	}
	return &i
}
