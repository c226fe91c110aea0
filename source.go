// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"sync"
)

var errGzip = errors.New("invalid gzip data")

// rawBody is a body as the client sent it. It ends at its Content-Length
// without another read behind it: see golang/go#40747.
type rawBody struct {
	reader io.Reader
	left   int64 // until the Content-Length, -1 if there is none
	broken bool  // the reader failed
}

func (r *rawBody) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.left > 0 {
		p = p[:min(int64(len(p)), r.left)]
	}
	n, err := r.reader.Read(p)
	if r.left > 0 {
		r.left -= int64(n)
		switch {
		case r.left == 0:
			err = io.EOF
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
	}
	r.broken = r.broken || err != nil && err != io.EOF
	return n, err
}

// gunzip reads a body that was sent with Content-Encoding: gzip.
type gunzip struct {
	raw *rawBody
	z   *gzip.Reader
}

func (g *gunzip) Read(p []byte) (n int, err error) {
	if g.z == nil {
		g.z = gunzips.Get().(*gzip.Reader)
		err = g.z.Reset(g.raw)
	}
	if err == nil {
		n, err = g.z.Read(p)
	}
	if err == nil {
		return n, nil
	}
	_ = g.z.Reset(strings.NewReader("")) // lets go of the client's body
	gunzips.Put(g.z)
	g.z = nil
	if !errors.Is(err, io.EOF) && !g.raw.broken {
		err = errGzip
	}
	return n, err
}

var gunzips = sync.Pool{New: func() any { return new(gzip.Reader) }}
