// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/iotest"
)

// unchunk reads a body with a buffer of some size.
func unchunk(source io.Reader, size int) (data string, surplus bool, err error) {
	b := &chunkedBody{source: source}
	var all []byte
	buf := make([]byte, size)
	for err == nil {
		var n int
		n, err = b.Read(buf)
		all = append(all, buf[:n]...)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return string(all), b.surplus, err
}

func TestChunkedBody(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for _, c := range []struct {
		name, wire, data string
		err              error
		surplus          bool
	}{
		{name: "nothing", wire: "0\r\n\r\n"},
		{name: "one chunk", wire: "5\r\nhello\r\n0\r\n\r\n", data: "hello"},
		{name: "several", wire: "5\r\nhello\r\n1\r\n,\r\n000006\r\n world\r\n00\r\n\r\n", data: "hello, world"},
		{name: "hexadecimal", wire: fmt.Sprintf("%X\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 70_000, long, 70_000, long), data: long + long},
		{name: "extensions", wire: "5;a=\"b;c\"\r\nhello\r\n0;x\r\n\r\n", data: "hello"},
		{name: "white space", wire: "5 \t\r\nhello\r\n0 \r\n\r\n", data: "hello"},
		{name: "trailer", wire: "5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Time: :\r\n\r\n", data: "hello"},
		{name: "something behind it", wire: "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK", data: "hello", surplus: true},

		{name: "no end", wire: "5\r\nhello\r\n", data: "hello", err: io.ErrUnexpectedEOF},
		{name: "no end of a chunk", wire: "6\r\nhello", data: "hello", err: io.ErrUnexpectedEOF},
		{name: "no end of a length", wire: "5", err: io.ErrUnexpectedEOF},
		{name: "no end of the trailer", wire: "0\r\n", err: io.ErrUnexpectedEOF},
		{name: "no bytes", wire: "", err: io.ErrUnexpectedEOF},
		{name: "no length", wire: "\r\nhello", err: errChunkLength},
		{name: "no hexadecimal length", wire: "g\r\nhello", err: errChunkLength},
		{name: "a length below zero", wire: "-1\r\nhello", err: errChunkLength},
		{name: "two lengths", wire: "5 5\r\nhello", err: errChunkLength},
		{name: "a length with a bare LF", wire: "5\nhello", err: errChunkLength},
		{name: "a length with a bare CR", wire: "5\rhello", err: errChunkLength},
		{name: "an extension with a bare LF", wire: "5;a\nhello", err: errChunkLength},
		{name: "a length beyond all bounds", wire: "fffffffffffffff0\r\nhello", err: errChunkLength},
		{name: "a length of many digits", wire: "00000000000000005\r\nhello", err: errChunkLength},
		{name: "an endless extension", wire: "5;" + long, err: errChunkLine},
		{name: "hardly any data", wire: strings.Repeat("1;"+long[:1000]+"\r\nx\r\n", 20), data: long[:16], err: errChunkLine},
		{name: "a chunk longer than its length", wire: "5\r\nhello, world\r\n0\r\n\r\n", data: "hello", err: errChunkEnd},
		{name: "a chunk with a bare LF", wire: "5\r\nhello\n0\r\n\r\n", data: "hello", err: errChunkEnd},
		{name: "a chunk with a bare CR", wire: "5\r\nhello\r0\r\n\r\n", data: "hello", err: errChunkEnd},
		{name: "no trailer", wire: "0\r\nno colon\r\n\r\n", err: errTrailer},
		{name: "a trailer without a name", wire: "0\r\n: 1\r\n\r\n", err: errTrailer},
		{name: "a trailer with a bare LF", wire: "0\r\nX-Sum: 1\n\r\n", err: errTrailer},
		{name: "a trailer with a bare CR", wire: "0\r\nX-Sum: 1\r\r\n", err: errTrailer},
		{name: "a last line with a bare CR", wire: "0\r\n\rX", err: errTrailer},
		{name: "an endless trailer", wire: "0\r\nX-Sum: " + long, err: errTrailerSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 7, 1000, 1 << 20} {
				data, surplus, err := unchunk(bufio.NewReader(strings.NewReader(c.wire)), size)
				if data != c.data || !errors.Is(err, c.err) || size > len(c.wire) && surplus != c.surplus {
					t.Errorf("%d bytes at a time: %d bytes, %v (surplus: %t), want %d bytes, %v (surplus: %t)", size, len(data), err, surplus, len(c.data), c.err, c.surplus)
				}
			}
		})
	}
}

// What the network says of a body that it breaks off is what its reader gets,
// behind all that had arrived.
func TestChunkedBodyBreaksOff(t *testing.T) {
	reset := errors.New("connection reset")
	for _, begun := range []string{"", "5", "5\r\n", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\n\r"} {
		for _, source := range []io.Reader{
			io.MultiReader(strings.NewReader(begun), iotest.ErrReader(reset)),
			iotest.DataErrReader(io.MultiReader(strings.NewReader(begun), iotest.ErrReader(reset))),
		} {
			data, _, err := unchunk(source, 100)
			if !strings.HasPrefix("hello", data) || strings.Contains(begun, "hel") != (data != "") || !errors.Is(err, reset) {
				t.Errorf("%q: %q, %v", begun, data, err)
			}
		}
	}
}

// FuzzChunked holds the reader to net/http's, however the bytes are cut.
func FuzzChunked(f *testing.F) {
	for _, wire := range []string{
		"", "0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n6 \r\n world\r\n0\r\nX-Sum: 1\r\n\r\n",
		"5\r\nhello", "5\r\nhello\n", "zz\r\n", "ffffffffffffffff\r\nx", "0000000000000005\r\nhello\r\n0\r\n\r\n", "0\r\nno colon\r\n\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\nx\r\n", 100),
		strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\nx\r\n", 88) + "0;" + strings.Repeat("x", 200) + "\r\n\r\n",
	} {
		f.Add([]byte(wire), uint16(3), uint16(5))
	}
	f.Fuzz(func(t *testing.T, wire []byte, size, cut uint16) {
		want, wantErr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(wire)))
		source := io.MultiReader(bytes.NewReader(wire[:min(int(cut), len(wire))]), bytes.NewReader(wire[min(int(cut), len(wire)):]))
		got, _, err := unchunk(source, max(1, int(size)))
		if wantErr != nil && errors.Is(err, errChunkLength) { // a length beyond all bounds is not waited for
			want = want[:min(len(want), len(got))]
		}
		if got != string(want) {
			t.Fatalf("%q instead of %q", got, want)
		}
		// httputil's reader stops before the trailer.
		if wantErr != nil && err == nil {
			t.Fatalf("no error instead of %v", wantErr)
		}
		if inTrailer := errors.Is(err, errTrailer) || errors.Is(err, errTrailerSize) || errors.Is(err, io.ErrUnexpectedEOF); wantErr == nil && err != nil && !inTrailer {
			t.Fatalf("%v instead of none", err)
		}
	})
}

// inChunks is a body in chunks of 16 KiB, as they come from Google: a TLS record each.
func inChunks(body string) []byte {
	var wire bytes.Buffer
	w := httputil.NewChunkedWriter(&wire)
	for len(body) > 0 {
		n := min(16<<10, len(body))
		_, _ = io.WriteString(w, body[:n])
		body = body[n:]
	}
	_ = w.Close()
	wire.WriteString("\r\n")
	return wire.Bytes()
}

// BenchmarkChunked compares the reader with net/http's. What it is for does not show
// here, but in the number of reads: each is a system call.
func BenchmarkChunked(b *testing.B) {
	const size = 6 << 20
	wire := inChunks(strings.Repeat("a", size))
	for _, c := range []struct {
		name string
		open func(r *bufio.Reader) io.Reader
	}{
		{"own", func(r *bufio.Reader) io.Reader { return &chunkedBody{source: r} }},
		{"net_http", func(r *bufio.Reader) io.Reader { return httputil.NewChunkedReader(r) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(size)
			source := &countingReader{}
			in := bufio.NewReaderSize(source, readBuffer)
			buf := make([]byte, copyBuffer)
			for b.Loop() {
				source.Reader = bytes.NewReader(wire)
				in.Reset(source)
				body := c.open(in)
				for n := 1; n > 0; {
					n, _ = io.ReadFull(body, buf)
				}
			}
			b.ReportMetric(float64(source.reads)/float64(b.N), "reads/op")
		})
	}
}

// countingReader counts reads.
type countingReader struct {
	io.Reader
	reads int
}

func (r *countingReader) Read(p []byte) (int, error) {
	r.reads++
	return r.Reader.Read(p)
}
