// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// atVertex is the path of a verb in the project of a service account.
func atVertex(model, verb string) string {
	return "/v1beta1/projects/theirs/locations/europe-west4/publishers/google/models/" + model + ":" + verb
}

// ofVertex is the path of a verb as a client of Vertex AI has it.
func ofVertex(model, verb string) string { return vertexModels + model + ":" + verb }

// vertexPlace is an upstream that speaks Vertex AI, with a service account.
func vertexPlace(t *testing.T, name string, u *upstream, options ...string) string {
	t.Helper()
	return place(name, u, append([]string{"format vertex", "location europe-west4", "credentials " + serviceAccount(t)}, options...)...)
}

// accountOf is a file with credentials whose tokens an upstream gives.
func accountOf(t *testing.T, tokens *upstream) string {
	t.Helper()
	file := serviceAccount(t)
	var account map[string]string
	if err := json.Unmarshal([]byte(readFile(t, file)), &account); err != nil {
		t.Fatal(err)
	}
	account["token_uri"] = tokens.URL
	text, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// issues plays a token endpoint.
func issues(token string) http.HandlerFunc {
	return answers(200, jsonType, `{"access_token":"`+token+`","expires_in":3600,"token_type":"Bearer"}`)
}

// bearsOnly fails unless a call is made with an access token and nothing else.
func (r *request) bearsOnly(t *testing.T, token string) {
	t.Helper()
	if got := r.Header.Get("Authorization"); got != "Bearer "+token {
		t.Errorf("Authorization %q", got)
	}
	for _, name := range []string{"X-Goog-Api-Key", "X-Goog-User-Project"} {
		if values, ok := r.Header[name]; ok {
			t.Errorf("%s: %q", name, values)
		}
	}
	if strings.Contains(r.URI, "key=") || strings.Contains(r.URI, "access_token") {
		t.Errorf("the upstream received %s", r.URI)
	}
}

// roleless has no role, without which Vertex AI refuses it.
const roleless = `{"contents":[{"parts":[{"text":"` + prompt + `"}]}]}`

// A call of the Gemini API arrives at Vertex AI in the operator's project, and
// changed by no more than it must be.
func TestGeminiCallAtVertex(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, gemini(vertexPlace(t, "vertex", u)))
	for _, c := range []struct{ path, want string }{
		{unaryPath, atVertex(imageModel, "generateContent")},
		{unaryPath + "?key=" + clientKey, atVertex(imageModel, "generateContent")},
		{streamPath + "&key=" + clientKey, atVertex(imageModel, "streamGenerateContent") + "?alt=sse"},
		{arrayPath, atVertex(imageModel, "streamGenerateContent")},
		{strings.Replace(unaryPath, "v1beta", "v1", 1), strings.Replace(atVertex(imageModel, "generateContent"), "v1beta1", "v1", 1)},
		{strings.Replace(unaryPath, ":", "%3A", 1), atVertex(imageModel, "generateContent")},
	} {
		t.Run(c.path, func(t *testing.T) {
			plays, want := drawn, imageJSON
			if strings.Contains(c.path, "stream") {
				plays, want = events(imageChunk, lastChunk), event(imageChunk)+event(lastChunk)
			}
			if strings.HasSuffix(c.path, "streamGenerateContent") {
				plays, want = answers(200, jsonType, "["+imageJSON+"]"), "["+imageJSON+"]"
			}
			u.play(plays)
			s := g.post(t, c.path, roleless, "X-Goog-User-Project", "of-a-client")
			s.exactly(t, 200, want)
			if via := s.Header.Get("Proxy-Status"); via != `caddy-gemini; next-hop="vertex"; received-status=200` {
				t.Errorf("Proxy-Status %q", via)
			}
			r := u.only(t)
			if r.URI != c.want {
				t.Errorf("the upstream received %s, want %s", r.URI, c.want)
			}
			r.bearsOnly(t, vertexToken)
			_, added, _ := strings.Cut(completedJSON, `}]} ],`)
			if want := strings.TrimSuffix(strings.Replace(roleless, `{"parts"`, `{"role":"user","parts"`, 1), "}") + "," + added; string(r.Body) != want {
				t.Errorf("the upstream received %s\nwant %s", r.Body, want)
			}
		})
	}
}

// A client's own project is not that of the gateway's credentials.
func TestVertexCallAtVertex(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, gemini(vertexPlace(t, "vertex", u)))
	for _, c := range []struct{ path, body, want string }{
		{ofVertex(imageModel, "generateContent"), promptJSON, atVertex(imageModel, "generateContent")},
		{ofVertex(imageModel, "streamGenerateContent") + "?alt=sse", promptJSON, atVertex(imageModel, "streamGenerateContent") + "?alt=sse"},
		{ofVertex(imagenModel, "predict"), imagenJSON, atVertex(imagenModel, "predict")},
		{"/v1beta1/publishers/google/models/" + imageModel + ":generateContent?key=" + clientKey, promptJSON, atVertex(imageModel, "generateContent")},
	} {
		t.Run(c.path, func(t *testing.T) {
			u.play(drawn)
			g.post(t, c.path, c.body, "X-Goog-Api-Key", "", "Authorization", "Bearer "+clientToken, "X-Goog-User-Project", vertexProject)
			r := u.only(t)
			if r.URI != c.want {
				t.Errorf("the upstream received %s, want %s", r.URI, c.want)
			}
			r.bearsOnly(t, vertexToken)
			if strings.HasSuffix(c.path, "generateContent") && string(r.Body) != completedJSON {
				t.Errorf("the upstream received %s", r.Body)
			}
		})
	}
}

// What the credentials are for is the operator's to say, for the other APIs of
// Vertex AI as well.
func TestOtherAPIsOfVertexAtVertex(t *testing.T) {
	u := scripted(t, drawn)
	g := run(t, gemini(vertexPlace(t, "vertex", u)))
	for _, c := range []struct{ path, body, want string }{
		{"/v1/projects/" + vertexProject + "/locations/us-east1/endpoints/openapi/chat/completions", chatJSON("google/" + textModel), "/v1/projects/theirs/locations/europe-west4/endpoints/openapi/chat/completions"},
		{"/v1beta1/projects/" + vertexProject + "/locations/us-east1/interactions", `{"model":"` + imageModel + `","input":"` + prompt + `"}`, "/v1beta1/projects/theirs/locations/europe-west4/interactions"},
	} {
		u.play(drawn)
		g.post(t, c.path, c.body, "X-Goog-Api-Key", "", "Authorization", "Bearer "+clientToken)
		if r := u.only(t); r.URI != c.want {
			t.Errorf("the upstream received %s, want %s", r.URI, c.want)
		}
	}
}

// What only Vertex AI has words for is left out for the Gemini API, and named.
func TestVertexCallAtGemini(t *testing.T) {
	body := `{"labels":{"team":"a"},"contents":[{"role":"user","parts":[{"text":"` + prompt + `"}]}],` +
		`"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_LOW_AND_ABOVE","method":"SEVERITY"},{"category":"HARM_CATEGORY_IMAGE_HATE","threshold":"OFF"}],` +
		`"generationConfig":{"responseModalities":["IMAGE"],"imageConfig":{"aspectRatio":"16:9","personGeneration":"ALLOW_ALL"}}}`
	want := `{"contents":[{"role":"user","parts":[{"text":"` + prompt + `"}]}],` +
		`"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_LOW_AND_ABOVE"},` +
		strings.Join([]string{setting("HATE_SPEECH"), setting("SEXUALLY_EXPLICIT"), setting("DANGEROUS_CONTENT")}, ",") + `],` +
		`"generationConfig":{"responseModalities":["IMAGE"],"imageConfig":{"aspectRatio":"16:9"}}}`
	for name, c := range map[string]struct {
		option string
		key    string // that arrives in X-Goog-Api-Key, and
		bearer string // in Authorization
	}{
		"with the operator's key": {"api_key {env.CADDYTEST_KEY}", upstreamKey, ""},
		"with the client's token": {"", "", "Bearer " + clientToken},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, nil)
			g := run(t, gemini(place("google", u, "format gemini", c.option)))
			for path, at := range map[string]string{
				ofVertex(imageModel, "generateContent"):                           unaryPath,
				ofVertex(imageModel, "streamGenerateContent?alt=sse"):             streamPath,
				"/v1/publishers/google/models/" + imageModel + ":generateContent": unaryPath,
			} {
				u.play(drawn)
				s := g.post(t, path, body, "X-Goog-Api-Key", "", "Authorization", "Bearer "+clientToken)
				if via := s.Header.Get("Proxy-Status"); !strings.Contains(via, `details="dropped labels, safetySettings.method, HARM_CATEGORY_IMAGE_HATE, generationConfig.imageConfig.personGeneration"`) {
					t.Errorf("Proxy-Status %q", via)
				}
				r := u.only(t)
				if r.URI != at || string(r.Body) != want || r.Header.Get("X-Goog-Api-Key") != c.key || r.Header.Get("Authorization") != c.bearer {
					t.Errorf("the upstream received %s %v\n%s\nwant %s", r.URI, r.Header, r.Body, want)
				}
			}
		})
	}
}

// What is added fits in where something has been taken out.
func TestCompletionOfAnotherDialect(t *testing.T) {
	const (
		lost   = `{"category":"HARM_CATEGORY_IMAGE_HATE","threshold":"OFF"}`
		person = `"personGeneration":"ALLOW_ALL"`
		ask    = `"contents":[{"role":"user","parts":[{"text":"` + prompt + `"}]}]`
		draw   = `"generationConfig":{"responseModalities":["TEXT","IMAGE"]}`
	)
	four := strings.Join([]string{setting("HARASSMENT"), setting("HATE_SPEECH"), setting("SEXUALLY_EXPLICIT"), setting("DANGEROUS_CONTENT")}, ",")
	u := scripted(t, nil)
	g := run(t, gemini(place("google", u, "format gemini", "api_key {env.CADDYTEST_KEY}")))
	for body, want := range map[string]string{
		`{` + ask + `,"safetySettings":[` + lost + `]}`:                                                                                `{` + ask + `,"safetySettings":[` + four + `],` + draw + `}`,
		`{` + ask + `, "safetySettings" : [ ` + lost + ` , ` + lost + ` ] }`:                                                           `{` + ask + `, "safetySettings" : [ ` + four + `] ,` + draw + `}`,
		`{"safetySettings":[` + lost + `,` + setting("HARASSMENT") + `],` + ask + `}`:                                                  `{"safetySettings":[` + four + `],` + ask + `,` + draw + `}`,
		`{"safetySettings":[` + setting("HARASSMENT") + `,` + lost + `],` + ask + `}`:                                                  `{"safetySettings":[` + four + `],` + ask + `,` + draw + `}`,
		`{"safety_settings":[` + lost + `],` + ask + `}`:                                                                               `{"safety_settings":[` + four + `],` + ask + `,"generation_config":{"response_modalities":["TEXT","IMAGE"]}}`,
		`{"labels":{"a":"b"},` + ask + `}`:                                                                                             `{` + ask + `,"safetySettings":[` + four + `],` + draw + `}`,
		`{` + ask + `,"labels":{"a":"b"}}`:                                                                                             `{` + ask + `,"safetySettings":[` + four + `],` + draw + `}`,
		`{` + ask + `,"generationConfig":{"audioTimestamp":true},"safetySettings":[]}`:                                                 `{` + ask + `,` + draw + `,"safetySettings":[` + four + `]}`,
		`{` + ask + `,"generationConfig":{"imageConfig":{` + person + `}},"safetySettings":[]}`:                                        `{` + ask + `,"generationConfig":{"imageConfig":{},"responseModalities":["TEXT","IMAGE"]},"safetySettings":[` + four + `]}`,
		`{` + ask + `,"generationConfig":{"audioTimestamp":true,"responseModalities":[]},"labels":{},"safetySettings":[` + lost + `]}`: `{` + ask + `,"generationConfig":{"responseModalities":["TEXT","IMAGE"]},"safetySettings":[` + four + `]}`,
		`{"labels":{"a":"b"},"safetySettings":[` + lost + `],"generationConfig":{"audioTimestamp":true}}`:                              `{"safetySettings":[` + four + `],` + draw + `}`,
	} {
		u.play(drawn)
		s := g.post(t, ofVertex(imageModel, "generateContent"), body)
		r := u.only(t)
		if !json.Valid(r.Body) || string(r.Body) != want {
			t.Errorf("of      %s\narrived %s\nwant    %s", body, r.Body, want)
		}
		if via := s.Header.Get("Proxy-Status"); !strings.Contains(via, "dropped ") {
			t.Errorf("Proxy-Status %q", via)
		}
	}
}

// twoAPIs are an upstream of the Gemini API and one of Vertex AI, in this order.
func twoAPIs(t *testing.T, studio, cloud *upstream) []string {
	t.Helper()
	return []string{place("studio", studio, "format gemini", ownKey(t, "studio")), vertexPlace(t, "cloud", cloud)}
}

// Each of Google's APIs stands in for the other, so far as it knows what a call
// names.
func TestRerouteBetweenGooglesAPIs(t *testing.T) {
	const (
		signed = `{"contents":[{"role":"model","parts":[{"text":"a","thoughtSignature":"c2lnbmVk"}]},{"role":"user","parts":[{"text":"` + prompt + `"}]}]}`
		file   = `{"contents":[{"role":"user","parts":[{"fileData":{"mimeType":"image/png","fileUri":"%"}},{"text":"` + prompt + `"}]}]}`
	)
	at := func(uri string) string { return strings.Replace(file, "%", uri, 1) }
	ofAPI := at("https://generativelanguage.googleapis.com/v1beta/files/abc")
	for _, c := range []struct {
		name, body, path string
		went             string // where the call went, of "first" (Gemini) and "second"
	}{
		{"plain", roleless, unaryPath, "first second"},
		{"stream", roleless, streamPath, "first second"},
		{"signed", signed, unaryPath, "first first"},
		{"file of the API", ofAPI, unaryPath, "first first"},
		{"cache", completed(promptJSON, `"cachedContent":"cachedContents/1"`), unaryPath, "first first"},
		{"file of the cloud", at("gs://bucket/a.png"), unaryPath, "first second"},
		{"file of the web", at("https://example.com/a.png"), unaryPath, "first second"},

		{"Vertex AI", promptJSON, ofVertex(imageModel, "generateContent"), "second first"},
		{"Vertex AI, stream", promptJSON, ofVertex(imageModel, "streamGenerateContent?alt=sse"), "second first"},
		{"Vertex AI, signed", signed, ofVertex(imageModel, "generateContent"), "second second"},
		{"Vertex AI, file of the cloud", at("gs://bucket/a.png"), ofVertex(imageModel, "generateContent"), "second second"},
		{"Vertex AI, cache", completed(promptJSON, `"cachedContent":"projects/p/locations/l/cachedContents/1"`), ofVertex(imageModel, "generateContent"), "second second"},
		{"Vertex AI, file of the web", at("https://example.com/a.png"), ofVertex(imageModel, "generateContent"), "second first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			studio, cloud := scripted(t, nil), scripted(t, nil)
			ordered := twoAPIs(t, studio, cloud)
			if strings.HasPrefix(c.name, "Vertex AI") {
				ordered[0], ordered[1] = ordered[1], ordered[0]
			}
			g := inFrontOf(t, ordered, retry("attempts 2", hasty))
			good, want := drawn, imageJSON
			if strings.Contains(c.path, "stream") {
				good, want = events(imageChunk, lastChunk), event(imageChunk)+event(lastChunk)
			}
			var calls inTurnOfAll
			studio.play(calls.then(overloaded, good))
			cloud.play(calls.then(overloaded, good))
			s := g.post(t, c.path, c.body, "X-Goog-Api-Key", "", "Authorization", "Bearer "+clientToken)
			s.exactly(t, 200, want)
			for _, v := range went(t, c.went, studio, cloud) {
				isVertex := strings.HasPrefix(v.URI, "/v1beta1/projects/theirs/")
				if isVertex != (v.at == 1) || isVertex == strings.HasPrefix(v.URI, "/v1beta/models/") {
					t.Errorf("%s at the %s upstream", v.URI, ordinals[v.at])
				}
				if isVertex {
					v.bearsOnly(t, vertexToken)
				} else if v.Header.Get("X-Goog-Api-Key") != keyOf("studio") || v.Header.Get("Authorization") != "" {
					t.Errorf("the Gemini API received %v", v.Header)
				}
				if v.at == 1 && !strings.Contains(string(v.Body), `"role":"user"`) || v.at == 0 && c.body == roleless && strings.Contains(string(v.Body), `"role"`) {
					t.Errorf("the %s upstream received %s", ordinals[v.at], v.Body)
				}
			}
		})
	}
}

// inTurnOfAll counts the calls of several upstreams.
type inTurnOfAll struct{ calls atomic.Int32 }

// then plays the first script for the first call of all, and another from then on.
func (c *inTurnOfAll) then(first, others http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c.calls.Add(1) == 1 {
			first(w, r)
			return
		}
		others(w, r)
	}
}

// A call that the only API left has no words for is refused by the name of the
// field, and sent nowhere.
func TestForeignToTheOtherAPI(t *testing.T) {
	for _, c := range []struct{ name, format, path, body, field string }{
		{"file of the Gemini API", "vertex", unaryPath, `{"contents":[{"parts":[{"fileData":{"fileUri":"https://generativelanguage.googleapis.com/v1beta/files/abc"}}]}]}`, "fileData.fileUri"},
		{"cache of the Gemini API", "vertex", unaryPath, completed(promptJSON, `"cachedContent":"cachedContents/1"`), "cachedContent"},
		{"file of the cloud", "gemini", ofVertex(imageModel, "generateContent"), `{"contents":[{"parts":[{"fileData":{"fileUri":"gs://bucket/a.png"}}]}]}`, "fileData.fileUri"},
		{"Model Armor", "gemini", ofVertex(imageModel, "generateContent"), completed(promptJSON, `"modelArmorConfig":{"promptTemplateName":"a"}`), "modelArmorConfig"},
		{"tuned model", "vertex", "/v1beta/tunedModels/mine:generateContent", promptJSON, ""},
		{"endpoint", "gemini", "/v1/projects/p/locations/l/endpoints/123:generateContent", promptJSON, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, drawn)
			options := []string{"format gemini", "api_key {env.CADDYTEST_KEY}"}
			if c.format == "vertex" {
				options = []string{"format vertex", "credentials " + serviceAccount(t)}
			}
			g := run(t, gemini(place("only", u, options...)))
			e := g.post(t, c.path, c.body).fails(t, 400, "UNSUPPORTED_FIELD")
			u.untouched(t)
			if said, _ := json.Marshal(e); strings.Contains(e.Message, "..") || strings.Contains(e.Message, "prompt") || !strings.Contains(string(said), c.field) {
				t.Errorf("error %s does not name %s", said, c.field)
			}
		})
	}
}

// A call that belongs somewhere goes to the first upstream that can take it, if nobody
// knows better.
func TestSignedCallBehindAnotherForm(t *testing.T) {
	const signed = `{"contents":[{"role":"model","parts":[{"text":"a","thoughtSignature":"c2lnbmVk"}]},{"role":"user","parts":[{"text":"` + prompt + `"}]}]}`
	aggregator, google := scripted(t, drawn), scripted(t, drawn)
	for path, places := range map[string]string{
		ofVertex(imageModel, "generateContent"): place("google", google, "format gemini"),
		unaryPath:                               vertexPlace(t, "google", google),
	} {
		google.play(drawn)
		g := run(t, gemini(place("aggregator", aggregator, "format openai")+places))
		g.post(t, path, signed).exactly(t, 200, imageJSON)
		google.only(t)
		aggregator.untouched(t)
	}
}
