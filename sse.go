// SPDX-License-Identifier: Apache-2.0

package gemini

import "bytes"

// eventReader finds the JSON documents in an event stream. Lines end in LF or
// CRLF and may be megabytes long: a whole image arrives in one (wire §3).
type eventReader struct {
	line    lineKind
	matched int  // bytes of "data:" seen at the start of the line
	blank   bool // the last line was empty
}

type lineKind uint8

const (
	lineUndecided lineKind = iota
	lineData
	lineIgnored // event:, id:, retry:, comments
	lineBare    // JSON without "data:", as Google writes errors in mid-stream (wire §7)
)

const dataPrefix = "data:"

// documentScanner scans the documents that an eventReader finds.
type documentScanner interface {
	// scanJSON scans a piece up to the end of the next object, if one ends in
	// it and that matters, and returns how far it came.
	scanJSON(p []byte) (n int, object bool)
	// document is the one being scanned.
	document() *jsonScanner
}

func (s *answerScanner) document() *jsonScanner { return &s.json }

// over tells whether the document has ended, or cannot go on.
func (s *jsonScanner) over() bool { return s.state == isDone || s.state == isBroken }

// write scans p up to the end of the next object, if one ends in it, and
// returns how far it came.
func (r *eventReader) write(p []byte, s documentScanner) (n int, object bool) {
	for n < len(p) && !object {
		var took int
		switch r.line {
		case lineUndecided:
			took = r.decide(p[n], s)
		case lineBare:
			took, object = r.bare(p[n:], s)
		default:
			took, object = r.rest(p[n:], s)
		}
		n += took
	}
	return n, object
}

// bare takes a line of JSON, which may go on in the next line.
func (r *eventReader) bare(p []byte, s documentScanner) (n int, object bool) {
	switch end := bytes.IndexByte(p, '\n'); end {
	case -1:
	case 0:
		p = p[:1] // white space to JSON
	default:
		p = p[:end] // what is broken ends with its line
	}
	n, object = s.scanJSON(p)
	if s.document().over() {
		r.line = lineIgnored
	}
	return n, object
}

// rest takes what is left of a line that has been decided about.
func (r *eventReader) rest(p []byte, s documentScanner) (n int, object bool) {
	end := bytes.IndexByte(p, '\n')
	if r.line == lineData {
		data := p
		if end >= 0 {
			data = p[:end]
		}
		if n, object = s.scanJSON(data); object {
			return n, true // what follows the object in the line comes next
		}
	}
	if end < 0 {
		return len(p), false
	}
	r.line, r.matched, r.blank = lineUndecided, 0, false
	return end + 1, false
}

// decide looks at a byte at the beginning of a line and returns 1 if it took it.
func (r *eventReader) decide(c byte, s documentScanner) int {
	switch {
	case r.matched < len(dataPrefix) && c == dataPrefix[r.matched]:
		r.matched++
		if r.matched == len(dataPrefix) {
			r.line = lineData
			if s.document().over() {
				s.document().reset() // a server that leaves out the blank line between events
			}
		}
		return 1
	case r.matched == 0 && c == '\n':
		r.blank = true
		s.document().reset()
		return 1
	case r.matched == 0 && c == '\r':
		return 1
	case r.matched == 0 && (c == '{' || c == '['):
		s.document().reset()
		r.line = lineBare
		return 0
	default:
		r.line = lineIgnored
		return 0
	}
}

// betweenEvents tells whether the last event has been closed by a blank line.
func (r *eventReader) betweenEvents() bool {
	return r.line == lineUndecided && r.matched == 0 && r.blank
}
