// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// three are upstreams that fail, and the last of which answers well.
func three(t *testing.T) []*upstream {
	t.Helper()
	return []*upstream{scripted(t, overloaded), scripted(t, resets()), scripted(t, drawn)}
}

// Upstreams are asked in the order of the configuration, one after the other, and
// none after the first that answers.
func TestOrderOfUpstreams(t *testing.T) {
	up := three(t)
	a, b, c := place("a", up[0], ownKey(t, "a")), place("b", up[1], ownKey(t, "b")), place("c", up[2], ownKey(t, "c"))
	g := inFrontOf(t, []string{a, b, c})
	for _, order := range []struct {
		places []string
		went   string
	}{
		{[]string{a, b, c}, "first second third"},
		{[]string{b, a, c}, "second first third"},
		{[]string{a, c, b}, "first third"},
		{[]string{c, a, b}, "third"},
	} {
		g.load(t, several(order.places))
		for range 2 { // what the first call has learned does not change the way of the next
			for _, u := range up {
				u.play(u.answer)
			}
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			went(t, order.went, up...)
		}
	}
}

// An upstream that has not been asked comes before another try at one that has
// failed, also if that has been left alone for long enough meanwhile.
func TestOtherUpstreamsComeBeforeRetries(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond)
		overloaded(w, r)
	}
	for name, plays := range map[string]http.HandlerFunc{"a failure": overloaded, "a limit": limited("0.001s")} {
		t.Run(name, func(t *testing.T) {
			up := []*upstream{scripted(t, plays), scripted(t, slow), scripted(t, drawn)}
			g := inFrontOf(t, []string{
				place("first", up[0], ownKey(t, "first")), place("second", up[1], ownKey(t, "second")), place("third", up[2], ownKey(t, "third")),
			}, retry(hasty))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			went(t, "first second third", up...)
		})
	}
}

// Each upstream is asked for its own model, at its own address.
func TestModelsOfUpstreams(t *testing.T) {
	const cheaper = "gemini-2.5-flash-image"
	native := func(model string) string { return "/v1beta/models/" + model + ":generateContent" }
	chat := func(model string) string {
		return fmt.Sprintf(`{ "model": %q, "n":1, "messages":[{"role":"user","content":%q}]}`, model, prompt)
	}
	up := three(t)
	g := inFrontOf(t, []string{
		place("first", up[0], ownKey(t, "first")),
		placeAt("second", up[1].URL+"/google/v/", ownKey(t, "second"), "model nano* vendor-image-1", "model text* vendor-text-1"),
		placeAt("third", up[2].URL+"/cheap", ownKey(t, "third"), "model gemini-3* "+cheaper, "model text* fallback-text", "model * fallback-image"),
	}, manyAttempts)
	for _, c := range []struct {
		name, path, body, good string
		uris                   []string
		bodies                 []string
	}{
		{
			"in the path", native(imageModel), promptJSON, imageJSON,
			[]string{native(imageModel), "/google/v" + native(imageModel), "/cheap" + native(cheaper)},
			[]string{completedJSON, completedJSON, completedJSON},
		},
		{
			"in the path, another", native("nano-image"), promptJSON, imageJSON,
			[]string{native("nano-image"), "/google/v" + native("vendor-image-1"), "/cheap" + native("fallback-image")},
			[]string{completedJSON, completedJSON, completedJSON},
		},
		{
			"in the path, only some draw", native("nano"), promptJSON, imageJSON,
			[]string{native("nano"), "/google/v" + native("vendor-image-1"), "/cheap" + native("fallback-image")},
			[]string{withoutModalities, completedJSON, completedJSON},
		},
		{
			"in the body", openAIChatPath, chat("text"), saidJSON,
			[]string{openAIChatPath, "/google/v" + openAIChatPath, "/cheap" + openAIChatPath},
			[]string{chat("text"), chat("vendor-text-1"), chat("fallback-text")},
		},
		{
			"in the body, to be drawn", openAIDrawPath, `{"model":"nano-image","prompt":"` + prompt + `"}`, imageJSON,
			[]string{native("nano-image"), "/google/v" + native("vendor-image-1"), "/cheap" + native("fallback-image")},
			[]string{translatedJSON, translatedJSON, translatedJSON},
		},
		{
			"in the path of Vertex", "/v1/publishers/google/models/" + imageModel + ":generateContent", promptJSON, imageJSON,
			[]string{
				"/v1/publishers/google/models/" + imageModel + ":generateContent",
				"/google/v/v1/publishers/google/models/" + imageModel + ":generateContent",
				"/cheap/v1/publishers/google/models/" + cheaper + ":generateContent",
			},
			[]string{completedJSON, completedJSON, completedJSON},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			up[0].play(up[0].answer)
			up[1].play(up[1].answer)
			up[2].play(answers(200, jsonType, c.good))
			if s := g.post(t, c.path, c.body); c.path == openAIDrawPath {
				imagesOf(t, s)
			} else {
				s.exactly(t, 200, c.good)
			}
			for i, v := range went(t, "first second third", up...) {
				if v.URI != c.uris[i] || string(v.Body) != c.bodies[i] {
					t.Errorf("the %s upstream received %s %s\nwant %s %s", ordinals[i], v.URI, v.Body, c.uris[i], c.bodies[i])
				}
				if host := strings.TrimPrefix(up[i].URL, "http://"); v.Host != host {
					t.Errorf("the %s upstream received the host %s, want %s", ordinals[i], v.Host, host)
				}
			}
		})
	}
}

// Credentials: an upstream with a key gets that and nothing else, one without gets
// the client's own as the client sent it, and none gets another's.
func TestKeysOfUpstreams(t *testing.T) {
	const openAI = "/v1beta/openai/chat/completions"
	for _, c := range []struct {
		name, path string
		header     []string
		keyHeader  string // in which an upstream's own key travels
		ownURI     string // of an upstream with a key
	}{
		{"header", unaryPath, []string{"X-Goog-Api-Key", clientKey}, "X-Goog-Api-Key", unaryPath},
		{"query", unaryPath + "?key=" + clientKey, nil, "X-Goog-Api-Key", unaryPath},
		{"query among others", streamPath + "&key=" + clientKey + "&x=1", nil, "X-Goog-Api-Key", streamPath + "&x=1"},
		{"token", unaryPath, []string{"Authorization", "Bearer " + clientKey, "X-Goog-User-Project", "clients-project"}, "X-Goog-Api-Key", unaryPath},
		{"token in the query", unaryPath + "?access_token=" + clientKey, nil, "X-Goog-Api-Key", unaryPath},
		{"OpenAI's", openAI, []string{"Authorization", "Bearer " + clientKey}, "Authorization", openAI},
		{"everywhere", unaryPath + "?key=" + clientKey, []string{"X-Goog-Api-Key", clientKey, "Authorization", "Bearer " + clientKey}, "X-Goog-Api-Key", unaryPath},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := []*upstream{scripted(t, overloaded), scripted(t, overloaded), scripted(t, overloaded)}
			g := inFrontOf(t, []string{
				place("first", up[0], ownKey(t, "first")), place("second", up[1], ownKey(t, "second")), place("third", up[2]),
			})
			r := g.newRequest(t, http.MethodPost, c.path, strings.NewReader(promptJSON))
			r.Header.Del("X-Goog-Api-Key")
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Set(c.header[i], c.header[i+1])
			}
			do(t, r).exactly(t, 503, googleErrorJSON)

			all := went(t, "first second third", up...)
			for i, v := range all[:2] {
				own := keyOf(ordinals[i])
				if c.keyHeader == "Authorization" {
					own = "Bearer " + own
				}
				if got := v.Header.Get(c.keyHeader); got != own || v.URI != c.ownURI {
					t.Errorf("the %s upstream received %s with %q, want %s with %q", ordinals[i], v.URI, got, c.ownURI, own)
				}
				sent := fmt.Sprint(v.Header, v.URI, v.Host)
				for _, secret := range []string{clientKey, "clients-project", keyOf(ordinals[1-i])} {
					if strings.Contains(sent, secret) {
						t.Errorf("the %s upstream received what is not its own: %s", ordinals[i], sent)
					}
				}
			}
			third := all[2]
			if third.URI != c.path || strings.Contains(fmt.Sprint(third.Header), keyMark) {
				t.Errorf("the third upstream received %s with %v", third.URI, third.Header)
			}
			for i := 0; i < len(c.header); i += 2 {
				if got := third.Header.Get(c.header[i]); got != c.header[i+1] {
					t.Errorf("the third upstream received %s %q, want the client's %q", c.header[i], got, c.header[i+1])
				}
			}
		})
	}
}

// Nothing about the client or the way to the gateway goes to any upstream, and
// what one upstream's header_up does concerns no other.
func TestHeadersOfUpstreams(t *testing.T) {
	t.Setenv("CADDYTEST_TITLE", "from the environment")
	up := three(t)
	g := inFrontOf(t, []string{
		place("first", up[0], ownKey(t, "first"), `header_up X-Title "{env.CADDYTEST_TITLE}, for {http.request.header.X-Team}"`, "header_up +X-Goog-Request-Params added"),
		place("second", up[1], ownKey(t, "second"), "header_up User-Agent another/1.0", "header_up -X-Goog-*", "header_up -Accept-Language"),
		place("third", up[2], ownKey(t, "third")),
	})
	g.post(
		t, unaryPath, promptJSON,
		"X-Forwarded-For", "192.0.2.7", "X-Real-Ip", "192.0.2.7", "Forwarded", "for=192.0.2.7", "Via", "1.1 inside",
		"Cookie", "session=1", "Referer", "https://inside.example/", "Origin", "https://inside.example", "X-Team", "press",
		"User-Agent", "google-genai-sdk/3.1.0 gl-node/v20", "X-Goog-Api-Client", "google-genai-sdk/3.1.0",
		"X-Goog-Request-Params", "sent", "Accept-Language", "fr",
	).exactly(t, 200, imageJSON)

	all := went(t, "first second third", up...)
	needed := map[string]string{
		"Accept-Language": "fr", "Content-Length": fmt.Sprint(len(completedJSON)), "Content-Type": "application/json",
		"User-Agent": "google-genai-sdk/3.1.0 gl-node/v20", "X-Goog-Api-Client": "google-genai-sdk/3.1.0", "X-Goog-Request-Params": "sent",
	}
	for i, changes := range []map[string]string{
		{"X-Title": "from the environment, for press", "X-Goog-Request-Params": "sent, added", "X-Goog-Api-Key": keyOf("first")},
		{"User-Agent": "another/1.0", "X-Goog-Api-Client": "", "X-Goog-Request-Params": "", "Accept-Language": ""},
		{"X-Goog-Api-Key": keyOf("third")},
	} {
		want := maps.Clone(needed)
		maps.Copy(want, changes)
		maps.DeleteFunc(want, func(_, value string) bool { return value == "" })
		got := make(map[string]string)
		for name, values := range all[i].Header {
			got[name] = strings.Join(values, ", ")
		}
		if !maps.Equal(got, want) {
			t.Errorf("the %s upstream received %v\nwant %v", ordinals[i], sorted(got), sorted(want))
		}
	}
}

func sorted(header map[string]string) []string {
	var lines []string
	for name, value := range header {
		lines = append(lines, name+": "+value)
	}
	slices.Sort(lines)
	return lines
}

// A header that was taken away is not replaced by one of Go's.
func TestUserAgentCanBeTakenAway(t *testing.T) {
	u := scripted(t, drawn)
	g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"), "header_up -User-Agent")})
	g.post(t, unaryPath, promptJSON, "User-Agent", "google-genai-sdk/3.1.0").exactly(t, 200, imageJSON)
	if agent := u.only(t).Header.Get("User-Agent"); agent != "" {
		t.Errorf("User-Agent %q", agent)
	}
}
