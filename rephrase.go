// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"regexp"
	"slices"
	"unicode"
	"unicode/utf8"
)

// rephrasing says how to word a prompt differently after a soft block. Each
// prefix and suffix makes a variant, in which all replacements are done, too.
type rephrasing struct {
	replace            []replacement
	prefixes, suffixes []string
}

// replacement is done with Regexp.ReplaceAllString, so that $1 is a submatch.
type replacement struct {
	pattern *regexp.Regexp
	with    string
}

// variants counts the wordings there are of a prompt, equal ones included.
func (r *rephrasing) variants() int {
	n := max(len(r.prefixes), len(r.suffixes))
	if n == 0 && len(r.replace) > 0 {
		return 1
	}
	return n
}

// next returns the first variant, counted from 0, that is neither before from
// nor equal to the turn itself or to an earlier variant: what has been blocked
// must not be sent again (issue #3).
func (r *rephrasing) next(t turn, from int) (n int, edits []edit, ok bool) {
	seen := [][]string{t.values()}
	for n := range r.variants() {
		texts := r.texts(t, n)
		if slices.ContainsFunc(seen, func(s []string) bool { return slices.Equal(s, texts) }) {
			continue
		}
		if n >= from {
			return n, r.edits(t, n), true
		}
		seen = append(seen, texts)
	}
	return 0, nil, false
}

// edits puts a variant in place of a turn; it returns nil if nothing changes.
func (r *rephrasing) edits(t turn, n int) []edit {
	var edits []edit
	for i, text := range r.texts(t, n) {
		if text != t[i].value {
			edits = append(edits, edit{t[i].at, int(t[i].end - t[i].at), encode(text)})
		}
	}
	return edits
}

// texts are those of a turn, in the wording of a variant.
func (r *rephrasing) texts(t turn, n int) []string {
	texts := t.values()
	if len(texts) == 0 {
		return nil
	}
	for i := range texts {
		for _, rule := range r.replace {
			texts[i] = rule.pattern.ReplaceAllString(texts[i], rule.with)
		}
	}
	if n < len(r.prefixes) {
		texts[0] = withPrefix(r.prefixes[n], texts[0])
	}
	if n < len(r.suffixes) {
		last := len(texts) - 1
		texts[last] = withSuffix(texts[last], r.suffixes[n])
	}
	return texts
}

func withPrefix(prefix, text string) string {
	if last, _ := utf8.DecodeLastRuneInString(prefix); prefix == "" || unicode.IsSpace(last) {
		return prefix + text
	}
	return prefix + " " + text
}

func withSuffix(text, suffix string) string {
	first, _ := utf8.DecodeRuneInString(suffix)
	if suffix == "" || unicode.IsSpace(first) || unicode.IsPunct(first) {
		return text + suffix
	}
	return text + " " + suffix
}

func (t turn) values() []string {
	values := make([]string, len(t))
	for i, text := range t {
		values[i] = text.value
	}
	return values
}
