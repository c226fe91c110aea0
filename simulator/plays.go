// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"crypto/sha256"
	"net/http"
	"strings"
)

// Errors that only scenarios answer with.
const (
	msgPrepay   = "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project and billing."
	msgSpendCap = "Your project has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/spend to manage your project spend cap."
	msgRegion   = "User location is not supported for the API use."
	msgShared   = "Resource exhausted. Please try again later. Please refer to https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details."
)

var (
	errMissingSignature = unsignedPart(noImageSignature, 2, 1)
	errTokenLimit       = invalidArgument("The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).")
	errRegion           = &apiError{
		code: 400, status: "FAILED_PRECONDITION", message: msgRegion,
		details: array{debugInfo("[ORIGINAL ERROR] generic::failed_precondition: " + msgRegion + " [google.rpc.error_details_ext] { message: \"" + msgRegion + "\" }")},
	}
	errUnauthenticated = unauthenticated("Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED", service)
	errForbidden       = &apiError{
		code: 403, status: "PERMISSION_DENIED", message: "The caller does not have permission",
		details: array{errorInfo("IAM_PERMISSION_DENIED", object{{"service", service}})},
	}
	errLeakedKey   = &apiError{code: 403, status: "PERMISSION_DENIED", message: "Your API key was reported as leaked. Please use another API key."}
	errOverloaded  = &apiError{code: 503, status: "UNAVAILABLE", message: "The model is overloaded. Please try again later."}
	errSharedQuota = &apiError{
		code: 429, status: "RESOURCE_EXHAUSTED", message: msgShared,
		errors: array{object{{"message", msgShared}, {"domain", "global"}, {"reason", "rateLimitExceeded"}}},
	}
	errCancelled = &apiError{
		code: 499, status: "CANCELLED", message: "The operation was cancelled.",
		details: array{debugInfo("[ORIGINAL ERROR] generic::cancelled: ")},
	}
)

func natural(x *exchange) error { return x.answer(x.natural()) }

func always(e *apiError) play { return func(x *exchange) error { return x.fail(e) } }

// unknownModalities lets pass what has no such field, so that a gateway that
// leaves it out is answered.
func unknownModalities(x *exchange) error {
	if x.call.modalitiesKey == "" {
		return natural(x)
	}
	return x.fail(unknownField(x.call.modalitiesKey, "generation_config"))
}

// missingSignature is content with any signature, so that a client or a gateway
// that adds one is answered. A call without history gets the error, too: one
// plain call is enough to see it.
func missingSignature(x *exchange) error {
	if x.call.signed {
		return natural(x)
	}
	return x.fail(cmp.Or(x.call.unsigned, errMissingSignature))
}

func notFound(x *exchange) error { return x.fail(modelNotFound(x.call)) }

func limited(quotas ...quota) play {
	return func(x *exchange) error { return x.fail(quotaExceeded(x.call.model, x.wait, quotas...)) }
}

func rawBody(contentType, text string) play {
	return func(x *exchange) error { return x.raw(http.StatusOK, contentType, text) }
}

// finish ends a candidate that has no parts.
func finish(reason string, empty emptiness, message string) play {
	return func(x *exchange) error { return x.answer(x.stopped(reason, empty, message)) }
}

// finishAfterText ends a candidate that has said something.
func finishAfterText(reason, message string) play {
	return func(x *exchange) error {
		return x.answer(x.stopped(reason, contentObject, message, piece{text: "Of course! Here is the picture that you asked for: "}))
	}
}

// finishNatural ends an ordinary answer with another reason.
func finishNatural(reason string) play {
	return func(x *exchange) error {
		a := x.natural()
		a.candidates[0].finish = reason
		return x.answer(a)
	}
}

func safety(x *exchange) error {
	a := x.stopped("SAFETY", contentObject, "")
	a.candidates[0].ratings = ratings("HARM_CATEGORY_HATE_SPEECH", "LOW", true)
	return x.answer(a)
}

// continuation ends as no block does: clients come back with the token.
func continuation(x *exchange) error {
	if x.call.continued {
		return natural(x)
	}
	a := x.stopped("CONTINUATION", contentObject, "", piece{text: "To be "})
	a.candidates[0].token = "c2ltdWxhdG9y"
	return x.answer(a)
}

func blockPrompt(reason, message string, ratings array) play {
	return func(x *exchange) error {
		u := x.call.usage()
		u.thoughts = 0 // the model never saw the prompt
		return x.answer(answer{block: reason, blockMessage: message, ratings: ratings, usage: u})
	}
}

func feedbackOnly(reason string) play {
	return func(x *exchange) error {
		a := x.natural()
		a.block, a.ratings = reason, ratings("", "", false)
		return x.answer(a)
	}
}

// ratings rates everything negligible but one category.
func ratings(guilty, probability string, blocked bool) array {
	list := array{}
	for _, category := range []string{
		"HARM_CATEGORY_SEXUALLY_EXPLICIT", "HARM_CATEGORY_HATE_SPEECH", "HARM_CATEGORY_HARASSMENT", "HARM_CATEGORY_DANGEROUS_CONTENT",
	} {
		rating := object{{"category", category}, {"probability", "NEGLIGIBLE"}}
		if category == guilty {
			rating[1].value = probability
			if blocked {
				rating = append(rating, member{"blocked", true})
			}
		}
		list = append(list, rating)
	}
	return list
}

var refused = piece{text: "I cannot draw that for you. It is against my guidelines, but I would be glad to draw something else."}

func textOnly(x *exchange) error { return x.answer(x.stopped("STOP", contentObject, "", refused)) }

// refusal depends on the modalities: a model that may write refuses in words.
func refusal(x *exchange) error {
	switch {
	case x.call.text:
		return textOnly(x)
	case strings.HasPrefix(x.call.model, "gemini-3-pro"):
		return x.answer(x.stopped("IMAGE_SAFETY", contentObject, msgUsePolicy))
	default:
		return x.answer(x.stopped("NO_IMAGE", contentObject, ""))
	}
}

func stopNoParts(x *exchange) error {
	a := x.natural()
	a.candidates[0].parts = nil
	return x.answer(a)
}

func draftThenNoImage(x *exchange) error {
	return x.answer(x.stopped("NO_IMAGE", contentObject, "", x.draft()))
}

func onlyDraft(x *exchange) error {
	a := x.stopped("STOP", contentObject, "", piece{picture: x.picture(0)})
	a.candidates[0].parts[0].thought = true
	a.candidates[0].parts[0].signed = isGemini3(x.call.model)
	return x.answer(a)
}

func unflaggedDrafts(x *exchange) error {
	return x.answer(x.stopped("STOP", contentObject, "",
		piece{picture: x.picture(2)}, piece{picture: x.picture(1)}, piece{picture: x.picture(0)}))
}

func twoCandidates(x *exchange) error {
	a := x.natural()
	a.candidates = append(a.candidates, candidate{finish: "IMAGE_SAFETY", message: msgUsePolicy})
	return x.answer(a)
}

func midStreamError(x *exchange) error {
	a := x.stopped("STOP", contentObject, "", piece{text: "First second third "})
	a.breaks = errCancelled
	return x.answer(a)
}

// maxAttempts bounds how many prompts sim:twice_503 counts for at a time.
const maxAttempts = 1024

// attemptKey is a prompt with its key, hashed: keys are not kept.
type attemptKey [sha256.Size]byte

// twice503 counts attempts and forgets them with the third, so that the next
// three go the same way.
func twice503(x *exchange) error {
	key := sha256.Sum256([]byte(strings.Join([]string{
		x.call.prompt, x.r.Header.Get("X-Goog-Api-Key"), x.r.URL.Query().Get("key"), x.r.Header.Get("Authorization"),
	}, "\x00")))
	attempt := x.sim.attempts.update(key, func(earlier int) (int, bool) { return earlier + 1, earlier < 2 })
	if attempt <= 2 {
		return x.fail(errOverloaded)
	}
	return natural(x)
}

func slow(x *exchange) error {
	if err := x.pause(x.wait); err != nil {
		return err
	}
	return natural(x)
}

func hang(x *exchange) error {
	<-x.r.Context().Done()
	return x.r.Context().Err()
}

func cutBefore(*exchange) error { panic(http.ErrAbortHandler) }

// cut drops the connection half-way through the answer, whatever its length.
func cut(x *exchange) error {
	a := x.natural()
	length, err := x.length(a)
	if err != nil {
		return err
	}
	x.via = func(next flushWriter) flushWriter { return &cutter{flushWriter: next, left: length / 2} }
	return x.answer(a)
}

func trickle(x *exchange) error {
	x.via = func(next flushWriter) flushWriter {
		return &trickler{flushWriter: next, ctx: x.r.Context(), pause: x.wait, piece: 1}
	}
	return natural(x)
}
