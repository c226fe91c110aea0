// SPDX-License-Identifier: Apache-2.0

// Package process runs Caddy as a process of its own and reads what the
// operating system says about it. The benchmark and the soak share it.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// StartTimeout bounds the start of a process, StopTimeout its end.
const (
	StartTimeout = 15 * time.Second
	StopTimeout  = 5 * time.Second
)

// CaddyPackage is the Caddy that has the gateway built in.
const CaddyPackage = "github.com/caddy-gemini/caddy-gemini/cmd/caddy"

// Usage is what a process has used: CPU time since its start, memory in bytes.
type Usage struct {
	CPU       time.Duration
	RSS, Peak int64
}

// BuildCaddy builds a package that is a Caddy into a directory and returns the file's
// name.
func BuildCaddy(ctx context.Context, dir, what string) (string, error) {
	binary := filepath.Join(dir, "caddy.exe")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, what)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("go build %s: %w", what, err)
	}
	return binary, nil
}

// Process is a process that was started.
type Process struct {
	PID    int
	Log    string          // the file with its output
	Exited <-chan struct{} // closed at its end
	Stop   func()          // kills it and waits for its end
}

// StartCaddy starts a Caddy with a Caddyfile. What it writes, its output in
// name.log included, goes to dir: nothing of the user's Caddy is read or written.
func StartCaddy(ctx context.Context, binary, dir, name, caddyfile string, env ...string) (*Process, error) {
	return Start(ctx, []string{binary, "run", "--config", caddyfile, "--adapter", "caddyfile"}, dir, name, env...)
}

// Start starts a command likewise.
func Start(ctx context.Context, command []string, dir, name string, env ...string) (*Process, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, StopTimeout
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	cmd.Env = append(cmd.Env, env...)
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // killed
		close(exited)
	}()
	stop := func() {
		cancel()
		<-exited
	}
	return &Process{PID: cmd.Process.Pid, Log: log.Name(), Exited: exited, Stop: stop}, nil
}

// WaitFor returns when something listens on addr. It fails when the process ends
// before, or after StartTimeout.
func WaitFor(ctx context.Context, addr string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, StartTimeout)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-exited:
			return errors.New("the process ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Listen listens on a free port of the loopback interface.
func Listen() (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// FreeAddr is an address that nobody listened on a moment ago.
func FreeAddr() (string, error) {
	addrs, err := FreeAddrs(1)
	if err != nil {
		return "", err
	}
	return addrs[0], nil
}

// FreeAddrs are different addresses that nobody listened on a moment ago.
func FreeAddrs(count int) (addrs []string, err error) {
	for range count {
		ln, err := Listen()
		if err != nil {
			return nil, err
		}
		defer ln.Close() // not before the others are found, or they could be the same
		addrs = append(addrs, ln.Addr().String())
	}
	return addrs, nil
}
