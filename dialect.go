// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"io"
	"strings"
)

// dialect is what makes a body of one of Google's two APIs one of the other's.
type dialect struct {
	// edits of the client's body, in order. None touches the text of a prompt, or a
	// bracket before which something may be added.
	edits []edit
	// emptied are the closing brackets of what loses all that is in it. What is
	// added before one of them needs no comma.
	emptied []int64
	dropped []string // what is left out, because the other API has no word for it
}

// maxDialectEdits is how much is changed; no conversation is that long.
const maxDialectEdits = 10_000

// dialectEdits finds what has to be changed in a native body for the other one of
// Google's APIs (wire §2). There is a foreign field instead if nothing would help.
// It fails with a *jsonError, or with what the body failed with.
func dialectEdits(body io.Reader, toVertex bool) (dialect, *foreign, error) {
	d := &dialectScanner{target: formatGemini, home: formatVertex}
	if toVertex {
		d.target, d.home = d.home, d.target
	}
	d.scan.init(d, dialectSchema)
	if err := d.scan.scanFrom(body); err != nil {
		return dialect{}, nil, err
	}
	if d.foreign != nil {
		return dialect{}, d.foreign, nil
	}
	sortEdits(d.found.edits)
	return d.found, nil, nil
}

type dialectScanner struct {
	scan         jsonScanner
	target, home format // where the body goes, and where it comes from
	found        dialect
	foreign      *foreign // the first
	stack        []dialectFrame
}

// dialectFrame is an open container.
type dialectFrame struct {
	start, at      int64 // of it with its key, and of its bracket
	isArray        bool
	edits, emptied int // found before it

	members int   // that have ended
	end     int64 // of the last of them
	stays   bool  // one of them does
	gone    int64 // where those begin that go before any that stays; 0 if none do

	hasRole bool
	lost    string // the category that the target does not have
}

func (d *dialectScanner) begin(*field) {}

func (d *dialectScanner) open(f *field, _ []byte, array bool, at int64) {
	switch {
	case f.id == dialectRole:
		d.parent().hasRole = true // for Google to judge
	case f.id >= dialectLonely:
		d.meet(f, true) // {} is what most tools look like
	}
	d.stack = append(d.stack, dialectFrame{
		start: d.startOf(at), at: at, isArray: array,
		edits: len(d.found.edits), emptied: len(d.found.emptied),
	})
}

func (d *dialectScanner) close(f *field, array, empty bool, at int64) (pause bool) {
	last := len(d.stack) - 1
	c := d.stack[last]
	d.stack = d.stack[:last]
	goes := false
	switch {
	case f.id >= dialectLonely:
		goes = d.leaveOut(f, !empty)
	case f.id == dialectSetting && c.lost != "":
		goes = true
		d.drop(c.lost)
	case f.id == dialectContent && !array && !c.hasRole && d.target == formatVertex:
		d.giveRole(&c, empty)
	case f.id == dialectFormat:
		d.reshape(&c, at)
	}
	if goes {
		d.found.edits, d.found.emptied = d.found.edits[:c.edits], d.found.emptied[:c.emptied]
	} else if c.gone > 0 {
		d.edit(c.gone, at, "")
		d.found.emptied = append(d.found.emptied, at)
	}
	d.settle(c.start, at+1, goes)
	return false
}

func (d *dialectScanner) scalar(f *field, _ []byte, kind jsonKind, value []byte, start int64) {
	isSet := kind != jsonNull && (kind != jsonString || len(value) > 0)
	goes := false
	switch {
	case f.id >= dialectLonely:
		d.meet(f, isSet)
		goes = d.leaveOut(f, isSet)
	case f.id == dialectRole:
		d.parent().hasRole = true
		if !isSet && d.target == formatVertex {
			d.replace(start, `"user"`)
		}
	case isSet:
		d.value(f, kind, value, start)
	}
	d.settle(d.startOf(start), d.scan.end, goes)
}

// value takes up a value that the target may not understand.
func (d *dialectScanner) value(f *field, kind jsonKind, value []byte, start int64) {
	toVertex := d.target == formatVertex
	switch f.id {
	case dialectCategory:
		d.category(findCategory(kind, value, !toVertex), kind, start)
	case dialectFormatWord:
		if word := formatWords[string(value)]; word != "" && kind == jsonString && toVertex {
			d.replace(start, `"`+word+`"`)
		}
	case dialectModality:
		if !toVertex && isEnum(kind, value, "VIDEO", 4) {
			d.refuse("generationConfig.responseModalities", "The Gemini API makes no videos by generateContent.")
		}
	case dialectCache:
		d.refuse("cachedContent", "Cached content is known only to the API that it was made in.")
	case dialectFile:
		switch uri := string(value); {
		case toVertex && isFileOfAPI(uri):
			d.refuse("contents.parts.fileData.fileUri", "Vertex AI does not know files of the Gemini API.")
		case !toVertex && strings.HasPrefix(uri, "gs://"):
			d.refuse("contents.parts.fileData.fileUri", "The Gemini API does not read from gs:// addresses.")
		}
	}
}

// category has the numbers of categories replaced by names, because each API counts
// them in its own way.
func (d *dialectScanner) category(h harmCategory, kind jsonKind, start int64) {
	number := h.gemini
	if d.target == formatVertex {
		number = h.vertex
	}
	d.parent().lost = ""
	switch {
	case h.name == "":
	case number < 0:
		d.parent().lost = h.name
	case kind == jsonNumber:
		d.replace(start, `"`+h.name+`"`)
	}
}

// giveRole says whose a content is: Vertex AI insists on it (litellm issue #32731).
func (d *dialectScanner) giveRole(content *dialectFrame, empty bool) {
	role := `"role":"user"`
	if !empty {
		role += ","
	}
	d.edit(content.at+1, content.at+1, role)
}

// reshape gives responseFormat the form that the target has for it.
func (d *dialectScanner) reshape(c *dialectFrame, at int64) {
	parent := d.parent()
	switch {
	case d.target == formatVertex && !c.isArray && !parent.isArray:
		d.edit(c.at, c.at+1, "[{")
		d.edit(at, at+1, "}]")
	case d.target == formatVertex || !c.isArray:
	case c.members > 1:
		d.refuse("generationConfig.responseFormat", "The Gemini API takes one responseFormat.")
	case c.members == 1:
		d.edit(c.at, c.at+1, "")
		d.edit(at, at+1, "")
	default:
		d.edit(c.at, c.at+1, "{")
		d.edit(at, at+1, "}")
	}
}

// meet finds a field that the target does not have and the call cannot do without.
func (d *dialectScanner) meet(f *field, isSet bool) {
	if lonely := &lonelyFields[f.id-dialectLonely]; isSet && lonely.foreign && lonely.home == d.home {
		d.refuse(lonely.path, fmt.Sprintf("%s has no %s.", apiNames[d.target], lonely.path))
	}
}

// leaveOut tells that a field goes. It is named if it says something.
func (d *dialectScanner) leaveOut(f *field, isSet bool) bool {
	lonely := &lonelyFields[f.id-dialectLonely]
	if lonely.foreign || lonely.home != d.home {
		return false
	}
	if isSet {
		d.drop(lonely.path)
	}
	return true
}

func (d *dialectScanner) drop(name string) {
	d.found.dropped = appendNew(d.found.dropped, name)
}

func (d *dialectScanner) refuse(param, message string) {
	if d.foreign == nil {
		d.foreign = &foreign{param: param, message: message, code: "unsupported_parameter"}
	}
}

// settle ends a member or an element. If it goes, so does the comma before it, or
// behind it while none has stayed.
func (d *dialectScanner) settle(start, end int64, goes bool) {
	p := d.parent()
	if p == nil {
		return
	}
	switch {
	case goes && p.stays:
		d.edit(p.end, end, "")
	case goes && p.gone == 0:
		p.gone = start
	case !goes && p.gone > 0:
		d.edit(p.gone, start, "")
		p.gone = 0
	}
	p.stays = p.stays || !goes
	p.members++
	p.end = end
}

// parent is the innermost container, nil at the root.
func (d *dialectScanner) parent() *dialectFrame {
	if len(d.stack) == 0 {
		return nil
	}
	return &d.stack[len(d.stack)-1]
}

// startOf is where a value begins with its key, if it has one.
func (d *dialectScanner) startOf(at int64) int64 {
	if p := d.parent(); p != nil && !p.isArray {
		return d.scan.keyAt
	}
	return at
}

func (d *dialectScanner) replace(start int64, by string) { d.edit(start, d.scan.end, by) }

func (d *dialectScanner) edit(from, to int64, insert string) {
	switch {
	case d.foreign != nil:
	case len(d.found.edits) == maxDialectEdits:
		d.refuse("contents", "The call is too long to be changed for another API.")
	default:
		d.found.edits = append(d.found.edits, edit{from, int(to - from), []byte(insert)})
	}
}
