// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"testing"
	"time"
)

func TestRatesOfADay(t *testing.T) {
	book := &rateBook{limit: 2}
	day := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		project string
		blocked bool
		now     time.Time
		want    share
	}{
		{"a", false, day, share{"a", 0, true}},
		{"a", true, day, share{"a", 0.5, false}},
		{"b", true, day, share{"b", 1, false}},
		{"c", false, day, share{other, 0, false}},
		{"d", true, day, share{other, 0.5, false}},
		{"a", true, day.Add(11 * time.Hour), share{"a", 2. / 3, false}},
		{"d", false, day.Add(12 * time.Hour), share{"d", 0, true}},
		{"a", false, day.Add(13 * time.Hour), share{"a", 0, false}},
	} {
		if got := book.count(c.project, c.blocked, c.now); got != c.want {
			t.Errorf("Test %d: expected %v, got %v", i, c.want, got)
		}
	}
}

func TestRatesAreBounded(t *testing.T) {
	book := &rateBook{limit: 10}
	for i := range 1000 {
		book.count(fmt.Sprint(i), false, time.Unix(0, 0))
	}
	if n := len(book.projects); n != 11 {
		t.Errorf("%d projects are kept, expected 10 and one for all others", n)
	}
}
