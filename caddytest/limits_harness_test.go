// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// limit is a block of limits for all models.
func limit(options ...string) string { return limitOf("*", options...) }

func limitOf(models string, options ...string) string {
	return "rate_limit " + models + " {\n\t" + strings.Join(options, "\n\t") + "\n}"
}

// paced lets one call through every so often, and as many wait as can do so in a
// minute.
func paced(every time.Duration) string {
	return limit(fmt.Sprintf("rpm %d", time.Minute/every), "burst 1", "queue 1m")
}

// watched is a Caddy whose admin endpoint can be asked.
type watched struct {
	*gateway
	admin string // its address
}

// watch starts a Caddy with an admin endpoint. No key may be in its log, and no
// day may end meanwhile.
func watch(t *testing.T, directives string) *watched {
	t.Helper()
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	if now := time.Now().In(pacific); now.Add(time.Minute).Day() != now.Day() {
		t.Skip("it is nearly midnight in California")
	}
	g := &watched{start(t, "respond 204\n"), freeAddress(t)}
	g.load(t, directives)
	return g
}

// load loads directives as a reload does.
func (g *watched) load(t *testing.T, directives string) {
	t.Helper()
	g.loadWith(t, "admin "+g.admin, directives)
	for g.address == g.admin { // both were free when they were looked for
		g.loadWith(t, "admin "+g.admin, directives)
	}
}

// behind is a Caddy in front of an upstream with a key of its own. Calls are made
// once, unless an option says otherwise.
func behind(t *testing.T, u *upstream, options ...string) *watched {
	t.Helper()
	return watch(t, siteOf(t, u, options...))
}

// siteOf is the directive for that.
func siteOf(t *testing.T, u *upstream, options ...string) string {
	t.Helper()
	return gemini(place("first", u, ownKey(t, "first", "studio")), options...)
}

// ask sends a request to the admin endpoint and decodes what it says.
func (g *watched) ask(t *testing.T, method, uri string, answer any) {
	t.Helper()
	s := g.tell(t, method, uri)
	if s.StatusCode != 200 || s.err != nil {
		t.Fatalf("%s %s: %s %v", method, uri, s.Status, s.err)
	}
	if err := json.Unmarshal(s.body, answer); err != nil {
		t.Fatalf("%s %s: %v", method, uri, err)
	}
}

// tell is ask for what goes wrong. The endpoint keeps its address when Caddy is
// reloaded: what is sent to the old one while that goes down may be lost.
func (g *watched) tell(t *testing.T, method, uri string) *reply {
	t.Helper()
	var answered *http.Response
	eventually(t, method+" "+uri+" is answered", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.admin+uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		answered, err = newTransport(t).RoundTrip(r)
		return err == nil
	})
	return read(answered)
}

// statusPage is what these tests read of it.
type statusPage struct {
	Upstreams []struct {
		Name          string     `json:"name"`
		CooldownUntil *time.Time `json:"cooldown_until"`
	} `json:"upstreams"`
	Limits []limitRow        `json:"limits"`
	Today  []json.RawMessage `json:"today"`
}

type limitRow struct {
	Project  string     `json:"project"`
	Model    string     `json:"model"`
	Key      string     `json:"key"`
	Limit    string     `json:"limit"`
	Value    int64      `json:"value"`
	Used     int64      `json:"used"`
	Waiting  int        `json:"waiting"`
	ResetsAt *time.Time `json:"resets_at"`
}

func (g *watched) status(t *testing.T) (page statusPage) {
	t.Helper()
	g.ask(t, http.MethodGet, "/gemini/status", &page)
	return page
}

// row is the only row of a limit.
func (g *watched) row(t *testing.T, limit string) (row limitRow) {
	t.Helper()
	n := 0
	for _, r := range g.status(t).Limits {
		if r.Limit == limit {
			row = r
			n++
		}
	}
	if n != 1 {
		t.Fatalf("the status page has %d rows for %s, want one", n, limit)
	}
	return row
}

// uses waits until that much of a limit is used: answers are settled when they
// have been delivered.
func (g *watched) uses(t *testing.T, limit string, want int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d of %s are used", want, limit), func() bool { return g.row(t, limit).Used == want })
}

// queues waits until that many calls wait in the only line.
func (g *watched) queues(t *testing.T, calls int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d calls wait", calls), func() bool { return g.row(t, "rpm").Waiting == calls })
}

// volley makes calls at the same time, each over a connection of its own.
func (g *gateway) volley(t *testing.T, calls int, uri, body string) []*reply {
	t.Helper()
	all := make([]*reply, calls)
	transport := newTransport(t)
	transport.MaxIdleConnsPerHost = calls
	begin := make(chan struct{})
	var group sync.WaitGroup
	for i := range all {
		r := g.newRequest(t, http.MethodPost, uri, strings.NewReader(body))
		group.Go(func() {
			<-begin
			s, err := roundTrip(transport, r)
			if err != nil {
				t.Errorf("call %d: %v", i, err)
				return
			}
			all[i] = s
		})
	}
	close(begin)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// wall is a limit, as its refusals tell of it.
type wall struct {
	quota   string // in the quotaId
	value   string // quotaValue; empty if it is not this gateway's
	class   string
	model   string // imageModel, unless it says otherwise
	waiting int    // how many calls are in line before, for a minute each
}

const (
	quotaRPM = "GenerateRequestsPerMinutePerProjectPerModel"
	quotaRPD = "GenerateRequestsPerDayPerProjectPerModel"
	quotaTPM = "GenerateContentInputTokensPerMinutePerProjectPerModel"
	quotaIPM = "GenerateImagesPerMinutePerProjectPerModel"
)

// quotaMetrics are those that quotas are about, as Google has them beside their names.
var quotaMetrics = map[string]string{
	quotaRPM: "caddy-gemini/requests", quotaRPD: "caddy-gemini/requests",
	quotaTPM: "caddy-gemini/input_tokens", quotaIPM: "caddy-gemini/images",
}

// refuses checks all that a refusal says, and returns the delay that it names.
func (w wall) refuses(t *testing.T, s *reply) time.Duration {
	t.Helper()
	e := w.checkError(t, s)
	if len(e.Details) != 5 {
		t.Fatalf("details %v, want five", e.Details)
	}
	if kind := e.Details[4]["@type"]; kind != "type.googleapis.com/google.rpc.RetryInfo" {
		t.Errorf("the fifth detail is a %v", kind)
	}
	text, _ := e.Details[4]["retryDelay"].(string)
	delay, err := time.ParseDuration(text)
	if err != nil || delay <= 0 {
		t.Fatalf("retryDelay %q", text)
	}
	seconds := strconv.FormatFloat(math.Ceil(delay.Seconds()), 'f', -1, 64)
	if after := s.Header.Get("Retry-After"); after != seconds {
		t.Errorf("Retry-After %q, want %s for %v", after, seconds, delay)
	}
	if advice := "Try again in " + seconds + " seconds."; !strings.Contains(e.Message, advice) {
		t.Errorf("message %q does not say %q", e.Message, advice)
	}
	switch {
	case w.quota == quotaRPD:
		checkMidnight(t, seconds)
	case w.value != "":
		if least := time.Duration(w.waiting) * time.Minute; delay <= least || delay > least+time.Minute {
			t.Errorf("there is room in %v, while %d calls wait for a minute each", delay, w.waiting)
		}
	}
	return delay
}

// checkError checks what is the same with and without a delay.
func (w wall) checkError(t *testing.T, s *reply) *apiError {
	t.Helper()
	if s.err != nil {
		t.Fatalf("the answer broke off: %v", s.err)
	}
	if s.StatusCode != 429 {
		t.Fatalf("status %d, want 429: %s", s.StatusCode, shortened(string(s.body)))
	}
	if got := s.Header.Get("Content-Type"); got != jsonType {
		t.Errorf("Content-Type %q", got)
	}
	if _, ok := s.Header["X-Should-Retry"]; ok {
		t.Error("X-Should-Retry on a 429, which may be tried again")
	}
	if got := s.Header.Get("Proxy-Status"); got != `caddy-gemini; details="RATE_LIMITED"` {
		t.Errorf("Proxy-Status %q", got)
	}
	e := parseError(t, s.body)
	if e.Code != 429 || e.Status != "RESOURCE_EXHAUSTED" || !strings.HasPrefix(e.Message, "RATE_LIMITED: ") {
		t.Errorf("code %d, status %q, message %q", e.Code, e.Status, e.Message)
	}
	for _, word := range []string{"billing", "exceeded your"} { // which stop LangChain's client (wire §8)
		if strings.Contains(e.Message, word) {
			t.Errorf("message %q says %q", e.Message, word)
		}
	}
	if len(e.Details) < 4 {
		t.Fatalf("details %v", e.Details)
	}
	w.checkInfo(t, e)
	w.checkQuota(t, e.Details[3])
	return e
}

func (w wall) checkInfo(t *testing.T, e *apiError) {
	t.Helper()
	if e.Details[0]["reason"] != "RATE_LIMITED" || e.Details[0]["domain"] != "caddy-gemini" {
		t.Errorf("ErrorInfo %v", e.Details[0])
	}
	for key, want := range map[string]string{"class": w.class, "model": w.named(), "upstream": "first", "attempts": "0", "configurable": ""} {
		if got := e.metadata(key); got != want {
			t.Errorf("metadata %s %q, want %q", key, got, want)
		}
	}
	if e.Details[1]["locale"] == "" || e.Details[1]["message"] == "" || e.Details[2]["links"] == nil {
		t.Errorf("LocalizedMessage %v, Help %v", e.Details[1], e.Details[2])
	}
}

func (w wall) named() string {
	if w.model != "" {
		return w.model
	}
	return imageModel
}

func (w wall) checkQuota(t *testing.T, detail map[string]any) {
	t.Helper()
	violation := map[string]any{
		"quotaMetric": quotaMetrics[w.quota], "quotaId": w.quota, "quotaDimensions": map[string]any{"model": w.named()},
	}
	if w.value != "" {
		violation["quotaValue"] = w.value
	}
	want := map[string]any{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []any{violation}}
	if got, want := fmt.Sprint(detail), fmt.Sprint(want); got != want {
		t.Errorf("QuotaFailure %s\nwant         %s", got, want)
	}
}

// flood is how many clients bring a key of their own: more than there is room for,
// or, where the race detector makes that a matter of minutes, than metrics show.
var flood = func() int {
	if hasRaceDetector {
		return 1_200
	}
	return 100_000
}()

var hasRaceDetector = func() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

// stub is a transport that answers by itself, so that a flood costs little.
type stub struct{}

func init() { caddy.RegisterModule(stub{}) }

// CaddyModule returns the Caddy module information.
func (stub) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.caddytest_stub", New: func() caddy.Module { return new(stub) }}
}

// UnmarshalCaddyfile takes no options.
func (*stub) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

// RoundTrip draws.
func (*stub) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	uncounted(w, r)
	return w.Result(), nil
}
