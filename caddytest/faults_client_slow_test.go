// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"io"
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
		"kept":           {"retry {\n\tdeadline 300ms\n}"},
		"sent once":      {"retry {\n\tdeadline 300ms\n\tattempts 1\n}", "guard off"},
		"read to limits": {"retry {\n\tdeadline 300ms\n}", "rate_limit * {\n\trpm 1000\n\ttpm 100000000\n}"},
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
			first.play(drawn)
			second.play(drawn)
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			first.only(t)
			second.untouched(t)
		})
	}
}
