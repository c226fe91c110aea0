// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzAddress: wherever a client's path leads, a call goes to the upstream's host,
// below its prefix, with one key: the upstream's own, or else the client's.
func FuzzAddress(f *testing.F) {
	for i, target := range []string{
		"/v1beta/models/gemini-3-pro-image:generateContent", "/v1beta/models/m:streamGenerateContent?alt=sse&x=1", "/v1beta/models/a%2Fb%3AgenerateContent",
		"http://other.example/v1beta/models/m:generateContent", "//other.example/v1beta/models/m:generateContent", "/v1beta/models/@other.example:generateContent",
		"/v1beta/models/..%2f..%2fm%0d%0aX:generateContent", "/v1/projects/p%2F..%2Fq/locations/l/publishers/google/models/m:predict", "/v1beta/files/a?alt=media#b",
		"/v1beta/models/a:b%3AgenerateContent", "/v1beta/models/m%253AgenerateContent", "/v1/chat/completions", "/v1beta/openai/images/edits?a=b;c", "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
		"/v1beta/interactions", "/v1/tunedModels/m:generateContent?%24alt=sse", "/upload/v1beta/files", "/ws/google.ai", "/v1beta/models/\xff\u2603:countTokens?\x00",
	} {
		f.Add(target, uint(i))
	}
	bases := []string{"https://up.example", "https://up.example:8443/prefix/", "http://[::1]/v1"}
	f.Fuzz(func(t *testing.T, target string, options uint) {
		separator := "?"
		if strings.Contains(target, "?") {
			separator = "&"
		}
		in, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST " + target + separator + "key=the-clients-query HTTP/1.1\r\nHost: gateway\r\n" +
			"X-Goog-Api-Key: the-clients-key\r\nAuthorization: Bearer the-clients-token\r\n\r\n")))
		if err != nil {
			return
		}
		c := recognise(in)
		checkSpan(t, in.URL, &c)
		if c.surface == surfaceNone {
			return // for the next handler
		}
		base, _ := url.Parse(bases[options%3])
		u := &upstream{
			name: "up", base: base, format: []format{formatGemini, formatVertex, formatOpenAI}[options/3%3],
			project: []string{"", "their-project"}[options/9%2], models: []ModelRule{{Match: "m", Model: "another"}},
		}
		var key *apiKey
		if options/18%2 == 0 {
			key = newAPIKey("the-upstreams-key", "", "up")
		}
		x := newExchange(in, c)
		for _, way := range []way{wayAsIs, wayNative, wayImages, wayChat} {
			if way > wayAsIs && !c.generates {
				continue
			}
			out := u.request(t.Context(), in, x, key, course{way: way, model: u.mapModel(modelOr(c.model)), stream: options/36%2 == 0})
			checkAddress(t, target, base, out, key != nil)
		}
	})
}

// modelOr is a model for calls whose path names none.
func modelOr(model string) string {
	if model == "" {
		return "a/b c"
	}
	return model
}

// checkSpan looks for the model where it is said to be in the path.
func checkSpan(t *testing.T, in *url.URL, c *call) {
	t.Helper()
	if c.surface == surfaceNone && *c != (call{}) {
		t.Errorf("%q: no API, but %+v", in, c)
	}
	if c.model == "" {
		return
	}
	if model, err := url.PathUnescape(in.EscapedPath()[c.modelAt:c.modelEnd]); err != nil || model != c.model {
		t.Errorf("%q: %q stands where the model %q is said to be", in, model, c.model)
	}
}

// checkAddress reads a request as the upstream will.
func checkAddress(t *testing.T, target string, base *url.URL, out *http.Request, hasKey bool) {
	t.Helper()
	var wire bytes.Buffer
	out.Body = http.NoBody
	if err := out.Write(&wire); err != nil {
		return // net/http has refused it
	}
	read, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire.Bytes())))
	if err != nil {
		t.Fatalf("%q: %v of %q", target, err, wire.Bytes())
	}
	if out.URL.Scheme != base.Scheme || out.URL.Host != base.Host || read.Host != base.Host || read.URL.Host != "" {
		t.Errorf("%q goes to %s, not to %s", target, out.URL, base)
	}
	if prefix := strings.TrimSuffix(base.Path, "/"); !strings.HasPrefix(read.URL.EscapedPath(), prefix+"/") {
		t.Errorf("%q leads to %s, not below %s", target, read.URL, base)
	}
	if !hasKey {
		if strings.Contains(wire.String(), "the-upstreams") {
			t.Errorf("%q has another's key: %q", target, wire.Bytes())
		}
		return
	}
	if strings.Count(wire.String(), "the-upstreams-key") != 1 || strings.Contains(wire.String(), "the-clients") {
		t.Errorf("%q has another key than the upstream's: %q", target, wire.Bytes())
	}
}
