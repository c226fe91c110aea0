// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/json"
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

// TestRefusedConfigs loads what only JSON can say wrongly; each error names the
// fix.
func TestRefusedConfigs(t *testing.T) {
	for _, c := range []struct{ name, handler, want string }{
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
		{"two upstreams", `"upstreams":[{"name":"a","url":"http://a"},{"name":"b","url":"http://b"}]`, `upstream "b": one upstream can be configured, and there is "a" already`},
		{"URL", `"upstreams":[{"name":"a","url":"generativelanguage.googleapis.com"}]`, `upstream a: "generativelanguage.googleapis.com" is not a URL such as https://generativelanguage.googleapis.com`},
		{"unset key", `"upstreams":[{"name":"a","url":"http://a","api_keys":[{"key":"{env.CADDYTEST_UNSET}"}]}]`, `upstream "a": the api_key is empty: is the variable or file that it names there?`},
		{"unknown field", `"retries":3`, `unknown field "retries"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":[":0"],"routes":[{"handle":[{"handler":"gemini",` +
				c.handler + `}]}]}}}}}`
			var parsed caddy.Config
			if err := json.Unmarshal([]byte(config), &parsed); err != nil {
				t.Fatal(err)
			}
			err := caddy.Validate(&parsed)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v\nwant  %s", err, c.want)
			}
		})
	}
}
