// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
)

const (
	// maxChunkLine bounds the line with a chunk's length, in bytes, as net/http does.
	maxChunkLine = 4 << 10
	// maxChunkWaste bounds what stands between chunks that are hardly longer than
	// that, in bytes, as net/http does.
	maxChunkWaste = 16 << 10
	// maxTrailer bounds the fields behind the last chunk, in bytes.
	maxTrailer = 16 << 10
	// maxChunkDigits bounds a length, which may begin with zeros, as net/http does.
	maxChunkDigits = 16
	// maxChunk bounds the length itself: twice of it are still an int64.
	maxChunk = 1 << 60
)

var (
	errChunkLength = errors.New("malformed length of a chunk")
	errChunkLine   = errors.New("too much between the chunks")
	errChunkEnd    = errors.New("malformed end of a chunk")
	errTrailer     = errors.New("malformed trailer")
	errTrailerSize = errors.New("too much behind the last chunk")
)

// chunkState is what is due in a body of chunks (RFC 9112 §7.1).
type chunkState uint8

const (
	chunkLength    chunkState = iota // a digit of it, or what ends it
	chunkBlank                       // white space behind the length
	chunkExtension                   // which says nothing to us
	chunkLineEnd                     // the LF behind a length
	chunkData
	chunkCR // behind the data
	chunkLF
	trailerField // or the CR that ends the body
	trailerName
	trailerValue
	trailerLF
	lastLF
	chunksOver
)

// chunkedBody is an answer that comes in chunks, without what stands between them.
// net/http has a reader for that, but it reads one chunk at a time, and half of the
// bytes by way of a buffer. This one reads as much as there is room for, and closes the
// gaps where the bytes are: BenchmarkChunked.
type chunkedBody struct {
	source  io.Reader
	surplus bool // something stands behind the end

	state   chunkState
	digits  int   // of a length
	left    int64 // of a chunk
	line    int   // bytes of what stands between two chunks
	waste   int64 // see maxChunkWaste
	failure error
}

// Read reads from the source, as a rule once. It fails with io.ErrUnexpectedEOF where
// the source ends before the body does.
func (b *chunkedBody) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 && b.failure == nil {
		var got int
		got, err = b.source.Read(p)
		n, b.failure = b.decode(p[:got])
		if b.failure != nil || err == nil {
			continue
		}
		b.failure = err
		if errors.Is(err, io.EOF) {
			b.failure = io.ErrUnexpectedEOF
		}
	}
	return n, b.failure
}

// decode moves the data to the beginning of p and returns its length. At the end of
// the body it returns io.EOF.
func (b *chunkedBody) decode(p []byte) (n int, err error) {
	for at := 0; at < len(p); {
		if b.state == chunkData {
			took := int(min(b.left, int64(len(p)-at)))
			if n != at {
				copy(p[n:], p[at:at+took])
			}
			n, at, b.left = n+took, at+took, b.left-int64(took)
			if b.left == 0 {
				b.state = chunkCR
			}
			continue
		}
		err = b.step(p[at])
		at++
		if err == nil && b.state == chunksOver {
			err = io.EOF
			b.surplus = at < len(p)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// step takes a byte of what is no data.
func (b *chunkedBody) step(c byte) error {
	b.line++
	switch b.state {
	case chunkLength, chunkBlank, chunkExtension:
		return b.inLine(c)
	case chunkLineEnd:
		return b.endLine(c)
	case chunkCR:
		return b.expect(c, '\r', chunkLF, errChunkEnd)
	case chunkLF:
		b.line, b.digits = 0, 0
		return b.expect(c, '\n', chunkLength, errChunkEnd)
	case trailerField, trailerName, trailerValue:
		return b.inTrailer(c)
	case trailerLF:
		return b.expect(c, '\n', trailerField, errTrailer)
	}
	return b.expect(c, '\n', chunksOver, errTrailer) // lastLF
}

func (b *chunkedBody) expect(c, due byte, next chunkState, otherwise error) error {
	b.state = next
	if c != due {
		return otherwise
	}
	return nil
}

// inLine takes a byte of the line with a length.
func (b *chunkedBody) inLine(c byte) error {
	digit, isDigit := hexDigit(c)
	switch {
	case b.line >= maxChunkLine:
		return errChunkLine
	case c == '\n':
		return errChunkLength
	case b.state == chunkExtension && c != '\r':
	case b.state == chunkLength && isDigit && b.digits < maxChunkDigits && b.left < maxChunk>>4:
		b.left = b.left<<4 | digit
		b.digits++
	case b.digits == 0:
		return errChunkLength
	case c == '\r':
		b.state = chunkLineEnd
	case c == ';' && b.state == chunkLength:
		b.state = chunkExtension
	case c == ' ' || c == '\t':
		b.state = chunkBlank
	default:
		return errChunkLength
	}
	return nil
}

// endLine begins a chunk, or ends the last one.
func (b *chunkedBody) endLine(c byte) error {
	b.waste = max(0, b.waste+int64(b.line)-16-2*b.left)
	if b.waste > maxChunkWaste && b.left > 0 {
		return errChunkLine
	}
	b.line = 0
	next := chunkData
	if b.left == 0 {
		next = trailerField
	}
	return b.expect(c, '\n', next, errChunkLength)
}

// inTrailer takes a byte of the fields behind the last chunk, which nobody gets.
func (b *chunkedBody) inTrailer(c byte) error {
	switch {
	case b.line > maxTrailer:
		return errTrailerSize
	case c == '\n':
		return errTrailer
	case c == '\r' && b.state == trailerField:
		b.state = lastLF
	case c == '\r' && b.state == trailerValue:
		b.state = trailerLF
	case c == ':' && b.state == trailerName:
		b.state = trailerValue
	case c == '\r', b.state == trailerField && (c == ':' || c == ' ' || c == '\t'):
		return errTrailer
	case b.state == trailerField:
		b.state = trailerName
	}
	return nil
}

// hexDigit is the value of a hexadecimal digit.
func hexDigit(c byte) (value int64, ok bool) {
	switch {
	case c >= '0' && c <= '9':
		return int64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return int64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return int64(c-'A') + 10, true
	}
	return 0, false
}
