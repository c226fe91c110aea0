// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// signed returns a body with its missing signatures, which must not depend on
// how it is cut.
func signed(t testing.TB, body string, texts bool) string {
	t.Helper()
	whole, err := signatureEdits(strings.NewReader(body), texts)
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	for _, size := range []int{1, 2, 3, 7, 64} {
		if edits, err := signatureEdits(&pieces{body: body, size: size}, texts); err != nil || !reflect.DeepEqual(edits, whole) {
			t.Fatalf("%q in pieces of %d: %v, %v, as a whole %v", body, size, edits, err, whole)
		}
	}
	return applyEdits(body, whole)
}

func TestSignatureEdits(t *testing.T) {
	const camel = `"thoughtSignature":"skip_thought_signature_validator"`
	const snake = `"thought_signature":"skip_thought_signature_validator"`
	model := func(parts string) string { return `{"contents":[{"role":"model","parts":[` + parts + `]}]}` }
	for name, tt := range map[string]struct {
		texts      bool
		body, want string
	}{
		"image":             {false, model(`{"inlineData":{"data":"eA=="}}`), model(`{"inlineData":{"data":"eA=="},` + camel + `}`)},
		"file":              {false, model(`{"fileData":{"fileUri":"x"}}`), model(`{"fileData":{"fileUri":"x"},` + camel + `}`)},
		"function call":     {false, model(`{"functionCall":{"args":{"inline_data":{}}}}`), model(`{"functionCall":{"args":{"inline_data":{}}},` + camel + `}`)},
		"snake_case":        {false, model(`{"inline_data":{}},{"file_data":{}},{"function_call":{}}`), model(`{"inline_data":{},` + snake + `},{"file_data":{},` + snake + `},{"function_call":{},` + snake + `}`)},
		"both spellings":    {false, model(`{"inline_data":{}},{"inlineData":{}}`), model(`{"inline_data":{},` + snake + `},{"inlineData":{},` + camel + `}`)},
		"another last":      {false, model(`{"inlineData":{},"thought":true }`), model(`{"inlineData":{},"thought":true ,` + camel + `}`)},
		"signed":            {false, model(`{"inlineData":{},"thoughtSignature":"x"},{"inlineData":{},"thought_signature":"x"}`), ""},
		"strangely signed":  {false, model(`{"inlineData":{},"thoughtSignature":[]},{"inlineData":{},"thoughtSignature":7}`), ""},
		"empty signature":   {false, model(`{"thoughtSignature":"","inlineData":{}}`), model(`{` + camel + `,"inlineData":{}}`)},
		"null":              {false, model(`{"inline_data":{},"thought_signature" : null}`), model(`{"inline_data":{},"thought_signature" : "skip_thought_signature_validator"}`)},
		"empty and signed":  {false, model(`{"thoughtSignature":"","inlineData":{},"thought_signature":"x"}`), ""},
		"not asked texts":   {false, model(`{"text":"a"},{},{"inlineData":null}`), ""},
		"texts":             {true, model(`{"text":"a"},{"text":"","thought":true},{}`), model(`{"text":"a",` + camel + `},{"text":"","thought":true,` + camel + `},{}`)},
		"no text":           {true, model(`{"text":null},{"executableCode":{}}`), ""},
		"text, snake media": {true, model(`{"text":"a"},{"inline_data":{}}`), model(`{"text":"a",` + snake + `},{"inline_data":{},` + snake + `}`)},
		"text, snake body": {
			true, `{"contents":[{"role":"model","parts":[{"text":"a"}]}],"safety_settings":[]}`,
			`{"contents":[{"role":"model","parts":[{"text":"a",` + snake + `}]}],"safety_settings":[]}`,
		},
		"the user's": {true, `{"contents":[{"role":"user","parts":[{"inlineData":{}}]},{"parts":[{"inlineData":{}}]}]}`, ""},
		"role at the end": {
			true, `{"contents":[{"parts":[{"inlineData":{}}],"role":"user"},{"parts":[{"inlineData":{}}],"role":"m\u006fdel"}]}`,
			`{"contents":[{"parts":[{"inlineData":{}}],"role":"user"},{"parts":[{"inlineData":{},` + camel + `}],"role":"m\u006fdel"}]}`,
		},
		"no lists": {
			false, `{"contents":{"role":"model","parts":{"inlineData":{}}}}`,
			`{"contents":{"role":"model","parts":{"inlineData":{},` + camel + `}}}`,
		},
		"elsewhere": {true, `{"systemInstruction":{"role":"model","parts":[{"inlineData":{}}]},"x":[{"role":"model","parts":[{"text":"a"}]}]}`, ""},
		"too many":  {false, model(strings.Repeat(`{"inlineData":{}},`, maxSignatures) + `{"inlineData":{}}`), ""},
	} {
		want := tt.want
		if want == "" {
			want = tt.body
		}
		if got := signed(t, tt.body, tt.texts); got != want {
			t.Errorf("%s: %.300s\nexpected %.300s", name, got, want)
		}
	}
}

func TestSignatureEditsFail(t *testing.T) {
	if _, err := signatureEdits(strings.NewReader(`{"contents":[}`), true); !errors.Is(err, errMalformed) {
		t.Error(err)
	}
}

// FuzzSignatureEdits applies the edits: the body stays JSON and lacks nothing
// any more.
func FuzzSignatureEdits(f *testing.F) {
	for _, body := range []string{
		`{"contents":[{"role":"model","parts":[{"inlineData":{}},{"text":"a","thoughtSignature":""},{"functionCall":{},"thought_signature":null}]}]}`,
		`{"contents":{"parts":{"file_data":1,"inline_data":{}},"role":"model"},"a_b":1}`,
		`{"contents":[[{"role":"model","parts":[[{"text":"a"}]]}],{"role":"user","parts":[{"inlineData":{}}]}]}`,
	} {
		f.Add(body, true)
	}
	f.Fuzz(func(t *testing.T, body string, texts bool) {
		if !json.Valid([]byte(body)) {
			return
		}
		got := signed(t, body, texts)
		if !json.Valid([]byte(got)) {
			t.Fatalf("%q became %q", body, got)
		}
		if again := signed(t, got, texts); again != got {
			t.Fatalf("%q became %q and then %q", body, got, again)
		}
	})
}

func TestMissingSignature(t *testing.T) {
	for _, tt := range []struct {
		code      int
		message   string
		texts, ok bool
	}{
		{400, "Image part is missing a thought_signature in content position 3, part position 1.", false, true},
		{400, "Function call is missing a thought_signature in functionCall parts. This is required", false, true},
		{400, "Text part is missing a thought_signature in content position 2, part position 1.", true, true},
		{400, "Corrupted thought signature.", false, false},
		{500, "Image part is missing a thought_signature", false, false},
	} {
		texts, ok := missingSignature(&googleError{code: tt.code, message: tt.message})
		if texts != tt.texts || ok != tt.ok {
			t.Errorf("%d %s: %t, %t", tt.code, tt.message, texts, ok)
		}
	}
	for _, name := range []string{"error_400_thought_signature_image_part.json", "error_400_thought_signature_short.json"} {
		if texts, ok := missingSignature(parseGoogleError(http.StatusBadRequest, fixture(t, name))); texts || !ok {
			t.Errorf("%s: %t, %t", name, texts, ok)
		}
	}
}

func TestRejected(t *testing.T) {
	const unknown = "Invalid JSON payload received. Unknown name "
	const both = addedSafety | addedModalities
	for _, tt := range []struct {
		message string
		want    additions
	}{
		{unknown + `"responseModalities" at 'generation_config': Cannot find field.`, addedModalities},
		{unknown + `"response_modalities" at 'generationConfig': Cannot find field.`, addedModalities},
		{unknown + `"generationConfig": Cannot find field.`, addedModalities},
		{unknown + `"generation_config": Cannot find field.`, addedModalities},
		{unknown + `"safetySettings": Cannot find field.`, addedSafety},
		{unknown + `"safety_settings": Cannot find field.`, addedSafety},
		{unknown + "\"safetySettings\": Cannot find field.\n" + unknown + `"responseModalities" at 'generation_config': Cannot find field.`, both},
		{`Invalid value at 'safety_settings[2].category' (type.googleapis.com/…), "X"`, addedSafety},
		{`Invalid value at 'generation_config.response_modalities[0]' (type.googleapis.com/…), "BANANA"`, addedModalities},
		{"* GenerateContentRequest.safety_settings[4]: element predicate failed: $.category in (…)\n", addedSafety},
		{`Model does not support the requested response modalities: image,text`, addedModalities},

		{unknown + `"safetySettings" at 'generation_config': Cannot find field.`, 0},
		{unknown + `"imageConfig" at 'generation_config': Cannot find field.`, 0},
		{unknown + `"responseModalities": Cannot find field.`, 0},
		{`Invalid value at 'contents[0].parts[0].inline_data.data' (TYPE_BYTES), Base64 decoding failed`, 0},
		{`Invalid value at 'generation_config.top_k' (TYPE_INT32), "x"`, 0},
		{`* GenerateContentRequest.contents: contents is not specified`, 0},
		{`Request contains an invalid argument.`, 0},
		{``, 0},
	} {
		if got := rejected(&googleError{code: 400, message: tt.message}); got != tt.want {
			t.Errorf("%s: %b, expected %b", tt.message, got, tt.want)
		}
		if got := rejected(&googleError{code: 400, message: "Request contains an invalid argument.", violations: []string{tt.message}}); got != tt.want {
			t.Errorf("violation %s: %b, expected %b", tt.message, got, tt.want)
		}
		if got := rejected(&googleError{code: 500, message: tt.message}); got != 0 {
			t.Errorf("500 %s: %b", tt.message, got)
		}
	}
	e := parseGoogleError(http.StatusBadRequest, []byte(`{"error":{"details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[`+
		strings.Repeat(`{"description":"x"},`, maxViolations-1)+`{"field":"f","description":"Unknown name \"safetySettings\": Cannot find field."},{"description":"one too many"}]}]}}`))
	if rejected(e) != addedSafety || len(e.violations) != maxViolations {
		t.Errorf("%b of %q", rejected(e), e.violations)
	}
	for name, want := range map[string]additions{
		"error_400_unknown_field.json":          addedSafety,
		"error_400_invalid_modality_value.json": addedModalities,
		"error_400_aspect_ratio.json":           0,
		"error_400_api_key_invalid.json":        0,
	} {
		e := parseGoogleError(http.StatusBadRequest, fixture(t, name))
		if got := rejected(e); got != want {
			t.Errorf("%s: %b, expected %b", name, got, want)
		}
		if want != 0 && len(e.violations) != 1 {
			t.Errorf("%s: violations %q", name, e.violations)
		}
	}
}
