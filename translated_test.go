// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-gemini/caddy-gemini/simulator"
)

// target is an API that requests are put into the words of.
type target struct {
	name, path string
	way        way
	to         translation
}

// nativeTargets are both of Google's APIs, and models that lack something.
var nativeTargets = []translation{
	{model: "gemini-3-pro-image", safety: testSafety, modalities: []string{"TEXT", "IMAGE"}},
	{model: "gemini-3-pro-image", isVertex: true},
	{model: "gemini-2.5-flash-image"},
	{model: "gemini-3.1-flash-image"},
}

var targets = []target{
	{"Gemini", geminiPath("gemini-3-pro-image", "generateContent"), wayNative, nativeTargets[0]},
	{"Vertex AI", vertexPath("v1", "p", "", "gemini-3-pro-image", "generateContent"), wayNative, nativeTargets[1]},
	{"Gemini 2.5", geminiPath("gemini-2.5-flash-image", "generateContent"), wayNative, nativeTargets[2]},
	{"Gemini 3.1", geminiPath("gemini-3.1-flash-image", "generateContent"), wayNative, nativeTargets[3]},
	{"images of an aggregator", "/v1/images/", wayImages, translation{model: "google/gemini-3-pro-image"}},
	{"images of OpenAI", "/v1/images/", wayImages, translation{model: "gpt-image-1"}},
	{"chat", "/v1/chat/completions", wayChat, translation{model: "google/gemini-3-pro-image"}},
	{"streamed chat", "/v1/chat/completions", wayChat, translation{model: "google/gemini-3-pro-image", stream: true}},
}

// translated is a request as it goes out.
type translated struct {
	path, contentType string
	body              string
	dropped           []string
	foreign           *foreign
}

func (target *target) translate(t testing.TB, b *brief, body string) translated {
	t.Helper()
	one := *b
	one.count = min(b.count, 1) // a group asks for one image at a time
	var l *layout
	var f *foreign
	var err error
	path, isEdit := target.path, false
	switch target.way {
	case wayNative:
		l, f = one.native(target.to)
	case wayChat:
		l, f = one.chat(target.to)
	default:
		l, isEdit, f, err = one.imagesAPI(target.to, textIn(body))
	}
	if f != nil {
		return translated{foreign: f}
	}
	written := ""
	if err == nil {
		written, err = laidOut(l, body)
	}
	if err != nil {
		t.Fatal(err)
	}
	contentType := l.contentType
	switch {
	case isEdit:
		path += "edits"
		contentType = "multipart/form-data; boundary=" + testBoundary
	case target.way == wayImages:
		path += "generations"
	}
	if !isEdit && !json.Valid([]byte(written)) {
		t.Errorf("no JSON: %s", written)
	}
	return translated{path, contentType, written, l.dropped, nil}
}

// eachGolden calls f for each of the golden requests.
func eachGolden(t *testing.T, f func(t *testing.T, path, body string, b *brief)) {
	t.Helper()
	native, _ := filepath.Glob("testdata/translate/native/*.json")
	ours, _ := filepath.Glob("testdata/translate/openai/*.in")
	if len(native) == 0 || len(ours) == 0 {
		t.Fatal("no requests")
	}
	for _, path := range append(native, ours...) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			body := string(file)
			if filepath.Ext(path) == ".json" {
				f(t, path, body, readNative(t, body, false))
				return
			}
			kind, _, _ := strings.Cut(filepath.Base(path), "_")
			f(t, path, body, mustReadOpenAI(t, openAIKind(kind), body))
		})
	}
}

func TestTranslationsGolden(t *testing.T) {
	eachGolden(t, func(t *testing.T, path, body string, b *brief) {
		got := told(b, body)
		for _, target := range targets {
			if b.foreign == nil {
				got += golden(target.name, target.translate(t, b, body))
			}
		}
		checkGolden(t, strings.TrimSuffix(path, filepath.Ext(path))+".golden", got)
	})
}

func golden(name string, r translated) string {
	if f := r.foreign; f != nil {
		return fmt.Sprintf("-- %s --\nforeign %s: %s\n", name, f.code, f.message)
	}
	text := r.body
	kind, _, isForm := strings.Cut(r.contentType, ";")
	if isForm { // with bytes that no editor shows
		lines := strings.Split(text, "\r\n")
		for i, line := range lines {
			quoted := strconv.Quote(line)
			lines[i] = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
		}
		text = strings.Join(lines, "\n")
	}
	return fmt.Sprintf("-- %s, %s, without %q --\n%s\n", name, kind, r.dropped, text)
}

// unplayable are the requests that the simulator refuses for want of something.
var unplayable = map[string]string{
	"reworded.json": "a category that may exist one day, and WebP",
}

// judge has the simulator say why it refuses a request; "" if it does not. What it
// takes it would answer in an hour, for somebody who has left.
func judge(t testing.TB) func(path, contentType, body string) string {
	t.Helper()
	sim := &simulator.Handler{Latency: caddy.Duration(time.Hour)}
	if err := sim.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	return func(path, contentType, body string) string {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Authorization", "Bearer x")
		w := httptest.NewRecorder()
		if err := sim.ServeHTTP(w, r, nil); err != nil {
			t.Fatal(err)
		}
		return w.Body.String()
	}
}

// TestSimulatorTakesTranslations sends the translations to APIs that refuse unknown
// fields, values and roles, and what is no image, as the real ones do.
func TestSimulatorTakesTranslations(t *testing.T) {
	refusal := judge(t)
	if refusal(targets[0].path, "application/json", `{"contents":[{"parts":[{"text":"a"}]}],"foo":1}`) == "" {
		t.Fatal("the simulator takes everything")
	}
	sent := make(map[string]int)
	eachGolden(t, func(t *testing.T, path, body string, b *brief) {
		if b.foreign != nil || unplayable[filepath.Base(path)] != "" {
			return
		}
		for _, target := range targets {
			out := target.translate(t, b, body)
			if out.foreign != nil {
				continue
			}
			sent[target.name]++
			if why := refusal(out.path, out.contentType, out.body); why != "" {
				t.Errorf("%s: %.1000s\n%.500s", target.name, out.body, why)
			}
		}
	})
	for _, target := range targets {
		if sent[target.name] < 10 {
			t.Errorf("%s has received only %d requests", target.name, sent[target.name])
		}
	}
}

// TestSimulatorTakesWords tries the words of single fields.
func TestSimulatorTakesWords(t *testing.T) {
	refusal := judge(t)
	fields := make(map[string]openAIKind)
	for _, shape := range imageShapes {
		fields[`"size":"`+shape.pixels.String()+`"`] = kindGenerations
		fields[`"aspect_ratio":"`+shape.aspect+`","size":"2K"`] = kindGenerations
	}
	for _, size := range []string{"1x1", "99999x1", "256x256", "512x512", "1792x1024", "3840x2160", "auto", "512", "4K"} {
		fields[`"size":"`+size+`"`] = kindGenerations
	}
	for _, quality := range []string{"auto", "low", "medium", "high", "standard", "hd"} {
		fields[`"quality":"`+quality+`"`] = kindGenerations
	}
	for effort := range efforts {
		fields[`"reasoning_effort":"`+effort+`"`] = kindChat
	}
	for _, modalities := range []string{`"image"`, `"text"`, `"text","image"`} {
		fields[`"modalities":[`+modalities+`]`] = kindChat
	}
	for i, h := range harmCategories {
		fields[`"safety_settings":[{"category":"`+h.name+`","threshold":"`+harmThresholds[i%len(harmThresholds)]+`"}]`] = kindChat
	}
	for field, kind := range fields {
		body := `{"prompt":"a",` + field + `}`
		if kind == kindChat {
			body = chatWith(field)
		}
		b := mustReadOpenAI(t, kind, body)
		if b.foreign != nil {
			t.Errorf("%s: %+v", field, b.foreign)
			continue
		}
		for _, target := range targets {
			if target.way == wayImages && strings.Contains(field, `x1"`) {
				continue // it is for the upstream to judge
			}
			out := target.translate(t, b, body)
			if why := refusal(out.path, out.contentType, out.body); why != "" && out.foreign == nil {
				t.Errorf("%s: %s\n%.500s", target.name, out.body, why)
			}
		}
	}
}
