package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// target is one way to the upstream: direct, or through a proxy process.
type target struct {
	name      string
	url       string
	completes bool // adds to requests, and turns blocks into errors
	transport *http.Transport

	pid  int    // 0 = direct
	log  string // file of the process's output
	idle int64
	stop func()
}

// explain adds what the process itself said to an error.
func (t *target) explain(err error) error {
	said, _ := os.ReadFile(t.log) // the direct way has none
	return fmt.Errorf("%s: %w\n%s", t.name, err, said[max(0, len(said)-4096):])
}

// usage reads the process's figures, making its peak memory start afresh if
// asked to. It is nil where they cannot be had.
func (t *target) usage(reset bool) *process.Usage {
	if t.pid == 0 {
		return nil
	}
	if reset && process.ResetPeak(t.pid) != nil {
		return nil
	}
	u, err := process.ReadUsage(t.pid)
	if err != nil {
		return nil
	}
	return &u
}

// environment is what all cases share.
type environment struct {
	dir   string // temporary
	caddy string // binary
	addrs upstreamAddrs
	roots *x509.CertPool // for the direct way to the TLS upstream

	self, relays bool // what stands in the gateway's place
}

// upstreamURL is where the case's answers come from.
func (e *environment) upstreamURL(c *benchCase) string {
	if c.tls {
		return "https://" + e.addrs.HTTPS
	}
	return "http://" + e.addrs.HTTP
}

func newTarget(name, url string, conns int) *target {
	return &target{
		name: name,
		url:  url,
		stop: func() {},
		// No HTTP/2 and no proxy settings: every target is reached alike.
		transport: &http.Transport{
			MaxConnsPerHost:     conns,
			MaxIdleConnsPerHost: conns,
			ReadBufferSize:      64 << 10,
			WriteBufferSize:     64 << 10,
		},
	}
}

func (e *environment) direct(c *benchCase) *target {
	t := newTarget("direct", e.upstreamURL(c), c.conns)
	t.transport.TLSClientConfig = &tls.Config{RootCAs: e.roots}
	t.stop = t.transport.CloseIdleConnections
	return t
}

func (e *environment) bare(ctx context.Context, c *benchCase) (*target, error) {
	return e.proxy(ctx, c, "bare", "reverse_proxy "+e.upstreamURL(c))
}

func (e *environment) gateway(ctx context.Context, c *benchCase) (*target, error) {
	switch {
	case e.self:
		return e.proxy(ctx, c, "gateway", "reverse_proxy "+e.upstreamURL(c))
	case e.relays:
		return e.relay(ctx, c)
	}
	block := strings.ReplaceAll(cmp.Or(c.gateway, oneUpstream), "$URL", e.upstreamURL(c))
	t, err := e.proxy(ctx, c, "gateway", "gemini {"+block+"\n\t}")
	if err == nil {
		t.completes = true
	}
	return t, err
}

// proxyConfig takes a port and a directive.
const proxyConfig = `{
	admin off
	auto_https off
	default_bind 127.0.0.1
	log {
		level ERROR
	}
}
:%s {
	%s
}
`

// proxy starts a Caddy with one directive in front of the upstream.
func (e *environment) proxy(ctx context.Context, c *benchCase, name, directive string) (*target, error) {
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(e.dir, name+".Caddyfile")
	if err := os.WriteFile(config, fmt.Appendf(nil, proxyConfig, port, directive), 0o600); err != nil {
		return nil, err
	}
	started, err := process.StartCaddy(ctx, e.caddy, e.dir, name, config, e.trust())
	if err != nil {
		return nil, err
	}
	return ready(ctx, c, name, addr, started)
}

// trust makes a process trust the upstream's certificate, without an option.
func (e *environment) trust() string { return "SSL_CERT_FILE=" + filepath.Join(e.dir, caFile) }

// ready is the target of a process, as soon as that listens.
func ready(ctx context.Context, c *benchCase, name, addr string, p *process.Process) (*target, error) {
	t := newTarget(name, "http://"+addr, c.conns)
	t.pid, t.log = p.PID, p.Log
	t.stop = func() {
		t.transport.CloseIdleConnections()
		p.Stop()
	}
	if err := process.WaitFor(ctx, addr, p.Exited); err != nil {
		t.stop()
		return nil, t.explain(fmt.Errorf("did not start: %w", err))
	}
	return t, nil
}

// startUpstream runs this binary again as the upstream, so that its CPU time
// and memory are nobody else's.
func (e *environment) startUpstream(ctx context.Context) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, self, upstreamCommand, e.dir)
	cmd.Stderr, cmd.WaitDelay = os.Stderr, process.StopTimeout
	// Its end tells the upstream that this process is gone.
	if _, err := cmd.StdinPipe(); err != nil {
		cancel()
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	stop = func() {
		cancel()
		_ = cmd.Wait() // killed
	}
	late := time.AfterFunc(process.StartTimeout, cancel)
	defer late.Stop()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &e.addrs.HTTP, &e.addrs.HTTPS)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("the upstream did not start: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(e.dir, caFile))
	if err != nil {
		stop()
		return nil, err
	}
	e.roots = x509.NewCertPool()
	e.roots.AppendCertsFromPEM(pem)
	return stop, nil
}
