// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const noLimit = 1 << 30

// pieces gives out a body as a network might: size bytes at a time, 0 = whole.
type pieces struct {
	body string
	size int
	read int // bytes given out
}

func (p *pieces) Read(buf []byte) (int, error) {
	if p.read == len(p.body) {
		return 0, io.EOF
	}
	rest := p.body[p.read:]
	if p.size > 0 {
		rest = rest[:min(p.size, len(rest))]
	}
	n := copy(buf, rest)
	p.read += n
	return n, nil
}

// played is an answer that has been held, and what came of it.
type played struct {
	*answer
	verdict verdict
	late    []verdict
}

// play holds an answer and tells of blocks that come late in a short error.
func play(source io.Reader, form streamForm, e expectation, limit int64) *played {
	e.stream = form != formUnary
	names := geminiEnums
	if form == formOpenAI {
		names = openAIEnums
	}
	body, ok := source.(io.ReadCloser)
	if !ok {
		body = io.NopCloser(source)
	}
	p := new(played)
	p.answer = &answer{
		source:  body,
		scan:    newAnswerScanner(new(facts), form == formEvents || form == formOpenAI, names),
		expect:  e,
		form:    form,
		explain: func(v verdict) []byte { return []byte(`{"error":{"status":"` + v.reason + `"}}`) },
		late:    func(v verdict) { p.late = append(p.late, v) },
	}
	p.verdict = p.hold(limit)
	return p
}

// reads is what the client gets, Read by Read, of an answer that ends well.
func (p *played) reads(t testing.TB) []string {
	t.Helper()
	all, err := p.rest()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rest is what the client gets, Read by Read, and how it breaks off.
func (p *played) rest() (all []string, err error) {
	buf := make([]byte, 64<<10)
	for {
		p.apart = false // no pause between the pieces of an error
		n, err := p.Read(buf)
		if n > 0 {
			all = append(all, string(buf[:n]))
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func (p *played) body(t testing.TB) string {
	t.Helper()
	return strings.Join(p.reads(t), "")
}

func zipped(t testing.TB, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// unzipped is the body of a response that says it is compressed.
func unzipped(source io.Reader) io.Reader {
	return decoded(&http.Response{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(source)})
}

var (
	imageCall   = expectation{image: true, noImage: noImageAuto}
	imagesAlone = expectation{image: true, noImage: noImageAuto, imagesAlone: true}
	withDrafts  = expectation{image: true, noImage: noImageAuto, thoughts: true}
	textCall    = expectation{noImage: noImageAuto}
)

// The mark ¦ stands behind the byte that makes the verdict certain.
func TestHoldEndsWhereTheVerdictIsCertain(t *testing.T) {
	mayCommitText := expectation{image: true, noImage: noImageAuto, commitText: true}
	for _, c := range []struct {
		name   string
		form   streamForm
		expect expectation
		body   string
	}{
		{"image", formUnary, imageCall, `{"candidates":[{"content":{"parts":[{"text":"Here"},{"inlineData":{"mimeType":"image/png","data":"A¦AAA"},"thoughtSignature":"CC"}]}}]}`},
		{"file", formUnary, imageCall, `{"candidates":[{"content":{"parts":[{"fileData":{"fileUri":"g¦s://b/o"}}]}}]}`},
		{"Imagen", formUnary, expectation{image: true, imageAPI: true}, `{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"A¦A"}]}`},
		{"OpenAI", formUnary, expectation{image: true, imageAPI: true}, `{"created":1,"data":[{"b64_json":"A¦A"}]}`},
		{"image of a chat", formUnary, imagesAlone, `{"choices":[{"message":{"content":"Hi","images":[{"type":"image_url","image_url":{"url":"d¦ata:image/png;base64,AAAA"}}]}}]}`},
		{"image of a streamed chat", formOpenAI, imagesAlone, "data: " + choice + "\n\n" + `data: {"choices":[{"delta":{"images":[{"image_url":{"url":"d¦ata:A"}}]}}]}` + "\n\n"},
		{"part of a chat", formUnary, withDrafts, `{"choices":[{"message":{"content":[{"type":"text","text":"Hi"},{"image_url":{"url":"data:A"¦}}]}}]}`},
		{"interaction", formUnary, imagesAlone, `{"status":"completed","steps":[{"type":"model_output","content":[{"type":"image","data":"A¦A"}]}]}`},
		{"streamed interaction", formEvents, imagesAlone, "data: " + actCreated + "\n\ndata: " + `{"delta":{"data":"A¦A","type":"image"}}` + "\n\n"},
		{"words of a streamed interaction", formEvents, textCall, "data: " + actCreated + "\n\ndata: " + actSays + "¦\n\ndata: " + actDone + "\n\n"},
		{"image where thoughts were asked for", formUnary, withDrafts, `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AA"},"thoughtSignature":"CC"}¦]}}]}`},
		{"draft first", formUnary, withDrafts, `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AA"},"thought":true},{"inlineData":{"data":"BB"}}¦]}}]}`},
		{"draft flagged before its data", formUnary, imageCall, `{"candidates":[{"content":{"parts":[{"thought":true,"inlineData":{"data":"AA"}},{"inlineData":{"data":"B¦B"}}]}}]}`},
		{"speech first", formUnary, imageCall, `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"audio/pcm","data":"AA"}},{"inlineData":{"data":"B¦B"}}]}}]}`},
		{"text", formUnary, textCall, `{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]} ` + "\n¦"},
		{"text stream", formEvents, textCall, "data: " + hello + "¦\n\n" + "data: " + hello + "\n\n"},
		{"array", formArray, textCall, "[" + hello + "¦," + hello + "]"},
		{"text of an image stream", formEvents, imageCall, "data: " + hello + "\n\n" + `data: {"candidates":[{"content":{"parts":[{"inlineData":{"data":"A¦A"}}]}}]}` + "\n\n"},
		{"text that may go", formEvents, mayCommitText, "data: " + hello + "¦\n\n" + "data: " + pixel + "\n\n"},
		{"STOP where text will do", formEvents, imageCall, "data: " + done1 + "¦\n\n" + "data: " + hello + "\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after, _ := strings.Cut(c.body, "¦")
			source := &pieces{body: before + after, size: 1}
			p := play(source, c.form, c.expect, noLimit)
			if p.verdict != (verdict{}) || source.read != len(before) {
				t.Errorf("%+v after %q, want it after %q", p.verdict, source.body[:source.read], before)
			}
			if got := p.body(t); got != before+after {
				t.Errorf("delivered %q", got)
			}
		})
	}
}

func TestHoldIsCapped(t *testing.T) {
	body := `{"candidates":[{"content":{"parts":[{"text":"` + strings.Repeat("a", 5000) + `"}]},"finishReason":"SAFETY"}]}`
	for _, limit := range []int64{1, 1000, 4999} {
		source := &pieces{body: body, size: 100}
		p := play(source, formUnary, textCall, limit)
		if p.verdict.class != classOK || source.read > int(limit)+100 {
			t.Errorf("limit %d: %v after %d bytes", limit, p.verdict, source.read)
		}
		if p.body(t) != body {
			t.Errorf("limit %d: not the same bytes", limit)
		}
		if len(p.late) != 1 || p.late[0].reason != "SAFETY" {
			t.Errorf("limit %d: the late block is not accounted: %v", limit, p.late)
		}
	}
}

const (
	hello    = `{"candidates":[{"content":{"parts":[{"text":"Hello"}]},"index":0}]}`
	hello1   = `{"candidates":[{"content":{"parts":[{"text":"Hello"}]},"index":1}]}`
	pixel    = `{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA"}}]},"index":0}]}`
	safety   = `{"candidates":[{"finishReason":"SAFETY","index":0}]}`
	done1    = `{"candidates":[{"finishReason":"STOP","index":1}]}`
	trail    = `{"usageMetadata":{"promptTokenCount":5}}`
	choice   = `{"choices":[{"index":0,"delta":{"content":"Hello"}}]}`
	filtered = `{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`
	late     = `{"error":{"status":"SAFETY"}}`
)

func events(objects ...string) string {
	return "data: " + strings.Join(objects, "\r\n\r\ndata: ") + "\r\n\r\n"
}

func array(objects ...string) string { return "[" + strings.Join(objects, "\n,\r\n") + "\n]\n" }

func TestLateBlocksAreReportedInBand(t *testing.T) {
	requiresImage := expectation{image: true, noImage: noImageError, commitText: true}
	stop := `{"candidates":[{"content":{"parts":[{"text":"No."}]},"finishReason":"STOP"}]}`
	noImage := `{"error":{"status":"NO_IMAGE"}}`
	for _, c := range []struct {
		name   string
		form   streamForm
		expect expectation
		body   string
		want   string // all that is delivered
		alone  string // the part of it that must come in a Read of its own
	}{
		{"events", formEvents, textCall, events(hello, safety, trail), events(hello, safety, late) + late + "\r\n", late + "\r\n"},
		{"image first", formEvents, imageCall, events(pixel, safety), events(pixel, safety, late) + late + "\r\n", late + "\r\n"},
		{"array", formArray, textCall, array(hello, safety, trail), "[" + hello + "\n,\r\n" + safety + ",\r\n" + late + "]", ",\r\n" + late + "]"},
		{"OpenAI", formOpenAI, textCall, events(choice, filtered, "[DONE]"), events(choice, filtered, `{"error":{"status":"CONTENT_FILTER"}}`), ""},
		{"another candidate is still being written", formEvents, textCall, events(hello, hello1, safety, hello1, done1, trail), events(hello, hello1, safety, hello1, done1, late) + late + "\r\n", ""},
		{"another candidate never ends", formEvents, textCall, events(hello, hello1, safety, hello1), events(hello, hello1, safety, hello1, late) + late + "\r\n", late + "\r\n"},
		{"no image at the end", formEvents, requiresImage, events(hello, stop), events(hello, stop, noImage) + noImage + "\r\n", noImage + "\r\n"},
		{"no blank line at the end", formEvents, requiresImage, events(hello) + "data: " + stop, events(hello, stop, noImage) + noImage + "\r\n", noImage + "\r\n"},
		{"no image in the array", formArray, requiresImage, array(hello, stop), "[" + hello + "\n,\r\n" + stop + "\n,\r\n" + noImage + "]\n", ",\r\n" + noImage + "]\n"},
		{"unary", formUnary, imageCall, strings.TrimSuffix(pixel, "]}") + `,{"finishReason":"SAFETY"}]}`, strings.TrimSuffix(pixel, "]}") + `,{"finishReason":"SAFETY"}]}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for size := range 65 {
				p := play(&pieces{body: c.body, size: size}, c.form, c.expect, noLimit)
				if p.verdict.class != classOK {
					t.Fatalf("pieces of %d: blocked before the commit: %+v", size, p.verdict)
				}
				reads := p.reads(t)
				if got := strings.Join(reads, ""); got != c.want {
					t.Fatalf("pieces of %d: delivered\n%s\nwant\n%s", size, got, c.want)
				}
				if c.alone != "" && !slices.Contains(reads, c.alone) {
					t.Errorf("pieces of %d: the error is not in a Read of its own: %q", size, reads)
				}
				if len(p.late) != 1 || !p.late[0].class.isBlock() {
					t.Errorf("pieces of %d: accounted %v", size, p.late)
				}
				if c.form == formArray && !json.Valid([]byte(strings.Join(reads, ""))) {
					t.Errorf("pieces of %d: the array is not JSON", size)
				}
			}
		})
	}
}

// Under block_status pass nothing is added, but the block is accounted.
func TestLateBlocksPassWhereToldTo(t *testing.T) {
	for form, body := range map[streamForm]string{formEvents: events(hello, safety), formArray: array(hello, safety), formUnary: safety} {
		p := play(strings.NewReader(body), form, textCall, noLimit)
		p.explain = nil
		if got := p.body(t); got != body {
			t.Errorf("form %d: delivered %q", form, got)
		}
		if len(p.late) != 1 || p.late[0].reason != "SAFETY" {
			t.Errorf("form %d: accounted %v", form, p.late)
		}
	}
}

func TestWhatFollowsAnArrayIsNotLost(t *testing.T) {
	for _, after := range []string{"", "\n", strings.Repeat(" ", 9000), "]", strings.Repeat("x", 9000)} {
		for _, nested := range []string{hello, "[" + hello + "]"} {
			body := "[" + nested + "," + hello + "]" + after
			p := play(&pieces{body: body, size: 1000}, formArray, textCall, noLimit)
			if got := p.body(t); got != body {
				t.Errorf("%d bytes after %s: %d of %d bytes delivered", len(after), nested, len(got), len(body))
			}
		}
	}
}

// repeat is a body of any size that takes no memory.
type repeat struct {
	of   string
	left int // bytes
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := 0
	for n < min(len(p), r.left) {
		took := copy(p[n:min(len(p), r.left)], r.of[r.at:])
		r.at = (r.at + took) % len(r.of)
		n += took
	}
	r.left -= n
	return n, nil
}

func TestMemoryDoesNotGrowWithTheAnswer(t *testing.T) {
	const limit = 4 << 20
	open := `{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"`
	image := func() io.Reader {
		return io.MultiReader(strings.NewReader(open), &repeat{of: "iVBORw0KGgo", left: 20 << 20}, strings.NewReader(`"}}]},"finishReason":"STOP"}]}`))
	}
	chunk := events(`{"candidates":[{"content":{"parts":[{"text":"` + strings.Repeat("word ", 4000) + `"}]}}]}`)
	words := func() io.Reader { return &repeat{of: chunk, left: 100 << 20 / len(chunk) * len(chunk)} }
	for _, c := range []struct {
		name   string
		source io.Reader
		form   streamForm
		expect expectation
		most   int // bytes held for the verdict
	}{
		{"image", image(), formUnary, imageCall, chunkSize},
		{"image that may be a draft", image(), formUnary, withDrafts, limit + chunkSize},
		{"text stream", words(), formEvents, textCall, chunkSize},
		{"text of an image stream", words(), formEvents, imageCall, limit + chunkSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := play(c.source, c.form, c.expect, limit)
			if p.held.end > int64(c.most) || len(p.held.chunks) > c.most/chunkSize {
				t.Errorf("%d bytes in %d blocks are held", p.held.end, len(p.held.chunks))
			}
			if _, err := io.Copy(io.Discard, p); err != nil {
				t.Fatal(err)
			}
			s := p.scan
			if !p.held.isEmpty() || cap(s.text) > 2*maxText || cap(s.json.capture) > 2*maxMessage || cap(s.json.stack) > 64 {
				t.Errorf("left over: %d blocks, %d bytes of text, %d captured", len(p.held.chunks), cap(s.text), cap(s.json.capture))
			}
		})
	}
}

func TestBrokenAnswers(t *testing.T) {
	reset := errors.New("connection reset")
	for _, c := range []struct{ name, body, reason string }{
		{"nothing", "", reasonUnavailable},
		{"before the verdict", `{"candidates":[`, reasonUnavailable},
		{"after the verdict", pixel[:len(pixel)-5], ""},
	} {
		p := play(io.MultiReader(strings.NewReader(c.body), iotest.ErrReader(reset)), formUnary, imageCall, noLimit)
		if p.verdict.reason != c.reason {
			t.Errorf("%s: %+v", c.name, p.verdict)
		}
		if _, err := io.ReadAll(p); !errors.Is(err, reset) {
			t.Errorf("%s: the client is told %v", c.name, err)
		}
	}
	for name, source := range map[string]io.Reader{
		"cut gzip": strings.NewReader(zipped(t, safety)[:20]), "no gzip": strings.NewReader(safety), "no bytes": strings.NewReader(""),
	} {
		if p := play(unzipped(source), formUnary, imageCall, noLimit); p.verdict.class != classTransient {
			t.Errorf("%s: %+v", name, p.verdict)
		}
	}
}
