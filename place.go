// SPDX-License-Identifier: Apache-2.0

package gemini

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
	joins         bool   // see slot
}

// fill is the slot with JSON for its elements.
func (g gap) fill(kind additions, elements []byte) slot {
	insert := make([]byte, 0, len(g.before)+len(elements)+len(g.after))
	insert = append(append(append(insert, g.before...), elements...), g.after...)
	return slot{at: g.at, remove: g.remove, kind: kind, insert: insert, joins: g.joins}
}

// appendQuoted adds words that need no escapes to a list.
func appendQuoted(list []byte, words []string) []byte {
	for i, word := range words {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(append(append(list, '"'), word...), '"')
	}
	return list
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
