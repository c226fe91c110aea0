// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"time"

	"go.uber.org/zap"
)

// book takes down what the attempts of a call have used: of the limits, in the
// ledger, and in the block rate of their accounts. Each is one at Google.
func (g *gateway) book(x *exchange, now time.Time) {
	today := g.state.calendar.day(now)
	for i, a := range x.story {
		if a.ticket != nil {
			a.gate.settle(a.ticket, a.facts.usage.input, int64(a.facts.delivered()), now)
			g.state.gates.changed()
		}
		b := booking{
			ledgerKey: ledgerKey{a.project, a.upstream, a.model},
			answered:  answered{usage: a.facts.usage, images: a.facts.delivered(), isStopped: a.facts.isStopped()},
			verdict:   a.verdict,
			delivered: a.delivered(),
			endsCall:  i == x.ending(),
			isRetry:   a.isRetry,
		}
		prices := priceList(a.at.prices)
		b.cost, b.isPriced = prices.cost(a.model, b.answered)
		a.cost = b.cost
		if a.facts.content && b.usage.total() == 0 && b.images == 0 && !prices.covers(a.model) {
			b.isPriced = false // it broke off, or its client left, before it said what it has used
		}
		g.state.ledger.book(today, b)
		for _, change := range a.lowered {
			g.logger.Warn("the upstream has told of a limit below the configured one, which is used until midnight Pacific time",
				zap.String("upstream", a.upstream), zap.String("project", a.project), zap.String("model", a.model),
				zap.String("limit", change.limit), zap.Int64("configured", change.from), zap.Int64("told", change.to))
		}
		g.rate(a, today, now)
	}
}

// delivered counts the images that the client got of an attempt. One that was discarded,
// or has become an error, may have had some, which have been paid for nonetheless.
func (a *attempt) delivered() int {
	if a.res == nil {
		return 0
	}
	return a.facts.delivered()
}

// ending is the attempt whose answer the client got, or the last if it got none.
func (x *exchange) ending() int {
	for i, a := range x.story {
		if a == x.attempt {
			return i
		}
	}
	return len(x.story) - 1
}

// isStopped tells whether a filter of Google's has stopped the answer.
func (f *facts) isStopped() bool { return f.stopped != "" || blockReasons[f.blockReason].isBlock() }

// rate counts an attempt in the block rate of its account. Attempts that were
// neither answered nor blocked say nothing about the prompts, and those without
// a key belong to nobody.
func (g *gateway) rate(a *attempt, today *day, now time.Time) {
	blocked := a.verdict.class.isBlock()
	if a.project == "" || !blocked && a.verdict.class != classOK {
		return
	}
	share := g.state.blockRates.count(today, a.account, a.project, blocked)
	if share.isHigh && g.options.PauseOnBlockRate && !g.state.blockRates.isPaused(a.account) {
		g.state.blockRates.pause(a.account, a.project, now)
	}
	if !share.isAlarming {
		return
	}
	g.logger.Warn("content filters block many calls of a project; Google suspends accounts for that",
		zap.String("project", share.project), zap.Float64("block_ratio", share.blocked), zap.Bool("paused", g.options.PauseOnBlockRate))
	g.router.tell("block_rate_high", map[string]any{
		"project": share.project, "block_ratio": share.blocked, "paused": g.options.PauseOnBlockRate,
	})
}

// cost is what all attempts have cost, in USD.
func (x *exchange) cost() float64 {
	var sum nanoUSD
	for _, a := range x.story {
		sum += a.cost
	}
	return sum.usd()
}
