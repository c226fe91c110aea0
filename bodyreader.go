// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// bodyReader is a requestBody as a transport reads it. A transport may go on
// reading one attempt's reader while the next attempt reads its own.
type bodyReader struct {
	body      *requestBody
	rendering rendering

	// guarded by body.mu
	cursor
	known  int       // how many of the body's slots are among the edits
	sent   time.Time // when bytes were handed out the last time
	closed bool
}

// content returns a complete body as the client sent it, but for a
// Content-Encoding that has been undone.
func (b *requestBody) content() io.Reader { return b.reader(rendering{omit: allAdditions}) }

// reader returns the body as rd has it, from the beginning. A body that is not
// replayable has one reader.
func (b *requestBody) reader(rd rendering) io.ReadCloser {
	if rd.layout != nil {
		return b.laidOut(rd.layout)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended && b.keep && !b.released && b.failure == nil && b.size <= flatBody {
		return b.flat(rd)
	}
	r := b.newReader(rd)
	return &r
}

func (b *requestBody) newReader(rd rendering) bodyReader {
	return bodyReader{body: b, rendering: rd, cursor: cursor{edits: slices.Clone(rd.edits)}}
}

// flat is the reader of a short body that is complete. The caller holds mu.
func (b *requestBody) flat(rd rendering) io.ReadCloser {
	r := b.newReader(rd)
	r.catchUp()
	flat := make([]byte, 0, b.size+lengthened(r.edits))
	for p := r.ahead(&b.held, b.size); p.length > 0; p = r.ahead(&b.held, b.size) {
		flat = append(flat, p.bytes...)
		r.advance(p.length)
	}
	if len(flat) == 0 {
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(flat))
}

// getBody returns what http.Request.GetBody is to be, nil if the body cannot
// be sent again. It is sent again once: HTTP/2's transport does so as often as a call
// is refused, thousands of times in a second, without any of them being an attempt.
func (b *requestBody) getBody(rd rendering) func() (io.ReadCloser, error) {
	if !b.replayable() {
		return nil
	}
	var again *repeatedBody
	return func() (io.ReadCloser, error) {
		if again != nil && again.isSent.Load() {
			return nil, errRefused
		}
		again = &repeatedBody{ReadCloser: b.reader(rd)}
		return again, nil
	}
}

// repeatedBody knows whether it has been used: transports also ask for one that they
// find no connection for.
type repeatedBody struct {
	io.ReadCloser
	isSent atomic.Bool
}

// Read reads the body.
func (r *repeatedBody) Read(p []byte) (int, error) {
	r.isSent.Store(true)
	return r.ReadCloser.Read(p)
}

var errRefused = errors.New("the other side of the connection has twice refused to begin the call")

// Read is what net/http calls when the Content-Length is known: it wraps the
// reader.
func (r *bodyReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	next, err := r.take(len(p), false)
	if err != nil {
		return 0, err
	}
	n := copy(p, next.bytes)
	if next.bytes == nil {
		n, err = next.length, r.body.spill.read(p[:next.length], next.at)
	}
	if err = r.done(err); err != nil {
		return 0, err
	}
	return n, nil
}

// WriteTo is what net/http calls when a body is sent in chunks. Each of them
// costs three writes to the connection, so that they are as large as the
// rope's, and are written from there.
func (r *bodyReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		next, err := r.take(math.MaxInt, true)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := r.write(w, next)
		total += int64(n)
		if err = r.done(err); err != nil {
			return total, err
		}
	}
}

func (r *bodyReader) write(w io.Writer, p piece) (int, error) {
	if p.bytes != nil {
		return w.Write(p.bytes)
	}
	buf := largeChunks.Get().(*[largeChunk]byte)
	defer largeChunks.Put(buf)
	if err := r.body.spill.read(buf[:p.length], p.at); err != nil {
		return 0, err
	}
	return w.Write(buf[:p.length])
}

// take waits for the next bytes, at most so many. They are pinned until done.
func (r *bodyReader) take(most int, filled bool) (piece, error) {
	for {
		next, known, err := r.look(most, filled)
		if err != nil || next.length > 0 {
			return next, err
		}
		r.body.fetch(known)
	}
}

// look returns what can be handed out at once, and how much of the body had been
// read then. With filled, it holds back what more bytes would lengthen.
func (r *bodyReader) look(most int, filled bool) (next piece, known int64, err error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.released || r.closed:
		return piece{}, 0, errReleased
	case b.failure != nil:
		return piece{}, 0, b.failure
	case r.at < b.held.start:
		return piece{}, 0, errReleased
	}
	r.catchUp()
	next = r.ahead(&b.held, b.safe()).first(most)
	switch {
	case next.length == 0 && b.ended:
		return piece{}, 0, io.EOF
	case next.length == 0, filled && r.mayGrow(next):
		return piece{}, b.size, nil
	}
	r.sent = time.Now()
	r.advance(next.length)
	b.pins++
	return next, b.size, nil
}

// mayGrow tells that more of the chunk is to come, unless the client is slow:
// upstreams give up on uploads that stand still.
func (r *bodyReader) mayGrow(p piece) bool {
	b := r.body
	isLast := p.at+int64(p.length) == b.size && !b.ended
	return isLast && b.held.hasRoom() && time.Since(r.sent) < maxStall
}

// catchUp takes up what has been found in the body since the last time.
func (r *bodyReader) catchUp() {
	if slots := r.body.slots[r.known:]; len(slots) > 0 {
		r.edits = append(r.edits, r.rendering.resolve(slots)...)
		sortEdits(r.edits)
		r.known += len(slots)
	}
}

// done gives back what take returned. An error that is the body's own is kept
// for everybody.
func (r *bodyReader) done(err error) error {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unpin(r.at)
	if errors.Is(err, errNoRoom) {
		b.failure = err
	}
	return err
}

// Close makes further reads fail. The client's body is left to its server.
func (r *bodyReader) Close() error {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	r.closed = true
	return nil
}
