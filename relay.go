// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"errors"
	"io"
)

// relay gives out an answer in another form than it comes in, while it comes.
// What is in strings passes as it is, with its escapes: a JSON string on one side
// is one on the other. Of an image, nothing is held.
type relay struct {
	source io.ReadCloser
	json   jsonScanner
	events *eventReader // nil unless the source is an event stream
	to     translator

	out    bytes.Buffer // what has been translated and not been read
	isOpen bool         // one of the source has begun and not ended
	isDone bool         // the source has said that it has, though it may go on
	head   []byte       // of the document that is being read
	err    error        // why nothing follows
	kept   int          // of out, when that happened
}

// translator hears of an answer in one form and writes it in another.
type translator interface {
	pieceVisitor
	// end has the last word, when the source has ended well. What it fails with
	// comes behind what it has written.
	end() error
	// breakOff writes what must not be lost where the source has not ended well.
	breakOff()
}

// errAnswerFailed ends an answer that has failed where its form has no room for an
// error. Caddy aborts the connection then, which all clients notice (wire §8).
var errAnswerFailed = errors.New("the answer has failed")

// init gives the relay what it needs; it must not be copied afterwards.
func (r *relay) init(source io.ReadCloser, schema *field, events bool, to translator) {
	r.source, r.to = source, to
	r.json.init(to, schema)
	r.json.strict = true // a line feed in a string would end the line of an event
	if events {
		r.events = new(eventReader)
	}
}

// Read translates what the source gives out, in the reader's own memory.
func (r *relay) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.out.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.source.Read(p)
		r.scan(p[:n])
		if r.isDone {
			if err == nil {
				drain(r.source)
			}
			err = io.EOF
		}
		if err != nil && r.err == nil {
			r.finish(err)
		}
		if r.err != nil {
			r.out.Truncate(r.kept)
		}
	}
	return r.out.Read(p)
}

// Close closes the source. It may be called while Read waits for it, if that is true of
// the source: of an upstream's answer it is, of one that is judged (answer) it is not.
func (r *relay) Close() error { return r.source.Close() }

func (r *relay) scan(p []byte) {
	if r.events == nil {
		_, _ = r.scanJSON(p)
		return
	}
	for len(p) > 0 {
		n, _ := r.events.write(p, r)
		p = p[n:]
	}
}

// scanJSON knows of no objects that matter: translators ask for no pauses. What
// is not JSON leaves an object unfinished, or is none, such as OpenAI's [DONE].
func (r *relay) scanJSON(p []byte) (n int, object bool) {
	if r.events != nil {
		r.findDone(p)
	}
	if !r.isDone {
		_, _ = r.json.write(p)
	}
	return len(p), false
}

// doneEvent ends a stream of OpenAI's. Not every server closes the connection then.
const doneEvent = "[DONE]"

// findDone looks at the beginning of a document, of which p is the next piece.
func (r *relay) findDone(p []byte) {
	if r.json.untouched() {
		r.head, p = r.head[:0], bytes.TrimLeft(p, " \t\r\n")
	}
	r.head = append(r.head, p[:min(len(p), len(doneEvent)-len(r.head))]...)
	if string(r.head) == doneEvent {
		r.isDone = true
		r.json.reset() // it is no document that lacks its end
	}
}

func (r *relay) document() *jsonScanner { return &r.json }

// finish is told why the source has ended.
func (r *relay) finish(err error) {
	switch {
	case !errors.Is(err, io.EOF):
		r.to.breakOff()
	case r.isCutOff():
		r.to.breakOff()
		err = io.ErrUnexpectedEOF
	default:
		if failure := r.to.end(); failure != nil {
			err = failure
		}
	}
	r.fail(err)
}

// fail ends the answer here: what is translated later does not go out.
func (r *relay) fail(err error) {
	if r.err == nil {
		r.err, r.kept = err, r.out.Len()
	}
}

// isCutOff tells whether the source has ended too early. What has never been JSON
// has not: such an answer is empty.
func (r *relay) isCutOff() bool {
	return r.isOpen || !r.json.untouched() && r.json.state != isBroken && r.json.finish() != nil
}

// beginObject is called for the brace that opens an answer, or a chunk of one. If
// the one before it has no end, the image in it may have none either.
func (r *relay) beginObject() {
	if r.isOpen {
		r.fail(io.ErrUnexpectedEOF)
	}
	r.isOpen = true
}

func (r *relay) endObject() { r.isOpen = false }
