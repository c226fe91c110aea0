// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Alias is another name for a model.
type Alias struct {
	// What clients may write. It is compared as it is: no pattern.
	Name string `json:"name"`

	// The model that it stands for, by Google's name.
	Model string `json:"model"`
}

// defaultAliases are the names under which Google's image models are known to
// everybody (blog.google).
var defaultAliases = []Alias{
	{"nano-banana", "gemini-2.5-flash-image"},
	{"nano-banana-2", "gemini-3.1-flash-image"},
	{"nano-banana-pro", "gemini-3-pro-image"},
}

// aliases are those of the configuration and, beneath them, the default ones.
func (o *Options) aliases() map[string]string {
	names := make(map[string]string)
	for _, a := range slices.Concat(defaultAliases, o.Aliases) {
		names[a.Name] = a.Model
	}
	return names
}

func (o *Options) checkAliases() error {
	seen := make(map[string]bool)
	for _, a := range o.Aliases {
		if !isModelName(a.Name) || !isModelName(a.Model) {
			return fmt.Errorf("alias: %q and %q are not the names of models", a.Name, a.Model)
		}
		if seen[a.Name] {
			return fmt.Errorf("alias %s is given twice", a.Name)
		}
		seen[a.Name] = true
	}
	return nil
}

func isModelName(name string) bool { return name != "" && !strings.ContainsAny(name, "/:?#% \"\\") }

func parseAlias(o *Options, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("expected alias <name> <model>")
	}
	o.Aliases = append(o.Aliases, Alias{Name: args[0], Model: args[1]})
	return wrap(d, o.checkAliases())
}

// parseValue reads an option that cannot be empty.
func parseValue(d *caddyfile.Dispenser, value *string, syntax string) error {
	option := d.Val()
	if err := parseArg(d, value, syntax); err != nil {
		return err
	}
	if *value == "" {
		return d.Errf("%s is empty; give a value, or take the line away", option)
	}
	return nil
}

// The endpoints by which an upstream that speaks OpenAI's API makes images.
const (
	imagesByImages = "images"
	imagesByChat   = "chat"
)

func parseFormat(u *Upstream, d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.Err("expected format gemini|vertex|openai, or format openai images|chat")
	}
	u.Format = args[0]
	if len(args) == 2 {
		u.ImagesBy = args[1]
	}
	return wrap(d, u.checkFormat())
}

// checkFormat does not ask whether what belongs to Vertex AI fits the format, which
// may stand on a later line; see checkBlock.
func (u *Upstream) checkFormat() error {
	if err := oneOf("format", cmp.Or(u.Format, "gemini"), slices.Sorted(maps.Keys(formats))...); err != nil {
		return fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	if u.ImagesBy == "" {
		return nil
	}
	if formats[u.Format] != formatOpenAI {
		return fmt.Errorf("upstream %s: format: only openai has two endpoints for images; take %q away", u.Name, u.ImagesBy)
	}
	return oneOf("upstream "+u.Name+": format openai", u.ImagesBy, imagesByImages, imagesByChat)
}

// partOfPath is what can be a project or a location in a path of Vertex AI.
var partOfPath = regexp.MustCompile(`^[A-Za-z0-9.:_-]{1,100}$`)

// checkBlock wants the whole block.
func (u *Upstream) checkBlock() error {
	for _, rule := range u.Models {
		if formats[u.Format] != formatOpenAI && strings.ContainsAny(rule.Model, "/:") { // it goes into a path
			return fmt.Errorf("upstream %s: model: %q is not the name of a model; names with a slash or colon are for format openai", u.Name, rule.Model)
		}
	}
	return u.checkVertex()
}

// checkVertex keeps what belongs to Vertex AI to itself.
func (u *Upstream) checkVertex() error {
	isVertex := formats[u.Format] == formatVertex
	for _, option := range []struct{ name, value string }{{"project", u.Project}, {"location", u.Location}, {"credentials", u.Credentials}} {
		switch {
		case option.value == "":
		case !isVertex:
			return fmt.Errorf("upstream %s: %s belongs to Vertex AI; add format vertex, or take the line away", u.Name, option.name)
		case option.name != "credentials" && !partOfPath.MatchString(option.value):
			return fmt.Errorf("upstream %s: %s: %q cannot be part of a path", u.Name, option.name, option.value)
		}
	}
	if u.Credentials != "" && len(u.APIKeys) > 0 {
		return fmt.Errorf("upstream %s: credentials and api_key exclude each other; keep one", u.Name)
	}
	if u.Credentials != "" && setsCredential(u.HeaderUp) {
		return fmt.Errorf("upstream %s: credentials and a header with a key exclude each other; keep one", u.Name)
	}
	if u.Location != "" && u.Project == "" && u.Credentials == "" {
		return fmt.Errorf("upstream %s: location needs a project; add one, or credentials that name one", u.Name)
	}
	return nil
}

// guessFormat is for upstreams whose format is not given. The hosts of Google's are
// known; any other is what its clients think it is, unless the configuration tells
// formats apart.
func (u *upstream) guessFormat(isTold bool) {
	host := ""
	if u.base != nil {
		host = u.base.Hostname()
	}
	switch {
	case strings.HasSuffix(host, "aiplatform.googleapis.com"), vertexRegion.MatchString(host):
		u.format = formatVertex
	case host != "generativelanguage.googleapis.com" && !isTold:
		u.takesVertex = true
	}
}

// vertexRegion are the hosts of Vertex AI's multi-regions (wire §1).
var vertexRegion = regexp.MustCompile(`^aiplatform\.[a-z]+\.rep\.googleapis\.com$`)

// findCredential looks for Google's credentials, where Vertex AI needs any.
func (u *Upstream) findCredential(ctx caddy.Context, up *upstream) (err error) {
	isOurs := u.Credentials != "" || u.Project != "" && len(u.APIKeys) == 0 && !up.hasCredential
	if !isOurs {
		return nil
	}
	file := caddy.NewReplacer().ReplaceAll(u.Credentials, "")
	if file == "" && u.Credentials != "" {
		return errors.New("credentials: the variable or file that it names is empty")
	}
	if up.credential, err = newCredential(ctx, file, ctx.Logger()); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	if up.project = cmp.Or(up.project, up.credential.project()); up.project == "" {
		return errors.New("project: give one, because the credentials name none")
	}
	return nil
}
