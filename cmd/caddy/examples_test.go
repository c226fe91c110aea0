// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// keys are what the examples expect in the environment.
var keys = []string{"GEMINI_API_KEY", "GEMINI_API_KEY_2", "AGGREGATOR_API_KEY"}

// switchedOff is an option behind a #, as opposed to an explanation behind a #
// and a space.
var switchedOff = regexp.MustCompile(`(?m)^(\t+)#(\t*[^\s#])`)

var isSite = regexp.MustCompile(`^\S+\.example\.com \{\n`)

func TestExampleConfiguration(t *testing.T) {
	example := read(t, "Caddyfile.example")
	for name, tc := range map[string]struct {
		caddyfile string
		keys      []string
		upstreams int64
	}{
		"as it is":            {example, keys[:1], 2},
		"with all options on": {switchedOff.ReplaceAllString(example, "$1$2"), keys, 4},
	} {
		t.Run(name, func(t *testing.T) {
			setKeys(t, tc.keys)
			config := adapt(t, tc.caddyfile)
			if n := find(config, "upstreams.#").Int(); n != tc.upstreams {
				t.Errorf("%d upstreams, want %d", n, tc.upstreams)
			}
			validate(t, config)
		})
	}
}

// TestReadme loads the sites and the JSON that the README shows.
func TestReadme(t *testing.T) {
	setKeys(t, keys)
	readme := read(t, "README.md")
	sites := 0
	for _, caddyfile := range blocks(readme, "caddyfile") {
		if !isSite.MatchString(caddyfile) {
			continue // an outline, or a part of a site
		}
		sites++
		validate(t, adapt(t, caddyfile))
	}
	if sites != 6 {
		t.Errorf("found %d sites", sites)
	}
	handlers := 0
	for _, handler := range blocks(readme, "json") {
		if gjson.Get(handler, "handler").Str != "gemini" {
			continue
		}
		handlers++
		validate(t, []byte(`{"apps":{"http":{"servers":{"srv0":{"listen":[":8080"],"routes":[{"handle":[`+handler+`]}]}}}}}`))
	}
	if handlers != 1 {
		t.Errorf("found %d handlers in JSON", handlers)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// setKeys sets the keys that are given, each to another value, and no other.
func setKeys(t *testing.T, given []string) {
	t.Helper()
	for _, name := range keys {
		t.Setenv(name, "")
	}
	for _, name := range given {
		t.Setenv(name, "value-of-"+name)
	}
}

// blocks are the fenced blocks of a language in a Markdown document.
func blocks(markdown, language string) (found []string) {
	for _, block := range strings.Split(markdown, "\n```"+language+"\n")[1:] {
		text, _, _ := strings.Cut(block, "\n```\n")
		found = append(found, text+"\n")
	}
	return found
}

// adapt puts credentials where the examples have some, that nobody has given.
func adapt(t *testing.T, caddyfile string) []byte {
	t.Helper()
	credentials := filepath.Join(t.TempDir(), "vertex.json")
	const user = `{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"t","quota_project_id":"p"}`
	if err := os.WriteFile(credentials, []byte(user), 0o600); err != nil {
		t.Fatal(err)
	}
	caddyfile = strings.ReplaceAll(caddyfile, "/etc/caddy/vertex.json", credentials)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, caddyfile)
	}
	return config
}

// find looks into the first gemini handler of a configuration.
func find(config []byte, path string) gjson.Result {
	var found gjson.Result
	var visit func(v gjson.Result)
	visit = func(v gjson.Result) {
		if v.Get("handler").Str == "gemini" && !found.Exists() {
			found = v.Get(path)
		}
		if v.IsObject() || v.IsArray() {
			v.ForEach(func(_, inner gjson.Result) bool {
				visit(inner)
				return true
			})
		}
	}
	visit(gjson.ParseBytes(config))
	return found
}

func validate(t *testing.T, config []byte) {
	t.Helper()
	parsed := new(caddy.Config)
	if err := json.Unmarshal(config, parsed); err != nil {
		t.Fatalf("%v in\n%s", err, config)
	}
	if err := caddy.Validate(parsed); err != nil {
		t.Errorf("%v in\n%s", err, config)
	}
}
