// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

func TestAliases(t *testing.T) {
	o := &Options{Aliases: []Alias{{"nano-banana", "gemini-3.1-flash-image"}, {"quick", "gemini-2.5-flash-image"}}}
	if err := o.checkAliases(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"nano-banana": "gemini-3.1-flash-image", "nano-banana-2": "gemini-3.1-flash-image",
		"nano-banana-pro": "gemini-3-pro-image", "quick": "gemini-2.5-flash-image",
	}
	if got := o.aliases(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := new(Options).aliases()["nano-banana"]; got != "gemini-2.5-flash-image" {
		t.Errorf("another configuration has left %s behind", got)
	}
}

// Names of models get into paths, and into the values of metrics and headers.
func TestModelNames(t *testing.T) {
	for _, name := range []string{"gemini-3-pro-image", "imagen-4.0-generate-001", "a_b", "ü"} {
		if !isModelName(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{"", "models/a", "a:free", "a?b", "a#b", "a%2Fb", "a b", `a"b`, `a\b`} {
		if isModelName(name) {
			t.Errorf("%q is accepted", name)
		}
	}
}

// The options of an upstream may stand in any order.
func TestFormatsInAnyOrder(t *testing.T) {
	for _, block := range []string{
		"format vertex\nproject p\nlocation l\ncredentials key.json\nmodel * m",
		"model * m\ncredentials key.json\nlocation l\nproject p\nformat vertex",
	} {
		var o Options
		if err := o.UnmarshalCaddyfile(caddyfile.NewTestDispenser("gemini {\nupstream a https://a {\n" + block + "\n}\n}")); err != nil {
			t.Errorf("%s: %v", block, err)
			continue
		}
		if u := o.Upstreams[0]; u.Format != "vertex" || u.Project != "p" || u.Location != "l" || u.Credentials != "key.json" {
			t.Errorf("%s: %+v", block, u)
		}
	}
}

// What is checked again once the whole configuration is there, and for JSON only then.
func TestFormatsInRange(t *testing.T) {
	models := func(model string) []ModelRule { return []ModelRule{{Match: "*", Model: model}} }
	keys := []APIKey{{Key: "k"}}
	for name, c := range map[string]struct {
		u  Upstream
		ok bool
	}{
		"none":                           {Upstream{}, true},
		"gemini":                         {Upstream{Format: "gemini"}, true},
		"vertex":                         {Upstream{Format: "vertex"}, true},
		"openai":                         {Upstream{Format: "openai"}, true},
		"in capitals":                    {Upstream{Format: "OpenAI"}, false},
		"unknown":                        {Upstream{Format: "anthropic"}, false},
		"images by images":               {Upstream{Format: "openai", ImagesBy: "images"}, true},
		"images by chat":                 {Upstream{Format: "openai", ImagesBy: "chat"}, true},
		"images by responses":            {Upstream{Format: "openai", ImagesBy: "responses"}, false},
		"images by chat of none":         {Upstream{ImagesBy: "chat"}, false},
		"images by chat of gemini":       {Upstream{Format: "gemini", ImagesBy: "chat"}, false},
		"images by images of vertex":     {Upstream{Format: "vertex", ImagesBy: "images"}, false},
		"project":                        {Upstream{Format: "vertex", Project: "p"}, true},
		"project of a domain":            {Upstream{Format: "vertex", Project: "example.com:p-1"}, true},
		"project and key":                {Upstream{Format: "vertex", Project: "p", APIKeys: keys}, true},
		"project of none":                {Upstream{Project: "p"}, false},
		"project of gemini":              {Upstream{Format: "gemini", Project: "p"}, false},
		"project of openai":              {Upstream{Format: "openai", Project: "p"}, false},
		"project with a slash":           {Upstream{Format: "vertex", Project: "p/locations/l"}, false},
		"project with a query":           {Upstream{Format: "vertex", Project: "p?x"}, false},
		"project without end":            {Upstream{Format: "vertex", Project: strings.Repeat("p", 101)}, false},
		"location":                       {Upstream{Format: "vertex", Project: "p", Location: "europe-west4"}, true},
		"location and credentials":       {Upstream{Format: "vertex", Location: "us", Credentials: "key.json"}, true},
		"location alone":                 {Upstream{Format: "vertex", Location: "us"}, false},
		"location and key":               {Upstream{Format: "vertex", Location: "us", APIKeys: keys}, false},
		"location of gemini":             {Upstream{Format: "gemini", Location: "us"}, false},
		"location with a slash":          {Upstream{Format: "vertex", Project: "p", Location: "../us"}, false},
		"credentials":                    {Upstream{Format: "vertex", Credentials: "key.json"}, true},
		"credentials behind placeholder": {Upstream{Format: "vertex", Credentials: "{env.CREDENTIALS}"}, true},
		"credentials and key":            {Upstream{Format: "vertex", Credentials: "key.json", APIKeys: keys}, false},
		"credentials of openai":          {Upstream{Format: "openai", Credentials: "key.json"}, false},
		"model of openai":                {Upstream{Format: "openai", Models: models("google/gemini-3-pro-image:nitro")}, true},
		"model with a slash":             {Upstream{Models: models("models/m")}, false},
		"model with a colon":             {Upstream{Format: "gemini", Models: models("m:generateContent")}, false},
		"model of vertex with a slash":   {Upstream{Format: "vertex", Models: models("google/m")}, false},
		"model of openai with a space":   {Upstream{Format: "openai", Models: models("a b")}, false},
	} {
		c.u.Name, c.u.URL = "studio", defaultURL
		if err := c.u.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFormatOfAnAddress(t *testing.T) {
	for host, want := range map[string]struct {
		format      format
		takesVertex [2]bool // alone, and beside an upstream whose format is given
	}{
		"https://generativelanguage.googleapis.com":      {formatGemini, [2]bool{false, false}},
		"https://aiplatform.googleapis.com":              {formatVertex, [2]bool{false, false}},
		"https://europe-west4-aiplatform.googleapis.com": {formatVertex, [2]bool{false, false}},
		"https://aiplatform.eu.rep.googleapis.com":       {formatVertex, [2]bool{false, false}},
		"https://aiplatform.googleapis.com.example":      {formatGemini, [2]bool{true, false}},
		"https://api.openai.com/v1":                      {formatGemini, [2]bool{true, false}},
		"http://localhost:8081":                          {formatGemini, [2]bool{true, false}},
		"":                                               {formatGemini, [2]bool{true, false}}, // that of a reverse_proxy
	} {
		for i, isTold := range []bool{false, true} {
			u := new(upstream)
			if host != "" {
				u.base, _ = url.Parse(host)
			}
			if u.guessFormat(isTold); u.format != want.format || u.takesVertex != want.takesVertex[i] {
				t.Errorf("%q (others told: %t): format %d, takes calls for Vertex AI: %t", host, isTold, u.format, u.takesVertex)
			}
		}
	}
}

// Google's credentials are looked for where they are named, or where Vertex AI needs
// some and there are no others.
func TestWhoHasCredentials(t *testing.T) {
	account := credentialFiles("https://oauth2.googleapis.com/token", "")["service account"]
	file := writeCredentials(t, account)
	delete(account, "project_id")
	projectless := writeCredentials(t, account)
	t.Setenv("GEMINI_TEST_CREDENTIALS", file)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	bearer := &headers.HeaderOps{Set: http.Header{"Authorization": {"Bearer t"}}}
	for name, c := range map[string]struct {
		u       Upstream
		has     bool
		project string
	}{
		"file":                  {Upstream{Credentials: file}, true, "p"},
		"file in a placeholder": {Upstream{Credentials: "{env.GEMINI_TEST_CREDENTIALS}"}, true, "p"},
		"file, another project": {Upstream{Credentials: file, Project: "q"}, true, "q"},
		"file without project":  {Upstream{Credentials: projectless, Project: "q"}, true, "q"},
		"environment":           {Upstream{Project: "q"}, true, "q"},
		"key":                   {Upstream{Project: "q", APIKeys: []APIKey{{Key: "k"}}}, false, "q"},
		"header":                {Upstream{Project: "q", HeaderUp: bearer}, false, "q"},
		"the client's own":      {Upstream{}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := provisioned(t, c.u)
			if has := u.credential != nil; has != c.has || u.project != c.project {
				t.Errorf("credential: %t, project %q", has, u.project)
			}
		})
	}
}

// Whatever is wrong with credentials, the error tells nothing of them.
func TestCredentialsThatCannotBeUsed(t *testing.T) {
	account := credentialFiles("https://oauth2.googleapis.com/token", "")["service account"]
	delete(account, "project_id")
	missing := filepath.Join(t.TempDir(), "missing.json")
	text := writeCredentials(t, "secret")
	for file, want := range map[string]string{
		"{env.GEMINI_TEST_UNSET}":    "credentials: the variable or file that it names is empty",
		missing:                      "credentials: open " + missing,
		text:                         "credentials: " + text + " is not one of Google's JSON files",
		writeCredentials(t, account): "project: give one, because the credentials name none",
	} {
		_, err := provision(t, Upstream{Credentials: file})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestLocationIsGlobal(t *testing.T) {
	if u := provisioned(t, Upstream{APIKeys: []APIKey{{Key: "k"}}}); u.format != formatVertex || u.location != "global" {
		t.Errorf("%+v", u)
	}
}

// provision sets up an upstream at Vertex AI.
func provision(t *testing.T, u Upstream) (*upstream, error) {
	t.Helper()
	u.Name, u.URL, u.Format = "cloud", "https://aiplatform.googleapis.com", "vertex"
	if err := u.check(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	return u.provision(ctx)
}

func provisioned(t *testing.T, u Upstream) *upstream {
	t.Helper()
	up, err := provision(t, u)
	if err != nil {
		t.Fatal(err)
	}
	if up.credential != nil {
		t.Cleanup(up.credential.close)
	}
	return up
}
