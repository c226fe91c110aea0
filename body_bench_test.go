// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkRequestBody10MB compares with io.Copy of the same body: "ratio" is
// the time it takes over that.
func BenchmarkRequestBody10MB(b *testing.B) {
	image := strings.Repeat("iVBORw0KGgoAAAANSUhEUgAA", 10_000_000/24)
	streamed, held := `{"contents":["`+image+`"]}`, `{"safetySettings":[],"contents":["`+image+`"]}`
	bodies := []struct {
		name, body string
		asked      completion
		keep       bool
	}{
		{"streamed", streamed, testCompletion, false},
		{"held", held, testCompletion, false},
		{"untouched", streamed, completion{}, false},
		{"kept", streamed, testCompletion, true},
		{"kept, held", held, testCompletion, true},
		{"kept, untouched", streamed, completion{}, true},
	}
	buf := make([]byte, 32<<10)
	plain := func(body string) time.Duration {
		start := time.Now()
		_, _ = io.CopyBuffer(discard{}, struct{ io.Reader }{strings.NewReader(body)}, buf)
		return time.Since(start)
	}
	for _, tt := range bodies {
		b.Run(tt.name, func(b *testing.B) {
			b.SetBytes(int64(len(tt.body)))
			b.ReportAllocs()
			var copied, completed time.Duration
			for b.Loop() {
				copied += plain(tt.body)
				start := time.Now()
				body := bodyOf(struct{ io.Reader }{strings.NewReader(tt.body)}, int64(len(tt.body)), "", tt.asked, testLimit, tt.keep)
				if err := body.readAhead(); err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(discard{}, body.reader(rendering{})); err != nil {
					b.Fatal(err)
				}
				body.release()
				completed += time.Since(start)
			}
			b.ReportMetric(float64(completed)/float64(copied), "ratio")
		})
	}
}

// discard reads what is written to it, as a connection does.
type discard struct{}

var sink [256 << 10]byte

func (discard) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		rest = rest[copy(sink[:], rest):]
	}
	return len(p), nil
}

// BenchmarkUpload10MB relays through net/http on loopback; "ratio" compares
// with a body that is passed on as it is.
func BenchmarkUpload10MB(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer upstream.Close()
	relay := func(w http.ResponseWriter, r *http.Request) {
		out, _ := http.NewRequest(http.MethodPost, upstream.URL, r.Body)
		out.ContentLength = r.ContentLength
		if r.URL.Path != "/passed" {
			body := newRequestBody(r, testCompletion, testLimit, r.URL.Path == "/kept")
			defer body.release()
			if body.readAhead() != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			out.Body, out.ContentLength = body.reader(rendering{}), body.length(rendering{})
		}
		answer, err := upstream.Client().Transport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		answer.Body.Close()
	}
	gateway := httptest.NewServer(http.HandlerFunc(relay))
	defer gateway.Close()
	image := strings.Repeat("iVBORw0KGgoAAAANSUhEUgAA", 10_000_000/24)
	streamed, held := `{"contents":["`+image+`"]}`, `{"safetySettings":[],"contents":["`+image+`"]}`
	for _, tt := range []struct{ name, path, body string }{
		{"streamed", "/completed", streamed},
		{"held", "/completed", held},
		{"kept", "/kept", streamed},
		{"kept, held", "/kept", held},
	} {
		b.Run(tt.name, func(b *testing.B) {
			upload := func(path string) time.Duration {
				start := time.Now()
				answer, err := gateway.Client().Post(gateway.URL+path, "application/json", strings.NewReader(tt.body))
				if err != nil || answer.StatusCode != http.StatusOK {
					b.Fatal(answer, err)
				}
				answer.Body.Close()
				return time.Since(start)
			}
			b.SetBytes(int64(len(tt.body)))
			var passed, completed time.Duration
			for b.Loop() {
				passed += upload("/passed")
				completed += upload(tt.path)
			}
			b.ReportMetric(float64(completed)/float64(passed), "ratio")
		})
	}
}

// BenchmarkRequestBodyShort are bodies that are read before they are sent.
func BenchmarkRequestBodyShort(b *testing.B) {
	for _, size := range []int{1000, 60_000, 200_000} {
		text := `{"contents":[{"parts":[{"text":"` + strings.Repeat("a", size) + `"}]}]}`
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				body := bodyOf(struct{ io.Reader }{strings.NewReader(text)}, int64(len(text)), "", testCompletion, testLimit, true)
				if err := body.readAhead(); err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(discard{}, body.reader(rendering{}))
				if want := body.length(rendering{}); err != nil || n != want {
					b.Fatal(n, want, err)
				}
				body.release()
			}
		})
	}
}
