// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// record is a call as it should have gone, for tests to spoil.
func record(s *scenario, r result, visits ...visit) (*call, []visit) {
	c := &call{number: 7, prompt: 7, scenario: s, size: 4 * kB, began: noon, ended: noon.Add(time.Second), result: r}
	for i := range visits {
		v := &visits[i]
		v.number, v.ended = i+1, true
		if v.account == "" {
			v.account, v.prompt = "key", c.promptText()
		}
	}
	return c, visits
}

var (
	drawn    = visit{delivered: true}
	failed   = visit{}
	filtered = visit{blocked: true}

	first  = imageID{7, 1}
	second = imageID{7, 2}
)

func TestJudge(t *testing.T) {
	image := &scenario{name: "image", plays: []play{draws}, want: given(1)}
	retried := &scenario{name: "retried", plays: []play{overloaded, draws}, want: given(2)}
	block := &scenario{name: "block", plays: []play{stopsImage}, want: refused(400, "IMAGE_SAFETY", 1, "blocked")}
	limited := &scenario{name: "limited", plays: []play{draws}, want: underLimits(1)}
	left := &scenario{name: "left", plays: []play{draws}, want: gone(1)}
	late := &scenario{name: "late", plays: []play{stopsLate}, want: lateBlock}
	cut := &scenario{name: "cut", plays: []play{cuts}, want: brokenOff}

	good := result{status: 200, images: []imageID{first}}
	elsewhere := visit{account: "other key", prompt: "Draw soak-0000007"}
	goesOn := func(c *call, visits []visit) { visits[0].ended = false }
	reloadedThen := []reload{{noon.Add(500 * time.Millisecond), noon.Add(600 * time.Millisecond)}}

	for _, tc := range []struct {
		name     string
		scenario *scenario
		result   result
		visits   []visit
		reloads  []reload
		spoil    func(c *call, visits []visit)
		want     string // the kind of fault; empty: none
		verdict  string // as which it counts
		isUnseen bool
	}{
		{name: "an image", scenario: image, result: good, visits: []visit{drawn}, verdict: "ok"},
		{name: "a retry", scenario: retried, result: result{status: 200, images: []imageID{second}}, visits: []visit{failed, drawn}, verdict: "ok"},
		{name: "a block", scenario: block, result: result{status: 400, reason: "IMAGE_SAFETY"}, visits: []visit{filtered}, verdict: "blocked"},
		{name: "a limit", scenario: limited, result: result{status: 429, reason: "RATE_LIMITED", retryAfter: "3"}, verdict: "limited"},
		{name: "a client that has left", scenario: left, result: result{left: true, err: io.EOF}, visits: []visit{failed}},
		{name: "a late block", scenario: late, result: result{status: 200, late: "SAFETY"}, visits: []visit{filtered}, verdict: "blocked"},
		{name: "a cut image", scenario: cut, result: result{status: 200, isCut: true}, visits: []visit{failed}, verdict: "transient"},

		{name: "no retry", scenario: retried, result: result{status: 503, reason: "UNAVAILABLE"}, visits: []visit{failed}, want: wrongVerdict},
		{name: "a block that passes", scenario: block, result: result{status: 200}, visits: []visit{filtered}, want: wrongVerdict},
		{name: "another reason", scenario: block, result: result{status: 400, reason: "SAFETY"}, visits: []visit{filtered}, want: wrongVerdict},
		{name: "another status", scenario: block, result: result{status: 500, reason: "IMAGE_SAFETY"}, visits: []visit{filtered}, want: wrongVerdict},
		{name: "a limit without a delay", scenario: limited, result: result{status: 429, reason: "RATE_LIMITED"}, want: wrongVerdict},
		{name: "a late block that is not told", scenario: late, result: result{status: 200}, visits: []visit{filtered}, want: wrongVerdict},
		{name: "a cut image that looks whole", scenario: cut, result: result{status: 200}, visits: []visit{failed}, want: wrongVerdict},
		{name: "a visit nobody made", scenario: image, result: good, want: wrongVerdict},
		{name: "no answer", scenario: retried, result: result{err: io.EOF}, visits: []visit{failed}, want: wrongVerdict},

		{name: "a lost image", scenario: image, result: result{status: 503, reason: "UPSTREAM_UNAVAILABLE"}, visits: []visit{drawn}, want: lostCall},
		{name: "an image that breaks off", scenario: image, result: result{status: 200, isCut: true}, visits: []visit{drawn}, want: lostCall},
		{name: "a connection that breaks", scenario: image, result: result{err: syscall.ECONNRESET}, visits: []visit{drawn}, want: lostCall},

		{name: "sent behind its success", scenario: retried, result: result{status: 200, images: []imageID{second}}, visits: []visit{drawn, drawn}, want: sentAgain, verdict: "ok"},
		{name: "a blocked prompt to the same account", scenario: retried, result: result{status: 200, images: []imageID{second}}, visits: []visit{filtered, drawn}, want: sentAgain, verdict: "ok"},
		{
			name: "a blocked prompt to another account", scenario: retried, result: result{status: 200, images: []imageID{second}}, visits: []visit{filtered, elsewhere},
			spoil: func(_ *call, visits []visit) { visits[1].delivered = true }, verdict: "ok",
		},
		{
			name: "an upstream that complains", scenario: image, result: good, visits: []visit{drawn},
			spoil: func(_ *call, visits []visit) { visits[0].fault = "came with the key of another" }, want: sentAgain, verdict: "ok",
		},
		{name: "another call's image", scenario: image, result: result{status: 200, images: []imageID{{8, 1}}}, visits: []visit{drawn}, want: wrongBody, verdict: "ok"},
		{name: "a flaw", scenario: image, result: result{status: 200, images: []imageID{first}, flaw: "a flaw"}, visits: []visit{drawn}, want: wrongBody, verdict: "ok"},
		{name: "an attempt that outlives its client", scenario: left, result: result{left: true}, visits: []visit{failed}, spoil: goesOn, want: leak},

		{name: "a listener that closes", scenario: image, result: result{err: syscall.ECONNRESET}, reloads: reloadedThen, isUnseen: true},
		{name: "an idle connection that closes", scenario: image, result: result{err: io.EOF, isReused: true}, isUnseen: true},
		{name: "a listener that closes for no reason", scenario: image, result: result{err: syscall.ECONNRESET}, want: wrongVerdict},
		{name: "an idle connection, but the call has arrived", scenario: image, result: result{err: io.EOF, isReused: true}, visits: []visit{drawn}, want: lostCall},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, visits := record(tc.scenario, tc.result, append([]visit(nil), tc.visits...)...)
			if tc.spoil != nil {
				tc.spoil(c, visits)
			}
			o := judge(c, visits, tc.reloads)
			found := tc.want == "" && len(o.faults) == 0
			for _, f := range o.faults {
				found = found || f.kind == tc.want
			}
			if !found || o.verdict != tc.verdict || o.isUnseen != tc.isUnseen {
				t.Errorf("got %+v, want a fault of the kind %q and the verdict %q", o, tc.want, tc.verdict)
			}
		})
	}
}

func TestJudgePartsOfACall(t *testing.T) {
	three := &scenario{name: "three", plays: []play{draws, draws, draws}, want: givenImages(3, 3)}
	whole := []imageID{first, second, {7, 3}}
	for name, tc := range map[string]struct {
		images []imageID
		want   string
	}{
		"all":             {whole, ""},
		"one is missing":  {whole[:2], lostCall},
		"one comes twice": {[]imageID{first, second, second}, wrongBody},
	} {
		c, visits := record(three, result{status: 200, images: tc.images}, drawn, drawn, drawn)
		c.parts = 3
		got := ""
		if o := judge(c, visits, nil); len(o.faults) > 0 {
			got = o.faults[0].kind
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestOverLimit(t *testing.T) {
	var times []time.Time
	for i := range 20 {
		times = append(times, noon.Add(time.Duration(i)*5*time.Second))
	}
	if n := overLimit(times, 11, 55*time.Second); n != 0 {
		t.Errorf("%d are too many", n)
	}
	if n := overLimit(times, 10, 55*time.Second); n != 11 {
		t.Errorf("got %d, want 11", n)
	}
}

func TestScenariosAgreeWithThemselves(t *testing.T) {
	names := make(map[string]bool)
	for _, s := range append(scenarios(), repeat) {
		if names[s.String()] {
			t.Errorf("%v is there twice", s)
		}
		names[s.String()] = true
		if len(s.want) == 0 {
			t.Errorf("%v wants nothing", s)
		}
		for _, w := range s.want {
			if w.visits[1] > len(s.plays) {
				t.Errorf("%v may visit upstreams %d times, and has %d plays", s, w.visits[1], len(s.plays))
			}
		}
	}
	for i := range variants {
		for _, key := range []string{"$HOLD", "$JITTER", "$PROBE", "$QUEUE", "$RESERVE"} {
			if !strings.Contains(strings.Join(variants[i], " "), key) {
				t.Errorf("variant %d lacks %s", i, key)
			}
		}
	}
}
