// SPDX-License-Identifier: Apache-2.0

//go:build unix

package gemini

import (
	"errors"
	"net"
	"syscall"
)

// hearsUnquiet tells that isUnquiet can find something out.
const hearsUnquiet = true

// isUnquiet tells that a kept connection has been closed by the other side, or that
// something has come that nobody has asked for. To send a call on it would be to lose
// the call, or to take the answer for that of another.
func isUnquiet(c net.Conn) bool {
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
