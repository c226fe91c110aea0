// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"crypto/rand"
	"net/http"
	"strings"
)

// api is one of the services that are played: what its paths have in common,
// whatever the dialect of their bodies.
type api struct {
	// admit refuses callers without credentials. Whose they are is never
	// looked at.
	admit func(*http.Request) *apiError
	// dress sets the headers that every answer has.
	dress    func(http.Header)
	jsonType string
	// plays are the scenarios for which the service has words of its own.
	plays map[string]play
}

var (
	geminiAPI       = api{admit: wantKey, dress: dressGoogle, jsonType: googleJSON}
	vertexAPI       = api{admit: wantAccessToken, dress: dressGoogle, jsonType: googleJSON}
	interactionsAPI = api{admit: wantKey, dress: dressGoogle, jsonType: googleJSON, plays: interactionPlays}
	tokenAPI        = api{admit: anybody, dress: dressGoogle, jsonType: googleJSON}
	gptAPI          = api{admit: wantGPTKey, dress: dressGPT, jsonType: "application/json", plays: gptPlays}
)

const (
	googleJSON  = "application/json; charset=UTF-8"
	eventStream = "text/event-stream"
)

func dressGoogle(header http.Header) {
	header.Set("X-Gemini-Service-Tier", "standard")
	header.Set("Vary", "Origin, Referer, X-Origin")
}

func dressGPT(header http.Header) {
	header.Set("Openai-Version", "2020-10-01")
	header.Set("X-Request-ID", "req_"+strings.ToLower(rand.Text()))
}

func anybody(*http.Request) *apiError { return nil }

// wantKey takes any credential in any of the places that the Gemini API or a
// client of it knows.
func wantKey(r *http.Request) *apiError {
	if hasAPIKey(r) || bearer(r) != "" {
		return nil
	}
	return errUnregisteredCaller
}

// wantAccessToken is for Vertex AI: an access token is the rule, and API keys
// are taken as well, which Google began with its express mode. A key in the
// place of a token is refused, as Google does.
func wantAccessToken(r *http.Request) *apiError {
	token := bearer(r)
	switch {
	case looksLikeAPIKey(token):
		return errKeyForToken
	case token == "" && !hasAPIKey(r):
		return errNoCredentials
	}
	return nil
}

// wantGPTKey looks for a key where OpenAI does, and nowhere else.
func wantGPTKey(r *http.Request) *apiError {
	if bearer(r) == "" {
		return errNoGPTKey
	}
	return nil
}

func hasAPIKey(r *http.Request) bool {
	return r.Header.Get("X-Goog-Api-Key") != "" || r.URL.Query().Get("key") != ""
}

// bearer is the token of the Authorization header, empty if there is none.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// looksLikeAPIKey knows Google's API keys, old and new, by how they begin.
func looksLikeAPIKey(token string) bool {
	return strings.HasPrefix(token, "AIza") || strings.HasPrefix(token, "AQ.")
}

// fromGPTClient tells the clients of OpenAI's API from Google's where both have
// the same path: the former know no other place for their key.
func fromGPTClient(r *http.Request) bool { return bearer(r) != "" && !hasAPIKey(r) }
