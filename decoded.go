// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"time"
)

// decoded is the body of an answer without its gzip, if the transport has left
// it on: some servers compress without having been asked.
func decoded(res *http.Response) io.ReadCloser {
	if !isGzip(res.Header.Get("Content-Encoding")) {
		return res.Body
	}
	res.Header.Del("Content-Encoding")
	res.Header.Del("Content-Length")
	res.ContentLength = -1
	return &gzipBody{source: res.Body}
}

// isGzip recognises a Content-Encoding by both of its names (RFC 9110 §8.4.1.3).
func isGzip(encoding string) bool {
	return strings.EqualFold(encoding, "gzip") || strings.EqualFold(encoding, "x-gzip")
}

// gzipBody starts to decode when it is first read, so that the headers of a
// slow answer are not waited for.
type gzipBody struct {
	source io.ReadCloser
	gzip   *gzip.Reader
}

func (g *gzipBody) Read(p []byte) (int, error) {
	if g.gzip == nil {
		decoder, err := gzip.NewReader(g.source)
		if err != nil {
			return 0, err
		}
		g.gzip = decoder
	}
	return g.gzip.Read(p)
}

func (g *gzipBody) Close() error { return g.source.Close() }

// maxDrain and maxDrainTime are how much of an unwanted answer is read, and for
// how long, to save its connection.
const (
	maxDrain     = 64 << 10
	maxDrainTime = 50 * time.Millisecond
)

// drain reads the rest of a short answer, because an HTTP/1 connection with unread bytes
// is lost. The client waits meanwhile, so an upstream that has more to say only has a
// moment.
func drain(source io.ReadCloser) {
	ends := io.Closer(source)
	if a, isAnswer := source.(*answer); isAnswer {
		ends = a.source // what an answer holds is its reader's, who is under way
	}
	hurry := time.AfterFunc(maxDrainTime, func() { _ = ends.Close() })
	_, _ = io.CopyN(io.Discard, source, maxDrain)
	hurry.Stop()
}
