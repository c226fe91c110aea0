// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// formBoundary is empty for what is no form.
func formBoundary(contentType string) string {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "multipart/form-data" {
		return ""
	}
	return params["boundary"]
}

var errBadForm = gptError(400, "invalid_request_error", "", "Could not parse multipart form")

// readGPTForm reads the form of images/edits: its fields become JSON, so that
// one table has all parameters, and its files are looked at.
func (c *call) readGPTForm(body, boundary string) (gjson.Result, *apiError) {
	fields := make(map[string]json.RawMessage)
	form := multipart.NewReader(strings.NewReader(body), boundary)
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return gjson.Result{}, errBadForm
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return gjson.Result{}, errBadForm
		}
		name := part.FormName()
		switch name {
		case "image", "image[]", "mask":
			if fail := checkFile(name, part.Header.Get("Content-Type"), content); fail != nil {
				return gjson.Result{}, fail
			}
			if name != "mask" {
				c.promptImages++
			}
		default:
			fields[name] = asJSON(editFields[name].kind, string(content))
		}
	}
	written, err := json.Marshal(fields)
	if err != nil {
		return gjson.Result{}, errBadForm
	}
	root := gjson.ParseBytes(written)
	if fail := editFields.check("", root); fail != nil {
		return root, fail
	}
	return root, checkCount("image", c.promptImages)
}

// asJSON spells a field of a form as a parameter of that kind.
func asJSON(kind, text string) json.RawMessage {
	if (kind == "integer" || kind == "boolean") && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	quoted, _ := json.Marshal(text) // cannot fail for a string
	return quoted
}

func checkCount(param string, images int) *apiError {
	switch {
	case images == 0:
		return missingParam(param)
	case images > maxReferences:
		return badParam(param, "array_above_max_length", "Invalid '%s': array too long. Expected an array with maximum length %d, but got an array with length %d instead.", param, maxReferences, images)
	default:
		return nil
	}
}

var imageTypes = []string{"image/jpeg", "image/png", "image/webp"}

// checkFile refuses what OpenAI does: a file that is not said to be an image,
// and one that is none.
func checkFile(param, contentType string, content []byte) *apiError {
	if mediaType, _, _ := mime.ParseMediaType(contentType); !slices.Contains(imageTypes, mediaType) {
		return badParam(param, "unsupported_file_mimetype", "Invalid file '%s': unsupported mimetype ('%s'). Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'.", param, contentType)
	}
	if !isImage(content) {
		return badParam(param, "invalid_image_file", "Invalid image file or mode for '%s', please check your image file.", param)
	}
	return nil
}

func isImage(content []byte) bool {
	return strings.HasPrefix(http.DetectContentType(content), "image/")
}

// countReferences counts the images of an edit in JSON.
func countReferences(root gjson.Result) (int, *apiError) {
	images := root.Get("images").Array()
	for i, image := range images {
		param := fmt.Sprintf("images[%d].image_url", i)
		if id := image.Get("file_id"); isGiven(id) {
			return 0, badParam(param, "file_not_found", "No such File object: %s", id.Str) // there is no place for files
		}
		if fail := checkImageURL(param, image.Get("image_url").Str); fail != nil {
			return 0, fail
		}
	}
	return len(images), checkCount("images", len(images))
}

// checkImageURL takes the address of an image, which is not fetched, or an image
// in base64.
func checkImageURL(param, url string) *apiError {
	if strings.HasPrefix(url, "https://") || strings.HasPrefix(url, "http://") {
		return nil
	}
	mediaType, encoded, ok := strings.Cut(strings.TrimPrefix(url, "data:"), ";base64,")
	if !ok || !strings.HasPrefix(url, "data:image/") {
		return badParam(param, "invalid_value", "Invalid '%s'. Expected a valid URL or a base64-encoded data URL with an image MIME type (e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), but got something else.", param)
	}
	// In full: what is wrong may be at the end. Strictly: a reader of URL-safe
	// or unpadded base64 is the exception.
	content, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !isImage(content) {
		return badParam(param, "invalid_image", "The image data you provided does not represent a valid image (%s). Please check your input and try again.", mediaType)
	}
	return nil
}
