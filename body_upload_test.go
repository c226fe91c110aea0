// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRequestBodyUpload shows what upstreams get from net/http, and how.
func TestRequestBodyUpload(t *testing.T) {
	type received struct {
		body     string
		length   int64
		encoding []string
	}
	got := make(chan received, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- received{string(body), r.ContentLength, r.TransferEncoding}
	})
	plain := httptest.NewServer(handler)
	defer plain.Close()
	h2 := httptest.NewUnstartedServer(handler)
	h2.EnableHTTP2 = true
	h2.StartTLS()
	defer h2.Close()

	const tail = `"safetySettings":[` + settingsJSON + `],"generationConfig":{"responseModalities":[` + modalitiesJSON + `]}}`
	long := padded(`{"x":1}`)
	tests := map[string]struct {
		body, want string
		asked      completion
		length     bool
	}{
		"short":         {`{"x":1}`, `{"x":1,` + tail, testCompletion, true},
		"middle":        {`{"x":"` + long[14:200_000] + `"}`, `{"x":"` + long[14:200_000] + `",` + tail, testCompletion, true},
		"long":          {long, long[:len(long)-1] + `,` + tail, testCompletion, false},
		"nothing asked": {long, long, completion{}, true},
		"empty":         {``, ``, completion{}, true},
	}
	for _, upstream := range []*httptest.Server{plain, h2} {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				b := bodyOf(&boundedSource{t, tt.body, 100_000}, int64(len(tt.body)), "", tt.asked, testLimit, false)
				defer b.release()
				if err := b.readAhead(); err != nil {
					t.Fatal(err)
				}
				r, err := http.NewRequest(http.MethodPost, upstream.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Body, r.ContentLength, r.GetBody = b.reader(rendering{}), b.length(rendering{}), b.getBody(rendering{})
				answer, err := upstream.Client().Transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				answer.Body.Close()
				upload := <-got
				if upload.body != tt.want {
					t.Errorf("got %d bytes, want %d: %s", len(upload.body), len(tt.want), shorten(upload.body))
				}
				if tt.length != (upload.length == int64(len(tt.want))) {
					t.Errorf("Content-Length %d of %d", upload.length, len(tt.want))
				}
			})
		}
	}
}

// TestRequestBodyAborts has the transport stop when the client's body turns
// out to be malformed in the middle of the upload.
func TestRequestBodyAborts(t *testing.T) {
	failed := make(chan error, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		failed <- err
	}))
	defer upstream.Close()
	b := bodyOf(strings.NewReader(padded(`{"x":1}`)+"x"), -1, "", testCompletion, testLimit, false)
	defer b.release()
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, upstream.URL, b.reader(rendering{}))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = b.length(rendering{})
	if answer, err := upstream.Client().Transport.RoundTrip(r); err == nil {
		answer.Body.Close()
		t.Error("the upload went through")
	}
	if err := <-failed; err == nil {
		t.Error("the upstream saw a whole body")
	}
	if !errors.Is(b.err(), errMalformed) {
		t.Errorf("err() = %v", b.err())
	}
}

// TestRequestBodyReleased ends a call while the transport is still reading.
func TestRequestBodyReleased(t *testing.T) {
	long := padded(`{"x":1}`)
	for name, end := range map[string]func(*requestBody, io.Closer){
		"release": func(b *requestBody, _ io.Closer) { b.release() },
		"close": func(_ *requestBody, c io.Closer) {
			if c.Close() != nil {
				t.Error("close failed")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, connection := io.Pipe()
			waits := make(chan struct{})
			var once sync.Once
			source := io.MultiReader(strings.NewReader(long[:len(long)-2]), readerFunc(func(p []byte) (int, error) {
				once.Do(func() { close(waits) })
				return client.Read(p)
			}))
			b := bodyOf(source, -1, "", testCompletion, testLimit, false)
			if err := b.readAhead(); err != nil {
				t.Fatal(err)
			}
			r := b.reader(rendering{})
			done := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, r)
				done <- err
			}()
			<-waits
			end(b, r)     // does not wait for the client
			_ = b.wants() // nor does this
			if _, err := connection.Write([]byte("1}")); err != nil {
				t.Fatal(err)
			}
			connection.Close()
			select {
			case err := <-done:
				if !errors.Is(err, errReleased) {
					t.Errorf("got %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("still reading")
			}
			if name == "close" {
				b.release()
			}
			if !b.held.isEmpty() {
				t.Error("not all buffers went back")
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestRequestBodyReplayReleased(t *testing.T) {
	body := `{"x":"` + strings.Repeat("y", 2*flatBody) + `"}`
	b := bodyOf(strings.NewReader(body), int64(len(body)), "", testCompletion, testLimit, false)
	if err := b.readAhead(); err != nil {
		t.Fatal(err)
	}
	first, second := b.reader(rendering{}), b.reader(rendering{})
	if _, err := io.ReadFull(first, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, errReleased) {
		t.Errorf("a closed reader returns %v", err)
	}
	if _, err := second.Read(make([]byte, 1)); err != nil {
		t.Errorf("the other reader returns %v", err)
	}
	b.release()
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, errReleased) {
		t.Errorf("after release: %v", err)
	}
	if !b.held.isEmpty() {
		t.Error("not all buffers went back")
	}
}
