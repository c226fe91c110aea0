// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Options are what the gateway can be told. Both of its doors have the same:
// the handler, and the transport for a reverse_proxy.
type Options struct {
	// What to send for the four harm categories that can be configured, where
	// the client sets nothing; their names may be short, such as HARASSMENT.
	// Default: BLOCK_NONE for each. (What Google applies to a request without
	// settings is OFF on current models.)
	SafetySettings []SafetySetting `json:"safety_settings,omitempty"`

	// What to ask image models for where the client asks for nothing: TEXT,
	// IMAGE, AUDIO. Default: TEXT and IMAGE, which is what these models do by
	// themselves. IMAGE alone makes refusals machine-readable.
	ResponseModalities []string `json:"response_modalities,omitempty"`

	// Which models make images, as shell patterns in which * matches any run
	// of characters. Default: `*-image` and `*-image-*`.
	ImageModels []string `json:"image_models,omitempty"`

	// Other names for models, for clients that know a model by its nickname only.
	// Where a pattern is for models, either name matches. Default, in addition to
	// those given: nano-banana is gemini-2.5-flash-image, nano-banana-2 is
	// gemini-3.1-flash-image, and nano-banana-pro is gemini-3-pro-image. One that
	// is given takes the place of a default of the same name.
	Aliases []Alias `json:"aliases,omitempty"`

	// Whether requests are completed: `missing` adds what is missing, `off`
	// leaves every request as it is. Default: `missing`.
	Inject string `json:"inject,omitempty"`

	// The HTTP status of an answer that a content filter has blocked, 400 to
	// 599, or `pass` to leave Google's 200 and mark it in headers, logs and
	// metrics only. Default: 400, which every official client raises at once
	// and none repeats.
	BlockStatus caddyhttp.WeakString `json:"block_status,omitempty"`

	// What to make of an answer that ended well but has no image: `error`
	// reports it as a block with the reason NO_IMAGE, `pass` lets it through,
	// `auto` reports it only to clients that asked for images alone. Default:
	// `auto`.
	NoImage string `json:"no_image,omitempty"`

	// How many calls are sent in a minute or a day, for each project and model.
	// The first block that matches a model applies. Default: no limits but those
	// that Google tells of when it refuses a call.
	RateLimits []RateLimit `json:"rate_limits,omitempty"`

	// Whether the image calls of a project are refused once content filters have
	// blocked more than 20 % of a Pacific day's calls, and at least 20 calls have
	// been judged, until an operator resets it with `POST /gemini/reset`. Google
	// suspends accounts over such rates. Default: false, only an alarm.
	PauseOnBlockRate bool `json:"pause_on_block_rate,omitempty"`

	// How calls that failed are tried again. Default: up to five attempts in
	// three minutes.
	Retry *Retry `json:"retry,omitempty"`

	// How a prompt that was softly blocked is changed before it is tried again.
	// Default: never; a block is reported. Hard blocks, such as
	// PROHIBITED_CONTENT, are final with or without it.
	Rephrase *Rephrase `json:"rephrase,omitempty"`

	// For how long a prompt that a safety or policy filter blocked is
	// remembered, and not sent to the same account again: up to 60 days, or 0
	// for not at all. Google suspends accounts for such repeats, and keeps
	// prompts for 55 days to find them. Default: 24 hours.
	Guard *caddy.Duration `json:"guard,omitempty"`

	// The largest request body, in bytes after decompression, above zero. Larger
	// ones get 413. Default: 128 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// The most of one request that is kept in memory to be sent again, in bytes,
	// from 256 KiB on. What is beyond it is kept in a temporary file. Default:
	// 16 MiB.
	KeepInMemory int64 `json:"keep_in_memory,omitempty"`

	// The most of one answer that may wait for its verdict, in bytes, above zero.
	// An answer that outgrows it is delivered. Default: 4 MiB.
	Hold int64 `json:"hold,omitempty"`

	// What lets the stream of an image model go to the client: `image`, so
	// that a block that follows some text is still an error with a status of
	// its own, or `text`. Default: `image`.
	StreamCommit string `json:"stream_commit,omitempty"`

	// Where calls are sent, in order of preference; each needs a name of its
	// own. Default for the handler: the Gemini API, with the client's own key.
	// Default for the transport: the address of the reverse_proxy around it,
	// with the client's own key.
	Upstreams []Upstream `json:"upstreams,omitempty"`

	settings []SafetySetting // one for each category
}

// Retry says how often, when and how long a call is tried. What may be tried
// again at all depends on what came back: a block is not, a bad request is not.
type Retry struct {
	// How often a call is sent in all, over all upstreams, the first time
	// included: 1 to 20. Default: 5. One attempt means that nothing is tried
	// again.
	Attempts int `json:"attempts,omitempty"`

	// How long to wait where the upstream does not say it.
	Backoff Backoff `json:"backoff,omitzero"`

	// By what share a wait is lengthened at random, so that calls that failed
	// together do not come back together: 0 to 1. Default: 0.2, which makes a
	// second last 1 to 1.2 seconds. No wait is shortened.
	Jitter *float64 `json:"jitter,omitempty"`

	// How long after its arrival a call must have its verdict, above zero: an
	// attempt without one is broken off then, and an attempt or a wait that
	// cannot end in time is not begun. It never goes past what the client allows
	// in its x-server-timeout header. Default: 3 minutes.
	Deadline caddy.Duration `json:"deadline,omitempty"`

	// How many retries all calls together may cause.
	Budget Budget `json:"budget,omitzero"`
}

// Backoff says how long to wait before the next attempt at an upstream: each
// time twice as long as before.
type Backoff struct {
	// The first wait, above zero. Default: 1 second.
	Initial caddy.Duration `json:"initial,omitempty"`

	// The longest wait, not less than the first. Default: 30 seconds, or the
	// first wait if that is longer.
	Max caddy.Duration `json:"max,omitempty"`
}

// Budget keeps retries from multiplying the load of an upstream that fails: over
// the last minute there are no more of them than a share of the calls.
type Budget struct {
	// How many retries there may be for each call: 0 to 20. Default: 1, with
	// which the failures of a bad hour can still be retried away.
	Ratio *float64 `json:"ratio,omitempty"`

	// How many retries there may be in a minute in any case, so that a quiet
	// gateway can retry as well: 0 to 10000. Default: 10.
	Min *int `json:"min,omitempty"`

	// Whether to go without a budget. Default: false.
	Disabled bool `json:"disabled,omitempty"`
}

// Rephrase changes the text of a prompt's last user turn; images, history and
// settings stay as they are. It needs at least one rule, prefix or suffix.
type Rephrase struct {
	// What to replace in the text with every rephrasing, one after the other.
	Replacements []Replacement `json:"replacements,omitempty"`

	// What to put before the text: the first with the first rephrasing, the
	// second with the next.
	Prefixes []string `json:"prefixes,omitempty"`

	// What to put behind the text, likewise.
	Suffixes []string `json:"suffixes,omitempty"`
}

// Replacement replaces all that a regular expression matches.
type Replacement struct {
	// The regular expression, in Go's syntax.
	Pattern string `json:"regexp"`

	// What to put in the place of a match; empty takes it out. $1 or ${name} is
	// what a group of the expression has matched, $$ a dollar sign.
	With string `json:"replacement,omitempty"`
}

// Defaults and limits of the configuration.
const (
	defaultName       = "google"
	defaultURL        = "https://generativelanguage.googleapis.com"
	defaultMaxBody    = 128 << 20
	defaultInMemory   = 16 << 20 // of requests with a few pictures all; 64 of them stay below 1 GiB
	defaultHold       = 4 << 20
	defaultThreshold  = "BLOCK_NONE"
	defaultAttempts   = 5
	defaultBackoff    = caddy.Duration(time.Second)
	defaultBackoffMax = caddy.Duration(30 * time.Second)
	defaultJitter     = 0.2
	defaultDeadline   = caddy.Duration(3 * time.Minute)
	defaultRatio      = 1.0
	defaultMin        = 10
	defaultGuard      = caddy.Duration(24 * time.Hour)
	defaultProbe      = caddy.Duration(5 * time.Minute)

	minInMemory = aheadSize
	maxAttempts = 20
	maxRatio    = 20.0
	maxMin      = 10_000
	maxGuard    = caddy.Duration(60 * 24 * time.Hour)
)

var (
	defaultImageModels = []string{"*-image", "*-image-*"}
	defaultModalities  = []string{"TEXT", "IMAGE"}
)

const (
	injectOff     = "off"
	injectMissing = "missing"
	blockPass     = "pass"
	commitImage   = "image"
	commitText    = "text"
)

func (o *Options) setDefaults() {
	for i := range o.SafetySettings {
		o.SafetySettings[i].Category = fullCategory(o.SafetySettings[i].Category)
	}
	o.settings = completeSettings(o.SafetySettings)
	if o.ResponseModalities == nil {
		o.ResponseModalities = defaultModalities
	}
	if o.ImageModels == nil {
		o.ImageModels = defaultImageModels
	}
	o.Inject = cmp.Or(o.Inject, injectMissing)
	o.BlockStatus = cmp.Or(o.BlockStatus, "400")
	o.NoImage = cmp.Or(o.NoImage, string(noImageAuto))
	o.Retry = cmp.Or(o.Retry, new(Retry))
	o.Retry.setDefaults()
	o.Guard = cmp.Or(o.Guard, new(defaultGuard))
	o.MaxBody = cmp.Or(o.MaxBody, defaultMaxBody)
	o.KeepInMemory = cmp.Or(o.KeepInMemory, defaultInMemory)
	o.Hold = cmp.Or(o.Hold, defaultHold)
	o.StreamCommit = cmp.Or(o.StreamCommit, commitImage)
	if len(o.Upstreams) == 0 {
		o.Upstreams = []Upstream{{Name: defaultName, URL: defaultURL}}
	}
	for i := range o.Upstreams {
		o.Upstreams[i].Probe = cmp.Or(o.Upstreams[i].Probe, defaultProbe)
	}
}

func (r *Retry) setDefaults() {
	r.Attempts = cmp.Or(r.Attempts, defaultAttempts)
	r.Backoff.Initial = cmp.Or(r.Backoff.Initial, defaultBackoff)
	r.Backoff.Max = cmp.Or(r.Backoff.Max, max(defaultBackoffMax, r.Backoff.Initial))
	r.Jitter = cmp.Or(r.Jitter, new(defaultJitter))
	r.Deadline = cmp.Or(r.Deadline, defaultDeadline)
	r.Budget.Ratio = cmp.Or(r.Budget.Ratio, new(defaultRatio))
	r.Budget.Min = cmp.Or(r.Budget.Min, new(defaultMin))
}

// provision returns nil if there is no budget to keep.
func (b *Budget) provision() *retryBudget {
	if b.Disabled {
		return nil
	}
	return newRetryBudget(*b.Ratio, *b.Min)
}

// rephrasing is what the rephraser needs, or nil if prompts stay as they are.
// The expressions have been checked.
func (o *Options) rephrasing() *rephrasing {
	if o.Rephrase == nil {
		return nil
	}
	r := &rephrasing{prefixes: o.Rephrase.Prefixes, suffixes: o.Rephrase.Suffixes}
	for _, rule := range o.Rephrase.Replacements {
		r.replace = append(r.replace, replacement{pattern: regexp.MustCompile(rule.Pattern), with: rule.With})
	}
	return r
}

// knownModels are the models that may appear in metrics by their own name:
// Google's, and those that the configuration names.
func (o *Options) knownModels() []string {
	models := slices.Clone(googleModels)
	add := func(name string) {
		if !strings.ContainsAny(name, `*?[\`) {
			models = append(models, name)
		}
	}
	for _, l := range o.RateLimits {
		add(l.Match)
	}
	for _, a := range slices.Concat(defaultAliases, o.Aliases) {
		models = append(models, a.Name, a.Model)
	}
	for _, u := range o.Upstreams {
		for _, rule := range u.Models {
			add(rule.Match)
			models = append(models, rule.Model)
		}
		for _, p := range u.Prices {
			add(p.Match)
		}
	}
	return models
}
