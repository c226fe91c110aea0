// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// refusal is a limit for which a call is not sent. It is told as Google tells of
// its own (wire §7). All methods do nothing on nil.
type refusal struct {
	cause
	upstream, project, model string
	value                    int64         // of the limit; 0 if nobody has told
	delay                    time.Duration // after which there is room again
	isTooMuch                bool          // there never is: the call alone is beyond the limit
}

// cause is what makes a call wait.
type cause uint8

const (
	causeNone      cause = iota
	causeRPM             // the limits of the configuration
	causeTPM             //
	causeIPM             //
	causeRPD             //
	causeLimited         // the upstream has refused calls, for some time
	causeExhausted       // or for the rest of the day
	causeBudget          // that of the upstream is spent
)

// causeOf is the cause of waiting for a limit of the configuration.
func causeOf(kind limitKind) cause {
	if kind == limitNone {
		return causeNone
	}
	return causeRPM + cause(kind)
}

// causes are how they are told. A quotaId says PerMinute or PerDay, which is what
// clients go by (wire §7).
var causes = [...]struct {
	class      class
	reason     string
	id, metric string
	said       string // with the value of the limit and the model
}{
	causeRPM: {
		classLimited, reasonRateLimited, "GenerateRequestsPerMinutePerProjectPerModel", "requests",
		"this gateway's limit of %d requests per minute for %s is used up",
	},
	causeTPM: {
		classLimited, reasonRateLimited, "GenerateContentInputTokensPerMinutePerProjectPerModel", "input_tokens",
		"this gateway's limit of %d input tokens per minute for %s is used up",
	},
	causeIPM: {
		classLimited, reasonRateLimited, "GenerateImagesPerMinutePerProjectPerModel", "images",
		"this gateway's limit of %d images per minute for %s is used up",
	},
	causeRPD: {
		classExhausted, reasonRateLimited, "GenerateRequestsPerDayPerProjectPerModel", "requests",
		"this gateway's limit of %d requests per day for %s is used up",
	},
	causeLimited: {
		classLimited, reasonRateLimited, "GenerateRequestsPerMinutePerProjectPerModel", "requests",
		"the upstream has refused calls and named a time before which it takes no more",
	},
	causeExhausted: {
		classExhausted, reasonRateLimited, "GenerateRequestsPerDayPerProjectPerModel", "requests",
		"the upstream's limit for today is used up",
	},
	causeBudget: {
		classExhausted, reasonOverBudget, "CostPerDayPerUpstream", "cost",
		"the budget of the upstream for today is spent",
	},
}

// attempt is what becomes of the call. It has not been made: the upstream is the one
// that was meant.
func (r *refusal) attempt() *attempt {
	told := causes[r.cause]
	a := &attempt{
		upstream: r.upstream, project: r.project, refusal: r, status: http.StatusTooManyRequests,
		verdict: verdict{class: told.class, reason: told.reason}, detail: told.said,
	}
	if r.cause <= causeRPD {
		a.detail = fmt.Sprintf(told.said, r.value, r.model)
	}
	if r.isTooMuch {
		a.detail = fmt.Sprintf("this call alone is more than this gateway's limit for %s allows (%s: %d)", r.model, limitNames[r.cause-causeRPM], r.value)
	}
	return a
}

// seconds are the whole seconds after which there is room.
func (r *refusal) seconds() int64 { return int64(math.Ceil(r.delay.Seconds())) }

// advice says when to come again, in the words that LangChain's client goes by
// (wire §8).
func (r *refusal) advice() string {
	switch {
	case r == nil:
		return ""
	case r.isTooMuch:
		return "Ask for less at a time."
	}
	return fmt.Sprintf("Try again in %d seconds.", r.seconds())
}

// retryAfter is the value of the header of this name.
func (r *refusal) retryAfter() string {
	if r == nil || r.isTooMuch {
		return ""
	}
	return strconv.FormatInt(r.seconds(), 10)
}

// details are those of google.rpc that clients know from Google's own refusals.
func (r *refusal) details() []any {
	if r == nil {
		return nil
	}
	told := causes[r.cause]
	violation := quotaViolation{Metric: errorDomain + "/" + told.metric, ID: told.id, Dimensions: map[string]string{"model": r.model}}
	if r.value > 0 {
		violation.Value = strconv.FormatInt(r.value, 10)
	}
	details := []any{quotaFailure{Type: rpcType + "QuotaFailure", Violations: []quotaViolation{violation}}}
	if !r.isTooMuch {
		details = append(details, retryInfo{Type: rpcType + "RetryInfo", Delay: protoDuration(r.delay)})
	}
	return details
}

type (
	quotaFailure struct {
		Type       string           `json:"@type"`
		Violations []quotaViolation `json:"violations"`
	}
	quotaViolation struct {
		Metric     string            `json:"quotaMetric"`
		ID         string            `json:"quotaId"`
		Dimensions map[string]string `json:"quotaDimensions"`
		Value      string            `json:"quotaValue,omitempty"`
	}
	retryInfo struct {
		Type  string `json:"@type"`
		Delay string `json:"retryDelay"`
	}
)

// protoDuration writes a google.protobuf.Duration.
func protoDuration(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}
