// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Limits of what limits calls and spending.
const (
	maxCount  = 1_000_000_000_000
	maxQueue  = caddy.Duration(time.Hour)
	maxPrice  = 1_000.0 // USD for one image
	maxBudget = 1e9     // USD for one day
)

func (o *Options) checkRateLimits() error {
	for i := range o.RateLimits {
		l := &o.RateLimits[i]
		if err := l.checkMatch(o.RateLimits[:i]); err != nil {
			return err
		}
		if err := l.check(); err != nil {
			return err
		}
	}
	return nil
}

// checkMatch refuses a block that no call can reach: the first that matches
// applies.
func (l *RateLimit) checkMatch(before []RateLimit) error {
	if err := checkGlob("rate_limit", l.Match); err != nil {
		return err
	}
	for _, b := range before {
		if b.Match == l.Match {
			return fmt.Errorf("rate_limit %s: there is a block for it already, and the first that matches applies; put all limits into one", l.Match)
		}
		if b.Match == "*" {
			return fmt.Errorf("rate_limit %s: the block for * stands before it and applies to all models; swap them", l.Match)
		}
	}
	return nil
}

// check wants at least one limit.
func (l *RateLimit) check() error {
	option := "rate_limit " + l.Match
	for _, c := range []struct {
		name  string
		value int64
	}{{"rpm", l.RPM}, {"tpm", l.TPM}, {"rpd", l.RPD}, {"ipm", l.IPM}} {
		if c.value < 0 || c.value > maxCount {
			return fmt.Errorf("%s: %s: %d is not a whole number from 1 to 1e12", option, c.name, c.value)
		}
	}
	switch {
	case l.RPM == 0 && l.TPM == 0 && l.RPD == 0 && l.IPM == 0:
		return fmt.Errorf("%s: there is nothing to limit; give rpm, tpm, rpd or ipm", option)
	case l.Burst != 0 && l.RPM == 0:
		return fmt.Errorf("%s: burst says how many of the rpm may pass at once; give an rpm, or take it out", option)
	case l.Burst < 0 || l.Burst > l.RPM:
		return fmt.Errorf("%s: burst: %d is not a whole number from 1 to %d, its rpm", option, l.Burst, l.RPM)
	}
	if err := checkQueue(l.Queue); err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	if err := checkPlaceholders("key", l.Key); err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	return nil
}

func checkQueue(d caddy.Duration) error {
	if d < 0 || d > maxQueue {
		return fmt.Errorf("queue: %s is not from 0 to %s; give a duration such as 30s, or 0 to refuse at once", time.Duration(d), time.Duration(maxQueue))
	}
	return nil
}

// checkPlaceholders refuses those that would read a body that the gateway is
// reading itself.
func checkPlaceholders(option, text string) error {
	if strings.Contains(text, "{http.request.body") {
		return fmt.Errorf("%s: the body of a request cannot be looked up here; take a header, or what a map makes of one", option)
	}
	return nil
}

func (u *Upstream) checkPrices() error {
	for _, p := range u.Prices {
		if err := checkGlob("price", p.Match); err != nil {
			return fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		if err := checkNumber("price", p.USDPerImage, 0, maxPrice); err != nil {
			return fmt.Errorf("upstream %s: %w", u.Name, err)
		}
	}
	return nil
}

// checkBudget takes 0 for none.
func (u *Upstream) checkBudget() error {
	if u.Budget != 0 && !isBudget(u.Budget) {
		return fmt.Errorf("upstream %s: %w", u.Name, notABudget(fmt.Sprint(u.Budget)))
	}
	return nil
}

func isBudget(usd float64) bool { return usd > 0 && usd <= maxBudget }

func notABudget(text string) error {
	return fmt.Errorf("budget: %q is not a number above zero, up to 1e9, of USD in a day", text)
}
