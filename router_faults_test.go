// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// tracked is a transport that counts its connections, and the answers that
// nobody has closed yet.
type tracked struct {
	http.Transport
	dials, open atomic.Int32
}

func newTracked() *tracked {
	t := new(tracked)
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		t.dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return t
}

func (t *tracked) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.Transport.RoundTrip(r)
	if err == nil {
		t.open.Add(1)
		res.Body = &trackedBody{ReadCloser: res.Body, open: &t.open}
	}
	return res, err
}

type trackedBody struct {
	io.ReadCloser
	open   *atomic.Int32
	closed atomic.Bool
}

func (b *trackedBody) Close() error {
	if !b.closed.Swap(true) {
		b.open.Add(-1)
	}
	return b.ReadCloser.Close()
}

// tour is a handler without Caddy before scripted upstreams.
type tour struct {
	*Handler
	transport *tracked
	servers   []*upstreamLog
}

func newTour(t *testing.T, scripts ...http.HandlerFunc) *tour {
	t.Helper()
	transport := newTracked()
	h := &tour{Handler: handlerOver(t, transport), transport: transport}
	r := h.gateway.router
	r.upstreams = nil
	for i, script := range scripts {
		server := scripted(t, script)
		h.servers = append(h.servers, server)
		u := upstreamAt(t, server.URL, transport)
		u.name = fmt.Sprintf("upstream-%d", i+1)
		r.upstreams = append(r.upstreams, u)
	}
	r.retry.attempts = 3
	r.pacing = pacing{initial: time.Millisecond, max: time.Millisecond}
	r.pacing.random = func() float64 { return 0 }
	return h
}

// leavesNothing runs something and looks for what it has left behind.
func (h *tour) leavesNothing(t *testing.T, run func()) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	run()
	if n := h.transport.open.Load(); n != 0 {
		t.Errorf("%d answers have not been closed", n)
	}
	h.transport.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// serve answers a request as a server does, to which a broken answer is a panic.
func (h *tour) serve(t *testing.T, w http.ResponseWriter, r *http.Request) (broken bool) {
	t.Helper()
	defer func() {
		switch e := recover(); e {
		case nil:
		case http.ErrAbortHandler:
			broken = true
		default:
			panic(e)
		}
	}()
	if err := h.ServeHTTP(w, r, nil); err != nil {
		t.Errorf("the handler has failed: %v", err)
	}
	return false
}

// asked are how many calls each upstream has received.
func (h *tour) asked() string {
	var counts []string
	for _, server := range h.servers {
		counts = append(counts, fmt.Sprint(len(server.seen())))
	}
	return strings.Join(counts, " ")
}

// inTurn plays one script after the other, and the last one from then on.
func playsInTurn(scripts ...http.HandlerFunc) http.HandlerFunc {
	var calls atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		scripts[min(n, len(scripts))-1](w, r)
	}
}

// begins answers with the beginning of a body and ends with the connection.
func playsBeginning(status int, contentType, piece string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, piece)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// The upstreams of these tests.
const (
	overloadJSON = `{"error":{"code":503,"status":"UNAVAILABLE","message":"overloaded"}}`
	otherJSON    = `{"candidates":[{"content":{},"finishReason":"IMAGE_OTHER"}]}`
	halfText     = `{"candidates":[{"content":{"parts":[{"text":"half`
	jsonMedia    = "application/json"
)

var (
	playsImage    = answerWith(200, jsonMedia, okImage)
	playsOverload = answerWith(503, jsonMedia, overloadJSON)
	// What is longer than any error that is read to understand it.
	longErrorJSON  = strings.Replace(overloadJSON, "overloaded", strings.Repeat("overloaded ", 50_000), 1)
	playsLongError = answerWith(503, jsonMedia, longErrorJSON)

	playsCutBefore = broken(func(io.Writer) {})
	playsCutInside = broken(func(w io.Writer) { fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Ty") })
	playsCutInBody = broken(func(w io.Writer) { fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"+halfText) })
	playsTruncated = answerWith(200, jsonMedia, halfText)
	playsSilence   = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	playsHalf      = playsBeginning(200, jsonMedia, halfText)
	playsHalfImage = playsBeginning(200, jsonMedia, okImage[:110])
	playsCutLate   = broken(func(w io.Writer) {
		fmt.Fprint(w, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"+okImage[:110])
	})
)

func TestCallsLeaveNothingBehind(t *testing.T) {
	for _, c := range []struct {
		name    string
		scripts []http.HandlerFunc
		timeout string // X-Server-Timeout
		asked   string
		status  int
		body    string // if it is not an error of this module's
		broken  bool
	}{
		{"no retry", []http.HandlerFunc{playsImage}, "", "1", 200, okImage, false},
		{"overloaded twice", []http.HandlerFunc{playsInTurn(playsOverload, playsOverload, playsImage)}, "", "3", 200, okImage, false},
		{"overloaded for good", []http.HandlerFunc{playsOverload}, "", "3", 503, overloadJSON, false},
		{"a long error", []http.HandlerFunc{playsInTurn(playsLongError, playsImage)}, "", "2", 200, okImage, false},
		{"a long error and a worse one", []http.HandlerFunc{playsLongError, playsCutBefore}, "", "2 1", 503, longErrorJSON, false},
		{"a worse one and a long error", []http.HandlerFunc{playsCutBefore, playsLongError}, "", "2 1", 503, longErrorJSON, false},
		{"rerouted", []http.HandlerFunc{playsOverload, playsImage}, "", "1 1", 200, okImage, false},
		{"cut before headers", []http.HandlerFunc{playsInTurn(playsCutBefore, playsImage)}, "", "2", 200, okImage, false},
		{"cut inside headers", []http.HandlerFunc{playsInTurn(playsCutInside, playsImage)}, "", "2", 200, okImage, false},
		{"cut inside the body", []http.HandlerFunc{playsInTurn(playsCutInBody, playsImage)}, "", "2", 200, okImage, false},
		{"cut inside the body, rerouted", []http.HandlerFunc{playsCutInBody, playsImage}, "", "1 1", 200, okImage, false},
		{"truncated", []http.HandlerFunc{playsInTurn(playsTruncated, playsImage)}, "", "2", 200, okImage, false},
		{"one block that may pass", []http.HandlerFunc{playsInTurn(answerWith(200, jsonMedia, otherJSON), playsImage)}, "", "2", 200, okImage, false},
		{"two blocks that might have passed", []http.HandlerFunc{answerWith(200, jsonMedia, otherJSON)}, "", "2", 400, "", false},
		{"silence", []http.HandlerFunc{playsSilence}, "0.1", "1", 504, "", false},
		{"half an answer", []http.HandlerFunc{playsHalf}, "0.1", "1", 504, "", false},
		{"half an error", []http.HandlerFunc{playsBeginning(503, jsonMedia, overloadJSON[:20])}, "0.1", "1", 504, "", false},
		{"an error, then silence", []http.HandlerFunc{playsOverload, playsSilence}, "0.2", "1 1", 503, overloadJSON, false},
		{"a long error, then silence", []http.HandlerFunc{playsLongError, playsSilence}, "0.2", "1 1", 503, longErrorJSON, false},
		{"cut after the commit", []http.HandlerFunc{playsCutLate, playsImage}, "", "1 0", 200, okImage[:110], true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newTour(t, c.scripts...)
			h.leavesNothing(t, func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, imagePath, strings.NewReader(prompt))
				r.Header.Set("X-Server-Timeout", c.timeout)
				w := httptest.NewRecorder()
				if isBroken := h.serve(t, w, r); isBroken != c.broken {
					t.Errorf("broken: %t", isBroken)
				}
				if w.Code != c.status || c.body != "" && w.Body.String() != c.body {
					t.Errorf("the client got %d: %.300s", w.Code, w.Body)
				}
			})
			if got := h.asked(); got != c.asked {
				t.Errorf("the upstreams were asked %s times, expected %s", got, c.asked)
			}
		})
	}
}

// An answer that is worth less than the one before it is closed as well: a block
// says more than an overload.
func TestAnswersOfLittleWorthAreClosed(t *testing.T) {
	const blocked = `{"candidates":[{"content":{},"finishReason":"IMAGE_SAFETY"}]}`
	h := newTour(t, playsInTurn(answerWith(200, jsonMedia, blocked), playsLongError))
	h.gateway.router.rephrasing = &rephrasing{prefixes: []string{"A drawing: "}}
	h.leavesNothing(t, func() {
		w := httptest.NewRecorder()
		h.serve(t, w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, imagePath, strings.NewReader(prompt)))
		if w.Code != 400 || !strings.Contains(w.Body.String(), "IMAGE_SAFETY") {
			t.Errorf("the client got %d: %.300s", w.Code, w.Body)
		}
	})
	if got := h.asked(); got != "3" {
		t.Errorf("the upstream was asked %s times", got)
	}
}

// An answer that nobody gets is read to its end if that is near, because the
// connection is lost otherwise.
func TestDiscardedAnswersGiveTheirConnectionBack(t *testing.T) {
	for name, script := range map[string]http.HandlerFunc{
		"errors":                   playsOverload,
		"block that may pass":      answerWith(200, jsonMedia, otherJSON),
		"an error inside a 200":    answerWith(200, jsonMedia, overloadJSON),
		"a page, bit by bit": func(w http.ResponseWriter, _ *http.Request) { // known for what it is by its beginning
			w.Header().Set("Content-Type", "text/html")
			for range 6 {
				_, _ = io.WriteString(w, "<html>"+strings.Repeat("hello ", 1000))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Millisecond)
			}
		},
		"truncated, but well sent": playsTruncated,
	} {
		t.Run(name, func(t *testing.T) {
			h := newTour(t, playsInTurn(script, playsImage))
			h.leavesNothing(t, func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, imagePath, strings.NewReader(prompt))
				h.serve(t, httptest.NewRecorder(), r)
			})
			if got := h.asked(); got != "2" {
				t.Errorf("the upstream was asked %s times", got)
			}
			if n := h.transport.dials.Load(); n != 1 {
				t.Errorf("two attempts took %d connections", n)
			}
		})
	}
}

// leaver is a client that leaves when it is told to.
type leaver struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc
}

// Write is where an answer that has begun loses its client.
func (l leaver) Write(p []byte) (int, error) {
	l.leave()
	return l.ResponseRecorder.Write(p)
}

// deserted is the body of a client that leaves while it sends it.
type deserted struct {
	io.Reader
	leave context.CancelFunc
}

func (d deserted) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		d.leave()
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestClientsThatLeaveTakeAllWithThem(t *testing.T) {
	// leaving tells that the client leaves while the upstream answers.
	leaving := func(leave context.CancelFunc, script http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			time.AfterFunc(20*time.Millisecond, leave)
			script(w, r)
		}
	}
	leavesInSleep := func(h *tour, leave context.CancelFunc) {
		r := h.gateway.router
		r.pacing.initial, r.pacing.max = time.Minute, time.Minute
		r.sleep = func(ctx context.Context, d time.Duration) error {
			leave()
			return sleep(ctx, d)
		}
	}
	for _, c := range []struct {
		name    string
		scripts func(leave context.CancelFunc) []http.HandlerFunc
		prepare func(h *tour, leave context.CancelFunc)
		body    func(leave context.CancelFunc) io.Reader
		asked   string
		status  int
		blamed  bool // the first upstream, and with reason
	}{
		{
			name: "before the headers",
			scripts: func(leave context.CancelFunc) []http.HandlerFunc {
				return []http.HandlerFunc{leaving(leave, playsSilence), playsImage}
			},
			asked: "1 0", status: statusClientGone,
		},
		{
			name: "while an answer is held",
			scripts: func(leave context.CancelFunc) []http.HandlerFunc {
				return []http.HandlerFunc{leaving(leave, playsHalf), playsImage}
			},
			asked: "1 0", status: statusClientGone,
		},
		{
			name: "while an error is read",
			scripts: func(leave context.CancelFunc) []http.HandlerFunc {
				return []http.HandlerFunc{leaving(leave, playsBeginning(503, jsonMedia, overloadJSON[:20])), playsImage}
			},
			asked: "1 0", status: statusClientGone,
		},
		{
			name: "in the second attempt",
			scripts: func(leave context.CancelFunc) []http.HandlerFunc {
				return []http.HandlerFunc{playsOverload, leaving(leave, playsSilence)}
			},
			asked: "1 1", status: statusClientGone, blamed: true,
		},
		{
			name: "in the second attempt, behind a long error",
			scripts: func(leave context.CancelFunc) []http.HandlerFunc {
				return []http.HandlerFunc{playsLongError, leaving(leave, playsSilence)}
			},
			asked: "1 1", status: statusClientGone, blamed: true,
		},
		{
			name:    "during a wait",
			scripts: func(context.CancelFunc) []http.HandlerFunc { return []http.HandlerFunc{playsOverload} },
			prepare: leavesInSleep,
			asked:   "1", status: statusClientGone, blamed: true,
		},
		{
			name:    "during a wait, behind a long error",
			scripts: func(context.CancelFunc) []http.HandlerFunc { return []http.HandlerFunc{playsLongError} },
			prepare: leavesInSleep,
			asked:   "1", status: statusClientGone, blamed: true,
		},
		{
			name:    "while its answer is delivered",
			scripts: func(context.CancelFunc) []http.HandlerFunc { return []http.HandlerFunc{playsHalfImage, playsImage} },
			asked:   "1 0", status: 200,
		},
		{
			name:    "before it has sent anything",
			scripts: func(context.CancelFunc) []http.HandlerFunc { return []http.HandlerFunc{playsImage} },
			body: func(leave context.CancelFunc) io.Reader {
				return deserted{strings.NewReader(""), leave}
			},
			asked: "0", status: 400,
		},
		{
			name:    "while it sends a large request",
			scripts: func(context.CancelFunc) []http.HandlerFunc { return []http.HandlerFunc{playsImage} },
			body: func(leave context.CancelFunc) io.Reader {
				return deserted{strings.NewReader(`{"contents":["` + strings.Repeat("x", 3<<20)), leave}
			},
			status: statusClientGone, // what the upstream makes of half a request comes later
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			h := newTour(t, c.scripts(leave)...)
			if c.prepare != nil {
				c.prepare(h, leave)
			}
			var body io.Reader = strings.NewReader(prompt)
			if c.body != nil {
				body = c.body(leave)
			}
			w := leaver{httptest.NewRecorder(), leave}
			h.leavesNothing(t, func() {
				h.serve(t, w, httptest.NewRequestWithContext(ctx, http.MethodPost, imagePath, body))
			})
			if w.Code != c.status {
				t.Errorf("status %d, expected %d: %.300s", w.Code, c.status, w.Body)
			}
			if got := h.asked(); got != c.asked && c.asked != "" {
				t.Errorf("the upstreams were asked %s times, expected %s", got, c.asked)
			}
			for _, u := range h.gateway.router.upstreams {
				if u.health.inFlight != 0 {
					t.Errorf("%d calls still have a place at %s", u.health.inFlight, u.name)
				}
				if v := u.health.view(); v.success < 1 && (!c.blamed || u.name != "upstream-1") {
					t.Errorf("%s has been blamed: %+v", u.name, v)
				}
			}
		})
	}
}
