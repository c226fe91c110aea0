// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

const interactionsPath = "/v1beta/interactions"

// act is what a client of the Interactions API sends.
func act(members ...string) string {
	return completed(`{"model":"`+imageModel+`"}`, append([]string{`"input":"` + prompt + `"`}, members...)...)
}

var imageAlone = `"response_modalities":["image"]`

// What interactions answer (wire §9).
var (
	actImage   = `{"type":"image","mime_type":"image/png","data":"iVBORw0KGgo="}`
	actDrawing = acting("i1", "completed", actImage)
	actStarted = `{"interaction":{"id":"i1","status":"in_progress","object":"interaction"},"event_type":"interaction.created"}`
	actStep    = `{"index":0,"step":{"type":"model_output"},"event_type":"step.start"}`
	actText    = `{"index":0,"delta":{"text":"Here is","type":"text"},"event_type":"step.delta"}`
	actPicture = `{"index":0,"delta":` + actImage + `,"event_type":"step.delta"}`
	actEnded   = `{"interaction":{"id":"i1","status":"completed","object":"interaction","usage":{"total_input_tokens":10,"total_output_tokens":20,"total_tokens":30}},"event_type":"interaction.completed"}`
)

// acting is an interaction with one step of the model's.
func acting(id, status, content string) string {
	return `{"id":"` + id + `","status":"` + status + `","object":"interaction","model":"` + imageModel + `",` +
		`"usage":{"total_input_tokens":10,"total_output_tokens":20,"total_tokens":30},` +
		`"steps":[{"type":"thought","signature":"c2ln"},{"type":"model_output","content":[` + content + `]}]}`
}

// actError is an error of the Interactions API: a word, and no status.
func actError(code string) string { return `{"error":{"code":"` + code + `","message":"No."}}` }

func actEvent(code string) string {
	return `{"event_type":"error","error":{"code":"` + code + `","message":"No."}}`
}

// Recorded interactions go through untouched, unless an image was asked for and
// nothing else, and there is none.
func TestInteractions(t *testing.T) {
	dir := fixtures(t)
	u := scripted(t, nil)
	g := inFront(t, u)
	for _, c := range []struct {
		fixture, body string
		reason        string
	}{
		{"interactions_ok_image.json", act(imageAlone), ""},
		{"interactions_ok_text.json", act(), ""},
		{"interactions_ok_text.json", act(`"response_modalities":["text","image"]`), ""},
		{"interactions_refusal_text.json", act(), ""},
		{"interactions_refusal_text.json", act(imageAlone), "NO_IMAGE"},
		{"interactions_refusal_text.json", act(`"response_format":{"type":"image","aspect_ratio":"16:9"}`), "NO_IMAGE"},
		{"interactions_refusal_text.json", act(`"response_format":[{"type":"text"},{"type":"image"}]`), ""},
		{"interactions_stream_text.sse", act(`"stream":true`), ""},
		{"interactions_stream_text.sse", act(`"stream":true`, imageAlone), "NO_IMAGE"},
	} {
		t.Run(c.fixture+" "+c.body[len(act())-1:], func(t *testing.T) {
			kind, answer := jsonType, readFile(t, filepath.Join(dir, c.fixture))
			if strings.HasSuffix(c.fixture, ".sse") {
				kind = eventType
			}
			u.play(answers(200, kind, answer))
			s := g.post(t, interactionsPath, c.body)
			if r := u.only(t); r.URI != interactionsPath || string(r.Body) != c.body || r.Header.Get("X-Goog-Api-Key") != upstreamKey {
				t.Errorf("the upstream received %s %v %s", r.URI, r.Header, r.Body)
			}
			if c.reason != "" {
				s.fails(t, 400, c.reason)
				return
			}
			s.exactly(t, 200, answer)
			if got := s.Header.Get("Content-Type"); got != kind {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
}

// What a filter has stopped is a block in whatever form it is told, and is asked for
// once.
func TestBlockedInteractions(t *testing.T) {
	for _, c := range []struct {
		code, class string
		isGuarded   bool
	}{
		{"safety", blockedClass, true},
		{"content_blocked", blockedClass, true},
		{"image_safety", blockedClass, true},
		{"prohibited_content", forbiddenClass, true},
		{"image_prohibited_content", forbiddenClass, true},
		{"blocklist", forbiddenClass, true},
		{"spii", forbiddenClass, true},
		{"recitation", blockedClass, false},
		{"no_image", blockedClass, false},
		{"language", blockedClass, false},
	} {
		failed := strings.Replace(actDrawing, `"completed"`, `"failed","errors":[{"code":"`+c.code+`","message":"No."}]`, 1)
		for form, plays := range map[string]struct {
			http.HandlerFunc
			body string
		}{
			"status":       {answers(400, jsonType, actError(c.code)), act(imageAlone)},
			"failed":       {gives(strings.Replace(failed, actImage, "", 1)), act(imageAlone)},
			"event":        {events(actStarted, actEvent(c.code)), act(imageAlone, `"stream":true`)},
			"behind words": {events(actStarted, actStep, actText, actEvent(c.code)), act(imageAlone, `"stream":true`)},
		} {
			t.Run(c.code+"/"+form, func(t *testing.T) {
				u := scripted(t, plays.HandlerFunc)
				g := inFront(t, u, guarding)
				e := g.post(t, interactionsPath, plays.body).fails(t, 400, strings.ToUpper(c.code))
				if got := e.metadata("class"); got != c.class {
					t.Errorf("class %s, want %s", got, c.class)
				}
				u.only(t)
				u.play(gives(actDrawing))
				s := g.post(t, interactionsPath, act(imageAlone))
				if !c.isGuarded {
					s.exactly(t, 200, actDrawing)
					return
				}
				s.repeats(t, c.class, "output", strings.ToUpper(c.code))
				u.untouched(t)
				if s := g.post(t, interactionsPath, act(imageAlone, `"previous_interaction_id":"i0"`)); s.StatusCode != 200 {
					t.Errorf("the same words in another conversation: status %d", s.StatusCode)
				}
			})
		}
	}
}

// A block behind content is told in an event, as the API tells of its own; what was
// before it stays as it is.
func TestLateBlockOfAnInteraction(t *testing.T) {
	sent := event(actStarted) + event(actStep) + event(actText)
	for _, c := range []struct {
		name, body, option string
		chunks             []string
		want               string
	}{
		{"by the upstream", act(`"stream":true`), "", []string{actStarted, actStep, actText, actEvent("safety")}, sent + event(actEvent("safety"))},
		{"behind an image", act(imageAlone, `"stream":true`), "", []string{actStarted, actStep, actPicture, actEvent("prohibited_content")}, event(actStarted) + event(actStep) + event(actPicture) + event(actEvent("prohibited_content"))},
		{"no image", act(imageAlone, `"stream":true`), "stream_commit text", []string{actStarted, actStep, actText, actEnded}, sent + event(actEnded)},
		{"no image, let through", act(imageAlone, `"stream":true`), "no_image pass", []string{actStarted, actStep, actText, actEnded}, sent + event(actEnded)},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := strings.Replace(c.body, imageModel, textModel, 1)
			if strings.Contains(c.body, imageAlone) {
				body = c.body
			}
			u := scripted(t, events(c.chunks...))
			g := inFront(t, u, guarding, c.option)
			s := g.post(t, interactionsPath, body)
			behind, isWhole := strings.CutPrefix(string(s.body), c.want)
			if s.StatusCode != 200 || s.err != nil || !isWhole {
				t.Fatalf("status %d (%v): %s", s.StatusCode, s.err, s.body)
			}
			told := strings.TrimSuffix(strings.TrimPrefix(behind, "data: "), "\r\n\r\n")
			switch c.name {
			case "no image":
				if !strings.HasPrefix(told, `{"event_type":"error","error":{"code":"no_image","message":"NO_IMAGE: `) || strings.Contains(told, "\n") {
					t.Errorf("behind the answer: %q", behind)
				}
			default:
				if behind != "" {
					t.Errorf("behind the answer: %q", behind)
				}
			}
			u.play(gives(actDrawing))
			if again := g.post(t, interactionsPath, body); strings.Contains(c.want, `"error"`) {
				again.fails(t, 400, "REPEATED_BLOCK")
				u.untouched(t)
			}
		})
	}
}

// The words of the Interactions API mean what Google's other errors mean.
func TestErrorsOfInteractions(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		code   string
		went   string
	}{
		{"limit", 429, "rate_limit_exceeded", "first second"},
		{"daily limit", 429, "quota_exceeded", "first second"},
		{"overload", 503, "service_unavailable", "first second"},
		{"failure", 500, "api_error", "first second"},
		{"key", 401, "authentication", "first second"},
		{"money", 402, "payment_required", "first second"},
		{"request", 400, "invalid_request", "first"},
		{"field", 400, "parameter_unknown", "first"},
		{"model", 404, "model_not_found", "first"},
	} {
		for form, stream := range map[string]string{"unary": "", "stream": `"stream":true`} {
			t.Run(c.name+"/"+form, func(t *testing.T) {
				plays, body := answers(c.status, jsonType, actError(c.code)), act()
				if stream != "" {
					plays, body = events(actStarted, actEvent(c.code)), act(stream)
				}
				first, second := scripted(t, plays), scripted(t, gives(actDrawing))
				g := inFrontOf(t, []string{place("first", first, ownKey(t, "first")), place("second", second, ownKey(t, "second"))})
				s := g.post(t, interactionsPath, body)
				went(t, c.went, first, second)
				switch {
				case c.went == "first second":
					s.exactly(t, 200, actDrawing)
				case stream == "":
					s.exactly(t, c.status, actError(c.code))
				case s.StatusCode != c.status || !strings.Contains(string(s.body), `"code":"`+c.code+`"`):
					t.Errorf("status %d: %s", s.StatusCode, s.body)
				}
				second.play(gives(actDrawing))
				first.play(gives(actDrawing))
				g.post(t, interactionsPath, body)
				if isSpent := c.code == "quota_exceeded" || c.code == "authentication"; isSpent {
					first.untouched(t)
				}
			})
		}
	}
}

// A conversation stays where it has begun: at the upstream, and with the project,
// that its interactions belong to.
func TestInteractionsStayWhereTheyAre(t *testing.T) {
	first, second := scripted(t, overloaded), scripted(t, gives(acting("far", "completed", actImage)))
	places := []string{place("first", first, ownKey(t, "first")), pool(t, "second", second, "a", "b")}
	g := inFrontOf(t, places, retry("attempts 2", hasty))
	for _, id := range []string{"far", "farther"} { // with the keys in turn
		second.play(gives(acting(id, "completed", actImage)))
		if s := g.post(t, interactionsPath, act()); s.StatusCode != 200 {
			t.Fatalf("status %d", s.StatusCode)
		}
	}
	second.play(events(strings.ReplaceAll(actStarted, "i1", "farthest"), actStep, actPicture, strings.ReplaceAll(actEnded, "i1", "farthest")))
	g.post(t, interactionsPath, act(`"stream":true`))

	goOn := func(id string, play http.HandlerFunc) []visit {
		t.Helper()
		first.play(play)
		second.play(play)
		g.post(t, interactionsPath, act(`"previous_interaction_id":"`+id+`"`))
		return visits(first, second)
	}
	for range 2 {
		for id, key := range map[string]string{"far": "k1", "farther": "k2", "farthest": "k1"} {
			for range 3 {
				if all := goOn(id, gives(actDrawing)); len(all) != 1 || all[0].at != 1 || keyName(all[0].request) != key {
					t.Errorf("%s went on at %v with %s", id, all, keysUsed(first, second))
				}
			}
			if all := goOn(id, overloaded); len(all) != 2 || all[1].at != 1 || keyName(all[1].request) != key {
				t.Errorf("%s went on with %s", id, keysUsed(first, second))
			}
		}
		if all := goOn("unknown", overloaded); len(all) != 2 || all[0].at != 0 || all[1].at != 0 {
			t.Errorf("what nobody knows went to %s", keysUsed(first, second))
		}
		g.load(t, several(places, retry("attempts 2", hasty))+"header X-Reloaded 1\n")
	}
}

// Interactions count for the limits of their project and model.
func TestInteractionsAreLimited(t *testing.T) {
	u := scripted(t, gives(actDrawing))
	g := behind(t, u, limit("rpm 2", "ipm 10", "tpm 1000"))
	for range 2 {
		g.post(t, interactionsPath, act(imageAlone)).exactly(t, 200, actDrawing)
	}
	g.uses(t, "ipm", 2)
	g.uses(t, "tpm", 20) // as the answers say
	s := g.post(t, interactionsPath, act(`"stream":true`))
	if e := parseError(t, s.body); s.StatusCode != 429 || !strings.HasPrefix(e.Message, "RATE_LIMITED: ") || s.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, error %+v", s.StatusCode, e)
	}
	if n := len(u.received()); n != 2 {
		t.Errorf("the upstream received %d requests", n)
	}
}

// Interactions are never said in another form, and go to the one of Google's APIs
// that they are written for.
func TestInteractionsKeepTheirForm(t *testing.T) {
	const ofVertex = "/v1beta1/projects/p/locations/l/interactions"
	aggregator, studio, cloud := scripted(t, overloaded), scripted(t, overloaded), scripted(t, overloaded)
	g := inFrontOf(t, append([]string{place("aggregator", aggregator, "format openai", ownKey(t, "aggregator"))}, twoAPIs(t, studio, cloud)...), retry("attempts 3", hasty))
	for path, want := range map[string]string{interactionsPath: "second second second", "/v1/interactions": "second second second", ofVertex: "third third third"} {
		for _, u := range []*upstream{aggregator, studio, cloud} {
			u.play(overloaded)
		}
		g.post(t, path, act()).exactly(t, 503, googleErrorJSON)
		for _, v := range went(t, want, aggregator, studio, cloud) {
			if string(v.Body) != act() {
				t.Errorf("%s arrived as %s", path, v.Body)
			}
		}
	}
	g.load(t, gemini(place("aggregator", aggregator, "format openai")))
	aggregator.play(gives(actDrawing))
	for _, path := range []string{interactionsPath, ofVertex} {
		g.post(t, path, act()).fails(t, 400, "UNSUPPORTED_FIELD")
	}
	aggregator.untouched(t)
}
