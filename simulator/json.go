// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// object is a JSON object whose members keep their order: Google's answers
// have one, and a gateway must not depend on another.
type object []member

type member struct {
	name  string
	value any
}

// array is a JSON array. Like object it holds strings, ints, bools, nil,
// blobs, data URLs, objects and arrays.
type array []any

// blob is a large binary value: head, then unit count times, then tail. It is
// written as base64 piece by piece, so that a 20 MB answer never exists as a
// whole, however many are under way.
type blob struct {
	head, unit []byte
	count      int
	tail       []byte
}

func (b blob) writeBase64(w io.Writer) {
	encoder := base64.NewEncoder(base64.StdEncoding, w)
	_, err := encoder.Write(b.head)
	for range b.count {
		if err != nil {
			return // w keeps the error
		}
		_, err = encoder.Write(b.unit)
	}
	_, _ = encoder.Write(b.tail)
	_ = encoder.Close()
}

// dataURL is a blob written as "data:<mime>;base64,…".
type dataURL struct {
	mime string
	blob blob
}

// printer writes JSON in Google's two layouts: two spaces of indentation for
// unary answers and array streams, one line with a space after each colon for
// SSE; or in OpenAI's for the latter, without the space. Errors stay in the
// bufio.Writer until it is flushed.
type printer struct {
	w      *bufio.Writer
	pretty bool
	tight  bool
}

func (p printer) print(value any) { p.value(value, 0) }

func (p printer) value(value any, depth int) {
	switch v := value.(type) {
	case object:
		p.list('{', '}', len(v), depth, func(i int) {
			p.string(v[i].name)
			_ = p.w.WriteByte(':')
			if !p.tight {
				_ = p.w.WriteByte(' ')
			}
			p.value(v[i].value, depth+1)
		})
	case array:
		p.list('[', ']', len(v), depth, func(i int) { p.value(v[i], depth+1) })
	case string:
		p.string(v)
	case int:
		_, _ = p.w.WriteString(strconv.Itoa(v))
	case bool:
		_, _ = p.w.WriteString(strconv.FormatBool(v))
	case nil:
		_, _ = p.w.WriteString("null")
	case blob:
		p.blob("", v)
	case dataURL:
		p.blob("data:"+v.mime+";base64,", v.blob)
	default:
		panic(fmt.Sprintf("BUG: no JSON for %T", v))
	}
}

func (p printer) list(open, shut byte, length, depth int, item func(int)) {
	_ = p.w.WriteByte(open)
	for i := range length {
		if i > 0 {
			_ = p.w.WriteByte(',')
		}
		p.newline(depth + 1)
		item(i)
	}
	if length > 0 {
		p.newline(depth)
	}
	_ = p.w.WriteByte(shut)
}

func (p printer) newline(depth int) {
	if !p.pretty {
		return
	}
	_ = p.w.WriteByte('\n')
	for range depth {
		_, _ = p.w.WriteString("  ")
	}
}

func (p printer) string(s string) {
	quoted, _ := json.Marshal(s) // cannot fail for a string
	_, _ = p.w.Write(quoted)
}

func (p printer) blob(prefix string, b blob) {
	_ = p.w.WriteByte('"')
	_, _ = p.w.WriteString(prefix)
	b.writeBase64(p.w)
	_ = p.w.WriteByte('"')
}
