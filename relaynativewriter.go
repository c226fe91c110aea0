// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"strconv"
)

// answerWriter writes answers as the Gemini API does (wire §3), piece by piece:
// whatever is begun opens what it stands in, so that there is nothing of which
// nothing is known.
type answerWriter struct {
	out  *bytes.Buffer
	form streamForm

	depth      nativeDepth
	objects    int    // that have been begun
	candidates int    // likewise, in this object
	parts      int    // likewise, in this candidate
	closing    string // of the part being written
}

// nativeDepth is what has been opened and not closed.
type nativeDepth uint8

const (
	inNothing nativeDepth = iota
	inObject
	inCandidate
	inPart
)

// nativeEnding is how a candidate ends.
type nativeEnding struct {
	index  int
	finish string // "" if it has not ended yet, as in most chunks of a stream
	said   string // about that
}

// nativeRest is what stands behind the candidates of an answer.
type nativeRest struct {
	Feedback     *nativeFeedback `json:"promptFeedback,omitempty"`
	Fault        *errorObject    `json:"error,omitempty"`
	Usage        *nativeUsage    `json:"usageMetadata,omitempty"`
	ModelVersion string          `json:"modelVersion,omitempty"`
	ResponseID   string          `json:"responseId,omitempty"`
}

type (
	nativeFeedback struct {
		Reason  string `json:"blockReason"`
		Message string `json:"blockReasonMessage,omitempty"`
	}
	nativeUsage struct {
		Prompt        int64         `json:"promptTokenCount"`
		Cached        int64         `json:"cachedContentTokenCount,omitempty"` // of those of the prompt
		Candidates    int64         `json:"candidatesTokenCount"`
		Total         int64         `json:"totalTokenCount"`
		PromptDetails []nativeCount `json:"promptTokensDetails,omitempty"`
		Details       []nativeCount `json:"candidatesTokensDetails,omitempty"`
		Thoughts      int64         `json:"thoughtsTokenCount,omitempty"`
	}
	nativeCount struct {
		Modality string `json:"modality"`
		Tokens   int64  `json:"tokenCount"`
	}
)

func (w *answerWriter) write(texts ...string) {
	for _, text := range texts {
		w.out.WriteString(text)
	}
}

func (w *answerWriter) beginObject() {
	if w.depth >= inObject {
		return
	}
	switch {
	case w.form == formEvents:
		w.write("data: ")
	case w.form == formArray && w.objects == 0:
		w.write("[")
	case w.form == formArray:
		w.write("\n,\r\n")
	}
	w.write("{")
	w.objects++
	w.candidates, w.depth = 0, inObject
}

func (w *answerWriter) beginCandidate() {
	if w.depth >= inCandidate {
		return
	}
	w.beginObject()
	separator := ","
	if w.candidates == 0 {
		separator = `"candidates":[`
	}
	w.write(separator, `{"content":{"parts":[`)
	w.candidates++
	w.parts, w.depth = 0, inCandidate
}

// beginPart begins a part, up to the string that is all of it but for closing.
func (w *answerWriter) beginPart(opening, closing string) {
	w.endPart()
	w.beginCandidate()
	if w.parts > 0 {
		w.write(",")
	}
	w.write(opening)
	w.parts++
	w.closing, w.depth = closing, inPart
}

func (w *answerWriter) endPart() {
	if w.depth == inPart {
		w.write(w.closing)
		w.depth = inCandidate
	}
}

func (w *answerWriter) endCandidate(e nativeEnding) {
	if w.depth < inCandidate {
		return
	}
	w.endPart()
	w.write(`],"role":"model"}`)
	if e.finish != "" {
		w.write(`,"finishReason":"`, e.finish, `"`)
	}
	if e.said != "" {
		w.write(`,"finishMessage":`, string(encode(e.said)))
	}
	w.write(`,"index":`, strconv.Itoa(e.index), "}")
	w.depth = inObject
}

func (w *answerWriter) endObject(rest nativeRest) {
	members := string(encode(rest))[len("{"):]
	if w.candidates > 0 {
		w.write("]")
		if members != "}" {
			w.write(",")
		}
	}
	w.write(members)
	if w.form == formEvents {
		w.write("\r\n\r\n")
	}
	w.depth = inNothing
}

// end ends the answer, if there is one.
func (w *answerWriter) end() {
	if w.form == formArray && w.objects > 0 {
		w.write("]")
	}
}
