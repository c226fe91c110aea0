// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bufio"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// flushWriter is a stage on the way of the bytes to the client.
type flushWriter interface {
	io.Writer
	Flush() error
}

// output is the whole way: a buffer to print into, then possibly a stage that
// a scenario put in, then the sink.
type output struct {
	*bufio.Writer
	sink *sink
}

// flush sends what has been printed so far.
func (o output) flush() error {
	if err := o.Writer.Flush(); err != nil {
		return err
	}
	return o.sink.Flush()
}

// close ends the answer.
func (o output) close() error {
	if err := o.Writer.Flush(); err != nil {
		return err
	}
	return o.sink.close()
}

// gzipWriters are reused as each is several hundred kilobytes. Image data is
// noise in base64, where matching strings finds nothing and Huffman coding
// alone gets to the same size several times faster.
var gzipWriters = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(io.Discard, gzip.HuffmanOnly) // the level is a valid one
	return w
}}

// sink hands bytes to the ResponseWriter, compressed if the client allows it.
type sink struct {
	w  http.ResponseWriter
	gz *gzip.Writer // nil = identity
}

// newSink writes the header of the answer.
func newSink(w http.ResponseWriter, r *http.Request, status int, contentType string) *sink {
	s := &sink{w: w}
	w.Header().Set("Content-Type", contentType)
	if acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Add("Vary", "Accept-Encoding")
		s.gz = gzipWriters.Get().(*gzip.Writer)
		s.gz.Reset(w)
	}
	w.WriteHeader(status)
	return s
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gz != nil {
		return s.gz.Write(p)
	}
	return s.w.Write(p)
}

func (s *sink) Flush() error {
	if s.gz != nil {
		if err := s.gz.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(s.w).Flush()
}

func (s *sink) close() error {
	if s.gz == nil {
		return nil
	}
	err := s.gz.Close()
	gzipWriters.Put(s.gz)
	s.gz = nil
	return err
}

func acceptsGzip(r *http.Request) bool {
	for coding := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, params, _ := strings.Cut(strings.ToLower(coding), ";")
		if strings.TrimSpace(name) == "gzip" {
			return !strings.HasSuffix(strings.TrimRight(strings.TrimSpace(params), ".0"), "q=")
		}
	}
	return false
}

// cutter drops the connection once left bytes have been sent.
type cutter struct {
	flushWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.flushWriter.Write(p)
	}
	_, _ = c.flushWriter.Write(p[:c.left])
	_ = c.Flush()
	// The only way to make net/http abort an answer that has begun.
	panic(http.ErrAbortHandler)
}

// maxPiece is the largest piece in which trickler sends.
const maxPiece = 32 << 10

// trickler sends pieces of 1, 2, 4, 8… bytes with a pause after each: they end
// at the most awkward places of the beginning, and a large answer still
// arrives in a reasonable time.
type trickler struct {
	flushWriter
	ctx   context.Context
	pause time.Duration
	piece int
}

func (t *trickler) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n := min(t.piece, len(p))
		if _, err = t.flushWriter.Write(p[:n]); err != nil {
			return written, err
		}
		if err = t.Flush(); err != nil {
			return written, err
		}
		if err = sleep(t.ctx, t.pause); err != nil {
			return written, err
		}
		p, written, t.piece = p[n:], written+n, min(2*t.piece, maxPiece)
	}
	return written, nil
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tally is a ResponseWriter that only counts, to learn how long an answer is.
type tally struct {
	header http.Header
	bytes  int
}

func (t *tally) Header() http.Header { return t.header }
func (t *tally) WriteHeader(int)     {}

// Flush makes tally an http.Flusher.
func (t *tally) Flush() {}

func (t *tally) Write(p []byte) (int, error) {
	t.bytes += len(p)
	return len(p), nil
}
