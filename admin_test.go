// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
)

// administer sends a request to the route of a path.
func administer(t *testing.T, method, uri string) (*httptest.ResponseRecorder, error) {
	t.Helper()
	r := httptest.NewRequest(method, uri, nil)
	for _, route := range new(adminAPI).Routes() {
		if route.Pattern == r.URL.Path {
			w := httptest.NewRecorder()
			return w, route.Handler.ServeHTTP(w, r)
		}
	}
	t.Fatalf("there is no route for %s", uri)
	return nil, nil
}

func TestAdminAPIIsAModule(t *testing.T) {
	module, err := caddy.GetModule("admin.api.gemini")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := module.New().(caddy.AdminRouter); !ok {
		t.Error("it has no routes")
	}
}

func TestAdminMethods(t *testing.T) {
	for _, c := range []struct{ uri, allowed string }{{"/gemini/status", http.MethodGet}, {"/gemini/reset", http.MethodPost}} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			w, err := administer(t, method, c.uri)
			if method == c.allowed {
				if err != nil || w.Header().Get("Content-Type") != "application/json" || !json.Valid(w.Body.Bytes()) {
					t.Errorf("%s %s: %v, %s", method, c.uri, err, w.Body)
				}
				continue
			}
			var refused caddy.APIError
			if !errors.As(err, &refused) || refused.HTTPStatus != http.StatusMethodNotAllowed || w.Header().Get("Allow") != c.allowed || w.Body.Len() > 0 {
				t.Errorf("%s %s: %v, Allow %q", method, c.uri, err, w.Header().Get("Allow"))
			}
		}
	}
}

// Without a gateway there are lists, not nulls.
func TestStatusOfNothing(t *testing.T) {
	empty := `{"upstreams":[],"limits":[],"today":[],"paused":[]}` + "\n"
	check := func(method, uri, want string) {
		t.Helper()
		w, err := administer(t, method, uri)
		if err != nil || w.Body.String() != want {
			t.Errorf("%s says %s, %v", uri, w.Body, err)
		}
	}
	check(http.MethodGet, "/gemini/status", empty)
	check(http.MethodPost, "/gemini/reset?project=a", `{"pauses_lifted":0}`+"\n")
	s := joined(t, newShelf())
	check(http.MethodGet, "/gemini/status", empty)
	check(http.MethodPost, "/gemini/reset", `{"pauses_lifted":0}`+"\n")
	s.release()
	check(http.MethodGet, "/gemini/status", empty)
}

// The page has what all gateways of the process share.
func TestStatusPage(t *testing.T) {
	s := joined(t, newShelf())
	defer s.release()
	now := time.Now()
	one, two := atWork(s.memories, "m", "google studio"), atWork(s.memories, "m", "vertex")
	defer s.remove(one)
	defer s.remove(two)
	one.router.upstreams[0].base = &url.URL{Scheme: "https", Host: "example.com"}
	s.ledger.book(s.calendar.day(now), drawn("studio", "gemini-3-pro-image"))
	s.blockRates.pause("studio", "studio", now)
	admitTo(t, s.memories, "studio", "m", 4, 10, now)
	w, err := administer(t, http.MethodGet, "/gemini/status")
	if err != nil {
		t.Fatal(err)
	}
	var page status
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Upstreams) != 2 || page.Upstreams[0].Name != "vertex" || page.Upstreams[1].URL != "https://example.com" || page.Upstreams[1].SpentUSD != 0.1 {
		t.Errorf("upstreams %+v", page.Upstreams)
	}
	if len(page.Limits) != 1 || page.Limits[0].Used != 4 || page.Limits[0].Value != 10 || page.Limits[0].ResetsAt == nil {
		t.Errorf("limits %+v", page.Limits)
	}
	if len(page.Today) != 1 || page.Today[0].Cost != usdOf(0.1) || len(page.Paused) != 1 || page.Paused[0].Project != "studio" {
		t.Errorf("today %+v, paused %+v", page.Today, page.Paused)
	}
	for _, field := range []string{`"cooldown_until":null`, `"cooldowns":[]`, `"alarms":[]`, `"cost_per_image_usd":0.1`} {
		if !strings.Contains(w.Body.String(), field) {
			t.Errorf("%s is missing from %s", field, w.Body)
		}
	}
}

// An upstream shows the cooldowns of the accounts under which it is called.
func TestStatusOfCooldowns(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "example.com"}
	named := newAPIKey("secret", "studio", "google")
	unnamed := newAPIKey("secret", "", "google")
	for name, c := range map[string]struct {
		upstream *upstream
		account  string
		want     bool
	}{
		"key of a project":     {&upstream{base: base, keys: []*apiKey{named}}, "studio", true},
		"key without one":      {&upstream{base: base, keys: []*apiKey{unnamed}}, unnamed.account, true},
		"key of another":       {&upstream{base: base, keys: []*apiKey{named}}, "press", false},
		"tenant's key":         {&upstream{base: base, keys: []*apiKey{{pattern: &APIKey{Key: "{key}", Project: "{tenant}"}}}}, "acme", true},
		"client's key":         {&upstream{base: base}, "client-0123456789ab@example.com", true},
		"client's elsewhere":   {&upstream{base: base}, "client-0123456789ab@example.org", false},
		"client's, not for it": {&upstream{base: base, keys: []*apiKey{named}}, "client-0123456789ab@example.com", false},
		"vertex":               {&upstream{base: base, name: "vertex", project: "my-gcp", credential: new(credential)}, "vertex-my-gcp", true},
		"header":               {&upstream{base: base, name: "vertex", hasCredential: true}, "upstream-vertex", true},
		"header of another":    {&upstream{base: base, name: "vertex", hasCredential: true}, "upstream-google", false},
		"reverse_proxy":        {&upstream{}, "client-0123456789ab@example.org", true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemories()
			c.upstream.health = newHealth()
			m.cooldowns.put(c.account+"\nsoon", cooldown{classLimited}, noon.Add(time.Minute), noon)
			m.cooldowns.put(c.account+"\nlate", cooldown{classExhausted}, noon.Add(time.Hour), noon)
			m.cooldowns.put(c.account+"\nover", cooldown{classLimited}, noon.Add(time.Second), noon)
			got := m.statusOf(c.upstream, noon.Add(time.Second))
			if !c.want {
				if got.CooldownUntil != nil || len(got.Cooldowns) > 0 {
					t.Errorf("shows %v", got.Cooldowns)
				}
				return
			}
			want := []restStatus{{c.account, "late", "exhausted", noon.Add(time.Hour)}, {c.account, "soon", "limited", noon.Add(time.Minute)}}
			if !slices.Equal(got.Cooldowns, want) || got.CooldownUntil == nil || !got.CooldownUntil.Equal(noon.Add(time.Hour)) {
				t.Errorf("expected %v, got %v until %v", want, got.Cooldowns, got.CooldownUntil)
			}
		})
	}
}

// A reset forgets what is held against one project, or against all.
func TestForgive(t *testing.T) {
	studio, press, unnamed := newAPIKey("one", "studio", "google"), newAPIKey("two", "press", "google"), newAPIKey("three", "", "google")
	for project, want := range map[string]string{
		"":               "",
		"studio":         "press key client vertex header",
		"press":          "studio key client vertex header",
		"google":         "studio press client vertex header", // whose key names no project
		"client-0123":    "studio press key vertex header",
		"my-gcp":         "studio press key client header",
		"vertex-my-gcp":  "studio press key client header", // as cooldowns have it
		"relay":          "studio press key client vertex",
		"upstream-relay": "studio press key client vertex",
		"unknown":        "studio press key client vertex header",
		"stud":           "studio press key client vertex header",
		"key":            "studio press key client vertex header",
	} {
		t.Run(project, func(t *testing.T) {
			m := newMemories()
			g := atWork(m, "m", "google")
			g.router.upstreams[0].keys = []*apiKey{studio, press, unnamed}
			g.router.upstreams = append(g.router.upstreams,
				&upstream{name: "vertex", project: "my-gcp", credential: new(credential)}, &upstream{name: "relay", hasCredential: true})
			accounts := []struct{ name, account, key string }{
				{"studio", "studio", studio.id},
				{"press", "press", press.id},
				{"key", unnamed.account, unnamed.id},
				{"client", "client-0123@example.com", ""},
				{"vertex", "vertex-my-gcp", ""},
				{"header", "upstream-relay", ""},
			}
			for _, a := range accounts {
				m.cooldowns.put(a.account+"\nm", cooldown{classLimited}, noon.Add(time.Hour), noon)
				m.learned.put(learnedKey(a.account+"\nm", limitRPM), learned{1}, noon.Add(time.Hour), noon)
				m.rejected.put(a.key, struct{}{}, noon.Add(time.Hour), noon)
				m.rejected.put(a.key+"\nm", struct{}{}, noon.Add(time.Hour), noon)
			}
			m.forgive(project, noon)
			var left []string
			for _, a := range accounts {
				_, isCooling := m.cooldowns.get(a.account+"\nm", noon)
				_, isLearned := m.learned.get(learnedKey(a.account+"\nm", limitRPM), noon)
				_, isRejected := m.rejected.get(a.key, noon)
				_, isRejectedForModel := m.rejected.get(a.key+"\nm", noon)
				if isCooling != isLearned || a.key != "" && (isRejected != isCooling || isRejectedForModel != isCooling) {
					t.Errorf("%s: cooldown %t, limit %t, key %t and %t", a.name, isCooling, isLearned, isRejected, isRejectedForModel)
				}
				if isCooling {
					left = append(left, a.name)
				}
			}
			if got := strings.Join(left, " "); got != want {
				t.Errorf("expected %q to be left, got %q", want, got)
			}
		})
	}
}

// A key that a call has brought, and no project, counts as its upstream's.
func TestForgiveUnnamedKeys(t *testing.T) {
	m := newMemories()
	g := atWork(m, "m", "tenants", "google")
	known := newAPIKey("known", "", "google")
	g.router.upstreams[0].keys = []*apiKey{{pattern: &APIKey{Key: "{http.request.header.X-Key}"}}}
	g.router.upstreams[1].keys = []*apiKey{known}
	brought := newAPIKey("brought", "", "tenants")
	scopes := []string{brought.account + "\nm", known.account + "\nm", "acme\nm"}
	for project, want := range map[string][]bool{
		"tenants": {false, true, true},
		"google":  {true, false, true},
		"acme":    {true, true, false},
	} {
		for _, scope := range scopes {
			m.cooldowns.put(scope, cooldown{classLimited}, noon.Add(time.Hour), noon)
		}
		m.forgive(project, noon)
		for i, scope := range scopes {
			if _, isCooling := m.cooldowns.get(scope, noon); isCooling != want[i] {
				t.Errorf("after a reset of %s, %q is held back: %t", project, scope, isCooling)
			}
		}
	}
}

// Two sites may have upstreams of one name. A reset by it is for both.
func TestForgiveInAllSites(t *testing.T) {
	m := newMemories()
	var scopes []string
	for i := range 2 {
		key := newAPIKey(fmt.Sprint(i), "", "google")
		atWork(m, "m", "google").router.upstreams[0].keys = []*apiKey{key}
		scopes = append(scopes, key.account+"\nm")
		m.cooldowns.put(scopes[i], cooldown{classLimited}, noon.Add(time.Hour), noon)
	}
	m.forgive("google", noon)
	for i, scope := range scopes {
		if _, isCooling := m.cooldowns.get(scope, noon); isCooling {
			t.Errorf("site %d is held back", i)
		}
	}
}

// A reset counts neither what was used nor which prompts were blocked.
func TestResetKeepsTheRest(t *testing.T) {
	s, err := joinState(&lease{newShelf(), zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.release()
	defer s.remove(atWork(s.memories, "m", "google studio"))
	now := time.Now()
	s.block("studio", 1, softBlock, time.Hour)
	s.ledger.book(s.calendar.day(now), drawn("studio", "m"))
	admitTo(t, s.memories, "studio", "m", 4, 10, now)
	for _, uri := range []string{"/gemini/reset?project=studio", "/gemini/reset"} {
		if _, err := administer(t, http.MethodPost, uri); err != nil {
			t.Fatal(err)
		}
	}
	if s.recalls("studio", 1) != softBlock || len(s.ledger.today(s.calendar.day(now))) != 1 || s.limitViews(now)[0].Used != 4 {
		t.Error("a reset has forgotten what was counted")
	}
}
