// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// inOrder are upstreams called first, second and so on, each with a key of its
// own project; the options are those of the first.
func inOrder(options string, upstreams ...*upstream) string {
	var b strings.Builder
	for i, u := range upstreams {
		name := []string{"first", "second", "third"}[i]
		fmt.Fprintf(&b, "upstream %s %s {\n\tapi_key {env.CADDYTEST_KEY} %s-project\n%s\n}\n", name, u.URL, name, options)
		options = ""
	}
	return b.String()
}

// Retries that wait for next to nothing, and retries that nobody lives to see:
// with these, whatever is answered in time has not been waited for.
const (
	retryQuickly = "retry {\n\tattempts 3\n\tbackoff 1ms 5ms\n}"
	retryLate    = "retry {\n\tbackoff 1h 1h\n\tdeadline 12h\n}"
)

// resets sends pieces of an answer as they are, and resets the connection.
func resets(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for _, piece := range pieces {
			_, _ = io.WriteString(conn, piece)
			time.Sleep(10 * time.Millisecond) // a reset overtakes what has not been read
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
}

// hangs answers with the beginning of something, or not even that, and then
// keeps the connection until the other side gives up.
func hangs(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, piece := range pieces {
			send(w, piece)
		}
		<-r.Context().Done()
	}
}

// fault is a way in which an upstream gives no answer.
type fault struct {
	name           string
	unary, stream  http.HandlerFunc
	status         int // that the client sees if nothing better comes
	reason, reveal string
}

// Of an image model, text is held until it is clear that an image follows.
var faults = []fault{
	{"reset before headers", resets(), resets(), 503, "UPSTREAM_UNAVAILABLE", "error=connection_terminated"},
	{
		"reset inside headers", resets("HTTP/1.1 200 OK\r\nContent-Ty"), resets("HTTP/1.1 200 OK\r\nContent-Ty"),
		503, "UPSTREAM_UNAVAILABLE", "error=",
	},
	{
		"reset before the verdict",
		resets("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", textJSON[:60]),
		resets("HTTP/1.1 200 OK\r\nContent-Type: "+eventType+"\r\nContent-Length: 5000\r\n\r\n", event(textChunk)),
		503, "UPSTREAM_UNAVAILABLE", "received-status=200; error=connection_terminated",
	},
	{
		"chunk that is missing",
		breaksOff(jsonType, textJSON[:60]), breaksOff(eventType, event(textChunk)),
		503, "UPSTREAM_UNAVAILABLE", "received-status=200; error=http_response_incomplete",
	},
	{
		"truncated JSON",
		answers(200, jsonType, textJSON[:60]), answers(200, eventType, event(textChunk)+event(lastChunk)[:60]),
		503, "UPSTREAM_UNAVAILABLE", "received-status=200",
	},
	{"nothing at all", answers(200, jsonType, ""), answers(200, eventType, ""), 503, "EMPTY_RESPONSE", "received-status=200"},
	{"a page", answers(200, "text/html", "<html>"), answers(200, "text/html", "<html>"), 503, "EMPTY_RESPONSE", "received-status=200"},
	{"a connection that hangs", hangs(), hangs(), 504, "DEADLINE_EXCEEDED", "error=http_response_timeout"},
}

// timeout gives up on an upstream that sends no headers: soon on one that never does,
// and late on those that only need their time.
func (f fault) timeout() string {
	timeout := "1m"
	if f.status == http.StatusGatewayTimeout {
		timeout = "1s"
	}
	return "\ttransport http {\n\t\tresponse_header_timeout " + timeout + "\n\t}"
}

// eachFault runs a test for each fault, on a unary call and on a stream.
func eachFault(t *testing.T, test func(t *testing.T, f fault, path string, plays, well http.HandlerFunc, want string)) {
	t.Helper()
	stream := event(imageChunk) + event(lastChunk)
	for _, f := range faults {
		t.Run(f.name+"/unary", func(t *testing.T) {
			test(t, f, unaryPath, f.unary, drawn, imageJSON)
		})
		t.Run(f.name+"/stream", func(t *testing.T) {
			test(t, f, streamPath, f.stream, events(imageChunk, lastChunk), stream)
		})
	}
}

// asked fails unless the upstream has received this many calls, all of them
// whole and alike.
func (u *upstream) asked(t *testing.T, times int) {
	t.Helper()
	all := u.received()
	if len(all) != times {
		t.Fatalf("the upstream received %d calls, want %d", len(all), times)
	}
	for i, r := range all {
		if r.Err != nil || string(r.Body) != completedJSON {
			t.Errorf("call %d arrived as %q (%v)\nwant %q", i+1, r.Body, r.Err, completedJSON)
		}
		if key := r.Header.Get("X-Goog-Api-Key"); key != upstreamKey {
			t.Errorf("call %d arrived with the key %q", i+1, key)
		}
	}
}

// A fault of a lone upstream is waited out.
func TestFaultThenAnswer(t *testing.T) {
	eachFault(t, func(t *testing.T, f fault, path string, plays, well http.HandlerFunc, want string) {
		u := scripted(t, inTurn(plays, well))
		s := run(t, gemini(inOrder(f.timeout(), u), retryQuickly)).post(t, path, promptJSON)
		s.exactly(t, 200, want)
		u.asked(t, 2)
		if got := s.Header.Get("Proxy-Status"); got != `caddy-gemini; next-hop="first"; received-status=200; attempts=2` {
			t.Errorf("Proxy-Status: %s", got)
		}
	})
}

// A fault that does not pass is told when the attempts are used up.
func TestFaultThatStays(t *testing.T) {
	eachFault(t, func(t *testing.T, f fault, path string, plays, _ http.HandlerFunc, _ string) {
		u := scripted(t, plays)
		s := run(t, gemini(inOrder(f.timeout(), u), retryQuickly)).post(t, path, promptJSON)
		e := s.fails(t, f.status, f.reason)
		u.asked(t, 3)
		if e.metadata("class") != "transient" || e.metadata("attempts") != "3" || e.metadata("upstream") != "first" {
			t.Errorf("details: %v", e.Details)
		}
		if got := s.Header.Get("Proxy-Status"); !strings.Contains(got, f.reveal) || !strings.Contains(got, "; attempts=3") {
			t.Errorf("Proxy-Status %s does not tell %s", got, f.reveal)
		}
	})
}

// Where there is another upstream, nobody waits.
func TestFaultIsRerouted(t *testing.T) {
	eachFault(t, func(t *testing.T, f fault, path string, plays, well http.HandlerFunc, want string) {
		first, second := scripted(t, plays), scripted(t, well)
		s := run(t, gemini(inOrder(f.timeout(), first, second), retryLate)).post(t, path, promptJSON)
		s.exactly(t, 200, want)
		first.asked(t, 1)
		second.asked(t, 1)
		if got := s.Header.Get("Proxy-Status"); got != `caddy-gemini; next-hop="second"; received-status=200; attempts=2` {
			t.Errorf("Proxy-Status: %s", got)
		}
	})
}

// An upstream that cannot be reached is as good as one that resets.
func TestRefusedConnectionIsRerouted(t *testing.T) {
	second := scripted(t, drawn)
	dead := &upstream{Server: &httptest.Server{URL: "http://" + freeAddress(t)}}
	run(t, gemini(inOrder("", dead, second), retryLate)).post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	second.asked(t, 1)
}

// Two upstreams that fail are asked in turns, the first one first.
func TestAllUpstreamsFail(t *testing.T) {
	first, second := scripted(t, resets()), scripted(t, overloaded)
	s := run(t, gemini(inOrder("", first, second), retryQuickly)).post(t, unaryPath, promptJSON)
	s.exactly(t, 503, googleErrorJSON) // Google's words are better than ours
	first.asked(t, 2)
	second.asked(t, 1)
	if got := s.Header.Get("Proxy-Status"); !strings.Contains(got, `next-hop="second"; received-status=503; attempts=3`) {
		t.Errorf("Proxy-Status: %s", got)
	}
}

// The deadline of the call ends an attempt, wherever it hangs.
func TestDeadlineEndsAnAttempt(t *testing.T) {
	const short = "retry {\n\tdeadline 1s\n\tbackoff 1ms 1ms\n}"
	second := scripted(t, drawn) // for which no time is left
	var calls []slowCall
	for _, c := range []struct {
		name, path string
		plays      http.HandlerFunc
	}{
		{"no headers", unaryPath, hangs()},
		{"half an answer", unaryPath, hangs(textJSON[:60])},
		{"half a stream", streamPath, hangs(event(textChunk))},
	} {
		for where, others := range map[string][]*upstream{"alone": nil, "beside another": {second}} {
			first := scripted(t, c.plays)
			calls = append(calls, slowCall{
				name: c.name + "/" + where, path: c.path,
				gateway: gemini(inOrder("", append([]*upstream{first}, others...)...), short),
				check: func(t *testing.T, s *reply) {
					s.fails(t, 504, "DEADLINE_EXCEEDED")
					first.asked(t, 1)
				},
			})
		}
	}
	sideBySide(t, calls)
	second.untouched(t)
}

// The client's own deadline rules where it is shorter.
func TestClientsDeadlineEndsAnAttempt(t *testing.T) {
	u := scripted(t, hangs())
	s := run(t, gemini(inOrder("", u), retryLate)).post(t, unaryPath, promptJSON, "X-Server-Timeout", "1")
	s.fails(t, 504, "DEADLINE_EXCEEDED")
	u.asked(t, 1)
}

// DEADLINE_EXCEEDED is for calls that nobody has answered.
func TestAnswerOutlivesTheDeadline(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, hangs())
	g := run(t, gemini(inOrder("", first, second), "retry {\n\tdeadline 1s\n}"))
	g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	first.asked(t, 1)
	second.asked(t, 1)
}

// A wait that cannot end in time is not begun.
func TestWaitThatDoesNotFit(t *testing.T) {
	u := scripted(t, overloaded)
	g := run(t, gemini(inOrder("", u), "retry {\n\tbackoff 1h 1h\n\tdeadline 30m\n}"))
	g.post(t, unaryPath, promptJSON).exactly(t, 503, googleErrorJSON)
	u.asked(t, 1)
}

// Once a byte has been committed, the client gets what there is, and can see that
// it is not all.
func TestNothingIsRetriedAfterTheCommit(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: "
	for _, c := range []struct {
		name, path, contentType, piece string
	}{
		{"unary", unaryPath, jsonType, imageJSON[:200_000]},
		{"stream", streamPath, eventType, event(imageChunk)},
		{"stream of text", textPath, eventType, event(textChunk)},
	} {
		for how, plays := range map[string]http.HandlerFunc{
			"reset": resets(head + c.contentType + "\r\nContent-Length: 9000000\r\n\r\n" + c.piece),
			"cut":   breaksOff(c.contentType, c.piece),
		} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				first, second := scripted(t, plays), scripted(t, drawn)
				s := run(t, gemini(inOrder("", first, second), retryQuickly)).post(t, c.path, promptJSON)
				if s.StatusCode != 200 || s.err == nil {
					t.Errorf("status %d, error %v: the client cannot tell that the answer is not whole", s.StatusCode, s.err)
				}
				if !strings.HasPrefix(c.piece, string(s.body)) {
					t.Errorf("the client saw %q", shortened(string(s.body)))
				}
				if n := len(first.received()); n != 1 {
					t.Errorf("the first upstream was asked %d times", n)
				}
				second.untouched(t)
			})
		}
	}
}

// The deadline is for the verdict: what follows may take its time.
func TestDeliveryHasNoDeadline(t *testing.T) {
	const deadline = 900 * time.Millisecond
	u := scripted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", eventType)
		send(w, event(imageChunk))
		time.Sleep(deadline + 50*time.Millisecond)
		send(w, event(lastChunk))
	})
	g := run(t, gemini(inOrder("", u), "retry {\n\tdeadline "+deadline.String()+"\n}"))
	g.post(t, streamPath, promptJSON).exactly(t, 200, event(imageChunk)+event(lastChunk))
	u.asked(t, 1)
}

// An upstream may refuse a large upload before it has read it, as Google does
// with a 429: nothing of the call is lost by that.
func TestAnswerBeforeTheUploadEnds(t *testing.T) {
	const refusal = `{"error":{"code":429,"message":"Quota.","status":"RESOURCE_EXHAUSTED","details":[` +
		`{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.01s"}]}}`
	large := strings.Replace(promptJSON, prompt, strings.Repeat("0123456789", 800_000), 1)
	for name, length := range map[string]int64{"with a length": int64(len(large)), "chunked": -1} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/alone %t", name, alone), func(t *testing.T) {
				well := scripted(t, drawn)
				var calls atomic.Int32
				hasty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if calls.Add(1) > 1 && alone {
						well.ServeHTTP(w, r)
						return
					}
					answers(429, jsonType, refusal)(w, r)
				}))
				defer hasty.Close()
				ways := []*upstream{{Server: hasty}}
				if !alone {
					ways = append(ways, well)
				}
				g := run(t, gemini(inOrder("", ways...), "retry {\n\tbackoff 1ms 1ms\n}"))
				r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(large))
				r.ContentLength = length
				do(t, r).exactly(t, 200, imageJSON)
				want := strings.Replace(completedJSON, prompt, strings.Repeat("0123456789", 800_000), 1)
				if got := well.only(t).Body; string(got) != want {
					t.Errorf("%d bytes arrived, want %d", len(got), len(want))
				}
			})
		}
	}
}

// All kinds of failures demote.
func TestFaultsDemote(t *testing.T) {
	for _, f := range faults[:5] {
		t.Run(f.name, func(t *testing.T) {
			first, second := scripted(t, f.unary), scripted(t, drawn)
			g := runWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
			g.draws(t, 11)
			asks(t, "10 11", first, second)
			g.tells(t, "gemini.upstream_demoted first "+f.reason+"\n")
		})
	}
}

// A deadline of the client's own says nothing about the upstream, while one of the
// operator's does: that is how long an answer may take.
func TestDeadlinesAndHealth(t *testing.T) {
	first, second := scripted(t, hangs()), scripted(t, drawn)
	g := runWith(t, onHealthEvents, healthSite(rarely, retryLate, first, second))
	expire := func(prepare ...func(*http.Request)) {
		t.Helper()
		var calls []*pending
		for range 10 {
			calls = append(calls, g.begin(t, unaryPath, promptJSON, prepare...))
		}
		for _, p := range calls {
			p.ends().fails(t, 504, "DEADLINE_EXCEEDED")
		}
		asks(t, "10 0", first, second)
	}
	expire(having("X-Server-Timeout", "1"))
	if healthy, success := g.gauges(t, "first"); healthy != 1 || success != 1 {
		t.Errorf("clients in a hurry: healthy %v, success %v", healthy, success)
	}
	g.loadWith(t, onHealthEvents, healthSite(rarely, "retry {\n\tdeadline 1s\n\tbackoff 1ms 1ms\n}", first, second))
	expire()
	g.tells(t, "gemini.upstream_demoted first DEADLINE_EXCEEDED\n")
}
