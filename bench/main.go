// Command bench compares the gateway with bare Caddy, side by side on this
// machine. See README.md.
package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// upstreamCommand makes this binary the upstream; see startUpstream.
const upstreamCommand = "upstream"

func main() {
	// Collecting garbage while others are measured costs them time.
	debug.SetGCPercent(400)
	err := start()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start() error {
	if len(os.Args) == 3 && os.Args[1] == upstreamCommand {
		return serveUpstream(os.Args[2], os.Stdin, os.Stdout)
	}
	if len(os.Args) == 4 && os.Args[1] == relayCommand {
		return serveRelay(os.Args[2], os.Args[3])
	}
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return run(ctx, o)
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "caddy-gemini-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env := &environment{dir: dir, caddy: o.caddy, self: o.self, relays: o.relay}
	if err := env.build(ctx, &o); err != nil {
		return err
	}
	stop, err := env.startUpstream(ctx)
	if err != nil {
		return err
	}
	defer stop()

	r := newReport(o, env.caddy)
	for _, c := range cases {
		if !o.only.MatchString(c.name) {
			continue
		}
		if o.quick {
			c = c.quick()
		}
		began := time.Now()
		result, err := env.measure(ctx, &c, &o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			result.Error = err.Error()
		}
		r.Cases = append(r.Cases, result)
		fmt.Fprintf(os.Stderr, "%s: %.1fs %s\n", c.name, time.Since(began).Seconds(), result.Error)
	}
	fmt.Print(r.markdown())
	if err := r.write(o.out); err != nil {
		return err
	}
	if !r.ok() {
		return errors.New("some calls failed")
	}
	return nil
}

// build makes the Caddy to be measured, unless there is one.
func (e *environment) build(ctx context.Context, o *options) error {
	if e.caddy != "" {
		return nil
	}
	what := process.CaddyPackage
	if o.profiles != "" {
		what = profiledPackage
		err := errors.Join(os.MkdirAll(o.profiles, 0o755), os.Setenv(profilesVariable, e.dir))
		if err != nil {
			return err
		}
	}
	var err error
	e.caddy, err = process.BuildCaddy(ctx, e.dir, what)
	return err
}

func newReport(o options, binary string) *report {
	r := &report{
		Command:      o.command,
		Date:         time.Now().Format(time.DateOnly),
		Cores:        runtime.NumCPU(),
		Processor:    processor(),
		OS:           runtime.GOOS,
		Arch:         runtime.GOARCH,
		GoVersion:    runtime.Version(),
		CaddyVersion: "unknown",
		Quick:        o.quick,
	}
	switch {
	case o.self:
		r.Instead = "bare Caddy"
	case o.relay:
		r.Instead = "a relay"
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return r
	}
	r.GoVersion = info.GoVersion
	for _, m := range info.Deps {
		if m.Path == "github.com/caddyserver/caddy/v2" {
			r.CaddyVersion = m.Version
		}
	}
	return r
}

// processor names the CPU where Linux does.
func processor() string {
	const unknown = "unknown CPU"
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

// write saves the raw figures; no file name, no file.
func (r *report) write(file string) error {
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
