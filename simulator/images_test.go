// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"math"
	"strings"
	"testing"
)

func TestPicturesDecodeAtTheSizePromised(t *testing.T) {
	h := provisioned(t)
	for _, tc := range []struct {
		model, format, size, aspect string
		width, height               int
		leastMB, mostMB             float64 // of base64
		tokens                      int64
	}{
		{model: "gemini-2.5-flash-image", format: "png", width: 512, height: 512, leastMB: 1, mostMB: 1.5, tokens: 1290},
		{model: "gemini-3.1-flash-image", format: "jpeg", size: "512", width: 256, height: 256, leastMB: 0.3, mostMB: 0.6, tokens: 747},
		{model: "gemini-3-pro-image", format: "jpeg", size: "1K", aspect: "16:9", width: 683, height: 384, leastMB: 1, mostMB: 1.5, tokens: 1120},
		{model: "gemini-3.1-flash-image", format: "jpeg", size: "4K", aspect: "1:8", width: 362, height: 2896, leastMB: 15, mostMB: 20, tokens: 2520},
		{model: "gemini-2.5-flash-image", format: "png", size: "2K", aspect: "21:9", width: 1173, height: 503, leastMB: 4, mostMB: 6, tokens: 1290},
	} {
		name := strings.Join([]string{tc.model, tc.size, tc.aspect}, " ")
		body := fmt.Sprintf(`{"contents":[{"parts":[{"text":"a cat"}]}],"generationConfig":{"responseModalities":["IMAGE"],"imageConfig":{"imageSize":%q,"aspectRatio":%q}}}`, tc.size, tc.aspect)
		got := post(t, h, "/v1beta/models/"+tc.model+":generateContent", body)
		data := got.get("candidates.0.content.parts.0.inlineData")
		if mb := float64(len(data.Get("data").Str)) / 1e6; mb < tc.leastMB || mb > tc.mostMB {
			t.Errorf("%s: %.2f MB of base64", name, mb)
		}
		if mime := data.Get("mimeType").Str; mime != "image/"+tc.format {
			t.Errorf("%s: %s", name, mime)
		}
		if tokens := got.get("usageMetadata.candidatesTokensDetails.0.tokenCount").Int(); tokens != tc.tokens {
			t.Errorf("%s: %d tokens", name, tokens)
		}
		img, format := decode(t, data.Get("data").Str)
		if format != tc.format || img.Bounds().Dx() != tc.width || img.Bounds().Dy() != tc.height {
			t.Errorf("%s: %s of %v", name, format, img.Bounds())
		}
	}
}

func decode(t testing.TB, encoded string) (image.Image, string) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	img, format, err := image.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return img, format
}

func TestPicturesBelongToTheirPrompt(t *testing.T) {
	a, again, b := newGallery(), newGallery(), newGallery()
	key := pictureKey{seed: hash("a cat"), mime: "image/png"}
	other := pictureKey{seed: hash("a dog"), mime: "image/png"}
	if !bytes.Equal(a.picture(key).data.tail, again.picture(key).data.tail) {
		t.Error("one prompt, two pictures")
	}
	if bytes.Equal(a.picture(key).data.tail, b.picture(other).data.tail) {
		t.Error("two prompts, one picture")
	}
}

func TestEveryKnownRatioCanBeDrawn(t *testing.T) {
	for _, aspect := range append(aspects, narrowAspects...) {
		width, height := pictureKey{aspect: aspect, size: "1K"}.dimensions()
		var a, b float64
		if _, err := fmt.Sscanf(aspect, "%g:%g", &a, &b); err != nil {
			t.Fatal(err)
		}
		if off := math.Abs(float64(width)/float64(height)/(a/b) - 1); off > 0.01 {
			t.Errorf("%s: %d×%d", aspect, width, height)
		}
	}
}
