// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"maps"
	"net/http"
	"strings"
)

// headerKind says what a header of an upstream's answer is about, and with that
// whether the client gets it.
type headerKind uint8

const (
	// ofItself is about the answer: it reaches the client as it is. So does
	// whatever is in no table.
	ofItself headerKind = 0

	// ofHop concerns one connection only (RFC 9110 §7.6.1), and is dropped.
	ofHop headerKind = 1 << iota
	// ofOrigin is what a browser is to do or to keep for the site that it has
	// asked, which is not the upstream's but this one. It is dropped: cookies are
	// not sent on either, a policy about TLS, reports or stored data is for the
	// operator to make, and who follows Alt-Svc leaves the gateway.
	ofOrigin
	// ofBody describes the body as the upstream has written it, and is dropped
	// where it is written anew.
	ofBody
	// ofAccount is a matter between one of the APIs and the account there: OpenAI
	// names the organization, and counts what it may still ask for. It is dropped
	// where the client speaks another API.
	ofAccount
	// ofSharing says which pages of other sites may read the answer (CORS). It is
	// dropped where the site says so itself: two answers are none to a browser,
	// and half of each is a third one that nobody wanted.
	ofSharing
)

// headerKinds are the kinds of headers that do not always reach the client.
var headerKinds = map[string]headerKind{
	"Connection":                ofHop,
	"Keep-Alive":                ofHop,
	"Proxy-Authenticate":        ofHop,
	"Proxy-Authentication-Info": ofHop,
	"Proxy-Connection":          ofHop,
	"Te":                        ofHop,
	"Trailer":                   ofHop,
	"Transfer-Encoding":         ofHop,
	"Upgrade":                   ofHop,

	"Accept-Ch":                 ofOrigin,
	"Alt-Svc":                   ofOrigin,
	"Clear-Site-Data":           ofOrigin,
	"Expect-Ct":                 ofOrigin,
	"Nel":                       ofOrigin,
	"Public-Key-Pins":           ofOrigin,
	"Report-To":                 ofOrigin,
	"Reporting-Endpoints":       ofOrigin,
	"Service-Worker-Allowed":    ofOrigin,
	"Set-Cookie":                ofOrigin,
	"Strict-Transport-Security": ofOrigin,

	"Accept-Ranges":       ofBody,
	"Content-Digest":      ofBody,
	"Content-Disposition": ofBody,
	"Content-Length":      ofBody,
	"Content-Md5":         ofBody,
	"Content-Range":       ofBody,
	"Digest":              ofBody,
	"Etag":                ofBody,
	"Last-Modified":       ofBody,
	"Repr-Digest":         ofBody,
}

// headerFamilies are those of headers whose names begin alike.
var headerFamilies = []struct {
	prefix string
	kind   headerKind
}{
	{"Access-Control-", ofSharing},
	{"Openai-", ofAccount},
	{"X-Gemini-", ofAccount},
	{"X-Ratelimit-", ofAccount},
}

func kindOfHeader(name string) headerKind {
	for _, family := range headerFamilies {
		if strings.HasPrefix(name, family.prefix) {
			return family.kind
		}
	}
	return headerKinds[name]
}

// dropHeaders takes out headers of some kinds.
func dropHeaders(h http.Header, kinds headerKind) {
	maps.DeleteFunc(h, func(name string, _ []string) bool { return kindOfHeader(name)&kinds != 0 })
}

// dropTheirs takes out what does not concern the client, and what the field
// Connection names.
func dropTheirs(h http.Header) {
	for _, names := range h["Connection"] {
		for name := range strings.SplitSeq(names, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	dropHeaders(h, ofHop|ofOrigin)
}

// decidesSharing tells whether a site says itself which pages of others may read
// its answers.
func decidesSharing(site http.Header) bool {
	for name := range site {
		if kindOfHeader(name) == ofSharing {
			return true
		}
	}
	return false
}
