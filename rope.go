// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"slices"
	"sync"
)

// Chunks grow with what they are part of, in bytes: a prompt, which is kept for as long
// as its image is being drawn, fits into the tiny one; most bodies, and most of what is
// held of an answer, into one of the next; the last is a small part of a body of many;
// and an upload of 10 MB that is kept takes 4 % less time with the large ones than with
// those in the middle.
const (
	tinyChunk   = 4 << 10
	chunkSize   = 32 << 10
	mediumChunk = 128 << 10
	largeChunk  = 256 << 10

	smallChunks  = 4 * chunkSize   // the offset up to which chunks are of chunkSize
	mediumChunks = 8 * mediumChunk // the offset from which on they are large
)

var (
	tinies      = sync.Pool{New: func() any { return new([tinyChunk]byte) }}
	chunks      = sync.Pool{New: func() any { return new([chunkSize]byte) }}
	mediums     = sync.Pool{New: func() any { return new([mediumChunk]byte) }}
	largeChunks = sync.Pool{New: func() any { return new([largeChunk]byte) }}
)

func newChunk(at int64, isShort bool) []byte {
	switch {
	case at == 0 && isShort:
		return tinies.Get().(*[tinyChunk]byte)[:]
	case at < smallChunks:
		return chunks.Get().(*[chunkSize]byte)[:]
	case at < mediumChunks:
		return mediums.Get().(*[mediumChunk]byte)[:]
	}
	return largeChunks.Get().(*[largeChunk]byte)[:]
}

func freeChunk(mem []byte) {
	switch len(mem) {
	case tinyChunk:
		tinies.Put((*[tinyChunk]byte)(mem))
	case chunkSize:
		chunks.Put((*[chunkSize]byte)(mem))
	case mediumChunk:
		mediums.Put((*[mediumChunk]byte)(mem))
	case largeChunk:
		largeChunks.Put((*[largeChunk]byte)(mem))
	}
}

// rope holds the bytes of a body from start to end in pooled chunks.
type rope struct {
	chunks     []chunk
	start, end int64
	memory     int64 // the length of the chunks, but for those that were evicted
	isShort    bool  // no more than a tiny chunk is expected
}

// chunk is a part of a rope.
type chunk struct {
	at  int64  // of its first byte
	mem []byte // the bytes, and behind the last the room for more; nil if evicted
}

func (r *rope) isEmpty() bool { return len(r.chunks) == 0 }

// hasRoom tells that the last chunk is not full.
func (r *rope) hasRoom() bool {
	n := len(r.chunks)
	return n > 0 && r.end-r.chunks[n-1].at < int64(len(r.chunks[n-1].mem))
}

// room returns free space behind the end; what is put there counts from grow.
func (r *rope) room() []byte {
	if !r.hasRoom() {
		c := chunk{at: r.end, mem: newChunk(r.end, r.isShort)}
		r.chunks = append(r.chunks, c)
		r.memory += int64(len(c.mem))
	}
	last := r.chunks[len(r.chunks)-1]
	return last.mem[r.end-last.at:]
}

func (r *rope) grow(n int) { r.end += int64(n) }

// piece returns what there is from an offset on, not necessarily all.
func (r *rope) piece(at int64) piece {
	i, found := slices.BinarySearchFunc(r.chunks, at, func(c chunk, at int64) int { return cmp.Compare(c.at, at) })
	if !found {
		i--
	}
	p := piece{at: at, length: int(r.endOf(i) - at)}
	if c := r.chunks[i]; c.mem != nil {
		p.bytes = c.mem[at-c.at:][:p.length]
	}
	return p
}

// from is piece for a rope that is all in memory.
func (r *rope) from(at int64) []byte { return r.piece(at).bytes }

func (r *rope) endOf(i int) int64 {
	if i+1 < len(r.chunks) {
		return r.chunks[i+1].at
	}
	return r.end
}

// drop returns the chunks that only hold bytes before an offset.
func (r *rope) drop(before int64) {
	n := 0
	for n < len(r.chunks) && r.endOf(n) <= before {
		r.free(n, true)
		n++
	}
	r.chunks = slices.Delete(r.chunks, 0, n)
	r.start = r.end
	if len(r.chunks) > 0 {
		r.start = r.chunks[0].at
	}
}

// full returns the last chunk if there is no room left in it.
func (r *rope) full() (c chunk, ok bool) {
	if r.isEmpty() || r.hasRoom() {
		return chunk{}, false
	}
	return r.chunks[len(r.chunks)-1], true
}

// evict lets go of the bytes of the last chunk, which somebody else keeps from
// now on. Memory that may still be in use is left to the garbage collector.
func (r *rope) evict(unused bool) { r.free(len(r.chunks)-1, unused) }

func (r *rope) free(i int, unused bool) {
	mem := r.chunks[i].mem
	r.chunks[i].mem = nil
	r.memory -= int64(len(mem))
	if unused {
		freeChunk(mem)
	}
}

// piece is a run of bytes of a body, as the body has it or out of an edit.
type piece struct {
	bytes  []byte // nil if they were evicted
	at     int64  // where they are in the body
	length int
}

func (p piece) first(n int) piece {
	p.length = min(p.length, n)
	if p.bytes != nil {
		p.bytes = p.bytes[:p.length]
	}
	return p
}

// cursor is a position in a body that is read with its edits applied.
type cursor struct {
	at     int64  // of the next byte of the body
	edits  []edit // those still ahead, in order
	insert []byte // what is left of the one that has been reached
}

// ahead returns what comes next before the offset end, not necessarily all.
func (c *cursor) ahead(held *rope, end int64) piece {
	for len(c.insert) == 0 && len(c.edits) > 0 && c.edits[0].at == c.at {
		c.insert = c.edits[0].insert
		c.at += int64(c.edits[0].remove)
		c.edits = c.edits[1:]
	}
	if len(c.insert) > 0 {
		return piece{bytes: c.insert, length: len(c.insert)}
	}
	if len(c.edits) > 0 {
		end = min(end, c.edits[0].at)
	}
	if c.at >= end {
		return piece{}
	}
	return held.piece(c.at).first(int(end - c.at))
}

// advance moves on in what is ahead.
func (c *cursor) advance(n int) {
	if len(c.insert) > 0 {
		c.insert = c.insert[n:]
		return
	}
	c.at += int64(n)
}
