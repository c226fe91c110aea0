package main

import (
	"syscall"
	"time"
)

// sleepUntil asks the kernel, since an idle Go program wakes up to a millisecond
// late, twice of what a small call takes (golang/go#44343).
func sleepUntil(at time.Time) {
	for left := time.Until(at); left > 0; left = time.Until(at) {
		rest := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&rest, nil) // it may be interrupted
	}
}
