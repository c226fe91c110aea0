// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"slices"
	"time"
)

// files are the memories that are saved.
func (m *memories) files() []*savedFile {
	blocks := newSavedFile("gemini/blocks.json", m.savedBlocks, func(e savedBlock, now time.Time) {
		b := block{e.Account, e.Quick, [16]byte(e.Strong), e.blockRecord}
		m.guard.adopt(b, e.Until.time(), now)
	})
	cooldowns := newSavedFile("gemini/cooldowns.json", m.savedCooldowns, func(e savedCooldown, now time.Time) {
		m.cooldowns.adopt(e.Key, cooldown{e.Class}, e.Until.time(), now)
	})
	rejected := newSavedFile("gemini/rejected_keys.json", m.savedRejected, func(e savedKey, now time.Time) {
		m.rejected.adopt(e.Key, struct{}{}, e.Until.time(), now)
	})
	usage := newSavedFile("gemini/usage.json", m.savedRows, func(e savedRow, now time.Time) {
		m.ledger.adopt(m.calendar.day(now), e.Day, rowID{e.Instance, e.ledgerKey}, e.totals)
	})
	rates := newSavedFile("gemini/block_rates.json", m.savedRates, func(e savedRate, now time.Time) {
		m.blockRates.adopt(m.calendar.day(now), e)
	})
	gates := newSavedFile("gemini/limits.json", m.gates.saved, m.gates.adopt)
	limits := newSavedFile("gemini/learned_limits.json", m.savedLimits, func(e savedLimit, now time.Time) {
		m.learned.adopt(e.Key, learned{e.Most}, e.Until.time(), now)
	})
	m.guard.soft.changed, m.guard.hard.changed = blocks.touch, blocks.touch
	m.cooldowns.changed, m.rejected.changed = cooldowns.touch, rejected.touch
	m.ledger.changed, m.blockRates.changed = usage.touch, rates.touch
	m.gates.changed, m.learned.changed = gates.touch, limits.touch
	return []*savedFile{blocks, cooldowns, rejected, usage, rates, gates, limits}
}

type savedBlock struct {
	Account string `json:"account"`
	Quick   uint64 `json:"quick"`
	Strong  []byte `json:"strong"` // in base64
	blockRecord
	Until unixTime `json:"until"`
}

func (m *memories) savedBlocks(now time.Time) (all []savedBlock) {
	m.guard.each(now, func(b block, until time.Time) {
		all = append(all, savedBlock{b.account, b.quick, b.strong[:], b.blockRecord, unixTimeOf(until)})
	})
	return all
}

// check takes blocks however long they last: what must not be sent again has to be
// known when a clock that is behind has been set.
func (e savedBlock) check(time.Time) error {
	switch {
	case e.Account == "" || len(e.Strong) != 16:
		return errors.New("no prompt")
	case !e.Class.isBlock() || e.Reason == "" || e.Reason != asWord(e.Reason) || e.Stage != stagePrompt && e.Stage != stageOutput:
		return errors.New("no block")
	case !e.Until.isTime():
		return errNoTime
	}
	return nil
}

type savedCooldown struct {
	Key   string   `json:"key"`
	Class class    `json:"class"`
	Until unixTime `json:"until"`
}

func (m *memories) savedCooldowns(now time.Time) (all []savedCooldown) {
	m.cooldowns.each(now, func(key string, c cooldown, until time.Time) {
		all = append(all, savedCooldown{key, c.Class, unixTimeOf(until)})
	})
	return all
}

func (e savedCooldown) check(now time.Time) error {
	if e.Class == classOK {
		return errors.New("no cooldown")
	}
	return e.Until.check(now)
}

type savedKey struct {
	Key   string   `json:"key"`
	Until unixTime `json:"until"`
}

func (m *memories) savedRejected(now time.Time) (all []savedKey) {
	m.rejected.each(now, func(key string, _ struct{}, until time.Time) {
		all = append(all, savedKey{key, unixTimeOf(until)})
	})
	return all
}

func (e savedKey) check(now time.Time) error { return e.Until.check(now) }

// horizon is how far ahead a time may be that keeps calls away, and for how long a reset
// is remembered: a daily quota lasts until midnight, guard for 60 days at the most, and
// clocks differ. What is left out for being further ahead, the upstream says again.
const horizon = 100 * 24 * time.Hour

// unixTime is a time in whole seconds.
type unixTime int64

// unixTimeOf rounds up: nothing is forgotten early, and what comes back from
// storage is not news to the storage.
func unixTimeOf(t time.Time) unixTime { return unixTime(t.Add(time.Second - 1).Unix()) }

func (t unixTime) time() time.Time { return time.Unix(int64(t), 0) }

// lastTime is the last that has a year of four digits.
const lastTime unixTime = 253402300799

func (t unixTime) isTime() bool { return t > 0 && t <= lastTime }

var errNoTime = errors.New("no time")

func (t unixTime) check(now time.Time) error {
	switch {
	case !t.isTime():
		return errNoTime
	case t.time().After(now.Add(horizon)):
		return errAhead
	}
	return nil
}

// MarshalText writes the name of a class.
func (c class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads the name of a class.
func (c *class) UnmarshalText(name []byte) error {
	i := slices.Index(classNames[:], string(name))
	if i < 0 {
		return errors.New("unknown class")
	}
	*c = class(i)
	return nil
}
