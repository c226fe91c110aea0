// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"path"
	"strings"
	"testing"
)

func TestCost(t *testing.T) {
	const pro, flash = "gemini-3-pro-image", "gemini-2.5-flash-image"
	own := priceList{{Match: "gemini-3-pro-*", USDPerImage: 0.1}, {Match: "free", USDPerImage: 0}}
	for name, c := range map[string]struct {
		prices priceList
		model  string
		answer answered
		want   float64 // in USD; -1: not known
	}{
		"image, text, thinking":         {nil, pro, answered{usage{14, 1283, 174, 1120}, 1, false}, 0.138472},
		"images not told apart":         {nil, pro, answered{usage{14, 1283, 174, 0}, 1, false}, 0.138472},
		"more images than tokens":       {nil, pro, answered{usage{0, 1283, 0, 0}, 2, false}, 1283 * 120e-6},
		"images without tokens":         {nil, flash, answered{images: 2}, 2 * 1290 * 30e-6},
		"image billed and not sent":     {nil, flash, answered{usage{0, 1290, 0, 1290}, 0, false}, 1290 * 30e-6},
		"preview":                       {nil, "gemini-3-pro-image-preview", answered{usage: usage{input: 1000}}, 0.002},
		"prefix":                        {nil, "models/" + flash, answered{usage: usage{input: 1000}}, 0.0003},
		"OpenAI-compatible on Vertex":   {nil, "google/" + flash, answered{usage: usage{input: 1000}}, 0.0003},
		"not the flash that draws":      {nil, "gemini-2.5-flash", answered{usage{1000, 1000, 0, 0}, 1, false}, 0.0028},
		"short prompt":                  {nil, "gemini-2.5-pro", answered{usage: usage{input: 200_000, output: 100}}, 0.251},
		"long prompt":                   {nil, "gemini-2.5-pro", answered{usage: usage{input: 200_001, output: 100}}, 0.5015025},
		"Imagen":                        {nil, "imagen-4.0-ultra-generate-001", answered{images: 4}, 0.24},
		"unknown model":                 {nil, "invented", answered{usage: usage{input: 1}}, -1},
		"unknown model, image":          {nil, "invented", answered{images: 1}, -1},
		"unknown model, nothing used":   {nil, "invented", answered{}, 0},
		"speech is not text":            {nil, "gemini-2.5-flash-preview-tts", answered{usage: usage{input: 1}}, -1},
		"own price":                     {own, pro, answered{usage{14, 1283, 174, 1120}, 2, false}, 0.2},
		"own price, prefix":             {own, "models/" + pro, answered{images: 1}, 0.1},
		"own price, no image":           {own, pro, answered{usage: usage{input: 14, thinking: 174}}, 0},
		"own price of nothing":          {own, "free", answered{images: 3}, 0},
		"own prices, another model":     {own, flash, answered{usage: usage{input: 1000}}, 0.0003},
		"blocked":                       {nil, pro, answered{usage{18, 0, 220, 0}, 0, true}, 0.002676},
		"blocked, thinking mirrored":    {nil, pro, answered{usage{18, 220, 220, 0}, 0, true}, 0.002676},
		"blocked, some text":            {nil, pro, answered{usage{18, 100, 220, 0}, 0, true}, 0.003876},
		"blocked, image is free":        {nil, pro, answered{usage{18, 1220, 220, 1120}, 0, true}, 0.003876},
		"blocked behind an image":       {nil, pro, answered{usage{18, 1220, 220, 1120}, 1, true}, 0.138276},
		"blocked, own price":            {own, pro, answered{usage{18, 0, 220, 0}, 0, true}, 0},
		"more image tokens than output": {nil, pro, answered{usage{0, 100, 0, 1120}, 1, false}, 0.012},
		"absurd":                        {nil, pro, answered{usage{1 << 62, 1 << 62, 1 << 62, 1 << 62}, 1, false}, 20 + 1200 + 120},
	} {
		t.Run(name, func(t *testing.T) {
			got, isKnown := c.prices.cost(c.model, c.answer)
			if isKnown != (c.want >= 0) || isKnown && got != usdOf(c.want) {
				t.Errorf("expected %v USD, got %v (known: %t)", c.want, got.usd(), isKnown)
			}
		})
	}
}

func TestCostOfRecordedAnswers(t *testing.T) {
	for _, c := range []struct {
		file, model string
		want        float64
	}{
		{"image_ok_gemini3_pro_text_and_image.json", "gemini-3-pro-image-preview", 0.138472},
		{"image_ok_gemini3_pro_ga.json", "gemini-3-pro-image", 0.137744},
		{"image_ok_gemini31_flash_lite.json", "gemini-3.1-flash-lite-image", 0.03419825},
		{"image_ok_gemini25_flash_text_and_image.json", "gemini-2.5-flash-image", 0.0388201},
		{"image_ok_vertex_gemini25_flash.json", "gemini-2.5-flash-image", 0.0387152},
		{"noimage_stop_text_only_gemini25_flash.json", "gemini-2.5-flash-image", 0.0001254},
		{"blocked_image_safety_gemini3_pro.json", "gemini-3-pro-image", 0.002676},
		{"blocked_image_prohibited_content_gemini3_pro_stream.sse", "gemini-3-pro-image-preview", 0.005118},
		{"blocked_candidate_model_armor.json", "gemini-2.5-flash", 0.0000882},
		{"blocked_no_image_no_content.json", "gemini-2.5-flash-image", 0},
		{"prompt_blocked_prohibited_content_array_stream.json", "gemini-3-pro-preview", 0.01635},
	} {
		form := formUnary
		if path.Ext(c.file) == ".sse" {
			form = formEvents
		}
		p := play(strings.NewReader(string(fixture(t, c.file))), form, expectation{}, noLimit)
		p.body(t)
		said := p.scan.facts
		got, isKnown := priceList(nil).cost(c.model, answered{said.usage, said.delivered(), said.stopped != ""})
		if !isKnown || got != usdOf(c.want) {
			t.Errorf("%s: expected %v USD, got %v (known: %t)", c.file, c.want, got.usd(), isKnown)
		}
	}
}

func TestListPricesArePatterns(t *testing.T) {
	for _, list := range listPrices {
		if _, err := path.Match(list.match, ""); err != nil {
			t.Errorf("%s: %v", list.match, err)
		}
		for _, perMillion := range []float64{list.input, list.text, list.image} {
			if perToken := perMillion * 1000; perToken != float64(int64(perToken)) {
				t.Errorf("%s: %v nanodollars are no whole number, as sums expect", list.match, perToken)
			}
		}
		if (list.image > 0) != (list.imageTokens > 0) {
			t.Errorf("%s: images have a price or a number of tokens, but not both", list.match)
		}
	}
}

func TestDollars(t *testing.T) {
	for amount, want := range map[nanoUSD]string{
		0: "0", 1: "0.000000001", 134_400_000: "0.1344", 2 * 1e9: "2", maxSum: "562949.953421312", maxSum - 1: "562949.953421311",
	} {
		got, err := json.Marshal(amount)
		if err != nil || string(got) != want {
			t.Errorf("expected %s, got %s (%v)", want, got, err)
		}
		var read nanoUSD
		if err := json.Unmarshal(got, &read); err != nil || read != amount {
			t.Errorf("%s was read as %d (%v)", got, read, err)
		}
	}
	for _, bad := range []string{`-1`, `1e300`, `"1"`, `null`, `[]`, `562950`} {
		if err := json.Unmarshal([]byte(bad), new(nanoUSD)); err == nil {
			t.Errorf("%s was taken for an amount", bad)
		}
	}
}

// TestSumsDoNotDrift adds up a busy day.
func TestSumsDoNotDrift(t *testing.T) {
	cost, _ := priceList(nil).cost("gemini-2.5-flash-image", answered{usage{17, 1336, 0, 1290}, 1, false})
	var sum nanoUSD
	for range 1_000_000 {
		sum += cost
	}
	if sum.usd() != 38820.1 {
		t.Errorf("a million answers of %v USD cost %v", cost.usd(), sum.usd())
	}
}
