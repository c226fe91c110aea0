// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/hex"
	"errors"
	"time"
)

// savedRow is a row of the ledger. Each instance has its own, of which it writes
// to the file what it knows; rows of days that are over are not kept.
type savedRow struct {
	Instance string `json:"instance"`
	Day      string `json:"day"`
	ledgerKey
	totals
}

func (m *memories) savedRows(now time.Time) (all []savedRow) {
	m.ledger.each(m.calendar.day(now), func(of string, id rowID, t totals) {
		all = append(all, savedRow{id.instance, of, id.ledgerKey, t})
	})
	return all
}

var errNoRow = errors.New("no row of a ledger")

func (e savedRow) check(time.Time) error {
	for _, name := range []string{e.Project, e.Upstream, e.Model} {
		if name != storable(name) {
			return errNoRow
		}
	}
	if !isInstance(e.Instance) || !isDay(e.Day) || e.Upstream == "" {
		return errNoRow
	}
	return e.totals.check()
}

// savedRate is a rate as other instances see it; its account is "" for the reset
// of all.
type savedRate struct {
	Account string                `json:"account,omitempty"`
	Project string                `json:"project,omitempty"`
	Paused  unixTime              `json:"paused,omitempty"`
	Reset   unixTime              `json:"reset,omitempty"`
	Day     string                `json:"day,omitempty"` // of what follows
	Alarmed bool                  `json:"alarmed,omitempty"`
	Counts  map[string]blockCount `json:"counts,omitempty"` // by instance
}

func (m *memories) savedRates(now time.Time) []savedRate {
	return m.blockRates.saved(m.calendar.day(now))
}

var errNoRate = errors.New("no rate of blocks")

// check takes pauses and resets of whatever time: they are held against each other, and
// not against a clock.
func (e savedRate) check(time.Time) error {
	for _, t := range []unixTime{e.Paused, e.Reset} {
		if t != 0 && !t.isTime() {
			return errNoRate
		}
	}
	isSound := e.Account == storable(e.Account) && e.Project == storable(e.Project) &&
		(e.Day == "" || isDay(e.Day)) && len(e.Counts) <= maxInstances+1 // and one's own
	for instance, c := range e.Counts {
		isSound = isSound && isInstance(instance) && c.Blocked >= 0 && c.Blocked <= c.Judged && c.Judged > 0 && c.Judged <= maxSum
	}
	if !isSound {
		return errNoRate
	}
	return nil
}

func isInstance(name string) bool {
	raw, err := hex.DecodeString(name)
	return err == nil && len(raw) == instanceBytes
}

func isDay(name string) bool {
	_, err := time.Parse(time.DateOnly, name)
	return err == nil
}
