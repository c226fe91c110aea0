// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

// overHTTP2 is a client that has one connection of HTTP/2.
func overHTTP2(t *testing.T) *http.Transport {
	t.Helper()
	transport := newTransport(t)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport
}

// isReused tells, once a request has been sent, that it went over a connection that
// was there.
func isReused(r *http.Request) (*http.Request, *bool) {
	reused := new(bool)
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { *reused = c.Reused }}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace)), reused
}

// A client of HTTP/2 that gives up a call resets its stream. The call ends, and the
// connection serves the next.
func TestHTTP2ClientResets(t *testing.T) {
	for _, c := range []struct {
		name, path, sends string // more than it sends is declared
		plays             http.HandlerFunc
		asked             int
		status            float64
		want              string // attempts, verdict, reason
	}{
		{"in a request", unaryPath, half, hangs(), 0, 499, "0 client CANCELLED"},
		{"in a large request", unaryPath, halfLarge, hangs(), 1, 499, "1 client CANCELLED"},
		{"before the answer", unaryPath, "", hangs(), 1, 499, "1 client CANCELLED"},
		{"in an image", unaryPath, "", hangs(imageJSON[:1000]), 1, 200, "1 ok "},
		{"in a stream", textPath, "", hangs(event(textChunk)), 1, 200, "1 ok "},
	} {
		t.Run(c.name, func(t *testing.T) {
			ended := make(chan struct{})
			u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				c.plays(w, r)
				close(ended)
			})
			g := run(t, "respond 204\n")
			g.loadWith(t, "servers {\n\tprotocols h1 h2c\n}", accessLog+gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", quickly))
			transport := overHTTP2(t)
			line := g.accessLineOf(t, func() {
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				body, isSent := io.Reader(strings.NewReader(promptJSON)), make(chan struct{})
				if c.sends != "" {
					body = io.MultiReader(strings.NewReader(c.sends), &unsent{isSent, ctx})
				} else {
					close(isSent)
				}
				r := g.newRequest(t, http.MethodPost, c.path, body).WithContext(ctx)
				left := make(chan error, 1)
				go func() {
					res, err := transport.RoundTrip(r)
					if err == nil {
						_, err = res.Body.Read(make([]byte, 10))
						leave()
						_ = res.Body.Close()
					}
					left <- err
				}()
				wait(t, "the client has sent what it sends", isSent)
				eventually(t, "the upstream is asked", func() bool { return int(u.begun.Load()) == c.asked })
				if c.status == 499 {
					leave()
				}
				if err := <-left; c.status == 499 && !errors.Is(err, context.Canceled) {
					t.Errorf("the client saw %v", err)
				}
				if c.asked > 0 {
					wait(t, "the upstream's request ends", ended)
				}
			})
			facts, _ := line["gemini"].(map[string]any)
			if got := fmt.Sprint(facts["attempts"], " ", facts["verdict"], " ", facts["reason"]); line["status"] != c.status || got != c.want {
				t.Errorf("status %v, %q, want %v, %q", line["status"], got, c.status, c.want)
			}
			if n := len(u.received()); n != c.asked {
				t.Errorf("the upstream was asked %d times, want %d", n, c.asked)
			}

			u.play(drawn)
			r, reused := isReused(g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON)))
			s, err := roundTrip(transport, r)
			if err != nil {
				t.Fatal(err)
			}
			s.exactly(t, 200, imageJSON)
			if !*reused || s.ProtoMajor != 2 {
				t.Errorf("the next call went over another connection, with %s", s.Proto)
			}
		})
	}
}

// A connection of HTTP/2 that is cut takes the calls on it along.
func TestHTTP2ClientIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		sends string
		asked int32
		want  string
	}{
		"in a request":       {half, 0, "0 client CANCELLED"},
		"in a large request": {halfLarge, 1, "1 client CANCELLED"},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, hangs())
			g := run(t, "respond 204\n")
			g.loadWith(t, "servers {\n\tprotocols h1 h2c\n}", accessLog+gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", quickly))
			w := g.dial(t)
			transport := overHTTP2(t)
			transport.ExpectContinueTimeout = soon
			transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return w, nil }
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan struct{})
			line := g.accessLineOf(t, func() {
				isSent := make(chan struct{})
				body := io.MultiReader(strings.NewReader(c.sends), &unsent{isSent, ctx})
				r := g.newRequest(t, http.MethodPost, unaryPath, body).WithContext(ctx)
				r.Header.Set("Expect", "100-continue") // nothing is sent before the gateway reads
				go func() {
					defer close(left)
					if _, err := roundTrip(transport, r); err == nil {
						t.Error("the client got an answer")
					}
				}()
				wait(t, "the client has sent what it sends", isSent)
				eventually(t, "the upstream is asked", func() bool { return u.begun.Load() == c.asked })
				_ = w.Close()
			})
			leave()
			wait(t, "the client has left", left)
			facts, _ := line["gemini"].(map[string]any)
			if got := fmt.Sprint(facts["attempts"], " ", facts["verdict"], " ", facts["reason"]); line["status"] != 499.0 || got != c.want {
				t.Errorf("status %v, %q, want %q", line["status"], got, c.want)
			}
		})
	}
}

// unsent is the rest of a body that does not come.
type unsent struct {
	isReached chan struct{}
	ctx       context.Context
}

func (s *unsent) Read([]byte) (int, error) {
	close(s.isReached)
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}
