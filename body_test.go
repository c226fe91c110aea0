// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// boundedSource fails the test if it is read past its end, as net/http may
// block there.
type boundedSource struct {
	t    testing.TB
	text string
	step int // how much a Read returns
}

func (s *boundedSource) Read(p []byte) (int, error) {
	if s.text == "" {
		s.t.Error("read past the Content-Length")
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.text)
	s.text = s.text[n:]
	return n, nil
}

func (s *boundedSource) Close() error {
	s.t.Error("the client's body was closed")
	return nil
}

// bodyOf returns a requestBody without reading anything; a length of -1 is a
// chunked body.
func bodyOf(source io.Reader, length int64, encoding string, c completion, limit int64, keep bool) *requestBody {
	r := &http.Request{Header: http.Header{}, Body: io.NopCloser(source), ContentLength: length}
	if encoding != "" {
		r.Header.Set("Content-Encoding", encoding)
	}
	return newRequestBody(r, c, limit, keep)
}

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// padded makes a body longer than what is read ahead, by a member in front.
func padded(body string) string {
	long := strings.Repeat("0123456789abcdef", aheadSize/16+5000)
	return `{"contents":["` + long + `"]` + strings.Replace(strings.TrimPrefix(body, "{"), `"`, `,"`, 1)
}

const testLimit = 128 << 20

func TestRequestBody(t *testing.T) {
	const (
		set  = `"safetySettings":[` + settingsJSON + `],"generationConfig":{"responseModalities":["IMAGE"]}`
		tail = `{"safetySettings":[{"category":7}],"x":{"generationConfig":1}}`
	)
	bodies := map[string]string{
		"short":                 `{"contents":[]}`,
		"short, complete":       `{` + set + `}`,
		"flat no more":          `{"contents":["` + strings.Repeat("y", flatBody) + `"]}`,
		"long":                  padded(tail),
		"long, complete":        padded(`{` + set + `}`),
		"long, settings first":  `{` + set + `,` + padded(`{"x":1}`)[1:],
		"long, all held back":   `{"generationConfig":{},"safetySettings":null,` + padded(`{"x":1}`)[1:],
		"long, none held after": `{"pad":"` + strings.Repeat("p", 600_000) + `","safetySettings":[],"pad":"` + strings.Repeat("p", 600_000) + `",` + set + `,"y":[` + strings.Repeat("1,", 50_000) + `2]}`,
		"no object":             `[` + padded(`{"x":1}`) + `]`,
	}
	for name, body := range bodies {
		slots, _, err := runCompleter(t, body, testCompletion, len(body))
		if err != nil {
			t.Fatal(name, err)
		}
		want := applyEdits(body, editsOf(slots, rendering{}))
		for _, step := range []int{1009, 1 << 20} {
			for _, form := range []string{"length", "chunked", "gzip", "gzip, chunked"} {
				t.Run(fmt.Sprintf("%s, %s, by %d", name, form, step), func(t *testing.T) {
					text, encoding := body, ""
					if strings.HasPrefix(form, "gzip") {
						text, encoding = gzipped(t, body), "X-Gzip"
					}
					var source io.Reader = &boundedSource{t, text, step}
					length := int64(len(text))
					if strings.HasSuffix(form, "chunked") {
						source, length = strings.NewReader(text), -1
					}
					b := bodyOf(source, length, encoding, testCompletion, testLimit, false)
					defer b.release()
					if err := b.readAhead(); err != nil {
						t.Fatal(err)
					}
					if isShort := len(body) <= aheadSize; b.complete() != isShort || b.replayable() != isShort {
						t.Errorf("complete() = %t, replayable() = %t", b.complete(), b.replayable())
					}
					if b.decoded() != (encoding != "") {
						t.Errorf("decoded() = %t", b.decoded())
					}
					wantLength := int64(-1)
					if b.keep || name == "no object" && form == "length" {
						wantLength = int64(len(want))
					}
					if b.length(rendering{}) != wantLength {
						t.Errorf("length() = %d, want %d", b.length(rendering{}), wantLength)
					}
					if (b.getBody(rendering{}) != nil) != b.keep {
						t.Errorf("getBody() is there: %t", b.getBody(rendering{}) != nil)
					}
					if err := checkReader(b.reader(rendering{}), want); err != nil {
						t.Error(err)
					}
					if b.err() != nil {
						t.Error(b.err())
					}
					if !b.keep && !b.held.isEmpty() {
						t.Errorf("%d chunks are left", len(b.held.chunks))
					}
					if b.keep {
						again, err := b.getBody(rendering{})()
						if err != nil {
							t.Fatal(err)
						}
						if got, err := io.ReadAll(again); err != nil || string(got) != want {
							t.Errorf("the second time: %v, %s", err, shorten(string(got)))
						}
					}
				})
			}
		}
	}
}

// checkReader reads a body in pieces that divide no buffer.
func checkReader(r io.Reader, want string) error {
	if len(want) < 1000 {
		return iotest.TestReader(r, []byte(want))
	}
	var got strings.Builder
	_, err := io.CopyBuffer(&got, struct{ io.Reader }{r}, make([]byte, 997))
	if err == nil && got.String() != want {
		err = fmt.Errorf("got %d bytes, want %d: %s", got.Len(), len(want), shorten(got.String()))
	}
	return err
}

func shorten(s string) string { return s[:min(len(s), 200)] }

// TestRequestBodyUntouched forwards byte for byte, with its Content-Length,
// what needs no edit.
func TestRequestBodyUntouched(t *testing.T) {
	long := padded(`{"generationConfig":{"imageConfig":{}}}`)
	tests := map[string]struct {
		body, encoding string
		asked          completion
		want           wants
	}{
		"nothing asked":         {`{"generationConfig":{"imageConfig":{}}}`, "", completion{}, wants{images: true, imagesAlone: true}},
		"nothing asked, long":   {long, "", completion{}, wants{images: true, imagesAlone: true}},
		"no JSON":               {`{"stream":true,`, "", completion{}, wants{stream: true}},
		"no JSON, long":         {`{"stream":true,,` + long, "", completion{}, wants{stream: true}},
		"no JSON, late":         {long + "}", "", completion{}, wants{images: true, imagesAlone: true}},
		"empty":                 {"", "", completion{}, wants{}},
		"gzip":                  {gzipped(t, `{"stream":true}`), "gzip", completion{}, wants{stream: true}},
		"not really gzip":       {"{}", "gzip", completion{}, wants{}},
		"other encoding":        {"\x0b\x02\x80{}\x03", "br", testCompletion, wants{}},
		"two encodings":         {gzipped(t, gzipped(t, `{}`)), "gzip, gzip", testCompletion, wants{}},
		"array":                 {`[{"safetySettings":null}]`, "", testCompletion, wants{}},
		"complete, then broken": {`{"safetySettings":[` + settingsJSON + `],"generationConfig":{"responseModalities":["TEXT"]},` + long, "", testCompletion, wants{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := bodyOf(&boundedSource{t, tt.body, 1000}, int64(len(tt.body)), tt.encoding, tt.asked, testLimit, false)
			defer b.release()
			if err := b.readAhead(); err != nil {
				t.Fatal(err)
			}
			if b.length(rendering{}) != int64(len(tt.body)) || b.decoded() {
				t.Errorf("length() = %d, want %d; decoded() = %t", b.length(rendering{}), len(tt.body), b.decoded())
			}
			got, err := io.ReadAll(b.reader(rendering{}))
			if err != nil || string(got) != tt.body {
				t.Errorf("%v, got %s", err, shorten(string(got)))
			}
			if got := b.wants(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("wants %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRequestBodyFailures(t *testing.T) {
	errClient := errors.New("connection reset")
	long := padded(`{"x":1}`)
	zipped := gzipped(t, long)
	text := func(s string) io.Reader { return strings.NewReader(s) }
	tests := map[string]struct {
		source   io.Reader
		length   int64
		encoding string
		limit    int64
		want     error
		offset   int64 // of a *jsonError
	}{
		"declared too large":      {iotest.ErrReader(errors.New("was read")), 101, "", 100, errTooLarge, 0},
		"too large":               {text(`["` + strings.Repeat("x", 98)), -1, "", 99, errTooLarge, 0},
		"too large, long":         {text(long), -1, "", int64(len(long)) - 1, errTooLarge, 0},
		"too large, zipped, long": {text(gzipped(t, long)), -1, "gzip", int64(len(long)) - 1, errTooLarge, 0},
		"cut off":                 {text(`{"a":`), 10, "", 100, io.ErrUnexpectedEOF, 0},
		"cut off, long":           {text(long), int64(len(long)) + 1, "", testLimit, io.ErrUnexpectedEOF, 0},
		"cut off, zipped":         {text(gzipped(t, `{}`)[:15]), 20, "gzip", 100, io.ErrUnexpectedEOF, 0},
		"broken off":              {io.MultiReader(text(`{"a":`), iotest.ErrReader(errClient)), -1, "", 100, errClient, 0},
		"broken off, zipped":      {io.MultiReader(text(gzipped(t, `{}`)[:15]), iotest.ErrReader(errClient)), -1, "gzip", 100, errClient, 0},
		"empty":                   {text(``), 0, "", 100, errMalformed, 0},
		"empty, chunked":          {text(``), -1, "", 100, errMalformed, 0},
		"empty, zipped":           {text(``), 0, "gzip", 100, errMalformed, 0},
		"malformed":               {text(`{"a":1,}`), 8, "", 100, errMalformed, 7},
		"malformed, late":         {text(long + "}"), -1, "", testLimit, errMalformed, int64(len(long))},
		"truncated, late":         {text(long[:len(long)-1]), -1, "", testLimit, errMalformed, int64(len(long)) - 1},
		"no gzip":                 {text(`{"a":1}`), 7, "gzip", 100, errMalformed, 0},
		"truncated gzip":          {text(gzipped(t, `{"a":1}`)[:25]), 25, "gzip", 100, errMalformed, 7},
		"corrupt gzip, late":      {text(zipped[:len(zipped)*3/4] + strings.Repeat("\xff", 9000)), -1, "gzip", testLimit, errMalformed, -1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := bodyOf(tt.source, tt.length, tt.encoding, testCompletion, tt.limit, false)
			defer b.release()
			err := b.readAhead()
			if strings.HasSuffix(name, "late") && err == nil || strings.HasSuffix(name, "long") && err == nil {
				_, err = io.Copy(io.Discard, b.reader(rendering{}))
			}
			if !errors.Is(err, tt.want) || b.err() != err {
				t.Fatalf("got %v, want %v; err() is %v", err, tt.want, b.err())
			}
			var malformed *jsonError
			if errors.As(err, &malformed) != (tt.want == errMalformed) {
				t.Fatalf("got %v", err)
			}
			if malformed != nil && tt.offset >= 0 && malformed.offset != tt.offset {
				t.Errorf("offset %d, want %d", malformed.offset, tt.offset)
			}
			if _, again := b.reader(rendering{}).Read(make([]byte, 1)); again != err {
				t.Errorf("the next read fails with %v", again)
			}
		})
	}
}

// TestRequestBodyEditsInOrder decides an edit before one that stands in front.
func TestRequestBodyEditsInOrder(t *testing.T) {
	const body = `{"safetySettings":[],"model":"a"}`
	asked := completion{safety: testSafety, renames: true}
	other := rendering{model: func(string) string { return "b" }}
	// The last bytes may come with io.EOF.
	source := iotest.DataErrReader(iotest.OneByteReader(strings.NewReader(body)))
	b := bodyOf(source, int64(len(body)), "", asked, testLimit, false)
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(b.reader(other))
	if want := `{"safetySettings":[` + settingsJSON + `],"model":"b"}`; err != nil || string(got) != want {
		t.Errorf("%v, got %s, want %s", err, got, want)
	}
}

// endless is a request of any size that is made as it is read.
type endless struct {
	head, tail string
	left       int64 // of the filling
	read       func()
}

func (e *endless) Read(p []byte) (int, error) {
	e.read()
	switch {
	case e.head != "":
		n := copy(p, e.head)
		e.head = e.head[n:]
		return n, nil
	case e.left > 0:
		n := int(min(int64(len(p)), e.left))
		for i := range p[:n] {
			p[i] = 'x'
		}
		e.left -= int64(n)
		return n, nil
	case e.tail != "":
		n := copy(p, e.tail)
		e.tail = e.tail[n:]
		return n, nil
	}
	return 0, io.EOF
}

// TestRequestBodyStreams sends bodies that never are in memory as a whole.
func TestRequestBodyStreams(t *testing.T) {
	added := settingsJSON + `],"generationConfig":{"responseModalities":[` + modalitiesJSON + `]}}`
	tests := map[string]struct {
		size       int64 // of the filling
		head, tail string
		encoding   string
		asked      completion
		sentTail   string
		added      int // to the head
	}{
		"completed": {100_000_000, `{"contents":["`, `"],"safetySettings":[]}`, "", testCompletion, `"],"safetySettings":[` + added, 0},
		"settings first": {
			100_000_000, `{"generationConfig":{},"safetySettings":null,"contents":["`, `"]}`, "", testCompletion, `"]}`,
			len(`"responseModalities":[`+modalitiesJSON+`]`+`[`+settingsJSON+`]`) - len("null"),
		},
		"nothing asked":  {10_000_000, `{"contents":["`, `"]}`, "", completion{}, `"]}`, 0},
		"no JSON":        {10_000_000, `contents=`, `;`, "", completion{}, `;`, 0},
		"other encoding": {10_000_000, ``, `.`, "br", testCompletion, `.`, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var b *requestBody
			var peak int64
			source := &endless{head: tt.head, left: tt.size, tail: tt.tail, read: func() {
				peak = max(peak, b.held.memory)
			}}
			b = bodyOf(source, -1, tt.encoding, tt.asked, testLimit, false)
			if err := b.readAhead(); err != nil {
				t.Fatal(err)
			}
			var tail bytes.Buffer
			n, err := io.Copy(io.MultiWriter(io.Discard, &lastBytes{&tail}), io.LimitReader(b.reader(rendering{}), 2*tt.size))
			if want := tt.size + int64(len(tt.head)+tt.added+len(tt.sentTail)); err != nil || n != want {
				t.Errorf("sent %d bytes, want %d: %v", n, want, err)
			}
			if !strings.HasSuffix(tail.String(), "x"+tt.sentTail) {
				t.Errorf("ends in %q", tail.String())
			}
			if peak > aheadSize+maxWithheld+2*largeChunk {
				t.Errorf("held %d bytes", peak)
			}
			if !b.held.isEmpty() {
				t.Error("not all buffers went back")
			}
		})
	}
}

// lastBytes keeps the last thousand bytes or so.
type lastBytes struct{ *bytes.Buffer }

func (l *lastBytes) Write(p []byte) (int, error) {
	n, _ := l.Buffer.Write(p[max(0, len(p)-1000):])
	l.Next(max(0, l.Len()-1000))
	return max(n, len(p)), nil
}
