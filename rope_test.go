// SPDX-License-Identifier: Apache-2.0

package gemini

import "testing"

// numbered appends n bytes that tell where they are.
func (r *rope) numbered(n int) {
	for n > 0 {
		room := r.room()
		room = room[:min(n, len(room))]
		for i := range room {
			room[i] = byte((r.end + int64(i)) % 251)
		}
		r.grow(len(room))
		n -= len(room)
	}
}

func TestRope(t *testing.T) {
	const end = mediumChunks + largeChunk + 1
	var r rope
	r.numbered(end)
	if len(r.chunks) != 13 || r.memory != mediumChunks+2*largeChunk || !r.hasRoom() {
		t.Fatalf("%d chunks of %d bytes", len(r.chunks), r.memory)
	}
	for _, at := range []int64{0, 1, chunkSize - 1, chunkSize, 3*chunkSize + 5, smallChunks - 1, smallChunks, mediumChunks + 3, end - 2, end - 1} {
		if p := r.piece(at); p.at != at || p.length != len(p.bytes) || p.bytes[0] != byte(at%251) {
			t.Errorf("at %d: %d bytes of %d at %d, the first is %d", at, len(p.bytes), p.length, p.at, p.bytes[0])
		}
		if last := at + int64(len(r.from(at))); last != end && last%chunkSize != 0 {
			t.Errorf("the piece at %d ends at %d", at, last)
		}
	}
	for _, tt := range []struct {
		before int64
		chunks int
		start  int64
	}{
		{0, 13, 0},
		{chunkSize - 1, 13, 0},
		{chunkSize, 12, chunkSize},
		{smallChunks, 9, smallChunks},
		{mediumChunks + 1, 2, mediumChunks},
		{end - 1, 1, end - 1},
		{end, 0, end},
	} {
		if r.drop(tt.before); len(r.chunks) != tt.chunks || r.start != tt.start {
			t.Errorf("after %d: %d chunks from %d, want %d from %d", tt.before, len(r.chunks), r.start, tt.chunks, tt.start)
		}
	}
	if !r.isEmpty() || r.memory != 0 {
		t.Errorf("%d bytes are left", r.memory)
	}
	if r.numbered(10); r.start != end || r.from(end + 9)[0] != byte((end+9)%251) {
		t.Errorf("goes on from %d", r.start)
	}
}

func TestRopeEvicts(t *testing.T) {
	var r rope
	if _, ok := r.full(); ok {
		t.Error("an empty rope has no full chunk")
	}
	r.numbered(chunkSize - 1)
	if _, ok := r.full(); ok {
		t.Error("one byte is free")
	}
	r.numbered(1)
	c, ok := r.full()
	if !ok || c.at != 0 || len(c.mem) != chunkSize {
		t.Fatalf("%d bytes at %d, %t", len(c.mem), c.at, ok)
	}
	r.evict(false)
	r.numbered(7)
	if p := r.piece(5); p.bytes != nil || p.at != 5 || p.length != chunkSize-5 {
		t.Errorf("evicted: %d bytes, %d at %d", len(p.bytes), p.length, p.at)
	}
	if p := r.piece(chunkSize); len(p.bytes) != 7 || r.memory != chunkSize {
		t.Errorf("behind: %d bytes, %d in memory", len(p.bytes), r.memory)
	}
}
