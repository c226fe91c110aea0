// SPDX-License-Identifier: Apache-2.0

package gemini

import "strings"

// The fields of an error object where an answer should be: Google's, and those of
// OpenAI's and of who follows it, see words. Their IDs are negative, because they stand
// in several schemas beside what each has of its own.
const (
	errorFieldCode   fieldID = -1 - iota // a number, or a word of OpenAI's or of Interactions
	errorFieldKind                       // OpenAI's type
	errorFieldStatus                     // Google's word
	errorFieldMessage
	errorFieldReason // of an ErrorInfo
	errorFieldParam
	errorFieldInner    // Azure's code
	errorFieldStage    // at which OpenAI's moderation has acted
	errorFieldCategory // that a moderation has found
	errorFieldFlagged  // text that an aggregator's moderation has found
)

// errorFields are those of an error object at a path, and what the object itself is.
func errorFields(at string, object field) map[string]field {
	return map[string]field{
		at:                       object,
		at + ".code":             {id: errorFieldCode, keep: maxWord},
		at + ".type":             {id: errorFieldKind, keep: maxWord},
		at + ".status":           {id: errorFieldStatus, keep: maxWord},
		at + ".message":          {id: errorFieldMessage, keep: maxMessage},
		at + ".details[].reason": {id: errorFieldReason, keep: maxWord},
		at + ".param":            {id: errorFieldParam, keep: maxWord},
		at + ".innererror.code":  {id: errorFieldInner, keep: maxWord},
		at + ".innerError.code":  {id: errorFieldInner, keep: maxWord},
		at + ".moderationDetails.moderationStage": {id: errorFieldStage, keep: maxWord},
		at + ".moderationDetails.categories[]":    {id: errorFieldCategory, keep: maxWord},
		at + ".metadata.reasons[]":                {id: errorFieldCategory, keep: maxWord},
		at + ".metadata.flaggedInput":             {id: errorFieldFlagged},
	}
}

// take takes a field of the error. It does nothing with those that are none of its.
func (e *googleError) take(id fieldID, value []byte) {
	switch text := string(value); id {
	case errorFieldCode:
		e.setCode(value)
	case errorFieldKind:
		e.kind = text
	case errorFieldStatus:
		e.status = text
	case errorFieldMessage:
		e.message = text
	case errorFieldReason:
		e.reason = text
	case errorFieldParam:
		e.param = text
	case errorFieldInner:
		e.inner = text
	case errorFieldStage:
		e.stage = text
	case errorFieldCategory:
		e.isAboutMinors = e.isAboutMinors || strings.Contains(text, minors)
	case errorFieldFlagged:
		e.isFlagged = true
	}
}
