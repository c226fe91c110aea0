// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	// copyBuffer is filled before it is written: an image comes without a
	// length, so a proxy that passes on every read flushes thousands of times.
	// Up to 256 KiB, more was no faster, and 64 answers at once each need one.
	copyBuffer = 96 << 10
	// maxStall is after how long a buffer is written that a slow upstream has not
	// filled; it is looked at when bytes arrive.
	maxStall = 250 * time.Millisecond
)

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// errClientGone is returned when the client no longer takes what is written.
var errClientGone = errors.New("client went away")

// writeHead writes the status and the headers of an answer to the client.
func writeHead(w http.ResponseWriter, res *http.Response) {
	header := w.Header()
	if len(res.Header["Server"]) > 0 {
		delete(header, "Server") // the upstream's instead of Caddy's, as reverse_proxy has it
	}
	for name, values := range res.Header {
		if before := header[name]; len(before) > 0 {
			values = append(before, values...)
		}
		header[name] = values
	}
	w.WriteHeader(res.StatusCode)
}

// deliver writes the body of an answer to the client. Events are passed on as they come,
// everything else in filled buffers. An error of the upstream's is returned as
// it is, one of the client's as errClientGone.
func deliver(ctx context.Context, w http.ResponseWriter, res *http.Response, stream bool) error {
	defer inLargePieces(ctx)()
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	out := http.NewResponseController(w)
	whole := res.ContentLength >= 0 && res.ContentLength <= copyBuffer
	for first := true; ; first = false {
		n, err := fill(res.Body, buf[:], stream || first && !whole)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return errClientGone
			}
			if err == nil && (stream || n < len(buf)) {
				if ferr := out.Flush(); ferr != nil && !errors.Is(ferr, http.ErrNotSupported) {
					return errClientGone
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// inLargePieces has Caddy's server write a buffer as one. By default it writes 64 KiB
// at a time, so that a client that is slow but takes something is not cut off for
// being idle; each piece costs two writes to the connection. An operator's own limit
// (write_max_chunk) stays. It returns what puts that back.
func inLargePieces(ctx context.Context) func() {
	_, idle := caddyhttp.IdleTimeoutsFromContext(ctx)
	if idle == nil || idle.MaxChunk != caddyhttp.DefaultMaxWriteChunk {
		return func() {}
	}
	idle.MaxChunk = copyBuffer
	return func() { idle.MaxChunk = caddyhttp.DefaultMaxWriteChunk }
}

// fill reads until the buffer is full, or once. A slow upstream does not make
// the client wait for a full buffer.
func fill(r io.Reader, buf []byte, once bool) (n int, err error) {
	started := time.Now()
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
		if n > 0 && (once || time.Since(started) > maxStall) {
			break
		}
	}
	return n, err
}

// lingerTime is how long a client is heard out whose request was refused before
// its end; net/http has the same delay.
const lingerTime = 500 * time.Millisecond

// linger reads on after the refusal of a request that has not been read to its
// end. Nobody else begins to read then: a body that has failed is not read by a
// transport. One that is still at it, for an earlier attempt, is waited for.
// A connection that is closed over unread bytes is reset, and the answer may be
// lost with it (RFC 9112 §9.6). net/http sees to that by itself, but does not
// know its own body in the wrappers that Caddy puts around it.
func linger(w http.ResponseWriter, r *http.Request, reading sync.Locker) {
	if r.ProtoMajor > 1 {
		return // a stream ends without its connection
	}
	out := http.NewResponseController(w)
	if out.Flush() != nil || out.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	reading.Lock()
	defer reading.Unlock()
	for started := time.Now(); time.Since(started) < lingerTime; {
		if _, err := r.Body.Read(buf[:]); err != nil {
			return
		}
	}
}
