// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestRequestBodySpills sends 100 MB three times, once only in part, with most
// of it in a file.
func TestRequestBodySpills(t *testing.T) {
	const (
		size = 100_000_000
		tail = `"],"safetySettings":[]`
	)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	block := make([]byte, 999_983) // divides no chunk
	for i := range block {
		block[i] = 'a' + byte(i*7/4%26)
	}
	filling := func() io.Reader {
		at := 0
		return io.LimitReader(readerFunc(func(p []byte) (int, error) {
			n := copy(p, block[at:])
			at = (at + n) % len(block)
			return n, nil
		}), size)
	}
	hashed := func(head, tail string) string {
		h := sha256.New()
		_, _ = io.Copy(h, io.MultiReader(strings.NewReader(head), filling(), strings.NewReader(tail)))
		return string(h.Sum(nil))
	}
	var b *requestBody
	var peak int64
	source := io.MultiReader(strings.NewReader(`{"contents":["`), filling(), strings.NewReader(tail+`}`))
	b = bodyOf(readerFunc(func(p []byte) (int, error) {
		peak = max(peak, b.held.memory)
		return source.Read(p)
	}), -1, "", testCompletion, testLimit, true)
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(&limitedWriter{io.Discard, 50_000_001}, b.reader(rendering{})); n != 50_000_001 || !errors.Is(err, errEnough) {
		t.Fatalf("sent %d bytes: %v", n, err)
	}
	added := `"generationConfig":{"responseModalities":[` + modalitiesJSON + `]}}`
	for _, tt := range []struct {
		as   rendering
		tail string
		send func(h hash.Hash, r io.Reader) (int64, error)
	}{
		{rendering{}, strings.TrimSuffix(tail, "]") + settingsJSON + "]," + added, func(h hash.Hash, r io.Reader) (int64, error) {
			return io.Copy(h, r)
		}},
		{rendering{omit: addedSafety}, tail + "," + added, func(h hash.Hash, r io.Reader) (int64, error) {
			return io.Copy(h, struct{ io.Reader }{r})
		}},
	} {
		h := sha256.New()
		n, err := tt.send(h, b.reader(tt.as))
		if err != nil || n != b.length(tt.as) {
			t.Errorf("sent %d bytes of %d: %v", n, b.length(tt.as), err)
		}
		if string(h.Sum(nil)) != hashed(`{"contents":["`, tt.tail) {
			t.Error("it arrived damaged")
		}
	}
	if peak > defaultInMemory+2*largeChunk {
		t.Errorf("%d bytes in memory", peak)
	}
	if b.spill.file == nil {
		t.Error("there was no file")
	}
	b.release()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || b.spill.file != nil {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestRequestBodyWithoutRoom(t *testing.T) {
	missing := t.TempDir() + "/missing"
	t.Setenv("TMPDIR", missing)
	t.Setenv("TMP", missing)
	body := `{"x":"` + strings.Repeat("y", defaultInMemory+2*largeChunk) + `"}`
	b := bodyOf(strings.NewReader(body), int64(len(body)), "", completion{}, testLimit, true)
	defer b.release()
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, b.reader(rendering{}))
	if !errors.Is(err, errNoRoom) || b.err() != err || b.complete() {
		t.Fatalf("got %v; err() is %v", err, b.err())
	}
	a := new(attempt)
	a.badBody(err)
	if a.status != http.StatusRequestEntityTooLarge || a.verdict.reason != reasonTooLarge || !strings.Contains(a.detail, "temporary folder") {
		t.Errorf("answered with %+v", a)
	}
	streamed := bodyOf(strings.NewReader(body), int64(len(body)), "", completion{}, testLimit, false)
	defer streamed.release()
	if n, err := io.Copy(io.Discard, streamed.reader(rendering{})); n != int64(len(body)) || err != nil {
		t.Errorf("what is not kept needs no room, but: %v", err)
	}
}

// TestRequestBodyPinnedSpill has another attempt move what a connection is
// still writing into the file.
func TestRequestBodyPinnedSpill(t *testing.T) {
	body := `["` + strings.Repeat("0123456789abcdefghi", (defaultInMemory+8*largeChunk)/19) + `"]`
	b := bodyOf(strings.NewReader(body), -1, "", completion{}, testLimit, true)
	writes, goOn := make(chan int64), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		var at int64
		_, err := b.reader(rendering{}).(io.WriterTo).WriteTo(writerFunc(func(p []byte) (int, error) {
			if at += int64(len(p)); at > defaultInMemory+largeChunk {
				writes <- at
				<-goOn
			}
			if string(p) != body[at-int64(len(p)):at] {
				t.Errorf("damaged before %d", at)
			}
			return len(p), nil
		}))
		done <- err
	}()
	at := <-writes
	if got, err := io.ReadAll(b.reader(rendering{})); err != nil || string(got) != body {
		t.Errorf("the other reader: %v", err)
	}
	if p := b.held.piece(at - 1); p.bytes != nil {
		t.Error("it is still in memory")
	}
	go func() {
		for range writes {
		}
	}()
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.release()
	if !b.held.isEmpty() {
		t.Error("not all buffers went back")
	}
}
