package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// metric is one figure of a block of calls.
type metric struct {
	key   string // in samples and in the JSON file
	label string
	unit  string
	added bool // report what the proxy added to the direct way
}

var (
	p50            = metric{key: "p50_ms", label: "latency p50", unit: "ms"}
	p99            = metric{key: "p99_ms", label: "latency p99", unit: "ms"}
	firstByte      = metric{key: "first_byte_ms", label: "first byte p50", unit: "ms"}
	firstByteAdded = metric{key: "first_byte_ms", label: "first byte, added", unit: "ms", added: true}
	throughput     = metric{key: "requests_per_second", label: "requests/s", unit: "/s"}
	cpuPerCall     = metric{key: "cpu_ms_per_call", label: "CPU per call", unit: "ms"}
	peakRSS        = metric{key: "peak_rss_over_idle_mib", label: "peak RSS over idle", unit: "MiB"}
	eventDelay     = metric{key: "event_delay_p50_ms", label: "delay of an event p50", unit: "ms"}
	eventDelay99   = metric{key: "event_delay_p99_ms", label: "delay of an event p99", unit: "ms"}
)

// bound is what a row must hold: the median ratio of the gateway to bare
// Caddy, or the gateway's own figure, against a limit.
type bound struct {
	limit    float64
	atLeast  bool
	absolute bool
}

func atMost(ratio float64) *bound        { return &bound{limit: ratio} }
func atLeast(ratio float64) *bound       { return &bound{limit: ratio, atLeast: true} }
func gatewayAtMost(limit float64) *bound { return &bound{limit: limit, absolute: true} }

// row is one line of the report.
type row struct {
	metric metric
	bound  *bound // nil = no target
}

// pair is one round: a block on each target, close together in time.
type pair struct {
	Direct  sample `json:"direct,omitempty"`
	Bare    sample `json:"bare"`
	Gateway sample `json:"gateway"`
}

// report is all of a run, as the JSON file has it.
type report struct {
	Date         string       `json:"date"`
	Cores        int          `json:"cores"`
	OS           string       `json:"os"`
	Arch         string       `json:"arch"`
	GoVersion    string       `json:"go_version"`
	CaddyVersion string       `json:"caddy_version"`
	Quick        bool         `json:"quick"`
	Self         bool         `json:"self"`
	Cases        []caseResult `json:"cases"`
}

type caseResult struct {
	Name  string `json:"name"`
	Pairs []pair `json:"pairs"`
	Error string `json:"error,omitempty"` // why the case could not be measured
	rows  []row
}

// figures are one row's values over all pairs that have them.
type figures struct{ bare, gateway []float64 }

func (c *caseResult) figures(m metric) figures {
	var f figures
	for _, p := range c.Pairs {
		bare, ok1 := p.Bare[m.key]
		gateway, ok2 := p.Gateway[m.key]
		direct, ok3 := p.Direct[m.key]
		if !ok1 || !ok2 || m.added && !ok3 {
			continue
		}
		if m.added {
			bare, gateway = bare-direct, gateway-direct
		}
		f.bare = append(f.bare, bare)
		f.gateway = append(f.gateway, gateway)
	}
	return f
}

// verdict says what a row must be and whether it is.
func (b *bound) verdict(f figures, unit string) (must, holds string) {
	if b == nil {
		return "", ""
	}
	sign, value := "≤", median(ratios(f.gateway, f.bare))
	if b.absolute {
		value = median(f.gateway)
	} else {
		unit = ""
	}
	good := value <= b.limit
	if b.atLeast {
		sign, good = "≥", value >= b.limit
	}
	must = strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, b.limit, unit))
	switch {
	case math.IsNaN(value): // nothing was measured
		return must, "?"
	case good:
		return must, "yes"
	}
	return must, "**no**"
}

// failed counts the calls of all cases that failed, and those made.
func (r *report) failed(of func(pair) sample) (failed, calls int) {
	for _, c := range r.Cases {
		for _, p := range c.Pairs {
			failed += int(of(p)[failedKey])
			calls += int(of(p)[callsKey])
		}
	}
	return failed, calls
}

// ok reports whether every case was measured and no call failed. Whether the
// targets are met is for the reader to judge, on a quiet machine.
func (r *report) ok() bool {
	for _, c := range r.Cases {
		if c.Error != "" {
			return false
		}
	}
	bare, _ := r.failed(func(p pair) sample { return p.Bare })
	gateway, _ := r.failed(func(p pair) sample { return p.Gateway })
	return bare+gateway == 0
}

// markdown is the table, ready to be pasted.
func (r *report) markdown() string {
	w := new(strings.Builder)
	fmt.Fprintf(w, "%s, %d cores, %s/%s, %s, Caddy %s", r.Date, r.Cores, r.OS, r.Arch, r.GoVersion, r.CaddyVersion)
	if r.Quick {
		fmt.Fprint(w, ", short run")
	}
	if r.Self {
		fmt.Fprint(w, ", bare Caddy in the gateway's place")
	}
	fmt.Fprint(w, "\n\n| case | what | bare Caddy | gateway | gateway / bare: median (min–max) | must | holds |\n")
	fmt.Fprint(w, "|---|---|--:|--:|--:|--:|---|\n")
	for _, c := range r.Cases {
		if c.Error != "" {
			reason, _, _ := strings.Cut(c.Error, "\n")
			fmt.Fprintf(w, "| %s | not measured: %s | | | | | **no** |\n", c.Name, strings.ReplaceAll(reason, "|", `\|`))
			continue
		}
		for _, row := range c.rows {
			f := c.figures(row.metric)
			must, holds := row.bound.verdict(f, row.metric.unit)
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", c.Name, row.metric.label,
				quantity(median(f.bare), row.metric.unit), quantity(median(f.gateway), row.metric.unit),
				spread(ratios(f.gateway, f.bare)), must, holds)
		}
	}
	bareFailed, bareCalls := r.failed(func(p pair) sample { return p.Bare })
	failed, calls := r.failed(func(p pair) sample { return p.Gateway })
	holds := "yes"
	if failed > 0 {
		holds = "**no**"
	}
	fmt.Fprintf(w, "| all | failed requests | %d of %d | %d of %d | | 0 | %s |\n", bareFailed, bareCalls, failed, calls, holds)
	return w.String()
}

// quantity is a value with three digits that count.
func quantity(v float64, unit string) string {
	if math.IsNaN(v) {
		return "–"
	}
	text := fmt.Sprintf("%.3g", v)
	if v >= 100 {
		text = fmt.Sprintf("%.0f", v)
	}
	if unit == "/s" {
		return text + unit
	}
	return text + " " + unit
}

func spread(ratios []float64) string {
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}
