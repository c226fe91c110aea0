// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check refuses values that mean nothing; each error names the fix.
func (h *Handler) check() error {
	for _, s := range h.SafetySettings {
		if err := s.check(); err != nil {
			return err
		}
	}
	for _, m := range h.ResponseModalities {
		if err := oneOf("response_modalities", m, modalities...); err != nil {
			return err
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(h.ResponseModalities)))) < len(h.ResponseModalities) {
		return fmt.Errorf("response_modalities: each once, please")
	}
	for _, glob := range h.ImageModels {
		if err := checkGlob("image_models", glob); err != nil {
			return err
		}
	}
	if err := oneOf("inject", h.Inject, injectMissing, injectOff); err != nil {
		return err
	}
	if err := checkBlockStatus(h.BlockStatus.String()); err != nil {
		return err
	}
	if err := oneOf("no_image", h.NoImage, string(noImageAuto), string(noImageError), string(noImagePass)); err != nil {
		return err
	}
	if err := oneOf("stream_commit", h.StreamCommit, commitImage, commitText); err != nil {
		return err
	}
	if h.MaxBody < 0 || h.Hold < 0 {
		return fmt.Errorf("max_body and hold are sizes above zero, in bytes")
	}
	if len(h.Upstreams) > 1 {
		return fmt.Errorf("upstream %q: one upstream can be configured, and there is %q already", h.Upstreams[1].Name, h.Upstreams[0].Name)
	}
	return h.Upstreams[0].check()
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

var upstreamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (u *Upstream) check() error {
	if !upstreamName.MatchString(u.Name) {
		return fmt.Errorf("upstream: %q is not a name of letters, digits, dashes and underscores", u.Name)
	}
	base, err := url.Parse(u.URL)
	if err != nil {
		return fmt.Errorf("upstream %s: what stands behind the name is not a URL such as %s", u.Name, defaultURL)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return fmt.Errorf("upstream %s: %q is not a URL such as %s", u.Name, base.Redacted(), defaultURL)
	}
	if base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return fmt.Errorf("upstream %s: the URL can have a path, but no user, query or fragment; keys go into api_key", u.Name)
	}
	if len(u.APIKeys) > 1 {
		return fmt.Errorf("upstream %s: one api_key can be configured", u.Name)
	}
	for _, k := range u.APIKeys {
		if k.Key == "" || strings.Contains(k.Key, "{http.") {
			return fmt.Errorf("upstream %s: api_key: give a key, or where to find it when the configuration is loaded: {env.NAME} or {file./path}", u.Name)
		}
	}
	for _, rule := range u.Models {
		if err := checkGlob("model", rule.Match); err != nil {
			return err
		}
		if rule.Model == "" || strings.ContainsAny(rule.Model, "/:?#% ") {
			return fmt.Errorf("upstream %s: model: %q is not the name of a model", u.Name, rule.Model)
		}
	}
	return nil
}
