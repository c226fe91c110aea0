// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// play is what an upstream does with one visit. What fails is broken off.
type play struct {
	do       func(w http.ResponseWriter, r *http.Request, v *visit) error
	delivers bool // what its client has asked for: nothing may follow
	blocks   bool // the prompt must not come to this account again
}

// id is what the answer to a visit is known by.
func (v *visit) id() imageID { return imageID{v.call.number, v.number} }

// errBroken ends a visit that was broken off on purpose.
var errBroken = errors.New("broken off")

func send(w http.ResponseWriter, status int, d document) error {
	w.Header().Set("Content-Type", d.contentType)
	// Google's answers have no length; net/http would give small ones one.
	w.Header().Set("Transfer-Encoding", "chunked")
	w.WriteHeader(status)
	for _, piece := range d.pieces {
		if err := write(w, piece); err != nil {
			return err
		}
	}
	return nil
}

func write(w http.ResponseWriter, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

func answers(of func(v *visit) document) play {
	return play{do: func(w http.ResponseWriter, _ *http.Request, v *visit) error { return send(w, http.StatusOK, of(v)) }}
}

func delivers(of func(v *visit) document) play {
	p := answers(of)
	p.delivers = true
	return p
}

func blocks(of func(v *visit) document) play {
	p := answers(of)
	p.blocks = true
	return p
}

func blocked(reason string) play {
	return blocks(func(v *visit) document { return stopped(v.form, v.id(), reason) })
}

var (
	draws = delivers(func(v *visit) document { return picture(v.form, v.id(), v.call.size) })
	tells = delivers(func(v *visit) document { return picture(v.form, v.id(), 0) })
	// drawsLate leaves a client the time to go.
	drawsLate = after(5*time.Second, draws)

	stopsImage  = blocked("IMAGE_SAFETY")
	stopsPrompt = blocks(func(v *visit) document { return promptStopped(v.form, v.id(), "PROHIBITED_CONTENT") })
	stopsLate   = blocks(func(v *visit) document { return stoppedLate(v.form, v.id(), "SAFETY") })
	// stopsOther is one that may pass the second time.
	stopsOther = answers(func(v *visit) document { return stopped(v.form, v.id(), "IMAGE_OTHER") })

	// What follows is worth another attempt.
	overloaded = refuses(http.StatusServiceUnavailable, "UNAVAILABLE", "")
	crashed    = refuses(http.StatusInternalServerError, "INTERNAL", "")
	empty      = answers(func(*visit) document { return document{jsonType, nil} })
	page       = answers(func(*visit) document {
		return document{"text/html", []string{"<html><body>Bad day</body></html>"}}
	})
	broken = answers(func(v *visit) document {
		return document{jsonType, []string{`{"candidates":[{"content":{"parts":[{"text":"` + mark(v.id()) + `"]}`}}
	})
	resets         = resetsAfter("")
	resetsInHead   = resetsAfter("HTTP/1.1 200 OK\r\nContent-Ty")
	resetsInBody   = resetsAfter("HTTP/1.1 200 OK\r\nContent-Type: " + jsonType + "\r\nContent-Length: 5000\r\n\r\n{\"candidates\":[")
	resetsInChunk  = resetsAfter("HTTP/1.1 200 OK\r\nContent-Type: " + jsonType + "\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{\"candidates\":[")
	malformedChunk = resetsAfter("HTTP/1.1 200 OK\r\nContent-Type: " + jsonType + "\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{\"candidates\":[")
	hangs          = play{do: func(_ http.ResponseWriter, r *http.Request, _ *visit) error {
		<-r.Context().Done()
		return errBroken
	}}
	hangsInBody = play{do: func(w http.ResponseWriter, r *http.Request, _ *visit) error {
		_ = write(w, `{"candidates":[`)
		<-r.Context().Done()
		return errBroken
	}}

	busy = refuses(http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.2s"}`)
	// denies makes the gateway set the key aside.
	denies  = refuses(http.StatusForbidden, "PERMISSION_DENIED", "")
	objects = refuses(http.StatusBadRequest, "INVALID_ARGUMENT", "")

	// cuts breaks off behind the verdict: nothing can be done about it then.
	cuts = play{do: func(w http.ResponseWriter, _ *http.Request, v *visit) error {
		d := picture(v.form, v.id(), v.call.size)
		w.Header().Set("Content-Type", d.contentType)
		left := max(v.call.size/2, 100)
		for _, piece := range d.pieces {
			if err := write(w, piece[:min(len(piece), left)]); err != nil || len(piece) >= left {
				return cmp.Or(err, errBroken)
			}
			left -= len(piece)
		}
		return errBroken
	}}

	// echoes answers what is no call for a model.
	echoes = delivers(func(v *visit) document { return document{jsonType, []string{echo(v.call)}} })
)

func echo(c *call) string { return `{"echo":"` + c.name() + `"}` }

func after(d time.Duration, p play) play {
	do := p.do
	p.do = func(w http.ResponseWriter, r *http.Request, v *visit) error {
		select {
		case <-time.After(d):
			return do(w, r, v)
		case <-r.Context().Done():
			return errBroken
		}
	}
	return p
}

func refuses(status int, word, details string) play {
	return play{do: func(w http.ResponseWriter, _ *http.Request, v *visit) error {
		return send(w, status, document{jsonType, []string{failure(v.id(), status, word, details)}})
	}}
}

// resetsAfter sends something and resets the connection.
func resetsAfter(text string) play {
	return play{do: func(w http.ResponseWriter, _ *http.Request, _ *visit) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		if text != "" {
			_, _ = io.WriteString(conn, text)
			time.Sleep(10 * time.Millisecond) // a reset overtakes what has not been read
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		return errBroken
	}}
}
