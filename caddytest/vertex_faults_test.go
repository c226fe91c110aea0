// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const unauthenticatedJSON = `{"error":{"code":401,"message":"Request had invalid authentication credentials.","status":"UNAUTHENTICATED",` +
	`"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ACCESS_TOKEN_TYPE_UNSUPPORTED","domain":"googleapis.com"}]}}`

var unauthenticated = answers(401, jsonType, unauthenticatedJSON)

// What Vertex AI says about a token concerns the operator, but it is the client
// that has to know: a call that can go nowhere else ends with it.
func TestVertexRejectsItsToken(t *testing.T) {
	studio, cloud := scripted(t, drawn), scripted(t, unauthenticated)
	tokens := scripted(t, issues(vertexToken))
	vertex := place("cloud", cloud, "format vertex", "credentials "+accountOf(t, tokens))
	g := inFrontOf(t, []string{vertex})
	g.post(t, unaryPath, promptJSON).exactly(t, 401, unauthenticatedJSON)
	cloud.only(t)
	if n := len(tokens.received()); n != 1 {
		t.Errorf("%d tokens were fetched: a new one cannot help at once", n)
	}

	cloud.play(unauthenticated)
	g.load(t, several([]string{vertex, place("studio", studio, "format gemini", ownKey(t, "studio"))}))
	for range 2 { // an upstream without keys has none to set aside
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	went(t, "first second first second", cloud, studio)
}

// Without a token a call goes elsewhere, or fails without a word about secrets.
func TestNoTokenForVertex(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		said, _ := json.Marshal(map[string]string{"error": "invalid_grant", "error_description": r.Form.Encode()})
		answers(400, jsonType, string(said))(w, r)
	}
	gone := scripted(t, drawn)
	gone.Close()
	for name, tokens := range map[string]*upstream{
		"refused":    scripted(t, echo),
		"broken":     scripted(t, answers(500, "text/html", "<html>")),
		"no token":   scripted(t, answers(200, jsonType, `{"access_token":""}`)),
		"cut short":  scripted(t, breaksOff(jsonType, `{"access_token":"to`)),
		"not there":  gone,
		"past it":    scripted(t, answers(200, jsonType, `{"access_token":"`+vertexToken+`","expires_in":5}`)),
		"two lines":  scripted(t, issues(vertexToken+`\r\nX-Evil: 1`)),
		"a redirect": scripted(t, with("Location", "http://127.0.0.1:9/", answers(302, jsonType, ""))),
	} {
		t.Run(name, func(t *testing.T) {
			studio, cloud := scripted(t, drawn), scripted(t, drawn)
			vertex := place("cloud", cloud, "format vertex", "credentials "+accountOf(t, tokens))
			g := inFrontOf(t, []string{vertex, place("studio", studio, "format gemini", ownKey(t, "studio"))})
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			g.load(t, gemini(vertex))
			for _, path := range []string{unaryPath, streamPath} {
				e := g.post(t, path, promptJSON).fails(t, 503, "UPSTREAM_UNAVAILABLE")
				if said := fmt.Sprint(e); strings.Contains(said, "assertion") || strings.Contains(said, "grant") || strings.Contains(said, tokens.URL) || strings.Contains(said, "iam.gserviceaccount") {
					t.Errorf("the client is told %s", said)
				}
			}
			g.post(t, imagesPath, drawJSON()).failsAsOpenAI(t, 503, "upstream_unavailable", "UPSTREAM_UNAVAILABLE")
			g.post(t, "/v1beta/models/"+imageModel+":countTokens", promptJSON).fails(t, 503, "UPSTREAM_UNAVAILABLE")
			cloud.untouched(t)
			checkTokenSecrets(t, "the log", g.log(t), tokens)
		})
	}
}

// checkTokenSecrets looks for what nobody may read who is not Google.
func checkTokenSecrets(t *testing.T, where, text string, tokens *upstream) {
	t.Helper()
	secrets := []string{vertexToken, "PRIVATE KEY"}
	for _, r := range tokens.received() {
		if form, err := url.ParseQuery(string(r.Body)); err == nil && form.Get("assertion") != "" {
			secrets = append(secrets, form.Get("assertion")[:40])
		}
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s tells %q: %s", where, secret, text[max(0, at-200):min(len(text), at+100)])
		}
	}
}

// Neither tokens nor what they are fetched with are in anything that is written.
func TestNothingTellsTokens(t *testing.T) {
	tokens := scripted(t, issues(vertexToken))
	file := accountOf(t, tokens)
	var account map[string]string
	if err := json.Unmarshal([]byte(readFile(t, file)), &account); err != nil {
		t.Fatal(err)
	}
	private := strings.Split(account["private_key"], "\n")[1]
	u := scripted(t, drawn)
	site := accessLog + gemini(place("cloud", u, "format vertex", "credentials "+file), "retry {\n\tattempts 2\n\tbackoff 1ms 1ms\n}", guarding, limit("rpm 1000"))
	g := oversee(t, site)
	told := map[string]string{}
	for i, plays := range []http.HandlerFunc{
		drawn, overloaded, unauthenticated, resets(), gives(blockedJSON), limited("3600s"),
		answers(403, jsonType, googleError("PERMISSION_DENIED", "Permission denied")),
	} {
		u.play(plays)
		body := strings.Replace(promptJSON, prompt, fmt.Sprint(prompt, " ", i), 1)
		for _, path := range []string{unaryPath, streamPath, ofVertex(imagenModel, "predict"), "/v1beta/models/" + imageModel + ":countTokens"} {
			s := g.post(t, path, body)
			told["an answer"] += fmt.Sprint(s.Header, string(s.body))
		}
	}
	told["the status page"] = string(g.tell(t, http.MethodGet, "/gemini/status").body)
	told["the metrics"] = string(do(t, g.newRequest(t, http.MethodGet, "/metrics", nil)).body)
	told["the configuration"] = string(g.tell(t, http.MethodGet, "/config/").body)
	g.restart(t, site)
	for _, name := range g.files(t) {
		told[name] = readFile(t, name)
	}
	for where, text := range told {
		checkTokenSecrets(t, where, text, tokens)
		if strings.Contains(text, private) {
			t.Errorf("%s tells the private key", where)
		}
	}
}

// renewals are the goroutines that keep tokens at hand.
func renewals() int {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
	return strings.Count(b.String(), "(*credential).run(")
}

// A configuration that goes takes its renewals with it, and those that come bring
// their own.
func TestReloadWithTokens(t *testing.T) {
	tokens, u := scripted(t, issues(vertexToken)), scripted(t, drawn)
	vertex := place("cloud", u, "format vertex", "credentials "+accountOf(t, tokens))
	site := gemini(vertex)
	before := renewals()
	g := run(t, site)
	for i := range 5 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
		g.load(t, reloaded(site, i))
	}
	eventually(t, "one credential is left", func() bool { return renewals() == before+1 })
	missing := "upstream broken " + u.URL + " {\n\tapi_key {env.CADDYTEST_MISSING}\n}"
	for _, broken := range []string{ // in the same directive, or in another
		gemini(vertex + missing), "handle /v1beta/* {\n" + site + "}\nhandle {\n" + gemini(missing) + "}\n",
	} {
		config, err := adapt("{\nadmin off\npersist_config off\nstorage file_system " + g.dir + "\n}\nhttp://" + freeAddress(t) + " {\n" + broken + "}\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.Load(config, true); err == nil {
			t.Fatal("a broken configuration was loaded")
		}
		eventually(t, "no credential came of it", func() bool { return renewals() == before+1 })
	}
	g.load(t, "respond 204\n")
	eventually(t, "no credential is left", func() bool { return renewals() == before })
}

// A call that waits for its token does not notice that the site is reloaded.
func TestReloadWhileATokenIsFetched(t *testing.T) {
	for name, next := range map[string]string{"to the same": "", "to a site without one": "respond 418\n"} {
		t.Run(name, func(t *testing.T) {
			fetching, go_ := make(chan struct{}, 10), make(chan struct{})
			tokens := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				fetching <- struct{}{}
				<-go_
				issues(vertexToken)(w, r)
			})
			u := scripted(t, drawn)
			site := gemini(place("cloud", u, "format vertex", "credentials "+accountOf(t, tokens)))
			g := run(t, site)
			p := g.begin(t, unaryPath, promptJSON)
			<-fetching
			if next == "" {
				next = reloaded(site, 1)
			}
			g.load(t, next)
			time.AfterFunc(50*time.Millisecond, func() { close(go_) })
			p.ends().exactly(t, 200, imageJSON)
		})
	}
}
