// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"fmt"
	"io"
)

const (
	// maxParts is how many texts and images a brief may have: each takes memory,
	// however short it is. No model reads as many.
	maxParts = 10_000
	// maxListed is how many safety settings, and how many stop sequences, it may
	// have. Google takes one setting per category, and five sequences.
	maxListed = 64
	// maxKept bounds what a brief holds of a body in copies, in bytes.
	maxKept = 1 << 20
)

// nativeOther is the ID of all that is not among the nativeFields.
const nativeOther fieldID = -1

var nativeSchema = func() *field {
	paths := make(map[string]field)
	for id, row := range nativeFields {
		paths[row.path] = field{id: fieldID(id), keep: row.keep, raw: row.raw}
	}
	root := newSchema(paths)
	root.noticeAll(&field{id: nativeOther})
	contents, config := root.member("contents"), root.member("generationConfig")
	for _, list := range []*field{
		contents, contents.member("parts"), root.member("systemInstruction").member("parts"),
		config.member("responseFormat"), // a list in Google's clients, an object in its documentation
	} {
		list.repeatable()
	}
	return root
}()

// noticeAll has a visitor hear of every key in a schema's objects that is not in
// the schema.
func (f *field) noticeAll(other *field) {
	if f.members != nil {
		f.rest = other
	}
	for _, child := range f.members {
		child.noticeAll(other)
	}
	if f.element != nil {
		f.element.noticeAll(other)
	}
}

// readBriefNative reads a generateContent request of the Gemini API or of Vertex AI,
// which number the categories of harm differently. It fails with a *jsonError, or
// with what the body failed with.
func readBriefNative(body io.Reader, isVertex bool) (*brief, error) {
	n := &nativeReader{isVertex: isVertex, brief: brief{settings: make(map[string]string)}}
	n.scan.init(n, nativeSchema)
	if err := n.scan.scanFrom(body); err != nil {
		return nil, err
	}
	n.imagesAlone = n.listsImage && !n.writes
	if len(n.stops) > 0 {
		n.settings["stopSequences"] = string(encode(n.stops))
	}
	b := n.brief // without the reader's memory
	return &b, nil
}

// nativeReader makes a brief of a request.
type nativeReader struct {
	brief
	scan     jsonScanner
	isVertex bool

	keys   keySet
	frames []nativeFrame
	path   []byte // of the innermost of them, in the client's spelling

	parts      int // how many the brief has
	kept       int // bytes of it that are copies
	turn       briefTurn
	part       nativePart
	image      briefImage
	watch      base64Watch // of its data
	setting    SafetySetting
	stops      []string
	listsImage bool // among responseModalities
}

// nativeFrame is an open container.
type nativeFrame struct {
	isArray bool
	parent  int // the length of its parent's path
}

// nativePart is the part being read.
type nativePart struct {
	briefPart
	holds     int // texts and images; more than one is Google's error
	isThought bool
}

// nativeValue is a scalar. Only of a string is the place known.
type nativeValue struct {
	kind jsonKind
	text []byte
	span
}

// isNothing tells a value that says no more than a missing field.
func (v nativeValue) isNothing() bool {
	return v.kind == jsonNull || v.kind == jsonString && v.end-v.at == int64(len(`""`))
}

func (n *nativeReader) begin(*field) { n.watch = base64Watch{} }

func (n *nativeReader) piece(_ *field, raw []byte) { n.watch.write(raw) }

func (n *nativeReader) open(f *field, name []byte, array bool, _ int64) {
	n.keys.open()
	n.frames = append(n.frames, nativeFrame{array, len(n.path)})
	n.path = n.pathOf(n.frames[:len(n.frames)-1], name)
	if row := nativeRow(f); row.begin != nil && !array {
		row.begin(n)
	}
}

func (n *nativeReader) close(f *field, array, empty bool, _ int64) (pause bool) {
	switch row := nativeRow(f); {
	case empty:
	case row.drop != "":
		n.drop(row.drop)
	case f.id == nativeOther:
		n.refuse(n.path, noSuchField)
	case array && f.element == nil, !array && f.members == nil,
		row.end != nil && !array && !row.end(n):
		n.refuse(n.path, noSuchValue)
	}
	n.keys.close()
	last := len(n.frames) - 1
	path := n.path
	n.path = n.path[:n.frames[last].parent]
	n.frames = n.frames[:last]
	if !empty {
		n.meet(f, path)
	}
	return false
}

func (n *nativeReader) scalar(f *field, name []byte, kind jsonKind, text []byte, start int64) {
	v := nativeValue{kind, text, span{start, n.scan.end}}
	if !v.isNothing() {
		n.meet(f, n.pathOf(n.frames, name))
	}
	switch row := nativeRow(f); {
	case v.isNothing(), row.drop != "" && kind == jsonFalse:
	case row.drop != "":
		n.drop(row.drop)
	case f.id == nativeOther:
		n.refuse(n.pathOf(n.frames, name), noSuchField)
	case row.take == nil, !n.fits(row, v), !row.take(n, v):
		n.refuse(n.pathOf(n.frames, name), noSuchValue)
	}
}

// meet refuses a field that its object has twice.
func (n *nativeReader) meet(f *field, path []byte) {
	isMember := len(n.frames) > 0 && !n.frames[len(n.frames)-1].isArray
	if isMember && f.id != nativeOther && n.keys.has(f) {
		n.refuse(path, isTwice)
	}
}

func nativeRow(f *field) nativeField {
	if f.id == nativeOther {
		return nativeField{}
	}
	return nativeFields[f.id]
}

// pathOf is the path of what a key names in the innermost of the containers.
func (n *nativeReader) pathOf(frames []nativeFrame, name []byte) []byte {
	switch {
	case len(frames) == 0 || frames[len(frames)-1].isArray:
		return n.path
	case len(n.path) == 0:
		return append(n.path, name...)
	}
	return append(append(n.path, '.'), name...)
}

// fits tells whether all of a value has been captured, and may be kept.
func (n *nativeReader) fits(row nativeField, v nativeValue) bool {
	switch {
	case v.kind == jsonNumber:
		return len(v.text) < maxScalar
	case v.kind == jsonString && row.keep > 0:
		n.kept += len(v.text)
		return !n.scan.cut && n.kept <= maxKept
	}
	return true
}

func (n *nativeReader) drop(name string) {
	n.dropped = appendNew(n.dropped, name)
}

// refuse makes the call foreign, for the first reason that is found.
func (n *nativeReader) refuse(path []byte, why foreign) {
	if n.foreign == nil {
		why.param = string(path)
		why.message = fmt.Sprintf(why.message, cmp.Or(why.param, "body"))
		n.foreign = &why
	}
}

// Why a call cannot be said in another form. The messages have room for the path.
var (
	noSuchField = foreign{code: "unsupported_parameter", message: "'%s' has no equivalent in the API of the upstream."}
	noSuchValue = foreign{code: "invalid_value", message: "The value of '%s' has no equivalent in the API of the upstream."}
	isTwice     = foreign{code: "invalid_value", message: "'%s' is there twice."}
)
