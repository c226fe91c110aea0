// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"slices"
)

// completion says what a request must carry; its zero value asks for nothing.
type completion struct {
	safety     []SafetySetting   // what to add where the client set nothing; at most 64
	modalities []string          // nil unless an image model is called
	renames    bool              // a top-level model may have to be replaced
	aliases    map[string]string // models that have to be
	vertex     bool              // Vertex numbers HarmCategory differently
}

func (c completion) isEmpty() bool {
	return len(c.safety) == 0 && len(c.modalities) == 0 && !c.renames && len(c.aliases) == 0
}

// completer scans a request as it arrives and says which of its bytes may go
// out already and, in the end, which slots complete it. It keeps none of them.
type completer struct {
	asked completion
	found wants
	scan  jsonScanner

	safety     place
	modalities place
	ready      []slot // decided, not yet handed out
	edited     bool   // some of it has been completed
	noObject   bool   // the root is something else: nothing to complete
	models     int    // how many have been found

	depth       int  // of open containers of the schema
	snake       bool // a key of the root is in snake_case
	inConfig    bool // generationConfig is open
	configSnake bool // it, or a key of it, is in snake_case

	present  uint64 // the settings of asked.safety in the open list
	category string // of the open setting
	off      bool   // its threshold is OFF
	listed   int    // modalities in the open list
	images   int    // those among them that are IMAGE
}

func newCompleter(asked completion) *completer {
	c := &completer{asked: asked}
	c.scan.init(c, requestSchema)
	c.scan.strict = true
	c.safety.wanted = len(asked.safety) > 0
	c.modalities.wanted = len(asked.modalities) > 0
	return c
}

// maxModels bounds what duplicates of a model cost: each has a slot. Nobody is
// known to send even two.
const maxModels = 100

// write scans the next bytes. It fails with a *jsonError.
func (c *completer) write(p []byte) error {
	_, err := c.scan.write(p)
	if err == nil && c.models > maxModels && (c.asked.renames || len(c.asked.aliases) > 0) {
		err = &jsonError{c.scan.offset, "too many models"}
	}
	return err
}

// safe returns the offset before which no byte will be edited, other than by
// what slots has returned. One that may be needed withholds all that follows
// it, since a duplicate of its key may still decide otherwise.
func (c *completer) safe() int64 {
	safe := c.scan.offset
	if c.undecided() {
		safe = c.scan.start
	}
	for _, p := range [...]*place{&c.safety, &c.modalities} {
		if p.lacks() {
			safe = min(safe, p.gap.at)
		}
	}
	return safe
}

// undecided tells that a value is being read that may have to be replaced.
func (c *completer) undecided() bool {
	s := &c.scan
	if s.field == nil || c.settled() {
		return false
	}
	return s.state == inLiteral || s.state == inString && s.field.id == atModel && (c.asked.renames || len(c.asked.aliases) > 0)
}

// slots returns what was decided since the last call.
func (c *completer) slots() []slot {
	ready := c.ready
	c.ready = nil
	return ready
}

// finish ends the body and decides what is left. It fails with a *jsonError.
func (c *completer) finish() error {
	if c.scan.untouched() {
		return &jsonError{c.scan.offset, "empty body"}
	}
	if err := c.scan.finish(); err != nil {
		return err
	}
	c.settle()
	return nil
}

// release gives memory back when there is nothing more to scan.
func (c *completer) release() { c.scan.release() }

// settle decides about the places that wait for a later duplicate of their key,
// so that what follows them may go out. Duplicates no longer count.
func (c *completer) settle() {
	var room [512]byte // enough for four settings
	if c.safety.lacks() {
		c.ready = append(c.ready, c.safety.gap.fill(addedSafety, c.missing(room[:0], c.safety.gap.present)))
		c.safety.wanted, c.edited = false, true
	}
	if c.modalities.lacks() {
		c.ready = append(c.ready, c.modalities.gap.fill(addedModalities, appendQuoted(room[:0], c.asked.modalities)))
		c.modalities.wanted, c.edited = false, true
	}
}

// needed tells whether something is missing, so far. A body that stops being
// JSON while it is can neither be completed nor be forwarded.
func (c *completer) needed() bool {
	return !c.noObject && (c.edited || !c.safety.isComplete() || !c.modalities.isComplete() ||
		c.asked.renames && (c.models == 0 || c.models > maxModels))
}

// settled tells that no slot can follow, whatever the rest of the body is.
func (c *completer) settled() bool { return c.noObject || c.asked.isEmpty() }

// wants returns what the client asked for, as far as it has been read.
func (c *completer) wants() wants {
	found := c.found
	found.notes, found.ties = slices.Clone(found.notes), slices.Clone(found.ties)
	return found
}

func (c *completer) begin(*field) {}

func (c *completer) open(f *field, name []byte, array bool, _ int64) {
	c.spelling(name)
	c.depth++
	switch f.id {
	case atRoot:
		c.noObject = array
	case atSafety:
		c.present = 0
	case atSetting:
		c.category, c.off = "", false
	case atConfig:
		c.inConfig, c.configSnake = true, isSnake(name)
	case atModalities, atOwnModalities, atFormats:
		c.listed, c.images = 0, 0
	case atImageConfig:
		c.askedForImage(true)
	case atMisplaced:
		c.note(noteMisplaced)
	}
}

func (c *completer) close(f *field, array, empty bool, at int64) (pause bool) {
	c.depth--
	switch f.id {
	case atRoot:
		c.closeRoot(array, empty, at)
	case atSafety:
		c.closeSafety(array, empty, at)
	case atSetting:
		c.closeSetting()
	case atConfig:
		c.closeConfig(array, empty, at)
	case atModalities:
		c.closeList()
		c.closeModalities(array, empty, at)
	case atOwnModalities, atFormats:
		c.closeList()
	}
	return false
}

func (c *completer) scalar(f *field, name []byte, kind jsonKind, value []byte, start int64) {
	c.spelling(name)
	switch f.id {
	case atRoot:
		c.noObject = true
	case atSafety:
		c.safety.offer(ifNull(kind, rankEmpty, start, "[", "]"))
	case atConfig:
		list := key("responseModalities", isSnake(name)) + "["
		c.modalities.offer(ifNull(kind, rankNoConfig, start, "{"+list, "]}"))
	case atModalities:
		c.modalities.offer(ifNull(kind, rankEmpty, start, "[", "]"))
	case atCategory:
		c.scalarCategory(kind, value)
	case atThreshold:
		c.off = isEnum(kind, value, "OFF", 5)
	case atModality:
		c.listed++
		if isEnum(kind, value, "IMAGE", 2) {
			c.images++
		}
	case atImageConfig:
		c.askedForImage(kind != jsonNull)
	case atThoughts:
		c.found.thoughts = kind == jsonTrue
	case atStream:
		c.found.stream = kind == jsonTrue
	case atMisplaced:
		if kind != jsonNull {
			c.note(noteMisplaced)
		}
	case atModel:
		c.scalarModel(kind, value, start)
	case atSignature, atFile, atCache, atInteraction:
		if kind == jsonString {
			c.found.tie(f.id, value)
		}
	}
}

// scalarModel has every "model" replaced, duplicates too: to wait for the last
// one would hold the whole body back.
func (c *completer) scalarModel(kind jsonKind, value []byte, start int64) {
	if kind != jsonString {
		return
	}
	c.found.model = string(value)
	c.models++
	if _, isAlias := c.asked.aliases[bareModel(c.found.model)]; isAlias || c.asked.renames {
		c.ready = append(c.ready, slot{at: start, remove: int(c.scan.end - start), model: c.found.model})
	}
}

func (c *completer) scalarCategory(kind jsonKind, value []byte) {
	h := findCategory(kind, value, c.asked.vertex)
	c.category = h.name
	if h.past != "" {
		c.note(h.past + " category " + h.name)
	}
}

func (c *completer) closeSetting() {
	for i, s := range c.asked.safety {
		if s.Category != c.category {
			continue
		}
		if c.present&(1<<i) != 0 {
			c.note("two settings for " + c.category)
		}
		c.present |= 1 << i
	}
	if c.category != "" && c.off {
		c.note("threshold OFF for " + c.category)
	}
}

// ifNull is for a scalar where there should be none: a null is replaced, all
// else is the client's choice, if a mistaken one.
func ifNull(kind jsonKind, r rank, start int64, before, after string) (rank, gap) {
	if kind != jsonNull {
		return rankSet, gap{}
	}
	return r, gap{at: start, remove: len("null"), before: before, after: after}
}

func (c *completer) closeSafety(array, empty bool, at int64) {
	all := uint64(1)<<len(c.asked.safety) - 1
	switch {
	case array && empty:
		c.safety.offer(rankEmpty, gap{at: at})
	case array && c.present != all:
		c.safety.offer(rankSet, gap{at: at, before: ",", present: c.present})
	default:
		c.safety.offer(rankSet, gap{})
	}
}

// missing adds the JSON of the settings that are not among those present. Their
// words have been checked when the configuration was loaded.
func (c *completer) missing(list []byte, present uint64) []byte {
	for i, s := range c.asked.safety {
		if present&(1<<i) != 0 {
			continue
		}
		if len(list) > 0 {
			list = append(list, ',')
		}
		list = append(append(list, `{"category":"`...), s.Category...)
		list = append(append(append(list, `","threshold":"`...), s.Threshold...), `"}`...)
	}
	return list
}

func (c *completer) closeModalities(array, empty bool, at int64) {
	if array && empty {
		c.modalities.offer(rankEmpty, gap{at: at})
		return
	}
	c.modalities.offer(rankSet, gap{})
}

// askedForImage takes down a setting that only an image can obey.
func (c *completer) askedForImage(asked bool) {
	c.found.images = c.found.images || asked
	c.found.imagesAlone = c.found.imagesAlone || asked
}

// closeList takes down what a list of modalities says, or of formats.
func (c *completer) closeList() {
	c.found.images = c.found.images || c.images > 0
	c.found.imagesAlone = c.found.imagesAlone || c.images > 0 && c.images == c.listed
}

func (c *completer) closeConfig(array, empty bool, at int64) {
	c.inConfig = false
	list := key("responseModalities", c.configSnake) + "["
	switch {
	case array:
		c.modalities.offer(rankSet, gap{})
	case empty:
		c.modalities.offer(rankNoConfig, gap{at: at, before: list, after: "]"})
	default:
		c.modalities.offer(rankConfig, gap{at: at, before: "," + list, after: "]"})
	}
}

// closeRoot makes room for what has been nowhere.
func (c *completer) closeRoot(array, empty bool, at int64) {
	if array {
		return
	}
	settings := "," + key("safetySettings", c.snake) + "["
	c.safety.offer(rankRoot, gap{at: at, before: settings, after: "]", joins: empty})
	list := "," + key("generationConfig", c.snake) + "{" + key("responseModalities", c.snake) + "["
	c.modalities.offer(rankRoot, gap{at: at, before: list, after: "]}", joins: empty})
}

// spelling remembers how the client spells the keys of the root and of
// generationConfig.
func (c *completer) spelling(name []byte) {
	switch {
	case c.depth == 1:
		c.snake = c.snake || isSnake(name)
	case c.depth == 2 && c.inConfig:
		c.configSnake = c.configSnake || isSnake(name)
	}
}

const noteMisplaced = "safetySettings inside generationConfig"

func (c *completer) note(text string) {
	c.found.notes = appendNew(c.found.notes, text)
}
