// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// refused reads an answer that is an error already. Should nothing better come,
// it goes to the client as it is, with the Retry-After that Google leaves out.
func (t *trip) refused(a *attempt, l *leg, res *http.Response) {
	if res.StatusCode < 400 { // no answer of this API; to follow a redirect is to give away the key
		_ = res.Body.Close()
		a.verdict, a.status = verdict{class: classTransient, reason: reasonEmpty}, http.StatusServiceUnavailable
		return
	}
	var sent *http.Request
	if l.hasOwnKey() {
		sent = res.Request
	}
	head, err := readHead(res, sent)
	t.understand(a, l, res, head)
	if err != nil {
		a.discard()
		a.status, a.fault, a.cause = res.StatusCode, faultOf(err), err
		a.verdict.reason = cmp.Or(a.verdict.reason, reasonUnavailable)
		a.detail = fmt.Sprintf("the upstream %q answered with this error, which broke off (%s)", a.upstream, a.fault)
	}
}

// unanswered finds out why there is no answer.
func (a *attempt) unanswered(x *exchange, err error) {
	if cause := x.bodyError(err); cause != nil {
		a.badBody(cause)
		return
	}
	a.fault, a.cause = faultOf(err), err
	a.verdict, a.status = verdict{class: classTransient, reason: reasonUnavailable}, http.StatusServiceUnavailable
	if isTimeout(err) {
		a.verdict.reason, a.status = reasonDeadline, http.StatusGatewayTimeout
		a.isUnfair = a.fault == faultReadTimeout && x.body != nil && x.body.isAwaited()
	}
	a.detail = fmt.Sprintf("no answer came from the upstream %q (%s)", a.upstream, a.fault)
}

// bodyError is why the client's body failed, if that is what ended the attempt.
func (x *exchange) bodyError(err error) error {
	if errors.Is(err, errBase64) {
		return err
	}
	if x.body != nil {
		return x.body.err()
	}
	if overSite, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return overSite
	}
	return nil
}

// collapsed is the end of a part of a call in a panic.
func (x *exchange) collapsed(cause any) {
	x.attempt.discard()
	x.attempt = &attempt{project: x.clientProject, upstream: x.attempt.upstream}
	x.unanswered(x, fmt.Errorf("panic: %v", cause))
}

// unreadable ends a call whose body cannot be read. It fails if its client has left.
func (x *exchange) unreadable(cause error) error {
	x.badBody(cause)
	return x.left()
}

// left is not nil when the client has left. net/http also says so when the wait for a
// late body has been interrupted, but that client is to hear of it.
func (x *exchange) left() error {
	if x.body != nil && errors.Is(x.body.err(), errLate) {
		return nil
	}
	return x.ctx.Err()
}

// badBody is the end of a request whose body cannot be sent on.
func (a *attempt) badBody(cause error) {
	a.verdict = verdict{class: classClient, reason: reasonMalformed}
	a.status = http.StatusBadRequest
	var malformed *jsonError
	var overSite *http.MaxBytesError // a limit of the site's own, set with request_body
	switch {
	case errors.Is(cause, errTooLarge), errors.As(cause, &overSite):
		a.verdict.reason, a.status = reasonTooLarge, http.StatusRequestEntityTooLarge
	case errors.Is(cause, errNoRoom):
		a.verdict.reason, a.status = reasonTooLarge, http.StatusRequestEntityTooLarge
		a.detail = "the request is too large to be kept in memory, and the temporary folder cannot be written"
		a.cause = cause
	case errors.Is(cause, errLate):
		a.verdict = verdict{class: classTransient, reason: reasonDeadline}
		a.status, a.isUnfair = http.StatusGatewayTimeout, true
		a.detail = "the request did not arrive within the deadline of its call"
	case errors.Is(cause, errBase64):
		a.detail = "an image of the request is no image, so that it could not be sent on: " + cause.Error()
	case errors.Is(cause, errStrayPath), errors.Is(cause, errStrayName), errors.Is(cause, errUnreadable):
		a.detail = cause.Error()
	case errors.As(cause, &malformed):
		a.detail = "the request body is not JSON, so that it could not be completed: " + malformed.Error()
	case hasHungUp(cause):
		a.verdict.reason, a.status = reasonCancelled, statusClientGone
	default:
		a.detail = "the request body could not be read to its end"
	}
}

// hasHungUp tells that a connection has ended before a body did, or that nothing has
// come for longer than the server waits, rather than what is no HTTP.
func hasHungUp(cause error) bool {
	var lost net.Error
	return errors.Is(cause, io.ErrUnexpectedEOF) || errors.As(cause, &lost) ||
		strings.HasSuffix(cause.Error(), "client disconnected") // HTTP/2's, which has no type
}

// deserted makes an attempt one that its client has ended. What the upstream had
// said by then remains.
func (a *attempt) deserted() {
	if a.verdict.class == classTransient && a.problem == nil {
		a.verdict = verdict{class: classClient, reason: reasonCancelled}
	}
}
