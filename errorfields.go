// SPDX-License-Identifier: Apache-2.0

package gemini

import "strings"

// errorMembers are those of an error object where an answer should be: Google's, and
// those of OpenAI's and of who follows it, see words.
var errorMembers = []struct {
	path string
	keep int
	take func(e *googleError, value string)
}{
	{"code", maxWord, (*googleError).setCode},                                    // a number, or a word of OpenAI's or of Interactions
	{"type", maxWord, func(e *googleError, value string) { e.kind = value }},     // OpenAI's
	{"status", maxWord, func(e *googleError, value string) { e.status = value }}, // Google's word
	{"message", maxMessage, func(e *googleError, value string) { e.message = value }},
	{"details[].reason", maxWord, func(e *googleError, value string) { e.reason = value }}, // of an ErrorInfo
	{"param", maxWord, func(e *googleError, value string) { e.param = value }},
	{"innererror.code", maxWord, takeInner}, // Azure's
	{"innerError.code", maxWord, takeInner},
	{"moderationDetails.moderationStage", maxWord, func(e *googleError, value string) { e.stage = value }}, // OpenAI's
	{"moderationDetails.categories[]", maxWord, takeCategory},
	{"metadata.reasons[]", maxWord, takeCategory},                                       // an aggregator's
	{"metadata.flaggedInput", 0, func(e *googleError, _ string) { e.isFlagged = true }}, // likewise
}

func takeInner(e *googleError, value string) { e.inner = value }

func takeCategory(e *googleError, value string) {
	e.isAboutMinors = e.isAboutMinors || strings.Contains(value, minors)
}

// errorFields are those of an error object at a path, and what the object itself is.
// Their IDs are negative, because they stand in several schemas beside what each has of
// its own.
func errorFields(at string, object field) map[string]field {
	fields := map[string]field{at: object}
	for i, member := range errorMembers {
		fields[at+"."+member.path] = field{id: fieldID(-1 - i), keep: member.keep}
	}
	return fields
}

// take takes the value of one of the errorFields.
func (e *googleError) take(id fieldID, value []byte) { errorMembers[-1-id].take(e, string(value)) }
