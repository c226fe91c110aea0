// SPDX-License-Identifier: Apache-2.0

//go:build !race

package gemini

import (
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// TestAllocations holds what a call may allocate, where that does not depend on
// chance, what the test itself allocates for it included. Whoever lowers a figure lowers its limit, here or in servings.
func TestAllocations(t *testing.T) {
	inImage := newAnswerScanner(new(facts), false, geminiEnums)
	scanPieces(inImage, []byte(imageOf(1 << 20)[:64<<10]), 64<<10)
	inStream := newAnswerScanner(new(facts), true, geminiEnums)
	image, event, large := []byte(strings.Repeat("aGVsbG8h", 4<<10)), []byte(textEvent), strings.Repeat("a", 6<<20)
	scanPieces(inStream, event, len(event))

	limits := bounds{most: demand{limitRPM: 1_000_000, limitTPM: 1 << 40}}
	d := demand{limitRPM: 1, limitTPM: 1_000}
	g, now := newState().gates.at(gateID{scope: "open"}, gateName{}, midday), midday
	alone, crowded := lineOf(0), lineOf(1_000)

	type limit struct {
		name string
		most float64
		run  func()
	}
	all := []limit{
		{"a piece of an image is scanned", 0, func() { scanPieces(inImage, image, len(image)) }},
		{"an event is scanned", 0, func() { scanPieces(inStream, event, len(event)) }},
		{"1 KB is delivered", 9, func() { copyOut(t, large[:1<<10], false) }},
		{"6 MB are delivered", 9, func() { copyOut(t, large, false) }},
		{"6 MB are delivered as a stream", 9, func() { copyOut(t, large, true) }},
		{"a call passes a gate", 1, func() {
			now = now.Add(time.Millisecond)
			g.ready(&d, &limits, now, now)
			g.admit(&d, &limits, now)
		}},
		{"a call comes and goes behind nobody", 3, alone},
		{"a call comes and goes behind a thousand", 3, crowded},
	}
	for _, s := range servings {
		all = append(all, limit{"a call is served, " + s.name, s.most, caller(t, s.handler(t))})
	}
	// Pools are emptied by the garbage collector, whenever that comes.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, l := range all {
		n := testing.AllocsPerRun(100, l.run)
		t.Logf("%s: %.0f of %.0f", l.name, n, l.most)
		if n > l.most {
			t.Errorf("%s: %.0f allocations, want at most %.0f", l.name, n, l.most)
		}
	}
}

// TestLargeRequestsAllocateNothingLarge sends requests of 10 MB one after the
// other: all they are kept in is used again.
func TestLargeRequestsAllocateNothingLarge(t *testing.T) {
	body := largeRequest()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, keep := range []bool{false, true} {
		send := func() {
			b := bodyOf(struct{ io.Reader }{strings.NewReader(body)}, int64(len(body)), "", testCompletion, testLimit, keep)
			defer b.release()
			if err := b.readAhead(); err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(discard{}, b.reader(rendering{})); err != nil || n <= int64(len(body)) {
				t.Fatal(n, err)
			}
		}
		send()                            // fills the pools
		const calls, most = 10, 512 << 10 // a chunk or two may lie in the pool of another processor
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			send()
		}
		runtime.ReadMemStats(&after)
		each := (after.TotalAlloc - before.TotalAlloc) / calls
		t.Logf("kept %t: %d bytes", keep, each)
		if each > most {
			t.Errorf("kept %t: a request of %d bytes allocates %d, want at most %d", keep, len(body), each, most)
		}
	}
}
