// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
)

// state is a handler's hold on what outlives its configuration. All handlers of
// a process share the same memories: Google counts per project, whatever site a
// call comes through.
type state struct {
	*memories
	lease *lease // nil: shared with nobody, saved nowhere
	once  sync.Once
}

// memories are what the gateway remembers beyond one call. Their keys are the
// callers' business.
type memories struct {
	guard     *guard
	cooldowns *memory[cooldown]  // of a model in a project, for which 429s have been announced
	rejected  *memory[struct{}]  // keys that are set aside, by their hash
	refused   *memory[additions] // which additions a version and model have refused
	ties      *memory[tie]       // where thought signatures belong
	learned   *memory[learned]   // limits below the configured ones
	gates     *gates
	calendar  *calendar

	ledger     *ledger
	blockRates *blockRates

	mu       sync.Mutex
	healths  map[string]*health
	gateways []*gateway // those at work, the newest last

	saver *saver
}

// Clients choose models, and bring keys and signatures of their own, so that
// every memory is bounded: far above what one gateway meets in the time that
// such a thing is remembered.
const (
	maxCooldowns = 10_000 // as many pairs of project and model in a day
	maxRejected  = 10_000 // the operator's keys, by model where only that is refused
	maxRefused   = 1_000  // one for an upstream, version and model, whoever calls
	maxTies      = 10_000 // conversations that are under way
)

// cooldown is why nothing is sent for a while.
type cooldown struct{ Class class } // classLimited or classExhausted

// tie is where a thought signature belongs.
type tie struct{ Upstream, Project string }

// states holds the memories as long as any handler does: when a configuration is
// replaced, the next one has got hold of them before.
var states = caddy.NewUsagePool()

const memoriesKey = "memories" // the only one in states

// loadState returns what all handlers share. The first one to ask loads what was
// saved, in limited time; a storage that fails is no error. Whoever gets a state
// has to release it.
func loadState(ctx caddy.Context, logger *zap.Logger) (*state, error) {
	return joinState(&lease{storage: ctx.Storage(), logger: logger})
}

func joinState(l *lease) (*state, error) {
	shared, loaded, err := states.LoadOrNew(memoriesKey, func() (caddy.Destructor, error) {
		m := newMemories()
		m.saver.start(l)
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	m := shared.(*memories)
	if loaded {
		m.saver.take(l)
	}
	return &state{memories: m, lease: l}, nil
}

// newState returns a state that is shared with nobody and saved nowhere.
func newState() *state { return &state{memories: newMemories()} }

func newMemories() *memories {
	days, _ := pacificDays() // build fails if there are none
	self := newInstance()
	m := &memories{
		guard:      newGuard(),
		cooldowns:  newMemory[cooldown](maxCooldowns),
		rejected:   newMemory[struct{}](maxRejected),
		refused:    newMemory[additions](maxRefused),
		ties:       newMemory[tie](maxTies),
		learned:    newMemory[learned](maxCooldowns),
		calendar:   days,
		gates:      newGates(days, self),
		ledger:     newLedger(self),
		blockRates: newBlockRates(self),
		healths:    make(map[string]*health),
	}
	m.saver = newSaver(m.files())
	return m
}

// instanceBytes is how long the name of an instance is: two that share a storage
// have the same by accident only.
const instanceBytes = 8

// newInstance names one of the processes that count for themselves and share a
// storage.
func newInstance() string {
	var name [instanceBytes]byte
	_, _ = rand.Read(name[:]) // never fails
	return hex.EncodeToString(name[:])
}

// release gives up the hold; the last one saves what has changed. It may be
// called more than once and on nil, because Caddy cleans up what it could not
// provision. Calls that are under way may go on using the state.
func (s *state) release() {
	if s == nil || s.lease == nil {
		return
	}
	s.once.Do(func() {
		if _, err := states.Delete(memoriesKey); err != nil {
			s.lease.logger.Warn("what was remembered last may not have been saved", zap.Error(err))
		}
		s.saver.giveBack(s.lease)
	})
}

// Destruct saves what has changed. Only the pool calls it.
func (m *memories) Destruct() error { return m.saver.stop() }

// healthOf returns the health of an upstream, which is a new one where its URL
// is. They are kept for good: an operator has but a few.
func (m *memories) healthOf(name, url string) *health {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := name + " " + url // a name has no spaces
	if m.healths[key] == nil {
		m.healths[key] = newHealth()
	}
	return m.healths[key]
}

// add and remove keep account of the gateways at work. During a reload there are
// the old one and the new one.
func (m *memories) add(g *gateway) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gateways = append(m.gateways, g)
}

func (m *memories) remove(g *gateway) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gateways = slices.DeleteFunc(m.gateways, func(at *gateway) bool { return at == g })
}

// liveGateways are those at work, the newest first.
func (m *memories) liveGateways() []*gateway {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := slices.Clone(m.gateways)
	slices.Reverse(live)
	return live
}

// allUpstreams are those of all gateways at work, the newest first.
func (m *memories) allUpstreams() (all []*upstream) {
	for _, g := range m.liveGateways() {
		all = append(all, g.router.upstreams...)
	}
	return all
}

// liveUpstreams are those of all gateways at work, each name once: the newest.
func (m *memories) liveUpstreams() []*upstream {
	isListed := make(map[string]bool)
	return slices.DeleteFunc(m.allUpstreams(), func(u *upstream) bool {
		was := isListed[u.name]
		isListed[u.name] = true
		return was
	})
}

// sharedMemories are those that the handlers of this process share; nil if there
// are no handlers.
func sharedMemories() (m *memories) {
	states.Range(func(_, shared any) bool {
		m, _ = shared.(*memories)
		return false
	})
	return m
}

// Interface guard
var _ caddy.Destructor = (*memories)(nil)
