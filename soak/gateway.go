// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-gemini/caddy-gemini/internal/process"
)

// site is one of the gateways in the configuration.
type site uint8

const (
	siteMain        site = iota // several upstreams, a pool of keys, retries, guard
	siteLimited                 // a rate limit with a queue
	siteRephrasing              // rephrase, accept_blocked
	siteTranslating             // upstreams that speak OpenAI
	siteSingle                  // the client's own key, no retries
	siteProxied                 // a transport of reverse_proxy
	siteImpatient               // a time limit for headers
	sites
)

var siteNames = [sites]string{"main", "limited", "rephrasing", "translating", "single", "proxied", "impatient"}

// clientKey is what all clients bring.
const clientKey = "key-of-the-client"

// keys are those of the upstreams, by their name.
var keys = map[string][]string{
	"first":   {"key-1a", "key-1b"},
	"second":  {"key-2"},
	"vertex":  {"key-3"},
	"limited": {"key-4"},
	"strict":  {"key-5"},
	"lenient": {"key-6"},
	"images":  {"key-7"},
	"chat":    {"key-8"},
	"single":  {clientKey},
	"proxied": {clientKey},
	"hasty":   {"key-10"},
	"patient": {"key-11"},
	"reserve": {"key-9"},
}

// keyFits tells whether a key is one that an upstream may see.
func keyFits(upstream, key string) bool { return slices.Contains(keys[upstream], key) }

// limitRPM is the limit of siteLimited, less than what is offered to it.
const limitRPM = 60

// elsewhere is no path of an API.
const elsewhere = "/hello"

// The configuration has a variant for every other reload: what may change under
// a call, without changing what must come of it.
const configTemplate = `{
	admin $ADMIN
	auto_https off
	default_bind 127.0.0.1
	persist_config off
	storage file_system {
		root $DIR/storage
	}
	log {
		level WARN
	}
}
:$PORT_main {
	route {
		gemini {
			max_body 24MiB
			hold $HOLD
			guard $GUARD
			retry {
				attempts 5
				backoff 20ms 200ms
				jitter $JITTER
					budget off
			}
			upstream first $UP/first {
				api_key key-1a project-a
				api_key key-1b project-b
				probe $PROBE
			}
			upstream second $UP/second {
				api_key key-2 project-c
				probe $PROBE
			}
			upstream vertex $UP/vertex {
				format vertex
				project soak-project
				api_key key-3
				probe $PROBE
			}
			$RESERVE
		}
		respond "elsewhere"
	}
}
:$PORT_limited {
	gemini {
		guard $GUARD
		rate_limit * {
			rpm $RPM
			tpm 10M
			ipm 1000
			queue $QUEUE
		}
		retry {
			backoff 20ms 200ms
			budget off
		}
		upstream limited $UP/limited {
			api_key key-4 limited
		}
	}
}
:$PORT_rephrasing {
	gemini {
		guard $GUARD
		rephrase {
			prefix "Softly: "
		}
		retry {
			backoff 20ms 200ms
			budget off
		}
		upstream strict $UP/strict {
			api_key key-5 strict
		}
		upstream lenient $UP/lenient {
			api_key key-6 lenient
			accept_blocked
		}
	}
}
:$PORT_translating {
	gemini {
		retry {
			backoff 20ms 200ms
			budget off
		}
		upstream images $UP/images {
			format openai images
			api_key key-7
		}
		upstream chat $UP/chat {
			format openai chat
			api_key key-8
		}
	}
}
:$PORT_single {
	gemini {
		retry off
		guard off
		upstream single $UP/single
	}
}
:$PORT_proxied {
	reverse_proxy $UP {
		transport gemini {
			upstream proxied $UP/proxied
			guard $GUARD
			retry {
				backoff 20ms 200ms
				budget off
			}
		}
	}
}
:$PORT_impatient {
	gemini {
		retry {
			backoff 20ms 200ms
			budget off
		}
		upstream hasty $UP/hasty {
			api_key key-10
			transport http {
				response_header_timeout 15s
			}
		}
		upstream patient $UP/patient {
			api_key key-11
			transport http {
				response_header_timeout 15s
			}
		}
	}
}
`

var variants = [2][]string{
	{"$HOLD", "4MiB", "$JITTER", "0.2", "$PROBE", "2s", "$QUEUE", "10s", "$RESERVE", ""},
	{"$HOLD", "1MiB", "$JITTER", "0", "$PROBE", "5s", "$QUEUE", "20s", "$RESERVE", "upstream reserve $UP/reserve {\n\t\t\tapi_key key-9 project-d\n\t\t}"},
}

// gateway is the Caddy under test.
type gateway struct {
	*process.Process
	dir     string
	admin   string // address of its admin endpoint
	ports   [sites]string
	configs [2]string
	loads   int // of configurations
	client  *http.Client
	asking  sync.Mutex // one at a time
}

func startGateway(ctx context.Context, binary, dir, upstream string, guard time.Duration) (*gateway, error) {
	g := &gateway{dir: dir, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}}
	common := []string{"$DIR", dir, "$GUARD", guard.String(), "$RPM", fmt.Sprint(limitRPM)}
	addrs, err := process.FreeAddrs(int(sites) + 1)
	if err != nil {
		return nil, err
	}
	g.ports, g.admin = [sites]string(addrs[:sites]), addrs[sites]
	common = append(common, "$ADMIN", g.admin)
	for i, name := range siteNames {
		common = append(common, "$PORT_"+name, g.ports[i][strings.LastIndexByte(g.ports[i], ':')+1:])
	}
	for i, variant := range variants {
		text := strings.NewReplacer(append(common, variant...)...).Replace(configTemplate)
		g.configs[i] = strings.ReplaceAll(text, "$UP", "http://"+upstream)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(g.configs[0]), 0o600); err != nil {
		return nil, err
	}
	if g.Process, err = process.StartCaddy(ctx, binary, dir, "gateway", file, "TMPDIR="+tmp, "TMP="+tmp); err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if err := process.WaitFor(ctx, addr, g.Exited); err != nil {
			g.Stop()
			said, _ := os.ReadFile(g.Log)
			return nil, fmt.Errorf("the gateway did not start: %w\n%s", err, said[max(0, len(said)-4096):])
		}
	}
	return g, nil
}

// reload loads the other variant of the configuration.
func (g *gateway) reload(ctx context.Context) error {
	g.loads++
	_, err := g.ask(ctx, http.MethodPost, "/load", g.configs[g.loads%2])
	return err
}

// ask asks the admin endpoint. Caddy opens a new one with each configuration, and
// who has come to the old one is asked to come again.
func (g *gateway) ask(ctx context.Context, method, path, body string) (answer []byte, err error) {
	g.asking.Lock()
	defer g.asking.Unlock()
	for range 10 {
		answer, err = g.askOnce(ctx, method, path, body)
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			break
		}
		time.Sleep(300 * time.Millisecond)
	}
	return answer, err
}

func (g *gateway) askOnce(ctx context.Context, method, path, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+g.admin+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "text/caddyfile")
	res, err := g.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer[:min(len(answer), 500)])
	}
	return answer, err
}

// crashes finds in what the process has said why it must not be trusted.
func (g *gateway) crashes() error {
	select {
	case <-g.Exited:
		return errors.New("the gateway has ended")
	default:
	}
	said, err := os.ReadFile(g.Log)
	if err != nil {
		return err
	}
	for _, word := range []string{"panic:", "fatal error:", "WARNING: DATA RACE", "runtime error"} {
		if at := strings.Index(string(said), word); at >= 0 {
			return fmt.Errorf("the gateway's log has %q: %s", word, said[at:min(len(said), at+2000)])
		}
	}
	return nil
}
