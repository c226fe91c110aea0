package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

func TestMedianAndPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, tc := range []struct {
		name           string
		values         []float64
		median, p1, p9 float64
	}{
		{"one", []float64{3}, 3, 3, 3},
		{"odd", []float64{9, 1, 2}, 2, 1, 9},
		{"even", []float64{4, 1, 3, 2}, 2.5, 1, 4},
		{"hundred", hundred, 50.5, 1, 99},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := slices.Clone(tc.values)
			if got := median(tc.values); got != tc.median {
				t.Errorf("median = %v, want %v", got, tc.median)
			}
			if got := percentile(tc.values, 1); got != tc.p1 {
				t.Errorf("p1 = %v, want %v", got, tc.p1)
			}
			if got := percentile(tc.values, 99); got != tc.p9 {
				t.Errorf("p99 = %v, want %v", got, tc.p9)
			}
			if !slices.Equal(before, tc.values) {
				t.Error("the values were reordered")
			}
		})
	}
	if !math.IsNaN(median(nil)) || !math.IsNaN(percentile(nil, 50)) {
		t.Error("nothing has a median")
	}
}

func TestRatiosSkipMeaninglessPairs(t *testing.T) {
	got := ratios([]float64{2, 5, 9}, []float64{4, 0, -1})
	if !slices.Equal(got, []float64{0.5}) {
		t.Errorf("ratios = %v, want [0.5]", got)
	}
}

func TestSummariseCountsFailures(t *testing.T) {
	results := []timing{
		{total: 2 * time.Millisecond, first: time.Millisecond, delays: []time.Duration{time.Millisecond, 3 * time.Millisecond}},
		{total: time.Hour},
		{total: 4 * time.Millisecond, first: time.Millisecond},
	}
	s := summarise(results, []error{nil, errors.New("cut"), nil}, time.Second)
	s.addUsage(&process.Usage{CPU: time.Second}, &process.Usage{CPU: 4 * time.Second, Peak: 10 << 20}, 8<<20, 3)
	s.addKept(4 << 20)
	want := sample{
		keptRSS.key: 0.5,
		callsKey:    3, failedKey: 1, p50.key: 2, p99.key: 4, firstByte.key: 1,
		eventDelay.key: 1, eventDelay99.key: 3, throughput.key: 2, cpuPerCall.key: 1000, peakRSS.key: 2,
	}
	for key, v := range want {
		if s[key] != v {
			t.Errorf("%s = %v, want %v", key, s[key], v)
		}
	}
	if len(s) != len(want) {
		t.Errorf("sample %v has other keys than %v", s, want)
	}
}

func TestUnmeasuredIsAbsent(t *testing.T) {
	s := summarise(make([]timing, 1), []error{errors.New("cut")}, time.Second)
	s.addUsage(nil, nil, 0, 1)
	s.addKept(1)
	for _, m := range []metric{p50, p99, firstByte, eventDelay, cpuPerCall, peakRSS, keptRSS} {
		if v, ok := s[m.key]; ok {
			t.Errorf("%s = %v, though nothing was measured", m.key, v)
		}
	}
}

func TestLimits(t *testing.T) {
	f := figures{bare: []float64{10, 10, 10}, gateway: []float64{9, 12, 10.5}}
	for _, tc := range []struct {
		name    string
		bound   *bound
		figures figures
		want    [4]string
	}{
		{"no target", nil, f, [4]string{}},
		{"both", atMost(1.1, 1.05), f, [4]string{"≤ 1.1", "yes", "≤ 1.05", "yes"}},
		{"must alone", atMost(1.1, 1), f, [4]string{"≤ 1.1", "yes", "≤ 1", "**no**"}},
		{"neither", atMost(1, 0.5), f, [4]string{"≤ 1", "**no**", "≤ 0.5", "**no**"}},
		{"floor", atLeast(1, 1.5), f, [4]string{"≥ 1", "yes", "≥ 1.5", "**no**"}},
		{"floor missed", atLeast(1.1, 1.5), f, [4]string{"≥ 1.1", "**no**", "≥ 1.5", "**no**"}},
		{"figure", gatewayAtMost(11, 10), f, [4]string{"≤ 11 MiB", "yes", "≤ 10 MiB", "**no**"}},
		{"not measured", atMost(1.1, 1), figures{}, [4]string{"≤ 1.1", "?", "≤ 1", "?"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.bound.limits(tc.figures, "MiB"); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// TestAimIsHarder keeps the two columns from being swapped.
func TestAimIsHarder(t *testing.T) {
	for _, c := range cases {
		for _, r := range c.rows {
			if b := r.bound; b != nil && (b.must <= 0 || b.aim <= 0 || b.atLeast != (b.aim > b.must)) {
				t.Errorf("%s, %s: %+v", c.name, r.metric.label, *b)
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	r := &report{Command: "go run ./bench -pairs 2", Date: "2026-11-22", Cores: 2, Processor: "A CPU", OS: "linux", Arch: "amd64", GoVersion: "go1.26", CaddyVersion: "v2.11.9", Quick: true, Cases: []caseResult{
		{
			Name: "a", rows: []row{{metric: p50, bound: atMost(1.1, 1)}, {metric: firstByteAdded}, {metric: cpuPerCall}},
			Pairs: []pair{
				{
					Direct:  sample{firstByte.key: 1},
					Bare:    sample{callsKey: 4, p50.key: 10, firstByte.key: 2},
					Gateway: sample{callsKey: 4, failedKey: 1, p50.key: 12, firstByte.key: 3.5},
				},
				{Bare: sample{callsKey: 4, p50.key: 10}, Gateway: sample{callsKey: 4, p50.key: 9}},
			},
		},
		{Name: "b", Error: "no | such\nthing"},
	}}
	table := r.markdown()
	for _, line := range []string{
		"`go run ./bench -pairs 2` on 2026-11-22, 2 cores (A CPU), linux/amd64, go1.26, Caddy v2.11.9, short run.",
		"| a | latency p50 | 10 ms | 10.5 ms | 1.05 (0.90–1.20) | ≤ 1.1 | yes | ≤ 1 | **no** |",
		"| a | first byte, added | 1 ms | 2.5 ms | 2.50 (2.50–2.50) |  |  |  |  |",
		"| a | CPU per call | – | – | – |  |  |  |  |",
		`| b | not measured: no \| such | | | | | **no** | | **no** |`,
		"| all | failed requests | 0 of 8 | 1 of 8 | | 0 | **no** | 0 | **no** |",
	} {
		if !strings.Contains(table, line+"\n") {
			t.Errorf("no line %q in\n%s", line, table)
		}
	}
	if r.ok() {
		t.Error("a run with failures is ok")
	}
}

func TestCommandRepeatsTheRun(t *testing.T) {
	o, err := parseFlags([]string{"-quick", "-pairs=3", "-case", "^a|b$", "-o", "here.json", "-profile", "there"})
	if want := "go run ./bench -case '^a|b$' -pairs 3 -quick"; err != nil || o.command != want || o.pairs != 3 {
		t.Errorf("%q, %d pairs, %v, want %q", o.command, o.pairs, err, want)
	}
	if o, err := parseFlags([]string{"-quick"}); err != nil || o.pairs != 1 {
		t.Errorf("%d pairs, %v", o.pairs, err)
	}
	for _, args := range [][]string{{"-pairs=0"}, {"a"}, {"-profile", "a", "-caddy", "b"}, {"-case", "("}} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}
