// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// FuzzCaddyfile: what the grammar accepts is the same configuration in JSON, and
// what it refuses tells of no key.
func FuzzCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"gemini", "gemini {\n}", "gemini x", "gemini {\n\tretry off\n\tguard off\n\tinject off\n\tblock_status pass\n\tno_image error\n}",
		"gemini {\n\tsafety_settings BLOCK_NONE\n\tsafety_settings harassment off\n\tresponse_modalities image\n\timage_models *-image a[b-c]?\n\tstream_commit text\n\thold 1MiB\n\tmax_body 20MB\n}",
		"gemini {\n\trate_limit *pro* {\n\t\trpm 10\n\t\ttpm 1.5M\n\t\trpd 250k\n\t\tipm 3\n\t\tburst 2\n\t\tqueue 30s\n\t\tkey {header.X-Tenant}\n\t}\n\tpause_on_block_rate\n\talias banana gemini-3-pro-image\n}",
		"gemini {\n\tretry {\n\t\tattempts 3\n\t\tbackoff 500ms 1m\n\t\tjitter .5\n\t\tdeadline 1d\n\t\tbudget 0.5 0\n\t}\n\trephrase {\n\t\treplace \"(photo) of\" `${1} with`\n\t\tprefix a \"b c\"\n\t\tsuffix d\n\t}\n}",
		"gemini {\n\tupstream a https://a.example/prefix {\n\t\tapi_key first-canary-key project\n\t\tapi_key {env.SECOND}\n\t\tmodel *-image b\n\t\tprice * 0.04\n\t\tbudget 12.5\n\t\taccept_blocked\n\t\tprobe 1m\n\t\theader_up -X-*\n\t\theader_up +Authorization \"Bearer second-canary\"\n\t\tformat openai images\n\t}\n}",
		"gemini {\n\tupstream v https://aiplatform.googleapis.com {\n\t\tformat vertex\n\t\tproject p\n\t\tlocation us-central1\n\t\ttransport http {\n\t\t\tversions 1.1\n\t\t\tdial_timeout 2s\n\t\t\ttls_insecure_skip_verify\n\t\t}\n\t}\n\tupstream w http://b.example:8080\n}",
		"gemini {\n\tupstream a https://a.example {\n\t\tapi_key first-canary-key project third\n\t}\n}",
		"gemini {\n\tupstream a https://a.example {\n\t\tapi_key a-canary-key\n\t\tapi_key a-canary-key\n\t}\n}",
		"gemini {\n\tresponse_modalities image IMAGE\n}", "gemini {\n\talias a b\n\talias a c\n}", "gemini {\n\tretry {\n\t\tbackoff 1m 1s\n\t}\n}", "gemini {\n\thold 0\n\tmax_body 9EB\n}",
		"gemini {\n\tretry {\n\t\tbackoff 1m 2m\n\t\tdeadline 1ns\n\t\tjitter 1e-400\n\t}\n\tguard 61d\n}", "gemini {\n\trate_limit a {\n\t\tburst 3\n\t}\n}", "gemini {\n\trate_limit a {\n\t\trpm 2\n\t\tburst 3\n\t\tqueue 0\n\t}\n\trate_limit a {\n\t\tipm 1\n\t}\n}",
		"gemini {\n\tupstream a http://a {\n\t\tprice a NaN\n\t\tbudget 1e-9\n\t\tprobe 0\n\t\tmodel * a/b\n\t\theader_up X {http.request.body}\n\t}\n}", "gemini {\n\tupstream a http://a {\n\t\tformat gemini images\n\t\tlocation l\n\t}\n}",
		"gemini {\n\tupstream a http://a {\n\t\theader_up +\n\t\theader_up ++X\n\t\theader_up -a*b*\n\t}\n}", "gemini {\n\tupstream a http://a {\n\t\ttransport gemini {\n\t\t}\n\t}\n}", "gemini {\n\trephrase {\n\t\treplace ( a\n\t}\n}", "gemini {\n\trephrase\n}",
		"gemini {\n\tblock_status 200\n}", "gemini {\n\tupstream a http://a?key=canary-key\n}", "gemini {\n\tupstream a http://a%zz\n\tupstream a http://b\n}", "gemini {\n\tsafety_settings off\n\tsafety_settings sexual off\n}",
		"gemini {\n\tupstream a https://user:canary-password@a.example\n}", "gemini {\n\tprefix <<END\n\ta\n\tEND\n}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, config []byte) {
		tokens, err := caddyfile.Tokenize(config, "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		accepted := new(Options)
		if err := accepted.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			for _, secret := range secretsIn(tokens) {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q: the error tells a key: %v", config, err)
				}
			}
			return
		}
		encoded, err := json.Marshal(accepted)
		if err != nil {
			t.Fatalf("%q: %v", config, err)
		}
		again := new(Options)
		if err := caddy.StrictUnmarshalJSON(encoded, again); err != nil {
			t.Fatalf("%q: %v in %s", config, err, encoded)
		}
		if encodedAgain, err := json.Marshal(again); err != nil || !bytes.Equal(encodedAgain, encoded) {
			t.Fatalf("%q: %s, and then %s, %v", config, encoded, encodedAgain, err)
		}
		again.setDefaults()
		if err := again.check(); err != nil {
			t.Fatalf("%q is accepted, and then refused: %v", config, err)
		}
		transport := new(Transport)
		if err := transport.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil || !reflect.DeepEqual(transport.Options, *accepted) {
			t.Fatalf("%q: the transport has %+v, %v, the handler %+v", config, transport.Options, err, accepted)
		}
	})
}

// secretsIn are the arguments that are nobody's business, if they are part of no other.
func secretsIn(tokens []caddyfile.Token) (secrets []string) {
	for i, token := range tokens[:len(tokens)-1] {
		secret, isFirst := tokens[i+1], i > 0 && tokens[i-1].Line < token.Line
		if !isFirst || token.Text != "api_key" || secret.Line != token.Line || len(secret.Text) < len("canary-key") {
			continue
		}
		holders := slices.DeleteFunc(slices.Clone(tokens), func(other caddyfile.Token) bool { return !strings.Contains(other.Text, secret.Text) })
		if len(holders) == 1 {
			secrets = append(secrets, secret.Text)
		}
	}
	return secrets
}
