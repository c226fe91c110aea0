// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// nameServer answers every question with this code, and returns its address.
func nameServer(t *testing.T, code byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for question := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return
			}
			if n < 12 {
				continue
			}
			question[2] |= 0x80 // it is an answer (RFC 1035 §4.1.1)
			question[3] = code
			_, _ = conn.WriteTo(question[:n], from)
		}
	}()
	return conn.LocalAddr().String()
}

// certificate is one for the loopback that signs itself, in a file for those who
// trust it.
func certificate(t *testing.T, until time.Time) (c tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: until.Add(-time.Hour * 24 * 30), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// overTLS is an upstream that must not be asked anything.
func overTLS(t *testing.T, c tls.Certificate, asked *atomic.Int32) string {
	t.Helper()
	u := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	u.Config.ErrorLog = nil
	u.TLS = &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
	u.StartTLS()
	t.Cleanup(u.Close)
	return u.URL
}

// An upstream to which there is no way is one that fails: calls go to the next,
// and the client hears in one word why there was none.
func TestNoWayToTheUpstream(t *testing.T) {
	var asked atomic.Int32
	plain := scripted(t, drawn)
	expired, itsCA := certificate(t, time.Now().Add(-time.Hour))
	strange, _ := certificate(t, time.Now().Add(time.Hour))
	trusting := func(file string) string { return "tls_trust_pool file " + file }
	old := httptest.NewUnstartedServer(drawn)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name, url, transport string
		fault                string
	}{
		{"refused", "http://" + freeAddress(t), "", "connection_refused"},
		{"no such name", "http://gone.example", "resolvers udp/" + nameServer(t, 3), "dns_error"},
		{"name server that fails", "http://gone.example", "resolvers udp/" + nameServer(t, 2), "dns_error"},
		{"no name server", "http://gone.example", "resolvers udp/" + freeAddress(t), "dns_error"},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), "", "tls_protocol_error"},
		{"an older TLS", old.URL, "tls_insecure_skip_verify", "tls_alert_received"},
		{"expired certificate", overTLS(t, expired, &asked), trusting(itsCA), "tls_certificate_error"},
		{"unknown CA", overTLS(t, strange, &asked), "", "tls_certificate_error"},
		{"TLS that hangs", "https://" + silent.Addr().String(), "tls_timeout 200ms", "connection_timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			second := scripted(t, drawn)
			first := &upstream{Server: &httptest.Server{URL: c.url}}
			options := fmt.Sprintf("\ttransport http {\n%s\n}", c.transport)
			g := run(t, gemini(inOrder(options, first), withoutDelay))
			s := g.post(t, unaryPath, promptJSON)
			status, reason := 503, "UPSTREAM_UNAVAILABLE"
			if c.fault == "connection_timeout" {
				status, reason = 504, "DEADLINE_EXCEEDED"
			}
			if e := s.fails(t, status, reason); e.metadata("class") != "transient" || strings.Contains(e.Message, "127.0.0.1") || strings.Contains(e.Message, "example") {
				t.Errorf("error %+v", e)
			}
			want := `caddy-gemini; next-hop="first"; error=` + c.fault + `; attempts=2; details="` + reason + `"`
			if got := s.Header.Get("Proxy-Status"); got != want {
				t.Errorf("Proxy-Status %s\nwant         %s", got, want)
			}
			g.load(t, gemini(inOrder(options, first, second), withoutDelay))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			second.asked(t, 1)
		})
	}
	plain.untouched(t)
	if n := asked.Load(); n > 0 {
		t.Errorf("%d calls were sent to somebody who is not who they are for", n)
	}
}

// What an upstream does with a connection that it has kept open is no matter of
// calls that it has not received; and those that it may have received are sent
// again by the rules for retries only.
func TestKeptConnectionIsClosed(t *testing.T) {
	first := func(w http.ResponseWriter, r *http.Request) { drawn(w, r) }
	gone := verbatim("") // when the call has been read
	for _, c := range []struct {
		name, retry string
		status      int
		times       int
	}{
		{"retry off", "retry off", 503, 1},
		{"retry", withoutDelay, 200, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, first)
			g := run(t, gemini(inOrder("", u), c.retry))
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			u.play(inTurn(gone, drawn))
			s := g.post(t, unaryPath, promptJSON)
			if c.status == 200 {
				s.exactly(t, 200, imageJSON)
			} else {
				s.fails(t, 503, "UPSTREAM_UNAVAILABLE")
			}
			u.asked(t, c.times)
			u.play(drawn)
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)

			// While nothing is under way, it may close what it wants.
			u.play(drawn)
			u.CloseClientConnections()
			if s := g.post(t, unaryPath, promptJSON); s.Header.Get("Proxy-Status") != `caddy-gemini; next-hop="first"; received-status=200` {
				t.Errorf("Proxy-Status %s", s.Header.Get("Proxy-Status"))
			}
			u.asked(t, 1)
		})
	}
}

// Silence ends by the clock that the operator has set.
func TestSilenceOfUpstreams(t *testing.T) {
	const reading = "\ttransport http {\n\t\tread_timeout 1s\n\t}"
	var calls []slowCall
	for _, c := range []struct {
		name, path, timeout string
		plays               http.HandlerFunc
		status              int
		reason, reveal      string
	}{
		{"before the header", unaryPath, "\ttransport http {\n\t\tresponse_header_timeout 1s\n\t}", hangs(), 504, "DEADLINE_EXCEEDED", "; error=http_response_timeout"},
		{"before the header, reading", unaryPath, reading, hangs(), 504, "DEADLINE_EXCEEDED", "; error=connection_read_timeout"},
		{"in the body", unaryPath, reading, hangs(textJSON[:60]), 503, "UPSTREAM_UNAVAILABLE", "; received-status=200; error=connection_read_timeout"},
		{"in a stream", streamPath, reading, hangs(event(textChunk)), 503, "UPSTREAM_UNAVAILABLE", "; received-status=200; error=connection_read_timeout"},
	} {
		u, first, second := scripted(t, c.plays), scripted(t, c.plays), scripted(t, drawn)
		calls = append(calls, slowCall{
			name: c.name + "/alone", path: c.path, gateway: gemini(inOrder(c.timeout, u), "retry off"),
			check: func(t *testing.T, s *reply) {
				s.fails(t, c.status, c.reason)
				want := `caddy-gemini; next-hop="first"` + c.reveal + `; details="` + c.reason + `"`
				if got := s.Header.Get("Proxy-Status"); got != want {
					t.Errorf("Proxy-Status %s\nwant         %s", got, want)
				}
				u.asked(t, 1)
			},
		}, slowCall{
			name: c.name + "/beside another", path: c.path, gateway: gemini(inOrder(c.timeout, first, second), withoutDelay),
			check: func(t *testing.T, s *reply) {
				s.exactly(t, 200, imageJSON)
				first.asked(t, 1)
				second.asked(t, 1)
			},
		})
	}
	sideBySide(t, calls)
	t.Run("behind the commit", func(t *testing.T) {
		u, second := scripted(t, hangs(imageJSON[:200_000])), scripted(t, drawn)
		s := run(t, gemini(inOrder(reading, u, second), withoutDelay)).post(t, unaryPath, promptJSON)
		if s.StatusCode != 200 || s.err == nil || !strings.HasPrefix(imageJSON, string(s.body)) {
			t.Errorf("status %d, error %v, %d bytes", s.StatusCode, s.err, len(s.body))
		}
		u.asked(t, 1)
		second.untouched(t)
	})
}
