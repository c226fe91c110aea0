// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// cloudScope is what Vertex AI wants a token for.
const cloudScope = "https://www.googleapis.com/auth/cloud-platform"

// tokenSource is where access tokens come from.
type tokenSource struct {
	name    string // for people
	project string // "" if it is not known without a connection
	token   func(context.Context) (*oauth2.Token, error)
}

// findTokens looks for credentials where Google's libraries do, except that it asks
// no metadata server: whether there is one turns out when a token is fetched.
func findTokens(file string) (tokenSource, error) {
	if file = cmp.Or(file, defaultFile()); file == "" {
		return tokenSource{name: "metadata server", token: metadataToken}, nil
	}
	c, err := readCredentials(file)
	if err != nil {
		return tokenSource{}, err
	}
	return tokenSource{
		name:    file,
		project: cmp.Or(c.ProjectID, c.QuotaProjectID),
		token:   func(ctx context.Context) (*oauth2.Token, error) { return fileToken(ctx, file) },
	}, nil
}

// defaultFile is the file of the application default credentials, "" if there is
// none.
func defaultFile() string {
	if file := os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"); file != "" {
		return file
	}
	dir := os.Getenv("APPDATA")
	if runtime.GOOS != "windows" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	file := filepath.Join(dir, "gcloud", "application_default_credentials.json")
	if _, err := os.Stat(file); err != nil { //nolint:gosec // the operator's own environment
		return ""
	}
	return file
}

// credentialTypes are the kinds of files that lead to tokens without a person.
var credentialTypes = map[google.CredentialsType]bool{
	google.ServiceAccount:                true,
	google.AuthorizedUser:                true,
	google.ExternalAccount:               true,
	google.ExternalAccountAuthorizedUser: true,
	google.ImpersonatedServiceAccount:    true,
}

// credentialsFile is what all kinds have in common.
type credentialsFile struct {
	Type           google.CredentialsType `json:"type"`
	ProjectID      string                 `json:"project_id"`
	QuotaProjectID string                 `json:"quota_project_id"`

	text []byte
}

// readCredentials reads and checks a file. Its errors tell nothing of what is in it.
func readCredentials(file string) (*credentialsFile, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := &credentialsFile{text: text}
	if json.Unmarshal(text, c) != nil {
		return nil, fmt.Errorf("%s is not one of Google's JSON files", file)
	}
	if !credentialTypes[c.Type] {
		return nil, fmt.Errorf("%s is of no type that is known; it must be that of a service account, a user, or a workload identity federation", file)
	}
	if _, err = c.source(context.Background()); err != nil {
		return nil, fmt.Errorf("%s is incomplete: %w", file, err)
	}
	if c.Type == google.ServiceAccount { // whose key is not looked at until it is used
		if _, err = google.JWTAccessTokenSourceFromJSON(text, cloudScope); err != nil {
			return nil, fmt.Errorf("%s has no private key that can be used", file)
		}
	}
	return c, nil
}

func (c *credentialsFile) source(ctx context.Context) (oauth2.TokenSource, error) {
	credentials, err := google.CredentialsFromJSONWithType(ctx, c.text, c.Type, cloudScope)
	if err != nil {
		return nil, err
	}
	return credentials.TokenSource, nil
}

// fileToken reads the file anew, because keys are exchanged, and makes a source anew,
// because sources keep their tokens until the last moment.
func fileToken(ctx context.Context, file string) (*oauth2.Token, error) {
	c, err := readCredentials(file)
	if err != nil {
		return nil, err
	}
	t := &tokenTransport{ctx: ctx, base: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	source, err := c.source(context.WithValue(ctx, oauth2.HTTPClient, t.client()))
	if err != nil {
		return nil, err
	}
	token, err := source.Token()
	return token, t.explain(err)
}

// metadataToken asks the metadata server of Google's cloud. The function of
// golang.org/x/oauth2 for it cannot be interrupted, and asks no more if there was no
// such server the first time, which on GKE may still be starting.
func metadataToken(ctx context.Context) (*oauth2.Token, error) {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	t := &tokenTransport{ctx: ctx, base: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	text, err := metadata.NewClient(t.client()).GetWithContext(ctx,
		"instance/service-accounts/default/token?scopes="+url.QueryEscape(cloudScope))
	if err != nil {
		return nil, fmt.Errorf("there is no credentials file, and the metadata server is of no help: %w", t.explain(err))
	}
	token := new(oauth2.Token)
	if json.Unmarshal([]byte(text), token) != nil {
		return nil, errors.New("the answer of the metadata server is no token")
	}
	token.Expiry = time.Now().Add(time.Duration(token.ExpiresIn) * time.Second)
	return token, nil
}

// tokenTransport sends the requests of one fetch. They end with it, which
// golang.org/x/oauth2 does not see to for service accounts.
type tokenTransport struct {
	ctx  context.Context
	base http.RoundTripper

	// What the last request has come to. The errors of golang.org/x/oauth2 tell it
	// together with what the other side has said, which may repeat a secret.
	status  int
	failure error
}

// client follows no redirect, which would take what proves the gateway's identity to
// another server.
func (t *tokenTransport) client() *http.Client {
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// RoundTrip sends a request.
func (t *tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.status = 0
	res, err := t.base.RoundTrip(r.WithContext(t.ctx))
	if t.failure = err; err == nil {
		t.status = res.StatusCode
	}
	return res, err
}

// explain puts an error into words that can be logged.
func (t *tokenTransport) explain(err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case err == nil:
		return nil
	case t.failure != nil:
		return fmt.Errorf("no token endpoint could be reached: %w", unquoted{t.failure})
	case errors.As(err, &refused):
		return fmt.Errorf("the token endpoint answered %d%s", t.status, refusalCode(refused))
	case t.status >= http.StatusMultipleChoices:
		return fmt.Errorf("the token endpoint answered %d", t.status)
	}
	known, _, _ := strings.Cut(err.Error(), "\n") // then comes what others have said
	return unquoted{errors.New(known)}
}

// errorCode is what OAuth's codes look like (RFC 6749 §5.2).
var errorCode = regexp.MustCompile(`^[a-z_]{1,64}$`)

// refusalCode is the code of a refusal, in brackets, if it has one.
func refusalCode(e *oauth2.RetrieveError) string {
	code := e.ErrorCode
	if code == "" { // it is not looked for where service accounts are concerned
		var body struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(e.Body, &body) == nil {
			code = body.Error
		}
	}
	if !errorCode.MatchString(code) {
		return ""
	}
	return " (" + code + ")"
}
