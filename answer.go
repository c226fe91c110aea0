// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// answer is an upstream's answer on its way to the client. hold reads it until
// the verdict is certain; Read then gives out what was held and goes on from
// there, still listening for a block that comes late.
type answer struct {
	source  io.ReadCloser
	scan    *answerScanner
	expect  expectation
	form    streamForm
	explain func(verdict) []byte // the error for a block that comes late; nil = keep quiet
	late    func(verdict)        // is told of it

	object      int64   // where the object begins that is being scanned
	held        rope    // from the beginning on; most verdicts need one chunk of it
	scanned     int64   // how much of that has been scanned
	given       int64   // how much of that has been given out
	heard       verdict // of a block that has been told already, if only here
	atObjectEnd bool    // what has been scanned so far ends with an object
	ended       bool    // the source has ended
	failure     error   // and why, if it broke

	closing []byte   // the end of an array, kept back until nothing can follow
	tail    [][]byte // what is written behind the answer, each in a Read of its own
	apart   bool     // a piece of it has just been given out
	tailed  bool
}

// hold reads until the verdict is certain or more than limit bytes wait for it,
// in which case the answer is delivered.
func (a *answer) hold(limit int64) verdict {
	for {
		if v, certain := a.scanHeld(); certain {
			return v
		}
		if a.ended {
			a.scan.finish()
			if a.failure != nil {
				a.scan.cutOff = true
			}
			v, _ := a.scan.judge(&a.expect, answerEnd)
			return v
		}
		if a.held.end >= limit {
			return verdict{}
		}
		room := a.held.room()
		n, err := a.source.Read(room[:min(int64(len(room)), limit-a.held.end)])
		a.held.grow(n)
		a.end(err)
	}
}

func (a *answer) end(err error) {
	if err == nil {
		return
	}
	a.ended = true
	if !errors.Is(err, io.EOF) {
		a.failure = err
	}
}

// scanHeld scans what is new among the held bytes, object by object, so that
// the verdict does not depend on how the network cut the answer.
func (a *answer) scanHeld() (verdict, bool) {
	for a.scanned < a.held.end {
		n, object := a.scan.write(a.held.from(a.scanned))
		a.scanned += int64(n)
		at := midObject
		if object {
			at = objectEnd
		}
		a.atObjectEnd = object
		if v, certain := a.scan.judge(&a.expect, at); certain {
			return v, true
		}
		if object {
			a.object = a.scanned
		}
	}
	return verdict{}, false
}

// hearOut looks at what stands behind a soft block: a hard one would be final. Of a
// stream that nobody gets it reads on for a moment.
func (a *answer) hearOut(isUnwanted bool) {
	a.scanOn()
	if a.form == formUnary || !isUnwanted {
		return
	}
	hurry := time.AfterFunc(hearTime, func() { _ = a.source.Close() })
	defer hurry.Stop()
	for limit := a.held.end + maxDrain; !a.ended && a.held.end < limit; a.scanOn() {
		n, err := a.source.Read(a.held.room())
		a.held.grow(n)
		a.end(err)
	}
}

// hearTime is for how long a stream is heard out. As a rule it has ended by then.
const hearTime = 250 * time.Millisecond

// scanOn scans what is held, whatever the verdict was.
func (a *answer) scanOn() {
	for a.scanned < a.held.end {
		n, object := a.scan.write(a.held.from(a.scanned))
		a.scanned += int64(n)
		a.atObjectEnd = object
	}
}

// failed is the error object that ended the wait for a verdict. A failing stream
// has it bare or in an event, perhaps behind what the model thought (wire §7).
func (a *answer) failed() []byte {
	var object []byte
	for at := a.object; at < a.scanned; {
		piece := a.held.from(at)
		piece = piece[:min(int64(len(piece)), a.scanned-at)]
		object = append(object, piece...)
		at += int64(len(piece))
	}
	return object[max(0, bytes.IndexByte(object, '{')):]
}

// complete tells whether the whole answer is held, and is whole.
func (a *answer) complete() bool {
	if !a.ended || a.failure != nil || a.scanned < a.held.end {
		return false
	}
	a.scan.finish()
	return !a.scan.cutOff
}

// Read gives out the answer. Late errors come in Reads of their own, because
// some clients only notice them in writes of their own (wire §8).
func (a *answer) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case len(a.tail) > 0:
			if a.apart {
				time.Sleep(tailPause)
			}
			n := copy(p, a.tail[0])
			if a.tail[0], a.apart = a.tail[0][n:], false; len(a.tail[0]) == 0 {
				a.tail, a.apart = a.tail[1:], true
			}
			return n, nil
		case a.tailed:
			return 0, io.EOF
		case a.given < a.scanned: // scanned before the verdict
			held := a.held.from(a.given)
			n := copy(p, held[:min(int64(len(held)), a.scanned-a.given)])
			a.give(n)
			return n, nil
		case a.atObjectEnd && a.endAtBlock(): // what ends here had been scanned before the verdict
		case a.given < a.held.end:
			n := copy(p, a.held.from(a.given))
			a.give(n)
			a.scanned = a.given
			if n = a.inspect(p[:n]); n > 0 {
				return n, nil
			}
		case a.failure != nil:
			a.scan.finish()
			a.hearBlock()
			return 0, a.failure
		case a.ended:
			if a.scan.finish(); a.scan.cutOff { // HTTP has ended well, but nobody can use that as a whole
				a.failure = io.ErrUnexpectedEOF
				continue
			}
			a.finish()
		default:
			n, err := a.source.Read(p)
			a.end(err)
			if n = a.inspect(p[:n]); n > 0 {
				return n, nil
			}
		}
	}
}

// tailPause keeps the pieces behind an answer apart on the wire: JavaScript's
// client 2.10 understands neither of two that it receives as one (wire §8).
const tailPause = 50 * time.Millisecond

// give moves on in what is held and returns the chunks that are through.
func (a *answer) give(n int) {
	a.given += int64(n)
	a.held.drop(a.given)
}

// inspect scans what is about to be given out and returns how much of it may
// be: all, unless a late block ends the stream or the end of an array is kept
// back.
func (a *answer) inspect(p []byte) int {
	if len(a.closing) > 0 {
		a.closing = append(a.closing, p...)
		if len(a.closing) > maxClosing { // not white space, then: nothing can be added behind it
			a.tail, a.closing, a.form = [][]byte{a.closing}, nil, formUnary
		}
		return 0
	}
	for at := 0; at < len(p); {
		closed := a.scan.arrayClosed
		n, object := a.scan.write(p[at:])
		at += n
		if a.form == formUnary || a.explain == nil {
			if object && a.form != formUnary && !a.scan.unfinished() {
				a.hearBlock()
			}
			continue
		}
		if a.form == formArray && a.scan.arrayClosed && !closed {
			a.closing = append(a.closing, p[at-1:]...)
			return at - 1
		}
		if object && a.endAtBlock() {
			return at
		}
	}
	return len(p)
}

// hearBlock tells of a block that cannot be told to the client: guard must know of it,
// however the answer ends.
func (a *answer) hearBlock() {
	if v, blocked := a.scan.block(); blocked && v != a.heard {
		a.heard = v
		a.late(v)
	}
}

// endAtBlock ends a stream behind the object that holds a block, unless another
// candidate is still being written.
func (a *answer) endAtBlock() bool {
	a.atObjectEnd = false
	if a.form == formUnary || a.explain == nil || a.scan.unfinished() {
		return false
	}
	v, blocked := a.scan.block()
	if blocked {
		a.late(v)
		a.tail, a.tailed = a.form.lateError(a.explain(v), true, "]"), true
	}
	return blocked
}

// finish has the last word when the answer has ended by itself, and the scan with it.
func (a *answer) finish() {
	a.tailed = true
	midEvent := a.scan.events != nil && !a.scan.events.betweenEvents()
	if len(a.closing) > 0 {
		a.tail = [][]byte{a.closing}
	}
	v := a.scan.judgeLate(&a.expect)
	if v.class == classOK || v == a.heard {
		return
	}
	a.late(v)
	if !v.class.isBlock() || v.status > 0 {
		a.repeatFault() // it has been told by the upstream itself
		return
	}
	hasRoom := a.form != formUnary && (a.form != formArray || len(a.closing) > 0)
	if hasRoom && a.explain != nil {
		a.tail = a.form.lateError(a.explain(v), midEvent, string(a.closing))
	}
}

// faultTeller is a source that has put an error into its stream, as an event.
type faultTeller interface {
	// lateFault is the error as an object of its own, nil if there was none.
	lateFault() []byte
}

// repeatFault tells of an upstream's error in the other form, too, see lateError.
func (a *answer) repeatFault() {
	source, ok := a.source.(faultTeller)
	if !ok || a.form != formEvents {
		return
	}
	if fault := source.lateFault(); fault != nil {
		a.tail, a.apart = [][]byte{append(fault, "\r\n"...)}, true
	}
}

// streamForm is how a streamed answer is framed, which decides how an error is
// told after content has been sent (wire §8).
type streamForm uint8

const (
	formUnary streamForm = iota
	formEvents
	formArray
	formOpenAI
	formInteractions
	formRelayed // by a relay, which tells of errors itself
)

// lateError frames an error for the middle of a stream: a "data:" event and
// then the bare object in a write of its own, because older Go and JS clients
// notice only the one and newer ones only the other; the last element of an
// array; for the clients of OpenAI and of Interactions an event, and no [DONE] behind it. No "event:"
// lines and no comments: several clients fail on them.
func (form streamForm) lateError(body []byte, midEvent bool, closing string) [][]byte {
	event := "data: " + string(body) + "\r\n\r\n"
	if midEvent {
		event = "\r\n\r\n" + event
	}
	switch form {
	case formArray:
		return [][]byte{[]byte(",\r\n" + string(body) + closing)}
	case formOpenAI, formInteractions:
		return [][]byte{[]byte(event)}
	case formRelayed:
		return nil
	}
	return [][]byte{[]byte(event), append(body, "\r\n"...)}
}

// Close gives everything back. It must not be called during a Read; the source may be closed then.
func (a *answer) Close() error {
	if !a.ended {
		drain(a.source)
	}
	a.given, a.scanned = a.held.end, a.held.end
	a.held.drop(a.held.end)
	a.scan.json.release()
	return a.source.Close()
}

// maxClosing bounds what is kept of the white space behind an array.
const maxClosing = 4 << 10
