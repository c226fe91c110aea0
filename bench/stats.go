package main

import (
	"math"
	"slices"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// sample is what one block of calls gave, by metric key; what could not be
// measured is absent.
type sample map[string]float64

// Keys of a sample that no metric of the report shows by itself.
const (
	callsKey  = "calls"
	failedKey = "failed"
)

func summarise(results []timing, errs []error, elapsed time.Duration) sample {
	var total, first, delays []float64
	failed := 0
	for i, r := range results {
		if errs[i] != nil {
			failed++
			continue
		}
		total = append(total, milliseconds(r.total))
		first = append(first, milliseconds(r.first))
		for _, d := range r.delays {
			delays = append(delays, milliseconds(d))
		}
	}
	s := sample{callsKey: float64(len(results)), failedKey: float64(failed)}
	s.set(p50.key, percentile(total, 50))
	s.set(p99.key, percentile(total, 99))
	s.set(firstByte.key, percentile(first, 50))
	s.set(eventDelay.key, percentile(delays, 50))
	s.set(eventDelay99.key, percentile(delays, 99))
	s.set(throughput.key, float64(len(total))/elapsed.Seconds())
	return s
}

func (s sample) addUsage(before, after *process.Usage, idle int64, calls int) {
	if before == nil || after == nil {
		return
	}
	s.set(cpuPerCall.key, milliseconds(after.CPU-before.CPU)/float64(calls))
	s.set(peakRSS.key, float64(max(after.Peak-idle, 0))/(1<<20))
}

// addKept relates the peak memory to the bytes of all bodies that were kept then.
func (s sample) addKept(bodies int) {
	if peak, ok := s[peakRSS.key]; ok {
		s.set(keptRSS.key, peak*(1<<20)/float64(bodies))
	}
}

func (s sample) set(key string, v float64) {
	if !math.IsNaN(v) {
		s[key] = v
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile is the nearest-rank percentile of values, NaN if there are none.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// median is the middle of values, of an even number the mean of both, NaN if
// there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// ratios are those of the pairs whose denominator tells something.
func ratios(gateway, bare []float64) []float64 {
	var out []float64
	for i := range gateway {
		if bare[i] > 0 {
			out = append(out, gateway[i]/bare[i])
		}
	}
	return out
}
