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
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// upstreamCommand makes this binary the upstream; see startUpstream.
const upstreamCommand = "upstream"

// caddyPackage is what is measured, bare and as the gateway alike.
const caddyPackage = "github.com/caddy-gemini/caddy-gemini/cmd/caddy"

// idleCalls bring a fresh process to the state that counts as idle: its code
// is in memory and its connections are open.
const idleCalls = 16

type options struct {
	quick bool
	self  bool
	only  *regexp.Regexp
	pairs int
	out   string
	caddy string
}

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
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return run(ctx, o)
}

func parseFlags(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "a short run that proves that everything works; its figures are rough")
	fs.BoolVar(&o.self, "self", false, "put bare Caddy in the gateway's place: all ratios should be near 1")
	fs.IntVar(&o.pairs, "pairs", 10, "pairs of blocks per case, better even; 2 with -quick unless given")
	fs.StringVar(&o.out, "o", "", "also write the raw figures to this JSON `file`")
	fs.StringVar(&o.caddy, "caddy", "", "measure this Caddy `binary` instead of building one")
	pattern := fs.String("case", "", "only the cases whose names match this `regexp`")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	given := false
	fs.Visit(func(f *flag.Flag) { given = given || f.Name == "pairs" })
	if o.quick && !given {
		o.pairs = 2
	}
	if o.pairs < 1 || fs.NArg() > 0 {
		return o, errors.New("at least one pair, and no arguments besides flags")
	}
	var err error
	o.only, err = regexp.Compile(*pattern)
	return o, err
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "caddy-gemini-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env := &environment{dir: dir, caddy: o.caddy, self: o.self}
	if env.caddy == "" {
		env.caddy = filepath.Join(dir, "caddy.exe")
		build := exec.CommandContext(ctx, "go", "build", "-o", env.caddy, caddyPackage)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("go build %s: %w", caddyPackage, err)
		}
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
		result, err := env.measure(ctx, &c, o.pairs)
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

// measure runs one case on fresh processes, in rounds that alternate their
// order, so that what drifts in the machine drifts for all.
func (e *environment) measure(ctx context.Context, c *benchCase, pairs int) (caseResult, error) {
	result := caseResult{Name: c.name, rows: c.rows}
	bare, err := e.bare(ctx, c)
	if err != nil {
		return result, err
	}
	defer bare.stop()
	gateway, err := e.gateway(ctx, c)
	if err != nil {
		return result, err
	}
	defer gateway.stop()
	targets := []*target{bare, gateway}
	if !c.inFlight {
		direct := e.direct(c)
		defer direct.stop()
		targets = append([]*target{direct}, targets...)
	}
	jobs := make([]*job, len(targets))
	for i, t := range targets {
		if jobs[i], err = prepare(ctx, c, t); err != nil {
			return result, t.explain(err)
		}
	}
	for range pairs {
		round := make(map[*target]sample)
		for _, j := range jobs {
			s, err := j.block(ctx, c.calls)
			if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
				return result, j.target.explain(err)
			}
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s, %s: %v failed: %v\n", c.name, j.target.name, s[failedKey], err)
			}
			round[j.target] = s
		}
		p := pair{Bare: round[bare], Gateway: round[gateway]}
		if len(targets) == 3 {
			p.Direct = round[targets[0]]
		}
		result.Pairs = append(result.Pairs, p)
		slices.Reverse(jobs)
	}
	return result, nil
}

// prepare makes a target ready for a case: idle memory taken, answer checked,
// connections open.
func prepare(ctx context.Context, c *benchCase, t *target) (*job, error) {
	small := cases[0]
	if _, err := newJob(&small, t).block(ctx, idleCalls); err != nil {
		return nil, err
	}
	if u := t.usage(false); u != nil {
		t.idle = u.rss
	}
	if c.primed && t.completes {
		if err := newJob(&refusal, t).check(ctx); err != nil {
			return nil, err
		}
	}
	j := newJob(c, t)
	if err := j.check(ctx); err != nil {
		return nil, err
	}
	if c.inFlight {
		return j, nil
	}
	_, err := j.block(ctx, max(c.conns, c.calls/10))
	return j, err
}

func newReport(o options, binary string) *report {
	r := &report{
		Date:         time.Now().Format(time.DateOnly),
		Cores:        runtime.NumCPU(),
		OS:           runtime.GOOS,
		Arch:         runtime.GOARCH,
		GoVersion:    runtime.Version(),
		CaddyVersion: "unknown",
		Quick:        o.quick,
		Self:         o.self,
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
