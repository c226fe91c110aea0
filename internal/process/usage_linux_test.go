// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		name, stat string
		want       time.Duration
		bad        bool
	}{
		{
			name: "plain",
			stat: "42 (caddy) S 1 42 42 0 -1 4194304 130 0 1 0 123 45 7 8 20 0 9 0 118214 2990080 417\n",
			want: 1680 * time.Millisecond,
		},
		{
			name: "spaces and parentheses in the name",
			stat: "42 (a b) c (d) S 1 42 42 0 -1 4194304 130 0 1 0 1 2 7 8 20 0 9 0 118214\n",
			want: 30 * time.Millisecond,
		},
		{name: "empty", bad: true},
		{name: "cut short", stat: "42 (caddy) S 1 42 42 0 -1 4194304 130 0 1 0 123", bad: true},
		{name: "no number", stat: "42 (caddy) S 1 42 42 0 -1 4194304 130 0 1 0 x 45 7 8", bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseStat([]byte(tc.stat))
			if tc.bad != (err != nil) {
				t.Fatalf("error = %v, want one: %v", err, tc.bad)
			}
			if !tc.bad && got != tc.want {
				t.Errorf("CPU = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	const status = "Name:\tcaddy\nVmPeak:\t 9999 kB\nVmHWM:\t    1836 kB\nVmRSS:\t    1024 kB\nVmBad:\t x kB\n"
	for field, want := range map[string]int64{"VmHWM": 1836 << 10, "VmRSS": 1024 << 10, "VmSwap": -1, "VmBad": -1, "Vm": -1} {
		got, err := parseStatus([]byte(status), field)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%s = %d, %v; want %d", field, got, err, want)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	u, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS <= 0 || u.Peak < u.RSS/2 {
		t.Errorf("implausible usage: %+v", u)
	}
}

func TestOpenFilesOfThisProcess(t *testing.T) {
	before, err := OpenFiles(os.Getpid())
	if err != nil || before < 3 {
		t.Fatalf("%d files, %v", before, err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if after, err := OpenFiles(os.Getpid()); err != nil || after != before+1 {
		t.Errorf("%d files after one was opened, %d before; %v", after, before, err)
	}
}
