// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// decision is a row of the contract's table (§4): to which upstreams a call goes,
// in which order, if the first one gives an answer of this verdict. What ends
// with an arrow ends with an image for the client.
type decision struct {
	verdict   string
	once      string // a lone upstream, which answers well the second time
	lone      string // a lone upstream
	second    string // with a second upstream, which answers well
	accepting string // likewise, but it has accept_blocked
	both      string // with a second upstream, which answers like the first
	ends      string // the verdict under which the call of a lone upstream is counted
	health    string // what the answer says about the upstream
}

// There may be three attempts.
var decisions = []decision{
	{"transient", "first first ->", "first first first", "first second ->", "first second ->", "first second first", "transient", "failure"},
	{"transient, then blocked", "first first ->", "first first", "first second ->", "first second ->", "first second", "blocked", "failure"},
	{"limited", "first first ->", "first first first", "first second ->", "first second ->", "first second first", "limited", "neutral"},
	{"limited, beyond the deadline", "first", "first", "first second ->", "first second ->", "first second", "limited", "neutral"},
	{"exhausted", "first", "first", "first second ->", "first second ->", "first second", "exhausted", "neutral"},
	{"account", "first", "first", "first second ->", "first second ->", "first second", "account", "neutral"},
	{"region", "first", "first", "first second ->", "first second ->", "first second", "region", "neutral"},
	{"repairable", "first first ->", "first first", "first first", "first first", "first first", "client", "neutral"},
	{"client", "first", "first", "first", "first", "first", "client", "neutral"},
	{"blocked", "first", "first", "first", "first second ->", "first", "blocked", "neutral"},
	{"forbidden", "first", "first", "first", "first", "first", "forbidden", "neutral"},
}

// Every cell of the table, for a unary call and for one for events.
func TestDecisions(t *testing.T) {
	for _, d := range decisions {
		for _, s := range specimens[d.verdict] {
			t.Run(d.verdict+"/"+s.name, func(t *testing.T) { s.check(t, d) })
		}
	}
}

// cell is one situation in which a call finds itself.
type cell struct {
	name      string
	upstreams []*upstream
	path      string
	well      string // a good answer
	want      string // the row of the decision
}

func (s specimen) check(t *testing.T, d decision) {
	t.Helper()
	s.load(t)
	cells := append(s.cells(t, d, "unary", unaryPath, s.unary, drawn, imageJSON),
		s.cells(t, d, "events", streamPath, s.events, events(imageChunk, lastChunk), event(imageChunk)+event(lastChunk))...)
	directives := accessLog + "metrics /metrics\n"
	for _, c := range cells {
		directives += c.directive(t)
	}
	g := start(t, directives)
	for _, c := range cells {
		t.Run(c.name, func(t *testing.T) { s.checkCell(t, g, c) })
	}
	eventually(t, "all calls are accounted for", func() bool { return len(g.accessLines(t)) >= len(cells) })
	checkAccounts(t, g.counters(t), d, cells)
}

// cells are the columns of the table.
func (s specimen) cells(t *testing.T, d decision, form, path string, bad, good http.HandlerFunc, well string) []cell {
	t.Helper()
	up := func(plays ...http.HandlerFunc) (all []*upstream) {
		for i, play := range plays {
			all = append(all, scripted(t, with("X-Played-By", ordinals[i], play)))
		}
		return all
	}
	return []cell{
		{form + "_once", up(inTurn(bad, good)), path, well, d.once},
		{form + "_lone", up(bad), path, well, d.lone},
		{form + "_second", up(bad, good), path, well, d.second},
		{form + "_accepting", up(bad, good), path, well, d.accepting},
		{form + "_both", up(bad, bad), path, well, d.both},
	}
}

// directive is for calls of one cell alone. Upstreams have names, and therefore
// projects, that are its own: what it teaches the gateway is unknown to others.
func (c cell) directive(t *testing.T) string {
	t.Helper()
	var places []string
	for i, u := range c.upstreams {
		name := c.name + "_" + ordinals[i]
		accepts := ""
		if i > 0 && strings.HasSuffix(c.name, "accepting") {
			accepts = "accept_blocked"
		}
		places = append(places, place(name, u, ownKey(t, name), accepts))
	}
	return fmt.Sprintf("@%[1]s header X-Cell %[1]s\nhandle @%[1]s {\n%[2]s}\n", c.name, several(places, quickly))
}

func (s specimen) checkCell(t *testing.T, g *gateway, c cell) {
	t.Helper()
	got := g.post(t, c.path, s.request, "X-Cell", c.name)
	path, served := strings.CutSuffix(c.want, " ->")
	all := went(t, path, c.upstreams...)
	for i, v := range all {
		s.checkRequest(t, c, i, v)
	}
	if len(all) == 0 {
		return
	}
	via := fmt.Sprintf(`caddy-gemini; next-hop="%s_%s"`, c.name, ordinals[all[len(all)-1].at])
	if line := got.Header.Get("Proxy-Status"); !strings.HasPrefix(line, via) || len(all) > 1 && !strings.Contains(line, fmt.Sprintf("; attempts=%d", len(all))) {
		t.Errorf("Proxy-Status %s\nwant %s and %d attempts", line, via, len(all))
	}
	switch {
	case served:
		got.exactly(t, 200, c.well)
	case s.reason != "":
		e := got.fails(t, s.status, s.reason)
		if attempts := e.metadata("attempts"); attempts != strconv.Itoa(len(all)) {
			t.Errorf("metadata tells of %s attempts", attempts)
		}
	default:
		got.exactly(t, s.status, s.body)
		if by := got.Header.Get("X-Played-By"); by != ordinals[all[len(all)-1].at] {
			t.Errorf("the client got the error of the %s upstream, which is not the last", by)
		}
		s.checkRetryAfter(t, got.Header.Get("Retry-After"))
	}
}

// checkRequest looks at what an upstream received: always the same, but for a
// repair.
func (s specimen) checkRequest(t *testing.T, c cell, i int, v visit) {
	t.Helper()
	want := s.request
	if want == promptJSON {
		want = completedJSON
	}
	if s.repaired != "" && i > 0 {
		want = s.repaired
	}
	if s.request == imagesAlone {
		want = string(c.upstreams[0].received()[0].Body)
	}
	if string(v.Body) != want || v.URI != c.path {
		t.Errorf("attempt %d was %s %s\nwant %s %s", i+1, v.URI, v.Body, c.path, want)
	}
	if key := v.Header.Get("X-Goog-Api-Key"); key != keyOf(c.name+"_"+ordinals[v.at]) {
		t.Errorf("attempt %d brought the key %q", i+1, key)
	}
}

func (s specimen) checkRetryAfter(t *testing.T, got string) {
	t.Helper()
	if s.retryAfter != "midnight" {
		if got != s.retryAfter {
			t.Errorf("Retry-After %q, want %q", got, s.retryAfter)
		}
		return
	}
	checkMidnight(t, got)
}

// checkAccounts looks at what the metrics say of the upstream: success is 1
// unless it has failed.
func checkAccounts(t *testing.T, counted map[string]float64, d decision, cells []cell) {
	t.Helper()
	for _, c := range cells {
		switch {
		case strings.HasSuffix(c.name, "second"):
			ratio, ok := counted[`upstream_success_ratio{upstream="`+c.name+`_first"}`]
			if !ok || (ratio == 1) != (d.health == "neutral") {
				t.Errorf("%s: success ratio %v (%t), but the answer is a %s", c.name, ratio, ok, d.health)
			}
		case strings.HasSuffix(c.name, "lone"):
			isCounted := func(series string) bool {
				return strings.HasPrefix(series, "requests_total{") && strings.HasSuffix(series, `upstream="`+c.name+`_first",verdict="`+d.ends+`"}`)
			}
			if !slices.ContainsFunc(slices.Collect(maps.Keys(counted)), isCounted) {
				t.Errorf("%s: the call was not counted as %s", c.name, d.ends)
			}
		}
	}
}
