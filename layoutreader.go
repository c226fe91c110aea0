// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

var errLongText = errors.New("text too long")

// laidOut returns a layout of the body, from the beginning. The body is complete
// and kept: many readers may be at work on it at the same time. A read fails with
// what the body fails with, and with errBase64.
func (b *requestBody) laidOut(l *layout) io.ReadCloser {
	if n := l.length(); n >= 0 && n <= flatBody {
		flat := make([]byte, n)
		if _, err := io.ReadFull(&layoutReader{body: b, rest: l.segments}, flat); err == nil {
			return io.NopCloser(bytes.NewReader(flat))
		}
	}
	return &layoutReader{body: b, rest: l.segments}
}

// lengthOf is the length of a layout in bytes, whatever is in it. It reads what
// has to be decoded or tidied up, and fails as the layout's reader would: a mistake in it is
// found before anything is sent.
func (b *requestBody) lengthOf(l *layout) (total int64, err error) {
	for i := range l.segments {
		s := &l.segments[i]
		n := s.length()
		if n < 0 {
			if n, err = io.Copy(io.Discard, b.segment(s)); err != nil {
				return 0, err
			}
		}
		total += n
	}
	return total, nil
}

// text returns what a passage says, or what edits put in its place. It fails with
// errLongText if that is more than limit bytes.
func (b *requestBody) text(p passage, edits []edit, limit int) (text string, err error) {
	switch insert, isEdited := p.edited(edits); {
	case isEdited:
		err = json.Unmarshal(insert, &text)
	case p.isEmpty():
		text = p.text
	default:
		inside := span{p.at + 1, p.end - 1}
		var read []byte
		read, err = io.ReadAll(io.LimitReader(newUnescapingReader(b.bytes(inside)), int64(limit)+1))
		text = string(read)
	}
	switch {
	case err != nil:
		return "", err
	case len(text) > limit:
		return "", fmt.Errorf("%w: more than %d bytes", errLongText, limit)
	}
	return text, nil
}

// bytes reads a span of the body as the client sent it.
func (b *requestBody) bytes(s span) io.Reader {
	r := &bodyReader{body: b, rendering: rendering{omit: allAdditions}, cursor: cursor{at: s.at}}
	return io.LimitReader(r, s.end-s.at)
}

// segment reads a segment of a layout.
func (b *requestBody) segment(s *segment) io.Reader {
	switch {
	case s.literal != nil:
		return bytes.NewReader(s.literal)
	case s.coding == codingEncode:
		return newBase64Encoder(b.bytes(s.span))
	case s.coding == codingDecode:
		return newBase64Decoder(b.bytes(s.span), s.at)
	case s.coding == codingTidy:
		return newBase64Digits(b.bytes(s.span), s.at)
	}
	return b.bytes(s.span)
}

// layoutReader is a layout as a transport reads it.
type layoutReader struct {
	body    *requestBody
	current io.Reader // of the segment being read, nil between two
	rest    []segment // behind it
	closed  bool      // guarded by body.mu: transports close from elsewhere
}

func (r *layoutReader) Read(p []byte) (int, error) {
	if err := r.err(); err != nil || len(p) == 0 {
		return 0, err
	}
	for {
		if r.current == nil {
			if len(r.rest) == 0 {
				return 0, io.EOF
			}
			r.current, r.rest = r.body.segment(&r.rest[0]), r.rest[1:]
		}
		n, err := r.current.Read(p)
		if err == io.EOF {
			r.current, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// err returns why nothing more is to be read: literals do not ask the body.
func (r *layoutReader) err() error {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	if r.closed || r.body.released {
		return errReleased
	}
	return r.body.failure
}

// Close makes further reads fail.
func (r *layoutReader) Close() error {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	r.closed = true
	return nil
}
