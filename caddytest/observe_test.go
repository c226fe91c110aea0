// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// publicNames are the placeholders and log fields of a call, in the order in
// which accessLine.fields has them.
var publicNames = []string{"model", "method", "upstream", "project", "attempts", "verdict", "reason", "images", "tokens"}

// accessLog is a log directive that keeps keys out, and appends what the
// placeholders say.
var accessLog = func() string {
	directives := `log {
	output file {$CADDYTEST_DIR}/access.log
	format filter {
		request>headers>X-Goog-Api-Key delete
		request>headers>Authorization delete
		request>uri query {
			replace key REDACTED
			replace access_token REDACTED
		}
		resp_headers>X-Goog-Upload-Url delete
	}
}
`
	for _, name := range publicNames {
		directives += fmt.Sprintf("log_append placeholder_%[1]s {http.gemini.%[1]s}\n", name)
	}
	return directives
}()

// accessLine is one line of the access log.
type accessLine map[string]any

// fields are the public facts under gemini, or what the placeholders said.
func (l accessLine) fields(of map[string]any, prefix string) string {
	values := make([]string, len(publicNames))
	for i, name := range publicNames {
		values[i] = fmt.Sprint(of[prefix+name])
	}
	return strings.Join(values, " ")
}

// accessLines are the lines that have been written to their end.
func (g *gateway) accessLines(t *testing.T) []string {
	t.Helper()
	lines := strings.Split(readFile(t, filepath.Join(g.dir, "access.log")), "\n")
	return lines[:len(lines)-1]
}

func TestAccessLog(t *testing.T) {
	u := scripted(t, nil)
	g := run(t, accessLog+gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY} studio\n}"))
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		status     float64
		want       string
		aborted    bool // log_append has nothing to say then
	}{
		{"image", unaryPath, answers(200, jsonType, imageJSON), 200, imageModel + " generateContent scripted studio 1 ok  1 1306", false},
		{"block", unaryPath + "?key=" + clientKey, answers(200, jsonType, blockedJSON), 400, imageModel + " generateContent scripted studio 1 blocked IMAGE_SAFETY 0 238", false},
		{"late block", textPath, events(textChunk, blockedJSON), 200, textModel + " streamGenerateContent scripted studio 1 blocked IMAGE_SAFETY 0 238", false},
		{"limit", unaryPath, answers(429, jsonType, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}`), 429, imageModel + " generateContent scripted studio 1 limited RESOURCE_EXHAUSTED 0 0", false},
		{"upstream breaks off", textPath, breaksOff(eventType, event(textChunk)), 200, textModel + " streamGenerateContent scripted studio 1 transient UPSTREAM_UNAVAILABLE 0 0", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(c.plays)
			before := len(g.accessLines(t))
			g.post(t, c.path, promptJSON)
			eventually(t, "a line in the access log", func() bool { return len(g.accessLines(t)) > before })
			var line accessLine
			if err := json.Unmarshal([]byte(g.accessLines(t)[before]), &line); err != nil {
				t.Fatal(err)
			}
			if line["status"] != c.status {
				t.Errorf("status %v, want %v", line["status"], c.status)
			}
			facts, _ := line["gemini"].(map[string]any)
			if got := line.fields(facts, ""); got != c.want {
				t.Errorf("fields %q\nwant   %q", got, c.want)
			}
			if got := line.fields(line, "placeholder_"); got != c.want && !c.aborted {
				t.Errorf("placeholders %q\nwant         %q", got, c.want)
			}
		})
	}
}

// One line tells of a blocked call, and nothing else does but the event.
func TestBlockIsLoggedOnce(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := inFront(t, u)
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	eventually(t, "the block is logged", func() bool { return strings.Contains(g.log(t), "call was blocked") })
	lines := 0
	for line := range strings.Lines(g.log(t)) {
		if strings.Contains(line, "IMAGE_SAFETY") && !strings.Contains(line, `"logger":"events"`) {
			lines++
		}
	}
	if lines != 1 {
		t.Errorf("%d lines tell of the block", lines)
	}
}

// An access log that would print keys is warned of when it is loaded.
func TestUnfilteredAccessLogIsWarnedOf(t *testing.T) {
	const warning = "access log prints API keys"
	g := run(t, "log\n"+gemini("upstream scripted http://127.0.0.1:9"))
	if !strings.Contains(g.log(t), warning) {
		t.Error("no warning of an access log without a filter")
	}
	filtered := run(t, accessLog+gemini("upstream scripted http://127.0.0.1:9"))
	if strings.Contains(filtered.log(t), warning) {
		t.Error("a filtered access log is warned of")
	}
}

// counters reads the metrics whose line begins with a name.
func (g *gateway) counters(t *testing.T) map[string]float64 {
	t.Helper()
	s := do(t, g.newRequest(t, http.MethodGet, "/metrics", nil))
	if s.StatusCode != 200 {
		t.Fatalf("metrics: %s", s.Status)
	}
	values := make(map[string]float64)
	for _, m := range metricLine.FindAllStringSubmatch(string(s.body), -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		values[m[1]] = value
	}
	return values
}

var metricLine = regexp.MustCompile(`(?m)^caddy_gemini_(\S+) (\S+)$`)

func TestMetrics(t *testing.T) {
	u := scripted(t, nil)
	directives := "metrics /metrics\n" + gemini("upstream counted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY} counted-project\n}")
	g := run(t, directives)
	before := g.counters(t)

	u.play(answers(200, jsonType, imageJSON))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	u.play(answers(200, jsonType, blockedJSON))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	g.load(t, directives+"header X-Reloaded 1\n")
	u.play(answers(200, jsonType, imageJSON))
	g.post(t, "/v1beta/models/invented-by-a-client:generateContent", promptJSON).exactly(t, 200, imageJSON)

	for series, want := range map[string]float64{
		`requests_total{model="` + imageModel + `",reason="",upstream="counted",verdict="ok"}`:                  1,
		`requests_total{model="` + imageModel + `",reason="IMAGE_SAFETY",upstream="counted",verdict="blocked"}`: 1,
		`requests_total{model="other",reason="",upstream="counted",verdict="ok"}`:                               1,
		`attempts_total{upstream="counted",verdict="ok"}`:                                                       2,
		`attempts_total{upstream="counted",verdict="blocked"}`:                                                  1,
		`images_total{model="` + imageModel + `",upstream="counted"}`:                                           1,
		`images_total{model="other",upstream="counted"}`:                                                        1,
		`tokens_total{kind="input"}`:                                                                            16 + 18 + 16,
		`tokens_total{kind="output"}`:                                                                           1290 + 1290,
		`tokens_total{kind="thinking"}`:                                                                         220,
		`request_duration_seconds_count{verdict="ok"}`:                                                          2,
	} {
		var got float64
		eventually(t, series, func() bool {
			got = g.counters(t)[series] - before[series]
			return got >= want
		})
		if got != want {
			t.Errorf("%s rose by %v, want %v", series, got, want)
		}
	}
	if ratio := g.counters(t)[`block_ratio{project="counted-project"}`]; ratio < 0.3 || ratio > 0.4 {
		t.Errorf("block_ratio %v, want one of three", ratio)
	}
	for series := range g.counters(t) {
		if strings.Contains(series, "invented") {
			t.Errorf("a client has made the series %s", series)
		}
	}
}

// Gauges of an upstream are there before its first call, and go with it.
func TestGaugesOfUpstreams(t *testing.T) {
	site := func(name string) string {
		return "metrics /metrics\n" + gemini("upstream "+name+" http://127.0.0.1:9")
	}
	gauges := func(g *gateway, upstream string) string {
		var names []string
		for series, value := range g.counters(t) {
			if name, labels, _ := strings.Cut(series, "{"); strings.Contains(labels, `upstream="`+upstream+`"`) {
				names = append(names, fmt.Sprint(name, " ", value))
			}
		}
		slices.Sort(names)
		return strings.Join(names, ", ")
	}
	g := run(t, site("leaving"))
	const all = "upstream_alarm 0, upstream_alarm 0, upstream_alarm 0, upstream_healthy 1, upstream_success_ratio 1"
	if got := gauges(g, "leaving"); got != all {
		t.Errorf("gauges of the upstream: %s", got)
	}
	g.load(t, site("coming"))
	eventually(t, "the old upstream's gauges are gone", func() bool { return gauges(g, "leaving") == "" })
	if got := gauges(g, "coming"); got != all {
		t.Errorf("gauges of the new upstream: %s", got)
	}
}

// An alarm is a line in the log, an event and a gauge, once, and survives a reload.
func TestUpstreamAlarm(t *testing.T) {
	u := scripted(t, overloaded)
	directives := "metrics /metrics\n" + gemini("upstream alarming "+u.URL)
	g := run(t, directives)
	book := g.listen(t, "gemini.upstream_alarm", directives)
	for range 12 {
		g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	}
	eventually(t, "two events", func() bool { return len(book.all()) == 2 })
	for _, e := range book.all() {
		want := map[any]map[string]any{
			"success_low":   {"upstream": "alarming", "alarm": "success_low", "value": 0.0, "threshold": 0.8},
			"overload_high": {"upstream": "alarming", "alarm": "overload_high", "value": 1.0, "threshold": 0.3},
		}[e.Data["alarm"]]
		if !maps.Equal(e.Data, want) {
			t.Errorf("the event says %v", e.Data)
		}
	}
	if n := strings.Count(g.log(t), "upstream raises an alarm"); n != 2 {
		t.Errorf("%d lines tell of alarms", n)
	}
	g.load(t, directives+"header X-Reloaded 1\n")
	for alarm, want := range map[string]float64{"success_low": 1, "overload_high": 1, "latency_high": 0} {
		if got := g.counters(t)[`upstream_alarm{alarm="`+alarm+`",upstream="alarming"}`]; got != want {
			t.Errorf("%s is %v, want %v", alarm, got, want)
		}
	}
}

// A reload changes nothing for the answers that are on their way.
func TestReloadDuringAnAnswer(t *testing.T) {
	m := inMidStream(t, blockedJSON)
	m.gateway.load(t, "respond 418\n")
	do(t, m.gateway.newRequest(t, http.MethodGet, "/", nil)).exactly(t, 418, "")

	rest := m.goOn(t)
	behind, ok := strings.CutPrefix(rest, event(blockedJSON))
	if !ok {
		t.Fatalf("the client saw %q", rest)
	}
	checkLateError(t, behind, "IMAGE_SAFETY")
	m.upstream.only(t)
}
