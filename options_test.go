// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func TestDefaultsAreInRange(t *testing.T) {
	o := new(Options)
	o.setDefaults()
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	r := o.Retry
	if r.Attempts != 5 || r.Backoff != (Backoff{Initial: caddy.Duration(time.Second), Max: caddy.Duration(30 * time.Second)}) ||
		*r.Jitter != 0.2 || time.Duration(r.Deadline) != 3*time.Minute || *r.Budget.Ratio != 1 || *r.Budget.Min != 10 || r.Budget.Disabled {
		t.Errorf("retry %+v", r)
	}
	if time.Duration(*o.Guard) != 24*time.Hour {
		t.Errorf("guard %v", time.Duration(*o.Guard))
	}
	if u := o.Upstreams[0]; u.Name != "google" || time.Duration(u.Probe) != 5*time.Minute {
		t.Errorf("upstream %+v", u)
	}
	if o.rephrasing() != nil {
		t.Error("prompts are rephrased, though nobody asked for it")
	}
}

// What can be switched off with a zero is not taken for what is not set.
func TestZerosStay(t *testing.T) {
	o := &Options{
		Guard: new(caddy.Duration),
		Retry: &Retry{Jitter: new(float64), Budget: Budget{Ratio: new(float64), Min: new(int)}},
	}
	o.setDefaults()
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	if *o.Guard != 0 || *o.Retry.Jitter != 0 || *o.Retry.Budget.Ratio != 0 || *o.Retry.Budget.Min != 0 {
		t.Errorf("guard %v, retry %+v", *o.Guard, o.Retry)
	}
}

// JSON knows a category by its short name as well, as the Caddyfile does, and errors
// recommend.
func TestShortNamesOfCategories(t *testing.T) {
	for _, category := range []string{"HARASSMENT", "HARM_CATEGORY_HARASSMENT"} {
		o := &Options{SafetySettings: []SafetySetting{{Category: category, Threshold: "OFF"}}}
		o.setDefaults()
		if err := o.check(); err != nil {
			t.Errorf("%s: %v", category, err)
		}
		want := []SafetySetting{
			{"HARM_CATEGORY_HARASSMENT", "OFF"},
			{"HARM_CATEGORY_HATE_SPEECH", "BLOCK_NONE"},
			{"HARM_CATEGORY_SEXUALLY_EXPLICIT", "BLOCK_NONE"},
			{"HARM_CATEGORY_DANGEROUS_CONTENT", "BLOCK_NONE"},
		}
		if !slices.Equal(o.settings, want) {
			t.Errorf("%s: %v is sent", category, o.settings)
		}
	}
	o := &Options{SafetySettings: []SafetySetting{{Category: "harassment", Threshold: "OFF"}}}
	o.setDefaults()
	if err := o.check(); err == nil {
		t.Error("a name in small letters, which Google does not know, is accepted")
	}
}

func TestLongFirstWaitNeedsNoSecondValue(t *testing.T) {
	o := &Options{Retry: &Retry{Backoff: Backoff{Initial: caddy.Duration(time.Minute)}}}
	o.setDefaults()
	if err := o.check(); err != nil || o.Retry.Backoff.Max != o.Retry.Backoff.Initial {
		t.Errorf("backoff %+v, %v", o.Retry.Backoff, err)
	}
}

func TestCheckNumber(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{{"0", true}, {"0.2", true}, {"1", true}, {"1.01", false}, {"-0.1", false}, {"NaN", false}, {"Inf", false}, {"", false}, {"20%", false}} {
		n, err := parseNumber("jitter", c.text, 0, 1.0)
		if (err == nil) != c.ok || err == nil && checkNumber("jitter", n, 0, 1) != nil {
			t.Errorf("%q: %v, %v", c.text, n, err)
		}
	}
	for _, c := range []struct {
		text string
		ok   bool
	}{{"1", true}, {"20", true}, {"0", false}, {"21", false}, {"2.5", false}, {"1e300", false}, {"-1", false}} {
		if n, err := parseNumber("attempts", c.text, 1, maxAttempts); (err == nil) != c.ok {
			t.Errorf("%q: %v, %v", c.text, n, err)
		}
	}
	if checkNumber("jitter", math.NaN(), 0, 1) == nil {
		t.Error("NaN is no ratio")
	}
}

func TestReplacementNamesOnlyGroupsThatExist(t *testing.T) {
	for _, c := range []struct {
		pattern, with string
		missing       string // empty: none
	}{
		{`photo`, `drawing`, ""},
		{`photo`, ``, ""},
		{`photo`, `$0 drawing`, ""},
		{`(\w+) photo`, `$1 drawing`, ""},
		{`(\w+) photo`, `${1}st`, ""},
		{`(\w+) photo`, `$1st`, "1st"},
		{`(\w+) photo`, `$2`, "2"},
		{`(\w+) photo`, `$01`, "01"}, // no number to regexp, but a name
		{`(?P<what>\w+) photo`, `${what}, drawn`, ""},
		{`(?P<what>\w+) photo`, `$what, drawn`, ""},
		{`(?P<what>\w+) photo`, `$whatever`, "whatever"},
		{`(\w+) photo`, `$1er été $été`, "1er"},
		{`photo`, `$été`, "été"},
		{`price`, `$$5`, ""},
		{`price`, `$$$5`, "5"},
		{`price`, `5 $`, ""},
		{`price`, `${`, ""},
		{`price`, `${a b}`, ""}, // regexp leaves it as it is
	} {
		err := Replacement{Pattern: c.pattern, With: c.with}.check()
		if c.missing == "" && err != nil || c.missing != "" && (err == nil || !strings.Contains(err.Error(), `has no group "`+c.missing+`"`)) {
			t.Errorf("%q to %q: %v, missing %q", c.pattern, c.with, err, c.missing)
		}
	}
}

func TestRephrasingHasWhatIsConfigured(t *testing.T) {
	o := &Options{Rephrase: &Rephrase{
		Replacements: []Replacement{{Pattern: "photo", With: "drawing"}},
		Prefixes:     []string{"a", "b"},
		Suffixes:     []string{"c"},
	}}
	r := o.rephrasing()
	if !slices.Equal(r.prefixes, []string{"a", "b"}) || !slices.Equal(r.suffixes, []string{"c"}) || len(r.replace) != 1 {
		t.Fatalf("%+v", r)
	}
	if got := r.replace[0].pattern.ReplaceAllString("a photo", r.replace[0].with); got != "a drawing" {
		t.Error(got)
	}
}

func TestUpstreamsAreProvisioned(t *testing.T) {
	t.Setenv("GEMINI_TEST_KEY", " secret-1\n")
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	o := &Options{Upstreams: []Upstream{{
		Name:          "studio",
		URL:           "https://example.com/prefix",
		APIKeys:       []APIKey{{Key: "{env.GEMINI_TEST_KEY}", Project: "press"}, {Key: "secret-2"}},
		Models:        []ModelRule{{Match: "*", Model: "m"}},
		AcceptBlocked: true,
		HeaderUp:      &headers.HeaderOps{Set: http.Header{"x-title": {"app"}}},
	}}}
	o.setDefaults()
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	u, err := o.Upstreams[0].provision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if u.name != "studio" || u.base.String() != "https://example.com/prefix" || len(u.models) != 1 || !u.acceptBlocked || u.probe != 5*time.Minute {
		t.Errorf("%+v", u)
	}
	if _, ok := u.transport.(*reverseproxy.HTTPTransport); !ok {
		t.Errorf("transport %T", u.transport)
	}
	if u.headers.Set.Get("X-Title") != "app" {
		t.Error("the header operations are not provisioned")
	}
	first, second := u.keys[0], u.keys[1]
	if first.secret != "secret-1" || first.project != "press" || second.secret != "secret-2" || second.project != "studio" {
		t.Errorf("keys %+v, %+v", first, second)
	}
	if len(first.id) != 12 || first.id == second.id {
		t.Errorf("keys are known as %s and %s", first.id, second.id)
	}
}

func TestErrorsHaveNoKeys(t *testing.T) {
	const secret = "AIzaSecret"
	t.Setenv("GEMINI_TEST_KEY", secret)
	for want, keys := range map[string][]APIKey{
		"api_key 2 is the same as api_key 1":  {{Key: secret}, {Key: "{env.GEMINI_TEST_KEY}"}},
		"api_key 1 has characters":            {{Key: secret + "\n" + secret}},
		"api_key 2 is empty":                  {{Key: secret}, {Key: "{env.GEMINI_TEST_UNSET}"}},
		"api_key 3 is the same as api_key 1;": {{Key: secret}, {Key: "b"}, {Key: secret, Project: "another"}},
	} {
		u := &Upstream{Name: "google", URL: defaultURL, APIKeys: keys}
		err := u.check()
		if err == nil {
			_, err = u.resolveKeys()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestTransportForTheAddressOfTheProxy(t *testing.T) {
	for _, tls := range []bool{false, true} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		defer cancel()
		door := new(Transport)
		if tls {
			if err := door.EnableTLS(new(reverseproxy.TLSConfig)); err != nil {
				t.Fatal(err)
			}
		}
		own := door.proxied()
		u, err := own.provision(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if u.base != nil || len(u.keys) > 0 || u.name != "reverse_proxy" {
			t.Errorf("%+v", u)
		}
		if got := u.transport.(*reverseproxy.HTTPTransport).TLSEnabled(); got != tls || door.TLSEnabled() != tls {
			t.Errorf("TLS %v, want %v", got, tls)
		}
		if ops := door.RequestHeaderOps(); (ops.Set.Get("Host") != "") != tls {
			t.Errorf("header operations %v", ops)
		}
		check := &url.URL{Scheme: "http"}
		if door.OverrideHealthCheckScheme(check, "443"); (check.Scheme == "https") != tls {
			t.Errorf("health checks speak %s", check.Scheme)
		}
	}
}
