package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"os"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// relayCommand makes this binary a relay; see environment.relay.
const relayCommand = "relay"

// relay starts a process that copies bytes and understands none of them. What it
// costs is the operating system's part, which every proxy pays as well.
func (e *environment) relay(ctx context.Context, c *benchCase) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := process.FreeAddr()
	if err != nil {
		return nil, err
	}
	started, err := process.Start(ctx, []string{self, relayCommand, addr, e.upstreamURL(c)}, e.dir, "gateway", e.trust())
	if err != nil {
		return nil, err
	}
	return ready(ctx, c, "gateway", addr, started)
}

// serveRelay has a connection of its own to the upstream for each of its clients.
func serveRelay(addr, upstream string) error {
	to, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			server, err := dial(to)
			if err != nil {
				return
			}
			go func() {
				defer server.Close() // ends the other direction
				pump(server, client)
			}()
			pump(client, server)
		}()
	}
}

func dial(to *url.URL) (net.Conn, error) {
	if to.Scheme == "https" {
		return tls.Dial("tcp", to.Host, nil)
	}
	return net.Dial("tcp", to.Host)
}

// pump copies through the process, as one does that looks at the bytes: the kernel
// could move them by itself.
func pump(to io.Writer, from io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, bufferSize/2))
}
