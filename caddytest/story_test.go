// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// storyLine is the line of the log that tells of a call with several attempts.
type storyLine struct {
	Level    string  `json:"level"`
	Verdict  string  `json:"verdict"`
	Reason   string  `json:"reason"`
	Model    string  `json:"model"`
	Upstream string  `json:"upstream"`
	Project  string  `json:"project"`
	Status   int     `json:"status"`
	Attempts int     `json:"attempts"`
	Waited   float64 `json:"waited"` // seconds
	Story    []struct {
		Upstream string  `json:"upstream"`
		Project  string  `json:"project"`
		Verdict  string  `json:"verdict"`
		Reason   string  `json:"reason"`
		Status   int     `json:"status"`
		Wait     float64 `json:"wait"`
		Error    string  `json:"error"`
	} `json:"story"`
}

const storyMessage = `"msg":"call took several attempts"`

// stories are the lines so far.
func (g *gateway) stories(t *testing.T) (all []storyLine) {
	t.Helper()
	for text := range strings.Lines(g.log(t)) {
		if !strings.Contains(text, storyMessage) || !strings.HasSuffix(text, "\n") {
			continue
		}
		var line storyLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all = append(all, line)
	}
	return all
}

// tale is what the attempts of a line were, without their waits.
func (l *storyLine) tale() string {
	var attempts []string
	for _, a := range l.Story {
		attempts = append(attempts, strings.TrimSpace(fmt.Sprintf("%s %s %d %s %s", a.Upstream, a.Project, a.Status, a.Verdict, a.Reason)))
	}
	return strings.Join(attempts, ", ")
}

// slowly waits long enough to tell waits from none: each is shorter by what has passed
// when it begins, which on a busy machine is more than a moment.
const slowly = "retry {\n\tattempts 3\n\tbackoff 300ms 600ms\n\tjitter 0\n}"

func TestStory(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second http.HandlerFunc // a nil: there is none
		status        int
		tale          string
		waits         []float64
		proxyStatus   string // behind the name
		result        string // of the whole call: upstream, project, verdict, reason
	}{
		{
			"waited for", inTurn(overloaded, overloaded, drawn), nil, 200,
			"first first-project 503 transient UNAVAILABLE, first first-project 503 transient UNAVAILABLE, first first-project 200 ok",
			[]float64{0, 0.3, 0.6},
			`next-hop="first"; received-status=200; attempts=3`, "first first-project ok ",
		},
		{
			"rerouted", overloaded, drawn, 200,
			"first first-project 503 transient UNAVAILABLE, second second-project 200 ok",
			[]float64{0, 0},
			`next-hop="second"; received-status=200; attempts=2`, "second second-project ok ",
		},
		{
			"no answer", resets(), drawn, 200,
			"first first-project 0 transient UPSTREAM_UNAVAILABLE, second second-project 200 ok",
			[]float64{0, 0},
			`next-hop="second"; received-status=200; attempts=2`, "second second-project ok ",
		},
		{
			"blocked elsewhere", limited("60s"), answers(200, jsonType, blockedJSON), 400,
			"first first-project 429 limited RESOURCE_EXHAUSTED, second second-project 200 blocked IMAGE_SAFETY",
			[]float64{0, 0},
			`next-hop="second"; received-status=200; attempts=2; details="IMAGE_SAFETY"`, "second second-project blocked IMAGE_SAFETY",
		},
		{
			"two chances", answers(200, jsonType, otherJSON), nil, 400,
			"first first-project 200 transient IMAGE_OTHER, first first-project 200 blocked IMAGE_OTHER",
			[]float64{0, 0.3},
			`next-hop="first"; received-status=200; attempts=2; details="IMAGE_OTHER"`, "first first-project blocked IMAGE_OTHER",
		},
		{
			"all in vain", overloaded, nil, 503,
			"first first-project 503 transient UNAVAILABLE, first first-project 503 transient UNAVAILABLE, first first-project 503 transient UNAVAILABLE",
			[]float64{0, 0.3, 0.6},
			`next-hop="first"; received-status=503; attempts=3; details="UNAVAILABLE"`, "first first-project transient UNAVAILABLE",
		},
		{
			"the first error is the better one", overloaded, resets(), 503,
			"first first-project 503 transient UNAVAILABLE, second second-project 0 transient UPSTREAM_UNAVAILABLE, first first-project 503 transient UNAVAILABLE",
			[]float64{0, 0, 0.3},
			`next-hop="first"; received-status=503; attempts=3; details="UNAVAILABLE"`, "first first-project transient UNAVAILABLE",
		},
		{"the first time", drawn, overloaded, 200, "", nil, `next-hop="first"; received-status=200`, ""},
		{"refused for good", answers(200, jsonType, promptBlockedJSON), drawn, 400, "", nil, `next-hop="first"; received-status=200; details="PROHIBITED_CONTENT"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ways := []*upstream{scripted(t, c.first)}
			if c.second != nil {
				ways = append(ways, scripted(t, c.second))
			}
			g := run(t, accessLog+gemini(inOrder("", ways...), slowly))
			s := g.post(t, unaryPath+"?key="+clientKey, promptJSON)
			if s.StatusCode != c.status {
				t.Fatalf("status %d: %s", s.StatusCode, shortened(string(s.body)))
			}
			if got := strings.Join(s.Header.Values("Proxy-Status"), ", "); got != "caddy-gemini; "+c.proxyStatus {
				t.Errorf("Proxy-Status %s\nwant         caddy-gemini; %s", got, c.proxyStatus)
			}
			eventually(t, "a line in the access log", func() bool { return len(g.accessLines(t)) == 1 })
			if c.tale == "" {
				if n := len(g.stories(t)); n != 0 {
					t.Errorf("%d lines tell of one attempt", n)
				}
				return
			}
			eventually(t, "a line that tells the story", func() bool { return len(g.stories(t)) > 0 })
			all := g.stories(t)
			if len(all) != 1 {
				t.Errorf("%d lines tell the same story", len(all))
			}
			line := all[0]
			if got := line.tale(); got != c.tale {
				t.Errorf("the story %s\nwant      %s", got, c.tale)
			}
			if got := fmt.Sprintf("%s %s %s %s", line.Upstream, line.Project, line.Verdict, line.Reason); got != c.result {
				t.Errorf("the call ended as %q, want %q", got, c.result)
			}
			if line.Level != "info" || line.Status != c.status || line.Attempts != len(c.waits) || line.Model != imageModel {
				t.Errorf("line %+v", line)
			}
			line.checkWaits(t, c.waits)
		})
	}
}

// checkWaits allows a wait to be shorter by what has passed when it began.
func (l *storyLine) checkWaits(t *testing.T, want []float64) {
	t.Helper()
	if len(l.Story) != len(want) {
		return
	}
	sum := 0.0
	for i, a := range l.Story {
		if a.Wait > want[i] || want[i] > 0 && a.Wait <= 0 {
			t.Errorf("attempt %d was waited for %vs, want at most %vs", i+1, a.Wait, want[i])
		}
		sum += a.Wait
	}
	if l.Waited < sum-1e-6 {
		t.Errorf("the call waited %vs, its attempts %vs", l.Waited, sum)
	}
}

// Placeholders tell of the call as a whole.
func TestPlaceholdersOfSeveralAttempts(t *testing.T) {
	u := scripted(t, inTurn(overloaded, overloaded, drawn))
	g := run(t, accessLog+"log_append waited {http.gemini.wait}\n"+gemini(inOrder("", u), slowly))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	eventually(t, "a line in the access log", func() bool { return len(g.accessLines(t)) == 1 })
	var line accessLine
	if err := json.Unmarshal([]byte(g.accessLines(t)[0]), &line); err != nil {
		t.Fatal(err)
	}
	const want = imageModel + " generateContent first first-project 3 ok  1 1306"
	if got := line.fields(line, "placeholder_"); got != want {
		t.Errorf("placeholders %q\nwant         %q", got, want)
	}
	facts, _ := line["gemini"].(map[string]any)
	if got := line.fields(facts, ""); got != want {
		t.Errorf("fields %q\nwant   %q", got, want)
	}
	if waited, ok := facts["wait"].(float64); !ok || waited <= 0.6 || line["waited"] != waited { // 300 and 600 ms, less what had passed when they began
		t.Errorf("field: waited %v, placeholder: %v", facts["wait"], line["waited"])
	}
}

// The tokens of a call are those of all its attempts: Google counts each.
func TestTokensOfSeveralAttempts(t *testing.T) {
	u := scripted(t, inTurn(answers(200, jsonType, otherJSON), drawn))
	g := run(t, accessLog+gemini(inOrder("", u), retryQuickly))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	eventually(t, "a line in the access log", func() bool { return len(g.accessLines(t)) == 1 })
	if line := g.accessLines(t)[0]; !strings.Contains(line, `"tokens":1544`) { // 1306 and 238
		t.Errorf("line %s", line)
	}
}

// Attempts are counted by where they went and what came of them, calls once.
func TestMetricsOfSeveralAttempts(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, drawn)
	const names = "upstream told-first %s\nupstream told-second %s"
	g := run(t, "metrics /metrics\n"+gemini(fmt.Sprintf(names, first.URL, second.URL), slowly))
	before := g.counters(t)
	for range 3 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	first.play(limited("0.001s"))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	second.play(answers(200, jsonType, blockedJSON))
	first.play(resets())
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	after := g.counters(t)
	for series, want := range map[string]float64{
		`attempts_total{upstream="told-first",verdict="transient"}`:                                                 4,
		`attempts_total{upstream="told-first",verdict="limited"}`:                                                   1,
		`attempts_total{upstream="told-second",verdict="ok"}`:                                                       4,
		`attempts_total{upstream="told-second",verdict="blocked"}`:                                                  1,
		`requests_total{model="` + imageModel + `",reason="",upstream="told-second",verdict="ok"}`:                  4,
		`requests_total{model="` + imageModel + `",reason="IMAGE_SAFETY",upstream="told-second",verdict="blocked"}`: 1,
		`requests_total{model="` + imageModel + `",reason="UNAVAILABLE",upstream="told-first",verdict="transient"}`: 0,
		`images_total{model="` + imageModel + `",upstream="told-second"}`:                                           4,
		`request_duration_seconds_count{verdict="ok"}`:                                                              4,
	} {
		if got := after[series] - before[series]; got != want {
			t.Errorf("%s rose by %v, want %v", series, got, want)
		}
	}
}

// What a call is about is nobody's business, however many attempts it takes: run
// looks for the client's key and the prompt in all logs, this for the rest.
func TestStoryTellsNoSecrets(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) { // an upstream that repeats what it should not
		answers(503, jsonType, `{"error":{"code":503,"message":"overloaded by `+r.Header.Get("X-Goog-Api-Key")+` with `+prompt+`","status":"UNAVAILABLE"}}`)(w, r)
	}
	for name, options := range map[string]string{"own key": "api_key {env.CADDYTEST_KEY}", "client's key": ""} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, inTurn(echo, resets(), drawn))
			g := run(t, accessLog+gemini(place("scripted", u, options), retryQuickly, "guard 1h"))
			g.post(t, unaryPath+"?key="+clientKey, promptJSON).exactly(t, 200, imageJSON)
			eventually(t, "a line that tells the story", func() bool { return len(g.stories(t)) == 1 })
			for _, name := range g.files(t) {
				for _, secret := range []string{clientKey, upstreamKey, prompt} {
					if strings.Contains(readFile(t, name), secret) {
						t.Errorf("%s contains %q", filepath.Base(name), secret)
					}
				}
			}
		})
	}
}

// files are all that has been written in the folder of the test.
func (g *gateway) files(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(g.dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
