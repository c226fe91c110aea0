// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// placeOf is where the only occurrence of a text is in a body.
func placeOf(t testing.TB, body, text string) span {
	t.Helper()
	if strings.Count(body, text) != 1 {
		t.Fatalf("%q is there %d times", text, strings.Count(body, text))
	}
	at := int64(strings.Index(body, text))
	return span{at, at + int64(len(text))}
}

func TestLayout(t *testing.T) {
	const body = `{"text":"a\u00e4\"","other":"é","image":"_-8\u003d","bytes":"XYZW"}`
	b := keptBody(t, body)
	text, other := passage{span: placeOf(t, body, `"a\u00e4\""`)}, passage{span: placeOf(t, body, `"é"`)}
	image, plain := placeOf(t, body, `_-8\u003d`), placeOf(t, body, "XYZW")
	edits := []edit{{text.at, int(text.end - text.at), []byte(`"new"`)}}
	tests := map[string]struct {
		edits    []edit
		write    func(l *layout)
		want     string
		segments int
		length   int64
	}{
		"nothing":          {nil, func(*layout) {}, "", 0, 0},
		"literals":         {nil, func(l *layout) { l.write("a"); l.write(""); l.write("bc") }, "abc", 1, 3},
		"quoted":           {nil, func(l *layout) { l.quote(text); l.quote(other) }, `"a\u00e4\"""é"`, 2, 15},
		"edited":           {edits, func(l *layout) { l.write("["); l.quote(text); l.write(","); l.quote(other); l.write("]") }, `["new","é"]`, 3, 12},
		"literal passage":  {[]edit{{0, 1, []byte("x")}}, func(l *layout) { l.write("["); l.quote(passage{text: "<a>\"\n"}) }, `["<a>\"\n"`, 1, 10},
		"empty passage":    {nil, func(l *layout) { l.quote(passage{}) }, `""`, 1, 2},
		"copied":           {nil, func(l *layout) { l.copy(image); l.copy(span{5, 5}); l.write("|"); l.copy(image) }, `_-8\u003d|_-8\u003d`, 3, 19},
		"encoded":          {nil, func(l *layout) { l.encode(plain); l.write("|"); l.encode(span{plain.at, plain.at + 3}) }, "WFlaVw==|WFla", 3, 13},
		"encoded, nothing": {nil, func(l *layout) { l.encode(span{}) }, "", 0, 0},
		"decoded":          {nil, func(l *layout) { l.write("<"); l.decode(image); l.write(">"); l.decode(plain) }, "<\xff\xef>\x5d\x86\x56", 4, -1},
		"an image":         {nil, func(l *layout) { l.base64(&briefImage{data: image}); l.base64(&briefImage{data: plain, isPlain: true}) }, "/+8=XYZW", 2, -1},
		"a file":           {nil, func(l *layout) { l.base64(&briefImage{data: plain, isBinary: true}) }, "WFlaVw==", 1, 8},
		"bytes of either": {nil, func(l *layout) {
			l.binary(&briefImage{data: image})
			l.binary(&briefImage{data: plain, isBinary: true})
		}, "\xff\xefXYZW", 2, -1},
		"literal of its own": {nil, func(l *layout) { l.write("a"); l.copy(plain); l.write("b") }, "aXYZWb", 3, 6},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLayout("application/json", tt.edits)
			tt.write(l)
			if len(l.segments) != tt.segments || l.length() != tt.length || l.contentType != "application/json" {
				t.Errorf("%d segments, length() = %d, %q", len(l.segments), l.length(), l.contentType)
			}
			if err := checkReader(b.laidOut(l), tt.want); err != nil {
				t.Error(err)
			}
			if n, err := b.lengthOf(l); n != int64(len(tt.want)) || err != nil {
				t.Errorf("lengthOf() = %d, %v", n, err)
			}
		})
	}
}

// Each of many edits finds its own passage.
func TestLayoutEdits(t *testing.T) {
	body := strings.Repeat(`"old"`, 50)
	var edits []edit
	var want strings.Builder
	for i := range 50 {
		if i%3 == 0 {
			edits = append(edits, edit{int64(i * 5), 5, fmt.Appendf(nil, `"%d"`, i)})
			fmt.Fprintf(&want, `"%d"`, i)
			continue
		}
		want.WriteString(`"old"`)
	}
	l := newLayout("", edits)
	for at := int64(0); at < int64(len(body)); at += 5 {
		l.quote(passage{span: span{at, at + 5}})
	}
	if err := checkReader(keptBody(t, body).laidOut(l), want.String()); err != nil || l.length() != int64(want.Len()) {
		t.Errorf("length() = %d: %v", l.length(), err)
	}
}

func TestBodyText(t *testing.T) {
	long := strings.Repeat("long ", 2000)
	body := `{"a":"say \"hi\" \u00e4\ud83d\ude00\/","b":"","c":"` + long + `"}`
	b := keptBody(t, body)
	at := func(text string) passage { return passage{span: placeOf(t, body, text)} }
	first, empty, last := at(`"say \"hi\" \u00e4\ud83d\ude00\/"`), at(`""`), at(`"`+long+`"`)
	edits := []edit{{first.at, int(first.end - first.at), []byte(`"caf\u00e9"`)}}
	tests := map[string]struct {
		passage passage
		edits   []edit
		limit   int
		want    string // "" with an error: errLongText
		fits    bool
	}{
		"unescaped":           {first, nil, 16, `say "hi" ä😀/`, true},
		"just too long":       {first, nil, 15, "", false},
		"edited":              {first, edits, 5, "café", true},
		"edited, too long":    {first, edits, 4, "", false},
		"another is edited":   {last, edits, len(long), long, true},
		"empty":               {empty, nil, 0, "", true},
		"long":                {last, nil, len(long), long, true},
		"much too long":       {last, nil, 5000, "", false},
		"no part of the body": {passage{text: "plain"}, []edit{{0, 1, []byte(`"x"`)}}, 5, "plain", true},
		"likewise, too long":  {passage{text: "plain"}, nil, 4, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := b.text(tt.passage, tt.edits, tt.limit)
			if got != tt.want || errors.Is(err, errLongText) == tt.fits || err != nil && tt.fits {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	b.release()
	if got, err := b.text(first, nil, 100); got != "" || !errors.Is(err, errReleased) {
		t.Errorf("after the end of the call: %q, %v", got, err)
	}
}
