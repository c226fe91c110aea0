// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

var privateKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
})

// credentialFiles are of all types, as far as they matter here.
func credentialFiles(endpoint, dir string) map[string]map[string]any {
	external := map[string]any{
		"type":               "external_account",
		"audience":           "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
		"subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
		"token_url":          endpoint,
		"credential_source":  map[string]any{"file": filepath.Join(dir, "subject")},
	}
	impersonated := maps.Clone(external)
	impersonated["service_account_impersonation_url"] = endpoint + "/impersonate"
	user := map[string]any{
		"type": "authorized_user", "client_id": "id", "client_secret": "client-secret", "refresh_token": "refresh-secret",
		"quota_project_id": "quota", "token_uri": endpoint,
	}
	return map[string]map[string]any{
		"service account": {
			"type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": privateKey(),
			"client_email": "a@p.iam.gserviceaccount.com", "token_uri": endpoint,
		},
		"user":         user,
		"external":     external,
		"impersonated": impersonated,
		"delegated": {
			"type": "impersonated_service_account", "service_account_impersonation_url": endpoint + "/impersonate",
			"source_credentials": user,
		},
	}
}

func writeCredentials(t *testing.T, content any) string {
	t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// tokenEndpoint answers like Google's, or with a status and what it was sent.
func tokenEndpoint(t *testing.T, status int) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.Header().Set("Content-Type", "application/json")
		if status != http.StatusOK {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant", "error_description": r.Form.Encode()})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": "issued", "token_type": "Bearer", "expires_in": 3600, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
			"accessToken": "impersonated", "expireTime": time.Now().Add(time.Hour).Format(time.RFC3339),
		})
	}))
	t.Cleanup(server.Close)
	return server
}

func TestTokensOfFiles(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { nothingRuns(t, before) })
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "subject"), []byte("subject-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	good, bad := tokenEndpoint(t, http.StatusOK), tokenEndpoint(t, http.StatusBadRequest)
	for name, content := range credentialFiles(good.URL, dir) {
		c, err := newCredential(t.Context(), writeCredentials(t, content), zap.NewNop())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := "issued"
		if content["service_account_impersonation_url"] != nil {
			want = "impersonated"
		}
		if token, err := c.token(t.Context()); token != want || err != nil {
			t.Errorf("%s: token() = %q, %v, want %q", name, token, err, want)
		}
		c.close()
	}
	for name, content := range credentialFiles(bad.URL, dir) {
		c, err := newCredential(t.Context(), writeCredentials(t, content), zap.NewNop())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, err = c.token(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "the token endpoint answered 400") || mentionsSecret(err) {
			t.Errorf("%s: %v", name, err)
		}
		if code := " (invalid_grant)"; (name == "service account" || name == "user") != strings.HasSuffix(err.Error(), code) {
			t.Errorf("%s: %v", name, err)
		}
		c.close()
	}
	good.Close()
	bad.Close()
}

func mentionsSecret(err error) bool {
	for _, secret := range []string{"secret", "assertion", "eyJ", "PRIVATE"} {
		if strings.Contains(err.Error(), secret) {
			return true
		}
	}
	return false
}

// TestAssertion looks at what a service account sends.
func TestAssertion(t *testing.T) {
	var scope, audience string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var claims struct{ Scope, Aud string }
		parts := strings.Split(r.FormValue("assertion"), ".")
		text, _ := base64.RawURLEncoding.DecodeString(parts[len(parts)-2])
		_ = json.Unmarshal(text, &claims)
		scope, audience = claims.Scope, claims.Aud
		_, _ = w.Write([]byte(`{"access_token":"issued","expires_in":3599}`))
	}))
	defer server.Close()
	file := writeCredentials(t, credentialFiles(server.URL, "")["service account"])
	token, err := fileToken(t.Context(), file)
	if err != nil || token.AccessToken != "issued" || time.Until(token.Expiry) < 59*time.Minute {
		t.Errorf("got %v, %v", token, err)
	}
	if scope != cloudScope || audience != server.URL {
		t.Errorf("asked for scope %q of %q", scope, audience)
	}
}

// TestTokenEndpointHangs ends with the credential that asks, and then with the call
// that asks for itself.
func TestTokenEndpointHangs(t *testing.T) {
	arrived := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	before := goleak.IgnoreCurrent()
	file := writeCredentials(t, credentialFiles(server.URL, "")["service account"])
	c, err := newCredential(t.Context(), file, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	var call sync.WaitGroup
	call.Go(func() {
		if token, err := c.token(ctx); token != "" || !errors.Is(err, context.Canceled) {
			t.Errorf("token() = %q, %v", token, err)
		}
	})
	<-arrived
	c.close()
	<-arrived
	leave()
	call.Wait()
	server.CloseClientConnections()
	nothingRuns(t, before)
}

func TestTokenEndpointUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	for _, kind := range []string{"service account", "user"} {
		_, err := fileToken(t.Context(), writeCredentials(t, credentialFiles(server.URL, "")[kind]))
		if err == nil || !strings.HasPrefix(err.Error(), "no token endpoint could be reached: dial tcp ") || mentionsSecret(err) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestKeyIsExchanged writes another key to the file.
func TestKeyIsExchanged(t *testing.T) {
	good := tokenEndpoint(t, http.StatusOK)
	file := writeCredentials(t, credentialFiles("http://127.0.0.1:1", "")["user"])
	source, err := findTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = source.token(t.Context()); err == nil {
		t.Error("the first file is of use")
	}
	text, _ := json.Marshal(credentialFiles(good.URL, "")["user"])
	if err = os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := source.token(t.Context()); err != nil || token.AccessToken != "issued" {
		t.Errorf("got %v, %v", token, err)
	}
}

func TestUnusableFiles(t *testing.T) {
	files := credentialFiles("https://oauth2.googleapis.com/token", "")
	with := func(kind, key string, value any) map[string]any {
		content := maps.Clone(files[kind])
		content[key] = value
		return content
	}
	for name, content := range map[string]any{
		"no JSON":      "PRIVATE secret",
		"a list":       []string{"secret"},
		"no type":      map[string]any{"private_key": "secret"},
		"another type": map[string]any{"type": "secret"},
		"web client":   map[string]any{"web": map[string]any{"client_secret": "secret"}},
		"no key":       with("service account", "private_key", ""),
		"broken key":   with("service account", "private_key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"),
		"odd key":      with("service account", "private_key", 1),
		"no audience":  with("external", "audience", ""),
		"no source":    with("delegated", "source_credentials", nil),
	} {
		file := writeCredentials(t, content)
		c, err := newCredential(t.Context(), file, zap.NewNop())
		if err == nil {
			t.Errorf("%s: accepted", name)
			c.close()
			continue
		}
		if text := err.Error(); !strings.Contains(text, file) || mentionsSecret(err) || strings.Contains(text, "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing.json")
	if _, err := newCredential(t.Context(), missing, zap.NewNop()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestDefaultCredentials finds them where Google's libraries do, and in their order.
func TestDefaultCredentials(t *testing.T) {
	files := credentialFiles("https://oauth2.googleapis.com/token", "")
	home := t.TempDir()
	for _, name := range []string{"HOME", "USERPROFILE", "APPDATA"} {
		t.Setenv(name, home)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	if source, err := findTokens(""); err != nil || source.name != "metadata server" || source.project != "" {
		t.Errorf("without files: %+v, %v", source, err)
	}

	text, _ := json.Marshal(files["user"])
	for _, dir := range []string{filepath.Join(home, ".config", "gcloud"), filepath.Join(home, "gcloud")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "application_default_credentials.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if source, err := findTokens(""); err != nil || source.project != "quota" {
		t.Errorf("with gcloud's file: %+v, %v", source, err)
	}

	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", writeCredentials(t, files["service account"]))
	if source, err := findTokens(""); err != nil || source.project != "p" {
		t.Errorf("with the variable: %+v, %v", source, err)
	}
	if source, err := findTokens(writeCredentials(t, files["external"])); err != nil || source.project != "" {
		t.Errorf("with a file of its own: %+v, %v", source, err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(home, "missing"))
	if _, err := findTokens(""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with a variable that is wrong: %v", err)
	}
}

func TestMetadataServer(t *testing.T) {
	answer, status := "", http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" || r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/token" ||
			r.URL.Query().Get("scopes") != cloudScope {
			t.Errorf("asked for %s", r.URL)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	answer = `{"access_token":"issued","expires_in":1800,"token_type":"Bearer"}`
	token, err := metadataToken(t.Context())
	if err != nil || token.AccessToken != "issued" || time.Until(token.Expiry).Round(time.Minute) != 30*time.Minute {
		t.Errorf("got %v, %v", token, err)
	}
	for text, want := range map[string]int{"answered 404": http.StatusNotFound, "answered 403": http.StatusForbidden, "is no token": http.StatusOK} {
		answer, status = "secret", want
		if _, err = metadataToken(t.Context()); err == nil || !strings.HasSuffix(err.Error(), text) || mentionsSecret(err) {
			t.Errorf("%d: %v", status, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = metadataToken(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("a fetch that has ended: %v", err)
	}
}
