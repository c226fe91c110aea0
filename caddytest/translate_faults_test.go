// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// A large image, in the forms in which clients send it. They are made up while they
// are sent.
var largeForms = []struct {
	name, path, kind string
	head, tail       string
	isBinary         bool
}{
	{"native", unaryPath, "application/json", largeHead, largeTail + "}", false},
	{"edits as a form", editsPath, "multipart/form-data; boundary=xxx", formHead, "\r\n--xxx--\r\n", true},
	{"edits in JSON", editsPath, "application/json", `{"model":"` + imageModel + `","prompt":"` + prompt + `","image":"data:image/png;base64,`, `"}`, false},
	{"chat", chatPath, "application/json", `{"model":"` + imageModel + `","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,`, `"}},{"type":"text","text":"` + prompt + `"}]}]}`, false},
}

const formHead = "--xxx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + imageModel +
	"\r\n--xxx\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n" + prompt +
	"\r\n--xxx\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"

// largeImage are the bytes of an image as they are sent: base64, or what is behind
// that.
func largeImage(size int64, isBinary bool) io.Reader {
	encoded := io.LimitReader(new(pattern), size)
	if isBinary {
		return base64.NewDecoder(base64.StdEncoding, encoded)
	}
	return encoded
}

// imageIn finds the image in a request, of whatever form, and returns its digest. It
// keeps nothing of it.
func imageIn(r *http.Request) (string, error) {
	var image io.Reader
	if kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.HasPrefix(kind, "multipart/") {
		form := multipart.NewReader(r.Body, params["boundary"])
		for {
			part, err := form.NextPart()
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(part.FormName(), "image") {
				image = part
				break
			}
		}
	} else {
		body := bufio.NewReader(r.Body)
		for last := ""; ; {
			word, err := body.ReadString('"')
			if err != nil {
				return "", err
			}
			if strings.HasSuffix(last, `"data"`) && word == `:"` {
				break
			}
			if last = last + word; len(last) > 20 {
				last = last[len(last)-20:]
			}
			if begin, err := body.Peek(22); err == nil && string(begin) == "data:image/png;base64," {
				_, _ = body.Discard(len(begin))
				break
			}
		}
		image = base64.NewDecoder(base64.StdEncoding, &untilQuote{source: body})
	}
	sum := sha256.New()
	_, err := io.Copy(sum, image)
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	return digest(sum), err
}

// untilQuote reads a JSON string without escapes to its end.
type untilQuote struct {
	source *bufio.Reader
	isEnd  bool
}

func (u *untilQuote) Read(p []byte) (int, error) {
	if u.isEnd {
		return 0, io.EOF
	}
	if _, err := u.source.Peek(1); err != nil {
		return 0, err
	}
	ready, _ := u.source.Peek(min(len(p), u.source.Buffered()))
	n := bytes.IndexByte(ready, '"')
	if u.isEnd = n >= 0; !u.isEnd {
		n = len(ready)
	}
	copy(p, ready[:n])
	_, _ = u.source.Discard(n)
	return n, nil
}

// Large images arrive as they are in every form, also the second time, and need
// little memory on their way.
func TestLargeImagesAreTranslated(t *testing.T) {
	const limit = 30 * megabyte // of which the body may keep half
	size := int64(2 * limit)
	if isSlow := flood < 100_000; isSlow { // by the race detector; then only the bytes matter
		size = 2 * megabyte
	}
	for _, form := range largeForms {
		for _, format := range []string{"gemini", "openai", "openai chat"} {
			isAsIs := (form.path == unaryPath) == (format == "gemini") && form.path != editsPath || form.path == editsPath && format == "openai"
			if isAsIs {
				continue
			}
			t.Run(form.name+" to "+format, func(t *testing.T) {
				dir := ownTemp(t)
				var before, during runtime.MemStats
				var calls atomic.Int32
				digests := make(chan string, 2)
				u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					d, err := imageIn(r)
					if err != nil {
						t.Errorf("the image did not arrive as a whole: %v", err)
					}
					digests <- d
					if calls.Add(1) == 1 {
						runtime.GC()
						runtime.ReadMemStats(&during)
						overloaded(w, r)
						return
					}
					inEveryForm(editing)(w, r)
				}))
				t.Cleanup(u.Close)
				g := run(t, gemini(placeAt("only", u.URL, "format "+format, "api_key {env.CADDYTEST_KEY}"), retryQuickly))
				runtime.GC()
				runtime.ReadMemStats(&before)
				body := io.MultiReader(strings.NewReader(form.head), largeImage(size, form.isBinary), strings.NewReader(form.tail))
				r := g.newRequest(t, http.MethodPost, form.path, body)
				r.Header.Set("Content-Type", form.kind)
				if s := do(t, r); s.StatusCode != 200 || s.err != nil {
					t.Fatalf("status %d (%v): %s", s.StatusCode, s.err, shortened(string(s.body)))
				}
				sum := sha256.New()
				_, _ = io.Copy(sum, largeImage(size, true))
				for range 2 {
					if got, want := <-digests, digest(sum); got != want {
						t.Errorf("an image with the digest %s arrived, want %s", got, want)
					}
				}
				if grown := int64(during.HeapAlloc) - int64(before.HeapAlloc); grown > limit {
					t.Errorf("an image of %d MB takes %d MB of memory", size/megabyte, grown/megabyte)
				}
				isEmpty(t, dir)
			})
		}
	}
}

// An upload that breaks off reaches nobody, and leaves nothing behind.
func TestBrokenUploadsAreNotTranslated(t *testing.T) {
	for _, form := range largeForms {
		t.Run(form.name, func(t *testing.T) {
			dir := ownTemp(t)
			u := scripted(t, inEveryForm(editing))
			format := "format gemini"
			if form.path == unaryPath {
				format = "format openai"
			}
			g := run(t, accessLog+gemini(place("only", u, format), quickly))
			broken := errors.New("the client has a fault")
			body := io.MultiReader(strings.NewReader(form.head), largeImage(20*megabyte, form.isBinary), failingReader{broken})
			r := g.newRequest(t, http.MethodPost, form.path, body)
			r.Header.Set("Content-Type", form.kind)
			r.ContentLength = 30 * megabyte
			if _, err := roundTrip(newTransport(t), r.WithContext(context.WithoutCancel(t.Context()))); !errors.Is(err, broken) {
				t.Errorf("the client got %v", err)
			}
			eventually(t, "the call ends", func() bool { return len(g.accessLines(t)) == 1 })
			u.untouched(t)
			isEmpty(t, dir)
		})
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// Bodies that are too large or none of their form are refused in the words of their
// client, and sent nowhere.
func TestUnreadableBodiesAreNotTranslated(t *testing.T) {
	u := scripted(t, drawn)
	const limit = "max_body 1MiB"
	site := func(format string) string { return gemini(place("only", u, format), quickly, limit) }
	g := run(t, site("format gemini"))
	for _, form := range largeForms {
		for _, chunked := range []bool{false, true} {
			if form.path == unaryPath {
				g.load(t, site("format openai"))
			} else {
				g.load(t, site("format gemini"))
			}
			body := io.MultiReader(strings.NewReader(form.head), largeImage(2*megabyte, form.isBinary), strings.NewReader(form.tail))
			r := g.newRequest(t, http.MethodPost, form.path, body)
			r.Header.Set("Content-Type", form.kind)
			if r.ContentLength = 3 * megabyte; chunked {
				r.ContentLength = -1
			} else {
				r.Body = io.NopCloser(io.LimitReader(io.MultiReader(r.Body, spaces{}), 3*megabyte))
			}
			s := do(t, r)
			if form.path == unaryPath {
				s.fails(t, 413, "BODY_TOO_LARGE")
				continue
			}
			s.failsAsOpenAI(t, 413, "request_too_large", "BODY_TOO_LARGE")
		}
	}
	u.untouched(t)
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }
