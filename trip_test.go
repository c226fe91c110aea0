// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// journey is a router on a fake clock, with upstreams that answer by script.
type journey struct {
	*router
	t      *testing.T
	clock  time.Time
	began  time.Time
	plays  map[string][]scene // what is left of each upstream's script; the last is repeated
	log    []string           // "upstream@time since the call", with the key if it has several
	events []string
}

// scene is one answer of an upstream.
type scene struct {
	status int
	body   string
	header http.Header
	fails  error
	takes  time.Duration
}

func newJourney(t *testing.T, o Options, upstreams ...*upstream) *journey {
	t.Helper()
	j := &journey{t: t, clock: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC), plays: make(map[string][]scene)}
	for _, u := range upstreams {
		u.base = upstreamAt(t, "http://"+u.name, nil).base
		u.transport, u.health, u.probe = j.of(u), newHealth(), 5*time.Minute
		u.takesVertex = u.format == formatGemini
	}
	if o.Retry == nil {
		o.Retry = &Retry{Jitter: new(float64)}
	}
	j.router = testRouter(o, upstreams...)
	j.now = func() time.Time { return j.clock }
	j.sleep = func(ctx context.Context, d time.Duration, _ <-chan struct{}) error {
		j.clock = j.clock.Add(d)
		return ctx.Err()
	}
	j.tell = func(event string, data map[string]any) {
		j.events = append(j.events, fmt.Sprint(event, " ", data["upstream"]))
	}
	return j
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// of is the transport of an upstream.
func (j *journey) of(u *upstream) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		entry := fmt.Sprintf("%s@%v", u.name, j.clock.Sub(j.began))
		if len(u.keys) > 1 {
			entry += " " + r.Header.Get(apiKeyHeader)
		}
		j.log = append(j.log, entry)
		p := scene{status: 200, body: okImage}
		if script := j.plays[u.name]; len(script) > 0 {
			p = script[0]
			j.plays[u.name] = script[min(1, len(script)-1):]
		}
		j.clock = j.clock.Add(p.takes)
		if p.fails != nil {
			return nil, p.fails
		}
		header := p.header.Clone()
		if header == nil {
			header = http.Header{}
		}
		header.Set("Content-Type", "application/json")
		header.Set("X-Prompt", string(body))
		return &http.Response{StatusCode: p.status, Header: header, Body: io.NopCloser(strings.NewReader(p.body)), ContentLength: int64(len(p.body))}, nil
	})
}

// call makes a call and returns what the client gets.
func (j *journey) call(body string, options ...func(*http.Request)) (int, string, *exchange) {
	j.t.Helper()
	j.log, j.began = nil, j.clock
	in := httptest.NewRequest(http.MethodPost, imagePath, strings.NewReader(body))
	in.Header.Set(apiKeyHeader, "client-key")
	for _, option := range options {
		option(in)
	}
	g := &gateway{options: &Options{MaxBody: defaultMaxBody, Inject: injectOff, NoImage: string(noImageAuto)}, router: j.router, state: j.state, notes: new(noteLog)}
	x := g.open(in, recognise(in))
	x.ctx = in.Context()
	defer x.body.release()
	res, err := j.serve(in, x)
	if err != nil {
		return 0, err.Error(), x
	}
	got, err := io.ReadAll(res.Body)
	if cerr := res.Body.Close(); err != nil || cerr != nil {
		j.t.Fatal(err, cerr)
	}
	if x.verdict.reason != reasonRepeated {
		j.conclude(x)
	}
	return res.StatusCode, string(got), x
}

func (j *journey) went(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(j.log, want) {
		t.Errorf("it was sent to %q, want %q", j.log, want)
	}
}

// Answers of the Gemini API by what they mean.
func problem(code int, status, message, details string) scene {
	return scene{status: code, body: fmt.Sprintf(`{"error":{"code":%d,"status":%q,"message":%q,"details":[%s]}}`, code, status, message, details)}
}

func retryIn(delay string) string {
	return `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"` + delay + `"}`
}

func quota(id string) string {
	return `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"` + id + `"}]}`
}

func finished(reason string) scene {
	return scene{status: 200, body: `{"candidates":[{"content":{},"finishReason":"` + reason + `"}]}`}
}

var (
	overloaded = problem(503, "UNAVAILABLE", "The model is overloaded.", "")
	limited    = problem(429, "RESOURCE_EXHAUSTED", "Slow down.", quota("GenerateRequestsPerMinutePerProjectPerModel")+","+retryIn("34.5s"))
	unsaid     = problem(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", "")
	exhausted  = problem(429, "RESOURCE_EXHAUSTED", "Slow down.", quota("GenerateRequestsPerMinute")+","+quota("GenerateRequestsPerDayPerProject")+","+retryIn("3s"))
	badKey     = problem(400, "INVALID_ARGUMENT", "API key not valid.", `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}`)
	abroad     = problem(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", "")
	wrong      = problem(400, "INVALID_ARGUMENT", "Aspect ratio 1:5 is not supported.", "")
	image      = scene{status: 200, body: okImage}
	refused    = scene{fails: errors.New("dial tcp: connection refused")}
	cut        = scene{status: 200, body: okImage[:40]}
)

// What follows an answer, at the same upstream and at another (contract §4).
func TestTheTableOfDecisions(t *testing.T) {
	for _, c := range []struct {
		name   string
		plays  []scene // of a lone upstream, and of the first of two
		alone  string  // where the call goes, and what becomes of it
		second string  // the same with a second upstream that works
	}{
		{"ok", []scene{image}, "a@0s = 200", "a@0s = 200"},
		{"overloaded", []scene{overloaded, overloaded, image}, "a@0s a@1s a@3s = 200", "a@0s b@0s = 200"},
		{"overloaded for good", []scene{overloaded}, "a@0s a@1s a@3s a@7s a@15s = 503", "a@0s b@0s = 200"},
		{"refused", []scene{refused, image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"refused for good", []scene{refused}, "a@0s a@1s a@3s a@7s a@15s = 503 UPSTREAM_UNAVAILABLE", "a@0s b@0s = 200"},
		{"cut off", []scene{cut, image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"created", []scene{{status: 201, body: okImage}}, "a@0s = 200", "a@0s = 200"},
		{"changed on the way", []scene{{status: 203, body: okImage}}, "a@0s = 200", "a@0s = 200"},
		{"accepted", []scene{{status: 202, body: okImage}, image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"closing an idle connection", []scene{problem(408, "", "Request Timeout", ""), image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"early data", []scene{problem(425, "", "Too Early", ""), image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"empty", []scene{{status: 200}, image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"retry-after on a 503", []scene{{status: 503, header: http.Header{"Retry-After": {"7"}}}, image}, "a@0s a@7s = 200", "a@0s b@0s = 200"},
		{"IMAGE_OTHER once", []scene{finished("IMAGE_OTHER"), image}, "a@0s a@1s = 200", "a@0s b@0s = 200"},
		{"IMAGE_RECITATION twice", []scene{finished("IMAGE_RECITATION")}, "a@0s a@1s = 400 IMAGE_RECITATION", "a@0s b@0s = 200"},
		{"limited", []scene{limited, image}, "a@0s a@34.5s = 200", "a@0s b@0s = 200"},
		{"limited without a word", []scene{unsaid, unsaid, image}, "a@0s a@1s a@3s = 200", "a@0s b@0s = 200"},
		{"exhausted", []scene{exhausted}, "a@0s = 429", "a@0s b@0s = 200"},
		{"bad key", []scene{badKey}, "a@0s = 400 API_KEY_INVALID", "a@0s b@0s = 200"},
		{"no money", []scene{problem(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", retryIn("1s"))}, "a@0s = 429", "a@0s b@0s = 200"},
		{"no access", []scene{problem(429, "RESOURCE_EXHAUSTED", "limit: 0, model: x", retryIn("1s"))}, "a@0s = 429", "a@0s b@0s = 200"},
		{"forbidden key", []scene{problem(403, "PERMISSION_DENIED", "Leaked.", "")}, "a@0s = 403", "a@0s b@0s = 200"},
		{"region", []scene{abroad}, "a@0s = 400", "a@0s b@0s = 200"},
		{"client", []scene{wrong}, "a@0s = 400", "a@0s = 400"},
		{"not found", []scene{problem(404, "NOT_FOUND", "No such model.", "")}, "a@0s = 404", "a@0s = 404"},
		{"blocked", []scene{finished("IMAGE_SAFETY")}, "a@0s = 400 IMAGE_SAFETY", "a@0s = 400 IMAGE_SAFETY"},
		{"no image", []scene{finished("NO_IMAGE")}, "a@0s = 400 NO_IMAGE", "a@0s = 400 NO_IMAGE"},
		{"forbidden", []scene{finished("PROHIBITED_CONTENT")}, "a@0s = 400 PROHIBITED_CONTENT", "a@0s = 400 PROHIBITED_CONTENT"},
		{"forbidden after trouble", []scene{overloaded, finished("SPII")}, "a@0s a@1s = 400 SPII", "a@0s b@0s = 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			alone := newJourney(t, Options{}, &upstream{name: "a"})
			alone.plays["a"] = c.plays
			if got := alone.story(prompt); got != c.alone {
				t.Errorf("alone:    %s, want %s", got, c.alone)
			}
			both := newJourney(t, Options{}, &upstream{name: "a"}, &upstream{name: "b"})
			both.plays["a"] = c.plays
			if got := both.story(prompt); got != c.second {
				t.Errorf("with b:   %s, want %s", got, c.second)
			}
		})
	}
}

// story makes a call and puts it into a line.
func (j *journey) story(body string, options ...func(*http.Request)) string {
	j.t.Helper()
	status, got, _ := j.call(body, options...)
	line := fmt.Sprint(strings.Join(j.log, " "), " = ", status)
	if _, reason, ok := strings.Cut(got, `"reason":"`); ok {
		reason, _, _ = strings.Cut(reason, `"`)
		line += " " + reason
	}
	return line
}

// A wait that does not fit is not begun, and the client gets the last answer at
// once.
func TestDeadlineOfACall(t *testing.T) {
	hurry := func(seconds string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Server-Timeout", seconds) }
	}
	slow := overloaded
	slow.takes = 90 * time.Second
	for _, c := range []struct {
		name, timeout string
		plays         []scene
		want          string
	}{
		{"fits", "35", []scene{limited, image}, "a@0s a@34.5s = 200"},
		{"does not fit", "34", []scene{limited, image}, "a@0s = 429"},
		{"the operator's", "600", []scene{slow, slow, image}, "a@0s a@1m31s = 503"},
		{"no attempt after it", "3", []scene{overloaded}, "a@0s a@1s = 503"},
		{"the operator's is shorter", "600", []scene{problem(429, "RESOURCE_EXHAUSTED", "Please retry in 3m1s.", "")}, "a@0s = 429"},
	} {
		j := newJourney(t, Options{}, &upstream{name: "a"})
		j.plays["a"] = c.plays
		if got := j.story(prompt, hurry(c.timeout)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Jitter adds and never takes away; it does not push a wait past the deadline
// that fits without it.
func TestJitterOfACall(t *testing.T) {
	for timeout, want := range map[string]string{"60": "a@0s a@37.95s = 200", "36": "a@0s a@34.5s = 200"} {
		j := newJourney(t, Options{}, &upstream{name: "a"})
		j.pacing.jitter, j.pacing.random = 0.2, func() float64 { return 0.5 }
		j.plays["a"] = []scene{limited, image}
		if got := j.story(prompt, func(r *http.Request) { r.Header.Set("X-Server-Timeout", timeout) }); got != want {
			t.Errorf("within %s s: %s, want %s", timeout, got, want)
		}
	}
}

// Keys take turns. One that is rejected is set aside, one whose project cools
// down is skipped with its whole project.
func TestKeyPool(t *testing.T) {
	pool := func(names ...string) (keys []*apiKey) {
		for _, name := range names {
			keys = append(keys, &apiKey{secret: name, project: name[:1], account: name[:1], id: name})
		}
		return keys
	}
	j := newJourney(t, Options{}, &upstream{name: "a", keys: pool("p1", "p2", "q1")})
	j.story(prompt)
	j.went(t, "a@0s p1")
	j.plays["a"] = []scene{limited, image}
	j.story(prompt)
	j.went(t, "a@0s p2", "a@0s q1")
	j.story(prompt) // it would be p1's turn after q1
	j.went(t, "a@0s q1")
	j.clock = j.clock.Add(35 * time.Second)
	j.plays["a"] = []scene{badKey, image}
	j.story(prompt)
	j.went(t, "a@0s p1", "a@0s p2")
	for _, want := range []string{"a@0s p2", "a@0s q1", "a@0s p2", "a@0s p2"} {
		j.story(prompt)
		j.went(t, want)
	}
	if want := []string{"key_rejected a"}; !slices.Equal(j.events, want) {
		t.Errorf("events %q, want %q", j.events, want)
	}
	j.clock = j.clock.Add(setAside)
	var turns []string
	for range 3 {
		j.story(prompt)
		turns = append(turns, j.log...)
	}
	if !slices.Contains(turns, "a@0s p1") {
		t.Errorf("a key that was set aside is not tried again: %q", turns)
	}
}

// A call that waits for nothing else waits for its cooldown.
func TestCooldownIsSharedByCalls(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"}, &upstream{name: "b"})
	j.plays["a"] = []scene{limited, image}
	j.story(prompt)
	j.clock = j.clock.Add(10 * time.Second)
	j.story(prompt)
	j.went(t, "b@0s")
	lone := newJourney(t, Options{}, &upstream{name: "a"})
	lone.plays["a"] = []scene{exhausted, image}
	if got := lone.story(prompt); got != "a@0s = 429" {
		t.Error(got)
	}
	if got := lone.story(prompt); got != " = 429 RATE_LIMITED" { // to midnight it is four hours
		t.Errorf("%q", got)
	}
	lone.clock = lone.midnight()
	lone.story(prompt)
	lone.went(t, "a@0s")
}

// An upstream that fails is demoted, tried once in a while, and restored.
func TestCanaryCalls(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"}, &upstream{name: "b"})
	j.plays["a"] = []scene{overloaded}
	for range 10 {
		j.story(prompt)
		j.went(t, "a@0s", "b@0s")
	}
	j.story(prompt)
	j.went(t, "b@0s")
	j.clock = j.clock.Add(5 * time.Minute)
	j.story(prompt) // a canary that dies
	j.went(t, "a@0s", "b@0s")
	j.story(prompt)
	j.went(t, "b@0s")
	j.clock = j.clock.Add(5 * time.Minute)
	j.plays["a"] = []scene{image}
	for range 4 {
		j.story(prompt)
		j.went(t, "a@0s")
	}
	if want := []string{"upstream_demoted a", "upstream_restored a"}; !slices.Equal(j.events, want) {
		t.Errorf("events %q, want %q", j.events, want)
	}
}

// What was blocked goes nowhere unchanged, but to an upstream that accepts it.
func TestAcceptBlocked(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"}, &upstream{name: "b"}, &upstream{name: "c", acceptBlocked: true})
	j.plays["a"] = []scene{finished("IMAGE_SAFETY")}
	for _, want := range []string{"a@0s c@0s = 200", "c@0s = 200"} {
		if got := j.story(prompt); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	j.plays["c"] = []scene{finished("IMAGE_SAFETY")}
	for _, want := range []string{"c@0s = 400 IMAGE_SAFETY", " = 400 REPEATED_BLOCK"} {
		if got := j.story(prompt); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Each rephrasing is another prompt, and what was blocked is not said again.
func TestRephrasingOfACall(t *testing.T) {
	o := Options{Rephrase: &Rephrase{Prefixes: []string{"Art:", "Photo:"}}}
	j := newJourney(t, o, &upstream{name: "a"})
	j.plays["a"] = []scene{finished("SAFETY"), overloaded, finished("SAFETY"), image}
	if got, want := j.story(prompt), "a@0s a@0s a@1s a@1s = 200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	j.plays["a"] = []scene{image}
	_, _, x := j.call(prompt)
	if sent := x.res.Header.Get("X-Prompt"); !strings.Contains(sent, "Photo: a cat") || x.attempts != 1 {
		t.Errorf("%d attempts, at last with %s", x.attempts, sent)
	}
}
