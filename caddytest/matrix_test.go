// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of clients and upstreams into the README")

// provider is a kind of upstream.
type provider struct {
	name    string
	options func(t *testing.T) []string
	path    *regexp.Regexp // of what it must receive
	blocked http.HandlerFunc
	cannot  []string // the clients whose calls cannot be said in its form
}

const vertexToken = "token-of-a-service-account"

var providers = []provider{
	{
		name:    "`gemini`",
		options: func(*testing.T) []string { return []string{"format gemini", "api_key {env.CADDYTEST_KEY}"} },
		path:    regexp.MustCompile(`^/v1(beta)?/(models/[^/]+:|interactions|openai/chat/completions)`),
		blocked: blockedNatively,
		cannot:  []string{"JS genai 3, Imagen on Vertex AI"},
	},
	{
		name: "`vertex`",
		options: func(t *testing.T) []string {
			t.Helper()
			return []string{"format vertex", "location europe-west4", "credentials " + serviceAccount(t)}
		},
		path:    regexp.MustCompile(`^/v1(beta1)?/projects/theirs/locations/europe-west4/(publishers/google/models/[^/]+:|endpoints/openapi/chat/completions)`),
		blocked: blockedNatively,
		cannot:  []string{"JS genai 3, Interactions"},
	},
	{
		name:    "`openai`",
		options: func(*testing.T) []string { return []string{"format openai", "api_key {env.CADDYTEST_KEY}"} },
		path:    regexp.MustCompile(`^/v1/(images/generations|images/edits|chat/completions)$`),
		blocked: blockedByOpenAI,
		cannot:  []string{"JS genai 3, Imagen on Vertex AI", "JS genai 3, Interactions"},
	},
	{
		name:    "`openai chat`",
		options: func(*testing.T) []string { return []string{"format openai chat", "api_key {env.CADDYTEST_KEY}"} },
		path:    regexp.MustCompile(`^/v1/chat/completions$`),
		blocked: blockedByOpenAI,
		cannot:  []string{"JS genai 3, Imagen on Vertex AI", "JS genai 3, Interactions"},
	},
}

// serviceAccount is a file with credentials, and a server that gives tokens for
// them.
func serviceAccount(t *testing.T) string {
	t.Helper()
	tokens := scripted(t, answers(200, jsonType, `{"access_token":"`+vertexToken+`","expires_in":3600,"token_type":"Bearer"}`))
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "theirs", "private_key_id": "1", "client_email": "gateway@theirs.iam.gserviceaccount.com",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), "token_uri": tokens.URL,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(file, account, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// blockedNatively is a block in the form of the path, as Google hides it.
func blockedNatively(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/interactions"):
		answers(400, jsonType, `{"error":{"code":"safety","message":"The image was blocked."}}`)(w, r)
	case strings.HasSuffix(r.URL.Path, ":predict"):
		answers(200, jsonType, `{"predictions":[{"raiFilteredReason":"Unable to show generated images."}]}`)(w, r)
	case strings.Contains(r.URL.RawQuery, "alt=sse"):
		events(blockedJSON)(w, r)
	default:
		answers(200, jsonType, blockedJSON)(w, r)
	}
}

// blockedByOpenAI is a block as OpenAI and aggregators tell of it.
func blockedByOpenAI(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/chat/completions") && strings.Contains(r.Header.Get("Accept"), "event-stream") {
		events(completion("delta", `{"role":"assistant","content":""}`), "[DONE]")(w, r)
		return
	}
	answers(400, "application/json", `{"error":{"message":"Your request was rejected by the safety system.","type":"image_generation_user_error","param":null,"code":"moderation_blocked"}}`)(w, r)
}

// Every client at every kind of upstream: what it asks for arrives there in the
// upstream's form, what comes back is understood, and a block raises the client's
// own exception after one request. The README has the table.
func TestMatrix(t *testing.T) {
	cells := make(map[string]string)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			ask := c.start(t)
			for _, p := range providers {
				t.Run(strings.Trim(p.name, "`"), func(t *testing.T) {
					u := scripted(t, nil)
					g := run(t, gemini(place("provider", u, p.options(t)...)))
					cells[c.name+p.name] = p.serve(t, g, u, &c, ask)
				})
			}
		})
	}
	if !t.Failed() {
		checkTable(t, "../README.md", table(cells))
	}
}

// serve makes all calls that a client can make, and says what the table does.
func (p *provider) serve(t *testing.T, g *gateway, u *upstream, c *client, ask caller) string {
	t.Helper()
	for _, k := range c.can {
		u.play(inEveryForm(k))
		s := ask(t, g.url, newCall(k))
		if slices.Contains(p.cannot, c.name) {
			if s.raised == nil || s.raised.Status != 400 || !strings.Contains(s.raised.Message, "UNSUPPORTED_FIELD") {
				t.Errorf("%s: the client raised %+v, want a 400", k, s.raised)
			}
			u.untouched(t)
			continue
		}
		checkOutcome(t, k, s)
		p.checkArrival(t, k, u.only(t))
		if !k.draws() {
			continue
		}
		u.play(p.blocked)
		s = ask(t, g.url, newCall(k))
		if s.raised == nil || s.raised.Name != c.raises || s.raised.Status != 400 || !strings.Contains(s.raised.Message, "SAFETY: ") && !strings.Contains(s.raised.Message, "NO_IMAGE: ") {
			t.Errorf("blocked %s: the client raised %+v, want %s", k, s.raised, c.raises)
		}
		u.only(t)
	}
	if slices.Contains(p.cannot, c.name) {
		return "–"
	}
	return "yes"
}

func (p *provider) checkArrival(t *testing.T, k kind, r *request) {
	t.Helper()
	if !p.path.MatchString(r.URI) {
		t.Errorf("%s: the upstream received %s", k, r.URI)
	}
	if !bytes.Contains(r.Body, []byte(prompt)) {
		t.Errorf("%s: the upstream received no prompt", k)
	}
	isEncoded := bytes.Contains(r.Body, []byte(base64.StdEncoding.EncodeToString(sketch)))
	if hasSketch := isEncoded || bytes.Contains(r.Body, sketch); hasSketch != (k == editing) {
		t.Errorf("%s: the upstream received an image to edit: %t", k, hasSketch)
	}
	shown := fmt.Sprint(r.Header, r.URI)
	for _, secret := range []string{clientKey, clientToken} {
		if strings.Contains(shown, secret) {
			t.Errorf("%s: the upstream received the client's own key", k)
		}
	}
	if !strings.Contains(shown, upstreamKey) && !strings.Contains(shown, "Bearer "+vertexToken) {
		t.Errorf("%s: the upstream received none of its keys", k)
	}
}

// table is what the README shows.
func table(cells map[string]string) string {
	var b strings.Builder
	b.WriteString("| client |")
	for _, p := range providers {
		b.WriteString(" " + p.name + " |")
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(providers)) + "\n")
	for _, c := range clients {
		b.WriteString("| " + c.name + " |")
		for _, p := range providers {
			b.WriteString(" " + cells[c.name+p.name] + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// checkTable compares the table with the one between the marks in a file.
func checkTable(t *testing.T, file, table string) {
	t.Helper()
	const begin, end = "<!-- matrix:begin -->\n", "<!-- matrix:end -->"
	text := readFile(t, file)
	before, rest, isThere := strings.Cut(text, begin)
	shown, after, isClosed := strings.Cut(rest, end)
	if !isThere || !isClosed {
		t.Fatalf("%s has no place for the table", file)
	}
	if shown == table {
		return
	}
	if !*update {
		t.Fatalf("the table in %s is another one; write it with -update:\n%s", file, table)
	}
	if err := os.WriteFile(file, []byte(before+begin+table+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}
