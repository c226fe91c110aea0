// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

// chanceOf is a random function without chance.
func chanceOf(x float64) func() float64 { return func() float64 { return x } }

func TestBackoff(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	for _, c := range []struct {
		name         string
		initial, max time.Duration
		n            int
		want         time.Duration
	}{
		{"first", time.Second, 30 * time.Second, 0, time.Second},
		{"second", time.Second, 30 * time.Second, 1, 2 * time.Second},
		{"fifth", time.Second, 30 * time.Second, 4, 16 * time.Second},
		{"sixth", time.Second, 30 * time.Second, 5, 30 * time.Second},
		{"exactly the ceiling", time.Second, 32 * time.Second, 5, 32 * time.Second},
		{"many", time.Second, 30 * time.Second, 63, 30 * time.Second},
		{"very many", time.Second, 30 * time.Second, math.MaxInt, 30 * time.Second},
		{"before the first", time.Second, 30 * time.Second, -1, time.Second},
		{"starts above the ceiling", time.Minute, 30 * time.Second, 0, 30 * time.Second},
		{"no wait", 0, 30 * time.Second, 70, 0},
		{"no wait and no ceiling", 0, 0, 1, 0},
		{"a nanosecond", 1, longest, 62, 1 << 62},
		{"the longest", 1, longest, 63, longest},
	} {
		p := pacing{initial: c.initial, max: c.max}
		if got := p.backoff(c.n); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		d      time.Duration
		jitter float64
		chance float64
		want   time.Duration
	}{
		{34286670503, 0.2, 0, 34286670503},
		{10 * time.Second, 0.2, 0.5, 11 * time.Second},
		{34 * time.Second, 0.2, 0.9, 39 * time.Second},
		{time.Hour, 0.2, 0.5, time.Hour + 5*time.Second},
		{time.Hour, 0, 0.5, time.Hour},
		{time.Hour, math.MaxFloat64, 0.5, time.Hour + 5*time.Second},
		{math.MaxInt64, 0.2, 0.9, math.MaxInt64},
		{math.MaxInt64 - time.Second, 0.2, 0.9, math.MaxInt64},
		{0, 0.2, 0.9, 0},
		{-time.Second, 0.2, 0.9, -time.Second},
	} {
		p := pacing{time.Second, 30 * time.Second, c.jitter, chanceOf(c.chance)}
		if got := p.spread(c.d); got != c.want {
			t.Errorf("%v: %v, want %v", c.d, got, c.want)
		}
	}
}

// Nobody waits less than was announced, nor much more.
func FuzzWaits(f *testing.F) {
	f.Add(int64(time.Second), 3, 0.2, 0.9)
	f.Add(int64(math.MaxInt64), 70, 10.0, 0.99)
	f.Fuzz(func(t *testing.T, d int64, n int, jitter, chance float64) {
		if d < 0 || !(jitter >= 0) || !(chance >= 0 && chance < 1) {
			t.Skip()
		}
		p := pacing{time.Second, time.Duration(d), jitter, chanceOf(chance)}
		if got := p.backoff(n); got < min(time.Second, time.Duration(d)) {
			t.Errorf("backoff %v", got)
		}
		if extra := p.spread(time.Duration(d)) - time.Duration(d); extra < 0 || extra > 5*time.Second {
			t.Errorf("waits %v longer", extra)
		}
	})
}

func TestDeadline(t *testing.T) {
	arrived := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	const limit = 3 * time.Minute
	for header, want := range map[string]time.Duration{
		"":                      limit,
		"60":                    time.Minute,
		" 60 ":                  time.Minute,
		"60s":                   time.Minute,
		"0.25":                  250 * time.Millisecond,
		"1.1":                   1100 * time.Millisecond,
		"179.999999999":         limit - 1,
		"180":                   limit,
		"600":                   limit,
		"600s":                  limit,
		"99999999999999999999":  limit,
		"9223372036.854775807":  limit,
		"0":                     limit,
		"0.0":                   limit,
		"-5":                    limit,
		"+5":                    limit,
		"5m":                    limit,
		"5ss":                   limit,
		"5, 6":                  limit,
		"1e2":                   limit,
		"0x10":                  limit,
		"1_0":                   limit,
		"inf":                   limit,
		"NaN":                   limit,
		"1.2.3":                 limit,
		".":                     limit,
		"s":                     limit,
		"soon":                  limit,
		"60\u0660":              limit,
		"0.0000000001":          limit, // less than a nanosecond
		"0000000000000000000.5": 500 * time.Millisecond,
	} {
		if got := deadlineOf(arrived, limit, header).Sub(arrived); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

// FuzzDeadline: whatever a client says, its call ends after it has come, and not
// after the operator's limit. Whatever an upstream says, it announces no time gone by.
func FuzzDeadline(f *testing.F) {
	for _, seed := range []string{"", "60", " 60s ", "0.25", "1.2.3", "99999999999999999999", "-5", "1e2", "NaN", "Wed, 02 Sep 2026 19:01:30 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "0000000000000000000.5s"} {
		f.Add(seed)
	}
	arrived := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	const limit = 3 * time.Minute
	f.Fuzz(func(t *testing.T, header string) {
		got := deadlineOf(arrived, limit, header).Sub(arrived)
		if got <= 0 || got > limit {
			t.Fatalf("%q: %v", header, got)
		}
		after := retryAfterOf(http.Header{"Retry-After": {header}}, arrived)
		if after < 0 {
			t.Fatalf("Retry-After: %q: %v", header, after)
		}
		text := strings.TrimSuffix(strings.TrimSpace(header), "s")
		want, err := time.ParseDuration(text + "s")
		if err != nil || want <= 0 || strings.Trim(text, "0123456789.") != "" {
			return // which is for TestDeadline
		}
		if want = min(want, limit); (got - want).Abs() > time.Nanosecond {
			t.Fatalf("%q: %v, want %v", header, got, want)
		}
	})
}
