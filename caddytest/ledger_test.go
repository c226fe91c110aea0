// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// overseen is a watched Caddy whose events are heard, too.
type overseen struct {
	*watched
	asked int // how often for a text; see texts
}

// oversee starts a Caddy that shows all it has to tell. What is counted by day
// begins anew at midnight Pacific time, in the middle of no test.
func oversee(t *testing.T, directives string) *overseen {
	t.Helper()
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	if now := time.Now().In(pacific); now.Add(3*time.Minute).Day() != now.Day() {
		t.Skip("it is nearly midnight in California")
	}
	g := &overseen{watched: &watched{start(t, "respond 204\n"), freeAddress(t)}}
	g.load(t, directives)
	return g
}

// load loads directives as a reload does.
func (g *overseen) load(t *testing.T, directives string) {
	t.Helper()
	g.loadWith(t, "admin "+g.admin+"\n\tevents {\n\ton * caddytest "+g.dir+"\n}", "metrics /metrics\n"+directives)
}

// restart stops Caddy and starts it again.
func (g *overseen) restart(t *testing.T, directives string) {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	g.load(t, directives)
}

// says are the events of a name that have been heard so far.
func (g *overseen) says(name string) (all []caddy.Event) {
	book, _ := heard.LoadOrStore(g.dir, new(eventBook))
	for _, e := range book.(*eventBook).all() {
		if e.Name() == name {
			all = append(all, e)
		}
	}
	return all
}

// sum adds up the series of a metric that have a label.
func sum(counters map[string]float64, metric, label string) (sum float64) {
	for series, value := range counters {
		if name, labels, _ := strings.Cut(series, "{"); name == metric && strings.Contains(labels, label) {
			sum += value
		}
	}
	return sum
}

// ledgerLine is a row of the ledger. Amounts are compared as they are written.
type ledgerLine struct {
	Project  string         `json:"project"`
	Upstream string         `json:"upstream"`
	Model    string         `json:"model"`
	Calls    int            `json:"calls"`
	Attempts int            `json:"attempts"`
	Retries  int            `json:"retries"`
	Images   int            `json:"images"`
	Blocked  int            `json:"blocked"`
	Blocks   map[string]int `json:"blocks"`
	Ratio    float64        `json:"block_ratio"`
	Tokens   struct {
		Input    int `json:"input"`
		Output   int `json:"output"`
		Thinking int `json:"thinking"`
	} `json:"tokens"`
	Cost        json.Number  `json:"cost_usd"`
	CostBlocked json.Number  `json:"cost_blocked_usd"`
	Each        *json.Number `json:"cost_per_image_usd"`
	Unpriced    int          `json:"unpriced"`
}

// String is short where nothing has happened.
func (l ledgerLine) String() string {
	s := fmt.Sprintf("%s: %d calls", l.Model, l.Calls)
	for _, n := range []struct {
		n    int
		name string
	}{{l.Retries, "retries"}, {l.Images, "images"}, {l.Unpriced, "unpriced"}} {
		if n.n > 0 {
			s += fmt.Sprintf(", %d %s", n.n, n.name)
		}
	}
	if l.Blocked > 0 {
		s += fmt.Sprintf(", %d blocked %v (%.2f) for %s", l.Blocked, l.Blocks, l.Ratio, l.CostBlocked)
	}
	s += fmt.Sprintf(", %d+%d+%d tokens, %s USD", l.Tokens.Input, l.Tokens.Output, l.Tokens.Thinking, l.Cost)
	if l.Each != nil {
		s += fmt.Sprintf(", %s each", *l.Each)
	}
	return s
}

// ledger are the rows of a project; "" is any.
func (g *watched) ledger(t *testing.T, project string) (all []ledgerLine) {
	t.Helper()
	var page struct {
		Today []ledgerLine `json:"today"`
	}
	g.ask(t, http.MethodGet, "/gemini/status", &page)
	for _, l := range page.Today {
		if project == "" || l.Project == project {
			all = append(all, l)
		}
	}
	return all
}

// books waits until the ledger has these rows for a project: a call is booked
// when its client has the answer. Rows of an upstream begin with its name.
func (g *watched) books(t *testing.T, project string, want ...string) {
	t.Helper()
	got := make([]string, 0, len(want))
	for range 200 {
		got = got[:0]
		for _, l := range g.ledger(t, project) {
			got = append(got, l.Upstream+" "+l.String())
		}
		if slices.Equal(got, want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the ledger of %q has\n%s\nwant\n%s", project, strings.Join(got, "\n"), strings.Join(want, "\n"))
}

const (
	lightModel  = "gemini-2.5-flash-image"
	imagenModel = "imagen-4.0-generate-001"
	imagenPath  = "/v1beta/models/" + imagenModel + ":predict"
	imagenJSON  = `{"instances":[{"prompt":"` + prompt + `"}],"parameters":{"sampleCount":2}}`
	plainPath   = "/v1beta/models/" + textModel + ":generateContent"
)

// using is an answer that reports other tokens.
func using(answer, tokens string) string {
	head, _, _ := strings.Cut(answer, `,"usageMetadata"`)
	return strings.TrimSuffix(head, "}") + `,"usageMetadata":{` + tokens + `}}`
}

// What Google's answers report: see wire §3 and §5.
const (
	drawnTokens    = `"promptTokenCount":16,"candidatesTokenCount":1518,"totalTokenCount":1708,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1120}],"thoughtsTokenCount":174`
	mirroredTokens = `"promptTokenCount":18,"candidatesTokenCount":220,"totalTokenCount":238,"thoughtsTokenCount":220`
	begunTokens    = `"promptTokenCount":16,"totalTokenCount":116,"thoughtsTokenCount":100`
	withheldTokens = `"promptTokenCount":18,"candidatesTokenCount":1120,"totalTokenCount":1358,"candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":1120}],"thoughtsTokenCount":220`
)

// booking is what the ledger makes of a call. Costs are computed from Google's list
// prices (wire §10): for a million tokens, the 3 Pro takes 2 USD in, 12 out and 120
// for images, the 2.5 Flash 0.30 and 2.50.
type booking struct {
	row            string
	usd            float64
	images, tokens float64
}

var (
	drawnRow   = booking{"1 calls, 1 images, 16+1518+174 tokens, 0.141296 USD, 0.141296 each", 0.141296, 1, 1708}
	guessedRow = booking{"1 calls, 1 images, 16+1290+0 tokens, 0.136472 USD, 0.136472 each", 0.136472, 1, 1306}
	stoppedRow = booking{"1 calls, 1 blocked map[IMAGE_SAFETY:1] (1.00) for 0.002676, 18+0+220 tokens, 0.002676 USD", 0.002676, 0, 238}
	chatRow    = booking{"1 calls, 10+20+0 tokens, 0.000053 USD", 0.000053, 0, 30}
	failedRow  = booking{"1 calls, 0+0+0 tokens, 0 USD", 0, 0, 0}
)

// What the other APIs answer.
const (
	pictureJSON  = `{"b64_json":"iVBORw0KGgo="}`
	paintingJSON = `{"bytesBase64Encoded":"iVBORw0KGgo="}`
	saidJSON     = `{"choices":[{"message":{"content":"Here"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}}`
	filteredJSON = `{"choices":[{"message":{},"finish_reason":"content_filter"}],"usage":{"prompt_tokens":10,"total_tokens":10}}`
	actedJSON    = `{"status":"completed","usage":{"total_input_tokens":10,"total_output_tokens":20,"total_tokens":30}}`
)

// besideBlockJSON is an answer of two images, of which a filter has stopped one: an
// error to the client, who gets neither.
var besideBlockJSON = using(`{"candidates":[{"finishReason":"IMAGE_SAFETY","index":0},`+
	`{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]},"finishReason":"STOP","index":1}]}`, drawnTokens)

// gives plays a complete answer.
func gives(answer string) http.HandlerFunc { return answers(200, jsonType, answer) }

// bookable is a call. Without a model there is no row of it.
type bookable struct {
	name, path, body string // promptJSON, unless it says otherwise
	plays            http.HandlerFunc
	model            string
	want             booking
}

// bookables are calls of every kind. Some scripts can be played only once.
func bookables() []bookable {
	return []bookable{
		{"image", unaryPath, "", gives(using(imageJSON, drawnTokens)), imageModel, drawnRow},
		{"stream", streamPath, "", events(using(textChunk, begunTokens), imageChunk, using(lastChunk, drawnTokens)), imageModel, drawnRow},
		{"array", arrayPath, "", gives("[" + imageChunk + "\n,\r\n" + using(lastChunk, drawnTokens) + "]"), imageModel, drawnRow},
		{"Vertex", vertexPath, "", gives(using(imageJSON, drawnTokens)), imageModel, drawnRow},
		{"image of unknown share", unaryPath, "", drawn, imageModel, guessedRow},
		{"text", plainPath, "", gives(textJSON), textModel, booking{"1 calls, 16+1290+0 tokens, 0.0032298 USD", 0.0032298, 0, 1306}},
		{"no price", "/v1beta/models/of-tomorrow:generateContent", "", drawn, "of-tomorrow", booking{"1 calls, 1 images, 1 unpriced, 16+1290+0 tokens, 0 USD, 0 each", 0, 1, 1306}},
		{"no generate call", "/v1beta/models/" + textModel + ":countTokens", "", gives(`{"totalTokens":9}`), "", booking{}},

		{"IMAGE_SAFETY", unaryPath, "", gives(blockedJSON), imageModel, stoppedRow},
		{"mirrored thinking", unaryPath, "", gives(using(blockedJSON, mirroredTokens)), imageModel, stoppedRow},
		{"image that was withheld", unaryPath, "", gives(using(blockedJSON, withheldTokens)), imageModel, booking{stoppedRow.row, stoppedRow.usd, 0, 1358}},
		{"image beside a block", unaryPath, "", gives(besideBlockJSON), imageModel, booking{"1 calls, 1 blocked map[IMAGE_SAFETY:1] (1.00) for 0.141296, 16+1518+174 tokens, 0.141296 USD", 0.141296, 0, 1708}},
		{"image beside a block, then an image", unaryPath, "", inTurn(gives(strings.Replace(besideBlockJSON, "IMAGE_SAFETY", "IMAGE_OTHER", 1)), drawn), imageModel, booking{"1 calls, 1 retries, 1 images, 32+2808+174 tokens, 0.277768 USD, 0.277768 each", 0.277768, 1, 3014}},
		{"blocked prompt", unaryPath, "", gives(promptBlockedJSON), imageModel, booking{"1 calls, 1 blocked map[PROHIBITED_CONTENT:1] (1.00) for 0.000036, 18+0+0 tokens, 0.000036 USD", 0.000036, 0, 18}},
		{"late block", textPath, "", events(textChunk, stopped("SAFETY")), textModel, booking{"1 calls, 1 blocked map[SAFETY:1] (1.00) for 0.0005554, 18+0+220 tokens, 0.0005554 USD", 0.0005554, 0, 238}},
		{"image before a block", streamPath, "", events(imageChunk, using(stopped("SAFETY"), drawnTokens)), imageModel, booking{"1 calls, 1 images, 1 blocked map[SAFETY:1] (1.00) for 0.141296, 16+1518+174 tokens, 0.141296 USD, 0.141296 each", 0.141296, 1, 1708}},

		{"retry", unaryPath, "", inTurn(overloaded, overloaded, drawn), imageModel, booking{"1 calls, 2 retries, 1 images, 16+1290+0 tokens, 0.136472 USD, 0.136472 each", 0.136472, 1, 1306}},
		{"retry of a block", unaryPath, "", inTurn(gives(stopped("IMAGE_OTHER")), drawn), imageModel, booking{"1 calls, 1 retries, 1 images, 34+1290+220 tokens, 0.139148 USD, 0.139148 each", 0.139148, 1, 1544}},
		{"retry in vain", unaryPath, "", gives(stopped("IMAGE_OTHER")), imageModel, booking{"1 calls, 1 retries, 1 blocked map[IMAGE_OTHER:1] (1.00) for 0.002676, 36+0+440 tokens, 0.005352 USD", 0.005352, 0, 476}},
		{"failure", unaryPath, "", overloaded, imageModel, booking{"1 calls, 2 retries, 0+0+0 tokens, 0 USD", 0, 0, 0}},
		{"bad request", unaryPath, "", answers(400, jsonType, badRequestJSON), imageModel, failedRow},
		{"limit", unaryPath, "", answers(429, jsonType, googleError("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.")), imageModel, failedRow},

		{"OpenAI chat", openAIChatPath, chatJSON(textModel), gives(saidJSON), textModel, chatRow},
		{"OpenAI chat with a prefix", openAIChatPath, chatJSON("models/" + textModel), gives(saidJSON), textModel, chatRow},
		{"OpenAI block", openAIChatPath, chatJSON(textModel), gives(filteredJSON), textModel, booking{"1 calls, 1 blocked map[CONTENT_FILTER:1] (1.00) for 0.000003, 10+0+0 tokens, 0.000003 USD", 0.000003, 0, 10}},
		{"OpenAI images", openAIDrawPath, `{"model":"` + lightModel + `","prompt":"` + prompt + `","n":2}`, gives(using(imageJSON, drawnTokens)), lightModel, booking{"1 calls, 2 images, 32+3036+348 tokens, 0.0700696 USD, 0.0350348 each", 0.0700696, 2, 3416}},
		{"Imagen", imagenPath, imagenJSON, gives(`{"predictions":[` + paintingJSON + "," + paintingJSON + "]}"), imagenModel, booking{"1 calls, 2 images, 0+0+0 tokens, 0.08 USD, 0.04 each", 0.08, 2, 0}},
		{"Imagen, one filtered", imagenPath, imagenJSON, gives(`{"predictions":[` + paintingJSON + `,{"raiFilteredReason":"Filtered."}]}`), imagenModel, booking{"1 calls, 1 images, 0+0+0 tokens, 0.04 USD, 0.04 each", 0.04, 1, 0}},
		{"Interactions", "/v1beta/interactions", `{"model":"` + textModel + `","input":"` + prompt + `"}`, gives(actedJSON), textModel, chatRow},
	}
}

// Whatever a call is, the status page, the metrics, the access log and the
// placeholders tell the same of it.
func TestLedgerOfOneCall(t *testing.T) {
	u := scripted(t, nil)
	g := oversee(t, accessLog+"log_append placeholder_cost {http.gemini.cost}\n"+
		gemini(place("ledger", u, "api_key {env.CADDYTEST_KEY} {header.X-Project}"), quickly))
	metrics := func() map[string]float64 {
		all := g.counters(t)
		return map[string]float64{
			"USD":    sum(all, "cost_usd_total", `upstream="ledger"`),
			"images": sum(all, "images_total", `upstream="ledger"`),
			"tokens": sum(all, "tokens_total", "kind="),
			"calls":  sum(all, "requests_total", `upstream="ledger"`),
		}
	}
	for _, c := range bookables() {
		t.Run(c.name, func(t *testing.T) {
			u.play(c.plays)
			before := metrics()
			line := g.accessLineOf(t, func() { g.post(t, c.path, cmp.Or(c.body, promptJSON), "X-Project", c.name) })
			if c.model == "" {
				g.books(t, c.name)
				return
			}
			g.books(t, c.name, "ledger "+c.model+": "+c.want.row)
			fields, _ := line["gemini"].(map[string]any)
			if got := fmt.Sprint(fields["cost"], fields["images"], fields["tokens"], line["placeholder_cost"]); got != fmt.Sprint(c.want.usd, c.want.images, c.want.tokens, c.want.usd) {
				t.Errorf("the access log says %s", got)
			}
			rose := metrics()
			for name, then := range before {
				rose[name] = math.Round((rose[name]-then)*1e9) / 1e9
			}
			if want := map[string]float64{"USD": c.want.usd, "images": c.want.images, "tokens": c.want.tokens, "calls": 1}; !maps.Equal(rose, want) {
				t.Errorf("the metrics rose by %v, want %v", rose, want)
			}
		})
	}
}

// Google's own answers cost what wire §10 says of an image.
func TestLedgerOfRecordedAnswers(t *testing.T) {
	dir := fixtures(t)
	u := scripted(t, nil)
	g := oversee(t, gemini(place("ledger", u, "api_key {env.CADDYTEST_KEY} {header.X-Project}")))
	for fixture, want := range map[string]string{
		"image_ok_gemini3_pro_text_and_image.json":    "1 calls, 1 images, 14+1283+174 tokens, 0.138472 USD, 0.138472 each",
		"image_ok_gemini25_flash_text_and_image.json": "1 calls, 1 images, 17+1336+0 tokens, 0.0388201 USD, 0.0388201 each",
		"image_ok_gemini31_flash_lite.json":           "1 calls, 1 images, 5+1518+0 tokens, 0.03419825 USD, 0.03419825 each",
		"blocked_image_safety_gemini3_pro.json":       "1 calls, 1 blocked map[IMAGE_SAFETY:1] (1.00) for 0.002676, 18+0+220 tokens, 0.002676 USD",
		"blocked_no_image_no_content.json":            "1 calls, 1 blocked map[NO_IMAGE:1] (1.00) for 0, 0+0+0 tokens, 0 USD",
	} {
		t.Run(fixture, func(t *testing.T) {
			model := imageModel
			for part, name := range map[string]string{"gemini25": lightModel, "no_image": lightModel, "gemini31": "gemini-3.1-flash-lite-image"} {
				if strings.Contains(fixture, part) {
					model = name
				}
			}
			u.play(answers(200, jsonType, readFile(t, dir+"/"+fixture)))
			g.post(t, "/v1beta/models/"+model+":generateContent", promptJSON, "X-Project", fixture)
			g.books(t, fixture, "ledger "+model+": "+want)
		})
	}
}

// The ledger has a row for each project, upstream and model, in which many calls
// come together. A call counts where it has ended, an attempt where it was made.
func TestLedgerOfManyCalls(t *testing.T) {
	first, second := scripted(t, drawn), scripted(t, drawn)
	g := oversee(t, several([]string{
		place("first", first, "api_key {env.CADDYTEST_KEY} {header.X-Project}"),
		place("second", second, "api_key {env.CADDYTEST_KEY} {header.X-Project}", "price gemini-3-pro-* 0.05", "model "+lightModel+" drawing-light"),
	}))
	post := func(project, path string) { g.post(t, path, promptJSON, "X-Project", project) }
	lightPath := "/v1beta/models/" + lightModel + ":generateContent"
	post("zoo", unaryPath)
	post("zoo", unaryPath)
	first.play(inTurn(answers(200, jsonType, blockedJSON), answers(200, jsonType, blockedJSON), drawn))
	post("acme", unaryPath)
	post("zoo", unaryPath)
	post("zoo", unaryPath)
	first.play(overloaded)
	post("zoo", unaryPath) // goes on to the second
	post("zoo", lightPath) // there, the model has another name and no price
	second.play(answers(200, jsonType, blockedJSON))
	post("zoo", unaryPath)

	g.books(t, "acme", "first "+imageModel+": 1 calls, 1 blocked map[IMAGE_SAFETY:1] (1.00) for 0.002676, 18+0+220 tokens, 0.002676 USD")
	g.books(t, "zoo",
		"first "+lightModel+": 0 calls, 0+0+0 tokens, 0 USD",
		"first "+imageModel+": 4 calls, 3 images, 1 blocked map[IMAGE_SAFETY:1] (0.25) for 0.002676, 66+3870+220 tokens, 0.412092 USD, 0.137364 each",
		"second drawing-light: 1 calls, 1 retries, 1 images, 1 unpriced, 16+1290+0 tokens, 0 USD, 0 each",
		"second "+imageModel+": 2 calls, 2 retries, 1 images, 1 blocked map[IMAGE_SAFETY:1] (0.50) for 0, 34+1290+220 tokens, 0.05 USD, 0.05 each",
	)
	for _, l := range g.ledger(t, "zoo") {
		if want := map[string]int{"first " + lightModel: 1, "first " + imageModel: 6}[l.Upstream+" "+l.Model]; want > 0 && l.Attempts != want {
			t.Errorf("%s %s: %d attempts, want %d", l.Upstream, l.Model, l.Attempts, want)
		}
	}
	var spent []string
	for _, s := range g.upstreams(t) {
		spent = append(spent, fmt.Sprint(s["name"], " ", s["spent_usd"]))
	}
	if got := strings.Join(spent, ", "); got != "first 0.414768, second 0.05" {
		t.Errorf("spent: %s", got)
	}
}

// The answer that the client gets is the one with which a call has ended, though
// another came later.
func TestLedgerOfAnEarlierAnswer(t *testing.T) {
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, overloaded)
	g := oversee(t, several([]string{
		place("first", first, ownKey(t, "first")), accepting("second", second, ownKey(t, "second")),
	}, retry("attempts 2", hasty)))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	went(t, "first second", first, second)
	g.books(t, "",
		"first "+imageModel+": 1 calls, 1 blocked map[IMAGE_SAFETY:1] (1.00) for 0.002676, 18+0+220 tokens, 0.002676 USD",
		"second "+imageModel+": 0 calls, 1 retries, 0+0+0 tokens, 0 USD",
	)
}

// What is not sent is not booked.
func TestLedgerOfRefusals(t *testing.T) {
	u := scripted(t, answers(200, jsonType, blockedJSON))
	g := behind(t, u, guarding, limitOf(textModel, "rpd 1"))
	g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
	for range 3 {
		g.post(t, unaryPath, promptJSON).fails(t, 400, "REPEATED_BLOCK")
	}
	u.play(answers(200, jsonType, textJSON))
	g.post(t, plainPath, promptJSON).exactly(t, 200, textJSON)
	if s := g.post(t, plainPath, promptJSON); s.StatusCode != 429 {
		t.Errorf("status %d", s.StatusCode)
	}
	g.books(t, "studio",
		"first "+textModel+": 1 calls, 16+1290+0 tokens, 0.0032298 USD",
		"first "+imageModel+": 1 calls, 1 blocked map[IMAGE_SAFETY:1] (1.00) for 0.002676, 18+0+220 tokens, 0.002676 USD",
	)
}

// A client that leaves has had what was sent by then: it is booked as far as the
// answer has told of it.
func TestLedgerOfClientsThatLeave(t *testing.T) {
	const begun = `"promptTokenCount":16,"candidatesTokenCount":5,"totalTokenCount":21`
	for door, directives := range map[string]func(u *upstream) string{
		"directive": func(u *upstream) string { return gemini(place("first", u, "api_key {env.CADDYTEST_KEY} studio")) },
		"transport": func(u *upstream) string {
			return "reverse_proxy " + u.URL + " {\n\ttransport " + gemini(place("first", u, "api_key {env.CADDYTEST_KEY} studio")) + "}\n"
		},
	} {
		t.Run(door, func(t *testing.T) {
			arrived := make(chan struct{}, 2)
			u := scripted(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "stream") {
					w.Header().Set("Content-Type", eventType)
					send(w, event(using(textChunk, begun)))
				}
				arrived <- struct{}{}
				<-r.Context().Done()
			})
			g := oversee(t, directives(u))
			leave := g.leaving(t, unaryPath, promptJSON)
			wait(t, "the call arrives", arrived)
			leave()
			g.books(t, "studio", "first "+imageModel+": 1 calls, 0+0+0 tokens, 0 USD")

			r := g.newRequest(t, http.MethodPost, textPath, strings.NewReader(promptJSON))
			r.Header.Del("X-Goog-Api-Key") // which reverse_proxy would log
			res, err := newTransport(t).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := res.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			g.books(t, "studio",
				"first "+textModel+": 1 calls, 16+5+0 tokens, 0.0000173 USD",
				"first "+imageModel+": 1 calls, 0+0+0 tokens, 0 USD",
			)
		})
	}
}

// Whoever calls with a key of its own has a row without that key, and so have two
// sites that serve one project.
func TestLedgerOfProjects(t *testing.T) {
	u := scripted(t, drawn)
	own := gemini(place("first", u))
	g := oversee(t, "@own header X-Tenant own\nhandle @own {\n"+own+"}\nhandle {\n"+gemini(place("first", u, theKey("studio")))+"}\n")
	g.post(t, unaryPath, promptJSON, as("own")...)
	g.post(t, unaryPath, promptJSON)
	g.post(t, unaryPath+"?key="+otherKey, promptJSON, "X-Tenant", "own", "X-Goog-Api-Key", "")
	g.post(t, unaryPath, promptJSON, as("own")...)
	eventually(t, "four calls are booked", func() bool {
		n := 0
		for _, l := range g.ledger(t, "") {
			n += l.Calls
		}
		return n == 4
	})
	var got []string
	for _, l := range g.ledger(t, "") {
		name, hash, isClient := strings.Cut(l.Project, "-")
		got = append(got, fmt.Sprint(name, " ", l.Calls))
		if isClient && (name != "client" || len(hash) != 12) {
			t.Errorf("a client is called %s", l.Project)
		}
	}
	slices.Sort(got)
	if want := []string{"client 1", "client 2", "studio 1"}; !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
}

// upstreams are those of the status page, as they are.
func (g *watched) upstreams(t *testing.T) []map[string]any {
	t.Helper()
	var page struct {
		Upstreams []map[string]any `json:"upstreams"`
	}
	g.ask(t, http.MethodGet, "/gemini/status", &page)
	slices.SortFunc(page.Upstreams, func(a, b map[string]any) int { return cmp.Compare(fmt.Sprint(a["name"]), fmt.Sprint(b["name"])) })
	return page.Upstreams
}
