// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"fmt"
	"os"
)

var errNoRoom = errors.New("no room to keep the request body")

// spill is the part of a body that is kept in a file. It has the client's prompt
// in it, so that nobody else may read it and it is gone with the call.
type spill struct {
	file  *os.File
	first int64 // the offset in the body of the file's first byte
	named bool  // it could not be removed while it is open
}

// write keeps the bytes at an offset of the body. The first are those with the
// lowest offset.
func (s *spill) write(p []byte, at int64) error {
	if s.file == nil {
		if err := s.create(at); err != nil {
			return fmt.Errorf("%w: %w", errNoRoom, err)
		}
	}
	if _, err := s.file.WriteAt(p, at-s.first); err != nil {
		return fmt.Errorf("%w: %w", errNoRoom, err)
	}
	return nil
}

func (s *spill) create(first int64) error {
	file, err := os.CreateTemp("", "caddy-gemini-*")
	if err != nil {
		return err
	}
	s.file, s.first = file, first
	s.named = os.Remove(file.Name()) != nil // Windows removes no open file
	return nil
}

// read fills p with the bytes at an offset of the body.
func (s *spill) read(p []byte, at int64) error {
	if _, err := s.file.ReadAt(p, at-s.first); err != nil {
		return fmt.Errorf("%w: reading it back: %w", errNoRoom, err)
	}
	return nil
}

// close gives the disk space back.
func (s *spill) close() {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // nothing in it is needed any more
	if s.named {
		_ = os.Remove(s.file.Name()) //nolint:gosec // G703: the name is our own
	}
	s.file = nil
}
