// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRequestBodyReadsOn has the transport of a failed attempt read what the
// next attempt needs.
func TestRequestBodyReadsOn(t *testing.T) {
	client, connection := io.Pipe()
	waits := make(chan struct{}, 100)
	source := readerFunc(func(p []byte) (int, error) {
		waits <- struct{}{}
		return client.Read(p)
	})
	b := bodyOf(source, -1, "", testCompletion, testLimit, true)
	defer b.release()
	old, next := b.reader(rendering{}), b.reader(rendering{omit: allAdditions})
	failed, got := make(chan error, 1), make(chan string)
	go func() {
		_, err := io.ReadAll(old)
		failed <- err
	}()
	<-waits
	if old.Close() != nil {
		t.Error("close failed")
	}
	go func() {
		for p := make([]byte, 100); ; {
			n, err := next.Read(p)
			got <- string(p[:n])
			if err != nil {
				got <- err.Error()
				return
			}
		}
	}()
	time.Sleep(20 * time.Millisecond) // most likely it waits by now
	for _, part := range []string{`{"a":`, `1,"b"`, `:2}`} {
		if _, err := connection.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		if part == `:2}` {
			connection.Close()
		}
		for given := ""; given != part; {
			select {
			case more := <-got:
				given += more
			case <-time.After(10 * time.Second):
				t.Fatalf("%q of %q", given, part)
			}
		}
	}
	if end := <-got + <-got; end != "EOF" {
		t.Errorf("ends with %q", end)
	}
	if err := <-failed; !errors.Is(err, errReleased) {
		t.Errorf("the closed reader: %v", err)
	}
}

// TestRequestBodyTrickles passes on what a slow client sends before a chunk is
// full of it.
func TestRequestBodyTrickles(t *testing.T) {
	client, connection := io.Pipe()
	b := bodyOf(client, -1, "", completion{}, testLimit, true)
	defer b.release()
	writes := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(writerFunc(func(p []byte) (int, error) {
			writes <- string(p)
			return len(p), nil
		}), b.reader(rendering{}))
		done <- err
	}()
	given := ""
	for _, part := range []string{`{"a":`, `1,"b":`, `2}`} {
		if _, err := connection.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * maxStall)
	}
	for given != `{"a":1,"b":2}` {
		select {
		case more := <-writes:
			given += more
		case <-time.After(10 * time.Second):
			t.Fatalf("only %q", given)
		}
	}
	connection.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRequestBodyFills makes large writes of small reads.
func TestRequestBodyFills(t *testing.T) {
	long := padded(padded(padded(`{"x":1}`)))
	b := bodyOf(stepped(long, 1000), -1, "", completion{}, testLimit, true)
	defer b.release()
	writes, want := 0, 0
	_, err := io.Copy(writerFunc(func(p []byte) (int, error) {
		writes++
		want = len(b.held.chunks)
		return len(p), nil
	}), b.reader(rendering{}))
	if err != nil || writes > 2*want { // more than want if the machine stalls
		t.Errorf("%d writes from %d chunks: %v", writes, want, err)
	}
}

// TestRequestBodyPinned ends a call while a connection still takes its time with
// what has been kept.
func TestRequestBodyPinned(t *testing.T) {
	body := padded(`{"x":1}`)
	b := bodyOf(strings.NewReader(body), int64(len(body)), "", completion{}, testLimit, true)
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	writes, goOn := make(chan []byte), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := b.reader(rendering{}).(io.WriterTo).WriteTo(writerFunc(func(p []byte) (int, error) {
			writes <- p
			<-goOn
			return len(p), nil
		}))
		done <- err
	}()
	<-writes
	b.release()
	if b.held.isEmpty() {
		t.Error("buffers went back while they were being written")
	}
	if _, err := b.reader(rendering{}).Read(make([]byte, 1)); !errors.Is(err, errReleased) {
		t.Errorf("a new reader returns %v", err)
	}
	close(goOn)
	if err := <-done; !errors.Is(err, errReleased) {
		t.Errorf("got %v", err)
	}
	if !b.held.isEmpty() {
		t.Error("not all buffers went back")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestRequestBodyManyReaders has attempts overlap as they never would.
func TestRequestBodyManyReaders(t *testing.T) {
	body := padded(`{"model":"m","generationConfig":null,"safetySettings":[],` + padded(`{"x":1}`)[1:])
	slots, _, err := runCompleter(t, body, keptCompletion, len(body))
	if err != nil {
		t.Fatal(err)
	}
	text := stepped(body, 1000)
	var reads atomic.Int32
	source := readerFunc(func(p []byte) (int, error) {
		if reads.Add(1) != 1 {
			t.Error("two are reading")
		}
		defer reads.Add(-1)
		runtime.Gosched()
		return text.Read(p)
	})
	b := bodyOf(source, -1, "", keptCompletion, testLimit, true)
	var all sync.WaitGroup
	for range 3 {
		for as, d := range testRenderings {
			want := applyEdits(body, editsOf(slots, d))
			all.Go(func() {
				if got, err := io.ReadAll(b.reader(d)); err != nil || string(got) != want {
					t.Errorf("%s: %v", as, err)
				}
			})
			all.Go(func() {
				var got strings.Builder
				n := rand.Int64N(int64(len(want)))
				if _, err := io.Copy(&limitedWriter{&got, n}, b.reader(d)); !errors.Is(err, errEnough) || got.String() != want[:n] {
					t.Errorf("%s, the first %d bytes: %v", as, n, err)
				}
			})
		}
	}
	all.Wait()
	left := make(chan error)
	for range 4 {
		go func() {
			_, err := io.Copy(io.Discard, b.reader(rendering{}))
			left <- err
		}()
	}
	b.release()
	for range 4 {
		if err := <-left; err != nil && !errors.Is(err, errReleased) {
			t.Error(err)
		}
	}
	if !b.held.isEmpty() {
		t.Error("not all buffers went back")
	}
}

// TestRequestBodyRetried has an upstream break off in the middle of an upload.
func TestRequestBodyRetried(t *testing.T) {
	long := padded(padded(padded(`{"x":1}`)))
	for name, isH2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/breaks" {
					_, _ = io.CopyN(io.Discard, r.Body, 300_000)
					panic(http.ErrAbortHandler)
				}
				body, _ := io.ReadAll(r.Body)
				got <- string(body)
			}))
			upstream.EnableHTTP2 = isH2
			upstream.StartTLS()
			defer upstream.Close()
			b := bodyOf(stepped(long, 50_000), int64(len(long)), "", testCompletion, testLimit, true)
			defer b.release()
			if err := b.readAhead(); err != nil {
				t.Fatal(err)
			}
			send := func(path string, d rendering) error {
				r, err := http.NewRequest(http.MethodPost, upstream.URL+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Body, r.ContentLength, r.GetBody = b.reader(d), b.length(d), b.getBody(d)
				answer, err := upstream.Client().Transport.RoundTrip(r)
				if err == nil {
					answer.Body.Close()
				}
				return err
			}
			for range 3 {
				if send("/breaks", rendering{}) == nil {
					t.Error("the upload went through")
				}
			}
			for range 2 {
				if err := send("/", rendering{omit: addedSafety}); err != nil {
					t.Fatal(err)
				}
				want := long[:len(long)-1] + `,"generationConfig":{"responseModalities":[` + modalitiesJSON + `]}}`
				if body := <-got; body != want {
					t.Errorf("got %d bytes, want %d: %s", len(body), len(want), shorten(body))
				}
			}
		})
	}
}
