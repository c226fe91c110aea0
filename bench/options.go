package main

import (
	"errors"
	"flag"
	"regexp"
	"slices"
)

type options struct {
	quick    bool
	self     bool
	relay    bool
	only     *regexp.Regexp
	pairs    int
	out      string
	caddy    string
	profiles string // the folder for them

	command string // that repeats the run, without the names of files
}

func parseFlags(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "a short run that proves that everything works; its figures are rough")
	fs.BoolVar(&o.self, "self", false, "put bare Caddy in the gateway's place: all ratios should be near 1")
	fs.BoolVar(&o.relay, "relay", false, "put a relay of bytes in the gateway's place: what no proxy can do without")
	fs.IntVar(&o.pairs, "pairs", 10, "pairs of blocks per case, better even; 1 with -quick unless given")
	fs.StringVar(&o.out, "o", "", "also write the raw figures to this JSON `file`")
	fs.StringVar(&o.caddy, "caddy", "", "measure this Caddy `binary` instead of building one")
	fs.StringVar(&o.profiles, "profile", "", "also write profiles of both proxies to this `folder`")
	pattern := fs.String("case", "", "only the cases whose names match this `regexp`")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	given := make(map[string]bool)
	o.command = "go run ./bench"
	fs.Visit(func(f *flag.Flag) {
		given[f.Name] = true
		o.command += repeated(f)
	})
	if o.quick && !given["pairs"] {
		o.pairs = 1
	}
	switch {
	case o.pairs < 1 || fs.NArg() > 0:
		return o, errors.New("at least one pair, and no arguments besides flags")
	case o.self && o.relay:
		return o, errors.New("-self and -relay both want the gateway's place")
	case o.profiles != "" && (o.caddy != "" || o.relay):
		return o, errors.New("-profile builds Caddys of its own")
	}
	var err error
	o.only, err = regexp.Compile(*pattern)
	return o, err
}

// repeated is a flag that was given, as it is given again. Those that name files
// say nothing to others.
func repeated(f *flag.Flag) string {
	switch value := f.Value.String(); {
	case slices.Contains([]string{"o", "caddy", "profile"}, f.Name):
		return ""
	case value == "true":
		return " -" + f.Name
	case f.Name == "case":
		return " -case '" + value + "'"
	default:
		return " -" + f.Name + " " + value
	}
}
