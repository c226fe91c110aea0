// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc: USER_HZ is 100 on every platform that
// Go supports.
const tick = 10 * time.Millisecond

// ResetPeak makes the kernel forget the process's peak memory (proc(5),
// clear_refs).
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// ReadUsage returns what the process has used so far.
func ReadUsage(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, err
	}
	cpu, err1 := parseStat(stat)
	rss, err2 := parseStatus(status, "VmRSS")
	peak, err3 := parseStatus(status, "VmHWM")
	return Usage{CPU: cpu, RSS: rss, Peak: peak}, errors.Join(err1, err2, err3)
}

// OpenFiles returns how many file descriptors the process has.
func OpenFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

// parseStat returns utime + stime, which the kernel counts over all threads,
// ended ones included.
func parseStat(stat []byte) (time.Duration, error) {
	// The command name may hold spaces and parentheses; the last ")" ends it.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	const utime, stime = 14 - 3, 15 - 3 // numbered from 1, two of them cut off
	if end < 0 || len(fields) <= stime {
		return 0, fmt.Errorf("malformed stat: %q", stat)
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// parseStatus returns the bytes of a field that is given in kB.
func parseStatus(status []byte, field string) (int64, error) {
	for line := range strings.Lines(string(status)) {
		value, ok := strings.CutPrefix(line, field+":")
		if !ok {
			continue
		}
		kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		return kB << 10, err
	}
	return 0, fmt.Errorf("status has no %s", field)
}
