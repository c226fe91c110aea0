// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

const off = "off"

func parseRetry(o *Options, d *caddyfile.Dispenser) error {
	o.Retry = new(Retry)
	switch args := d.RemainingArgs(); {
	case len(args) == 0:
		return retryGrammar.parse(d, "retry", o.Retry)
	case len(args) == 1 && args[0] == off:
		o.Retry.Attempts = 1
		if d.NextBlock(d.Nesting()) {
			return d.Err("retry off has no block; take the block away, or the word off")
		}
		return nil
	}
	return d.Err("expected retry off, or retry and a block")
}

var retryGrammar = grammar[Retry]{
	"attempts": {parse: func(r *Retry, d *caddyfile.Dispenser) error {
		return parseNumberArg(d, &r.Attempts, 1, maxAttempts, "attempts <n>")
	}},
	"backoff": {parse: parseBackoff},
	"jitter": {parse: func(r *Retry, d *caddyfile.Dispenser) error {
		r.Jitter = new(float64)
		return parseNumberArg(d, r.Jitter, 0, 1, "jitter <ratio>")
	}},
	"deadline": {parse: func(r *Retry, d *caddyfile.Dispenser) error {
		return parseDurationArg(d, &r.Deadline)
	}},
	"budget": {parse: parseBudget},
}

func parseBackoff(r *Retry, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("expected backoff <initial> <max>")
	}
	if err := parseDuration(d, &r.Backoff.Initial, "backoff", args[0]); err != nil {
		return err
	}
	if err := parseDuration(d, &r.Backoff.Max, "backoff", args[1]); err != nil {
		return err
	}
	return wrap(d, r.Backoff.check())
}

func parseBudget(r *Retry, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 1 && args[0] == off {
		r.Budget.Disabled = true
		return nil
	}
	if len(args) != 1 && len(args) != 2 {
		return d.Err("expected budget <ratio> [<min>], or budget off")
	}
	ratio, err := parseNumber("budget", args[0], 0, maxRatio)
	if err != nil {
		return d.WrapErr(err)
	}
	r.Budget.Ratio = &ratio
	if len(args) == 1 {
		return nil
	}
	least, err := parseNumber("budget", args[1], 0, maxMin)
	r.Budget.Min = &least
	return wrap(d, err)
}

func parseRephrase(o *Options, d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Err("expected rephrase and a block")
	}
	o.Rephrase = new(Rephrase)
	if err := rephraseGrammar.parse(d, "rephrase", o.Rephrase); err != nil {
		return err
	}
	return wrap(d, o.Rephrase.check())
}

var rephraseGrammar = grammar[Rephrase]{
	"replace": {repeats: true, parse: func(r *Rephrase, d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) != 2 {
			return d.Err("expected replace <regexp> <replacement>; put what has spaces between quotes")
		}
		rule := Replacement{Pattern: args[0], With: args[1]}
		r.Replacements = append(r.Replacements, rule)
		return wrap(d, rule.check())
	}},
	"prefix": {repeats: true, parse: func(r *Rephrase, d *caddyfile.Dispenser) error {
		return parseTexts(d, &r.Prefixes)
	}},
	"suffix": {repeats: true, parse: func(r *Rephrase, d *caddyfile.Dispenser) error {
		return parseTexts(d, &r.Suffixes)
	}},
}

func parseTexts(d *caddyfile.Dispenser, texts *[]string) error {
	option := d.Val()
	more := d.RemainingArgs()
	*texts = append(*texts, more...)
	if err := atLeastOne(d, more, option+" <text>..."); err != nil {
		return err
	}
	return wrap(d, checkTexts(option, more))
}

func parseGuard(o *Options, d *caddyfile.Dispenser) error {
	var value string
	if err := parseArg(d, &value, "guard <duration>, or guard off"); err != nil {
		return err
	}
	o.Guard = new(caddy.Duration)
	if value == off {
		return nil
	}
	parsed, err := caddy.ParseDuration(value)
	if err != nil {
		return d.Errf("guard: %q is neither a duration such as 24h nor off", value)
	}
	*o.Guard = caddy.Duration(parsed)
	return wrap(d, checkGuard(*o.Guard))
}

// parseUpstream checks name and address before it reads the block, so that an
// error has the line of what is wrong.
func parseUpstream(o *Options, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("expected upstream <name> <url>")
	}
	o.Upstreams = append(o.Upstreams, Upstream{Name: args[0], URL: args[1]})
	if err := o.checkUpstreams(); err != nil {
		return d.WrapErr(err)
	}
	u := &o.Upstreams[len(o.Upstreams)-1]
	if err := upstreamGrammar.parse(d, "upstream", u); err != nil {
		return err
	}
	return wrap(d, u.checkBlock())
}

var upstreamGrammar = grammar[Upstream]{
	"format": {parse: parseFormat},
	"project": {parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		return parseValue(d, &u.Project, "project <id>")
	}},
	"location": {parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		return parseValue(d, &u.Location, "location <name>")
	}},
	"credentials": {parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		return parseValue(d, &u.Credentials, "credentials <file>")
	}},
	"api_key": {repeats: true, parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) != 1 && len(args) != 2 {
			return d.Err("expected api_key <key> [<project>]")
		}
		key := APIKey{Key: args[0]}
		if len(args) == 2 {
			key.Project = args[1]
		}
		u.APIKeys = append(u.APIKeys, key)
		return wrap(d, u.checkKeys())
	}},
	"model": {repeats: true, parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) != 2 {
			return d.Err("expected model <glob> <model>")
		}
		u.Models = append(u.Models, ModelRule{Match: args[0], Model: args[1]})
		return wrap(d, u.checkModels())
	}},
	"price":  {repeats: true, parse: parsePrice},
	"budget": {parse: parseDailyBudget},
	"accept_blocked": {parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		return parseFlag(d, &u.AcceptBlocked)
	}},
	"probe": {parse: func(u *Upstream, d *caddyfile.Dispenser) error {
		return parseDurationArg(d, &u.Probe)
	}},
	"transport": {parse: parseTransport},
	"header_up": {repeats: true, parse: parseHeaderUp},
}

func parseTransport(u *Upstream, d *caddyfile.Dispenser) error {
	var name string
	if err := parseArg(d, &name, "transport <name> { ... }"); err != nil {
		return err
	}
	unmarshaler, err := caddyfile.UnmarshalModule(d, "http.reverse_proxy.transport."+name)
	if err != nil {
		return err
	}
	var warnings []caddyconfig.Warning
	u.TransportRaw = caddyconfig.JSONModuleObject(unmarshaler, "protocol", name, &warnings)
	if len(warnings) > 0 {
		return d.Errf("transport %s: %s", name, warnings[0].Message)
	}
	return wrap(d, u.checkTransport())
}

// headerField is a field name, or a pattern for what to delete.
var headerField = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// parseHeaderUp reads a change of a header as reverse_proxy does.
func parseHeaderUp(u *Upstream, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.Err("expected header_up [+|-]<field> [<value>]; put a value that has spaces between quotes")
	}
	field, value := args[0], ""
	if len(args) == 2 {
		value = args[1]
	}
	if name := strings.TrimLeft(field, "+-"); !headerField.MatchString(name) {
		return d.Errf("header_up: %q is not the name of a header, with or without + or - before it", field)
	}
	if u.HeaderUp == nil {
		u.HeaderUp = new(headers.HeaderOps)
	}
	if err := headers.CaddyfileHeaderOp(u.HeaderUp, field, value, nil); err != nil {
		return d.WrapErr(err)
	}
	return wrap(d, u.checkHeaderUp())
}
