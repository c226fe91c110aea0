// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// unknownName is how Google rejects a field (wire §2).
func unknownName(name, at string) string {
	if at != "" {
		at = " at '" + at + "'"
	}
	message := `Invalid JSON payload received. Unknown name \"` + name + `\"` + at + `: Cannot find field.`
	return googleError("INVALID_ARGUMENT", message,
		`{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"x","description":"`+message+`"}]}`)
}

var (
	unknownModalities = unknownName("responseModalities", "generation_config")
	unknownSafety     = unknownName("safetySettings", "")
)

// rejecting plays an error as long as a body, or the query before it, has a word.
func rejecting(word, path, problem string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasPrefix(r.URL.Path, path) && strings.Contains(string(body), word) {
			answers(400, jsonType, problem)(w, r)
			return
		}
		drawn(w, r)
	}
}

// v1Path is where @google/genai calls.
const v1Path = "/v1/models/" + imageModel + ":generateContent"

// What the gateway has added and the upstream rejects is left out, once: the rest
// is as the client wrote it.
func TestRepairLeavesOutWhatWasAdded(t *testing.T) {
	const modalities = `"responseModalities":["TEXT","IMAGE"]`
	settings := completed(promptJSON, `"safetySettings":[`+setting("HARASSMENT")+`]`)
	all := strings.TrimSuffix(strings.TrimPrefix(completedJSON, strings.TrimSuffix(promptJSON, "}")), "}")
	added, _, _ := strings.Cut(all, `,"generationConfig"`)
	configured := completed(promptJSON, `"generationConfig": {"seed" : 7}`)
	for _, c := range []struct {
		name, body, problem string
		word                string // that the upstream rejects
		want                string // that it receives in the end
		repaired            string
	}{
		{
			"modalities", promptJSON, unknownModalities, "responseModalities",
			strings.TrimSuffix(promptJSON, "}") + added + "}", "responseModalities",
		},
		{
			"modalities among others", configured, unknownModalities, "responseModalities",
			strings.TrimSuffix(configured, "}") + added + "}", "responseModalities",
		},
		{
			"modalities of a value", promptJSON, googleError("INVALID_ARGUMENT", "Invalid value at 'generation_config.response_modalities[1]' (type.googleapis.com/x), 16"),
			"responseModalities", strings.TrimSuffix(promptJSON, "}") + added + "}", "responseModalities",
		},
		{
			"settings", promptJSON, unknownSafety, "safetySettings",
			completed(promptJSON, `"generationConfig":{`+modalities+`}`), "safetySettings",
		},
		{
			"settings beside the client's own", settings, googleError("INVALID_ARGUMENT", "Invalid value at 'safety_settings[1].category' (type.googleapis.com/x), 11"),
			"HATE_SPEECH", completed(settings, `"generationConfig":{`+modalities+`}`), "safetySettings",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, rejecting(c.word, "/", c.problem))
			g := inFront(t, u, quickly)
			s := g.post(t, v1Path, c.body)
			s.exactly(t, 200, imageJSON)
			want := `caddy-gemini; next-hop="scripted"; received-status=200; attempts=2; details="repaired by leaving out ` + c.repaired + `"`
			if via := s.Header.Get("Proxy-Status"); via != want {
				t.Errorf("Proxy-Status %q, want %q", via, want)
			}
			all := u.received()
			if len(all) != 2 || !strings.Contains(string(all[0].Body), c.word) {
				t.Fatalf("the upstream received %d requests", len(all))
			}
			if got := string(all[1].Body); got != c.want {
				t.Errorf("the upstream received %s\nwant %s", got, c.want)
			}

			u.play(u.answer)
			s = g.post(t, v1Path, c.body)
			s.exactly(t, 200, imageJSON)
			if got := string(u.only(t).Body); got != c.want {
				t.Errorf("next time the upstream received %s\nwant %s", got, c.want)
			}
			if via := s.Header.Get("Proxy-Status"); strings.Contains(via, "repaired") {
				t.Errorf("Proxy-Status %q: nothing had to be repaired", via)
			}
		})
	}
}

// What a version of the API rejects for a model is remembered for that, also
// when the configuration is reloaded.
func TestRepairIsRemembered(t *testing.T) {
	u := scripted(t, rejecting("responseModalities", "/v1/models/"+imageModel, unknownModalities))
	other := scripted(t, drawn)
	site := gemini(place("scripted", u), quickly)
	g := run(t, site)
	g.post(t, v1Path, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first first", u, other)

	g.load(t, site)
	for _, c := range []struct {
		name, path string
		has        bool
	}{
		{"the same", v1Path, false},
		{"a stream", strings.Replace(streamPath, "v1beta", "v1", 1), false},
		{"another version", unaryPath, true},
		{"another model", strings.Replace(v1Path, imageModel, "gemini-2.5-flash-image", 1), true},
	} {
		u.play(u.answer)
		g.post(t, c.path, promptJSON).exactly(t, 200, imageJSON)
		if body := string(u.only(t).Body); strings.Contains(body, "responseModalities") != c.has || !strings.Contains(body, "safetySettings") {
			t.Errorf("%s: the upstream received %s", c.name, body)
		}
	}
	g.load(t, gemini(place("another", other), quickly))
	g.post(t, v1Path, promptJSON).exactly(t, 200, imageJSON)
	if body := string(other.only(t).Body); body != completedJSON {
		t.Errorf("another upstream received %s", body)
	}
}

// What is no consequence of the gateway's own work is the client's to know, as
// the upstream says it.
func TestRepairIsNotForTheClientsFaults(t *testing.T) {
	const own = `{"contents":[{"parts":[{"text":"` + prompt + `"}]}],"generationConfig":{"responseModalities":["IMAGE"]},` +
		`"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"OFF"},{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"OFF"},` +
		`{"category":"HARM_CATEGORY_SEXUALLY_EXPLICIT","threshold":"OFF"},{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","threshold":"OFF"}]}`
	snake := strings.NewReplacer("generationConfig", "generation_config", "responseModalities", "response_modalities", "safetySettings", "safety_settings").Replace(own)
	for _, c := range []struct{ name, body, problem, option string }{
		{"modalities of the client's", own, unknownModalities, quickly},
		{"modalities of the client's, in snake case", snake, unknownName("response_modalities", "generation_config"), quickly},
		{"settings of the client's", own, unknownSafety, quickly},
		{"another field", promptJSON, unknownName("imageConfig", "generation_config"), quickly},
		{"settings in a place where they were not added", promptJSON, unknownName("safetySettings", "generation_config"), quickly},
		{"another complaint", promptJSON, googleError("INVALID_ARGUMENT", "Aspect ratio 1:4 is not supported for this model"), quickly},
		{"retry off", promptJSON, unknownModalities, "retry off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(400, jsonType, c.problem))
			s := inFront(t, u, c.option).post(t, v1Path, c.body)
			s.exactly(t, 400, c.problem)
			if via := s.Header.Get("Proxy-Status"); strings.Contains(via, "repaired") {
				t.Errorf("Proxy-Status %q", via)
			}
			u.only(t)
		})
	}
	t.Run("inject off", func(t *testing.T) {
		u := scripted(t, answers(400, jsonType, unknownModalities))
		inFront(t, u, quickly, "inject off").post(t, v1Path, promptJSON).exactly(t, 400, unknownModalities)
		u.only(t)
	})
	t.Run("no attempt left", func(t *testing.T) {
		u := scripted(t, inTurn(overloaded, answers(400, jsonType, unknownModalities)))
		s := inFront(t, u, retry("attempts 2", "backoff 5ms 5ms")).post(t, v1Path, promptJSON)
		s.exactly(t, 400, unknownModalities)
		if via := s.Header.Get("Proxy-Status"); strings.Contains(via, "repaired") {
			t.Errorf("Proxy-Status %q", via)
		}
		went(t, "first first", u)
	})
	t.Run("not cured", func(t *testing.T) {
		first, second := scripted(t, answers(400, jsonType, unknownModalities)), scripted(t, drawn)
		g := run(t, gemini(place("one", first, theKey("a"))+place("two", second, theKey("b")), quickly))
		g.post(t, v1Path, promptJSON).exactly(t, 400, unknownModalities)
		went(t, "first first", first, second)
	})
}

// missing is how Google rejects history without signatures (wire §6).
func missing(what string) string {
	return googleError("INVALID_ARGUMENT", what+" is missing a thought_signature in content position 2, part position 1. "+
		"Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures#model-behavior for more details.")
}

// unsigned is a conversation in which some parts of the model's miss a signature;
// %s is where a member has to be added.
const unsigned = `{"contents":[` +
	`{"role":"user","parts":[{"text":"a cat"},{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]},` + "\n" +
	`{"parts":[ {"text":"Here"},{"inlineData":{"mimeType":"image\/png","data":"iVBORw0KGgo="} %[1]s},` +
	`{"thoughtSignature":"c2lnbmVk","inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}},` +
	`{"functionCall":{"name":"f","args":{"x":[{}]}}%[1]s}],"role":"model"},` +
	`{"role":"model","parts":[{"inline_data":{"mime_type":"image/png","data":"iVBORw0KGgo="}%[2]s},{"fileData":{"fileUri":"https://example.com/x.png"}%[1]s}]},` +
	`{"role":"user","parts":[{"text":"` + prompt + `"}]}],"generationConfig":{"seed" : 1}}`

func signedWith(members ...string) string {
	return strings.NewReplacer("%[1]s", members[0], "%[2]s", members[1]).Replace(unsigned)
}

// A conversation that has lost its signatures goes on, with the placeholder that
// Google documents on the parts that miss one.
func TestRepairSignsWhatIsMissing(t *testing.T) {
	const camel, snake = `,"thoughtSignature":"skip_thought_signature_validator"`, `,"thought_signature":"skip_thought_signature_validator"`
	large := strings.Repeat("iVBORw0KGgoAAAAN", 2<<20/16)
	for _, what := range []string{"Image part", "Function call"} {
		for _, image := range []string{"iVBORw0KGgo=", large} {
			u := scripted(t, inTurn(answers(400, jsonType, missing(what)), drawn))
			g := inFront(t, u, "inject off", quickly)
			body := strings.ReplaceAll(signedWith("", ""), "iVBORw0KGgo=", image)
			s := g.post(t, unaryPath, body)
			s.exactly(t, 200, imageJSON)
			const want = `caddy-gemini; next-hop="scripted"; received-status=200; attempts=2; details="repaired with placeholders for thought_signature"`
			if via := s.Header.Get("Proxy-Status"); via != want {
				t.Errorf("Proxy-Status %q", via)
			}
			all := u.received()
			if len(all) != 2 || string(all[0].Body) != body {
				t.Fatalf("the upstream received %d requests", len(all))
			}
			if got, want := string(all[1].Body), strings.ReplaceAll(signedWith(camel, snake), "iVBORw0KGgo=", image); got != want {
				t.Errorf("the upstream received %s\nwant %s", shortened(got), shortened(want))
			}
		}
	}
}

// Texts need a signature only where Google says so. What was added besides is
// added again.
func TestRepairSignsTexts(t *testing.T) {
	const body = `{"contents":[{"role":"model","parts":[{"text":"Here"%s}]},{"parts":[{"text":"` + prompt + `"}]}]}`
	u := scripted(t, inTurn(answers(400, jsonType, missing("Text part")), drawn))
	inFront(t, u, quickly).post(t, unaryPath, strings.Replace(body, "%s", "", 1)).exactly(t, 200, imageJSON)
	want := strings.Replace(body, "%s", `,"thoughtSignature":"skip_thought_signature_validator"`, 1)
	want = strings.TrimSuffix(want, "}") + strings.TrimPrefix(completedJSON, strings.TrimSuffix(promptJSON, "}"))
	if all := u.received(); len(all) != 2 || string(all[1].Body) != want {
		t.Errorf("of %d requests the upstream received %s\nwant %s", len(all), all[len(all)-1].Body, want)
	}
}

func TestRepairDoesNotForgeSignatures(t *testing.T) {
	for _, c := range []struct{ name, body, problem, option string }{
		{"corrupted", signedWith("", ""), googleError("INVALID_ARGUMENT", "Corrupted thought signature."), quickly},
		{"invalid", signedWith("", ""), googleError("INVALID_ARGUMENT", "Invalid thought signature."), quickly},
		{"nothing of the model's", promptJSON, missing("Image part"), quickly},
		{"retry off", signedWith("", ""), missing("Image part"), "retry off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(400, jsonType, c.problem))
			inFront(t, u, c.option).post(t, unaryPath, c.body).exactly(t, 400, c.problem)
			u.only(t)
		})
	}
	t.Run("not cured", func(t *testing.T) {
		u := scripted(t, answers(400, jsonType, missing("Image part")))
		inFront(t, u, quickly).post(t, unaryPath, signedWith("", "")).exactly(t, 400, missing("Image part"))
		went(t, "first first", u)
	})
}

// A repaired call that is blocked is remembered as what it is.
func TestRepairAndRephrase(t *testing.T) {
	u := scripted(t, inTurn(answers(400, jsonType, unknownModalities), answers(200, jsonType, blockedJSON), drawn))
	g := inFront(t, u, guarding, quickly, opted)
	g.post(t, v1Path, promptJSON).exactly(t, 200, imageJSON)
	all := went(t, "first first first", u)
	for i, v := range all {
		body := string(v.Body)
		if strings.Contains(body, "responseModalities") != (i == 0) || strings.Contains(body, "Digital art") != (i == 2) {
			t.Errorf("attempt %d: the upstream received %s", i+1, body)
		}
	}
	u.play(drawn)
	g.post(t, v1Path, promptJSON).exactly(t, 200, imageJSON)
	if body := string(u.only(t).Body); !strings.Contains(body, "Digital art illustration: "+prompt) || strings.Contains(body, "responseModalities") {
		t.Errorf("the upstream received %s", body)
	}
}
