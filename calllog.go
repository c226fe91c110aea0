// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logFields tell about a call without its prompt or its key.
func (x *exchange) logFields(status int, duration time.Duration) []zap.Field {
	return []zap.Field{
		zap.String("verdict", x.verdict.class.String()),
		zap.String("reason", x.verdict.reason),
		zap.String("stage", x.verdict.stage),
		zap.String("model", x.model),
		zap.String("method", x.call.method),
		zap.String("upstream", x.upstream),
		zap.String("project", x.project),
		zap.String("client", x.client),
		zap.Int("upstream_status", x.received),
		zap.Int("status", status),
		zap.Int64("tokens", x.used().total()),
		zap.Int("attempts", x.attempts),
		zap.Duration("waited", x.waited),
		zap.Duration("duration", duration),
	}
}

// callLog writes of a call that has ended.
type callLog struct {
	logger   *zap.Logger
	x        *exchange
	status   int
	duration time.Duration
}

func (l callLog) write(level zapcore.Level, message string, more ...zap.Field) {
	l.logger.Log(level, message, append(l.x.logFields(l.status, l.duration), more...)...)
}

// isDecided tells whether an upstream has decided what became of the call: else it was
// not sent, or its client did not stay.
func (x *exchange) isDecided() bool {
	switch x.verdict.reason {
	case reasonCancelled, reasonRepeated, reasonPaused:
		return false
	}
	return x.attempts > 0 && x.refusal == nil && !errors.Is(x.cause, errNoRoom)
}

// undecided writes of a call that no upstream has decided.
func (l callLog) undecided() {
	x := l.x
	switch {
	case x.verdict.reason == reasonCancelled: // which is no news
	case x.verdict.reason == reasonRepeated:
		l.write(zap.WarnLevel, "call was refused, because its prompt was blocked before", zap.String("blocked_reason", x.verdict.blocked))
	case errors.Is(x.cause, errNoRoom):
		l.write(zap.ErrorLevel, "request could not be kept", zap.Error(unquoted{x.cause}))
	case x.verdict.reason == reasonPaused:
		l.write(zap.WarnLevel, "call was refused, because its project is paused")
	case x.refusal != nil:
		l.write(zap.InfoLevel, "call was refused by a limit", zap.Duration("room_in", x.refusal.delay))
	}
}

// decided writes of a call that an upstream has decided, unless it has ended well.
func (l callLog) decided() {
	x := l.x
	switch {
	case x.verdict.class.isBlock():
		l.write(zap.WarnLevel, "call was blocked")
	case x.cause != nil && !errors.Is(x.cause, errDeadline):
		l.write(zap.ErrorLevel, "upstream failed", zap.Error(unquoted{x.cause}))
	case x.verdict.class != classOK:
		l.write(zap.InfoLevel, "call failed")
	}
}

// story is what happened to a call, attempt by attempt.
type story []*attempt

// MarshalLogArray writes the story to the log.
func (s story) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for _, a := range s {
		if err := enc.AppendObject(a); err != nil {
			return err
		}
	}
	return nil
}

// MarshalLogObject writes an attempt to the log, without prompt and key.
func (a *attempt) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("upstream", a.upstream)
	enc.AddString("project", a.project)
	enc.AddDuration("wait", a.wait)
	enc.AddInt("status", a.received)
	enc.AddString("verdict", a.verdict.class.String())
	enc.AddString("reason", a.verdict.reason)
	if a.cause != nil {
		enc.AddString("error", unquoted{a.cause}.Error())
	}
	return nil
}
