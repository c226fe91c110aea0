// SPDX-License-Identifier: Apache-2.0

//go:build unix

package gemini

import (
	"errors"
	"net"
	"syscall"
)

// seesStale tells that isStale can find something out.
const seesStale = true

// isStale tells that a kept connection has been closed by the other side, or that
// something has come that nobody has asked for. To send a call on it would be to lose
// the call, or to take the answer for that of another.
func isStale(c net.Conn) bool {
	plain, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := plain.SyscallConn()
	if err != nil {
		return true
	}
	isQuiet := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, err := syscall.Read(int(fd), one[:])
		isQuiet = errors.Is(err, syscall.EAGAIN)
		return true // do not wait
	})
	return err != nil || !isQuiet
}
