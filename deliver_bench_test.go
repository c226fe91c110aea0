// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// discardWriter takes an answer as a connection does.
type discardWriter struct {
	discard
	header  http.Header
	written int
}

func (w *discardWriter) Header() http.Header { return w.header }
func (w *discardWriter) WriteHeader(int)     {}
func (w *discardWriter) Flush()              {}

func (w *discardWriter) Write(p []byte) (int, error) {
	w.written += len(p)
	return w.discard.Write(p)
}

// inRecords hands out a body in pieces of at most a TLS record, as a connection
// does.
type inRecords struct{ io.Reader }

func (r inRecords) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 16<<10)]) }
func (inRecords) Close() error                 { return nil }

// copyOut delivers an answer.
func copyOut(tb testing.TB, body string, isStream bool) {
	w := &discardWriter{header: http.Header{}}
	res := &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: inRecords{strings.NewReader(body)}, ContentLength: -1,
	}
	writeHead(w, res)
	if err := deliver(context.Background(), w, res, isStream); err != nil || w.written != len(body) {
		tb.Fatal(w.written, err)
	}
}

// BenchmarkDeliver is the copy loop alone.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{1 << 10, 6 << 20} {
		body := strings.Repeat("a", size)
		for _, isStream := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dK/stream=%t", size>>10, isStream), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					copyOut(b, body, isStream)
				}
			})
		}
	}
}
