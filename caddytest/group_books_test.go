// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// A call for several images is one call of as many attempts, wherever it is told of.
func TestSeveralImagesInTheBooks(t *testing.T) {
	u := scripted(t, nil)
	g := oversee(t, accessLog)
	for _, c := range []struct {
		name    string // and project
		plays   http.HandlerFunc
		fields  string // of the access log: model … attempts verdict reason images tokens
		row     string
		metrics map[string]float64
	}{
		{
			"all", newBarrier(3).then(drawn),
			"images.generations first % 3 ok  3 3918", "1 calls, 3 images, 48+3870+0 tokens, 0.409416 USD, 0.136472 each",
			map[string]float64{"requests_total": 1, "attempts_total": 3, "images_total": 3, "request_duration_seconds_count": 1, `tokens_total{kind="output"}`: 3870},
		},
		{
			"one-blocked", newBarrier(3).then(inTurn(gives(blockedJSON), drawn)),
			"images.generations first % 3 ok  2 2850", "1 calls, 2 images, 1 blocked map[IMAGE_SAFETY:1] (0.33) for 0.002676, 50+2580+220 tokens, 0.27562 USD, 0.13781 each",
			map[string]float64{"requests_total": 1, "attempts_total": 3, "images_total": 2},
		},
		{
			"all-blocked", newBarrier(3).then(gives(blockedJSON)),
			"images.generations first % 3 blocked IMAGE_SAFETY 0 714", "1 calls, 3 blocked map[IMAGE_SAFETY:3] (1.00) for 0.008028, 54+0+660 tokens, 0.008028 USD",
			map[string]float64{"requests_total": 1, "attempts_total": 3, "images_total": 0},
		},
		{
			"one-again", newBarrier(3).then(inTurn(overloaded, drawn)),
			"images.generations first % 4 ok  3 3918", "1 calls, 1 retries, 3 images, 48+3870+0 tokens, 0.409416 USD, 0.136472 each",
			map[string]float64{"requests_total": 1, "attempts_total": 4, "images_total": 3},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.load(t, accessLog+gemini(place("first", u, ownKey(t, "first", c.name)), retryQuickly))
			u.play(c.plays)
			before := g.counters(t)
			line := g.accessLineOf(t, func() { g.post(t, imagesPath, drawSeveral(3)) })
			facts, _ := line["gemini"].(map[string]any)
			want := imageModel + " " + strings.Replace(c.fields, "%", c.name, 1)
			if got := line.fields(facts, ""); got != want {
				t.Errorf("the access log has %q\nwant               %q", got, want)
			}
			if got := line.fields(line, "placeholder_"); got != want {
				t.Errorf("placeholders %q\nwant         %q", got, want)
			}
			after := g.counters(t)
			for metric, want := range c.metrics {
				name, label, _ := strings.Cut(metric, "{")
				label = strings.TrimSuffix(label, "}")
				if got := sum(after, name, label) - sum(before, name, label); got != want {
					t.Errorf("%s %v, want %v", metric, got, want)
				}
			}
			g.books(t, c.name, "first "+imageModel+": "+c.row)
		})
	}
}

// What was left out is told, whatever the number of images.
func TestDroppedFieldsOfSeveralImages(t *testing.T) {
	u := scripted(t, drawn)
	g := inFront(t, u)
	for _, n := range []string{`"n":1`, `"n":2`} {
		s := g.post(t, imagesPath, drawJSON(n, `"user":"u1"`))
		if via := s.Header.Get("Proxy-Status"); !strings.Contains(via, `details="dropped user"`) {
			t.Errorf("%s: Proxy-Status %q", n, via)
		}
	}
}

// Images of one answer may come from upstreams of different forms.
func TestImagesOfSeveralForms(t *testing.T) {
	const tiny = "iVBORw0KGgo="
	first := scripted(t, newBarrier(2).then(inTurn(drawn, overloaded)))
	second := scripted(t, answers(200, "application/json", `{"created":1,"data":[{"b64_json":"`+tiny+`"}],"usage":{"input_tokens":5,"output_tokens":7,"total_tokens":12}}`))
	g := inFrontOf(t, []string{place("google", first, "format gemini", ownKey(t, "first")), place("backup", second, "format openai", ownKey(t, "second"))})
	s := g.post(t, imagesPath, drawSeveral(2))
	var answer struct {
		Data []struct {
			B64 string `json:"b64_json"`
		}
		Usage map[string]any
	}
	if err := json.Unmarshal(s.body, &answer); err != nil || s.StatusCode != 200 {
		t.Fatalf("status %d: %s", s.StatusCode, shortened(string(s.body)))
	}
	seen := map[string]bool{}
	for _, d := range answer.Data {
		seen[d.B64] = true
	}
	if len(answer.Data) != 2 || !seen[tiny] || !seen[base64.StdEncoding.EncodeToString(picture)] {
		t.Errorf("answer %s", shortened(string(s.body)))
	}
	if u := answer.Usage; u["input_tokens"] != 21.0 || u["output_tokens"] != 1297.0 || u["total_tokens"] != 1318.0 {
		t.Errorf("usage %v", u)
	}
	if r := second.only(t); r.URI != imagesPath || r.json(t)["n"] != nil && r.json(t)["n"] != 1.0 {
		t.Errorf("the backup received %s %s", r.URI, r.Body)
	}
}

// A reload while images are drawn changes nothing for them.
func TestReloadDuringSeveralImages(t *testing.T) {
	finish := make(chan struct{})
	all := newBarrier(3)
	u := scripted(t, all.then(func(w http.ResponseWriter, r *http.Request) {
		<-finish
		drawn(w, r)
	}))
	site := gemini(place("first", u, ownKey(t, "first")))
	for name, next := range reloads(site) {
		t.Run(name, func(t *testing.T) {
			all.calls.Store(0)
			all.full, finish = make(chan struct{}), make(chan struct{})
			g := start(t, site)
			p := g.begin(t, imagesPath, drawSeveral(3))
			wait(t, "all images are asked for", all.full)
			g.load(t, next)
			close(finish)
			if images := imagesOf(t, p.ends()); len(images) != 3 {
				t.Errorf("%d images", len(images))
			}
		})
	}
}

// Images that are ready before their turn wait at their upstreams, not in memory.
func TestSeveralImagesNeedLittleMemory(t *testing.T) {
	const size, n = 20 * megabyte, 10
	head, tail, _ := strings.Cut(imageJSON, base64.StdEncoding.EncodeToString(picture))
	u := scripted(t, newBarrier(n).then(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", jsonType)
		send(w, head)
		_, _ = io.CopyN(w, new(pattern), size)
		send(w, tail)
	}))
	g := inFront(t, u)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	res, err := newTransport(t).RoundTrip(g.newRequest(t, http.MethodPost, imagesPath, strings.NewReader(drawSeveral(n))))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	read, most := int64(0), int64(0)
	for err == nil {
		var more int64
		more, err = io.CopyN(io.Discard, res.Body, 5*megabyte)
		read += more
		runtime.GC()
		runtime.ReadMemStats(&during)
		most = max(most, int64(during.HeapAlloc)-int64(before.HeapAlloc))
	}
	if err != io.EOF || read < n*size {
		t.Errorf("%d bytes (%v)", read, err)
	}
	if most > 30*megabyte {
		t.Errorf("ten images of 20 MB take %d MB of memory", most/megabyte)
	}
}

// A budget that is spent is spent for all images of a call.
func TestBudgetOfSeveralImages(t *testing.T) {
	u := scripted(t, drawn)
	g := oversee(t, gemini(place("first", u, ownKey(t, "first", "studio"), twoImages)))
	imagesOf(t, g.post(t, imagesPath, drawSeveral(2)))
	eventually(t, "the images are booked", func() bool { return len(g.ledger(t, "studio")) == 1 })
	u.play(drawn)
	g.post(t, imagesPath, drawSeveral(2)).failsAsOpenAI(t, 429, "rate_limit_exceeded", "BUDGET_EXCEEDED")
	u.untouched(t)
}

// A form that is kept in a file is read for all images at the same time.
func TestSeveralImagesOfALargeForm(t *testing.T) {
	const size = 17 * megabyte // beyond what is kept in memory
	dir := ownTemp(t)
	digests := make(chan string, 3)
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := imageIn(r)
		if err != nil {
			t.Errorf("the image did not arrive as a whole: %v", err)
		}
		digests <- d
		drawn(w, r)
	}))
	t.Cleanup(u.Close)
	g := run(t, gemini(placeAt("only", u.URL, "format gemini")))
	head := strings.Replace(formHead, "--xxx\r\n", "--xxx\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n3\r\n--xxx\r\n", 1)
	r := g.newRequest(t, http.MethodPost, editsPath, io.MultiReader(strings.NewReader(head), largeImage(size, true), strings.NewReader("\r\n--xxx--\r\n")))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=xxx")
	if images := imagesOf(t, do(t, r)); len(images) != 3 {
		t.Errorf("%d images", len(images))
	}
	sum := sha256.New()
	_, _ = io.Copy(sum, largeImage(size, true))
	for range 3 {
		if got, want := <-digests, digest(sum); got != want {
			t.Errorf("an image with the digest %s arrived, want %s", got, want)
		}
	}
	isEmpty(t, dir)
}

// What a header asks for while images are still being drawn is told of those that are
// ready.
func TestPlaceholdersOfSeveralImages(t *testing.T) {
	var calls atomic.Int32
	u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
		if n := calls.Add(1); n > 1 && n < 14 {
			overloaded(w, r)
			return
		}
		drawn(w, r)
	})
	var all []string
	for _, name := range publicNames {
		all = append(all, "{http.gemini."+name+"}")
	}
	g := run(t, `header >X-Seen "`+strings.Join(all, " ")+`"`+"\n"+
		gemini(place("first", u, ownKey(t, "first", "studio")), retry("attempts 20", hasty, "budget off")))
	for range 10 {
		calls.Store(0)
		s := g.post(t, imagesPath, drawSeveral(4))
		if images := imagesOf(t, s); len(images) != 4 {
			t.Errorf("%d images", len(images))
		}
		if got, want := s.Header.Get("X-Seen"), imageModel+" images.generations first studio "; !strings.HasPrefix(got, want) {
			t.Errorf("the header says %q", got)
		}
	}
}

// A call that was not tried again may be tried again by its client, however many
// images it is for.
func TestSeveralImagesWithoutRetries(t *testing.T) {
	u := scripted(t, overloaded)
	g := inFront(t, u)
	for _, n := range []int{1, 2} {
		s := g.post(t, imagesPath, drawSeveral(n))
		s.failsAsOpenAI(t, 503, "unavailable", "overloaded")
		if should, told := s.Header["X-Should-Retry"]; told {
			t.Errorf("X-Should-Retry %q for %d images", should, n)
		}
	}
	u.play(drawn)
	imagesOf(t, g.post(t, imagesPath, drawSeveral(3)))
	if told := g.stories(t); len(told) > 0 {
		t.Errorf("the log says that calls took several attempts: %v", told)
	}
}
