// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// quickly tries calls again after milliseconds.
const quickly = "retry {\n\tattempts 3\n\tbackoff 5ms 20ms\n\tjitter 0\n\tdeadline 10s\n}"

// retry is an option with a block.
func retry(options ...string) string {
	return "retry {\n\t" + strings.Join(options, "\n\t") + "\n}"
}

// place is a scripted upstream in a Caddyfile.
func place(name string, u *upstream, options ...string) string {
	return placeAt(name, u.URL, options...)
}

func placeAt(name, url string, options ...string) string {
	return "upstream " + name + " " + url + " {\n\t" + strings.Join(options, "\n\t") + "\n}\n"
}

// keyMark is in all keys of these tests, which have the form of real ones.
const keyMark = "AIzaSySecretOfAnUpstream"

func keyOf(name string) string { return keyMark + "-" + name }

// ownKey lets an upstream have a key of its own, of a project that is called
// like the upstream if it has no name.
func ownKey(t *testing.T, name string, project ...string) string {
	t.Helper()
	t.Setenv("CADDYTEST_KEY_"+name, keyOf(name)) // Caddy logs its configuration
	return "api_key {env.CADDYTEST_KEY_" + name + "} " + strings.Join(project, "")
}

// inFrontOf starts Caddy with a gateway in front of several upstreams, in their
// order. It tries again quickly, unless an option says otherwise.
func inFrontOf(t *testing.T, places []string, options ...string) *gateway {
	t.Helper()
	return start(t, several(places, options...))
}

// several is the directive for a gateway in front of several upstreams.
func several(places []string, options ...string) string {
	if !slices.ContainsFunc(options, func(option string) bool { return strings.HasPrefix(option, "retry") }) {
		options = append(options, quickly)
	}
	return gemini(strings.Join(places, ""), options...)
}

// start is run for directives with keys that must not be logged either.
func start(t *testing.T, directives string) *gateway {
	t.Helper()
	g := run(t, directives)
	t.Cleanup(func() {
		for line := range strings.Lines(g.log(t)) {
			if strings.Contains(line, keyMark) {
				t.Errorf("a key was logged: %s", line)
			}
		}
	})
	return g
}

// slowCall is a call through a gateway of its own that takes its time.
type slowCall struct {
	name, gateway, path string
	check               func(t *testing.T, s *reply)
}

// sideBySide makes calls through one Caddy at the same time: what takes each of them a
// second takes all of them no more.
func sideBySide(t *testing.T, calls []slowCall) {
	t.Helper()
	var site strings.Builder
	for i, c := range calls {
		own := strings.Replace(c.gateway, "gemini {", fmt.Sprintf("gemini @call%d {", i), 1)
		fmt.Fprintf(&site, "@call%[1]d header X-Call %[1]d\n%[2]s", i, own)
	}
	g := start(t, site.String())
	begun := make([]*pending, len(calls))
	for i, c := range calls {
		begun[i] = g.begin(t, c.path, promptJSON, having("X-Call", strconv.Itoa(i)))
	}
	for i, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			begun[i].t = t
			c.check(t, begun[i].ends())
		})
	}
}

// visit is a request, and the ordinal of the upstream that received it.
type visit struct {
	*request
	at int
}

// visits are all requests in the order in which they were received.
func visits(upstreams ...*upstream) []visit {
	var all []visit
	for i, u := range upstreams {
		for _, r := range u.received() {
			all = append(all, visit{r, i})
		}
	}
	slices.SortFunc(all, func(a, b visit) int { return a.Time.Compare(b.Time) })
	return all
}

var ordinals = []string{"first", "second", "third"}

// went checks at which upstreams a call arrived, in order: "first second first".
func went(t *testing.T, want string, upstreams ...*upstream) []visit {
	t.Helper()
	all := visits(upstreams...)
	names := make([]string, len(all))
	for i, v := range all {
		names[i] = ordinals[v.at]
		if v.Err != nil {
			t.Errorf("the %s upstream received half a request: %v", names[i], v.Err)
		}
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the call went to %q, want %q", got, want)
	}
	return all
}

// rest is the time between a request and the one before it.
func rest(all []visit, i int) time.Duration { return all[i].Time.Sub(all[i-1].Time) }

// inTurn plays one script after the other, and the last one from then on.
func inTurn(scripts ...http.HandlerFunc) http.HandlerFunc {
	var calls atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		scripts[min(n, len(scripts))-1](w, r)
	}
}

// with plays an answer with one more header.
func with(field, value string, play http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(field, value)
		play(w, r)
	}
}

// googleError is an error in Google's form, with details that need not be.
func googleError(status, message string, details ...string) string {
	return `{"error":{"code":0,"status":"` + status + `","message":"` + message + `","details":[` + strings.Join(details, ",") + `]}}` + "\n"
}

func retryInfo(delay string) string {
	return `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"` + delay + `"}`
}

func quotaFailure(quota string) string {
	return `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"` + quota + `"}]}`
}

// limited is a 429 of a quota per minute that asks to wait.
func limited(delay string) http.HandlerFunc {
	return answers(429, jsonType, limitedJSON(delay))
}

func limitedJSON(delay string) string {
	return googleError("RESOURCE_EXHAUSTED", "Quota exceeded", quotaFailure("GenerateRequestsPerMinutePerProjectPerModel"), retryInfo(delay))
}

// overloaded is the most frequent of Google's failures.
var overloaded = answers(503, jsonType, googleErrorJSON)

// drawn is a good answer.
var drawn = answers(200, jsonType, imageJSON)
