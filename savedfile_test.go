// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"testing"
)

// FuzzSavedFile loads what anybody may have put into storage. What is accepted
// must be accepted again after it has been saved.
func FuzzSavedFile(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{"version":1}`, `{"version":1,"entries":[]}`, `{"version":1,"entries":null}`, `{"version":2,"entries":[]}`,
		`{"version":1,"entries":[{"account":"a","quick":18446744073709551615,"strong":"AAAAAAAAAAEAAAAAAAAAAA==","class":"blocked","reason":"SAFETY","stage":"prompt","until":1795262400}]}`,
		`{"version":1,"entries":[{"key":"a\nmodel","class":"limited","until":1795262400},{"key":"a\nmodel","class":"exhausted","until":1795262401}]}`,
		`{"version":1,"entries":[{"key":"\ud800","class":"limited","until":1795262400},{"key":"","class":"account","until":1}]}`,
		`{"version":1,"entries":[{"key":"0123abcd","until":1795262400}],"more":{"x":[1,2]}}`,
		`{"version":1,"entries":[{"until":9223372036854775807}],"entries":{}}`,
		`{"version":1,"entries":[{"instance":"0123456789abcdef","scope":"p\nm","key":"t","project":"p","model":"m","name":"t","day":"2026-11-21","today":3,"recent":[[1795262390000,1,3,1],[1795262399000,1,0,4]]}]}`,
		`{"version":1,"entries":[{"instance":"0123456789abcdef","scope":"p\nm","project":"p","model":"m","day":"2026-11-21","today":-3}]}`,
		`{"version":1,"entries":[{"key":"p\nm\nrpm","most":5,"until":1795262400},{"key":"p\nm\nrpd","most":0,"until":1795262400}]}`,
		`{"version":1,"entries":[{"instance":"0123456789abcdef","day":"2026-11-21","project":"p","upstream":"u","model":"m","calls":1,"attempts":2,"retries":1,"images":1,"judged":2,"blocked":1,"blocks":{"SAFETY":1},"tokens":{"input":9,"output":3,"thinking":5},"cost_usd":0.5,"cost_blocked_usd":0.1,"unpriced":0}]}`,
		`{"version":1,"entries":[{"reset":1795262400},{"account":"a","project":"p","paused":1795262401,"reset":1795262400,"day":"2026-11-21","alarmed":true,"counts":{"0123456789abcdef":{"judged":20,"blocked":5}}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, saved []byte) {
		for i := range newMemories().files() {
			m := newMemories()
			file := m.saver.files[i]
			if err := file.adopt(saved, noon); err != nil {
				if data, _ := file.encode(noon); data != nil {
					t.Fatalf("%s: a file was refused, and part of it taken over: %s", file.key, data)
				}
				continue
			}
			data, err := file.encode(noon)
			if err != nil {
				t.Fatalf("%s: %v", file.key, err)
			}
			if data == nil {
				continue
			}
			again := newMemories().saver.files[i]
			if err := again.adopt(data, noon); err != nil {
				t.Fatalf("%s: what was saved cannot be loaded: %v\n%s", file.key, err, data)
			}
			if copied, _ := again.encode(noon); !bytes.Equal(copied, data) {
				t.Fatalf("%s: saved\n%s\nand then\n%s", file.key, data, copied)
			}
		}
	})
}
