// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// contentOf is a request with one content of these parts.
func contentOf(parts string) string { return `{"contents":[{"role":"user","parts":[` + parts + `]}]}` }

func TestMeasure(t *testing.T) {
	const image = `{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgoAAAANSUhEUgAA"}}`
	for _, c := range []struct {
		name string
		body string
		want measured
	}{
		// Texts.
		{"text", contentOf(`{"text":"a cat"}`), measured{bytes: 5}},
		{"texts", contentOf(`{"text":"a cat"},{"text":""},{"text":" on a mat"}`), measured{bytes: 14}},
		{"turns", `{"contents":[{"parts":[{"text":"12"}]},{"role":"model","parts":[{"text":"345","thought":true,"thoughtSignature":"AAAAAAAA"}]}]}`, measured{bytes: 5}},
		{"Chinese and Russian", contentOf(`{"text":"一只猫"},{"text":"кошка"}`), measured{bytes: 9 + 10}},
		{"the same in escapes", contentOf(`{"text":"\u4e00\u53ea\u732b"},{"text":"\u043a\u043e\u0448\u043a\u0430"}`), measured{bytes: 9 + 10}},
		{"a pair, a half and other escapes", contentOf(`{"text":"\ud83d\ude00\ud83d"},{"text":"\n\"\/\\"}`), measured{bytes: 4 + 3 + 4}},
		{"one content, one part", `{"contents":{"parts":{"text":"a cat"}}}`, measured{bytes: 5}},
		{"instruction", `{"systemInstruction":{"parts":[{"text":"be brief"}]},"contents":[]}`, measured{bytes: 8}},
		{"snake case", `{"system_instruction":{"parts":{"text":"12"}},"generation_config":{"candidate_count":2},"contents":[{"parts":[{"inline_data":{"mime_type":"image/png","data":"AAAA"}},{"file_data":{"file_uri":"x"}},{"function_call":{}}]}]}`, measured{bytes: 4, media: 2, asked: 2}},
		{"no prompt", `{"model":"m","generationConfig":{"stopSequences":["text"]},"safetySettings":[{"text":"x"}],"text":"x","parts":[{"text":"x"}]}`, measured{}},
		{"odd types", `{"contents":[null,7,[[{"parts":[[{"text":"12"}],"x",{"text":["x"]},{"text":7},{"inlineData":null},{"inlineData":[]}]}]]],"generationConfig":[{"candidateCount":3}],"tools":null}`, measured{bytes: 2}},

		// Files and functions.
		{"image", contentOf(`{"text":"what is it?"},` + image), measured{bytes: 11, media: 1}},
		{"file", contentOf(`{"fileData":{"mimeType":"image/png","fileUri":"https://x/y"}},` + image), measured{media: 2}},
		{"call", contentOf(`{"functionCall":{"args":{"a":[1]}}}`), measured{bytes: int64(len(`{"args":{"a":[1]}}`))}},
		{"its result", contentOf(`{"functionResponse":{"name":"f","response":{"a":"\u00e9"},"parts":[` + image + `]}}`), measured{bytes: int64(len(`{"a":"\u00e9"}`)), media: 1}},
		{"code", contentOf(`{"executableCode":{"code":"1"}},{"codeExecutionResult":{}}`), measured{bytes: int64(len(`{"code":"1"}{}`))}},
		{"tools", `{"tools":[{"functionDeclarations":[{"name":"f"}]}]}`, measured{bytes: int64(len(`[{"functionDeclarations":[{"name":"f"}]}]`))}},

		// Imagen.
		{"Imagen", `{"instances":[{"prompt":"a cat","image":{"bytesBase64Encoded":"AAAAAAAA"}}],"parameters":{"sampleCount":2}}`, measured{bytes: 5, asked: 2}},

		// OpenAI.
		{"chat", `{"model":"m","messages":[{"role":"system","content":"1"},{"role":"user","content":"23"}],"n":3}`, measured{bytes: 3, asked: 3}},
		{"content array", `{"messages":[{"content":[{"type":"text","text":"12"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAA"}},{"type":"image_url","image_url":"https://x/y"}]}]}`, measured{bytes: 2, media: 2}},
		{"tool calls", `{"messages":[{"content":null,"tool_calls":[{}]}],"tools":[{}]}`, measured{bytes: 8}},
		{"images", `{"prompt":"a cat","n":2,"size":"1024x1024"}`, measured{bytes: 5, asked: 2}},
		{"images to edit", `{"prompt":"a cat","image":"data:image/png;base64,AAAA","images":[{"image_url":"https://x/y"},{"file_id":"f"},"data:A"]}`, measured{bytes: 5, media: 4}},
		{"odd counts", `{"n":-2}`, measured{}},
		{"more than there can be", `{"n":99999999999}`, measured{}},

		// Interactions.
		{"input", `{"model":"m","input":"a cat","system_instruction":"be brief","response_modalities":["image"]}`, measured{bytes: 13}},
		{"contents", `{"input":[{"type":"text","text":"12"},{"type":"image","data":"AAAAAAAA","mime_type":"image/png"},{"type":"image","uri":"https://x/y"}]}`, measured{bytes: 2, media: 2}},
		{"steps", `{"input":[{"type":"user_input","content":[{"type":"text","text":"12"},{"type":"image","data":"AA"}]},{"type":"thought","signature":"AAAA"},{"type":"model_output","content":"345"},{"type":"function_call","arguments":{}},{"type":"function_result","result":"ok"}]}`, measured{bytes: 2 + 3 + 2 + 4, media: 1}},

		// What is no JSON.
		{"nothing", "", measured{}},
		{"text alone", "a cat", measured{}},
		{"gzip", "\x1f\x8b\x08\x00", measured{}},
		{"cut in a text", `{"contents":[{"parts":[{"text":"a cat"},{"text":"on a mat`, measured{bytes: 5 + 8}},
		{"broken behind a text", contentOf(`{"text":"a cat"} {"text":"on a mat"}`), measured{bytes: 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, read := range map[string]func(io.Reader) io.Reader{
				"whole": iotest.DataErrReader, "byte by byte": iotest.OneByteReader,
			} {
				got, err := measure(read(strings.NewReader(c.body)), editCall, jsonContentType)
				if got != c.want || err != nil {
					t.Errorf("%s: %+v %v, want %+v", name, got, err, c.want)
				}
			}
		})
	}
}

// editType is the Content-Type of an editForm.
const editType = formType + "; boundary=" + testBoundary

var editCall = &call{method: "images.edits"} // whose body may be JSON, too

// editForm is what OpenAI's clients send to have images edited.
func editForm(t testing.TB, n string) string {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.SetBoundary(testBoundary); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"image[]", "image[]", "mask"} {
		part, err := w.CreateFormFile(name, "a.png")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.Write(bytes.Repeat([]byte("\x89PNG\r\n--\x00"), 1000))
	}
	for _, f := range [][2]string{{"model", "m"}, {"prompt", "a cat with a hat"}, {"n", n}, {"size", "1024x1024"}} {
		if err := w.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	return b.String()
}

func TestMeasureForm(t *testing.T) {
	whole := editForm(t, "3")
	for name, c := range map[string]struct {
		body string
		want measured
	}{
		"form":               {whole, measured{bytes: 16, media: 3, asked: 3}},
		"preamble":           {"a\r\n" + whole, measured{bytes: 16, media: 3, asked: 3}},
		"line break":         {"\r\n" + whole, measured{bytes: 16, media: 3, asked: 3}},
		"bad number":         {editForm(t, strings.Repeat("9", 99)), measured{bytes: 16, media: 3}},
		"behind the end":     {whole + "\r\n" + whole, measured{bytes: 16, media: 3, asked: 3}},
		"cut in the prompt":  {whole[:strings.Index(whole, " with a hat")], measured{media: 3}},
		"cut in an image":    {whole[:5000], measured{media: 1}},
		"cut in a header":    {whole[:100], measured{}},
		"boundary alone":     {"--x", measured{}},
		"no boundary":        {"--\r\n", measured{}},
		"endless first line": {"--" + strings.Repeat("x", 1<<16), measured{}},
		"another boundary":   {strings.ReplaceAll(whole, testBoundary, "x"), measured{}},
	} {
		for _, read := range []func(io.Reader) io.Reader{iotest.DataErrReader, iotest.OneByteReader} {
			got, err := measure(read(strings.NewReader(c.body)), editCall, editType)
			if got != c.want || err != nil {
				t.Errorf("%s: %+v %v, want %+v", name, got, err, c.want)
			}
		}
	}
}

func TestMeasureFails(t *testing.T) {
	gone := errors.New("gone")
	for _, c := range []struct{ kind, body string }{
		{jsonContentType, ""},
		{jsonContentType, contentOf(`{"text":"a cat"}`)[:30]},
		{jsonContentType, `{"prompt":"a`},
		{editType, ""},
		{editType, editForm(t, "3")[:5000]},
		{editType, editForm(t, "3")},
	} {
		body := io.MultiReader(strings.NewReader(c.body), iotest.ErrReader(gone))
		if _, err := measure(body, editCall, c.kind); !errors.Is(err, gone) {
			t.Errorf("%s %.20q: %v", c.kind, c.body, err)
		}
	}
}

func TestDemand(t *testing.T) {
	const pro = "gemini-3-pro-image"
	generate, predict, chat := &call{method: "generateContent"}, &call{method: "predict"}, &call{method: "chat.completions"}
	for _, c := range []struct {
		m     measured
		call  *call
		model string
		draws bool
		want  need
	}{
		// Tokens.
		{measured{}, generate, pro, false, need{}},
		{measured{bytes: 1}, generate, pro, false, need{tokens: 1}},
		{measured{bytes: 8}, generate, pro, false, need{tokens: 2}},
		{measured{bytes: 9, media: 2}, generate, pro, false, need{tokens: 3 + 2*1120}},
		{measured{media: 1}, generate, "gemini-2.5-flash-image", false, need{tokens: 258}},
		{measured{media: 1}, generate, "gemini-2.0-flash-preview-image-generation", false, need{tokens: 258}},
		{measured{media: 1}, chat, "google/gemini-2.5-flash", false, need{tokens: 258}},
		{measured{media: 1}, chat, "models/gemini-1.5-pro", false, need{tokens: 258}},
		{measured{media: 1}, generate, "gemini-3.1-flash-image", false, need{tokens: 1120}},
		{measured{media: 1}, generate, "gemini-nano-banana-2.1", false, need{tokens: 1120}},
		{measured{media: 1}, generate, "", false, need{tokens: 1120}},

		// Images.
		{measured{asked: 3}, generate, pro, false, need{}},
		{measured{}, generate, pro, true, need{images: 1}},
		{measured{asked: 2}, generate, pro, true, need{images: 2}},
		{measured{}, predict, "imagen-4.0-generate-001", true, need{images: 4}},
		{measured{asked: 1}, predict, "imagen-4.0-generate-001", true, need{images: 1}},
		{measured{}, &call{method: "images.generations"}, pro, true, need{images: 1}},
		{measured{asked: 4}, &call{method: "images.edits"}, pro, true, need{images: 4}},
		{measured{asked: 1<<31 - 1}, chat, pro, true, need{images: 1000}},
	} {
		if got := c.m.need(c.call, c.model, c.draws); got != c.want {
			t.Errorf("%+v of %q, %s: %+v, want %+v", c.m, c.model, c.call.method, got, c.want)
		}
	}
}

func TestMeasureRecorded(t *testing.T) {
	for file, want := range map[string]measured{
		"request_ai_sdk_imagen_predict.json": {bytes: 5, asked: 1},
		"request_go_genai_1.77.json":         {bytes: 5},
		"request_interactions.json":          {bytes: 5},
		"request_openai_images.json":         {bytes: 5, asked: 1},
		"request_snake_case.json":            {bytes: 19, media: 1},
	} {
		got, err := measure(bytes.NewReader(fixture(t, file)), editCall, jsonContentType)
		if got != want || err != nil {
			t.Errorf("%s: %+v %v, want %+v", file, got, err, want)
		}
	}
}

// largeRequest has an image of ten megabytes.
func largeRequest() string {
	return contentOf(`{"text":"give it a hat"},{"inlineData":{"mimeType":"image/png","data":"` + strings.Repeat("iVBORw0KGgo", 10<<20/11) + `"}}`)
}

func TestMeasureKeepsNothing(t *testing.T) {
	body := largeRequest()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := measure(strings.NewReader(body), editCall, jsonContentType)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 || m.bytes != 13 || m.media != 1 || err != nil {
		t.Errorf("%+v %v, %d bytes of memory", m, err, used)
	}
}

// FuzzMeasure: any bytes, in any pieces, have the same measure, and no more text
// than there are bytes.
func FuzzMeasure(f *testing.F) {
	for _, body := range []string{
		contentOf(`{"text":"a \u4e00\ud83d\ude00 cat"},{"inlineData":{"data":"AAAA"}},{"functionCall":{"args":{}}}`), editForm(f, "2"),
		`{"messages":[{"content":[{"text":"a"},{"image_url":{"url":"data:"}}],"tool_calls":[{}]}],"n":2}`,
		`{"input":[{"content":[{"text":"a","data":"AA"}]},{"result":"ok"}],"tools":[1,"2",{}]}`, "--boundary\r\n\r\n\r\n--boundary--",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range []string{jsonContentType, editType} {
			whole, err := measure(bytes.NewReader(body), editCall, kind)
			if err != nil || whole.bytes > int64(len(body)) || whole.media > int64(len(body)) || min(whole.bytes, whole.media, whole.asked) < 0 {
				t.Fatalf("%s: %+v %v of %d", kind, whole, err, len(body))
			}
			if pieces, err := measure(iotest.OneByteReader(bytes.NewReader(body)), editCall, kind); pieces != whole || err != nil {
				t.Fatalf("%s: %+v %v, else %+v", kind, pieces, err, whole)
			}
		}
	})
}

// BenchmarkMeasure is what limits of tokens and images cost a call before it is
// sent.
func BenchmarkMeasure(b *testing.B) {
	for name, body := range map[string]string{
		"1K": contentOf(`{"text":"` + strings.Repeat("a cat with a hat ", 60) + `"}`), "escaped": contentOf(`{"text":"` + strings.Repeat(`\u4e00`, 1<<18) + `"}`), "10M": largeRequest(),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := measure(strings.NewReader(body), editCall, jsonContentType); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
