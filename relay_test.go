// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// answerFolder has answers, named for the form they are in, and what becomes of them.
var answerFolder = filepath.Join("testdata", "translate", "answers")

// relayed is what a relay makes of a source, and the error it ends with unless that
// is io.EOF.
func relayed(r io.ReadCloser) (string, error) {
	body, err := io.ReadAll(r)
	return string(body), err
}

// relays are what can be made of an answer, by the beginning of its file's name.
func relays(name string) []namedRelay {
	events := filepath.Ext(name) == ".sse"
	form, _, _ := strings.Cut(name, "-")
	if form == "native" {
		return nativeSources(events)
	}
	from := map[string]upstreamForm{"images": fromImages, "chat": fromChat}[form]
	return openAISources(from, events)
}

type namedRelay struct {
	name string
	of   func(io.ReadCloser) io.ReadCloser
}

func openAISources(from upstreamForm, events bool) (all []namedRelay) {
	for i, name := range []string{formUnary: "unary", formEvents: "events", formArray: "array"} {
		opts := nativeRelay{from: from, events: events, to: streamForm(i), model: `asked-"for"`}
		all = append(all, namedRelay{name, func(r io.ReadCloser) io.ReadCloser { return newNativeRelay(r, opts) }})
	}
	return all
}

func nativeSources(events bool) (all []namedRelay) {
	for _, c := range []struct {
		name string
		opts openAIRelay
	}{
		{"images", openAIRelay{to: toImages}},
		{"images as URLs", openAIRelay{to: toImages, asURL: true}},
		{"chat", openAIRelay{to: toChat}},
		{"chat events", openAIRelay{to: toChatEvents, streamUsage: true}},
	} {
		opts := c.opts
		opts.events, opts.model, opts.created, opts.id = events, `asked-"for"`, 1760000000, "chatcmpl-1"
		all = append(all, namedRelay{c.name, func(r io.ReadCloser) io.ReadCloser { return newOpenAIRelay(r, opts) }})
	}
	return all
}

// TestRelays compares what becomes of answers with golden files, however the network
// cuts them.
func TestRelays(t *testing.T) {
	files, err := os.ReadDir(answerFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Ext(file.Name()) == ".golden" {
			continue
		}
		t.Run(file.Name(), func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join(answerFolder, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, r := range relays(file.Name()) {
				got.WriteString("=== " + r.name + "\n" + throughCuts(t, r, string(body)) + "\n")
			}
			checkGolden(t, filepath.Join(answerFolder, file.Name()+".golden"), got.String())
		})
	}
}

// throughCuts is what a relay makes of a body, in a form that can be read: carriage
// returns are written out, and an error stands at the end.
func throughCuts(t *testing.T, r namedRelay, body string) string {
	t.Helper()
	var whole string
	for size := range 65 {
		got, err := relayed(r.of(io.NopCloser(&pieces{body: body, size: size})))
		if err != nil {
			got += "\n!!! " + err.Error()
		}
		if size == 0 {
			whole = got
		}
		if got != whole {
			t.Fatalf("%s, in pieces of %d:\n%s\nas a whole:\n%s", r.name, size, got, whole)
		}
	}
	return strings.ReplaceAll(whole, "\r", `\r`)
}

// What the source fails with comes behind what it has given.
func TestRelayBreaks(t *testing.T) {
	broken := errors.New("reset by peer")
	for _, c := range []struct {
		name, body, want string
		relay            namedRelay
	}{
		{"images", `{"created":1,"data":[{"b64_json":"iVBORw0KGgoA`, `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgoA`, openAISources(fromImages, false)[0]},
		{"chat events", "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}],\"role\":\"model\"},\"index\":0}],\"modelVersion\":\"asked-\\\"for\\\"\"}\r\n\r\n", openAISources(fromChat, true)[1]},
		{"native", `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBO`, `{"b64_json":"iVBO`, nativeSources(false)[0]},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := io.MultiReader(strings.NewReader(c.body), iotest.ErrReader(broken))
			got, err := relayed(c.relay.of(io.NopCloser(source)))
			if got != c.want || !errors.Is(err, broken) {
				t.Errorf("%s, %v, want %s", got, err, c.want)
			}
		})
	}
}

// waiting is a source that has nothing more to give until it is closed.
type waiting struct {
	io.Reader
	closed chan struct{}
}

func (w waiting) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		<-w.closed
		return n, errors.New("closed")
	}
	return n, err
}

func (w waiting) Close() error {
	close(w.closed)
	return nil
}

// Events are passed on when they are complete, images as they come, and nobody has
// to wait for the end.
func TestRelayDoesNotWait(t *testing.T) {
	native := "data: " + candidateWith(parts(`{"text":"Hi"}`)) + "\r\n\r\n" + `data: {"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBO`
	for _, c := range []struct {
		name, body, end string
		relay           namedRelay
	}{
		{"images", `{"created":1,"data":[{"b64_json":"iVBORw0KGgoA`, `"data":"iVBORw0KGgoA`, openAISources(fromImages, false)[1]},
		{"chat", "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n", "\r\n\r\n", openAISources(fromChat, true)[1]},
		{"markdown", `data: {"choices":[{"delta":{"content":"Hi ![x](data:image/png;base64,AA`, `"data":"AA`, openAISources(fromChat, true)[1]},
		{"native", native, `"image_url":{"url":"data:image/png;base64,iVBO`, nativeSources(true)[3]},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay := c.relay.of(waiting{strings.NewReader(c.body), make(chan struct{})})
			got, buf := "", make([]byte, 16)
			for !strings.HasSuffix(got, c.end) {
				n, err := relay.Read(buf)
				if err != nil {
					t.Fatalf("%v behind %s", err, got)
				}
				got += string(buf[:n])
			}
			done := make(chan error)
			go func() {
				_, err := relay.Read(buf)
				done <- err
			}()
			_ = relay.Close()
			if err := <-done; err == nil {
				t.Error("no error from a source that was closed")
			}
		})
	}
}

// repeated gives out a beginning, the same base64 again and again, and an end.
func repeated(before string, size int, after string) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader(before), io.LimitReader(base64Forever{}, int64(size)), strings.NewReader(after)))
}

type base64Forever struct{}

var manyBase64 = strings.Repeat("iVBORw0KGgo+", 32<<10/12)

func (base64Forever) Read(p []byte) (int, error) { return copy(p, manyBase64), nil }

// largeAnswers are answers with an image of so many bytes, and what translates them.
func largeAnswers(size int) map[string]func() io.ReadCloser {
	large := func(r namedRelay, before, after string) func() io.ReadCloser {
		return func() io.ReadCloser { return r.of(repeated(before, size, after)) }
	}
	native := nativeSources(false)
	return map[string]func() io.ReadCloser{
		"images to native": large(openAISources(fromImages, false)[0], `{"data":[{"b64_json":"`, `"}]}`),
		"chat to native":   large(openAISources(fromChat, false)[0], `{"choices":[{"message":{"images":[{"image_url":{"url":"data:image/png;base64,`, `"}}]}}]}`),
		"text to native":   large(openAISources(fromChat, true)[1], `data: {"choices":[{"delta":{"content":"![](data:image/png;base64,`, `)"}}]}`+"\n\n"),
		"native to images": large(native[0], `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"`, `"}}]}}]}`),
		"native to chat":   large(native[2], `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"`, `"}}]}}]}`),
		"native to events": large(native[3], `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"`, `"}}]}}]}`),
		"event to event":   large(nativeSources(true)[3], `data: {"candidates":[{"content":{"parts":[{"inlineData":{"data":"`, `"}}]}}]}`+"\r\n\r\n"),
		"words to native":  large(openAISources(fromChat, false)[0], `{"choices":[{"message":{"content":"`, `"}}]}`),
		"words of a delta": large(openAISources(fromChat, true)[1], `data: {"choices":[{"delta":{"content":"`, `"}}]}`+"\n\n"),
	}
}

// What means nothing to a client is not kept, as much as there may be of it.
func TestRelayOfNothing(t *testing.T) {
	for name, c := range map[string]struct {
		relay namedRelay
		body  string
	}{
		"comments":           {openAISources(fromChat, true)[1], ": PROCESSING\n\n"},
		"deltas of nothing":  {openAISources(fromChat, true)[1], `data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}` + "\n\n"},
		"reasoning":          {openAISources(fromChat, true)[1], `data: {"choices":[{"index":0,"delta":{"reasoning":"Hm."}}]}` + "\n\n"},
		"usage":              {openAISources(fromChat, true)[1], `data: {"choices":[],"usage":{"prompt_tokens":3}}` + "\n\n"},
		"thoughts":           {nativeSources(true)[3], `data: {"candidates":[{"content":{"parts":[{"text":"Hm.","thought":true}]}}]}` + "\r\n\r\n"},
		"signatures":         {nativeSources(true)[2], `data: {"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"AAAA"}]}}]}` + "\r\n\r\n"},
		"words for an image": {nativeSources(true)[0], `data: {"candidates":[{"content":{"parts":[{"text":"Hm."}]}}]}` + "\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := errors.New("reset by peer")
			many := &repeat{of: c.body, left: 2 << 20 / len(c.body) * len(c.body)}
			relay := c.relay.of(io.NopCloser(io.MultiReader(many, iotest.ErrReader(broken))))
			before := inUse()
			if n, err := relay.Read(make([]byte, 32<<10)); n > 0 || !errors.Is(err, broken) {
				t.Errorf("the client gets %d bytes, %v", n, err)
			}
			if kept := inUse() - before; kept > 1<<20 {
				t.Errorf("%d bytes are kept", kept)
			}
			runtime.KeepAlive(relay)
		})
	}
}

// inUse is how much memory is.
func inUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// An answer of 100 MB is never held, be it an image or not, or all of an event.
func TestRelayMemory(t *testing.T) {
	const size = 100 << 20
	for name, open := range largeAnswers(size) {
		t.Run(name, func(t *testing.T) {
			buf := make([]byte, 32<<10)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			relay, total := open(), 0
			for {
				n, err := relay.Read(buf)
				total += n
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			if total < size {
				t.Errorf("%d bytes of %d", total, size)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 2<<20 {
				t.Errorf("%d bytes allocated", used)
			}
		})
	}
}

func BenchmarkRelay(b *testing.B) {
	const size = 6 << 20
	for name, open := range largeAnswers(size) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			buf := make([]byte, copyBuffer)
			for b.Loop() {
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, open(), buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
