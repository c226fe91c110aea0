// SPDX-License-Identifier: Apache-2.0

package gemini

// piece hears the texts of a chat, where some providers put their images.
func (s *answerScanner) piece(_ *field, raw []byte) { s.words.write(raw) }

// textImages takes down the images that are found there.
type textImages struct{ s *answerScanner }

func (t textImages) beginImage(string) { t.s.imageBegun = t.s.imageBegun || !t.s.blocked() }
func (t textImages) endImage()         { t.s.endPicture(true) }
func (textImages) beginFile(string)    {}
func (textImages) data([]byte)         {}
func (textImages) text([]byte)         {}
