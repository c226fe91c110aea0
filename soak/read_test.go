// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	id, other := imageID{7, 2}, imageID{8, 1}
	const size = 4 * kB
	for _, tc := range []struct {
		name   string
		form   form
		status int
		body   string
		cut    bool
		flaw   string // a part of it; empty: none
		images int
		reason string
		late   string
	}{
		{name: "unary", form: formUnary, body: picture(formUnary, id, size).String(), images: 1},
		{name: "events", form: formEvents, body: picture(formEvents, id, size).String(), images: 1},
		{name: "array", form: formArray, body: picture(formArray, id, size).String(), images: 1},
		{name: "images", form: formImages, body: picture(formImages, id, size).String(), images: 1},
		{name: "chat", form: formChat, body: picture(formChat, id, size).String(), images: 1},
		{name: "chat events", form: formChatEvents, body: picture(formChatEvents, id, size).String(), images: 1},
		{name: "cut", form: formUnary, body: picture(formUnary, id, size).String()[:2000], cut: true},
		{name: "error", form: formUnary, status: 503, body: failure(id, 503, "UNAVAILABLE", ""), reason: "UNAVAILABLE"},
		{name: "error of OpenAI's", form: formImages, status: 400, body: stopped(formImages, id, "").String(), reason: "content_policy_violation"},
		{name: "late error", form: formEvents, body: "data: {}\r\n\r\n" + twice(`{"error":{"code":400,"details":[{"reason":"SAFETY"}]}}`), late: "SAFETY"},
		{name: "late error in an array", form: formArray, body: `[{},{"error":{"code":400,"details":[{"reason":"SAFETY"}]}}]`, late: "SAFETY"},

		{name: "of another call", form: formUnary, body: picture(formUnary, other, size).String(), images: 1, flaw: "words of soak-0000008"},
		{name: "one byte less", form: formUnary, body: picture(formUnary, id, size).String()[:4000], flaw: "not the upstream's"},
		{name: "one byte more", form: formUnary, body: picture(formUnary, id, size).String() + " ", flaw: "more behind"},
		{name: "one byte changed", form: formEvents, body: strings.Replace(picture(formEvents, id, size).String(), noise()[7*4093*4%noiseSize:][500:504], "####", 1), flaw: "not the upstream's"},
		{name: "an image of another call", form: formImages, body: picture(formImages, other, size).String(), flaw: "not what the upstream has drawn"},
		{name: "a chat without its end", form: formChatEvents, body: strings.Replace(picture(formChatEvents, id, size).String(), "data: [DONE]", "", 1), images: 1, flaw: "without its end"},
		{name: "an error that is none", form: formUnary, status: 502, body: "Bad Gateway", flaw: "none"},
		{name: "another code", form: formUnary, status: 400, body: failure(id, 503, "UNAVAILABLE", ""), reason: "UNAVAILABLE", flaw: "code 503"},
		{name: "a late error told once", form: formEvents, body: `data: {"error":{"code":400}}` + "\r\n\r\n", flaw: "not told twice"},
		{name: "an array that is none", form: formArray, body: `[{},{"error":{"code":400,"details":[{"reason":"SAFETY"}]}}`, late: "SAFETY", flaw: "no longer JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &call{number: 7, prompt: 7, size: size, scenario: &scenario{}}
			r := result{status: max(tc.status, 200), isCut: tc.cut}
			r.read(c, question{form: tc.form}, []byte(tc.body))
			if (tc.flaw == "") != (r.flaw == "") || !strings.Contains(r.flaw, tc.flaw) {
				t.Errorf("flaw %q, want %q", r.flaw, tc.flaw)
			}
			if len(r.images) != tc.images || r.reason != tc.reason || r.late != tc.late {
				t.Errorf("got %d images, reason %q, late %q", len(r.images), r.reason, r.late)
			}
		})
	}
}

// twice is an error as a stream has it.
func twice(object string) string { return "data: " + object + "\r\n\r\n" + object + "\r\n" }

func TestVisitIsChecked(t *testing.T) {
	c := &call{number: 7, prompt: 5, upload: 4 * kB, scenario: &scenario{}}
	upload := image(imageID{call: 7}, 4*kB)
	body := func(prompt, data string) string {
		return `{"contents":[{"parts":[{"text":"` + prompt + `"},{"inlineData":{"data":"` + data + `"}}]}]}`
	}
	for name, tc := range map[string]struct{ account, body, fault, prompt string }{
		"as it was sent":    {"key-2", body("Draw soak-0000005", upload), "", "Draw soak-0000005"},
		"rephrased":         {"key-2", body("Softly: Draw soak-0000005", upload), "", "Softly: Draw soak-0000005"},
		"another's key":     {"key-1a", body("Draw soak-0000005", upload), "key-1a", "Draw soak-0000005"},
		"another's prompt":  {"key-2", body("Draw soak-0000007", upload), "without its prompt", ""},
		"half of its image": {"key-2", body("Draw soak-0000005", upload[:2*kB]), "whole of its image", "Draw soak-0000005"},
		"no image":          {"key-2", body("Draw soak-0000005", ""), "whole of its image", "Draw soak-0000005"},
	} {
		v := visit{upstream: "second", account: tc.account}
		v.check(c, []byte(tc.body))
		if (tc.fault == "") != (v.fault == "") || !strings.Contains(v.fault, tc.fault) || v.prompt != tc.prompt {
			t.Errorf("%s: fault %q, prompt %q", name, v.fault, v.prompt)
		}
	}
}
