// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// sendLine sends a request with a line of any kind, which clients would tidy up.
func (g *gateway) sendLine(t *testing.T, line, host, body string) (status int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", g.address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Goog-Api-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		line, host, clientKey, len(body), body)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// Whatever a client writes into the line of a request, or into the name of a model: the
// operator's key goes to the upstream's address, below its path, and nowhere else.
func TestKeyStaysAtItsUpstream(t *testing.T) {
	const base = "/team/a"
	elsewhere := scripted(t, drawn)
	other := strings.TrimPrefix(elsewhere.URL, "http://")
	lines := []string{
		"GET /v1beta/models/../../../b/keys",
		"GET /v1beta/models/%2e%2e/%2E%2E/../../b/keys",
		"GET /v1beta/models/..%2f..%2f..%2f..%2fb",
		"GET /v1beta/models/a%2f..%2f..%2f..%2f..%2fb",
		`GET /v1beta/models/..\..\..\b`,
		"GET /v1beta/models/..%5c..%5cb",
		"GET /v1beta/models/..;x/..;x/..;/b",
		"GET /v1beta/./models",
		"GET /v1beta/..",
		"GET /v1beta/models/..",
		"GET /upload/v1beta/../../b",
		"GET /ws/google.x/../../b",
		"GET /v1/projects/p/locations/../../../../b",
		"GET //" + other + "/v1beta/models",
		"GET /v1beta//" + other + "/models",
		"GET /\\" + other + "/v1beta/models",
		"GET http://" + other + "/v1beta/models",
		"GET http://user:pass@" + other + "/v1beta/models",
		"GET /v1beta/models@" + other + "/",
		"GET /v1beta/models?@" + other + "/../..",
		"GET /@" + other + "/v1beta/models",
		"POST http://" + other + unaryPath,
		"POST //" + other + unaryPath,
		"POST /v1beta/models/..:generateContent",
		"POST /v1beta/models/../models/x:generateContent",
		"POST /v1beta/models/x/../../../../b:generateContent",
		"POST /v1beta/models/%2e%2e%2f%2e%2e%2f%2e%2e%2fb:generateContent",
		"POST /v1beta/models/x%3f@" + other + ":generateContent",
		"POST /v1beta/models/x%23:generateContent",
		"POST /v1beta/models/x%0d%0aHost:%20" + other + ":generateContent",
		"OPTIONS *",
	}
	for door, site := range map[string]func(place string) string{
		"directive": func(place string) string { return gemini(place) },
		"transport": func(place string) string { return proxied("http://"+freeAddress(t), once(place)) },
		"vertex":    func(string) string { return "" },
	} {
		t.Run(door, func(t *testing.T) {
			u := scripted(t, drawn)
			place := placeAt("scripted", u.URL+base, "api_key {env.CADDYTEST_KEY}")
			if door == "vertex" {
				place = placeAt("scripted", u.URL+base, "format vertex", "credentials "+serviceAccount(t))
				site = func(place string) string { return gemini(place) }
			}
			g := run(t, site(place))
			for i, line := range lines {
				g.sendLine(t, line, []string{g.address, other}[i%2], promptJSON)
			}
			for _, model := range []string{"../../b", "..", "a/../../..", `..\\..\\b`, "google/../../b", "models/../x", other, "x?y", "x#y", "//" + other + "/x", "http://" + other} {
				g.sendLine(t, "POST "+imagesPath, g.address, fmt.Sprintf(`{"model":"%s","prompt":"x"}`, model))
				g.sendLine(t, "POST "+chatPath, g.address, fmt.Sprintf(`{"model":"%s","modalities":["image","text"],"messages":[{"role":"user","content":"x"}]}`, model))
			}
			g.checkPlaces(t, u, base)
			elsewhere.untouched(t)
		})
	}
}

// checkPlaces looks at what has arrived, with the eyes of a server that decodes paths.
func (g *gateway) checkPlaces(t *testing.T, u *upstream, base string) {
	t.Helper()
	host := strings.TrimPrefix(u.URL, "http://")
	for _, r := range u.received() {
		path, _, _ := strings.Cut(r.URI, "?")
		path = strings.NewReplacer("%2e", ".", "%2E", ".", "%2f", "/", "%2F", "/", "%5c", "/", "%5C", "/", `\`, "/").Replace(path)
		isStray := !strings.HasPrefix(path, base+"/")
		for segment := range strings.SplitSeq(path, "/") {
			segment, _, _ = strings.Cut(segment, ";")
			isStray = isStray || segment == ".." || segment == "."
		}
		if isStray || r.Host != host {
			t.Errorf("%s received %s %s", r.Host, r.Method, r.URI)
		}
		if shown := fmt.Sprint(r.Header, r.URI); strings.Contains(shown, clientKey) {
			t.Errorf("the upstream received the client's key: %s", shown)
		}
	}
	if len(u.received()) == 0 {
		t.Error("nothing arrived at all")
	}
}

// A password that the site asks for is not for its upstreams.
func TestPasswordOfTheSite(t *testing.T) {
	const hash = "$2a$04$bZISPaNy7PwY0ckao0r5tesMFcJzCX0u1g7Jv425xrq/qSoq0q2Xa" // of "password"
	u := scripted(t, drawn)
	for name, site := range map[string]string{"directive": gemini("upstream scripted " + u.URL), "transport": proxied(u.URL, once())} {
		for want, auth := range map[string]string{"": "basic_auth {\n user " + hash + "\n}\n", "Basic dXNlcjpwYXNzd29yZA==": ""} {
			for _, path := range []string{unaryPath, "/v1beta/models/x:countTokens"} {
				u.play(u.answer)
				s := run(t, auth+site).post(t, path, promptJSON, "Authorization", "Basic dXNlcjpwYXNzd29yZA==")
				if s.StatusCode != 200 {
					t.Fatalf("%s: %s", name, s.Status)
				}
				if r := u.only(t); r.Header.Get("Authorization") != want || r.Header.Get("X-Goog-Api-Key") != clientKey {
					t.Errorf("%s: the upstream received %v", name, r.Header)
				}
			}
		}
	}
}
