// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// keyPlaces lists where clients put their Gemini key, with a sample key for each, shaped like a real one so that
// regexp filters take it for one, and the log filter that takes it out. Caddy redacts Authorization (the key of
// OpenAI clients) by itself unless the server sets log_credentials.
var keyPlaces = []struct{ name, sample, filter string }{
	{"X-Goog-Api-Key header", sampleKey("h"), "request>headers>X-Goog-Api-Key delete"},
	{"Authorization header", sampleKey("a"), "request>headers>Authorization delete"},
	{"key query parameter", sampleKey("q"), "request>uri query {\n\t\treplace key REDACTED\n\t\treplace access_token REDACTED\n\t}"},
}

func sampleKey(letter string) string { return "AIza" + strings.Repeat(letter, 35) }

// sampleRequest carries each of the sample keys in its place.
var sampleRequest = &http.Request{
	Method:     http.MethodPost,
	Proto:      "HTTP/1.1",
	Host:       "example.com",
	RemoteAddr: "192.0.2.1:49152",
	RequestURI: "/v1beta/models/gemini-3-pro-image-preview:generateContent?key=" + sampleKey("q"),
	Header: http.Header{
		"X-Goog-Api-Key": {sampleKey("h")},
		"Authorization":  {"Bearer " + sampleKey("a")},
	},
}

// checkedServers keeps the handlers of one server from repeating each other's warnings (*caddyhttp.Server → nil).
// A server leaves when its config is unloaded.
var checkedServers sync.Map

// warnUnfilteredAccessLogs warns when the server being provisioned in ctx writes API keys into its access log: one
// line per server and logger name. Caddy clones the request for its log before any handler runs, so no handler can
// take the keys out, only a log filter can.
//
// It sees what the config says. Logger names picked per request (log_name), log_append fields, and the error log
// (http.log.error, which prints the request when a handler fails with a 5xx) are not checked.
func warnUnfilteredAccessLogs(ctx caddy.Context, logger *zap.Logger) {
	srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || srv.Logs == nil {
		return
	}
	if _, again := checkedServers.LoadOrStore(srv, nil); again {
		return
	}
	context.AfterFunc(ctx, func() { checkedServers.Delete(srv) })

	// the logger the server itself writes to: there is no other way to it than this half-deprecated argument
	core := ctx.Logger(new(caddyhttp.App)).Core()
	for _, name := range accessLoggerNames(srv) {
		leaks, filters := leakedKeys(renderAccessLog(core, name, srv.Logs.ShouldLogCredentials))
		if len(leaks) == 0 {
			continue
		}
		logger.Warn("access log prints API keys; filter them out in every log that receives this logger",
			zap.String("server", srv.Name()),
			zap.String("logger", name),
			zap.Strings("leaks", leaks),
			zap.String("fix", "format filter {\n\t"+strings.Join(filters, "\n\t")+"\n}"))
	}
}

// leakedKeys names the places whose sample key is still in the lines, and the filters that would have removed it.
func leakedKeys(lines []byte) (leaks, filters []string) {
	for _, place := range keyPlaces {
		if bytes.Contains(lines, []byte(place.sample)) {
			leaks = append(leaks, place.name)
			filters = append(filters, place.filter)
		}
	}
	return leaks, filters
}

// accessLoggerNames returns the full names of the loggers that the server's requests are logged under, sorted.
func accessLoggerNames(srv *caddyhttp.Server) []string {
	var names []string
	for _, mapped := range srv.Logs.LoggerNames {
		names = append(names, mapped...)
	}
	if !srv.Logs.SkipUnmappedHosts && servesUnmappedHost(srv) {
		names = append(names, srv.Logs.DefaultLoggerName)
	}
	for i, name := range names {
		names[i] = strings.TrimSuffix("http.log.access."+name, ".")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// servesUnmappedHost reports whether a route answers a host that has no logger of its own. Without this question every
// filtered site of a Caddyfile would get a warning: requests for hosts that no site has go to the default logger.
func servesUnmappedHost(srv *caddyhttp.Server) bool {
	unmapped := func(host string) bool {
		_, mapped := srv.Logs.LoggerNames[host]
		return !mapped && !slices.Contains(srv.Logs.SkipHosts, host)
	}
	for _, route := range srv.Routes {
		if len(route.MatcherSets) == 0 {
			return true
		}
		for _, set := range route.MatcherSets {
			hosts, limited := matchedHosts(set)
			if !limited || slices.ContainsFunc(hosts, unmapped) {
				return true
			}
		}
	}
	return false
}

// matchedHosts returns the hosts a matcher set is limited to, or false when it takes any.
func matchedHosts(set caddyhttp.MatcherSet) (caddyhttp.MatchHost, bool) {
	for _, matcher := range set {
		if hosts, ok := matcher.(*caddyhttp.MatchHost); ok {
			return *hosts, true
		}
	}
	return nil, false
}

// renderAccessLog returns what the logs behind core would write about sampleRequest under the given logger name;
// nothing is written. Rendering a line judges every kind of filter and encoder by what it does.
func renderAccessLog(core zapcore.Core, name string, withCredentials bool) []byte {
	probe := &lineProbe{
		// failed requests are logged at ERROR, others at INFO: a log that drops ERROR writes no request at all
		entry: zapcore.Entry{LoggerName: name, Level: zapcore.ErrorLevel, Time: time.Now(), Message: "checking access log"},
		request: zap.Object("request", caddyhttp.LoggableHTTPRequest{
			Request:              sampleRequest,
			ShouldLogCredentials: withCredentials,
		}),
	}
	for _, c := range splitTee(core) {
		if c.Check(probe.entry, nil) != nil {
			c.With([]zapcore.Field{zap.Inline(probe)})
		}
	}
	return probe.lines.Bytes()
}

// splitTee returns the cores behind zap's tee, which would otherwise not say which of them takes an entry.
// The tee's type is private to zap, but it is a slice.
func splitTee(core zapcore.Core) []zapcore.Core {
	v := reflect.ValueOf(core)
	if v.Kind() != reflect.Slice {
		return []zapcore.Core{core}
	}
	var cores []zapcore.Core
	for i := range v.Len() {
		if c, ok := reflect.TypeAssert[zapcore.Core](v.Index(i)); ok {
			cores = append(cores, splitTee(c)...)
		}
	}
	return cores
}

// lineProbe is a log field that, instead of adding itself, has the encoder it is added to render a whole entry.
// As a field passed to Core.With and inlined, it meets a clone of the log's real encoder, filters included.
type lineProbe struct {
	entry   zapcore.Entry
	request zapcore.Field
	lines   bytes.Buffer
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (p *lineProbe) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	encoder, ok := enc.(zapcore.Encoder)
	if !ok {
		return nil // a foreign core that keeps no encoder: what it does with fields cannot be known
	}
	line, err := encoder.EncodeEntry(p.entry, []zapcore.Field{p.request})
	if err != nil {
		return err
	}
	p.lines.Write(line.Bytes())
	line.Free()
	return nil
}

// Interface guard
var _ zapcore.ObjectMarshaler = (*lineProbe)(nil)
