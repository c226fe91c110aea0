// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"github.com/tidwall/gjson"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// sample is what the gateway holds at a quiet moment: no call is under way, all
// connections are closed, and garbage has been collected.
type sample struct {
	at    time.Duration // since the start
	calls int           // so far
	cpu   time.Duration // of the gateway, so far

	rss, peak, heap   int64 // bytes
	goroutines, files int64
	temporary, stored int64 // files of its own
	waiting           int64 // calls in line for a limit
}

// figure is one column of a sample that has to be flat.
type figure struct {
	name  string
	unit  int64 // that it is shown in
	value func(s *sample) int64
	// slack is what it may rise by, absolutely and by its share of the first.
	slack int64
	share float64
}

var figures = []figure{
	{name: "RSS, MiB", unit: mB, value: func(s *sample) int64 { return s.rss }, slack: 32 * mB, share: 0.15},
	{name: "heap, KiB", unit: kB, value: func(s *sample) int64 { return s.heap }, slack: 4 * mB, share: 0.1},
	{name: "goroutines", unit: 1, value: func(s *sample) int64 { return s.goroutines }, slack: 10},
	{name: "files", unit: 1, value: func(s *sample) int64 { return s.files }, slack: 10},
	{name: "temporary", unit: 1, value: func(s *sample) int64 { return s.temporary }},
	{name: "stored", unit: 1, value: func(s *sample) int64 { return s.stored }, slack: 4}, // a file is there while there is something in it
	{name: "waiting", unit: 1, value: func(s *sample) int64 { return s.waiting }},
}

// allowed is how much the figure may rise above its first value.
func (f *figure) allowed(first int64) int64 { return f.slack + int64(f.share*float64(first)) }

// leaks finds what is not flat: the last sample is too far above the first, or
// the second half rises by more than half of that.
func leaks(samples []sample) (faults []fault) {
	if len(samples) < 2 {
		return nil
	}
	half := samples[len(samples)/2:]
	for i := range figures {
		f := &figures[i]
		first, last := f.value(&samples[0]), f.value(&samples[len(samples)-1])
		allowed := f.allowed(first)
		if last-first > allowed {
			faults = append(faults, fault{leak, fmt.Sprintf("%s: %d at first, %d at last, allowed %d", f.name, first/f.unit, last/f.unit, (first+allowed)/f.unit)})
			continue
		}
		if rise := f.rise(half); len(half) >= 3 && rise > float64(allowed)/2 {
			faults = append(faults, fault{leak, fmt.Sprintf("%s: rises by %.0f in the second half, allowed %d", f.name, rise/float64(f.unit), allowed/2/f.unit)})
		}
	}
	return faults
}

// rise is by how much a figure grows over some samples, by the straight line that
// fits them best.
func (f *figure) rise(samples []sample) float64 {
	var n, sx, sy, sxx, sxy float64
	for i := range samples {
		x, y := samples[i].at.Seconds(), float64(f.value(&samples[i]))
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if spread := n*sxx - sx*sx; spread > 0 {
		slope := (n*sxy - sx*sy) / spread
		return slope * (samples[len(samples)-1].at - samples[0].at).Seconds()
	}
	return 0
}

// take takes a sample, and reads the metrics on the way.
func (g *gateway) take(ctx context.Context) (sample, metrics, error) {
	var s sample
	for range 2 { // what is pooled is garbage the second time
		if _, err := g.ask(ctx, http.MethodGet, "/debug/pprof/heap?gc=1", ""); err != nil {
			return s, nil, err
		}
	}
	text, err := g.ask(ctx, http.MethodGet, "/metrics", "")
	if err != nil {
		return s, nil, err
	}
	m, err := parseMetrics(text)
	if err != nil {
		return s, nil, err
	}
	s.heap, s.goroutines = m.value("go_memstats_heap_alloc_bytes"), m.value("go_goroutines")
	if u, err := process.ReadUsage(g.PID); err == nil { // Linux
		s.rss, s.peak, s.cpu = u.RSS, u.Peak, u.CPU
	}
	if files, err := process.OpenFiles(g.PID); err == nil {
		s.files = int64(files)
	}
	status, err := g.ask(ctx, http.MethodGet, "/gemini/status", "")
	if err != nil {
		return s, nil, err
	}
	for _, n := range gjson.GetBytes(status, "limits.#.waiting").Array() {
		s.waiting += n.Int()
	}
	s.temporary, s.stored = countFiles(filepath.Join(g.dir, "tmp")), countFiles(filepath.Join(g.dir, "storage"))
	return s, m, nil
}

func countFiles(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what is not there holds nothing
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}
