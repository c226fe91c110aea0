// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

var errBase64 = errors.New("invalid base64")

// newBase64Encoder reads the base64 of what a reader has.
func newBase64Encoder(from io.Reader) io.Reader {
	f := &filter{from: from}
	encoder := base64.NewEncoder(base64.StdEncoding, &f.ready) // which never fails
	f.write = func(p []byte) { _, _ = encoder.Write(p) }
	f.end = func() { _ = encoder.Close() }
	return f
}

// newBase64Decoder reads the bytes that base64 inside a JSON string stands for.
// The error for what is no base64 names the offset in the body where it begins.
func newBase64Decoder(from io.Reader, at int64) io.Reader {
	return base64.NewDecoder(base64.StdEncoding, newBase64Digits(from, at))
}

// newUnescapingReader reads what is inside a JSON string without its escapes.
func newUnescapingReader(from io.Reader) io.Reader {
	f := &filter{from: from}
	unescaper := newUnescaper(&f.ready)
	f.write, f.end = unescaper.write, unescaper.end
	return f
}

// filter reads what somebody who writes to ready makes of a reader's bytes.
type filter struct {
	from  io.Reader
	write func(p []byte) // takes the next of them
	end   func()         // there are no more
	ended bool
	ready bytes.Buffer
	chunk [4 << 10]byte
}

func (f *filter) Read(p []byte) (int, error) {
	for f.ready.Len() == 0 && !f.ended {
		n, err := f.from.Read(f.chunk[:])
		f.write(f.chunk[:n])
		switch {
		case err == io.EOF:
			f.ended = true
			f.end()
		case err != nil:
			return 0, err
		}
	}
	return f.ready.Read(p)
}

// base64Digits reads base64 of any kind as the usual one, in the standard alphabet,
// padded and without line breaks, and fails with errBase64 if it is none.
// Protobuf's JSON takes both alphabets, with padding or without.
type base64Digits struct {
	from    io.Reader
	at      int64 // in the body
	digits  int64 // so far
	pads    int64 // behind them, if the client has written any
	isEnd   bool
	padding string // that is still to be read then
}

// newBase64Digits reads the usual base64 out of that inside a JSON string, without
// what would have to be escaped there.
func newBase64Digits(from io.Reader, at int64) *base64Digits {
	return &base64Digits{from: newUnescapingReader(from), at: at}
}

func (d *base64Digits) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	for !d.isEnd {
		if n, err = d.read(p); n > 0 || err != nil {
			return n, err
		}
	}
	if d.padding == "" {
		return 0, io.EOF
	}
	n = copy(p, d.padding)
	d.padding = d.padding[n:]
	return n, nil
}

// read reads digits. There may be none before the end, and there are none behind it.
func (d *base64Digits) read(p []byte) (n int, err error) {
	n, err = d.from.Read(p)
	n, valid := d.sift(p[:n])
	if err == io.EOF && valid {
		valid, err = d.end(), nil
	}
	if !valid {
		return 0, fmt.Errorf("%w from byte %d on", errBase64, d.at)
	}
	return n, err
}

// end tells whether the digits may end there, and pads them.
func (d *base64Digits) end() bool {
	lack := -d.digits & 3
	if lack > 2 || d.pads > 0 && d.pads != lack {
		return false
	}
	d.isEnd, d.padding = true, "=="[:lack]
	return true
}

// sift moves the digits to the front, and returns how many there are. It is not
// valid if there is something else than base64.
func (d *base64Digits) sift(p []byte) (kept int, valid bool) {
	for _, c := range p {
		switch digit := base64Alphabet[c]; {
		case digit == '\n':
		case digit == '=':
			d.pads++
		case digit == 0 || d.pads > 0:
			return 0, false
		default:
			p[kept] = digit
			kept++
		}
	}
	d.digits += int64(kept)
	return kept, true
}

// base64Alphabet has the standard digit for both alphabets' digits, '=' for the
// padding, '\n' for line breaks, which MIME has, and 0 for everything else.
var base64Alphabet = func() (alphabet [256]byte) {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
	for _, c := range []byte(digits) {
		alphabet[c] = c
	}
	alphabet['-'], alphabet['_'] = '+', '/'
	alphabet['\r'], alphabet['\n'] = '\n', '\n'
	return alphabet
}()

// isBase64 tells the bytes of base64, in either alphabet.
func isBase64(c byte) bool { return base64Alphabet[c] > '\n' }

// base64Watch watches base64 inside a JSON string as it goes by.
type base64Watch struct {
	length int64
	isOdd  bool // it is URL-safe, or has escapes
}

func (w *base64Watch) write(raw []byte) {
	w.length += int64(len(raw))
	w.isOdd = w.isOdd || bytes.IndexByte(raw, '-') >= 0 || bytes.IndexByte(raw, '_') >= 0 || bytes.IndexByte(raw, '\\') >= 0
}

// isPlain tells that everybody reads it: it is in the standard alphabet and padded.
func (w *base64Watch) isPlain() bool { return !w.isOdd && w.length%4 == 0 }
