// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// savedFile is a memory in storage, as JSON: {"version":1,"entries":[…]}. Prints,
// names of projects and models, hashes, reasons and times go there, but no
// prompt and no key.
type savedFile struct {
	key    string                                  // in the storage
	encode func(now time.Time) ([]byte, error)     // nil if there is nothing to save
	adopt  func(saved []byte, now time.Time) error // takes over a whole file or nothing of it

	stale  atomic.Bool       // has to be saved
	unread bool              // has yet to be loaded
	seen   [32]byte          // hash of what has been taken over or written last
	stamp  certmagic.KeyInfo // of what has been taken over last
}

const (
	savedVersion = 1
	// maxFile is how large a file may be, in bytes: several times what a full
	// guard takes.
	maxFile = 64 << 20
	// maxEntries bounds what becomes of a file in memory.
	maxEntries = 4 * (maxSoftBlocks + maxHardBlocks)
)

var (
	// errForeign is a file that this version of the module has not written.
	errForeign = errors.New("damaged, or not a file of this version")
	// errAhead is an entry of a time that is too far ahead: a clock is wrong, this
	// one or that of who has written it. It is left out, and says nothing about the
	// rest of its file.
	errAhead = errors.New("too far ahead")
)

// touch says that the memory has changed.
func (f *savedFile) touch() { f.stale.Store(true) }

// move says that all of it belongs into another storage, of which nothing is known.
func (f *savedFile) move() {
	f.touch()
	f.stamp = certmagic.KeyInfo{}
}

// readNew is read for a file that may be as it was, which the storage can tell for less.
func (f *savedFile) readNew(ctx context.Context, storage certmagic.Storage) error {
	info, err := storage.Stat(ctx, f.key)
	if err == nil && !info.Modified.IsZero() && info.Modified.Equal(f.stamp.Modified) && info.Size == f.stamp.Size {
		return nil
	}
	_, err = f.read(ctx, storage)
	return err
}

// read returns what the storage holds, and takes over what others have added.
// It takes nothing over from a file that is as it was left, so that what has
// been dropped since does not come back.
func (f *savedFile) read(ctx context.Context, storage certmagic.Storage) ([]byte, error) {
	info, err := storage.Stat(ctx, f.key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", f.key, err)
	}
	if info.Size > maxFile { // 0 if the storage cannot tell
		return nil, fmt.Errorf("%w: %d bytes", errForeign, info.Size)
	}
	saved, err := storage.Load(ctx, f.key)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", f.key, err)
	}
	if sum := sha256.Sum256(saved); sum != f.seen {
		if err := f.adopt(saved, time.Now()); err != nil {
			return saved, err
		}
		f.seen = sum
	}
	f.stamp = info
	return saved, nil
}

// write brings the storage up to date. Its lock is held.
func (f *savedFile) write(ctx context.Context, l *lease) error {
	saved, err := f.read(ctx, l.storage)
	if errors.Is(err, errForeign) {
		saved, err = nil, f.moveAside(ctx, l, saved, err)
	}
	if err != nil {
		return err
	}
	data, err := f.encode(time.Now())
	switch {
	case err != nil || bytes.Equal(data, saved):
	case data == nil:
		err = l.storage.Delete(ctx, f.key)
	default:
		err = l.storage.Store(ctx, f.key, data)
	}
	if err != nil {
		return fmt.Errorf("saving %s: %w", f.key, err)
	}
	f.unread, f.seen = false, sha256.Sum256(data)
	return nil
}

// moveAside keeps a foreign file under another name, in place of an earlier one.
// Of a file that was too large to be read, nothing is kept.
func (f *savedFile) moveAside(ctx context.Context, l *lease, saved []byte, cause error) error {
	aside := f.key + ".corrupt"
	if saved != nil {
		if err := l.storage.Store(ctx, aside, saved); err != nil {
			return fmt.Errorf("moving %s aside: %w", f.key, err)
		}
	}
	if err := l.storage.Delete(ctx, f.key); err != nil {
		return fmt.Errorf("moving %s aside: %w", f.key, err)
	}
	l.logger.Warn("a file in storage has been moved aside",
		zap.String("file", f.key), zap.String("to", aside), zap.Error(cause))
	return nil
}

// savedEntry is an entry of a file. All entries are checked before the first one
// is used.
type savedEntry interface{ check(now time.Time) error }

func newSavedFile[E savedEntry](key string, list func(now time.Time) []E, adopt func(e E, now time.Time)) *savedFile {
	return &savedFile{
		key:    key,
		unread: true,
		encode: func(now time.Time) ([]byte, error) { return encodeEntries(list(now), now) },
		adopt: func(saved []byte, now time.Time) error {
			all, err := decodeEntries[E](saved, now)
			for _, e := range all {
				adopt(e, now)
			}
			return err
		},
	}
}

type document[E any] struct {
	Version int             `json:"version"`
	Entries savedEntries[E] `json:"entries"`
}

// encodeEntries leaves out what decodeEntries would refuse or leave out.
func encodeEntries[E savedEntry](all []E, now time.Time) ([]byte, error) {
	all = slices.DeleteFunc(all, func(e E) bool { return e.check(now) != nil })
	if len(all) == 0 {
		return nil, nil
	}
	return json.Marshal(document[E]{savedVersion, all})
}

func decodeEntries[E savedEntry](saved []byte, now time.Time) ([]E, error) {
	if len(saved) > maxFile {
		return nil, fmt.Errorf("%w: %d bytes", errForeign, len(saved))
	}
	var d document[E]
	if err := json.Unmarshal(saved, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	if d.Version != savedVersion {
		return nil, fmt.Errorf("%w: version %d", errForeign, d.Version)
	}
	for i, e := range d.Entries {
		if err := e.check(now); err != nil && !errors.Is(err, errAhead) {
			return nil, fmt.Errorf("%w: entry %d: %w", errForeign, i, err)
		}
	}
	return slices.DeleteFunc(d.Entries, func(e E) bool { return e.check(now) != nil }), nil
}

// savedEntries are decoded one by one, so that their number stays bounded.
type savedEntries[E any] []E

// UnmarshalJSON reads an array.
func (all *savedEntries[E]) UnmarshalJSON(array []byte) error {
	d := json.NewDecoder(bytes.NewReader(array))
	if start, err := d.Token(); err != nil || start != json.Delim('[') {
		return errors.New("entries are not an array")
	}
	for d.More() {
		if len(*all) == maxEntries {
			return errors.New("too many entries")
		}
		var e E
		if err := d.Decode(&e); err != nil {
			return err
		}
		*all = append(*all, e)
	}
	return nil
}
