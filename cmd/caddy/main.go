// Command caddy is a Caddy with caddy-gemini and its simulator built in: the
// main that xcaddy would generate, for people who would rather run "go run".
package main

import (
	_ "time/tzdata" // daily quotas reset at midnight in America/Los_Angeles

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	// plug in Caddy modules here
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-gemini/caddy-gemini"
	_ "github.com/caddy-gemini/caddy-gemini/simulator"
)

func main() {
	caddycmd.Main()
}
