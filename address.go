// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// course is the form in which a call goes to an upstream.
type course struct {
	way    way
	model  string // that the upstream is asked for
	stream bool   // the answer is to come as events
	isEdit bool   // there are images with the prompt, for which OpenAI has an endpoint of its own
}

// translates tells that the body is another one.
func (c course) translates() bool { return c.way > wayAsIs }

// request is a call as it goes to the upstream with one of its keys, or with
// the client's own.
func (u *upstream) request(ctx context.Context, in *http.Request, x *exchange, key *apiKey, c course) *http.Request {
	target := u.url(in, x, key, c)
	out := (&http.Request{
		Method:     in.Method,
		URL:        target,
		Host:       target.Host,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     u.header(in, x, key, c),
	}).WithContext(ctx)
	if !x.forwarded() {
		out.Method = http.MethodPost // some clients write it small
	}
	if u.base == nil {
		out.Host = in.Host // as the proxy around it has set it
	}
	if u.headers != nil {
		out.Header = out.Header.Clone() // its values are shared with the client's request
		u.headers.ApplyToRequest(out)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or net/http sends its own
	}
	return out
}

// url puts the path of a call behind the upstream's prefix. The path is taken
// in its escaped form, in which clients distinguish "%3A" from ":".
func (u *upstream) url(in *http.Request, x *exchange, key *apiKey, c course) *url.URL {
	base := u.base
	if base == nil {
		base = x.base
	}
	prefix := strings.TrimSuffix(base.EscapedPath(), "/")
	escaped, query := u.path(in.URL, prefix, x, c), in.URL.RawQuery
	switch {
	case x.forwarded():
		query = x.query
	case c.translates():
		query = ""
		if c.way == wayNative && c.stream {
			query = "alt=sse"
		}
	default:
		query = unpruned(query)
	}
	switch {
	case key != nil, u.hasCredential, u.format == formatOpenAI && !x.forwarded(): // which has no keys in queries
		query = withoutKey(query)
	case !x.forwarded():
		query = withoutOtherKeys(query, clientKey(in))
	}
	escaped = prefix + escaped
	out := &url.URL{Scheme: base.Scheme, Host: base.Host, RawQuery: query}
	out.Path, out.RawPath = escaped, escaped
	if unescaped, err := url.PathUnescape(escaped); err == nil {
		out.Path = unescaped
	}
	return out
}

// path is that of the call at the upstream, escaped.
func (u *upstream) path(in *url.URL, prefix string, x *exchange, c course) string {
	escaped := in.EscapedPath()
	switch {
	case x.forwarded():
		return u.behind(prefix, escaped)
	case c.way == wayNative: // from OpenAI's form, whose versions mean nothing here
		return u.nativePath("", c.model, streamVerb(c.stream))
	case c.way == wayImages && c.isEdit:
		return u.openAIPath(prefix, "images.edits")
	case c.way == wayImages:
		return u.openAIPath(prefix, "images.generations")
	case c.way == wayChat:
		return u.openAIPath(prefix, "chat.completions")
	case x.call.surface == surfaceOpenAI:
		if !u.hasPath(&x.call) {
			return u.openAIPath(prefix, x.call.method)
		}
	case x.call.surface == surfaceInteractions && u.format == formatVertex && u.project != "":
		return "/" + x.call.version + vertexParent(u.project, u.location) + "/interactions"
	case u.movesNative(&x.call):
		return u.nativePath(x.call.version, c.model, x.call.method)
	case x.call.model != "" && c.model != x.call.model:
		return escaped[:x.call.modelAt] + c.model + escaped[x.call.modelEnd:]
	}
	return escaped
}

// hasPath tells whether the path of an OpenAI-compatible call is the upstream's own.
func (u *upstream) hasPath(c *call) bool {
	switch {
	case u.format == formatOpenAI, !c.isGoogles:
		return false
	case c.isOpenAPI():
		return u.takesVertex || u.format == formatVertex && u.project == ""
	}
	return u.format == formatGemini
}

func streamVerb(stream bool) string {
	if stream {
		return "streamGenerateContent"
	}
	return "generateContent"
}

// movesNative tells that a native call has another path at the upstream: it is
// written for the other of Google's APIs, or names a project that is not the
// upstream's.
func (u *upstream) movesNative(c *call) bool {
	switch {
	case c.surface == surfaceGemini:
		return u.format == formatVertex && !c.isTuned
	case c.surface == surfaceVertex && c.isPublishers:
		return u.format == formatGemini && !u.takesVertex || u.format == formatVertex && u.project != ""
	}
	return false
}

// nativePath is the path of a verb in the upstream's own form.
func (u *upstream) nativePath(version, model, verb string) string {
	if u.format == formatVertex {
		return vertexPath(version, u.project, u.location, model, verb)
	}
	return geminiPath(model, verb)
}

// openAIPath is the path of an OpenAI-compatible method at the upstream.
func (u *upstream) openAIPath(prefix, method string) string {
	return u.behind(prefix, openAIPathOf(u.format, method, u.project, u.location))
}

// openAIVersion begins the paths of OpenAI's API.
const openAIVersion = "/v1"

// behind is a path without the version that stands in the upstream's prefix already.
func (u *upstream) behind(prefix, path string) string {
	if rest, isVersioned := strings.CutPrefix(path, openAIVersion+"/"); isVersioned && u.hasVersion(prefix) {
		return "/" + rest
	}
	return path
}

// hasVersion tells that a prefix ends with the version, or with what stands for it: that
// is how aggregators write their base URLs.
func (u *upstream) hasVersion(prefix string) bool {
	return u.format == formatOpenAI && (strings.HasSuffix(prefix, openAIVersion) || strings.HasSuffix(prefix, "/openai"))
}
