// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strings"
	"testing"
)

// opted lets prompts be rephrased, twice.
const opted = "rephrase {\n\tprefix \"Digital art illustration:\" \"Professional artwork depicting:\"\n}"

// accepting is an upstream that takes what was blocked elsewhere.
func accepting(name string, u *upstream, lines ...string) string {
	return place(name, u, append(lines, "accept_blocked")...)
}

// A hard block ends a call and all that repeat it, whatever the operator has opted
// in to (contract §1).
func TestHardBlockIsFinal(t *testing.T) {
	type test struct {
		name, path, reason, stage string
		plays                     http.HandlerFunc
	}
	of := func(stage, reason, body string) test {
		return test{stage + " " + reason, unaryPath, reason, stage, answers(200, jsonType, body)}
	}
	tests := []test{
		{"events", streamPath, "IMAGE_PROHIBITED_CONTENT", "output", events(textChunk, stopped("IMAGE_PROHIBITED_CONTENT"))},
		{"array", arrayPath, "PROHIBITED_CONTENT", "prompt", answers(200, jsonType, "["+promptBlockedJSON+"]")},
		{"broken off", unaryPath, "SPII", "output", breaksOff(jsonType, strings.TrimSuffix(stopped("SPII"), "}"))},
		{"child", unaryPath, "IMAGE_SAFETY", "output", answers(200, jsonType, saying("Support code: 58061214"))},
		{"child, the other code", unaryPath, "IMAGE_SAFETY", "output", answers(200, jsonType, saying("Support codes: 17301594, 63429089"))},
	}
	for _, reason := range hardReasons {
		tests = append(tests, of("output", reason, stopped(reason)))
	}
	for _, reason := range []string{"PROHIBITED_CONTENT", "BLOCKLIST", "MODEL_ARMOR", "JAILBREAK"} {
		tests = append(tests, of("prompt", reason, refused(reason)))
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			first, second := scripted(t, c.plays), scripted(t, drawn)
			places := place("one", first, theKey("a")) + accepting("two", second, theKey("b"))
			g := run(t, gemini(places, guarding, quickly, opted))
			e := g.post(t, c.path, promptJSON).fails(t, 400, c.reason)
			if e.metadata("class") != "forbidden" || e.metadata("attempts") != "1" {
				t.Errorf("details %v", e.Details)
			}
			first.play(drawn)
			g.post(t, c.path, promptJSON).repeats(t, "forbidden", c.stage, c.reason)
			went(t, "", first, second)

			// Nor is that a matter of memory, within one call.
			first.play(c.plays)
			g.load(t, gemini(places, "guard off", quickly, opted))
			g.post(t, c.path, promptJSON).fails(t, 400, c.reason)
			went(t, "first", first, second)
		})
	}
}

// saying is a block of an image with a message.
func saying(message string) string {
	return strings.Replace(blockedJSON, "Unable to show the generated image.", message, 1)
}

// A block may turn out to be hard only where the prompt was sent next.
func TestHardBlockBehindSoftOnes(t *testing.T) {
	t.Run("elsewhere", func(t *testing.T) {
		first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, answers(200, jsonType, promptBlockedJSON))
		third := scripted(t, drawn)
		places := place("one", first, theKey("a")) + accepting("two", second, theKey("b")) + accepting("three", third, theKey("c"))
		g := run(t, gemini(places, guarding, quickly))
		e := g.post(t, unaryPath, promptJSON).fails(t, 400, "PROHIBITED_CONTENT")
		if e.metadata("class") != "forbidden" || e.metadata("upstream") != "two" {
			t.Errorf("details %v", e.Details)
		}
		went(t, "first second", first, second, third)
		g.post(t, unaryPath, promptJSON).repeats(t, "forbidden", "prompt", "PROHIBITED_CONTENT")
		went(t, "first second", first, second, third)
	})
	t.Run("in another wording", func(t *testing.T) {
		first := scripted(t, inTurn(answers(200, jsonType, blockedJSON), answers(200, jsonType, promptBlockedJSON), drawn))
		second := scripted(t, drawn)
		places := place("one", first, theKey("a")) + accepting("two", second, theKey("b"))
		g := run(t, gemini(places, guarding, quickly, opted))
		e := g.post(t, unaryPath, promptJSON).fails(t, 400, "PROHIBITED_CONTENT")
		if e.metadata("class") != "forbidden" || e.metadata("attempts") != "2" {
			t.Errorf("details %v", e.Details)
		}
		went(t, "first first", first, second)
		g.post(t, unaryPath, promptJSON).repeats(t, "forbidden", "prompt", "PROHIBITED_CONTENT")
		went(t, "first first", first, second)
	})
}

// A soft block goes on to upstreams that accept it, unchanged, and to no others.
// What is guarded against goes there at once the next time.
func TestAcceptBlocked(t *testing.T) {
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
		draws      http.HandlerFunc
		want       string
		isGuarded  bool
	}{
		{"IMAGE_SAFETY", unaryPath, answers(200, jsonType, blockedJSON), drawn, imageJSON, true},
		{"SAFETY", unaryPath, answers(200, jsonType, stopped("SAFETY")), drawn, imageJSON, true},
		{"prompt", unaryPath, answers(200, jsonType, refused("SAFETY")), drawn, imageJSON, true},
		{"unknown word", unaryPath, answers(200, jsonType, refused("A_NEW_FILTER")), drawn, imageJSON, true},
		{"events", streamPath, events(textChunk, blockedJSON), events(imageChunk, lastChunk), event(imageChunk) + event(lastChunk), true},
		{"NO_IMAGE", unaryPath, answers(200, jsonType, stopped("NO_IMAGE")), drawn, imageJSON, false},
		{"RECITATION", unaryPath, answers(200, jsonType, stopped("RECITATION")), drawn, imageJSON, false},
		{"LANGUAGE", unaryPath, answers(200, jsonType, stopped("LANGUAGE")), drawn, imageJSON, false},
		{"OTHER", unaryPath, answers(200, jsonType, stopped("OTHER")), drawn, imageJSON, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second, third := scripted(t, c.plays), scripted(t, c.draws), scripted(t, c.draws)
			places := place("one", first, theKey("a")) + place("two", second, theKey("b")) + accepting("three", third, theKey("c"))
			g := run(t, gemini(places, guarding, quickly))
			s := g.post(t, c.path, promptJSON)
			s.exactly(t, 200, c.want)
			if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="three"; received-status=200; attempts=2` {
				t.Errorf("Proxy-Status %q", via)
			}
			for _, v := range went(t, "first third", first, second, third) {
				if string(v.Body) != completedJSON {
					t.Errorf("the upstream received %s", v.Body)
				}
			}

			first.play(c.plays)
			third.play(c.draws)
			g.post(t, c.path, promptJSON).exactly(t, 200, c.want)
			if c.isGuarded {
				went(t, "third", first, second, third)
			} else {
				went(t, "first third", first, second, third)
			}
		})
	}
}

// If who accepts a prompt blocks it as well, it goes nowhere any more. Others do.
func TestAcceptBlockedBlocksToo(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, refused("SAFETY"))), scripted(t, answers(200, jsonType, blockedJSON))
	g := run(t, gemini(place("one", first, theKey("a"))+accepting("two", second, theKey("b")), guarding, quickly))
	e := g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	if e.metadata("upstream") != "two" || e.metadata("attempts") != "2" || e.metadata("class") != "blocked" {
		t.Errorf("details %v", e.Details)
	}
	went(t, "first second", first, second)
	first.play(drawn)
	second.play(drawn)
	e = g.post(t, unaryPath, promptJSON).fails(t, 400, "REPEATED_BLOCK")
	if reason := e.metadata("blockedReason"); reason != "SAFETY" && reason != "IMAGE_SAFETY" {
		t.Errorf("details %v", e.Details)
	}
	went(t, "", first, second)
	g.post(t, unaryPath, strings.Replace(promptJSON, prompt, "a dog", 1)).exactly(t, 200, imageJSON)
	went(t, "first", first, second)
}

// The operator's word for one upstream is none for the account of another.
func TestBlockedPromptStaysAwayFromItsAccount(t *testing.T) {
	t.Setenv("CADDYTEST_OTHER_KEY", otherKey)
	const another = "api_key {env.CADDYTEST_OTHER_KEY} "
	first, second := scripted(t, nil), scripted(t, nil)
	for _, c := range []struct{ name, places string }{
		{"another upstream of the project", place("one", first, theKey("a")) + accepting("two", second, theKey("a"))},
		{"another key of the project", accepting("one", first, theKey("a"), another+"a")},
		{"another project of an upstream that accepts nothing", place("one", first, theKey("a"), another+"b")},
		{"another path for the client's own key", place("one", first) + "upstream two " + first.URL + "/two {\naccept_blocked\n}"},
		{"an upstream that accepts nothing", place("one", first, theKey("a")) + place("two", second, theKey("b"))},
		{"the upstream itself", accepting("one", first, theKey("a"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			first.play(answers(200, jsonType, blockedJSON))
			second.play(drawn)
			g := run(t, gemini(c.places, guarding, quickly))
			g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
			for range 2 {
				g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
			}
			went(t, "first", first, second)
		})
	}
}

// Where a prompt is accepted, it is asked for as anywhere else.
func TestAcceptBlockedMapsModels(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
	g := run(t, gemini(place("one", first, theKey("a"))+accepting("two", second, theKey("b"), "model * gemini-2.5-flash-image"), guarding, quickly))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	if r := second.only(t); r.URI != "/v1beta/models/gemini-2.5-flash-image:generateContent" || string(r.Body) != completedJSON {
		t.Errorf("the upstream received %s %s", r.URI, r.Body)
	}
}

// Conversations that carry signatures stay where they are, blocked or not.
func TestAcceptBlockedGetsNoPinnedCalls(t *testing.T) {
	const pinned = `{"contents":[{"role":"model","parts":[{"text":"A cat","thoughtSignature":"c2lnbmVk"}]},{"parts":[{"text":"` + prompt + `"}]}]}`
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
	g := run(t, gemini(place("one", first, theKey("a"))+accepting("two", second, theKey("b")), guarding, quickly))
	g.post(t, unaryPath, pinned).fails(t, 400, "IMAGE_SAFETY")
	g.post(t, unaryPath, pinned).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	went(t, "first", first, second)
}

// IMAGE_OTHER may pass unchanged, once: anywhere. The second one is a block.
func TestBlockThatMayPass(t *testing.T) {
	for _, reason := range []string{"IMAGE_OTHER", "IMAGE_RECITATION"} {
		other := answers(200, jsonType, stopped(reason))
		first, second, third := scripted(t, other), scripted(t, other), scripted(t, drawn)
		places := place("one", first, theKey("a")) + place("two", second, theKey("b"))
		g := run(t, gemini(places+accepting("three", third, theKey("c")), guarding, quickly))
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
		went(t, "first second third", first, second, third)

		first.play(other)
		second.play(other)
		g.load(t, gemini(places, guarding, quickly))
		e := g.post(t, unaryPath, promptJSON).fails(t, 400, reason)
		if e.metadata("class") != "blocked" || e.metadata("attempts") != "2" {
			t.Errorf("details %v", e.Details)
		}
		went(t, "first second", first, second)
	}
}

// A failure of who accepts a prompt is retried there, and never where the prompt
// was blocked. In the end the client had better know of the block.
func TestAcceptBlockedFails(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, overloaded)
	g := run(t, gemini(place("one", first, theKey("a"))+accepting("two", second, theKey("b")), guarding, quickly))
	e := g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	if e.metadata("attempts") != "3" || e.metadata("upstream") != "one" {
		t.Errorf("details %v", e.Details)
	}
	went(t, "first second second", first, second)

	second.play(inTurn(overloaded, drawn))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first second second", first, second)
}
