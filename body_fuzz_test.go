// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzGzip reads bodies that are said to be gzip, as compress/gzip does, up to the
// limit.
func FuzzGzip(f *testing.F) {
	const limit = 64 << 10
	small := gzipped(f, `{"contents":[]}`)
	for _, seed := range []string{
		small, small + small, small[:len(small)-3], small + "more", "", "\x1f\x8b", gzipped(f, strings.Repeat("[", limit+1)), gzipped(f, `{"x":"`+strings.Repeat("a", limit)+`"}`),
	} {
		f.Add([]byte(seed), byte(7))
	}
	f.Fuzz(func(t *testing.T, sent []byte, piece byte) {
		want, wantErr := gunzipped(sent, limit)
		for _, length := range []int64{-1, int64(len(sent))} {
			b := bodyOf(stepped(string(sent), int(piece)+1), length, "gzip", completion{}, limit, true)
			err := b.readAll()
			var got []byte
			if err == nil {
				got, err = io.ReadAll(b.reader(rendering{}))
			}
			b.release()
			switch {
			case len(want) > limit:
				if !errors.Is(err, errTooLarge) {
					t.Fatalf("more than %d bytes: %v", limit, err)
				}
			case wantErr != nil:
				if !errors.Is(err, errMalformed) && len(sent) > 0 { // an empty body is left to the upstream
					t.Fatalf("%q: %v, want errMalformed for %v", sent, err, wantErr)
				}
			case err != nil || !bytes.Equal(got, want):
				t.Fatalf("%q: %d bytes, %v, want %d", sent, len(got), err, len(want))
			}
		}
	})
}

// gunzipped is what gzip holds, and no more than a byte beyond the limit.
func gunzipped(sent []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, limit+1))
}
