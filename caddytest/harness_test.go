// SPDX-License-Identifier: Apache-2.0

// Package caddytest sends official clients through a real Caddy to upstreams
// that answer by script, and looks at both ends: what the client saw, and what
// the upstream received. It is a module of its own, so that client libraries
// never reach the builds of users.
package caddytest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-gemini/caddy-gemini"
)

// What must never be read in anything that the gateway writes. The keys have
// the form of real ones.
const (
	clientKey   = "AIzaSyClientClientClientClientClient111"
	upstreamKey = "AIzaSyUpstreamUpstreamUpstreamUpstrea22"
	prompt      = "a cat in a hat that only the model may know of"
)

// gateway is a real Caddy that runs in this process.
type gateway struct {
	url     string
	address string
	dir     string // for the files of this test, {$CADDYTEST_DIR} in Caddyfiles
}

// run starts Caddy with a site that consists of the given directives. It stops
// with the test, which fails if a key or a prompt was logged anywhere.
func run(t *testing.T, directives string) *gateway {
	t.Helper()
	g := &gateway{dir: t.TempDir()}
	t.Setenv("CADDYTEST_DIR", g.dir)
	t.Setenv("CADDYTEST_KEY", upstreamKey)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
		g.checkLog(t)
	})
	g.load(t, directives)
	return g
}

// inFront starts Caddy with a gateway in front of a scripted upstream, to which
// it sends its own key.
func inFront(t *testing.T, u *upstream, options ...string) *gateway {
	t.Helper()
	return run(t, gemini("upstream scripted "+u.URL+" {\n\tapi_key {env.CADDYTEST_KEY}\n}", options...))
}

// gemini is the directive with the given options. A call is made once and
// forgotten, unless an option is about retry or guard: most tests are about what
// one answer becomes, and send the same prompt again and again.
func gemini(upstream string, options ...string) string {
	for _, option := range []string{"retry", "guard"} {
		isGiven := func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), option) }
		if !slices.ContainsFunc(options, isGiven) {
			options = append(options, option+" off")
		}
	}
	return "gemini {\n" + strings.Join(append(options, upstream), "\n") + "\n}\n"
}

// runWith is run with more global options.
func runWith(t *testing.T, globals, directives string) *gateway {
	t.Helper()
	g := run(t, "respond 204\n")
	g.loadWith(t, globals, directives)
	return g
}

// load loads the site's directives into the Caddy that runs, as a reload does.
// The site moves to another port: what is sent to the old one while its server
// goes down may be lost, with any handler.
func (g *gateway) load(t *testing.T, directives string) {
	t.Helper()
	g.loadWith(t, "", directives)
}

// loadWith is load with more global options.
func (g *gateway) loadWith(t *testing.T, globals, directives string) {
	t.Helper()
	g.address = freeAddress(t)
	g.url = "http://" + g.address
	config, err := adapt(fmt.Sprintf(`{
	admin off
	persist_config off
	storage file_system %[1]s
	log default {
		output file %[2]s
		level DEBUG
	}
	%[3]s
}
http://%[4]s {
	bind 127.0.0.1
	%[5]s
}
`, g.dir, g.logFile(), globals, g.address, directives))
	if err != nil {
		t.Fatalf("adapting the Caddyfile: %v", err)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatalf("loading the configuration: %v", err)
	}
}

// adapt turns a Caddyfile into JSON.
func adapt(caddyfile string) ([]byte, error) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// freeAddress is a port on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		_ = l.Close()
		if _, isTaken := taken.LoadOrStore(address, true); !isTaken {
			return address
		}
	}
}

// taken are the addresses that a test may not have begun to use yet.
var taken sync.Map

func (g *gateway) logFile() string { return filepath.Join(g.dir, "caddy.log") }

// log is what Caddy has logged so far, at debug level.
func (g *gateway) log(t *testing.T) string { return readFile(t, g.logFile()) }

func readFile(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(content)
}

// checkLog finds secrets in everything that this test made Caddy write.
func (g *gateway) checkLog(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.Logf("Caddy's log:\n%s", g.log(t))
	}
	files, err := filepath.Glob(filepath.Join(g.dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		for line := range strings.Lines(readFile(t, name)) {
			for _, secret := range []string{clientKey, upstreamKey, prompt} {
				if strings.Contains(line, secret) {
					t.Errorf("%s contains %q: %s", filepath.Base(name), secret, line)
				}
			}
		}
	}
}

// patient is how long a test waits for what has to happen at once: longer than any
// machine can be busy, because only a test that fails waits so long.
const patient = 30 * time.Second

// eventually waits for what happens after an answer has been read, such as a
// line in the access log.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

// wait waits for a signal from another goroutine.
func wait(t *testing.T, what string, signal <-chan struct{}) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(patient):
		t.Fatalf("did not happen: %s", what)
	}
}
