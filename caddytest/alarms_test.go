// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// texts makes calls for text. Twenty of a model only teach how long it takes, so
// that no alarm depends on the speed of this machine.
func (g *overseen) texts(t *testing.T, u *upstream, plays http.HandlerFunc, times int) {
	t.Helper()
	u.play(plays)
	for range times {
		g.post(t, fmt.Sprintf("/v1beta/models/%s-%d:generateContent", textModel, g.asked/20), promptJSON)
		g.asked++
	}
}

var written = gives(textJSON)

// alarms checks which alarms of the upstream first are on, in the metrics and on
// the status page, and how many there have been.
func (g *overseen) alarms(t *testing.T, raised int, on ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events", raised), func() bool { return len(g.says("gemini.upstream_alarm")) >= raised })
	warnings := 0
	for line := range strings.Lines(g.log(t)) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "upstream raises an alarm") {
			warnings++
		}
	}
	if events := len(g.says("gemini.upstream_alarm")); events != raised || warnings != raised {
		t.Errorf("%d events and %d warnings, want %d", events, warnings, raised)
	}
	metrics := g.counters(t)
	for _, alarm := range []string{"success_low", "latency_high", "overload_high"} {
		value, ok := metrics[`upstream_alarm{alarm="`+alarm+`",upstream="first"}`]
		if !ok || (value == 1) != slices.Contains(on, alarm) {
			t.Errorf("the metric of %s is %v, %t", alarm, value, ok)
		}
	}
	if got := fmt.Sprint(g.upstreams(t)[0]["alarms"]); got != fmt.Sprint(on) {
		t.Errorf("the status page says %s, want %v", got, on)
	}
}

// An alarm is told of at the call that crosses its threshold, is off from the one
// that crosses back, and can be raised again.
func TestAlarmsComeAndGo(t *testing.T) {
	u := scripted(t, nil)
	site := gemini(place("first", u))
	g := oversee(t, site)
	g.texts(t, u, overloaded, 9)
	g.alarms(t, 0)
	g.texts(t, u, overloaded, 1)
	g.alarms(t, 2, "success_low", "overload_high")
	g.texts(t, u, overloaded, 5)
	g.load(t, site+"header X-Reloaded 1\n")
	g.alarms(t, 2, "success_low", "overload_high")
	g.texts(t, u, written, 59)
	g.alarms(t, 2, "success_low", "overload_high")
	g.texts(t, u, written, 1) // 15 of 75 are 503s
	g.alarms(t, 2, "success_low")
	g.texts(t, u, written, 24)
	g.alarms(t, 2, "success_low")
	g.texts(t, u, written, 1) // 85 of 100 are good
	g.alarms(t, 2)
	g.texts(t, u, overloaded, 6)
	g.alarms(t, 2)
	g.texts(t, u, overloaded, 1) // 85 of 107
	g.alarms(t, 3, "success_low")
	g.texts(t, u, overloaded, 14)
	g.alarms(t, 3, "success_low")
	g.texts(t, u, overloaded, 1) // 37 of 122
	g.alarms(t, 4, "success_low", "overload_high")
	if ended := strings.Count(g.log(t), "upstream's alarm has ended"); ended != 2 {
		t.Errorf("%d lines tell that alarms have ended", ended)
	}
	var told []string
	for _, e := range g.says("gemini.upstream_alarm") {
		told = append(told, fmt.Sprint(e.Data["upstream"], " ", e.Data["alarm"], " ", e.Data["value"], " ", e.Data["threshold"], " ", len(e.Data)))
	}
	slices.Sort(told) // the first two came at the same time
	want := []string{"first overload_high 0.30327868852459017 0.3 4", "first overload_high 1 0.3 4", "first success_low 0 0.8 4", "first success_low 0.794392523364486 0.8 4"}
	if !slices.Equal(told, want) {
		t.Errorf("the events say %q", told)
	}
	g.restart(t, site)
	g.texts(t, u, overloaded, 9)
	g.alarms(t, 4)
}

// What raises an alarm is the upstream's fault, and a 503 is one that it has sent.
func TestWhatRaisesAlarms(t *testing.T) {
	for name, c := range map[string]struct {
		plays http.HandlerFunc
		on    []string
	}{
		"500s":    {answers(500, jsonType, googleError("INTERNAL", "Internal error encountered.")), []string{"success_low"}},
		"HTML":    {answers(200, "text/html", "<p>Maintenance</p>"), []string{"success_low"}},
		"resets":  {resets(), []string{"success_low"}},
		"limits":  {answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Quota exceeded.")), nil},
		"blocks":  {answers(200, jsonType, blockedJSON), nil},
		"clients": {answers(400, jsonType, badRequestJSON), nil},
		"keys":    {invalidKey, nil},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, nil)
			g := oversee(t, gemini(place("first", u)))
			g.texts(t, u, c.plays, 12)
			g.alarms(t, len(c.on), c.on...)
		})
	}
}

// Three 503s among ten answers are as many as may be, whatever the others are.
func TestAlarmOfOverload(t *testing.T) {
	for calls, raised := range map[int]int{3: 0, 4: 1} {
		t.Run(fmt.Sprint(calls), func(t *testing.T) {
			u, other := scripted(t, nil), scripted(t, written)
			g := oversee(t, several([]string{place("first", u, ownKey(t, "first")), place("second", other, ownKey(t, "second"))}))
			g.texts(t, u, answers(400, jsonType, badRequestJSON), 10-calls)
			g.texts(t, u, overloaded, calls)
			if raised == 0 {
				g.alarms(t, 0)
				return
			}
			g.alarms(t, 1, "overload_high")
			if got := g.upstreams(t)[1]; got["name"] != "second" || fmt.Sprint(got["alarms"]) != "[]" {
				t.Errorf("the second: %v", got)
			}
			g.load(t, several([]string{place("second", other, ownKey(t, "second"))}))
			eventually(t, "the gauge is gone", func() bool { return sum(g.counters(t), "upstream_alarm", `upstream="first"`) == 0 })
		})
	}
}

// What is refused here has its reason in the metrics: whoever looks there must be
// able to tell a limit from a budget, and whose it is.
func TestMetricsOfRefusals(t *testing.T) {
	u := scripted(t, drawn)
	g := oversee(t, gemini(place("refused", u, ownKey(t, "refused"), twoImages), limitOf(textModel, "rpd 1")))
	before := g.counters(t)
	g.post(t, plainPath, promptJSON)
	g.draws(t, 2)
	eventually(t, "the calls are booked", func() bool {
		rows := g.ledger(t, "")
		return len(rows) == 2 && rows[1].Images == 2
	})
	g.post(t, unaryPath, promptJSON)
	g.load(t, gemini(place("refused", u, ownKey(t, "refused")), limitOf(textModel, "rpd 1")))
	g.post(t, plainPath, promptJSON)
	var got []string
	for series, value := range g.counters(t) {
		if strings.HasPrefix(series, "requests_total") && strings.Contains(series, `verdict="exhausted"`) && value > before[series] {
			got = append(got, fmt.Sprint(series, " ", value-before[series]))
		}
	}
	slices.Sort(got)
	want := []string{
		`requests_total{model="` + textModel + `",reason="RATE_LIMITED",upstream="refused",verdict="exhausted"} 1`,
		`requests_total{model="` + imageModel + `",reason="BUDGET_EXCEEDED",upstream="refused",verdict="exhausted"} 1`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the metrics have\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Counters go on, whatever happens to the configuration, and nothing is there
// twice, however many sites there are.
func TestMetricsSurviveReloads(t *testing.T) {
	u := scripted(t, drawn)
	site := "@other header X-Tenant other\nhandle @other {\n" + gemini(place("surviving", u)) + "}\nhandle {\n" + gemini(place("surviving", u)) + "}\n"
	g := oversee(t, site)
	before := g.counters(t)
	check := func(calls float64) {
		t.Helper()
		want := map[string]float64{
			`requests_total{model="` + imageModel + `",reason="",upstream="surviving",verdict="ok"}`: calls,
			`attempts_total{upstream="surviving",verdict="ok"}`:                                      calls,
			`images_total{model="` + imageModel + `",upstream="surviving"}`:                          calls,
			`tokens_total{kind="output"}`:                                                            calls * 1290,
			`request_duration_seconds_count{verdict="ok"}`:                                           calls,
		}
		for series, rise := range want {
			eventually(t, fmt.Sprintf("%s rises by %v", series, rise), func() bool { return g.counters(t)[series]-before[series] == rise })
		}
		for where, s := range map[string]*reply{"the site": do(t, g.newRequest(t, http.MethodGet, "/metrics", nil)), "the admin endpoint": g.tell(t, http.MethodGet, "/metrics")} {
			lines := make(map[string]int)
			for line := range strings.Lines(string(s.body)) {
				if name, _, _ := strings.Cut(strings.TrimSpace(line), "} "); strings.Contains(name, "caddy_gemini_") {
					lines[name]++
				}
			}
			if len(lines) == 0 {
				t.Errorf("%s tells nothing", where)
			}
			for name, n := range lines {
				if n != 1 {
					t.Errorf("%s has %s %d times", where, name, n)
				}
			}
		}
	}
	g.draws(t, 1)
	check(1)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	u.play(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-goOn
		drawn(w, r)
	})
	p := g.begin(t, unaryPath, promptJSON, func(r *http.Request) { r.Header.Set("X-Tenant", "other") })
	wait(t, "the call arrives", arrived)
	for i := range 3 {
		g.load(t, site+fmt.Sprintf("header X-Reloaded %d\n", i))
	}
	check(1)
	close(goOn)
	p.ends().exactly(t, 200, imageJSON)
	check(2)
	u.play(drawn)
	g.restart(t, site)
	g.draws(t, 1)
	check(3)
}

// Whoever looks while sites come and go sees a whole page.
func TestLooksDuringReloads(t *testing.T) {
	u := scripted(t, drawn)
	site := gemini(place("first", u, theKey("studio")), limit("rpm 1000"))
	g := oversee(t, site)
	over := make(chan struct{})
	var group sync.WaitGroup
	for _, uri := range []string{"/gemini/status", "/metrics", "/gemini/reset?project=nobody"} {
		method := http.MethodGet
		if strings.Contains(uri, "reset") {
			method = http.MethodPost
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.admin+uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := newTransport(t)
		group.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				// The endpoint itself is replaced by each reload: only what comes counts.
				if s, err := roundTrip(transport, r); err == nil && s.StatusCode != 200 {
					t.Errorf("%s: %s: %s", uri, s.Status, shortened(string(s.body)))
				}
			}
		})
	}
	for i := range 8 {
		u.play(answers(200, jsonType, []string{imageJSON, blockedJSON}[i%2]))
		for range 3 {
			g.post(t, unaryPath, promptJSON)
		}
		g.load(t, site+fmt.Sprintf("header X-Reloaded %d\n", i))
	}
	close(over)
	group.Wait()
	g.books(t, "studio", "first "+imageModel+": 24 calls, 12 images, 12 blocked map[IMAGE_SAFETY:12] (0.50) for 0.032112, 408+15480+2640 tokens, 1.669776 USD, 0.139148 each")
}
