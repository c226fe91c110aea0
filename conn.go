// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// readBuffer takes the headers of an answer, in bytes, and a short answer with them:
	// what is longer is read past it.
	readBuffer = 4 << 10
	// writeBuffer is net/http's own size, in bytes; large pieces pass it by.
	writeBuffer = 4 << 10
	// sentSoon is how long the end of an answer waits for that of the request,
	// which comes first as a rule. net/http gives it the same time.
	sentSoon = 50 * time.Millisecond
)

var (
	readBuffers  = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}
	writeBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, writeBuffer) }}
)

// conn is a connection to an upstream. It has one call at a time, and while it has
// one, the buffers for it.
type conn struct {
	endpoint
	raw       net.Conn // without TLS
	wire      *wire    // what TLS reads from; nil: there is none
	stream    net.Conn
	pool      *connPool
	idleSince time.Time

	disarm   func() bool // keeps the call's context from killing the connection
	in       *bufio.Reader
	headroom int64                 // how much more of headers may be read; negative: no limit
	sending  chan error            // how sending a long body has ended; nil: it was short
	spoilt   atomic.Pointer[error] // why there will be no answer; points to nil once there is one
	isBroken bool                  // writing has failed; belongs to whoever sends, as do
	stuck    error                 // that it has, because the upstream took nothing for too long
	failure  error                 // of the body
}

// Read reads from the upstream.
func (c *conn) Read(p []byte) (int, error) {
	switch {
	case c.headroom == 0:
		return 0, errHeaderTooLarge
	case c.headroom > 0:
		p = p[:min(int64(len(p)), c.headroom)]
	}
	n, err := c.stream.Read(p)
	if c.headroom > 0 {
		c.headroom -= int64(n)
	}
	return n, err
}

// Write remembers that it was the connection that failed, not the body.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.stream.Write(p)
	if err != nil {
		c.isBroken = true
		if isTimeout(err) { // write_timeout
			c.stuck = err
		}
	}
	return n, err
}

// ReadFrom writes a body from where it is kept. net/http hands it over with a limit
// around it, and would copy it otherwise, in pieces of writeBuffer.
func (c *conn) ReadFrom(r io.Reader) (n int64, err error) {
	if kept, left := asKept(r); kept != nil {
		n, err = kept.WriteTo(&boundedWriter{c, *left})
		*left -= n
	} else {
		n, err = io.Copy(writerOnly{c}, r)
	}
	if !c.isBroken {
		c.failure = err
	}
	return n, err
}

// asKept finds a kept body behind its limit; nil if there is none.
func asKept(r io.Reader) (kept *bodyReader, left *int64) {
	if limited, ok := r.(*io.LimitedReader); ok {
		kept, _ = limited.R.(*bodyReader)
		left = &limited.N
	}
	return kept, left
}

// writerOnly hides ReadFrom.
type writerOnly struct{ io.Writer }

// boundedWriter lets nothing through behind the end that was declared: the upstream
// would take it for another request.
type boundedWriter struct {
	to   io.Writer
	left int64
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errTooLong
	}
	n, err := b.to.Write(p)
	b.left -= int64(n)
	return n, err
}

var errHeaderTooLarge = errors.New("response headers exceeded the limit of the transport")

var errTooLong = errors.New("request body is longer than declared")

// exchange sends a request and reads the headers of its answer. A body of some length
// is sent while the answer is waited for, because it may be refused before its end.
func (c *conn) exchange(r *http.Request, timeout time.Duration, maxHeader int64) (*http.Response, error) {
	c.in = readBuffers.Get().(*bufio.Reader)
	c.in.Reset(c)
	c.headroom, c.sending = maxHeader, nil
	w := headerWait{limit: timeout}
	if isFlat(r) {
		if err := c.send(r); err != nil {
			return nil, c.cause(err)
		}
		w.begin(c)
		return c.receive(r, &w)
	}
	c.sending = make(chan error, 1)
	c.spoilt.Store(nil)
	go func() {
		err := c.send(r)
		if cause := c.finality(err); cause != nil && c.spoilt.CompareAndSwap(nil, &cause) {
			c.kill()
		}
		w.begin(c)
		c.sending <- err
	}()
	res, err := c.receive(r, &w)
	if !c.spoilt.CompareAndSwap(nil, new(error)) { // from now on nothing can: the answer does not need the rest
		return nil, *c.spoilt.Load()
	}
	return res, err
}

// isFlat tells by its length that a body leaves in one piece with its headers; see
// requestBody.reader. It is in memory then: that much is read ahead of everything.
func isFlat(r *http.Request) bool {
	return r.Body == nil || r.Body == http.NoBody || r.ContentLength > 0 && r.ContentLength <= flatBody
}

func (c *conn) send(r *http.Request) error {
	out := writeBuffers.Get().(*bufio.Writer)
	out.Reset(c)
	defer func() {
		out.Reset(nil)
		writeBuffers.Put(out)
	}()
	if err := r.Write(out); err != nil {
		return err
	}
	return out.Flush()
}

// cause is why sending has failed: net/http hides what a body says of it.
func (c *conn) cause(err error) error { return cmp.Or(c.failure, err) }

// finality is why there will be no answer to a request whose sending has ended. An
// upstream that has hung up may have answered before.
func (c *conn) finality(err error) error {
	switch {
	case err == nil:
		return nil
	case c.isBroken:
		return c.stuck
	}
	return c.cause(err)
}

// receive reads the headers of the answer, past those that only say that one is to
// come.
func (c *conn) receive(r *http.Request, w *headerWait) (*http.Response, error) {
	defer w.end()
	for {
		res, err := http.ReadResponse(c.in, r)
		if err != nil {
			switch {
			case w.isOver():
				err = errHeaderTimeout
			case c.headroom == 0: // it may look like a malformed line
				err = errHeaderTooLarge
			}
			return nil, err
		}
		isInterim := res.StatusCode >= 100 && res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols
		if !isInterim {
			c.headroom = -1
			return res, nil
		}
	}
}

// wire is a connection under TLS that can be made to say that nothing has come. It
// knows whether a record is under way, which TLS keeps to itself.
type wire struct {
	net.Conn
	isMute bool
	header [5]byte // of the record: kind, version and length (RFC 8446 §5.1)
	got    int     // of the header
	left   int     // of what it heads
}

func (w *wire) Read(p []byte) (int, error) {
	if w.isMute {
		return 0, errNothing
	}
	n, err := w.Conn.Read(p)
	w.follow(p[:n])
	return n, err
}

func (w *wire) follow(p []byte) {
	for len(p) > 0 {
		if w.left > 0 {
			n := min(w.left, len(p))
			w.left, p = w.left-n, p[n:]
			continue
		}
		n := copy(w.header[w.got:], p)
		w.got, p = w.got+n, p[n:]
		if w.got == len(w.header) {
			w.got, w.left = 0, int(binary.BigEndian.Uint16(w.header[3:]))
		}
	}
}

func (w *wire) isInRecord() bool { return w.got > 0 || w.left > 0 }

// errNothing is temporary: TLS goes on after it.
var errNothing = &timeoutError{"nothing has come"}

// isStale tells that a kept connection has been closed by the other side, or that
// something has come that nobody has asked for: it would be taken for the answer to
// the next call.
func (c *conn) isStale() bool {
	if isUnquiet(c.raw) {
		return true
	}
	if c.wire == nil {
		return false
	}
	if c.wire.isInRecord() {
		return true
	}
	c.wire.isMute = true
	_, err := c.stream.Read(make([]byte, 1))
	c.wire.isMute = false
	return !errors.Is(err, errNothing)
}

// leave ends a call. The connection is kept for another one if nothing of this one is
// left on it.
func (c *conn) leave(mayKeep bool) {
	if mayKeep && c.in.Buffered() == 0 && c.hasSent() && c.disarm() {
		c.releaseBuffer()
		c.pool.put(c)
		return
	}
	c.abandon()
}

// hasSent tells whether all of the request is out.
func (c *conn) hasSent() bool {
	if c.sending == nil {
		return true
	}
	late := time.NewTimer(sentSoon)
	defer late.Stop()
	select {
	case err := <-c.sending:
		return err == nil
	case <-late.C:
		return false
	}
}

// abandon ends a call and the connection with it.
func (c *conn) abandon() {
	c.disarm()
	c.kill()
	c.releaseBuffer()
}

// kill ends whatever waits for the connection.
func (c *conn) kill() { _ = c.raw.Close() }

func (c *conn) releaseBuffer() {
	c.in.Reset(nil)
	readBuffers.Put(c.in)
	c.in = nil
}
