// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
)

// readBriefForm reads the form that images/edits takes, whose images are files in
// it. It fails with a *jsonError, too, where the form is none, or with what the
// body failed with.
func readBriefForm(body io.Reader, boundary string) (*brief, error) {
	r := newImagesReader(editsSchema)
	form := newFormScanner(body, boundary)
	for {
		part, err := form.next()
		if errors.Is(err, io.EOF) {
			return r.finishImages(), nil
		}
		if err == nil {
			err = r.takePart(form, part)
		}
		if err != nil {
			return nil, err
		}
	}
}

// takePart takes a field of a form. The files among the fields are the images.
func (r *openAIReader) takePart(form *formScanner, part formPart) error {
	r.named = part.name
	row := &r.schema.rows[r.lookup(part.name).id]
	if row.isURL {
		return r.takeFile(form, part)
	}
	text, cut, err := form.text(maxTurn)
	if err != nil || text == "" {
		return err
	}
	v := openAIValue{kind: kindOf(text, row.kinds), text: strings.ToValidUTF8(text, "\uFFFD"), cut: cut}
	v.cut = v.cut || row.keep > 0 && len(text) > row.keep || v.kind == jsonNumber && len(text) >= maxScalar
	r.take(row, v)
	return nil
}

// lookup finds the field that a name such as google[safety_settings][][category]
// stands for: that is how OpenAI's clients write what they nest.
func (r *openAIReader) lookup(name string) *field {
	unknown := r.schema.root.rest
	first, nested, isNested := strings.Cut(strings.TrimSuffix(name, "]"), "[")
	f := r.schema.root.child([]byte(first))
	if !isNested {
		return f
	}
	for step := range strings.SplitSeq(nested, "][") {
		if isIndex(step) {
			f = f.element
		} else {
			f = f.child([]byte(step))
		}
		if f == nil {
			return unknown
		}
	}
	return f
}

// isIndex tells the brackets of a list, such as [] and [0].
func isIndex(step string) bool { return strings.Trim(step, "0123456789") == "" }

// kindOf is what a text would be in JSON, if the field takes that.
func kindOf(text string, kinds openAIKinds) jsonKind {
	switch {
	case kinds&takesFlag != 0 && text == "true":
		return jsonTrue
	case kinds&takesFlag != 0 && text == "false":
		return jsonFalse
	case kinds&takesNumber != 0 && isNumber(text):
		return jsonNumber
	}
	return jsonString
}

func isNumber(text string) bool {
	state, ok := numberStart, true
	for i := 0; ok && i < len(text); i++ {
		state, ok = state.next(text[i])
	}
	return ok && state.final()
}

// takeFile takes an image. Its type is what the form says or, failing that, what
// the image itself or its name says.
func (r *openAIReader) takeFile(form *formScanner, part formPart) error {
	i := briefImage{isBinary: true, data: span{form.at, form.at}}
	var sniffed string
	for {
		p, err := form.bytes()
		if err != nil {
			return err
		}
		if len(p) == 0 {
			break
		}
		if i.data.isEmpty() {
			sniffed = sniffImage(p)
		}
		i.data.end = form.at
	}
	said, isImage := imageMime(part.contentType)
	switch {
	case i.data.isEmpty(): // as browsers send it if none was chosen
	case !isImage || part.file == "" && part.contentType == "":
		r.refuseValue("it must be a file with an image")
	default:
		i.mime = cmp.Or(said, sniffed, mimeOfFile(part.file))
		r.addImage(&i)
	}
	return nil
}

// formScanner finds the parts of a form (RFC 7578) and where in the body they are,
// which mime/multipart does not tell. It keeps no more than its buffer.
type formScanner struct {
	body      *bufio.Reader
	at        int64  // of the next byte
	delimiter []byte // in front of each part, and behind the last
	taken     int    // bytes of the buffer that have been handed out
	found     int    // length of the delimiter behind that
	isFresh   bool   // nothing has been handed out of the part
}

// formType is the media type of a form (RFC 7578).
const formType = "multipart/form-data"

// formPart is what is said of a part before it.
type formPart struct {
	name, file, contentType string
	isNamed                 bool // there has been a Content-Disposition
}

const (
	formBuffer = 32 << 10
	// maxFormHeader is longer than what any client says of a part: the name of its
	// file is the longest of it.
	maxFormHeader = 8 << 10
	// maxFormBoundary is that of RFC 2046 §5.1.1.
	maxFormBoundary = 70
)

// newFormScanner puts a line break before the body: each delimiter begins with one,
// but for the first.
func newFormScanner(body io.Reader, boundary string) *formScanner {
	const lineBreak = "\r\n"
	return &formScanner{
		body:      bufio.NewReaderSize(io.MultiReader(strings.NewReader(lineBreak), body), formBuffer),
		at:        -int64(len(lineBreak)),
		delimiter: []byte(lineBreak + "--" + boundary),
	}
}

// next goes to the next part. Behind the last one it returns io.EOF.
func (s *formScanner) next() (part formPart, err error) {
	if len(s.delimiter) > len("\r\n--")+maxFormBoundary {
		return part, s.fail(nil, "boundary too long")
	}
	for p := []byte{0}; len(p) > 0; {
		if p, err = s.bytes(); err != nil {
			return part, err
		}
	}
	s.skip(s.found)
	if end, _ := s.body.Peek(2); string(end) == "--" {
		return part, io.EOF
	}
	if line, err := s.line(); err != nil || strings.TrimSpace(line) != "" {
		return part, s.fail(err, "invalid boundary")
	}
	begin := s.at
	for s.at-begin < maxFormHeader {
		line, err := s.line()
		switch {
		case err != nil:
			return part, s.fail(err, "unexpected end of the form")
		case line != "":
			part.describe(line)
		case part.name == "":
			return part, s.fail(nil, "a part has no name")
		default:
			s.isFresh = true
			return part, nil
		}
	}
	return part, s.fail(nil, "a part has too long a header")
}

// describe takes a line of the header. A second name does not count, as with
// mime/multipart, nor does a line that goes on with the one before.
func (p *formPart) describe(line string) {
	key, value, _ := strings.Cut(line, ":")
	switch value = strings.TrimSpace(value); strings.ToLower(key) {
	case "content-disposition":
		if p.isNamed {
			return
		}
		_, about, _ := mime.ParseMediaType(value)
		p.name, p.file, p.isNamed = about["name"], about["filename"], true
	case "content-type":
		p.contentType = value
	}
}

// bytes returns what comes next of the part, nothing at its end. It is valid until
// the next call.
func (s *formScanner) bytes() ([]byte, error) {
	_, _ = s.body.Discard(s.taken)
	s.taken = 0
	p, err := s.body.Peek(formBuffer)
	n, found := s.end(p)
	if n < 0 {
		if err != nil {
			s.at += int64(len(p))
			return nil, s.fail(err, "unexpected end of the form")
		}
		n = len(p) - len(s.delimiter) - 1 // it may begin from there on
	}
	s.taken, s.found = n, found
	s.at += int64(n)
	s.isFresh = s.isFresh && n == 0
	return p[:n], nil
}

// end finds a delimiter and tells its length. A longer boundary of something within the
// part may begin like it; that of an empty part shares its line break with the blank line
// before it, as mime/multipart has it.
func (s *formScanner) end(p []byte) (at, length int) {
	bare := s.delimiter[len("\r\n"):]
	if s.isFresh && bytes.HasPrefix(p, bare) && endsDelimiter(p[len(bare):]) {
		return 0, len(bare)
	}
	for from := 0; ; {
		i := bytes.Index(p[from:], s.delimiter)
		if i < 0 {
			return -1, 0
		}
		i += from
		switch behind := p[i+len(s.delimiter):]; {
		case len(behind) < 2:
			return -1, 0
		case endsDelimiter(behind):
			return i, len(s.delimiter)
		}
		from = i + 1
	}
}

// endsDelimiter tells what may stand behind a boundary.
func endsDelimiter(behind []byte) bool {
	return len(behind) >= 2 && (string(behind[:2]) == "--" || string(behind[:2]) == "\r\n" || behind[0] == ' ' || behind[0] == '\t')
}

// line reads to the end of a line.
func (s *formScanner) line() (string, error) {
	line, err := s.body.ReadSlice('\n')
	s.at += int64(len(line))
	return string(bytes.TrimRight(line, "\r\n")), err
}

func (s *formScanner) skip(n int) {
	_, _ = s.body.Discard(n) // has been seen
	s.at += int64(n)
}

// text reads the rest of the part, or what fits into a limit.
func (s *formScanner) text(limit int) (text string, cut bool, err error) {
	var all []byte
	for {
		p, err := s.bytes()
		if err != nil || len(p) == 0 {
			return string(all), cut, err
		}
		room := limit - len(all)
		cut = cut || room < len(p)
		all = append(all, p[:min(room, len(p))]...)
	}
}

// fail says what is wrong with the form, unless it was the body that failed.
func (s *formScanner) fail(err error, reason string) error {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return fmt.Errorf("reading the request body: %w", err)
	}
	return &jsonError{max(s.at, 0), reason}
}
