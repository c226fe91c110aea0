// SPDX-License-Identifier: Apache-2.0

package gemini

import "bytes"

// markdownWriter is told of texts and of the images between them.
type markdownWriter interface {
	imageWriter
	text(raw []byte)
}

// markdown finds images in texts, ![like this](data:image/png;base64,iVBORw0KGgo=),
// which is how some providers put them into an answer of chat/completions. What is
// no such image stays text. The texts come in pieces of JSON strings, and those of
// a stream go on from one string to the next.
type markdown struct {
	to     markdownWriter
	state  markdownState
	held   []byte // what may be the beginning of an image
	target int    // where its address begins in there
}

type markdownState uint8

const (
	markdownText   markdownState = iota
	markdownBang                 // behind !
	markdownAlt                  // behind ![
	markdownAltEnd               // behind ![…]
	markdownURL                  // behind ![…](
	markdownData                 // behind ![…](data:image/…;base64,
	markdownEscape               // behind a backslash in there
)

// maxMarkdown bounds what is held: some put the prompt between the brackets.
const maxMarkdown = 2 << 10

func (m *markdown) inImage() bool { return m.state >= markdownData }

func (m *markdown) write(p []byte) {
	for len(p) > 0 {
		var took int
		switch m.state {
		case markdownText:
			took = m.findBang(p)
		case markdownData:
			took = m.copyData(p)
		case markdownEscape:
			took = m.takeEscape(p[0])
		default:
			took = m.hold(p[0])
		}
		p = p[took:]
	}
}

// end ends the text, and with it what has been held.
func (m *markdown) end() {
	if m.inImage() {
		m.endImage()
		return
	}
	m.giveUp()
}

func (m *markdown) findBang(p []byte) int {
	bang := bytes.IndexByte(p, '!')
	if bang < 0 {
		m.to.text(p)
		return len(p)
	}
	if bang > 0 {
		m.to.text(p[:bang])
	}
	m.held, m.state = append(m.held[:0], '!'), markdownBang
	return bang + 1
}

func (m *markdown) copyData(p []byte) int {
	end := 0
	for end < len(p) && isBase64(p[end]) {
		end++
	}
	if end > 0 {
		m.to.data(p[:end])
	}
	switch {
	case end == len(p):
	case p[end] == '\\':
		m.held, m.state = append(m.held[:0], '\\'), markdownEscape
		end++
	case p[end] == ')':
		m.endImage()
		end++
	default:
		m.endImage()
	}
	return end
}

// takeEscape takes what stands behind a backslash. Base64 has no escapes but \/,
// and \u002B from those that write HTML.
func (m *markdown) takeEscape(c byte) int {
	if c != '/' && c != 'u' {
		m.to.endImage()
		m.giveUp()
		return 0
	}
	m.held = append(m.held, c)
	m.to.data(m.held)
	m.state = markdownData
	return 1
}

func (m *markdown) endImage() {
	m.to.endImage()
	m.state = markdownText
}

// hold takes a byte that may belong to what stands before an image, and returns 1,
// or finds that it does not, and returns 0.
func (m *markdown) hold(c byte) int {
	next, fits := m.state, len(m.held) < maxMarkdown
	switch m.state {
	case markdownBang:
		next, fits = markdownAlt, c == '['
	case markdownAlt, markdownAltEnd:
		fits = fits && c != '!' // which begins anew
		next = m.behindAlt(c)
	default: // the address
		if c == ',' {
			return m.beginImage()
		}
		fits = fits && c != ')'
	}
	if !fits {
		m.giveUp()
		return 0
	}
	m.held, m.state = append(m.held, c), next
	return 1
}

// behindAlt is the state behind a byte of the alternative text, in which there may be
// brackets as in any prompt.
func (m *markdown) behindAlt(c byte) markdownState {
	switch {
	case c == ']':
		return markdownAltEnd
	case c == '(' && m.state == markdownAltEnd:
		m.target = len(m.held) + 1
		return markdownURL
	}
	return markdownAlt
}

func (m *markdown) beginImage() int {
	mime, isImage := dataURLMime(unslashed(m.held[m.target:]))
	if !isImage || mime == "" {
		m.giveUp()
		return 0
	}
	m.state = markdownText // what has been held is no text
	m.to.beginImage(mime)
	m.state = markdownData
	return 1
}

// giveUp makes text of what has been held.
func (m *markdown) giveUp() {
	if m.state != markdownText {
		m.to.text(m.held)
		m.state = markdownText
	}
}
