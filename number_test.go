// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"
)

// FuzzNumber holds the grammar of numbers against encoding/json, and what two of
// them have in common against their values.
func FuzzNumber(f *testing.F) {
	for _, seed := range [][2]string{{"1", "1.0"}, {"-0", "0e9"}, {"10e-1", "1"}, {"1e400", "10e399"}, {"01", "+1"}, {"1.", ".5"}, {"-", "1e"}, {"0.120", "12e-2"}, {"2147483648", "-5"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, text := range []string{a, b} {
			want := json.Valid([]byte(text)) && strings.Trim(text, "0123456789+-.eE") == ""
			if isNumber(text) != want {
				t.Errorf("%q is a number: %t", text, !want)
			}
			if n := number([]byte(text)); n < 0 || n > 1<<31 {
				t.Errorf("%q tokens are %d", text, n)
			}
		}
		if !isNumber(a) || !isNumber(b) || len(a) > 40 || len(b) > 40 {
			return
		}
		x, isSmall := new(big.Rat).SetString(a)
		y, isSmallToo := new(big.Rat).SetString(b)
		if !isSmall || !isSmallToo || hasLongExponent(a) || hasLongExponent(b) {
			return
		}
		same := string(appendCanonical(nil, []byte(a))) == string(appendCanonical(nil, []byte(b)))
		if same != (x.Cmp(y) == 0) {
			t.Errorf("%s and %s are the same: %t", a, b, same)
		}
	})
}

// hasLongExponent tells a number that would be written out for long.
func hasLongExponent(number string) bool {
	_, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	return len(exponent) > len("-999")
}
