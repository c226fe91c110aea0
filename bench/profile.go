package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

const (
	// profiledPackage is process.CaddyPackage with its profiles within reach.
	profiledPackage = "github.com/caddy-gemini/caddy-gemini/bench/profiled"
	// profilesVariable tells it the folder for a file with the address of its
	// profiles, which is called by its process id.
	profilesVariable = "BENCH_PROFILES"
)

// profiles are those taken of a case, by their path under /debug/pprof/. All
// tell what happens in the same seconds, except for the heap, which is that of
// some moment of them.
var profiles = map[string]string{
	"cpu":    "profile?seconds=5",
	"allocs": "allocs?seconds=5",
	"mutex":  "mutex?seconds=5",
	"block":  "block?seconds=5",
	"heap":   "heap",
}

// profile keeps both proxies busy with the calls of a case once more, after its
// figures have been taken, and writes their profiles into a folder.
func (e *environment) profile(ctx context.Context, b *bout, dir string) error {
	for _, j := range []*job{b.bare, b.gateway} {
		address, err := os.ReadFile(filepath.Join(e.dir, strconv.Itoa(j.target.pid)))
		if err != nil {
			return err
		}
		base := fmt.Sprintf("http://%s/debug/pprof/", address)
		prefix := filepath.Join(dir, b.spec.name+"."+j.target.name)
		if err := j.whileBusy(ctx, func(ctx context.Context) error { return fetchProfiles(ctx, base, prefix) }); err != nil {
			return fmt.Errorf("profiles of %s: %w", prefix, err)
		}
	}
	return nil
}

// whileBusy does something while calls are made.
func (j *job) whileBusy(ctx context.Context, do func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var calls sync.WaitGroup
	var failure error
	calls.Go(func() {
		for ctx.Err() == nil && failure == nil {
			if _, err := j.block(ctx, j.spec.calls); ctx.Err() == nil {
				failure = err
			}
		}
	})
	err := do(ctx)
	stop()
	calls.Wait()
	return errors.Join(err, failure)
}

func fetchProfiles(ctx context.Context, base, prefix string) error {
	errs := make(chan error)
	for name, path := range profiles {
		go func() { errs <- fetchProfile(ctx, base+path, prefix+"."+name+".pprof") }()
	}
	var all error
	for range profiles {
		all = errors.Join(all, <-errs)
	}
	return all
}

func fetchProfile(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %s", url, resp.StatusCode, data)
	}
	return os.WriteFile(file, data, 0o644)
}
