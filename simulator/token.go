// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
)

const signedGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// issueToken is the endpoint at which a service account gets its access tokens:
// a service-account file whose token_uri is "<this address>/token" works
// without a network. Whose signature it is, is not looked at.
func issueToken(x *exchange) error {
	body, fail := readBody(x.w, x.r)
	if fail != nil {
		return x.fail(fail)
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		return x.refuseToken("invalid_request", "Bad Request")
	}
	grant, assertion := form.Get("grant_type"), form.Get("assertion")
	switch {
	case grant == "":
		return x.refuseToken("invalid_request", "Missing required parameter: grant_type")
	case grant != signedGrant:
		return x.refuseToken("unsupported_grant_type", "Invalid grant_type: "+grant)
	case strings.Count(assertion, ".") != 2:
		return x.refuseToken("invalid_grant", "Invalid JWT: it must have three parts.")
	}
	x.w.Header().Set("Cache-Control", "no-store")
	return x.json(object{{"access_token", "sim-" + rand.Text()}, {"expires_in", 3600}, {"token_type", "Bearer"}})
}

// refuseToken is an error as OAuth has it.
func (x *exchange) refuseToken(reason, description string) error {
	return x.print(http.StatusBadRequest, x.call.api.jsonType, object{{"error", reason}, {"error_description", description}})
}
