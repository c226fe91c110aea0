// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// imageTypes are the types that Gemini's and OpenAI's models read, by what their
// files are called.
var imageTypes = []struct{ extension, mime string }{
	{".png", "image/png"},
	{".jpg", "image/jpeg"},
	{".jpeg", "image/jpeg"},
	{".webp", "image/webp"},
	{".gif", "image/gif"},
	{".heic", "image/heic"},
	{".heif", "image/heif"},
	{".avif", "image/avif"},
}

const (
	// anyMime is what programs say that do not know.
	anyMime = "application/octet-stream"
	// likelyMime is for an image of which nobody has said more, and whose first bytes
	// do not tell.
	likelyMime = "image/png"
)

// imageMime brings the type of an image into its usual form: "" if nobody knows
// it. It is not ok if it is something else, or could not stand in a header.
func imageMime(mime string) (canonical string, ok bool) {
	mime, _, _ = strings.Cut(mime, ";")
	mime = strings.ToLower(strings.TrimSpace(mime))
	switch mime {
	case "", anyMime:
		return "", true
	case "image/jpg": // which is no type, but is often taken for one
		return "image/jpeg", true
	}
	subtype, isImage := strings.CutPrefix(mime, "image/")
	for _, c := range []byte(subtype) {
		isLetter, isDigit := c >= 'a' && c <= 'z', c >= '0' && c <= '9'
		isImage = isImage && (isLetter || isDigit || c == '-' || c == '+' || c == '.')
	}
	if !isImage || subtype == "" || len(mime) > maxWord {
		return "", false
	}
	return mime, true
}

// sniffImage tells the type of an image by how it begins, "" if it cannot.
func sniffImage(head []byte) string {
	mime := http.DetectContentType(head)
	if !strings.HasPrefix(mime, "image/") {
		return ""
	}
	return mime
}

// dataURLMime reads what stands before the comma of a data URL (RFC 2397). It is not
// ok unless that can be an image in base64.
func dataURLMime(head string) (mime string, ok bool) {
	head, isData := strings.CutPrefix(strings.ToLower(head), "data:")
	head, inBase64 := strings.CutSuffix(head, ";base64")
	mime, isImage := imageMime(head)
	return mime, isData && inBase64 && isImage
}

// maxImageHead is how much of an image in base64 tells its type, whichever it is.
const maxImageHead = 24

// sniffBase64 is sniffImage for base64 of either alphabet.
func sniffBase64(data string) string {
	head := data[:min(len(data), maxImageHead)]
	head = strings.NewReplacer("-", "+", "_", "/").Replace(head)
	image, _ := base64.StdEncoding.DecodeString(head[:len(head)/4*4])
	return sniffImage(image)
}

// mimeOfFile tells the type of an image by its name, "" if it cannot.
func mimeOfFile(name string) string {
	extension := strings.ToLower(path.Ext(name))
	for _, t := range imageTypes {
		if t.extension == extension {
			return t.mime
		}
	}
	return ""
}

// mimeOfURL tells the type of an image by its address, "" if it cannot.
func mimeOfURL(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return mimeOfFile(u.Path)
}

// extensionOf is how the name of an image of a type ends.
func extensionOf(mime string) string {
	for _, t := range imageTypes {
		if t.mime == mime {
			return t.extension
		}
	}
	return ""
}
