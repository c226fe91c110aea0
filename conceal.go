// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// conceal puts asterisks in the place of the credentials that a call was sent with,
// because some servers quote them in their errors. The length stays.
func conceal(text []byte, sent *http.Request) {
	for _, secret := range credentialsOf(sent) {
		copy(text, bytes.ReplaceAll(text, []byte(secret), bytes.Repeat([]byte("*"), len(secret))))
	}
}

// credentialsOf are what proved who was calling. A word such as "any" is no secret,
// and may stand in an answer for other reasons.
func credentialsOf(sent *http.Request) []string {
	if sent == nil { // some transports do not say
		return nil
	}
	all := append(make([]string, 0, 1+len(credentialHeaders)), keyIn(sent.URL.RawQuery))
	for _, name := range credentialHeaders {
		all = append(all, bearer(sent.Header.Get(name)))
	}
	return slices.DeleteFunc(all, func(secret string) bool { return len(secret) < shortestSecret })
}

const shortestSecret = 8

// concealIn is conceal for an answer that is forwarded: for its headers, and for its
// body if it is an error.
func concealIn(res *http.Response, sent *http.Request) {
	concealInHeaders(res, sent)
	if res.StatusCode < http.StatusBadRequest {
		return
	}
	_, _ = readHead(res, sent)
}

// maxErrorBody is how much of an error is read to understand it; Google's are
// at most a few kilobytes.
const maxErrorBody = 64 << 10

// readHead reads the beginning of an error, which stays in front of the rest: with
// asterisks for credentials, unless sent is nil.
func readHead(res *http.Response, sent *http.Request) (head []byte, err error) {
	body := decoded(res)
	head, err = io.ReadAll(io.LimitReader(body, maxErrorBody))
	conceal(head, sent)
	rest := io.Reader(body)
	if err != nil {
		rest = failing{err}
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), body}
	return head, err
}

// concealInHeaders is conceal for the headers of an answer.
func concealInHeaders(res *http.Response, sent *http.Request) {
	secrets := credentialsOf(sent)
	for _, values := range res.Header {
		for i := range values {
			for _, secret := range secrets {
				values[i] = strings.ReplaceAll(values[i], secret, strings.Repeat("*", len(secret)))
			}
		}
	}
}

// failing is what cannot be read.
type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// keyLike is what may be a key that stands in the wrong place.
var keyLike = regexp.MustCompile(`[A-Za-z0-9_-]{30,}`)

// shown is a word of the configuration as errors show it.
func shown(word string) string {
	if keyLike.MatchString(word) {
		return "(what may be a key)"
	}
	return strconv.Quote(word)
}

// quoted finds what the errors of net/http repeat of an answer that they do not
// understand.
var quoted = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"`)

// unquoted is an error as it can be logged: without the words of an upstream, which
// may be those of the request.
type unquoted struct{ error }

func (u unquoted) Error() string { return quoted.ReplaceAllString(u.error.Error(), "…") }

func (u unquoted) Unwrap() error { return u.error }

// asWord makes sure that what an upstream calls a reason is one word: it goes
// into header fields, metrics and logs. Of a sentence, which may quote what was
// asked, the first word is taken.
func asWord(s string) string {
	s = firstWord(s)
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, s[:min(len(s), 64)])
}

// firstWord is all that is taken of what should be a name.
func firstWord(s string) string {
	for word := range strings.FieldsSeq(s) {
		return word
	}
	return ""
}
