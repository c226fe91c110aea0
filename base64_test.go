// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestBase64Decoder(t *testing.T) {
	const binary = "\xfb\xff\xbf\x00" // ++/ and so on in its digits
	tests := map[string]struct {
		inside string // of the JSON string
		want   string
		valid  bool
	}{
		"nothing":                 {"", "", true},
		"padded":                  {"+/+/AA==", binary, true},
		"bare":                    {"+/+/AA", binary, true},
		"URL-safe":                {"-_-_AA", binary, true},
		"URL-safe, padded":        {"-_-_AA==", binary, true},
		"both alphabets":          {"+_-/AA==", binary, true},
		"escaped slashes":         {`+\/+\/AA==`, binary, true},
		"escaped by .NET":         {`\u002B/\u002b/AA\u003D\u003d`, binary, true},
		"all escaped":             {`\u0041\u0041\u0041\u0042`, "\x00\x00\x01", true},
		"lines":                   {`+/+/\r\nAA\n==\n`, binary, true},
		"nothing but lines":       {`\n\r\n`, "", true},
		"trailing bits":           {"QUJ/", "AB\x7f", true},
		"one digit too many":      {"QUJDQ", "", false},
		"padding too short":       {"QQ=", "", false},
		"padding too long":        {"QUI==", "", false},
		"needless padding":        {"QUJD=", "", false},
		"padding for four":        {"QUJD====", "", false},
		"padding of one digit":    {"Q===", "", false},
		"nothing but padding":     {"==", "", false},
		"more behind the padding": {"QQ==QUJD", "", false},
		"a space":                 {"QU JD", "", false},
		"no digit":                {"QUJD*AAA", "", false},
		"not ASCII":               {"QUJDä", "", false},
		"another escape":          {`QUJD\t`, "", false},
		"an unfinished escape":    {`QUJD\`, "", false},
		"half a pair":             {`QUJD\ud83d`, "", false},
		"a data URL":              {"data:image/png;base64,QUJD", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, from := range []io.Reader{
				strings.NewReader(tt.inside),
				iotest.OneByteReader(strings.NewReader(tt.inside)),
				iotest.DataErrReader(strings.NewReader(tt.inside)),
			} {
				got, err := io.ReadAll(newBase64Decoder(from, 17))
				if errors.Is(err, errBase64) == tt.valid || err != nil && tt.valid || tt.valid && string(got) != tt.want {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
}

// TestBase64Digits reads into buffers that have no room for the padding.
func TestBase64Digits(t *testing.T) {
	for inside, want := range map[string]string{
		"":                               "",
		"-_-_AA":                         "+/+/AA==",
		`QU\/\n`:                         "QU/=",
		strings.Repeat("QUJD", 5) + "QQ": strings.Repeat("QUJD", 5) + "QQ==",
	} {
		for _, from := range []io.Reader{strings.NewReader(inside), iotest.OneByteReader(strings.NewReader(inside))} {
			if err := iotest.TestReader(newBase64Digits(from, 0), []byte(want)); err != nil {
				t.Errorf("%s: %v", inside, err)
			}
		}
		got, err := io.ReadAll(iotest.OneByteReader(newBase64Digits(strings.NewReader(inside), 0)))
		if err != nil || string(got) != want {
			t.Errorf("%s became %s, %v", inside, got, err)
		}
	}
}

// Padding where a buffer ends does not hide what is behind it.
func TestBase64DecoderEndsOnce(t *testing.T) {
	for size := 1000; size < 5000; size += 4 {
		text := strings.Repeat("A", size-2) + "==QUJD"
		if _, err := io.ReadAll(newBase64Decoder(strings.NewReader(text), 0)); !errors.Is(err, errBase64) {
			t.Fatalf("behind %d digits: %v", size, err)
		}
	}
}

func TestBase64Fails(t *testing.T) {
	broken := errors.New("broken")
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"encoder":   newBase64Encoder,
		"decoder":   func(r io.Reader) io.Reader { return newBase64Decoder(r, 0) },
		"digits":    func(r io.Reader) io.Reader { return newBase64Digits(r, 0) },
		"unescaper": newUnescapingReader,
	} {
		from := io.MultiReader(strings.NewReader(strings.Repeat("QUJD", 5000)), iotest.ErrReader(broken))
		r := wrap(from)
		for range 2 {
			if _, err := io.Copy(io.Discard, r); !errors.Is(err, broken) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestBase64Encoder(t *testing.T) {
	text := strings.Repeat("0123456789", 2000)
	for _, size := range []int{0, 1, 2, 3, 4, 4095, 4096, 4097, 8192, 20_000} {
		want := base64.StdEncoding.EncodeToString([]byte(text[:size]))
		for _, from := range []io.Reader{stepped(text[:size], 1000), strings.NewReader(text[:size]), iotest.HalfReader(strings.NewReader(text[:size]))} {
			if err := iotest.TestReader(newBase64Encoder(from), []byte(want)); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}

// FuzzBase64Span compares with encoding/json and encoding/base64.
func FuzzBase64Span(f *testing.F) {
	for _, seed := range []string{"", "QUJD", "QQ==", "_-8", `\/\/\u002b\u003d`, `QQ\n==\r\n`, "Q", "====", `\ud83dQQ`, strings.Repeat("QUJD", 300) + "=", `\`} {
		f.Add(seed, uint16(3))
	}
	f.Fuzz(func(t *testing.T, inside string, step uint16) {
		from := stepped(inside, 1+int(step)%5000)
		got, err := io.ReadAll(newBase64Decoder(from, 0))
		if err != nil && !errors.Is(err, errBase64) {
			t.Fatalf("%q: %v", inside, err)
		}
		var text string
		if json.Unmarshal([]byte(`"`+inside+`"`), &text) != nil {
			return // cannot be in a body that has been scanned
		}
		text = strings.NewReplacer("-", "+", "_", "/", "\r", "", "\n", "").Replace(text)
		encoding := base64.RawStdEncoding
		if strings.Contains(text, "=") {
			encoding = base64.StdEncoding
		}
		want, wrong := encoding.DecodeString(text)
		if (err != nil) != (wrong != nil) || err == nil && string(got) != string(want) {
			t.Fatalf("%q: got %q, %v; want %q, %v", inside, got, err, want, wrong)
		}
	})
}
