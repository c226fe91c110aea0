// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // machines without zone data pass the tests as well

	"github.com/tidwall/gjson"
	"go.uber.org/goleak"
)

// upstreamLog is a scripted upstream that remembers what it was asked.
type upstreamLog struct {
	*httptest.Server
	mu       sync.Mutex
	requests []receivedRequest
}

type receivedRequest struct {
	method, uri string
	header      http.Header
	body        string
}

func scripted(t *testing.T, answer http.HandlerFunc) *upstreamLog {
	t.Helper()
	l := new(upstreamLog)
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		l.requests = append(l.requests, receivedRequest{r.Method, r.RequestURI, r.Header.Clone(), string(body)})
		l.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *upstreamLog) seen() []receivedRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests
}

// send lets a router make one call and returns what a client would get.
type sent struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
	x      *exchange
}

type routerOption func(*router, *exchange)

func send(t *testing.T, base, path, body string, options ...routerOption) sent {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r := testRouter(Options{Retry: &Retry{Attempts: 1}}, upstreamAt(t, base, transport))
	in := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	in.Header.Set(apiKeyHeader, "client-key")
	in.Header.Set("Cookie", "session=1")
	x := newExchange(in, recognise(in))
	x.ctx = t.Context()
	for _, option := range options {
		option(r, x)
	}
	x.deadline = r.now().Add(time.Minute)
	x.body = newRequestBody(in, completion{}, defaultMaxBody, true)
	defer x.body.release()
	res, err := r.serve(in, x)
	if err != nil {
		return sent{err: err, x: x}
	}
	got, err := io.ReadAll(res.Body)
	if cerr := res.Body.Close(); cerr != nil {
		t.Errorf("closing the body: %v", cerr)
	}
	return sent{res.StatusCode, res.Header, string(got), err, x}
}

const (
	imagePath  = "/v1beta/models/gemini-3-pro-image:generateContent"
	streamPath = "/v1beta/models/gemini-3-pro-image:streamGenerateContent?alt=sse"
	okImage    = `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":1120}}`
	prompt     = `{"contents":[{"parts":[{"text":"a cat"}]}]}`
)

func answerWith(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// broken takes over the connection and lets the script misbehave on it.
func broken(script func(conn io.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		buffered := bufio.NewWriter(conn)
		script(buffered)
		_ = buffered.Flush()
	}
}

func TestRouterTurnsAnswersIntoWhatTheyAre(t *testing.T) {
	defer nothingRuns(t, goleak.IgnoreCurrent())
	const blocked = `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY","finishMessage":"Filtered."}]}`
	const failing = `{"error":{"code":503,"status":"UNAVAILABLE","message":"overloaded"}}`
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for name, test := range map[string]struct {
		path   string
		answer http.HandlerFunc
		status int
		reason string // of the error; empty: the body is passed on
		class  class
		body   string
	}{
		"image":                 {imagePath, answerWith(200, "application/json", okImage), 200, "", classOK, okImage},
		"block":                 {imagePath, answerWith(200, "application/json", blocked), 400, "IMAGE_SAFETY", classBlocked, ""},
		"block in stream":       {streamPath, answerWith(200, "text/event-stream", "data: "+blocked+"\r\n\r\n"), 400, "IMAGE_SAFETY", classBlocked, ""},
		"empty":                 {imagePath, answerWith(200, "application/json", ""), 503, "EMPTY_RESPONSE", classTransient, ""},
		"null":                  {imagePath, answerWith(200, "application/json", "null"), 503, "EMPTY_RESPONSE", classTransient, ""},
		"HTML":                  {imagePath, answerWith(200, "text/html", "<html>hello</html>"), 503, "EMPTY_RESPONSE", classTransient, ""},
		"empty stream":          {streamPath, answerWith(200, "text/event-stream", "\r\n"), 503, "EMPTY_RESPONSE", classTransient, ""},
		"truncated JSON":        {imagePath, answerWith(200, "application/json", `{"candidates":[{"content":{"parts":[{"text":"I`), 503, "UPSTREAM_UNAVAILABLE", classTransient, ""},
		"error inside 200":      {imagePath, answerWith(200, "application/json", failing), 503, "", classTransient, failing},
		"error in a stream":     {streamPath, answerWith(200, "text/event-stream", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true}]}}]}\r\n\r\n"+failing), 503, "", classTransient, failing},
		"error in an event":     {streamPath, answerWith(200, "text/event-stream", "data: "+failing+"\r\n\r\n"), 503, "", classTransient, failing},
		"overload":              {imagePath, answerWith(503, "application/json", `{"error":{"code":503,"status":"UNAVAILABLE"}}`), 503, "", classTransient, `{"error":{"code":503,"status":"UNAVAILABLE"}}`},
		"cut before any header": {imagePath, broken(func(io.Writer) {}), 503, "UPSTREAM_UNAVAILABLE", classTransient, ""},
		"cut inside headers":    {imagePath, broken(func(w io.Writer) { fmt.Fprint(w, head) }), 503, "UPSTREAM_UNAVAILABLE", classTransient, ""},
		"cut before the verdict": {imagePath, broken(func(w io.Writer) {
			fmt.Fprint(w, head+"Content-Length: 500\r\n\r\n"+`{"candidates":[{"content":{"parts":[{"text":"half`)
		}), 503, "UPSTREAM_UNAVAILABLE", classTransient, ""},
	} {
		t.Run(name, func(t *testing.T) {
			up := scripted(t, test.answer)
			got := send(t, up.URL, test.path, prompt)
			if got.err != nil || got.status != test.status {
				t.Fatalf("client got status %d, error %v; expected status %d: %s", got.status, got.err, test.status, got.body)
			}
			if reason := gjson.Get(got.body, "error.details.0.reason").String(); reason != test.reason {
				t.Errorf("reason %q, expected %q", reason, test.reason)
			}
			if test.reason != "" && gjson.Get(got.body, "error.code").Int() != int64(test.status) {
				t.Errorf("error.code differs from the status: %s", got.body)
			}
			if test.reason == "" && got.body != test.body {
				t.Errorf("body was changed: %s", got.body)
			}
			if got.x.verdict.class != test.class {
				t.Errorf("class %s, expected %s", got.x.verdict.class, test.class)
			}
			if n := len(up.seen()); n != 1 {
				t.Errorf("upstream was asked %d times", n)
			}
			if up.seen()[0].body != prompt {
				t.Errorf("upstream received %s", up.seen()[0].body)
			}
		})
	}
}

func TestRouterTellsOfAnUpstreamThatIsNotThere(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	got := send(t, dead.URL, imagePath, prompt)
	if got.status != http.StatusServiceUnavailable || gjson.Get(got.body, "error.status").String() != "UNAVAILABLE" {
		t.Fatalf("client got %d: %s", got.status, got.body)
	}
	if strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("the error names an address of the inner network: %s", got.body)
	}
	if status := got.header.Get("Proxy-Status"); status != `caddy-gemini; next-hop="fake"; error=connection_refused; details="UPSTREAM_UNAVAILABLE"` {
		t.Errorf("Proxy-Status: %s", status)
	}
}

func TestRouterBreaksOffWhenTheUpstreamDoes(t *testing.T) {
	up := scripted(t, broken(func(w io.Writer) {
		fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"+okImage[:120])
	}))
	got := send(t, up.URL, imagePath, prompt)
	if got.status != 200 || !errors.Is(got.err, io.ErrUnexpectedEOF) {
		t.Fatalf("client got %d and error %v", got.status, got.err)
	}
}

func TestRouterAnswersATimeoutWith504(t *testing.T) {
	release := make(chan struct{})
	up := scripted(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	got := send(t, up.URL, imagePath, prompt, func(r *router, _ *exchange) {
		r.upstreams[0].transport.(*http.Transport).ResponseHeaderTimeout = 20 * time.Millisecond
	})
	if got.status != http.StatusGatewayTimeout || gjson.Get(got.body, "error.status").String() != "DEADLINE_EXCEEDED" {
		t.Fatalf("client got %d: %s", got.status, got.body)
	}
}

func TestRouterEndsWithItsClient(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan struct{})
	up := scripted(t, func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(left)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	got := send(t, up.URL, imagePath, prompt, func(_ *router, x *exchange) { x.ctx = ctx })
	if !errors.Is(got.err, context.Canceled) {
		t.Fatalf("error %v, expected that the client has left", got.err)
	}
	<-left
}

func TestRouterPassesTheLastErrorOnWithRetryAfter(t *testing.T) {
	quota := func(id string) string {
		return `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
			{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"` + id + `"}]},
			{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"33.2s"}]}}`
	}
	evening := time.Date(2026, 11, 21, 23, 0, 0, 0, time.FixedZone("PST", -8*3600))
	for id, expected := range map[string]string{
		"GenerateRequestsPerMinutePerProjectPerModel": "34",
		"GenerateRequestsPerDayPerProjectPerModel":    "3600",
	} {
		up := scripted(t, answerWith(429, "application/json", quota(id)))
		got := send(t, up.URL, imagePath, prompt, func(r *router, _ *exchange) { r.now = func() time.Time { return evening } })
		if got.status != 429 || got.body != quota(id) {
			t.Errorf("%s: client got %d: %s", id, got.status, got.body)
		}
		if after := got.header.Get("Retry-After"); after != expected {
			t.Errorf("%s: Retry-After %q, expected %q", id, after, expected)
		}
	}
}

func TestRouterKeepsCredentialsApart(t *testing.T) {
	up := scripted(t, answerWith(200, "application/json", okImage))
	path := imagePath + "?key=client-key&$alt=json;enum-encoding=int"

	send(t, up.URL+"/prefix", path, prompt, func(r *router, _ *exchange) { r.upstreams[0].keys = []*apiKey{keyOf("its-own-key")} })
	first := up.seen()[0]
	if first.header.Get(apiKeyHeader) != "its-own-key" || strings.Contains(fmt.Sprint(first), "client-key") {
		t.Errorf("upstream with a key received %v", first)
	}
	if expected := "/prefix" + imagePath + "?$alt=json;enum-encoding=int"; first.uri != expected {
		t.Errorf("upstream was asked for %s, expected %s", first.uri, expected)
	}
	if first.header.Get("Cookie") != "" {
		t.Errorf("upstream received the client's cookie")
	}

	send(t, up.URL, path, prompt)
	second := up.seen()[1]
	if second.header.Get(apiKeyHeader) != "client-key" || second.uri != path {
		t.Errorf("upstream without a key received %v", second)
	}
}

func TestRouterReplacesTheModel(t *testing.T) {
	up := scripted(t, answerWith(200, "application/json", okImage))
	for asked, expected := range map[string]string{
		"/v1beta/models/gemini-2.5-flash-image:generateContent":   "/v1beta/models/gemini-3-pro-image:generateContent",
		"/v1beta/models/gemini-2.5-flash-image%3AgenerateContent": "/v1beta/models/gemini-3-pro-image%3AgenerateContent",
		"/v1beta/models/gemini-2.5-flash:generateContent":         "/v1beta/models/gemini-2.5-flash:generateContent",
	} {
		send(t, up.URL, asked, prompt, func(r *router, _ *exchange) {
			r.upstreams[0].models = []ModelRule{{Match: "*-flash-image", Model: "gemini-3-pro-image"}}
		})
		if seen := up.seen(); seen[len(seen)-1].uri != expected {
			t.Errorf("%s arrived as %s", asked, seen[len(seen)-1].uri)
		}
	}
}

func TestRouterLeavesBlocksWhereToldTo(t *testing.T) {
	const blocked = `{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}`
	up := scripted(t, answerWith(200, "application/json", blocked))
	got := send(t, up.URL, imagePath, prompt, func(r *router, _ *exchange) { r.blockStatus = 0 })
	if got.status != 200 || got.body != blocked {
		t.Fatalf("client got %d: %s", got.status, got.body)
	}
	if got.x.verdict.class != classForbidden || !strings.Contains(got.header.Get("Proxy-Status"), `details="PROHIBITED_CONTENT"`) {
		t.Errorf("the block is not marked: %v", got.header)
	}
}

func TestErrorsAreOneLineOfJSON(t *testing.T) {
	e := &apiError{code: 400, verdict: verdict{class: classBlocked, reason: "SAFETY", stage: stageOutput, said: "a\nb <c>"}}
	for _, body := range [][]byte{e.native(), e.openAI()} {
		if !json.Valid(body) || strings.ContainsAny(string(body), "\r\n") {
			t.Errorf("cannot stand in an event: %s", body)
		}
	}
}

func TestRouterPassesAnErrorInsideA200OnAsItIs(t *testing.T) {
	const limited = `{ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota.", "details": [
		{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33.2s" } ] } }`
	up := scripted(t, answerWith(200, "text/event-stream", "\r\n"+limited+"\r\n"))
	got := send(t, up.URL, streamPath, prompt)
	if got.status != 429 || got.body != limited || got.header.Get("Retry-After") != "34" {
		t.Errorf("client got %d, Retry-After %q: %s", got.status, got.header.Get("Retry-After"), got.body)
	}
	if got.x.verdict.class != classLimited || got.header.Get("Content-Type") != jsonContentType {
		t.Errorf("verdict %v, headers %v", got.x.verdict, got.header)
	}
}

func TestRouterDropsWhatConcernsOneHop(t *testing.T) {
	up := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "secret")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("X-Gemini-Service-Tier", "standard")
		_, _ = io.WriteString(w, okImage)
	})
	got := send(t, up.URL, imagePath, prompt)
	for _, name := range []string{"Connection", "X-Hop", "Alt-Svc"} {
		if got.header.Get(name) != "" {
			t.Errorf("client got %s: %s", name, got.header.Get(name))
		}
	}
	if got.header.Get("X-Gemini-Service-Tier") != "standard" {
		t.Errorf("client got %v", got.header)
	}
}

func TestBlocksAreNeverWorthRepeating(t *testing.T) {
	const blocked = `{"candidates":[{"finishReason":"IMAGE_SAFETY"}]}`
	up := scripted(t, answerWith(200, "application/json", blocked))
	got := send(t, up.URL, imagePath, prompt, func(r *router, _ *exchange) { r.blockStatus = http.StatusTooManyRequests })
	if got.status != 429 || got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("client got %d, X-Should-Retry %q", got.status, got.header.Get("X-Should-Retry"))
	}
}
