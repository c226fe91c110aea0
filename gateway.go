// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

// gateway is a configuration at work: what its two doors, the handler and the
// transport of a reverse_proxy, have in common.
type gateway struct {
	options *Options
	router  *router
	state   *state
	metrics *metrics
	notes   *noteLog
	logger  *zap.Logger
	emit    func(event string, data map[string]any) bool
}

// build sets up the gateway. It makes no connection.
func (o *Options) build(ctx caddy.Context) (*gateway, error) {
	_, err := pacificDays()
	if err != nil {
		return nil, err
	}
	g := &gateway{options: o, notes: new(noteLog), logger: ctx.Logger()}
	if g.metrics, err = registerMetrics(ctx.GetMetricsRegistry(), o.knownModels()); err != nil {
		return nil, err
	}
	g.router = o.newRouter()
	o.warnOfLongQueues(g.logger)
	if g.emit, err = announcer(ctx); err != nil {
		return nil, err
	}
	if g.state, err = loadState(ctx, g.logger); err != nil {
		return nil, err
	}
	g.router.state, g.router.tell, g.router.alarmed = g.state, g.tell, g.alarmed
	if err = g.addUpstreams(ctx); err != nil {
		g.router.close()
		g.state.release()
		return nil, err
	}
	g.state.add(g)
	return g, nil
}

// warnOfLongQueues tells of a queue that cannot be as long as it says.
func (o *Options) warnOfLongQueues(logger *zap.Logger) {
	for _, l := range o.RateLimits {
		if l.Queue > o.Retry.Deadline {
			logger.Warn("no call waits as long as queue says, because the deadline of retry comes first",
				zap.String("rate_limit", l.Match), zap.Duration("queue", time.Duration(l.Queue)), zap.Duration("deadline", time.Duration(o.Retry.Deadline)))
		}
	}
}

// newRouter is a router that lacks what is shared and where to send calls.
func (o *Options) newRouter() *router {
	r := &router{
		imageModels: o.ImageModels,
		aliases:     o.aliases(),
		hold:        o.Hold,
		retry:       retryRules{attempts: o.Retry.Attempts, deadline: time.Duration(o.Retry.Deadline)},
		pacing: pacing{
			initial: time.Duration(o.Retry.Backoff.Initial), max: time.Duration(o.Retry.Backoff.Max),
			jitter: *o.Retry.Jitter, random: rand.Float64,
		},
		budget:     o.Retry.Budget.provision(),
		guardFor:   time.Duration(*o.Guard),
		rephrasing: o.rephrasing(),
		pauses:     o.PauseOnBlockRate,
		noImage:    noImage(o.NoImage),
		commitText: o.StreamCommit == commitText,
		now:        time.Now,
		sleep:      sleep,
		tell:       func(string, map[string]any) {},
		alarmed:    func(string, alarmChange) {},
	}
	if o.Inject != injectOff {
		r.settings, r.modalities = o.settings, o.ResponseModalities
	}
	for _, l := range o.RateLimits {
		r.limits = append(r.limits, l.rule())
	}
	if o.BlockStatus != blockPass {
		r.blockStatus, _ = strconv.Atoi(o.BlockStatus.String())
	}
	return r
}

// cleanup gives back what is shared with other configurations.
func (g *gateway) cleanup() {
	g.router.close()
	g.state.remove(g)
	g.state.release()
}

func (g *gateway) addUpstreams(ctx caddy.Context) error {
	isTold := slices.ContainsFunc(g.options.Upstreams, func(u Upstream) bool { return u.Format != "" })
	for i := range g.options.Upstreams {
		option := &g.options.Upstreams[i]
		u, err := option.provision(ctx)
		if err != nil {
			return fmt.Errorf("upstream %q: %w", option.Name, err)
		}
		u.aliases = g.router.aliases
		if option.Format == "" {
			u.guessFormat(isTold)
		}
		u.health = g.state.healthOf(option.Name, option.URL)
		g.router.upstreams = append(g.router.upstreams, u)
	}
	return nil
}

// eventBlocked is the one event that comes with calls.
const eventBlocked = "blocked"

// maxAnnouncing is how many events about blocked calls may be on their way to those who
// listen. They can come faster than a listener runs a command for each, and would pile up.
// Of other events there are few.
const maxAnnouncing = 64

// announcer emits events through Caddy's events app, beside the call that they
// are about: whoever listens may take time. A configuration that has been
// replaced emits none, and says so.
func announcer(ctx caddy.Context) (func(string, map[string]any) bool, error) {
	module, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("getting the events app: %w", err)
	}
	app, logger := module.(*caddyevents.App), ctx.Logger()
	announcing := make(chan struct{}, maxAnnouncing)
	return func(name string, data map[string]any) bool {
		if ctx.Err() != nil {
			return false
		}
		event, done := "gemini."+name, func() {}
		if !app.ShouldEmit(event) {
			return true
		}
		if name == eventBlocked {
			select {
			case announcing <- struct{}{}:
				done = func() { <-announcing }
			default:
				logger.Warn("event was dropped, because those who listen are too slow", zap.String("event", event), zap.Any("data", data))
				return true
			}
		}
		go func() {
			defer done()
			app.Emit(ctx, event, data)
		}()
		return true
	}, nil
}

// tell emits an event. What a call finds out that a reload has overtaken is news
// to those who listen now: it is told once.
func (g *gateway) tell(name string, data map[string]any) {
	if g.emit(name, data) {
		return
	}
	for _, live := range g.state.liveGateways() {
		if live.emit(name, data) {
			return
		}
	}
}

// alarmed tells the operator what an alarm of an upstream does. Only the bad news
// are an event: they are what pages somebody.
func (g *gateway) alarmed(upstream string, c alarmChange) {
	rule := &alarmRules[c.alarm]
	fields := []zap.Field{zap.String("upstream", upstream), zap.String("alarm", rule.name)}
	switch {
	case c.isQuiet:
		g.logger.Info("upstream's alarm has ended for want of calls to judge by", fields...)
	case !c.isRaised:
		g.logger.Info("upstream's alarm has ended", append(fields, zap.Float64("value", c.value), zap.Float64("threshold", rule.clear))...)
	default:
		g.logger.Warn("upstream raises an alarm", append(fields, zap.Float64("value", c.value), zap.Float64("threshold", rule.raise))...)
		g.router.tell("upstream_alarm", map[string]any{
			"upstream": upstream, "alarm": rule.name, "value": c.value, "threshold": rule.raise,
		})
	}
}

// sleep waits for a time, for somebody to wake it, or for the end of the context.
func sleep(ctx context.Context, d time.Duration, woken <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-woken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open begins the work on a generate call.
func (g *gateway) open(r *http.Request, c call) *exchange {
	now := g.router.now()
	x := newExchange(r, c)
	x.arrived = now
	x.deadline = deadlineOf(now, g.router.retry.deadline, r.Header.Get("X-Server-Timeout"))
	x.isHurried = x.deadline.Before(now.Add(g.router.retry.deadline))
	x.publish(r)
	keep := g.router.retry.attempts > 1 || g.router.guardFor > 0 || len(g.router.limits) > 0 || g.router.mayTranslate(&c)
	x.body = newRequestBody(r, g.completion(r, x), g.options.MaxBody, keep)
	x.body.inMemory = g.options.KeepInMemory
	return x
}

func newExchange(r *http.Request, c call) *exchange {
	project := clientProject(r, c)
	return &exchange{
		ctx:           r.Context(),
		call:          c,
		model:         c.model,
		contentType:   r.Header.Get("Content-Type"),
		language:      strings.Join(r.Header["Accept-Language"], ","),
		client:        clientVersion(r.Header),
		clientProject: project,
		expand:        expander(r.Context()),
		attempt:       &attempt{project: project}, // until there is a real one
	}
}

// completion is what the call's body must carry. What only some upstreams need
// is left out for the others when it is sent.
func (g *gateway) completion(r *http.Request, x *exchange) completion {
	c := completion{
		vertex:  x.call.surface == surfaceVertex,
		renames: x.call.namesModelInBody() && !x.isForm() && g.router.mapsModels(&x.call),
	}
	if x.call.namesModelInBody() && !x.isForm() {
		c.aliases = g.router.aliases
	}
	if g.options.Inject == injectOff || !x.call.completable() {
		return c
	}
	c.safety = g.options.settings
	for _, u := range g.router.upstreams {
		if g.router.isImageModel(x.model, u.mapModel(x.model)) {
			c.modalities = g.options.ResponseModalities
		}
	}
	return c
}

// mapsModels tells whether a model may have another name at an upstream.
func (r *router) mapsModels(c *call) bool {
	for _, u := range r.upstreams {
		if len(u.models) > 0 || c.surface == surfaceOpenAI && (u.format == formatVertex) != c.isOpenAPI() {
			return true
		}
	}
	return false
}

// isImageModel goes by the name that the client used and by the name that the
// upstream is asked for.
func (r *router) isImageModel(model, mapped string) bool {
	return matchesAny(r.imageModels, model) || mapped != model && matchesAny(r.imageModels, mapped)
}

// abandoned accounts for a call whose client left before it had an answer.
func (g *gateway) abandoned(x *exchange) {
	if !x.verdict.class.isBlock() {
		gone := *x.attempt // the verdict of the call is not that of its last attempt
		gone.verdict = verdict{class: classClient, reason: reasonCancelled}
		x.attempt = &gone
	}
	g.account(x, statusClientGone)
}

// delivered accounts for a call whose answer has ended; err is how it broke off,
// if it did so on the upstream's side.
func (g *gateway) delivered(x *exchange, status int, err error) {
	if err != nil && !x.verdict.class.isBlock() { // which guard must not forget
		x.verdict, x.cause = verdict{class: classTransient, reason: reasonUnavailable}, err
	}
	g.account(x, status)
}

// account records what became of a call.
func (g *gateway) account(x *exchange, status int) {
	wants := x.body.wants()
	x.model = cmp.Or(x.model, wants.model)
	if x.group != nil {
		x.group.join()
	}
	now := g.router.now()
	duration := now.Sub(x.arrived)
	g.book(x, now)
	g.notes.report(g.logger, x, wants.notes)
	g.metrics.observe(x, duration)
	x.trace()
	log := callLog{g.logger, x, status, duration}
	if x.isTriedAgain() {
		log.write(zap.InfoLevel, "call took several attempts", zap.Array("story", story(x.story)))
	}
	if !x.isDecided() {
		log.undecided()
		return
	}
	x.each(g.router.conclude)
	log.decided()
}

// conclude learns from the end of an answer: a block that came late, and where
// the thought signatures in it belong.
func (r *router) conclude(x *exchange) {
	switch {
	case x.attempts == 0: // one of a group that was not sent
	case x.verdict.class.isBlock():
		if !x.isRemembered { // it came late: then no attempt has followed
			x.trip.remember(x.last, x.attempt)
		}
		r.tell(eventBlocked, map[string]any{
			"model": x.model, "upstream": x.upstream, "project": x.project, "class": x.verdict.class.String(),
			"reason": x.verdict.reason, "stage": x.verdict.stage,
		})
	case x.verdict.class == classOK:
		r.tie(x)
	}
}
