// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"errors"
	"mime/multipart"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
)

// formOf writes a form as Go's own writer does. A field has a name and a value; a
// file has, behind its name, that of the file and a type, each of which may be "-".
func formOf(t testing.TB, fields ...[]string) string {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.SetBoundary(testBoundary); err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		h := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + f[0] + `"`}}
		if len(f) > 2 && f[1] != "-" {
			h["Content-Disposition"][0] += `; filename="` + f[1] + `"`
		}
		if len(f) > 2 && f[2] != "-" {
			h.Set("Content-Type", f[2])
		}
		part, err := w.CreatePart(h)
		if err == nil {
			_, err = part.Write([]byte(f[len(f)-1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	promptField = []string{"prompt", "a"}
	imageField  = []string{"image", "a.png", "image/png", "x"}
)

func TestBriefForm(t *testing.T) {
	const (
		told0 = "draws true\nimages alone true\n"
		toldA = "user\n  text \"a\"\n"
		toldX = toldA + "  image image/png \"x\"\n"
	)
	jpeg := "\xff\xd8\xff\xe0"
	big := strings.Repeat("\r\n--boundar\r\n", formBuffer/5)
	for name, tt := range map[string]struct {
		fields [][]string
		want   string
	}{
		"one image":         {[][]string{promptField, imageField}, toldX + told0},
		"image first":       {[][]string{imageField, promptField}, toldX + told0},
		"several":           {[][]string{promptField, {"image[]", "a.png", "image/png", "x"}, {"image[1]", "b", "image/jpg; q=1", "y"}}, toldX + "  image image/jpeg \"y\"\n" + told0},
		"type of the image": {[][]string{promptField, {"image", "a.png", "application/octet-stream", jpeg}}, toldA + "  image image/jpeg \"\\xff\\xd8\\xff\\xe0\"\n" + told0},
		"type of the name":  {[][]string{promptField, {"image", "a.HEIC", "-", "x"}}, toldA + "  image image/heic \"x\"\n" + told0},
		"no type":           {[][]string{promptField, {"image", "a", "-", "x"}}, toldA + "  image  \"x\"\n" + told0},
		"no name":           {[][]string{promptField, {"image", "-", "image/gif", "x"}}, toldA + "  image image/gif \"x\"\n" + told0},
		"large image":       {[][]string{promptField, {"image", "a", "image/png", big}}, toldA + "  image image/png " + strconv.Quote(big) + "\n" + told0},
		"no mask chosen":    {[][]string{promptField, imageField, {"mask", "", "application/octet-stream", ""}, {"image", "", "application/octet-stream", ""}}, toldX + told0},
		"numbers and words": {
			[][]string{promptField, imageField, {"n", "3"}, {"quality", "high"}, {"response_format", "url"}, {"output_compression", "50"}, {"stream", "false"}, {"user", "u"}, {"size", ""}, {"foo", ""}},
			toldX + told0 + "fine true\nown quality high\nown user u\ncompression 50\ncount 3\nas URL true\n",
		},
		"nested": { // in the order of the JavaScript client 7; form_nested.in is in that of 4
			[][]string{
				promptField, imageField,
				{"extra_body[google][safety_settings][][category]", "harassment"},
				{"extra_body[google][safety_settings][][threshold]", "OFF"},
				{"extra_body[google][safety_settings][][category]", "jailbreak"},
				{"extra_body[google][safety_settings][][threshold]", "BLOCK_NONE"},
				{"google[image_config][aspect_ratio]", "4:5"},
				{"google[thinking_config][thinking_budget]", "-1"},
				{"google[thinking_config][include_thoughts]", "false"},
				{"google[response_modalities][]", "IMAGE"},
				{"google[response_modalities][]", "TEXT"},
			},
			toldX + "draws true\nwrites true\naspect 4:5\nsafety HARM_CATEGORY_HARASSMENT OFF\nsafety HARM_CATEGORY_JAILBREAK BLOCK_NONE\nthinkingBudget -1\n",
		},
		"no UTF-8": {[][]string{{"prompt", "a\xff"}, imageField}, "user\n  text \"a\uFFFD\"\n  image image/png \"x\"\n" + told0},

		"no prompt":      {[][]string{imageField}, "foreign missing_required_parameter prompt: Missing required parameter: 'prompt'.\n"},
		"no image":       {[][]string{promptField}, "foreign missing_required_parameter image: Missing required parameter: 'image'.\n"},
		"long word":      {[][]string{promptField, imageField, {"size", strings.Repeat("1", maxWord+1)}}, "foreign invalid_value size: Invalid value for 'size': it is too long.\n"},
		"long number":    {[][]string{promptField, imageField, {"google[thinking_config][thinking_budget]", strings.Repeat("1", maxScalar)}}, "foreign invalid_value google[thinking_config][thinking_budget]: Invalid value for 'google[thinking_config][thinking_budget]': it is too long.\n"},
		"a mask":         {[][]string{promptField, imageField, {"mask", "m.png", "image/png", "x"}}, "foreign unsupported_parameter mask: Unsupported parameter: 'mask' is not supported with this model.\n"},
		"unknown":        {[][]string{{"foo[bar]", "x"}, imageField}, "foreign unknown_parameter foo[bar]: Unknown parameter: 'foo[bar]'.\n"},
		"unknown below":  {[][]string{{"google[foo][]", "x"}, imageField}, "foreign unknown_parameter google[foo][]: Unknown parameter: 'google[foo][]'.\n"},
		"below a number": {[][]string{{"n[]", "1"}, imageField}, "foreign unknown_parameter n[]: Unknown parameter: 'n[]'.\n"},
		"an object":      {[][]string{{"google", "x"}, imageField}, "foreign invalid_type google: Invalid type for 'google': expected an object or a list.\n"},
		"no number":      {[][]string{{"n", "two"}, imageField}, "foreign invalid_type n: Invalid type for 'n': expected a number.\n"},
		"no file":        {[][]string{{"image", "https://x"}, promptField}, "foreign invalid_value image: Invalid value for 'image': it must be a file with an image.\n"},
		"other file":     {[][]string{{"image", "a.pdf", "application/pdf", "x"}, promptField}, "foreign invalid_value image: Invalid value for 'image': it must be a file with an image.\n"},
		"half a setting": {[][]string{promptField, imageField, {"safety_settings[][category]", "HARASSMENT"}}, "foreign invalid_value safety_settings: Invalid value for 'safety_settings': it must be pairs of a category and a threshold.\n"},
	} {
		body := formOf(t, tt.fields...)
		if got := told(mustReadOpenAI(t, kindForm, body), body); got != tt.want {
			t.Errorf("%s\n got %.500s\nwant %.500s", name, got, tt.want)
		}
	}
}

// TestBriefFormByHand has what Go's writer does not write.
func TestBriefFormByHand(t *testing.T) {
	const prompt = "Content-Disposition: form-data; name=\"prompt\"\r\n\r\na"
	const image = "content-type:image/png\r\nX-Other: x\r\ncontent-disposition:form-data;name=image;filename*=UTF-8''%C3%A4.png\r\n\r\nx"
	for body, want := range map[string]string{
		"preamble\r\n--boundary \t\r\n" + prompt + "\r\n--boundary\r\n" + image + "\r\n--boundary--":                                                                   "",
		"--boundary\r\n" + prompt + "\r\n--boundary\r\n" + image + "\r\n--boundary--epilogue":                                                                          "",
		"--boundary\r\n" + prompt + "\r\n--boundaryx\r\n--boundary-\r\n--boundary\r\n" + image + "\r\n--boundary--":                                                    "",
		"--boundary\r\n" + strings.Replace(prompt, "\r\n", "\r\n ; x=\"y\"\r\n \r\n", 1) + "\r\n--boundary\r\n" + image + "\r\n--boundary--":                           "",
		"--boundary\r\n" + strings.Replace(prompt, "\r\n", "\r\nContent-Disposition: form-data; name=size\r\n", 1) + "\r\n--boundary\r\n" + image + "\r\n--boundary--": "",
		"":                        "unexpected end of the form at byte 0",
		"--boundary":              "unexpected end of the form at byte 10",
		"--boundary--":            "",
		"--boundary\r\n":          "unexpected end of the form at byte 12",
		"--boundary \r\n":         "unexpected end of the form at byte 13",
		"--boundary x\r\n":        "invalid boundary at byte 14",
		"--boundary\r\n" + prompt: "unexpected end of the form at byte 62",
		"--boundary\r\n" + prompt + "\r\n--boundary":                 "unexpected end of the form at byte 74",
		"--boundary\r\nContent-Type: text/plain\r\n\r\n":             "a part has no name at byte 40",
		"--boundary\r\n\r\n":                                         "a part has no name at byte 14",
		"--boundary\r\n" + strings.Repeat("X: x\r\n", maxFormHeader): "a part has too long a header at byte 8208",
		"--boundary\r\nX: " + strings.Repeat("x", 2*formBuffer):      "unexpected end of the form at byte 32780",
		`{"prompt":"a"}`: "unexpected end of the form at byte 14",
	} {
		b, err := readOpenAI(t, kindForm, body)
		switch {
		case want == "" && err != nil:
			t.Errorf("%.200q: %v", body, err)
		case want != "" && (!errors.Is(err, errMalformed) || err.Error() != want || b != nil):
			t.Errorf("%.200q: %v, want %s", body, err, want)
		}
	}
	for _, boundary := range []string{"", strings.Repeat("x", 2*formBuffer)} {
		if b, err := readBriefForm(strings.NewReader("--"+boundary+"\r\n"+prompt), boundary); !errors.Is(err, errMalformed) {
			t.Errorf("boundary %.20q: %+v %v", boundary, b, err)
		}
	}
}

func TestBriefFormIsBounded(t *testing.T) {
	images := [][]string{promptField}
	for range maxParts + 1 {
		images = append(images, imageField)
	}
	for param, fields := range map[string][][]string{
		"":       {imageField, {"prompt", strings.Repeat("x", maxTurn)}},
		"prompt": {imageField, {"prompt", strings.Repeat("x", maxTurn+1)}},
		"image":  images,
	} {
		b, err := readBriefForm(strings.NewReader(formOf(t, fields...)), testBoundary)
		if err != nil || param == "" && b.foreign != nil || param != "" && (b.foreign == nil || b.foreign.param != param) {
			t.Errorf("%q: %+v %v", param, b.foreign, err)
		}
	}
}
