// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// leaving is a client that goes away without waiting for its answer.
func (g *gateway) leaving(t *testing.T, uri, body string) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := g.newRequest(t, http.MethodPost, uri, strings.NewReader(body)).WithContext(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		res, err := newTransport(t).RoundTrip(r)
		if err == nil {
			_ = res.Body.Close()
			t.Errorf("the client got %s", res.Status)
		}
	}()
	return func() {
		t.Helper()
		cancel()
		wait(t, "the client is gone", left)
	}
}

// ended waits for the line in the access log that ends a call.
func (g *gateway) ended(t *testing.T, status string) {
	t.Helper()
	eventually(t, "the call ends", func() bool { return len(g.accessLines(t)) > 0 })
	if line := g.accessLines(t)[0]; !strings.Contains(line, `"status":`+status) {
		t.Errorf("the call did not end with %s: %s", status, line)
	}
}

// A client that leaves ends the wait: not when it would be over, but at once.
func TestClientLeavesDuringAWait(t *testing.T) {
	for name, plays := range map[string]http.HandlerFunc{
		"for a limit":   limited("90s"),
		"for a failure": overloaded,
	} {
		for _, path := range []string{unaryPath, streamPath} {
			t.Run(name+path[strings.LastIndex(path, ":"):], func(t *testing.T) {
				first, second := scripted(t, plays), scripted(t, plays)
				places := []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))}
				g := start(t, accessLog+several(places, retry("backoff 90s 90s")))
				leave := g.leaving(t, path, promptJSON)
				eventually(t, "both upstreams are asked", func() bool { return len(visits(first, second)) == 2 })
				leave()
				g.ended(t, "499")
				went(t, "first second", first, second)
			})
		}
	}
}

// A client that leaves ends the attempt, which no other follows.
func TestClientLeavesDuringAnAttempt(t *testing.T) {
	for name, begins := range map[string][]string{
		"before the headers":  nil,
		"before the verdict":  {`{"candidates":[`},
		"of which it is half": {textJSON[:60]},
	} {
		t.Run(name, func(t *testing.T) {
			cancelled := make(chan struct{})
			first, second := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				hangs(begins...)(w, r)
				close(cancelled)
			}), scripted(t, drawn)
			places := []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))}
			g := start(t, accessLog+several(places))
			leave := g.leaving(t, unaryPath, promptJSON)
			eventually(t, "the upstream is asked", func() bool { return len(first.received()) == 1 })
			leave()
			wait(t, "the attempt is cancelled", cancelled)
			g.ended(t, "499")
			went(t, "first", first, second)
		})
	}
}

// An upstream may refuse a call before it has all of it. If then the client leaves
// in the middle of its upload, there is nothing left to wait for.
func TestClientLeavesDuringItsUpload(t *testing.T) {
	var asked atomic.Int32
	hasty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		limited("90s")(w, r)
	}))
	defer hasty.Close()
	g := start(t, accessLog+several([]string{placeAt("first", hasty.URL, ownKey(t, "first"))}, retry("backoff 1ms 1ms")))

	conn, err := net.DialTimeout("tcp", g.address, soon)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	half := strings.TrimSuffix(promptJSON, "}") + `,"x":"` + strings.Repeat("x", 600_000)
	_, err = io.WriteString(conn, "POST "+unaryPath+" HTTP/1.1\r\nHost: "+g.address+"\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n"+half)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the upstream is asked", func() bool { return asked.Load() == 1 })
	conn.Close()
	eventually(t, "the call ends", func() bool { return len(g.accessLines(t)) > 0 })
	if n := asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times, though the client had left", n)
	}
}
