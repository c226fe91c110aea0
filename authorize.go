// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// isCredential recognises the fields of a query that prove who is calling.
func isCredential(name string) bool {
	switch parameter(name) {
	case "key", "access_token", "oauth_token":
		return true
	}
	return false
}

// parameter is what a field of a query is called without the dollar that all of Google's
// system parameters can have (cloud.google.com/apis/docs/system-parameters).
func parameter(name string) string {
	if unescaped, err := url.QueryUnescape(name); err == nil {
		name = unescaped
	}
	return strings.TrimPrefix(name, "$")
}

// withoutKey takes credentials out of a query and leaves the rest as it is.
func withoutKey(query string) string { return withoutOtherKeys(query, "") }

// withoutOtherKeys takes out all credentials but one.
func withoutOtherKeys(query, known string) string {
	return without(query, func(name, value string) bool { return isCredential(name) && (known == "" || value != known) })
}

// unpruned takes out of a query what leaves only parts of an answer, which could not be
// judged: a block may not be among them.
func unpruned(query string) string {
	return without(query, func(name, _ string) bool { return parameter(name) == "fields" })
}

func without(query string, isOut func(name, value string) bool) string {
	if query == "" {
		return ""
	}
	kept := make([]string, 0, 4)
	for field := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(field, "="); !isOut(name, value) {
			kept = append(kept, field)
		}
	}
	return strings.Join(kept, "&")
}

// neededPrefixes begin the names of Google's own request headers: what Vertex
// AI bills a call to, and the apps that a key is restricted to.
var neededPrefixes = []string{"X-Goog-", "X-Vertex-", "X-Android-", "X-Ios-"}

// neededByOpenAI begin the names of OpenAI's: the organization and project to bill.
var neededByOpenAI = []string{"Openai-"}

func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// neededHeaders are the other request headers that mean something to a
// provider. The rest is the client's and the network's business: cookies,
// addresses, referrers.
var neededHeaders = map[string]bool{
	"Accept":           true,
	"Accept-Language":  true,
	"Api-Revision":     true,
	"Authorization":    true,
	"Content-Type":     true,
	"User-Agent":       true,
	"X-Server-Timeout": true,
}

// actedOn are the headers that say who calls and what the body is. Of several the
// first counts here, and is the only one that goes on: an upstream may prefer another.
var actedOn = []string{"Authorization", "Content-Type", apiKeyHeader}

// notJudged are headers that calls which are judged must not have: X-Goog-FieldMask is
// the query's fields.
var notJudged = []string{"X-Goog-Fieldmask"}

// header selects what goes to the upstream. Generate calls carry only what is
// needed, and no Accept-Encoding: base64 hardly shrinks, and whatever is compressed has
// to be decoded to be judged. Other calls keep their headers.
func (u *upstream) header(in *http.Request, x *exchange, key *apiKey, c course) http.Header {
	prefixes := neededPrefixes
	if u.format == formatOpenAI {
		prefixes = neededByOpenAI
	}
	out := make(http.Header, 8)
	for name, values := range in.Header {
		needed := neededHeaders[name] || hasPrefix(name, prefixes)
		if x.forwarded() {
			needed = !notForwarded[name]
		}
		if needed {
			out[name] = values
		}
	}
	maps.Copy(out, x.credentials)
	if key != nil || u.hasCredential {
		remove(out, payers)
		remove(out, otherKeys)
	}
	if !x.forwarded() {
		remove(out, notJudged)
	}
	for _, name := range actedOn {
		if values := out[name]; len(values) > 1 {
			out[name] = values[:1]
		}
	}
	switch isBearer := u.takesBearer(&x.call, c); {
	case key != nil:
		key.authorize(out, isBearer)
	case u.hasCredential:
		new(apiKey).authorize(out, isBearer) // which leaves the place to header_up
	case !x.forwarded() && u.movesKey(in, x, c):
		ownKey(in).authorize(out, isBearer)
	}
	return out
}

func remove(h http.Header, names []string) {
	for _, name := range names {
		delete(h, name)
	}
}

// takesBearer tells that keys go into the field Authorization, as OpenAI's clients
// send them.
func (u *upstream) takesBearer(call *call, c course) bool {
	return u.format == formatOpenAI || call.surface == surfaceOpenAI && !c.translates()
}

// movesKey tells that the upstream's API wants the client's own key in another place.
func (u *upstream) movesKey(in *http.Request, x *exchange, c course) bool {
	switch {
	case c.translates():
		return true
	case u.format == formatOpenAI: // what has not to be moved is left as it is: it may be of another scheme
		known := clientKey(in)
		return known != "" && known != bearer(in.Header.Get("Authorization"))
	}
	return x.call.surface == surfaceGemini && u.format == formatVertex
}

// clientKey is the key or token of a client. If it has put one into several places, this
// is what goes on where only one of them can.
func clientKey(in *http.Request) string {
	authorization := in.Header.Get("Authorization")
	if isOfScheme(authorization) {
		authorization = ""
	}
	return cmp.Or(in.Header.Get(apiKeyHeader), bearer(authorization), keyIn(in.URL.RawQuery))
}

// isOfScheme tells what is no token but, for example, a password, which is none of the
// upstream's business where it is not left in its place.
func isOfScheme(authorization string) bool { return strings.Contains(bearer(authorization), " ") }

// ownKey is the client's own key, for a form that has another place for it.
func ownKey(in *http.Request) *apiKey {
	secret := clientKey(in)
	return &apiKey{secret: secret, isToken: strings.HasPrefix(secret, "ya29.")} // Google's access tokens
}

// otherKeys are where other providers take keys, which are the client's for those.
var otherKeys = []string{"X-Api-Key", "Api-Key"}

// credentialHeaders are those that prove who is calling.
var credentialHeaders = append([]string{apiKeyHeader, "Authorization"}, otherKeys...)

// takeCredentials moves the client's credentials out of its headers, into some of
// their own.
func takeCredentials(h http.Header) http.Header {
	taken := make(http.Header, len(credentialHeaders))
	for _, name := range credentialHeaders {
		if values, ok := h[name]; ok {
			taken[name] = values
			delete(h, name)
		}
	}
	return taken
}

// keyIn finds a credential in a query.
func keyIn(query string) string {
	for field := range strings.SplitSeq(query, "&") {
		if key, value, _ := strings.Cut(field, "="); isCredential(key) {
			return value
		}
	}
	return ""
}

// notForwarded are the headers that stay here even if all others go: what this
// server's proxy adds about the client, what the client keeps for this site, and what
// would make another call of one, which has been recognised by its method.
var notForwarded = map[string]bool{
	"Cookie":                 true,
	"Forwarded":              true,
	"Via":                    true,
	"X-Forwarded-For":        true,
	"X-Forwarded-Host":       true,
	"X-Forwarded-Proto":      true,
	"X-Http-Method":          true,
	"X-Http-Method-Override": true,
	"X-Method-Override":      true,
}

// payers name who pays for a call with the client's own key. They do not fit another:
// OpenAI refuses a key with the organization of somebody else.
var payers = []string{"X-Goog-User-Project", "Openai-Organization", "Openai-Project"}

// authorize replaces the client's credentials by the key, or token.
func (k *apiKey) authorize(h http.Header, isBearer bool) {
	delete(h, "Authorization")
	delete(h, apiKeyHeader)
	switch {
	case k.secret == "":
	case isBearer || k.isToken:
		h["Authorization"] = []string{"Bearer " + k.secret}
	default:
		h[apiKeyHeader] = []string{k.secret}
	}
}
