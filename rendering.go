// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"slices"
	"strings"
)

// rendering is a body as one attempt sends it: upstreams differ in the names of
// models and in what they reject.
type rendering struct {
	model func(string) string // what to put in place of a top-level "model"; nil leaves it
	omit  additions           // what is not added this time
	// edits of the prompt, in order. They touch nothing that has been completed,
	// and there are none before the body is complete.
	edits []edit
	// emptied are the closing brackets of what edits leave empty.
	emptied []int64
	// layout is the body in another form, which has all of the above in it; nil for the
	// client's form.
	layout *layout
	// inDialect tells that edits are for the other one of Google's APIs.
	inDialect bool
}

// isOther tells a rendering that differs by upstream.
func (rd *rendering) isOther() bool { return rd.layout != nil || rd.inDialect }

// additions are kinds of what is added to a request.
type additions uint8

const (
	addedSafety     additions = 1 << iota // entries of safetySettings
	addedModalities                       // responseModalities, with a generationConfig if there was none

	allAdditions = addedSafety | addedModalities
)

// String names the additions as they are called in a request.
func (a additions) String() string {
	var names []string
	if a&addedSafety != 0 {
		names = append(names, "safetySettings")
	}
	if a&addedModalities != 0 {
		names = append(names, "responseModalities")
	}
	return strings.Join(names, ", ")
}

// slot is a place in a body where renderings may differ.
type slot struct {
	at     int64
	remove int
	kind   additions // 0: the name of a model
	model  string
	insert []byte // the addition
	// joins tells that insert begins with a comma that is only needed behind
	// another addition, in a root object that was empty.
	joins bool
}

// resolve says what becomes of slots that were found together.
func (rd *rendering) resolve(slots []slot) []edit {
	edits := make([]edit, 0, len(slots))
	rd.each(slots, func(e edit) { edits = append(edits, e) })
	return edits
}

// each goes through what becomes of slots.
func (rd *rendering) each(slots []slot, do func(edit)) {
	before := int64(-1) // where the last edit is
	for _, s := range slots {
		insert := s.insert
		switch {
		case s.kind == 0:
			if insert = rd.rename(s.model); insert == nil {
				continue
			}
		case s.kind&rd.omit != 0:
			continue
		case (s.joins || slices.Contains(rd.emptied, s.at)) && before != s.at:
			insert = insert[len(","):]
		}
		do(edit{s.at, s.remove, insert})
		before = s.at
	}
}

// rename returns the JSON of what to ask for instead of a model, nil if it stays
// what it is: then the client's own spelling of it stays, too.
func (rd *rendering) rename(model string) []byte {
	if rd.model == nil {
		return nil
	}
	name := rd.model(model)
	if name == model {
		return nil
	}
	return encode(name)
}

// growth is by how much a rendering lengthens a body.
func (rd *rendering) growth(slots []slot) int64 {
	n := lengthened(rd.edits)
	rd.each(slots, func(e edit) { n += e.growth() })
	return n
}

// lengthened is by how much edits lengthen a body.
func lengthened(edits []edit) (n int64) {
	for _, e := range edits {
		n += e.growth()
	}
	return n
}

// edit replaces bytes of a body, or none, by others.
type edit struct {
	at     int64
	remove int
	insert []byte
}

// growth is by how much an edit lengthens a body.
func (e edit) growth() int64 { return int64(len(e.insert) - e.remove) }

// merged are edits of two kinds in one order.
func merged(a, b []edit) []edit {
	all := slices.Concat(a, b)
	sortEdits(all)
	return all
}

// sortEdits keeps the order of edits at the same place.
func sortEdits(edits []edit) {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.at, b.at) })
}
