// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"strings"
	"testing"
)

// The options of the reverse_proxy around the gateway go on working.
func TestTransportInsideItsProxy(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		check func(t *testing.T, s *reply, r *request)
	}{
		{"header_up", []string{"header_up User-Agent renamed/1", "header_up -X-Goog-Api-Client"}, func(t *testing.T, _ *reply, r *request) {
			if r.Header.Get("User-Agent") != "renamed/1" || r.Header.Get("X-Goog-Api-Client") != "" {
				t.Errorf("the upstream received %v", r.Header)
			}
		}},
		{"Host", []string{"header_up Host gateway.example"}, func(t *testing.T, _ *reply, r *request) {
			if r.Host != "gateway.example" {
				t.Errorf("the upstream received the host %s", r.Host)
			}
		}},
		{"header_down", []string{"header_down X-Through yes"}, func(t *testing.T, s *reply, _ *request) {
			if s.Header.Get("X-Through") != "yes" {
				t.Errorf("the client saw %v", s.Header)
			}
		}},
		{"rewrite", []string{"rewrite /v1alpha/models/" + imageModel + ":generateContent"}, func(t *testing.T, _ *reply, r *request) {
			if r.URI != strings.Replace(unaryPath, "v1beta", "v1alpha", 1) {
				t.Errorf("the upstream received %s", r.URI)
			}
		}},
		{"load balancing", []string{"lb_policy first", "lb_retries 2", "lb_try_duration 1s"}, nil},
		{"passive health", []string{"fail_duration 1m", "max_fails 1", "unhealthy_status 400"}, nil},
		{"buffers", []string{"request_buffers 1KiB", "response_buffers 1KiB", "flush_interval -1"}, nil},
		{"handle_response", []string{"@error status 500", "handle_response @error {\nrespond 418\n}"}, nil},
		{"trusted_proxies", []string{"trusted_proxies private_ranges"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, drawn)
			g := run(t, proxied(u.URL, once(), c.lines...))
			s := g.post(t, unaryPath, promptJSON, "X-Goog-Api-Client", "google-genai-sdk/3.1.0")
			s.exactly(t, 200, imageJSON)
			if r := u.only(t); c.check != nil {
				c.check(t, s, r)
			} else if string(r.Body) != completedJSON {
				t.Errorf("the upstream received %s", r.Body)
			}
			u.play(answers(200, jsonType, blockedJSON))
			g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
			u.only(t)
		})
	}
}

// Active health checks go to the addresses of the reverse_proxy, and decide which
// of them is asked.
func TestTransportIsHealthChecked(t *testing.T) {
	checked := make(chan struct{}, 1000)
	handler := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				checked <- struct{}{}
				w.WriteHeader(status)
				return
			}
			drawn(w, r)
		}
	}
	ill, well := scripted(t, handler(500)), scripted(t, handler(200))
	g := run(t, proxied(ill.URL+" "+well.URL, once(), "lb_policy first", "health_uri /healthz", "health_interval 50ms"))
	for range 6 { // two addresses, three rounds
		wait(t, "a health check", checked)
	}
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	for _, r := range ill.received() {
		if r.URI != "/healthz" {
			t.Errorf("the address that is not well received %s", r.URI)
		}
	}
}

// Addresses that a reverse_proxy balances are different hosts, but it is the
// same client: with its own key, one account at each.
func TestTransportBehindSeveralAddresses(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
	g := run(t, proxied(first.URL+" "+second.URL, []string{guarding, "retry off"}, "lb_policy first"))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	went(t, "first", first, second)
}

// A reverse_proxy may have retries of its own, by the status that the gateway
// answers with. The call is whole each time.
func TestTransportOfAProxyThatRetries(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, drawn)
	g := run(t, proxied(
		first.URL+" "+second.URL, once(), "request_buffers 1MiB", "lb_policy round_robin", "lb_retries 3",
		"lb_retry_match {\nexpression `{rp.status_code} == 503`\n}",
	))
	for range 4 { // some begin with the first, some with the second
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	}
	if len(first.received()) == 0 || len(second.received()) != 4 {
		t.Errorf("the addresses received %d and %d calls", len(first.received()), len(second.received()))
	}
	for _, v := range visits(first, second) {
		if key := v.Header.Get("X-Goog-Api-Key"); string(v.Body) != completedJSON || key != clientKey {
			t.Errorf("an upstream received the key %q and %s", key, v.Body)
		}
	}
}
