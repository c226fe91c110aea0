// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestAdapt compares what Caddyfiles become, in the manner of Caddy's own
// tests: a Caddyfile, a line of dashes, and either JSON or a part of the error.
// What adapts is also loaded far enough to be validated.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("adapt", "*.caddyfiletest"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in adapt: %v", err)
	}
	t.Setenv("CADDYTEST_KEY", upstreamKey)
	t.Setenv("CADDYTEST_CREDENTIALS", serviceAccount(t))
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".caddyfiletest"), func(t *testing.T) {
			caddyfile, want, ok := strings.Cut(readFile(t, name), "\n----------\n")
			if !ok {
				t.Fatal("no line of dashes")
			}
			want = strings.TrimSpace(want)
			config, err := adapt(caddyfile + "\n")
			if strings.HasPrefix(want, "{") {
				checkConfig(t, config, err, want)
				return
			}
			if err == nil {
				t.Fatalf("adapted without the error %q to\n%s", want, indented(t, config))
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q\nwant  %q", err, want)
			}
		})
	}
}

func checkConfig(t *testing.T, config []byte, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got := indented(t, config); got != want {
		t.Errorf("adapted to\n%s\nwant\n%s", got, want)
	}
	var parsed caddy.Config
	if err := json.Unmarshal(config, &parsed); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&parsed); err != nil {
		t.Errorf("validating: %v", err)
	}
}

func indented(t *testing.T, config []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRefusedConfigs loads what only JSON can say wrongly, through both doors;
// each error names the fix.
func TestRefusedConfigs(t *testing.T) {
	t.Setenv("CADDYTEST_KEY", upstreamKey)
	upstreamWith := func(members string) string { return `"upstreams":[{"name":"a","url":"http://a",` + members + `}]` }
	missing := filepath.Join(t.TempDir(), "missing.json")
	notes := fileOf(t, upstreamKey)
	untyped := fileOf(t, `{"private_key":"`+upstreamKey+`"}`)
	projectless := fileOf(t, `{"type":"authorized_user","client_id":"b","client_secret":"`+upstreamKey+`","refresh_token":"`+upstreamKey+`"}`)
	for _, c := range []struct{ name, options, want string }{
		{"category", `"safety_settings":[{"category":"HATE","threshold":"OFF"}]`, `safety_settings: "HATE" is not one of the categories that can be set: HARASSMENT, HATE_SPEECH, SEXUALLY_EXPLICIT, DANGEROUS_CONTENT`},
		{"threshold", `"safety_settings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"NONE"}]`, `safety_settings: "NONE" is not one of BLOCK_NONE, OFF`},
		{"modality", `"response_modalities":["PICTURE"]`, `response_modalities: "PICTURE" is not one of TEXT, IMAGE, AUDIO`},
		{"glob", `"image_models":["[x"]`, `image_models: "[x" is not a pattern such as *-image-*`},
		{"inject", `"inject":"always"`, `inject: "always" is not one of missing, off`},
		{"block_status", `"block_status":200`, `block_status: "200" is neither an HTTP status from 400 to 599 nor pass`},
		{"no_image", `"no_image":"on"`, `no_image: "on" is not one of auto, error, pass`},
		{"stream_commit", `"stream_commit":"always"`, `stream_commit: "always" is not one of image, text`},
		{"max_body", `"max_body":-1`, `max_body and hold are sizes above zero, in bytes`},
		{"hold", `"hold":-1`, `max_body and hold are sizes above zero, in bytes`},
		{"keep_in_memory", `"keep_in_memory":-1`, `keep_in_memory: -1 bytes are less than 256KiB`},
		{"attempts", `"retry":{"attempts":21}`, `retry attempts: "21" is not a whole number from 1 to 20`},
		{"backoff", `"retry":{"backoff":{"initial":-1}}`, `retry backoff: -1ns is not above zero; give a duration such as 30s`},
		{"backoff max", `"retry":{"backoff":{"max":"500ms"}}`, `retry backoff: the first wait, 1s, is longer than the longest, 500ms; swap them`},
		{"jitter", `"retry":{"jitter":1.5}`, `retry jitter: "1.5" is not a number from 0 to 1`},
		{"deadline", `"retry":{"deadline":"-1s"}`, `retry deadline: -1s is not above zero; give a duration such as 30s`},
		{"budget", `"retry":{"budget":{"ratio":-1}}`, `retry budget: "-1" is not a number from 0 to 20`},
		{"budget min", `"retry":{"budget":{"min":-1}}`, `retry budget min: "-1" is not a whole number from 0 to 10000`},
		{"rephrase", `"rephrase":{}`, `rephrase: there is nothing to do; give a prefix, a suffix or a replace rule`},
		{"replacement", `"rephrase":{"replacements":[{"regexp":"a","replacement":"${b}"}]}`, `rephrase replace: the regular expression has no group "b"`},
		{"regexp", `"rephrase":{"replacements":[{"replacement":"b"}]}`, `rephrase replace: "" is not a regular expression in the syntax of Go`},
		{"prefix", `"rephrase":{"prefixes":[" "]}`, `rephrase prefix: an empty text changes nothing; give one, or take it out`},
		{"guard", `"guard":"-1s"`, `guard: -1s is not from 0 to 1440h0m0s; give a duration such as 24h, or 0 to turn it off`},
		{"names", `"upstreams":[{"name":"a","url":"http://a"},{"name":"a","url":"http://b"}]`, `upstream a: there is one of this name already; give each its own`},
		{"keys", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"` + upstreamKey + `"},{"key":"` + upstreamKey + `"}]}]`, `upstream a: api_key 2 is the same as api_key 1; give each key once`},
		{"keys behind placeholders", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"{env.CADDYTEST_KEY}"},{"key":"` + upstreamKey + `"}]}]`, `upstream "a": api_key 2 is the same as api_key 1; give each key once`},
		{"rate_limit glob", `"rate_limits":[{"match":"[x","rpm":1}]`, `rate_limit: "[x" is not a pattern such as *-image-*`},
		{"rate_limit without glob", `"rate_limits":[{"rpm":1}]`, `rate_limit: "" is not a pattern such as *-image-*`},
		{"rate_limit", `"rate_limits":[{"match":"*","queue":"1m"}]`, `rate_limit *: there is nothing to limit; give rpm, tpm, rpd or ipm`},
		{"rpm", `"rate_limits":[{"match":"*","rpm":-1}]`, `rate_limit *: rpm: -1 is not a whole number from 1 to 1e12`},
		{"tpm", `"rate_limits":[{"match":"*","rpm":1,"tpm":1000000000001}]`, `rate_limit *: tpm: 1000000000001 is not a whole number from 1 to 1e12`},
		{"rpd", `"rate_limits":[{"match":"*","rpd":-1}]`, `rate_limit *: rpd: -1 is not a whole number from 1 to 1e12`},
		{"ipm", `"rate_limits":[{"match":"*","ipm":-1}]`, `rate_limit *: ipm: -1 is not a whole number from 1 to 1e12`},
		{"burst", `"rate_limits":[{"match":"*","rpm":10,"burst":11}]`, `rate_limit *: burst: 11 is not a whole number from 1 to 10, its rpm`},
		{"burst below zero", `"rate_limits":[{"match":"*","rpm":10,"burst":-1}]`, `rate_limit *: burst: -1 is not a whole number from 1 to 10, its rpm`},
		{"burst without rpm", `"rate_limits":[{"match":"*","tpm":10,"burst":1}]`, `rate_limit *: burst says how many of the rpm may pass at once; give an rpm, or take it out`},
		{"queue", `"rate_limits":[{"match":"*","rpm":10,"queue":"61m"}]`, `rate_limit *: queue: 1h1m0s is not from 0 to 1h0m0s; give a duration such as 30s, or 0 to refuse at once`},
		{"limit key", `"rate_limits":[{"match":"*","rpm":10,"key":"{http.request.body_base64}"}]`, `rate_limit *: key: the body of a request cannot be looked up here; take a header, or what a map makes of one`},
		{"same rate_limit", `"rate_limits":[{"match":"a","rpm":1},{"match":"a","rpd":1}]`, `rate_limit a: there is a block for it already, and the first that matches applies; put all limits into one`},
		{"unreachable rate_limit", `"rate_limits":[{"match":"*","rpm":1},{"match":"a","rpd":1}]`, `rate_limit a: the block for * stands before it and applies to all models; swap them`},
		{"price", `"upstreams":[{"name":"a","url":"http://a","prices":[{"match":"*","usd_per_image":-1}]}]`, `upstream a: price: "-1" is not a number from 0 to 1000`},
		{"price glob", `"upstreams":[{"name":"a","url":"http://a","prices":[{"usd_per_image":1}]}]`, `upstream a: price: "" is not a pattern such as *-image-*`},
		{"daily budget", `"upstreams":[{"name":"a","url":"http://a","budget":-1}]`, `upstream a: budget: "-1" is not a number above zero, up to 1e9, of USD in a day`},
		{"key in the body", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"a","project":"{http.request.body}"}]}]`, `upstream a: api_key: the body of a request cannot be looked up here; take a header, or what a map makes of one`},
		{"keys of which one splits", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"{env.CADDYTEST_KEY}","project":"{tenant}"},{"key":"` + upstreamKey + `"}]}]`, `upstream "a": api_key 2 is the same as api_key 1; give each key once`},
		{"unset key of a tenant", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"{env.CADDYTEST_UNSET}","project":"{tenant}"}]}]`, `upstream "a": api_key 1 is empty: is the variable or file that it names there?`},
		{"probe", `"upstreams":[{"name":"a","url":"http://a","probe":-1}]`, `upstream a: probe: -1ns is not above zero; give a duration such as 30s`},
		{"header_up", `"upstreams":[{"name":"a","url":"http://a","header_up":{"replace":{"X":[{"search":"a","search_regexp":"a"}]}}}]`, `upstream a: header_up: cannot specify both`},
		{"header_up without a Host", upstreamWith(`"header_up":{"set":{"host":[""]}}`), `upstream a: header_up: Host has no value; give one, or take the line away`},
		{"header_up from the body", `"upstreams":[{"name":"a","url":"http://a","header_up":{"set":{"X":["{http.request.body}"]}}}]`, `upstream a: header_up: the body of a request cannot be looked up here; take a header, or what a map makes of one`},
		{"header_up with the body in it", `"upstreams":[{"name":"a","url":"http://a","header_up":{"replace":{"X":[{"search":"a","replace":"{http.request.body_base64}"}]}}}]`, `upstream a: header_up: the body of a request cannot be looked up here; take a header, or what a map makes of one`},
		{"header_up regexp", `"upstreams":[{"name":"a","url":"http://a","header_up":{"replace":{"X":[{"search_regexp":"("}]}}}]`, `upstream "a": header_up: replacement 0 for header field 'X'`},
		{"transport", `"upstreams":[{"name":"a","url":"http://a","transport":{"protocol":"gemini"}}]`, `upstream a: transport: gemini cannot be inside itself`},
		{"URL", `"upstreams":[{"name":"a","url":"generativelanguage.googleapis.com"}]`, `upstream a: "generativelanguage.googleapis.com" is not a URL such as https://generativelanguage.googleapis.com`},
		{"port", `"upstreams":[{"name":"a","url":"http://127.0.0.1:99999"}]`, `upstream a: there is no port 99999`},
		{"alias", `"aliases":[{"name":"a/b","model":"c"}]`, `alias: "a/b" and "c" are not the names of models`},
		{"alias without name", `"aliases":[{"model":"c"}]`, `alias: "" and "c" are not the names of models`},
		{"alias without model", `"aliases":[{"name":"a"}]`, `alias: "a" and "" are not the names of models`},
		{"aliases", `"aliases":[{"name":"a","model":"b"},{"name":"a","model":"b"}]`, `alias a is given twice`},
		{"format", upstreamWith(`"format":"grpc"`), `upstream a: format: "grpc" is not one of gemini, openai, vertex`},
		{"images_by of no format", upstreamWith(`"images_by":"chat"`), `upstream a: format: only openai has two endpoints for images; take "chat" away`},
		{"images_by of Vertex", upstreamWith(`"format":"vertex","images_by":"images"`), `upstream a: format: only openai has two endpoints for images; take "images" away`},
		{"images_by", upstreamWith(`"format":"openai","images_by":"video"`), `format openai: "video" is not one of images, chat`},
		{"project", upstreamWith(`"project":"b"`), `upstream a: project belongs to Vertex AI; add format vertex, or take the line away`},
		{"project of another format", upstreamWith(`"format":"gemini","project":"b"`), `upstream a: project belongs to Vertex AI; add format vertex, or take the line away`},
		{"project with a slash", upstreamWith(`"format":"vertex","project":"b/c"`), `upstream a: project: "b/c" cannot be part of a path`},
		{"location", upstreamWith(`"format":"vertex","location":"b"`), `upstream a: location needs a project; add one, or credentials that name one`},
		{"location of express mode", upstreamWith(`"format":"vertex","location":"b","api_keys":[{"key":"c"}]`), `upstream a: location needs a project; add one, or credentials that name one`},
		{"credentials", upstreamWith(`"format":"openai","credentials":"b"`), `upstream a: credentials belongs to Vertex AI; add format vertex, or take the line away`},
		{"credentials and key", upstreamWith(`"format":"vertex","credentials":"b","api_keys":[{"key":"c"}]`), `upstream a: credentials and api_key exclude each other; keep one`},
		{"credentials that are not there", upstreamWith(`"format":"vertex","credentials":"` + missing + `"`), `upstream "a": credentials: open ` + missing + `: no such file or directory`},
		{"credentials in no JSON", upstreamWith(`"format":"vertex","credentials":"` + notes + `"`), `upstream "a": credentials: ` + notes + ` is not one of Google's JSON files`},
		{"credentials of no type", upstreamWith(`"format":"vertex","credentials":"` + untyped + `"`), `upstream "a": credentials: ` + untyped + ` is of no type that is known; it must be that of a service account, a user, or a workload identity federation`},
		{"unset credentials", upstreamWith(`"format":"vertex","credentials":"{env.CADDYTEST_UNSET}"`), `upstream "a": credentials: the variable or file that it names is empty`},
		{"credentials without project", upstreamWith(`"format":"vertex","credentials":"` + projectless + `"`), `upstream "a": project: give one, because the credentials name none`},
		{"model with a slash", upstreamWith(`"models":[{"match":"*","model":"b/c"}]`), `upstream a: model: "b/c" is not the name of a model; names with a slash or colon are for format openai`},
		{"unset key", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"{env.CADDYTEST_UNSET}"}]}]`, `upstream "a": api_key 1 is empty: is the variable or file that it names there?`},
		{"unknown field", `"retries":3`, `unknown field "retries"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for door, handler := range map[string]string{
				"directive": `{"handler":"gemini",` + c.options + `}`,
				"transport": `{"handler":"reverse_proxy","upstreams":[{"dial":"127.0.0.1:1"}],"transport":{"protocol":"gemini",` + c.options + `}}`,
			} {
				config := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":[":0"],"routes":[{"handle":[` + handler + `]}]}}}}}`
				var parsed caddy.Config
				if err := json.Unmarshal([]byte(config), &parsed); err != nil {
					t.Fatal(err)
				}
				err := caddy.Validate(&parsed)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: error %v\nwant  %s", door, err, c.want)
				}
				if strings.Contains(fmt.Sprint(err), upstreamKey) {
					t.Errorf("%s: the error has a key in it: %v", door, err)
				}
			}
		})
	}
}

// fileOf is a file with a text.
func fileOf(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
