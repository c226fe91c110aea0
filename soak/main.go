// SPDX-License-Identifier: Apache-2.0

// Command soak loads the gateway for a long time with everything at once, and
// checks every call and what it leaves behind. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// quiet is for a server that is meant to break off.
var quiet = log.New(io.Discard, "", 0)

type options struct {
	length      time.Duration
	quick       bool
	rate        int // calls a second
	caddy       string
	reloadEvery time.Duration
	quietEvery  time.Duration
	warmUp      int // samples that do not count
}

func main() {
	debug.SetMemoryLimit(512 << 20) // it shares the machine with what it tests
	err := start()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func start() error {
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, o)
}

func parseFlags(args []string) (options, error) {
	o := options{reloadEvery: 20 * time.Second, quietEvery: 2 * time.Minute, warmUp: 2}
	fs := flag.NewFlagSet("soak", flag.ContinueOnError)
	fs.DurationVar(&o.length, "for", 30*time.Minute, "how long; at least 30 seconds")
	fs.BoolVar(&o.quick, "quick", false, "a run of a minute, with more reloads and rests in it")
	fs.IntVar(&o.rate, "rate", 20, "calls per second, 1 to 1000")
	fs.StringVar(&o.caddy, "caddy", "", "test this Caddy `binary` instead of building one")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.length, o.reloadEvery, o.quietEvery, o.warmUp = time.Minute, 5*time.Second, 17*time.Second, 1
	}
	if o.length < 30*time.Second || o.rate < 1 || o.rate > 1000 || fs.NArg() > 0 {
		return o, errors.New("-for 30s or more, -rate 1 to 1000, and no arguments besides flags")
	}
	return o, nil
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "caddy-gemini-soak")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.caddy == "" {
		if o.caddy, err = process.BuildCaddy(ctx, dir, process.CaddyPackage); err != nil {
			return err
		}
	}
	s := &soak{options: o, ledger: newLedger(), counts: newCounts(), outcomes: make(map[string]map[string]int)}
	log.SetOutput(s) // what net/http complains of
	if s.upstream, err = startUpstream(s.ledger); err != nil {
		return err
	}
	if s.gateway, err = startGateway(ctx, o.caddy, dir, s.upstream.addr, s.guard()); err != nil {
		return err
	}
	defer s.gateway.Stop()
	s.caller = newCaller(s.gateway)
	s.run(ctx)
	s.finish()
	fmt.Print(s.report())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(s.faults) > 0:
		return fmt.Errorf("%d faults", len(s.faults))
	}
	return nil
}
