// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// collected is the answer that is made of the elements of several.
func collected(parts ...io.Reader) io.Reader {
	x := &exchange{attempt: &attempt{facts: facts{usage: usage{input: 10, output: 5, thinking: 1}, inputImage: 4}}, arrived: time.Unix(1760000000, 0)}
	next := func() io.ReadCloser {
		if len(parts) == 0 {
			return nil
		}
		part := parts[0]
		parts = parts[1:]
		return io.NopCloser(part)
	}
	return newCollection(x, next(), next)
}

func TestCollection(t *testing.T) {
	const head, tail = `{"created":1760000000,"data":[`, `],"usage":{"input_tokens":10,"input_tokens_details":{"text_tokens":6,"image_tokens":4},"output_tokens":6,"total_tokens":16}}`
	for _, c := range []struct {
		name  string
		parts []string
		want  string
	}{
		{"nothing", []string{""}, ""},
		{"one", []string{"{1}"}, "{1}"},
		{"several", []string{"{1},{2}", "{3}"}, "{1},{2},{3}"},
		{"nothing first", []string{"", "{1}"}, "{1}"},
		{"nothing last", []string{"{1}", "", ""}, "{1}"},
		{"nothing between", []string{"{1}", "", "{2}"}, "{1},{2}"},
	} {
		for name, as := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with its end": iotest.DataErrReader,
		} {
			var parts []io.Reader
			for _, part := range c.parts {
				parts = append(parts, as(strings.NewReader(part)))
			}
			if got, err := io.ReadAll(iotest.OneByteReader(collected(parts...))); string(got) != head+c.want+tail || err != nil {
				t.Errorf("%s, %s: %v, %s\nwant %s", c.name, name, err, got, head+c.want+tail)
			}
		}
	}
	broken := errors.New("reset by peer")
	got, err := io.ReadAll(collected(strings.NewReader("{1}"), iotest.ErrReader(broken)))
	if string(got) != head+"{1}" || !errors.Is(err, broken) {
		t.Errorf("%v behind %s", err, got)
	}
}

// The first bytes of an image do not wait for more behind the envelope's.
func TestCollectionBeginsWithAnImage(t *testing.T) {
	buf := make([]byte, copyBuffer)
	n, err := collected(strings.NewReader("{1}")).Read(buf)
	if got := string(buf[:n]); !strings.HasSuffix(got, "[{1}") || err != nil {
		t.Errorf("%v, %s", err, got)
	}
}
