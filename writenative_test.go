// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// writeNative writes a brief whose places are in body.
func writeNative(t testing.TB, b *brief, body string, to translation) (text string, dropped []string) {
	t.Helper()
	l, why := b.native(to)
	if why != nil {
		t.Fatal(why)
	}
	text, err := laidOut(l, body)
	if err != nil {
		t.Fatal(err)
	}
	if l.contentType != "application/json" || !json.Valid([]byte(text)) {
		t.Fatalf("%s: %s", l.contentType, text)
	}
	return text, l.dropped
}

// TestNativeMeansTheSame translates requests into their own form: nothing may be
// missing but what is said to be.
func TestNativeMeansTheSame(t *testing.T) {
	paths, err := filepath.Glob("testdata/translate/native/*.json")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		body := string(file)
		b := readNative(t, body, true)
		if b.foreign != nil || filepath.Base(path) == "reworded.json" {
			continue
		}
		compared++
		text, dropped := writeNative(t, b, body, translation{model: "gemini-3-pro-image", isVertex: true})
		want, got := plain(t, body, dropped), plain(t, text, nil)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %v\nwant %v", path, got, want)
		}
	}
	if compared < 5 {
		t.Errorf("only %d requests compared", compared)
	}
}

// plain is a request in its plainest form, without the fields that are dropped.
func plain(t *testing.T, body string, dropped []string) map[string]any {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(body), &root); err != nil {
		t.Fatal(err)
	}
	without := []string{"model", "thought", "thoughtSignature", "candidateCount", "responseMimeType", "responseLogprobs"}
	for _, name := range dropped {
		without = append(without, name[strings.LastIndexByte(name, '.')+1:])
	}
	root, _ = plainValue(root, without).(map[string]any)
	if text, isText := root["systemInstruction"].(string); isText {
		root["systemInstruction"] = map[string]any{"parts": []any{map[string]any{"text": text}}}
	}
	for _, content := range root["contents"].([]any) {
		if object := content.(map[string]any); object["role"] == nil {
			object["role"] = "user"
		}
	}
	return root
}

// plainValue is nil for what says nothing.
func plainValue(v any, without []string) any {
	switch v := v.(type) {
	case string:
		if v == "" {
			return nil
		}
	case []any:
		var list []any
		for _, element := range v {
			if plain := plainValue(element, without); plain != nil {
				list = append(list, plain)
			}
		}
		if list == nil {
			return nil
		}
		return list
	case map[string]any:
		if v["thought"] == true {
			return nil
		}
		object := make(map[string]any)
		for key, member := range v {
			words := strings.Split(key, "_")
			for i, word := range words[1:] {
				words[i+1] = strings.ToUpper(word[:1]) + word[1:]
			}
			key = strings.Join(words, "")
			plain := plainValue(member, without)
			if data, isText := plain.(string); isText && key == "data" {
				image, _ := unbase64(strings.ReplaceAll(data, `\`, ""))
				plain = string(image)
			}
			if single, isObject := plain.(map[string]any); isObject && (key == "contents" || key == "parts") {
				plain = []any{single}
			}
			if plain != nil && !slices.Contains(without, key) {
				object[key] = plain
			}
		}
		if len(object) == 0 {
			return nil
		}
		return object
	}
	return v
}

// configOf returns the generationConfig that a brief is written with.
func configOf(t *testing.T, b *brief, to translation) (config string, dropped []string) {
	t.Helper()
	text, dropped := writeNative(t, b, "", to)
	var parsed struct {
		Config json.RawMessage `json:"generationConfig"`
	}
	if err := json.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	return string(parsed.Config), dropped
}

func TestNativeConfig(t *testing.T) {
	both := []string{"TEXT", "IMAGE"}
	gemini3 := translation{model: "gemini-3-pro-image"}
	gemini2 := translation{model: "models/gemini-2.5-flash-image"}
	asks := translation{model: "gemini-3-pro-image", modalities: both}
	flash := translation{model: "gemini-3.1-flash-image-preview"}
	vertex := translation{model: "gemini-3-pro-image", isVertex: true}
	level := func(word string) map[string]string { return map[string]string{"thinkingLevel": string(encode(word))} }
	for name, tt := range map[string]struct {
		brief   brief
		to      translation
		want    string
		dropped []string
	}{
		"nothing":                 {brief{}, asks, "", nil},
		"an image":                {brief{draws: true}, asks, `{"responseModalities":["TEXT","IMAGE"]}`, nil},
		"an image, unasked":       {brief{draws: true}, gemini3, "", nil},
		"images alone":            {brief{draws: true, imagesAlone: true}, asks, `{"responseModalities":["IMAGE"]}`, nil},
		"both":                    {brief{draws: true, writes: true}, translation{modalities: []string{"IMAGE"}}, `{"responseModalities":["TEXT","IMAGE"]}`, nil},
		"text":                    {brief{writes: true}, asks, `{"responseModalities":["TEXT"]}`, nil},
		"count":                   {brief{count: 4, stream: true, asURL: true}, gemini3, "", nil},
		"aspect and size":         {brief{aspect: "16:9", size: "4K"}, gemini3, `{"imageConfig":{"aspectRatio":"16:9","imageSize":"4K"}}`, nil},
		"words of clients":        {brief{aspect: `"<`}, gemini3, `{"imageConfig":{"aspectRatio":"\"<"}}`, nil},
		"a size that it lacks":    {brief{size: "512"}, gemini3, "", []string{"size"}},
		"one that another has":    {brief{size: "512", aspect: "1:8"}, flash, `{"imageConfig":{"aspectRatio":"1:8","imageSize":"512"}}`, nil},
		"a ratio that it lacks":   {brief{aspect: "8:1"}, gemini3, `{"imageConfig":{"aspectRatio":"21:9"}}`, []string{"aspect_ratio"}},
		"a ratio of an old model": {brief{aspect: "1:4"}, gemini2, `{"imageConfig":{"aspectRatio":"9:16"}}`, []string{"aspect_ratio"}},
		"one that nobody has":     {brief{aspect: "5:7"}, gemini3, `{"imageConfig":{"aspectRatio":"5:7"}}`, nil},
		"all of a new model":      {brief{aspect: "1:8", size: "512", settings: level("low")}, translation{model: "gemini-9"}, `{"imageConfig":{"aspectRatio":"1:8","imageSize":"512"},"thinkingConfig":{"thinkingLevel":"LOW"}}`, nil},
		"fine":                    {brief{isFine: true}, gemini3, `{"imageConfig":{"imageSize":"2K"}}`, nil},
		"fine, and a size":        {brief{isFine: true, size: "1K"}, gemini3, `{"imageConfig":{"imageSize":"1K"}}`, nil},
		"a low level":             {brief{settings: level("low")}, flash, `{"thinkingConfig":{"thinkingLevel":"MINIMAL"}}`, nil},
		"a middle level":          {brief{settings: level("medium")}, flash, `{"thinkingConfig":{"thinkingLevel":"HIGH"}}`, nil},
		"a new level":             {brief{settings: level("ULTRA")}, flash, `{"thinkingConfig":{"thinkingLevel":"ULTRA"}}`, nil},
		"no levels":               {brief{settings: level("high")}, gemini2, "", []string{"thinking_level"}},
		"4K of an old model":      {brief{aspect: "1:1", size: "4K"}, gemini2, `{"imageConfig":{"aspectRatio":"1:1"}}`, []string{"size"}},
		"1K of an old model":      {brief{size: "1K"}, gemini2, "", nil},
		"output":                  {brief{outputMime: "image/jpeg", compression: "80"}, gemini3, "", []string{"output_format", "output_compression"}},
		"output of Vertex": {
			brief{outputMime: "image/jpeg", compression: "80"},
			vertex,
			`{"imageConfig":{"imageOutputOptions":{"compressionQuality":80,"mimeType":"image/jpeg"}}}`, nil,
		},
		"output that Vertex has not": {brief{outputMime: "image/webp"}, vertex, "", []string{"output_format"}},
		"settings": {
			brief{settings: map[string]string{"seed": "7", "stopSequences": `["a"]`, "thinkingLevel": `"LOW"`, "thinkingBudget": "-1", "other": "1"}},
			gemini3,
			`{"seed":7,"stopSequences":["a"],"thinkingConfig":{"thinkingBudget":-1,"thinkingLevel":"LOW"}}`, nil,
		},
	} {
		config, dropped := configOf(t, &tt.brief, tt.to)
		if config != tt.want || !slices.Equal(dropped, tt.dropped) {
			t.Errorf("%s: %s without %q, expected %s without %q", name, config, dropped, tt.want, tt.dropped)
		}
	}
}

func TestNativeSafety(t *testing.T) {
	b := &brief{
		safety:  []SafetySetting{{"HARM_CATEGORY_HARASSMENT", "OFF"}, {"HARM_CATEGORY_IMAGE_HATE", "OFF"}, {"HARM_CATEGORY_MEDICAL", "OFF"}, {"HARM_CATEGORY_NEW", "OFF"}},
		dropped: []string{"labels"},
	}
	lost := map[bool][]string{
		false: {"labels", "HARM_CATEGORY_IMAGE_HATE", "HARM_CATEGORY_MEDICAL"},
		true:  {"labels", "HARM_CATEGORY_MEDICAL"},
	}
	missing := []SafetySetting{{"HARM_CATEGORY_HATE_SPEECH", "BLOCK_NONE"}, {"HARM_CATEGORY_HARASSMENT", "BLOCK_NONE"}}
	for isVertex, want := range map[bool]map[string]string{
		false: {
			"HARM_CATEGORY_HARASSMENT": "OFF", "HARM_CATEGORY_NEW": "OFF", "HARM_CATEGORY_HATE_SPEECH": "BLOCK_NONE",
		},
		true: {
			"HARM_CATEGORY_HARASSMENT": "OFF", "HARM_CATEGORY_NEW": "OFF", "HARM_CATEGORY_HATE_SPEECH": "BLOCK_NONE",
			"HARM_CATEGORY_IMAGE_HATE": "OFF",
		},
	} {
		text, dropped := writeNative(t, b, "", translation{isVertex: isVertex, safety: missing})
		var parsed struct{ SafetySettings []SafetySetting }
		if err := json.Unmarshal([]byte(text), &parsed); err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, s := range parsed.SafetySettings {
			got[s.Category] = s.Threshold
		}
		if !maps.Equal(got, want) || len(got) != len(parsed.SafetySettings) || !slices.Equal(dropped, lost[isVertex]) {
			t.Errorf("Vertex %t: %s without %q", isVertex, text, dropped)
		}
	}
	if len(b.safety) != 4 || b.safety[1].Category != "HARM_CATEGORY_IMAGE_HATE" || len(b.dropped) != 1 {
		t.Errorf("the brief has been changed: %+v", b)
	}
}

// TestNativeOfForm writes what other forms have: images that are no base64, texts
// that are not in the body, images somewhere else.
func TestNativeOfForm(t *testing.T) {
	const body = "...\x89PNG..."
	b := &brief{system: []passage{{text: "a \"system\"\n"}}, turns: []briefTurn{
		{parts: []briefPart{{text: passage{text: "a cat"}}, {image: &briefImage{data: span{3, 7}, isBinary: true}}}},
		{isModel: true, parts: []briefPart{{image: &briefImage{mime: "image/webp", uri: `https://a/"b"`}}}},
	}}
	const before = `{"contents":[{"role":"user","parts":[{"text":"a cat"},{"inlineData":{"mimeType":"image/png","data":"iVBORw=="}}]},` +
		`{"role":"model","parts":[{"fileData":{"fileUri":"https://a/\"b\"","mimeType":"image/webp"}`
	const after = `}]}],"systemInstruction":{"parts":[{"text":"a \"system\"\n"}]}}`
	const signature = `,"thoughtSignature":"skip_thought_signature_validator"`
	for _, tt := range []struct {
		to   translation
		want string
	}{
		{translation{model: "gemini-3-pro-image"}, before + signature + after},
		{translation{model: "gemini-3-pro-image", isVertex: true}, before + after},
		{translation{model: "gemini-2.5-flash-image"}, before + after},
	} {
		if got, _ := writeNative(t, b, body, tt.to); got != tt.want {
			t.Errorf("%+v:\n got %s\nwant %s", tt.to, got, tt.want)
		}
	}
}

func TestNativeEdits(t *testing.T) {
	const body = `{"contents":[{"parts":[{"text":"a cat"},{"text":"b"}]}]}`
	b := readNative(t, body, false)
	first := b.turns[0].parts[0].text
	edits := []edit{{first.at, int(first.end - first.at), []byte(`"a \"dog\""`)}}
	got, _ := writeNative(t, b, body, translation{edits: edits})
	if want := `{"contents":[{"role":"user","parts":[{"text":"a \"dog\""},{"text":"b"}]}]}`; got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
	turn, err := lastTurn(strings.NewReader(body))
	if err != nil || turn[0].at != first.at || turn[0].end != first.end {
		t.Errorf("edits are at %v, the text is at %v: %v", turn, first, err)
	}
}
