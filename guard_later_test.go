// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// blockAt puts a prompt on record for an account.
func (j *journey) blockAt(t *testing.T, account, body string, as class) {
	t.Helper()
	const model = "gemini-3-pro-image"
	quick, err := quickPrint(strings.NewReader(body), model)
	if err != nil {
		t.Fatal(err)
	}
	strong, _ := strongPrint(strings.NewReader(body), model)
	record := blockRecord{Class: as, Reason: "PROHIBITED_CONTENT", Stage: stagePrompt}
	j.state.guard.remember(account, quick, strong, record, j.clock.Add(time.Hour), j.clock)
}

// whileSending lets something happen during the first attempt at an upstream.
func whileSending(u *upstream, happens func()) {
	inner := u.transport
	var once sync.Once
	u.transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		defer once.Do(happens)
		return inner.RoundTrip(r)
	})
}

func keyNamed(name string) *apiKey {
	return &apiKey{secret: name, project: name, account: name, id: name}
}

// What others have had blocked during an attempt is not sent in the next one, which need
// not wait.
func TestGuardIsAskedBeforeEveryAttempt(t *testing.T) {
	for _, as := range []class{classBlocked, classForbidden} {
		for name, play := range map[string]scene{"429": limited, "bad key": badKey} {
			u := &upstream{name: "a", keys: []*apiKey{keyNamed("k1"), keyNamed("k2")}}
			j := newJourney(t, Options{}, u)
			j.plays["a"] = []scene{play, image}
			whileSending(u, func() { j.blockAt(t, "k2", prompt, as) })
			if story := j.story(prompt); strings.Contains(story, "k2") || !strings.HasPrefix(story, "a@0s k1 = 4") {
				t.Errorf("%v, %s: %s", as, name, story)
			}
		}
		for name, play := range map[string]scene{"503": overloaded, "429": limited} {
			a, b := &upstream{name: "a"}, &upstream{name: "b"}
			j := newJourney(t, Options{}, a, b)
			j.plays["a"] = []scene{play}
			whileSending(a, func() { j.blockAt(t, j.account(), prompt, as) })
			if story := j.story(prompt); strings.Contains(story, "b@") {
				t.Errorf("%v, %s: %s", as, name, story)
			}
		}
	}
}

// A repaired call that waits in line is no exception.
func TestRepairedCallsAreStoppedInLine(t *testing.T) {
	const history = `{"contents":[{"role":"model","parts":[{"inlineData":{"mimeType":"image/png","data":"aGVsbG8="}}]},{"role":"user","parts":[{"text":"again"}]}]}`
	repaired := strings.Replace(history, `"aGVsbG8="}}`, `"aGVsbG8="},"thoughtSignature":"skip_thought_signature_validator"}`, 1)
	unsigned := problem(400, "INVALID_ARGUMENT", "Image part is missing a thought_signature in content position 1, part position 1.", "")
	for name, news := range map[string]func(j *journey){
		"block": func(j *journey) { j.blockAt(t, j.account(), repaired, classBlocked) },
		"pause": func(j *journey) { j.state.blockRates.pause(j.account(), "client", j.clock) },
	} {
		o := under(RateLimit{RPM: 1, Queue: queueOf(2 * time.Minute)}, 5)
		o.PauseOnBlockRate = true
		j := newJourney(t, o, &upstream{name: "a"})
		j.plays["a"] = []scene{unsigned, image}
		sleep := j.sleep
		j.sleep = func(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
			defer news(j)
			return sleep(ctx, d, woken)
		}
		if status, _, x := j.call(history); status != 400 || x.attempts != 1 {
			t.Errorf("%s: %d after %d attempts", name, status, x.attempts)
		}
	}
}

// Two upstreams that get one call with different words for it have different prints.
func TestGuardKnowsDialects(t *testing.T) {
	const other = `{"contents":[{"role":"user","parts":[{"text":"a dog"}]}]}`
	for name, body := range map[string]string{
		"a category by number": `{"contents":[{"role":"user","parts":[{"text":"a cat"}]}],"safetySettings":[{"category":7,"threshold":"BLOCK_NONE"}]}`,
		"a field of one alone": `{"contents":[{"role":"user","parts":[{"text":"a cat","partMetadata":{"id":"1"}}]}]}`,
	} {
		a := &upstream{name: "a", keys: []*apiKey{keyNamed("ka")}}
		b := &upstream{name: "b", format: formatVertex, project: "p", location: "global", keys: []*apiKey{keyNamed("kb")}}
		j := newJourney(t, Options{}, a, b)
		j.plays["a"] = []scene{finished("IMAGE_SAFETY")}
		j.story(other) // so that the first upstream's print is looked up
		j.plays["a"], j.plays["b"] = []scene{overloaded}, []scene{finished("PROHIBITED_CONTENT")}
		if story := j.story(body); story != "a@0s b@0s = 400 PROHIBITED_CONTENT" {
			t.Errorf("%s: %s", name, story)
		}
		if story := j.story(body); story != " = 400 REPEATED_BLOCK" {
			t.Errorf("%s, again: %s", name, story)
		}
	}
}

// A model is the same by all its names.
func TestGuardKnowsSpellingsOfModels(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"})
	j.plays["a"] = []scene{finished("PROHIBITED_CONTENT")}
	for i, model := range []string{"gemini-3-pro-image", "models/gemini-3-pro-image", "google/gemini-3-pro-image"} {
		body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"a cat"}]}`, model)
		story := j.story(body, func(r *http.Request) { r.URL.Path = "/v1beta/openai/chat/completions" })
		if isSent := strings.HasPrefix(story, "a@"); isSent != (i == 0) {
			t.Errorf("%s: %s", model, story)
		}
	}
}

// imagesThrough makes one call for some images.
func imagesThrough(t *testing.T, u *upstream, n int, options ...func(*router)) (status int, body string) {
	t.Helper()
	u.probe = time.Minute
	r := testRouter(Options{Retry: &Retry{Jitter: new(float64)}}, u)
	for _, option := range options {
		option(r)
	}
	in := httptest.NewRequest(http.MethodPost, "/v1beta/openai/images/generations", strings.NewReader(fmt.Sprintf(`{"model":"gemini-3-pro-image","prompt":"a cat","n":%d}`, n)))
	in.Header.Set("Content-Type", "application/json")
	g := &gateway{options: &Options{MaxBody: defaultMaxBody, Inject: injectOff, NoImage: string(noImageAuto)}, router: r, state: r.state, notes: new(noteLog)}
	x := g.open(in, recognise(in))
	defer x.body.release()
	res, err := r.serve(in, x)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

// The parts of one call are one prompt.
func TestPartsKeepToEachOthersBlocks(t *testing.T) {
	u := upstreamAt(t, "http://a", nil)
	u.keys = []*apiKey{keyNamed("k1"), keyNamed("k2")}
	var mu sync.Mutex
	sent := make(map[string]int)
	arrived := make(chan struct{})
	var shared *state
	isRemembered := func() bool { return shared.guard.knows(u.keys[0].account, time.Now()) }
	u.transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		_, _ = io.Copy(io.Discard, r.Body)
		key := r.Header.Get(apiKeyHeader)
		mu.Lock()
		sent[key]++
		mu.Unlock()
		play := finished("PROHIBITED_CONTENT")
		if key == "k2" {
			close(arrived)
			for deadline := time.Now().Add(30 * time.Second); !isRemembered() && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // until the other part has been judged
			}
			play = limited
		} else {
			<-arrived
		}
		return &http.Response{
			StatusCode: play.status, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(play.body)), ContentLength: int64(len(play.body)),
		}, nil
	})
	share := func(r *router) { shared = r.state }
	if status, body := imagesThrough(t, u, 2, share); status != 400 || !strings.Contains(body, "PROHIBITED_CONTENT") {
		t.Errorf("%d %s", status, body)
	}
	if sent["k1"] != 1 || sent["k2"] != 1 {
		t.Errorf("sent %v", sent)
	}
}

// A panic in a part of a call is the end of that part.
func TestPartsMayPanic(t *testing.T) {
	u := upstreamAt(t, "http://a", nil)
	u.transport = roundTripper(func(*http.Request) (*http.Response, error) { panic("of a transport") })
	if status, body := imagesThrough(t, u, 2); status != 503 || strings.Contains(body, "of a transport") {
		t.Errorf("%d %s", status, body)
	}
}

// A daily quota that is used up around midnight is the day's before: the new one must not
// be closed for it.
func TestDailyQuotaAtMidnight(t *testing.T) {
	late := exhausted
	for name, c := range map[string]struct{ before, takes time.Duration }{
		"sent before, answered after": {100 * time.Millisecond, 200 * time.Millisecond},
		"Google's clock is behind":    {-2 * time.Second, 100 * time.Millisecond},
	} {
		j := newJourney(t, Options{}, &upstream{name: "a"})
		j.clock = j.midnight().Add(-c.before)
		late.takes = c.takes
		j.plays["a"] = []scene{late, image, image}
		if first := j.story(prompt); !strings.HasSuffix(first, "= 200") {
			t.Errorf("%s: %s", name, first)
		}
	}
}

// Some refusals are about what the call asks for, and say nothing of the key.
func TestForeignThingsLeaveTheKeys(t *testing.T) {
	foreign := problem(403, "PERMISSION_DENIED", "You do not have permission to access the File abc or it may not exist.", "")
	u := &upstream{name: "a", keys: []*apiKey{keyNamed("k1"), keyNamed("k2")}}
	j := newJourney(t, Options{}, u)
	j.plays["a"] = []scene{foreign, foreign, image}
	j.story(prompt)
	if !j.state.rejected.isEmpty() {
		t.Error("keys have been set aside")
	}
}
