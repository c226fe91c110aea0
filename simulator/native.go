// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"crypto/rand"
	"net/http"
	"strings"
	"time"
)

// native is the API's own dialect, generateContent and streamGenerateContent.
type native struct{}

// failure is one object, in an array for a stream that is one.
func (native) failure(c *call, e *apiError) any {
	if c.framing == chunks {
		return array{e.object()}
	}
	return e.object()
}

func (native) render(x *exchange, a answer) error {
	id := rand.Text()[:22]
	if x.call.framing != unary {
		return x.stream(a.chunks(x.call, id), a.breaks)
	}
	if a.breaks != nil {
		return x.fail(a.breaks)
	}
	candidates := array{}
	for i, c := range a.candidates {
		candidates = append(candidates, c.object(x.call, i, c.finish))
	}
	return x.json(a.response(x.call, id, candidates, a.usage))
}

// response is a GenerateContentResponse.
func (a answer) response(c *call, id string, candidates array, u usage) object {
	var o object
	if len(candidates) > 0 {
		o = append(o, member{"candidates", candidates})
	}
	if feedback := a.feedback(); len(feedback) > 0 {
		o = append(o, member{"promptFeedback", feedback})
	}
	o = append(o, member{"usageMetadata", u.object()}, member{"modelVersion", c.model})
	if c.vertex {
		o = append(o, member{"createTime", time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")})
	}
	return append(o, member{"responseId", id})
}

func (a answer) feedback() object {
	var o object
	if a.block != "" {
		o = append(o, member{"blockReason", a.block})
	}
	if a.ratings != nil {
		o = append(o, member{"safetyRatings", a.ratings})
	}
	if a.blockMessage != "" {
		o = append(o, member{"blockReasonMessage", a.blockMessage})
	}
	return o
}

// object is a Candidate. On Vertex AI, role comes before parts and a single
// candidate has no index.
func (c candidate) object(call *call, index int, finish string) object {
	var o object
	if content, present := c.content(call.vertex); present {
		o = append(o, member{"content", content})
	}
	if finish != "" {
		o = append(o, member{"finishReason", finish})
		if c.message != "" {
			o = append(o, member{"finishMessage", c.message})
		}
		if c.token != "" {
			o = append(o, member{"continuationToken", c.token})
		}
	}
	if c.ratings != nil {
		o = append(o, member{"safetyRatings", c.ratings})
	}
	if !call.vertex || index > 0 {
		o = append(o, member{"index", index})
	}
	return o
}

func (c candidate) content(vertex bool) (content object, present bool) {
	role := member{"role", "model"}
	if len(c.parts) > 0 {
		parts := array{}
		for _, p := range c.parts {
			parts = append(parts, p.object())
		}
		if vertex {
			return object{role, {"parts", parts}}, true
		}
		return object{{"parts", parts}, role}, true
	}
	switch c.empty {
	case contentMissing:
		return nil, false
	case contentRole:
		return object{role}, true
	case contentNoParts:
		return object{{"parts", array{}}}, true
	case contentNullParts:
		return object{{"parts", nil}}, true
	default:
		return object{}, true
	}
}

// object is a Part. That it is a thought is said after the data: a reader
// knows whether an image is the final one only at the end of its part.
func (p piece) object() object {
	o := object{{"text", p.text}}
	if p.picture != nil {
		o = object{{"inlineData", object{{"mimeType", p.picture.mime}, {"data", p.picture.data}}}}
	}
	if p.thought {
		o = append(o, member{"thought", true})
	}
	if p.signed {
		o = append(o, member{"thoughtSignature", signature()})
	}
	return o
}

// textChunks is in how many chunks a text is streamed.
const textChunks = 3

// chunks cuts an answer into the responses of a stream: texts in a few pieces,
// a picture whole, the reason last. The signature of a text follows on an
// empty one.
func (a answer) chunks(call *call, id string) []object {
	if len(a.candidates) == 0 {
		return []object{a.response(call, id, nil, a.usage)}
	}
	var list []object
	running := call.usage()
	for index, c := range a.candidates {
		var late []piece
		for _, part := range c.parts {
			if part.text != "" && part.signed {
				part.signed = false
				late = []piece{{signed: true}}
			}
			for _, p := range part.split() {
				running = running.delivered([]piece{p})
				only := candidate{parts: []piece{p}}
				list = append(list, a.response(call, id, array{only.object(call, index, "")}, running))
			}
		}
		if c.finish == "" {
			continue
		}
		if len(c.parts) > 0 && c.finish == "STOP" {
			c.parts = late
			if len(late) == 0 {
				c.parts = []piece{{}} // an empty text, as on the wire
			}
		} else {
			c.parts = nil
		}
		list = append(list, a.response(call, id, array{c.object(call, index, c.finish)}, a.usage))
	}
	return list
}

// split cuts a text at spaces.
func (p piece) split() []piece {
	words := strings.SplitAfter(p.text, " ")
	if p.picture != nil || p.thought || len(words) < textChunks {
		return []piece{p}
	}
	var pieces []piece
	for i := range textChunks {
		from, to := i*len(words)/textChunks, (i+1)*len(words)/textChunks
		pieces = append(pieces, piece{text: strings.Join(words[from:to], "")})
	}
	return pieces
}

// stream writes responses one by one, then the error that ends the stream
// early, if there is one: a bare object between events, as recorded, or the
// last element of an array.
func (x *exchange) stream(responses []object, breaks *apiError) error {
	if breaks != nil {
		responses = responses[:min(2, len(responses))]
	}
	if x.call.framing == chunks {
		if breaks != nil {
			responses = append(responses, breaks.object())
		}
		return x.array(responses)
	}
	x.w.Header().Set("Content-Disposition", "attachment")
	out := x.open(http.StatusOK, eventStream)
	for _, response := range responses {
		if err := x.event(out, response); err != nil {
			return err
		}
	}
	if breaks != nil {
		printer{w: out.Writer, pretty: true}.print(breaks.object())
		_ = out.WriteByte('\n')
	}
	return out.close()
}

// event writes one event and sends it off.
func (x *exchange) event(out output, data any) error {
	_, _ = out.WriteString("data: ")
	printer{w: out.Writer}.print(data)
	_, _ = out.WriteString("\r\n\r\n")
	return out.flush()
}

// array writes the elements of a JSON array as they come.
func (x *exchange) array(elements []object) error {
	out := x.open(http.StatusOK, googleJSON)
	for i, element := range elements {
		opening := "\n,\r\n"
		if i == 0 {
			opening = "["
		}
		_, _ = out.WriteString(opening)
		printer{w: out.Writer, pretty: true}.print(element)
		if err := out.flush(); err != nil {
			return err
		}
	}
	_ = out.WriteByte(']')
	return out.close()
}
