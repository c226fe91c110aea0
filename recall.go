// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"io"
	"slices"
)

// phrasing is one way to put the prompt of a call, and what is known of it.
type phrasing struct {
	edits []edit // of the client's words; none: as the client wrote them
	// blockedBy are the accounts whose filters have stopped it. From then on it
	// is sent nowhere but to upstreams with accept_blocked.
	blockedBy []string
	// triedAt are the accounts that have blocked it in a way that may pass
	// unchanged, once.
	triedAt []string
}

// wording is how far the rephrasing of a call has come.
type wording struct {
	phrasing
	original phrasing
	turn     turn         // the client's last, once it is needed
	variant  int          // the rephrasing to try next
	repeat   *blockRecord // what is about to be sent was blocked in an earlier call
}

// mayTake tells whether the prompt may go to an account: a prompt that was
// blocked goes to none that has blocked it (contract §1).
func (t *trip) mayTake(s *station, at *seat) bool {
	if len(t.blockedBy) == 0 {
		return true
	}
	return s.acceptBlocked && t.pin == nil && !slices.Contains(t.blockedBy, at.account)
}

// isOpen tells whether the call may go to an account: it has not blocked the prompt,
// and is not paused.
func (t *trip) isOpen(s *station, at *seat) bool { return t.mayTake(s, at) && !t.isPaused(s, at) }

// canUse is isOpen for a key of the account, which may have been rejected or be of
// another project than the one where the call belongs.
func (t *trip) canUse(s *station, at *seat) bool {
	return !at.spent && t.pin.allowsKey(at.key) && t.isOpen(s, at)
}

// seats calls f for each account that the call could be sent to.
func (t *trip) seats(f func(s *station, at *seat)) {
	for i := range t.stations {
		s := &t.stations[i]
		for j := range s.seats {
			if t.pin.allows(s) && t.pin.allowsKey(s.seats[j].key) {
				f(s, &s.seats[j])
			}
		}
	}
}

// isSuspect tells whether one of the accounts has any block on record. If none
// has, a large body need not be read before it is sent.
func (t *trip) isSuspect() bool {
	known := false
	if t.guardFor > 0 {
		t.seats(func(_ *station, at *seat) { known = known || t.state.guard.knows(at.account, t.now()) })
	}
	return known
}

// recallBlocks looks whether what is about to be sent was blocked before. If so,
// it is rephrased, or goes to who accepts it, or nowhere.
func (t *trip) recallBlocks() error {
	if !t.isSuspect() {
		return nil
	}
	if err := t.x.body.readAll(); err != nil {
		return err
	}
	t.heed(t.recall(&t.phrasing))
	return nil
}

// recallLately looks again, after a wait or an attempt: the same prompt may have
// been blocked in another call. It tells whether it has not.
func (t *trip) recallLately() bool {
	if !t.isSuspect() || t.x.body.readAll() != nil {
		return true
	}
	record, accounts := t.recall(&t.phrasing)
	isNews := func(account string) bool { return !slices.Contains(t.blockedBy, account) }
	if !slices.ContainsFunc(accounts, isNews) {
		return true
	}
	t.heed(record, accounts)
	return false
}

// heed draws the consequences of a block on record.
func (t *trip) heed(record *blockRecord, accounts []string) {
	if record == nil {
		return
	}
	t.repeat = record
	if record.Class == classForbidden {
		t.isEnd = true
		return
	}
	t.blockedBy = append(t.blockedBy, accounts...)
	if len(t.phrasing.edits) == 0 {
		t.original = t.phrasing
	}
	t.rephrase()
}

// recall finds the accounts that have blocked a phrasing, and the gravest of
// their records.
func (t *trip) recall(p *phrasing) (record *blockRecord, accounts []string) {
	if t.guardFor <= 0 { // what is on record is another configuration's
		return nil, nil
	}
	var of prints
	now := t.now()
	t.seats(func(s *station, at *seat) {
		if !t.state.guard.knows(at.account, now) || s.isUntold && !t.canTell(s) {
			return
		}
		rd := t.printable(s, t.renderingOf(s, p))
		if quick, err := of.quick(t.x, rd, s.model); err != nil || !t.state.guard.suspects(at.account, quick, now) {
			return
		}
		strong, err := of.strong(t.x, rd, s.model)
		if err != nil {
			return
		}
		if found, ok := t.state.guard.recall(at.account, strong, now); ok {
			accounts = append(accounts, at.account)
			if record == nil || found.Class == classForbidden {
				record = &found
			}
		}
	})
	return record, accounts
}

// rephrasedLeg is the same attempt in other words, if there are any left.
func (t *trip) rephrasedLeg(l *leg) *leg {
	if !t.rephrase() {
		return nil
	}
	return &leg{station: l.station, seat: l.seat}
}

// rephrase moves on to the next phrasing that has not been blocked before. If
// there is none, it goes back to the client's own words, which only upstreams
// with accept_blocked may get.
func (t *trip) rephrase() bool {
	for t.rephrasing != nil && t.lastTurn() != nil {
		n, edits, ok := t.rephrasing.next(t.turn, t.variant)
		if !ok {
			break
		}
		t.variant = n + 1
		p := phrasing{edits: edits}
		record, _ := t.recall(&p)
		if record == nil {
			t.phrasing = p
			return true
		}
		if record.Class == classForbidden { // what led there must not go anywhere else
			t.repeat, t.isEnd = record, true
			break
		}
	}
	t.phrasing = t.original
	return false
}

// lastTurn is what may be rephrased: nil if there is nothing.
func (t *trip) lastTurn() turn {
	if t.turn == nil && t.x.body.readAll() == nil && t.x.body.isJSON() {
		t.turn, _ = lastTurn(t.x.body.content())
	}
	return t.turn
}

// stopped takes down that an upstream's filter has blocked what was sent.
func (t *trip) stopped(l *leg, a *attempt) {
	t.remember(l, a)
	t.blockedBy = append(t.blockedBy, l.account)
	t.blockedBy = append(t.blockedBy, t.triedAt...)
	if len(t.phrasing.edits) == 0 {
		t.original = t.phrasing
	}
}

// remember keeps a block in mind, so that the same prompt is not sent to the
// same account again while guard lasts (contract §1).
func (t *trip) remember(l *leg, a *attempt) {
	a.isRemembered = true
	if t.guardFor <= 0 || !isGuarded(a.verdict) || t.x.body.readAll() != nil {
		return
	}
	var of prints
	sent := t.printable(l.station, l.sent)
	quick, err := of.quick(t.x, sent, l.model)
	if err != nil {
		return
	}
	strong, err := of.strong(t.x, sent, l.model)
	if err != nil {
		return
	}
	now := t.now()
	record := blockRecord{Class: a.verdict.class, Reason: a.verdict.reason, Stage: a.verdict.stage}
	t.state.guard.remember(l.account, quick, strong, record, now.Add(t.guardFor), now)
}

// isGuarded tells the blocks that Google suspends accounts for from those that a
// client may try again: no image, recitation, an unsupported language.
func isGuarded(v verdict) bool {
	return v.class == classForbidden || v.class == classBlocked && (v.stage == stagePrompt || guarded[v.reason])
}

var guarded = map[string]bool{"SAFETY": true, reasonImageSafety: true, reasonContentFilter: true, "CONTENT_BLOCKED": true}

// prints computes the prints of a phrasing, once for upstreams that get the same.
type prints struct {
	omit     additions
	model    string
	isOther  bool // it is sent in another form, which differs by upstream
	quickly  *uint64
	strongly *[16]byte
}

func (p *prints) of(rd rendering, model string) {
	if p.model != model || p.omit != rd.omit || p.isOther || rd.isOther() {
		*p = prints{omit: rd.omit, model: model, isOther: rd.isOther()}
	}
}

func (p *prints) quick(x *exchange, rd rendering, model string) (uint64, error) {
	model = bareModel(model) // whatever a client calls it
	if p.of(rd, model); p.quickly == nil {
		print, err := printOf(x, rd, func(r io.Reader) (uint64, error) { return quickPrint(r, model) })
		if err != nil {
			return 0, err
		}
		p.quickly = &print
	}
	return *p.quickly, nil
}

func (p *prints) strong(x *exchange, rd rendering, model string) ([16]byte, error) {
	model = bareModel(model)
	if p.of(rd, model); p.strongly == nil {
		print, err := printOf(x, rd, func(r io.Reader) ([16]byte, error) { return strongPrint(r, model) })
		if err != nil {
			return [16]byte{}, err
		}
		p.strongly = &print
	}
	return *p.strongly, nil
}

// printOf fails for a body that is no JSON.
func printOf[T any](x *exchange, rd rendering, of func(io.Reader) (T, error)) (T, error) {
	r := x.body.reader(rd)
	defer r.Close()
	return of(r)
}
