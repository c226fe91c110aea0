// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const megabyte = 1 << 20

// Before and behind the picture of a large request, and what is added to it.
const (
	largeHead  = `{"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"`
	largeTail  = `"}},{"text":"` + prompt + `"}]}]`
	largeAdded = `,"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"},` +
		`{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"BLOCK_NONE"},` +
		`{"category":"HARM_CATEGORY_SEXUALLY_EXPLICIT","threshold":"BLOCK_NONE"},` +
		`{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","threshold":"BLOCK_NONE"}],"generationConfig":{"responseModalities":["TEXT","IMAGE"]}`
)

// largeRequest makes up a request of this many bytes while it is read, and what
// an upstream of an image model should receive.
func largeRequest(size int64) (sent io.Reader, arrives func() string) {
	data := size - int64(len(largeHead)+len(largeTail)+1)
	reader := func(tail string) io.Reader {
		return io.MultiReader(strings.NewReader(largeHead), io.LimitReader(new(pattern), data), strings.NewReader(tail))
	}
	arrives = func() string {
		sum := sha256.New()
		_, _ = io.Copy(sum, reader(largeTail+largeAdded+"}"))
		return digest(sum)
	}
	return reader(largeTail + "}"), arrives
}

func digest(sum hash.Hash) string { return fmt.Sprintf("%x", sum.Sum(nil)[:8]) }

// pattern is text that never ends and does not repeat itself where chunks do.
type pattern struct{ at int }

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, letters[p.at:])
	p.at = (p.at + n) % len(letters)
	return n, nil
}

var letters = func() []byte {
	b := make([]byte, 1_000_003) // a prime
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[x>>26]
	}
	return b
}()

// swallower is an upstream that takes bodies in without keeping them.
type swallower struct {
	*httptest.Server
	calls   atomic.Int32
	digests chan string
}

// newSwallower is an upstream whose first calls end as faults say, each of which
// is given the body unread. All others are read, and answered.
func newSwallower(t *testing.T, faults ...http.HandlerFunc) *swallower {
	t.Helper()
	s := &swallower{digests: make(chan string, 10)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := int(s.calls.Add(1)); n <= len(faults) {
			faults[n-1](w, r)
			return
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r.Body); err != nil {
			return // it will be sent again
		}
		s.digests <- digest(sum)
		drawn(w, r)
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// digest is that of the next call which has arrived as a whole.
func (s *swallower) digest(t *testing.T) string {
	t.Helper()
	select {
	case d := <-s.digests:
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("no call has arrived as a whole")
		return ""
	}
}

// failingAfter lets a fault happen when so much of the body has been read.
func failingAfter(size int64, fault http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, size)
		fault(w, r)
	}
}

// ownTemp lets the process keep its temporary files where the test can see them.
func ownTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

// isEmpty fails if something is left in a folder, or a deleted file is still
// open.
func isEmpty(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "the temporary files are gone", func() bool {
		left, err := os.ReadDir(dir)
		return err == nil && len(left) == 0 && len(openIn(dir)) == 0
	})
}

// openIn are the files of a folder that this process has open.
func openIn(dir string) (open []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
			open = append(open, target)
		}
	}
	return open
}

// upload sends a request of this many bytes, with or without saying so.
func (g *gateway) upload(t *testing.T, body io.Reader, size int64, chunked bool) *reply {
	t.Helper()
	r := g.newRequest(t, http.MethodPost, unaryPath, body)
	r.ContentLength = size
	if chunked {
		r.ContentLength = -1
	}
	return do(t, r)
}

var (
	tooMany  = limited("0.01s")
	sizeName = map[bool]string{true: "chunked", false: "with a length"}
)

// What has been sent once can be sent again, however little of it was read.
func TestLargeRequestIsSentAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int64
		faults []http.HandlerFunc
	}{
		{"before it was read", 20 * megabyte, []http.HandlerFunc{overloaded}},
		{"before, in the middle and after it was read", 100 * megabyte, []http.HandlerFunc{failingAfter(0, resets()), failingAfter(50*megabyte, resets()), failingAfter(101*megabyte, overloaded)}},
		{"limited before it was read", 20 * megabyte, []http.HandlerFunc{tooMany, tooMany}},
		{"error in the middle", 20 * megabyte, []http.HandlerFunc{failingAfter(10*megabyte, overloaded)}},
		{"reset after it was read", 20 * megabyte, []http.HandlerFunc{failingAfter(21*megabyte, resets())}},
		{"truncated after it was read", 20 * megabyte, []http.HandlerFunc{failingAfter(21*megabyte, answers(200, jsonType, textJSON[:60]))}},
		{"truncated before it was read", 20 * megabyte, []http.HandlerFunc{answers(200, jsonType, textJSON[:60])}},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(c.name+"/"+sizeName[chunked], func(t *testing.T) {
				dir := ownTemp(t)
				u := newSwallower(t, c.faults...)
				g := run(t, gemini("upstream only "+u.URL, "retry {\n\tattempts 4\n\tbackoff 1ms 1ms\n}"))
				sent, arrives := largeRequest(c.size)
				s := g.upload(t, sent, c.size, chunked)
				s.exactly(t, 200, imageJSON)
				if got := int(u.calls.Load()); got != len(c.faults)+1 {
					t.Errorf("the upstream was asked %d times", got)
				}
				if got, want := u.digest(t), arrives(); got != want {
					t.Errorf("what arrived has the digest %s, want %s", got, want)
				}
				isEmpty(t, dir)
			})
		}
	}
}

// Another upstream gets the same, completed in the same way.
func TestLargeRequestIsRerouted(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"before it was read": overloaded,
		"reset at once":      resets(),
		"in the middle":      failingAfter(10*megabyte, resets()),
		"after it was read":  failingAfter(21*megabyte, overloaded),
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(name+"/"+sizeName[chunked], func(t *testing.T) {
				dir := ownTemp(t)
				first, second := newSwallower(t, fault), newSwallower(t)
				g := run(t, gemini("upstream first "+first.URL+"\nupstream second "+second.URL, retryLate))
				sent, arrives := largeRequest(20 * megabyte)
				g.upload(t, sent, 20*megabyte, chunked).exactly(t, 200, imageJSON)
				if got, want := second.digest(t), arrives(); got != want {
					t.Errorf("what arrived has the digest %s, want %s", got, want)
				}
				if first.calls.Load() != 1 || second.calls.Load() != 1 {
					t.Errorf("the upstreams were asked %d and %d times", first.calls.Load(), second.calls.Load())
				}
				isEmpty(t, dir)
			})
		}
	}
}

// What a request keeps in memory has a bound.
func TestLargeRequestsNeedLittleMemory(t *testing.T) {
	dir := ownTemp(t)
	var during runtime.MemStats
	u := newSwallower(t, func(w http.ResponseWriter, r *http.Request) {
		failingAfter(100*megabyte, func(w http.ResponseWriter, r *http.Request) {
			runtime.GC()
			runtime.ReadMemStats(&during)
			if len(openIn(dir)) != 1 && runtime.GOOS == "linux" {
				t.Errorf("temporary files: %q", openIn(dir))
			}
			overloaded(w, r)
		})(w, r)
	})
	g := run(t, gemini("upstream only "+u.URL, retryQuickly))
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sent, _ := largeRequest(100 * megabyte)
	g.upload(t, sent, 100*megabyte, false).exactly(t, 200, imageJSON)
	if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > 40*megabyte {
		t.Errorf("a request of 100 MB takes %d MB of memory", grown/megabyte)
	}
	isEmpty(t, dir)
}

// What stays in memory is the operator's decision.
func TestKeepInMemory(t *testing.T) {
	for option, files := range map[string]int{"keep_in_memory 1MiB": 1, "keep_in_memory 8MiB": 0} {
		t.Run(option, func(t *testing.T) {
			dir := ownTemp(t)
			u := newSwallower(t, failingAfter(5*megabyte, func(w http.ResponseWriter, r *http.Request) {
				if got := len(openIn(dir)); got != files && runtime.GOOS == "linux" {
					t.Errorf("%d temporary files, want %d", got, files)
				}
				overloaded(w, r)
			}))
			g := run(t, gemini("upstream only "+u.URL, option, retryQuickly))
			sent, arrives := largeRequest(4 * megabyte)
			g.upload(t, sent, 4*megabyte, false).exactly(t, 200, imageJSON)
			if got, want := u.digest(t), arrives(); got != want {
				t.Errorf("what arrived has the digest %s, want %s", got, want)
			}
			isEmpty(t, dir)
		})
	}
}

// A request that is too large is refused, whether it says so or not, and never
// loses its retry silently.
func TestLargeRequestIsRefused(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(sizeName[chunked], func(t *testing.T) {
			dir := ownTemp(t)
			u := newSwallower(t)
			g := run(t, gemini("upstream only "+u.URL, "max_body 18MiB", retryQuickly))
			sent, _ := largeRequest(20 * megabyte)
			s := g.upload(t, sent, 20*megabyte, chunked)
			s.fails(t, 413, "BODY_TOO_LARGE")
			if !s.Close {
				t.Error("the connection stays open")
			}
			select {
			case got := <-u.digests:
				t.Errorf("the upstream has received a whole request: %s", got)
			default:
			}
			isEmpty(t, dir)
		})
	}
}

// Where nothing can be kept, a large request is refused rather than sent once.
func TestLargeRequestWithoutRoom(t *testing.T) {
	for name, faults := range map[string][]http.HandlerFunc{"at once": nil, "after an attempt": {overloaded}} {
		t.Run(name, func(t *testing.T) {
			u := newSwallower(t, faults...)
			g := run(t, gemini("upstream only "+u.URL, retryQuickly))
			t.Setenv("TMPDIR", filepath.Join(g.dir, "not-there"))
			sent, _ := largeRequest(20 * megabyte)
			s := g.upload(t, sent, 20*megabyte, true)
			s.fails(t, 413, "BODY_TOO_LARGE")
			if bytes.Contains(s.body, []byte("not-there")) {
				t.Errorf("the error names a path of the server: %s", s.body)
			}
			sent, arrives := largeRequest(2 * megabyte)
			g.upload(t, sent, 2*megabyte, true).exactly(t, 200, imageJSON) // which need not be kept there
			if got, want := u.digest(t), arrives(); got != want {
				t.Errorf("what arrived has the digest %s, want %s", got, want)
			}
		})
	}
}

// What is wrong with a request outweighs what an upstream has said before it had
// read so far: no retry helps.
func TestBadRequestAfterAnAttempt(t *testing.T) {
	for _, c := range []struct {
		name, tail string
		status     int
		reason     string
	}{
		{"too large", `"}}]}]}`, 413, "BODY_TOO_LARGE"},
		{"malformed", `"}}]]`, 400, "MALFORMED_REQUEST"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newSwallower(t, overloaded)
			limit := "max_body 30MiB"
			if c.status == 413 {
				limit = "max_body 18MiB"
			}
			g := run(t, gemini("upstream only "+u.URL, limit, retryQuickly))
			body := io.MultiReader(strings.NewReader(largeHead), io.LimitReader(new(pattern), 20*megabyte), strings.NewReader(c.tail))
			g.upload(t, body, 0, true).fails(t, c.status, c.reason)
		})
	}
}

// A client that leaves takes its temporary file with it, at each stage.
func TestLargeRequestOfAClientThatLeaves(t *testing.T) {
	for _, c := range []struct {
		name  string
		plays http.HandlerFunc
		retry string
	}{
		{"during an attempt", failingAfter(21*megabyte, hangs()), retryLate},
		{"during a wait", failingAfter(21*megabyte, overloaded), "retry {\n\tbackoff 1m 1m\n}"},
		{"during a wait, unread", overloaded, "retry {\n\tbackoff 1m 1m\n}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := ownTemp(t)
			arrived := make(chan struct{})
			u := newSwallower(t, func(w http.ResponseWriter, r *http.Request) {
				close(arrived)
				c.plays(w, r)
			})
			g := run(t, gemini("upstream only "+u.URL, c.retry))
			sent, _ := largeRequest(20 * megabyte)
			ctx, leave := context.WithCancel(t.Context())
			r := g.newRequest(t, http.MethodPost, unaryPath, sent).WithContext(ctx)
			r.ContentLength = 20 * megabyte
			transport := newTransport(t)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if s, err := roundTrip(transport, r); err == nil {
					t.Errorf("the client got %d", s.StatusCode)
				}
			}()
			wait(t, "the request arrives", arrived)
			if runtime.GOOS == "linux" {
				eventually(t, "a temporary file", func() bool { return len(openIn(dir)) == 1 })
			}
			leave()
			wait(t, "the client has left", ended)
			isEmpty(t, dir)
		})
	}
}
