// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// FuzzForm compares the parts of a form with those that mime/multipart finds, by
// their names and bytes, and looks for them where they are said to be.
func FuzzForm(f *testing.F) {
	f.Add([]byte(formOf(f, promptField, imageField)), uint(3))
	f.Add([]byte(formOf(f, []string{"a", "\r\n--boundar\r\n--boundaryy"}, []string{"b", ""})), uint(1))
	f.Add([]byte("--boundary\r\nContent-Disposition: form-data; name*=utf-8''%61; filename=\"b\\\"c\"\r\nX: y\r\n\r\n\r\n\r\n--boundary--\r\nand more"), uint(2))
	const named = "--boundary\r\nContent-Disposition: form-data; name=\"a\"\r\n"
	for i, body := range []string{
		named + "\r\n" + named + "\r\nx\r\n--boundary--\r\n", named + "Content-Disposition: form-data; name=\"b\"\r\n\r\nx\r\n--boundary--",
		"--boundary--0\r\n" + named + "\r\n--boundary--", named + " \r\n\r\nx\r\n--boundary--", named + "\r\n--boundary--\r\n--boundary--",
	} {
		f.Add([]byte(body), uint(i))
	}
	f.Add([]byte("before\r\n--boundary \t\r\ncontent-disposition:form-data;name=a\r\n\r\nx\r\n--boundary--"), uint(9))
	f.Fuzz(func(t *testing.T, body []byte, size uint) {
		whole, wholeErr := formParts(&pieces{body: string(body)}, body)
		parts, err := formParts(&pieces{body: string(body), size: int(size%64) + 1}, body)
		if !slices.Equal(parts, whole) || fmt.Sprint(err) != fmt.Sprint(wholeErr) {
			t.Fatalf("%q in pieces: %q, %v, as a whole %q, %v", body, parts, err, whole, wholeErr)
		}
		want, wantErr := multipartParts(body)
		if err == nil && wantErr == nil && isPlain(body) && !slices.Equal(parts, want) {
			t.Fatalf("%q has %q, want %q", body, parts, want)
		}
	})
}

// plainDelimiter is one as everybody writes it. What else is taken for one, such as
// those whose lines end in LF alone, is for each reader to say.
var plainDelimiter = regexp.MustCompile(`(^|\r\n)--boundary(--)?(\r\n|$)`)

func isPlain(form []byte) bool {
	return len(plainDelimiter.FindAll(form, -1)) == bytes.Count(form, []byte("--boundary"))
}

// FuzzFormWritten reads back what mime/multipart has written.
func FuzzFormWritten(f *testing.F) {
	f.Add("prompt", "a cat", "image", []byte("\x89PNG\r\n--boundary"), uint(3))
	f.Add("a\"b\\c", "\r\n", "image[]", []byte("\r\n--boundary-\r\n\r"), uint(1))
	f.Add("prompt", "", "image", []byte("--boundary--"), uint(0))
	f.Fuzz(func(t *testing.T, name, text, file string, data []byte, size uint) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		_ = w.WriteField(name, text)
		if part, err := w.CreateFormFile(file, "a.png"); err == nil {
			_, _ = part.Write(data)
		}
		_ = w.Close()
		body := bytes.ReplaceAll(b.Bytes(), []byte(w.Boundary()), []byte(testBoundary))
		want, err := multipartParts(body)
		if err != nil || len(want) != 2 || name == "" || file == "" || len(name)+len(file) > maxFormHeader/8 {
			return // the boundary is among the data, or a name is none
		}
		got, err := formParts(&pieces{body: string(body), size: int(size%64) + 1}, body)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q has %q, %v, want %q", body, got, err, want)
		}
	})
}

// formParts are the names and bytes of a form's parts, where they stand in the body.
func formParts(from io.Reader, body []byte) (parts []string, err error) {
	s := newFormScanner(from, testBoundary)
	for {
		part, err := s.next()
		if errors.Is(err, io.EOF) {
			return parts, nil
		}
		if err != nil {
			return parts, err
		}
		at, told := s.at, ""
		for {
			p, err := s.bytes()
			if err != nil {
				return parts, err
			}
			if len(p) == 0 {
				break
			}
			told += string(p)
		}
		if there := string(body[at:s.at]); there != told {
			return parts, fmt.Errorf("%q is not where it is said to be, but %q", told, there)
		}
		parts = append(parts, part.name+"="+told)
	}
}

// multipartParts are the same as mime/multipart has them.
func multipartParts(body []byte) (parts []string, err error) {
	r := multipart.NewReader(bytes.NewReader(body), testBoundary)
	for {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return parts, nil
		}
		if err != nil {
			return parts, err
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return parts, err
		}
		if strings.TrimSpace(part.FormName()) == "" {
			return parts, errors.New("no name")
		}
		parts = append(parts, part.FormName()+"="+string(data))
	}
}
