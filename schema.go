// SPDX-License-Identifier: Apache-2.0

package gemini

import "strings"

// field is a place in a JSON document that somebody wants to hear about. The
// tree of fields is the whole knowledge a jsonScanner has of a document:
// whatever is not in it is skipped at the speed of bytes.IndexByte.
type field struct {
	id      fieldID
	members map[string]*field // by key, in camelCase and in snake_case
	rest    *field            // of all keys that are not among the members
	element *field            // of an array
	keep    int               // how many bytes of a string to capture
	raw     bool              // strings go to a pieceVisitor, whatever their length
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
		f.id, f.keep, f.raw, f.rest = leaf.id, leaf.keep, leaf.raw, leaf.rest
		if leaf.element != nil {
			f.element = leaf.element
		}
	}
	return root
}

// named tells whether the keys of an object matter.
func (f *field) named() bool { return f != nil && (f.members != nil || f.rest != nil) }

// child returns the field of a key, nil if nobody cares.
func (f *field) child(key []byte) *field {
	if child := f.members[string(key)]; child != nil {
		return child
	}
	return f.rest
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

// repeatable lets a field stand alone where an array of it is due, as contents
// and parts do in some examples for Vertex.
func (f *field) repeatable() { f.element = f }

func snakeCase(camel string) string { return string(appendSnakeCase(nil, camel)) }

func appendSnakeCase[T string | []byte](b []byte, camel T) []byte {
	for i := range len(camel) {
		c := camel[i]
		if c >= 'A' && c <= 'Z' {
			b = append(b, '_')
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// jsonVisitor hears of the fields of a schema in document order. Byte slices
// are only valid during the call.
type jsonVisitor interface {
	// open is called for the bracket that opens an object or array.
	open(f *field, key []byte, array bool, at int64)
	// close is called for the bracket that closes it. The scanner pauses
	// after the byte when it returns true.
	close(f *field, array, empty bool, at int64) (pause bool)
	// begin is called when the first byte of a string that is not empty has
	// been seen, long before its end.
	begin(f *field)
	// scalar is called at the end of a string, number or literal; value is
	// unescaped and holds at most f.keep bytes of a string.
	scalar(f *field, key []byte, kind jsonKind, value []byte, start int64)
}

// pieceVisitor also hears what is in strings whose fields are raw.
type pieceVisitor interface {
	jsonVisitor
	// piece is called with the bytes of a string as they arrive, escapes and
	// all; scalar tells of its end.
	piece(f *field, raw []byte)
}
