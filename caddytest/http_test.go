// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// newTransport belongs to one test, and asks for no compression by itself.
func newTransport(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// reply is what a plain HTTP client has seen.
type reply struct {
	*http.Response
	body []byte
	err  error // the body did not come to its end
}

// do sends a request as it is.
func do(t *testing.T, r *http.Request) *reply {
	t.Helper()
	res, err := newTransport(t).RoundTrip(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return read(res)
}

// read reads an answer to its end.
func read(res *http.Response) *reply {
	defer res.Body.Close()
	s := &reply{Response: res}
	s.body, s.err = io.ReadAll(res.Body)
	return s
}

// newRequest is a call with the client's own key.
func (g *gateway) newRequest(t *testing.T, method, uri string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.url+uri, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Goog-Api-Key", clientKey)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// post sends a call and reads its answer, which must say who it went through.
func (g *gateway) post(t *testing.T, uri, body string, header ...string) *reply {
	t.Helper()
	r := g.newRequest(t, http.MethodPost, uri, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	s := do(t, r)
	if via := s.Header.Get("Proxy-Status"); !strings.HasPrefix(via, "caddy-gemini") {
		t.Errorf("Proxy-Status: %q", via)
	}
	return s
}

// exactly fails unless the answer is this one, byte for byte.
func (s *reply) exactly(t *testing.T, status int, body string) {
	t.Helper()
	if s.err != nil {
		t.Fatalf("the answer broke off: %v", s.err)
	}
	if s.StatusCode != status {
		t.Errorf("status %d, want %d", s.StatusCode, status)
	}
	if string(s.body) != body {
		t.Errorf("answer %q\nwant   %q", shortened(string(s.body)), shortened(body))
	}
}

func shortened(s string) string {
	if len(s) <= 2000 {
		return s
	}
	return s[:1000] + " … " + s[len(s)-1000:]
}

// apiError is Google's form of an error.
type apiError struct {
	Code    int              `json:"code"`
	Status  string           `json:"status"`
	Message string           `json:"message"`
	Details []map[string]any `json:"details"`
}

func (e *apiError) metadata(key string) string {
	if len(e.Details) == 0 {
		return ""
	}
	m, _ := e.Details[0]["metadata"].(map[string]any)
	value, _ := m[key].(string)
	return value
}

// fails checks the form of an error that the gateway has written itself, and
// its reason.
func (s *reply) fails(t *testing.T, status int, reason string) *apiError {
	t.Helper()
	if s.err != nil {
		t.Fatalf("the answer broke off: %v", s.err)
	}
	if s.StatusCode != status {
		t.Fatalf("status %d, want %d: %s", s.StatusCode, status, shortened(string(s.body)))
	}
	if got := s.Header.Get("Content-Type"); got != jsonType {
		t.Errorf("Content-Type %q, want %q", got, jsonType)
	}
	if got := s.Header.Get("X-Should-Retry"); got != "false" {
		t.Errorf("X-Should-Retry %q, want false", got)
	}
	if got := s.Header.Get("Proxy-Status"); !strings.Contains(got, `details="`+reason+`"`) {
		t.Errorf("Proxy-Status %q does not tell %s", got, reason)
	}
	e := parseError(t, s.body)
	if e.Code != status {
		t.Errorf("error.code %d, want %d", e.Code, status)
	}
	checkReason(t, e, reason)
	return e
}

// checkReason looks for the reason in the places where clients do.
func checkReason(t *testing.T, e *apiError, reason string) {
	t.Helper()
	if !strings.HasPrefix(e.Message, reason+": ") {
		t.Errorf("message %q does not begin with %s", e.Message, reason)
	}
	if len(e.Details) != 3 || e.Details[0]["reason"] != reason {
		t.Errorf("details %v, want the reason %s", e.Details, reason)
	}
}

func parseError(t *testing.T, body []byte) *apiError {
	t.Helper()
	var parsed struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(body, &parsed); err != nil || parsed.Error == nil {
		t.Fatalf("no error object (%v): %s", err, shortened(string(body)))
	}
	return parsed.Error
}
