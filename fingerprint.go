// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"

	"github.com/cespare/xxhash/v2"
)

// quickPrint is the fingerprint of what matters of a request (issue #3), by
// value: formatting, order and spelling of keys, and escapes make no
// difference. It is cheap enough for every call, but strongPrint has to confirm
// what it finds. It fails with a *jsonError, or with what the body failed with.
func quickPrint(body io.Reader, model string) (uint64, error) {
	d, err := fingerprint(body, model, xxhash.New())
	return d[0], err
}

// strongPrint is quickPrint with SHA-256: two requests that have the same are
// the same.
func strongPrint(body io.Reader, model string) (strong [16]byte, err error) {
	d, err := fingerprint(body, model, sha256.New())
	binary.BigEndian.PutUint64(strong[:8], d[0])
	binary.BigEndian.PutUint64(strong[8:], d[1])
	return strong, err
}

const (
	_ fieldID = iota
	printValue
	printSet  // an array whose order means nothing
	printRole // of a content, "user" if it is missing
)

// printSchema is what matters of a request, of all surfaces at once: a body has
// only the fields of its own. All that is below them matters, too.
var printSchema = func() *field {
	below := &field{id: printValue, raw: true}
	below.rest, below.element = below, below
	value, set, role := *below, *below, *below
	set.id = printSet
	role.id, role.keep = printRole, maxWord
	root := newSchema(map[string]field{
		"contents":                        value,
		"contents.role":                   role,
		"systemInstruction":               value,
		"systemInstruction.role":          role,
		"safetySettings":                  set,
		"instances":                       value, // predict
		"messages":                        value, // OpenAI-compatible, as what follows
		"prompt":                          value,
		"image":                           value, // images/edits
		"images":                          value,
		"mask":                            value,
		"extraBody.safetySettings":        set,
		"extraBody.google.safetySettings": set,
		"input":                           value, // Interactions
		"previousInteractionId":           value, // with which all that was said before matters
	})
	root.member("contents").repeatable()
	return root
}()

// digest is the hash of a value; a quick one fills the first half.
type digest [2]uint64

// add is commutative, for what may come in any order.
func (d *digest) add(other digest) {
	d[0] += other[0]
	d[1] += other[1]
}

// printer computes a fingerprint as a tree of hashes: that of a container is
// made from those of its values. Its memory grows with their depth alone; so of
// duplicate keys each counts, of a key maxKey bytes, of a number maxScalar.
type printer struct {
	scan  jsonScanner
	hash  hash.Hash // of the value being read; empty between values
	text  unescaper // writes strings to the hash
	stack []printFrame
	small []byte // a key or number, in its common form
	buf   [sha256.Size]byte
}

// printFrame is an open container.
type printFrame struct {
	key   digest // under which it stands in its object
	form  frameForm
	sum   digest // of what it holds, so far
	count uint64 // against sums of many values that are made to fit
}

// frameForm says how the values of a container are put together.
type frameForm byte

const (
	frameObject frameForm = '{'
	frameList   frameForm = '['
	frameSet    frameForm = '('
)

func fingerprint(body io.Reader, model string, h hash.Hash) (digest, error) {
	p := &printer{hash: h, text: newUnescaper(h), stack: []printFrame{{form: frameObject}}}
	p.scan.init(p, printSchema)
	if err := p.scan.scanFrom(body); err != nil {
		return digest{}, err
	}
	return p.mix('m', p.stack[0].sum, p.word([]byte(model))), nil
}

func (p *printer) begin(*field) {}

func (p *printer) piece(_ *field, raw []byte) { p.text.write(raw) }

func (p *printer) scalar(f *field, name []byte, kind jsonKind, value []byte, _ int64) {
	if f.id == 0 {
		return
	}
	switch kind {
	case jsonString:
		p.text.end()
	case jsonNumber:
		p.small = appendCanonical(p.small[:0], value)
		p.hash.Write(p.small)
	}
	d := p.end(byte(kind))
	isNull := kind == jsonNull && p.top().form == frameObject
	isUser := kind == jsonString && f.id == printRole && (len(value) == 0 || string(value) == "user")
	if !isNull && !isUser { // which say no more than a missing member
		p.value(p.key(name), d)
	}
}

func (p *printer) open(f *field, name []byte, array bool, _ int64) {
	if f.id == 0 {
		return
	}
	frame := printFrame{key: p.key(name), form: frameObject}
	switch {
	case array && f.id == printSet:
		frame.form = frameSet
	case array:
		frame.form = frameList
	}
	p.stack = append(p.stack, frame)
}

func (p *printer) close(f *field, _, _ bool, _ int64) (pause bool) {
	if f.id != 0 {
		frame := *p.top()
		p.stack = p.stack[:len(p.stack)-1]
		p.value(frame.key, p.mix(byte(frame.form), frame.sum, digest{frame.count}))
	}
	return false
}

func (p *printer) top() *printFrame { return &p.stack[len(p.stack)-1] }

// value adds a value to the innermost container.
func (p *printer) value(key, d digest) {
	top := p.top()
	top.count++
	switch top.form {
	case frameObject:
		top.sum.add(p.mix(':', key, d))
	case frameList:
		top.sum = p.mix(',', top.sum, d)
	case frameSet:
		top.sum.add(d)
	}
}

// key returns the digest of a key of the innermost container, if that has keys.
func (p *printer) key(name []byte) digest {
	if p.top().form != frameObject {
		return digest{}
	}
	p.small = appendSnakeCase(p.small[:0], name)
	return p.word(p.small)
}

func (p *printer) word(text []byte) digest {
	p.hash.Write(text)
	return p.end(byte(jsonString))
}

// mix returns the digest of two others.
func (p *printer) mix(kind byte, a, b digest) digest {
	buf := p.buf[:0]
	for _, half := range [...]uint64{a[0], a[1], b[0], b[1]} {
		buf = binary.BigEndian.AppendUint64(buf, half)
	}
	p.hash.Write(buf)
	return p.end(kind)
}

// end returns the digest of what has been written, which is of the kind given.
func (p *printer) end(kind byte) digest {
	p.buf[0] = kind
	p.hash.Write(p.buf[:1])
	sum := p.hash.Sum(p.buf[:0])
	p.hash.Reset()
	d := digest{binary.BigEndian.Uint64(sum)}
	if len(sum) > 8 {
		d[1] = binary.BigEndian.Uint64(sum[8:])
	}
	return d
}
