// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// router is an http.RoundTripper that sends a call to its upstreams until one
// gives an answer that is worth delivering, or until nothing sensible is left:
// it waits, repairs, rephrases or reroutes as the table of decisions says. It
// knows no Caddy, so that plain Go tests reach all of it.
type router struct {
	upstreams   []*upstream       // in order of preference; at least one
	aliases     map[string]string // names of models that clients may use
	settings    []SafetySetting   // what to set, and
	modalities  []string          // what to ask for, where a call that is translated says nothing; nil with inject off
	limits      []*limitRule
	imageModels []string
	hold        int64 // the most of one answer that may wait for its verdict, in bytes
	// blockStatus is the HTTP status of a block; 0 leaves the 200.
	blockStatus int
	retry       retryRules
	pacing      pacing
	budget      *retryBudget // nil: no bound
	guardFor    time.Duration
	rephrasing  *rephrasing // nil: prompts are never changed
	state       *state
	pauses      bool    // accounts with a high block rate, until an operator resets them
	noImage     noImage // see expectation
	commitText  bool    // likewise

	now     func() time.Time
	sleep   func(ctx context.Context, d time.Duration, woken <-chan struct{}) error
	tell    func(event string, data map[string]any)
	alarmed func(upstream string, c alarmChange)
}

// retryRules bound what is done for one call.
type retryRules struct {
	attempts int           // in all, the first included
	deadline time.Duration // from the call's arrival to the verdict
}

// exchange is one call on its way through the router: what it is, and what
// became of it. The embedded attempt is the one whose answer the client gets.
type exchange struct {
	ctx      context.Context // of the handler, without what a proxy adds to it
	call     call
	body     *requestBody // nil for calls that are forwarded untouched
	model    string       // as the client named it, in the path or in the body
	language string       // Accept-Language
	base     *url.URL     // where to send what has no upstream of its own

	contentType string // of the body
	brief       *brief // what it asks for, once it has to be translated
	group       *group // of calls that were made of this one; nil: it is one
	partOf      *group // that it is one of; nil: it is whole

	expand func(text string) string // replaces the placeholders of the request; nil: there are none
	keys   map[*upstream][]*apiKey  // as this call has them; see keysOf

	client        string // which software calls, for the log
	clientProject string // whoever holds the client's own key

	// The credentials of a call that is forwarded; see Handler.forward.
	credentials http.Header
	query       string
	withheld    http.Header // of the answer, until it is written; nil: nothing is
	mount       string      // what the site has cut off the path before

	sharesItself bool // the site says which others may read its answers; see ofSharing

	arrived   time.Time
	deadline  time.Time
	isHurried bool // the deadline is the client's own, see X-Server-Timeout

	*attempt
	attempts  int
	waited    time.Duration
	queued    time.Duration // of that, for its turn at a gate
	isLimited bool          // it was under limits of the configuration
	story     []*attempt    // all of them, in order
	repaired  string        // what had to be changed, for Proxy-Status
	dropped   []string      // fields that the upstream's form has no word for, likewise
	trip      *trip
	last      *leg
}

// forwarded tells a call that is proxied untouched from one that is worked on.
func (x *exchange) forwarded() bool { return !x.call.generates }

type exchangeKey struct{}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

var (
	errStrayPath = errors.New("the path leads out of the API")
	errStrayName = errors.New("no model is called like that")
	// errUnreadable is a call whose answer could not be judged.
	errUnreadable = errors.New("the query asks, with alt or callback, for an answer that is not JSON, in which a block would not be seen")
)

var errNoExchange = errors.New("request did not come through the gemini handler")

// RoundTrip answers with an upstream's response or with an error of its own
// making. It fails only when the client has left.
func (r *router) RoundTrip(in *http.Request) (*http.Response, error) {
	x, ok := in.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		return nil, errNoExchange
	}
	return r.serve(in, x)
}

// serve is RoundTrip for a call that is known already.
func (r *router) serve(in *http.Request, x *exchange) (*http.Response, error) {
	if x.forwarded() {
		return r.forward(in, x)
	}
	switch g, err := r.split(x); {
	case err != nil:
		if err = x.unreadable(err); err != nil {
			return nil, err
		}
	case g != nil:
		return g.travel(r, in)
	default:
		if err = r.travel(in, x); err != nil {
			return nil, err
		}
	}
	return x.response(in), nil
}

// close ends what goes on beside the calls.
func (r *router) close() {
	for _, u := range r.upstreams {
		if u.credential != nil {
			u.credential.close()
		}
		u.direct.close()
	}
}

// nativeTo is the first upstream that speaks the form in which a call is written, else the
// first that takes it from Google's other API, else the first of all.
func (r *router) nativeTo(c *call) *upstream {
	moves := func(u *upstream) bool { return c.generates && u.movesNative(c) }
	for _, u := range r.upstreams {
		if u.speaks(c) {
			return u
		}
	}
	if i := slices.IndexFunc(r.upstreams, moves); i >= 0 {
		return r.upstreams[i]
	}
	return r.upstreams[0]
}

// forward passes a call on untouched and unjudged.
func (r *router) forward(in *http.Request, x *exchange) (*http.Response, error) {
	u := r.nativeTo(&x.call)
	if u.hasOwnKey() && leadsElsewhere(in.URL.Path) { // out of the upstream's prefix
		x.badBody(errStrayPath)
		return x.response(in), nil
	}
	var key *apiKey
	if len(u.keys) > 0 {
		if key = x.keysOf(u)[0]; key == nil { // always the same: files belong to its project
			x.keyless(u)
			return x.response(in), nil
		}
	}
	x.attempt, x.attempts = &attempt{upstream: u.name}, 1
	ctx := u.context(x)
	if u.credential != nil {
		token, err := u.credential.token(ctx)
		if err != nil {
			x.unanswered(x, err)
			return x.response(in), nil
		}
		key = &apiKey{secret: token, isToken: true}
	}
	out := u.request(ctx, in, x, key, course{way: wayAsIs})
	x.setBody(out, in, rendering{})
	res, err := u.transport.RoundTrip(out)
	if err == nil {
		x.received = res.StatusCode
		return x.forwardedBack(u, out, res, in), nil
	}
	if x.ctx.Err() != nil {
		return nil, x.ctx.Err()
	}
	x.unanswered(x, err)
	return x.response(in), nil
}

// forwardedBack is the answer to a call that was forwarded.
func (x *exchange) forwardedBack(u *upstream, sent *http.Request, res *http.Response, in *http.Request) *http.Response {
	if !x.redirectHere(u, sent.URL, res) {
		_ = res.Body.Close()
		x.sentAway(u)
		return x.response(in)
	}
	if x.call.surface != surfaceNone { // else it is a page of a site behind a reverse_proxy
		dropHeaders(res.Header, ofOrigin)
	}
	if u.hasOwnKey() {
		concealIn(res, sent)
	} else {
		x.withhold(res, sent)
	}
	return x.finished(res, in)
}

// keyless answers a call that has none of an upstream's keys. It is not sent:
// the client's own key is not meant for an upstream that has some.
func (a *attempt) keyless(u *upstream) {
	a.verdict, a.status = verdict{class: classTransient, reason: reasonUnavailable}, http.StatusServiceUnavailable
	a.detail = fmt.Sprintf("no key of the upstream %q is meant for this call", u.name)
}

// travel makes attempts until one is good enough or none may follow. It fails
// only when the client has left.
func (r *router) travel(in *http.Request, x *exchange) (err error) {
	t, err := r.plan(x)
	if err != nil {
		return x.unreadable(err)
	}
	x.trip = t
	defer func() {
		if err != nil {
			x.attempt.discard()
		}
	}()
	r.budget.call(r.now())
	for l, ok := t.depart(); ok; l, ok = t.depart() {
		if err := t.ride(in, l); err != nil {
			return err
		}
	}
	return t.arrive()
}

// ride makes one attempt, unless its place has gone to others meanwhile. It fails
// only when the client has left.
func (t *trip) ride(in *http.Request, l leg) error {
	isUnderWay, err := t.embark(&l)
	switch {
	case err != nil && t.x.left() == nil:
		t.spoilt(errLate)
		return nil
	case err != nil:
		return err
	case !isUnderWay:
		if l.repaired != "" {
			t.again = &l
		}
		return nil
	}
	a := t.visit(in, &l)
	t.x.keep(a, &l)
	t.learn(&l, a)
	if err := t.x.left(); err != nil {
		a.deserted()
		return err
	}
	if err := t.hearRest(); err != nil {
		t.spoilt(err)
	}
	return nil
}

// arrive ends the trip, with an error of ours where no answer has come of it. It
// fails only when the client has left.
func (t *trip) arrive() error {
	if !t.isInTime(0, t.now()) {
		t.x.body.expire(func() {}) // nobody waits for the rest any more
	}
	if t.isSpoilt {
		return t.x.left()
	}
	if t.x.attempts == 0 || t.repeat != nil && t.x.verdict.class == classRepairable {
		t.refuse()
	}
	return nil
}

// hearRest reads the rest of a body that was sent while it was read, before it is
// sent again: it must be whole, and may say where the call belongs.
func (t *trip) hearRest() error {
	if t.isEnd || t.x.attempts >= t.retry.attempts || t.x.attempts > 1 || !t.isInTime(0, t.now()) {
		return nil
	}
	if err := t.x.body.readAll(); err != nil {
		return err
	}
	t.pin = t.pinned(t.x)
	return nil
}

// spoilt ends the trip of a call whose body cannot be read.
func (t *trip) spoilt(cause error) {
	t.x.attempt.discard()
	t.x.attempt = &attempt{project: t.x.clientProject}
	t.x.badBody(cause)
	t.isEnd, t.isSpoilt = true, true
}

// keep makes an attempt the one whose answer the client gets, unless one before
// it says more.
func (x *exchange) keep(a *attempt, l *leg) {
	x.story = append(x.story, a)
	x.last = l
	switch {
	case a == x.attempt: // the first
	case x.attempt.weight() > a.weight():
		a.discard()
	default:
		x.attempt.discard()
		x.attempt = a
	}
}

// weight orders answers by what they are worth to the client: it had better
// change a prompt that was blocked than repeat it for another reason, and Google's
// words are better than ours.
func (a *attempt) weight() int {
	switch {
	case a.verdict.class == classOK:
		return 4
	case a.verdict.class == classForbidden:
		return 3
	case a.verdict.class == classBlocked:
		return 2
	case a.problem != nil, mayPassUnchanged[a.verdict.reason]:
		return 1
	}
	return 0
}
