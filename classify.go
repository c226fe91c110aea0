// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"slices"
	"strings"
)

// class is what an answer means for the call it answers: the rows of the
// decision table, and the values of the metric label "verdict".
type class uint8

const (
	classOK         class = iota
	classTransient        // may pass if tried again: overload, resets, broken answers
	classLimited          // a quota per minute is used up
	classExhausted        // a quota per day is used up
	classAccount          // the key, its project or its money
	classRegion           // not offered where the caller seems to be
	classRepairable       // complains about something that can be mended
	classClient           // the request itself is wrong
	classBlocked          // a soft block: another prompt may pass
	classForbidden        // a hard block: final
)

var classNames = [...]string{"ok", "transient", "limited", "exhausted", "account", "region", "repairable", "client", "blocked", "forbidden"}

func (c class) String() string { return classNames[c] }

func (c class) isBlock() bool { return c == classBlocked || c == classForbidden }

// The stages at which a filter can act.
const (
	stagePrompt = "prompt"
	stageOutput = "output"
)

// The reasons that this module finds by itself; all others are Google's words.
const (
	reasonNoImage           = "NO_IMAGE" // also Google's, with the same meaning
	reasonImageSafety       = "IMAGE_SAFETY"
	reasonContentFilter     = "CONTENT_FILTER"
	reasonEmpty             = "EMPTY_RESPONSE"
	reasonUnavailable       = "UPSTREAM_UNAVAILABLE"
	reasonDeadline          = "DEADLINE_EXCEEDED"
	reasonTooLarge          = "BODY_TOO_LARGE"
	reasonMalformed         = "MALFORMED_REQUEST"
	reasonUnsupported       = "UNSUPPORTED_FIELD" // of a call that has to be translated
	reasonRepeated          = "REPEATED_BLOCK"
	reasonRateLimited       = "RATE_LIMITED"
	reasonOverBudget        = "BUDGET_EXCEEDED" // of an upstream
	reasonPaused            = "PROJECT_PAUSED"
	reasonInteractionFailed = "INTERACTION_FAILED"
	reasonCancelled         = "CANCELLED" // the client has left; Google's word for its 499
)

// finishReasons are the words that end a candidate and mean a block. Whatever
// is not listed passes: new values appear without notice (wire §4).
var finishReasons = map[string]class{
	"SAFETY":                   classBlocked,
	"RECITATION":               classBlocked,
	"LANGUAGE":                 classBlocked,
	"OTHER":                    classBlocked,
	"IMAGE_SAFETY":             classBlocked,
	"IMAGE_RECITATION":         classBlocked,
	"IMAGE_OTHER":              classBlocked,
	"NO_IMAGE":                 classBlocked,
	"CONTENT_FILTER":           classBlocked, // the OpenAI-compatible surface names no other
	"BLOCKLIST":                classForbidden,
	"PROHIBITED_CONTENT":       classForbidden,
	"SPII":                     classForbidden,
	"IMAGE_PROHIBITED_CONTENT": classForbidden,
	"MODEL_ARMOR":              classForbidden,
	"JAILBREAK":                classForbidden,
}

// blockReasons are the words of promptFeedback.blockReason.
var blockReasons = map[string]class{
	"SAFETY":                   classBlocked,
	"OTHER":                    classBlocked,
	"IMAGE_SAFETY":             classBlocked,
	"BLOCKLIST":                classForbidden,
	"PROHIBITED_CONTENT":       classForbidden,
	"MODEL_ARMOR":              classForbidden,
	"JAILBREAK":                classForbidden,
	"SPII":                     classForbidden, // not seen here, but final wherever it is (contract §1)
	"IMAGE_PROHIBITED_CONTENT": classForbidden, // likewise

	// The unused defaults of the SDKs and of the proto.
	"BLOCKED_REASON_UNSPECIFIED": classOK,
	"BLOCK_REASON_UNSPECIFIED":   classOK,
}

// verdict is what an answer is.
type verdict struct {
	class  class
	reason string // one word, Google's where there is one
	stage  string // of a block
	said   string // what Google, or another upstream, said about it
	text   string // what the model said instead of an image; may quote the prompt
	status int    // the HTTP status of an error of the upstream's
	ours   bool   // the reason is this module's word
	finish string // and this was Google's, if there was one

	// isForeign tells that not Google has spoken, but an upstream with filters of its own.
	isForeign bool

	blocked string // the reason for which the prompt was blocked before, if this is a repeat
}

// noImage says when an answer that ended well but has no image is an error.
type noImage string

const (
	noImageAuto  noImage = "auto" // only when the client asked for images alone
	noImageError noImage = "error"
	noImagePass  noImage = "pass"
)

// expectation is what a call wants of its answer.
type expectation struct {
	stream      bool    // the answer comes in several objects
	image       bool    // by its model or by its modalities
	imageAPI    bool    // an API that returns nothing but images: predict, images/generations
	imagesAlone bool    // the client asked for images and nothing else
	thoughts    bool    // the client asked for thoughts, so that an image may be a draft
	noImage     noImage // the operator's rule
	commitText  bool    // the first text of an image stream may go out
}

// requiresImage tells whether STOP without an image is a refusal.
func (e *expectation) requiresImage() bool {
	switch {
	case !e.image || e.noImage == noImagePass:
		return false
	case e.noImage == noImageError:
		return true
	}
	return e.imagesAlone || e.imageAPI
}

// moment is a point in an answer at which it can be judged.
type moment uint8

const (
	midObject moment = iota
	objectEnd        // of an answer, or of a chunk of a stream
	answerEnd
)

// judge decides what an answer is as soon as that is certain: at the first byte
// of an image, at the end of the object that settles it, or at the end of all.
func (f *facts) judge(e *expectation, at moment) (v verdict, certain bool) {
	switch {
	case f.imageReady(e):
		return verdict{}, true
	case at == midObject:
		return verdict{}, false
	case at == answerEnd && f.cutOff:
		if v, blocked := f.block(); blocked {
			return v, true // what has been blocked must not be tried again, however the answer ended
		}
		return verdict{class: classTransient, reason: reasonUnavailable}, true
	case at == answerEnd && !f.begun, f.objects == 1 && f.empty && !e.stream && !e.imageAPI:
		return verdict{class: classTransient, reason: reasonEmpty}, true
	case at == answerEnd && f.objects == 0:
		return verdict{class: classTransient, reason: reasonUnavailable}, true
	}
	if v, blocked := f.block(); blocked {
		return v, true
	}
	if v, failed := f.failure(); failed {
		return v, true
	}
	if e.stream && at != answerEnd {
		return verdict{}, f.mayGo(e)
	}
	v = f.withoutImage(e)
	// What follows the object can still show that the answer is broken: a length
	// that is not reached, a chunk or a checksum that is missing.
	return v, at == answerEnd || v.class != classOK
}

// judgeLate judges the whole of an answer that has gone to the client already.
func (f *facts) judgeLate(e *expectation) verdict {
	if v, blocked := f.block(); blocked {
		return v
	}
	if v, failed := f.failure(); failed || f.cutOff {
		return v
	}
	return f.withoutImage(e)
}

// mayGo tells whether a chunk of a stream lets the stream go to the client.
func (f *facts) mayGo(e *expectation) bool {
	if !e.image || e.commitText {
		return f.content
	}
	switch f.finish {
	case "":
		return false
	case "STOP":
		return !e.requiresImage() // else an image may still follow: STOP has been seen on several chunks (wire §3)
	}
	return true
}

// withoutImage judges an answer that has ended well and has no image.
func (f *facts) withoutImage(e *expectation) verdict {
	switch {
	case f.failed && f.delivered() == 0:
		return verdict{class: classTransient, reason: reasonInteractionFailed}
	case f.filtered != "" && f.delivered() == 0:
		return verdict{class: hardened(classBlocked, f.filtered), reason: reasonImageSafety, stage: stageOutput, said: f.filtered, ours: true}
	case !e.requiresImage() || f.toolCall || f.delivered() > 0:
		return verdict{}
	case f.finish == "STOP" || e.imageAPI:
		return verdict{class: hardened(classBlocked, f.finishSaid), reason: reasonNoImage, stage: stageOutput, text: string(f.text), ours: true, finish: f.finish}
	}
	return verdict{}
}

// block finds a block of the prompt or of a candidate, the graver of both.
func (f *facts) block() (verdict, bool) {
	v := f.promptBlock()
	if f.stoppedClass > v.class {
		v = verdict{class: f.stoppedClass, reason: f.stopped, stage: stageOutput, said: f.stoppedSaid}
		if f.stopped == reasonNoImage {
			v.text = string(f.text)
		}
	}
	return v, v.class.isBlock()
}

// isOutweighedBy tells that a block says more than the one of a candidate before, if
// there was one: it is final, or one that guard has to remember.
func (f *facts) isOutweighedBy(reason string, class class) bool {
	if class == classBlocked && f.stoppedClass == classBlocked {
		return guarded[reason] && !guarded[f.stopped]
	}
	return class.isBlock() && class > f.stoppedClass
}

// promptBlock is the block of the prompt, if there is one. An unknown word counts
// only where there is nothing else.
func (f *facts) promptBlock() verdict {
	c, known := blockReasons[f.blockReason]
	if !known && f.blockReason != "" && f.blockReason != "0" && f.candidates == 0 {
		c = classBlocked
	}
	if !c.isBlock() {
		return verdict{}
	}
	return verdict{class: hardened(c, f.blockMessage), reason: cmp.Or(asWord(f.blockReason), "OTHER"), stage: stagePrompt, said: f.blockMessage}
}

// hardened makes a soft block final where a support code says that a child is
// concerned.
func hardened(c class, said string) class {
	if c == classBlocked && concernsChild(said) {
		return classForbidden
	}
	return c
}

// advisor is the reason whose advice fits: a block that a support code made
// final must not be told to try another wording.
func (v verdict) advisor() string {
	reason := v.googleReason()
	if v.class == classForbidden && finishReasons[reason] == classBlocked {
		return "PROHIBITED_CONTENT"
	}
	return reason
}

// googleReason is the reason that a filter has given, be it for an earlier call.
func (v verdict) googleReason() string { return cmp.Or(v.blocked, v.reason) }

// failure finds an error object where an answer should be: in a 200, or in a
// stream. What it says is read from the object itself, if nothing has gone out.
func (f *facts) failure() (verdict, bool) {
	if f.fault == nil {
		return verdict{}, false
	}
	return f.fault.verdict(), true
}

// verdict is what the error means for its call.
func (e *googleError) verdict() verdict {
	if v, blocked := e.block(); blocked {
		return v
	}
	return verdict{class: e.class(), reason: asWord(cmp.Or(e.reason, e.status, e.capitals())), status: e.code}
}

// class sorts an error by what can be done about it. The body decides before
// the status: a bad key is a 400 and an empty account a 429 (wire §7).
func (e *googleError) class() class {
	if v, blocked := e.block(); blocked {
		return v.class
	}
	if _, told := e.told(); told.class != classOK {
		return told.class
	}
	for _, rule := range errorRules {
		if rule.applies(e) {
			return rule.class
		}
	}
	return classClient
}

// errorRules are tried in order.
var errorRules = []struct {
	class   class
	applies func(e *googleError) bool
}{
	{classAccount, func(e *googleError) bool { return slices.Contains([]int{401, 402, 403}, e.code) }},
	{classAccount, func(e *googleError) bool { return e.reason == "API_KEY_INVALID" }},
	{classAccount, func(e *googleError) bool { return e.code == 429 && (e.noAccess || aboutMoney(e.message)) }},
	{classExhausted, func(e *googleError) bool { return e.code == 429 && e.perDay }},
	{classLimited, func(e *googleError) bool { return e.code == 429 }},
	{classRegion, func(e *googleError) bool {
		return e.status == "FAILED_PRECONDITION" && strings.Contains(strings.ToLower(e.message), "location")
	}},
	{classTransient, func(e *googleError) bool { return e.code >= 500 || e.code == 408 || e.code == 425 }}, // RFC 9110 §15.5.9, RFC 8470
}

// aboutMoney recognises the 429s that no waiting cures (wire §7).
func aboutMoney(message string) bool {
	message = strings.ToLower(message)
	return strings.Contains(message, "prepayment credits") || strings.Contains(message, "spending cap")
}
