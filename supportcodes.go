// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"regexp"
	"slices"
	"strings"
)

// supportCode is one of the numbers that Google's image filters put into a finishMessage or raiFilteredReason.
type supportCode struct {
	code     string
	category string // Google's word for what the filter saw; empty where Google documents none for this code
	advice   string // a full sentence on what to do next; empty where category is
	child    bool   // the child-safety filter decided: a hard block, whatever the finishReason says
}

// supportCategory is one row of Google's tables of support codes.
type supportCategory struct {
	category string
	codes    []string
	advice   string
	child    bool
}

// supportCategories is the union of the tables that Google publishes, in its words:
//
//   - Gemini image models: https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/capabilities/gemini-image-responsible-ai
//   - Imagen (adds third-party content): https://docs.cloud.google.com/vertex-ai/generative-ai/docs/image/responsible-ai-imagen
//   - Veo (adds 42237218 and 60599140): https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/video/responsible-ai-and-usage-guidelines
//
// Veo's table files 63429089 under prohibited content and 64151117 under video safety; the two image tables agree with
// each other, and this is a gateway for image models, so theirs is what stands here.
// 11030041 has been seen with IMAGE_PROHIBITED_CONTENT and is in none of the tables, so it has no category here either.
var supportCategories = []supportCategory{
	{"Child", []string{"58061214", "17301594"}, adviseNever, true},
	{
		"Celebrity",
		[]string{"29310472", "15236754"},
		"Leave real, well-known people out of the prompt and of the images sent with it.", false,
	},
	{"Celebrity or child", []string{"64151117"}, adviseNever, false},
	{
		"People/Face",
		[]string{"39322892"},
		"Leave people out of the picture, or allow them with personGeneration where the model has that setting.", false,
	},
	{"Dangerous content", []string{"62263041"}, "Change the prompt so that it asks for nothing dangerous.", false},
	{"Hate", []string{"57734940", "22137204"}, "Change the prompt so that it demeans nobody.", false},
	{
		"Personal information",
		[]string{"92201652"},
		"Take personal data, such as card numbers and home addresses, out of the prompt.", false,
	},
	{"Prohibited content", []string{"89371032", "49114662", "72817394", "60599140"}, adviseNever, false},
	{"Sexual", []string{"90789179", "63429089", "43188360"}, "Change the prompt so that it asks for nothing sexual.", false},
	{
		"Third-party content",
		[]string{"35561574", "35561575"},
		"Leave out characters, brands and works that belong to others.", false,
	},
	{"Toxic", []string{"78610348"}, "Word the prompt without insults.", false},
	{"Violence", []string{"61493863", "56562880"}, "Change the prompt so that it asks for no violence.", false},
	{"Vulgar", []string{"32635315"}, "Word the prompt without vulgar expressions.", false},
	{"Video safety violation", []string{"42237218"}, adviseChange, false},
	{"Other", []string{"74803281", "29578790", "42876398"}, adviseChange, false},
}

const (
	supportCodeDigits = 8  // every code Google documents has eight; other numbers in a message are not codes
	maxSupportCodes   = 16 // more than Google has categories; bounds what one message can put into an error
)

// supportCodeList finds "Support code: 11030041." and "Support codes: 39322892, 29310472", the two forms on the wire.
var supportCodeList = regexp.MustCompile(`(?i)support codes?:?\s*(\d[\d,\s]*)`)

// supportCodes finds the codes in a finishMessage or raiFilteredReason, each once, in the order given.
// A code that Google does not document is returned without category and advice, so that it can still be quoted.
func supportCodes(message string) []supportCode {
	var found []supportCode
	for _, list := range supportCodeList.FindAllStringSubmatch(message, maxSupportCodes) {
		for code := range strings.FieldsFuncSeq(list[1], isNotDigit) {
			if len(code) != supportCodeDigits || slices.ContainsFunc(found, func(c supportCode) bool { return c.code == code }) {
				continue
			}
			if found = append(found, lookupSupportCode(code)); len(found) == maxSupportCodes {
				return found
			}
		}
	}
	return found
}

// lookupSupportCode gives a code what Google's tables say about it, if anything.
func lookupSupportCode(code string) supportCode {
	for _, row := range supportCategories {
		if slices.Contains(row.codes, code) {
			return supportCode{code: code, category: row.category, advice: row.advice, child: row.child}
		}
	}
	return supportCode{code: code}
}

// concernsChild tells that a message has a code of child safety in it, wherever Google
// may have put it: such a block is final.
func concernsChild(message string) bool {
	for number := range strings.FieldsFuncSeq(message, isNotDigit) {
		if len(number) == supportCodeDigits && lookupSupportCode(number).child {
			return true
		}
	}
	return false
}

func isNotDigit(r rune) bool { return r < '0' || r > '9' }
