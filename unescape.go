// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// unescaper undoes the escapes of a JSON string that comes in pieces, however
// they are cut. What is no escape stays as it is.
type unescaper struct {
	to     *bufio.Writer       // never fails
	escape [len(`\u0000`)]byte // the one that has begun
	length int                 // of what is there of it
	high   rune                // the first half of a surrogate pair, whose second is due
}

// newUnescaper gathers what is between escapes: some clients escape every
// slash, which base64 is full of. Longer pieces go to the writer as they are.
func newUnescaper(to io.Writer) unescaper { return unescaper{to: bufio.NewWriterSize(to, 1<<10)} }

// write takes the next piece. Most have no escape, base64 least of all.
func (u *unescaper) write(p []byte) {
	for len(p) > 0 {
		if u.length == 0 && p[0] != '\\' {
			plain := bytes.IndexByte(p, '\\')
			if plain < 0 {
				plain = len(p)
			}
			u.endPair()
			_, _ = u.to.Write(p[:plain])
			p = p[plain:]
			continue
		}
		u.escape[u.length] = p[0]
		u.length++
		p = p[1:]
		if u.length == len(u.escape) || u.length == 2 && u.escape[1] != 'u' {
			u.decode()
		}
	}
}

// end ends the string, and makes ready for another.
func (u *unescaper) end() {
	u.endPair()
	_, _ = u.to.Write(u.escape[:u.length])
	u.length = 0
	_ = u.to.Flush()
}

// decode writes what a complete escape stands for.
func (u *unescaper) decode() {
	escape := u.escape[:u.length]
	u.length = 0
	if escape[1] != 'u' {
		u.endPair()
		if i := strings.IndexByte(`"\/bfnrt`, escape[1]); i >= 0 {
			_ = u.to.WriteByte("\"\\/\b\f\n\r\t"[i])
			return
		}
		_, _ = u.to.Write(escape)
		return
	}
	code, err := strconv.ParseUint(string(escape[2:]), 16, 16)
	r := rune(code)
	switch pair := utf16.DecodeRune(u.high, r); {
	case err != nil:
		u.endPair()
		_, _ = u.to.Write(escape)
	case pair != utf8.RuneError:
		u.high = 0
		_, _ = u.to.WriteRune(pair)
	case utf16.IsSurrogate(r) && r < 0xDC00:
		u.endPair()
		u.high = r
	default:
		u.endPair()
		_, _ = u.to.WriteRune(r) // a lone second half is replaced, too
	}
}

// endPair replaces the half of a pair that is not followed by the other one,
// as encoding/json does.
func (u *unescaper) endPair() {
	if u.high != 0 {
		u.high = 0
		_, _ = u.to.WriteRune(utf8.RuneError)
	}
}
