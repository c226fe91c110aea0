// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"encoding/base64"
	"slices"
)

// layout is a body put together anew: from words of this module's and from what
// is in the client's body, which is not copied for it. Once written it does not
// change, so that any number of attempts may read it at the same time.
type layout struct {
	contentType string
	segments    []segment
	dropped     []string // what this form has no word for; Proxy-Status names it
	total       int64    // its length in bytes, once it is known

	edits []edit // of the prompt, in order: each replaces the whole JSON string of a passage
}

// segment is a run of a layout's bytes.
type segment struct {
	literal []byte
	span    // of the client's body, if there is no literal
	coding  coding
}

// coding is what is done to a span on its way out.
type coding uint8

const (
	codingNone   coding = iota
	codingEncode        // bytes become base64
	codingDecode        // base64 inside a JSON string becomes bytes
	codingTidy          // it becomes base64 that everybody reads
)

func newLayout(contentType string, edits []edit) *layout {
	return &layout{contentType: contentType, edits: edits}
}

// write adds words of this module's.
func (l *layout) write(text string) {
	if text == "" {
		return
	}
	if last := len(l.segments) - 1; last >= 0 && l.segments[last].literal != nil {
		l.segments[last].literal = append(l.segments[last].literal, text...)
		return
	}
	l.segments = append(l.segments, segment{literal: []byte(text)})
}

// quote adds a text as a JSON string, the quotes included.
func (l *layout) quote(p passage) {
	switch insert, isEdited := p.edited(l.edits); {
	case isEdited:
		l.write(string(insert))
	case p.isEmpty():
		l.write(string(encode(p.text)))
	default:
		l.copy(p.span)
	}
}

// copy adds bytes of the client's body as they are.
func (l *layout) copy(s span) { l.add(s, codingNone) }

// encode adds bytes of the client's body as base64.
func (l *layout) encode(s span) { l.add(s, codingEncode) }

// decode adds the bytes that base64 stands for. It is in a JSON string of the
// client's body, whose quotes are outside.
func (l *layout) decode(s span) { l.add(s, codingDecode) }

// base64 adds an image in base64. What the client wrote goes out as it is where
// everybody reads it. Google does whatever its alphabet and padding, and its Python
// SDK sends the URL-safe one; readers of data URLs do not.
func (l *layout) base64(i *briefImage) {
	switch {
	case i.isBinary:
		l.encode(i.data)
	case i.isPlain:
		l.copy(i.data)
	default:
		l.add(i.data, codingTidy)
	}
}

// binary adds the bytes of an image.
func (l *layout) binary(i *briefImage) {
	if i.isBinary {
		l.copy(i.data)
		return
	}
	l.decode(i.data)
}

func (l *layout) add(s span, c coding) {
	if !s.isEmpty() {
		l.segments = append(l.segments, segment{span: s, coding: c})
	}
}

// length is that of the whole in bytes, -1 if something has to be decoded: then
// only the body can tell. See requestBody.lengthOf.
func (l *layout) length() (total int64) {
	for _, s := range l.segments {
		n := s.length()
		if n < 0 {
			return -1
		}
		total += n
	}
	return total
}

func (s *segment) length() int64 {
	switch {
	case s.literal != nil:
		return int64(len(s.literal))
	case s.coding == codingEncode:
		return int64(base64.StdEncoding.EncodedLen(int(s.end - s.at)))
	case s.coding == codingDecode, s.coding == codingTidy:
		return -1
	}
	return s.end - s.at
}

func (s span) isEmpty() bool { return s.at == s.end }

// edited returns the JSON string that edits put in place of a passage, if they
// do. What is no part of the body cannot be edited.
func (p passage) edited(edits []edit) (insert []byte, ok bool) {
	if p.isEmpty() {
		return nil, false
	}
	i, ok := slices.BinarySearchFunc(edits, p.at, func(e edit, at int64) int { return cmp.Compare(e.at, at) })
	if !ok {
		return nil, false
	}
	return edits[i].insert, true
}
