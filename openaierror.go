// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// words are what an error says in place of Google's status and details: those of
// OpenAI, of Azure and aggregators that follow it, and of the Interactions API.
type words struct {
	word  string // error.code, where that is no number
	kind  string // error.type
	param string // the field that is to blame
	inner string // innererror.code (Azure)
	stage string // at which OpenAI's moderation has acted: input, output or unknown
	// isAboutMinors tells that the moderation suspects a child to be concerned.
	isAboutMinors bool
	// isFlagged tells that an aggregator's own moderation has refused the prompt: 403, with no code but
	// what was flagged (openrouter.ai/docs/errors).
	isFlagged bool
}

// errorWord is what a word stands for.
type errorWord struct {
	status       int   // that it comes with, where the status is not 200
	class        class // classOK: what the status says
	isModeration bool  // by a filter that is not Google's and has no word for what it saw
}

// errorWords are the codes of OpenAI (platform.openai.com/docs/guides/error-codes),
// of Azure, and of the Interactions API (ai.google.dev/gemini-api/docs/api-errors),
// in lower case. What is not listed is known by its status.
var errorWords = map[string]errorWord{
	"content_policy_violation":     {400, classBlocked, true}, // also this module's, for OpenAI's clients
	"moderation_blocked":           {400, classBlocked, true},
	"content_filter":               {400, classBlocked, true},
	"responsibleaipolicyviolation": {400, classBlocked, true},

	"safety":                   {status: 400, class: classBlocked},
	"recitation":               {status: 400, class: classBlocked},
	"language":                 {status: 400, class: classBlocked},
	"image_safety":             {status: 400, class: classBlocked},
	"image_recitation":         {status: 400, class: classBlocked},
	"image_other":              {status: 400, class: classBlocked},
	"no_image":                 {status: 400, class: classBlocked},
	"content_blocked":          {status: 400, class: classBlocked},
	"prohibited_content":       {status: 400, class: classForbidden},
	"image_prohibited_content": {status: 400, class: classForbidden},
	"spii":                     {status: 400, class: classForbidden},
	"blocklist":                {status: 400, class: classForbidden},

	"insufficient_quota":           {status: 429, class: classAccount},
	"billing_hard_limit_reached":   {status: 400, class: classAccount},
	"billing_not_active":           {status: 429, class: classAccount},
	"project_spend_limit_exceeded": {status: 429, class: classAccount},
	"payment_required":             {status: 402, class: classAccount},
	"invalid_api_key":              {status: 401, class: classAccount},
	"authentication":               {status: 401, class: classAccount},
	"permission_denied":            {status: 403, class: classAccount},

	"unsupported_country_region_territory": {status: 403, class: classRegion},
	"model_not_found":                      {status: 404, class: classClient}, // also of one that the project may not use
	"not_found":                            {status: 404},
	"out_of_range":                         {status: 416},
	"rate_limit_exceeded":                  {status: 429},
	"rate_limit_error":                     {status: 429},
	"quota_exceeded":                       {status: 429}, // per day, see readWords
	"server_error":                         {status: 500, class: classTransient},
	"api_error":                            {status: 500, class: classTransient},
	"unimplemented":                        {status: 501, class: classClient},
	"overloaded":                           {status: 503, class: classTransient},
	"overloaded_error":                     {status: 503, class: classTransient},
	"service_unavailable":                  {status: 503, class: classTransient},
	"deadline_exceeded":                    {status: 504, class: classTransient},
}

// perDay finds a daily limit in a message of OpenAI's: "requests per day (RPD)".
var perDay = regexp.MustCompile(`(?i)\bper day\b|\b[rt]pd\b`)

func (e *googleError) readWords(object gjson.Result) {
	if code := object.Get("code"); code.Type == gjson.String {
		e.word = code.Str
	}
	e.kind = object.Get("type").String()
	e.param = object.Get("param").String()
	e.inner = cmp.Or(object.Get("innererror.code").String(), object.Get("inner_error.code").String())
	e.stage = object.Get("moderation_details.moderation_stage").String()
	categories := object.Get("moderation_details.categories").Raw + object.Get("metadata.reasons").Raw
	e.isAboutMinors = strings.Contains(categories, minors)
	e.isFlagged = object.Get("metadata.flagged_input").Exists()
	e.perDay = e.saysPerDay()
}

// setCode takes a code, be it a status, a status written as a string, or a word.
func (e *googleError) setCode(value string) {
	if n, err := strconv.Atoi(value); err == nil {
		e.code = n
		return
	}
	e.word = value
}

// minors stands in the names of the categories that concern children.
const minors = "minors"

func (e *googleError) saysPerDay() bool {
	return e.word == "quota_exceeded" || e.word != "" && perDay.MatchString(e.message)
}

// told is the first word that is known, and what it stands for.
func (e *googleError) told() (word string, told errorWord) {
	for _, word := range []string{e.word, e.inner, e.kind, e.reason} { // the last where object has put it
		if told, known := errorWords[strings.ToLower(word)]; known {
			return word, told
		}
	}
	return "", errorWord{}
}

// statusOfWords is the status of an error inside a 200; 0 if it has no words. What
// nobody knows is not tried again: it may be a block.
func (e *googleError) statusOfWords() int {
	if e.word == "" && e.kind == "" {
		return 0
	}
	_, told := e.told()
	return cmp.Or(told.status, http.StatusBadRequest)
}

// graver is the worse of two errors. The first may be nil; the second is passed
// over if it has no status, or one that is no error's.
func graver(known, other *googleError) *googleError {
	other.code, other.perDay = cmp.Or(other.code, other.statusOfWords()), other.perDay || other.saysPerDay()
	isError := other.code >= 400 && other.code <= 599
	if isError && (known == nil || other.class() > known.class()) {
		return other
	}
	return known
}

// capitals are the error's words in the spelling of Google's.
func (e *googleError) capitals() string { return strings.ToUpper(cmp.Or(e.word, e.kind)) }

// block finds out whether the error is a filter's, which must not see the same
// prompt again (contract §1).
func (e *googleError) block() (verdict, bool) {
	word, told := e.told()
	v := verdict{class: told.class, reason: asWord(strings.ToUpper(word)), stage: stageOutput, said: e.message, status: e.code}
	switch {
	case told.isModeration, e.isFlagged, moderationMessage.MatchString(e.message):
		v.class, v.reason, v.stage = classBlocked, "SAFETY", stagePrompt
		if e.stage == "output" {
			v.reason, v.stage = reasonImageSafety, stageOutput
		}
		v.ours, v.isForeign = true, true
	case told.class.isBlock():
	case e.isBlockOfImagen():
		v.class, v.reason, v.stage, v.ours = classBlocked, reasonImageSafety, stagePrompt, true
	case e.word == "invalid_request" && strings.HasPrefix(e.message, "Request blocked due to"): // seen in place of the codes
		v.class, v.reason, v.stage, v.ours = classBlocked, "OTHER", stagePrompt, true
	default:
		return verdict{}, false
	}
	if e.isAboutMinors || aboutMinors.MatchString(e.message) {
		v.class = classForbidden
	}
	v.class = hardened(v.class, e.message)
	return v, true
}

var (
	// moderationMessage is how OpenAI words a block, also where an aggregator has lost its code.
	moderationMessage = regexp.MustCompile(`(?i)rejected (?:by the|as a result of our) safety system`)
	aboutMinors       = regexp.MustCompile(`safety_violations=\[[^\]]*minors`)
)

// isBlockOfImagen recognises a prompt that predict refuses: a 400 like any other
// (wire §5), except for what it says.
func (e *googleError) isBlockOfImagen() bool {
	return e.isPredict && e.code == http.StatusBadRequest &&
		(strings.Contains(e.message, "The prompt could not be submitted") || len(supportCodes(e.message)) > 0)
}

// delayOf is how long the headers ask to wait. OpenAI tells of its limits on every
// answer; when they are free again matters only where they are used up.
func (e *googleError) delayOf(header http.Header, now time.Time) time.Duration {
	if milliseconds, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil && milliseconds > 0 {
		return seconds(milliseconds / 1000)
	}
	if after := retryAfterOf(header, now); after > 0 || e.code != http.StatusTooManyRequests {
		return after
	}
	reset, _ := time.ParseDuration(header.Get("X-Ratelimit-Reset-Requests"))
	return max(reset, 0)
}

// openAI is an error of Google's in OpenAI's form.
func (e *googleError) openAI() []byte {
	return inOpenAIForm(e.code, e.class(), asWord(cmp.Or(e.reason, e.status, e.capitals(), statusWord(e.code))), cmp.Or(e.message, http.StatusText(e.code)))
}

// inOpenAIForm writes an error in OpenAI's form. Its clients raise an exception by
// the HTTP status, and tell more by the code.
func inOpenAIForm(status int, c class, reason, message string) []byte {
	o := openAIError{Message: message, Type: "invalid_request_error", Code: strings.ToLower(reason)}
	switch {
	case c.isBlock():
		o.Code = "content_policy_violation"
	case status == http.StatusRequestEntityTooLarge:
		o.Code = "request_too_large"
	case status == http.StatusTooManyRequests && c == classAccount: // no waiting helps
		o.Type, o.Code = "insufficient_quota", "insufficient_quota"
	case status == http.StatusTooManyRequests:
		o.Type, o.Code = "rate_limit_error", "rate_limit_exceeded"
	case status >= 500:
		o.Type = "server_error"
	}
	return encode(map[string]openAIError{"error": o})
}

// openAIDomain is the domain of an ErrorInfo whose reason is a code of an upstream
// that speaks like OpenAI.
const openAIDomain = "openai-compatible"

// native is an error in OpenAI's form as Google would write it.
func (e *googleError) native() []byte { return encode(errorBody{Error: e.object()}) }

func (e *googleError) object() errorObject {
	details := []any{}
	if reason := asWord(e.capitals()); reason != "" {
		metadata := map[string]string{}
		for key, value := range map[string]string{"type": e.kind, "param": e.param} {
			if value != "" {
				metadata[key] = value
			}
		}
		details = append(details, errorInfo{Type: rpcType + "ErrorInfo", Reason: reason, Domain: openAIDomain, Metadata: metadata})
	}
	if e.perDay { // which clients know by the name of the quota (wire §7)
		violation := quotaViolation{Metric: openAIDomain, ID: "LimitPerDay", Dimensions: map[string]string{}}
		details = append(details, quotaFailure{Type: rpcType + "QuotaFailure", Violations: []quotaViolation{violation}})
	}
	if e.retryDelay > 0 {
		details = append(details, retryInfo{Type: rpcType + "RetryInfo", Delay: protoDuration(e.retryDelay)})
	}
	return errorObject{Code: e.code, Status: statusWord(e.code), Message: cmp.Or(e.message, http.StatusText(e.code)), Details: details}
}
