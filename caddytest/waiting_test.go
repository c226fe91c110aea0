// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// soon is an upper bound for what does not wait: far above what a busy machine
// needs, and far below the waits that it tells from none.
const soon = 10 * time.Second

// hasty is a backoff that no announced delay can be taken for.
const hasty = "backoff 1ms 1ms"

// What an upstream announces is obeyed, and never cut short, wherever it says so.
func TestAnnouncedDelay(t *testing.T) {
	quota := func(message string, details ...string) string {
		return googleError("RESOURCE_EXHAUSTED", message, details...)
	}
	const inMessage = "Quota exceeded.\\nPlease retry in "
	for _, c := range []struct {
		name  string
		path  string
		plays http.HandlerFunc
		least time.Duration
	}{
		{"RetryInfo", unaryPath, limited("0.3s"), 300 * time.Millisecond},
		{"RetryInfo to the nanosecond", unaryPath, limited("0.250000001s"), 250_000_001},
		{"RetryInfo as an object", unaryPath, answers(429, jsonType, strings.Replace(limitedJSON("x"), `"x"`, `{"nanos":300000000}`, 1)), 300 * time.Millisecond},
		{"RetryInfo in an array", unaryPath, answers(429, jsonType, "["+limitedJSON("0.3s")+"]"), 300 * time.Millisecond},
		{"RetryInfo, events asked for", streamPath, answers(429, eventType, limitedJSON("0.3s")), 300 * time.Millisecond},
		{"RetryInfo in an event", streamPath, events(`{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[` + retryInfo("0.3s") + `]}}`), 300 * time.Millisecond},
		{"RetryInfo of a failure", unaryPath, answers(503, jsonType, googleError("UNAVAILABLE", "Overloaded", retryInfo("0.3s"))), 300 * time.Millisecond},
		{"message", unaryPath, answers(429, jsonType, quota(inMessage+"0.3s.")), 300 * time.Millisecond},
		{"message in milliseconds", unaryPath, answers(429, jsonType, quota(inMessage+"300ms.")), 300 * time.Millisecond},
		{"message that RetryInfo cuts to whole seconds", unaryPath, answers(429, jsonType, quota(inMessage+"0.3s.", retryInfo("0s"))), 300 * time.Millisecond},
		{"RetryInfo and header", unaryPath, with("Retry-After", "3600", limited("0.3s")), 300 * time.Millisecond},
		{"header", unaryPath, with("Retry-After", "1", answers(429, jsonType, quota("Quota exceeded"))), time.Second},
		{"header of a failure", unaryPath, with("Retry-After", "1", answers(503, "text/plain", "busy")), time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			good, body := drawn, imageJSON
			if c.path == streamPath {
				good, body = events(imageChunk, lastChunk), event(imageChunk)+event(lastChunk)
			}
			u := scripted(t, inTurn(c.plays, good))
			g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, retry(hasty))
			g.post(t, c.path, promptJSON).exactly(t, 200, body)
			all := went(t, "first first", u)
			if got := rest(all, 1); got < c.least || got > c.least+soon {
				t.Errorf("the call came again after %v, want %v", got, c.least)
			}
		})
	}
}

// A wait that cannot end in time is not begun: the client gets the upstream's own
// error at once, and is told when to come back.
func TestDelayBeyondTheDeadline(t *testing.T) {
	overload := googleError("UNAVAILABLE", "Overloaded", retryInfo("34s"))
	for _, c := range []struct {
		name       string
		plays      http.HandlerFunc
		status     int
		body       string
		retryAfter string
	}{
		{"RetryInfo", limited("34s"), 429, limitedJSON("34s"), "34"},
		{"RetryInfo with a fraction", limited("33.0000001s"), 429, limitedJSON("33.0000001s"), "34"},
		{"header", with("Retry-After", "34", answers(429, jsonType, `{"error":{"code":429}}`)), 429, `{"error":{"code":429}}`, "34"},
		{"longer than any time", limited("9999999999999s"), 429, limitedJSON("9999999999999s"), "9223372037"},
		{"failure", answers(503, jsonType, overload), 503, overload, ""},
	} {
		for _, limit := range []struct{ name, option, header string }{
			{"the operator's", retry(hasty, "deadline 20s"), ""},
			{"the client's", retry(hasty), "20"},
			{"the client's, which is longer", retry(hasty, "deadline 20s"), "600"},
			{"the operator's, which is longer", retry(hasty, "deadline 10m"), "20s"},
		} {
			t.Run(c.name+"/"+limit.name, func(t *testing.T) {
				u := scripted(t, c.plays)
				g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, limit.option)
				began := time.Now()
				s := g.post(t, unaryPath, promptJSON, "X-Server-Timeout", limit.header)
				if took := time.Since(began); took > soon {
					t.Errorf("the client waited %v", took)
				}
				s.exactly(t, c.status, c.body)
				if got := s.Header.Get("Retry-After"); got != c.retryAfter {
					t.Errorf("Retry-After %q, want %q", got, c.retryAfter)
				}
				went(t, "first", u)
			})
		}
	}
}

// A daily quota is not waited for, however short the delay that comes with it,
// and beats a quota per minute. Where there is another upstream, the next calls
// go there.
func TestDailyQuota(t *testing.T) {
	perDay := quotaFailure("GenerateRequestsPerDayPerProjectPerModel-FreeTier")
	perMinute := quotaFailure("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
	for name, details := range map[string][]string{
		"alone":             {perDay, retryInfo("0.1s")},
		"after the delay":   {retryInfo("0.1s"), perDay},
		"after per minute":  {perMinute, perDay, retryInfo("0.1s")},
		"before per minute": {perDay, perMinute, retryInfo("0.1s")},
	} {
		t.Run(name, func(t *testing.T) {
			body := googleError("RESOURCE_EXHAUSTED", "Please retry in 0.1s.", details...)
			first, second := scripted(t, answers(429, jsonType, body)), scripted(t, drawn)
			lone := []string{place("first", first, ownKey(t, "first"))}
			g := inFrontOf(t, lone, retry(hasty))
			s := g.post(t, unaryPath, promptJSON)
			s.exactly(t, 429, body)
			checkMidnight(t, s.Header.Get("Retry-After"))
			went(t, "first", first)

			first.play(first.answer)
			g.load(t, several(append(lone, place("second", second, ownKey(t, "second")))))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			went(t, "second", first, second)
		})
	}
}

// checkMidnight fails unless these are the seconds to midnight in California.
func checkMidnight(t *testing.T, seconds string) {
	t.Helper()
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().In(pacific)
	day := 24 * time.Hour
	midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, pacific)
	got, err := strconv.Atoi(seconds)
	late := (time.Duration(got)*time.Second - midnight.Sub(now)) % day // the day may have changed meanwhile
	if err != nil || got < 1 || late < 0 || late > time.Minute {
		t.Errorf("Retry-After %q, but midnight is in %v", seconds, midnight.Sub(now))
	}
}

// What one call was told holds for the next ones, too: of the same model, and of
// no other.
func TestDelayHoldsForOtherCalls(t *testing.T) {
	u := scripted(t, inTurn(limited("1s"), drawn))
	g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, retry(hasty))
	g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "0.9").exactly(t, 429, limitedJSON("1s"))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	if got := rest(went(t, "first first", u), 1); got < time.Second {
		t.Errorf("the next call came after %v", got)
	}

	u.play(inTurn(limited("60s"), drawn))
	g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "20").exactly(t, 429, limitedJSON("60s"))
	began := time.Now()
	g.post(t, "/v1beta/models/gemini-2.5-flash-image:generateContent", promptJSON).exactly(t, 200, imageJSON)
	if took := time.Since(began); took > soon {
		t.Errorf("a call for another model waited %v", took)
	}
	went(t, "first first", u)
}

// Where all upstreams have announced delays, the call goes to the one that is free
// first; one that is free takes it at once.
func TestFirstThatIsFree(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second http.HandlerFunc
		went          string
		least         time.Duration // between the last two attempts
	}{
		{"the second", limited("60s"), inTurn(limited("0.3s"), drawn), "first second second", 300 * time.Millisecond},
		{"the first", inTurn(limited("0.3s"), drawn), limited("60s"), "first second first", 0},
		{"at once", limited("60s"), drawn, "first second", 0},
		{"not the one that is limited", inTurn(overloaded, drawn), limited("60s"), "first second first", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := scripted(t, c.first), scripted(t, c.second)
			g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))}, retry("backoff 50ms 50ms"))
			began := time.Now()
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			if took := time.Since(began); took > soon {
				t.Errorf("the client waited %v", took)
			}
			all := went(t, c.went, first, second)
			if got := rest(all, len(all)-1); got < c.least {
				t.Errorf("the last attempt came after %v, want %v", got, c.least)
			}
		})
	}
}

// Where nobody says how long to wait, it is twice as long each time.
func TestBackoff(t *testing.T) {
	least := []time.Duration{0, 40 * time.Millisecond, 80 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond}
	for name, plays := range map[string]http.HandlerFunc{
		"failure": overloaded,
		"limit":   answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")),
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, plays)
			g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, retry("backoff 40ms 100ms"))
			g.post(t, unaryPath, promptJSON)
			all := went(t, "first first first first first", u)
			for i := 1; i < len(all); i++ {
				if got := rest(all, i); got < least[i] || got > least[i]+soon {
					t.Errorf("attempt %d came after %v, want %v", i+1, got, least[i])
				}
			}
		})
	}
}

// A deadline in the middle of a retry leaves what was answered before.
func TestDeadlineDuringARetry(t *testing.T) {
	var calls []slowCall
	for name, plays := range map[string]struct {
		script http.HandlerFunc
		status int
		body   string
	}{
		"after a failure": {inTurn(overloaded, hangs()), 503, googleErrorJSON},
		"after a limit":   {inTurn(limited("0.01s"), hangs()), 429, limitedJSON("0.01s")},
		"in an answer":    {inTurn(overloaded, hangs(textJSON[:60])), 503, googleErrorJSON},
	} {
		u := scripted(t, plays.script)
		key := ownKey(t, "call"+strconv.Itoa(len(calls))) // none of them waits for the limits of another
		calls = append(calls, slowCall{
			name: name, path: unaryPath, gateway: several([]string{place("first", u, key)}, retry(hasty, "deadline 1s")),
			check: func(t *testing.T, s *reply) {
				s.exactly(t, plays.status, plays.body)
				if n := len(u.received()); n != 2 {
					t.Errorf("%d attempts, want 2", n)
				}
			},
		})
	}
	sideBySide(t, calls)
}

// A budget bounds what an outage costs in retries, over all calls.
func TestRetryBudget(t *testing.T) {
	const calls = 10
	for _, c := range []struct {
		option   string
		attempts int // of all calls
	}{
		{"budget 1 2", 2 * calls},
		{"budget 0.5 2", calls + calls/2},
		{"budget 0 3", calls + 3},
		{"budget 0 0", calls},
		{"budget off", 5 * calls},
	} {
		t.Run(c.option, func(t *testing.T) {
			first, second := scripted(t, overloaded), scripted(t, overloaded)
			places := []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))}
			g := inFrontOf(t, places, retry(hasty, c.option))
			for range calls {
				g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
			}
			if got := len(visits(first, second)); got != c.attempts {
				t.Errorf("%d calls made %d attempts, want %d", calls, got, c.attempts)
			}
		})
	}
}
