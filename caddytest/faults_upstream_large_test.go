// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"
)

// scaled is a size that the race detector would take too long for.
func scaled(full, withRace int64) int64 {
	if flood < 100_000 {
		return withRace
	}
	return full
}

// fewMegabytes is what an answer of any size may take in memory, hold and what the
// test itself needs included, in bytes.
const fewMegabytes = 16 * megabyte

// inUse is the memory in use, in bytes. Garbage does not count.
func inUse() int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// swallow reads an answer of this many bytes, beside which memory does not grow.
func swallow(t *testing.T, r io.Reader, size int64) {
	t.Helper()
	before, most, all := inUse(), int64(0), int64(0)
	for all < size {
		n, err := io.CopyN(io.Discard, r, min(max(size/8, megabyte), size-all))
		all += n
		most = max(most, inUse()-before)
		if err != nil {
			t.Fatalf("the answer ended after %d bytes of %d: %v", all, size, err)
		}
	}
	if most > fewMegabytes {
		t.Errorf("memory grew by %d MB for an answer of %d MB", most/megabyte, size/megabyte)
	}
}

// open sends a call and returns its answer unread.
func (s *faultSite) open(t *testing.T, ctx context.Context, path string) *http.Response {
	t.Helper()
	r := s.newRequest(t, http.MethodPost, path, strings.NewReader(promptJSON)).WithContext(ctx)
	res, err := newTransport(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// filled is an answer that is mostly one character.
type filled struct {
	head, tail string
	size       int64 // of what is between them
}

func (f filled) length() int64 { return int64(len(f.head)+len(f.tail)) + f.size }

func (f filled) reader() io.Reader {
	return io.MultiReader(strings.NewReader(f.head), io.LimitReader(filler{}, f.size), strings.NewReader(f.tail))
}

// plays answers with it.
func (f filled) plays(status int, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.Copy(w, f.reader())
	}
}

type filler struct{}

func (filler) Read(p []byte) (int, error) { return copy(p, sameLetters), nil }

var sameLetters = bytes.Repeat([]byte("A"), 1<<16)

const memberSize = 4 * megabyte

// bomb answers with its gzip, which is small: a gzip may have several members,
// and these are alike.
func (f filled) bomb(status int) http.HandlerFunc {
	member := func(r io.Reader) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.Copy(z, r)
		_ = z.Close()
		return b.Bytes()
	}
	all := member(strings.NewReader(f.head))
	all = append(all, bytes.Repeat(member(io.LimitReader(filler{}, memberSize)), int(f.size/memberSize))...)
	all = append(all, member(strings.NewReader(f.tail))...)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", jsonType)
		w.WriteHeader(status)
		_, _ = w.Write(all)
	}
}

// An answer that is too large for memory passes, because it needs none.
func TestLargeAnswersOfUpstreams(t *testing.T) {
	const textHead, textTail = `{"candidates":[{"content":{"parts":[{"text":"`, `"}]},"finishReason":"STOP","index":0}]}`
	const imageHead, imageTail = `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"`, `"}}]},"finishReason":"STOP","index":0}]}`
	const errorHead, errorTail = `{"error":{"code":500,"status":"INTERNAL","message":"`, `"}}`
	large := scaled(64*megabyte, 20*megabyte)
	hundred := scaled(100*megabyte, 20*megabyte)
	gigabyte := scaled(1020*megabyte, 20*megabyte)
	image, text := filled{imageHead, imageTail, gigabyte}, filled{textHead, textTail, gigabyte}
	for _, c := range []struct {
		name, path string
		answer     filled
		plays      func(f filled) http.HandlerFunc
		status     int
	}{
		{"image in a gzip bomb", unaryPath, image, func(f filled) http.HandlerFunc { return f.bomb(200) }, 200},
		{"text in a gzip bomb", unaryPath, text, func(f filled) http.HandlerFunc { return f.bomb(200) }, 200},
		{"error in a gzip bomb", unaryPath, filled{errorHead, errorTail, gigabyte}, func(f filled) http.HandlerFunc { return f.bomb(400) }, 400},
		{"error", unaryPath, filled{errorHead, errorTail, hundred}, func(f filled) http.HandlerFunc { return f.plays(400, jsonType) }, 400},
		{"error that is tried again", unaryPath, filled{errorHead, errorTail, hundred}, func(f filled) http.HandlerFunc { return f.plays(500, jsonType) }, 500},
		{"page", unaryPath, filled{"<html>", "</html>", hundred}, func(f filled) http.HandlerFunc { return f.plays(502, "text/html") }, 502},
		{"event of an image", streamPath, filled{"data: " + imageHead, imageTail + "\r\n\r\n", large}, func(f filled) http.HandlerFunc { return f.plays(200, eventType) }, 200},
		{"event of a text", textPath, filled{"data: " + textHead, textTail + "\r\n\r\n", large}, func(f filled) http.HandlerFunc { return f.plays(200, eventType) }, 200},
		{"line that is no event", textPath, filled{": ", "\r\n\r\n" + event(textChunk), large}, func(f filled) http.HandlerFunc { return f.plays(200, eventType) }, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &faultSite{first: scripted(t, c.plays(c.answer))}
			s.gateway = run(t, gemini(inOrder("", s.first), withoutDelay))
			res := s.open(t, t.Context(), c.path)
			if res.StatusCode != c.status || res.Header.Get("Content-Encoding") != "" {
				t.Errorf("status %d, header %v", res.StatusCode, res.Header)
			}
			swallow(t, res.Body, c.answer.length())
			if n, err := res.Body.Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Errorf("more than the answer: %d, %v", n, err)
			}
			times := 1
			if c.status >= 500 {
				times = 2
			}
			if n := len(s.first.received()); n != times {
				t.Errorf("the upstream was asked %d times, want %d", n, times)
			}
			s.isWell(t)
		})
	}
}

// A stream that does not end is the client's to end, and one that never comes to
// anything the deadline's.
func TestEndlessStreamsOfUpstreams(t *testing.T) {
	for _, c := range []struct{ name, path, event string }{
		{"text", textPath, event(textChunk)},
		{"text of an image model, beyond hold", streamPath, event(textChunk)},
		{"comments beyond hold", textPath, ": " + strings.Repeat("-", 1000) + "\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ended := make(chan struct{})
			plays := endless(wire(eventType, ""), strings.Repeat(c.event, 100))
			s := &faultSite{first: scripted(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				plays(w, r)
			})}
			s.gateway = run(t, gemini(inOrder("", s.first), withoutDelay, "hold 256KiB"))
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			res := s.open(t, ctx, c.path)
			swallow(t, res.Body, 2*megabyte)
			leave()
			wait(t, "the upstream's stream ends", ended)
			if n := len(s.first.received()); n != 1 {
				t.Errorf("the upstream was asked %d times", n)
			}
		})
	}
	t.Run("comments that are slow", func(t *testing.T) {
		s := &faultSite{first: scripted(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", eventType)
			for r.Context().Err() == nil {
				send(w, ": still here\n\n")
				time.Sleep(10 * time.Millisecond)
			}
		})}
		s.gateway = run(t, gemini(inOrder("", s.first), "retry {\n\tdeadline 1s\n}"))
		s.post(t, textPath, promptJSON).fails(t, 504, "DEADLINE_EXCEEDED")
		if n := len(s.first.received()); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
}
