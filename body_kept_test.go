// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// stepped returns at most step bytes per Read.
func stepped(text string, step int) io.Reader {
	source := strings.NewReader(text)
	return readerFunc(func(p []byte) (int, error) { return source.Read(p[:min(len(p), step)]) })
}

// testRenderings are what attempts at one body may differ in.
var testRenderings = map[string]rendering{
	"as asked":      {},
	"no safety":     {omit: addedSafety},
	"no modalities": {omit: addedModalities},
	"as sent":       {omit: allAdditions},
	"other model":   {model: func(string) string { return "another-model" }},
	"model as is":   {model: func(model string) string { return model }, omit: addedSafety},
}

var keptCompletion = completion{safety: testSafety, modalities: []string{"TEXT", "IMAGE"}, renames: true}

// TestRequestBodyKept has attempts that end anywhere and others that begin again,
// each as its own rendering.
func TestRequestBodyKept(t *testing.T) {
	bodies := map[string]string{
		"short":     `{"model":"m","contents":[]}`,
		"in memory": padded(`{"model":"m","safetySettings":[{"category":7}],"y":1}`),
		"withheld":  `{"safetySettings":[],"model":"m","pad":"` + strings.Repeat("p", 900_000) + `"}`,
		"settled":   `{"model":"m","generationConfig":{},"safetySettings":null,` + padded(`{"x":1}`)[1:],
		"empty end": `{"pad":"` + strings.Repeat("p", aheadSize+mediumChunks) + `","model":"n"}`,
	}
	for name, body := range bodies {
		slots, _, err := runCompleter(t, body, keptCompletion, len(body))
		if err != nil {
			t.Fatal(name, err)
		}
		for _, step := range []int{4099, 1 << 20} {
			t.Run(fmt.Sprintf("%s by %d", name, step), func(t *testing.T) {
				b := bodyOf(stepped(body, step), int64(len(body)), "", keptCompletion, testLimit, true)
				defer b.release()
				if err := b.readAhead(); err != nil {
					t.Fatal(err)
				}
				if !b.replayable() {
					t.Fatal("cannot be sent again")
				}
				for stop := range int64(7) { // attempts, ever longer
					for as, d := range testRenderings {
						want := applyEdits(body, editsOf(slots, d))
						r := b.reader(d)
						n := stop * int64(len(want)) / 5
						var got strings.Builder
						if stop%2 == 0 {
							_, err = io.Copy(&got, io.LimitReader(r, n))
						} else {
							_, err = io.Copy(&limitedWriter{&got, n}, r)
						}
						if err != nil && !errors.Is(err, errEnough) || got.String() != want[:min(n, int64(len(want)))] {
							t.Fatalf("%s, %d bytes of %d: %v", as, n, len(want), err)
						}
						if length := b.length(d); length != int64(len(want)) && (b.complete() || length != -1) {
							t.Errorf("%s: length() = %d, want %d", as, length, len(want))
						}
						if r.Close() != nil {
							t.Error("close failed")
						}
						if b.size > flatBody {
							if _, err := r.Read(make([]byte, 1)); !errors.Is(err, errReleased) {
								t.Errorf("a closed reader returns %v", err)
							}
						}
					}
				}
				if !b.complete() || b.added() != allAdditions {
					t.Errorf("complete() = %t, added() = %d", b.complete(), b.added())
				}
				if got, err := io.ReadAll(b.content()); err != nil || string(got) != body {
					t.Errorf("content() differs: %v", err)
				}
			})
		}
	}
}

var errEnough = errors.New("enough")

// limitedWriter is a connection that breaks after n bytes.
type limitedWriter struct {
	w io.Writer
	n int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n, _ := l.w.Write(p[:min(l.n, int64(len(p)))])
	l.n -= int64(n)
	if n < len(p) {
		return n, errEnough
	}
	return n, nil
}

// TestRequestBodyReadAll reads what is not kept before it is sent, and tells
// what it is.
func TestRequestBodyReadAll(t *testing.T) {
	long := padded(`{"x":1}`)
	tests := map[string]struct {
		body, encoding string
		asked          completion
		isJSON         bool
		added          additions
	}{
		"JSON":            {long, "", testCompletion, true, allAdditions},
		"nothing asked":   {long, "", completion{}, true, 0},
		"safety is set":   {long[:len(long)-1] + `,"safetySettings":[` + settingsJSON + `]}`, "", testCompletion, true, addedModalities},
		"no JSON":         {long + "}", "", completion{}, false, 0},
		"cut off":         {long[:len(long)-1], "", completion{}, false, 0},
		"unzipped":        {gzipped(t, long), "gzip", testCompletion, true, allAdditions},
		"zipped":          {gzipped(t, long), "gzip", completion{}, false, 0},
		"other encoding":  {long, "br", testCompletion, false, 0},
		"array":           {"[" + long + "]", "", testCompletion, true, 0},
		"empty":           {"", "", completion{}, false, 0},
		"a few MB":        {`["` + strings.Repeat("x", 3_000_000) + `"]`, "", testCompletion, true, 0},
		"short, no JSON":  {"x=y", "", completion{}, false, 0},
		"short, all set":  {`{"safetySettings":[` + settingsJSON + `],"generationConfig":{"responseModalities":["TEXT"]}}`, "", testCompletion, true, 0},
		"short, asked":    {`{}`, "", testCompletion, true, allAdditions},
		"other additions": {`{}`, "", completion{safety: testSafety}, true, addedSafety},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := bodyOf(stepped(tt.body, 10_000), int64(len(tt.body)), tt.encoding, tt.asked, testLimit, false)
			defer b.release()
			for _, read := range []func() error{b.readAhead, b.readAll, b.readAhead, b.readAll} {
				if err := read(); err != nil {
					t.Fatal(err)
				}
			}
			if !b.complete() || !b.replayable() {
				t.Errorf("complete() = %t, replayable() = %t", b.complete(), b.replayable())
			}
			if b.isJSON() != tt.isJSON || b.added() != tt.added {
				t.Errorf("isJSON() = %t, added() = %d", b.isJSON(), b.added())
			}
			want := tt.body
			if name == "unzipped" {
				want = long
			}
			for range 2 {
				if got, err := io.ReadAll(b.content()); err != nil || string(got) != want {
					t.Errorf("content(): %v, %s", err, shorten(string(got)))
				}
			}
			n, err := io.Copy(io.Discard, b.reader(rendering{}))
			if err != nil || n != b.length(rendering{}) {
				t.Errorf("%d bytes of %d: %v", n, b.length(rendering{}), err)
			}
		})
	}
}

// TestRequestBodySentOnce refuses to send again what was dropped.
func TestRequestBodySentOnce(t *testing.T) {
	long := padded(`{"x":1}`)
	b := bodyOf(strings.NewReader(long), -1, "", testCompletion, testLimit, false)
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	if b.replayable() || b.getBody(rendering{}) != nil {
		t.Error("it can be sent again")
	}
	if _, err := io.Copy(io.Discard, b.reader(rendering{})); err != nil {
		t.Fatal(err)
	}
	if n, err := b.reader(rendering{}).Read(make([]byte, 9)); n > 0 || !errors.Is(err, errReleased) {
		t.Errorf("%d bytes, %v", n, err)
	}
	b.release()
	if err := b.readAll(); !errors.Is(err, errReleased) {
		t.Errorf("after the end of the call: %v", err)
	}
}

// TestShortBodiesTakeLittleMemory: a prompt waits for its image, and thousands may.
func TestShortBodiesTakeLittleMemory(t *testing.T) {
	const short = `{"contents":[{"parts":[{"text":"A lighthouse"}]}]}`
	for name, c := range map[string]struct {
		body, encoding string
		isChunked      bool
		most           int64
	}{
		"short":                {short, "", false, tinyChunk},
		"as long as the chunk": {short + strings.Repeat(" ", tinyChunk-len(short)), "", false, tinyChunk},
		"longer":               {short + strings.Repeat(" ", tinyChunk), "", false, chunkSize},
		"of unknown length":    {short, "", true, chunkSize},
		"longer when unzipped": {gzipped(t, short+strings.Repeat(" ", tinyChunk)), "gzip", false, tinyChunk + chunkSize},
	} {
		length := int64(len(c.body))
		if c.isChunked {
			length = -1
		}
		t.Run(name, func(t *testing.T) {
			b := bodyOf(iotest.DataErrReader(strings.NewReader(c.body)), length, c.encoding, keptCompletion, testLimit, true)
			defer b.release()
			if err := b.readAhead(); err != nil {
				t.Fatal(err)
			}
			if !b.complete() || b.held.memory != c.most {
				t.Errorf("%d bytes of memory, want %d", b.held.memory, c.most)
			}
		})
	}
}
