// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// half is the beginning of a request that fits into one packet, and halfLarge of one
// that is on its way to the upstream before it has ended.
var (
	half      = promptJSON[:40]
	halfLarge = largeHead + string(letters[:600_000])
)

// vanishing is a stage at which clients vanish.
type vanishing struct {
	name  string
	says  string           // what the client sends
	plays http.HandlerFunc // of each attempt, but for those that are overloaded
	busy  int              // how many attempts are
	hears int              // how many bytes of the answer the client reads
	asked int              // how often the upstream is
	// How it is booked: the status and the attempts by their verdicts. A call whose
	// answer had begun remains what it was.
	status   float64
	attempts string
}

// A client that vanishes takes its call with it, at every stage. It is nobody's
// failure but its own.
func TestClientVanishes(t *testing.T) {
	whole := sized(unaryPath, len(promptJSON), promptJSON)
	large := `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"` + strings.Repeat("iVBORw0K", 6*megabyte/8)
	stages := []vanishing{
		{name: "in the body", says: sized(unaryPath, 5000, half), status: 499},
		{name: "in a chunk", says: spoken(unaryPath, inChunks, "100\r\n"+half), status: 499},
		{name: "between chunks", says: spoken(unaryPath, inChunks, chunked(half, 10)), status: 499},
		{name: "in a gzipped body", says: spoken(unaryPath, "Content-Encoding: gzip\r\nContent-Length: 5000\r\n", gzipped(promptJSON)[:40]), status: 499},
		{name: "in a large body", says: sized(unaryPath, 9*megabyte, halfLarge), plays: hangs(), asked: 1, status: 499, attempts: "client"},
		{name: "in a large body of chunks", says: spoken(unaryPath, inChunks, chunked(halfLarge, 32_000)), plays: hangs(), asked: 1, status: 499, attempts: "client"},
		{name: "before the answer", says: whole, plays: hangs(), asked: 1, status: 499, attempts: "client"},
		{name: "before the verdict", says: whole, plays: hangs(textJSON[:60]), asked: 1, status: 499, attempts: "client"},
		{name: "behind the first byte", says: whole, plays: hangs(imageJSON[:1000]), hears: 1, asked: 1, status: 200, attempts: "ok"},
		{name: "in a large image", says: whole, plays: hangs(large), hears: 1000, asked: 1, status: 200, attempts: "ok"},
		{name: "in a stream", says: sized(textPath, len(promptJSON), promptJSON), plays: hangs(event(textChunk)), hears: 10, asked: 1, status: 200, attempts: "ok"},
	}
	again := []vanishing{
		{name: "in a wait", says: sized(unaryPath, len(promptJSON), promptJSON), busy: 1, asked: 1, status: 499, attempts: "transient"},
		{name: "in the second attempt", says: spoken(unaryPath, fmt.Sprintf("Accept: again/*\r\nContent-Length: %d\r\n", len(promptJSON)), promptJSON), plays: hangs(), busy: 1, asked: 2, status: 499, attempts: "client transient"},
	}
	u := scripted(t, drawn)
	place := func(name string) string {
		return "upstream " + name + " " + u.URL + " {\n\tapi_key {env.CADDYTEST_KEY}\n}"
	}
	// What is not kept streams through, and is lost with its client.
	g := run(t, "metrics /metrics\n"+accessLog+"@streamed header Accept streamed/*\nhandle @streamed {\n"+gemini(place("streamed"))+"}\n"+
		"@again header Accept again/*\nhandle @again {\n"+gemini(place("kept"), quickly)+"}\nhandle {\n"+gemini(place("kept"), "retry {\n\tbackoff 90s 90s\n}")+"}\n")
	do(t, g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(promptJSON))).exactly(t, 200, imageJSON)

	u.leavesNothing(t, func() {
		for how, hangUp := range hangups {
			for _, s := range stages {
				t.Run(how+"/kept/"+s.name, func(t *testing.T) { s.check(t, g, u, "kept", hangUp) })
				if how != "closes" {
					continue
				}
				s.says = strings.Replace(s.says, "\r\n", "\r\nAccept: streamed/*\r\n", 1)
				t.Run(how+"/streamed/"+s.name, func(t *testing.T) { s.check(t, g, u, "streamed", hangUp) })
			}
			for _, s := range again {
				t.Run(how+"/"+s.name, func(t *testing.T) { s.check(t, g, u, "kept", hangUp) })
			}
		}
	})
}

func (s *vanishing) check(t *testing.T, g *gateway, u *upstream, name string, hangUp func(*wireClient)) {
	t.Helper()
	ended := make(chan struct{}, 2)
	var scripts []http.HandlerFunc
	for range s.busy {
		scripts = append(scripts, overloaded)
	}
	scripts = append(scripts, func(w http.ResponseWriter, r *http.Request) {
		s.plays(w, r)
		ended <- struct{}{}
	})
	u.play(inTurn(scripts...))
	before, begun := g.counters(t), u.begun.Load()
	_, success := g.gauges(t, name)
	line := g.accessLineOf(t, func() {
		c := g.dial(t)
		c.says(t, s.says)
		eventually(t, "the upstream is asked", func() bool { return int(u.begun.Load()-begun) == s.asked })
		if s.busy == s.asked && s.busy > 0 {
			eventually(t, "the gateway knows that it is busy", func() bool {
				_, now := g.gauges(t, name)
				return now < success
			})
		}
		for n := 0; n < s.hears; n++ {
			if _, err := c.in.ReadByte(); err != nil {
				t.Fatal(err)
			}
		}
		hangUp(c)
		if s.asked > s.busy {
			wait(t, "the upstream's request ends", ended)
		}
	})
	if n := len(u.received()); n != s.asked {
		t.Errorf("the upstream was asked %d times, want %d", n, s.asked)
	}
	verdict, reason := "client", "CANCELLED"
	if s.status == 200 {
		verdict, reason = "ok", ""
	}
	upstream := name
	if s.asked == 0 {
		upstream = ""
	}
	facts, _ := line["gemini"].(map[string]any)
	if line["status"] != s.status || facts["verdict"] != verdict || facts["reason"] != reason || facts["attempts"] != float64(s.asked) || facts["upstream"] != upstream {
		t.Errorf("status %v, fields %v", line["status"], facts)
	}
	var want []string
	for verdict := range strings.FieldsSeq(s.attempts) {
		want = append(want, fmt.Sprintf(`attempts_total{upstream=%q,verdict=%q} 1`, name, verdict))
	}
	model := imageModel
	if strings.Contains(s.says, textPath) {
		model = textModel
	}
	want = append(want, fmt.Sprintf(`requests_total{model=%q,reason=%q,upstream=%q,verdict=%q} 1`, model, reason, upstream, verdict))
	if got := g.counted(t, before); got != strings.Join(want, "\n") {
		t.Errorf("counted:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// A client that vanishes has used of the limits what was sent for it, as at Google,
// and nothing before that.
func TestVanishedClientsAndLimits(t *testing.T) {
	u := scripted(t, drawn)
	g := watch(t, accessLog+siteOf(t, u, limit("rpm 5", "rpd 5")))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	u.play(hangs())
	for _, c := range []struct {
		says  string
		asked int32
		used  int64
	}{
		{sized(unaryPath, 5000, half), 1, 1},
		{sized(unaryPath, len(promptJSON), promptJSON), 2, 2},
	} {
		g.accessLineOf(t, func() {
			w := g.dial(t)
			w.says(t, c.says)
			eventually(t, "the upstream is asked", func() bool { return u.begun.Load() == c.asked })
			hangups["closes"](w)
		})
		for _, limit := range []string{"rpm", "rpd"} {
			if row := g.row(t, limit); row.Used != c.used || row.Waiting != 0 {
				t.Errorf("%d of %s are used, and %d calls wait", row.Used, limit, row.Waiting)
			}
		}
	}
}
