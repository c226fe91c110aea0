// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

const (
	// saveInterval is the time between two rounds of saving, and of looking at what
	// others have saved: what a crash can cost.
	saveInterval = 5 * time.Second
	// loadLimit is how long the start of a configuration waits for a storage.
	loadLimit = 3 * time.Second
	// roundLimit is how long one round may take. It is longer than a lock takes
	// to go stale that a crashed instance left in a file system (10 s).
	roundLimit = 15 * time.Second
	// stopLimit is how long the end of the process waits for the last round.
	stopLimit = 5 * time.Second
)

// lockName is what instances that share a storage lock while they save.
const lockName = "gemini_state"

// saver keeps files in step with a storage, off the path of requests. One
// goroutine does all reading and writing.
type saver struct {
	files    []*savedFile
	loaded   chan struct{} // the first round is over
	stopping chan struct{}
	done     chan struct{}
	failing  bool   // the last round has failed, and the operator knows
	waited   int    // how many rounds in a row have waited for the lock in vain
	used     *lease // by the last round

	mu     sync.Mutex
	leases []*lease // in the order of configurations
}

// lease is what one configuration lends to the saver. The saver must use nothing
// of a configuration that is over: its storage may be closed.
type lease struct {
	storage certmagic.Storage
	logger  *zap.Logger
}

func newSaver(files []*savedFile) *saver {
	return &saver{
		files:    files,
		loaded:   make(chan struct{}),
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
	}
}

// start loads what was saved. What a slow storage returns too late is taken over
// then.
func (s *saver) start(l *lease) {
	s.leases = []*lease{l}
	go s.run()
	select {
	case <-s.loaded:
	case <-time.After(loadLimit):
		l.logger.Warn("storage is slow; starting without what it remembers: blocked prompts, cooldowns, counts and costs of today")
	}
}

// take makes the saver use what a newer configuration lends, from its next round on.
func (s *saver) take(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = append(s.leases, l)
}

// sharesStorage is careful: a storage need not be a pointer.
func (l *lease) sharesStorage(other *lease) bool {
	return reflect.ValueOf(l.storage).Comparable() && l.storage == other.storage
}

// giveBack ends the use of what a configuration has lent. If that is the newest
// one, it has failed to start, and the one before it goes on.
func (s *saver) giveBack(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leases) > 1 { // else a slow round may still need it
		s.leases = slices.DeleteFunc(s.leases, func(other *lease) bool { return other == l })
	}
}

func (s *saver) newest() *lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[len(s.leases)-1]
}

var errSlowStorage = errors.New("storage is too slow")

// stop saves what has changed.
func (s *saver) stop() error {
	close(s.stopping)
	select {
	case <-s.done:
		return nil
	case <-time.After(stopLimit):
		return errSlowStorage
	}
}

func (s *saver) run() {
	defer close(s.done)
	s.round(s.sync)
	close(s.loaded)
	for s.wait() {
		s.round(s.sync)
	}
	s.round(s.save)
}

// wait returns when the next round is due, or false when the saver has to stop.
func (s *saver) wait() bool {
	select {
	case <-time.After(saveInterval):
		return true
	case <-s.stopping:
		return false
	}
}

// round works with the newest storage, in limited time. Another one than that of the
// round before gets everything. A round that fails is repeated, and reported if the one
// before did not fail.
func (s *saver) round(work func(context.Context, *lease) error) {
	// Not the context of a configuration, which ends when the next one starts.
	ctx, cancel := context.WithTimeout(context.Background(), roundLimit)
	defer cancel()
	l := s.newest()
	if s.used != nil && l != s.used && !l.sharesStorage(s.used) {
		for _, f := range s.files {
			f.move()
		}
	}
	s.used = l
	err := work(ctx, l)
	if err != nil && !s.failing {
		l.logger.Warn("storage fails; blocked prompts, cooldowns, counts and costs are remembered in memory only, until it works again", zap.Error(err))
	}
	s.failing = err != nil
}

func (s *saver) sync(ctx context.Context, l *lease) error {
	return errors.Join(s.load(ctx, l), s.save(ctx, l))
}

// load takes over what others have saved. It writes nothing, so that validating a
// configuration leaves no trace.
func (s *saver) load(ctx context.Context, l *lease) (failed error) {
	for _, f := range s.files {
		err := f.readNew(ctx, l.storage)
		if errors.Is(err, errForeign) {
			if f.unread {
				l.logger.Warn("ignoring a file in storage", zap.String("file", f.key), zap.Error(err))
			}
			err = nil
		}
		f.unread = err != nil
		failed = errors.Join(failed, err)
	}
	return failed
}

// save writes what has changed. Other instances that share the storage wait.
func (s *saver) save(ctx context.Context, l *lease) (failed error) {
	if !slices.ContainsFunc(s.files, func(f *savedFile) bool { return f.stale.Load() }) {
		return nil
	}
	if err := s.lock(ctx, l); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	defer func() {
		failed = errors.Join(failed, l.storage.Unlock(context.WithoutCancel(ctx), lockName))
	}()
	for _, f := range s.files {
		if !f.stale.Swap(false) {
			continue
		}
		if err := f.write(ctx, l); err != nil {
			f.stale.Store(true)
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// maxWaited is in how many rounds the lock may not be had. Others hold it for moments.
const maxWaited = 2

// lock takes the lock of all instances, and breaks one that nobody gives back: certmagic
// looks after locks in a file system by their names, so that what is left of this
// process's own last lock would keep that of an instance alive which has crashed.
func (s *saver) lock(ctx context.Context, l *lease) error {
	err := l.storage.Lock(ctx, lockName)
	switch {
	case err == nil:
		s.waited = 0
	case ctx.Err() != nil:
		if s.waited++; s.waited == maxWaited {
			s.waited = 0
			_ = l.storage.Unlock(context.WithoutCancel(ctx), lockName)
		}
	}
	return err
}
