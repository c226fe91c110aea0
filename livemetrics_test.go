// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// atWork is a gateway with upstreams, such as "google" or "google studio" with a
// key of the project studio, that knows a model.
func atWork(m *memories, model string, upstreams ...string) *gateway {
	g := &gateway{router: new(router), metrics: &metrics{models: map[string]bool{model: true}}}
	for _, name := range upstreams {
		u := &upstream{health: newHealth()}
		var project string
		if u.name, project, _ = strings.Cut(name, " "); project != "" {
			u.keys = []*apiKey{{project: project}}
		}
		g.router.upstreams = append(g.router.upstreams, u)
	}
	m.add(g)
	return g
}

func names(upstreams []*upstream) string {
	all := make([]string, len(upstreams))
	for i, u := range upstreams {
		all[i] = u.name
	}
	return strings.Join(all, " ")
}

// During a reload the upstreams of both configurations are there, each name once
// and as the new one has it.
func TestLiveUpstreams(t *testing.T) {
	m := newMemories()
	before := atWork(m, "", "google", "old")
	after := atWork(m, "", "new", "google")
	live := m.liveUpstreams()
	if got := names(live); got != "new google old" {
		t.Errorf("live during the reload: %s", got)
	}
	if live[1] != after.router.upstreams[1] {
		t.Error("google is that of the old configuration")
	}
	m.remove(before)
	m.remove(before) // Caddy may clean up twice
	if got := names(m.liveUpstreams()); got != "new google" {
		t.Errorf("live after the reload: %s", got)
	}
	m.remove(after)
	if got := m.liveUpstreams(); len(got) != 0 {
		t.Errorf("live at the end: %s", names(got))
	}
}

// scraped are the series of a collector, as "name{a,b} value".
func scraped(t *testing.T, c prometheus.Collector) []string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, l := range metric.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := strings.TrimPrefix(family.GetName(), "caddy_gemini_")
			lines = append(lines, fmt.Sprintf("%s{%s} %g", name, strings.Join(labels, ","), metric.GetGauge().GetValue()))
		}
	}
	return lines
}

// admitTo uses up a part of a limit of the gateways at work, with a single call.
func admitTo(t *testing.T, m *memories, project, model string, used, rpm int64, now time.Time) {
	t.Helper()
	g := m.gates.at(gateID{scope: project + "\n" + model}, gateName{project, model, ""}, now)
	rule := RateLimit{Match: "*", RPM: rpm}.rule()
	for _, at := range m.liveGateways() {
		at.router.limits = append(at.router.limits, rule)
	}
	if _, ok := g.admit(&demand{limitRPM: used}, &rule.bounds, now); !ok {
		t.Fatal("there is no room")
	}
}

func TestLiveMetrics(t *testing.T) {
	m := newMemories()
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	c := &liveCollector{find: func() *memories { return m }, now: func() time.Time { return now }}
	g := atWork(m, "", "google")
	health := g.router.upstreams[0].health
	for range 10 {
		health.begin(now, time.Minute, false, false).end(outcomeFailed, 0, now)
		health.watch.hear(brokenSign, now)
	}
	admitTo(t, m, "studio", "m", 4, 10, now)
	m.blockRates.count(m.calendar.day(now), "studio", "studio", true)
	if got, want := scraped(t, c), []string{
		"block_ratio{studio} 1",
		"limit_used_ratio{rpm,other,studio} 0.4",
		"upstream_alarm{latency_high,google} 0",
		"upstream_alarm{overload_high,google} 0",
		"upstream_alarm{success_low,google} 1",
		"upstream_healthy{google} 0",
		"upstream_success_ratio{google} 0.10737418240000006",
	}; !slices.Equal(got, want) {
		t.Errorf("scraped %q", got)
	}
	now = now.Add(alarmRest)
	if got := scraped(t, c); !slices.Contains(got, "upstream_alarm{success_low,google} 0") {
		t.Errorf("an alarm without news is on: %q", got)
	}
	if got := scraped(t, c); !slices.Contains(got, "limit_used_ratio{rpm,other,studio} 0") {
		t.Errorf("a minute later a limit is in use: %q", got)
	}
	m.remove(g)
	if got := scraped(t, c); slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, "upstream") }) {
		t.Errorf("scraped without a gateway: %q", got)
	}
	m = nil
	if got := scraped(t, c); len(got) > 0 {
		t.Errorf("scraped without memories: %q", got)
	}
}

func TestLimitSeries(t *testing.T) {
	m := newMemories()
	atWork(m, "known", "google studio")
	atWork(m, "also-known", "vertex")
	view := func(project, model, key string, used int64) limitView {
		return limitView{Project: project, Model: model, Key: key, Limit: "rpd", Value: 100, Used: used}
	}
	for name, c := range map[string]struct {
		views []limitView
		want  map[limitLabels]float64
	}{
		"a limit":        {[]limitView{view("studio", "known", "", 5)}, map[limitLabels]float64{{"studio", "known", "rpd"}: 0.05}},
		"another model":  {[]limitView{view("studio", "also-known", "", 5)}, map[limitLabels]float64{{"studio", "also-known", "rpd"}: 0.05}},
		"tenants":        {[]limitView{view("studio", "known", "a", 5), view("studio", "known", "b", 50), view("studio", "known", "c", 7)}, map[limitLabels]float64{{"studio", "known", "rpd"}: 0.5}},
		"unknown models": {[]limitView{view("studio", "x", "", 5), view("studio", "y", "", 50)}, map[limitLabels]float64{{"studio", other, "rpd"}: 0.5}},
		"no limit":       {[]limitView{{Project: "studio", Model: "known", Limit: "rpm"}}, nil},
		"a client":       {[]limitView{view("client-1", "known", "", 150)}, map[limitLabels]float64{{"client-1", "known", "rpd"}: 1.5}},
	} {
		t.Run(name, func(t *testing.T) {
			got := m.limitSeries(c.views)
			if len(got) != len(c.want) {
				t.Errorf("%v, expected %v", got, c.want)
			}
			for _, s := range got {
				if ratio, ok := c.want[s.limitLabels]; !ok || ratio != s.ratio {
					t.Errorf("%v, expected %v", got, c.want)
				}
			}
		})
	}
}

// Whatever clients call themselves, they make so many series and no more. Those
// of the operator's own projects are always there.
func TestLimitSeriesAreBounded(t *testing.T) {
	m := newMemories()
	g := atWork(m, "known", "google studio", "relay", "tenants")
	g.router.upstreams[1].hasCredential = true
	g.router.upstreams[2].keys = []*apiKey{{pattern: &APIKey{Key: "{http.request.header.X-Key}"}}}
	g.router.upstreams = append(g.router.upstreams, &upstream{project: "my-gcp", credential: new(credential), health: newHealth()})
	operators := []string{"studio", "relay", "tenants", "my-gcp"}
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	for _, project := range operators {
		admitTo(t, m, project, "known", 0, 10, now)
	}
	for i := range 5000 {
		project := "client-" + fmt.Sprint(i)
		if i%2 == 0 { // in a path of Vertex AI
			project = "\xff" + strings.Repeat("p", 600) + fmt.Sprint(i)
		}
		admitTo(t, m, project, fmt.Sprint(i), int64(i), 5000, now)
	}
	c := &liveCollector{find: func() *memories { return m }, now: func() time.Time { return now }}
	var series []string
	for _, line := range scraped(t, c) {
		if strings.HasPrefix(line, "limit_used_ratio") {
			series = append(series, line)
		}
	}
	if len(series) != maxClientSeries+len(operators) {
		t.Errorf("%d series", len(series))
	}
	wanted := []string{"limit_used_ratio{rpm,other,client-4999} 0.9998"}
	for _, project := range operators {
		wanted = append(wanted, "limit_used_ratio{rpm,known,"+project+"} 0")
	}
	for _, want := range wanted {
		if !slices.Contains(series, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if slices.Contains(series, "limit_used_ratio{rpm,other,client-1} 0.0002") {
		t.Error("a limit that is hardly used has taken the place of a fuller one")
	}
}

// Under a limit every call is in the histogram, those that did not wait as well.
func TestQueueAndCost(t *testing.T) {
	r := prometheus.NewRegistry()
	m, err := registerMetrics(r, []string{"m"})
	if err != nil {
		t.Fatal(err)
	}
	queued := func() (count uint64, sum float64) {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "caddy_gemini_queue_seconds" {
				h := f.GetMetric()[0].GetHistogram()
				return h.GetSampleCount(), h.GetSampleSum()
			}
		}
		return 0, 0
	}
	costs := func() map[string]float64 {
		all := make(map[string]float64)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, metric := range f.GetMetric() {
				if label := metric.GetLabel(); f.GetName() == "caddy_gemini_cost_usd_total" {
					all[label[0].GetValue()+" "+label[1].GetValue()] = metric.GetCounter().GetValue()
				}
			}
		}
		return all
	}
	count, sum := queued()
	before := costs()
	x := &exchange{model: "m", attempt: &attempt{upstream: "queue-and-cost"}}
	m.observe(x, time.Second)
	x.isLimited = true
	m.observe(x, time.Second)
	x.queued = 2 * time.Second
	x.story = []*attempt{{upstream: "first-cost", cost: usdOf(0.25)}, {upstream: "second-cost"}, {upstream: "first-cost", cost: usdOf(0.5)}}
	m.observe(x, time.Second)
	if n, s := queued(); n-count != 2 || s-sum != 2 {
		t.Errorf("%d calls have waited %v seconds", n-count, s-sum)
	}
	after := costs()
	if _, isTold := after["m second-cost"]; isTold || after["m first-cost"]-before["m first-cost"] != 0.75 {
		t.Errorf("costs %v, before %v", after, before)
	}
}
