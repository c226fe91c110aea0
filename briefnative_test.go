// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

var updateGolden = flag.Bool("update", false, "write what translations are now into their golden files")

// readNative reads a body, however it is cut.
func readNative(t testing.TB, body string, isVertex bool) *brief {
	t.Helper()
	whole, err := readBriefNative(strings.NewReader(body), isVertex)
	if err != nil {
		t.Fatalf("%.200q: %v", body, err)
	}
	for _, size := range []int{1, 2, 7, 64} {
		b, err := readBriefNative(&pieces{body: body, size: size}, isVertex)
		if err != nil || !reflect.DeepEqual(b, whole) {
			t.Fatalf("%.200q in pieces of %d: %+v, %v, as a whole %+v", body, size, b, err, whole)
		}
	}
	return whole
}

func checkGolden(t *testing.T, path, got string) {
	t.Helper()
	if *updateGolden {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != got {
		t.Errorf("%s (-update rewrites it): %v\n got %s\nwant %s", path, err, got, want)
	}
}

func TestBriefNativeRecorded(t *testing.T) {
	for name, body := range requestFixtures(t) {
		b := readNative(t, string(body), false)
		isNative := strings.Contains(string(body), `"contents"`)
		if (b.foreign == nil) != isNative || isNative && len(b.turns) != 1 {
			t.Errorf("%s: %s", name, told(b, string(body)))
		}
	}
}

// TestBriefNativeForeign has fields without which a call would be another one.
func TestBriefNativeForeign(t *testing.T) {
	long := strings.Repeat("x", maxWord+1)
	for body, want := range map[string]string{
		`{"tools":[{"googleSearch":{}}]}`:                    "tools",
		`{"cached_content":"cachedContents/a"}`:              "cached_content",
		`{"store":false}`:                                    "store",
		`{"prompt":"a cat"}`:                                 "prompt",
		`{"contents":[],"contents":[],"foo":[0]}`:            "foo",
		`{"generationConfig":{"responseSchema":{"a":1}}}`:    "generationConfig.responseSchema",
		`{"generation_config":{"_responseJsonSchema":[1]}}`:  "generation_config._responseJsonSchema",
		`{"generationConfig":{"speechConfig":{"a":1}}}`:      "generationConfig.speechConfig",
		`{"generationConfig":{"safetySettings":[{}]}}`:       "generationConfig.safetySettings",
		`{"generationConfig":{"logprobs":3}}`:                "generationConfig.logprobs",
		`{"generationConfig":{"thinkingConfig":{"x":true}}}`: "generationConfig.thinkingConfig.x",

		`{"contents":[{"parts":[{"functionCall":{"name":"f"}}]}]}`:             "contents.parts.functionCall",
		`{"contents":[{"parts":[{"text":"a"},{"functionResponse":{"a":1}}]}]}`: "contents.parts.functionResponse",
		`{"contents":[{"parts":[{"executable_code":{"code":"1"}}]}]}`:          "contents.parts.executable_code",
		`{"contents":{"parts":{"videoMetadata":{"fps":1}}}}`:                   "contents.parts.videoMetadata",
		`{"systemInstruction":{"parts":[{"inlineData":{"data":"AAAA"}}]}}`:     "systemInstruction.parts.inlineData",
		`{"safetySettings":[{"category":"X","foo":1}]}`:                        "safetySettings.foo",
	} {
		checkForeign(t, body, want, "unsupported_parameter")
	}
	for body, want := range map[string]string{
		`[]`: "", `[1]`: "body", `"x"`: "body",
		`{"generationConfig":{"responseMimeType":"application/json"}}`:                "generationConfig.responseMimeType",
		`{"generationConfig":{"responseLogprobs":true}}`:                              "generationConfig.responseLogprobs",
		`{"generationConfig":{"responseModalities":["TEXT","AUDIO"]}}`:                "generationConfig.responseModalities",
		`{"generationConfig":{"responseModalities":"IMAGE"}}`:                         "generationConfig.responseModalities",
		`{"generationConfig":{"responseFormat":{"image":{"delivery":"URI"}}}}`:        "generationConfig.responseFormat.image.delivery",
		`{"generationConfig":{"candidateCount":-1}}`:                                  "generationConfig.candidateCount",
		`{"generationConfig":{"candidateCount":"2"}}`:                                 "generationConfig.candidateCount",
		`{"generationConfig":{"temperature":"hot"}}`:                                  "generationConfig.temperature",
		`{"generationConfig":{"temperature":` + strings.Repeat("1", maxScalar) + `}}`: "generationConfig.temperature",
		`{"generationConfig":{"stopSequences":[7]}}`:                                  "generationConfig.stopSequences",
		`{"generationConfig":{"stopSequences":["` + long + `"]}}`:                     "generationConfig.stopSequences",
		`{"generationConfig":{"thinkingConfig":{"thinkingLevel":2}}}`:                 "generationConfig.thinkingConfig.thinkingLevel",
		`{"generationConfig":{"imageConfig":{"aspectRatio":["1:1"]}}}`:                "generationConfig.imageConfig.aspectRatio",
		`{"generationConfig":{"imageConfig":{"outputMimeType":"video/mp4"}}}`:         "generationConfig.imageConfig.outputMimeType",
		`{"generationConfig":[1]}`:                                                    "generationConfig",
		`{"generationConfig":true}`:                                                   "generationConfig",

		`{"contents":"a cat"}`:                                                                                             "contents",
		`{"contents":[{"role":"function","parts":[]}]}`:                                                                    "contents.role",
		`{"contents":[{"parts":["a cat"]}]}`:                                                                               "contents.parts",
		`{"contents":[{"parts":[{"text":1}]}]}`:                                                                            "contents.parts.text",
		`{"contents":[{"parts":[{"text":["a"]}]}]}`:                                                                        "contents.parts.text",
		`{"contents":[{"parts":[{"text":"a","inlineData":{"data":"AAAA"}}]}]}`:                                             "contents.parts",
		`{"contents":[{"parts":[{"thoughtSignature":"AAAA"}]}]}`:                                                           "contents.parts.thoughtSignature",
		`{"contents":[{"parts":[{"thought":"yes"}]}]}`:                                                                     "contents.parts.thought",
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"audio/mp3"}}]}]}`:                                               "contents.parts.inlineData.mimeType",
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"image/"}}]}]}`:                                                  "contents.parts.inlineData.mimeType",
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"image/a\r\nb"}}]}]}`:                                            "contents.parts.inlineData.mimeType",
		`{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png"}}]}]}`:                                               "contents.parts.inlineData",
		`{"contents":[{"parts":[{"inlineData":{"data":7}}]}]}`:                                                             "contents.parts.inlineData.data",
		`{"contents":[{"parts":[{"fileData":{"mimeType":"image/png"}}]}]}`:                                                 "contents.parts.fileData",
		`{"contents":[{"parts":[{"fileData":{"fileUri":"https://a/b.png"}}]}]}`:                                            "contents.parts.fileData",
		`{"contents":[{"parts":[{"fileData":{"fileUri":"gs://a/b.png"}}]}]}`:                                               "contents.parts.fileData.fileUri",
		`{"contents":[{"parts":[{"fileData":{"fileUri":"files/a"}}]}]}`:                                                    "contents.parts.fileData.fileUri",
		`{"contents":[{"parts":[{"file_data":{"file_uri":"https://generativelanguage.googleapis.com/v1beta/files/a"}}]}]}`: "contents.parts.file_data.file_uri",

		`{"safetySettings":{"category":"X"}}`:    "safetySettings",
		`{"safetySettings":[{"category":77}]}`:   "safetySettings.category",
		`{"safetySettings":[{"threshold":6}]}`:   "safetySettings.threshold",
		`{"safetySettings":[{"threshold":1.5}]}`: "safetySettings.threshold",
	} {
		checkForeign(t, body, want, "invalid_value")
	}
}

func checkForeign(t *testing.T, body, param, code string) {
	t.Helper()
	f := readNative(t, body, false).foreign
	if f == nil && param == "" {
		return
	}
	if f == nil || f.code != code || f.param != param && param != "body" || !strings.Contains(f.message, "'"+param+"'") {
		t.Errorf("%.200s: %+v, expected %s for %s", body, f, code, param)
	}
	if l, why := readNative(t, body, false).native(translation{}); l != nil || *why != *f {
		t.Errorf("%.200s is written as %v, %v", body, l, why)
	}
}

// TestBriefNativeWords reads words that have several forms.
func TestBriefNativeWords(t *testing.T) {
	for body, want := range map[string]string{
		`{"safetySettings":[{"category":7}]}`:                                                                                              "safety HARM_CATEGORY_HARASSMENT HARM_BLOCK_THRESHOLD_UNSPECIFIED\n",
		`{"safetySettings":[{"threshold":5}]}`:                                                                                             "safety HARM_CATEGORY_UNSPECIFIED OFF\n",
		`{"safetySettings":[{"category":"harm_category_jailbreak"}]}`:                                                                      "safety HARM_CATEGORY_JAILBREAK HARM_BLOCK_THRESHOLD_UNSPECIFIED\n",
		`{"generationConfig":{"responseModalities":["text",1]}}`:                                                                           "writes true\n",
		`{"generationConfig":{"responseModalities":["Image",2.0]}}`:                                                                        "draws true\nimages alone true\n",
		`{"generationConfig":{"responseModalities":[],"imageConfig":{"aspectRatio":"1:1"}}}`:                                               "draws true\naspect 1:1\n",
		`{"generationConfig":{"responseFormat":{"image":{"aspectRatio":"aspect_ratio_one_by_one"}}}}`:                                      "draws true\naspect 1:1\n",
		`{"generationConfig":{"responseFormat":{"image":{"imageSize":"IMAGE_SIZE_UNSPECIFIED"}}}}`:                                         "draws true\n",
		`{"generationConfig":{"responseFormat":[{"image":{"mimeType":"image/png"}}]}}`:                                                     "draws true\noutput image/png\n",
		`{"generationConfig":{"imageConfig":{"outputMimeType":"image/webp","outputCompressionQuality":75}}}`:                               "draws true\noutput image/webp\ncompression 75\n",
		`{"generationConfig":{"thinkingConfig":{"includeThoughts":false}}}`:                                                                "",
		`{"contents":[{"parts":[{"inlineData":{},"text":"a"},{"fileData":{"fileUri":null},"text":"b"},{"inlineData":{},"fileData":{}}]}]}`: "user\n  text \"a\"\n  text \"b\"\n",
		`null`: "",
	} {
		if got := told(readNative(t, body, false), body); got != want {
			t.Errorf("%s:\n got %q\nwant %q", body, got, want)
		}
	}
	const vertex = `{"safetySettings":[{"category":7,"threshold":1}]}`
	if got := told(readNative(t, vertex, true), vertex); got != "safety HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT BLOCK_LOW_AND_ABOVE\n" {
		t.Error("Vertex:", got)
	}
}

// TestBriefNativeSettings finds every setting that the forms share.
func TestBriefNativeSettings(t *testing.T) {
	for _, s := range sharedSettings {
		body := `{"generationConfig":{"` + s.native + `":7}}`
		switch s.native {
		case "stopSequences":
			body = `{"generationConfig":{"stopSequences":["7"]}}`
		case "thinkingLevel":
			body = `{"generationConfig":{"thinkingConfig":{"thinkingLevel":"7"}}}`
		case "thinkingBudget":
			body = `{"generationConfig":{"thinkingConfig":{"thinkingBudget":7}}}`
		}
		if b := readNative(t, body, false); b.foreign != nil || !strings.Contains(b.settings[s.native], "7") {
			t.Errorf("%s: %+v", body, b)
		}
	}
}

// TestBriefNativeBounds has more of everything than a brief keeps.
func TestBriefNativeBounds(t *testing.T) {
	list := func(n int, element string) string { return strings.Repeat(element+",", n-1) + element }
	uri := `{"fileData":{"mimeType":"image/png","fileUri":"https://` + strings.Repeat("x", maxURI-100) + `"}}`
	for name, tt := range map[string]struct {
		most                       int
		before, each, after, param string
	}{
		"texts":      {maxParts, `{"contents":[{"parts":[`, `{"text":"a"}`, `]}]}`, "contents.parts"},
		"turns":      {maxParts, `{"contents":[`, `{"parts":[{"text":"a"}]}`, `]}`, "contents.parts"},
		"system":     {maxParts, `{"systemInstruction":{"parts":[`, `{"text":"a"}`, `]}}`, "systemInstruction.parts.text"},
		"safety":     {maxListed, `{"safetySettings":[`, `{"method":"A"}`, `]}`, "safetySettings"},
		"stops":      {maxListed, `{"generationConfig":{"stopSequences":[`, `"a"`, `]}}`, "generationConfig.stopSequences"},
		"long words": {maxKept / maxURI, `{"contents":[{"parts":[`, uri, `]}]}`, ""},
	} {
		for n, want := range map[int]string{tt.most: "", tt.most + 1: tt.param, 3 * tt.most: tt.param} {
			b, err := readBriefNative(strings.NewReader(tt.before+list(n, tt.each)+tt.after), false)
			if err != nil {
				t.Fatal(name, err)
			}
			if isOver := b.foreign != nil; isOver != (want != "") && tt.param != "" || isOver && tt.param != "" && b.foreign.param != want {
				t.Errorf("%d %s: %+v", n, name, b.foreign)
			}
			if parts := len(b.system) + len(b.turns); parts > maxParts || len(b.safety) > maxListed {
				t.Errorf("%d %s: %d texts, %d settings", n, name, parts, len(b.safety))
			}
			if name == "long words" && n == 3*tt.most && b.foreign == nil {
				t.Errorf("%d URIs of %d bytes are kept", n, maxURI)
			}
		}
	}
}

func TestBriefNativeFails(t *testing.T) {
	for _, body := range []string{"", `{"contents":`, `{"contents":[{"parts":[{"text":"a"}]}]]`} {
		if b, err := readBriefNative(strings.NewReader(body), false); b != nil || !errors.Is(err, errMalformed) {
			t.Errorf("%q: %+v, %v", body, b, err)
		}
	}
	broken := errors.New("gone")
	if _, err := readBriefNative(iotest.ErrReader(broken), false); !errors.Is(err, broken) {
		t.Error("a broken body:", err)
	}
}
