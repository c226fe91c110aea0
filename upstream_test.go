// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// expanding is an exchange of a request that knows some placeholders. It counts
// how often it is asked.
func expanding(known map[string]string) (x *exchange, asked *int) {
	repl := caddy.NewReplacer()
	for name, value := range known {
		repl.Set(name, value)
	}
	asked = new(int)
	return &exchange{expand: func(text string) string {
		*asked++
		return repl.ReplaceAll(text, "")
	}}, asked
}

func TestKeysOfACall(t *testing.T) {
	t.Setenv("GEMINI_TEST_SHARED", "shared")
	t.Setenv("GEMINI_TEST_PREFIX", "pre")
	u := &Upstream{Name: "studio", APIKeys: []APIKey{
		{Key: "{tenant_key}", Project: "{tenant}"},
		{Key: "{env.GEMINI_TEST_SHARED}", Project: "press"},
		{Key: "{env.GEMINI_TEST_PREFIX}-{tenant}", Project: "{env.GEMINI_TEST_PREFIX}"},
		{Key: "static", Project: "{tenant}"},
	}}
	keys, err := u.resolveKeys()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GEMINI_TEST_SHARED", "changed since")
	for name, c := range map[string]struct {
		known map[string]string
		want  []string // secret, project and account of each; empty: none
	}{
		"all": {
			map[string]string{"tenant_key": " a-key\n", "tenant": "acme"},
			[]string{"a-key acme acme", "shared press press", "pre-acme pre pre", "static acme acme"},
		},
		"no project": {
			map[string]string{"tenant_key": "a-key"},
			[]string{"a-key studio key-" + keyID("a-key"), "shared press press", "pre- pre pre", "static studio key-" + keyID("static")},
		},
		"no key":               {map[string]string{"tenant": "acme"}, []string{"", "shared press press", "pre-acme pre pre", "static acme acme"}},
		"one twice":            {map[string]string{"tenant_key": "shared", "tenant": "acme"}, []string{"shared acme acme", "", "pre-acme pre pre", "static acme acme"}},
		"not for a header":     {map[string]string{"tenant_key": "a\r\nb", "tenant": "a b"}, []string{"", "shared press press", "", "static a b a b"}},
		"a placeholder inside": {map[string]string{"tenant_key": "{env.GEMINI_TEST_SHARED}", "tenant": "x"}, []string{"", "shared press press", "pre-x pre pre", "static x x"}},
	} {
		t.Run(name, func(t *testing.T) {
			x, asked := expanding(c.known)
			up := &upstream{name: "studio", keys: keys}
			var got []string
			for _, k := range x.keysOf(up) {
				if k == nil {
					got = append(got, "")
					continue
				}
				got = append(got, k.secret+" "+k.project+" "+k.account)
				if k.id != keyID(k.secret) {
					t.Errorf("%s is known as %s", k.secret, k.id)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("keys %q\nwant %q", got, c.want)
			}
			before := *asked
			if again := x.keysOf(up); &again[0] != &x.keysOf(up)[0] || *asked != before {
				t.Error("the keys of one call are made more than once")
			}
		})
	}
}

func TestKeysForAllCallsCostNothing(t *testing.T) {
	x, asked := expanding(nil)
	u := &upstream{keys: []*apiKey{keyOf("a"), keyOf("b")}}
	if allocs := testing.AllocsPerRun(100, func() { x.keysOf(u) }); allocs > 0 || *asked > 0 || &x.keysOf(u)[0] != &u.keys[0] {
		t.Errorf("%v allocations, %d placeholders", allocs, *asked)
	}
}

func TestProjectName(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		" \t\r\n":                 "",
		" acme ":                  "acme",
		"a\nb\x00c\u2028d":        "abcd",
		"日本 1":                    "日本 1",
		"\xff":                    "\ufffd",
		strings.Repeat("é", 65):   strings.Repeat("é", 64),
		strings.Repeat(" ", 1000): "",
	} {
		if got := projectName(text); got != want {
			t.Errorf("%q is called %q, want %q", text, got, want)
		}
	}
}

// A call is made with the keys that it has, in turn; with none of them it is not
// made at all.
func TestCallsGoWithTheKeysTheyHave(t *testing.T) {
	keys, err := (&Upstream{Name: "a", APIKeys: []APIKey{{Key: "{tenant_key}", Project: "{tenant}"}, {Key: "{second_key}"}}}).resolveKeys()
	if err != nil {
		t.Fatal(err)
	}
	j := newJourney(t, Options{}, &upstream{name: "a", keys: keys})
	for _, c := range []struct {
		known map[string]string
		want  []string
	}{
		{map[string]string{"tenant_key": "t1", "tenant": "one"}, []string{"a@0s t1"}},
		{map[string]string{"tenant_key": "t2", "tenant": "two", "second_key": "s"}, []string{"a@0s s"}},
		{map[string]string{"tenant_key": "t2", "tenant": "two", "second_key": "s"}, []string{"a@0s t2"}},
		{map[string]string{"second_key": "s"}, []string{"a@0s s"}},
		{map[string]string{"second_key": "\x7f"}, nil},
		{nil, nil},
	} {
		status, answer, x := j.call(prompt, func(r *http.Request) {
			repl := caddy.NewReplacer()
			for name, value := range c.known {
				repl.Set(name, value)
			}
			*r = *r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl))
		})
		j.went(t, c.want...)
		if c.want == nil && (status < 500 || x.attempts > 0) {
			t.Errorf("%v: status %d after %d attempts: %s", c.known, status, x.attempts, answer)
		}
	}
}
