// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// bomb is a JSON document of this many megabytes that takes a thousandth on the wire:
// gzip may come in pieces.
func bomb(megabytes int) string {
	return gzipped(`{"contents":[{"parts":[{"text":"`) + strings.Repeat(gzipped(strings.Repeat(" ", megabyte)), megabytes) + gzipped(`"}]}]}`)
}

// nested is JSON that goes this deep.
func nested(open, inside, closing string, levels int) string {
	return strings.Repeat(open, levels) + inside + strings.Repeat(closing, levels)
}

// Whatever a body is, an upstream gets it as it is or not at all.
func TestStrangeBodies(t *testing.T) {
	levels := max(flood, 12_000) // encoding/json goes 10,000 deep
	const before = `{"contents":[{"parts":[{"text":"x"}]}],"x":`
	chat := func(x string) string { return strings.TrimSuffix(drawJSON(), "}") + `,"x":` + x + `}` }
	u := scripted(t, drawn)
	g := run(t, gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", "guard 1h", quickly, "max_body 2MiB", limit("tpm 1M", "rpm 100")))
	for _, c := range []struct {
		name, path, body, encoding string
		status                     int
		reason                     string // of the refusal
	}{
		{"bomb", unaryPath, bomb(4), "gzip", 413, "BODY_TOO_LARGE"},
		{"bomb in a bomb", unaryPath, gzipped(bomb(2)), "gzip", 400, "MALFORMED_REQUEST"},
		{"cut off gzip", unaryPath, gzipped(promptJSON)[:50], "gzip", 400, "MALFORMED_REQUEST"},
		{"gzip with a wrong sum", unaryPath, gzipped(promptJSON)[:len(gzipped(promptJSON))-8] + "12345678", "gzip", 400, "MALFORMED_REQUEST"},
		{"no gzip", unaryPath, promptJSON, "gzip", 400, "MALFORMED_REQUEST"},
		{"nothing", unaryPath, "", "", 400, "MALFORMED_REQUEST"},
		{"NUL", unaryPath, "\x00", "", 400, "MALFORMED_REQUEST"},
		{"a second document", unaryPath, promptJSON + promptJSON, "", 400, "MALFORMED_REQUEST"},
		{"NUL behind the document", unaryPath, promptJSON + "\x00", "", 400, "MALFORMED_REQUEST"},
		{"mark of UTF-8 in front", unaryPath, "\xef\xbb\xbf" + promptJSON, "", 400, "MALFORMED_REQUEST"},
		{"invalid UTF-8", unaryPath, strings.Replace(promptJSON, prompt, "a \xff\xfe \xc3\x28 cat", 1), "", 200, ""},
		{"half a surrogate", unaryPath, strings.Replace(promptJSON, prompt, `a \ud83d cat`, 1), "", 200, ""},
		{"deep list", unaryPath, before + nested("[", "1", "]", levels) + "}", "", 200, ""},
		{"deep object", unaryPath, before + nested(`{"a":`, "1", "}", levels) + "}", "", 200, ""},
		{"deep list without an end", unaryPath, before + strings.Repeat("[", levels), "", 400, "MALFORMED_REQUEST"},
		{"deep where it matters", unaryPath, nested(`{"contents":`, "1", "}", levels), "", 200, ""},
		{"deep prompt", unaryPath, `{"contents":[{"parts":[{"text":` + nested("[", "1", "]", levels) + `}]}]}`, "", 200, ""},
		{"deep and of another form", imagesPath, chat(nested("[", "1", "]", levels)), "", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.play(drawn)
			r := g.newRequest(t, http.MethodPost, c.path, strings.NewReader(c.body))
			if c.encoding != "" {
				r.Header.Set("Content-Encoding", c.encoding)
			}
			s := do(t, r)
			switch {
			case c.reason != "":
				s.fails(t, c.status, c.reason)
				u.untouched(t)
			case s.StatusCode != c.status:
				t.Errorf("status %d, want %d: %s", s.StatusCode, c.status, shortened(string(s.body)))
			case c.status == 200:
				body := strings.TrimSuffix(c.body, "}")
				if got := string(u.only(t).Body); !strings.HasPrefix(got, body) {
					t.Errorf("the upstream received %q, want %q and more", shortened(got), shortened(body))
				}
			default:
				u.untouched(t)
			}
			do(t, g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))).exactly(t, 200, imageJSON)
		})
	}
}

// A bomb costs no more than what max_body allows, and that not for long. An upstream
// may have got its beginning, and knows that this is not all.
func TestBombsNeedLittleMemory(t *testing.T) {
	u := newSwallower(t)
	g := run(t, gemini("upstream only "+u.URL, quickly, "max_body 2MiB"))
	body := bomb(200)
	before := heap()
	for range 4 {
		r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(body))
		r.Header.Set("Content-Encoding", "gzip")
		do(t, r).fails(t, 413, "BODY_TOO_LARGE")
	}
	eventually(t, "the memory is given back", func() bool { return heap()-before < 4*megabyte })
	if n := len(u.digests); n > 0 {
		t.Errorf("%d requests arrived as if they were whole", n)
	}
}

// What is not gzip alone is nobody's business here.
func TestContentEncodings(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u)
	for _, encodings := range [][]string{{"br"}, {"gzip, gzip"}, {"gzip", "gzip"}} {
		u.play(drawn)
		r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader("whatever it is"))
		r.Header["Content-Encoding"] = encodings
		do(t, r).exactly(t, 200, imageJSON)
		got := u.only(t)
		if encoding := got.Header["Content-Encoding"]; string(got.Body) != "whatever it is" || strings.Join(encoding, ", ") != strings.Join(encodings, ", ") {
			t.Errorf("%q: the upstream received %q, %q", encodings, encoding, got.Body)
		}
	}
}

// What a client declares costs nothing before it comes.
func TestClientsDeclareAndSendNothing(t *testing.T) {
	const clients = 64
	u := scripted(t, drawn)
	g := run(t, gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", "max_body 256MiB", quickly))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON) // opens what stays open
	u.play(drawn)
	u.leavesNothing(t, func() {
		before := heap()
		all := make([]*wireClient, clients)
		var group sync.WaitGroup
		for i := range all {
			all[i] = g.dial(t)
			group.Go(func() {
				_, _ = io.WriteString(all[i], spoken(unaryPath, "Expect: 100-continue\r\nContent-Length: 200000000\r\n", ""))
				_, _ = all[i].in.ReadString('\n') // the gateway reads now
				_, _ = io.WriteString(all[i], half)
			})
		}
		group.Wait()
		if grown := heap() - before; grown > clients*megabyte/4 {
			t.Errorf("%d clients that have sent nothing take %d MB", clients, grown/megabyte)
		}
		for _, w := range all {
			_ = w.Close()
		}
	})
	u.untouched(t)
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
}

// endlessBody is an image of this many bytes that is made up while it is sent. It tells
// how it ended.
func endlessBody(size int64, ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", jsonType)
		_, err := io.WriteString(w, imageJSON[:1000])
		if err == nil {
			_, err = io.Copy(w, io.LimitReader(new(pattern), size))
		}
		ended <- err
	}
}

// Whoever does not read what it has asked for takes little memory, and for no longer
// than the server waits for a write.
func TestClientsThatDoNotRead(t *testing.T) {
	const clients = 4
	ended := make(chan error, clients)
	u := scripted(t, endlessBody(64*megabyte, ended))
	site := "metrics /metrics\n" + gemini("upstream unread "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", quickly)
	g := runWith(t, "servers {\n\ttimeouts {\n\t\twrite_idle 500ms\n\t}\n}", site)
	counted := g.counters(t)
	u.leavesNothing(t, func() {
		before := heap()
		for range clients {
			w := g.dial(t)
			if err := w.SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			w.says(t, sized(unaryPath, len(promptJSON), promptJSON))
			if _, err := w.in.ReadByte(); err != nil {
				t.Fatal(err)
			}
		}
		if grown := heap() - before; grown > clients*megabyte {
			t.Errorf("%d clients that do not read take %d MB", clients, grown/megabyte)
		}
		for range clients {
			if err := <-ended; err == nil {
				t.Error("an answer of 64 MB has vanished into a client that does not read")
			}
		}
	})
	want := `attempts_total{upstream="unread",verdict="ok"} 4` + "\n" +
		`requests_total{model="` + imageModel + `",reason="",upstream="unread",verdict="ok"} 4`
	eventually(t, "the calls end", func() bool { return g.counted(t, counted) == want })
}
