// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"net/http"
	"net/url"
	"testing"
)

func TestLeadsElsewhere(t *testing.T) {
	for part, want := range map[string]bool{
		"": false, "/": false, "/v1beta/models": false, "gemini-2.5-flash": false, "...": false, "..x": false, ".well-known": false, "a..b": false,
		"..": true, ".": true, "a/..": true, "../a": true, "/a/./b": true, `a\..\b`: true, "..;x/a": true, "a/..:generateContent": false,
	} {
		if leadsElsewhere(part) != want {
			t.Errorf("%q", part)
		}
	}
}

func TestOrigin(t *testing.T) {
	same := func(a, b string) bool {
		first, _ := url.Parse(a)
		second, _ := url.Parse(b)
		return originOf(first) == originOf(second)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"https://a.example", "https://A.example:443/x", true},
		{"http://a.example:80", "http://a.example", true},
		{"http://a.example", "https://a.example", false},
		{"https://a.example", "https://a.example:8443", false},
		{"https://a.example", "https://a.example.evil", false},
		{"https://[::1]", "https://[::1]:443", true},
	} {
		if same(c.a, c.b) != c.want {
			t.Errorf("%s and %s", c.a, c.b)
		}
	}
}

// Names are looked up as net/http spells them.
func TestHeaderKinds(t *testing.T) {
	for name := range headerKinds {
		if name != http.CanonicalHeaderKey(name) {
			t.Errorf("%s is never found", name)
		}
	}
	for name, want := range map[string]headerKind{
		"Set-Cookie": ofOrigin, "Access-Control-Allow-Origin": ofSharing, "X-Ratelimit-Limit-Requests": ofAccount, "Etag": ofBody, "Te": ofHop, "Vary": ofItself,
	} {
		if kindOfHeader(name) != want {
			t.Errorf("%s", name)
		}
	}
}
