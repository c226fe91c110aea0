// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// noSignature stands in for a thought signature that the client has lost. It
// is Google's own, and costs quality (wire §6).
const noSignature = `"skip_thought_signature_validator"`

// maxSignatures is how many parts are signed; no conversation is that long.
const maxSignatures = 10_000

const (
	_ fieldID = iota
	signContent
	signRole
	signPart
	signMedia // or a function call: what needs a signature
	signText
	signature
	signOther // shows how the client spells its keys, no more
)

var signSchema = func() *field {
	other := &field{id: signOther}
	root := newSchema(map[string]field{
		"":                                {rest: other},
		"contents":                        {id: signContent, rest: other},
		"contents.role":                   {id: signRole, keep: maxWord},
		"contents.parts":                  {id: signPart, rest: other},
		"contents.parts.inlineData":       {id: signMedia},
		"contents.parts.fileData":         {id: signMedia},
		"contents.parts.functionCall":     {id: signMedia},
		"contents.parts.text":             {id: signText},
		"contents.parts.thoughtSignature": {id: signature},
	})
	contents := root.member("contents")
	contents.repeatable()
	contents.member("parts").repeatable()
	return root
}()

// signatureEdits returns the edits that put a placeholder into every image,
// file and function call of the model's that has no thought signature, and
// with texts into its texts, too. Bodies with more than maxSignatures of them
// are left alone. It fails with a *jsonError, or with what the body failed with.
func signatureEdits(body io.Reader, texts bool) ([]edit, error) {
	s := &signer{texts: texts}
	s.scan.init(s, signSchema)
	if err := s.scan.scanFrom(body); err != nil || len(s.edits) > maxSignatures {
		return nil, err
	}
	for i := range s.edits {
		if s.edits[i].insert == nil {
			s.edits[i].insert = signatureMember(s.isSnake)
		}
	}
	return s.edits, nil
}

func signatureMember(snake bool) []byte {
	return []byte("," + key("thoughtSignature", snake) + noSignature)
}

type signer struct {
	scan    jsonScanner
	texts   bool
	isSnake bool   // keys of the body are
	edits   []edit // those that insert nothing yet add a member in the body's spelling

	isModel bool // whose content it is
	before  int  // edits of the contents before it
	part    unsignedPart
}

// unsignedPart is what is known of the part being read.
type unsignedPart struct {
	isMedia bool
	isText  bool
	snake   bool // the key of the media is
	signed  bool
	empty   edit // of a signature that is there, but empty
}

func (s *signer) begin(*field) {}

func (s *signer) open(f *field, name []byte, array bool, _ int64) {
	s.isSnake = s.isSnake || isSnake(name)
	switch f.id {
	case signContent:
		if !array {
			s.isModel, s.before = false, len(s.edits)
		}
	case signPart:
		if !array {
			s.part = unsignedPart{}
		}
	case signMedia:
		s.part.isMedia, s.part.snake = true, isSnake(name)
	case signature:
		s.part.signed = true // with something only Google can judge
	}
}

func (s *signer) close(f *field, array, _ bool, at int64) (pause bool) {
	switch {
	case array:
	case f.id == signPart:
		s.sign(at)
	case f.id == signContent && !s.isModel:
		s.edits = s.edits[:s.before]
	}
	return false
}

func (s *signer) scalar(f *field, name []byte, kind jsonKind, value []byte, start int64) {
	s.isSnake = s.isSnake || isSnake(name)
	switch f.id {
	case signRole:
		s.isModel = string(value) == "model"
	case signText:
		s.part.isText = kind == jsonString
	case signature:
		length := len("null")
		if kind == jsonString {
			length = int(s.scan.end - start)
		}
		if kind == jsonNull || length == len(`""`) {
			s.part.empty = edit{start, length, []byte(noSignature)}
		} else {
			s.part.signed = true
		}
	}
}

// sign ends a part at its closing brace. Since the role may follow, it does so
// for everybody's.
func (s *signer) sign(at int64) {
	p := &s.part
	needsOne := p.isMedia || p.isText && s.texts
	if p.signed || !needsOne || len(s.edits) > maxSignatures {
		return
	}
	e := edit{at: at}
	switch {
	case p.empty.remove > 0:
		e = p.empty
	case p.isMedia:
		e.insert = signatureMember(p.snake)
	}
	s.edits = append(s.edits, e)
}

// missingSignature recognises the answer to a conversation that came back
// without its thought signatures (wire §6); texts is true if one of its texts
// misses its own.
func missingSignature(e *googleError) (texts, ok bool) {
	if e.code != http.StatusBadRequest || !strings.Contains(e.message, "is missing a thought_signature") {
		return false, false
	}
	return strings.HasPrefix(e.message, "Text part"), true
}

// complaint finds what Google rejects (wire §2). Requests that parse are checked
// in words of their own (ComfyUI-Gemini issue #8, one-api issue #45).
var complaint = regexp.MustCompile(`Unknown name "(\w+)"(?: at '([^']+)')?|` +
	`(?:Invalid value at ['"]|GenerateContentRequest\.|the requested )([\w.\[\] ]+)`)

// rejections are tried in order; fields are in snake_case.
var rejections = []struct {
	field *regexp.Regexp
	added additions
}{
	{regexp.MustCompile(`\bgeneration_config\.safety_settings\b`), 0}, // misplaced by the client
	{regexp.MustCompile(`\bsafety_settings\b`), addedSafety},
	{regexp.MustCompile(`\bgeneration_config(\.response_modalities\b|$)|^\.response modalities`), addedModalities},
}

// rejected returns what a 400 says should not have been added to a request.
// That the client had not set it itself is for the caller to know.
func rejected(e *googleError) additions {
	if e.code != http.StatusBadRequest {
		return 0
	}
	var found additions
	for _, said := range append([]string{e.message}, e.violations...) {
		for _, match := range complaint.FindAllStringSubmatch(said, -1) {
			field := snakeCase(match[2] + "." + match[1] + match[3])
			for _, rule := range rejections {
				if rule.field.MatchString(field) {
					found |= rule.added
					break
				}
			}
		}
	}
	return found
}

// repair mends what the upstream complains about, once: it leaves out what was
// added here, or puts the documented placeholder where a thought signature is
// missing (wire §2 and §6).
func (t *trip) repair(l *leg, e *googleError) bool {
	if unknown := rejected(e) & t.added(l) &^ l.sent.omit; unknown != 0 {
		t.omit |= unknown
		t.mended = "repaired by leaving out " + unknown.String()
		return true
	}
	texts, isMissing := missingSignature(e)
	if !isMissing || len(t.signed) > 0 || t.x.body.readAll() != nil || !t.x.body.isJSON() {
		return false
	}
	signed, err := signatureEdits(t.x.body.content(), texts)
	if err != nil || len(signed) == 0 {
		return false
	}
	t.signed = signed
	t.mended = "repaired with placeholders for thought_signature"
	return true
}

// repairedLeg is the same attempt, mended, unless a filter has blocked it so
// before.
func (t *trip) repairedLeg(l *leg) *leg {
	if t.recallBlocks() != nil || t.isEnd || !t.mayTake(l.station, l.seat) {
		return nil
	}
	return &leg{station: l.station, seat: l.seat, repaired: t.mended}
}

// repairLife is for how long it is remembered what an upstream rejects.
const repairLife = 24 * time.Hour

// hasHelped takes down that a call without an addition was not rejected, so that
// the next ones begin without it.
func (t *trip) hasHelped(l *leg, now time.Time) {
	if t.omit != 0 {
		t.state.refused.put(t.version(l.station), t.omit|t.refusedBy(l.station), now.Add(repairLife), now)
	}
}

// version is what rejects fields: a model by a version of the API (js-genai issue
// #1322).
func (t *trip) version(s *station) string {
	return s.name + "\n" + t.x.call.version + "\n" + s.model
}

// refusedBy is what need not be tried again.
func (t *trip) refusedBy(s *station) additions {
	if t.state.refused.isEmpty() {
		return 0
	}
	refused, _ := t.state.refused.get(t.version(s), t.now())
	return refused
}
