// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// The number of a call travels in headers that the gateway passes on: one for
// Google's APIs, one for OpenAI's.
const (
	googleHeader = "X-Goog-Soak-Call"
	openAIHeader = "Openai-Soak-Call"
)

// ledger knows the calls that are under way. What arrives for one that is not is
// a call that was sent after its end.
type ledger struct {
	mu      sync.Mutex
	calls   map[int]*call
	strays  []string
	visits  int         // that have arrived in all
	limited []time.Time // when those of the limited site did
}

func newLedger() *ledger { return &ledger{calls: make(map[int]*call)} }

func (l *ledger) open(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[c.number] = c
}

func (l *ledger) close(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, c.number)
}

// find returns the call that a request belongs to, nil if it has ended.
func (l *ledger) find(r *http.Request, upstream string) *call {
	number, _ := strconv.Atoi(cmp.Or(r.Header.Get(googleHeader), r.Header.Get(openAIHeader)))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.visits++
	if upstream == "limited" {
		l.limited = append(l.limited, time.Now())
	}
	c := l.calls[number]
	if c == nil {
		l.strays = append(l.strays, fmt.Sprintf("%s arrived at %s, but has ended", callName(number), upstream))
	}
	return c
}

// upstream plays all upstreams, each below a path of its own.
type upstream struct {
	ledger  *ledger
	server  *http.Server
	addr    string
	buffers sync.Pool
}

func startUpstream(l *ledger) (*upstream, error) {
	ln, err := process.Listen()
	if err != nil {
		return nil, err
	}
	u := &upstream{ledger: l, addr: ln.Addr().String(), buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	u.server = &http.Server{Handler: u, ErrorLog: quiet}
	go func() { _ = u.server.Serve(ln) }() // ends with the process
	return u, nil
}

// hangUp closes the connections that are idle, so that all samples are taken
// with none.
func (u *upstream) hangUp() {
	u.server.SetKeepAlivesEnabled(false)
	u.server.SetKeepAlivesEnabled(true)
}

// ServeHTTP reads the whole request and plays what is due for its call.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	c := u.ledger.find(r, name)
	if c == nil {
		http.Error(w, "no such call", http.StatusNotFound)
		return
	}
	v := &visit{upstream: name, account: accountOf(r), at: time.Now()}
	err := u.receive(v, c, path, r)
	c.arrive(v)
	if err != nil { // its client has left while it was sending
		v.end(false, false)
		panic(http.ErrAbortHandler)
	}
	p := c.scenario.play(v.number)
	if p == nil {
		v.fault = "is one visit too many"
		p = &objects
	}
	err = p.do(w, r, v)
	v.end(err == nil && p.delivers, p.blocks)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// receive reads the request and looks at it.
func (u *upstream) receive(v *visit, c *call, path string, r *http.Request) error {
	if c.scenario.isEarly {
		v.check(c, nil)
		return nil
	}
	buf := u.buffers.Get().(*bytes.Buffer)
	defer u.buffers.Put(buf)
	buf.Reset()
	_, err := io.Copy(buf, r.Body)
	v.form = formOf(path, r.URL.RawQuery, buf.Bytes())
	if err == nil {
		v.check(c, buf.Bytes())
	}
	return err
}

// accountOf is the key that a call has come with.
func accountOf(r *http.Request) string {
	return r.Header.Get("X-Goog-Api-Key") + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// formOf is the form in which a request wants its answer.
func formOf(path, query string, body []byte) form {
	switch {
	case strings.HasSuffix(path, ":generateContent"):
		return formUnary
	case strings.HasSuffix(path, ":streamGenerateContent") && strings.Contains(query, "alt=sse"):
		return formEvents
	case strings.HasSuffix(path, ":streamGenerateContent"):
		return formArray
	case strings.HasSuffix(path, "/images/generations"):
		return formImages
	case !strings.HasSuffix(path, "/chat/completions"):
		return formOther
	case bytes.Contains(body, []byte(`"stream":true`)):
		return formChatEvents
	}
	return formChat
}

// check looks at what has arrived: with the upstream's own key, the call's own
// prompt, and all of its image.
func (v *visit) check(c *call, body []byte) {
	if !keyFits(v.upstream, v.account) {
		v.fault = "came with the key " + v.account
	}
	if v.form == formOther || c.scenario.isEarly {
		return
	}
	text := []byte(c.promptText())
	at := bytes.Index(body, text)
	if at < 0 {
		v.fault = "came without its prompt"
		return
	}
	start := bytes.LastIndexByte(body[:at], '"') + 1
	v.prompt = string(body[start : at+len(text)])
	if c.upload == 0 {
		return
	}
	if want := image(imageID{call: c.number}, c.upload); !bytes.Contains(body, []byte(want[:40])) ||
		!bytes.HasPrefix(body[bytes.Index(body, []byte(want[:40])):], []byte(want)) {
		v.fault = "came without the whole of its image"
	}
}
