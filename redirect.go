// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// redirectHere looks at where a forwarded call is sent by its upstream. The gateway follows
// no redirect itself, because it would give away the key. Clients do, with theirs:
// so a place at the upstream becomes the same place behind this gateway. Another
// place is for clients with keys of their own, who would be sent there without a
// gateway; it is false for all others, whose keys are meant for this site.
func (x *exchange) redirectHere(u *upstream, sent *url.URL, res *http.Response) bool {
	location := res.Header.Get("Location")
	if res.StatusCode/100 != 3 || location == "" || u.base == nil { // a 308 of Google's uploads has none
		return true
	}
	if target, err := sent.Parse(location); err == nil {
		if path, isHere := u.pathBehind(target); isHere {
			here := url.URL{RawQuery: target.RawQuery, Fragment: target.Fragment}
			if u.hasOwnKey() {
				here.RawQuery = withoutKey(here.RawQuery)
			}
			res.Header["Location"] = []string{x.mount + path + here.String()}
			return true
		}
	}
	return !u.hasOwnKey()
}

// pathBehind is the escaped path behind the prefix of an upstream, if the address is
// one there, with the version if the prefix has it. Two slashes would make the name of a
// host of what follows them.
func (u *upstream) pathBehind(target *url.URL) (path string, isThere bool) {
	prefix := strings.TrimSuffix(u.base.EscapedPath(), "/")
	path, isThere = strings.CutPrefix(target.EscapedPath(), prefix)
	isThere = isThere && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//")
	if u.hasVersion(prefix) {
		path = openAIVersion + path
	}
	return path, isThere && originOf(target) == originOf(u.base)
}

// originOf is scheme, host and port (RFC 6454 §4).
func originOf(u *url.URL) string {
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + cmp.Or(u.Port(), defaultPorts[u.Scheme])
}

// hasOwnKey tells that calls are made with the operator's credentials.
func (u *upstream) hasOwnKey() bool {
	return len(u.keys) > 0 || u.credential != nil || u.hasCredential
}

// sentAway answers a call whose redirect is not passed on.
func (a *attempt) sentAway(u *upstream) {
	a.verdict, a.status = verdict{class: classTransient, reason: reasonEmpty}, http.StatusServiceUnavailable
	a.detail = fmt.Sprintf("the upstream %q redirects to another server, which is not passed on because clients would take their keys there", u.name)
}

// leadsElsewhere tells whether a part of a path would leave the place where it is put:
// servers make one path of "a/../b", some also of "a%2F..%2Fb".
func leadsElsewhere(part string) bool {
	for name := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == '/' || r == '\\' }) {
		if name, _, _ = strings.Cut(name, ";"); name == "." || name == ".." {
			return true
		}
	}
	return false
}
