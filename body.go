// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

const (
	// aheadSize is how much of a body, in bytes, is read before anything is
	// sent. A body that ends within it is completed as a whole, keeps a
	// Content-Length and can be sent again. With 1 MiB, requests of 1.5 and
	// 10 MB took a tenth more time.
	aheadSize = 256 << 10
	// maxWithheld is how much of a body, in bytes, may wait for a duplicate of a
	// key that lacks something. Nobody is known to send duplicates.
	maxWithheld = 1 << 20
	// flatBody is up to which length, in bytes, a complete body is handed to
	// the transport as a bytes.Reader, which net/http sends together with
	// the header instead of in a packet of its own.
	flatBody = 64 << 10
)

var (
	errTooLarge = errors.New("request body too large")
	errReleased = errors.New("request body used after the end of its call")
	errGzip     = errors.New("invalid gzip data")
)

// requestBody reads a client's body once, completes it on the way and hands
// it to the transport. What needs no edit streams through; from the first byte
// that may need one, the rest waits until that is decided.
type requestBody struct {
	source    io.Reader // of the body as it is forwarded, but for the edits
	declared  int64     // how long source is, -1 if unknown
	limit     int64
	isZipped  bool // source is gzip, passed on as it is
	isDecoded bool // source was gzip

	mu        sync.Mutex // guards all below
	completer *completer
	scanning  bool   // the completer is given what is read
	held      rope   // what has been read and may have to be handed out
	out       cursor // the first byte that has not been handed out
	size      int64  // how much has been read
	growth    int64  // by how much the edits lengthen the body
	ended     bool
	whole     bool   // it ended before anything was handed out
	flat      []byte // all of it, edited, if it is whole and short
	failure   error
	released  bool
}

// newRequestBody takes over the body of r: gzip is undone if something has to
// be completed, any other Content-Encoding is forwarded unread. The limit, in
// bytes, is on the decoded body.
func newRequestBody(r *http.Request, c completion, limit int64) *requestBody {
	raw := &rawBody{reader: r.Body, left: r.ContentLength}
	if r.Body == nil {
		raw.left = 0
	}
	b := &requestBody{source: raw, declared: raw.left, limit: limit, completer: newCompleter(c)}
	encoding := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ","))
	isGzip := encoding == "gzip" || encoding == "x-gzip"
	switch {
	case encoding == "" || encoding == "identity":
		b.scanning = true
	case isGzip && c.isEmpty():
		b.isZipped = true
	case isGzip:
		b.source, b.declared = &gunzip{raw: raw}, -1
		b.scanning, b.isDecoded = true, true
	}
	if r.ContentLength > limit {
		b.failure = errTooLarge
	}
	return b
}

// readAhead reads the beginning of the body, all of it if it is short. It
// comes before anything else is done with the body.
func (b *requestBody) readAhead() error {
	for !b.ended && b.failure == nil && b.size < aheadSize {
		p := b.held.room()
		n, err := b.source.Read(p)
		b.held.grow(n)
		b.mu.Lock()
		b.took(p[:n], err)
		b.mu.Unlock()
	}
	if b.failure != nil || !b.ended {
		return b.failure
	}
	b.whole = true
	if length := b.size + b.growth; length <= flatBody {
		flat := make([]byte, length)
		b.out.read(flat, &b.held, b.size)
		b.flat = flat
		b.held.drop(b.size)
	}
	if b.isZipped {
		b.peek()
	}
	return nil
}

// took accounts for what was read, and for the error that came with it. The
// caller holds mu.
func (b *requestBody) took(p []byte, err error) {
	b.size += int64(len(p))
	if b.size > b.limit {
		b.failure = errTooLarge
		return
	}
	if b.scanning {
		malformed := b.completer.write(p)
		b.take(b.completer.edits())
		if b.size-b.completer.safe() > maxWithheld {
			b.take(b.completer.settle())
			sortEdits(b.out.edits)
		}
		b.judge(malformed)
	}
	switch {
	case err == nil || b.failure != nil:
	case errors.Is(err, io.EOF):
		b.end()
	case errors.Is(err, errGzip):
		b.failure = &jsonError{b.size, err.Error()}
	default:
		b.failure = fmt.Errorf("reading the request body: %w", err)
	}
}

func (b *requestBody) end() {
	b.ended = true
	if b.scanning {
		edits, malformed := b.completer.finish()
		b.take(edits)
		b.judge(malformed)
		sortEdits(b.out.edits)
	}
}

// take adds to the edits that are to be applied.
func (b *requestBody) take(edits []edit) {
	b.out.edits = append(b.out.edits, edits...)
	for _, e := range edits {
		b.growth += int64(len(e.insert) - e.remove)
	}
}

// judge ends the scan of a body that turned out not to be JSON: it is refused
// if it had to be completed, otherwise it is none of our business.
func (b *requestBody) judge(malformed error) {
	if malformed == nil {
		return
	}
	b.scanning = false
	if b.completer.needed() {
		b.failure = malformed
	}
}

// safe returns the offset up to which the body may be handed out.
func (b *requestBody) safe() int64 {
	if b.ended || !b.scanning {
		return b.size
	}
	return b.completer.safe()
}

// peek learns what the client wants from a body that stays compressed.
func (b *requestBody) peek() {
	z, err := gzip.NewReader(b.reader())
	if err != nil {
		return
	}
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	n, _ := io.ReadFull(z, buf[:])
	_ = b.completer.write(buf[:n])
}

// decoded tells that a Content-Encoding has been undone and no longer
// describes the body.
func (b *requestBody) decoded() bool { return b.isDecoded }

// length returns what the Content-Length of the completed body is, -1 if that
// cannot be known before it has been sent.
func (b *requestBody) length() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.whole:
		return b.size + b.growth
	case b.declared >= 0 && (!b.scanning || b.completer.settled()):
		return b.declared + b.growth
	}
	return -1
}

// wants returns what the client asked for, as far as the body has been read.
func (b *requestBody) wants() wants {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.completer.wants()
}

// err returns why the body cannot be read or forwarded: errTooLarge, a
// *jsonError, or what reading from the client failed with.
func (b *requestBody) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure
}

// reader returns the completed body. Any number of readers can be had of a
// body that is complete; of any other, each goes on where the last stopped.
func (b *requestBody) reader() io.ReadCloser {
	switch {
	case b.flat != nil && len(b.flat) == 0:
		return http.NoBody
	case b.flat != nil:
		return io.NopCloser(bytes.NewReader(b.flat))
	case b.whole:
		out := b.out
		return &bodyReader{body: b, out: &out}
	}
	return &bodyReader{body: b, out: &b.out}
}

// getBody returns what http.Request.GetBody is to be, nil if the body cannot
// be sent again.
func (b *requestBody) getBody() func() (io.ReadCloser, error) {
	if !b.whole {
		return nil
	}
	return func() (io.ReadCloser, error) { return b.reader(), nil }
}

// release returns the buffers at the end of the call. A transport may still be
// reading then (golang/go#46866); its reads fail from now on.
func (b *requestBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = true
	b.held.drop(b.size)
}

// fetch reads more of the body. If nothing stands before or in it, it goes
// straight through p; otherwise it is held and nothing is returned.
func (b *requestBody) fetch(p []byte) (int, error) {
	n, err := b.source.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return 0, errReleased
	}
	b.took(p[:n], err)
	if b.failure != nil {
		return 0, b.failure
	}
	if b.held.isEmpty() && b.out.isClear() && b.safe() == b.size {
		b.held.bypass(n)
		b.out.at = b.size
		return n, nil
	}
	b.held.append(p[:n])
	return 0, nil
}

// serve returns what may be handed out of what has been read.
func (b *requestBody) serve(r *bodyReader, p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.released || r.closed:
		return 0, errReleased
	case b.failure != nil:
		return 0, b.failure
	}
	n := r.out.read(p, &b.held, b.safe())
	if !b.whole {
		b.held.drop(b.out.at)
	}
	if n == 0 && b.ended {
		return 0, io.EOF
	}
	return n, nil
}

// bodyReader is a requestBody as a transport reads it.
type bodyReader struct {
	body   *requestBody
	out    *cursor
	closed bool // guarded by body.mu
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := r.body.serve(r, p)
		if n == 0 && err == nil {
			n, err = r.body.fetch(p)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// WriteTo makes chunked uploads of HTTP/1.1 faster: net/http flushes after
// every chunk.
func (r *bodyReader) WriteTo(w io.Writer) (int64, error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
}

// Close makes further reads fail. The client's body is left to its server.
func (r *bodyReader) Close() error {
	r.body.mu.Lock()
	defer r.body.mu.Unlock()
	r.closed = true
	return nil
}

// rawBody is a body as the client sent it. It ends at its Content-Length
// without another read behind it: see golang/go#40747.
type rawBody struct {
	reader io.Reader
	left   int64 // until the Content-Length, -1 if there is none
	broken bool  // the reader failed
}

func (r *rawBody) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.left > 0 {
		p = p[:min(int64(len(p)), r.left)]
	}
	n, err := r.reader.Read(p)
	if r.left > 0 {
		r.left -= int64(n)
		switch {
		case r.left == 0:
			err = io.EOF
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
	}
	r.broken = r.broken || err != nil && err != io.EOF
	return n, err
}

// gunzip reads a body that was sent with Content-Encoding: gzip.
type gunzip struct {
	raw *rawBody
	z   *gzip.Reader
}

func (g *gunzip) Read(p []byte) (n int, err error) {
	if g.z == nil {
		g.z = gunzips.Get().(*gzip.Reader)
		err = g.z.Reset(g.raw)
	}
	if err == nil {
		n, err = g.z.Read(p)
	}
	if err == nil {
		return n, nil
	}
	_ = g.z.Reset(strings.NewReader("")) // lets go of the client's body
	gunzips.Put(g.z)
	g.z = nil
	if !errors.Is(err, io.EOF) && !g.raw.broken {
		err = errGzip
	}
	return n, err
}

var gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
