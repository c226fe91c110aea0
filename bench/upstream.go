package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

const (
	// caseHeader names the case whose answer a call wants. Proxies pass it on.
	caseHeader = "X-Goog-Bench-Case"
	// receivedHeader tells the client how long a body reached the upstream.
	receivedHeader = "X-Bench-Received"
	// togetherHeader says how many calls like it the upstream must have in full
	// before it answers any of them.
	togetherHeader = "X-Goog-Bench-Together"

	// bufferSize is what all bodies are read into, large enough for the cost
	// of reading not to hide that of the proxies.
	bufferSize = 256 << 10

	// stampBlank is where the time of sending, in nanoseconds, is written
	// into a paced event.
	stampBlank = "0000000000000000000"

	caFile = "ca.pem"
)

// upstreamAddrs is what the upstream process reports on its standard output.
type upstreamAddrs struct{ HTTP, HTTPS string }

// upstream is the fake Gemini API. Its answers are built once and cost little
// more than the system calls that send them.
type upstream struct {
	answers map[string]func() answer
	buffers sync.Pool
	crowd   crowd
}

func newUpstream() *upstream {
	u := &upstream{
		answers: make(map[string]func() answer),
		buffers: sync.Pool{New: func() any { return new([bufferSize]byte) }},
	}
	for _, c := range cases {
		u.answers[c.name] = sync.OnceValue(c.answer)
	}
	return u
}

// ServeHTTP reads the whole request and sends the answer of its case.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	build, ok := u.answers[r.Header.Get(caseHeader)]
	if !ok {
		http.Error(w, "unknown case", http.StatusNotFound)
		return
	}
	received, err := u.drain(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if n, err := strconv.Atoi(r.Header.Get(togetherHeader)); err == nil {
		u.crowd.join(r.Context(), n)
	}
	a := build()
	h := w.Header()
	if a.packed != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		a.writes = a.packed()
	}
	h.Set("Content-Type", a.contentType)
	h.Set(receivedHeader, strconv.FormatInt(received, 10))
	// Google's answers have no length; net/http would give small ones one.
	h.Set("Transfer-Encoding", "chunked")
	if err := a.send(w); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (u *upstream) drain(body io.Reader) (int64, error) {
	buf := u.buffers.Get().(*[bufferSize]byte)
	defer u.buffers.Put(buf)
	var n int64
	for {
		k, err := body.Read(buf[:])
		n += int64(k)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (a answer) send(w http.ResponseWriter) error {
	flusher := http.NewResponseController(w)
	for i, b := range a.writes {
		if a.pace > 0 {
			time.Sleep(a.pace)
			b = stamped(b, time.Now())
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		rest := i == 0 && a.rest > 0
		if !a.flush && !rest {
			continue
		}
		if err := flusher.Flush(); err != nil {
			return err
		}
		if rest {
			time.Sleep(a.rest)
		}
	}
	return nil
}

func stamped(event []byte, now time.Time) []byte {
	return bytes.Replace(event, []byte(stampBlank), fmt.Appendf(nil, "%0*d", len(stampBlank), now.UnixNano()), 1)
}

// serveUpstream is the upstream process. It serves plain HTTP and TLS until
// stdin ends, which it does at the latest when the parent process is gone.
func serveUpstream(dir string, stdin io.Reader, stdout io.Writer) error {
	cert, err := selfSigned(filepath.Join(dir, caFile))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	plain, err := process.Listen()
	if err != nil {
		return err
	}
	secure, err := process.Listen()
	if err != nil {
		return err
	}
	u := newUpstream()
	// Two servers: one that has served plain HTTP no longer speaks HTTP/2.
	http1 := &http.Server{Handler: u}
	http2 := &http.Server{Handler: u, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	ended := make(chan error, 3)
	go func() { ended <- http1.Serve(plain) }()
	go func() { ended <- http2.ServeTLS(secure, "", "") }()
	go func() {
		_, err := io.Copy(io.Discard, stdin)
		ended <- err
	}()
	if _, err := fmt.Fprintln(stdout, plain.Addr(), secure.Addr()); err != nil {
		return err
	}
	return errors.Join(<-ended, http1.Close(), http2.Close())
}

// selfSigned makes a certificate for the loopback address and writes it to
// file for clients to trust.
func selfSigned(file string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
