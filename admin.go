// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// adminAPI tells over Caddy's admin endpoint what the gateways of this process
// know, and lets an operator make them forget what they hold against a project.
//
//	GET  /gemini/status
//	POST /gemini/reset[?project=<name>]
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.gemini",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Routes returns the routes of the API.
func (adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/gemini/status", Handler: only(http.MethodGet, serveStatus)},
		{Pattern: "/gemini/reset", Handler: only(http.MethodPost, serveReset)},
	}
}

// only refuses other methods.
func only(method string, serve func(*http.Request) any) caddy.AdminHandler {
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != method {
			w.Header().Set("Allow", method)
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("only %s is answered here", method)}
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(serve(r))
	})
}

// status is the page for operators.
type status struct {
	Upstreams []upstreamStatus `json:"upstreams"`
	Limits    []limitView      `json:"limits"`
	Today     []ledgerRow      `json:"today"`
	Paused    []pausedProject  `json:"paused"`
}

type upstreamStatus struct {
	Name           string       `json:"name"`
	URL            string       `json:"url"`
	Healthy        bool         `json:"healthy"`
	SuccessRatio   float64      `json:"success_ratio"`
	LatencySeconds float64      `json:"latency_seconds"` // to a verdict; 0 if there was none
	CooldownUntil  *time.Time   `json:"cooldown_until"`  // of the project and model that rests longest
	Cooldowns      []restStatus `json:"cooldowns"`
	Alarms         []string     `json:"alarms"`
	BudgetUSD      float64      `json:"budget_usd,omitempty"`
	SpentUSD       float64      `json:"spent_usd"` // today
}

// restStatus is a project and model to which nothing is sent for a while, because
// the upstream has said so.
type restStatus struct {
	Account string    `json:"account"`
	Model   string    `json:"model"`
	Verdict string    `json:"verdict"` // limited or exhausted
	Until   time.Time `json:"until"`
}

func serveStatus(*http.Request) any {
	s := status{Upstreams: []upstreamStatus{}, Limits: []limitView{}, Today: []ledgerRow{}, Paused: []pausedProject{}}
	m := sharedMemories()
	if m == nil {
		return s
	}
	now := time.Now()
	for _, u := range m.liveUpstreams() {
		s.Upstreams = append(s.Upstreams, m.statusOf(u, now))
	}
	s.Limits = append(s.Limits, m.limitViews(now)...)
	s.Today = append(s.Today, m.ledger.today(m.calendar.day(now))...)
	s.Paused = append(s.Paused, m.blockRates.pauses()...)
	return s
}

func (m *memories) statusOf(u *upstream, now time.Time) upstreamStatus {
	health := u.health.view()
	s := upstreamStatus{
		Name: u.name, Healthy: health.healthy, SuccessRatio: health.success, LatencySeconds: health.latency.Seconds(),
		BudgetUSD: u.budget, SpentUSD: m.ledger.spent(m.calendar.day(now), u.name),
		Cooldowns: []restStatus{}, Alarms: []string{},
	}
	if u.base != nil {
		s.URL = u.base.String()
	}
	m.cooldowns.each(now, func(key string, c cooldown, until time.Time) {
		account, model, _ := strings.Cut(key, "\n")
		if !u.owns(account) {
			return
		}
		s.Cooldowns = append(s.Cooldowns, restStatus{account, model, c.Class.String(), until.UTC()})
		if s.CooldownUntil == nil || until.After(*s.CooldownUntil) {
			s.CooldownUntil = new(until.UTC())
		}
	})
	for i, isOn := range u.health.watch.alarms(now) {
		if isOn {
			s.Alarms = append(s.Alarms, alarmRules[i].name)
		}
	}
	return s
}

// serveReset makes the gateways forget what they hold against a project, or
// against all: a pause, what upstreams have said about limits, and keys that are
// set aside. It does not forget what was counted, nor blocked prompts.
func serveReset(r *http.Request) any {
	done := struct {
		Lifted int `json:"pauses_lifted"`
	}{}
	m := sharedMemories()
	if m == nil {
		return done
	}
	project := r.URL.Query().Get("project")
	now := time.Now()
	done.Lifted = m.blockRates.reset(project, now)
	m.forgive(project, now)
	return done
}

// forgive forgets what upstreams have said about the limits and keys of a
// project; "" is all of them.
func (m *memories) forgive(project string, now time.Time) {
	isAccount := map[string]bool{project: true} // false: it has another name
	isKey := make(map[string]bool)
	hasUnknownKeys := false // those that only a request knows
	for _, u := range m.allUpstreams() {
		known, areOpen := u.accounts()
		hasUnknownKeys = hasUnknownKeys || areOpen && len(known) > 0
		for _, at := range known {
			isOurs := at.project == project
			isAccount[at.account] = isAccount[at.account] || isOurs
			if at.key != nil && isOurs {
				isKey[at.key.id] = true
			}
		}
	}
	concerns := func(scope string) bool {
		account, _, _ := strings.Cut(scope, "\n")
		holder, _, _ := strings.Cut(account, "@") // of a client's own key
		isOurs, isKnown := isAccount[account]
		isUnnamed := !isKnown && strings.HasPrefix(account, "key-") // a call has brought the key, and no project
		return project == "" || isOurs || holder == project || isUnnamed && isAccount[""]
	}
	m.cooldowns.dropAll(concerns)
	m.learned.dropAll(concerns)
	m.gates.release(concerns, now)
	m.rejected.dropAll(func(name string) bool {
		id, _, _ := strings.Cut(name, "\n")
		return project == "" || isKey[id] || hasUnknownKeys
	})
}

// Interface guard
var _ caddy.AdminRouter = (*adminAPI)(nil)
