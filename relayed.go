// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"io"
	"net/http"
	"strconv"
)

// relaysOut tells that an answer has to be put into OpenAI's form for the client,
// once it has been judged in Google's.
func (t *trip) relaysOut(l *leg) bool {
	return t.x.call.surface == surfaceOpenAI && l.way > wayAsIs
}

// relayIn puts the answer of an upstream that speaks OpenAI into Google's form, in
// which it is judged.
func (t *trip) relayIn(l *leg, res *http.Response) {
	if l.way != wayImages && l.way != wayChat {
		return
	}
	relay := nativeRelay{from: fromImages, events: isEventStream(res), to: formUnary, model: l.model}
	if l.way == wayChat {
		relay.from = fromChat
		relay.events = relay.events || t.x.streamed() // whatever it is called; an object is recognised
	}
	switch {
	case t.x.call.events, t.relaysOut(l) && t.x.streamed():
		relay.to = formEvents
	case t.x.call.array:
		relay.to = formArray
	}
	res.Body = newNativeRelay(decoded(res), relay)
	setForm(res, relay.to == formEvents)
}

// relayOut puts a judged answer into the form of the client's call.
func (t *trip) relayOut(a *attempt, l *leg, res *http.Response) {
	if !t.relaysOut(l) {
		return
	}
	x := t.x
	relay := openAIRelay{
		to:          toChat,
		events:      isEventStream(res) || x.streamed(),
		model:       x.model,
		created:     x.arrived.Unix(),
		id:          "chatcmpl-" + rand.Text(),
		asURL:       x.brief.asURL,
		streamUsage: x.brief.streamUsage,
		failed:      t.lateBlock(a),
	}
	switch {
	case x.call.isImages():
		relay.to = toImages
	case x.streamed():
		relay.to = toChatEvents
	}
	relayed := newOpenAIRelay(res.Body, relay)
	setForm(res, relay.to == toChatEvents)
	res.Body = relayed
	if relay.to == toImages && x.partOf == nil {
		res.Body = newCollection(x, relayed, func() io.ReadCloser { return nil })
	}
}

// lateBlock returns what tells, at the end of an answer, whether it has been blocked
// since its verdict: the error in OpenAI's form, or nil. An image that the client has
// got is not taken back, as long as it is no mere draft: what is no stream has no
// other way than to break off.
func (t *trip) lateBlock(a *attempt) func() []byte {
	certain := a.verdict
	return func() []byte {
		isWhole := !t.x.streamed() && a.facts.delivered() > 0
		if a.verdict == certain || !a.verdict.class.isBlock() || isWhole || t.blockStatus == 0 {
			return nil
		}
		return t.x.error(a.verdict, t.blockStatus).openAI()
	}
}

// setForm makes the headers fit a body that is another one, of unknown length.
func setForm(res *http.Response, isEvents bool) {
	dropHeaders(res.Header, ofBody|ofAccount)
	kind := jsonContentType
	if isEvents {
		kind = "text/event-stream"
	}
	res.Header.Set("Content-Type", kind)
	res.ContentLength = -1
}

// restate puts an upstream's own error into the form of the client's call. One that
// stood inside a 200 has been put into Google's with it.
func (t *trip) restate(a *attempt, l *leg) {
	isOpenAI := t.x.call.surface == surfaceOpenAI
	wasOpenAI := l.format == formatOpenAI && !isAnswer(a.received)
	if l.way <= wayAsIs || isOpenAI == wasOpenAI {
		return
	}
	problem := *a.problem
	problem.retryDelay = cmp.Or(problem.retryDelay, a.delay) // of a header
	body := problem.native()
	if isOpenAI {
		body = problem.openAI()
	}
	_ = a.res.Body.Close()
	a.res.Body = io.NopCloser(bytes.NewReader(body))
	setForm(a.res, false)
	a.res.ContentLength = int64(len(body))
	a.res.Header.Set("Content-Length", strconv.Itoa(len(body)))
	if after := problem.retryAfter(t.now(), t.midnight()); after != "" {
		a.res.Header.Set("Retry-After", after)
	}
}
