// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// liveCollector asks the gateways at work how things stand whenever metrics are
// scraped: what is gone disappears, and what decays does so without a call.
type liveCollector struct {
	find func() *memories // nil if no gateway is at work
	now  func() time.Time
}

// The gauges of the liveCollector.
var (
	successDesc = gaugeDesc("upstream_success_ratio",
		"Moving average of an upstream's success; blocks, limits and client errors do not count.", "upstream")
	healthyDesc = gaugeDesc("upstream_healthy",
		"1 while an upstream gets calls, 0 while it is demoted and gets canaries only.", "upstream")
	alarmDesc = gaugeDesc("upstream_alarm",
		"1 while an alarm of an upstream is on: success_low, latency_high or overload_high.", "upstream", "alarm")
	blockDesc = gaugeDesc("block_ratio",
		"Share of a project's calls that were blocked since midnight Pacific time.", "project")
	limitDesc = gaugeDesc("limit_used_ratio",
		"Share of a local limit that is used up; the highest, where a project is split.", "project", "model", "limit")
)

func gaugeDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("caddy", "gemini", name), help, labels, nil)
}

// Describe names the gauges.
func (c *liveCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{successDesc, healthyDesc, alarmDesc, blockDesc, limitDesc} {
		ch <- desc
	}
}

// Collect asks for their values.
func (c *liveCollector) Collect(ch chan<- prometheus.Metric) {
	m := c.find()
	if m == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	now := c.now()
	for _, u := range m.liveUpstreams() {
		health := u.health.view()
		gauge(successDesc, health.success, u.name)
		gauge(healthyDesc, oneIf(health.healthy), u.name)
		for i, isOn := range u.health.watch.alarms(now) {
			gauge(alarmDesc, oneIf(isOn), u.name, alarmRules[i].name)
		}
	}
	for project, ratio := range m.blockRates.shares(m.calendar.day(now)) {
		gauge(blockDesc, ratio, project)
	}
	for _, l := range m.limitSeries(m.limitViews(now)) {
		gauge(limitDesc, l.ratio, l.project, l.model, l.limit)
	}
}

// limitSeries are the limits under bounded labels: models that nobody knows are
// one, and of the projects that clients have chosen only the fullest are shown.
func (m *memories) limitSeries(views []limitView) []limitSeries {
	models, projects := m.knownNames()
	fullest := make(map[limitLabels]float64)
	for _, v := range views {
		if v.Value <= 0 {
			continue
		}
		labels := limitLabels{storable(v.Project), v.Model, v.Limit}
		if !models[v.Model] {
			labels.model = other
		}
		fullest[labels] = max(fullest[labels], float64(v.Used)/float64(v.Value))
	}
	var operators, clients []limitSeries
	for labels, ratio := range fullest {
		if projects[labels.project] {
			operators = append(operators, limitSeries{labels, ratio})
		} else {
			clients = append(clients, limitSeries{labels, ratio})
		}
	}
	slices.SortFunc(clients, func(a, b limitSeries) int { // the same at every scrape
		return cmp.Or(cmp.Compare(b.ratio, a.ratio), cmp.Compare(a.project, b.project), cmp.Compare(a.model, b.model), cmp.Compare(a.limit, b.limit))
	})
	return append(operators, clients[:min(len(clients), maxClientSeries)]...)
}

type limitLabels struct{ project, model, limit string }

type limitSeries struct {
	limitLabels
	ratio float64
}

// maxClientSeries is how many series clients can make by bringing keys of their
// own: some hundreds of them, with a few limits each.
const maxClientSeries = 1000

// knownNames are the models and projects that the operator or Google has named.
func (m *memories) knownNames() (models, projects map[string]bool) {
	models, projects = make(map[string]bool), make(map[string]bool)
	for _, g := range m.liveGateways() {
		for model := range g.metrics.models {
			models[model] = true
		}
	}
	for _, u := range m.allUpstreams() {
		known, _ := u.accounts()
		for _, at := range known {
			projects[at.project] = true
		}
	}
	return models, projects
}

// Interface guard
var _ prometheus.Collector = (*liveCollector)(nil)
