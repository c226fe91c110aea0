// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// knownReasons is every reason that can end in an error, at every stage where it can strike.
var explainedReasons = []reasonAt{
	// promptFeedback.blockReason
	{"SAFETY", "prompt"},
	{"OTHER", "prompt"},
	{"BLOCKLIST", "prompt"},
	{"PROHIBITED_CONTENT", "prompt"},
	{"IMAGE_SAFETY", "prompt"},
	{"MODEL_ARMOR", "prompt"},
	{"JAILBREAK", "prompt"},
	// finishReason
	{"SAFETY", "output"},
	{"RECITATION", "output"},
	{"LANGUAGE", "output"},
	{"OTHER", "output"},
	{"BLOCKLIST", "output"},
	{"PROHIBITED_CONTENT", "output"},
	{"SPII", "output"},
	{"IMAGE_SAFETY", "output"},
	{"IMAGE_PROHIBITED_CONTENT", "output"},
	{"IMAGE_RECITATION", "output"},
	{"IMAGE_OTHER", "output"},
	{"NO_IMAGE", "output"},
	{"MALFORMED_FUNCTION_CALL", "output"},
	{"UNEXPECTED_TOOL_CALL", "output"},
	{"TOO_MANY_TOOL_CALLS", "output"},
	{"MODEL_ARMOR", "output"},
	{"MALFORMED_RESPONSE", "output"},
	{"MISSING_THOUGHT_SIGNATURE", "output"},
	// finish_reason of the OpenAI-compatible API
	{"CONTENT_FILTER", "output"},
	// error.code of Interactions
	{"CONTENT_BLOCKED", "output"},
	// this module's own
	{"INTERACTION_FAILED", ""},
	{"EMPTY_RESPONSE", "output"},
	{"DEADLINE_EXCEEDED", ""},
	{"BODY_TOO_LARGE", ""},
	{"REPEATED_BLOCK", ""},
	{"RATE_LIMITED", ""},
	{"BUDGET_EXCEEDED", ""},
	{"PROJECT_PAUSED", ""},
	{"CANCELLED", ""},
	{"MALFORMED_REQUEST", ""},
	{"UNSUPPORTED_FIELD", ""},
	{"UPSTREAM_UNAVAILABLE", ""},
}

var notToBeRepeated = []string{
	"PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "MODEL_ARMOR", "JAILBREAK",
}

// readByClients matches what LangChain acts upon in an error message.
var readByClients = regexp.MustCompile(`(?i)billing|exceeded your.*quota|(try again|retry) (in|after) \d`)

func TestEveryReasonIsExplained(t *testing.T) {
	for _, at := range explainedReasons {
		for _, general := range []reasonAt{{anyReason, stagePrompt}, {anyReason, anyStage}} {
			if got := explain(at.reason, at.stage); got.what == reasonTexts[general].what {
				t.Errorf("%s at stage %q has the general text only", at.reason, at.stage)
			}
		}
	}
	for at := range reasonTexts {
		known := slices.ContainsFunc(explainedReasons, func(k reasonAt) bool { return k.reason == at.reason })
		if at.reason != anyReason && !known {
			t.Errorf("%s is explained but on no list", at.reason)
		}
	}
}

func TestReasonTextsReadWell(t *testing.T) {
	deciders := regexp.MustCompile(`Google|[Tt]he model|Model Armor|this gateway`)
	for at, text := range reasonTexts {
		first, _ := utf8.DecodeRuneInString(text.what)
		switch {
		case text.what == "" || text.next == "" || text.helpTitle == "":
			t.Errorf("%v: something is missing in %+v", at, text)
		case unicode.IsUpper(first) && !strings.HasPrefix(text.what, "Google"):
			t.Errorf("%v: what starts in upper case: %q", at, text.what)
		case strings.ContainsAny(text.what[len(text.what)-1:], ".!?,;: "):
			t.Errorf("%v: what ends in punctuation: %q", at, text.what)
		case !strings.HasSuffix(text.next, "."):
			t.Errorf("%v: next is no sentence: %q", at, text.next)
		case !deciders.MatchString(text.what):
			t.Errorf("%v: what does not say who decided: %q", at, text.what)
		case readByClients.MatchString(text.what + ". " + text.next):
			t.Errorf("%v: clients would act on %q", at, text.what+". "+text.next)
		case !strings.HasPrefix(text.help, "https://ai.google.dev/") && !strings.HasPrefix(text.help, "https://docs.cloud.google.com/"):
			t.Errorf("%v: help is not Google's documentation: %q", at, text.help)
		}
	}
}

func TestExplain(t *testing.T) {
	got := explain("IMAGE_SAFETY", "output")
	if msg, want := got.what+". "+got.next,
		"the generated image was stopped by Google's output filter, which no setting turns off. Change the prompt before trying again."; msg != want {
		t.Errorf("IMAGE_SAFETY at output:\n got %q\nwant %q", msg, want)
	}
	if explain("IMAGE_SAFETY", "prompt").what == got.what {
		t.Error("IMAGE_SAFETY reads alike for prompt and output")
	}
	for _, stage := range []string{"prompt", "output", ""} {
		if text := explain("NEVER_SEEN", stage); !strings.Contains(text.what, "no explanation") || text.configurable {
			t.Errorf("unknown reason at stage %q: %+v", stage, text)
		}
	}
	if text := explain("NEVER_SEEN", "prompt"); !strings.Contains(text.what, "the prompt") {
		t.Errorf("an unknown prompt block speaks of something else: %q", text.what)
	}
}

// Whoever has a filter of their own is not called Google.
func TestForeignTexts(t *testing.T) {
	for at, text := range foreignTexts {
		google, got := explain(at.reason, at.stage), verdict{stage: at.stage, isForeign: true}.explain(at.reason)
		switch {
		case got != text:
			t.Errorf("%v: explained by %+v", at, got)
		case text.what == google.what || text.say != google.say:
			t.Errorf("%v: not what it is for Google: %+v", at, text)
		case strings.Contains(text.what+text.next, "Google") || !strings.Contains(text.what, "the upstream") || text.configurable:
			t.Errorf("%v: speaks of Google: %+v", at, text)
		case !strings.HasSuffix(text.next, ".") || readByClients.MatchString(text.what+". "+text.next) || text.helpTitle == "":
			t.Errorf("%v: does not read well: %+v", at, text)
		case verdict{stage: at.stage}.explain(at.reason) != google:
			t.Errorf("%v: Google is taken for another", at)
		}
	}
}

func TestConfigurableIsSafetyAlone(t *testing.T) {
	for _, at := range explainedReasons {
		if got, want := explain(at.reason, at.stage).configurable, at.reason == "SAFETY"; got != want {
			t.Errorf("%s at stage %q: configurable = %v, want %v", at.reason, at.stage, got, want)
		}
	}
}

func TestHardBlocksAreNotToBeRepeated(t *testing.T) {
	for _, reason := range notToBeRepeated {
		for _, stage := range []string{"prompt", "output", ""} {
			text := explain(reason, stage)
			if !strings.HasPrefix(text.next, "Do not send it again: ") || text.say != sayForbidden {
				t.Errorf("%s at stage %q: next %q, message to the user %d", reason, stage, text.next, text.say)
			}
		}
	}
	for at, text := range reasonTexts {
		if text.say == sayForbidden && !slices.Contains(notToBeRepeated, at.reason) {
			t.Errorf("%v is no hard block but told as one", at)
		}
	}
}

func TestUserMessagesAreComplete(t *testing.T) {
	jargon := regexp.MustCompile(`[A-Z]{3,}|_|API|Google|Gemini|prompt|token|JSON`)
	used := make([]bool, userMessageCount)
	for _, text := range reasonTexts {
		used[text.say] = true
	}
	for message, inLanguages := range userMessages {
		if !used[message] {
			t.Errorf("message %d is for no reason", message)
		}
		for i, sentence := range inLanguages {
			end, _ := utf8.DecodeLastRuneInString(sentence)
			switch {
			case sentence == "":
				t.Errorf("message %d is missing in %s", message, locales[i])
			case end != '.' && end != '。':
				t.Errorf("message %d in %s is no sentence: %q", message, locales[i], sentence)
			case jargon.MatchString(sentence) || readByClients.MatchString(sentence):
				t.Errorf("message %d in %s is not plain: %q", message, locales[i], sentence)
			case slices.Index(inLanguages[:], sentence) != i:
				t.Errorf("message %d in %s is not translated: %q", message, locales[i], sentence)
			}
		}
	}
}

func TestUserMessagesAreInTheirScript(t *testing.T) {
	// The characters of these sentences that the two Chinese scripts write differently.
	const (
		simplified  = "请图这个无规处务应误结显现换种语产过说样发传数减联络开时暂还题与创构类输统写后内为没较试范"
		traditional = "請圖這個無規處務應誤結顯現換種語產過說樣發傳數減聯絡開時暫還題與創構類輸統寫後內為沒較試範"
	)
	for message, inLanguages := range userMessages {
		if strings.ContainsAny(inLanguages[inSimplifiedChinese], traditional) {
			t.Errorf("message %d: traditional characters in %q", message, inLanguages[inSimplifiedChinese])
		}
		if strings.ContainsAny(inLanguages[inTraditionalChinese], simplified) {
			t.Errorf("message %d: simplified characters in %q", message, inLanguages[inTraditionalChinese])
		}
		for _, r := range inLanguages[inRussian] {
			if unicode.IsLetter(r) && !unicode.Is(unicode.Cyrillic, r) {
				t.Errorf("message %d: %q in the Russian text", message, r)
			}
		}
	}
}

func TestLocalizeFollowsAcceptLanguage(t *testing.T) {
	manyGerman := strings.Repeat("de-DE,", 10_000)
	for header, want := range map[string]string{
		"":                           "en",
		"*":                          "en",
		"en-GB":                      "en",
		"de":                         "en",
		"ja,ko;q=0.8":                "en",
		"uk":                         "en", // close to Russian, but not to be answered in it
		"zh":                         "zh-Hans",
		"zh-CN":                      "zh-Hans",
		"zh-SG":                      "zh-Hans",
		"zh-Hans-HK":                 "zh-Hans",
		"zh-TW":                      "zh-Hant",
		"zh-HK":                      "zh-Hant",
		"zh-MO":                      "zh-Hant",
		"zh-Hant":                    "zh-Hant",
		"ZH-tw":                      "zh-Hant",
		"ru-RU":                      "ru",
		"fr-CA":                      "fr",
		"fr;q=0.2, ru;q=0.9":         "ru",
		"de, zh-TW;q=0.8, fr;q=0.7":  "zh-Hant",
		"en;q=0.1,fr":                "fr",
		"fr;q=0, ru;q=0.1":           "ru",
		"fr;q=lots":                  "en",
		"\x00\xff":                   "en",
		"<script>alert(1)</script>":  "en",
		strings.Repeat("f", 100_000): "en",
		strings.Repeat("-", 100_000): "en",
		manyGerman + "fr":            "en", // beyond the cap
		"fr," + manyGerman:           "fr",
	} {
		locale, message := localize(header, "IMAGE_SAFETY", "output")
		if locale != want {
			t.Errorf("%.40q: locale %s, want %s", header, locale, want)
		}
		if text := userMessages[sayImageWithheld][slices.Index(locales[:], want)]; message != text {
			t.Errorf("%.40q: message %q, want %q", header, message, text)
		}
	}
}

func TestAcceptLanguageIsCutBetweenElements(t *testing.T) {
	exact := strings.Repeat("x", maxAcceptLanguage-3) + ",fr"
	for _, c := range []struct{ name, header, want string }{
		{"short", "fr,en", "fr,en"},
		{"just fits", exact, exact},
		{"last element does not fit", exact + "-CA", strings.Repeat("x", maxAcceptLanguage-3)},
		{"last element fits, more follow", exact + ",en", exact},
		{"one endless element", strings.Repeat("x", maxAcceptLanguage+1), ""},
	} {
		if got := shortened(c.header); got != c.want {
			t.Errorf("%s: got %d bytes …%q", c.name, len(got), got[max(0, len(got)-8):])
		}
	}
}

func TestLocalizeGroupsReasons(t *testing.T) {
	for _, c := range []struct {
		reason, stage string
		want          userMessage
	}{
		{"SAFETY", "prompt", sayPromptRefused},
		{"SAFETY", "output", sayResultWithheld},
		{"IMAGE_SAFETY", "prompt", sayPromptRefused},
		{"IMAGE_RECITATION", "output", sayTooSimilar},
		{"NO_IMAGE", "output", sayNoImage},
		{"UPSTREAM_UNAVAILABLE", "", sayUnavailable},
		{"BODY_TOO_LARGE", "", sayTooLarge},
		{"CANCELLED", "", sayNotFinished},
		{"MALFORMED_REQUEST", "", sayBadRequest},
		{"NEVER_SEEN", "prompt", sayPromptRefused},
		{"NEVER_SEEN", "output", sayNotFinished},
	} {
		if _, got := localize("zh-TW", c.reason, c.stage); got != userMessages[c.want][inTraditionalChinese] {
			t.Errorf("%s at stage %q: %q", c.reason, c.stage, got)
		}
	}
}

func TestSupportCodes(t *testing.T) {
	other := supportCode{code: "42876398", category: "Other", advice: adviseChange}
	for _, c := range []struct {
		name, message string
		want          []supportCode
	}{
		{"none", "Unable to show the generated image. Try rephrasing the prompt.", nil},
		{"one of a finishMessage", "If you think this was an error, send feedback. Support code: 42876398.", []supportCode{other}},
		{"two of a raiFilteredReason", "send feedback. Support codes: 39322892, 29310472", []supportCode{
			{
				code: "39322892", category: "People/Face",
				advice: "Leave people out of the picture, or allow them with personGeneration where the model has that setting.",
			},
			{
				code: "29310472", category: "Celebrity",
				advice: "Leave real, well-known people out of the prompt and of the images sent with it.",
			},
		}},
		{"undocumented", "Support code: 11030041.", []supportCode{{code: "11030041"}}},
		{"repeated", "Support codes: 42876398,42876398. Support code: 42876398", []supportCode{other}},
		{"two lists", "Support code: 42876398. support codes 11030041", []supportCode{other, {code: "11030041"}}},
		{"numbers that are no codes", "Order 58061214: 2 images. Support codes: 3, 580612140", nil},
		{"child safety", "Support codes: 58061214, 17301594", []supportCode{
			{code: "58061214", category: "Child", advice: adviseNever, child: true},
			{code: "17301594", category: "Child", advice: adviseNever, child: true},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := supportCodes(c.message); !slices.Equal(got, c.want) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestSupportCategories(t *testing.T) {
	seen := map[string]string{}
	for _, row := range supportCategories {
		if row.category == "" || !strings.HasSuffix(row.advice, ".") || readByClients.MatchString(row.advice) {
			t.Errorf("%q: %q", row.category, row.advice)
		}
		if row.child != (row.category == "Child") {
			t.Errorf("%s: child = %v", row.category, row.child)
		}
		for _, code := range row.codes {
			if earlier, ok := seen[code]; ok {
				t.Errorf("%s is both %s and %s", code, earlier, row.category)
			}
			seen[code] = row.category
			if got := supportCodes("Support codes: " + code); len(got) != 1 || got[0].category != row.category {
				t.Errorf("%s (%s): found %+v", code, row.category, got)
			}
		}
	}
}

func FuzzSupportCodes(f *testing.F) {
	for _, seed := range []string{
		"", "Support code: 11030041.", "Support codes: 39322892, 29310472", "support codes 1\t2,\n58061214",
		"Support codes: " + strings.Repeat("58061214,", 100), "Support codes: ٥٨٠٦١٢١٤",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message string) {
		codes := supportCodes(message)
		if len(codes) > maxSupportCodes {
			t.Fatalf("%d codes", len(codes))
		}
		for i, c := range codes {
			switch {
			case !regexp.MustCompile(`^[0-9]{8}$`).MatchString(c.code) || !strings.Contains(message, c.code):
				t.Errorf("%q is no code of %q", c.code, message)
			case slices.Index(codes, c) != i:
				t.Errorf("%s twice", c.code)
			case (c.category == "") != (c.advice == ""):
				t.Errorf("category without advice: %+v", c)
			case c.child != (c.category == "Child"):
				t.Errorf("child-safety flag: %+v", c)
			}
		}
	})
}
