// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"time"
)

// caller makes the calls.
type caller struct {
	gateway   *gateway
	transport *http.Transport
	buffers   sync.Pool
}

func newCaller(g *gateway) *caller {
	return &caller{
		gateway:   g,
		transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, WriteBufferSize: 64 * kB, ReadBufferSize: 64 * kB},
		buffers:   sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
}

// errLeft is why a client that leaves has no answer.
var errLeft = errors.New("the client has left")

// make makes a call and takes down what the client gets.
func (p *caller) make(ctx context.Context, c *call) {
	defer func() { c.ended = time.Now() }()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	how := c.scenario.client
	q := c.scenario.ask(c)
	answered := make(chan struct{})
	defer close(answered)
	r, err := http.NewRequestWithContext(ctx, q.method, "http://"+p.gateway.ports[c.scenario.site]+q.path, p.body(q, how, leave, ctx))
	if err != nil {
		c.result.err = err
		return
	}
	r.ContentLength = q.length
	number := strconv.Itoa(c.number)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(googleHeader, number)
	r.Header.Set(openAIHeader, number)
	r.Header.Set("X-Goog-Api-Client", "soak")
	r.Header.Set("X-Goog-Api-Key", clientKey)
	if how.hurry > 0 {
		r.Header.Set("X-Server-Timeout", strconv.FormatFloat(how.hurry.Seconds(), 'f', -1, 64))
	}
	if how.leaves == leavesSoon {
		timer := time.AfterFunc(rand.N(500*time.Millisecond), func() { leave(errLeft) })
		defer timer.Stop()
	}
	r = r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { c.result.isReused = info.Reused },
	}))
	res, err := p.transport.RoundTrip(r)
	if err != nil {
		c.result.err, c.result.left = err, errors.Is(context.Cause(ctx), errLeft)
		return
	}
	defer res.Body.Close()
	p.take(c, q, res, leave)
	c.result.left = errors.Is(context.Cause(ctx), errLeft)
}

// take reads an answer.
func (p *caller) take(c *call, q question, res *http.Response, leave context.CancelCauseFunc) {
	how := c.scenario.client
	buf := p.buffers.Get().(*bytes.Buffer)
	defer p.buffers.Put(buf)
	buf.Reset()
	var from io.Reader = res.Body
	switch {
	case how.slowRead:
		from = &pacedReader{from: res.Body, pause: 20 * time.Millisecond}
	case how.leaves == leavesInBody:
		_, _ = io.CopyN(buf, res.Body, 100*kB)
		leave(errLeft)
		return
	}
	_, err := io.Copy(buf, from)
	c.result.status = res.StatusCode
	c.result.retryAfter = res.Header.Get("Retry-After")
	c.result.isCut = err != nil
	c.result.read(c, q, buf.Bytes())
	if (q.isEndless || c.scenario.isEarly) && !res.Close {
		c.result.flaw = "the rest of the request would be taken for the next one"
	}
}

// body is the client's side of a request.
func (p *caller) body(q question, how client, leave context.CancelCauseFunc, ctx context.Context) io.Reader {
	if q.body == nil {
		return nil
	}
	body := q.body
	switch {
	case how.slowWrite:
		body = &pacedReader{from: body, pause: 20 * time.Millisecond}
	case how.leaves == leavesSending:
		body = io.MultiReader(io.LimitReader(body, q.length/2), readerFunc(func([]byte) (int, error) {
			leave(errLeft)
			return 0, errLeft
		}))
	case q.isEndless:
		body = io.MultiReader(body, readerFunc(func([]byte) (int, error) {
			<-ctx.Done() // which the end of the call brings
			return 0, ctx.Err()
		}))
	}
	return body
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// pacedReader rests before every piece.
type pacedReader struct {
	from  io.Reader
	pause time.Duration
}

func (r *pacedReader) Read(p []byte) (int, error) {
	time.Sleep(r.pause)
	return r.from.Read(p[:min(len(p), 16*kB)])
}
