// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

var marks = regexp.MustCompile(`soak-(\d{7})\.(\d{3})`)

// read understands an answer, and looks whether it is what the upstream has sent
// for this call.
func (r *result) read(c *call, q question, body []byte) {
	r.findOwner(c, body)
	switch {
	case r.status != http.StatusOK:
		r.readError(q, body)
	case q.form == formOther:
		if want := expectedEcho(c, q); string(body) != want {
			r.flaw = fmt.Sprintf("got %q instead of %q", shortened(body), want)
		}
	case bytes.Contains(body[max(0, len(body)-8*kB):], []byte(`"error":{`)):
		r.readLate(q, body)
	case q.form.isGoogles() && c.scenario.site != siteTranslating:
		r.readExactly(c, q, body)
	case !r.isCut:
		r.readImages(c, q, body)
	}
}

func expectedEcho(c *call, q question) string {
	if q.path == elsewhere {
		return "elsewhere"
	}
	return echo(c)
}

// findOwner reads whose answer it is, and notes what belongs to another call.
func (r *result) findOwner(c *call, body []byte) {
	for _, end := range [][]byte{body[:min(len(body), 2*kB)], body[max(0, len(body)-2*kB):]} {
		for _, m := range marks.FindAllSubmatch(end, -1) {
			number, _ := strconv.Atoi(string(m[1]))
			visit, _ := strconv.Atoi(string(m[2]))
			if number != c.number {
				r.flaw = "the answer has words of " + callName(number)
			}
			r.owner = imageID{number, visit}
		}
	}
}

// readError reads the reason of an error: in an answer of its own, code and
// status are the same (wire §8).
func (r *result) readError(q question, body []byte) {
	e := gjson.GetBytes(body, "error")
	r.reason = reasonOf(e)
	switch {
	case !gjson.ValidBytes(body) || r.reason == "":
		r.flaw = fmt.Sprintf("an error that is none: %d %q", r.status, shortened(body))
	case !q.form.isOpenAI() && int(e.Get("code").Int()) != r.status:
		r.flaw = fmt.Sprintf("status %d with code %s", r.status, e.Get("code"))
	}
}

func (f form) isOpenAI() bool { return f == formImages || f == formChat || f == formChatEvents }

func reasonOf(e gjson.Result) string {
	if reason := e.Get("details.0.reason").Str; reason != "" {
		return reason
	}
	if code := e.Get("code"); code.Type == gjson.String {
		return code.Str
	}
	return e.Get("status").Str
}

// readLate reads an error inside a stream, which has to be told in all the ways
// that clients understand.
func (r *result) readLate(q question, body []byte) {
	text := string(body)
	switch q.form {
	case formArray:
		all := gjson.Parse(text)
		if !gjson.Valid(text) || !all.IsArray() {
			r.flaw = "the array is no longer JSON"
		}
		r.late = reasonOf(all.Get("@reverse.0.error"))
	case formEvents:
		_, event, hasEvent := strings.Cut(text, `data: {"error":`)
		_, bare, hasBare := strings.Cut(event, "\r\n\r\n{\"error\":")
		if !hasEvent || !hasBare {
			r.flaw = "the error of a stream is not told twice"
			return
		}
		r.late = reasonOf(gjson.Parse(bare))
	default:
		r.flaw = "an unexpected error in the answer: " + shortened(body[max(0, len(body)-200):])
	}
}

// readExactly compares an answer that has to be the upstream's, byte by byte.
func (r *result) readExactly(c *call, q question, body []byte) {
	length, rest := len(body), body
	for _, want := range picture(q.form, r.owner, c.size).pieces {
		n := min(len(rest), len(want))
		if string(rest[:n]) != want[:n] || n < len(want) && !r.isCut {
			r.flaw = fmt.Sprintf("an answer of %d bytes is not the upstream's: %s", length, difference(string(rest[:n]), want))
			return
		}
		rest = rest[n:]
	}
	switch {
	case len(rest) > 0:
		r.flaw = fmt.Sprintf("there is more behind the answer: %q", shortened(rest))
	case c.size > 0 && !r.isCut:
		r.images = []imageID{r.owner}
	}
}

// readImages finds the images of an answer that has been translated.
func (r *result) readImages(c *call, q question, body []byte) {
	for _, data := range imagesIn(q.form, string(body)) {
		head, _ := base64.StdEncoding.DecodeString(data[:min(len(data), 40)])
		m := marks.FindSubmatch(head)
		if m == nil {
			r.flaw = "an image without a name"
			return
		}
		number, _ := strconv.Atoi(string(m[1]))
		visit, _ := strconv.Atoi(string(m[2]))
		id := imageID{number, visit}
		if number != c.number || data != image(id, c.size) {
			r.flaw = fmt.Sprintf("image %v is not what the upstream has drawn", id)
			return
		}
		r.images = append(r.images, id)
	}
	if q.form == formChatEvents && !strings.HasSuffix(strings.TrimSpace(string(body)), "data: [DONE]") {
		r.flaw = "a chat without its end"
	}
}

// imagePaths is where the images are in an object of each form.
var imagePaths = map[form]string{
	formUnary:      "candidates.0.content.parts.#.inlineData.data",
	formEvents:     "candidates.0.content.parts.#.inlineData.data",
	formImages:     "data.#.b64_json",
	formChat:       "choices.0.message.images.#.image_url.url",
	formChatEvents: "choices.0.delta.images.#.image_url.url",
}

func imagesIn(f form, body string) (all []string) {
	objects := []string{body}
	if f.isStream() {
		objects = nil
		for event := range strings.SplitSeq(strings.ReplaceAll(body, "\r\n", "\n"), "\n\n") {
			objects = append(objects, strings.TrimPrefix(event, "data: "))
		}
	}
	for _, o := range objects {
		for _, found := range gjson.Get(o, imagePaths[f]).Array() {
			data := found.Str
			if _, behind, isURL := strings.Cut(data[:min(len(data), 100)], ";base64,"); isURL {
				data = data[min(len(data), 100)-len(behind):]
			}
			all = append(all, data)
		}
	}
	return all
}

// difference shows where two answers part.
func difference(got, want string) string {
	n := min(len(got), len(want))
	at := 0
	for at < n && got[at] == want[at] {
		at++
	}
	part := func(s string) string { return s[max(0, min(at-20, len(s))):min(len(s), at+40)] }
	return fmt.Sprintf("at %d %q instead of %q", at, part(got), part(want))
}

func shortened(body []byte) string { return string(body[:min(len(body), 300)]) }
