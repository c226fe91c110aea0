// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strings"
	"testing"
)

// keyName is the name under which ownKey has made the key of a request.
func keyName(r *request) string {
	return strings.TrimPrefix(r.Header.Get("X-Goog-Api-Key"), keyMark+"-")
}

// keysUsed are the names of the keys of all requests, in their order.
func keysUsed(upstreams ...*upstream) string {
	var names []string
	for _, v := range visits(upstreams...) {
		names = append(names, keyName(v.request))
	}
	return strings.Join(names, " ")
}

// used checks with which keys calls were made: "k1 k2".
func used(t *testing.T, want string, upstreams ...*upstream) {
	t.Helper()
	if got := keysUsed(upstreams...); got != want {
		t.Errorf("the calls were made with %q, want %q", got, want)
	}
}

// byKey plays one script for one key, and another for all others.
func byKey(name string, play, others http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Goog-Api-Key") == keyOf(name) {
			play(w, r)
			return
		}
		others(w, r)
	}
}

// invalidKey is how Google rejects a key: with a 400.
var (
	invalidKeyJSON = googleError("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.",
		`{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}`)
	invalidKey = answers(400, jsonType, invalidKeyJSON)
)

// pool is an upstream with keys k1, k2 and so on, of the given projects.
func pool(t *testing.T, name string, u *upstream, projects ...string) string {
	t.Helper()
	keys := make([]string, len(projects))
	for i, project := range projects {
		keys[i] = ownKey(t, "k"+string(rune('1'+i)), project)
	}
	return place(name, u, keys...)
}

// Keys take turns.
func TestKeysRotate(t *testing.T) {
	u := scripted(t, drawn)
	g := inFrontOf(t, []string{pool(t, "first", u, "a", "a", "b")})
	for range 7 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	used(t, "k1 k2 k3 k1 k2 k3 k1", u)
}

// A key that is rejected is followed by the next one at once, and not used for
// the next calls, after a reload neither.
func TestRejectedKeyIsSetAside(t *testing.T) {
	for name, plays := range map[string]http.HandlerFunc{
		"API_KEY_INVALID": invalidKey,
		"leaked":          answers(403, jsonType, googleError("PERMISSION_DENIED", "Your API key was reported as leaked.")),
		"no credits":      answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")),
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, byKey("k1", plays, drawn))
			directives := several([]string{pool(t, "first", u, "a", "a", "b")}, retry("backoff 1h 1h", "deadline 2h"))
			g := start(t, directives)
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			used(t, "k1 k2", u)

			u.play(u.answer)
			g.load(t, directives)
			for range 6 {
				g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			}
			if got := keysUsed(u); strings.Contains(got, "k1") || !strings.Contains(got, "k2") || !strings.Contains(got, "k3") {
				t.Errorf("the next calls were made with %s", got)
			}
		})
	}
}

// A key whose tier has no access to a model may have it to others.
func TestKeyIsSetAsideForAModel(t *testing.T) {
	noAccess := answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Quota exceeded, limit: 0, model: x\\nPlease retry in 30s."))
	u := scripted(t, byKey("k1", noAccess, drawn))
	g := inFrontOf(t, []string{pool(t, "first", u, "a", "b")})
	for range 3 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	used(t, "k1 k2 k2 k2", u)

	u.play(drawn)
	for range 2 {
		g.post(t, "/v1beta/models/gemini-2.5-flash-image:generateContent", promptJSON).exactly(t, 200, imageJSON)
	}
	if got := keysUsed(u); !strings.Contains(got, "k1") {
		t.Errorf("calls for another model were made with %s", got)
	}
}

// When all keys of a pool are rejected, the call goes to the next upstream, and so
// do the next calls.
func TestRejectedPool(t *testing.T) {
	first, second := scripted(t, invalidKey), scripted(t, drawn)
	g := inFrontOf(t, []string{pool(t, "first", first, "a", "b"), place("second", second, ownKey(t, "second"))})
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	used(t, "k1 k2 second", first, second)

	first.play(invalidKey)
	second.play(drawn)
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	used(t, "second", first, second)
}

// Where there is nothing else, rejected keys are still used: Google's own words
// say best what is wrong, and a key may be good again.
func TestRejectedKeysOfALoneUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		projects []string
		each     string
	}{
		"one key":  {[]string{"a"}, "k1"},
		"two keys": {[]string{"a", "a"}, "k1 k2"},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, invalidKey)
			g := inFrontOf(t, []string{pool(t, "first", u, c.projects...)})
			for i := range 3 {
				u.play(invalidKey)
				s := g.post(t, unaryPath, promptJSON)
				s.exactly(t, 400, invalidKeyJSON)
				if got := len(u.received()); got != len(c.projects) {
					t.Errorf("call %d was made with %q, want each key once", i+1, keysUsed(u))
				}
			}
			u.play(drawn)
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			u.only(t)
		})
	}
}

// A client's own key that is rejected is the client's business: it is told so
// every time, and the call of another client goes to the first upstream again.
func TestRejectedKeyOfTheClient(t *testing.T) {
	first, second := scripted(t, invalidKey), scripted(t, drawn)
	g := inFrontOf(t, []string{place("first", first), place("second", second, ownKey(t, "second"))})
	for range 2 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	went(t, "first second first second", first, second)

	first.play(invalidKey)
	second.play(drawn)
	g.load(t, several([]string{place("first", first)}))
	for range 2 {
		g.post(t, unaryPath, promptJSON).exactly(t, 400, invalidKeyJSON)
	}
	went(t, "first first", first, second)
}

// Keys of one project wait together, also when other calls come; those of another
// are used at once.
func TestKeysOfAProjectWaitTogether(t *testing.T) {
	u := scripted(t, byKey("k1", limited("60s"), drawn))
	g := inFrontOf(t, []string{pool(t, "first", u, "a", "a", "b")}, retry(hasty))
	for range 5 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	used(t, "k1 k3 k3 k3 k3 k3", u)

	// When the other project is limited, too, nothing is left.
	u.play(limited("90s"))
	s := g.post(t, unaryPath, promptJSON, "X-Server-Timeout", "20")
	s.exactly(t, 429, limitedJSON("90s"))
	if after := s.Header.Get("Retry-After"); after != "90" {
		t.Errorf("Retry-After %q, want 90", after)
	}
	used(t, "k3", u)
}

// A project is the same at every upstream that uses it.
func TestProjectsWaitAtAllUpstreams(t *testing.T) {
	first, second, third := scripted(t, limited("60s")), scripted(t, drawn), scripted(t, drawn)
	g := inFrontOf(t, []string{
		place("first", first, ownKey(t, "k1", "a")),
		place("second", second, ownKey(t, "k2", "a")),
		place("third", third, ownKey(t, "k3", "b")),
	})
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first third", first, second, third)
}

// A daily quota sets a project aside as well.
func TestDailyQuotaOfAProject(t *testing.T) {
	u := scripted(t, byKey("k1", answers(429, jsonType, exhaustedJSON), drawn))
	g := inFrontOf(t, []string{pool(t, "first", u, "a", "a", "b")})
	for range 4 {
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	used(t, "k1 k3 k3 k3 k3", u)
}

// A reset gives back the keys of a project that have been set aside, whether the
// configuration names it or its clients do. Whose key a client has brought is not
// known any more, so that anybody's reset will do for those.
func TestResetGivesKeysBack(t *testing.T) {
	for name, project := range map[string]string{"of a project": "mended", "of a tenant": "{header.X-Project}"} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, byKey("k1", invalidKey, drawn))
			g := oversee(t, several([]string{place("first", u, ownKey(t, "k1", project), ownKey(t, "k2", "another"))}))
			draw := func(times int) {
				t.Helper()
				for range times {
					g.post(t, unaryPath, promptJSON, "X-Project", "mended").exactly(t, 200, imageJSON)
				}
			}
			draw(3)
			if name == "of a project" {
				g.reset(t, "?project=another", 0)
			}
			draw(2)
			used(t, "k1 k2 k2 k2 k2 k2", u)
			u.play(drawn)
			g.reset(t, "?project=mended", 0)
			draw(2)
			if !strings.Contains(keysUsed(u), "k1") {
				t.Errorf("the calls were made with %s", keysUsed(u))
			}
		})
	}
}
