// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// maxShown is how many faults of a kind are printed.
const maxShown = 20

// report is the run in Markdown.
func (s *soak) report() string {
	var b strings.Builder
	elapsed := time.Since(s.started)
	fmt.Fprintf(&b, "Soak of %v on %s: %d calls, %d visits at upstreams, %d reloads; %d cores, %s/%s.\n\n",
		elapsed.Round(time.Second), time.Now().Format(time.DateOnly), s.numbers, s.ledger.visits, s.gateway.loads, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	s.reportFaults(&b)
	s.reportSamples(&b)
	s.reportOutcomes(&b)
	return b.String()
}

func (s *soak) reportFaults(b *strings.Builder) {
	byKind := make(map[string][]string)
	for _, f := range s.faults {
		byKind[f.kind] = append(byKind[f.kind], f.text)
	}
	b.WriteString("| | |\n| --- | --- |\n")
	for _, kind := range faultKinds {
		fmt.Fprintf(b, "| %s | %d |\n", kind, len(byKind[kind]))
	}
	fmt.Fprintf(b, "| connections that a reload has closed before a call began | %d |\n\n", s.unbegun)
	for _, kind := range faultKinds {
		for _, text := range byKind[kind][:min(len(byKind[kind]), maxShown)] {
			fmt.Fprintf(b, "- %s: %s\n", kind, text)
		}
	}
	if len(s.faults) > 0 {
		b.WriteString("\n")
	}
}

func (s *soak) reportSamples(b *strings.Builder) {
	b.WriteString("| at | calls | CPU, cores | peak RSS, MiB |")
	for _, f := range figures {
		b.WriteString(" " + f.name + " |")
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", len(figures)+4) + "\n")
	var before sample
	for i, one := range s.samples {
		warm := ""
		if i < s.warmUp {
			warm = ", warming up"
		}
		fmt.Fprintf(b, "| %v%s | %d | %.2f | %d |", one.at.Round(time.Second), warm, one.calls, float64(one.cpu-before.cpu)/float64(one.at-before.at), one.peak/mB)
		for _, f := range figures {
			fmt.Fprintf(b, " %d |", f.value(&one)/f.unit)
		}
		b.WriteString("\n")
		before = one
	}
	b.WriteString("| *may rise by* | | | |")
	var first sample
	if len(s.samples) > s.warmUp {
		first = s.samples[s.warmUp]
	}
	for _, f := range figures {
		fmt.Fprintf(b, " %d |", f.allowed(f.value(&first))/f.unit)
	}
	b.WriteString("\n\n")
}

func (s *soak) reportOutcomes(b *strings.Builder) {
	b.WriteString("| calls | outcomes |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(s.outcomes)) {
		var parts []string
		for _, outcome := range slices.Sorted(maps.Keys(s.outcomes[name])) {
			parts = append(parts, fmt.Sprintf("%s: %d", outcome, s.outcomes[name][outcome]))
		}
		fmt.Fprintf(b, "| %s | %s |\n", name, strings.Join(parts, "; "))
	}
}
