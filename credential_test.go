// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/oauth2"
)

// fakeIssuer issues token-1, token-2 and so on.
type fakeIssuer struct {
	mu    sync.Mutex
	begun time.Time
	asked []time.Duration // when, since it was made
	slow  time.Duration   // how long it takes
	life  time.Duration   // of its tokens; 0: it does not say
	fails error           // what it answers instead
	text  string          // of its tokens instead
}

func (i *fakeIssuer) source() tokenSource {
	i.begun = time.Now()
	return tokenSource{name: "key.json", project: "p", token: i.issue}
}

func (i *fakeIssuer) issue(ctx context.Context) (*oauth2.Token, error) {
	slow, token := i.hear()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.text != "" {
		token.AccessToken = i.text
	}
	if i.life > 0 {
		token.Expiry = time.Now().Add(i.life)
	}
	return token, i.fails
}

// hear takes down that a token is asked for.
func (i *fakeIssuer) hear() (slow time.Duration, token *oauth2.Token) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, time.Since(i.begun))
	return i.slow, &oauth2.Token{AccessToken: fmt.Sprint("token-", len(i.asked))}
}

func (i *fakeIssuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

func (i *fakeIssuer) times() []time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.asked)
}

// withCredential runs a test by a fake clock, and returns what was logged.
func withCredential(t *testing.T, i *fakeIssuer, test func(*testing.T, *credential)) []string {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	synctest.Test(t, func(t *testing.T) {
		c := startCredential(t.Context(), i.source(), zap.New(core))
		defer c.close()
		test(t, c)
	})
	var lines []string
	for _, entry := range logs.All() {
		lines = append(lines, fmt.Sprint(entry.Level, ": ", entry.Message, " ", entry.ContextMap()))
	}
	return lines
}

func wantToken(t *testing.T, c *credential, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := c.token(ctx); got != want || err != nil {
		t.Errorf("token() = %q, %v, want %q", got, err, want)
	}
}

// wantFailure wants it at once.
func wantFailure(t *testing.T, c *credential, want error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := c.token(ctx); got != "" || !errors.Is(err, want) {
		t.Errorf("token() = %q, %v, want %v", got, err, want)
	}
}

func wantTimes(t *testing.T, i *fakeIssuer, want ...time.Duration) {
	t.Helper()
	synctest.Wait()
	if got := i.times(); !slices.Equal(got, want) {
		t.Errorf("tokens were asked for at %v, want %v", got, want)
	}
}

func TestCredentialRenews(t *testing.T) {
	const h, m, s = time.Hour, time.Minute, time.Second
	for name, tt := range map[string]struct {
		life time.Duration
		want []time.Duration
	}{
		"an hour":        {h, []time.Duration{s, s + 45*m, s + 90*m}},
		"unknown":        {0, []time.Duration{s, s + 45*m, s + 90*m}},
		"twelve hours":   {12 * h, []time.Duration{s}},
		"a quarter hour": {15 * m, []time.Duration{s, s + 10*m, s + 20*m, s + 30*m, s + 40*m, s + 50*m, s + 60*m, s + 70*m, s + 80*m, s + 90*m}},
		"fifty minutes":  {50 * m, []time.Duration{s, s + 2250*s, s + 4500*s}},
	} {
		t.Run(name, func(t *testing.T) {
			i := &fakeIssuer{life: tt.life}
			logs := withCredential(t, i, func(t *testing.T, c *credential) {
				time.Sleep(95 * m)
				wantTimes(t, i, tt.want...)
				wantToken(t, c, fmt.Sprint("token-", len(tt.want)))
				wantTimes(t, i, tt.want...)
			})
			if len(logs) > 0 {
				t.Errorf("logged %q", logs)
			}
		})
	}
}

// TestRenewal has no token renewed in the last five minutes of its life that lives
// long enough for that, and none over and over again.
func TestRenewal(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		12 * time.Hour: 9 * time.Hour, time.Hour: 45 * time.Minute, 15 * time.Minute: 10 * time.Minute,
		10 * time.Minute: 5 * time.Minute, 5 * time.Minute: 150 * time.Second, 11 * time.Second: 5500 * time.Millisecond,
	} {
		if got := renewal(life); got != want {
			t.Errorf("renewal(%v) = %v, want %v", life, got, want)
		}
	}
}

// TestCredentialFirst has calls that come before the first token.
func TestCredentialFirst(t *testing.T) {
	i := &fakeIssuer{life: time.Hour, slow: 3 * time.Second}
	withCredential(t, i, func(t *testing.T, c *credential) {
		impatient, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, errTooLarge)
		defer cancel()
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() { wantToken(t, c, "token-1") })
			calls.Go(func() {
				if token, err := c.token(impatient); token != "" || !errors.Is(err, errTooLarge) {
					t.Errorf("an impatient call got %q, %v", token, err)
				}
			})
		}
		calls.Wait()
		time.Sleep(time.Minute)
		wantTimes(t, i, 0)
	})
}

// TestCredentialValidated makes no connection for a configuration that is only
// looked at.
func TestCredentialValidated(t *testing.T) {
	i := &fakeIssuer{life: time.Hour}
	withCredential(t, i, func(t *testing.T, c *credential) {
		time.Sleep(firstFetch - 1)
		if c.project() != "p" {
			t.Errorf("project() = %q", c.project())
		}
		c.close()
		time.Sleep(time.Hour)
		wantTimes(t, i)
	})
}

func TestCredentialFails(t *testing.T) {
	broken := errors.New("broken")
	i := &fakeIssuer{life: time.Hour, fails: broken}
	logs := withCredential(t, i, func(t *testing.T, c *credential) {
		time.Sleep(62 * time.Second)
		const s = time.Second
		wantTimes(t, i, s, 2*s, 4*s, 8*s, 16*s, 32*s, 62*s)
		for range 10 {
			wantFailure(t, c, broken)
		}
		wantTimes(t, i, s, 2*s, 4*s, 8*s, 16*s, 32*s, 62*s)
		i.set(func() { i.fails = nil })
		time.Sleep(31 * s)
		wantToken(t, c, "token-8")

		// The token outlives the failures of its renewal, and they it.
		i.set(func() { i.fails = broken })
		time.Sleep(time.Hour - 12*s)
		wantToken(t, c, "token-8")
		time.Sleep(s)
		wantFailure(t, c, broken)
	})
	want := []string{
		"warn: no access token for an upstream map[credentials:key.json error:broken]",
		"info: access tokens for an upstream are issued again map[credentials:key.json]",
		"warn: no access token for an upstream map[credentials:key.json error:broken]",
	}
	if !slices.Equal(logs, want) {
		t.Errorf("logged %q", logs)
	}
}

// TestCredentialHangs has an issuer that does not answer.
func TestCredentialHangs(t *testing.T) {
	i := &fakeIssuer{life: time.Hour, slow: time.Hour}
	withCredential(t, i, func(t *testing.T, c *credential) {
		begun := time.Now()
		if token, err := c.token(t.Context()); token != "" || !errors.Is(err, errSlowFetch) {
			t.Errorf("token() = %q, %v", token, err)
		}
		if took := time.Since(begun); took != fetchTimeout {
			t.Errorf("that took %v", took)
		}
		time.Sleep(2 * time.Second) // the next fetch is under way, and as slow
		wantFailure(t, c, errSlowFetch)
	})
}

// TestCredentialUnusable has tokens that cannot be used.
func TestCredentialUnusable(t *testing.T) {
	for want, i := range map[error]*fakeIssuer{
		errShortToken:   {life: tokenLeft},
		errStrangeToken: {life: time.Hour, text: "a\r\nb: c"},
	} {
		logs := withCredential(t, i, func(t *testing.T, c *credential) {
			time.Sleep(3 * time.Second)
			wantFailure(t, c, want)
			wantTimes(t, i, time.Second, 2*time.Second)
		})
		if len(logs) != 1 || strings.Contains(logs[0], "token-") || strings.Contains(logs[0], "a\r\nb") {
			t.Errorf("logged %q", logs)
		}
	}
}

func TestCredentialRejected(t *testing.T) {
	i := &fakeIssuer{life: time.Hour}
	withCredential(t, i, func(t *testing.T, c *credential) {
		const s = time.Second
		wantToken(t, c, "token-1")
		time.Sleep(rejectedRest - 1)
		c.rejected("token-1") // too soon
		wantTimes(t, i, 0)
		wantToken(t, c, "token-1")

		time.Sleep(time.Nanosecond)
		c.rejected("token-0") // an older one
		wantTimes(t, i, 0)
		for range 10 {
			c.rejected("token-1")
		}
		wantToken(t, c, "token-2")
		wantTimes(t, i, 0, 30*s)
		c.rejected("token-1") // by a call that took long
		c.rejected("token-2")
		wantToken(t, c, "token-2")
		wantTimes(t, i, 0, 30*s)

		time.Sleep(45 * time.Minute) // and the renewal is due as ever
		wantTimes(t, i, 0, 30*s, 30*s+45*time.Minute)
	})
}

// TestCredentialOverslept has a machine that slept when the token should have been
// renewed.
func TestCredentialOverslept(t *testing.T) {
	i := &fakeIssuer{life: time.Hour}
	withCredential(t, i, func(t *testing.T, c *credential) {
		wantToken(t, c, "token-1")
		c.mu.Lock()
		c.expiry = time.Now().Add(-time.Hour)
		c.mu.Unlock()
		wantToken(t, c, "token-2")
	})
}

// TestCredentialClosed is about calls that outlive their configuration. They use what
// there is, and fetch what there is not.
func TestCredentialClosed(t *testing.T) {
	i := &fakeIssuer{life: time.Hour}
	logs := withCredential(t, i, func(t *testing.T, c *credential) {
		wantToken(t, c, "token-1")
		c.close()
		wantToken(t, c, "token-1")
		c.rejected("token-1")
		time.Sleep(time.Hour) // in which nothing is renewed
		wantTimes(t, i, 0)
		wantToken(t, c, "token-2")
		wantToken(t, c, "token-2")
		time.Sleep(time.Hour)
		wantToken(t, c, "token-3")
		wantTimes(t, i, 0, time.Hour, 2*time.Hour)

		broken := errors.New("broken")
		i.set(func() { i.fails = broken })
		time.Sleep(time.Hour)
		wantFailure(t, c, context.Canceled) // the call itself has ended
		if token, err := c.token(t.Context()); token != "" || !errors.Is(err, broken) {
			t.Errorf("token() = %q, %v", token, err)
		}
	})
	if len(logs) > 0 {
		t.Errorf("logged %q", logs)
	}
}

// TestCredentialClosedDuringAFetch has calls that wait for a token then.
func TestCredentialClosedDuringAFetch(t *testing.T) {
	i := &fakeIssuer{life: time.Hour, slow: 10 * time.Second}
	logs := withCredential(t, i, func(t *testing.T, c *credential) {
		var calls sync.WaitGroup
		calls.Go(func() {
			if token, err := c.token(t.Context()); token == "" || err != nil {
				t.Errorf("a call that stays got %q, %v", token, err)
			}
		})
		calls.Go(func() {
			leaving, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, errTooLarge)
			defer cancel()
			if token, err := c.token(leaving); token != "" || !errors.Is(err, errTooLarge) {
				t.Errorf("a call that leaves got %q, %v", token, err)
			}
		})
		time.Sleep(time.Second)
		c.close()
		calls.Wait()
		i.set(func() { i.slow = time.Hour })
		time.Sleep(time.Hour)
		if token, err := c.token(t.Context()); token != "" || !errors.Is(err, errSlowFetch) {
			t.Errorf("token() = %q, %v", token, err)
		}
	})
	if len(logs) > 0 {
		t.Errorf("logged %q", logs)
	}
}
