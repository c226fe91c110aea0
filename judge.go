// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// judge holds the answer until its verdict is certain.
func (t *trip) judge(a *attempt, l *leg, res *http.Response) {
	t.relayIn(l, res)
	answer := t.newAnswer(a, l, res)
	v := l.attributed(answer.hold(t.hold))
	if v.class == classBlocked && v.status == 0 {
		answer.hearOut(t.blockStatus > 0)
		if worse, isBlock := answer.scan.block(); isBlock {
			v = l.attributed(worse)
		}
	}
	a.verdict = v
	if v.status > 0 {
		t.failed(a, l, answer, res)
		return
	}
	if v.class == classOK || v.class.isBlock() && t.blockStatus == 0 {
		t.passOn(a, l, answer, res)
		return
	}
	_ = answer.Close()
	if answer.failure != nil && a.verdict.class == classTransient {
		a.fault, a.cause = faultOf(answer.failure), answer.failure
	}
	a.status = t.statusOf(a.verdict)
}

// passOn makes the answer the client's, in the form of its call. An upstream may have
// answered in OpenAI's already, whatever it was asked for.
func (t *trip) passOn(a *attempt, l *leg, held *answer, res *http.Response) {
	isOpenAI := t.relaysOut(l) && a.facts.isOpenAI
	isTheirs := isOpenAI && t.x.partOf == nil // a group is put together out of answers in Google's form
	if isTheirs && held.form == formRelayed {
		held.form = formOpenAI
	}
	held.giveTo(res)
	a.res = res
	if isTheirs {
		return
	}
	if isOpenAI {
		res.Body = newNativeRelay(held, nativeRelay{from: fromImages, events: isEventStream(res), model: l.model})
	}
	t.relayOut(a, l, res)
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
	res.Header.Set("Content-Type", jsonContentType)
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
	a.isUnfair = a.problem.code == http.StatusRequestTimeout && t.x.body.isAwaited() // it has waited for the client
	a.verdict = l.attributed(a.problem.verdict())
	a.delay = a.problem.delay(res.Header, t.now())
	if after := a.problem.retryAfter(t.now(), t.midnight()); after != "" {
		res.Header.Set("Retry-After", after)
	}
	if a.verdict.class.isBlock() && t.blockStatus > 0 { // that of an upstream that has a status for it
		a.discard()
		a.status = t.statusOf(a.verdict)
		return
	}
	t.restate(a, l)
}

// midnight is when the quotas per day end.
func (r *router) midnight() time.Time { return r.state.calendar.day(r.now()).ends }

const jsonContentType = "application/json; charset=UTF-8"

// expectation is what the client wants of an upstream, once its body has been
// read.
func (t *trip) expectation(s *station) expectation {
	wants := t.x.body.wants()
	return expectation{
		stream:      t.x.streamed(),
		image:       t.x.wantsImage(s),
		imageAPI:    t.x.call.imageAPI(),
		imagesAlone: wants.imagesAlone,
		thoughts:    wants.thoughts,
		noImage:     t.noImage,
		commitText:  t.commitText,
	}
}

// wantsImage tells whether an image may come back from an upstream.
func (x *exchange) wantsImage(s *station) bool {
	return x.call.imageAPI() || x.call.mayDraw() && (s.draws || x.body.wants().images)
}

func (t *trip) newAnswer(a *attempt, l *leg, res *http.Response) *answer {
	x, expect := t.x, t.expectation(l.station)
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
