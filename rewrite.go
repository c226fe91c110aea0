// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// completion says what a request must carry; its zero value asks for nothing.
type completion struct {
	safety     []SafetySetting     // what to add where the client set nothing; at most 64
	modalities []string            // nil unless an image model is called
	mapModel   func(string) string // what to put in place of a top-level model; nil leaves it
	vertex     bool                // Vertex numbers HarmCategory differently
}

func (c completion) isEmpty() bool {
	return len(c.safety) == 0 && len(c.modalities) == 0 && c.mapModel == nil
}

// rank orders the places where a setting may stand: of both spellings, or of
// duplicates, the highest counts.
type rank uint8

const (
	rankAbsent   rank = iota // nowhere, so far
	rankRoot                 // nowhere: it goes to the end of the root
	rankNoConfig             // in a generationConfig that is null or {}
	rankConfig               // in one that has other members
	rankEmpty                // the key is there, with null or []
	rankSet                  // by the client, at least in part
)

// gap is where elements of an array are missing; a gap at 0 is none.
type gap struct {
	at            int64
	remove        int    // the null that is replaced
	before, after string // what goes around the elements
	present       uint64 // the elements, by index, that are there already
}

func (g gap) fill(elements []string) edit {
	return edit{g.at, g.remove, []byte(g.before + strings.Join(elements, ",") + g.after)}
}

// quoted makes JSON of words.
func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = strconv.Quote(word)
	}
	return out
}

// place is where a setting stands, and what it lacks there.
type place struct {
	wanted bool
	rank   rank
	gap    gap
}

// offer tells of one more place. Of several that are set the last counts, as
// with most JSON parsers; of several that are not, the first is filled.
func (p *place) offer(r rank, g gap) {
	if r > p.rank || r == p.rank && (r == rankSet || r == rankConfig) {
		p.rank, p.gap = r, g
	}
}

func (p *place) lacks() bool { return p.wanted && p.gap.at > 0 }

func (p *place) isComplete() bool { return !p.wanted || p.rank == rankSet && p.gap.at == 0 }

// completer scans a request as it arrives and says which of its bytes may go
// out already and, in the end, which edits complete it. It keeps none of them.
type completer struct {
	asked completion
	found wants
	scan  jsonScanner

	safety     place
	modalities place
	ready      []edit // decided, not yet handed out
	edited     bool   // some of it has been completed
	noObject   bool   // the root is something else: nothing to complete
	renamed    bool   // the model has been found

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

// write scans the next bytes. It fails with a *jsonError.
func (c *completer) write(p []byte) error {
	_, err := c.scan.write(p)
	return err
}

// safe returns the offset before which no byte will be edited, other than by
// what edits has returned. An edit that may be needed withholds all that
// follows it, since a duplicate of its key may still decide otherwise.
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
	return s.state == inLiteral || s.state == inString && s.field.id == atModel && c.asked.mapModel != nil
}

// edits returns the edits that were decided since the last call.
func (c *completer) edits() []edit {
	ready := c.ready
	c.ready = nil
	return ready
}

// finish ends the body and returns the edits that are left, in order. It
// fails with a *jsonError.
func (c *completer) finish() ([]edit, error) {
	if c.scan.untouched() {
		return nil, &jsonError{c.scan.offset, "empty body"}
	}
	if err := c.scan.finish(); err != nil {
		return nil, err
	}
	edits := append(c.edits(), c.settle()...)
	sortEdits(edits)
	return edits, nil
}

// settle decides about the places that wait for a later duplicate of their key,
// so that what follows them may go out. Duplicates no longer count.
func (c *completer) settle() []edit {
	var edits []edit
	if c.safety.lacks() {
		missing := c.missing(c.safety.gap.present)
		edits = append(edits, c.safety.gap.fill(missing))
		c.safety.wanted, c.edited = false, true
	}
	if c.modalities.lacks() {
		edits = append(edits, c.modalities.gap.fill(quoted(c.asked.modalities)))
		c.modalities.wanted, c.edited = false, true
	}
	return edits
}

// needed tells whether something is missing, so far. A body that stops being
// JSON while it is can neither be completed nor be forwarded.
func (c *completer) needed() bool {
	return !c.noObject && (c.edited || !c.safety.isComplete() || !c.modalities.isComplete() ||
		c.asked.mapModel != nil && !c.renamed)
}

// settled tells that no edit can follow, whatever the rest of the body is.
func (c *completer) settled() bool { return c.noObject || c.asked.isEmpty() }

// wants returns what the client asked for, as far as it has been read.
func (c *completer) wants() wants {
	found := c.found
	found.notes = slices.Clone(found.notes)
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
	case atModalities, atOwnModalities:
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
	case atOwnModalities:
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
	}
}

// scalarModel replaces every "model" at once, duplicates too: to wait for the
// last one would hold the whole body back.
func (c *completer) scalarModel(kind jsonKind, value []byte, start int64) {
	if kind != jsonString {
		return
	}
	c.found.model = string(value)
	c.renamed = true
	if c.asked.mapModel == nil {
		return
	}
	if model := c.asked.mapModel(c.found.model); model != c.found.model {
		c.ready = append(c.ready, edit{start, int(c.scan.end - start), mustMarshal(model)})
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

// missing is the JSON of the settings that are not among those present. Their
// words have been checked when the configuration was loaded.
func (c *completer) missing(present uint64) []string {
	var missing []string
	for i, s := range c.asked.safety {
		if present&(1<<i) == 0 {
			missing = append(missing, `{"category":`+strconv.Quote(s.Category)+`,"threshold":`+strconv.Quote(s.Threshold)+`}`)
		}
	}
	return missing
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

// closeList takes down what a list of modalities says.
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
	comma := ","
	if empty {
		comma = ""
	}
	if c.safety.wanted && c.safety.rank == rankAbsent {
		c.safety.offer(rankRoot, gap{at: at, before: comma + key("safetySettings", c.snake) + "[", after: "]"})
		comma = ","
	}
	list := key("generationConfig", c.snake) + "{" + key("responseModalities", c.snake) + "["
	c.modalities.offer(rankRoot, gap{at: at, before: comma + list, after: "]}"})
}

func mustMarshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings always marshal
	}
	return text
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
	if !slices.Contains(c.found.notes, text) {
		c.found.notes = append(c.found.notes, text)
	}
}
