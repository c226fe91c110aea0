// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

// check refuses values that mean nothing; each error names the fix. It wants
// the defaults in their places.
func (o *Options) check() error {
	for _, check := range []func() error{
		o.checkCompletion,
		o.checkAliases,
		o.checkJudgement,
		o.checkRateLimits,
		o.Retry.check,
		o.Rephrase.check,
		func() error { return checkGuard(*o.Guard) },
		o.checkUpstreams,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkCompletion checks what requests are completed with.
func (o *Options) checkCompletion() error {
	for _, s := range o.SafetySettings {
		if err := s.check(); err != nil {
			return err
		}
	}
	if err := o.checkModalities(); err != nil {
		return err
	}
	for _, glob := range o.ImageModels {
		if err := checkGlob("image_models", glob); err != nil {
			return err
		}
	}
	return oneOf("inject", o.Inject, injectMissing, injectOff)
}

func (o *Options) checkModalities() error {
	for _, m := range o.ResponseModalities {
		if err := oneOf("response_modalities", m, modalities...); err != nil {
			return err
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(o.ResponseModalities)))) < len(o.ResponseModalities) {
		return fmt.Errorf("response_modalities: each once, please")
	}
	return nil
}

// checkJudgement checks how answers are held and judged.
func (o *Options) checkJudgement() error {
	if err := checkBlockStatus(o.BlockStatus.String()); err != nil {
		return err
	}
	if err := oneOf("no_image", o.NoImage, string(noImageAuto), string(noImageError), string(noImagePass)); err != nil {
		return err
	}
	if o.MaxBody < 0 || o.Hold < 0 {
		return fmt.Errorf("max_body and hold are sizes above zero, in bytes")
	}
	if err := checkInMemory(o.KeepInMemory); err != nil {
		return err
	}
	return oneOf("stream_commit", o.StreamCommit, commitImage, commitText)
}

// checkInMemory has a bound because so much of a body is read before it is sent.
func checkInMemory(size int64) error {
	if size < minInMemory {
		return fmt.Errorf("keep_in_memory: %d bytes are less than 256KiB; give a size such as 16MiB", size)
	}
	return nil
}

func oneOf(option, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s: %q is not one of %s", option, value, strings.Join(allowed, ", "))
}

func checkGlob(option, glob string) error {
	if _, err := path.Match(glob, ""); err != nil || glob == "" {
		return fmt.Errorf("%s: %q is not a pattern such as *-image-*", option, glob)
	}
	return nil
}

func checkBlockStatus(value string) error {
	code, err := strconv.Atoi(value)
	if value != blockPass && (err != nil || code < 400 || code > 599) {
		return fmt.Errorf("block_status: %q is neither an HTTP status from 400 to 599 nor pass", value)
	}
	return nil
}

func (r *Retry) check() error {
	for _, err := range []error{
		checkNumber("retry attempts", r.Attempts, 1, maxAttempts),
		r.Backoff.check(),
		checkNumber("retry jitter", *r.Jitter, 0, 1),
		checkAboveZero("retry deadline", r.Deadline),
		checkNumber("retry budget", *r.Budget.Ratio, 0, maxRatio),
		checkNumber("retry budget min", *r.Budget.Min, 0, maxMin),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func (b Backoff) check() error {
	if err := checkAboveZero("retry backoff", b.Initial); err != nil {
		return err
	}
	if b.Max < b.Initial {
		return fmt.Errorf("retry backoff: the first wait, %s, is longer than the longest, %s; swap them", time.Duration(b.Initial), time.Duration(b.Max))
	}
	return nil
}

func checkNumber[T int | float64](option string, value, low, high T) error {
	if value >= low && value <= high { // which NaN is not
		return nil
	}
	return notANumber(option, fmt.Sprint(value), low, high)
}

// parseNumber reads a number as checkNumber wants it.
func parseNumber[T int | float64](option, text string, low, high T) (T, error) {
	f, err := strconv.ParseFloat(text, 64)
	value := T(f)
	if err != nil || float64(value) != f || value < low || value > high {
		return 0, notANumber(option, text, low, high)
	}
	return value, nil
}

func notANumber[T int | float64](option, text string, low, high T) error {
	kind := "number"
	if _, whole := any(low).(int); whole {
		kind = "whole number"
	}
	return fmt.Errorf("%s: %q is not a %s from %v to %v", option, text, kind, low, high)
}

func checkAboveZero(option string, d caddy.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s: %s is not above zero; give a duration such as 30s", option, time.Duration(d))
	}
	return nil
}

func checkGuard(d caddy.Duration) error {
	if d < 0 || d > maxGuard {
		return fmt.Errorf("guard: %s is not from 0 to %s; give a duration such as 24h, or 0 to turn it off", time.Duration(d), time.Duration(maxGuard))
	}
	return nil
}

func (r *Rephrase) check() error {
	if r == nil {
		return nil
	}
	if len(r.Replacements)+len(r.Prefixes)+len(r.Suffixes) == 0 {
		return fmt.Errorf("rephrase: there is nothing to do; give a prefix, a suffix or a replace rule")
	}
	for _, rule := range r.Replacements {
		if err := rule.check(); err != nil {
			return err
		}
	}
	if err := checkTexts("prefix", r.Prefixes); err != nil {
		return err
	}
	return checkTexts("suffix", r.Suffixes)
}

func checkTexts(option string, texts []string) error {
	if slices.ContainsFunc(texts, func(text string) bool { return strings.TrimSpace(text) == "" }) {
		return fmt.Errorf("rephrase %s: an empty text changes nothing; give one, or take it out", option)
	}
	return nil
}

// groupReference finds what regexp.Expand takes for a reference to a group, and
// dollar signs that it takes for themselves.
var groupReference = regexp.MustCompile(`\$(?:\$|\{([\pL\p{Nd}_]+)\}|([\pL\p{Nd}_]+))`)

// check refuses references to groups that are not there: regexp would put
// nothing in their place, as in "$1st" for "${1}st".
func (r Replacement) check() error {
	pattern, err := regexp.Compile(r.Pattern)
	if err != nil || r.Pattern == "" {
		return fmt.Errorf("rephrase replace: %q is not a regular expression in the syntax of Go", r.Pattern)
	}
	for _, match := range groupReference.FindAllStringSubmatch(r.With, -1) {
		if name := match[1] + match[2]; name != "" && !hasGroup(pattern, name) {
			return fmt.Errorf("rephrase replace: the regular expression has no group %q, which %q refers to; write ${1}st for a group with letters behind it, $$ for a dollar sign", name, r.With)
		}
	}
	return nil
}

func hasGroup(pattern *regexp.Regexp, name string) bool {
	if n, err := strconv.Atoi(name); err == nil && strconv.Itoa(n) == name {
		return n <= pattern.NumSubexp()
	}
	return pattern.SubexpIndex(name) >= 0
}

// checkUpstreams wants names to differ: metrics, logs and health go by them.
func (o *Options) checkUpstreams() error {
	seen := make(map[string]bool)
	for i := range o.Upstreams {
		u := &o.Upstreams[i]
		if err := u.check(); err != nil {
			return err
		}
		if seen[u.Name] {
			return fmt.Errorf("upstream %s: there is one of this name already; give each its own", u.Name)
		}
		seen[u.Name] = true
	}
	return nil
}

// check can do without defaults, so that a Caddyfile's errors name their lines.
func (u *Upstream) check() error {
	if u.proxied {
		return nil // nothing of it comes from the configuration
	}
	for _, check := range []func() error{
		u.checkAddress, u.checkFormat, u.checkBlock, u.checkKeys, u.checkModels, u.checkPrices, u.checkBudget, u.checkTransport,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	if u.Probe < 0 {
		return checkAboveZero("upstream "+u.Name+": probe", u.Probe)
	}
	return u.checkHeaderUp()
}

func (u *Upstream) checkHeaderUp() error {
	if u.HeaderUp == nil {
		return nil
	}
	if err := (headers.Handler{Request: u.HeaderUp}).Validate(); err != nil {
		return fmt.Errorf("upstream %s: header_up: %w", u.Name, err)
	}
	if setsNoHost(u.HeaderUp) {
		return fmt.Errorf("upstream %s: header_up: Host has no value; give one, or take the line away, and the upstream gets the host of its URL", u.Name)
	}
	for _, text := range valuesOf(u.HeaderUp) {
		if err := checkPlaceholders("header_up", text); err != nil {
			return fmt.Errorf("upstream %s: %w", u.Name, err)
		}
	}
	return nil
}

// setsNoHost finds what changes nothing: a request without a Host gets that of its URL.
// Other headers can be empty.
func setsNoHost(ops *headers.HeaderOps) bool {
	for _, fields := range []http.Header{ops.Add, ops.Set} {
		for name, values := range fields {
			if strings.EqualFold(name, "Host") && slices.Contains(values, "") {
				return true
			}
		}
	}
	return false
}

// valuesOf are the texts that can have placeholders.
func valuesOf(ops *headers.HeaderOps) (texts []string) {
	for _, fields := range []http.Header{ops.Add, ops.Set} {
		for _, values := range fields {
			texts = append(texts, values...)
		}
	}
	for _, replacements := range ops.Replace {
		for _, r := range replacements {
			texts = append(texts, r.Replace)
		}
	}
	return texts
}

// placeholder is what Caddy looks up in other options.
var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

var upstreamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (u *Upstream) checkAddress() error {
	if !upstreamName.MatchString(u.Name) {
		return fmt.Errorf("upstream: %q is not a name of up to 64 letters, digits, dashes and underscores", u.Name)
	}
	if found := placeholder.FindString(u.URL); found != "" {
		return fmt.Errorf("upstream %s: the URL has the placeholder %s, which is not looked up in it; write the URL itself, or {$NAME} in a Caddyfile for a variable of the environment", u.Name, shown(found))
	}
	base, err := url.Parse(u.URL)
	if err != nil {
		return fmt.Errorf("upstream %s: what stands behind the name is not a URL such as %s", u.Name, defaultURL)
	}
	if base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return fmt.Errorf("upstream %s: the URL can have a path, but no user, query or fragment; keys go into api_key", u.Name)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return fmt.Errorf("upstream %s: %s is not a URL such as %s", u.Name, shown(u.URL), defaultURL)
	}
	if port, err := strconv.Atoi(cmp.Or(base.Port(), "443")); err != nil || port < 1 || port > 65535 {
		return fmt.Errorf("upstream %s: there is no port %s: they end at 65535", u.Name, base.Port())
	}
	return nil
}

func (u *Upstream) checkKeys() error {
	for i, k := range u.APIKeys {
		if k.Key == "" {
			return fmt.Errorf("upstream %s: api_key: give a key, or where to find it: {env.NAME} or {file./path}", u.Name)
		}
		for _, text := range []string{k.Key, k.Project} {
			if err := checkPlaceholders("api_key", text); err != nil {
				return fmt.Errorf("upstream %s: %w", u.Name, err)
			}
		}
		same := slices.IndexFunc(u.APIKeys[:i], func(before APIKey) bool { return before.Key == k.Key })
		if same >= 0 {
			return fmt.Errorf("upstream %s: %w", u.Name, sameKey(same, i))
		}
	}
	return nil
}

// sameKey speaks of keys by their place.
func sameKey(first, second int) error {
	return fmt.Errorf("api_key %d is the same as api_key %d; give each key once", second+1, first+1)
}

func (u *Upstream) checkModels() error {
	for _, rule := range u.Models {
		if err := checkGlob("model", rule.Match); err != nil {
			return fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		if rule.Model == "" || strings.ContainsAny(rule.Model, "?#% \"\\") {
			return fmt.Errorf("upstream %s: model: %q is not the name of a model", u.Name, rule.Model)
		}
	}
	return nil
}

// checkTransport refuses what cannot work behind a gateway.
func (u *Upstream) checkTransport() error {
	if gjson.GetBytes(u.TransportRaw, "proxy_protocol").String() != "" {
		return fmt.Errorf("upstream %s: transport: proxy_protocol does not fit an API; remove it", u.Name)
	}
	if gjson.GetBytes(u.TransportRaw, "protocol").String() == "gemini" {
		return fmt.Errorf("upstream %s: transport: gemini cannot be inside itself; take http, or leave the line out", u.Name)
	}
	return nil
}
