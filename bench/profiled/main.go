// Command profiled is cmd/caddy with profiles of contention, which Go does not
// take unless a program asks for it, at an address that needs no configuration.
// It is what bench runs for -profile.
package main

import (
	"log"
	"net"
	"net/http"
	_ "net/http/pprof" // /debug/pprof/
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	// plug in Caddy modules here
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-gemini/caddy-gemini"
)

const (
	contendedOf  = 10               // one of so many waits for a lock is recorded
	blockedAbove = 10_000           // nanoseconds: one wait of so long is recorded, of shorter ones a part
	profilesDir  = "BENCH_PROFILES" // names a folder: the address goes into a file there, called by the process id
)

func main() {
	runtime.SetMutexProfileFraction(contendedOf)
	runtime.SetBlockProfileRate(blockedAbove)
	if dir := os.Getenv(profilesDir); dir != "" {
		if err := serve(filepath.Join(dir, strconv.Itoa(os.Getpid()))); err != nil {
			log.Fatal(err)
		}
	}
	caddycmd.Main()
}

func serve(file string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { log.Print(http.Serve(ln, nil)) }()
	return os.WriteFile(file, []byte(ln.Addr().String()), 0o600)
}
