// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// several images are asked for.
func drawSeveral(n int) string { return drawJSON(fmt.Sprintf(`"n":%d`, n)) }

// barrier holds calls back until so many are there, and tells when they are.
type barrier struct {
	calls  atomic.Int32
	wanted int32
	full   chan struct{}
}

func newBarrier(calls int) *barrier { return &barrier{wanted: int32(calls), full: make(chan struct{})} }

// then plays a script when all are there.
func (b *barrier) then(play http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if b.calls.Add(1) == b.wanted {
			close(b.full)
		}
		select {
		case <-b.full:
			play(w, r)
		case <-r.Context().Done():
		}
	}
}

// Images are made side by side: none waits for another.
func TestImagesAreDrawnSideBySide(t *testing.T) {
	for _, n := range []int{2, 10} {
		u := scripted(t, newBarrier(n).then(drawn))
		g := inFront(t, u)
		images := imagesOf(t, g.post(t, imagesPath, drawSeveral(n)))
		if len(images) != n || slices.ContainsFunc(images, func(i []byte) bool { return !bytes.Equal(i, picture) }) {
			t.Errorf("%d images, want %d times the picture", len(images), n)
		}
	}
}

// The images of a call share its placeholders, and looking one up can write to the
// request: all of them are sent with the same. Of what becomes of the call, each knows its
// own part.
func TestImagesShareThePlaceholders(t *testing.T) {
	const several = 10
	u := scripted(t, newBarrier(several).then(drawn))
	first := place("first", u, ownKey(t, "first"),
		"header_up X-Request-Id {http.request.uuid}", `header_up X-Known "known: {http.gemini.upstream}{http.gemini.images}"`)
	g := start(t, gemini(first, limit("rpm 1000", "key {http.request.uuid}")))
	if images := imagesOf(t, g.post(t, imagesPath, drawSeveral(several))); len(images) != several {
		t.Errorf("%d images, want %d", len(images), several)
	}
	all := u.received()
	for _, r := range all {
		if id := r.Header.Get("X-Request-Id"); len(id) != 36 || id != all[0].Header.Get("X-Request-Id") {
			t.Errorf("calls of one request are called %q and %q", all[0].Header.Get("X-Request-Id"), id)
		}
		if known := r.Header.Get("X-Known"); known != "known: first0" {
			t.Errorf("sent with %q", known)
		}
	}
}

// The header goes out with the first image, with what the site puts into it, while
// others are asked for again.
func TestHeaderBesideOtherImages(t *testing.T) {
	const several = 6
	plays := []http.HandlerFunc{drawn}
	for range several {
		plays = append(plays, overloaded)
	}
	u := scripted(t, inTurn(append(plays, drawn)...))
	g := run(t, "header >X-Request-Id {http.request.uuid}\nmap {http.gemini.images} {drawn} {\n\tdefault some\n}\n"+
		gemini(place("first", u, "api_key {env.CADDYTEST_KEY}", "header_up X-Drawn {drawn}"), "retry {\n\tattempts 10\n\tbackoff 1ms 1ms\n}"))
	s := g.post(t, imagesPath, drawSeveral(several))
	if images := imagesOf(t, s); len(images) != several || len(s.Header.Get("X-Request-Id")) != 36 {
		t.Errorf("%d images, called %q", len(images), s.Header.Get("X-Request-Id"))
	}
	for _, r := range u.received() {
		if got := r.Header.Get("X-Drawn"); got != "some" {
			t.Errorf("sent with %q", got)
		}
	}
}

// earlyBytes are so many that an image must have begun, and so few that no buffer can
// hold them back.
const earlyBytes = 200_000

// What is ready goes to the client while another image is still being drawn.
func TestFirstImageDoesNotWait(t *testing.T) {
	finish := make(chan struct{})
	u := scripted(t, inTurn(drawn, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-finish:
			drawn(w, r)
		case <-r.Context().Done():
		}
	}))
	g := inFront(t, u)
	res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, imagesPath, strings.NewReader(drawSeveral(2))))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data := base64.StdEncoding.EncodeToString(picture)
	early := make([]byte, earlyBytes)
	if _, err := io.ReadFull(res.Body, early); err != nil || !strings.Contains(string(early), data[:earlyBytes/2]) {
		t.Fatalf("%v: %s", err, shortened(string(early)))
	}
	close(finish)
	late, err := io.ReadAll(res.Body)
	s := &reply{Response: res, body: slices.Concat(early, late), err: err}
	if images := imagesOf(t, s); len(images) != 2 || s.err != nil {
		t.Errorf("%d images (%v)", len(images), s.err)
	}
}

// Each image is a call to the limits: it waits for its turn in line like any other.
func TestImagesWaitInLine(t *testing.T) {
	const every = 200 * time.Millisecond
	u := scripted(t, drawn)
	g := behind(t, u, paced(every))
	began := time.Now()
	if images := imagesOf(t, g.post(t, imagesPath, drawSeveral(4))); len(images) != 4 {
		t.Errorf("%d images, want 4", len(images))
	}
	for i, v := range visits(u) {
		if after, least := v.Time.Sub(began), time.Duration(i)*every; after < least {
			t.Errorf("image %d was asked for after %v, want %v", i+1, after, least)
		}
	}
	g.uses(t, "rpm", 4)
}

// A client that leaves takes all its images with it. What has been used until then is
// booked.
func TestClientOfSeveralImagesLeaves(t *testing.T) {
	for _, c := range []struct {
		name  string
		ready int // images
		waits int // for how many bytes
	}{
		{"before the first", 0, 0},
		{"behind the first", 2, len(imageJSON) + earlyBytes/2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ended sync.WaitGroup
			ended.Add(3 - c.ready)
			all := newBarrier(3)
			var drawnYet atomic.Int32
			u := scripted(t, all.then(func(w http.ResponseWriter, r *http.Request) {
				if int(drawnYet.Add(1)) <= c.ready {
					drawn(w, r)
					return
				}
				defer ended.Done()
				<-r.Context().Done()
			}))
			g := oversee(t, accessLog+gemini(place("first", u, ownKey(t, "first", "studio"))))
			before := g.counters(t)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			left := make(chan struct{})
			go func() {
				defer close(left)
				res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, imagesPath, strings.NewReader(drawSeveral(3))).WithContext(ctx))
				if err != nil {
					return
				}
				defer res.Body.Close()
				_, _ = io.ReadFull(res.Body, make([]byte, c.waits))
				leave()
			}()
			wait(t, "all images are asked for", all.full)
			if c.ready == 0 {
				leave()
			}
			wait(t, "the client has left", left)
			gone := make(chan struct{})
			go func() {
				ended.Wait()
				close(gone)
			}()
			wait(t, "all requests end", gone)
			eventually(t, "the call is booked", func() bool { return len(g.ledger(t, "studio")) == 1 })
			row := g.ledger(t, "studio")[0]
			if row.Calls != 1 || row.Attempts != 3 || (row.Images > 0) != (c.ready > 0) {
				t.Errorf("booked %s in %d attempts", row, row.Attempts)
			}
			after := g.counters(t)
			for metric, want := range map[string]float64{"requests_total": 1, "attempts_total": 3, "images_total": float64(row.Images)} {
				if got := sum(after, metric, "") - sum(before, metric, ""); got != want {
					t.Errorf("%s %v, want %v", metric, got, want)
				}
			}
		})
	}
}

// An image that breaks off breaks the answer: half an image must not look like one.
func TestOneOfSeveralImagesBreaksOff(t *testing.T) {
	for name, broken := range map[string]http.HandlerFunc{
		"in the image":     breaksOff(jsonType, imageJSON[:100_000]),
		"behind the image": breaksOff(jsonType, imageJSON[:len(imageJSON)-50]),
		"reset":            resets("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400000\r\n\r\n" + imageJSON[:200_000]),
	} {
		for at, plays := range map[string]http.HandlerFunc{"first": inTurn(broken, drawn), "last": inTurn(drawn, drawn, broken)} {
			t.Run(name+"/"+at, func(t *testing.T) {
				u := scripted(t, newBarrier(3).then(plays))
				g := watch(t, gemini(place("first", u, ownKey(t, "first", "studio"))))
				s := g.post(t, imagesPath, drawSeveral(3))
				if s.StatusCode == 200 && s.err == nil {
					t.Errorf("the client got a whole answer: %s", shortened(string(s.body)))
				}
				eventually(t, "the call is booked", func() bool { return len(g.ledger(t, "studio")) == 1 })
				if row := g.ledger(t, "studio")[0]; row.Calls != 1 || row.Attempts != 3 {
					t.Errorf("booked %s", row)
				}
			})
		}
	}
}

// Each image is tried again for itself, as often as any call, and goes where there is
// room.
func TestSeveralImagesAreTriedAgain(t *testing.T) {
	failing := func(times int) http.HandlerFunc {
		var calls atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			if int(calls.Add(1)) <= times {
				overloaded(w, r)
				return
			}
			drawn(w, r)
		}
	}
	t.Run("at the same", func(t *testing.T) {
		u := scripted(t, failing(4))
		g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, retry("attempts 4", hasty))
		if images := imagesOf(t, g.post(t, imagesPath, drawSeveral(3))); len(images) == 0 {
			t.Error("no image")
		}
		if n := len(u.received()); n < 5 || n > 7 {
			t.Errorf("%d requests, want three and no more than four again", n)
		}
	})
	t.Run("elsewhere", func(t *testing.T) {
		first, second := scripted(t, overloaded), scripted(t, drawn)
		g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))})
		if images := imagesOf(t, g.post(t, imagesPath, drawSeveral(3))); len(images) != 3 {
			t.Errorf("%d images", len(images))
		}
		if failed, drew := len(first.received()), len(second.received()); failed != 3 || drew != 3 {
			t.Errorf("%d requests to the first upstream and %d to the second, want three to each", failed, drew)
		}
	})
	t.Run("in vain", func(t *testing.T) {
		u := scripted(t, overloaded)
		g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, retry("attempts 2", hasty))
		s := g.post(t, imagesPath, drawSeveral(3))
		s.failsAsOpenAI(t, 503, "unavailable", "The model is overloaded.")
		if n := len(u.received()); n != 6 {
			t.Errorf("%d requests, want two for each image", n)
		}
	})
	t.Run("until the deadline", func(t *testing.T) {
		u := scripted(t, inTurn(drawn, hangs()))
		g := inFrontOf(t, []string{place("first", u, ownKey(t, "first"))}, retry("attempts 5", hasty))
		s := g.post(t, imagesPath, drawSeveral(2), "X-Server-Timeout", "1")
		if images := imagesOf(t, s); len(images) != 1 {
			t.Errorf("%d images, want the one that was in time", len(images))
		}
		if n := len(u.received()); n != 2 {
			t.Errorf("%d requests, want one for each image", n)
		}
	})
}

// Keys take turns within a call.
func TestKeysOfSeveralImages(t *testing.T) {
	u := scripted(t, newBarrier(3).then(drawn))
	g := inFrontOf(t, []string{pool(t, "first", u, "a", "b", "c")})
	imagesOf(t, g.post(t, imagesPath, drawSeveral(3)))
	keys := strings.Fields(keysUsed(u))
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"k1", "k2", "k3"}) {
		t.Errorf("the images were made with %q", keys)
	}
}

// A prompt that was blocked for one image is not sent for those that have waited.
func TestBlockEndsSeveralImages(t *testing.T) {
	for name, block := range map[string]string{"soft": blockedJSON, "hard": promptBlockedJSON} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, gives(block))
			g := behind(t, u, paced(300*time.Millisecond), guarding)
			s := g.post(t, imagesPath, drawSeveral(4))
			if s.failsAsOpenAI(t, 400, "content_policy_violation", "_"); strings.Contains(string(s.body), "REPEATED_BLOCK") {
				t.Errorf("the reason is that of an image that was not sent: %s", s.body)
			}
			u.only(t)
			g.post(t, imagesPath, drawSeveral(2)).failsAsOpenAI(t, 400, "content_policy_violation", "REPEATED_BLOCK")
			u.only(t)
		})
	}
}
