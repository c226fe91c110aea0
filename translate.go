// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"errors"
	"io"
	"mime"
	"slices"
	"strings"
)

// wayTo is how a call gets to an upstream.
func (t *trip) wayTo(s *station) way {
	if s.format == formatOpenAI {
		return t.wayToOpenAI(s)
	}
	return t.wayToGoogle(s)
}

// wayToOpenAI translates Google's calls for content: for the API for images if they draw
// and the upstream has one, and else for chats.
func (t *trip) wayToOpenAI(s *station) way {
	c := &t.x.call
	if c.surface == surfaceOpenAI {
		mustBeForm := t.x.isForm() && s.model != t.x.model // in which nothing is replaced
		switch {
		case c.isImages() && s.imagesByChat:
			return wayChat
		case t.x.partOf != nil, mustBeForm:
			return wayImages
		}
		return wayAsIs
	}
	switch {
	case !c.completable():
		return wayNone
	case s.draws && !s.imagesByChat:
		return wayImages
	}
	return wayChat
}

// wayToGoogle translates an OpenAI call that draws, because the OpenAI-compatible
// endpoints of Google's APIs know neither safety settings nor images in chats (wire
// §2). Other chats are left to those endpoints.
func (t *trip) wayToGoogle(s *station) way {
	c := &t.x.call
	isKnown := s.speaks(c) || s.movesNative(c) && (c.completable() || s.format == formatVertex)
	if c.surface == surfaceOpenAI {
		if s.draws && !matchesAny(imagenModels, s.model) {
			return wayNative
		}
		isKnown = s.hasEndpoint(c.method)
	}
	if isKnown {
		return wayAsIs
	}
	return wayNone
}

// changesDialect tells that a native call goes to the other one of Google's APIs.
func (t *trip) changesDialect(s *station) bool {
	return s.way == wayAsIs && t.x.call.isNative() && t.x.call.completable() && s.movesNative(&t.x.call) &&
		(t.x.call.surface == surfaceVertex) != (s.format == formatVertex)
}

// hasEndpoint tells whether an API of Google's has an OpenAI-compatible method:
// none edits images, and Vertex AI's are those of a project.
func (u *upstream) hasEndpoint(method string) bool {
	if u.format == formatVertex {
		return method == "chat.completions" && u.project != ""
	}
	return method != "images.edits"
}

// chart finds out how the call gets to each upstream. Whether an upstream's form has
// words for it is found out at once only if no upstream takes it as it is: that wants
// the whole body, which is on its way to the first one otherwise. It fails if the body
// cannot be read.
func (t *trip) chart() error {
	isSimple := false
	for i := range t.stations {
		s := &t.stations[i]
		if err := t.hearModalities(s); err != nil {
			return err
		}
		s.way = t.wayTo(s)
		s.isUntold = s.way != wayAsIs || t.changesDialect(s)
		isSimple = isSimple || !s.isUntold
	}
	if isSimple {
		return nil
	}
	return t.expressAll()
}

// expressAll keeps the upstreams whose form has words for the call.
func (t *trip) expressAll() error {
	var why *foreign
	for i := range t.stations {
		s := &t.stations[i]
		f, err := t.express(s)
		if err != nil {
			return err
		}
		why = cmp.Or(why, f)
		s.closed, s.isUntold = f != nil, false
	}
	isClosed := func(s station) bool { return s.closed }
	if t.stations = slices.DeleteFunc(t.stations, isClosed); len(t.stations) == 0 && why != nil {
		t.untranslatable(why)
	}
	return nil
}

// canTell tells whether an upstream's form has words for the call. If not, it is
// not asked.
func (t *trip) canTell(s *station) bool {
	if s.isUntold {
		f, err := t.express(s)
		s.isUntold = false
		s.closed = s.closed || f != nil || err != nil
	}
	return !s.closed
}

// hearModalities finds out whether the call draws by what it asks for. That may
// stand anywhere in the body of a chat.
func (t *trip) hearModalities(s *station) error {
	s.draws = s.draws || t.x.call.imageAPI()
	if t.x.call.method != "chat.completions" || s.draws || s.format == formatOpenAI && len(t.upstreams) == 1 {
		return nil
	}
	if err := t.x.body.readAll(); err != nil {
		return err
	}
	s.draws = t.x.body.wants().images
	return nil
}

var foreignMethod = foreign{code: "unsupported_parameter", message: "No upstream can take a call of this kind."}

// missingModel is for a call that would be sent to no model: other forms have none to
// fall back on.
var missingModel = foreign{param: "model", code: "missing_required_parameter", message: "Missing required parameter: 'model'."}

// express puts the call into the words of an upstream, so far as its form has any.
func (t *trip) express(s *station) (*foreign, error) {
	switch {
	case s.way == wayNone:
		return &foreignMethod, nil
	case t.changesDialect(s):
		return t.changeDialect(s)
	case s.way == wayAsIs:
		return nil, nil
	}
	if err := t.x.understandBody(); err != nil {
		return nil, err
	}
	if t.x.brief.foreign != nil {
		return t.x.brief.foreign, nil
	}
	if s.model == "" {
		return &missingModel, nil
	}
	_, f, err := t.layOut(s, rendering{})
	return f, err
}

// changeDialect finds what has to be edited for the other one of Google's APIs.
func (t *trip) changeDialect(s *station) (*foreign, error) {
	if err := t.x.body.readAll(); err != nil {
		return nil, err
	}
	if !t.x.body.isJSON() {
		return nil, nil // which Google may explain
	}
	d, f, err := dialectEdits(t.x.body.content(), s.format == formatVertex)
	s.dialect = d
	return f, err
}

// understandBody reads the whole body for what it asks for, once.
func (x *exchange) understandBody() (err error) {
	if x.brief != nil {
		return nil
	}
	if err = x.body.readAll(); err != nil {
		return err
	}
	x.brief, err = readBrief(&x.call, x.contentType, x.body.content())
	return err
}

// readBrief reads a body in the form of its call. It fails with a *jsonError, or
// with what reading failed with.
func readBrief(c *call, contentType string, body io.Reader) (*brief, error) {
	kind, params, _ := mime.ParseMediaType(contentType)
	switch {
	case c.method == "chat.completions":
		return readBriefChat(body)
	case c.isImages() && kind == formType:
		return readBriefForm(body, params["boundary"])
	case c.isImages():
		return readBriefImages(body, c.method == "images.edits")
	}
	return readBriefNative(body, c.surface == surfaceVertex)
}

// layOut is the body as an upstream of another form gets it. It can only fail where
// it has not been done before.
func (t *trip) layOut(s *station, rd rendering) (*layout, *foreign, error) {
	to := translation{
		model:    s.model,
		isVertex: s.format == formatVertex,
		stream:   t.x.streamed(),
		edits:    rd.edits,
	}
	if rd.omit&addedSafety == 0 {
		to.safety = t.settings
	}
	if rd.omit&addedModalities == 0 {
		to.modalities = t.modalities
	}
	b := *t.x.brief
	b.draws = b.draws || s.draws
	if t.x.partOf != nil {
		b.count = 1
	}
	switch s.way {
	case wayChat:
		l, f := b.chat(to)
		return l, f, nil
	case wayImages:
		text := func(p passage) (string, error) { return t.x.body.text(p, rd.edits, maxTurn) }
		l, isEdit, f, err := b.imagesAPI(to, text)
		s.isEdit = isEdit
		return l, f, err
	}
	l, f := b.native(to)
	return l, f, nil
}

// course is the form in which the call goes to the upstream.
func (s *station) course(x *exchange) course {
	return course{way: s.way, model: s.model, stream: x.streamed() && s.way != wayImages, isEdit: s.isEdit}
}

// untranslatable ends the trip of a call that no upstream has words for.
func (t *trip) untranslatable(f *foreign) {
	a := &attempt{project: t.x.clientProject, foreign: f}
	a.verdict, a.status = verdict{class: classClient, reason: reasonUnsupported}, 400
	a.detail = strings.TrimSuffix(f.message, ".")
	if f.param != "" && !strings.Contains(f.message, f.param) {
		a.detail = f.param + ": " + a.detail
	}
	t.x.attempt = a
	t.isEnd, t.isSpoilt = true, true
}

// isForm tells a body that is no JSON but a form.
func (x *exchange) isForm() bool { return strings.HasPrefix(x.contentType, "multipart/") }

// mayTranslate tells whether a call could have to be put into another form, for
// which its body is kept.
func (r *router) mayTranslate(c *call) bool {
	for _, u := range r.upstreams {
		if c.surface == surfaceOpenAI && (u.format != formatOpenAI || u.imagesByChat) ||
			c.surface != surfaceOpenAI && u.format == formatOpenAI || u.movesNative(c) {
			return true
		}
	}
	return false
}

// translated is the body for an upstream of another form. What could be said when
// the call was planned can still be said in other words, unless these are too many:
// then there is no content type, and nothing is sent.
func (t *trip) translated(s *station, rd rendering) *layout {
	l, f, err := t.layOut(s, rd)
	if err != nil || f != nil {
		return new(layout)
	}
	return l
}

// measureLayout finds out how long a layout is, and whether it can be sent at all.
func (t *trip) measureLayout(l *layout) (err error) {
	switch {
	case l == nil:
		return nil
	case l.contentType == "":
		return errTooManyWords
	}
	l.total, err = t.x.body.lengthOf(l)
	return err
}

var errTooManyWords = errors.New("rephrased prompt is too long for the upstream's form")

// droppedFrom are the fields that an attempt leaves out, because the upstream's form
// has no word for them.
func (t *trip) droppedFrom(l *leg) []string {
	if l.sent.layout == nil {
		return l.dialect.dropped
	}
	return l.sent.layout.dropped
}

// printable is a rendering as JSON, which forms are not.
func (t *trip) printable(s *station, rd rendering) rendering {
	isForm := t.x.isForm()
	if rd.layout != nil {
		isForm = strings.HasPrefix(rd.layout.contentType, "multipart/")
	}
	if !isForm || t.x.understandBody() != nil {
		return rd
	}
	if l, f := t.x.brief.native(translation{model: s.model, edits: rd.edits}); f == nil {
		rd.layout = l
	}
	return rd
}

// added is what the body carries that the client has not written.
func (t *trip) added(l *leg) additions {
	switch {
	case l.way == wayNative && t.settings != nil:
		return allAdditions
	case l.way > wayAsIs:
		return 0
	}
	return t.x.body.added()
}

// speaks tells whether calls of a form can be sent there as they are.
func (u *upstream) speaks(c *call) bool {
	switch {
	case c.project != "", c.surface == surfaceVertex:
		return u.format == formatVertex || u.takesVertex
	case c.surface == surfaceOpenAI && !c.isGoogles:
		return u.format == formatOpenAI
	}
	return u.format == formatGemini
}

// nameFor is what becomes of a model in the body of a call that goes out as it is.
func (s *station) nameFor(c *call) func(string) string {
	switch {
	case c.surface == surfaceOpenAI && s.format == formatVertex: // whose endpoint wants the publisher
		return func(model string) string { return "google/" + bareModel(s.mapModel(model)) }
	case c.isOpenAPI() && s.format == formatGemini && !s.takesVertex: // which has no publishers
		return func(model string) string { return bareModel(s.mapModel(model)) }
	}
	return s.mapModel
}
