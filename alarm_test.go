// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/caddy/v2"
)

// vigil is a watch on a fake clock.
type vigil struct {
	watch
	now time.Time
	log []string // what alarms did: "+success_low 0.70", "-success_low 0.86", "-success_low quiet"
}

func newVigil() *vigil { return &vigil{now: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)} }

func (v *vigil) hears(signs ...sign) {
	for _, s := range signs {
		for _, c := range v.hear(s, v.now) {
			name := alarmRules[c.alarm].name
			switch {
			case c.isQuiet:
				v.log = append(v.log, "-"+name+" quiet")
			case c.isRaised:
				v.log = append(v.log, fmt.Sprintf("+%s %.2f", name, c.value))
			default:
				v.log = append(v.log, fmt.Sprintf("-%s %.2f", name, c.value))
			}
		}
	}
}

// told checks what alarms have done since the last time.
func (v *vigil) told(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(v.log, want) {
		t.Errorf("alarms did %q, expected %q", v.log, want)
	}
	v.log = nil
}

// on are the names of the alarms that are on.
func (v *vigil) on() string {
	var names []string
	for i, isOn := range v.alarms(v.now) {
		if isOn {
			names = append(names, alarmRules[i].name)
		}
	}
	return strings.Join(names, " ")
}

// drawnIn is a success that took a time.
func drawnIn(took time.Duration) sign {
	return sign{outcome: outcomeSucceeded, kind: callKind{model: "m"}, took: took, isAnswered: true}
}

var (
	drawnSign      = drawnIn(10 * time.Second)
	refusedSign    = sign{outcome: outcomeFailed}                                       // the connection
	brokenSign     = sign{outcome: outcomeFailed, isAnswered: true}                     // a 500
	overloadedSign = sign{outcome: outcomeFailed, isAnswered: true, isOverloaded: true} // a 503
	limitedSign    = sign{isAnswered: true}                                             // a 429
)

func TestAlarmsAreRaisedOverTenCalls(t *testing.T) {
	for name, c := range map[string]struct {
		good, bad sign
		before    []int // good and bad calls that raise nothing
		want      []string
	}{
		"failures":                       {drawnSign, brokenSign, []int{8, 2}, []string{"+success_low 0.73"}},
		"failures alone":                 {drawnSign, brokenSign, []int{0, 9}, []string{"+success_low 0.00"}},
		"refused connections":            {drawnSign, refusedSign, []int{0, 9}, []string{"+success_low 0.00"}},
		"503s":                           {limitedSign, overloadedSign, []int{7, 3}, []string{"+overload_high 0.36"}},
		"503s alone":                     {drawnSign, overloadedSign, []int{0, 9}, []string{"+success_low 0.00", "+overload_high 1.00"}},
		"limits are neither":             {limitedSign, limitedSign, []int{50, 50}, nil},
		"a refused connection is no 503": {overloadedSign, refusedSign, []int{9, 0}, []string{"+success_low 0.00"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVigil()
			for range c.before[0] {
				v.hears(c.good)
			}
			for range c.before[1] {
				v.hears(c.bad)
			}
			v.told(t)
			v.hears(c.bad)
			v.told(t, c.want...)
			v.hears(c.bad, c.bad)
			if name != "a refused connection is no 503" {
				v.told(t) // once per crossing
			}
		})
	}
}

// Between the two thresholds nothing changes, so that an alarm cannot flap.
func TestAlarmsDoNotFlap(t *testing.T) {
	v := newVigil()
	v.hears(slices.Repeat([]sign{drawnSign}, 30)...)
	v.hears(slices.Repeat([]sign{brokenSign}, 8)...)
	v.told(t, "+success_low 0.79")
	v.hears(drawnSign, drawnSign, brokenSign, drawnSign, drawnSign, drawnSign, brokenSign) // around 0.8
	v.told(t)
	for range 100 {
		v.hears(drawnSign)
	}
	v.told(t, "-success_low 0.85")
	v.hears(brokenSign) // below 0.85 again
	v.told(t)
}

// What is older than five minutes counts no more.
func TestAlarmsForget(t *testing.T) {
	v := newVigil()
	v.hears(slices.Repeat([]sign{brokenSign}, 9)...)
	v.now = v.now.Add(alarmWindow)
	v.hears(brokenSign)
	v.told(t)
	v.hears(slices.Repeat([]sign{brokenSign}, 9)...)
	v.told(t, "+success_low 0.00")
	v.now = v.now.Add(alarmWindow - alarmSlot)
	v.hears(drawnSign)
	v.told(t)
	v.now = v.now.Add(alarmSlot)
	v.hears(drawnSign) // one is enough when there are no others
	v.told(t, "-success_low 1.00")
}

// An upstream that is demoted gets a canary in five minutes. Its alarm stays on
// from one to the next, and ends when there are none at all.
func TestAlarmsWithoutTraffic(t *testing.T) {
	v := newVigil()
	v.hears(slices.Repeat([]sign{brokenSign}, 10)...)
	v.told(t, "+success_low 0.00")
	for range 5 {
		v.now = v.now.Add(alarmWindow)
		if v.on() != "success_low" {
			t.Errorf("%q is on", v.on())
		}
		v.hears(brokenSign)
	}
	v.told(t)
	v.hears(limitedSign)
	v.now = v.now.Add(alarmRest)
	if v.on() != "" {
		t.Errorf("%q is on without any news", v.on())
	}
	v.hears(brokenSign)
	v.told(t, "-success_low quiet")
	v.hears(slices.Repeat([]sign{brokenSign}, 9)...)
	v.told(t, "+success_low 0.00")
}

func TestLatencyAlarm(t *testing.T) {
	v := newVigil()
	fast, slow := callKind{model: "lite"}, callKind{model: "pro"}
	draw := func(k callKind, took time.Duration) sign {
		return sign{outcome: outcomeSucceeded, kind: k, took: took, isAnswered: true}
	}
	for range teachingCalls {
		v.hears(draw(fast, 4*time.Second), draw(slow, 20*time.Second))
	}
	v.hears(slices.Repeat([]sign{draw(fast, 4*time.Second)}, 5)...)
	v.hears(slices.Repeat([]sign{draw(slow, 20*time.Second)}, 15)...)
	v.told(t) // another mix of models is no news

	v.now = v.now.Add(alarmWindow)
	v.hears(slices.Repeat([]sign{draw(fast, 10*time.Second)}, 9)...)
	v.told(t)
	v.hears(draw(slow, 50*time.Second))
	v.told(t, "+latency_high 2.49")
	v.hears(slices.Repeat([]sign{brokenSign, limitedSign}, 2)...) // say nothing about it
	v.hears(slices.Repeat([]sign{draw(fast, 4*time.Second)}, 19)...)
	v.told(t)
	v.hears(draw(slow, 20*time.Second))
	v.told(t, "-latency_high 1.49")
}

// The first calls only teach, and one call among ten raises no alarm, however
// long it took.
func TestLatencyAlarmIsNotHasty(t *testing.T) {
	v := newVigil()
	v.hears(drawnIn(time.Second))
	v.hears(slices.Repeat([]sign{drawnIn(time.Minute)}, teachingCalls-1)...)
	v.told(t)
	v.hears(slices.Repeat([]sign{drawnIn(57 * time.Second)}, 9)...)
	v.hears(drawnIn(time.Hour))
	v.told(t)
	v.hears(drawnIn(time.Hour))
	v.told(t, "+latency_high 2.64")
	empty := newVigil()
	empty.hears(slices.Repeat([]sign{drawnIn(0)}, 40)...)
	empty.told(t)
}

// What has become slower for good is what is usual within a day, whatever the
// traffic; what was slow for an hour is not.
func TestPaceFollowsWhatLasts(t *testing.T) {
	for name, c := range map[string]struct {
		step   time.Duration // between calls
		batch  time.Duration // how long they come, once a day
		factor float64
	}{
		"a call a minute":         {time.Minute, 24 * time.Hour, 3},
		"ten calls a second":      {100 * time.Millisecond, 24 * time.Hour, 3},
		"a batch a night":         {5 * time.Second, 30 * time.Minute, 3},
		"ten times slower":        {time.Minute, 24 * time.Hour, 10},
		"slower than what counts": {time.Minute, 24 * time.Hour, 50},
	} {
		t.Run(name, func(t *testing.T) {
			p, now := new(pace), time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
			for range teachingCalls {
				p.compare(time.Second, now)
			}
			slow := time.Duration(c.factor * float64(time.Second))
			day := func(hours time.Duration) (ratio float64) {
				for end := now.Add(hours); now.Before(end); now = now.Add(c.step) {
					ratio, _ = p.compare(slow, now)
				}
				return ratio
			}
			if c.batch > time.Hour {
				if ratio := day(time.Hour); ratio < 0.65*min(c.factor, maxPaceRatio) {
					t.Errorf("after an hour it takes %.1f times as long as usual", ratio)
				}
				now = now.Add(-time.Hour)
			}
			ratio := day(c.batch)
			if c.batch < time.Hour {
				now = now.Add(24*time.Hour - c.batch)
				ratio = day(c.batch)
			}
			if ratio > alarmRules[alarmLatency].clear {
				t.Errorf("after a day it takes %.2f times as long as usual", ratio)
			}
		})
	}
}

func TestPacesAreBounded(t *testing.T) {
	v := newVigil()
	for i := range 10_000 {
		s := drawnSign
		s.kind = callKind{model: strings.Repeat("m", 600) + fmt.Sprint(i), streamed: i%2 == 0}
		v.hears(s)
	}
	if n := len(v.paces); n != maxPaces+2 {
		t.Errorf("%d paces are kept", n)
	}
	for k := range v.paces {
		if len(k.model) > longestKey {
			t.Errorf("a model of %d bytes is kept", len(k.model))
		}
	}
}

// A clock that is set back neither revives old calls nor loses new ones.
func TestAlarmsWithAClockThatGoesBack(t *testing.T) {
	v := newVigil()
	v.hears(drawnSign)
	v.now = v.now.Add(time.Minute)
	v.hears(slices.Repeat([]sign{brokenSign}, 5)...)
	v.now = v.now.Add(-time.Hour)
	v.hears(slices.Repeat([]sign{brokenSign}, 4)...)
	v.told(t, "+success_low 0.10")
}

// Under any load each crossing is told of once.
func TestAlarmsInConcurrentUse(t *testing.T) {
	var w watch
	now := time.Now()
	var mu sync.Mutex
	count := make(map[alarmChange]int)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				for _, c := range w.hear(overloadedSign, now) {
					mu.Lock()
					count[c]++
					mu.Unlock()
				}
				w.alarms(now)
			}
		})
	}
	wg.Wait()
	if len(count) != 2 || count[alarmChange{alarm: alarmSuccess, isRaised: true}] != 1 || count[alarmChange{alarm: alarmOverload, isRaised: true, value: 1}] != 1 {
		t.Errorf("alarms did %v", count)
	}
}

// What a call brings is what health makes of it; the time is that to the verdict.
func TestRouterRaisesAlarms(t *testing.T) {
	j := newJourney(t, Options{Retry: &Retry{Attempts: 1}, Guard: new(caddy.Duration)}, &upstream{name: "a"})
	var told []string
	j.alarmed = func(upstream string, c alarmChange) {
		told = append(told, fmt.Sprintf("%s %s %v", upstream, alarmRules[c.alarm].name, c.isRaised))
	}
	expect := func(calls int, s scene, want ...string) {
		t.Helper()
		j.plays["a"], told = []scene{s}, nil
		for range calls {
			j.call(prompt)
		}
		if !slices.Equal(told, want) {
			t.Errorf("alarms did %q, expected %q", told, want)
		}
		j.clock = j.clock.Add(2 * alarmRest)
	}
	fast, slow := image, image
	fast.takes, slow.takes = time.Second, 5*time.Second
	expect(10, overloaded, "a success_low true", "a overload_high true")
	expect(20, fast, "a success_low false", "a overload_high false")
	expect(20, slow, "a latency_high true")
	expect(10, refused, "a latency_high false", "a success_low true")
	expect(40, limited, "a success_low false")
	expect(40, finished("PROHIBITED_CONTENT"))
	expect(10, scene{status: 200, body: overloaded.body}, "a success_low true", "a overload_high true") // an error inside a 200
	expect(1, limited, "a success_low false", "a overload_high false")
}

// A call whose client leaves says nothing, and a transport that panics does no harm.
func TestAlarmsOverCallsWithoutAnEnd(t *testing.T) {
	j := newJourney(t, Options{}, &upstream{name: "a"})
	j.upstreams[0].transport = roundTripper(func(*http.Request) (*http.Response, error) { panic("transport") })
	for range 20 {
		func() {
			defer func() { _ = recover() }()
			j.call(prompt)
		}()
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	j.upstreams[0].transport = roundTripper(func(*http.Request) (*http.Response, error) { return nil, context.Canceled })
	for range 20 {
		j.call(prompt, func(r *http.Request) { *r = *r.WithContext(ctx) })
	}
	if on := j.upstreams[0].health.watch.alarms(j.clock); on != [len(alarmRules)]bool{} {
		t.Errorf("alarms are on: %v", on)
	}
}

// One line and one event when an alarm is raised, and a line when it ends.
func TestAlarmsAreAnnounced(t *testing.T) {
	core, log := observer.New(zap.DebugLevel)
	var events []string
	g := &gateway{logger: zap.New(core), router: &router{tell: func(event string, data map[string]any) {
		events = append(events, fmt.Sprint(event, " ", data))
	}}}
	g.alarmed("google", alarmChange{alarm: alarmOverload, isRaised: true, value: 0.5})
	g.alarmed("google", alarmChange{alarm: alarmOverload, value: 0.1})
	g.alarmed("google", alarmChange{alarm: alarmOverload, isQuiet: true})
	var lines []string
	for _, e := range log.All() {
		lines = append(lines, fmt.Sprint(e.Level, " ", e.Message, " ", e.ContextMap()))
	}
	if want := []string{
		"warn upstream raises an alarm map[alarm:overload_high threshold:0.3 upstream:google value:0.5]",
		"info upstream's alarm has ended map[alarm:overload_high threshold:0.2 upstream:google value:0.1]",
		"info upstream's alarm has ended for want of calls to judge by map[alarm:overload_high upstream:google]",
	}; !slices.Equal(lines, want) {
		t.Errorf("logged %q", lines)
	}
	if want := []string{"upstream_alarm map[alarm:overload_high threshold:0.3 upstream:google value:0.5]"}; !slices.Equal(events, want) {
		t.Errorf("events %q", events)
	}
}

// Whatever calls say, an alarm is on exactly if the mean is beyond the threshold
// that applies.
func FuzzAlarms(f *testing.F) {
	f.Add([]byte("\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x03\x13\x03\x13\x03\x23\x03\x03\x03\x03\x03\xff\x03\x03\x03\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		v := newVigil()
		signs := []sign{drawnSign, brokenSign, overloadedSign, limitedSign, refusedSign, drawnIn(time.Minute)}
		type past struct {
			at        time.Time
			succeeded float64
		}
		var judged []past
		isRaised := false
		for _, b := range script {
			v.now = v.now.Add(time.Duration(b>>3) * alarmSlot) // whole slots: the window is exact
			s := signs[int(b&7)%len(signs)]
			quiet := len(judged) == 0 || v.now.Sub(judged[len(judged)-1].at) >= alarmRest
			isRaised = isRaised && !quiet
			if s.outcome != outcomeNeutral {
				judged = append(judged, past{v.now, oneIf(s.outcome == outcomeSucceeded)})
			}
			sum, calls := 0.0, 0
			for _, p := range judged {
				if v.now.Sub(p.at) < alarmWindow {
					sum, calls = sum+p.succeeded, calls+1
				}
			}
			switch mean := sum / max(float64(calls), 1); {
			case isRaised && calls > 0:
				isRaised = mean < 0.85
			case calls >= alarmCalls:
				isRaised = mean < 0.80
			}
			v.hears(s)
			if on := v.alarms(v.now)[alarmSuccess]; on != isRaised {
				t.Fatalf("on %v after %d calls with a mean of %v", on, calls, sum/float64(calls))
			}
			for _, p := range v.paces {
				if math.IsNaN(p.usual) || math.IsInf(p.usual, 0) || p.usual <= 0 {
					t.Fatalf("the usual time is %v", p.usual)
				}
			}
		}
	})
}

func BenchmarkAlarms(b *testing.B) {
	var w watch
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(100 * time.Millisecond)
		w.hear(drawnSign, now)
	}
}
