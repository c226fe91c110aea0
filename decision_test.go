// SPDX-License-Identifier: Apache-2.0

package gemini

import "testing"

// Every class has a row, and what the contract promises above all (§1) stands in
// the table: nothing follows a hard block, and a soft one is never sent on as it
// is.
func TestDecisionsKeepThePromises(t *testing.T) {
	if len(decisions) != len(classNames) {
		t.Fatalf("%d rows for %d classes", len(decisions), len(classNames))
	}
	for class, d := range decisions {
		if (d.health == outcomeSucceeded) != (class == int(classOK)) || (d.health == outcomeFailed) != (class == int(classTransient)) {
			t.Errorf("%s: health %v", classNames[class], d.health)
		}
	}
	if d := decisions[classForbidden]; d.same != never || d.other != never {
		t.Errorf("something follows a hard block: %+v", d)
	}
	if d := decisions[classBlocked]; d.same != rephrased || d.other != whereAccepted {
		t.Errorf("a soft block is sent on as it is: %+v", d)
	}
	if d := decisions[classClient]; d.same != never || d.other != never {
		t.Errorf("a mistake of the client's is repeated: %+v", d)
	}
}
