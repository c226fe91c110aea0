// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What a RetryInfo can hold, whatever else the error says.
func TestRetryDelay(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	for json, want := range map[string]time.Duration{
		`"34s"`:                                34 * time.Second,
		`"34.4s"`:                              34400 * time.Millisecond,
		`"34.286670503s"`:                      34286670503,
		`"0.539477544s"`:                       539477544,
		`"0.000000001s"`:                       1,
		`"1.000340012s"`:                       1000340012,
		`"6776s"`:                              6776 * time.Second,
		`"9223372036s"`:                        9223372036 * time.Second,
		`"9223372037s"`:                        longest,
		`"315576000000s"`:                      longest,
		`"315576000000.999999999s"`:            longest,
		`"1` + strings.Repeat("0", 400) + `s"`: longest,
		`"0s"`:                                 0,
		`"0.000000000s"`:                       0,
		`"-3s"`:                                0,
		`"-0.5s"`:                              0,
		`"34"`:                                 0,
		`"s"`:                                  0,
		`"..s"`:                                0,
		`"1e3s"`:                               0,
		`"infs"`:                               0,
		`34`:                                   0,
		`null`:                                 0,
		`["34s"]`:                              0,
		`{}`:                                   0,
		`{"seconds":"34","nanos":5}`:           34000000005,
		`{"seconds":34,"nanos":400000000}`:     34400 * time.Millisecond,
		`{"seconds":"34"}`:                     34 * time.Second,
		`{"nanos":539477544}`:                  539477544,
		`{"seconds":"-34","nanos":-5}`:         0,
		`{"nanos":-5}`:                         0,
		`{"seconds":"315576000000"}`:           longest,
		`{"seconds":[],"nanos":"x"}`:           0,
	} {
		body := `{"error":{"code":429,"details":[{"@type":"` + rpcType + `RetryInfo","retryDelay":` + json + `}]}}`
		e := parseGoogleError(429, []byte(body))
		if e.retryDelay != want {
			t.Errorf("%s: %v, want %v", json, e.retryDelay, want)
		}
		if after := e.retryAfter(noonThere, dayOf(noonThere).ends); want == longest && after != "9223372037" {
			t.Errorf("%s: Retry-After %q", json, after)
		}
	}
}

// The body is asked first, in its detail and then in its message, and the header
// last. What says nothing, or no time, is passed over.
func TestDelay(t *testing.T) {
	const info = `{"@type":"` + rpcType + `RetryInfo","retryDelay":"34s"}`
	now := time.Date(2026, 9, 2, 19, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, message, details, header string
		want                           time.Duration
	}{
		{"detail", "Please retry in 48.9s.", info, "7", 34 * time.Second},
		{"the longer of two details", "", info + "," + strings.Replace(info, "34s", "4s", 1), "", 34 * time.Second},
		{"message", "Please retry in 1h52m56.4s.", "", "7", 6776400 * time.Millisecond},
		{"message, the detail is zero", "Please retry in 48.9s.", strings.Replace(info, "34s", "0s", 1), "7", 48900 * time.Millisecond},
		{"message, the detail is negative", "Please retry in 539.477544ms.", strings.Replace(info, "34s", "-34s", 1), "7", 539477544},
		{"header, the message is zero", "Please retry in 0s.", "", "7", 7 * time.Second},
		{"header, the message is no time", "Please retry in 1.2.3s.", "", "7", 7 * time.Second},
		{"header", "", "", "7", 7 * time.Second},
		{"header with space", "", "", " 7 ", 7 * time.Second},
		{"header, a fraction", "", "", "1.5", 1500 * time.Millisecond},
		{"header, very long", "", "", "99999999999999", maxCooldown},
		{"header, a date", "", "", "Wed, 02 Sep 2026 19:01:30 GMT", 90 * time.Second},
		{"header, an old form of date", "", "", "Wednesday, 02-Sep-26 19:01:30 GMT", 90 * time.Second},
		{"header, a date that is past", "", "", "Wed, 02 Sep 2026 18:59:59 GMT", 0},
		{"header, a date far away", "", "", "Wed, 02 Sep 9999 19:00:00 GMT", maxCooldown},
		{"header, zero", "", "", "0", 0},
		{"header, negative", "", "", "-7", 0},
		{"header, no time", "", "", "soon", 0},
		{"nothing", "", "", "", 0},
	} {
		e := parseGoogleError(503, []byte(`{"error":{"code":503,"message":"`+c.message+`","details":[`+c.details+`]}}`))
		header := http.Header{}
		if c.header != "" {
			header.Set("Retry-After", c.header)
		}
		if got := e.delay(header, now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
