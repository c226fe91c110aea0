// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("gemini", parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder("gemini", httpcaddyfile.Before, "reverse_proxy")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the gateway from Caddyfile tokens. Syntax:
//
//	gemini [<matcher>] {
//		safety_settings     [<category>] <threshold>
//		response_modalities <modality>...
//		image_models        <glob>...
//		inject              off|missing
//		alias               <name> <model>
//
//		block_status        <code>|pass
//		no_image            auto|error|pass
//
//		rate_limit <model glob> {
//			rpm   <n>
//			tpm   <n>
//			rpd   <n>
//			ipm   <n>
//			burst <n>
//			queue <duration>
//			key   <text>
//		}
//		pause_on_block_rate
//
//		retry off
//		retry {
//			attempts <n>
//			backoff  <initial> <max>
//			jitter   <ratio>
//			deadline <duration>
//			budget   off|<ratio> [<min>]
//		}
//		rephrase {
//			replace <regexp> <replacement>
//			prefix  <text>...
//			suffix  <text>...
//		}
//		guard off|<duration>
//
//		max_body            <size>
//		keep_in_memory      <size>
//		hold                <size>
//		stream_commit       image|text
//
//		upstream <name> <url> {
//			format      gemini|vertex|openai [images|chat]
//			project     <id>
//			location    <name>
//			credentials <file>
//			api_key   <key> [<project>]
//			model     <glob> <model>
//			price     <model glob> <usd per image>
//			budget    <usd>
//			accept_blocked
//			probe     <duration>
//			transport <name> {
//				...
//			}
//			header_up [+|-]<field> [<value>]
//		}
//	}
//
// The transport of a reverse_proxy has the same block, and no matcher:
//
//	reverse_proxy <url> {
//		transport gemini {
//			...
//		}
//	}
//
// These can be repeated: safety_settings, once for each category; rate_limit,
// once for each glob; alias; upstream; of an upstream, api_key, model, price and
// header_up; everything in rephrase. A category is one of HARASSMENT,
// HATE_SPEECH, SEXUALLY_EXPLICIT and DANGEROUS_CONTENT, with or without
// HARM_CATEGORY_ before it; without a category the threshold is for all that
// have no line of their own. The numbers of a rate_limit can end in k for
// thousands or M for millions; it needs one of rpm, tpm, rpd and ipm.
func (o *Options) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the directive or of the transport
	name := d.Val()
	if d.NextArg() {
		return d.ArgErr()
	}
	if err := optionsGrammar.parse(d, name, o); err != nil {
		return err
	}
	o.SafetySettings = spellOut(o.SafetySettings)
	return nil
}

var optionsGrammar = grammar[Options]{
	"safety_settings": {parse: parseSafetySettings, repeats: true},
	"response_modalities": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		for _, modality := range d.RemainingArgs() {
			o.ResponseModalities = append(o.ResponseModalities, strings.ToUpper(modality))
		}
		if err := atLeastOne(d, o.ResponseModalities, "response_modalities <modality>..."); err != nil {
			return err
		}
		return wrap(d, o.checkModalities())
	}},
	"image_models": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		for _, glob := range d.RemainingArgs() {
			if err := checkGlob("image_models", glob); err != nil {
				return d.WrapErr(err)
			}
			o.ImageModels = append(o.ImageModels, glob)
		}
		return atLeastOne(d, o.ImageModels, "image_models <glob>...")
	}},
	"inject": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		return parseWord(d, &o.Inject, injectMissing, injectOff)
	}},
	"alias": {parse: parseAlias, repeats: true},
	"block_status": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		var value string
		if err := parseArg(d, &value, "block_status <code>|pass"); err != nil {
			return err
		}
		o.BlockStatus = caddyhttp.WeakString(value)
		return wrap(d, checkBlockStatus(value))
	}},
	"no_image": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		return parseWord(d, &o.NoImage, string(noImageAuto), string(noImageError), string(noImagePass))
	}},
	"rate_limit": {parse: parseRateLimit, repeats: true},
	"pause_on_block_rate": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		return parseFlag(d, &o.PauseOnBlockRate)
	}},
	"retry":    {parse: parseRetry},
	"rephrase": {parse: parseRephrase},
	"guard":    {parse: parseGuard},
	"max_body": {parse: func(o *Options, d *caddyfile.Dispenser) error { return parseSize(d, &o.MaxBody) }},
	"keep_in_memory": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		if err := parseSize(d, &o.KeepInMemory); err != nil {
			return err
		}
		return wrap(d, checkInMemory(o.KeepInMemory))
	}},
	"hold": {parse: func(o *Options, d *caddyfile.Dispenser) error { return parseSize(d, &o.Hold) }},
	"stream_commit": {parse: func(o *Options, d *caddyfile.Dispenser) error {
		return parseWord(d, &o.StreamCommit, commitImage, commitText)
	}},
	"upstream": {parse: parseUpstream, repeats: true},
}

// A grammar is what can stand in a block.
type grammar[T any] map[string]statement[T]

// statement is one line of a block. Its parser finds the dispenser at its name.
type statement[T any] struct {
	parse   func(target *T, d *caddyfile.Dispenser) error
	repeats bool
}

// parse reads the block that follows, if one does.
func (g grammar[T]) parse(d *caddyfile.Dispenser, block string, target *T) error {
	seen, before := make(map[string]bool), ""
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		s, ok := g[name]
		if name == "{" && before != "" {
			return d.Errf("%s has no block; take the braces away, and what is between them", before)
		}
		if !ok {
			return d.Errf("unrecognized option %s of %s; expected one of %s", shown(name), block, strings.Join(slices.Sorted(maps.Keys(g)), ", "))
		}
		if seen[name] && !s.repeats {
			return d.Errf("%s is given twice", name)
		}
		seen[name], before = true, name
		if err := s.parse(target, d); err != nil {
			return err
		}
	}
	return nil
}

// parseSafetySettings keeps a setting for all categories as one without a
// category until spellOut knows the others.
func parseSafetySettings(o *Options, d *caddyfile.Dispenser) error {
	var s SafetySetting
	switch args := d.RemainingArgs(); len(args) {
	case 1:
		s.Threshold = strings.ToUpper(args[0])
	case 2:
		s.Category = fullCategory(strings.ToUpper(args[0]))
		s.Threshold = strings.ToUpper(args[1])
	default:
		return d.Err("expected safety_settings [<category>] <threshold>")
	}
	if s.Category != "" {
		if err := s.checkCategory(); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := s.checkThreshold(); err != nil {
		return d.WrapErr(err)
	}
	for _, before := range o.SafetySettings {
		if before.Category == s.Category {
			return d.Errf("safety_settings %s is given twice", cmp.Or(s.Category, "for all categories"))
		}
	}
	o.SafetySettings = append(o.SafetySettings, s)
	return nil
}

// spellOut replaces the setting for all categories, if there is one, by one for
// each category that has none of its own.
func spellOut(given []SafetySetting) []SafetySetting {
	var spelled []SafetySetting
	for _, category := range configurable {
		threshold := ""
		for _, s := range given {
			if s.Category == category || s.Category == "" && threshold == "" {
				threshold = s.Threshold
			}
		}
		if threshold != "" {
			spelled = append(spelled, SafetySetting{Category: category, Threshold: threshold})
		}
	}
	return spelled
}

func parseArg(d *caddyfile.Dispenser, value *string, syntax string) error {
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("expected %s", syntax)
	}
	*value = args[0]
	return nil
}

// parseFlag reads an option that has no argument.
func parseFlag(d *caddyfile.Dispenser, flag *bool) error {
	option := d.Val()
	*flag = true
	if d.NextArg() {
		return d.Errf("expected %s alone", option)
	}
	return nil
}

func parseWord(d *caddyfile.Dispenser, value *string, allowed ...string) error {
	option := d.Val()
	if err := parseArg(d, value, option+" "+strings.Join(allowed, "|")); err != nil {
		return err
	}
	return wrap(d, oneOf(option, *value, allowed...))
}

// parseNumberArg reads the only argument of an option as a number.
func parseNumberArg[T int | float64](d *caddyfile.Dispenser, number *T, low, high T, syntax string) error {
	option := d.Val()
	var value string
	err := parseArg(d, &value, syntax)
	if err != nil {
		return err
	}
	*number, err = parseNumber(option, value, low, high)
	return wrap(d, err)
}

// parseDurationArg reads the only argument of an option as a duration.
func parseDurationArg(d *caddyfile.Dispenser, duration *caddy.Duration) error {
	option := d.Val()
	var value string
	if err := parseArg(d, &value, option+" <duration>"); err != nil {
		return err
	}
	return parseDuration(d, duration, option, value)
}

// parseDuration reads a duration such as 30s or 1d, above zero.
func parseDuration(d *caddyfile.Dispenser, duration *caddy.Duration, option, text string) error {
	parsed, err := caddy.ParseDuration(text)
	if err != nil {
		return d.Errf("%s: %q is not a duration such as 30s or 1d", option, text)
	}
	*duration = caddy.Duration(parsed)
	return wrap(d, checkAboveZero(option, *duration))
}

// parseSize reads a size such as 128MiB.
func parseSize(d *caddyfile.Dispenser, size *int64) error {
	option := d.Val()
	var value string
	if err := parseArg(d, &value, option+" <size>"); err != nil {
		return err
	}
	n, err := humanize.ParseBytes(value)
	if err != nil || n == 0 || n > 1<<62 {
		return d.Errf("%s: %s is not a size such as 128MiB", option, strconv.Quote(value))
	}
	*size = int64(n)
	return nil
}

func atLeastOne(d *caddyfile.Dispenser, values []string, syntax string) error {
	if len(values) == 0 {
		return d.Errf("expected %s", syntax)
	}
	return nil
}

// wrap adds file and line to an error, if there is one.
func wrap(d *caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.WrapErr(err)
}
