// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// parseRateLimit checks the glob before it reads the block, so that an error has
// the line of what is wrong.
func parseRateLimit(o *Options, d *caddyfile.Dispenser) error {
	var l RateLimit
	if err := parseArg(d, &l.Match, "rate_limit <model glob> and a block"); err != nil {
		return err
	}
	if err := l.checkMatch(o.RateLimits); err != nil {
		return d.WrapErr(err)
	}
	if err := rateLimitGrammar.parse(d, "rate_limit", &l); err != nil {
		return err
	}
	o.RateLimits = append(o.RateLimits, l)
	return wrap(d, l.check())
}

var rateLimitGrammar = grammar[RateLimit]{
	"rpm":   {parse: func(l *RateLimit, d *caddyfile.Dispenser) error { return parseCount(d, &l.RPM) }},
	"tpm":   {parse: func(l *RateLimit, d *caddyfile.Dispenser) error { return parseCount(d, &l.TPM) }},
	"rpd":   {parse: func(l *RateLimit, d *caddyfile.Dispenser) error { return parseCount(d, &l.RPD) }},
	"ipm":   {parse: func(l *RateLimit, d *caddyfile.Dispenser) error { return parseCount(d, &l.IPM) }},
	"burst": {parse: func(l *RateLimit, d *caddyfile.Dispenser) error { return parseCount(d, &l.Burst) }},
	"queue": {parse: parseQueue},
	"key": {parse: func(l *RateLimit, d *caddyfile.Dispenser) error {
		if err := parseArg(d, &l.Key, "key <text>"); err != nil {
			return err
		}
		if l.Key == "" {
			return d.Err("key: an empty text splits nothing; give a placeholder such as {header.X-Tenant}, or take it out")
		}
		return wrap(d, checkPlaceholders("key", l.Key))
	}},
}

// exponents are the suffixes of a count: powers of ten, as in Google's own
// tables of limits.
var exponents = map[byte]string{'k': "e3", 'K': "e3", 'm': "e6", 'M': "e6"}

// parseCount reads a count such as 10, 250k or 1.5M. The suffix becomes an
// exponent, so that no product is rounded.
func parseCount(d *caddyfile.Dispenser, n *int64) error {
	option := d.Val()
	var value string
	if err := parseArg(d, &value, option+" <n>"); err != nil {
		return err
	}
	text := value
	if last := len(text) - 1; last > 0 {
		if exponent, ok := exponents[text[last]]; ok {
			text = text[:last] + exponent
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || f < 1 || f > maxCount {
		return d.Errf("%s: %q is not a whole number from 1 to 1e12, such as 10, 250k or 1.5M", option, value)
	}
	*n = int64(f)
	return nil
}

func parseQueue(l *RateLimit, d *caddyfile.Dispenser) error {
	var value string
	if err := parseArg(d, &value, "queue <duration>"); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(value)
	if err != nil {
		return d.Errf("queue: %q is not a duration such as 30s", value)
	}
	l.Queue = caddy.Duration(parsed)
	return wrap(d, checkQueue(l.Queue))
}

func parsePrice(u *Upstream, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("expected price <model glob> <usd per image>")
	}
	usd, err := parseNumber("price", args[1], 0, maxPrice)
	u.Prices = append(u.Prices, Price{Match: args[0], USDPerImage: usd})
	if err != nil {
		return d.WrapErr(err)
	}
	return wrap(d, u.checkPrices())
}

func parseDailyBudget(u *Upstream, d *caddyfile.Dispenser) error {
	var value string
	if err := parseArg(d, &value, "budget <usd>"); err != nil {
		return err
	}
	usd, err := strconv.ParseFloat(value, 64)
	if err != nil || !isBudget(usd) {
		return d.WrapErr(notABudget(value))
	}
	u.Budget = usd
	return nil
}
