// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// shelf is a storage in memory that can fail and take its time.
type shelf struct {
	certmagic.Storage // what the saver does not use

	mu     sync.Mutex
	files  map[string]string
	size   int64 // what Stat says, if not 0
	err    error
	stuck  chan struct{} // if not nil, reading waits for it whatever the context says
	stores int
	lock   chan struct{}
}

func newShelf() *shelf {
	return &shelf{files: make(map[string]string), lock: make(chan struct{}, 1)}
}

func (s *shelf) Lock(ctx context.Context, _ string) error {
	select {
	case s.lock <- struct{}{}:
		return s.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *shelf) Unlock(context.Context, string) error {
	<-s.lock
	return nil
}

func (s *shelf) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	if s.stuck != nil {
		<-s.stuck
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.files[key]; !ok && s.err == nil {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Size: s.size}, s.err
}

func (s *shelf) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.files[key]), s.err
}

func (s *shelf) Store(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.stores++
	s.files[key] = string(value)
	return nil
}

func (s *shelf) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, key)
	return s.err
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *shelf) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		<-s.lock
	}
	return s.err
}

// file returns the content of a file, or "" if there is none.
func (s *shelf) file(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[key]
}

func (s *shelf) stored() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stores
}

// instance starts memories that have a process of their own, as it were.
func instance(t *testing.T, storage certmagic.Storage) (*memories, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	m := newMemories()
	m.saver.start(&lease{storage, zap.New(core)})
	return m, logs
}

func stop(t *testing.T, m *memories) {
	t.Helper()
	if err := m.Destruct(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func (m *memories) block(account string, n int, b blockRecord, lasts time.Duration) {
	now := time.Now()
	m.guard.remember(account, uint64(n), strongOf(n), b, now.Add(lasts), now)
}

func (m *memories) recalls(account string, n int) blockRecord {
	if !m.guard.knows(account, time.Now()) || !m.guard.suspects(account, uint64(n), time.Now()) {
		return blockRecord{}
	}
	b, _ := m.guard.recall(account, strongOf(n), time.Now())
	return b
}

func messages(logs *observer.ObservedLogs) (all []string) {
	for _, entry := range logs.All() {
		all = append(all, entry.Message)
	}
	return all
}
