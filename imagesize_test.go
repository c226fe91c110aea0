// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestFitSize(t *testing.T) {
	for size, want := range map[string]string{
		"1024x1024": "1:1 1K", "1792x1024": "16:9 1K", "1024x1792": "9:16 1K", "1536x1024": "3:2 1K", "1024x1536": "2:3 1K", // OpenAI's own
		"256x256": "1:1 512", "512x512": "1:1 512",
		"1184x864": "4:3 1K", "896x1152": "4:5 1K", "1344x768": "16:9 1K", "1536x672": "21:9 1K", // those of gemini-2.5-flash-image
		"1920x1080": "16:9 2K", "2560x1440": "16:9 2K", "3840x2160": "16:9 4K", "1080x1920": "9:16 2K",
		"640x480": "4:3 1K", "1000x1": "8:1 512", "1x1000": "1:8 512", "3000x1000": "21:9 2K", "4000x1000": "4:1 2K", "1024X768": "4:3 1K",
		"2K": " 2K", "4k": " 4K", "512": " 512", "0.5K": " 512", "16:9": "16:9 ",
		"": "", "auto": "", "x": "", "1024": "", "1024x": "", "x1024": "", "0x1024": "", "-1x1024": "", "1024x1024x1024": "", "1e3x1": "",
		"1000000x1": "", "99999999999999999999x1": "", "16:10": "", "8K": "", "1024x1024 ": "",
	} {
		aspect, imageSize, ok := fitSize(size)
		if got := aspect + " " + imageSize; ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", size, got, ok, want)
		}
	}
}

func TestPixelSize(t *testing.T) {
	for _, shape := range imageShapes {
		for _, scale := range imageScales {
			size := pixelSize(shape.aspect, scale.word, "gemini-3.1-flash-image")
			if aspect, imageSize, ok := fitSize(size); !ok || aspect != shape.aspect || imageSize != scale.word {
				t.Errorf("%s at %s are %s, which are %s at %s", shape.aspect, scale.word, size, aspect, imageSize)
			}
		}
	}
	for _, tt := range []struct{ aspect, size, model, want string }{
		{"", "", "m", "1024x1024"},
		{"", "4K", "m", "4096x4096"},
		{"16:9", "", "m", "1376x768"},
		{"21:9", "4K", "m", "6336x2688"},
		{"2:3", "512", "m", "424x632"},
		{"1:8", "2K", "m", "768x6144"},
		{"16:9", "4K", "gpt-image-1", "1536x1024"},
		{"1:8", "", "openai/gpt-image-1.5", "1024x1536"},
		{"5:4", "", "chatgpt-image-latest", "1536x1024"},
		{"1:1", "4K", "chatgpt-image-latest", "1024x1024"},
		{"4:3", "1K", "gpt-image-1-mini", "1536x1024"},
		{"21:9", "2K", "dall-e-3", "1792x1024"},
		{"9:16", "", "dall-e-3", "1024x1792"},
		{"9:16", "", "dall-e-2", "1024x1024"},
		{"7:5", "", "m", ""},
		{"", "8K", "m", ""},
	} {
		if got := pixelSize(tt.aspect, tt.size, tt.model); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// TestSizesInDocs holds the documentation to the table.
func TestSizesInDocs(t *testing.T) {
	page, err := os.ReadFile("docs/openai.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, shape := range imageShapes {
		table.WriteString("| " + shape.aspect)
		for _, scale := range imageScales {
			table.WriteString(" | " + pixelSize(shape.aspect, scale.word, ""))
		}
		table.WriteString(" |\n")
	}
	if !strings.Contains(string(page), table.String()) {
		t.Errorf("the table of sizes should be\n%s", table.String())
	}
}

// TestFieldsInDocs looks for a word about every field.
func TestFieldsInDocs(t *testing.T) {
	page, err := os.ReadFile("docs/openai.md")
	if err != nil {
		t.Fatal(err)
	}
	words := regexp.MustCompile(`\w+`)
	said := words.FindAllString(string(page), -1)
	for _, fields := range []openAIFields{imagesFields, editsFields, chatFields, extraFields} {
		for path := range fields {
			for _, key := range words.FindAllString(path, -1) {
				if !slices.Contains(said, snakeCase(key)) {
					t.Errorf("nothing about %s of %s", snakeCase(key), path)
				}
			}
		}
	}
}
