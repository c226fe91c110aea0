// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
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
	_        = uint(aheadSize - flatBody) // see isFlat
)

var (
	errTooLarge = errors.New("request body too large")
	errReleased = errors.New("request body used after the end of its call")
	errLate     = errors.New("request body did not arrive within the deadline of its call")
)

// requestBody reads a client's body once, completes it on the way and hands
// it to the transport. What needs no edit streams through; from the first byte
// that may need one, the rest waits until that is decided. What is kept can be
// sent any number of times, also before all of it has been read.
type requestBody struct {
	source    io.Reader // of the body as it is forwarded, but for the edits
	declared  int64     // how long source is, -1 if unknown
	limit     int64
	isZipped  bool // source is gzip, passed on as it is
	isDecoded bool // source was gzip
	peeked    bool

	reading sync.Mutex // held while source is read and spill is written; taken before mu
	spill   spill

	mu        sync.Mutex // guards all below; never held while anything is read or written
	completer *completer
	scanning  bool   // the completer is given what is read
	slots     []slot // where renderings differ, as they are found
	keep      bool   // held from the beginning to the end of the call
	inMemory  int64  // how much of it in memory
	held      rope   // what has been read and may have to be handed out
	pins      int    // how many are using held's memory, or spill, without mu
	awaited   int    // how many are waiting for the client
	size      int64  // how much has been read
	ended     bool
	failure   error
	released  bool
}

// newRequestBody takes over the body of r: gzip is undone if something has to
// be completed or the prompt must be known, any other Content-Encoding is
// forwarded unread. The limit, in
// bytes, is on the decoded body. A body that is not to be kept can be sent once,
// unless it ends before anything of it has been sent.
func newRequestBody(r *http.Request, c completion, limit int64, keep bool) *requestBody {
	raw := &rawBody{reader: r.Body, left: r.ContentLength}
	if r.Body == nil {
		raw.left = 0
	}
	b := &requestBody{source: raw, declared: raw.left, limit: limit, completer: newCompleter(c), keep: keep, inMemory: defaultInMemory}
	b.held.isShort = raw.left >= 0 && raw.left <= tinyChunk
	encoding := strings.ToLower(strings.Join(r.Header.Values("Content-Encoding"), ","))
	switch {
	case encoding == "" || encoding == "identity":
		b.scanning = true
	case isGzip(encoding) && c.isEmpty() && !keep:
		b.isZipped = true
	case isGzip(encoding):
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
	if err := b.readUpTo(aheadSize); err != nil {
		return err
	}
	b.peek()
	return nil
}

// readAll reads the body to its end.
func (b *requestBody) readAll() error { return b.readUpTo(math.MaxInt64) }

// save keeps what is still to be read in a file, because the call is going to
// wait: many may.
func (b *requestBody) save() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inMemory = aheadSize
}

func (b *requestBody) readUpTo(size int64) error {
	for {
		known, done, err := b.progress()
		if done || err != nil || known >= size {
			return err
		}
		b.fetch(known)
	}
}

func (b *requestBody) progress() (size int64, ended bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return b.size, b.ended, errReleased
	}
	return b.size, b.ended, b.failure
}

// fetch reads more of the body than the bytes that the caller knows of. It
// reads into memory of the body's own: whoever caused it may be gone by then,
// and somebody else wait for what it brings.
func (b *requestBody) fetch(known int64) {
	b.reading.Lock()
	defer b.reading.Unlock()
	surplus, ok := b.prepare(known)
	if !ok {
		return
	}
	p, err := b.read(surplus)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.awaited--
	b.held.grow(len(p))
	if !b.released {
		b.took(p, err)
	}
	b.unpin(b.held.start)
}

// read reads from the client, once surplus is in the file.
func (b *requestBody) read(surplus chunk) ([]byte, error) {
	if surplus.mem != nil {
		if err := b.spill.write(surplus.mem, surplus.at); err != nil {
			return nil, err
		}
	}
	p := b.room(surplus.mem != nil)
	n, err := b.source.Read(p)
	return p[:n], err
}

// prepare pins the memory and returns the chunk that has to make room, if any.
// It is not ok if more has been read already, or nothing more can be.
func (b *requestBody) prepare(known int64) (surplus chunk, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size != known || b.ended || b.failure != nil || b.released {
		return chunk{}, false
	}
	b.pins++
	b.awaited++
	if b.held.memory >= b.inMemory {
		surplus, _ = b.held.full()
	}
	return surplus, true
}

// room returns where to read to.
func (b *requestBody) room(spilled bool) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if spilled {
		b.held.evict(b.pins == 1)
	}
	return b.held.room()
}

// took accounts for what was read, and for the error that came with it. The
// caller holds mu.
func (b *requestBody) took(p []byte, err error) {
	b.size += int64(len(p))
	if b.size > b.limit {
		b.failure = errTooLarge
	}
	if b.failure != nil {
		return
	}
	if b.scanning {
		malformed := b.completer.write(p)
		if b.size-b.completer.safe() > maxWithheld {
			b.completer.settle()
		}
		b.judge(malformed)
	}
	switch {
	case err == nil || b.failure != nil:
	case errors.Is(err, io.EOF):
		b.end()
	case errors.Is(err, errGzip):
		b.failure = &jsonError{b.size, err.Error()}
	case errors.Is(err, errNoRoom):
		b.failure = err
	default:
		b.failure = fmt.Errorf("reading the request body: %w", err)
	}
}

func (b *requestBody) end() {
	b.ended = true
	b.keep = b.keep || b.held.start == 0
	if b.scanning {
		b.judge(b.completer.finish())
		b.completer.release()
	}
}

// judge takes up what the completer has decided. It ends the scan of a body that
// turned out not to be JSON: that is refused if it had to be completed, otherwise
// it is none of our business.
func (b *requestBody) judge(malformed error) {
	if ready := b.completer.slots(); len(b.slots) == 0 {
		b.slots = ready
	} else {
		b.slots = append(b.slots, ready...)
	}
	if malformed == nil {
		return
	}
	b.scanning = false
	b.completer.release()
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
	if !b.isZipped || b.peeked || !b.complete() {
		return
	}
	b.peeked = true
	z, err := gzip.NewReader(b.content())
	if err != nil {
		return
	}
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	n, _ := io.ReadFull(z, buf[:])
	_ = b.completer.write(buf[:n])
}

// expire ends the wait for the rest of a body whose call has no time left. Interrupt
// wakes who is reading, if there is a way; nothing is read after the call any more.
func (b *requestBody) expire(interrupt func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.failure != nil || b.released {
		return
	}
	b.failure = errLate
	interrupt()
}

// hush waits for who is reading, after an interruption. Caddy counts what is read, and
// looks at the count as soon as the handler has returned.
func (b *requestBody) hush(interrupt func()) {
	if !b.complete() {
		interrupt()
		b.reading.Lock()
		b.reading.Unlock() //nolint:staticcheck // nothing is read any more
	}
}

// isAwaited tells that it is the client who keeps everybody waiting.
func (b *requestBody) isAwaited() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.awaited > 0 || errors.Is(b.failure, errLate)
}

// decoded tells that a Content-Encoding has been undone and no longer
// describes the body.
func (b *requestBody) decoded() bool { return b.isDecoded }

// replayable tells that the body can be sent more than once.
func (b *requestBody) replayable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keep
}

// complete tells that the body has been read to its end.
func (b *requestBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended && b.failure == nil
}

// isJSON tells that the body is complete, was not left compressed, and is JSON
// from its beginning to its end.
func (b *requestBody) isJSON() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended && b.failure == nil && b.scanning
}

// added returns what has been added to the body, as far as it has been read.
func (b *requestBody) added() (kinds additions) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.slots {
		kinds |= s.kind
	}
	return kinds
}

// length returns what the Content-Length of a rendering is, -1 if that cannot
// be known before it has been sent.
func (b *requestBody) length(rd rendering) int64 {
	if rd.layout != nil {
		return rd.layout.total
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended:
		return b.size + rd.growth(b.slots)
	case b.declared >= 0 && (!b.scanning || b.completer.settled()):
		return b.declared + rd.growth(b.slots)
	}
	return -1
}

// wants returns what the client asked for, as far as the body has been read.
func (b *requestBody) wants() wants {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.completer.wants()
}

// err returns why the body cannot be read or forwarded: errTooLarge, errNoRoom,
// errLate, a *jsonError, or what reading from the client failed with.
func (b *requestBody) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure
}

// release returns the buffers at the end of the call. A transport may still be
// reading then (golang/go#46866); its reads fail from now on.
func (b *requestBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.released = true
	b.tidy(0)
}

// unpin ends a use of the memory. What is before an offset has been sent. The
// caller holds mu.
func (b *requestBody) unpin(sent int64) {
	b.pins--
	b.tidy(sent)
}

// tidy returns what is not needed any more as soon as nobody uses it.
func (b *requestBody) tidy(sent int64) {
	switch {
	case b.pins > 0:
	case b.released:
		b.held.drop(b.held.end)
		b.spill.close()
	case !b.keep:
		b.held.drop(sent)
	}
}
