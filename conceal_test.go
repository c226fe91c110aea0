// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func sentWith(query string, header ...string) *http.Request {
	r := &http.Request{URL: &url.URL{RawQuery: query}, Header: make(http.Header)}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func TestConceal(t *testing.T) {
	const key = "AIza-of-the-operator"
	stars := strings.Repeat("*", len(key))
	for _, c := range []struct {
		name       string
		sent       *http.Request
		text, want string
	}{
		{"header", sentWith("", apiKeyHeader, key), `{"message":"` + key + `, ` + key + `"}`, `{"message":"` + stars + `, ` + stars + `"}`},
		{"bearer", sentWith("", "Authorization", "Bearer "+key), key, stars},
		{"query", sentWith("a=b&key=" + key), "x" + key, "x" + stars},
		{"half of it", sentWith("", apiKeyHeader, key), key[:10], key[:10]},
		{"a word", sentWith("", apiKeyHeader, "any"), "anything", "anything"},
		{"not said", nil, key, key},
	} {
		text := []byte(c.text)
		if conceal(text, c.sent); string(text) != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

func TestConcealInAnswer(t *testing.T) {
	const key = "AIza-of-the-operator"
	long := strings.Repeat("x", maxErrorBody) + "end"
	for _, c := range []struct {
		status     int
		body, want string
		err        error
	}{
		{400, "bad " + key, "bad " + strings.Repeat("*", len(key)), nil},
		{400, long, long, nil},
		{400, "bad ", "bad ", io.ErrUnexpectedEOF},
		{200, "fine " + key, "fine " + key, nil},
	} {
		body := io.Reader(strings.NewReader(c.body))
		if c.err != nil {
			body = io.MultiReader(body, failing{c.err})
		}
		res := &http.Response{StatusCode: c.status, Header: http.Header{"Location": {"/?key=" + key}}, Body: io.NopCloser(body)}
		concealIn(res, sentWith("", apiKeyHeader, key))
		got, err := io.ReadAll(res.Body)
		if string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%d: %.100s (%v), want %.100s (%v)", c.status, got, err, c.want, c.err)
		}
		if at := res.Header.Get("Location"); strings.Contains(at, key) {
			t.Errorf("Location: %s", at)
		}
	}
}

func TestUnquoted(t *testing.T) {
	for text, want := range map[string]string{
		`malformed HTTP response "a \"cat\" \\"`:                       `malformed HTTP response …`,
		"malformed MIME header line: \"x\ny\", and \"z\"":              `malformed MIME header line: …, and …`,
		`dial tcp 192.0.2.1:443: connect: connection refused`:          `dial tcp 192.0.2.1:443: connect: connection refused`,
		`http: message cannot contain … Content-Length; got ["a" "b"]`: `http: message cannot contain … Content-Length; got [… …]`,
	} {
		cause := errors.New(text)
		err := fmt.Errorf("reading: %w", unquoted{cause})
		if err.Error() != "reading: "+want || !errors.Is(err, cause) {
			t.Errorf("%q became %q", text, err)
		}
	}
}

func TestShownWords(t *testing.T) {
	for word, want := range map[string]string{
		"api_kee": `"api_kee"`, "AIzaSyUpstreamUpstreamUpstreamUpstrea22": "(what may be a key)", "generativelanguage.googleapis.com": `"generativelanguage.googleapis.com"`,
	} {
		if got := shown(word); got != want {
			t.Errorf("%s is shown as %s", word, got)
		}
	}
}

// Caddy's proxy logs requests at debug level, and knows of Authorization alone.
func TestCredentialsAreTakenOut(t *testing.T) {
	h := http.Header{"X-Goog-Api-Key": {"a"}, "Authorization": {"b"}, "X-Api-Key": {"c"}, "Api-Key": {"d"}, "X-Title": {"e"}}
	taken := takeCredentials(h)
	if len(taken) != 4 || len(h) != 1 || h.Get("X-Title") != "e" {
		t.Errorf("taken %v, left %v", taken, h)
	}
	sent := &http.Request{Header: http.Header{"X-Api-Key": {"0123456789"}}, URL: new(url.URL)}
	text := []byte("the key 0123456789 is not valid")
	if conceal(text, sent); string(text) != "the key ********** is not valid" {
		t.Errorf("%s", text)
	}
}
