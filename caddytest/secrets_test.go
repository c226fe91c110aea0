// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

type quotingPlay struct {
	name string
	play http.HandlerFunc
}

// quotingPlays are what upstreams answer. All of them quote what they were asked, wherever
// there is room for words.
var quotingPlays = []quotingPlay{
	{"image", quotes(200, jsonType, candidate(motifPart+`,{"text":"QUOTE"}`, `"STOP"`))},
	{"image in events", quotes(200, eventType, event(candidate(motifPart, `"STOP"`)))},
	{"image of OpenAI", quotes(200, jsonType, `{"created":1,"data":[{"b64_json":`+strings.TrimSuffix(motifPart[strings.Index(motifPart, `"data":`)+7:], "}}")+`,"revised_prompt":"QUOTE"}]}`)},
	{"text", quotes(200, jsonType, candidate(`{"text":"QUOTE"}`, `"STOP"`))},
	{"block", quotes(200, jsonType, strings.Replace(blockedJSON, "Unable", "QUOTE Unable", 1))},
	{"block by another name", quotes(200, jsonType, strings.Replace(blockedJSON, "IMAGE_SAFETY", "QUOTE", 1))},
	{"block in events", quotes(200, eventType, event(textChunk)+event(strings.Replace(blockedJSON, "Unable", "QUOTE Unable", 1)))},
	{"blocked prompt", quotes(200, jsonType, `{"promptFeedback":{"blockReason":"QUOTE","blockReasonMessage":"QUOTE"},"modelVersion":"QUOTE","responseId":"QUOTE"}`)},
	{"filtered", quotes(400, jsonType, openAIFault(`"moderation_blocked"`, "image_generation_user_error", "QUOTE"))},
	{"bad key", quotes(400, jsonType, googleError("INVALID_ARGUMENT", "API key not valid: QUOTE", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","metadata":{"key":"QUOTE"}}`))},
	{"no key", quotes(401, jsonType, openAIFault(`"invalid_api_key"`, "invalid_request_error", "Incorrect API key provided: QUOTE"))},
	{"strange error", quotes(400, jsonType, googleError("QUOTE", "QUOTE", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"QUOTE"}`))},
	{"strange words", quotes(400, jsonType, openAIFault(`"QUOTE"`, "QUOTE", "QUOTE"))},
	{"unknown field", quotes(400, jsonType, googleError("INVALID_ARGUMENT", `Unknown name 'responseModalities' QUOTE`, `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"QUOTE","description":"QUOTE"}]}`))},
	{"limit", quotes(429, jsonType, googleError("RESOURCE_EXHAUSTED", "QUOTE", quotaFailure("QUOTE"+quotaRPM), retryInfo("3600s")))},
	{"account", quotes(429, jsonType, googleError("RESOURCE_EXHAUSTED", "QUOTE limit: 0"))},
	{"overload", quotes(503, "text/html", "<html>QUOTE")},
	{"error in a 200", quotes(200, jsonType, `{"error":{"code":400,"status":"QUOTE","message":"QUOTE"}}`)},
	{"error in events", quotes(200, eventType, event(`{"error":{"code":500,"status":"QUOTE","message":"QUOTE"}}`))},
	{"no answer", quotes(200, "text/html", "QUOTE")},
	{"redirect", func(w http.ResponseWriter, r *http.Request) {
		with("Location", "http://127.0.0.1:9/?q="+inHeaders(r), quotes(307, jsonType, "QUOTE"))(w, r)
	}},
	{"garbled status", garbles("QUOTE\r\n\r\n")},
	{"garbled header", garbles("HTTP/1.1 200 OK\r\nQUOTE\r\n\r\n")},
	{"garbled length", garbles("HTTP/1.1 200 OK\r\nContent-Length: QUOTE\r\n\r\n")},
	{"garbled coding", garbles("HTTP/1.1 200 OK\r\nTransfer-Encoding: QUOTE\r\n\r\n")},
	{"garbled chunk", garbles("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nQUOTE\r\n")},
	{"quoting headers", func(w http.ResponseWriter, r *http.Request) {
		with("X-Goog-Upload-Url", "http://127.0.0.1:9/upload/v1beta/files?upload_id=1"+inHeaders(r), answers(200, jsonType, candidate(motifPart, `"STOP"`)))(w, r)
	}},
	{"cut off", garbles("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n{\"candidates\":[QUOTE")},
	{"reset", resets()},
}

// secretSites are gateways of all kinds, each for the calls that name it.
func secretSites(t *testing.T, u *upstream) string {
	t.Helper()
	file := fileOf(t, upstreamKey)
	impostor := httptest.NewTLSServer(u)
	t.Cleanup(impostor.Close)
	again := "retry {\n\tattempts 2\n\tbackoff 1ms 1ms\n\tbudget off\n}"
	strict := []string{again, guarding, "no_image error"}
	nobody := "http://" + freeAddress(t)
	sites := map[string]string{
		"pool":          gemini(pool(t, "pool", u, "a", "b")+place("spare", u, "api_key {file."+file+"} c", "accept_blocked"), append(strict, limit("rpm 100000"))...),
		"client":        gemini(place("client", u), append(strict, opted)...),
		"vertex":        gemini(vertexPlace(t, "vertex", u), strict...),
		"openai":        gemini(place("openai", u, "format openai", theKey("d")), strict...),
		"chat":          gemini(place("chat", u, "format openai chat", `header_up Authorization "Bearer {env.CADDYTEST_KEY}"`), strict...),
		"door":          proxied(u.URL, strict),
		"door with key": proxied(nobody, append(strict, place("own", u, theKey("e")))),
		"refused":       gemini(placeAt("refused", nobody), again),
		"unknown":       gemini(placeAt("unknown", "http://nobody.invalid", theKey("f")), again),
		"impostor":      gemini(placeAt("impostor", impostor.URL), again),
		"limited":       gemini(place("limited", u, ownKey(t, "limited", "limited")), limit("rpd 1"), again),
		"budget":        gemini(place("budget", u, ownKey(t, "budget", "budget"), "budget 0.001"), again),
		"paused":        gemini(place("paused", u, ownKey(t, "paused", "paused")), "pause_on_block_rate", again),
		"small":         gemini(place("small", u), "max_body 100B"),
		"stripped":      "uri strip_prefix /prefix\n" + gemini(place("stripped", u, theKey("g")), strict...),
	}
	var b strings.Builder
	for name, site := range sites {
		id := strings.ReplaceAll(name, " ", "-")
		fmt.Fprintf(&b, "@%s header X-Site %q\nhandle @%[1]s {\n%[3]s}\n", id, name, site)
	}
	return b.String()
}

// secretly makes a call whose prompt nobody has blocked yet, and looks at the answer.
func (g *overseen) secretly(t *testing.T, u *upstream, site string, n int, c called) {
	t.Helper()
	before := len(u.received())
	method := http.MethodPost
	if c.body == "" {
		method = http.MethodGet
	}
	r := g.newRequest(t, method, c.path, strings.NewReader(strings.Replace(c.body, "ID", fmt.Sprint(n), 1)))
	r.Header.Set("X-Site", site)
	for i := 0; i < len(c.header); i += 2 {
		r.Header.Set(c.header[i], c.header[i+1])
	}
	s := do(t, r)
	said := fmt.Sprint(s.Header, s.Trailer, string(s.body))
	where := fmt.Sprintf("the answer to %s at %s", c.name, site)
	if site != "client" && site != "door" && (!c.isForwarded || s.StatusCode != 200) { // who gives away its key with a file cannot be helped
		tellsNone(t, where, said, operatorTraces)
	}
	if len(u.received()) == before && !c.quotesItself {
		tellsNone(t, where, said, promptTraces, imageTraces, clientTraces)
	}
}

// Keys, prompts and images are in nothing that is written, on no path that a call can
// take, whatever an upstream repeats of them; and the operator's keys in no answer.
func TestNoPathTellsSecrets(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	u := scripted(t, drawn)
	spans := collect(t)
	site := accessLog + "tracing\n" + secretSites(t, u)
	g := oversee(t, site)
	all, n := callsOfAllForms(t), 0
	sites := []string{"pool", "client", "vertex", "openai", "chat", "door", "door with key"}
	step := len(sites) // so that every two of answer, site and form meet
	if hasRaceDetector {
		step *= 2
	}
	for i, p := range quotingPlays {
		g.tell(t, http.MethodPost, "/gemini/reset") // what the answers before have taught
		u.play(p.play)
		for j, name := range sites {
			for k, c := range all {
				if n++; (i+j+k)%step == 0 && (!c.isForwarded || p.name != "cut off") { // which makes Caddy race with itself
					g.secretly(t, u, name, n, c)
				}
			}
		}
	}
	u.play(quotingPlays[4].play)
	for _, name := range []string{"refused", "unknown", "impostor", "limited", "budget", "paused", "small", "stripped"} {
		for _, c := range all {
			n++
			g.secretly(t, u, name, n, c)
		}
	}
	for _, name := range []string{"limit", "bad key"} { // to be saved
		u.play(quotingPlays[slices.IndexFunc(quotingPlays, func(p quotingPlay) bool { return p.name == name })].play)
		g.secretly(t, u, "pool", n, all[0])
	}
	g.vanish(t, u, all)
	g.check(t, spans, site)
}

// vanish has clients leave in the middle of calls.
func (g *overseen) vanish(t *testing.T, u *upstream, all []called) {
	t.Helper()
	for _, name := range []string{"pool", "vertex", "door"} {
		for _, c := range all {
			if c.name != "unary" && c.name != "key in the query" && c.name != "form" && c.name != "forwarded" {
				continue
			}
			asked := make(chan struct{})
			u.play(inTurn(func(_ http.ResponseWriter, r *http.Request) {
				close(asked)
				<-r.Context().Done()
			}, drawn))
			conn, err := net.DialTimeout("tcp", g.address, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Site: %s\r\nContent-Length: %d\r\n", c.path, g.address, name, len(c.body))
			for i := 0; i < len(c.header); i += 2 {
				fmt.Fprintf(conn, "%s: %s\r\n", c.header[i], c.header[i+1])
			}
			_, _ = io.WriteString(conn, "\r\n"+c.body)
			wait(t, c.name+" arrives", asked)
			_ = conn.Close()
		}
	}
}

// check looks at everything, before and after a restart, which saves what is known.
func (g *overseen) check(t *testing.T, spans *collector, site string) {
	t.Helper()
	told := g.told(t, spans)
	g.restart(t, site)
	for where, text := range g.told(t, spans) {
		told[where] += text
	}
	for where, want := range map[string]string{ // or nothing has been looked at
		"caddy.log": "upstream roundtrip", "access.log": `"reason":"IMAGE_SAFETY"`, "the traces": "gen_ai.request.model", "the metrics": "caddy_gemini_requests_total",
		"the status page": `"name":"pool"`, "the configuration": "{env.CADDYTEST_KEY", "blocks.json": "IMAGE_SAFETY", "rejected_keys.json": "until", "cooldowns.json": "limited",
		"usage.json": "pool", "limits.json": imageModel, "block_rates.json": "paused", "event gemini.blocked": "IMAGE_SAFETY", "event gemini.key_rejected": "pool",
	} {
		if !strings.Contains(told[where], want) {
			t.Errorf("%s does not tell %s: %s", where, want, shortened(told[where]))
		}
	}
	for where, text := range told {
		tellsNone(t, where, text, operatorTraces, clientTraces, promptTraces, imageTraces, []string{"PRIVATE KEY", "assertion="})
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left over: %v (%v)", left, err)
	}
}

// Google's URL for an upload has the key with which it was asked for. The client gets
// it; the log at debug level, which run looks into, does not.
func TestUploadURLHasTheClientsKey(t *testing.T) {
	url := "https://example.com/upload/v1beta/files?upload_id=1&key=" + clientKey
	u := scripted(t, with("X-Goog-Upload-Url", url, answers(200, jsonType, "")))
	g := run(t, gemini(place("scripted", u)))
	for path, key := range map[string]string{"/upload/v1beta/files?key=" + clientKey: "", "/upload/v1beta/files": clientKey} {
		r := g.newRequest(t, http.MethodPost, path, strings.NewReader("{}"))
		r.Header.Set("X-Goog-Api-Key", key)
		if got := do(t, r).Header.Values("X-Goog-Upload-Url"); !slices.Equal(got, []string{url}) {
			t.Errorf("the client received %q", got)
		}
	}
	if !strings.Contains(g.log(t), "upstream roundtrip") {
		t.Error("nothing was logged")
	}
}

// Keys that stand in the environment or in a file are in no configuration that Caddy
// shows or saves.
func TestSavedConfigurationTellsNoKeys(t *testing.T) {
	before := caddy.ConfigAutosavePath
	t.Cleanup(func() { caddy.ConfigAutosavePath = before })
	caddy.ConfigAutosavePath = filepath.Join(t.TempDir(), "autosave.json")
	u := scripted(t, drawn)
	file := fileOf(t, keyOf("file"))
	g := start(t, "respond 204\n")
	config, err := adapt("{\nadmin off\nstorage file_system " + g.dir + "\n}\nhttp://" + freeAddress(t) + " {\nbind 127.0.0.1\n" +
		gemini(place("scripted", u, "api_key {env.CADDYTEST_KEY}", "api_key {file."+file+"}")) + "}\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	saved := readFile(t, caddy.ConfigAutosavePath)
	if !strings.Contains(saved, "{env.CADDYTEST_KEY}") {
		t.Fatalf("saved: %s", saved)
	}
	tellsNone(t, "the saved configuration", saved, operatorTraces)
}

// What is wrong with a configuration is said without the keys in it.
func TestConfigurationErrorsTellNoKeys(t *testing.T) {
	t.Setenv("CADDYTEST_KEY", upstreamKey)
	const at = "upstream a https://example.com {\n"
	for name, directives := range map[string]string{
		"too many words":     at + "api_key " + upstreamKey + " project more\n}",
		"nothing but a key":  at + upstreamKey + "\n}",
		"a key as an option": upstreamKey,
		"a key for a URL":    "upstream a " + upstreamKey,
		"a key in the URL":   "upstream a https://example.com?key=" + upstreamKey,
		"a user in the URL":  "upstream a https://" + upstreamKey + "@example.com",
		"a password":         "upstream a https://user:" + upstreamKey + "@example.com?x",
		"the same key twice": at + "api_key " + upstreamKey + "\napi_key " + upstreamKey + "\n}",
		"the same by name":   at + "api_key {env.CADDYTEST_KEY}\napi_key " + upstreamKey + "\n}",
		"two lines":          at + "api_key \"" + upstreamKey + "\n" + upstreamKey + "\"\n}",
		"key and credential": at + "format vertex\ncredentials nothing.json\napi_key " + upstreamKey + "\n}",
		"broken transport":   at + "api_key " + upstreamKey + "\ntransport http {\nread_timeout never\n}\n}",
		"broken header":      at + "header_up X-Goog-Api-Key " + upstreamKey + " more\n}",
		"broken elsewhere":   at + "api_key " + upstreamKey + "\n}\nguard never",
	} {
		t.Run(name, func(t *testing.T) {
			config, err := adapt("{\nadmin off\npersist_config off\n}\nhttp://" + freeAddress(t) + " {\ngemini {\n" + directives + "\n}\n}\n")
			if err == nil {
				var parsed caddy.Config
				if err = json.Unmarshal(config, &parsed); err == nil {
					err = caddy.Validate(&parsed)
				}
			}
			if err == nil {
				t.Fatal("it was accepted")
			}
			tellsNone(t, "the error", err.Error(), operatorTraces)
		})
	}
}
