// SPDX-License-Identifier: Apache-2.0

package caddytest

import "testing"

// At an upstream that speaks OpenAI's API images cost what they would at Google, by
// the tokens that it reports or, if it reports none, by the piece.
func TestLedgerAtOpenAI(t *testing.T) {
	u := scripted(t, nil)
	g := oversee(t, gemini(place("ledger", u, "format openai", "api_key {env.CADDYTEST_KEY} {header.X-Project}")))
	for name, c := range map[string]struct{ path, body, answer, want string }{
		"by the piece": {
			openAIDrawPath, `{"model":"` + lightModel + `","prompt":"` + prompt + `","n":2}`, `{"data":[` + pictureJSON + "," + pictureJSON + "]}",
			"1 calls, 2 images, 0+0+0 tokens, 0.0774 USD, 0.0387 each",
		},
		"by tokens": {
			openAIDrawPath, `{"model":"` + lightModel + `","prompt":"` + prompt + `"}`, openAIImageJSON,
			"1 calls, 1 images, 16+1290+0 tokens, 0.0387048 USD, 0.0387048 each",
		},
		"of a native call": {
			"/v1beta/models/" + lightModel + ":generateContent", promptJSON, openAIImageJSON,
			"1 calls, 1 images, 16+1290+0 tokens, 0.0387048 USD, 0.0387048 each",
		},
	} {
		t.Run(name, func(t *testing.T) {
			u.play(gives(c.answer))
			g.post(t, c.path, c.body, "X-Project", name)
			g.books(t, name, "ledger "+lightModel+": "+c.want)
		})
	}
}
