// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// response is what the client gets.
func (x *exchange) response(in *http.Request) *http.Response {
	if x.verdict.class == classTransient && mayPassUnchanged[x.verdict.reason] {
		x.verdict.class = classBlocked // there has been no second time
	}
	if x.res != nil {
		if x.res.StatusCode >= 500 && x.isTriedAgain() {
			x.res.Header.Set("X-Should-Retry", "false") // it has been tried again (wire §8)
		}
		return x.finished(x.res, in)
	}
	e := x.error(x.verdict, x.status)
	e.isCut = x.body != nil && errors.Is(x.body.err(), errLate)
	e.detail, e.refusal, e.foreign = x.detail, x.refusal, x.foreign
	return x.finished(e.response(x.call.surface), in)
}

// isTriedAgain tells that there was more than one attempt, however many images the
// call was for.
func (x *exchange) isTriedAgain() bool {
	return slices.ContainsFunc(x.story, func(a *attempt) bool { return a.isRetry })
}

// farewell is for a client that has left, as far as a server can tell.
func (x *exchange) farewell(in *http.Request) *http.Response {
	gone := verdict{class: classClient, reason: reasonCancelled}
	return x.finished(x.error(gone, statusClientGone).response(x.call.surface), in)
}

func (x *exchange) finished(res *http.Response, in *http.Request) *http.Response {
	res.Request = in
	if in.ProtoMajor > 1 {
		res.Header.Del("Connection") // has no meaning there, and HTTP/3 clients fail on it
	}
	if x.sharesItself {
		dropHeaders(res.Header, ofSharing)
	}
	res.Header.Add("Proxy-Status", x.proxyStatus())
	return res
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

// late is the error as it stands in a stream.
func (e *apiError) late(s surface) []byte {
	if s == surfaceInteractions {
		return e.interaction()
	}
	return e.body(s)
}

// response is the error as an upstream could have sent it.
func (e *apiError) response(s surface) *http.Response {
	body := e.body(s)
	header := http.Header{
		"Content-Type":   {jsonContentType},
		"Content-Length": {strconv.Itoa(len(body))},
		"X-Should-Retry": {"false"}, // stops openai's clients from sending it again (wire §8)
	}
	if e.code == http.StatusTooManyRequests && !e.verdict.class.isBlock() {
		header.Del("X-Should-Retry")
	}
	if after := e.refusal.retryAfter(); after != "" {
		header.Set("Retry-After", after)
	}
	if e.isCut || e.code == http.StatusRequestEntityTooLarge {
		header.Set("Connection", "close") // else net/http reads the rest before it answers
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
	entry := append(make([]byte, 0, 128), errorDomain...)
	if x.upstream != "" && x.refusal == nil { // else it is not where the call went
		entry = strconv.AppendQuote(append(entry, "; next-hop="...), x.upstream)
	}
	if x.received > 0 {
		entry = strconv.AppendInt(append(entry, "; received-status="...), int64(x.received), 10)
	}
	if x.fault != "" {
		entry = append(append(entry, "; error="...), x.fault...)
	}
	if x.attempts > 1 {
		entry = strconv.AppendInt(append(entry, "; attempts="...), int64(x.attempts), 10)
	}
	if details := x.details(); details != "" {
		entry = strconv.AppendQuote(append(entry, "; details="...), details)
	}
	return string(entry)
}

// details are the reason of the verdict and what had to be done to the call.
func (x *exchange) details() string {
	said := make([]string, 0, 3)
	for _, text := range []string{x.verdict.reason, x.repaired} {
		if text != "" {
			said = append(said, text)
		}
	}
	if len(x.dropped) > 0 {
		said = append(said, "dropped "+strings.Join(x.dropped, ", "))
	}
	return strings.Join(said, "; ")
}

// faultReadTimeout is that of an upstream that says nothing, read_timeout.
const faultReadTimeout = "connection_read_timeout"

// faultOf names a network failure in the words of RFC 9209 §2.3. The words of
// the error itself are for the log: they name addresses.
func faultOf(err error) string {
	text := err.Error()
	for _, f := range faults {
		if strings.Contains(text, f.text) {
			return f.fault
		}
	}
	switch {
	case !isTimeout(err):
		return "connection_terminated"
	case strings.HasPrefix(text, "read "):
		return faultReadTimeout
	case strings.HasPrefix(text, "write "):
		return "connection_write_timeout"
	}
	return "connection_timeout"
}

// faults go by the text of an error, because Caddy's transports hide the type of
// what happens when they dial: reverseproxy.DialError does not unwrap. The first
// that fits counts.
var faults = []struct{ text, fault string }{
	{"lookup ", "dns_error"}, // a name server can refuse a connection, too
	{"connection refused", "connection_refused"},
	{"network is unreachable", "destination_ip_unroutable"},
	{"no route to host", "destination_ip_unroutable"},
	{"timeout awaiting response headers", "http_response_timeout"},
	{"remote error: tls: ", "tls_alert_received"},
	{"x509: ", "tls_certificate_error"},
	{"certificate", "tls_certificate_error"},
	{"tls: ", "tls_protocol_error"},
	{"HTTP response to HTTPS client", "tls_protocol_error"},
	{"response headers exceeded", "http_response_header_section_size"},
	{"header list larger", "http_response_header_section_size"}, // of HTTP/2
	{"chunk", "http_response_transfer_coding"},
	{"transfer encoding", "http_response_transfer_coding"},
	{"gzip: ", "http_response_content_coding"},
	{"flate: ", "http_response_content_coding"},
	{"malformed ", "http_protocol_error"},
	{"Content-Length", "http_protocol_error"},
	{"EOF", "http_response_incomplete"},
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
