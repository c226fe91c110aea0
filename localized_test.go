// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"strings"
	"testing"
)

// FuzzLocalize: whatever a client says of its languages, it gets words in one that
// there is, and what is beyond the limit makes no difference.
func FuzzLocalize(f *testing.F) {
	for _, seed := range []string{"", "fr", "zh-TW, zh;q=0.9, en;q=0.5", "*", "ru;q=0", "x-klingon, de-CH-1996", ";q=;,,", strings.Repeat("a", maxAcceptLanguage) + ",fr", "en;q=NaN", "zh_Hant\xff"} {
		f.Add(seed, "IMAGE_SAFETY")
	}
	f.Fuzz(func(t *testing.T, languages, reason string) {
		locale, message := localize(languages, reason, stageOutput)
		i := slices.Index(locales[:], locale)
		if i < 0 || message == "" || message != userMessages[explain(reason, stageOutput).say][i] {
			t.Fatalf("%q: %q in %q", languages, message, locale)
		}
		short := shortened(languages)
		if len(short) > maxAcceptLanguage || !strings.HasPrefix(languages, short) || len(languages) <= maxAcceptLanguage && short != languages {
			t.Fatalf("%q is shortened to %q", languages, short)
		}
		if again, _ := localize(short, reason, stageOutput); again != locale && short != "" {
			t.Fatalf("%q is %s, but %q is %s", languages, locale, short, again)
		}
	})
}
