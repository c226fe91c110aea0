// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2/caddyconfig"
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

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	gemini [<matcher>] {
//		safety_settings     [<category>] <threshold>
//		response_modalities <modality>...
//		image_models        <glob>...
//		inject              off|missing
//
//		block_status        <code>|pass
//		no_image            auto|error|pass
//
//		max_body            <size>
//		hold                <size>
//		stream_commit       image|text
//
//		upstream <name> <url> {
//			api_key   <key> [<project>]
//			model     <glob> <model>
//			transport <name> {
//				...
//			}
//		}
//	}
//
// safety_settings can be repeated, once for each category. A category is one of
// HARASSMENT, HATE_SPEECH, SEXUALLY_EXPLICIT and DANGEROUS_CONTENT, with or
// without HARM_CATEGORY_ before it; without a category the threshold is for all
// that have no line of their own.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		parse, ok := handlerOptions[option]
		if !ok {
			return d.Errf("unrecognized option %q; expected one of %s", option, strings.Join(slices.Sorted(maps.Keys(handlerOptions)), ", "))
		}
		if seen[option] && option != "safety_settings" && option != "upstream" {
			return d.Errf("%s is given twice", option)
		}
		seen[option] = true
		if err := parse(h, d); err != nil {
			return err
		}
	}
	h.SafetySettings = spellOut(h.SafetySettings)
	return nil
}

// handlerOptions are the options of the directive. Each parser finds the
// dispenser at the option's name.
var handlerOptions = map[string]func(h *Handler, d *caddyfile.Dispenser) error{
	"safety_settings": parseSafetySettings,
	"response_modalities": func(h *Handler, d *caddyfile.Dispenser) error {
		for _, modality := range d.RemainingArgs() {
			modality = strings.ToUpper(modality)
			if err := oneOf("response_modalities", modality, modalities...); err != nil {
				return d.WrapErr(err)
			}
			h.ResponseModalities = append(h.ResponseModalities, modality)
		}
		return atLeastOne(d, h.ResponseModalities, "response_modalities <modality>...")
	},
	"image_models": func(h *Handler, d *caddyfile.Dispenser) error {
		for _, glob := range d.RemainingArgs() {
			if err := checkGlob("image_models", glob); err != nil {
				return d.WrapErr(err)
			}
			h.ImageModels = append(h.ImageModels, glob)
		}
		return atLeastOne(d, h.ImageModels, "image_models <glob>...")
	},
	"inject": func(h *Handler, d *caddyfile.Dispenser) error {
		return parseWord(d, &h.Inject, injectMissing, injectOff)
	},
	"block_status": func(h *Handler, d *caddyfile.Dispenser) error {
		var value string
		if err := parseArg(d, &value, "block_status <code>|pass"); err != nil {
			return err
		}
		h.BlockStatus = caddyhttp.WeakString(value)
		return wrap(d, checkBlockStatus(value))
	},
	"no_image": func(h *Handler, d *caddyfile.Dispenser) error {
		return parseWord(d, &h.NoImage, string(noImageAuto), string(noImageError), string(noImagePass))
	},
	"max_body": func(h *Handler, d *caddyfile.Dispenser) error { return parseSize(d, &h.MaxBody) },
	"hold":     func(h *Handler, d *caddyfile.Dispenser) error { return parseSize(d, &h.Hold) },
	"stream_commit": func(h *Handler, d *caddyfile.Dispenser) error {
		return parseWord(d, &h.StreamCommit, commitImage, commitText)
	},
	"upstream": func(h *Handler, d *caddyfile.Dispenser) error {
		if len(h.Upstreams) > 0 {
			return d.Errf("one upstream can be configured, and there is %q already", h.Upstreams[0].Name)
		}
		var u Upstream
		if err := u.unmarshalCaddyfile(d); err != nil {
			return err
		}
		h.Upstreams = append(h.Upstreams, u)
		return nil
	},
}

// parseSafetySettings keeps a setting for all categories as one without a
// category until spellOut knows the others.
func parseSafetySettings(h *Handler, d *caddyfile.Dispenser) error {
	var s SafetySetting
	switch args := d.RemainingArgs(); len(args) {
	case 1:
		s.Threshold = strings.ToUpper(args[0])
	case 2:
		s.Category = harmPrefix + strings.TrimPrefix(strings.ToUpper(args[0]), harmPrefix)
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
	for _, before := range h.SafetySettings {
		if before.Category == s.Category {
			return d.Errf("safety_settings %s is given twice", cmp.Or(s.Category, "for all categories"))
		}
	}
	h.SafetySettings = append(h.SafetySettings, s)
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

// unmarshalCaddyfile sets up an upstream from its block.
func (u *Upstream) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if args := d.RemainingArgs(); len(args) == 2 {
		u.Name, u.URL = args[0], args[1]
	} else {
		return d.Err("expected upstream <name> <url>")
	}
	if err := u.check(); err != nil {
		return d.WrapErr(err)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		var err error
		switch args := d.RemainingArgs(); {
		case option == "api_key" && (len(args) == 1 || len(args) == 2):
			u.APIKeys = append(u.APIKeys, APIKey{Key: args[0]})
			if len(args) == 2 {
				u.APIKeys[len(u.APIKeys)-1].Project = args[1]
			}
		case option == "api_key":
			err = d.Err("expected api_key <key> [<project>]")
		case option == "model" && len(args) == 2:
			u.Models = append(u.Models, ModelRule{Match: args[0], Model: args[1]})
		case option == "model":
			err = d.Err("expected model <glob> <model>")
		case option == "transport" && len(args) == 1 && u.TransportRaw == nil:
			err = u.unmarshalTransport(d, args[0])
		case option == "transport":
			err = d.Err("expected one transport <name> { ... }")
		default:
			err = d.Errf("unrecognized option %q of an upstream; expected one of api_key, model, transport", option)
		}
		if err == nil {
			err = wrap(d, u.check())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *Upstream) unmarshalTransport(d *caddyfile.Dispenser, name string) error {
	module := "http.reverse_proxy.transport." + name
	unmarshaler, err := caddyfile.UnmarshalModule(d, module)
	if err != nil {
		return err
	}
	var warnings []caddyconfig.Warning
	u.TransportRaw = caddyconfig.JSONModuleObject(unmarshaler, "protocol", name, &warnings)
	if len(warnings) > 0 {
		return d.Errf("transport %s: %s", name, warnings[0].Message)
	}
	return nil
}

func parseArg(d *caddyfile.Dispenser, value *string, syntax string) error {
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("expected %s", syntax)
	}
	*value = args[0]
	return nil
}

func parseWord(d *caddyfile.Dispenser, value *string, allowed ...string) error {
	option := d.Val()
	if err := parseArg(d, value, option+" "+strings.Join(allowed, "|")); err != nil {
		return err
	}
	return wrap(d, oneOf(option, *value, allowed...))
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

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
