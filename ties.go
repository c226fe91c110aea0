// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/url"
	"slices"
	"strings"
)

const (
	// maxCallTies is how many ties of one call are known. The last are those of the
	// latest turns.
	maxCallTies = 8
	// maxSignature is how much of a thought signature tells it from all others,
	// in bytes; they are megabytes long (wire §6).
	maxSignature = 96
	// maxEscape is the length of a character that is written as \u0000.
	maxEscape = 6
)

// placeholders stand for a thought signature and belong to no backend (wire §6).
var placeholders = map[string]bool{
	"skip_thought_signature_validator":     true,
	"context_engineering_is_the_way_to_go": true,
}

// tie takes down that a call names what only one backend, project or model
// family knows, as "signature:", "file:", "cache:" or "interaction:" and the name.
func (w *wants) tie(id fieldID, value []byte) {
	name := tieName(id, string(value))
	if name == "" {
		return
	}
	w.ties = slices.DeleteFunc(w.ties, func(known string) bool { return known == name })
	if len(w.ties) == maxCallTies {
		w.ties = slices.Delete(w.ties, 0, 1)
	}
	w.ties = append(w.ties, name)
}

// tieName is empty for what ties a call to nothing.
func tieName(id fieldID, value string) string {
	switch {
	case value == "":
	case id == atCache:
		return "cache:" + value
	case id == atInteraction:
		return "interaction:" + value
	case id == atSignature && !placeholders[value]:
		return "signature:" + value[:min(len(value), maxSignature)]
	case id == atFile && isFileOfAPI(value):
		return "file:" + value
	}
	return ""
}

// isFileOfAPI tells a file that was uploaded to the Gemini API from one that any
// backend can fetch.
func isFileOfAPI(uri string) bool {
	if strings.HasPrefix(uri, "files/") {
		return true
	}
	u, err := url.Parse(uri)
	return err == nil && u.Hostname() == "generativelanguage.googleapis.com" && strings.Contains(u.Path, "/files/")
}
