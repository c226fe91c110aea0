// SPDX-License-Identifier: Apache-2.0

package gemini

import "strings"

// field is a place in a JSON document that somebody wants to hear about. The
// tree of fields is the whole knowledge a jsonScanner has of a document:
// whatever is not in it is skipped at the speed of bytes.IndexByte.
type field struct {
	id      fieldID
	members map[string]*field // by key, in camelCase and in snake_case
	element *field            // of an array
	keep    int               // how many bytes of a string to capture
}

// fieldID names a field to its visitor; the zero ID is a mere step on the way.
type fieldID int

// newSchema builds a tree of fields from paths such as
// "candidates[].content.parts[].text". Every key is registered in both of the
// spellings that protobuf's JSON mapping accepts.
func newSchema(paths map[string]field) *field {
	root := &field{}
	for path, leaf := range paths {
		f := root
		for step := range strings.SplitSeq(path, ".") {
			key, isArray := strings.CutSuffix(step, "[]")
			if key != "" {
				f = f.member(key)
			}
			if isArray {
				if f.element == nil {
					f.element = &field{}
				}
				f = f.element
			}
		}
		f.id, f.keep = leaf.id, leaf.keep
	}
	return root
}

// member returns the field of a key given in camelCase, made if need be.
func (f *field) member(key string) *field {
	if f.members == nil {
		f.members = make(map[string]*field)
	}
	child := f.members[key]
	if child == nil {
		child = &field{}
		f.members[key] = child
		f.members[snakeCase(key)] = child
	}
	return child
}

func snakeCase(camel string) string {
	var b strings.Builder
	for _, r := range camel {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
