// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"strconv"
	"strings"
)

// enums are the words behind the numbers that old REST clients ask for with
// enum-encoding=int, and behind OpenAI's spelling. They differ by surface.
type enums struct{ finish, block enumWords }

type enumWords struct {
	numbers []string // by number
	aliases map[string]string
}

var (
	geminiEnums = &enums{
		finish: enumWords{numbers: []string{
			"FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "LANGUAGE", "BLOCKLIST",
			"PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL", "IMAGE_SAFETY", "UNEXPECTED_TOOL_CALL",
			"TOO_MANY_TOOL_CALLS", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER", "NO_IMAGE", "IMAGE_RECITATION",
		}},
		block: enumWords{numbers: []string{"BLOCK_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY"}},
	}
	vertexEnums = &enums{
		finish: enumWords{numbers: []string{
			"FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "BLOCKLIST",
			"PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL", "MODEL_ARMOR",
			"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "UNEXPECTED_TOOL_CALL", "NO_IMAGE",
		}},
		block: enumWords{numbers: []string{"BLOCKED_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "MODEL_ARMOR", "JAILBREAK"}},
	}
	openAIEnums = &enums{
		finish: enumWords{aliases: map[string]string{
			"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "function_call": "STOP", "content_filter": reasonContentFilter,
			"other": "FINISH_REASON_UNSPECIFIED", // the AI SDK's word for what it does not know; Google's is a block
		}},
	}
)

// eitherEnums are for calls of OpenAI's clients that go out as native ones: some
// gateways answer in the form of the client all the same.
var eitherEnums = &enums{
	finish: enumWords{numbers: geminiEnums.finish.numbers, aliases: openAIEnums.finish.aliases},
	block:  geminiEnums.block,
}

// name returns the word for a value, or the value itself where it is unknown.
func (e enumWords) name(kind jsonKind, value []byte) string {
	word := string(value)
	if kind == jsonNumber {
		if n, err := strconv.Atoi(word); err == nil && n >= 0 && n < len(e.numbers) {
			return e.numbers[n]
		}
		return word
	}
	// Google's OpenAI-compatible API may name the cause behind the word, as in
	// "content_filter: RECITATION".
	general, cause, _ := strings.Cut(word, ": ")
	alias, ok := e.aliases[general]
	switch {
	case !ok && e.aliases != nil:
		return cmp.Or(blockWord(value), word) // some write Google's small
	case !ok:
		return word
	case finishReasons[cause].isBlock():
		return cause
	}
	return alias
}

// blockWord is Google's word for a block, if that is what an aggregator passes on of
// the model's own; others call what ends their answers something else.
func blockWord(native []byte) string {
	if word := strings.ToUpper(string(native)); finishReasons[word].isBlock() {
		return word
	}
	return ""
}
