// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"
)

// scenario is one way in which a call may go: how it is asked, what upstreams do
// with it, how its client behaves, and what may come of it. What does not follow
// from the plays by the table of verdicts is a fault of the gateway.
type scenario struct {
	name   string
	weight int
	site   site
	ask    ask
	plays  []play // visit by visit; what arrives beyond them is a fault
	client client
	want   []want // any of them

	isRepeatable bool // its prompt is asked for again, a reload later
	isEarly      bool // the upstream answers before it has read the request
}

func (s *scenario) play(visit int) *play {
	if visit > len(s.plays) {
		return nil
	}
	return &s.plays[visit-1]
}

// want is an outcome that is right.
type want struct {
	status  int
	reason  string
	images  int    // that the client has
	text    bool   // the answer is right without one
	late    string // the reason of an error in the stream
	isCut   bool   // the answer breaks off, and the client can tell
	visits  [2]int // the least and the most
	verdict string // as it is counted; empty: it is not, or nobody can tell how
	left    bool   // the client has gone: nothing but the visits can be known
}

// client is how the client of a call behaves.
type client struct {
	leaves    stage
	slowRead  bool
	slowWrite bool
	hurry     time.Duration // its x-server-timeout
}

// stage is when a client leaves.
type stage uint8

const (
	neverLeaves   stage = iota
	leavesSoon          // within half a second, wherever the call is by then
	leavesInBody        // in the middle of the answer
	leavesSending       // in the middle of its own request
)

// given is an answer after so many visits.
func given(visits int) []want { return givenImages(1, visits) }

func givenImages(images, visits int) []want {
	return []want{{status: 200, images: images, visits: [2]int{visits, visits}, verdict: "ok"}}
}

func givenText(visits int) []want {
	return []want{{status: 200, text: true, visits: [2]int{visits, visits}, verdict: "ok"}}
}

func refused(status int, reason string, visits int, verdict string) []want {
	return []want{{status: status, reason: reason, visits: [2]int{visits, visits}, verdict: verdict}}
}

// underLimits is what becomes of a call that needs so many visits, and may be
// refused, or be let through and have no room for its retry.
func underLimits(visits int) []want {
	all := append(given(visits), refused(429, "RATE_LIMITED", 0, "limited")...)
	if visits > 1 {
		all = append(all, refused(503, "UNAVAILABLE", 1, "transient")...)
	}
	return all
}

// gone is all that can be said about a call whose client leaves.
func gone(visits int) []want { return []want{{left: true, visits: [2]int{0, visits}}} }

// scenarios are what the load is made of, each as often as its weight.
func scenarios() []*scenario {
	all := []*scenario{
		{name: "image", weight: 30, ask: askUnary, plays: []play{draws}, want: given(1)},
		{name: "image, stream", weight: 10, ask: askEvents, plays: []play{draws}, want: given(1)},
		{name: "image, JSON array", weight: 5, ask: askArray, plays: []play{draws}, want: given(1)},
		{name: "text", weight: 10, ask: askText, plays: []play{tells}, want: givenText(1)},
		{name: "text, stream", weight: 5, ask: askTextEvents, plays: []play{tells}, want: givenText(1)},
		{name: "Vertex form", weight: 4, ask: askVertex, plays: []play{draws}, want: given(1)},
		{name: "OpenAI images", weight: 5, ask: askImages, plays: []play{draws}, want: given(1)},
		{name: "OpenAI images, three", weight: 3, ask: askThree, plays: []play{draws, draws, draws}, want: givenImages(3, 3)},
		{name: "OpenAI images, three, one fails", weight: 2, ask: askThree, plays: []play{draws, overloaded, draws, draws}, want: givenImages(3, 4)},
		{name: "OpenAI images, three, one is blocked", weight: 2, ask: askThree, plays: []play{draws, stopsImage, draws}, want: oneBlocked},
		{name: "OpenAI images, blocked", weight: 1, ask: askImages, plays: []play{stopsImage}, want: refused(400, "content_policy_violation", 1, "blocked")},
		{name: "OpenAI chat", weight: 3, ask: askChat, plays: []play{draws}, want: given(1)},
		{name: "OpenAI chat, stream", weight: 3, ask: askChatEvents, plays: []play{draws}, want: given(1)},
		{name: "OpenAI chat, stream, blocked", weight: 1, ask: askChatEvents, plays: []play{stopsImage}, want: refused(400, "content_policy_violation", 1, "blocked")},

		{name: "block of an image", weight: 4, ask: askUnary, plays: []play{stopsImage}, isRepeatable: true, want: refused(400, "IMAGE_SAFETY", 1, "blocked")},
		{name: "block in a stream", weight: 2, ask: askEvents, plays: []play{stopsImage}, want: refused(400, "IMAGE_SAFETY", 1, "blocked")},
		{name: "block of a prompt", weight: 2, ask: askUnary, plays: []play{stopsPrompt}, want: refused(400, "PROHIBITED_CONTENT", 1, "forbidden")},
		{name: "block of a prompt, JSON array", weight: 1, ask: askArray, plays: []play{stopsPrompt}, want: refused(400, "PROHIBITED_CONTENT", 1, "forbidden")},
		{name: "no image", weight: 2, ask: askAlone, plays: []play{tells}, want: refused(400, "NO_IMAGE", 1, "blocked")},
		{name: "IMAGE_OTHER, then an image", weight: 2, ask: askUnary, plays: []play{stopsOther, draws}, want: given(2)},
		{name: "IMAGE_OTHER twice", weight: 1, ask: askUnary, plays: []play{stopsOther, stopsOther}, want: refused(400, "IMAGE_OTHER", 2, "blocked")},
		{name: "late block in a stream", weight: 2, ask: askTextEvents, plays: []play{stopsLate}, want: lateBlock},
		{name: "late block in an array", weight: 2, ask: askTextArray, plays: []play{stopsLate}, want: lateBlock},

		{name: "five failures", weight: 1, ask: askUnary, plays: []play{overloaded, crashed, overloaded, crashed, overloaded}, want: refused(503, "UNAVAILABLE", 5, "transient")},
		{name: "no room, then an image", weight: 3, ask: askUnary, plays: []play{busy, draws}, want: given(2)},
		{name: "a key is rejected", weight: 1, ask: askUnary, plays: []play{denies, draws}, want: given(2)},
		{name: "a bad request", weight: 2, ask: askUnary, plays: []play{objects}, want: refused(400, "INVALID_ARGUMENT", 1, "client")},
		{name: "an image breaks off", weight: 2, ask: askUnary, plays: []play{cuts}, want: brokenOff},
		{name: "a stream breaks off", weight: 2, ask: askEvents, plays: []play{cuts}, want: brokenOff},
		{
			name: "hangs in the body", weight: 1, ask: askUnary, plays: slices.Repeat([]play{hangsInBody}, 5), client: client{hurry: 3 * time.Second}, want: inVain,
		},
		{name: "hangs before headers", weight: 1, ask: askUnary, plays: slices.Repeat([]play{hangs}, 5), client: client{hurry: 3 * time.Second}, want: inVain},
		{name: "hangs, then elsewhere", weight: 1, site: siteImpatient, ask: askText, plays: []play{hangs, tells}, want: givenText(2)},

		{name: "upload", weight: 6, ask: askUpload(1*mB, 6*mB), plays: []play{draws}, want: given(1)},
		{name: "upload, large", weight: 1, ask: askUpload(16*mB, 20*mB), plays: []play{draws}, want: given(1)},
		{name: "upload, slow", weight: 1, ask: askUpload(1*mB, 2*mB), client: client{slowWrite: true}, plays: []play{draws}, want: given(1)},
		{name: "upload that is sent again", weight: 3, ask: askUpload(1*mB, 6*mB), plays: []play{overloaded, resetsInBody, draws}, want: given(3)},
		{name: "large upload that is sent again", weight: 1, ask: askUpload(16*mB, 20*mB), plays: []play{resets, draws}, want: given(2)},
		{name: "slow reader", weight: 2, ask: askUnary, client: client{slowRead: true}, plays: []play{draws}, want: given(1)},
		{name: "slow reader of a stream", weight: 1, ask: askEvents, client: client{slowRead: true}, plays: []play{draws}, want: given(1)},
		{name: "upload beyond the limit", weight: 1, ask: askTooMuch, want: refused(413, "BODY_TOO_LARGE", 0, "client")},
		{name: "upload beyond the limit, without a length", weight: 1, ask: askTooMuchUnsaid, want: []want{{status: 413, reason: "BODY_TOO_LARGE", visits: [2]int{0, 1}, verdict: "client"}}, plays: []play{draws}},
		{name: "malformed", weight: 1, ask: askMalformed, want: refused(400, "MALFORMED_REQUEST", 0, "client")},

		{name: "leaves at some time", weight: 3, ask: askUnary, client: client{leaves: leavesSoon}, plays: []play{drawsLate}, want: gone(1)},
		{name: "leaves a retry", weight: 2, ask: askUnary, client: client{leaves: leavesSoon}, plays: []play{overloaded, resets, drawsLate}, want: gone(3)},
		{name: "leaves an image", weight: 2, ask: askUnary, client: client{leaves: leavesInBody}, plays: []play{draws}, want: gone(1)},
		{name: "leaves a stream", weight: 2, ask: askEvents, client: client{leaves: leavesInBody}, plays: []play{draws}, want: gone(1)},
		{name: "leaves its upload", weight: 2, ask: askUpload(2*mB, 6*mB), client: client{leaves: leavesSending}, plays: []play{draws}, want: gone(1)},
		{name: "leaves three images", weight: 1, ask: askThree, client: client{leaves: leavesSoon}, plays: []play{draws, drawsLate, drawsLate}, want: gone(3)},

		{name: "list of models", weight: 1, ask: askModels, plays: []play{echoes}, want: echoed},
		{name: "countTokens", weight: 2, ask: askCount, plays: []play{echoes}, want: echoed},
		{name: "file upload", weight: 1, ask: askFile, plays: []play{echoes}, want: echoed},
		{
			name: "file upload, refused early", weight: 2, ask: askFile, client: client{slowWrite: true}, isEarly: true, plays: []play{objects},
			// Who hangs up on a client that still sends may be faster than the answer.
			want: []want{
				{status: 400, reason: "INVALID_ARGUMENT", visits: [2]int{1, 1}},
				{status: 400, isCut: true, visits: [2]int{1, 1}},
				{status: 400, reason: "INVALID_ARGUMENT", isCut: true, visits: [2]int{1, 1}},
				{status: 503, reason: "UPSTREAM_UNAVAILABLE", visits: [2]int{1, 1}},
				{visits: [2]int{1, 1}},
			},
		},
		{name: "the site's next handler", weight: 1, ask: askElsewhere, want: []want{{status: 200, text: true}}},

		{name: "limited", weight: 24, site: siteLimited, ask: askUnary, plays: []play{draws}, want: underLimits(1)},
		{name: "limited, fails", weight: 1, site: siteLimited, ask: askUnary, plays: []play{overloaded, draws}, want: underLimits(2)},
		{name: "leaves the queue", weight: 2, site: siteLimited, ask: askUnary, client: client{leaves: leavesSoon}, plays: []play{drawsLate}, want: append(gone(1), underLimits(1)...)},

		{name: "rephrased", weight: 2, site: siteRephrasing, ask: askUnary, plays: []play{stopsImage, draws}, want: given(2)},
		{name: "rephrased, then elsewhere", weight: 2, site: siteRephrasing, ask: askUnary, plays: []play{stopsImage, stopsImage, draws}, want: given(3)},
		{name: "not rephrased", weight: 1, site: siteRephrasing, ask: askUnary, plays: []play{stopsPrompt}, want: refused(400, "PROHIBITED_CONTENT", 1, "forbidden")},

		{name: "to OpenAI", weight: 4, site: siteTranslating, ask: askUnary, plays: []play{draws}, want: given(1)},
		{name: "to OpenAI, stream", weight: 3, site: siteTranslating, ask: askEvents, plays: []play{draws}, want: given(1)},
		{name: "to OpenAI, fails", weight: 2, site: siteTranslating, ask: askUnary, plays: []play{overloaded, resets, draws}, want: given(3)},
		{name: "to OpenAI, from OpenAI", weight: 2, site: siteTranslating, ask: askImages, plays: []play{overloaded, draws}, want: given(2)},

		{name: "client's own key", weight: 3, site: siteSingle, ask: askUnary, plays: []play{draws}, want: given(1)},
		{name: "client's own key, fails", weight: 1, site: siteSingle, ask: askUnary, plays: []play{overloaded}, want: refused(503, "UNAVAILABLE", 1, "transient")},
		{name: "behind reverse_proxy", weight: 3, site: siteProxied, ask: askUnary, plays: []play{draws}, want: given(1)},
		{name: "behind reverse_proxy, fails", weight: 1, site: siteProxied, ask: askEvents, plays: []play{overloaded, draws}, want: given(2)},
		{name: "behind reverse_proxy, blocked", weight: 1, site: siteProxied, ask: askUnary, plays: []play{stopsImage}, want: refused(400, "IMAGE_SAFETY", 1, "blocked")},
	}
	for i, f := range faults {
		ask := []ask{askUnary, askEvents}[i%2]
		all = append(all,
			&scenario{name: f.name, weight: 1, ask: ask, plays: []play{f.play, draws}, want: given(2)},
			&scenario{name: f.name + " twice", weight: 1, ask: ask, plays: []play{f.play, f.play, draws}, want: given(3)})
	}
	return all
}

// faults are worth another attempt, each.
var faults = []struct {
	name string
	play play
}{
	{"500", crashed},
	{"503", overloaded},
	{"empty answer", empty},
	{"page", page},
	{"broken JSON", broken},
	{"reset before headers", resets},
	{"reset in headers", resetsInHead},
	{"reset in the body", resetsInBody},
	{"reset in a chunk", resetsInChunk},
	{"malformed chunk", malformedChunk},
}

// repeat asks for what has been blocked, a reload later.
var repeat = &scenario{name: "repeats a blocked prompt", ask: askUnary, want: refused(400, "REPEATED_BLOCK", 0, "blocked")}

var (
	lateBlock = []want{{status: 200, text: true, late: "SAFETY", visits: [2]int{1, 1}, verdict: "blocked"}}
	brokenOff = []want{{status: 200, isCut: true, visits: [2]int{1, 1}, verdict: "transient"}}
	echoed    = []want{{status: 200, text: true, visits: [2]int{1, 1}}}
	// Every upstream may be on trial when it is asked, and has half of the time that is left.
	inVain     = []want{{status: 504, reason: "DEADLINE_EXCEEDED", visits: [2]int{0, 5}, verdict: "transient"}}
	oneBlocked = []want{
		{status: 200, images: 2, visits: [2]int{3, 3}, verdict: "ok"},
		// The block of one was known before the last was sent.
		{status: 200, images: 1, visits: [2]int{2, 2}, verdict: "ok"},
	}
)

func (s *scenario) String() string { return fmt.Sprintf("%s (%s)", s.name, siteNames[s.site]) }
