// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"math"
	"slices"
	"strconv"
)

// nanoUSD is money, in billionths of a dollar. Google's prices of a token are
// whole numbers of it (0.075 USD per million are 75), so that sums are exact,
// whatever the order in which they come together. Sums of floats would not be:
// instances that share a storage would disagree.
type nanoUSD int64

// maxSum bounds every count and amount of a row; of money, it is half a million
// dollars. All the rows that a ledger can have could still be summed up.
const maxSum = 1 << 49

var errNoAmount = errors.New("no amount of money")

// usdOf rounds to what nanoUSD can tell, and keeps within its bounds.
func usdOf(dollars float64) nanoUSD {
	return nanoUSD(math.Round(max(0, min(dollars*1e9, maxSum))))
}

func (n nanoUSD) usd() float64 { return float64(n) / 1e9 }

// MarshalJSON writes dollars.
func (n nanoUSD) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, n.usd(), 'f', -1, 64), nil
}

// UnmarshalJSON reads dollars.
func (n *nanoUSD) UnmarshalJSON(number []byte) error {
	dollars, err := strconv.ParseFloat(string(number), 64)
	if err != nil || dollars < 0 || dollars*1e9 > maxSum {
		return errNoAmount
	}
	*n = usdOf(dollars)
	return nil
}

// answered is what the price of an answer depends on.
type answered struct {
	usage  usage
	images int // that were made; not all of them may have been delivered
	// isStopped is set if a filter of Google's has stopped the answer (see
	// facts.stopped), not if an image is missing for another reason: a stream that
	// just ended without its image has been charged for it (wire §3).
	isStopped bool
}

// maxAnswerTokens is several times what any model takes or gives.
const maxAnswerTokens = 10_000_000

// billed are the tokens that Google charges for. Of a blocked candidate, those
// of the image are not ("You will not be charged for blocked images"), and
// output may mirror thinking, which is charged once (wire §5).
func (a answered) billed() usage {
	u := usage{
		input:    min(a.usage.input, maxAnswerTokens),
		output:   min(a.usage.output, maxAnswerTokens),
		thinking: min(a.usage.thinking, maxAnswerTokens),
	}
	u.image = min(a.usage.image, u.output)
	if !a.isStopped {
		return u
	}
	if u.output == u.thinking {
		u.output, u.image = 0, 0
	}
	if a.images == 0 {
		u.output, u.image = u.output-u.image, 0
	}
	return u
}

// listPrice is what Google charges for a model.
type listPrice struct {
	match string // its name, as a shell pattern
	from  int64  // for prompts of at least as many tokens
	// In USD for a million tokens; thinking costs what text does.
	input, text, image float64
	imageTokens        int64   // of one image, where an answer does not tell them apart
	perImage           float64 // in USD; where it is set, tokens cost nothing
}

// listPrices are Google's, by model; the first match applies. Those of image
// models are from wire §10: pydantic/genai-prices, checked 2026-07-22 against
// ai.google.dev/pricing. Those of text models are quoted from
// ai.google.dev/gemini-api/docs/pricing, read from 2026-07-04 to 2026-10-07; those
// of Imagen, which only Vertex AI still has, on 2026-03-03. They are the prices of
// the standard tier and of text, images and video as input: nothing is taken off
// for caches, nor added for audio and searches.
var listPrices = []listPrice{
	{match: "gemini-3-pro-image*", input: 2, text: 12, image: 120, imageTokens: 1120},
	{match: "gemini-3.1-flash-image*", input: 0.50, text: 3, image: 60, imageTokens: 1120},
	{match: "gemini-3.1-flash-lite-image*", input: 0.25, text: 1.50, image: 30, imageTokens: 1120},
	{match: "gemini-2.5-flash-image*", input: 0.30, text: 2.50, image: 30, imageTokens: 1290},

	{match: "gemini-3.5-flash", input: 1.50, text: 9},
	{match: "gemini-3.5-flash-lite", input: 0.30, text: 2.50},
	{match: "gemini-3.1-pro-preview", from: 200_001, input: 4, text: 18},
	{match: "gemini-3.1-pro-preview", input: 2, text: 12},
	{match: "gemini-3.1-flash-lite", input: 0.25, text: 1.50},
	{match: "gemini-3.1-flash-lite-preview", input: 0.25, text: 1.50},
	{match: "gemini-3-pro-preview", from: 200_001, input: 4, text: 18},
	{match: "gemini-3-pro-preview", input: 2, text: 12},
	{match: "gemini-3-flash-preview", input: 0.50, text: 3},
	{match: "gemini-2.5-pro", from: 200_001, input: 2.50, text: 15},
	{match: "gemini-2.5-pro", input: 1.25, text: 10},
	{match: "gemini-2.5-flash", input: 0.30, text: 2.50},
	{match: "gemini-2.5-flash-lite", input: 0.10, text: 0.40},

	{match: "imagen-4.0-generate-*", perImage: 0.04},
	{match: "imagen-4.0-fast-generate-*", perImage: 0.02},
	{match: "imagen-4.0-ultra-generate-*", perImage: 0.06},
}

// priceList are the prices that the operator has set for an upstream. Where none
// applies, Google's list prices do.
type priceList []Price

// cost is what an answer of a model costs. It is not known if neither the
// operator nor Google's list has a price for what the answer has used. An answer
// that has used nothing is free, whatever the model.
func (p priceList) cost(model string, a answered) (cost nanoUSD, isKnown bool) {
	for _, rule := range p {
		if matches(rule.Match, model) {
			return usdOf(rule.USDPerImage * float64(a.images)), true
		}
	}
	used := a.billed()
	if used.total() == 0 && a.images == 0 {
		return 0, true
	}
	for _, list := range listPrices {
		if matches(list.match, model) && used.input >= list.from {
			return list.cost(used, int64(a.images)), true
		}
	}
	return 0, false
}

// covers tells that there is a price for a model, which does not go by tokens.
func (p priceList) covers(model string) bool {
	return slices.ContainsFunc(p, func(rule Price) bool { return matches(rule.Match, model) })
}

func (l *listPrice) cost(used usage, images int64) nanoUSD {
	if l.perImage > 0 {
		return usdOf(l.perImage * float64(images))
	}
	image := used.image
	switch {
	case l.image == 0:
		image = 0
	case used.total() == 0: // the OpenAI-compatible answer need not report any
		image, used.output = images*l.imageTokens, images*l.imageTokens
	case image == 0:
		image = min(used.output, images*l.imageTokens)
	}
	text := used.output - image + used.thinking
	return usdOf((float64(used.input)*l.input + float64(text)*l.text + float64(image)*l.image) / 1e6)
}
