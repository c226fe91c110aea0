// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The first block that matches applies, by the client's name for the model or by
// the upstream's.
func TestRuleForAModel(t *testing.T) {
	r := new(router)
	for _, l := range []RateLimit{{Match: "gemini-3-pro-image*", RPM: 1}, {Match: "*-image", RPM: 2}, {Match: "gemini-*", RPM: 3}} {
		r.limits = append(r.limits, l.rule())
	}
	for _, c := range []struct {
		model, mapped string
		want          int64
	}{
		{"gemini-3-pro-image-preview", "gemini-3-pro-image-preview", 1},
		{"gemini-2.5-flash-image", "gemini-2.5-flash-image", 2},
		{"gemini-2.5-flash", "gemini-2.5-flash", 3},
		{"nano", "gemini-2.5-flash-image", 2},
		{"gemini-2.5-flash", "gemini-3-pro-image", 1}, // the order of blocks counts, not that of names
		{"gemini-3-pro-image", "gemini-2.5-flash", 1},
		{"imagen-4", "imagen-4", 0},
	} {
		rule := r.ruleFor(c.model, c.mapped)
		if rule == nil && c.want != 0 || rule != nil && rule.bounds.most[limitRPM] != c.want {
			t.Errorf("%s as %s: %+v, want rpm %d", c.model, c.mapped, rule, c.want)
		}
	}
}

// What may be a credential is not shown.
func TestSecretKeysOfLimits(t *testing.T) {
	for key, want := range map[string]bool{
		"{http.request.header.X-Api-Key}": true, "{http.request.header.api-key}": true, "{http.request.header.X-Goog-Api-Key}": true,
		"{http.request.header.Authorization}": true, "{http.request.header.Proxy-Authorization}": true, "{http.request.header.Cookie}": true,
		"team-{http.request.cookie.session}": true, "{http.request.uri.query.key}": true, "{http.request.orig_uri}": true,
		"{http.request.header.X-Tenant}": false, "{http.request.remote.host}": false, "{tenant}": false, "": false,
	} {
		if got := (RateLimit{RPM: 10, Key: key}).rule().isSecret; got != want {
			t.Errorf("%q is secret: %t, want %t", key, got, want)
		}
	}
}

// A burst that is the whole rpm is none.
func TestBurstOfARule(t *testing.T) {
	for burst, want := range map[int64]int64{0: 0, 1: 1, 9: 9, 10: 0} {
		if got := (RateLimit{RPM: 10, Burst: burst}).rule().bounds.burst; got != want {
			t.Errorf("burst %d became %d, want %d", burst, got, want)
		}
	}
}

// Which limits Google's refusals speak of (wire §7).
func TestKindOfAQuota(t *testing.T) {
	type quota struct {
		kind  limitKind
		value int64
	}
	for name, want := range map[string][]quota{
		"error_429_fractional_delay.json":              {{limitRPM, 0}},
		"error_429_free_tier_minute_and_day.json":      {{limitTPM, 0}, {limitRPM, 0}, {limitRPD, 0}},
		"error_429_free_tier_per_day_short_delay.json": {{limitRPD, 20}},
		"error_429_free_tier_rpm.json":                 {{limitRPM, 2}},
		"error_429_generic.json":                       nil,
		"error_429_image_limit_zero.json":              {{limitRPD, 0}, {limitRPM, 0}},
		"error_429_image_model_rpm.json":               {{limitRPM, 500}},
		"error_429_paid_input_tokens_per_minute.json":  {{limitTPM, 1_000_000}},
		"error_429_spend_cap.json":                     nil,
	} {
		e := parseGoogleError(http.StatusTooManyRequests, fixture(t, name))
		if len(e.quotas) != len(want) {
			t.Errorf("%s: %+v", name, e.quotas)
			continue
		}
		for i, q := range e.quotas {
			if q.kind() != want[i].kind || q.value != want[i].value {
				t.Errorf("%s: %+v is limit %d, want %+v", name, q, q.kind(), want[i])
			}
		}
	}
}

// A limit that the upstream has told of applies until the next day, if it is
// below ours. It never raises one, and makes none where there is none.
func TestLearnedLimits(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 600, Burst: 9, RPD: 10}, 1), &upstream{name: "a"})
	_, _, x := j.call(prompt)
	rule, account := j.limits[0], seat{account: x.clientProject + "@a"}
	now := func() bounds {
		return j.boundsOf(rule, scope(&station{model: "gemini-3-pro-image"}, &account), j.clock)
	}
	for _, c := range []struct {
		name string
		want bounds
	}{
		{"error_429_image_model_rpm.json", bounds{demand{limitRPM: 500, limitRPD: 10}, 9, rule}},
		{"error_429_free_tier_per_day_short_delay.json", bounds{demand{limitRPM: 500, limitRPD: 10}, 9, rule}}, // its 20 are above ours
		{"error_429_paid_input_tokens_per_minute.json", bounds{demand{limitRPM: 500, limitRPD: 10}, 9, rule}},  // we have no tpm
		{"error_429_free_tier_rpm.json", bounds{demand{limitRPM: 2, limitRPD: 10}, 0, rule}},
		{"error_429_image_model_rpm.json", bounds{demand{limitRPM: 2, limitRPD: 10}, 0, rule}},
	} {
		j.plays["a"] = []scene{{status: http.StatusTooManyRequests, body: string(fixture(t, c.name))}}
		j.clock = j.clock.Add(2 * time.Minute)
		j.story(prompt)
		j.state.cooldowns = newMemory[cooldown](1) // the next call is not to be refused for the last one
		if got := now(); got != c.want {
			t.Errorf("after %s: %+v, want %+v", c.name, got, c.want)
		}
	}
	j.clock = j.state.calendar.day(j.clock).ends
	if got, want := now(), j.limits[0].bounds; got != want {
		t.Errorf("on the next day: %+v, want %+v", got, want)
	}
}

// What the status page and metrics say of limits is what the configuration says that is
// at work, whichever one the last call went by.
func TestLimitsAreThoseAtWork(t *testing.T) {
	any100, few10 := RateLimit{Match: "*", RPM: 100}, RateLimit{Match: "real-*", RPM: 10}
	for name, c := range map[string]struct {
		before, after []RateLimit
		upstream      string // afterwards
		want          string
	}{
		"as before":           {[]RateLimit{any100}, []RateLimit{any100}, "google studio", "rpm 100"},
		"removed":             {[]RateLimit{any100}, nil, "google studio", ""},
		"for other models":    {[]RateLimit{any100}, []RateLimit{{Match: "imagen-*", RPM: 5}}, "google studio", ""},
		"raised":              {[]RateLimit{any100}, []RateLimit{{Match: "*", RPM: 500}}, "google studio", "rpm 500"},
		"above what was told": {[]RateLimit{any100}, []RateLimit{{Match: "*", RPM: 500, IPM: 9}}, "google studio", "rpm 500 ipm 7"},
		"another kind":        {[]RateLimit{any100}, []RateLimit{{Match: "*", RPD: 500}}, "google studio", "rpd 500"},
		"one before it":       {[]RateLimit{any100}, []RateLimit{few10, any100}, "google studio", "rpm 10"},
		"of what was named":   {[]RateLimit{{Match: "ali[as]s-*", RPM: 3}}, []RateLimit{{Match: "ali[as]s-*", RPM: 4}}, "google studio", "rpm 4"},
		"of more than that":   {[]RateLimit{{Match: "alias-*", RPM: 3}}, []RateLimit{{Match: "alia*", RPM: 4}}, "google studio", "rpm 4"},
		"split":               {[]RateLimit{any100}, []RateLimit{{Match: "*", Key: "{http.request.header.X-Tenant}", RPM: 100}}, "google studio", ""},
		"another project":     {[]RateLimit{any100}, []RateLimit{any100}, "google press", ""},
		"any project":         {[]RateLimit{any100}, []RateLimit{any100}, "google", "rpm 100"},
	} {
		t.Run(name, func(t *testing.T) {
			m, id := newMemories(), gateID{scope: "studio\nreal-model"}
			m.learned.put(learnedKey(id.scope, limitIPM), learned{7}, midday.Add(time.Hour), midday)
			g := m.gates.at(id, gateName{"studio", "real-model", ""}, midday)
			before := limitedAtWork(m, "google studio", c.before)
			m.shows(t, "before any call", "")
			g.admit(&once, &before.router.limits[0].bounds, midday)
			m.shows(t, "before the reload", fmt.Sprint("rpm ", c.before[0].RPM))
			limitedAtWork(m, c.upstream, c.after)
			m.shows(t, "while both are at work", fmt.Sprint("rpm ", c.before[0].RPM))
			m.remove(before)
			m.shows(t, "after the reload", c.want)
		})
	}
}

// limitedAtWork is a gateway with limits, for an upstream whose key is of a project that
// is its account as well.
func limitedAtWork(m *memories, upstream string, limits []RateLimit) *gateway {
	g := atWork(m, "m", upstream)
	for _, k := range g.router.upstreams[0].keys {
		k.account = k.project
	}
	for _, l := range limits {
		g.router.limits = append(g.router.limits, l.rule())
	}
	return g
}

// shows holds the limits of the status page, such as "rpm 10 rpd 200", against others.
func (m *memories) shows(t *testing.T, when, want string) {
	t.Helper()
	var all []string
	for _, v := range m.limitViews(midday) {
		all = append(all, fmt.Sprint(v.Limit, " ", v.Value))
	}
	if got := strings.Join(all, " "); got != want {
		t.Errorf("%s: limits %q, want %q", when, got, want)
	}
}

// However many keys clients bring, they take no more memory than the gates that are kept, and
// push nobody out of a line, nor a gate that is in use.
func TestGatesAreBounded(t *testing.T) {
	s := newState().gates
	b := bounds{most: demand{limitRPM: 1}}
	held := gateID{"somebody waits", ""}
	g := s.at(held, gateName{}, midday)
	g.admit(&once, &b, midday)
	g.enter(&once, &b, patient(midday), midday, midday)
	now := midday
	fill := func(n int) {
		for i := range n {
			now = now.Add(time.Millisecond)
			s.at(gateID{"client " + strconv.Itoa(i), ""}, gateName{}, now).admit(&once, &b, now)
		}
	}
	fill(2 * maxGates)
	before := heap()
	fill(100_000)
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d bytes more", grown)
	}
	if n := len(s.list()); n > maxGates {
		t.Errorf("%d gates", n)
	}
	if s.at(held, gateName{}, midday) != g {
		t.Error("a gate was given up in whose line somebody stands")
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A gate that has just been made is the last to be given up: whoever asked for it
// is about to use it.
func TestFreshGateIsKept(t *testing.T) {
	s := newState().gates
	s.limit = victims // so that all compete
	b := bounds{most: demand{limitRPM: 1}}
	for i := range s.limit - 1 {
		s.at(gateID{strconv.Itoa(i), ""}, gateName{}, midday).admit(&once, &b, midday)
	}
	later := midday.Add(time.Hour)
	fresh := s.at(gateID{"fresh", ""}, gateName{}, later)
	s.at(gateID{"another", ""}, gateName{}, later)
	if s.at(gateID{"fresh", ""}, gateName{}, later) != fresh {
		t.Error("given up before it was used once, while others were idle for an hour")
	}
}

// A refusal of the upstream's closes all gates of a project and model, and no
// others.
func TestHoldOfAScope(t *testing.T) {
	s := newState().gates
	b := bounds{most: demand{limitRPM: 1}}
	until := midday.Add(90 * time.Second)
	var line []*ticket
	for _, id := range []gateID{{"a\nm", ""}, {"a\nm", "tenant"}, {"a\nother", ""}, {"b\nm", ""}} {
		g := s.at(id, gateName{}, midday)
		g.admit(&once, &b, midday)
		line = append(line, g.enter(&once, &b, patient(midday), midday, midday))
	}
	s.hold("a\nm", until, midday)
	for i, want := range []time.Duration{90 * time.Second, 90 * time.Second, time.Minute, time.Minute} {
		if got := line[i].at.Sub(midday); got != want {
			t.Errorf("call %d waits %v, want %v", i, got, want)
		}
	}
}

// panics makes a panic a failure of one test.
func panics(t *testing.T) {
	if r := recover(); r != nil {
		t.Error(r)
	}
}

// Many calls at the same time, far below the limits: none is refused.
func TestCallsThatMeetAtTheGate(t *testing.T) {
	j := newJourney(t, under(RateLimit{RPM: 1_000_000}, 5), &upstream{name: "a"})
	j.now = time.Now
	j.upstreams[0].transport = cannedTransport{[]byte(okImage)}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			defer panics(t)
			for range 1_000 {
				own := &journey{router: j.router, t: t}
				if status, body, _ := own.call(prompt); status != http.StatusOK {
					t.Errorf("%d %s", status, body)
					return
				}
			}
		})
	}
	wg.Wait()
}
