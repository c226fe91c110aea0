// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

const (
	// firstFetch is when the first token is fetched, unless a call comes before: a
	// configuration that is only validated makes no connection.
	firstFetch = time.Second
	// fetchTimeout is how long one fetch may take.
	fetchTimeout = 30 * time.Second
	// tokenLeft is how much of a token's life is too little to begin a call with.
	tokenLeft = 10 * time.Second
	// tokenLife is that of a token whose issuer does not say it.
	tokenLife = time.Hour
	// renewAhead is how long before its end a token is renewed, at the least: the
	// metadata server hands out the old one until five minutes before.
	renewAhead = 5 * time.Minute
	// rejectedRest is how much time is between two fetches because of calls that
	// were refused: something else may be wrong with them.
	rejectedRest = 30 * time.Second
)

// fetchPacing is how long to wait after a fetch that has failed.
var fetchPacing = pacing{initial: time.Second, max: 30 * time.Second}

var (
	errCredentialClosed = errors.New("the upstream's credentials are no longer in use")
	errSlowFetch        = errors.New("no token was issued in time")
	errShortToken       = errors.New("the token that was issued has expired")
	errStrangeToken     = errors.New("the token that was issued does not fit into a header")
)

// credential keeps an access token for an upstream at hand. A goroutine of its own
// fetches tokens, so that no call waits for one but the first (issue #5).
type credential struct {
	source tokenSource
	logger *zap.Logger
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // has room for one

	mu       sync.Mutex
	current  string // "" for none
	expiry   time.Time
	fetching bool
	fetched  time.Time     // when the last fetch has ended
	failure  error         // of the last fetch
	outcome  chan struct{} // closed when the fetch under way, or the next one, has ended
}

// newCredential gets its tokens by a file of Google's, or by what is found in the
// environment if there is none (application default credentials). It makes no
// connection. Tokens are renewed until the context ends or the credential is closed.
func newCredential(ctx context.Context, file string, logger *zap.Logger) (*credential, error) {
	source, err := findTokens(file)
	if err != nil {
		return nil, err
	}
	return startCredential(ctx, source, logger), nil
}

func startCredential(ctx context.Context, source tokenSource, logger *zap.Logger) *credential {
	c := &credential{
		source:  source,
		logger:  logger,
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		outcome: make(chan struct{}),
	}
	ctx, c.cancel = context.WithCancel(ctx)
	go c.run(ctx)
	return c
}

// project is the one that the credentials belong to, "" if they do not tell.
func (c *credential) project() string { return c.source.project }

// close ends the renewals. Calls that are still under way go on with the token that
// there is, or fetch one for themselves.
func (c *credential) close() {
	c.cancel()
	<-c.done
}

// token returns the current token, or waits for the first one, or another if it has
// expired. While none can be had it returns the reason at once.
func (c *credential) token(ctx context.Context) (string, error) {
	for {
		token, outcome, err := c.look()
		switch {
		case errors.Is(err, errCredentialClosed):
			return c.fetchAlone(ctx)
		case outcome == nil:
			return token, err
		}
		select {
		case <-outcome:
		case <-ctx.Done():
			return "", impatience(ctx)
		}
	}
}

// impatience is why a call does not wait for its token.
func impatience(ctx context.Context) error {
	return fmt.Errorf("waiting for an access token: %w", context.Cause(ctx))
}

// look returns a token or an error, or what to wait for.
func (c *credential) look() (string, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.current != "" && time.Until(c.expiry) > tokenLeft:
		return c.current, nil, nil
	case c.failure != nil: // until a fetch succeeds; one that hangs must hold nobody up
		return "", nil, c.failure
	}
	c.hurry()
	return "", c.outcome, nil
}

// hurry has a token fetched now. The caller holds mu.
func (c *credential) hurry() {
	if c.fetching {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// rejected is told of a token that an upstream has answered 401 to.
func (c *credential) rejected(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if token != c.current || time.Since(c.fetched) < rejectedRest {
		return
	}
	c.current = ""
	c.hurry()
}

func (c *credential) run(ctx context.Context) {
	defer close(c.done)
	timer := time.NewTimer(firstFetch)
	defer timer.Stop()
	for failures := 0; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			continue
		case <-timer.C:
		case <-c.wake:
		}
		rest, err := c.fetch(ctx)
		switch {
		case ctx.Err() != nil:
			continue
		case err == nil && failures > 0:
			c.logger.Info("access tokens for an upstream are issued again", zap.String("credentials", c.source.name))
			failures = 0
		case err != nil:
			if failures == 0 {
				c.logger.Warn("no access token for an upstream", zap.String("credentials", c.source.name), zap.Error(err))
			}
			rest = fetchPacing.backoff(failures)
			failures++
		}
		timer.Reset(rest)
	}
	_, _ = c.take(nil, errCredentialClosed)
}

// fetch gets a token and tells when to get the next one.
func (c *credential) fetch(ctx context.Context) (rest time.Duration, err error) {
	c.begin()
	token, err := c.ask(ctx)
	if err != nil && ctx.Err() != nil { // calls must not take this end for their own
		err = errCredentialClosed
	}
	return c.take(token, err)
}

// fetchAlone gets a token for a call that outlives its configuration: nothing that
// such a call needs may end with that.
func (c *credential) fetchAlone(ctx context.Context) (string, error) {
	token, err := c.ask(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return "", impatience(ctx)
	case err != nil:
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err = c.keep(token, time.Now()); err != nil {
		return "", err
	}
	return c.current, nil
}

// ask fetches a token, unless that takes too long.
func (c *credential) ask(ctx context.Context) (*oauth2.Token, error) {
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	token, err := c.source.token(limited)
	if err != nil && limited.Err() != nil {
		err = errSlowFetch
	}
	return token, err
}

func (c *credential) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetching = true
	select {
	case <-c.wake: // answered by this fetch
	default:
	}
}

// take ends a fetch. A token that there is already outlives one that fails.
func (c *credential) take(token *oauth2.Token, err error) (rest time.Duration, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if err == nil {
		err = c.keep(token, now)
	}
	if err == nil {
		rest = renewal(c.expiry.Sub(now))
	}
	c.fetching, c.fetched, c.failure = false, now, err
	close(c.outcome)
	c.outcome = make(chan struct{})
	return rest, err
}

// keep makes a token the current one. The caller holds mu.
func (c *credential) keep(token *oauth2.Token, now time.Time) error {
	expiry, err := expiryOf(token, now)
	if err == nil {
		c.current, c.expiry = token.AccessToken, expiry
	}
	return err
}

// expiryOf looks at a token before it is used. Its end is a time of the wall clock,
// which goes on while a machine sleeps.
func expiryOf(token *oauth2.Token, now time.Time) (time.Time, error) {
	expiry := token.Expiry.Round(0)
	if expiry.IsZero() {
		expiry = now.Add(tokenLife).Round(0)
	}
	switch {
	case token.AccessToken == "" || !fitsHeader(token.AccessToken):
		return time.Time{}, errStrangeToken
	case expiry.Sub(now) <= tokenLeft:
		return time.Time{}, errShortToken
	}
	return expiry, nil
}

// renewal is after how much of its life a token is renewed: three quarters, or what
// leaves renewAhead, but half of it at the least.
func renewal(life time.Duration) time.Duration {
	return max(min(life/4*3, life-renewAhead), life/2)
}
