// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// What must not be found where it does not belong: a few characters of it are enough,
// and it may be written in another way.
var (
	promptTraces = []string{
		prompt[:16], strings.ToUpper(prompt[:16]), strings.ReplaceAll(prompt[:16], " ", ""),
		strings.ReplaceAll(prompt[:16], " ", "+"), strings.ReplaceAll(prompt[:16], " ", "%20"), strings.ReplaceAll(prompt[:16], " ", "_"),
		unicodeEscaped(prompt[:8]), base64.StdEncoding.EncodeToString([]byte(prompt))[:16],
	}
	imageTraces = func() []string {
		encoded := base64.StdEncoding.EncodeToString(motif)
		return []string{encoded[:24], encoded[len(encoded)/2:][:24], string(motif[:16]), string(motif[len(motif)/2:][:16])}
	}()
	clientTraces   = []string{clientKey[:20], clientToken}
	operatorTraces = []string{upstreamKey[:20], keyMark, vertexToken}
)

// unicodeEscaped is text as a cautious JSON encoder writes it.
func unicodeEscaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

// motif is an image that is small enough to be sent a thousand times.
var motif = append([]byte("\x89PNG\r\n\x1a\n"), picture[:3000]...)

// motifPart is that image in an answer.
var motifPart = `{"inlineData":{"mimeType":"image/png","data":"` + base64.StdEncoding.EncodeToString(motif) + `"}}`

// echo is all of a request that an upstream can repeat, as one line. It has no quotes.
func echo(r *http.Request, withKeys bool) string {
	var body bytes.Buffer
	_, _ = body.ReadFrom(r.Body)
	said := body.String()
	said = said[:min(len(said), 6000)]
	if withKeys {
		said = r.Header.Get("X-Goog-Api-Key") + " " + r.Header.Get("Authorization") + " " + r.RequestURI + " " + said
	}
	return strings.NewReplacer(`"`, `'`, `\`, `/`, "\r", " ", "\n", " ").Replace(prompt + " " + said)
}

// quotes plays an answer in which QUOTE is what the upstream was asked.
func quotes(status int, contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// An upstream that gives away its key with an image cannot be helped.
		answers(status, contentType, strings.ReplaceAll(text, "QUOTE", echo(r, status != 200 || strings.Contains(text, `"error"`))))(w, r)
	}
}

// garbles plays what is no HTTP at all; QUOTE is what the upstream was asked.
func garbles(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		said := strings.ReplaceAll(text, "QUOTE", echo(r, true))
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, said)
		_ = conn.Close()
	}
}

// inHeaders is what an upstream repeats in headers: Google puts the query into the URL
// for an upload. The transport of a reverse_proxy cannot keep that from its debug log.
func inHeaders(r *http.Request) string {
	if site := r.Header.Get("X-Site"); site == "" || site == "door" { // the former of generate calls
		return ""
	}
	return "&" + r.URL.RawQuery + "&" + r.Header.Get("X-Goog-Api-Key") + r.Header.Get("Authorization")
}

// called is a form of a call: where the client has its key, and where prompt and image.
type called struct {
	name, path   string
	body         string // "": it is a GET; ID is what tells the call from others
	header       []string
	isForwarded  bool // and not judged
	quotesItself bool // in the answer, because that is what is wrong with it
}

// callsOfAllForms are all forms of calls.
func callsOfAllForms(t *testing.T) []called {
	t.Helper()
	image := `{"inlineData":{"mimeType":"image/png","data":"` + base64.StdEncoding.EncodeToString(motif) + `"}}`
	native := `{"contents":[{"role":"user","parts":[{"text":"` + prompt + ` ID"},` + image + `]}]}`
	escaped := strings.Replace(native, prompt, unicodeEscaped(prompt), 1)
	chat := func(stream bool) string {
		return fmt.Sprintf(`{"model":%q,"stream":%t,"modalities":["image","text"],"messages":[{"role":"user","content":"%s ID"}]}`, imageModel, stream, prompt)
	}
	kind, form := formOf(t, map[string]string{"model": imageModel, "prompt": prompt + " ID"}, motif)
	noKey := []string{"X-Goog-Api-Key", ""}
	bearer := append([]string{"Authorization", "Bearer " + clientKey}, noKey...)
	token := append([]string{"Authorization", "Bearer " + clientToken}, noKey...)
	return []called{
		{name: "unary", path: unaryPath, body: native},
		{name: "escaped", path: unaryPath, body: escaped},
		{name: "key in the query", path: streamPath + "&key=" + clientKey, body: native, header: noKey},
		{name: "array", path: arrayPath, body: native, header: bearer},
		{name: "not JSON", path: unaryPath, body: native[:len(native)-1]},
		{name: "predict", path: imagenPath, body: strings.Replace(imagenJSON, prompt, prompt+" ID", 1)},
		{name: "at Vertex", path: ofVertex(imageModel, "generateContent"), body: native, header: token},
		{name: "interactions", path: interactionsPath, body: `{"model":"` + imageModel + `","input":"` + prompt + ` ID"}`},
		{name: "stream of interactions", path: interactionsPath + "?key=" + clientKey, body: `{"model":"` + imageModel + `","stream":true,"input":"` + prompt + ` ID"}`, header: noKey},
		{name: "images", path: imagesPath, body: strings.Replace(drawJSON(), prompt, prompt+" ID", 1), header: bearer},
		{name: "group of images", path: imagesPath, body: strings.Replace(drawSeveral(2), prompt, prompt+" ID", 1), header: bearer},
		{name: "foreign field", path: imagesPath, body: drawJSON(`"` + prompt + `":1`), header: bearer, quotesItself: true},
		{name: "form", path: editsPath, body: form, header: append([]string{"Content-Type", kind}, bearer...)},
		{name: "broken form", path: editsPath, body: form[:len(form)/2], header: append([]string{"Content-Type", kind}, bearer...)},
		{name: "chat", path: chatPath, body: chat(false), header: bearer},
		{name: "stream of a chat", path: openAIChatPath, body: chat(true), header: bearer},
		{name: "forwarded", path: "/v1beta/models/" + imageModel + ":countTokens?access_token=" + clientToken, body: native, header: noKey, isForwarded: true},
		{name: "upload", path: "/upload/v1beta/files?uploadType=resumable&key=" + clientKey, body: string(motif), header: noKey, isForwarded: true},
		{name: "file", path: "/v1beta/files/abc", header: bearer, isForwarded: true},
		{name: "another path", path: "/hello?key=" + clientKey, body: native, isForwarded: true},
	}
}

// told is all that has been written for anybody but the client: by where it stands.
func (g *overseen) told(t *testing.T, spans *collector) map[string]string {
	t.Helper()
	told := map[string]string{
		"the status page":   string(g.tell(t, http.MethodGet, "/gemini/status").body),
		"the configuration": string(g.tell(t, http.MethodGet, "/config/").body),
		"Caddy's upstreams": string(g.tell(t, http.MethodGet, "/reverse_proxy/upstreams").body),
		"the admin metrics": string(g.tell(t, http.MethodGet, "/metrics").body),
		"the metrics":       string(do(t, g.newRequest(t, http.MethodGet, "/metrics", nil)).body),
	}
	spans.mu.Lock()
	told["the traces"] = string(spans.spans)
	spans.mu.Unlock()
	book, _ := heard.Load(g.dir)
	for _, e := range book.(*eventBook).all() {
		data, err := json.Marshal(e.Data)
		told["event "+e.Name()] += fmt.Sprint(e.Data, string(data), err)
	}
	for _, name := range g.files(t) {
		told[filepath.Base(name)] += readFile(t, name)
	}
	return told
}

// tellsNone looks for secrets, also as they stand in a query.
func tellsNone(t *testing.T, where, text string, secrets ...[]string) {
	t.Helper()
	for _, list := range secrets {
		for _, secret := range list {
			for _, written := range []string{secret, url.QueryEscape(secret)} {
				if at := strings.Index(text, written); at >= 0 {
					t.Errorf("%s tells %q: …%s…", where, secret, text[max(0, at-300):min(len(text), at+100)])
					break
				}
			}
		}
	}
}
