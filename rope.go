// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"slices"
	"sync"
)

const chunkSize = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// rope holds the bytes of a body from start to end in pooled chunks. All of
// them are full but the last.
type rope struct {
	chunks     []*[chunkSize]byte
	start, end int64
}

func (r *rope) isEmpty() bool { return len(r.chunks) == 0 }

// room returns free space behind the end; what is put there counts from grow.
func (r *rope) room() []byte {
	used := int(r.end - r.start)
	if used == len(r.chunks)*chunkSize {
		r.chunks = append(r.chunks, chunks.Get().(*[chunkSize]byte))
	}
	last := len(r.chunks) - 1
	return r.chunks[last][used-last*chunkSize:]
}

func (r *rope) grow(n int) { r.end += int64(n) }

func (r *rope) append(p []byte) {
	for len(p) > 0 {
		n := copy(r.room(), p)
		r.grow(n)
		p = p[n:]
	}
}

// bypass moves an empty rope past bytes that it never held.
func (r *rope) bypass(n int) {
	r.end += int64(n)
	r.start = r.end
}

// from returns bytes from an offset on, not necessarily all.
func (r *rope) from(at int64) []byte {
	i := int(at-r.start) / chunkSize
	off := int(at-r.start) % chunkSize
	return r.chunks[i][off:min(chunkSize, int(r.end-r.start)-i*chunkSize)]
}

// drop returns the chunks that only hold bytes before an offset.
func (r *rope) drop(before int64) {
	for len(r.chunks) > 0 && (before >= r.start+chunkSize || before >= r.end) {
		chunks.Put(r.chunks[0])
		r.chunks[0] = nil
		r.chunks = r.chunks[1:]
		r.start += chunkSize
	}
	if len(r.chunks) == 0 {
		r.start = r.end
	}
}

// edit replaces bytes of a body, or none, by others.
type edit struct {
	at     int64
	remove int
	insert []byte
}

// sortEdits keeps the order of edits at the same place.
func sortEdits(edits []edit) {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.at, b.at) })
}

// cursor is a position in a body that is read with its edits applied.
type cursor struct {
	at     int64  // of the next byte of the body
	edits  []edit // those still ahead, in order
	insert []byte // what is left of the one that has been reached
}

// isClear tells that nothing but the body itself is ahead, so far.
func (c *cursor) isClear() bool { return len(c.edits) == 0 && len(c.insert) == 0 }

// read fills p with what comes before the offset end.
func (c *cursor) read(p []byte, held *rope, end int64) (n int) {
	for n < len(p) {
		switch {
		case len(c.insert) > 0:
			taken := copy(p[n:], c.insert)
			c.insert = c.insert[taken:]
			n += taken
		case len(c.edits) > 0 && c.edits[0].at == c.at:
			c.insert = c.edits[0].insert
			c.at += int64(c.edits[0].remove)
			c.edits = c.edits[1:]
		case c.at < c.stop(end):
			taken := copy(p[n:min(len(p), n+int(c.stop(end)-c.at))], held.from(c.at))
			c.at += int64(taken)
			n += taken
		default:
			return n
		}
	}
	return n
}

// stop returns how far the body goes without an edit.
func (c *cursor) stop(end int64) int64 {
	if len(c.edits) > 0 {
		return min(end, c.edits[0].at)
	}
	return end
}
