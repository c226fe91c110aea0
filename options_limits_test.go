// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestCounts(t *testing.T) {
	for text, want := range map[string]int64{ // 0: refused
		"1": 1, "10": 10, "250k": 250_000, "250K": 250_000, "1M": 1_000_000, "1m": 1_000_000, "1.5M": 1_500_000, "0.5k": 500,
		"1.001k": 1001, "4.35k": 4350, "8.000001M": 8_000_001, "1000000M": maxCount, "1000000000000": maxCount, "1e3": 1000,
		"0": 0, "-1": 0, "1.5": 0, "0.0001k": 0, "1.0005k": 0, "1000000000001": 0, "1000001M": 0, "1e300": 0,
		"k": 0, "M": 0, "1kk": 0, "1G": 0, "1 k": 0, "1e3k": 0, "NaN": 0, "Inf": 0, "": 0, "ten": 0,
	} {
		var o Options
		err := o.UnmarshalCaddyfile(caddyfile.NewTestDispenser("gemini {\nrate_limit * {\ntpm \"" + text + "\"\n}\n}"))
		if (err != nil) != (want == 0) || err == nil && o.RateLimits[0].TPM != want {
			t.Errorf("%q: %+v, %v, want %d", text, o.RateLimits, err, want)
		}
	}
}

func TestRateLimitsInRange(t *testing.T) {
	for name, c := range map[string]struct {
		limits []RateLimit
		ok     bool
	}{
		"none":                 {nil, true},
		"one of each":          {[]RateLimit{{Match: "a", RPM: 1}, {Match: "b", TPM: 1}, {Match: "c", RPD: 1}, {Match: "d", IPM: 1}}, true},
		"largest":              {[]RateLimit{{Match: "*", RPM: maxCount, Burst: maxCount, Queue: maxQueue}}, true},
		"burst of the rpm":     {[]RateLimit{{Match: "*", RPM: 10, Burst: 10}}, true},
		"burst above the rpm":  {[]RateLimit{{Match: "*", RPM: 10, Burst: 11}}, false},
		"burst without an rpm": {[]RateLimit{{Match: "*", IPM: 10, Burst: 1}}, false},
		"long queue":           {[]RateLimit{{Match: "*", RPM: 1, Queue: maxQueue + 1}}, false},
		"queue that never was": {[]RateLimit{{Match: "*", RPM: 1, Queue: -caddy.Duration(time.Nanosecond)}}, false},
		"no limit":             {[]RateLimit{{Match: "*", Queue: 1}}, false},
		"behind all":           {[]RateLimit{{Match: "*", RPM: 1}, {Match: "a", RPM: 1}}, false},
		"all behind one":       {[]RateLimit{{Match: "a*", RPM: 1}, {Match: "*", RPM: 1}}, true},
		"the same twice":       {[]RateLimit{{Match: "a*", RPM: 1}, {Match: "*b", RPM: 1}, {Match: "a*", IPM: 1}}, false},
	} {
		if err := (&Options{RateLimits: c.limits}).checkRateLimits(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPricesAndBudgetsInRange(t *testing.T) {
	for name, c := range map[string]struct {
		u  Upstream
		ok bool
	}{
		"free":               {Upstream{Prices: []Price{{Match: "*"}}}, true},
		"dear":               {Upstream{Prices: []Price{{Match: "*", USDPerImage: maxPrice}}, Budget: maxBudget}, true},
		"too dear":           {Upstream{Prices: []Price{{Match: "*", USDPerImage: maxPrice + 0.01}}}, false},
		"paid for":           {Upstream{Prices: []Price{{Match: "*", USDPerImage: -0.01}}}, false},
		"no model":           {Upstream{Prices: []Price{{USDPerImage: 1}}}, false},
		"smallest budget":    {Upstream{Budget: 1e-9}, true},
		"budget below zero":  {Upstream{Budget: -1}, false},
		"budget of a nation": {Upstream{Budget: 2 * maxBudget}, false},
	} {
		c.u.Name, c.u.URL = "studio", defaultURL
		if err := c.u.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Models that the configuration names are known to metrics.
func TestKnownModels(t *testing.T) {
	o := &Options{
		Aliases:    []Alias{{"nickname", "model"}},
		RateLimits: []RateLimit{{Match: "limited"}, {Match: "all-*"}},
		Upstreams:  []Upstream{{Models: []ModelRule{{Match: "asked", Model: "sent"}}, Prices: []Price{{Match: "priced"}, {Match: "?"}}}},
	}
	got := o.knownModels()[len(googleModels):]
	for _, a := range defaultAliases {
		if !slices.Contains(got, a.Name) || !slices.Contains(got, a.Model) {
			t.Errorf("%q lacks %v", got, a)
		}
	}
	got = slices.DeleteFunc(got, func(name string) bool {
		return slices.ContainsFunc(defaultAliases, func(a Alias) bool { return name == a.Name || name == a.Model })
	})
	if want := []string{"limited", "nickname", "model", "asked", "sent", "priced"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
