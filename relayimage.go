// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"strings"
)

// imageWriter is told of an image and where it is: in base64, or at an address.
// Both come in pieces of JSON strings.
type imageWriter interface {
	beginImage(mime string)
	beginFile(mime string)
	data(raw []byte)
	endImage()
}

// unslashed is the beginning of an image or an address without the one escape that it
// may have: PHP and others escape slashes.
func unslashed(raw []byte) string { return strings.ReplaceAll(string(raw), `\/`, "/") }

// imageReader reads a string that is an image: base64, a data URL, or the address
// of a file. Providers mix them up, so that its beginning decides.
type imageReader struct {
	to    imageWriter
	state imageState
	isURL bool   // what is neither base64 nor a data URL is an address
	mime  string // if the beginning does not tell
	head  []byte // the beginning, escapes and all
}

type imageState uint8

const (
	imageIgnored imageState = iota
	imageUndecided
	imageSniffed // a data URL that does not say its type
	imageDecided
)

// maxDataURLHead is longer than what stands before the comma of a data URL.
const maxDataURLHead = 256

// begin begins a string whose beginning is to be looked at.
func (r *imageReader) begin(isURL bool, mime string) {
	r.state, r.isURL, r.mime, r.head = imageUndecided, isURL, mime, r.head[:0]
}

// beginAs begins a string of which all is known.
func (r *imageReader) beginAs(begin func(mime string), mime string) {
	r.state, r.head = imageDecided, r.head[:0]
	begin(mime)
}

func (r *imageReader) write(raw []byte) {
	for len(raw) > 0 && (r.state == imageUndecided || r.state == imageSniffed) {
		r.head = append(r.head, raw[0])
		raw = raw[1:]
		r.decide(false)
	}
	if r.state == imageDecided && len(raw) > 0 {
		r.to.data(raw)
	}
}

// end ends the string.
func (r *imageReader) end() {
	if r.state == imageUndecided || r.state == imageSniffed {
		r.decide(true)
	}
	if r.state == imageDecided {
		r.to.endImage()
	}
	r.state = imageIgnored
}

// decide looks at the beginning, which may be the whole string.
func (r *imageReader) decide(whole bool) {
	head := unslashed(r.head)
	if r.state == imageUndecided && strings.HasPrefix(head, "data:") {
		r.decideDataURL(head, whole)
		return
	}
	mime := sniffBase64(head)
	switch {
	case mime == "" && !whole && len(head) < maxImageHead:
	case mime == "" && r.isURL && r.state == imageUndecided:
		r.decided(r.to.beginFile, cmp.Or(r.mime, likelyMime))
	default:
		r.decided(r.to.beginImage, cmp.Or(mime, r.mime, likelyMime))
	}
}

func (r *imageReader) decideDataURL(head string, whole bool) {
	before, hasComma := strings.CutSuffix(head, ",")
	if !hasComma && !whole && len(r.head) < maxDataURLHead {
		return
	}
	mime, isImage := dataURLMime(before)
	switch {
	case !hasComma || !isImage: // not an image as everybody knows it
		r.decided(r.to.beginFile, cmp.Or(r.mime, likelyMime))
	case mime == "":
		r.state, r.head = imageSniffed, r.head[:0]
	default:
		r.head = r.head[:0]
		r.decided(r.to.beginImage, mime)
	}
}

func (r *imageReader) decided(begin func(mime string), mime string) {
	r.state = imageDecided
	begin(mime)
	if len(r.head) > 0 {
		r.to.data(r.head)
	}
}
