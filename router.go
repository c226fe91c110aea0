// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// router is an http.RoundTripper that sends a call to an upstream and reads the
// answer until it is certain what it is: a block that hides in a 200 becomes an
// explicit error, everything else streams through. It knows no Caddy, so that
// plain Go tests reach all of it.
type router struct {
	upstream *upstream
	hold     int64 // the most of one answer that may wait for its verdict, in bytes
	// blockStatus is the HTTP status of a block; 0 leaves the 200.
	blockStatus int
	pacific     *time.Location // daily quotas end at its midnight
	now         func() time.Time
}

// exchange is one call on its way through the router: what it is, and what
// became of it.
type exchange struct {
	ctx      context.Context // of the handler, without what a proxy adds to it
	call     call
	body     *requestBody       // nil for calls that are forwarded untouched
	expect   func() expectation // known once the body has been read
	model    string             // as the client named it, in the path or in the body
	language string             // Accept-Language

	imageModel bool   // the model makes images
	client     string // which software calls, for the log

	// The credentials of a call that is forwarded; see Handler.forward.
	apiKey []string
	query  string

	upstream string
	project  string // whose key was used
	attempts int
	received int    // the upstream's status; 0 if none came
	fault    string // why none came, in the words of RFC 9209
	cause    error  // the same for the log; names addresses
	verdict  verdict
	facts    facts // what the answer said, for the accounts
}

// forwarded tells a call that is proxied untouched from one that is worked on.
func (x *exchange) forwarded() bool { return !x.call.generates }

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

var errNoExchange = errors.New("request did not come through the gemini handler")

// RoundTrip answers with the upstream's response or with an error of its own
// making. It fails only when the client has left.
func (r *router) RoundTrip(in *http.Request) (*http.Response, error) {
	x, ok := in.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return nil, errNoExchange
	}
	res, err := r.attempt(in, x)
	if err != nil {
		return nil, err
	}
	res.Request = in
	if in.ProtoMajor > 1 {
		res.Header.Del("Connection") // has no meaning there, and HTTP/3 clients fail on it
	}
	res.Header.Add("Proxy-Status", x.proxyStatus())
	return res, nil
}

// attempt sends the call once and judges what comes back.
func (r *router) attempt(in *http.Request, x *exchange) (*http.Response, error) {
	if x.body != nil {
		if err := x.body.readAhead(); err != nil {
			return x.badBody(err).response(x.call.surface), nil
		}
	}
	u := r.upstream
	x.attempts++
	x.upstream = u.name
	if u.key != "" {
		x.project = u.project
	}
	out := u.request(in, x)
	x.setBody(out, in)
	res, err := u.transport.RoundTrip(out)
	if err != nil {
		return r.unanswered(x, err)
	}
	x.received = res.StatusCode
	if x.forwarded() {
		return res, nil
	}
	dropHopHeaders(res.Header)
	if res.StatusCode != http.StatusOK {
		r.refused(x, res)
		return res, nil
	}
	return r.judge(x, res)
}

// ofThisHop are the headers that concern one connection only (RFC 9110
// §7.6.1), and Alt-Svc, which offers what the upstream has and this server has
// not.
var ofThisHop = []string{
	"Alt-Svc", "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// dropHopHeaders also drops what the field Connection names.
func dropHopHeaders(h http.Header) {
	for _, names := range h["Connection"] {
		for name := range strings.SplitSeq(names, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range ofThisHop {
		h.Del(name)
	}
}

func (x *exchange) setBody(out, in *http.Request) {
	if x.body == nil {
		out.Body, out.ContentLength, out.Trailer = in.Body, in.ContentLength, in.Trailer
		return
	}
	out.Body, out.ContentLength = x.body.reader(), x.body.length()
	if encoding := in.Header["Content-Encoding"]; len(encoding) > 0 && !x.body.decoded() {
		out.Header["Content-Encoding"] = encoding
	}
	out.GetBody = x.body.getBody() // lets the transport repeat the call on a fresh connection when a kept one was dead
}

// judge holds the answer until its verdict is certain.
func (r *router) judge(x *exchange, res *http.Response) (*http.Response, error) {
	a := x.newAnswer(res)
	if r.blockStatus > 0 {
		a.explain = func(v verdict) []byte { return x.error(v, r.blockStatus).body(x.call.surface) }
	}
	v := a.hold(r.hold)
	x.verdict = v
	if v.status > 0 {
		return r.failed(x, a, res), nil
	}
	if v.class == classOK || v.class.isBlock() && r.blockStatus == 0 {
		return a.response(res), nil
	}
	_ = a.Close()
	if err := x.ctx.Err(); err != nil {
		return nil, err
	}
	if a.failure != nil {
		x.fault, x.cause = faultOf(a.failure), a.failure
	}
	return x.error(v, r.statusOf(v)).response(x.call.surface), nil
}

// statusOf is the HTTP status for a verdict that ends in an error of ours.
func (r *router) statusOf(v verdict) int {
	if v.class.isBlock() {
		return r.blockStatus
	}
	return http.StatusServiceUnavailable
}

// failed makes an error of a 200 that holds one: Google's own object, with the
// status it names.
func (r *router) failed(x *exchange, a *answer, res *http.Response) *http.Response {
	object := a.failed()
	_ = a.Close()
	res.StatusCode = x.verdict.status
	res.Header.Set("Content-Type", contentType)
	res.Header.Set("Content-Length", strconv.Itoa(len(object)))
	res.ContentLength = int64(len(object))
	res.Body = io.NopCloser(bytes.NewReader(object))
	r.understand(x, res, object)
	return res
}

// understand finds out what an error of the upstream's means, and adds the
// Retry-After that Google leaves out.
func (r *router) understand(x *exchange, res *http.Response, body []byte) {
	e := parseGoogleError(res.StatusCode, body)
	x.verdict = e.verdict()
	if after := e.retryAfter(r.now(), r.pacific); after != "" {
		res.Header.Set("Retry-After", after)
	}
}

const contentType = "application/json; charset=UTF-8"

func (x *exchange) newAnswer(res *http.Response) *answer {
	expect := x.expect()
	form := formUnary
	switch {
	case x.call.surface == surfaceOpenAI && expect.stream:
		form = formOpenAI
	case x.call.events:
		form = formEvents
	case x.call.array:
		form = formArray
	}
	events := form == formEvents || form == formOpenAI
	if isEventStream(res) {
		events = true // whatever was asked for
		if form == formArray {
			form = formEvents
		}
	}
	return &answer{
		source: decoded(res),
		scan:   newAnswerScanner(&x.facts, events, x.call.enums()),
		expect: expect,
		form:   form,
		late:   func(v verdict) { x.verdict = v },
	}
}

func isEventStream(res *http.Response) bool {
	return strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}

// response is the upstream's response with the judged body.
func (a *answer) response(res *http.Response) *http.Response {
	res.Body = a
	switch {
	case a.form != formUnary: // an error may be added
		res.ContentLength = -1
		res.Header.Del("Content-Length")
	case a.complete():
		res.ContentLength = a.held.end
		res.Header.Set("Content-Length", strconv.FormatInt(a.held.end, 10))
	}
	return res
}

// maxErrorBody is how much of an error is read to understand it; Google's are
// at most a few kilobytes.
const maxErrorBody = 64 << 10

// refused reads an answer that is an error already. It goes to the client as it
// is, with the Retry-After that Google leaves out.
func (r *router) refused(x *exchange, res *http.Response) {
	if res.StatusCode < 400 {
		return
	}
	body := decoded(res)
	head, err := io.ReadAll(io.LimitReader(body, maxErrorBody))
	rest := io.Reader(body)
	if err != nil {
		rest = failingReader{err}
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), body}
	r.understand(x, res, head)
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// unanswered finds out why there is no answer.
func (r *router) unanswered(x *exchange, err error) (*http.Response, error) {
	if x.ctx.Err() != nil {
		return nil, x.ctx.Err()
	}
	if cause := x.bodyError(err); cause != nil {
		return x.badBody(cause).response(x.call.surface), nil
	}
	x.fault, x.cause = faultOf(err), err
	v, status := verdict{class: classTransient, reason: reasonUnavailable}, http.StatusServiceUnavailable
	if isTimeout(err) {
		v.reason, status = reasonDeadline, http.StatusGatewayTimeout
	}
	x.verdict = v
	e := x.error(v, status)
	e.detail = fmt.Sprintf("no answer came from the upstream %q (%s)", x.upstream, x.fault)
	return e.response(x.call.surface), nil
}

// bodyError is why the client's body failed, if that is what ended the call.
func (x *exchange) bodyError(err error) error {
	if x.body != nil {
		return x.body.err()
	}
	if overSite, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return overSite
	}
	return nil
}

// badBody is the error for a request whose body cannot be sent on.
func (x *exchange) badBody(cause error) *apiError {
	x.verdict = verdict{class: classClient, reason: reasonMalformed}
	status := http.StatusBadRequest
	var malformed *jsonError
	var overSite *http.MaxBytesError // a limit of the site's own, set with request_body
	var detail string
	switch {
	case errors.Is(cause, errTooLarge), errors.As(cause, &overSite):
		x.verdict.reason, status = reasonTooLarge, http.StatusRequestEntityTooLarge
	case errors.As(cause, &malformed):
		detail = "the request body is not JSON, so that it could not be completed: " + malformed.Error()
	default:
		detail = "the request body could not be read to its end"
	}
	e := x.error(x.verdict, status)
	e.detail = detail
	return e
}

func (x *exchange) error(v verdict, status int) *apiError {
	return &apiError{code: status, verdict: v, model: x.model, upstream: x.upstream, attempts: x.attempts, language: x.language}
}

// body is the error in the form of the surface it answers on.
func (e *apiError) body(s surface) []byte {
	if s == surfaceOpenAI {
		return e.openAI()
	}
	return e.native()
}

// response is the error as an upstream could have sent it.
func (e *apiError) response(s surface) *http.Response {
	body := e.body(s)
	header := http.Header{
		"Content-Type":   {contentType},
		"Content-Length": {strconv.Itoa(len(body))},
		"X-Should-Retry": {"false"}, // stops openai's clients from sending it again (wire §8)
	}
	if e.code == http.StatusTooManyRequests && !e.verdict.class.isBlock() {
		header.Del("X-Should-Retry")
	}
	if e.code == http.StatusRequestEntityTooLarge {
		header.Set("Connection", "close") // the rest of the body is not worth reading
	}
	return &http.Response{
		StatusCode:    e.code,
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		ContentLength: int64(len(body)),
		Body:          io.NopCloser(bytes.NewReader(body)),
	}
}

// proxyStatus is this hop's entry in the Proxy-Status field (RFC 9209).
func (x *exchange) proxyStatus() string {
	entry := errorDomain
	if x.upstream != "" {
		entry += fmt.Sprintf("; next-hop=%q", x.upstream)
	}
	if x.received > 0 {
		entry += "; received-status=" + strconv.Itoa(x.received)
	}
	if x.fault != "" {
		entry += "; error=" + x.fault
	}
	if x.verdict.reason != "" {
		entry += fmt.Sprintf("; details=%q", x.verdict.reason)
	}
	return entry
}

// faultOf names a network failure in the words of RFC 9209 §2.3. The words of
// the error itself are for the log: they name addresses.
func faultOf(err error) string {
	text := err.Error()
	for _, f := range faults {
		if strings.Contains(text, f.text) {
			return f.fault
		}
	}
	if isTimeout(err) {
		return "connection_timeout"
	}
	return "connection_terminated"
}

// faults go by the text of an error, because Caddy's transports hide the type of
// what happens when they dial: reverseproxy.DialError does not unwrap.
var faults = []struct{ text, fault string }{
	{"connection refused", "connection_refused"},
	{"no such host", "dns_error"},
	{"network is unreachable", "destination_ip_unroutable"},
	{"no route to host", "destination_ip_unroutable"},
	{"timeout awaiting response headers", "http_response_timeout"},
	{"x509: ", "tls_certificate_error"},
	{"certificate", "tls_certificate_error"},
	{"tls: ", "tls_protocol_error"},
	{"malformed HTTP", "http_protocol_error"},
	{"malformed chunked encoding", "http_protocol_error"},
	{"gzip: ", "http_response_content_coding"},
	{"flate: ", "http_response_content_coding"},
	{"EOF", "http_response_incomplete"},
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
