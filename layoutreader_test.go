// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// keptBody is a body that has been read to its end and is kept in memory. It need
// not be JSON.
func keptBody(t testing.TB, text string) *requestBody {
	t.Helper()
	b := bodyOf(stepped(text, 50_000), -1, "", completion{}, testLimit, true)
	t.Cleanup(b.release)
	if err := b.readAll(); err != nil {
		t.Fatal(err)
	}
	return b
}

// spilledBody is keptBody, with all but its beginning in a file.
func spilledBody(t testing.TB, text string) *requestBody {
	t.Helper()
	b := bodyOf(stepped(text, 50_000), -1, "", completion{}, testLimit, true)
	t.Cleanup(b.release)
	b.save()
	if err := b.readAll(); err != nil {
		t.Fatal(err)
	}
	if b.spill.file == nil {
		t.Fatal("there is no file")
	}
	return b
}

// randomLayout makes a layout of a body that is all base64 digits, and what it
// has to come to.
func randomLayout(random *rand.Rand, body string) (l *layout, want string) {
	var all strings.Builder
	l = newLayout("", nil)
	for range 1 + random.IntN(8) {
		size := random.IntN(1 << random.IntN(18))
		at := random.IntN(len(body) - size)
		s, part := span{int64(at), int64(at + size)}, body[at:at+size]
		switch random.IntN(4) {
		case 0:
			part = part[:size%100]
			l.write(part)
		case 1:
			l.copy(s)
		case 2:
			l.encode(s)
			part = base64.StdEncoding.EncodeToString([]byte(part))
		case 3:
			if size%4 == 1 {
				continue
			}
			l.decode(s)
			part = string(mustDecode(base64.RawStdEncoding, part))
		}
		all.WriteString(part)
	}
	return l, all.String()
}

func mustDecode(e *base64.Encoding, text string) []byte {
	plain, err := e.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return plain
}

func digits(random *rand.Rand, n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	text := make([]byte, n)
	for i := range text {
		text[i] = alphabet[random.IntN(len(alphabet))]
	}
	return string(text)
}

// TestLayoutRandom reads layouts by pieces of any size.
func TestLayoutRandom(t *testing.T) {
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 0))
		body := digits(random, 400_000+random.IntN(400_000))
		for place, b := range map[string]*requestBody{"memory": keptBody(t, body), "file": spilledBody(t, body)} {
			for i := range 10 {
				l, want := randomLayout(random, body)
				step := 50 + random.IntN(1<<random.IntN(18))
				var got strings.Builder
				_, err := io.CopyBuffer(&got, struct{ io.Reader }{b.laidOut(l)}, make([]byte, step))
				if err != nil || got.String() != want {
					t.Errorf("seed %d, %s, %d, by %d: %d bytes of %d: %v", seed, place, i, step, got.Len(), len(want), err)
				}
				if n := l.length(); n >= 0 && n != int64(len(want)) {
					t.Errorf("length() = %d of %d", n, len(want))
				}
				if n, err := b.lengthOf(l); n != int64(len(want)) || err != nil {
					t.Errorf("lengthOf() = %d of %d: %v", n, len(want), err)
				}
			}
		}
	}
}

// A short layout is sent together with the header, which net/http does with
// what it knows to be in memory; it may be read after the end of the call.
func TestLayoutShort(t *testing.T) {
	for size, isFlat := range map[int]bool{10: true, flatBody: true, flatBody + 1: false} {
		body := strings.Repeat("x", size)
		b := keptBody(t, body)
		l := newLayout("", nil)
		l.copy(span{0, int64(size)})
		r := b.laidOut(l)
		if _, streams := r.(*layoutReader); streams == isFlat {
			t.Errorf("%d bytes are a %T", size, r)
		}
		if b.release(); isFlat {
			if err := checkReader(r, body); err != nil {
				t.Error(err)
			}
		}
		if _, err := b.laidOut(l).Read(make([]byte, 1)); !errors.Is(err, errReleased) {
			t.Errorf("after the end of the call: %v", err)
		}
	}
}

func TestLayoutReleased(t *testing.T) {
	body := strings.Repeat("QUJD", 200_000)
	all := span{0, int64(len(body))}
	tests := map[string]func(l *layout){
		"literal": func(l *layout) { l.write(body) },
		"copied":  func(l *layout) { l.copy(all) },
		"encoded": func(l *layout) { l.encode(all) },
		"decoded": func(l *layout) { l.decode(all) },
		"tidied":  func(l *layout) { l.add(all, codingTidy) },
	}
	for name, write := range tests {
		t.Run(name, func(t *testing.T) {
			b := spilledBody(t, body)
			l := newLayout("", nil)
			write(l)
			closed, r := b.laidOut(l), b.laidOut(l)
			for _, reader := range []io.Reader{closed, r} {
				if n, err := io.CopyN(io.Discard, reader, 400_000); err != nil {
					t.Fatal(n, err)
				}
			}
			p := make([]byte, 100)
			if n, err := r.Read(nil); n > 0 || err != nil {
				t.Errorf("%d bytes into nothing, %v", n, err)
			}
			if err := closed.Close(); err != nil {
				t.Error(err)
			}
			if _, err := closed.Read(p); !errors.Is(err, errReleased) {
				t.Errorf("once closed: %v", err)
			}
			if n, err := r.Read(p); n == 0 || err != nil {
				t.Errorf("the other reader: %d bytes, %v", n, err)
			}
			b.release()
			if n, err := io.Copy(io.Discard, r); n > 0 || !errors.Is(err, errReleased) {
				t.Errorf("after the end of the call: %d bytes, %v", n, err)
			}
			if !b.held.isEmpty() || b.spill.file != nil {
				t.Error("not all went back")
			}
		})
	}
}

// TestLayoutManyReaders has the call end while layouts and the body itself are
// being read by many.
func TestLayoutManyReaders(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	body := digits(random, 700_000)
	b := spilledBody(t, body)
	var all sync.WaitGroup
	for range 8 {
		l, want := randomLayout(random, body)
		all.Go(func() {
			if err := checkReader(b.laidOut(l), want); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if got, err := io.ReadAll(b.content()); err != nil || string(got) != body {
				t.Errorf("the body itself: %v", err)
			}
		})
	}
	all.Wait()
	l := newLayout("", nil)
	l.decode(span{0, 700_000})
	for range 8 {
		r := b.laidOut(l)
		all.Go(func() {
			if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, errReleased) {
				t.Error(err)
			}
		})
		all.Go(func() { _ = r.Close() })
	}
	runtime.Gosched()
	b.release()
	all.Wait()
	if !b.held.isEmpty() || b.spill.file != nil {
		t.Error("not all went back")
	}
}

// A file that has become shorter is no end of the span: half an image would go
// out as a whole one.
func TestLayoutDamagedFile(t *testing.T) {
	body := strings.Repeat("QUJD", 200_000)
	all := span{0, int64(len(body))}
	for name, write := range map[string]func(l *layout){
		"copied":  func(l *layout) { l.copy(all) },
		"encoded": func(l *layout) { l.encode(all) },
		"decoded": func(l *layout) { l.decode(all) },
		"tidied":  func(l *layout) { l.add(all, codingTidy) },
	} {
		t.Run(name, func(t *testing.T) {
			b := spilledBody(t, body)
			if err := b.spill.file.Truncate(500_000); err != nil {
				t.Fatal(err)
			}
			l := newLayout("", nil)
			write(l)
			if _, err := io.Copy(io.Discard, b.laidOut(l)); !errors.Is(err, errNoRoom) || !errors.Is(b.err(), errNoRoom) {
				t.Errorf("got %v; err() is %v", err, b.err())
			}
		})
	}
}

// TestLayoutInvalidBase64 finds a mistake beforehand, and on the way.
func TestLayoutInvalidBase64(t *testing.T) {
	image := strings.Repeat("QUJD", 100_000)
	body := `{"a":"` + image + `","b":"` + image + `*"}`
	b := keptBody(t, body)
	l := newLayout("", nil)
	l.decode(placeOf(t, body, image+`"`))
	if _, err := b.lengthOf(l); !errors.Is(err, errBase64) {
		t.Errorf("the quote is no base64: %v", err)
	}
	l = newLayout("", nil)
	l.decode(span{6, 6 + int64(len(image))})
	l.decode(placeOf(t, body, image+"*"))
	want := fmt.Sprintf("invalid base64 from byte %d on", 13+len(image))
	if _, err := b.lengthOf(l); !errors.Is(err, errBase64) || err.Error() != want {
		t.Errorf("lengthOf(): %v", err)
	}
	if n, err := io.Copy(io.Discard, b.laidOut(l)); !errors.Is(err, errBase64) || n < 300_000 || b.err() != nil {
		t.Errorf("after %d bytes: %v; err() is %v", n, err, b.err())
	}
}

// TestLayoutMemory decodes an image without ever holding it.
func TestLayoutMemory(t *testing.T) {
	body := strings.Repeat("QUJD", 750_000)
	b := spilledBody(t, body)
	for name, write := range map[string]func(l *layout, s span){
		"copied":  (*layout).copy,
		"encoded": (*layout).encode,
		"decoded": (*layout).decode,
		"tidied":  func(l *layout, s span) { l.add(s, codingTidy) },
	} {
		l := newLayout("", nil)
		write(l, span{0, int64(len(body))})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := io.Copy(io.Discard, b.laidOut(l))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; err != nil || took > 1<<20 {
			t.Errorf("%s: %d bytes of memory for %d: %v", name, took, n, err)
		}
	}
}

// TestLayoutUpload sends layouts, again when the upstream has broken off.
func TestLayoutUpload(t *testing.T) {
	image := strings.Repeat("QUJD", 300_000)
	body := `{"image":"` + image + `"}`
	b := spilledBody(t, body)
	l := newLayout("multipart/form-data", nil)
	l.write("--x\n")
	l.decode(placeOf(t, body, image))
	l.write("\n--x--")
	want := "--x\n" + strings.Repeat("ABC", 300_000) + "\n--x--"
	length, err := b.lengthOf(l)
	if err != nil {
		t.Fatal(err)
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/breaks" {
			_, _ = io.CopyN(io.Discard, r.Body, 300_000)
			panic(http.ErrAbortHandler)
		}
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != want || r.ContentLength != int64(len(want)) {
			t.Errorf("%d bytes of %d arrived: %v", len(got), r.ContentLength, err)
		}
	}))
	defer upstream.Close()
	send := func(path string) error {
		r, err := http.NewRequest(http.MethodPost, upstream.URL+path, b.laidOut(l))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		answer, err := upstream.Client().Transport.RoundTrip(r)
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	for range 2 {
		if send("/breaks") == nil {
			t.Error("the upload went through")
		}
		if err := send("/"); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkLayout10MB reads an image of 10 MB between two literals.
func BenchmarkLayout10MB(b *testing.B) {
	image := strings.Repeat("iVBORw0KGgoAAAANSUhEUgAA", 10_000_000/24)
	for _, tt := range []struct {
		name, image string
		write       func(l *layout, s span)
	}{
		{"copied", image, (*layout).copy},
		{"encoded", image, (*layout).encode},
		{"decoded", image, (*layout).decode},
		{"decoded, escaped", strings.ReplaceAll(image, "A", `\/`), (*layout).decode},
	} {
		b.Run(tt.name, func(b *testing.B) {
			body := keptBody(b, `{"data":"`+tt.image+`"}`)
			l := newLayout("", nil)
			l.write("[")
			tt.write(l, span{9, 9 + int64(len(tt.image))})
			l.write("]")
			buf := make([]byte, 32<<10) // as net/http has it
			b.SetBytes(int64(len(tt.image)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.CopyBuffer(discard{}, struct{ io.Reader }{body.laidOut(l)}, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
