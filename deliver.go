// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// copyBuffer is filled before it is written: an image comes without a
	// length, so a proxy that passes on every read flushes thousands of times.
	copyBuffer = 128 << 10
	// maxStall is how long bytes may wait for a buffer to fill.
	maxStall = 250 * time.Millisecond
)

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// errClientGone is returned when the client no longer takes what is written.
var errClientGone = errors.New("client went away")

// deliver writes an answer to the client. Events are passed on as they come,
// everything else in filled buffers. An error of the upstream's is returned as
// it is, one of the client's as errClientGone.
func deliver(w http.ResponseWriter, res *http.Response, stream bool) error {
	header := w.Header()
	if len(res.Header["Server"]) > 0 {
		delete(header, "Server") // the upstream's instead of Caddy's, as reverse_proxy has it
	}
	for name, values := range res.Header {
		header[name] = append(header[name], values...)
	}
	w.WriteHeader(res.StatusCode)

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
				if ferr := out.Flush(); ferr != nil {
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
