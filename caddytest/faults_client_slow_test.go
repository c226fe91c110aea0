// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// large is the beginning of a request of more than is read ahead, of which much is
// still to come.
var large = `{"contents":[{"parts":[{"text":"` + strings.Repeat("a", 400_000)

const declared = 900_000

// A client that does not get its request across within the deadline is told so at the
// deadline, while it still owes the rest, and no upstream is blamed for it.
func TestSlowUploadsEndAtTheDeadline(t *testing.T) {
	for name, options := range map[string][]string{
		"kept":           {"retry {\n\tdeadline 1s\n}"},
		"sent once":      {"retry {\n\tdeadline 1s\n\tattempts 1\n}", "guard off"},
		"read to limits": {"retry {\n\tdeadline 1s\n}", "rate_limit * {\n\trpm 1000\n\ttpm 100000000\n}"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := scripted(t, drawn), scripted(t, drawn)
			g := run(t, gemini(inOrder("probe "+rarely, first, second), options...))
			var clients []*wireClient
			for _, beginning := range []string{large, large[:100_000]} {
				for range 6 { // as many as demote an upstream
					c := g.dial(t)
					c.says(t, sized(unaryPath, declared, beginning))
					clients = append(clients, c)
				}
				c := g.dial(t)
				clients = append(clients, c)
				c.says(t, spoken(unaryPath, inChunks, chunked(beginning, 1000)))
				go func() { // drips
					for range 1000 {
						if _, err := io.WriteString(c, chunked("a", 1)); err != nil {
							return
						}
						time.Sleep(10 * time.Millisecond)
					}
				}()
			}
			for _, c := range clients {
				got := c.hears(t)
				if got.fails(t, 504, "DEADLINE_EXCEEDED"); !got.Close {
					t.Error("the connection is kept")
				}
			}
			eventually(t, "the uploads are over", func() bool { return int(first.begun.Load()) == len(first.received()) })
			first.play(drawn)
			second.play(drawn)
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			first.only(t)
			second.untouched(t)
		})
	}
}

// An answer that comes before the request is across reaches its client although that has
// stopped sending: an error at once, because nobody wants the rest, anything else by the
// deadline.
func TestEarlyAnswersReachStalledClients(t *testing.T) {
	const refusal = `{"error":{"code":413,"message":"Request payload size exceeds the limit","status":"INVALID_ARGUMENT"}}`
	for name, c := range map[string]struct {
		status int
		answer string
		option string
	}{
		"refused": {413, refusal, "retry {\n\tdeadline 1h\n}"},
		"drawn":   {200, imageJSON, "retry {\n\tdeadline 1s\n}"},
	} {
		t.Run(name, func(t *testing.T) {
			early := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadFull(r.Body, make([]byte, 1000))
				w.Header().Set("Content-Type", jsonType)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			}))
			t.Cleanup(early.Close)
			g := run(t, gemini("upstream early "+early.URL, c.option))
			client := g.dial(t)
			client.says(t, sized(unaryPath, declared, large))
			got := client.hears(t)
			if got.StatusCode != c.status || string(got.body) != c.answer || !got.Close {
				t.Errorf("%d, closed: %t, %d bytes, error %v", got.StatusCode, got.Close, len(got.body), got.err)
			}
		})
	}
}
