// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"io"
	"strings"
	"testing"
	"time"
)

// lingering is an upstream that neither says more nor closes.
type lingering struct {
	io.Reader
	closed chan struct{}
}

func (l *lingering) Read(p []byte) (int, error) {
	if n, err := l.Reader.Read(p); err == nil {
		return n, nil
	}
	<-l.closed
	return 0, io.ErrClosedPipe
}

func (l *lingering) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

// A block is certain before the upstream has closed; the client must not wait
// until it does.
func TestCloseDoesNotWaitForTheUpstream(t *testing.T) {
	source := &lingering{strings.NewReader(events(safety)), make(chan struct{})}
	p := play(source, formEvents, textCall, noLimit)
	if p.verdict.reason != "SAFETY" {
		t.Fatalf("verdict %+v", p.verdict)
	}
	done := make(chan struct{})
	go func() {
		_ = p.Close()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("Close waits")
	}
	select {
	case <-source.closed:
	default:
		t.Error("the source is still open")
	}
	if !p.held.isEmpty() {
		t.Error("blocks are still held")
	}
}
