// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
)

// inString takes what p, found at the offset at, holds of the string and
// returns how much that was. A quote ends the string unless an odd run of
// backslashes stands before it; that run may reach back into the piece before.
func (s *jsonScanner) inString(p []byte, at int64) int {
	if s.fresh {
		s.fresh = false
		if s.field != nil && p[0] != '"' {
			s.visitor.begin(s.field)
		}
	}
	for from := 0; ; {
		quote := bytes.IndexByte(p[from:], '"')
		end := len(p)
		if quote >= 0 {
			end = from + quote
		}
		run := end
		for run > 0 && p[run-1] == '\\' {
			run--
		}
		odd := (end-run)%2 == 1
		if run == 0 && s.escaped {
			odd = !odd
		}
		if quote < 0 {
			s.escaped = odd
			s.keepBytes(p)
			return len(p)
		}
		if !odd {
			s.keepBytes(p[:end])
			s.end = at + int64(end) + 1
			s.endString()
			return end + 1
		}
		from = end + 1
	}
}

// check looks for what cannot stand in a string: control characters, and escapes
// that are none. It returns the index of the first such byte, or -1. The quote at
// the end of the string may be among the bytes.
func (s *jsonScanner) check(p []byte) int {
	room := max(0, maxStrict-s.checked)
	s.checked += len(p)
	p = p[:min(len(p), room)]
	for i := 0; i < len(p); i++ {
		if s.escape == 0 {
			for len(p)-i >= 8 && needNoLook(binary.LittleEndian.Uint64(p[i:])) {
				i += 8
			}
			if i == len(p) {
				break
			}
		}
		switch c := p[i]; {
		case s.escape > 1: // hexadecimal digits
			if _, isDigit := hexDigit(c); !isDigit {
				return i
			}
			s.escape--
			if s.escape == 1 {
				s.escape = 0
			}
		case s.escape == 1:
			s.escape = 0
			if c == 'u' {
				s.escape = 5
			} else if strings.IndexByte(`"\/bfnrt`, c) < 0 {
				return i
			}
		case c == '\\':
			s.escape = 1
		case c < ' ':
			return i
		}
	}
	return -1
}

// needNoLook tells that none of eight bytes is a control character or a backslash. Both
// terms are the classic "is one of these bytes less than n": text is checked four times
// as fast as byte by byte.
func needNoLook(eight uint64) bool {
	const each, highest = 0x0101010101010101, 0x8080808080808080
	other := eight ^ each*'\\' // 0 where a backslash is
	return (eight-each*' ')&^eight&highest|(other-each)&^other&highest == 0
}

func (s *jsonScanner) keepByte(c byte) {
	if s.field != nil && len(s.capture) < maxScalar {
		s.capture = append(s.capture, c)
	}
}

func (s *jsonScanner) keepBytes(p []byte) {
	limit := 0
	switch {
	case s.isKey:
		if s.stack[len(s.stack)-1].field.named() {
			limit = maxKey
		}
	case s.field != nil:
		limit = s.field.keep
		if s.field.raw {
			s.visitor.(pieceVisitor).piece(s.field, p)
		}
	}
	room := limit - len(s.capture)
	s.cut = s.cut || room < len(p)
	s.capture = append(s.capture, p[:min(room, len(p))]...)
}

func (s *jsonScanner) endString() {
	if !s.isKey {
		s.endScalar(jsonString)
		return
	}
	s.field = nil
	if f := s.stack[len(s.stack)-1].field; f.named() {
		s.key = append(s.key[:0], unescape(s.capture, s.cut)...)
		s.field = f.child(s.key)
	}
	s.state = wantColon
}

func (s *jsonScanner) endScalar(kind jsonKind) {
	s.afterValue()
	if s.field == nil {
		return
	}
	value := s.capture
	if kind == jsonString {
		value = unescape(value, s.cut)
	}
	s.visitor.scalar(s.field, s.key, kind, value, s.start)
}

// unescape undoes the escapes of a captured string. A string that was cut in
// the middle of an escape loses that escape; one that was not cut and still
// does not parse stays as it is, so that it is taken for no other.
func unescape(raw []byte, cut bool) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	most := 0
	if cut {
		most = min(len(`\uD83D\uDE0`), len(raw))
	}
	for lost := 0; lost <= most; lost++ {
		var text string
		quoted := append(append([]byte{'"'}, raw[:len(raw)-lost]...), '"')
		if json.Unmarshal(quoted, &text) == nil {
			return []byte(text)
		}
	}
	return raw
}
