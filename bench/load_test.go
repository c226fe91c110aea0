package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// TestEveryCaseDirect makes each case's calls without a proxy, so that a
// failure in a run is a proxy's.
func TestEveryCaseDirect(t *testing.T) {
	env := startTestUpstream(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			target := env.direct(&c)
			defer target.stop()
			j := newJob(&c, target)
			if err := j.check(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.conns = min(c.conns, 2)
			s, err := j.block(t.Context(), c.conns)
			if err != nil {
				t.Fatal(err)
			}
			if s[callsKey] != float64(c.conns) || s[failedKey] != 0 {
				t.Errorf("sample %v, want %d good calls", s, c.conns)
			}
			if _, ok := s[eventDelay.key]; ok != (c.name == "sse-delay") {
				t.Errorf("event delays: %v", ok)
			}
		})
	}
}

// TestCallsAreJSON looks at the smaller calls; the others differ in length alone.
func TestCallsAreJSON(t *testing.T) {
	for _, c := range cases {
		body := bytes.Join(c.answer().writes, nil)
		if request := c.request(); len(request) < 2*MB && !json.Valid([]byte(request)) {
			t.Errorf("%s: the request is not JSON", c.name)
		}
		if len(body) > 2*MB {
			continue
		}
		events := [][]byte{body}
		if c.stream {
			events = bytes.Split(bytes.TrimSuffix(body, []byte("\r\n\r\n")), []byte("\r\n\r\n"))
		}
		for i, e := range events {
			if !json.Valid(bytes.TrimPrefix(e, []byte("data: "))) {
				t.Errorf("%s: event %d is not JSON", c.name, i)
			}
		}
	}
	if n := len(bytes.Join(textAnswer().writes, nil)); n != 1000 {
		t.Errorf("the text of 1 KB has %d bytes", n)
	}
}

// TestCheckRefuses proves that figures of a proxy that does something else
// than its work are never taken.
func TestCheckRefuses(t *testing.T) {
	u := newUpstream()
	c := cases[0]
	blocked := c
	blocked.name, blocked.blocked, blocked.answer = "block", true, blockAnswer
	grow := func(r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(append(body, ' ')))
	}
	edited := func(w http.ResponseWriter, edit func([]byte) []byte, r *http.Request) {
		rec := httptest.NewRecorder()
		u.ServeHTTP(rec, r)
		w.Header().Set(receivedHeader, rec.Header().Get(receivedHeader))
		_, _ = w.Write(edit(rec.Body.Bytes()))
	}
	for _, tc := range []struct {
		name      string
		spec      benchCase
		completes bool
		proxy     http.HandlerFunc
		want      string // in the error; none = passes
	}{
		{"passes on", c, false, u.ServeHTTP, ""},
		{"completes", c, true, func(w http.ResponseWriter, r *http.Request) { grow(r); u.ServeHTTP(w, r) }, ""},
		{"does not complete", c, true, u.ServeHTTP, "reached the upstream with"},
		{"completes unasked", c, false, func(w http.ResponseWriter, r *http.Request) { grow(r); u.ServeHTTP(w, r) }, "reached the upstream with"},
		{"not the upstream", c, false, func(http.ResponseWriter, *http.Request) {}, "not the upstream's"},
		{"status", c, false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "status 502"},
		{"cut", c, false, func(w http.ResponseWriter, r *http.Request) {
			edited(w, func(b []byte) []byte { return b[:len(b)-1] }, r)
		}, "body of 999 bytes"},
		{"altered end", c, false, func(w http.ResponseWriter, r *http.Request) {
			edited(w, func(b []byte) []byte { b[len(b)-3]++; return b }, r)
		}, "body ends in"},
		{"altered middle", c, false, func(w http.ResponseWriter, r *http.Request) {
			edited(w, func(b []byte) []byte { b[len(b)/2]++; return b }, r)
		}, "differs"},
		{"block passed on", blocked, true, u.ServeHTTP, "status 200, want 400"},
		{"block explained", blocked, true, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":{"message":"IMAGE_SAFETY"}}`, http.StatusBadRequest)
		}, ""},
		{"another error", blocked, true, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "{}", http.StatusBadRequest)
		}, "does not name the block"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(tc.proxy)
			defer srv.Close()
			target := newTarget("proxy", srv.URL, 1)
			target.completes = tc.completes
			err := newJob(&tc.spec, target).check(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

// TestBlockCountsFailures lets every other call fail.
func TestBlockCountsFailures(t *testing.T) {
	u := newUpstream()
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		u.ServeHTTP(w, r)
	}))
	defer srv.Close()
	c := cases[0]
	s, err := newJob(&c, newTarget("proxy", srv.URL, 1)).block(t.Context(), 6)
	if err == nil || s[failedKey] != 3 || s[callsKey] != 6 {
		t.Errorf("sample %v, error %v; want 3 of 6 failed", s, err)
	}
}

// TestInFlight proves that no answer ends before all have begun, even where
// some calls fail and so never begin.
func TestInFlight(t *testing.T) {
	const conns = 4
	u := newUpstream()
	var asked, begun, early atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			begun.Add(1)
			w.WriteHeader(http.StatusTeapot)
			return
		case conns:
			time.Sleep(300 * time.Millisecond) // the others would be done
		}
		begun.Add(1)
		u.ServeHTTP(w, r)
		// 20 MB fit in no socket buffer: who is here has been read to the end.
		if begun.Load() < conns {
			early.Add(1)
		}
	}))
	defer srv.Close()
	c := benchCase{name: "memory-20M-64", model: imageModel, answer: imageAnswer(20 * MB), conns: conns, calls: conns, inFlight: true}
	s, err := newJob(&c, newTarget("proxy", srv.URL, conns)).block(t.Context(), conns)
	if err == nil || s[failedKey] != 1 {
		t.Errorf("sample %v, error %v; want 1 failed", s, err)
	}
	if early.Load() != 0 {
		t.Errorf("%d answers ended before all had begun", early.Load())
	}
}

// TestTogether proves that the upstream has all requests before it answers one,
// again and again, and that one that leaves is not counted.
func TestTogether(t *testing.T) {
	const conns = 3
	u := newUpstream()
	var asked, early atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer := httptest.NewRecorder()
		u.ServeHTTP(answer, r)
		if asked.Load()%conns != 0 {
			early.Add(1)
		}
		_, _ = answer.Body.WriteTo(w)
	}))
	defer srv.Close()
	gone, leave := context.WithCancel(t.Context())
	leave()
	u.crowd.join(gone, conns)
	c := benchCase{name: "text-1k", model: textModel, answer: textAnswer, conns: conns, calls: conns}
	j := newJob(&c, newTarget("proxy", srv.URL, conns))
	j.together = conns
	for range 2 {
		if s, err := j.block(t.Context(), conns); err != nil || s[callsKey] != conns {
			t.Fatalf("sample %v, error %v", s, err)
		}
	}
	if early.Load() != 0 || asked.Load() != 2*conns {
		t.Errorf("%d of %d were answered before all were there", early.Load(), asked.Load())
	}
}

// TestOpenLoopCountsWaiting keeps the only connection busy with the first call:
// what the others wait for it is their delay.
func TestOpenLoopCountsWaiting(t *testing.T) {
	const stall, every = 200 * time.Millisecond, 10 * time.Millisecond
	u := newUpstream()
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			time.Sleep(stall)
		}
		u.ServeHTTP(w, r)
	}))
	defer srv.Close()
	c := cases[0]
	j := newJob(&c, newTarget("proxy", srv.URL, 1))
	j.every = every
	s, err := j.block(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	// The third of them was due 20 ms after the first, and the fourth 30.
	for key, least := range map[string]time.Duration{p50.key: stall - 2*every, p99.key: stall, firstByte.key: stall - 2*every} {
		if s[key] < milliseconds(least) {
			t.Errorf("%s is %.1f ms, want at least %v", key, s[key], least)
		}
	}
}

// TestTurnsKeepTheirTimes takes none of them before all are due.
func TestTurnsKeepTheirTimes(t *testing.T) {
	const n, every = 5, 2 * time.Millisecond
	before := time.Now()
	turns := turns(n, every)
	sleepUntil(before.Add(n * every))
	var first time.Time
	for i := range n {
		turn := <-turns
		if i == 0 {
			first = turn.due
		}
		if turn.call != i || !turn.begin().Equal(first.Add(time.Duration(i)*every)) {
			t.Errorf("call %d is due %v after the first", turn.call, turn.due.Sub(first))
		}
	}
	if _, more := <-turns; more {
		t.Error("there are too many")
	}
	if first.Before(before) {
		t.Error("the first was due before the beginning")
	}
}

// startTestUpstream runs the upstream's own main in this process.
func startTestUpstream(t *testing.T) *environment {
	t.Helper()
	env := &environment{dir: t.TempDir(), roots: x509.NewCertPool()}
	stdin, hangUp := io.Pipe()
	stdout, says := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveUpstream(env.dir, stdin, says) }()
	if _, err := fmt.Fscan(stdout, &env.addrs.HTTP, &env.addrs.HTTPS); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(env.dir, caFile))
	if err != nil || !env.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("certificate: %v", err)
	}
	t.Cleanup(func() {
		_ = hangUp.Close()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the upstream ended with %v", err)
			}
		case <-time.After(process.StopTimeout):
			t.Error("the upstream outlived its parent")
		}
	})
	return env
}
