// SPDX-License-Identifier: Apache-2.0

package gemini

import "github.com/caddyserver/caddy/v2"

// RateLimit keeps calls below the limits of a project before Google refuses
// them. All limits that are given apply; each model counts for itself, in each
// project. Every attempt counts, as it does at Google.
type RateLimit struct {
	// The models it applies to, as a shell pattern in which * matches any run of
	// characters, by the name that the client uses or that the upstream is asked
	// for. The first block that matches applies.
	Match string `json:"match"`

	// Requests per minute, 1 to 1e12: no more are sent in any 60 seconds. Default:
	// no limit.
	RPM int64 `json:"rpm,omitempty"`

	// Input tokens per minute, 1 to 1e12. They are estimated before a call, and
	// settled by the promptTokenCount of its answer. Default: no limit.
	TPM int64 `json:"tpm,omitempty"`

	// Requests per day, 1 to 1e12, from midnight to midnight Pacific time.
	// Default: no limit.
	RPD int64 `json:"rpd,omitempty"`

	// Images per minute, 1 to 1e12: those asked for, or more if more come.
	// Default: no limit.
	IPM int64 `json:"ipm,omitempty"`

	// How many calls may pass at once, 1 to rpm, which it needs. Fewer than rpm
	// are spread evenly: with an rpm of 10 and a burst of 1, calls are six
	// seconds apart. Default: the whole rpm.
	Burst int64 `json:"burst,omitempty"`

	// How long a call may wait for its turn, at most an hour; the deadline of retry
	// ends the wait in any case. Calls wait in the order in which they came.
	// Default: 0, which refuses a call at once when there is no room for it.
	Queue caddy.Duration `json:"queue,omitempty"`

	// What counts apart within a project, e.g. `{http.request.header.X-Tenant}`:
	// each value has all of these limits for itself. Placeholders of the request
	// are resolved for every call. Credentials, and what is no short text, show as
	// a hash. Default: the project counts as a whole.
	Key string `json:"key,omitempty"`
}
