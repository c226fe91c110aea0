// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const otherKey = "AIzaSyOtherOtherOtherOtherOtherOtherO33"

// Clients with keys of their own are accounts of their own, wherever they put
// the key.
func TestGuardIsPerClientKey(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := run(t, gemini(place("scripted", u), guarding))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	u.play(answers(200, jsonType, imageJSON))
	g.post(t, unaryPath, promptJSON, "X-Goog-Api-Key", otherKey).exactly(t, 200, imageJSON)
	u.only(t)

	u.play(u.answer)
	for name, put := range map[string]func(r *http.Request){
		"header": func(r *http.Request) { r.Header.Set("X-Goog-Api-Key", clientKey) },
		"bearer": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+clientKey) },
		"query":  func(r *http.Request) { r.URL.RawQuery = "key=" + clientKey },
	} {
		t.Run(name, func(t *testing.T) {
			r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))
			r.Header.Del("X-Goog-Api-Key")
			put(r)
			do(t, r).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		})
	}
	u.untouched(t)
}

// The account of a configured key is its project: whoever calls, and whichever
// of its keys it is.
func TestGuardIsPerProject(t *testing.T) {
	t.Setenv("CADDYTEST_OTHER_KEY", otherKey)
	u := scripted(t, answers(200, jsonType, blockedJSON))
	pool := gemini(place("pool", u, theKey("studio"), "api_key {env.CADDYTEST_OTHER_KEY} another"), guarding)
	g := run(t, pool)
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	if r := u.only(t); r.Header.Get("X-Goog-Api-Key") != upstreamKey {
		t.Fatal("the pool does not begin with its first key")
	}

	u.play(answers(200, jsonType, imageJSON))
	for range 3 { // nor does the turn of the other key make it better
		g.post(t, unaryPath, promptJSON, "X-Goog-Api-Key", otherKey).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	}
	g.load(t, gemini(place("renamed", u, "api_key {env.CADDYTEST_OTHER_KEY} studio"), guarding))
	g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	u.untouched(t)

	g.load(t, gemini(place("pool", u, theKey("another")), guarding))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	u.only(t)
}

func TestGuardIsOff(t *testing.T) {
	for _, option := range []string{"guard off", "guard 0"} {
		u := scripted(t, answers(200, jsonType, promptBlockedJSON))
		g := inFront(t, u, option)
		for range 2 {
			u.play(u.answer)
			g.post(t, unaryPath, promptJSON).fails(t, 400, "PROHIBITED_CONTENT")
			u.only(t)
		}
	}
}

func TestGuardExpires(t *testing.T) {
	const guard = time.Second
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := inFront(t, u, "guard "+guard.String())
	begun := time.Now()
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	u.play(answers(200, jsonType, imageJSON))
	repeats := 0
	eventually(t, "the prompt is sent again", func() bool {
		s := g.post(t, unaryPath, promptJSON)
		if s.StatusCode != 200 {
			s.repeats(t, "blocked", "output", "IMAGE_SAFETY")
			repeats++
		}
		return s.StatusCode == 200
	})
	if repeats == 0 {
		t.Error("the prompt was never held back")
	}
	if early := guard - time.Since(begun); early > 0 {
		t.Errorf("the prompt was sent again %s too early", early)
	}
	u.only(t)
}

// What is remembered outlives configurations and processes, without a word of
// prompts and keys.
func TestGuardSurvives(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	site := gemini(place("scripted", u, theKey("studio")), guarding)
	g := run(t, site)
	g.post(t, unaryPath, guarded).fails(t, 400, "IMAGE_SAFETY")
	u.play(answers(200, jsonType, promptBlockedJSON))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "PROHIBITED_CONTENT")

	check := func(after string) {
		t.Helper()
		u.play(answers(200, jsonType, imageJSON))
		g.post(t, unaryPath, guarded).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		g.post(t, unaryPath, promptJSON).repeats(t, "forbidden", "prompt", "PROHIBITED_CONTENT")
		u.untouched(t)
		if t.Failed() {
			t.Fatalf("after %s", after)
		}
	}
	g.load(t, site)
	check("a reload")
	g.load(t, "respond 418\n")
	g.load(t, site)
	check("a configuration without the gateway")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	g.checkStored(t, "blocks.json")
	g.load(t, site)
	check("a restart")
}

// checkStored looks for a file in Caddy's storage, and for secrets in all of
// them. Logs are for checkLog.
func (g *gateway) checkStored(t *testing.T, want string) {
	t.Helper()
	found := false
	err := filepath.WalkDir(g.dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) == ".log" {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		found = found || filepath.Base(name) == want
		for _, secret := range []string{clientKey, upstreamKey, prompt, "cat", "Be terse", "iVBORw0KGgo"} {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s contains %q: %s", name, secret, content)
			}
		}
		return nil
	})
	if err != nil || !found {
		t.Fatalf("%s is not in storage (%v)", want, err)
	}
}
