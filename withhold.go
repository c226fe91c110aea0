// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// withhold takes headers that quote the client's credentials out of an answer that
// is forwarded: the proxy logs its headers at debug level. Google puts the key of
// the query into the URL for an upload.
func (x *exchange) withhold(res *http.Response, sent *http.Request) {
	if x.withheld == nil {
		return
	}
	for _, secret := range credentialsOf(sent) {
		for name, values := range res.Header {
			if slices.ContainsFunc(values, func(value string) bool { return strings.Contains(value, secret) }) {
				x.withheld[name] = values
				delete(res.Header, name)
			}
		}
	}
}

// withheldWriter gives the client the headers that the proxy must not see.
type withheldWriter struct {
	*caddyhttp.ResponseWriterWrapper
	x *exchange
}

// WriteHeader completes the headers.
func (w *withheldWriter) WriteHeader(status int) {
	maps.Copy(w.Header(), w.x.withheld)
	w.ResponseWriterWrapper.WriteHeader(status)
}
