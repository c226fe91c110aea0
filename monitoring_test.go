// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

// promMetric is a metric as Prometheus knows it.
type promMetric struct {
	name   string
	labels []string
	kind   string // counter, gauge or histogram
}

// registered are the metrics of this module by the names of their series: a
// histogram has three.
func registered(t *testing.T) map[string]promMetric {
	t.Helper()
	form := regexp.MustCompile(`^Desc\{fqName: "([^"]+)".*variableLabels: \{([^}]*)\}\}$`)
	all := make(map[string]promMetric)
	for _, c := range allCollectors() {
		kind := "gauge"
		switch c.(type) {
		case *prometheus.CounterVec:
			kind = "counter"
		case *prometheus.HistogramVec, prometheus.Histogram:
			kind = "histogram"
		}
		descs := make(chan *prometheus.Desc, 10)
		c.Describe(descs)
		close(descs)
		for desc := range descs {
			parts := form.FindStringSubmatch(desc.String())
			if parts == nil {
				t.Fatalf("another form of description: %s", desc)
			}
			m := promMetric{name: parts[1], labels: strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' }), kind: kind}
			if kind != "histogram" {
				all[m.name] = m
				continue
			}
			all[m.name+"_sum"], all[m.name+"_count"] = m, m
			m.labels = append(m.labels, "le")
			all[m.name+"_bucket"] = m
		}
	}
	return all
}

// ofScrape are the labels that Prometheus adds.
var ofScrape = []string{"instance", "job"}

// labelValues are all that some labels can be.
var labelValues = map[string][]string{
	"verdict": classNames[:],
	"kind":    {"input", "output", "thinking"},
	"limit":   {"rpm", "tpm", "rpd", "ipm"},
	"alarm":   {alarmRules[alarmSuccess].name, alarmRules[alarmLatency].name, alarmRules[alarmOverload].name},
}

// The words of PromQL that are used here. What is neither one of them nor a
// metric is a mistake.
var promWords = []string{
	"and", "by", "count", "histogram_quantile", "increase", "max", "min", "on", "or", "rate", "sum", "unless", "vector",
}

var (
	promVariable = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	promSelector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?(\[\w+\])?`)
	promMatcher  = regexp.MustCompile(`^\s*(\w+)\s*(=|!=|=~|!~)\s*"([^"]*)"\s*$`)
	promGrouping = regexp.MustCompile(`\b(by|on)\s*\(([^)]*)\)`)
)

// checkQuery finds what Prometheus would not answer, or answer with nothing. It
// returns the metrics that the query is about.
func checkQuery(query string, metrics map[string]promMetric) (used []promMetric, problems []string) {
	query = promVariable.Replace(query)
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !isBalanced(query) {
		report("the brackets do not match")
	}
	for _, group := range promGrouping.FindAllStringSubmatchIndex(query, -1) {
		word, labels := query[group[2]:group[3]], query[group[4]:group[5]]
		inner := query // on: what stands on both sides
		if word == "by" {
			inner = firstParentheses(query[group[1]:])
		}
		for label := range strings.SplitSeq(labels, ",") {
			for _, s := range promSelector.FindAllStringSubmatch(inner, -1) {
				m, ok := metrics[s[1]]
				if label = strings.TrimSpace(label); ok && !slices.Contains(append(ofScrape, m.labels...), label) {
					report("%s has no label %q", m.name, label)
				}
			}
		}
	}
	query = promGrouping.ReplaceAllStringFunc(query, func(group string) string { return group[:2] })
	for _, s := range promSelector.FindAllStringSubmatch(query, -1) {
		name, matchers, isRange := s[1], strings.Trim(s[2], "{}"), s[3] != ""
		m, ok := metrics[name]
		if !ok {
			if !slices.Contains(promWords, name) {
				report("nobody knows %q", name)
			}
			continue
		}
		used = append(used, m)
		if isRange != (m.kind != "gauge") {
			report("%s is a %s", name, m.kind)
		}
		for matcher := range strings.SplitSeq(matchers, ",") {
			if matchers != "" {
				checkMatcher(matcher, m, report)
			}
		}
	}
	return used, problems
}

func checkMatcher(matcher string, m promMetric, report func(string, ...any)) {
	parts := promMatcher.FindStringSubmatch(matcher)
	if parts == nil {
		report("%s is no matcher", matcher)
		return
	}
	label, values := parts[1], strings.Split(parts[3], "|")
	if !slices.Contains(append(ofScrape, m.labels...), label) {
		report("%s has no label %q", m.name, label)
	}
	for _, value := range values {
		if known := labelValues[label]; known != nil && !slices.Contains(known, value) {
			report("%s is never %q", label, value)
		}
	}
}

func isBalanced(query string) bool {
	var open []rune
	inString := false
	for _, r := range query {
		switch {
		case r == '"':
			inString = !inString
		case inString:
		case strings.ContainsRune("({[", r):
			open = append(open, r)
		case strings.ContainsRune(")}]", r):
			if len(open) == 0 || strings.IndexRune("({[", open[len(open)-1]) != strings.IndexRune(")}]", r) {
				return false
			}
			open = open[:len(open)-1]
		}
	}
	return len(open) == 0 && !inString
}

// firstParentheses is what stands in the first parentheses of a text.
func firstParentheses(text string) string {
	depth, from := 0, strings.IndexByte(text, '(')
	for i := max(from, 0); i < len(text); i++ {
		switch text[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return text[from : i+1]
			}
		}
	}
	return text
}

type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type string }
	}
	Panels []struct {
		ID         int
		Type       string
		Title      string
		GridPos    struct{ X, Y, W, H int }
		Datasource struct{ UID string }
		Targets    []struct {
			RefID      string
			Expr       string
			Datasource struct{ UID string }
			Legend     string `json:"legendFormat"`
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile("monitoring/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal(read(t, "grafana-dashboard.json"), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 39 || len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" {
		t.Errorf("the dashboard lacks what Grafana needs: %+v", d.Templating)
	}
	metrics, shown := registered(t), make(map[string]bool)
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if before := taken[[2]int{x, y}]; before != "" || x > 23 {
					t.Fatalf("%s lies on %q or outside", p.Title, before)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || p.Datasource.UID != "${datasource}" {
				t.Errorf("%s has a data source of its own", p.Title)
			}
			used, problems := checkQuery(target.Expr, metrics)
			for _, problem := range problems {
				t.Errorf("%s: %s, in %s", p.Title, problem, target.Expr)
			}
			for _, m := range used {
				shown[m.name] = true
			}
			for _, label := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.Legend, -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + label[1] + `\b`).MatchString(target.Expr) {
					t.Errorf("%s: %s is not in the result of %s", p.Title, label[0], target.Expr)
				}
			}
		}
	}
	for _, m := range metrics {
		if !shown[m.name] {
			t.Errorf("%s is not on the dashboard", m.name)
		}
	}
}

func TestAlertRules(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(read(t, "prometheus-alerts.yml"), &file); err != nil {
		t.Fatal(err)
	}
	metrics, names := registered(t), make(map[string]bool)
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if names[rule.Alert] || rule.Alert == "" {
				t.Errorf("the name %q is given twice", rule.Alert)
			}
			names[rule.Alert] = true
			used, problems := checkQuery(rule.Expr, metrics)
			for _, problem := range problems {
				t.Errorf("%s: %s", rule.Alert, problem)
			}
			if _, err := time.ParseDuration(rule.For); rule.For != "" && err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
			if s := rule.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("%s has the severity %q", rule.Alert, s)
			}
			for _, field := range []string{"summary", "description"} {
				if rule.Annotations[field] == "" {
					t.Errorf("%s has no %s", rule.Alert, field)
				}
				for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(rule.Annotations[field], -1) {
					if len(used) == 0 || !slices.Contains(append(ofScrape, used[0].labels...), label[1]) {
						t.Errorf("%s: there is no %s in its result", rule.Alert, label[1])
					}
				}
			}
		}
	}
	if len(names) == 0 {
		t.Error("there are no rules")
	}
}

// Whatever is told is documented.
func TestDocumentationOfWhatIsTold(t *testing.T) {
	content, err := os.ReadFile("docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string) // by their first column
	for line := range strings.Lines(string(content)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") {
			rows[strings.Trim(cells[0], "| `")] = line
		}
	}
	for _, m := range registered(t) {
		for _, label := range slices.DeleteFunc(slices.Clone(m.labels), func(l string) bool { return l == "le" }) {
			if !regexp.MustCompile(`\b` + label + `\b`).MatchString(rows[m.name]) {
				t.Errorf("the label %s of %s is not documented", label, m.name)
			}
		}
		if !strings.Contains(rows[m.name], m.kind) {
			t.Errorf("%s is not documented as a %s", m.name, m.kind)
		}
	}
	for _, f := range publishedFields {
		if rows["{http.gemini."+f.name+"}"] == "" {
			t.Errorf("{http.gemini.%s} is not documented", f.name)
		}
	}
	for _, rule := range alarmRules {
		if rows[rule.name] == "" {
			t.Errorf("the alarm %s is not documented", rule.name)
		}
	}
}

// The checks find what they are for.
func TestCheckQuery(t *testing.T) {
	metrics := registered(t)
	for query, problem := range map[string]string{
		`sum by (verdict) (rate(caddy_gemini_requests_total{verdict!="ok"}[$__rate_interval]))`: "",
		`max(caddy_gemini_block_ratio{instance=~"$instance"}) > 0.2`:                            "",
		`sum(rate(caddy_gemini_request_total[5m]))`:                                             `nobody knows "caddy_gemini_request_total"`,
		`sum(rate(caddy_gemini_queue_seconds[5m]))`:                                             `nobody knows "caddy_gemini_queue_seconds"`,
		`average(caddy_gemini_block_ratio)`:                                                     `nobody knows "average"`,
		`sum by (project) (rate(caddy_gemini_requests_total[5m]))`:                              `caddy_gemini_requests_total has no label "project"`,
		`sum by (le) (rate(caddy_gemini_queue_seconds_sum[5m]))`:                                `caddy_gemini_queue_seconds has no label "le"`,
		`caddy_gemini_upstream_healthy{model="x"}`:                                              `caddy_gemini_upstream_healthy has no label "model"`,
		`sum(rate(caddy_gemini_requests_total{verdict="good"}[5m]))`:                            `verdict is never "good"`,
		`sum(rate(caddy_gemini_requests_total{verdict=ok}[5m]))`:                                `verdict=ok is no matcher`,
		`sum(caddy_gemini_requests_total)`:                                                      `caddy_gemini_requests_total is a counter`,
		`rate(caddy_gemini_block_ratio[5m])`:                                                    `caddy_gemini_block_ratio is a gauge`,
		`sum(rate(caddy_gemini_tokens_total[5m])`:                                               `the brackets do not match`,
	} {
		_, problems := checkQuery(query, metrics)
		if got := strings.Join(problems, "; "); got != problem {
			t.Errorf("%s: found %q, expected %q", query, got, problem)
		}
	}
}
