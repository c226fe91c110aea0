// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bufio"
	"net/http"
	"time"
)

// exchange is one request and its answer on the way.
type exchange struct {
	sim  *Handler
	w    http.ResponseWriter
	r    *http.Request
	call *call
	wait time.Duration                 // what the scenario was told after its "="
	via  func(flushWriter) flushWriter // a stage in the way of the answer; nil = none
}

// answer writes a in the dialect of the call.
func (x *exchange) answer(a answer) error { return x.call.surface.render(x, a) }

// fail writes an error in the dialect of the call. A refused alt=sse call is
// one plain object under the content type of an event stream, as recorded.
func (x *exchange) fail(e *apiError) error {
	contentType := x.call.api.jsonType
	if x.call.framing == sse {
		contentType = eventStream
	}
	return x.print(e.code, contentType, x.call.surface.failure(x.call, e))
}

// json writes a value as a successful unary answer.
func (x *exchange) json(value any) error { return x.print(http.StatusOK, x.call.api.jsonType, value) }

func (x *exchange) print(status int, contentType string, value any) error {
	out := x.open(status, contentType)
	printer{w: out.Writer, pretty: true}.print(value)
	_ = out.WriteByte('\n')
	return out.close()
}

// raw writes what is no answer of the API.
func (x *exchange) raw(status int, contentType, body string) error {
	out := x.open(status, contentType)
	_, _ = out.WriteString(body)
	return out.close()
}

// open writes the header of the answer and returns the way of its body.
func (x *exchange) open(status int, contentType string) output {
	x.call.api.dress(x.w.Header())
	s := newSink(x.w, x.r, status, contentType)
	var stage flushWriter = s
	if x.via != nil {
		stage = x.via(s)
	}
	return output{Writer: bufio.NewWriterSize(stage, 32<<10), sink: s}
}

// pause waits for d, but no longer than the client does.
func (x *exchange) pause(d time.Duration) error { return sleep(x.r.Context(), d) }

// length tells how long an answer is before it is sent.
func (x *exchange) length(a answer) (int, error) {
	count := &tally{header: make(http.Header)}
	trial := *x
	trial.w, trial.r, trial.via = count, x.r.WithContext(x.r.Context()), nil
	trial.r.Header = nil // not compressed: the cut is made in the plain bytes
	err := trial.answer(a)
	return count.bytes, err
}
