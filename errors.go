// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// errorDomain is the domain of every ErrorInfo that this module writes.
const errorDomain = "caddy-gemini"

// apiError is an error that this module answers with, in Google's form or in
// OpenAI's. Google's clients raise it as their own exception (wire §8).
type apiError struct {
	code     int // HTTP status, and error.code
	verdict  verdict
	detail   string // replaces the general explanation of the reason
	model    string
	upstream string
	attempts int
	language string   // the client's Accept-Language
	refusal  *refusal // of a limit; nil for other errors
	foreign  *foreign // of a call that cannot be translated
	isCut    bool     // the rest of the request is not worth reading
}

// googleStatus are the words that Google uses for HTTP statuses.
var googleStatus = map[int]string{
	http.StatusUnauthorized:        "UNAUTHENTICATED",
	http.StatusForbidden:           "PERMISSION_DENIED",
	http.StatusNotFound:            "NOT_FOUND",
	http.StatusConflict:            "ABORTED",
	http.StatusTooManyRequests:     "RESOURCE_EXHAUSTED",
	statusClientGone:               reasonCancelled,
	http.StatusInternalServerError: "INTERNAL",
	http.StatusNotImplemented:      "UNIMPLEMENTED",
	http.StatusBadGateway:          "UNAVAILABLE",
	http.StatusServiceUnavailable:  "UNAVAILABLE",
	http.StatusGatewayTimeout:      "DEADLINE_EXCEEDED",
}

// statusWord is Google's word for an HTTP status that tells of an error.
func statusWord(code int) string { return cmp.Or(googleStatus[code], "INVALID_ARGUMENT") }

// message puts the reason first: it is what users see of an error (wire §8).
func (e *apiError) message() string {
	what := cmp.Or(e.detail, e.verdict.explain(e.verdict.reason).what)
	if e.verdict.blocked != "" {
		what += " (" + e.verdict.blocked + ")"
	}
	next := cmp.Or(e.refusal.advice(), e.verdict.explain(e.verdict.advisor()).next)
	message := fmt.Sprintf("%s: %s. %s", e.verdict.reason, what, next)
	for _, code := range supportCodes(e.verdict.said) {
		if code.category == "" {
			continue
		}
		message += fmt.Sprintf(" Support code %s: %s.", code.code, code.category)
		if e.verdict.class != classForbidden { // about which all has been said
			message += " " + code.advice
		}
	}
	said := strings.ToValidUTF8(cmp.Or(e.verdict.said, e.verdict.text), "") // may be cut in a character
	if said = strings.TrimSpace(said); said != "" {
		message += " (" + e.verdict.speaker() + " said: " + said + ")"
	}
	return message
}

// speaker is who said what the verdict quotes.
func (v verdict) speaker() string {
	if v.isForeign {
		return "The upstream"
	}
	return "Gemini"
}

// native is the error in Google's form.
func (e *apiError) native() []byte {
	text := e.verdict.explain(e.verdict.googleReason())
	locale, localized := localize(e.language, e.verdict.advisor(), e.verdict.stage)
	details := []any{
		errorInfo{Type: rpcType + "ErrorInfo", Reason: e.verdict.reason, Domain: errorDomain, Metadata: e.metadata(text.configurable)},
		localizedMessage{Type: rpcType + "LocalizedMessage", Locale: locale, Message: localized},
		help{Type: rpcType + "Help", Links: []errorLink{{Description: text.helpTitle, URL: text.help}}},
	}
	return encode(errorBody{Error: errorObject{
		Code:    e.code,
		Status:  statusWord(e.code),
		Message: e.message(),
		Details: append(details, e.refusal.details()...),
	}})
}

func (e *apiError) metadata(configurable bool) map[string]string {
	m := map[string]string{"class": e.verdict.class.String(), "attempts": strconv.Itoa(e.attempts)}
	set := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	set("model", e.model)
	set("upstream", e.upstream)
	set("stage", e.verdict.stage)
	v := e.verdict
	theirs := v.reason
	if v.ours {
		theirs = v.finish
	}
	switch {
	case v.blocked != "":
		set("blockedReason", v.blocked)
	case v.stage == stagePrompt:
		set("blockReason", theirs)
	case v.stage == stageOutput:
		set("finishReason", theirs)
	default:
		return m
	}
	m["configurable"] = strconv.FormatBool(configurable)
	return m
}

// openAI is the error in OpenAI's form, for OpenAI-compatible paths.
func (e *apiError) openAI() []byte {
	if e.foreign != nil {
		return e.foreign.openAI()
	}
	return inOpenAIForm(e.code, e.verdict.class, e.verdict.reason, e.message())
}

// interaction is the error in the form of Interactions (wire §9), alone or as an
// event of a stream.
func (e *apiError) interaction() []byte {
	code := strings.ToLower(e.verdict.reason)
	if e.code == http.StatusTooManyRequests && !e.verdict.class.isBlock() {
		code = "rate_limit_exceeded"
	}
	return encode(interactionError{Event: "error", Error: interactionProblem{Code: code, Message: e.message()}})
}

const rpcType = "type.googleapis.com/google.rpc."

type (
	errorBody struct {
		Error errorObject `json:"error"`
	}
	errorObject struct {
		Code    int    `json:"code"`
		Status  string `json:"status"`
		Message string `json:"message"`
		Details []any  `json:"details"`
	}
	errorInfo struct {
		Type     string            `json:"@type"`
		Reason   string            `json:"reason"`
		Domain   string            `json:"domain"`
		Metadata map[string]string `json:"metadata"`
	}
	localizedMessage struct {
		Type    string `json:"@type"`
		Locale  string `json:"locale"`
		Message string `json:"message"`
	}
	help struct {
		Type  string      `json:"@type"`
		Links []errorLink `json:"links"`
	}
	errorLink struct {
		Description string `json:"description"`
		URL         string `json:"url"`
	}
	interactionError struct {
		Event string             `json:"event_type"`
		Error interactionProblem `json:"error"`
	}
	interactionProblem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	openAIError struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Code    string  `json:"code"`
		Param   *string `json:"param"`
	}
)

// googleError is what this module understands of an error of Google's, or of an
// upstream that speaks like OpenAI.
type googleError struct {
	code            int
	status, message string
	reason          string        // of ErrorInfo
	words                         // OpenAI's, or those of Interactions
	isPredict       bool          // it answers a call of Imagen's verb
	perDay          bool          // a quota per day is used up, whatever else is
	noAccess        bool          // "limit: 0": the key's tier has none of this quota
	retryDelay      time.Duration // that the body asks for; 0 if it does not
	violations      []string      // what BadRequest says about fields of the request
	quotas          []usedQuota   // that are used up, by QuotaFailure
}

// usedQuota is a limit of Google's, as a refusal names it.
type usedQuota struct {
	id, metric string
	value      int64 // 0 if it is not said
}

// kind is the limit of ours that means the same (wire §7).
func (q usedQuota) kind() limitKind {
	id, metric := strings.ToLower(q.id), strings.ToLower(q.metric)
	for _, m := range quotaKinds {
		if !strings.Contains(id, m.word) && !strings.Contains(metric, m.word) {
			continue
		}
		switch {
		case strings.Contains(id, "perday"):
			return m.perDay
		case strings.Contains(id, "perminute"):
			return m.perMinute
		}
	}
	return limitNone
}

// quotaKinds go by the words in a quota's name, the most telling first: all of
// them may speak of requests.
var quotaKinds = []struct {
	word              string
	perMinute, perDay limitKind
}{
	{"token", limitTPM, limitNone},
	{"images", limitIPM, limitNone},
	{"request", limitRPM, limitRPD},
}

// maxViolations is more than an error of Google's has been seen to list.
const maxViolations = 32

// errorPlaces are where an error stands: alone, in an interaction that has failed, or
// in a choice of a chat (OpenRouter).
var errorPlaces = []string{"error", "errors.0", "choices.#.error|0"}

// parseGoogleError reads the body of an answer that is not a 200. Some
// surfaces wrap the object in an array (wire §7); bodies that are neither
// leave nothing but the status.
func parseGoogleError(status int, body []byte) *googleError {
	e := &googleError{code: status}
	root := gjson.ParseBytes(body)
	if root.IsArray() {
		root = root.Get("0")
	}
	var object gjson.Result
	for _, place := range errorPlaces {
		if object = root.Get(place); object.Exists() {
			break
		}
	}
	e.status = object.Get("status").String()
	e.message = object.Get("message").String()
	e.readWords(object)
	for _, detail := range object.Get("details").Array() {
		e.readDetail(detail)
	}
	if e.retryDelay == 0 {
		e.retryDelay = retryDelayIn(e.message)
	}
	e.noAccess = e.noAccess || limitZero.MatchString(e.message)
	return e
}

func (e *googleError) readDetail(detail gjson.Result) {
	switch strings.TrimPrefix(detail.Get("@type").String(), rpcType) {
	case "ErrorInfo":
		e.reason = detail.Get("reason").String()
	case "RetryInfo":
		e.retryDelay = max(e.retryDelay, parseProtoDuration(detail.Get("retryDelay")))
	case "QuotaFailure":
		for _, violation := range detail.Get("violations").Array() {
			// The quota's name decides: a daily quota has been seen with a
			// delay of 41 s (wire §7).
			e.perDay = e.perDay || strings.Contains(violation.Get("quotaId").String(), "PerDay")
			e.noAccess = e.noAccess || violation.Get("quotaValue").String() == "0"
			if len(e.quotas) < maxViolations {
				value, _ := strconv.ParseInt(violation.Get("quotaValue").String(), 10, 64)
				e.quotas = append(e.quotas, usedQuota{violation.Get("quotaId").String(), violation.Get("quotaMetric").String(), value})
			}
		}
	case "BadRequest":
		for _, violation := range detail.Get("fieldViolations").Array() {
			if len(e.violations) < maxViolations {
				e.violations = append(e.violations, violation.Get("description").String())
			}
		}
	}
}

var (
	limitZero = regexp.MustCompile(`\blimit: 0\b`)
	saidDelay = regexp.MustCompile(`(?:[Rr]etry|[Tt]ry again) in ((?:[0-9.]+(?:ms|h|m|s))+)`)
)

// parseProtoDuration reads a google.protobuf.Duration: "34.286670503s", or its
// fields, as gateways in front of Google may write it. Times that are negative
// ask for nothing; those beyond 292 years, which the type allows, are cut.
func parseProtoDuration(d gjson.Result) time.Duration {
	if d.IsObject() {
		return parseSeconds(fmt.Sprintf("%s.%09d", d.Get("seconds").String(), d.Get("nanos").Int()))
	}
	if text, ok := strings.CutSuffix(d.String(), "s"); ok {
		return parseSeconds(text)
	}
	return 0
}

// retryDelayIn finds "Please retry in 1h52m56.4s." in a message, or OpenAI's
// "Please try again in 6m0s."
func retryDelayIn(message string) time.Duration {
	match := saidDelay.FindStringSubmatch(message)
	if match == nil {
		return 0
	}
	d, err := time.ParseDuration(match[1])
	if err != nil {
		return 0
	}
	return max(d, 0)
}

// delay is how long the upstream asks to wait, if it does: in the body, which is
// Google's way (wire §7), else in its Retry-After, which is everybody else's.
func (e *googleError) delay(header http.Header, now time.Time) time.Duration {
	d := e.retryDelay
	if exact := retryDelayIn(e.message); exact.Truncate(time.Second) == d {
		d = exact // RetryInfo has been seen cut to whole seconds: 48s for 48.939935699s
	}
	if d == 0 {
		d = e.delayOf(header, now)
	}
	return min(d, maxCooldown)
}

// retryAfterOf reads Retry-After: seconds, or a date (RFC 9110 §10.2.3).
func retryAfterOf(header http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if date, err := http.ParseTime(text); err == nil {
		return max(date.Sub(now), 0)
	}
	return parseSeconds(text)
}

// retryAfter is the value of the Retry-After header that Google does not send
// (wire §7): the delay rounded up, or the seconds to the midnight at which a quota per
// day ends. Without either there is none, and a Retry-After of the
// upstream's own stays.
func (e *googleError) retryAfter(now, midnight time.Time) string {
	delay := e.retryDelay
	switch e.class() {
	case classExhausted:
		delay = midnight.Sub(now)
	case classLimited:
	default:
		return ""
	}
	if delay <= 0 {
		return ""
	}
	return strconv.FormatInt(int64(math.Ceil(delay.Seconds())), 10)
}
