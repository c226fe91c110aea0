// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// errMalformed is wrapped by every *jsonError.
var errMalformed = errors.New("malformed JSON")

// jsonError says where JSON stopped being JSON.
type jsonError struct {
	offset int64 // 0-based, of the first byte that cannot be there
	reason string
}

func (e *jsonError) Error() string { return fmt.Sprintf("%s at byte %d", e.reason, e.offset) }
func (e *jsonError) Unwrap() error { return errMalformed }

// encode marshals what cannot fail to marshal, on one line and without HTML
// escapes, so that it can stand in an event.
func encode(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte(`{"error":{"code":500,"status":"INTERNAL","message":"internal error"}}`)
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}

// jsonKind is the kind of a scalar.
type jsonKind uint8

const (
	jsonString jsonKind = iota
	jsonNumber
	jsonTrue
	jsonFalse
	jsonNull
)

const (
	// maxDepth bounds the memory of a document that is made of brackets.
	// Protobuf parsers stop at 100 levels.
	maxDepth = 200_000
	// maxKey is longer than any key of a schema, even one written entirely
	// in \u escapes.
	maxKey = 256
	// maxStrict is how many bytes of a string are looked into: text is shorter,
	// and what is longer is base64.
	maxStrict = 64 << 10
	// maxScalar bounds what is captured of a number.
	maxScalar = 32
)

// jsonScanner walks one JSON document that arrives in pieces of any size. It
// keeps no more of it than the open brackets and the scalars it captures.
//
// The grammar is enforced, with one exception: inside strings only quotes and
// backslashes are looked at, because strings are nearly all of the traffic. With
// strict, their beginnings are held to the grammar as well.
type jsonScanner struct {
	visitor jsonVisitor
	root    *field
	stack   []jsonFrame
	state   scanState
	next    scanState // behind the next comma of the innermost container
	offset  int64     // of the next byte

	field   *field // of the string, number or literal being read
	isKey   bool   // the string being read is a key
	fresh   bool   // no byte of the string has been seen
	strict  bool   // look into strings, too, as far as maxStrict
	checked int    // how much of the string has been looked into
	escape  int    // bytes of an escape that are due
	escaped bool   // an odd run of backslashes ended the last piece
	start   int64  // of the scalar being read
	end     int64  // of the last key or scalar: just behind it
	keyAt   int64  // where the last key begins
	capture []byte // what is kept of it
	cut     bool   // that is not all of it
	key     []byte // the last key of the innermost object, if it matters
	literal string // what is left of true, false or null
	kind    jsonKind
	number  numberState

	room *scanRoom // where stack, capture and key begin; nil: it has been given back
}

// scanRoom is as much as most documents need. It is what is largest of a scanner, and
// without it, a small call takes a tenth less of memory (BenchmarkServeHTTP).
type scanRoom struct {
	frames  [16]jsonFrame
	capture [512]byte
	key     [64]byte
}

var scanRooms = sync.Pool{New: func() any { return new(scanRoom) }}

type jsonFrame struct {
	field *field // nil: nobody cares
	array bool
	empty bool
}

type scanState uint8

const (
	wantValue   scanState = iota
	wantElement           // value or ]
	wantMember            // key or }
	wantKey
	wantColon
	wantComma // or the closing bracket
	inString
	inNumber
	inLiteral
	isDone
	isBroken
)

// init gives the scanner what it needs.
func (s *jsonScanner) init(v jsonVisitor, root *field) {
	s.visitor, s.root = v, root
	s.room = scanRooms.Get().(*scanRoom)
	s.stack, s.capture, s.key = s.room.frames[:0], s.room.capture[:0], s.room.key[:0]
}

// release gives the scanner's room back, which need not be done. It is the end of a
// document that has none yet.
func (s *jsonScanner) release() {
	if s.room == nil {
		return
	}
	if s.state != isDone {
		s.state = isBroken
	}
	s.stack, s.capture, s.key = nil, nil, nil
	scanRooms.Put(s.room)
	s.room = nil
}

// reset makes the scanner ready for another document; offsets go on.
func (s *jsonScanner) reset() {
	s.stack = s.stack[:0]
	s.state = wantValue
	s.key = s.key[:0]
}

// untouched tells whether nothing but white space has been seen.
func (s *jsonScanner) untouched() bool { return s.state == wantValue && len(s.stack) == 0 }

// finish ends the document: a number at top level has no other end.
func (s *jsonScanner) finish() error {
	if s.state == inNumber && s.number.final() {
		s.end = s.offset
		s.endScalar(s.kind)
	}
	if s.state != isDone {
		s.state = isBroken
		return &jsonError{s.offset, "unexpected end of JSON"}
	}
	return nil
}

// scanFrom scans a whole request, whose visitor never pauses. It fails with a
// *jsonError, or with what the reader failed with.
func (s *jsonScanner) scanFrom(body io.Reader) error {
	defer s.release()
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := body.Read(buf[:])
		if _, malformed := s.write(buf[:n]); malformed != nil {
			return malformed
		}
		switch {
		case errors.Is(err, io.EOF):
			return s.finish()
		case err != nil:
			return fmt.Errorf("reading the request body: %w", err)
		}
	}
}

// write scans a piece and returns how much of it was taken: all of it, unless
// a visitor asked for a pause.
func (s *jsonScanner) write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		switch s.state {
		case inString:
			n := s.inString(p[i:], s.offset+int64(i))
			if s.strict {
				if bad := s.check(p[i : i+n]); bad >= 0 {
					return s.fail(p, i+bad, "invalid character in a string")
				}
			}
			i += n
		case inNumber:
			next, ok := s.number.next(p[i])
			if !ok {
				if !s.number.final() {
					return s.fail(p, i, "invalid number")
				}
				s.end = s.offset + int64(i)
				s.endScalar(s.kind)
				continue // the byte belongs to what follows
			}
			s.number = next
			s.keepByte(p[i])
			i++
		case inLiteral:
			if p[i] != s.literal[0] {
				return s.fail(p, i, "invalid literal")
			}
			s.literal = s.literal[1:]
			i++
			if s.literal == "" {
				s.end = s.offset + int64(i)
				s.endScalar(s.kind)
			}
		case isBroken:
			return s.fail(p, i, "malformed JSON")
		default:
			c := p[i]
			if c == ' ' || c == '\n' || c == '\r' || c == '\t' {
				i++
				continue
			}
			if s.punctuation(c) { // most of what is between strings
				i++
				continue
			}
			pause, why := s.structure(c, s.offset+int64(i))
			if why != "" {
				return s.fail(p, i, why)
			}
			i++
			if pause {
				s.offset += int64(i)
				return i, nil
			}
		}
	}
	s.offset += int64(len(p))
	return len(p), nil
}

func (s *jsonScanner) fail(p []byte, i int, reason string) (int, error) {
	s.state = isBroken
	err := &jsonError{s.offset + int64(i), reason}
	s.offset += int64(len(p))
	return len(p), err
}

// punctuation takes a colon or comma where one is due. It is small enough to be
// inlined.
func (s *jsonScanner) punctuation(c byte) bool {
	switch {
	case c == ':' && s.state == wantColon:
		s.state = wantValue
	case c == ',' && s.state == wantComma:
		s.state = s.next
	default:
		return false
	}
	return true
}

// structure handles any other byte between strings, numbers and literals.
func (s *jsonScanner) structure(c byte, at int64) (pause bool, why string) {
	switch s.state {
	case wantElement:
		if c == ']' {
			return s.closeBracket(c, at)
		}
		return false, s.value(c, at)
	case wantValue:
		return false, s.value(c, at)
	case wantMember:
		if c == '}' {
			return s.closeBracket(c, at)
		}
		fallthrough
	case wantKey:
		if c != '"' {
			return false, "expected a key"
		}
		s.stack[len(s.stack)-1].empty = false
		s.beginString(nil, true, at)
		s.key, s.keyAt = s.key[:0], at
	case wantColon:
		return false, "expected a colon"
	case wantComma:
		return s.closeBracket(c, at)
	default: // isDone
		return false, "unexpected data after the document"
	}
	return false, ""
}

// value handles the first byte of a value.
func (s *jsonScanner) value(c byte, at int64) (why string) {
	f := s.root
	if n := len(s.stack); n > 0 {
		f = s.field
		if top := &s.stack[n-1]; top.array {
			top.empty = false
			f = nil
			if top.field != nil {
				f = top.field.element
			}
		}
	}
	switch c {
	case '{', '[':
		if len(s.stack) == maxDepth {
			return "nested too deeply"
		}
		if f != nil {
			s.visitor.open(f, s.key, c == '[', at)
		}
		s.stack = append(s.stack, jsonFrame{field: f, array: c == '[', empty: true})
		s.state, s.next = wantMember, wantKey
		if c == '[' {
			s.state, s.next = wantElement, wantValue
		}
	case '"':
		s.beginString(f, false, at)
	case 't':
		s.beginLiteral(f, jsonTrue, "rue", at)
	case 'f':
		s.beginLiteral(f, jsonFalse, "alse", at)
	case 'n':
		s.beginLiteral(f, jsonNull, "ull", at)
	default:
		number, ok := numberStart.next(c)
		if !ok {
			return "expected a value"
		}
		s.field, s.kind, s.state, s.number, s.start = f, jsonNumber, inNumber, number, at
		s.capture = s.capture[:0]
		s.keepByte(c)
	}
	return ""
}

func (s *jsonScanner) closeBracket(c byte, at int64) (pause bool, why string) {
	n := len(s.stack)
	if n == 0 {
		return false, "unexpected data after the document"
	}
	top := s.stack[n-1]
	if top.array && c != ']' || !top.array && c != '}' {
		return false, "expected a comma or a closing bracket"
	}
	s.stack = s.stack[:n-1]
	if n > 1 {
		s.next = wantKey
		if s.stack[n-2].array {
			s.next = wantValue
		}
	}
	s.afterValue()
	if top.field != nil {
		pause = s.visitor.close(top.field, top.array, top.empty, at)
	}
	return pause, ""
}

func (s *jsonScanner) afterValue() {
	s.state = wantComma
	if len(s.stack) == 0 {
		s.state = isDone
	}
}

func (s *jsonScanner) beginString(f *field, isKey bool, at int64) {
	s.field, s.isKey, s.fresh, s.escaped, s.state = f, isKey, true, false, inString
	s.kind, s.start = jsonString, at
	s.checked, s.escape = 0, 0
	s.capture, s.cut = s.capture[:0], false
}

func (s *jsonScanner) beginLiteral(f *field, kind jsonKind, rest string, at int64) {
	s.field, s.kind, s.literal, s.state, s.start = f, kind, rest, inLiteral, at
	s.capture = s.capture[:0]
}
