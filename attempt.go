// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	ctx, cancel := x.whileWanted(l.context(x))
	limit, isFair := t.timeFor(l)
	timer := time.AfterFunc(limit, func() { cancel(errDeadline) })
	res, err := t.roundTrip(ctx, in, l)
	switch {
	case err != nil:
		a.unanswered(x, err)
	case !isAnswer(res.StatusCode):
		a.received = res.StatusCode
		dropTheirs(res.Header)
		t.refused(a, l, res)
	default:
		a.received, res.StatusCode = res.StatusCode, http.StatusOK
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

// whileWanted is a context that ends when the client leaves. net/http ends that of a
// request whose body has been interrupted as well; but its answer may be on its way, see
// left.
func (x *exchange) whileWanted(parent context.Context) (context.Context, context.CancelCauseFunc) {
	if x.body == nil || x.body.complete() {
		return context.WithCancelCause(parent)
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		if x.left() != nil {
			cancel(context.Cause(parent))
			return
		}
		time.AfterFunc(patience, func() { cancel(errDeadline) }) // nobody would notice that the client leaves
	})
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// isAnswer recognises the statuses that come with an answer: 200 from Google, 201 from
// frameworks that have it for every POST, and 203 from proxies that change something.
func isAnswer(status int) bool {
	return status == http.StatusOK || status == http.StatusCreated || status == http.StatusNonAuthoritativeInfo
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
	half := left / 2
	isLong := half >= patience
	if heir := t.heir(l, l.boarded.Add(half), isLong); heir != nil {
		if l.trial.canary {
			half = timeToTry(left, l.health.view().latency, heir.health.view().latency)
		}
		return half, true
	}
	return left, isLong || !t.x.isHurried && l.boarded.Sub(t.x.arrived) < time.Second
}

// timeToTry is how long a canary may take. One that usually takes more than half of the
// time would be a canary for ever; but nothing is taken from what another usually needs.
func timeToTry(left, usual, ofHeir time.Duration) time.Duration {
	half := left / 2
	if ofHeir == 0 {
		return half
	}
	return max(half, min(usual*5/4, left-ofHeir*5/4))
}

// heir is an upstream that could take the call over at a time; nil if there is none. An
// attempt without much time is only given up if it is a canary.
func (t *trip) heir(from *leg, at time.Time, isLong bool) *station {
	switch {
	case len(t.stations) < 2, t.pin != nil, t.x.attempts >= t.retry.attempts:
		return nil
	case !from.trial.canary && (!isLong || !t.budget.hasRetry(from.boarded)):
		return nil
	}
	for i := range t.stations {
		s := &t.stations[i]
		if s == from.station || s.closed || s.isUntold && t.x.body.complete() && !t.canTell(s) {
			continue
		}
		for j := range s.seats {
			if seat := &s.seats[j]; t.canUse(s, seat) && t.hasRoom(s, seat, at, from.boarded) {
				return s
			}
		}
	}
	return nil
}

// hasRoom tells that limits, those of the upstream and those of the configuration,
// let the call pass at a later time, or soon after.
func (t *trip) hasRoom(s *station, at *seat, later, now time.Time) bool {
	until, _ := t.restsUntil(s, at, now)
	ready := maxTime(later, until)
	if s.rule == nil {
		return ready.Before(t.x.deadline)
	}
	room, _ := t.slot(&leg{station: s, seat: at}, ready, now)
	return room.Before(t.x.deadline) && room.Sub(ready) <= s.rule.queue
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
