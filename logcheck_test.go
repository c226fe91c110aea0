// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
)

// The three places, as the warning names them.
const (
	inHeader = "X-Goog-Api-Key header"
	inAuth   = "Authorization header"
	inQuery  = "key query parameter"
)

// clientKeys are what the test's client sends in each place; not the keys that the check makes up.
var clientKeys = []struct{ place, key string }{
	{inHeader, "AIza-from-the-header"},
	{inAuth, "AIza-from-openai-sdk"},
	{inQuery, "AIza-from-the-query"},
}

const fullFilter = `
		format filter {
			request>headers>X-Goog-Api-Key delete
			request>uri query {
				replace key REDACTED
			}
		}`

func init() {
	caddy.RegisterModule(logCheckHandler{})
	httpcaddyfile.RegisterHandlerDirective("gemini_logcheck",
		func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return logCheckHandler{}, nil })
}

// logCheckWarnings collects what the check says while a config is loaded.
var logCheckCore, logCheckWarnings = observer.New(zap.DebugLevel)

// logCheckHandler runs the check as a real handler does, and answers with the status its path asks for.
type logCheckHandler struct{}

func (logCheckHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gemini_logcheck",
		New: func() caddy.Module { return new(logCheckHandler) },
	}
}

func (logCheckHandler) Provision(ctx caddy.Context) error {
	warnUnfilteredAccessLogs(ctx, zap.New(logCheckCore))
	return nil
}

func (logCheckHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.URL.Path == "/fail" {
		w.WriteHeader(http.StatusInternalServerError)
	}
	return nil
}

// leaksByLogger maps a logger's name to the places whose keys it prints.
type leaksByLogger map[string][]string

// TestWarnUnfilteredAccessLogs holds the warnings against the lines that a running Caddy wrote: it must warn of
// exactly the keys that are in them.
func TestWarnUnfilteredAccessLogs(t *testing.T) {
	site := func(log string) string {
		return "http://a.test, http://www.a.test {\n\tbind $SOCKET\n" + log + "\n\troute {\n\t\tgemini_logcheck\n\t}\n}\n"
	}
	siteLog := func(options string) string {
		return site("\tlog site {\n\t\toutput file $DIR/site.log\n\t\t" + options + "\n\t}")
	}
	const (
		access     = "http.log.access"
		accessSite = "http.log.access.site"
		toFile     = `"writer": {"output": "file", "filename": "$DIR/any.log"}`
		noRequest  = `"encoder": {"format": "filter", "fields": {"request": {"filter": "delete"}}}, `
	)
	jsonConfig := func(serverLogs, logs string) string {
		return `{"logging": {"logs": {` + logs + `}}, "apps": {"http": {"servers": {"s": {"listen": ["$SOCKET"],
			"logs": ` + serverLogs + `, "routes": [{"handle": [{"handler": "gemini_logcheck"}]}]}}}}}`
	}
	both := []string{inHeader, inQuery}
	tests := []struct {
		name   string
		config string // a Caddyfile, or JSON; the default log goes to a file, unfiltered, unless said otherwise
		hosts  []string
		want   leaksByLogger // all loggers that print requests, also those that leak nothing
	}{
		{name: "no log", config: site("")},
		{name: "no filter", config: siteLog(""), want: leaksByLogger{accessSite: both}},
		{name: "full filter", config: siteLog(fullFilter), want: leaksByLogger{accessSite: nil}},
		{
			name:   "header filter",
			config: siteLog("format filter {\n request>headers>X-Goog-Api-Key delete\n}"),
			want:   leaksByLogger{accessSite: {inQuery}},
		},
		{
			name:   "uri filter",
			config: siteLog("format filter {\n request>uri query {\n replace key REDACTED\n }\n}"),
			want:   leaksByLogger{accessSite: {inHeader}},
		},
		{
			name:   "filter of another parameter",
			config: siteLog("format filter {\n request>uri query {\n replace token REDACTED\n }\n}"),
			want:   leaksByLogger{accessSite: both},
		},
		{
			name: "hash and regexp filters",
			config: siteLog("format filter {\n request>headers>X-Goog-Api-Key hash\n" +
				" request>uri regexp AIza[\\w-]+ REDACTED\n}"),
			want: leaksByLogger{accessSite: nil},
		},
		{
			name:   "all headers deleted",
			config: siteLog("format filter {\n request>headers delete\n}"),
			want:   leaksByLogger{accessSite: {inQuery}},
		},
		{
			name:   "whole request deleted",
			config: siteLog("format filter {\n request delete\n}"),
			want:   leaksByLogger{accessSite: nil},
		},
		{
			name:   "credentials logged",
			config: "{\n servers {\n  log_credentials\n }\n}\n" + siteLog(fullFilter),
			want:   leaksByLogger{accessSite: {inAuth}},
		},
		{name: "console", config: siteLog("format console"), want: leaksByLogger{accessSite: both}},
		{
			name:   "filter inside journald",
			config: siteLog("format journald {\n wrap" + strings.TrimPrefix(fullFilter, "\n\t\tformat") + "\n}"),
			want:   leaksByLogger{accessSite: nil},
		},
		{
			name:   "sampled",
			config: siteLog("sampling {\n first 1\n thereafter 1\n}"),
			want:   leaksByLogger{accessSite: both},
		},
		{name: "discarded", config: site("\tlog {\n\t\toutput discard\n\t}")},
		{name: "level ERROR", config: siteLog("level ERROR"), want: leaksByLogger{accessSite: both}},
		{name: "level PANIC: never reached", config: siteLog("level PANIC")},
		{name: "log into the default log", config: site("\tlog"), want: leaksByLogger{access: both}},
		{
			name:   "log into the filtered default log",
			config: "{\n\tlog {\n\t\toutput file $DIR/filtered.log" + fullFilter + "\n\t}\n}\n" + site("\tlog"),
			want:   leaksByLogger{access: nil},
		},
		{
			name: "a logger per host",
			config: siteLog(fullFilter) +
				"http://b.test {\n bind $SOCKET\n log other {\n  output file $DIR/other.log\n }\n respond ok\n}\n" +
				"http://c.test {\n bind $SOCKET\n respond ok\n}\n",
			hosts: []string{"a.test", "b.test", "c.test"},
			want:  leaksByLogger{accessSite: nil, "http.log.access.other": both},
		},
		{
			name:   "any other host is not logged",
			config: siteLog(fullFilter) + "http:// {\n bind $SOCKET\n respond ok\n}\n",
			hosts:  []string{"a.test", "b.test"},
			want:   leaksByLogger{accessSite: nil},
		},
		{
			name:   "a site for any host",
			config: strings.Replace(siteLog(""), "http://a.test, http://www.a.test", "http://", 1),
			hosts:  []string{"b.test"},
			want:   leaksByLogger{accessSite: both},
		},
		{name: "JSON, default log only", config: jsonConfig(`{}`, ""), want: leaksByLogger{access: both}},
		{
			name: "JSON, a route for hosts without a logger",
			config: jsonConfig(`{"logger_names": {"A.test": "site"}}`, `
				"default": {"exclude": ["http.log.access.site"], `+toFile+`},
				"site": {"include": ["http.log.access.site"], `+noRequest+toFile+`}`),
			hosts: []string{"a.test", "b.test"},
			want:  leaksByLogger{accessSite: nil, access: both},
		},
		{
			name:   "JSON, one filtered log and one that is not",
			config: jsonConfig(`{}`, `"default": {`+noRequest+toFile+`}, "all": {`+toFile+`}`),
			want:   leaksByLogger{access: both},
		},
		{
			name:   "JSON, access log excluded",
			config: jsonConfig(`{}`, `"default": {"exclude": ["http.log.access"], `+toFile+`}`),
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if tc.hosts == nil {
				tc.hosts = []string{"a.test"}
			}
			lines, warnings := runLogged(t, tc.config, tc.hosts)
			if written := leaksIn(lines); !maps.EqualFunc(written, tc.want, slices.Equal) {
				t.Errorf("Caddy wrote %v, expected %v", written, tc.want)
			}
			warned, leaking := leaksByLogger{}, maps.Clone(tc.want)
			maps.DeleteFunc(leaking, func(_ string, places []string) bool { return places == nil })
			for _, w := range warnings {
				fields := w.ContextMap()
				if w.Level != zap.WarnLevel || fields["server"] == "" {
					t.Errorf("expected a warning that names the server, got %v %v", w.Level, fields)
				}
				logger := fields["logger"].(string)
				for _, place := range fields["leaks"].([]any) {
					warned[logger] = append(warned[logger], place.(string))
				}
			}
			if !maps.EqualFunc(warned, leaking, slices.Equal) {
				t.Errorf("warned of %v, expected %v", warned, leaking)
			}
		})
	}
}

// TestAccessLogFix follows the advice of the warning and looks at the line that Caddy writes then.
func TestAccessLogFix(t *testing.T) {
	const config = "{\n servers {\n  log_credentials\n }\n}\n" +
		"http:// {\n bind $SOCKET\n log {\n  output file $DIR/site.log\n  $FIX\n }\n route {\n  gemini_logcheck\n }\n}\n"
	_, warnings := runLogged(t, strings.Replace(config, "$FIX", "", 1), []string{"a.test"})
	if len(warnings) != 1 {
		t.Fatalf("expected one warning, got %v", warnings)
	}
	fix := warnings[0].ContextMap()["fix"].(string)

	lines, warnings := runLogged(t, strings.Replace(config, "$FIX", fix, 1), []string{"a.test"})
	if len(warnings) != 0 {
		t.Errorf("still warned: %v", warnings)
	}
	if strings.Contains(lines, "AIza") {
		t.Errorf("the fix left a key in:\n%s", lines)
	}
	if !strings.Contains(lines, `"uri":"/ok?alt=sse&key=REDACTED"`) {
		t.Errorf("the fix took more than the key out of:\n%s", lines)
	}
}

// TestWarnOncePerServer makes sure that the handlers of a server share one warning, and that an unloaded server is
// forgotten.
func TestWarnOncePerServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &caddyhttp.Server{Logs: new(caddyhttp.ServerLogConfig), Routes: caddyhttp.RouteList{{}}}
		core, warnings := observer.New(zap.WarnLevel)
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		warnUnfilteredAccessLogs(ctx, zap.New(core)) // outside a server
		if n := warnings.Len(); n != 0 {
			t.Errorf("expected no warning without a server, got %d", n)
		}
		ctx.Context = context.WithValue(ctx.Context, caddyhttp.ServerCtxKey, srv)
		for range 3 {
			warnUnfilteredAccessLogs(ctx, zap.New(core))
		}
		if n := warnings.Len(); n != 1 {
			t.Errorf("expected one warning for the server, got %d", n)
		}
		cancel()
		synctest.Wait()
		if _, kept := checkedServers.Load(srv); kept {
			t.Error("the server is still kept after its config was unloaded")
		}
	})
}

// runLogged loads the config, sends one good and one failing request per host, unloads it, and returns the access log
// lines of all files and what the check said.
func runLogged(t *testing.T, config string, hosts []string) (lines string, warnings []observer.LoggedEntry) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gemini") // t.TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s") // a socket of its own: no port to clash with
	t.Cleanup(func() {
		_ = caddy.Stop()
		_ = os.RemoveAll(dir)
	})
	logCheckWarnings.TakeAll()
	if err := caddy.Load(loggedConfig(t, config, dir, socket), true); err != nil {
		t.Fatal(err)
	}
	warnings = logCheckWarnings.TakeAll()

	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	for _, host := range hosts {
		for _, path := range []string{"/ok", "/fail"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
				"http://"+host+path+"?alt=sse&key="+clientKeys[2].key, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Goog-Api-Key", clientKeys[0].key)
			req.Header.Set("Authorization", "Bearer "+clientKeys[1].key)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}

	// an empty config ends the server, so that all lines are written, and takes the default log off its file
	if err := caddy.Load([]byte(`{"admin": {"disabled": true, "config": {"persist": false}}}`), true); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, "http.log.access") {
				lines += line
			}
		}
	}
	return lines, warnings
}

// loggedConfig turns a test's config into JSON that keeps to dir, and sends the default log there too.
func loggedConfig(t *testing.T, config, dir, socket string) []byte {
	t.Helper()
	config = strings.NewReplacer("$DIR", dir, "$SOCKET", "unix/"+socket).Replace(config)
	adapted := []byte(config)
	if !json.Valid(adapted) {
		var err error
		if adapted, _, err = caddyconfig.GetAdapter("caddyfile").Adapt(adapted, nil); err != nil {
			t.Fatal(err)
		}
	}
	var cfg map[string]any
	if err := json.Unmarshal(adapted, &cfg); err != nil {
		t.Fatal(err)
	}
	object := func(parent map[string]any, name string) map[string]any {
		if parent[name] == nil {
			parent[name] = map[string]any{}
		}
		return parent[name].(map[string]any)
	}
	defaultLog := object(object(object(cfg, "logging"), "logs"), "default")
	if defaultLog["writer"] == nil {
		defaultLog["writer"] = map[string]any{"output": "file", "filename": filepath.Join(dir, "default.log")}
	}
	cfg["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false}}
	cfg["storage"] = map[string]any{"module": "file_system", "root": filepath.Join(dir, "storage")}
	object(cfg, "apps")["tls"] = map[string]any{"disable_storage_check": true, "disable_storage_clean": true}
	result, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

var accessLogger = regexp.MustCompile(`http\.log\.access(\.\w+)*`)

// leaksIn says which of the client's keys each logger printed.
func leaksIn(lines string) leaksByLogger {
	found := leaksByLogger{}
	for line := range strings.Lines(lines) {
		logger := accessLogger.FindString(line)
		places := found[logger]
		for _, c := range clientKeys {
			if strings.Contains(line, c.key) && !slices.Contains(places, c.place) {
				places = append(places, c.place)
			}
		}
		found[logger] = places
	}
	return found
}
