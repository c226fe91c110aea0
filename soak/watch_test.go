// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

// run of samples, two minutes apart.
func samplesOf(n int, set func(s *sample, i int)) []sample {
	all := make([]sample, n)
	for i := range all {
		all[i] = sample{at: time.Duration(i) * 2 * time.Minute, rss: 80 * mB, heap: 6 * mB, goroutines: 27, files: 18, stored: 5}
		set(&all[i], i)
	}
	return all
}

func TestLeaks(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(s *sample, i int)
		want string // the figure; empty: none
	}{
		{"flat", func(*sample, int) {}, ""},
		{"falling", func(s *sample, i int) { s.rss -= int64(i) * mB }, ""},
		{"a hill", func(s *sample, i int) { s.goroutines += int64([]int{0, 50, 50, 50, 0, 0, 0, 0}[i]) }, ""},
		{"noise", func(s *sample, i int) { s.files += int64(i % 2); s.rss += int64(i%3) * 5 * mB }, ""},
		{"memory", func(s *sample, i int) { s.rss += int64(i) * 10 * mB }, "RSS"},
		{"heap", func(s *sample, i int) { s.heap += int64(i) * mB }, "heap"},
		{"goroutines", func(s *sample, i int) { s.goroutines += int64(2 * i) }, "goroutines"},
		{"goroutines in the second half", func(s *sample, i int) { s.goroutines += int64(max(0, 3*(i-4))) }, "goroutines"},
		{"files", func(s *sample, i int) { s.files += int64(3 * i) }, "files"},
		{"one temporary file", func(s *sample, i int) { s.temporary = int64(i / 7) }, "temporary"},
		{"a call in line", func(s *sample, i int) { s.waiting = int64(i / 7) }, "waiting"},
		{"stored files", func(s *sample, i int) { s.stored += int64(i) }, "stored"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			faults := leaks(samplesOf(8, tc.set))
			if len(faults) > 1 || (len(faults) == 1) != (tc.want != "") || len(faults) == 1 && !strings.HasPrefix(faults[0].text, tc.want) {
				t.Errorf("got %v, want %q", faults, tc.want)
			}
		})
	}
	if faults := leaks(samplesOf(1, func(*sample, int) {})); faults != nil {
		t.Errorf("one sample leaks: %v", faults)
	}
}

const scraped = `# TYPE caddy_gemini_requests_total counter
caddy_gemini_requests_total{model="m",reason="",upstream="a",verdict="ok"} 3
caddy_gemini_requests_total{model="n",reason="",upstream="a",verdict="ok"} 1
caddy_gemini_requests_total{model="m",reason="IMAGE_SAFETY",upstream="a",verdict="blocked"} 1
# TYPE caddy_gemini_attempts_total counter
caddy_gemini_attempts_total{upstream="a",verdict="ok"} 7
# TYPE caddy_gemini_images_total counter
caddy_gemini_images_total{model="m",upstream="a"} 4
# TYPE go_goroutines gauge
go_goroutines 27
`

func TestCounts(t *testing.T) {
	m, err := parseMetrics([]byte(scraped))
	if err != nil {
		t.Fatal(err)
	}
	if n := m.value("go_goroutines"); n != 27 {
		t.Errorf("%d goroutines", n)
	}
	ok := &scenario{plays: []play{draws}, want: given(1)}
	block := &scenario{plays: []play{stopsImage}, want: refused(400, "IMAGE_SAFETY", 1, "blocked")}
	left := &scenario{plays: []play{draws}, want: gone(1)}
	forwarded := &scenario{plays: []play{echoes}, want: echoed}
	count := func(images, blocks, leavers int) *counts {
		n := newCounts()
		add := func(times int, s *scenario, visits int, o opinion, r result) {
			for range times {
				n.add(&call{scenario: s, result: r}, visits, o)
			}
		}
		add(images, ok, 1, opinion{verdict: "ok"}, result{images: []imageID{first}})
		add(blocks, block, 1, opinion{verdict: "blocked"}, result{})
		add(leavers, left, 0, opinion{}, result{left: true})
		add(5, forwarded, 1, opinion{}, result{})
		add(1, ok, 0, opinion{isUnseen: true}, result{})
		return n
	}
	for name, tc := range map[string]struct {
		counts *counts
		want   string
	}{
		"with one that left": {count(4, 1, 1), ""},
		"with two":           {count(3, 1, 2), ""},
		"a call too few":     {count(3, 1, 1), "attempts"},
		"counted twice":      {count(3, 1, 0), "calls:"},
		"not counted":        {count(5, 1, 1), "calls:"},
		"another verdict":    {count(5, 0, 0), "blocked"},
	} {
		var texts []string
		for _, f := range tc.counts.compare(m) {
			texts = append(texts, f.text)
		}
		got := strings.Join(texts, "\n")
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}
