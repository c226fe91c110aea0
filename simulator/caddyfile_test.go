// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// FuzzCaddyfile: what the grammar accepts is valid, and the same in JSON.
func FuzzCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"gemini_simulator", "gemini_simulator {\n\tlatency 250ms\n}", "gemini_simulator {\n\tlatency 1d\n\tlatency 2d\n}", "gemini_simulator x",
		"gemini_simulator {\n\tlatency -1s\n}", "gemini_simulator {\n\tlatency\n}", "gemini_simulator {\n\tlatency 1s 2s\n}", "gemini_simulator {\n\tlatency 1s {\n\t}\n}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		tokens, err := caddyfile.Tokenize(config, "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		accepted := new(Handler)
		if accepted.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		encoded, err := json.Marshal(accepted)
		if err != nil {
			t.Fatalf("%q: %v", config, err)
		}
		again := new(Handler)
		if err := caddy.StrictUnmarshalJSON(encoded, again); err != nil || !reflect.DeepEqual(again, accepted) {
			t.Fatalf("%q: %+v, %v in %s", config, again, err, encoded)
		}
		if err := again.Validate(); err != nil {
			t.Fatalf("%q is accepted, and then refused: %v", config, err)
		}
	})
}
