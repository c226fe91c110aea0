// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// manyAttempts leaves the end of a call to what there is to try.
const manyAttempts = "retry {\n\tattempts 10\n\tbackoff 5ms 5ms\n\tjitter 0\n\tbudget off\n}"

// wordings are the texts in the gaps of a body, each %s. All other bytes must be
// as the client wrote them.
func (r *request) wordings(t *testing.T, body string) []string {
	t.Helper()
	pieces := strings.Split(body, "%s")
	rest, ok := strings.CutPrefix(string(r.Body), pieces[0])
	var texts []string
	for _, piece := range pieces[1:] {
		at := strings.Index(rest, piece)
		if !ok || at < 0 {
			break
		}
		var text string
		ok = json.Unmarshal([]byte(rest[:at]), &text) == nil
		texts = append(texts, text)
		rest = rest[at+len(piece):]
	}
	if !ok || len(texts) != len(pieces)-1 || rest != "" {
		t.Fatalf("the upstream received %s\nwant             %s", r.Body, body)
	}
	return texts
}

// checkWordings fails unless the upstream has received these texts, in this order.
func (u *upstream) checkWordings(t *testing.T, body string, want [][]string) {
	t.Helper()
	all := u.received()
	if len(all) != len(want) {
		t.Fatalf("the upstream received %d wordings, want %d", len(all), len(want))
	}
	for i, r := range all {
		if got := r.wordings(t, body); !slices.Equal(got, want[i]) {
			t.Errorf("attempt %d has the texts %q, want %q", i+1, got, want[i])
		}
	}
}

// blockedTimes plays a block as often as given, and then a good answer.
func blockedTimes(n int, block, good http.HandlerFunc) http.HandlerFunc {
	return inTurn(append(slices.Repeat([]http.HandlerFunc{block}, n), good)...)
}

// dialogue has two texts in its last user turn. It is written as nobody would
// write it again, and has the same words elsewhere.
const dialogue = ` { "contents" : [` + "\n\t" +
	`{"role":"user", "parts":[{"text":"a violent \u0063at"}]},` +
	`{"parts":[{"text":"No violent cats." , "thought":false}] ,"role":"model"},` + "\n" +
	`{"parts":[ {"inline_data":{"mime_type":"image\/png","data":"iVBORw0KGgo="}} ,{"text": %s},` +
	`{"text" :%s } , {"fileData":{"fileUri":"https:\/\/example.com\/violent.png"}} ]} ,` +
	`{"role":"model","parts":[{"text":"A violent"}]}],` +
	`"systemInstruction":{"parts":[{"text":"Nothing violent"}]},` + "\n" + `"generationConfig":{ "seed":1e0 }}  `

// Only the texts of the last user turn change, from attempt to attempt; images,
// history and every other byte stay.
func TestRephrase(t *testing.T) {
	const one, two = `Violent <cats> & "hats" ` + "\u2028 \U0001F408", `more violent, please`
	// As the client spells them.
	body := fmt.Sprintf(dialogue, `"Violent \u003ccats> & \"hats\" \u2028 \ud83d\udc08"`, `"more violent, pl\u0065ase"`)
	softer := func(s string) string {
		return strings.NewReplacer("Violent", "dramatic", "violent", "dramatic").Replace(s)
	}
	for _, c := range []struct {
		name, rules string
		want        [][]string // of each attempt
	}{
		{"prefix", `prefix "Digital art illustration:" "Professional artwork depicting: "`, [][]string{
			{one, two},
			{"Digital art illustration: " + one, two},
			{"Professional artwork depicting: " + one, two},
		}},
		{"suffix", `suffix "in oil" ", in oil" "\nIn oil."`, [][]string{
			{one, two},
			{one, two + " in oil"},
			{one, two + ", in oil"},
			{one, two + `\nIn oil.`}, // a Caddyfile knows no such escape
		}},
		{"replace", `replace (?i)violent dramatic`, [][]string{
			{one, two},
			{softer(one), softer(two)},
		}},
		{"groups", `replace "(?i)(violent) (<?)(cats)" "$2${3}, $1:"` + "\n" + `replace please now`, [][]string{
			{one, two},
			{strings.Replace(one, "Violent <cats", "<cats, Violent:", 1), "more violent, now"},
		}},
		{"all at once", `replace (?i)violent dramatic` + "\n" + `prefix "Digital art:" "Artwork:"` + "\n" + `suffix "in oil"`, [][]string{
			{one, two},
			{"Digital art: " + softer(one), softer(two) + " in oil"},
			{"Artwork: " + softer(one), softer(two)},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, blockedTimes(len(c.want)-1, answers(200, jsonType, blockedJSON), drawn))
			g := inFront(t, u, "inject off", manyAttempts, "rephrase {\n"+c.rules+"\n}")
			s := g.post(t, unaryPath, body)
			s.exactly(t, 200, imageJSON)
			want := fmt.Sprintf(`caddy-gemini; next-hop="scripted"; received-status=200; attempts=%d`, len(c.want))
			if via := s.Header.Get("Proxy-Status"); via != want {
				t.Errorf("Proxy-Status %q, want %q", via, want)
			}
			u.checkWordings(t, dialogue, c.want)
			if first := u.received()[0]; string(first.Body) != body {
				t.Errorf("the first attempt is not the client's: %s", first.Body)
			}
		})
	}
}

// Every surface has its prompt elsewhere.
func TestRephraseOnEverySurface(t *testing.T) {
	const (
		prefixed = "Digital art illustration: " + prompt
		filtered = `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`
		said     = `{"choices":[{"index":0,"message":{"role":"assistant","content":"Here"},"finish_reason":"stop"}]}`
		b64      = `{"created":1,"data":[{"b64_json":"iVBORw0KGgo="}]}`
		imagen   = `{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"iVBORw0KGgo="}]}`
		cut      = `{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`
		chunk    = `{"choices":[{"index":0,"delta":{"content":"Here"}}]}`
		end      = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	)
	const head = `{"model": "` + textModel + `", `
	for _, c := range []struct {
		name, path, body string
		block, good      http.HandlerFunc
		want             string
		format           string // of the upstream
	}{
		{
			"events", streamPath, `{"contents":[{"parts":[{"text":%s}]}]}`,
			events(textChunk, blockedJSON), events(imageChunk, lastChunk), event(imageChunk) + event(lastChunk), "",
		},
		{
			"array", arrayPath, `{"contents":{"parts":{"text":%s}}}`,
			answers(200, jsonType, "["+textChunk+",\n"+blockedJSON+"]"), answers(200, jsonType, "["+imageChunk+"]"), "[" + imageChunk + "]", "",
		},
		{
			"block of a prompt in events", textPath, `{"contents":[{"parts":[{"text":%s}]}]}`,
			events(refused("SAFETY")), events(textChunk, lastChunk), event(textChunk) + event(lastChunk), "",
		},
		{
			"chat", openAIChatPath, head + `"messages":[{"role":"system","content":"` + prompt + `"},{"role":"user","content": %s }]}`,
			answers(200, jsonType, filtered), answers(200, jsonType, said), said, "",
		},
		{
			"chat in parts", openAIChatPath,
			head + `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image\/png;base64,iVBO"}},{"type":"text","text":%s}]}]}`,
			answers(200, jsonType, filtered), answers(200, jsonType, said), said, "",
		},
		{
			"chat in events", openAIChatPath, head + `"stream":true,"messages":[{"role":"user","content":%s}]}`,
			events(cut, "[DONE]"), events(chunk, end, "[DONE]"), event(chunk) + event(end) + event("[DONE]"), "",
		},
		{
			"images", openAIDrawPath, head + `"prompt" :%s, "n":1}`,
			answers(200, jsonType, `{"created":1,"data":[]}`), answers(200, jsonType, b64), b64, "format openai",
		},
		{
			"predict", "/v1beta/models/imagen-4.0-generate-001:predict", `{"instances":[{"prompt":%s}],"parameters":{"sampleCount":1}}`,
			answers(200, jsonType, `{"predictions":[{"raiFilteredReason":"Filtered."}]}`), answers(200, jsonType, imagen), imagen, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, inTurn(c.block, c.good))
			g := run(t, gemini(place("scripted", u, c.format), "inject off", manyAttempts, opted))
			g.post(t, c.path, fmt.Sprintf(c.body, `"`+prompt+`"`)).exactly(t, 200, c.want)
			u.checkWordings(t, c.body, [][]string{{prompt}, {prefixed}})
		})
	}
}

// A call that is put into another form on its way is rephrased in that form.
func TestRephraseOfTranslatedCalls(t *testing.T) {
	const prefixed = "Digital art illustration: " + prompt
	for _, c := range []struct {
		name, format, path, body string
		block, good              string
		arrives                  string
	}{
		{
			"images for Gemini", "format gemini", openAIDrawPath, drawJSON(), blockedJSON, imageJSON,
			`{"contents":[{"role":"user","parts":[{"text":%s}]}],"generationConfig":{"responseModalities":["IMAGE"]}}`,
		},
		{
			"chat for Gemini", "format gemini", openAIChatPath, chatJSON(imageModel), refused("SAFETY"), imageJSON,
			`{"contents":[{"role":"user","parts":[{"text":%s}]}]}`,
		},
		{
			"generateContent for OpenAI", "format openai", unaryPath, promptJSON, `{"created":1,"data":[]}`, imagesData,
			`{"model":"` + imageModel + `","prompt":%s,"response_format":"b64_json"}`,
		},
		{
			"generateContent for chats of OpenAI", "format openai chat", unaryPath, promptJSON, `{"choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}`, completion("message", pictureMessage),
			`{"model":"` + imageModel + `","messages":[{"role":"user","content":%s}],"modalities":["image","text"]}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, inTurn(answers(200, jsonType, c.block), answers(200, jsonType, c.good)))
			g := run(t, gemini(place("scripted", u, c.format), "inject off", manyAttempts, opted))
			s := g.post(t, c.path, c.body)
			if s.StatusCode != 200 || !strings.Contains(string(s.body), pictureData) {
				t.Errorf("status %d: %s", s.StatusCode, shortened(string(s.body)))
			}
			u.checkWordings(t, c.arrives, [][]string{{prompt}, {prefixed}})
		})
	}
}

// Rephrasing is for soft blocks of all kinds; what may pass unchanged is first
// asked for again.
func TestRephraseAfterSoftBlocks(t *testing.T) {
	const prefixed = "Digital art illustration: " + prompt
	body := strings.Replace(completedJSON, `"`+prompt+`"`, "%s", 1)
	once := [][]string{{prompt}, {prefixed}}
	twice := [][]string{{prompt}, {prompt}, {prefixed}}
	type test struct {
		name, answer string
		want         [][]string
	}
	tests := []test{{"text instead of an image", textJSON, once}}
	for _, reason := range []string{"SAFETY", "IMAGE_SAFETY", "OTHER", "NO_IMAGE", "RECITATION", "LANGUAGE"} {
		tests = append(tests, test{reason, stopped(reason), once})
	}
	for _, reason := range []string{"SAFETY", "OTHER", "IMAGE_SAFETY", "A_NEW_FILTER"} {
		tests = append(tests, test{"prompt " + reason, refused(reason), once})
	}
	for _, reason := range []string{"IMAGE_OTHER", "IMAGE_RECITATION"} {
		tests = append(tests, test{reason, stopped(reason), twice})
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, blockedTimes(len(c.want)-1, answers(200, jsonType, c.answer), drawn))
			inFront(t, u, "no_image error", manyAttempts, opted).post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			u.checkWordings(t, body, c.want)
		})
	}
}

// The attempts end when the wordings do, or when they are as many as retry
// allows. No wording is sent twice.
func TestRephraseEnds(t *testing.T) {
	const onlyImage = `{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]}]}`
	for _, c := range []struct {
		name, rules, retry, body string
		attempts                 int
	}{
		{"after the last", `prefix A: B: C:`, manyAttempts, promptJSON, 4},
		{"after two attempts", `prefix A: B: C:`, retry("attempts 2"), promptJSON, 2},
		{"without retries", `prefix A: B: C:`, "retry off", promptJSON, 1},
		{"nothing to replace", `replace dog cat`, manyAttempts, promptJSON, 1},
		{"replaced by itself", `replace cat cat`, manyAttempts, promptJSON, 1},
		{"twice the same", `prefix A: A: B:`, manyAttempts, promptJSON, 3},
		{"the same in two ways", "prefix A: \"A: \"", manyAttempts, promptJSON, 2},
		{"no text", `prefix A: B:`, manyAttempts, onlyImage, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, answers(200, jsonType, blockedJSON))
			g := inFront(t, u, guarding, c.retry, "rephrase {\n"+c.rules+"\n}")
			e := g.post(t, unaryPath, c.body).fails(t, 400, "IMAGE_SAFETY")
			if e.metadata("class") != "blocked" || e.metadata("attempts") != fmt.Sprint(c.attempts) {
				t.Errorf("details %v, want %d attempts", e.Details, c.attempts)
			}
			sent := make(map[string]bool)
			for _, r := range u.received() {
				if sent[string(r.Body)] {
					t.Errorf("sent twice: %s", r.Body)
				}
				sent[string(r.Body)] = true
			}
			if len(sent) != c.attempts {
				t.Errorf("the upstream received %d wordings, want %d", len(sent), c.attempts)
			}
		})
	}
}

// The same prompt again begins where it was not blocked.
func TestRephraseOfARepeat(t *testing.T) {
	body := strings.Replace(completedJSON, `"`+prompt+`"`, "%s", 1)
	first, second := []string{"Digital art illustration: " + prompt}, []string{"Professional artwork depicting: " + prompt}
	block := answers(200, jsonType, blockedJSON)
	for _, c := range []struct {
		name   string
		block  http.HandlerFunc
		blocks int // in the first call
		want   [][]string
	}{
		{"one wording was blocked", block, 1, [][]string{first}},
		{"two were", block, 2, [][]string{second}},
		{"none is remembered", answers(200, jsonType, stopped("NO_IMAGE")), 1, [][]string{{prompt}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := scripted(t, blockedTimes(c.blocks, c.block, drawn))
			g := inFront(t, u, guarding, manyAttempts, opted)
			g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
			for range 2 {
				u.play(drawn)
				s := g.post(t, unaryPath, promptJSON)
				s.exactly(t, 200, imageJSON)
				u.checkWordings(t, body, c.want)
				if via := s.Header.Get("Proxy-Status"); strings.Contains(via, "attempts") {
					t.Errorf("Proxy-Status %q: it was one attempt", via)
				}
			}
		})
	}
	t.Run("all were blocked", func(t *testing.T) {
		u := scripted(t, block)
		g := inFront(t, u, guarding, manyAttempts, opted)
		g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
		u.checkWordings(t, body, [][]string{{prompt}, first, second})
		u.play(drawn)
		g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		u.untouched(t)
	})
	t.Run("a wording failed for another reason", func(t *testing.T) {
		u := scripted(t, inTurn(block, overloaded))
		g := inFront(t, u, guarding, quickly, opted)
		g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
		u.checkWordings(t, body, [][]string{{prompt}, first, first})
		u.play(drawn)
		g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
		u.checkWordings(t, body, [][]string{first})
	})
	t.Run("one attempt is enough", func(t *testing.T) {
		u := scripted(t, block)
		g := inFront(t, u, guarding, "retry off", opted)
		for _, want := range [][]string{{prompt}, first, second} {
			u.play(block)
			g.post(t, unaryPath, promptJSON).fails(t, 400, "IMAGE_SAFETY")
			u.checkWordings(t, body, [][]string{want})
		}
		u.play(drawn)
		g.post(t, unaryPath, promptJSON).repeats(t, "blocked", "output", "IMAGE_SAFETY")
		u.untouched(t)
	})
}

// What goes on with a wording that was not blocked is not about blocks: it may be
// tried again, and anywhere.
func TestRephrasedPromptIsACallLikeAnyOther(t *testing.T) {
	body := strings.Replace(completedJSON, `"`+prompt+`"`, "%s", 1)
	prefixed := []string{"Digital art illustration: " + prompt}
	block := answers(200, jsonType, blockedJSON)

	u := scripted(t, inTurn(block, overloaded, drawn))
	inFront(t, u, manyAttempts, opted).post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	u.checkWordings(t, body, [][]string{{prompt}, prefixed, prefixed})

	first, second := scripted(t, inTurn(block, overloaded)), scripted(t, drawn)
	g := run(t, gemini(place("one", first, theKey("a"))+place("two", second, theKey("b")), manyAttempts, opted))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first first second", first, second)
	second.checkWordings(t, body, [][]string{prefixed})
}

// Who accepts what was blocked elsewhere gets it as the client wrote it.
func TestRephraseBeforeAcceptBlocked(t *testing.T) {
	body := strings.Replace(completedJSON, `"`+prompt+`"`, "%s", 1)
	first, second := scripted(t, answers(200, jsonType, blockedJSON)), scripted(t, drawn)
	g := run(t, gemini(place("one", first, theKey("a"))+accepting("two", second, theKey("b")), guarding, manyAttempts, opted))
	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first first first second", first, second)
	second.checkWordings(t, body, [][]string{{prompt}})

	g.post(t, unaryPath, promptJSON).exactly(t, 200, imageJSON)
	went(t, "first first first second second", first, second)
	second.checkWordings(t, body, [][]string{{prompt}, {prompt}})
}

// Bodies that are sent before they have been read to their end can be rephrased
// like any other.
func TestRephraseOfALargeBody(t *testing.T) {
	image := strings.Repeat("iVBORw0KGgoAAAAN", 2<<20/16)
	body := `{"contents":[{"parts":[{"text":%s},{"inlineData":{"mimeType":"image/png","data":"` + image + `"}}]}]}`
	for _, length := range []int64{0, -1} {
		u := scripted(t, inTurn(answers(200, jsonType, stopped("NO_IMAGE")), drawn))
		g := inFront(t, u, "inject off", manyAttempts, opted)
		r := g.newRequest(t, http.MethodPost, unaryPath, strings.NewReader(fmt.Sprintf(body, `"`+prompt+`"`)))
		if length < 0 {
			r.ContentLength = length
		}
		do(t, r).exactly(t, 200, imageJSON)
		u.checkWordings(t, body, [][]string{{prompt}, {"Digital art illustration: " + prompt}})
	}
}
