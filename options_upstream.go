// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// Upstream is a place that answers calls.
type Upstream struct {
	// What it is called in logs, metrics and headers: up to 64 letters, digits,
	// dashes and underscores.
	Name string `json:"name"`

	// Its base URL, http or https; a path is put before the path of every
	// call.
	URL string `json:"url"`

	// What it speaks: `gemini`, the Gemini API; `vertex`, Vertex AI; or `openai`,
	// the API of OpenAI and of most aggregators. Calls in another form are
	// translated, and the answers back; calls that cannot be said in its form are
	// not sent here. Default: `gemini`.
	Format string `json:"format,omitempty"`

	// By which endpoint an `openai` upstream makes images: `images`, for
	// /v1/images/generations and /v1/images/edits, or `chat`, for
	// /v1/chat/completions with image output. Default: `images`.
	ImagesBy string `json:"images_by,omitempty"`

	// The Google Cloud project that calls to a `vertex` upstream belong to.
	// Default: that of the credentials. Without either, calls go to the paths of
	// express mode, with an API key, and calls in Vertex AI's own form stay with
	// the project that they name.
	Project string `json:"project,omitempty"`

	// The location of a `vertex` upstream, such as europe-west4. Its URL has to
	// fit. Default: `global`.
	Location string `json:"location,omitempty"`

	// The file with the credentials for a `vertex` upstream: of a service account,
	// of a workload identity federation, or of a user. Placeholders are resolved when the
	// configuration is loaded. Default: if there is a project and neither a key nor
	// an Authorization among the headers, what Google's libraries find in the
	// environment (application default credentials).
	Credentials string `json:"credentials,omitempty"`

	// The keys to use instead of the client's own, in turn. Default: none, and
	// the client's own key is passed on.
	APIKeys []APIKey `json:"api_keys,omitempty"`

	// What to ask for instead of the models that clients name. The first rule
	// that matches applies. Default: the model that the client names.
	Models []ModelRule `json:"models,omitempty"`

	// Whether prompts may be sent here that were softly blocked elsewhere.
	// Default: false. Hard blocks are final, whatever is set here.
	AcceptBlocked bool `json:"accept_blocked,omitempty"`

	// How long to wait between two calls that try whether an upstream has
	// recovered, above zero. Default: 5 minutes.
	Probe caddy.Duration `json:"probe,omitempty"`

	// What an image costs here, in USD, by model. The first rule that matches
	// applies. Default: Google's list prices for tokens, where they are known.
	Prices []Price `json:"prices,omitempty"`

	// How much may be spent here in a day, in USD, from midnight to midnight
	// Pacific time; calls go to other upstreams then, or are refused. What counts
	// is the cost of answers so far, so that calls under way may exceed it.
	// Upstreams of one name share what they have spent, in all sites. Above 0, up
	// to 1,000,000,000. Default: no budget.
	Budget float64 `json:"budget,omitempty"`

	// How to connect to it. Default: Caddy's `http` transport.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	// What to change in the headers of requests before they are sent here.
	// Values can have placeholders. For keys there is `api_keys`: keys in
	// headers know no pool, and show in the configuration. Default: none.
	HeaderUp *headers.HeaderOps `json:"header_up,omitempty"`

	// proxied stands for the address of the reverse_proxy that the gateway is
	// the transport of.
	proxied bool
}

// APIKey is a key for an upstream.
type APIKey struct {
	// The key. Write it as `{env.NAME}` or `{file./path}`, so that it stays out
	// of the configuration that Caddy shows and saves. Global placeholders are
	// resolved once, when the configuration is loaded; those of a request, such
	// as one that a `map` sets, for every call. A call whose request leaves the
	// key empty goes without it: to another key or upstream, or nowhere, and
	// never with the client's own.
	Key string `json:"key"`

	// The name of the project that the key belongs to. Google's limits are
	// those of projects: keys of one project wait together. Placeholders are
	// resolved as in the key; 64 printable characters count. Default: the name
	// of the upstream.
	Project string `json:"project,omitempty"`
}

// ModelRule replaces a model by another.
type ModelRule struct {
	// The models it applies to, as a shell pattern.
	Match string `json:"match"`

	// What to ask for instead.
	Model string `json:"model"`
}

// Price is what the images of some models cost.
type Price struct {
	// The models it applies to, as a shell pattern, by the name that the upstream
	// is asked for.
	Match string `json:"match"`

	// The price of one image in USD, 0 to 1,000, whether or not it could be
	// delivered. Tokens cost nothing apart from it, and an answer without images
	// nothing at all.
	USDPerImage float64 `json:"usd_per_image"`
}

// provision resolves the keys and loads the transport. It makes no connection.
func (u *Upstream) provision(ctx caddy.Context) (*upstream, error) {
	up := &upstream{
		name:          u.Name,
		models:        u.Models,
		acceptBlocked: u.AcceptBlocked,
		probe:         time.Duration(u.Probe),
		prices:        u.Prices,
		budget:        u.Budget,
		headers:       u.HeaderUp,
		hasCredential: setsCredential(u.HeaderUp),
		format:        formats[u.Format],
		imagesByChat:  u.ImagesBy == imagesByChat,
		project:       u.Project,
		location:      cmp.Or(u.Location, "global"),
	}
	var err error
	if !u.proxied {
		if up.base, err = url.Parse(u.URL); err != nil {
			return nil, err
		}
	}
	if up.keys, err = u.resolveKeys(); err != nil {
		return nil, err
	}
	if err = up.headers.Provision(ctx); err != nil {
		return nil, fmt.Errorf("header_up: %w", err)
	}
	if err = u.loadTransport(ctx, up); err != nil {
		return nil, err
	}
	return up, u.findCredential(ctx, up)
}

// resolveKeys looks up the keys, as far as that can be done for all calls. No
// error has a key in it.
func (u *Upstream) resolveKeys() ([]*apiKey, error) {
	var keys []*apiKey
	unnamed := "" // the account of keys whose project has no name: one, as far as anybody knows
	for i, given := range u.APIKeys {
		secret, isOpen := resolve(given.Key)
		project, splits := resolve(given.Project)
		if isOpen {
			keys = append(keys, &apiKey{pattern: &APIKey{Key: secret, Project: project}})
			continue
		}
		secret = strings.TrimSpace(secret)
		if secret == "" {
			return nil, fmt.Errorf("api_key %d is empty: is the variable or file that it names there?", i+1)
		}
		if !fitsHeader(secret) {
			return nil, fmt.Errorf("api_key %d has characters that cannot be in a header", i+1)
		}
		same := slices.IndexFunc(keys, func(before *apiKey) bool { return before.secret == secret })
		if same >= 0 {
			return nil, sameKey(same, i)
		}
		name := projectName(project)
		key := newAPIKey(secret, name, u.Name)
		switch {
		case splits:
			key.pattern = &APIKey{Key: secret, Project: project}
		case name == "":
			unnamed = cmp.Or(unnamed, key.account)
			key.account = unnamed
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// resolve replaces the placeholders that are known when the configuration is
// loaded. It is open if there are others, which only a request can know.
func resolve(text string) (resolved string, isOpen bool) {
	global := caddy.NewReplacer()
	resolved = global.ReplaceKnown(text, "")
	return resolved, strings.Contains(resolved, "{") && resolved != global.ReplaceAll(text, "")
}

// setsCredential tells whether the operator proves with a header who is calling.
func setsCredential(ops *headers.HeaderOps) bool {
	if ops == nil {
		return false
	}
	for _, given := range []http.Header{ops.Set, ops.Add} {
		for name := range given {
			if strings.EqualFold(name, "Authorization") || strings.EqualFold(name, apiKeyHeader) {
				return true
			}
		}
	}
	return false
}

// maxAnswerHeader is how much of an answer's header is read, in bytes, where the
// transport does not say it. Google's take two kilobytes, and many clients no more
// than 64. Go's own bound is 10 MiB, which as fields of a few bytes each are
// hundreds of megabytes of memory.
const maxAnswerHeader = 64 << 10

// loadTransport sets up the way to the upstream. The transport's life is left to Caddy:
// it closes idle connections when the configuration is unloaded.
func (u *Upstream) loadTransport(ctx caddy.Context, up *upstream) error {
	config, err := u.transportJSON(up.base)
	if err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	u.TransportRaw = config
	module, err := ctx.LoadModule(u, "TransportRaw")
	if err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	up.transport = module.(http.RoundTripper)
	own, isCaddys := module.(*reverseproxy.HTTPTransport)
	if !isCaddys {
		return nil
	}
	if own.MaxResponseHeaderSize == 0 {
		own.Transport.MaxResponseHeaderBytes = maxAnswerHeader
	}
	if up.base != nil { // else its connections are those of the reverse_proxy
		up.direct = newDirect(own, config, up.base.Scheme == "https")
	}
	return nil
}

// transportJSON configures the transport: Caddy's own, if there is no other. Images
// come through HTTP/1.1 in half the time and memory that they take in HTTP/2, which
// an upstream gets only if versions asks for it (bench/README.md, image-6M-tls).
func (u *Upstream) transportJSON(base *url.URL) (json.RawMessage, error) {
	config := map[string]json.RawMessage{"protocol": json.RawMessage(`"http"`)}
	if u.TransportRaw != nil {
		config = nil
		if err := json.Unmarshal(u.TransportRaw, &config); err != nil {
			return nil, err
		}
	}
	_, isTold := config["versions"]
	if string(config["protocol"]) == `"http"` && !isTold && base != nil && base.Scheme == "https" {
		config["versions"] = json.RawMessage(`["1.1"]`)
	}
	return json.Marshal(config)
}
