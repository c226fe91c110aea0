// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// span is a number of which only the bounds are known.
type span struct{ least, most int }

func (s *span) add(least, most int) { s.least, s.most = s.least+least, s.most+most }

func (s span) has(n int) bool { return s.least <= n && n <= s.most }

func (s span) String() string {
	if s.least == s.most {
		return fmt.Sprint(s.least)
	}
	return fmt.Sprintf("%d to %d", s.least, s.most)
}

// counts are what the gateway's metrics must be, by what its clients and its
// upstreams have seen. What became of a client that left nobody can tell, so that
// its call may be counted as anything, but not twice.
type counts struct {
	calls    span
	verdicts map[string]span
	attempts span
	images   span
	unsure   int // calls that may have any verdict
}

func newCounts() *counts { return &counts{verdicts: make(map[string]span)} }

// add counts a call by what is thought of it.
func (n *counts) add(c *call, visits int, o opinion) {
	switch {
	case o.isUnseen, o.outcome == "wrong", !isGenerate(c):
		if o.outcome == "wrong" { // a fault already; it must not be reported again as a wrong count
			n.unsure++
			n.calls.add(0, 1)
			n.attempts.add(0, visits+len(c.scenario.plays)+1)
			n.images.add(0, max(c.parts, 1))
		}
	case o.verdict == "":
		n.unsure++
		n.calls.add(0, 1)
		n.attempts.add(0, len(c.scenario.plays)+1)
		n.images.add(0, max(c.parts, 1))
	default:
		n.calls.add(1, 1)
		v := n.verdicts[o.verdict]
		v.add(1, 1)
		n.verdicts[o.verdict] = v
		n.attempts.add(visits, visits+o.unsure)
		n.images.add(len(c.result.images), len(c.result.images))
		if c.result.isCut {
			n.images.add(0, 1)
		}
	}
}

// isGenerate tells calls that are worked on from those that are forwarded.
func isGenerate(c *call) bool {
	return slices.ContainsFunc(c.scenario.want, func(w want) bool { return w.left || w.verdict != "" })
}

// compare finds what the metrics have counted wrongly.
func (n *counts) compare(m metrics) (faults []fault) {
	check := func(what string, want span, got int) {
		if !want.has(got) {
			faults = append(faults, fault{miscount, fmt.Sprintf("%s: the metrics say %d, and it was %v", what, got, want)})
		}
	}
	byVerdict := m.by("caddy_gemini_requests_total", "verdict")
	check("calls", n.calls, sum(byVerdict))
	for _, verdict := range slices.Sorted(maps.Keys(union(n.verdicts, byVerdict))) {
		want := n.verdicts[verdict]
		want.most += n.unsure
		check("calls that ended as "+verdict, want, byVerdict[verdict])
	}
	check("attempts", n.attempts, sum(m.by("caddy_gemini_attempts_total", "verdict")))
	check("images", n.images, sum(m.by("caddy_gemini_images_total", "model")))
	return faults
}

func union(a map[string]span, b map[string]int) map[string]bool {
	all := make(map[string]bool)
	for name := range a {
		all[name] = true
	}
	for name := range b {
		all[name] = true
	}
	return all
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// metrics are what Caddy's metrics endpoint has said, by name and labels.
type metrics []metric

type metric struct {
	name   string
	labels map[string]string
	value  float64
}

func parseMetrics(text []byte) (all metrics, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			all = append(all, metric{name, labels, m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()})
		}
	}
	return all, nil
}

// by adds up a metric by the values of a label.
func (m metrics) by(name, label string) map[string]int {
	sums := make(map[string]int)
	for _, one := range m {
		if one.name == name {
			sums[one.labels[label]] += int(one.value)
		}
	}
	return sums
}

// value is that of a metric without labels.
func (m metrics) value(name string) int64 {
	for _, one := range m {
		if one.name == name {
			return int64(one.value)
		}
	}
	return 0
}
