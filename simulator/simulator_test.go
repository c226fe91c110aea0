// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy" // for its directive
)

const (
	proPath   = "/v1beta/models/gemini-3-pro-image:generateContent"
	flashPath = "/v1beta/models/gemini-2.5-flash-image:generateContent"
	textPath  = "/v1beta/models/gemini-2.5-flash:generateContent"
)

func provisioned(t testing.TB) *Handler {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	h := new(Handler)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

// prompt is the smallest request with a text.
func prompt(text string) string {
	quoted, _ := json.Marshal(text)
	return `{"contents":[{"role":"user","parts":[{"text":` + string(quoted) + `}]}]}`
}

// small asks for the smallest image: under the race detector size costs time.
func small(text string) string {
	return strings.TrimSuffix(prompt(text), "}") + `,"generationConfig":{"imageConfig":{"imageSize":"512"}}}`
}

// reply is what came back, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) get(path string) gjson.Result { return gjson.Get(r.body, path) }

// send sends one request with a key through the handler.
func send(t testing.TB, h *Handler, method, path, body string) reply {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("X-Goog-Api-Key", "any")
	return serve(t, h, r)
}

func post(t testing.TB, h *Handler, path, body string) reply {
	t.Helper()
	return send(t, h, http.MethodPost, path, body)
}

func serve(t testing.TB, h *Handler, r *http.Request) reply {
	t.Helper()
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, r, nil); err != nil {
		t.Fatalf("ServeHTTP: %v", err)
	}
	return reply{w.Code, w.Header(), w.Body.String()}
}

// server runs the handler behind a real listener, for what only shows there.
func server(t testing.TB, h *Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, r, nil); err != nil {
			t.Errorf("ServeHTTP: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// fixture reads a recording, or skips the test where there are none.
func fixture(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("GEMINI_FIXTURES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "fixtures")
	}
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Skipf("no recorded traffic here, set GEMINI_FIXTURES to its folder: %v", err)
	}
	return string(content)
}

func TestCaddyfile(t *testing.T) {
	for _, tc := range []struct{ input, json, fault string }{
		{input: `gemini_simulator`, json: `{}`},
		{input: "gemini_simulator {\n latency 250ms\n}", json: `{"latency":250000000}`},
		{input: "gemini_simulator now", fault: "wrong argument count"},
		{input: "gemini_simulator {\n latency\n}", fault: "wrong argument count"},
		{input: "gemini_simulator {\n latency 1s 2s\n}", fault: "wrong argument count"},
		{input: "gemini_simulator {\n latency soon\n}", fault: "latency 'soon' is not a duration"},
		{input: "gemini_simulator {\n latency -1s\n}", fault: "must not be negative"},
		{input: "gemini_simulator {\n latency 1s\n latency 2s\n}", fault: "latency is already set"},
		{input: "gemini_simulator {\n seed 1\n}", fault: "unknown option 'seed'"},
	} {
		var h Handler
		err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tc.input))
		if tc.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("%q: expected error with %q, got %v", tc.input, tc.fault, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tc.input, err)
		}
		if got, _ := json.Marshal(h); string(got) != tc.json {
			t.Errorf("%q: expected %s, got %s", tc.input, tc.json, got)
		}
	}
}

func TestDirectiveComesBeforeReverseProxy(t *testing.T) {
	const input = ":8081 {\n\treverse_proxy localhost:1\n\tgemini_simulator {\n\t\tlatency 1s\n\t}\n}\n"
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	handlers := gjson.GetBytes(adapted, "apps.http.servers.srv0.routes.0.handle")
	const first = `{"handler":"gemini_simulator","latency":1000000000}`
	if handlers.Get("0").Raw != first || handlers.Get("1.handler").Str != "reverse_proxy" {
		t.Errorf("got %s", handlers.Raw)
	}
}

func TestValidateRefusesNegativeLatency(t *testing.T) {
	h := provisioned(t)
	h.Latency = caddy.Duration(-time.Second)
	if err := h.Validate(); err == nil {
		t.Error("a negative latency in JSON passed")
	}
}

func TestWithoutKeyNothingIsServed(t *testing.T) {
	h := provisioned(t)
	for _, path := range []string{proPath, "/v1beta/models/gemini-3-pro-image:countTokens", "/v1beta/models/imagen-4.0-generate-001:predict"} {
		got := serve(t, h, httptest.NewRequest(http.MethodPost, path, strings.NewReader(prompt("hi"))))
		if got.status != 403 || got.get("error.status").Str != "PERMISSION_DENIED" || !strings.Contains(got.get("error.message").Str, "unregistered callers") {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
}

func TestEachKindOfKeyIsAccepted(t *testing.T) {
	h := provisioned(t)
	for name, tc := range map[string]struct{ query, header, value string }{
		"api key header": {header: "X-Goog-Api-Key", value: "k-secret"},
		"query":          {query: "?key=k-secret"},
		"bearer":         {header: "Authorization", value: "Bearer k-secret"},
	} {
		r := httptest.NewRequest(http.MethodPost, textPath+tc.query, strings.NewReader(prompt("hi")))
		if tc.header != "" {
			r.Header.Set(tc.header, tc.value)
		}
		got := serve(t, h, r)
		if got.status != 200 {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
		if strings.Contains(got.body, "k-secret") {
			t.Errorf("%s: the key is in the answer", name)
		}
	}
}

func TestUnknownPathsAre404(t *testing.T) {
	h := provisioned(t)
	for _, tc := range []struct{ method, path string }{
		{"GET", "/nowhere"},
		{"GET", proPath},
		{"POST", "/v1beta/models/gemini-3-pro-image:dream"},
		{"POST", "/v9/models/gemini-3-pro-image:generateContent"},
		{"POST", "/v1beta/models"},
	} {
		got := send(t, h, tc.method, tc.path, "{}")
		if got.status != 404 || got.get("error.code").Int() != 404 || got.get("error.status").Str != "NOT_FOUND" {
			t.Errorf("%s %s: got %d %s", tc.method, tc.path, got.status, got.body)
		}
	}
}

func TestGenerateOnEverySurface(t *testing.T) {
	h := provisioned(t)
	for path, vertex := range map[string]bool{
		proPath: false,
		"/v1/models/gemini-3-pro-image:generateContent":                                                       false,
		"/v1alpha/models/gemini-3-pro-image:generateContent":                                                  false,
		"/v1beta/models/gemini-3-pro-image%3AgenerateContent":                                                 false,
		"/v1beta/tunedModels/my-image-tune:generateContent":                                                   false,
		"/v1beta1/projects/p/locations/global/publishers/google/models/gemini-3-pro-image:generateContent":    true,
		"/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-3-pro-image%3AgenerateContent": true,
		"/v1beta1/publishers/google/models/gemini-3-pro-image:generateContent":                                true,
	} {
		got := post(t, h, path, small("a cat"))
		if got.status != 200 || got.get("candidates.0.content.parts.1.inlineData.mimeType").Str != "image/jpeg" {
			t.Errorf("%s: got %d %.200s", path, got.status, got.body)
			continue
		}
		if tier := got.header.Get("X-Gemini-Service-Tier"); tier != "standard" {
			t.Errorf("%s: service tier %q", path, tier)
		}
		// Vertex AI: role before parts, no index, its own usage fields.
		content := got.get("candidates.0.content").Raw
		roleFirst := strings.Index(content, `"role"`) < strings.Index(content, `"parts"`)
		if roleFirst != vertex || got.get("candidates.0.index").Exists() == vertex || got.get("createTime").Exists() != vertex ||
			got.get("usageMetadata.trafficType").Exists() != vertex || got.get("usageMetadata.serviceTier").Exists() == vertex {
			t.Errorf("%s: not the form of its API (Vertex AI: %v)", path, vertex)
		}
	}
}

func TestModels(t *testing.T) {
	h := provisioned(t)
	list := send(t, h, "GET", "/v1beta/models", "")
	if names := list.get("models.#.name"); len(names.Array()) != len(knownModels) {
		t.Errorf("listed %s", names.Raw)
	}
	for path, status := range map[string]int{
		"/v1beta/models/gemini-3-pro-image": 200,
		"/v1beta/models/gemini-0":           404,
	} {
		if got := send(t, h, "GET", path, ""); got.status != status {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	if got := send(t, h, "GET", "/v1beta/openai/models", ""); got.get("data.0.object").Str != "model" {
		t.Errorf("OpenAI list: %s", got.body)
	}
}

func TestHelpListsEveryScenario(t *testing.T) {
	got := serve(t, provisioned(t), httptest.NewRequest("GET", "/", nil)) // without a key
	for _, s := range scenarios {
		if !strings.Contains(got.body, "  sim:"+s.name) || !strings.Contains(got.body, s.about) {
			t.Errorf("help lacks sim:%s", s.name)
		}
	}
}

// The table in the documentation is that of the code.
func TestDocumentationListsEveryScenario(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "simulator.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `sim:") {
			documented = append(documented, strings.TrimSpace(line))
		}
	}
	for i, s := range scenarios {
		name := s.name
		if s.wait > 0 {
			name += "=" + s.wait.String()
		}
		want := "| `sim:" + name + "` | " + s.about + " |"
		if i >= len(documented) || documented[i] != want {
			t.Fatalf("docs/simulator.md, scenario %d: expected the line\n%s", i+1, want)
		}
	}
	if len(documented) != len(scenarios) {
		t.Errorf("docs/simulator.md has %d scenarios, the code %d", len(documented), len(scenarios))
	}
}

func TestLatencyDelaysAnswers(t *testing.T) {
	h := provisioned(t)
	h.Latency = caddy.Duration(50 * time.Millisecond)
	for _, text := range []string{"hi", "sim:500"} {
		start := time.Now()
		post(t, h, textPath, prompt(text))
		if took := time.Since(start); took < time.Duration(h.Latency) {
			t.Errorf("%q took %v", text, took)
		}
	}
}

func TestLatencyEndsWithTheClient(t *testing.T) {
	h := provisioned(t)
	h.Latency = caddy.Duration(time.Hour)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	r := httptest.NewRequest("POST", textPath, strings.NewReader(prompt("hi"))).WithContext(ctx)
	r.Header.Set("X-Goog-Api-Key", "any")
	serve(t, h, r) // returns, and without an error
}

func TestGzipWhereTheClientAllowsIt(t *testing.T) {
	h := provisioned(t)
	plain := post(t, h, flashPath, small("a cat"))
	for accept, compressed := range map[string]bool{
		"gzip": true, "br, GZIP;q=0.5": true, "": false, "br": false, "gzip;q=0": false, "gzip; q=0.00, br": false,
	} {
		r := httptest.NewRequest("POST", flashPath, strings.NewReader(small("a cat")))
		r.Header.Set("X-Goog-Api-Key", "any")
		r.Header.Set("Accept-Encoding", accept)
		got := serve(t, h, r)
		if (got.header.Get("Content-Encoding") == "gzip") != compressed {
			t.Errorf("%q: Content-Encoding %q", accept, got.header.Get("Content-Encoding"))
			continue
		}
		if compressed {
			got.body = gunzip(t, got.body)
		}
		const data = "candidates.0.content.parts.1.inlineData.data"
		if got.get(data).Str == "" || got.get(data).Str != plain.get(data).Str {
			t.Errorf("%q: another answer than without compression", accept)
		}
	}
}

func gunzip(t testing.TB, body string) string {
	t.Helper()
	reader, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestGzippedRequest(t *testing.T) {
	var body bytes.Buffer
	writer := gzip.NewWriter(&body)
	_, _ = writer.Write([]byte(prompt("sim:503")))
	_ = writer.Close()
	r := httptest.NewRequest("POST", textPath, &body)
	r.Header.Set("X-Goog-Api-Key", "any")
	r.Header.Set("Content-Encoding", "gzip")
	if got := serve(t, provisioned(t), r); got.status != 503 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

// Many clients at once get what each of them asked for.
func TestConcurrency(t *testing.T) {
	s := server(t, provisioned(t))
	var wg sync.WaitGroup
	for i := range 12 {
		text, status := "concurrent "+strings.Repeat("x", i%4), 200
		if i%6 == 5 {
			text, status = "sim:500", 500
		}
		wg.Go(func() {
			r, _ := http.NewRequest("POST", s.URL+flashPath, strings.NewReader(small(text)))
			r.Header.Set("X-Goog-Api-Key", "any")
			res, err := s.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != status {
				t.Errorf("%q: status %d, %v", text, res.StatusCode, err)
			}
			if status == 200 && (!gjson.ValidBytes(body) || !strings.Contains(gjson.GetBytes(body, cand+"content.parts.0.text").Str, text)) {
				t.Errorf("%q: %d bytes of something else", text, len(body))
			}
		})
	}
	wg.Wait()
}

func TestBoundedForgets(t *testing.T) {
	b := newBounded[int, int](3)
	for i := range 10 {
		b.update(i, func(int) (int, bool) { return i, true })
	}
	if n := len(b.entries); n != 3 {
		t.Errorf("keeps %d entries, limit 3", n)
	}
	if v, ok := b.get(9); !ok || v != 9 {
		t.Error("the latest entry is gone")
	}
	b.update(9, func(v int) (int, bool) { return v, false })
	if _, ok := b.get(9); ok {
		t.Error("an entry not kept is still there")
	}
}
