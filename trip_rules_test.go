// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// The gravest block of an answer counts: what is final must not be rephrased
// because something softer stands beside it.
func TestGravestBlockCounts(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"two candidates", `{"candidates":[{"finishReason":"SAFETY"},{"index":1,"finishReason":"PROHIBITED_CONTENT"}]}`, "PROHIBITED_CONTENT"},
		{"one may pass", `{"candidates":[{"finishReason":"IMAGE_OTHER"},{"index":1,"finishReason":"IMAGE_PROHIBITED_CONTENT"}]}`, "IMAGE_PROHIBITED_CONTENT"},
		{"prompt and candidate", `{"promptFeedback":{"blockReason":"OTHER"},"candidates":[{"finishReason":"SPII"}]}`, "SPII"},
		{"a support code", `{"candidates":[{"finishReason":"SAFETY"},{"index":1,"finishReason":"SAFETY","finishMessage":"Support code: 58061214"}]}`, "SAFETY"},
	} {
		j := newJourney(t, Options{Rephrase: &Rephrase{Prefixes: []string{"Art:"}}}, &upstream{name: "a"}, &upstream{name: "b", acceptBlocked: true})
		j.plays["a"] = []scene{{status: 200, body: c.answer}, image}
		if got, want := j.story(prompt), "a@0s = 400 "+c.want; got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
		if got := j.story(prompt); got != " = 400 REPEATED_BLOCK" {
			t.Errorf("%s, again: %s", c.name, got)
		}
	}
}

// The second block that might have passed is one like any other, for both that
// gave it.
func TestSecondChanceIsTheLast(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a", acceptBlocked: true}, &upstream{name: "b"}, &upstream{name: "c", acceptBlocked: true})
	j.plays["a"], j.plays["b"] = []scene{finished("IMAGE_OTHER")}, []scene{finished("IMAGE_OTHER")}
	if got, want := j.story(prompt), "a@0s b@0s c@0s = 200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What was blocked once it had been repaired is not repaired and sent again.
func TestRepairedPromptIsRecalled(t *testing.T) {
	const history = `{"contents":[{"role":"model","parts":[{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},{"role":"user","parts":[{"text":"again"}]}]}`
	unsigned := problem(400, "INVALID_ARGUMENT", "Image part is missing a thought_signature in content position 1, part position 1.", "")
	j := newJourney(t, Options{}, &upstream{name: "a"})
	j.plays["a"] = []scene{unsigned, finished("IMAGE_SAFETY"), unsigned, finished("IMAGE_SAFETY")}
	for _, want := range []string{"a@0s a@0s = 400 IMAGE_SAFETY", "a@0s = 400 REPEATED_BLOCK"} {
		if got := j.story(history); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A prompt that was blocked as nobody sent it is no record.
func TestOnlyWhatWasSentIsRemembered(t *testing.T) {
	j := newJourney(t, Options{Retry: &Retry{Attempts: 1}, Rephrase: &Rephrase{Prefixes: []string{"One:", "Two:"}}}, &upstream{name: "a"})
	j.plays["a"] = []scene{finished("SAFETY"), image}
	j.story(prompt)
	if _, _, x := j.call(prompt); !strings.Contains(x.res.Header.Get("X-Prompt"), "One: a cat") {
		t.Errorf("the second call was put as %s", x.res.Header.Get("X-Prompt"))
	}
}

// A cooldown that does not fit gives way to an upstream that is doubtful but
// free.
func TestFreeBeforeHealthy(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"}, &upstream{name: "b"})
	j.plays["b"] = []scene{overloaded}
	j.plays["a"] = []scene{badGateway}
	for range 10 { // both fail, until both are demoted
		j.story(prompt)
		j.clock = j.clock.Add(2 * time.Minute)
	}
	j.plays["a"], j.plays["b"] = []scene{exhausted}, []scene{image}
	j.story(prompt)
	j.clock = j.clock.Add(time.Second)
	if got, want := j.story(prompt), "b@0s = 200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

var badGateway = scene{status: http.StatusBadGateway}

// An upstream that hangs leaves time for another, but every attempt has a minute.
func TestTimeOfAnAttempt(t *testing.T) {
	for _, c := range []struct {
		name    string
		left    time.Duration
		several bool
		canary  bool
		pinned  bool
		last    bool
		closed  bool
		want    time.Duration
		isFair  bool
	}{
		{"alone", 3 * time.Minute, false, false, false, false, false, 3 * time.Minute, true},
		{"two", 3 * time.Minute, true, false, false, false, false, 90 * time.Second, true},
		{"two, in a hurry", 100 * time.Second, true, false, false, false, false, 100 * time.Second, true},
		{"canary in a hurry", time.Minute, true, true, false, false, false, 30 * time.Second, true},
		{"pinned", 3 * time.Minute, true, false, true, false, false, 3 * time.Minute, true},
		{"the last attempt", 3 * time.Minute, true, false, false, true, false, 3 * time.Minute, true},
		{"two, of which one is closed", 3 * time.Minute, true, false, false, false, true, 3 * time.Minute, true},
	} {
		now := time.Now()
		tr := &trip{router: &router{retry: retryRules{attempts: 5}}, x: &exchange{arrived: now, deadline: now.Add(c.left), attempts: 1}, stations: make([]station, 1)}
		if c.several {
			tr.state = newState()
			tr.stations = []station{{}, {upstream: &upstream{health: newHealth()}, seats: make([]seat, 1), closed: c.closed}}
		}
		if c.pinned {
			tr.pin = new(tie)
		}
		if c.last {
			tr.x.attempts = 5
		}
		got, isFair := tr.timeFor(&leg{station: &station{upstream: &upstream{health: newHealth()}}, boarded: now, trial: trial{canary: c.canary}})
		if got != c.want || isFair != c.isFair {
			t.Errorf("%s: %v, fair %t, want %v, %t", c.name, got, isFair, c.want, c.isFair)
		}
	}
}

// A daily quota announces its end once, and no delay is taken for longer than a
// day.
func TestCooldownsAreBounded(t *testing.T) {
	j := newJourney(t, Options{Retry: &Retry{Attempts: 1, Deadline: caddy.Duration(time.Minute)}}, &upstream{name: "a"})
	j.plays["a"] = []scene{exhausted}
	for range 3 {
		j.story(prompt)
	}
	if len(j.events) != 1 {
		t.Errorf("events %q", j.events)
	}
	far := newJourney(t, Options{}, &upstream{name: "a"})
	far.plays["a"] = []scene{problem(429, "RESOURCE_EXHAUSTED", "Slow down.", retryIn("315576000000s"))}
	far.story(prompt)
	far.state.cooldowns.each(far.clock, func(scope string, _ cooldown, until time.Time) {
		if until.After(far.clock.Add(maxCooldown)) {
			t.Errorf("%q cools down until %v", scope, until)
		}
	})
}

// Without guard nothing is refused for what is on record.
func TestGuardOffAsksNobody(t *testing.T) {
	j := newJourney(t, Options{Rephrase: &Rephrase{Prefixes: []string{"Art:"}}}, &upstream{name: "a"})
	j.plays["a"] = []scene{finished("SAFETY")}
	for _, guardFor := range []time.Duration{time.Hour, 0} {
		j.guardFor = guardFor
		if got, want := j.story(prompt), "a@0s a@0s = 400 SAFETY"; got != want {
			t.Errorf("guard %v: %s, want %s", guardFor, got, want)
		}
	}
}

// A block that is certain when the time is up stays one, also where blocks pass.
func TestBlockAtTheDeadline(t *testing.T) {
	for blockStatus, want := range map[int]int{422: 422, 0: 400} {
		a := &attempt{verdict: verdict{class: classForbidden, reason: "SPII"}}
		(&trip{router: &router{blockStatus: blockStatus}}).cutShort(a, true)
		if a.status != want || a.verdict.reason != "SPII" {
			t.Errorf("block_status %d: %d %s", blockStatus, a.status, a.verdict.reason)
		}
	}
}
