// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"
)

// fault is something that must not be.
type fault struct {
	kind string
	text string
}

// The kinds of faults, and what the report calls them.
const (
	wrongVerdict = "wrong verdicts"
	lostCall     = "lost calls"
	sentAgain    = "calls sent when they must not be"
	wrongBody    = "wrong bodies"
	leak         = "leaks"
	miscount     = "wrong counts"
	breakdown    = "breakdowns"
)

var faultKinds = []string{wrongVerdict, lostCall, sentAgain, wrongBody, leak, miscount, breakdown}

// opinion is what is thought of a call that has ended.
type opinion struct {
	outcome  string // in a word, for the report
	verdict  string // as which the gateway must have counted it; empty: nobody can tell
	unsure   int    // attempts that may have been made besides, and have not arrived
	isUnseen bool   // the gateway never got it
	faults   []fault
}

// judge compares what became of a call with what may become of it.
func judge(c *call, visits []visit, reloads []reload) (o opinion) {
	blame := func(kind, format string, a ...any) {
		o.faults = append(o.faults, fault{kind, fmt.Sprintf("%s, %v: ", c.name(), c.scenario) + fmt.Sprintf(format, a...)})
	}
	for _, v := range visits {
		if v.fault != "" {
			blame(sentAgain, "visit %d to %s %s", v.number, v.upstream, v.fault)
		}
		if !v.ended {
			blame(leak, "visit %d to %s goes on after its call", v.number, v.upstream)
		}
	}
	judgeRepeats(c, visits, blame)
	r := &c.result
	if r.flaw != "" {
		blame(wrongBody, "%s", r.flaw)
	}
	if r.isUnbegun(visits) && (r.isReused || isNear(c, reloads)) {
		o.outcome, o.isUnseen = "not begun ("+r.short()+")", true
		return o
	}
	for _, w := range c.scenario.want {
		if w.fits(r, len(visits)) {
			o.outcome, o.verdict, o.unsure = r.String(), w.verdict, w.visits[1]-len(visits)
			judgeImages(c, visits, blame)
			return o
		}
	}
	o.outcome = "wrong"
	kind := wrongVerdict
	if slices.ContainsFunc(visits, func(v visit) bool { return v.delivered }) && !r.left && r.late == "" {
		kind = lostCall
	}
	blame(kind, "%v after %d visits %v in %v (%v), wanted %v", r, len(visits), visits, c.ended.Sub(c.began).Round(time.Millisecond), r.err, c.scenario.want)
	return o
}

// isUnbegun tells a call that has met nobody: its connection has been closed
// before the gateway has read its header. A server may close one that is idle
// while the next request is on its way there, and does so behind a reload.
func (r *result) isUnbegun(visits []visit) bool {
	return r.err != nil && !r.left && r.status == 0 && len(visits) == 0
}

// isNear tells whether a new connection may have met a listener that was about to
// close: Caddy opens one for each configuration, and the kernel resets what is
// still in the queue of the old.
func isNear(c *call, reloads []reload) bool {
	const delay = 3 * time.Second
	return slices.ContainsFunc(reloads, func(r reload) bool {
		return c.began.Before(r.ended.Add(delay)) && c.ended.After(r.began)
	})
}

// reload is when a configuration was loaded.
type reload struct{ began, ended time.Time }

func (w want) fits(r *result, visits int) bool {
	switch {
	case visits < w.visits[0] || visits > w.visits[1], w.left != r.left:
		return false
	case w.left:
		return true
	}
	return w.status == r.status && w.reason == r.reason && w.late == r.late && w.isCut == r.isCut && w.images == len(r.images) &&
		(r.status != 429 || r.retryAfter != "")
}

// judgeRepeats looks for what is sent again after a success, and to those who
// have blocked it. The parts of a call for several images are on their way at the
// same time.
func judgeRepeats(c *call, visits []visit, blame func(kind, format string, a ...any)) {
	if c.parts > 1 {
		return
	}
	for i, v := range visits {
		for _, before := range visits[:i] {
			switch {
			case before.delivered:
				blame(sentAgain, "visit %d after visit %d had been answered", v.number, before.number)
			case before.blocked && before.account == v.account && before.prompt == v.prompt:
				blame(sentAgain, "%q came to %s again, which had blocked it", v.prompt, v.account)
			}
		}
	}
}

// judgeImages looks whether the images that a client has are those that were
// drawn for it, each once.
func judgeImages(c *call, visits []visit, blame func(kind, format string, a ...any)) {
	got := make(map[imageID]bool)
	for _, id := range c.result.images {
		isDrawn := id.call == c.number && id.visit >= 1 && id.visit <= len(visits) && visits[id.visit-1].delivered
		if !isDrawn || got[id] {
			blame(wrongBody, "image %v was not drawn for it, or came twice", id)
		}
		got[id] = true
	}
	if c.result.left {
		return
	}
	for _, v := range visits {
		if id := (imageID{c.number, v.number}); v.delivered && c.size > 0 && c.scenario.want[0].images > 0 && !got[id] {
			blame(lostCall, "image %v was drawn, and its client has not got it", id)
		}
	}
}

// String says what the client got.
func (r *result) String() string {
	switch {
	case r.left:
		return "left"
	case r.status == 0:
		return "no answer (" + r.short() + ")"
	case r.isCut:
		return fmt.Sprintf("%d, broken off", r.status)
	case r.late != "":
		return fmt.Sprintf("%d, late %s", r.status, r.late)
	case r.reason != "":
		return fmt.Sprintf("%d %s", r.status, r.reason)
	}
	return fmt.Sprintf("%d, %d images", r.status, len(r.images))
}

// short is why there was no answer, without addresses.
func (r *result) short() string {
	why := "another error"
	for _, known := range []error{io.EOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED} {
		if errors.Is(r.err, known) {
			why = known.Error()
		}
	}
	if r.isReused {
		why += ", idle connection"
	}
	return why
}

// String says what became of a visit.
func (v visit) String() string {
	return fmt.Sprintf("%s with %s: delivered %v, blocked %v", v.upstream, v.account, v.delivered, v.blocked)
}

// overLimit is the most visits in a window of time, if that is more than a limit
// allows.
func overLimit(times []time.Time, limit int, window time.Duration) int {
	first, most := 0, 0
	for i, at := range times {
		for at.Sub(times[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	if most > limit {
		return most
	}
	return 0
}
