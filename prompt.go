// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"io"
)

// maxTurn is how much text of one turn, in bytes of its JSON, is kept: prompts
// are shorter, and what is longer is a document.
const maxTurn = 1 << 20

// turn is the text of what the user said last, in the order of the body. It is
// empty if there is none, or more than maxTurn.
type turn []promptText

// promptText is one text and the place of its JSON string in the body.
type promptText struct {
	at, end int64 // of its opening quote, and just behind the closing one
	value   string
}

const (
	_ fieldID = iota
	turnContent
	turnMessage
	turnRole
	turnPart
	turnThought
	turnPartText
	turnMessageText // or the parts of a message
	turnInstance
	turnInstancePrompt
	turnPrompt
	turnItem     // of Interactions' input: a text, a content, or a step
	turnItemType // of the latter two
	turnItemText // of a content
)

// turnSchema is where the surfaces have their prompts; a body has only the
// fields of its own.
var turnSchema = func() *field {
	text := func(id fieldID) field { return field{id: id, raw: true} }
	role := field{id: turnRole, keep: maxWord}
	root := newSchema(map[string]field{
		"contents":                  {id: turnContent},
		"contents.role":             role,
		"contents.parts":            {id: turnPart},
		"contents.parts.thought":    {id: turnThought},
		"contents.parts.text":       text(turnPartText),
		"messages[]":                {id: turnMessage},
		"messages[].role":           role,
		"messages[].content":        text(turnMessageText),
		"messages[].content[]":      {id: turnPart},
		"messages[].content[].text": text(turnPartText),
		"prompt":                    text(turnPrompt), // images/generations
		"instances[]":               {id: turnInstance},
		"instances[].prompt":        text(turnInstancePrompt), // predict
		"input":                     text(turnItem),           // Interactions, as all that follow
		"input.type":                {id: turnItemType, keep: maxWord},
		"input.role":                role,
		"input.text":                text(turnItemText),
		"input.content":             text(turnMessageText),
		"input.content.text":        text(turnMessageText),
	})
	contents := root.member("contents")
	contents.repeatable()
	contents.member("parts").repeatable()
	input := root.member("input")
	input.repeatable()
	input.member("content").repeatable()
	return root
}()

// lastTurn finds the last turn of the user's in a body. It fails with a
// *jsonError, or with what the body failed with.
func lastTurn(body io.Reader) (turn, error) {
	t := new(turnFinder)
	t.decoder = newUnescaper(&t.decoded)
	t.scan.init(t, turnSchema)
	err := t.scan.scanFrom(body)
	return t.last, err
}

type turnFinder struct {
	scan    jsonScanner
	decoder unescaper // of the text being read
	decoded bytes.Buffer
	last    turn

	texts     turn // of the content or message being read
	size      int  // of their JSON
	isUser    bool // whose it is
	hasParts  bool
	text      promptText // of the part being read
	isText    bool       // it has one
	isThought bool
	instances int
	loose     turn // the texts of an input that is made of contents, not of steps
}

func (t *turnFinder) begin(*field) {}

func (t *turnFinder) open(f *field, _ []byte, array bool, _ int64) {
	if array {
		return
	}
	switch f.id {
	case turnContent, turnMessage:
		t.texts, t.hasParts = nil, false
		t.isUser = f.id == turnContent // unless its role says otherwise; a message must have one
	case turnItem:
		t.texts, t.hasParts, t.isUser, t.isText = nil, false, false, false
	case turnPart:
		t.hasParts = true
		t.isText, t.isThought = false, false
	case turnInstance:
		t.instances++
	}
}

func (t *turnFinder) close(f *field, array, _ bool, _ int64) (pause bool) {
	if array {
		return false
	}
	switch f.id {
	case turnPart:
		if t.isText && !t.isThought {
			t.texts = append(t.texts, t.text)
		}
	case turnContent, turnMessage:
		if t.isUser && t.hasParts {
			t.take(t.texts)
		}
		t.size = 0
	case turnItem:
		t.endItem()
	}
	return false
}

// endItem ends a step, or a content that is one of several.
func (t *turnFinder) endItem() {
	switch {
	case t.isText:
		t.takeLoose(t.text)
	case t.isUser && t.hasParts:
		t.take(t.texts)
	case t.hasParts:
		t.size = 0
	}
}

// takeLoose adds a text to a turn that nothing else holds together.
func (t *turnFinder) takeLoose(text promptText) {
	if t.size > maxTurn {
		t.last, t.loose = nil, nil
		return
	}
	t.loose = append(t.loose, text)
	t.last = t.loose
}

func (t *turnFinder) piece(_ *field, raw []byte) {
	t.size += len(raw)
	if t.size <= maxTurn {
		t.decoder.write(raw)
	}
}

func (t *turnFinder) scalar(f *field, _ []byte, kind jsonKind, value []byte, start int64) {
	switch {
	case f.id == turnThought:
		t.isThought = kind == jsonTrue
		return
	case kind != jsonString:
		return
	case f.id == turnRole:
		t.isUser = string(value) == "user" || len(value) == 0 && t.isUser
		return
	case f.id == turnItemType:
		t.isUser = t.isUser || string(value) == "user_input"
		return
	}
	text := promptText{start, t.scan.end, t.decode()}
	switch f.id {
	case turnPartText, turnItemText:
		t.text, t.isText = text, true
	case turnItem:
		t.takeLoose(text)
	case turnMessageText:
		t.hasParts = true
		t.texts = append(t.texts, text)
	case turnPrompt:
		t.take(turn{text})
	case turnInstancePrompt:
		if t.instances == 1 {
			t.take(turn{text})
		}
		t.size = 0
	}
}

func (t *turnFinder) decode() string {
	t.decoder.end()
	defer t.decoded.Reset()
	return t.decoded.String()
}

// take makes a turn the last one, so far.
func (t *turnFinder) take(texts turn) {
	t.last = texts
	if t.size > maxTurn {
		t.last = nil
	}
	t.size = 0
}
