// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// The paths of a call that is judged, of one that is judged in another form, and of
// one that is forwarded.
var headerPaths = map[string]struct{ path, body string }{
	"judged":     {unaryPath, promptJSON},
	"translated": {imagesPath, drawJSON()},
	"forwarded":  {"/v1beta/models/" + imageModel + ":countTokens", promptJSON},
}

// theirHeaders are what an upstream may send, and whether a client gets it.
var theirHeaders = []struct {
	name, value string
	isPassed    bool
}{
	{"Set-Cookie", "__cf_bm=1; Domain=example.com", false},
	{"Alt-Svc", `h3=":443"; ma=2592000`, false},
	{"Strict-Transport-Security", "max-age=31536000; includeSubDomains", false},
	{"Clear-Site-Data", `"*"`, false},
	{"Nel", `{"report_to":"theirs"}`, false},
	{"Report-To", `{"group":"theirs"}`, false},
	{"Reporting-Endpoints", `theirs="https://example.com"`, false},
	{"Service-Worker-Allowed", "/", false},
	{"Keep-Alive", "timeout=5", false},
	{"Proxy-Authenticate", "Basic", false},
	{"Proxy-Connection", "keep-alive", false},

	{"Access-Control-Allow-Origin", "https://app.example.com", true},
	{"Access-Control-Expose-Headers", "Server-Timing", true},
	{"Vary", "Origin", true},
	{"Www-Authenticate", "Bearer", true},
	{"Content-Security-Policy", "default-src 'none'", true},
	{"X-Content-Type-Options", "nosniff", true},
	{"X-Powered-By", "theirs", true},
	{"Server-Timing", "gfet4t7; dur=12", true},
	{"Link", "</a>; rel=preload", true},
	{"Retry-After", "7", true},
}

func sendTheirHeaders(w http.ResponseWriter) {
	for _, h := range theirHeaders {
		w.Header().Set(h.name, h.value)
	}
	w.Header().Set("Server", "theirs")
}

// What an upstream says to browsers about its own site is not said of this one; what
// it says about its answer is.
func TestHeadersOfAnswers(t *testing.T) {
	for door, site := range map[string]func(url string) string{
		"directive": func(url string) string { return gemini(placeAt("scripted", url, "api_key {env.CADDYTEST_KEY}")) },
		"transport": func(url string) string { return proxied(url, once()) },
	} {
		for name, c := range headerPaths {
			for kind, plays := range map[string]http.HandlerFunc{"answer": drawn, "error": answers(404, jsonType, googleErrorJSON)} {
				t.Run(door+"/"+name+"/"+kind, func(t *testing.T) {
					u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
						sendTheirHeaders(w)
						plays(w, r)
					})
					s := run(t, site(u.URL)).post(t, c.path, c.body, "Origin", "https://app.example.com")
					u.only(t)
					for _, h := range theirHeaders {
						values := s.Header.Values(h.name)
						if h.isPassed && !slices.Equal(values, []string{h.value}) || !h.isPassed && len(values) > 0 {
							t.Errorf("%s: %q", h.name, values)
						}
					}
					if server := s.Header.Values("Server"); len(server) != 1 {
						t.Errorf("Server: %q", server)
					}
				})
			}
		}
	}
}

// A page behind a reverse_proxy is no answer of an API: its cookies are its own.
func TestCookiesOfOtherPages(t *testing.T) {
	u := scripted(t, with("Set-Cookie", "session=1", answers(200, "text/html", "<html>")))
	s := do(t, run(t, proxied(u.URL, once())).newRequest(t, http.MethodGet, "/login", nil))
	if s.Header.Get("Set-Cookie") != "session=1" {
		t.Errorf("headers %v", s.Header)
	}
}

// A block is answered by the gateway: nothing of the upstream's headers is in it.
func TestHeadersOfABlock(t *testing.T) {
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		sendTheirHeaders(w)
		answers(200, jsonType, blockedJSON)(w, r)
	})
	s := inFront(t, u).post(t, unaryPath, promptJSON)
	s.fails(t, 400, "IMAGE_SAFETY")
	for _, h := range theirHeaders {
		if values := s.Header.Values(h.name); len(values) > 0 {
			t.Errorf("%s: %q", h.name, values)
		}
	}
}

// A site that decides itself who may read its answers is not contradicted.
func TestSiteDecidesSharing(t *testing.T) {
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		w.Header().Set("Access-Control-Expose-Headers", "Theirs")
		drawn(w, r)
	})
	for name, site := range map[string]string{
		"at once":  "header Access-Control-Allow-Origin https://app.example.com\n",
		"deferred": "header {\n>Access-Control-Allow-Origin https://app.example.com\n-Access-Control-Allow-Credentials\n-Access-Control-Expose-Headers\n}\n",
	} {
		g := run(t, site+gemini("upstream scripted "+u.URL))
		for path, c := range headerPaths {
			t.Run(name+"/"+path, func(t *testing.T) {
				s := g.post(t, c.path, c.body, "Origin", "https://app.example.com")
				var got []string
				for field, values := range s.Header {
					if strings.HasPrefix(field, "Access-Control-") {
						got = append(got, field+": "+strings.Join(values, ", "))
					}
				}
				if want := []string{"Access-Control-Allow-Origin: https://app.example.com"}; !slices.Equal(got, want) {
					t.Errorf("the client received %q, want %q", got, want)
				}
			})
		}
	}
}

// A browser asks first: the question goes to the upstream, unless the site answers it.
func TestPreflight(t *testing.T) {
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		w.WriteHeader(http.StatusOK)
	})
	ask := func(g *gateway) *reply {
		r := g.newRequest(t, http.MethodOptions, unaryPath, nil)
		r.Header.Del("X-Goog-Api-Key")
		r.Header.Set("Origin", "https://app.example.com")
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "x-goog-api-key")
		return do(t, r)
	}
	s := ask(run(t, gemini("upstream scripted "+u.URL)))
	if s.StatusCode != 200 || s.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || s.Header.Get("Access-Control-Allow-Headers") != "x-goog-api-key" {
		t.Errorf("the browser was told %d %v", s.StatusCode, s.Header)
	}
	if r := u.only(t); r.Method != "OPTIONS" || r.URI != unaryPath || r.Header.Get("Access-Control-Request-Method") != "POST" {
		t.Errorf("the upstream received %s %s %v", r.Method, r.URI, r.Header)
	}
	u.play(u.answer)
	s = ask(run(t, "header Access-Control-Allow-Origin *\n@preflight method OPTIONS\nrespond @preflight 204\n"+gemini("upstream scripted "+u.URL)))
	if s.StatusCode != 204 || !slices.Equal(s.Header.Values("Access-Control-Allow-Origin"), []string{"*"}) {
		t.Errorf("the browser was told %d %v", s.StatusCode, s.Header)
	}
	u.untouched(t)
}
