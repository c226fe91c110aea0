// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// apiError is an error as Google reports it.
type apiError struct {
	code    int // the HTTP status, too
	status  string
	message string
	details array
	errors  array    // the older list, which Vertex AI still adds sometimes
	gpt     *gptForm // how OpenAI says it; nil = in the form of its status
}

func (e *apiError) object() object {
	inner := object{{"code", e.code}, {"message", e.message}}
	if e.errors != nil {
		inner = append(inner, member{"errors", e.errors})
	}
	inner = append(inner, member{"status", e.status})
	if e.details != nil {
		inner = append(inner, member{"details", e.details})
	}
	return object{{"error", inner}}
}

const (
	rpcType = "type.googleapis.com/google.rpc."
	service = "generativelanguage.googleapis.com"
)

const (
	vertexService = "aiplatform.googleapis.com"
	msgOAuth      = "Expected OAuth 2 access token, login cookie or other valid authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
)

// The errors that requests run into without asking for them.
var (
	errNoCredentials = unauthenticated("Request is missing required authentication credential.", "CREDENTIALS_MISSING", vertexService)
	errKeyForToken   = unauthenticated("Request had invalid authentication credentials.", "ACCESS_TOKEN_TYPE_UNSUPPORTED", vertexService)

	errMethodNotFound     = &apiError{code: 404, status: "NOT_FOUND", message: "Method not found."}
	errUnregisteredCaller = &apiError{code: 403, status: "PERMISSION_DENIED", message: "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API."}
	errBodyTooLarge       = invalidArgument(fmt.Sprintf("Request payload size exceeds the limit: %d bytes.", maxBody))
	errNoContents         = invalidArgument("* GenerateContentRequest.contents: contents is not specified\n")
	errNoRole             = invalidArgument("Please use a valid role: user, model.")
	errManyCandidates     = invalidArgument("Multiple candidates is not enabled for this model")
)

func invalidArgument(message string, details ...any) *apiError {
	return &apiError{code: http.StatusBadRequest, status: "INVALID_ARGUMENT", message: message, details: details}
}

// badField is an INVALID_ARGUMENT that names a field; at is empty for the
// request itself.
func badField(at, message string) *apiError {
	violation := object{{"description", message}}
	if at != "" {
		violation = append(object{{"field", at}}, violation...)
	}
	return invalidArgument(message, object{{"@type", rpcType + "BadRequest"}, {"fieldViolations", array{violation}}})
}

func malformedJSON(problem, place string) *apiError {
	return badField("", strings.TrimSuffix("Invalid JSON payload received. "+problem+"\n"+place, "\n"))
}

func unknownField(name, at string) *apiError {
	return badField(at, fmt.Sprintf("Invalid JSON payload received. Unknown name %q%s: Cannot find field.", name, where(at)))
}

// duplicateField refuses two spellings of one field. What Google answers then
// is not known; the wording is that of Go's protojson.
func duplicateField(name, at string) *apiError {
	return badField(at, fmt.Sprintf("Invalid JSON payload received. Duplicate field %q%s.", name, where(at)))
}

func where(at string) string {
	if at == "" {
		return ""
	}
	return " at '" + at + "'"
}

func invalidValue(at string, v gjson.Result, typeName string) *apiError {
	if typeName != "" {
		typeName = " (type.googleapis.com/google.ai.generativelanguage.v1beta." + typeName + ")"
	}
	value := v.Raw
	if len(value) > 100 {
		value = v.Type.String() // whatever it is, it is too long to be read
	}
	return badField(at, "Invalid value at '"+at+"'"+typeName+", "+value)
}

func unsupportedModalities(c *call, asked []string) *apiError {
	return invalidArgument(fmt.Sprintf("The requested combination of response modalities (%s) is not supported by the model. models/%s accepts the following combination of response modalities:\n* TEXT\n",
		strings.Join(asked, ", "), c.model))
}

func modelNotFound(c *call) *apiError {
	method := c.method
	if method == "" {
		method = "generateContent"
	}
	if c.vertex {
		return &apiError{code: 404, status: "NOT_FOUND", message: fmt.Sprintf("Publisher Model `publishers/google/models/%s` was not found or your project does not have access to it. Please ensure you are using a valid model version. For more information, see: https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions", c.model)}
	}
	return &apiError{code: 404, status: "NOT_FOUND", message: fmt.Sprintf("models/%s is not found for API version %s, or is not supported for %s. Call ListModels to see the list of available models and their supported methods.",
		c.model, c.version, method)}
}

func unauthenticated(problem, reason, service string) *apiError {
	return &apiError{
		code: http.StatusUnauthorized, status: "UNAUTHENTICATED", message: problem + " " + msgOAuth,
		details: array{errorInfo(reason, object{{"service", service}})},
	}
}

func errorInfo(reason string, metadata object) object {
	return object{{"@type", rpcType + "ErrorInfo"}, {"reason", reason}, {"domain", "googleapis.com"}, {"metadata", metadata}}
}

func helpLink(description, url string) object {
	return object{{"@type", rpcType + "Help"}, {"links", array{object{{"description", description}, {"url", url}}}}}
}

func debugInfo(detail string) object {
	return object{{"@type", rpcType + "DebugInfo"}, {"detail", detail}}
}

func keyInvalid(message string) *apiError {
	return invalidArgument(message,
		errorInfo("API_KEY_INVALID", object{{"service", service}}),
		object{{"@type", rpcType + "LocalizedMessage"}, {"locale", "en-US"}, {"message", message}})
}

func serviceDisabled() *apiError {
	const url = "https://console.developers.google.com/apis/api/" + service + "/overview?project=12345678"
	return &apiError{
		code: 403, status: "PERMISSION_DENIED",
		message: "Generative Language API has not been used in project 12345678 before or it is disabled. Enable it by visiting " + url + " then retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems and retry.",
		details: array{
			helpLink("Google developers console API activation", url),
			errorInfo("SERVICE_DISABLED", object{{"service", service}, {"consumer", "projects/12345678"}}),
		},
	}
}

// quota is one way to run out of a quota.
type quota struct {
	metric string // without the service
	id     string
	limit  int // 0: this tier has no access, and quotaValue is absent
}

var (
	quotaPerMinute = quota{"generate_requests_per_model", "GenerateRequestsPerMinutePerProjectPerModel", 500}
	quotaPerDay    = quota{"generate_requests_per_model_per_day", "GenerateRequestsPerDayPerProjectPerModel", 1000}
	quotaTokens    = quota{"generate_content_paid_tier_input_token_count", "GenerateContentPaidTierInputTokensPerModelPerMinute", 1_000_000}
	quotaFreeDay   = quota{"generate_content_free_tier_requests", "GenerateRequestsPerDayPerProjectPerModel-FreeTier", 0}
	quotaFreeMin   = quota{"generate_content_free_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 0}
)

// quotaExceeded is the 429 with Help, QuotaFailure and RetryInfo. There is no
// Retry-After header: the delay is in the body alone, twice.
func quotaExceeded(model string, delay time.Duration, quotas ...quota) *apiError {
	message := "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: https://ai.dev/rate-limit. "
	violations := array{}
	for _, q := range quotas {
		message += fmt.Sprintf("\n* Quota exceeded for metric: %s/%s, limit: %d, model: %s", service, q.metric, q.limit, model)
		violation := object{
			{"quotaMetric", service + "/" + q.metric},
			{"quotaId", q.id},
			{"quotaDimensions", object{{"location", "global"}, {"model", model}}},
		}
		if q.limit > 0 {
			violation = append(violation, member{"quotaValue", strconv.Itoa(q.limit)})
		}
		violations = append(violations, violation)
	}
	return exhausted(429, fmt.Sprintf("%s\nPlease retry in %v.", message, delay),
		helpLink("Learn more about Gemini API quotas", "https://ai.google.dev/gemini-api/docs/rate-limits"),
		object{{"@type", rpcType + "QuotaFailure"}, {"violations", violations}},
		object{{"@type", rpcType + "RetryInfo"}, {"retryDelay", retryDelay(delay)}})
}

// retryDelay is a protobuf Duration; Google drops the fraction that its
// message has.
func retryDelay(d time.Duration) string {
	if d >= time.Second {
		d = d.Truncate(time.Second)
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

func exhausted(code int, message string, details ...any) *apiError {
	return &apiError{code: code, status: "RESOURCE_EXHAUSTED", message: message, details: details}
}
