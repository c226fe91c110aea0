// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// attempt is what became of a call at one upstream.
type attempt struct {
	upstream     string
	project      string // whose key was used
	account      string // the same for machines, see seat
	model        string // that the upstream was asked for
	isOwnKey     bool   // it was the client's
	received     int    // the upstream's status; 0 if none came
	fault        string // why none came, in the words of RFC 9209
	cause        error  // the same for the log; names addresses
	verdict      verdict
	facts        facts         // what the answer said, for the accounts
	cost         nanoUSD       // of the answer
	problem      *googleError  // if the answer was an error
	delay        time.Duration // that the upstream asks to wait
	wait         time.Duration // before it
	isRetry      bool          // it was not the first of its call
	isUnfair     bool          // says nothing about the upstream: it was cut short by the call's deadline, or by a slow client
	isRemembered bool          // by guard, as far as that is concerned
	at           *upstream
	gate         *gate     // that it passed, if there is one
	ticket       *ticket   // its place there
	lowered      []lowered // limits that its refusal has lowered

	// The answer, if it is the upstream's own; otherwise the status and a detail
	// of an error of this module's.
	res     *http.Response
	status  int
	detail  string
	refusal *refusal // if it was not sent for a limit
	foreign *foreign // if it was not sent because it cannot be said in any upstream's form
}

// discard gives back an answer that nobody gets.
func (a *attempt) discard() {
	if a.res != nil {
		_ = a.res.Body.Close()
		a.res = nil
	}
}

var errDeadline = errors.New("deadline of the call")

// send sends the call once and judges what comes back. The attempt ends with its
// time, unless the verdict is certain by then.
func (t *trip) send(in *http.Request, l *leg) *attempt {
	x := t.x
	a := x.attempt // stands there for the first one
	if x.attempts > 1 {
		a = &attempt{isRetry: true}
	}
	a.at, a.upstream, a.isOwnKey, a.wait = l.upstream, l.name, l.key == nil && l.credential == nil, l.wait
	a.project, a.account, a.model, a.gate, a.ticket = l.project, l.account, bareModel(l.model), l.gate, l.ticket
	ctx, cancel := context.WithCancelCause(l.context(x))
	limit, isFair := t.timeFor(l)
	timer := time.AfterFunc(limit, func() { cancel(errDeadline) })
	res, err := t.roundTrip(ctx, in, l)
	switch {
	case err != nil:
		a.unanswered(x, err)
	case res.StatusCode != http.StatusOK:
		a.received = res.StatusCode
		dropTheirs(res.Header)
		t.refused(a, l, res)
	default:
		a.received = res.StatusCode
		dropTheirs(res.Header)
		t.judge(a, l, res)
	}
	if !timer.Stop() {
		a.discard()
		t.cutShort(a, isFair)
	}
	if a.res == nil {
		cancel(nil)
		return a
	}
	a.res.Body = &attemptBody{a.res.Body, cancel}
	return a
}

// roundTrip sends the call. An access token that is refused is fetched anew.
func (t *trip) roundTrip(ctx context.Context, in *http.Request, l *leg) (*http.Response, error) {
	if err := t.measureLayout(l.sent.layout); err != nil {
		return nil, err
	}
	key := l.key
	if l.credential != nil {
		token, err := l.credential.token(ctx)
		if err != nil {
			return nil, err
		}
		key = &apiKey{secret: token, isToken: true}
	}
	out := l.request(ctx, in, t.x, key, l.course(t.x))
	t.x.setBody(out, in, l.sent)
	res, err := l.connection().RoundTrip(out)
	if err == nil && l.hasOwnKey() {
		concealInHeaders(res, out)
	}
	if err == nil && res.StatusCode == http.StatusUnauthorized && l.credential != nil {
		l.credential.rejected(key.secret)
	}
	return res, err
}

// patience is what every attempt is given before another upstream is asked
// instead: the slowest images take most of a minute (wire §10).
const patience = time.Minute

// timeFor is how long an attempt may take: to the deadline of the call, but half
// of that if another upstream could still take over from one that hangs. It is
// fair if an upstream that does not make it deserves to be blamed.
func (t *trip) timeFor(l *leg) (limit time.Duration, isFair bool) {
	left := t.x.deadline.Sub(l.boarded)
	if half := left / 2; (l.trial.canary || half >= patience) && t.canGoElsewhere(l) {
		return half, true
	}
	return left, !t.x.isHurried && l.boarded.Sub(t.x.arrived) < time.Second
}

// canGoElsewhere tells that another upstream could take the call before its deadline.
func (t *trip) canGoElsewhere(from *leg) bool {
	if len(t.stations) < 2 || t.pin != nil || t.x.attempts >= t.retry.attempts {
		return false
	}
	for i := range t.stations {
		s := &t.stations[i]
		if s == from.station || s.closed {
			continue
		}
		for j := range s.seats {
			seat := &s.seats[j]
			until, _ := t.restsUntil(s, seat, from.boarded)
			if !seat.spent && t.mayTake(s, seat) && !t.isPaused(s, seat) && until.Before(t.x.deadline) {
				return true
			}
		}
	}
	return false
}

// attemptBody ends its attempt when it is closed, not before: the transport
// would break off the answer.
type attemptBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close closes the answer.
func (b *attemptBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// cutShort makes an attempt one that has not been answered in time. A block that
// is certain remains one.
func (t *trip) cutShort(a *attempt, isFair bool) {
	if a.verdict.class.isBlock() {
		a.status = t.statusOf(a.verdict)
		return
	}
	a.verdict = verdict{class: classTransient, reason: reasonDeadline}
	a.status, a.fault, a.cause, a.problem = http.StatusGatewayTimeout, "http_response_timeout", errDeadline, nil
	a.detail = fmt.Sprintf("no answer came from the upstream %q in time", a.upstream)
	a.isUnfair = !isFair || t.x.body.isAwaited()
}

func (x *exchange) setBody(out, in *http.Request, rd rendering) {
	if x.body == nil {
		out.Body, out.ContentLength, out.Trailer = unclosed(in.Body), in.ContentLength, in.Trailer
		return
	}
	out.Body, out.ContentLength = x.body.reader(rd), x.body.length(rd)
	if rd.layout != nil {
		out.Header["Content-Type"] = []string{rd.layout.contentType}
	} else if encoding := in.Header["Content-Encoding"]; len(encoding) > 0 && !x.body.decoded() {
		out.Header["Content-Encoding"] = encoding
	}
	out.GetBody = x.body.getBody(rd) // lets a transport of net/http repeat the call on a fresh connection when a kept one was dead
}

// unclosed keeps a client's body open when a transport is through with it, which
// may be before its end. net/http takes a body that has been closed for one that
// has been read, because it does not know its own in Caddy's wrappers, and would
// read the rest of it as the next request: smuggled past all that guards the site.
func unclosed(body io.ReadCloser) io.ReadCloser {
	if body == nil || body == http.NoBody {
		return body
	}
	return io.NopCloser(body)
}

// judge holds the answer until its verdict is certain.
func (t *trip) judge(a *attempt, l *leg, res *http.Response) {
	t.relayIn(l, res)
	answer := t.newAnswer(a, l, res)
	v := l.attributed(answer.hold(t.hold))
	a.verdict = v
	if v.status > 0 {
		t.failed(a, l, answer, res)
		return
	}
	if v.class == classOK || v.class.isBlock() && t.blockStatus == 0 {
		isTheirs := t.relaysOut(l) && a.facts.isOpenAI && !t.x.isPart // the client's form, whatever was asked for
		if isTheirs && answer.form == formRelayed {
			answer.form = formOpenAI
		}
		answer.giveTo(res)
		if t.relaysOut(l) && a.facts.isOpenAI && t.x.isPart {
			res.Body = newNativeRelay(answer, nativeRelay{from: fromImages, events: isEventStream(res), model: l.model})
		}
		if a.res = res; !isTheirs {
			t.relayOut(a, l, res)
		}
		return
	}
	if v.class == classBlocked {
		if answer.hearOut(); answer.scan.stoppedClass == classForbidden {
			v, _ = answer.scan.block()
			a.verdict = l.attributed(v)
		}
	}
	_ = answer.Close()
	if answer.failure != nil && a.verdict.class == classTransient {
		a.fault, a.cause = faultOf(answer.failure), answer.failure
	}
	a.status = t.statusOf(a.verdict)
}

// statusOf is the HTTP status for a verdict that ends in an error of ours.
func (r *router) statusOf(v verdict) int {
	if v.class.isBlock() {
		return cmp.Or(r.blockStatus, http.StatusBadRequest) // no 200 is left that could be passed on
	}
	return http.StatusServiceUnavailable
}

// failed makes an error of a 200 that holds one: Google's own object, with the
// status it names.
func (t *trip) failed(a *attempt, l *leg, answer *answer, res *http.Response) {
	object := answer.failed()
	_ = answer.Close()
	if l.hasOwnKey() {
		conceal(object, res.Request)
	}
	res.StatusCode = a.verdict.status
	res.Header.Set("Content-Type", contentType)
	res.Header.Set("Content-Length", strconv.Itoa(len(object)))
	res.ContentLength = int64(len(object))
	res.Body = io.NopCloser(bytes.NewReader(object))
	t.understand(a, l, res, object)
}

// understand finds out what an error of the upstream's means, and adds the
// Retry-After that Google leaves out.
func (t *trip) understand(a *attempt, l *leg, res *http.Response, body []byte) {
	a.res = res
	a.problem = parseGoogleError(res.StatusCode, body)
	a.problem.isPredict = t.x.call.method == "predict"
	a.verdict = l.attributed(a.problem.verdict())
	a.delay, _ = a.problem.delay(res.Header, t.now())
	if after := a.problem.retryAfter(t.now(), t.pacific); after != "" {
		res.Header.Set("Retry-After", after)
	}
	if a.verdict.class.isBlock() && t.blockStatus > 0 { // that of an upstream that has a status for it
		a.discard()
		a.status = t.statusOf(a.verdict)
		return
	}
	t.restate(a, l)
}

const contentType = "application/json; charset=UTF-8"

func (t *trip) newAnswer(a *attempt, l *leg, res *http.Response) *answer {
	x, expect := t.x, t.x.expect(l.station)
	form := formUnary
	switch {
	case t.relaysOut(l):
		if expect.stream {
			form = formRelayed
		}
	case x.call.surface == surfaceOpenAI && expect.stream:
		form = formOpenAI
	case x.call.surface == surfaceInteractions && expect.stream:
		form = formInteractions
	case x.call.events:
		form = formEvents
	case x.call.array:
		form = formArray
	}
	events := form != formUnary && form != formArray
	if isEventStream(res) {
		events, expect.stream = true, true // whatever was asked for
		if form == formArray {
			form = formEvents
		}
	}
	held := &answer{
		source: decoded(res),
		scan:   newAnswerScanner(&a.facts, events, l.enums(&x.call)),
		expect: expect,
		form:   form,
		late:   func(v verdict) { a.verdict = l.attributed(v) },
	}
	if t.blockStatus > 0 {
		held.explain = func(v verdict) []byte { return x.error(l.attributed(v), t.blockStatus).late(x.call.surface) }
	}
	return held
}

func isEventStream(res *http.Response) bool {
	return strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream")
}

// giveTo makes the judged answer the body of the upstream's response.
func (a *answer) giveTo(res *http.Response) {
	res.Body = a
	switch {
	case a.form != formUnary: // an error may be added
		res.ContentLength = -1
		res.Header.Del("Content-Length")
	case a.complete():
		res.ContentLength = a.held.end
		res.Header.Set("Content-Length", strconv.FormatInt(a.held.end, 10))
	}
}
