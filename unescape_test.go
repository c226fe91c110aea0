// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"
)

// FuzzUnescape compares with encoding/json, however the string is cut.
func FuzzUnescape(f *testing.F) {
	for _, seed := range []string{"", "plain", `\"\\\/\b\f\n\r\t`, `\ud83d\ude00`, `\ud83d\ud83d\ude00\ude00`, `\ud83dx\u0041`, `\u12`, `\`, `\q\uZZZZ`, "caf\u00e9\\u00e9"} {
		f.Add([]byte(seed), byte(1))
	}
	f.Fuzz(func(t *testing.T, inside []byte, piece byte) {
		read, err := io.ReadAll(newUnescapingReader(stepped(string(inside), int(piece)+1)))
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := io.ReadAll(newUnescapingReader(bytes.NewReader(inside)))
		if !bytes.Equal(read, whole) || len(read) > len(inside) {
			t.Fatalf("%q: %q in pieces of %d, %q as a whole", inside, read, int(piece)+1, whole)
		}
		var want string
		if json.Unmarshal([]byte(`"`+string(inside)+`"`), &want) != nil {
			return // cannot be in a body that has been scanned
		}
		if got := string([]rune(string(read))); got != want { // bytes that are no UTF-8 stay as they are
			t.Fatalf("%q: %q, want %q", inside, got, want)
		}
		if got := string([]rune(string(unescape(bytes.Clone(inside), false)))); got != want {
			t.Fatalf("%q, captured: %q, want %q", inside, got, want)
		}
	})
}
