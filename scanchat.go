// SPDX-License-Identifier: Apache-2.0

package gemini

import "strings"

// piece hears the texts of a chat, where some providers put their images.
func (s *answerScanner) piece(_ *field, raw []byte) { s.words.write(raw) }

// textImages takes down the images that are found there.
type textImages struct{ s *answerScanner }

func (t textImages) beginImage(string) { t.s.imageBegun = t.s.imageBegun || !t.s.blocked() }
func (t textImages) endImage()         { t.s.endPicture(true) }
func (textImages) beginFile(string)    {}
func (textImages) data([]byte)         {}
func (textImages) text([]byte)         {}

// blockWord is Google's word for a block, if that is what an aggregator passes on of
// the model's own; others call what ends their answers something else.
func blockWord(native []byte) string {
	if word := strings.ToUpper(string(native)); finishReasons[word].isBlock() {
		return word
	}
	return ""
}
