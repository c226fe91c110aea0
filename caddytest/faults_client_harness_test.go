// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// wireClient is a client that says what no library would.
type wireClient struct {
	*net.TCPConn
	in *bufio.Reader
}

// dial connects a client whose connection does not outlive the test.
func (g *gateway) dial(t *testing.T) *wireClient {
	t.Helper()
	conn, err := net.DialTimeout("tcp", g.address, soon)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * soon)); err != nil {
		t.Fatal(err)
	}
	return &wireClient{conn.(*net.TCPConn), bufio.NewReader(conn)}
}

// says sends bytes as they are.
func (c *wireClient) says(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// hears reads the next answer to its end.
func (c *wireClient) hears(t *testing.T) *reply {
	t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatalf("the client heard nothing: %v", err)
	}
	return read(res)
}

// isHungUp fails unless the server closes the connection, and says nothing before.
func (c *wireClient) isHungUp(t *testing.T) {
	t.Helper()
	rest, err := io.ReadAll(c.in)
	if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
		t.Errorf("the connection stays open (%v), with %q", err, rest)
	}
}

// The ways in which a connection ends whose client does not wait for anything.
var hangups = map[string]func(c *wireClient){
	"closes": func(c *wireClient) { _ = c.Close() },
	"resets": func(c *wireClient) {
		_ = c.SetLinger(0)
		_ = c.Close()
	},
}

// spoken is a request as it goes over the wire, with headers that end in \r\n.
func spoken(path, headers, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Goog-Api-Key: " + clientKey + "\r\n" + headers + "\r\n" + body
}

// sized is spoken with a Content-Length, which need not be true.
func sized(path string, length int, body string) string {
	return spoken(path, fmt.Sprintf("Content-Length: %d\r\n", length), body)
}

// chunked is a body in chunks of some bytes. Without its end it is cut off.
func chunked(body string, size int) string {
	var b strings.Builder
	for piece := range slices.Chunk([]byte(body), size) {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(piece), piece)
	}
	return b.String()
}

const (
	inChunks  = "Transfer-Encoding: chunked\r\n"
	lastPiece = "0\r\n\r\n"
)

// counted are the calls and attempts that have been counted since, as metrics have
// them.
func (g *gateway) counted(t *testing.T, since map[string]float64) string {
	t.Helper()
	var all []string
	for series, value := range g.counters(t) {
		name, _, _ := strings.Cut(series, "_total{")
		if more := value - since[series]; more > 0 && (name == "requests" || name == "attempts") {
			all = append(all, fmt.Sprintf("%s %v", series, more))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// leavesNothing fails unless as many goroutines run after something as before. What
// waits for more calls on a connection does not count.
func (u *upstream) leavesNothing(t *testing.T, happens func()) {
	t.Helper()
	u.CloseClientConnections()
	settled := runtime.NumGoroutine()
	happens()
	eventually(t, "the goroutines of all calls end", func() bool {
		u.CloseClientConnections()
		return runtime.NumGoroutine() <= settled
	})
}

// heap is what is in use, pools aside, which last for one more collection.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
