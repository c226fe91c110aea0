// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collectors are made once for the process: Caddy has a new registry for every
// configuration it loads, and counters must survive that.
var collectors = struct {
	requests, images, tokens *prometheus.CounterVec
	attempts                 *prometheus.CounterVec
	cost                     *prometheus.CounterVec
	duration                 *prometheus.HistogramVec
	queue                    prometheus.Histogram
	live                     *liveCollector
}{
	requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "requests_total",
		Help: "Generate calls by what became of them.",
	}, []string{"model", "upstream", "verdict", "reason"}),
	attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "attempts_total",
		Help: "Calls sent to an upstream by what came back.",
	}, []string{"upstream", "verdict"}),
	images: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "images_total",
		Help: "Images delivered to clients.",
	}, []string{"model", "upstream"}),
	tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "tokens_total",
		Help: "Tokens used as reported by the upstream, blocked calls included.",
	}, []string{"kind"}),
	duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "request_duration_seconds",
		Help:    "Time from a generate call's arrival to the end of its answer.",
		Buckets: []float64{.1, .5, 1, 2, 4, 8, 12, 16, 20, 30, 45, 60, 90, 120, 180},
	}, []string{"verdict"}),
	queue: prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "queue_seconds",
		Help:    "Time that calls under a local limit waited for their turn.",
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300},
	}),
	cost: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "gemini", Name: "cost_usd_total",
		Help: "Cost of all attempts in USD by the price table, blocked calls included.",
	}, []string{"upstream", "model"}),
	live: &liveCollector{find: sharedMemories, now: time.Now},
}

// googleModels are the models that metrics know by name; others are "other", so
// that clients cannot make time series.
var googleModels = []string{
	"gemini-3-pro-image", "gemini-3-pro-image-preview",
	"gemini-3.1-flash-image", "gemini-3.1-flash-image-preview", "gemini-3.1-flash-lite-image",
	"gemini-2.5-flash-image", "gemini-2.5-flash-image-preview", "gemini-2.0-flash-preview-image-generation",
	"gemini-3-pro-preview", "gemini-3-flash-preview", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite",
	"gemini-2.0-flash", "gemini-2.0-flash-lite",
	"imagen-4.0-generate-001", "imagen-4.0-fast-generate-001", "imagen-4.0-ultra-generate-001", "imagen-3.0-generate-002",
}

// other is the label value for whatever is not known by name.
const other = "other"

// metrics are the collectors with the names that one configuration knows.
type metrics struct{ models map[string]bool }

func allCollectors() []prometheus.Collector {
	c := &collectors
	return []prometheus.Collector{c.requests, c.attempts, c.images, c.tokens, c.cost, c.duration, c.queue, c.live}
}

// registerMetrics puts the collectors into the registry of a configuration.
// Several handlers share them, so that being registered already is no error.
func registerMetrics(registry *prometheus.Registry, models []string) (*metrics, error) {
	for _, c := range allCollectors() {
		if err := registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	m := &metrics{models: make(map[string]bool, len(models))}
	for _, model := range models {
		m.models[model] = true
	}
	return m, nil
}

func (m *metrics) observe(x *exchange, duration time.Duration) {
	model := bareModel(x.model)
	if !m.models[model] {
		model = other
	}
	verdict := x.verdict.class.String()
	collectors.requests.WithLabelValues(model, x.upstream, verdict, knownReason(x.verdict.reason)).Inc()
	collectors.duration.WithLabelValues(verdict).Observe(duration.Seconds())
	for _, a := range x.story {
		collectors.attempts.WithLabelValues(a.upstream, a.verdict.class.String()).Inc()
		if a.cost > 0 {
			collectors.cost.WithLabelValues(a.upstream, model).Add(a.cost.usd())
		}
	}
	if x.isLimited {
		collectors.queue.Observe(x.queued.Seconds())
	}
	if n := x.images(); n > 0 {
		collectors.images.WithLabelValues(model, x.upstream).Add(float64(n))
	}
	used := x.used()
	for _, t := range []struct {
		kind  string
		count int64
	}{{"input", used.input}, {"output", used.output}, {"thinking", used.thinking}} {
		if t.count > 0 {
			collectors.tokens.WithLabelValues(t.kind).Add(float64(t.count))
		}
	}
}

// used is what all attempts have used: Google counts each.
func (x *exchange) used() (sum usage) {
	for _, a := range x.story {
		sum.add(a.facts.usage)
	}
	return sum
}

// knownReason bounds the reasons in metrics: an upstream can invent words.
func knownReason(reason string) string {
	if reason == "" || isKnownReason[reason] {
		return reason
	}
	return other
}

var isKnownReason = func() map[string]bool {
	known := map[string]bool{
		"API_KEY_INVALID": true, "SERVICE_DISABLED": true, "IAM_PERMISSION_DENIED": true, "FAILED_PRECONDITION": true,
	}
	for at := range reasonTexts {
		known[at.reason] = true
	}
	for reason := range finishReasons {
		known[reason] = true
	}
	for reason := range blockReasons {
		known[reason] = true
	}
	for _, status := range googleStatus {
		known[status] = true
	}
	known["INVALID_ARGUMENT"] = true
	return known
}()
