// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// telling writes down what a scanner tells of.
type telling struct {
	lines []string
	pause bool
}

func (e *telling) open(f *field, key []byte, array bool, at int64) {
	e.lines = append(e.lines, fmt.Sprintf("open %d %s array=%t at %d", f.id, key, array, at))
}

func (e *telling) close(f *field, array, empty bool, at int64) bool {
	e.lines = append(e.lines, fmt.Sprintf("close %d array=%t empty=%t at %d", f.id, array, empty, at))
	return e.pause
}

func (e *telling) begin(f *field) { e.lines = append(e.lines, fmt.Sprintf("begin %d", f.id)) }

func (e *telling) scalar(f *field, key []byte, kind jsonKind, value []byte, start int64) {
	e.lines = append(e.lines, fmt.Sprintf("scalar %d %s kind=%d %q at %d", f.id, key, kind, value, start))
}

var testSchema = newSchema(map[string]field{
	"":            {id: 1},
	"longName":    {id: 2, keep: 8},
	"list":        {id: 3},
	"list[]":      {id: 4, keep: 8},
	"list[].name": {id: 5, keep: 8},
})

// scanAll scans a document in pieces and returns what was told.
func scanAll(document []byte, piece int) ([]string, error) {
	told := &telling{}
	s := jsonScanner{visitor: told, root: testSchema}
	for len(document) > 0 {
		n := min(piece, len(document))
		if _, err := s.write(document[:n]); err != nil {
			return told.lines, err
		}
		document = document[n:]
	}
	return told.lines, s.finish()
}

// withoutStrings makes all strings harmless, since the scanner does not look
// into them; it keeps every offset.
func withoutStrings(document []byte) []byte {
	plain := append([]byte{}, document...)
	inside := false
	for i := 0; i < len(plain); i++ {
		switch {
		case plain[i] == '"':
			inside = !inside
		case inside && plain[i] == '\\':
			plain[i] = 'x'
			if i++; i < len(plain) {
				plain[i] = 'x'
			}
		case inside:
			plain[i] = 'x'
		}
	}
	return plain
}

// checkGrammar compares a scanner's opinion with that of encoding/json.
func checkGrammar(t *testing.T, document []byte, piece int) {
	t.Helper()
	var value json.RawMessage
	var want *json.SyntaxError
	errors.As(json.Unmarshal(withoutStrings(document), &value), &want)
	_, err := scanAll(document, piece)
	var got *jsonError
	if err != nil && !errors.As(err, &got) {
		t.Fatalf("%q: %v is no *jsonError", document, err)
	}
	switch {
	case (want == nil) != (got == nil):
		t.Errorf("%q in pieces of %d: got %v, want %v", document, piece, got, want)
	case want == nil:
	case got.offset != int64(len(document)) && got.offset != want.Offset-1,
		got.offset == int64(len(document)) && want.Offset != got.offset:
		t.Errorf("%q in pieces of %d: %v, want %v (offset %d)", document, piece, got, want, want.Offset)
	}
}

// deep is how deep encoding/json goes.
const deep = 10_000

func TestJSONGrammar(t *testing.T) {
	documents := []string{
		"", " ", "{", "}", "[", "]", "{}", "[]", " { } ", "\t[\r\n]", "{}{}", "{} x", "[],", "[]]", "{]", "[}", "[{]}",
		`"`, `""`, `"a`, `"\""`, `"\\"`, `"\\\"`, `"\\\\"`, `"\`, `"a" "b"`,
		`{"a"}`, `{"a":}`, `{"a":1`, `{"a":1}`, `{"a":1,}`, `{"a":1 "b":2}`, `{"a":1,"b":[2,{"c":null}]}`, `{a:1}`, `{"a" :1}`,
		`{,}`, `{"a":1,,"b":2}`, `{"a"::1}`, `{1:2}`, `{"a":1,2}`, `[1,]`, `[,1]`, `[1 2]`, `[1,2]`, `[[[]]]`, `[[[]`, `:`, `,`,
		"true", "false", "null", "tru", "trues", "nul", "nulll", "True", "[true,false,null]", "[truefalse]", "t", "[t]", "nan",
		"0", "-0", "00", "01", "-01", "-", "+1", "1.", ".5", "1.5", "1.5.2", "1e5", "1E+5", "1e-5", "1e", "1e+", "1e5.2", "1-1",
		"[0]", "[-0.0e-0]", "[-]", "[1.]", "[1e]", "0x10", "1_000", "Infinity", "--1", "12 ", "1 2",
		"\ufeff{}", "\x00", "{\"a\":\x01}", "'a'", "/**/{}", "[1]//",
		strings.Repeat("[", deep) + strings.Repeat("]", deep),
		strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep),
	}
	for _, document := range documents {
		pieces := []int{1, 2, 3, 5, 7, 64, len(document) + 1}
		if len(document) < deep {
			for piece := 1; piece <= len(document); piece++ {
				pieces = append(pieces, piece)
			}
		}
		for _, piece := range pieces {
			checkGrammar(t, []byte(document), piece)
		}
	}
}

func TestJSONVisitor(t *testing.T) {
	long := strings.Repeat("x", maxKey)
	tests := map[string]struct {
		document string
		want     []string
	}{
		"scalars at the root": {`"a"`, []string{"begin 1", `scalar 1  kind=0 "" at 0`}},
		"number at the root":  {` 12`, []string{`scalar 1  kind=1 "12" at 1`}},
		"both spellings": {`{"longName":1,"long_name":null}`, []string{
			"open 1  array=false at 0", `scalar 2 longName kind=1 "1" at 12`, `scalar 2 long_name kind=4 "" at 26`,
			"close 1 array=false empty=false at 30",
		}},
		"escapes": {`{"l\u006fngName":"\u0061\"\ud83d\ude00"}`, []string{
			"open 1  array=false at 0", "begin 2", `scalar 2 longName kind=0 "a\"" at 17`,
			"close 1 array=false empty=false at 39",
		}},
		"short escapes": {`{"longName":"\u0061\n"}`, []string{
			"open 1  array=false at 0", "begin 2", "scalar 2 longName kind=0 \"a\\n\" at 12",
			"close 1 array=false empty=false at 22",
		}},
		"no such escape in a key": {`{"longName":"123456789","longName\q":1,"longName\u00":1}`, []string{
			"open 1  array=false at 0", "begin 2", `scalar 2 longName kind=0 "12345678" at 12`,
			"close 1 array=false empty=false at 55",
		}},
		"cut escape": {`{"longName":"123456\u0061"}`, []string{
			"open 1  array=false at 0", "begin 2", `scalar 2 longName kind=0 "123456" at 12`,
			"close 1 array=false empty=false at 26",
		}},
		"long string": {`{"longName":"123456789"}`, []string{
			"open 1  array=false at 0", "begin 2", `scalar 2 longName kind=0 "12345678" at 12`,
			"close 1 array=false empty=false at 23",
		}},
		"empty string": {`{"longName":""}`, []string{
			"open 1  array=false at 0", `scalar 2 longName kind=0 "" at 12`, "close 1 array=false empty=false at 14",
		}},
		"lists": {`{"list":[{"name":"a"},true,[{"name":"b"}]]}`, []string{
			"open 1  array=false at 0", "open 3 list array=true at 8", "open 4 list array=false at 9", "begin 5",
			`scalar 5 name kind=0 "a" at 17`, "close 4 array=false empty=false at 20", `scalar 4 name kind=2 "" at 22`,
			"open 4 name array=true at 27", "close 4 array=true empty=false at 40",
			"close 3 array=true empty=false at 41", "close 1 array=false empty=false at 42",
		}},
		"an object for a list": {`{"list":{"name":1}}`, []string{
			"open 1  array=false at 0", "open 3 list array=false at 8", "close 3 array=false empty=false at 17",
			"close 1 array=false empty=false at 18",
		}},
		"elsewhere": {`{"x":{"longName":1,"list":[]},"y":[{"longName":"{\"longName\":1}"}],"` + long + `longName":1}`, []string{
			"open 1  array=false at 0", fmt.Sprintf("close 1 array=false empty=false at %d", 80+maxKey),
		}},
		"empty": {`{ }`, []string{"open 1  array=false at 0", "close 1 array=false empty=true at 2"}},
	}
	for name, tt := range tests {
		for piece := 1; piece <= 64; piece++ {
			got, err := scanAll([]byte(tt.document), piece)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s in pieces of %d (%v)\n got %q\nwant %q", name, piece, err, got, tt.want)
				break
			}
		}
	}
}

// TestJSONPause reads documents that follow one another.
func TestJSONPause(t *testing.T) {
	const stream = ` {"longName":1} {}{"list":[]}`
	told := &telling{pause: true}
	s := jsonScanner{visitor: told, root: newSchema(map[string]field{"": {id: 1}})}
	var ends []int64
	for rest := []byte(stream); len(rest) > 0; {
		n, err := s.write(rest)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, s.offset)
		rest = rest[n:]
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
		s.reset()
	}
	if want := []int64{15, 18, int64(len(stream))}; !reflect.DeepEqual(ends, want) {
		t.Errorf("documents end at %v, want %v", ends, want)
	}
	if !s.untouched() {
		t.Error("touched after a reset")
	}
}

// Wherever a byte stands among others, it is looked at if it has to be.
func TestJSONBytesThatNeedALook(t *testing.T) {
	for _, other := range []byte{'a', ' ', '"', 0x7f, 0x80, 0xff} {
		for c := range 256 {
			for at := range 8 {
				eight := bytes.Repeat([]byte{other}, 8)
				eight[at] = byte(c)
				if got, want := needNoLook(binary.LittleEndian.Uint64(eight)), c >= ' ' && c != '\\'; got != want {
					t.Fatalf("%q: %t", eight, got)
				}
			}
		}
	}
}

// FuzzJSONScanner has the scanner agree with encoding/json on what JSON is,
// apart from the inside of strings, and with itself at any size of pieces.
func FuzzJSONScanner(f *testing.F) {
	for _, seed := range []string{
		`{"longName":"a\"b\\","list":[{"name":"\u0061"},1.5e-3,true,null]}`, `[-0.0E+1,{}]`, "tru", `{"a":1,}`, "\"\\", `"\\"x`,
	} {
		f.Add([]byte(seed), byte(1))
	}
	f.Fuzz(func(t *testing.T, document []byte, piece byte) {
		checkGrammar(t, document, int(piece)+1)
		told, err := scanAll(document, int(piece)+1)
		whole, wholeErr := scanAll(document, len(document)+1)
		if !reflect.DeepEqual(told, whole) || fmt.Sprint(err) != fmt.Sprint(wholeErr) {
			t.Errorf("%q in pieces of %d: %q, %v\nas a whole: %q, %v", document, piece, told, err, whole, wholeErr)
		}
	})
}

// scanWith scans a document in pieces of a size.
func scanWith(s *jsonScanner, document string, piece int) error {
	s.init(nil, nil)
	for at := 0; at < len(document); at += piece {
		if _, err := s.write([]byte(document[at:min(len(document), at+piece)])); err != nil {
			return err
		}
	}
	return s.finish()
}

func TestJSONDepth(t *testing.T) {
	for depth, want := range map[int]bool{maxDepth: true, maxDepth + 1: false} {
		err := scanWith(new(jsonScanner), strings.Repeat("[", depth)+strings.Repeat("]", depth), 1000)
		if (err == nil) != want {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

func TestStrictJSON(t *testing.T) {
	long := strings.Repeat("x", maxStrict)
	for document, offset := range map[string]int64{
		`"\"\\\/\b\f\n\r\t\u00e9\uFFFF"`: -1,
		`{"\u0061":"é \ud83d\ude00"}`:    -1,
		`"\x"`:                           2,
		`"\u12"`:                         5,
		`"\u12G4"`:                       5,
		"\"a\tb\"":                       2,
		"{\"a\n\":1}":                    3,
		"[\"ok\",\"\x00\"]":              7,
		`"` + long + `\x"`:               -1, // base64, not text
		`"\\x"`:                          -1,
		`["\u0000","\\","\u1"]`:          19,
	} {
		for _, piece := range []int{1, 2, 3, 5, 64, len(document)} {
			s := &jsonScanner{strict: true}
			err := scanWith(s, document, piece)
			got := int64(-1)
			if malformed, ok := errors.AsType[*jsonError](err); ok {
				got = malformed.offset
			}
			if got != offset {
				t.Errorf("%.40q in pieces of %d: %v, expected offset %d", document, piece, err, offset)
			}
		}
	}
}
