package main

import (
	"fmt"
	"io"
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
	keptRSS        = metric{key: "kept_rss_over_bodies", label: "peak RSS over idle, times the bodies", unit: "×"}
	peakRSS        = metric{key: "peak_rss_over_idle_mib", label: "peak RSS over idle", unit: "MiB"}
	eventDelay     = metric{key: "event_delay_p50_ms", label: "delay of an event p50", unit: "ms"}
	eventDelay99   = metric{key: "event_delay_p99_ms", label: "delay of an event p99", unit: "ms"}
)

// bound is what a row must hold, and what it aims at: the median ratio of the
// gateway to bare Caddy, or the gateway's own figure, against a limit.
type bound struct {
	must, aim float64
	atLeast   bool
	absolute  bool
}

func atMost(must, aim float64) *bound        { return &bound{must: must, aim: aim} }
func atLeast(must, aim float64) *bound       { return &bound{must: must, aim: aim, atLeast: true} }
func gatewayAtMost(must, aim float64) *bound { return &bound{must: must, aim: aim, absolute: true} }

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
	Command      string       `json:"command"`
	Date         string       `json:"date"`
	Cores        int          `json:"cores"`
	Processor    string       `json:"processor"`
	OS           string       `json:"os"`
	Arch         string       `json:"arch"`
	GoVersion    string       `json:"go_version"`
	CaddyVersion string       `json:"caddy_version"`
	Quick        bool         `json:"quick"`
	Instead      string       `json:"instead,omitempty"` // of the gateway
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

// limits are the row's last four columns: what it must be and whether it is, what
// it aims at and whether that is reached.
func (b *bound) limits(f figures, unit string) [4]string {
	if b == nil {
		return [4]string{}
	}
	value := median(ratios(f.gateway, f.bare))
	if b.absolute {
		value = median(f.gateway)
	} else {
		unit = ""
	}
	must, holds := b.compare(value, b.must, unit)
	aim, reached := b.compare(value, b.aim, unit)
	return [4]string{must, holds, aim, reached}
}

func (b *bound) compare(value, limit float64, unit string) (wanted, verdict string) {
	sign, good := "≤", value <= limit
	if b.atLeast {
		sign, good = "≥", value >= limit
	}
	wanted = strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, limit, unit))
	if math.IsNaN(value) { // nothing was measured
		return wanted, "?"
	}
	return wanted, yesOrNo(good)
}

func yesOrNo(good bool) string {
	if good {
		return "yes"
	}
	return "**no**"
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

// introduction says what the columns are. It comes before a table that is shown
// without bench/README.md.
const introduction = `*bare Caddy* is a plain ` + "`reverse_proxy`" + `, *gateway* is ` + "`gemini`" + `; both have their defaults, except where the
case is about an option. They run at the same time, on the same machine as the fake upstream and the client, and take
turns in blocks of calls. Figures are medians of all blocks; the ratio is that of neighbouring blocks: median and, in
brackets, the smallest and the largest. *must* is what every release has to keep, *aim* what is worked towards; both are
about the median ratio, or where they have a unit, about the gateway's own figure. Rows without them are for information.
`

const (
	columns = "| case | what | bare Caddy | gateway | gateway / bare: median (min–max) | must | holds | aim | reached |\n"
	aligned = "|---|---|--:|--:|--:|--:|---|--:|---|\n"
)

// markdown is the table and what goes with it, ready to be pasted.
func (r *report) markdown() string {
	w := new(strings.Builder)
	fmt.Fprintf(w, "`%s` on %s, %d cores (%s), %s/%s, %s, Caddy %s", r.Command, r.Date, r.Cores, r.Processor, r.OS, r.Arch, r.GoVersion, r.CaddyVersion)
	if r.Quick {
		fmt.Fprint(w, ", short run")
	}
	if r.Instead != "" {
		fmt.Fprintf(w, ", %s in the gateway's place", r.Instead)
	}
	fmt.Fprint(w, ".\n\n", introduction, "\n", columns, aligned)
	for _, c := range r.Cases {
		c.markdown(w)
	}
	bareFailed, bareCalls := r.failed(func(p pair) sample { return p.Bare })
	failed, calls := r.failed(func(p pair) sample { return p.Gateway })
	holds := yesOrNo(failed == 0)
	fmt.Fprintf(w, "| all | failed requests | %d of %d | %d of %d | | 0 | %s | 0 | %s |\n", bareFailed, bareCalls, failed, calls, holds, holds)
	return w.String()
}

func (c *caseResult) markdown(w io.Writer) {
	if c.Error != "" {
		reason, _, _ := strings.Cut(c.Error, "\n")
		fmt.Fprintf(w, "| %s | not measured: %s | | | | | **no** | | **no** |\n", c.Name, strings.ReplaceAll(reason, "|", `\|`))
		return
	}
	for _, row := range c.rows {
		f := c.figures(row.metric)
		limits := row.bound.limits(f, row.metric.unit)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", c.Name, row.metric.label,
			quantity(median(f.bare), row.metric.unit), quantity(median(f.gateway), row.metric.unit),
			spread(ratios(f.gateway, f.bare)), strings.Join(limits[:], " | "))
	}
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
