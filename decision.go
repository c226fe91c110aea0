// SPDX-License-Identifier: Apache-2.0

package gemini

// decision is a row of the table of what may follow an attempt. It holds for
// every answer of its class, whichever upstream gave it.
type decision struct {
	same   move    // to the upstream that gave the answer
	other  move    // to an upstream that has not been asked
	health outcome // what the answer says about the upstream
}

// move is on which condition a call goes on to an upstream.
type move uint8

const (
	never         move = iota
	atOnce             // if the upstream is healthy and not cooling down
	afterBackoff       // or after the delay that the upstream has announced
	afterDelay         // the one that the upstream has announced; afterBackoff if it has not
	afterMidnight      // Pacific time, when daily quotas end
	withNextKey        // of the pool, at once
	repaired           // without what the upstream rejects, or with what it misses
	rephrased          // if the operator has configured how
	whereAccepted      // only an upstream with accept_blocked that has not blocked it
)

// decisions are taken by what the answer says, never by its status alone (wire
// §7). What no row allows does not happen: in particular, a call that was
// blocked is sent to no account again unchanged, and a hard block ends it.
var decisions = [...]decision{
	classOK:         {same: never, other: never, health: outcomeSucceeded},
	classTransient:  {same: afterBackoff, other: atOnce, health: outcomeFailed},
	classLimited:    {same: afterDelay, other: atOnce, health: outcomeNeutral},
	classExhausted:  {same: afterMidnight, other: atOnce, health: outcomeNeutral},
	classAccount:    {same: withNextKey, other: atOnce, health: outcomeNeutral},
	classRegion:     {same: never, other: atOnce, health: outcomeNeutral},
	classRepairable: {same: repaired, other: never, health: outcomeNeutral},
	classClient:     {same: never, other: never, health: outcomeNeutral},
	classBlocked:    {same: rephrased, other: whereAccepted, health: outcomeNeutral},
	classForbidden:  {same: never, other: never, health: outcomeNeutral},
}

// mayPassUnchanged are the blocks that an identical retry has been seen to get
// past (wire §4). The first one of a prompt is transient, the second a block.
var mayPassUnchanged = map[string]bool{"IMAGE_OTHER": true, "IMAGE_RECITATION": true}
