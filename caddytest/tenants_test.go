// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

// tenants gives two tenants keys and projects of their own, and nobody else.
const tenants = `map {header.X-Tenant} {tenant_key} {tenant} {
	acme {env.CADDYTEST_KEY_acme} acme-project
	zoo {env.CADDYTEST_KEY_zoo} zoo-project
	unset {env.CADDYTEST_KEY_unset} unset-project
	~^branch-(.*)$ {env.CADDYTEST_KEY_$1} branch-project
}
`

// ofTenant is the only key of an upstream.
const ofTenant = "api_key {tenant_key} {tenant}"

// withTenants starts Caddy with a gateway that tells tenants apart.
func withTenants(t *testing.T, places []string, options ...string) *gateway {
	t.Helper()
	ownKey(t, "acme")
	ownKey(t, "zoo")
	return start(t, accessLog+tenants+several(places, options...))
}

// as is the header of a tenant.
func as(tenant string) []string { return []string{"X-Tenant", tenant} }

// strangers are clients for whom there is no key.
var strangers = map[string]string{
	"nobody":               "",
	"a stranger":           "nobody",
	"a tenant without key": "unset",
	"a placeholder":        "{env.CADDYTEST_KEY_acme}",
	// Caddy does not look into the output of a regular expression.
	"a placeholder in a placeholder": "branch-acme",
}

// Each tenant has a key and a project of its own.
func TestTenantsHaveKeysOfTheirOwn(t *testing.T) {
	u := scripted(t, drawn)
	g := withTenants(t, []string{place("first", u, ofTenant)})
	for _, tenant := range []string{"acme", "zoo", "acme"} {
		line := g.accessLineOf(t, func() { g.post(t, unaryPath, promptJSON, as(tenant)...).exactly(t, 200, imageJSON) })
		if got := line["placeholder_project"]; got != tenant+"-project" {
			t.Errorf("the call of %s counts for %v", tenant, got)
		}
	}
	used(t, "acme zoo acme", u)
	for _, r := range u.received() {
		if r.Header.Get("Authorization") != "" || strings.Contains(r.URI, "key=") {
			t.Errorf("the upstream received %s %v", r.URI, r.Header)
		}
	}
}

// What is wrong with the key of one tenant is of no consequence for others.
func TestTenantsFailApart(t *testing.T) {
	for name, c := range map[string]struct {
		plays  http.HandlerFunc
		status int
		reason string // of the second answer
		used   string
	}{
		"limited":  {limited("60s"), 429, "RATE_LIMITED", "acme zoo zoo"}, // the gate is closed
		"rejected": {invalidKey, 400, "API_KEY_INVALID", "acme zoo acme zoo"},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, byKey("acme", c.plays, drawn))
			g := withTenants(t, []string{place("first", u, ofTenant)})
			for i := range 2 {
				s := g.post(t, unaryPath, promptJSON, append(as("acme"), "X-Server-Timeout", "20")...)
				if s.StatusCode != c.status || i > 0 && !strings.Contains(string(s.body), `"`+c.reason+`"`) {
					t.Errorf("call %d: status %d: %s", i, s.StatusCode, s.body)
				}
				g.post(t, unaryPath, promptJSON, as("zoo")...).exactly(t, 200, imageJSON)
			}
			used(t, c.used, u)
		})
	}
}

// Who has no key is not served with another's, and the client's own key is not
// for this upstream.
func TestTenantsWithoutKeys(t *testing.T) {
	u := scripted(t, drawn)
	g := withTenants(t, []string{place("first", u, ofTenant)})
	for name, tenant := range strangers {
		t.Run(name, func(t *testing.T) {
			g.post(t, unaryPath, promptJSON, as(tenant)...).fails(t, 503, "UPSTREAM_UNAVAILABLE")
			s := do(t, g.tenantRequest(t, http.MethodGet, "/v1beta/files?key="+clientKey, tenant))
			e := s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
			if !strings.Contains(e.Message, `no key of the upstream "first" is meant for this call`) || e.metadata("attempts") != "0" {
				t.Errorf("%+v", e)
			}
			if via := s.Header.Get("Proxy-Status"); strings.Contains(via, "next-hop") {
				t.Errorf("Proxy-Status %q: nothing has been sent", via)
			}
			for _, path := range []string{"/v1beta/openai/chat/completions", "/v1beta/openai/models"} {
				if s := do(t, g.tenantRequest(t, http.MethodPost, path, tenant)); s.StatusCode < 500 {
					t.Errorf("%s: status %d: %s", path, s.StatusCode, s.body)
				}
			}
		})
	}
	u.untouched(t)
}

func (g *gateway) tenantRequest(t *testing.T, method, uri, tenant string) *http.Request {
	t.Helper()
	r := g.newRequest(t, method, uri, nil)
	if method == http.MethodPost {
		r = g.newRequest(t, method, uri, strings.NewReader(`{"model":"`+textModel+`","messages":[]}`))
		r.Header.Set("Authorization", "Bearer "+clientKey)
	}
	r.Header.Set("X-Tenant", tenant)
	return r
}

// An upstream for which a call has no key is passed by.
func TestTenantsWithoutKeysGoElsewhere(t *testing.T) {
	first, second := scripted(t, drawn), scripted(t, drawn)
	g := withTenants(t, []string{place("first", first, ofTenant), place("second", second, ownKey(t, "shared", "shared-project"))})
	for _, tenant := range []string{"nobody", "acme", "unset"} {
		g.post(t, unaryPath, promptJSON, as(tenant)...).exactly(t, 200, imageJSON)
	}
	went(t, "second first second", first, second)
	used(t, "shared acme shared", first, second)
}

// Keys of a tenant and of all can be in one pool.
func TestTenantsShareAPool(t *testing.T) {
	u := scripted(t, drawn)
	g := withTenants(t, []string{place("first", u, ofTenant, ownKey(t, "shared"))})
	for range 2 {
		g.post(t, unaryPath, promptJSON, as("nobody")...).exactly(t, 200, imageJSON)
		g.post(t, unaryPath, promptJSON, as("acme")...).exactly(t, 200, imageJSON)
	}
	if got := keysUsed(u); strings.Count(got, "shared") < 2 || strings.Contains(got, "zoo") {
		t.Errorf("the calls were made with %s", got)
	}
}

// What is forwarded has the key of its tenant: files belong to its project. So do
// the calls that name them.
func TestTenantsHaveFilesOfTheirOwn(t *testing.T) {
	withFile := conversation(`{"fileData":{"mimeType":"image/png","fileUri":"https://generativelanguage.googleapis.com/v1beta/files/abc"}}`)
	for _, door := range []string{"directive", "transport"} {
		t.Run(door, func(t *testing.T) {
			u, other := scripted(t, drawn), scripted(t, drawn)
			places := []string{place("first", u, ofTenant), place("second", other, ownKey(t, "shared"))}
			g := withTenants(t, places)
			if door == "transport" {
				options := strings.TrimPrefix(several(places), "gemini ")
				g.load(t, tenants+"reverse_proxy "+other.URL+" {\n\ttransport gemini "+options+"}\n")
			}
			for _, tenant := range []string{"acme", "zoo"} {
				do(t, g.tenantRequest(t, http.MethodGet, "/v1beta/files", tenant)).exactly(t, 200, imageJSON)
				g.post(t, unaryPath, withFile, as(tenant)...).exactly(t, 200, imageJSON)
			}
			used(t, "acme acme zoo zoo", u)
			if s := g.post(t, unaryPath, withFile, as("nobody")...); s.StatusCode < 500 {
				t.Errorf("status %d: %s", s.StatusCode, s.body)
			}
			other.untouched(t)
		})
	}
}

// A conversation goes on where its tenant's images come from: where another tenant
// had one drawn is nobody else's place.
func TestTenantsHaveSignaturesOfTheirOwn(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, answers(200, jsonType, candidate(signedBy("acme"), `"STOP"`)))
	g := withTenants(t, []string{place("first", first, ofTenant), place("second", second, ofTenant)})
	g.post(t, unaryPath, promptJSON, as("acme")...)
	went(t, "first second", first, second)
	for _, c := range []struct{ tenant, went string }{{"acme", "second"}, {"zoo", "first"}, {"acme", "second"}} {
		first.play(drawn)
		second.play(drawn)
		g.post(t, unaryPath, conversation(signedBy("acme")), as(c.tenant)...).exactly(t, 200, imageJSON)
		went(t, c.went, first, second)
		used(t, c.tenant, first, second)
	}
}

// A block counts for the tenant whose prompt it was.
func TestTenantsAreBlockedApart(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := withTenants(t, []string{place("first", u, ofTenant)}, guarding)
	g.post(t, unaryPath, promptJSON, as("acme")...).fails(t, 400, "IMAGE_SAFETY")
	u.play(drawn)
	g.post(t, unaryPath, promptJSON, as("acme")...).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	g.post(t, unaryPath, promptJSON, as("zoo")...).exactly(t, 200, imageJSON)
	used(t, "zoo", u)
}

// What clients choose cannot look into the server, and is cut to what fits into a
// log.
func TestClientsChooseKeyAndProject(t *testing.T) {
	u := scripted(t, drawn)
	ownKey(t, "secret")
	g := start(t, accessLog+several([]string{place("first", u, "api_key {header.X-Key} {header.X-Project}")}))
	for _, c := range []struct{ key, project, used, counts string }{
		{keyOf("theirs"), "a", "theirs", "a"},
		{"  " + keyOf("theirs") + " ", "", "theirs", "first"},
		{keyOf("theirs"), " \t", "theirs", "first"},
		{keyOf("theirs"), strings.Repeat("é", 5000), "theirs", strings.Repeat("é", 64)},
		{keyOf("theirs"), "a\xffb\u202ec\td", "theirs", "a\ufffdbcd"},
		{keyOf("theirs"), "{env.CADDYTEST_KEY_secret}", "theirs", "{env.CADDYTEST_KEY_secret}"},
		{"{env.CADDYTEST_KEY_secret}", "a", "", ""},
		{"two words", "a", "", ""},
		{"clé", "a", "", ""},
	} {
		u.play(drawn)
		line := g.accessLineOf(t, func() { g.post(t, unaryPath, promptJSON, "X-Key", c.key, "X-Project", c.project) })
		if c.used == "" {
			u.untouched(t)
			continue
		}
		used(t, c.used, u)
		if got := line["placeholder_project"]; got != c.counts || !utf8.ValidString(c.counts) {
			t.Errorf("the project %q counts as %q, want %q", shortened(c.project), got, c.counts)
		}
	}
}
