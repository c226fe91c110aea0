// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// randomBodies makes bodies of the fields of a schema, which no fuzzer finds by
// changing bytes. They are the same in every run.
type randomBodies struct {
	*rand.Rand
	schema *field
	values []string
}

// newBodies has values that mean something to the schema, beside those that any has.
func newBodies(schema *field, values ...string) *randomBodies {
	return &randomBodies{rand.New(rand.NewPCG(1, 2)), schema, append(values,
		`null`, `""`, `{}`, `[ ]`, `{"x":[{}]}`, `1`, `4.0`, `7e0`, `true`, `false`, `1234567890123456789012345`,
		`"a"`, `"\u0061\ud83d\ude00"`, "\"\xff\xfe\u2028\"",
	)}
}

func (r *randomBodies) next() string { return r.body(r.schema, 0) }

// body has each of a field's members, in either spelling, a third of the times.
func (r *randomBodies) body(f *field, depth int) string {
	isList := f != nil && f.element != nil
	if f == nil || f.members == nil && !isList || r.IntN(9) == 0 {
		return r.values[r.IntN(len(r.values))]
	}
	if isList && depth < 6 && (f.members == nil || r.IntN(2) == 0) {
		var elements []string
		for range r.IntN(4) {
			elements = append(elements, r.body(f.element, depth+1))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
	var members []string
	if r.IntN(3) == 0 {
		members = []string{`"x" : 1`, `"y":"\"]}"`}[:1+r.IntN(2)]
	}
	for _, key := range slices.Sorted(maps.Keys(f.members)) {
		isSecond := strings.Contains(key, "_") && r.IntN(2) == 0 // of two spellings
		if r.IntN(3) == 0 && !isSecond {
			members = append(members, `"`+key+`" :`+r.body(f.members[key], depth+1))
		}
	}
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{ " + strings.Join(members, " ,") + " }"
}
