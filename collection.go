// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"errors"
	"io"
	"strconv"
)

// collection is OpenAI's answer with images: an envelope around those of one or
// more answers, which stream through it one after the other.
type collection struct {
	x       *exchange
	current io.ReadCloser        // the elements of the data, from one answer
	next    func() io.ReadCloser // the next of them; nil at the end
	due     []byte               // before the next bytes of an answer
	ready   []byte               // to be given out
	isBegun bool                 // something of an answer has been seen
	isEnd   bool
}

func newCollection(x *exchange, first io.ReadCloser, next func() io.ReadCloser) *collection {
	head := strconv.AppendInt([]byte(`{"created":`), x.arrived.Unix(), 10)
	return &collection{x: x, current: first, next: next, due: append(head, `,"data":[`...)}
}

// Read gives out the answer. The envelope goes with what is in it: alone, it would be
// all that a client gets at once of an image that comes slowly.
func (c *collection) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		switch {
		case len(c.ready) > 0:
			n := copy(p, c.ready)
			c.ready = c.ready[n:]
			return n, nil
		case c.isEnd:
			return 0, io.EOF
		}
		n, err := c.current.Read(p)
		if n > 0 && len(c.due) > 0 {
			c.ready, c.due, n = append(c.due, p[:n]...), nil, 0
			c.isBegun = true
		}
		switch {
		case errors.Is(err, io.EOF):
			c.advance()
		case err != nil:
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// advance goes on to the next answer, or to the end.
func (c *collection) advance() {
	_ = c.current.Close()
	following := c.next()
	if c.isBegun {
		c.due = []byte(",")
	}
	if following != nil {
		c.current = following
		return
	}
	c.isEnd = true
	if !c.isBegun {
		c.ready = c.due
	}
	c.ready = append(c.ready, c.tail()...)
}

// collectionUsage is the usage of all answers, in the words of OpenAI's API.
type collectionUsage struct {
	Input        int64             `json:"input_tokens"`
	InputDetail  collectionDetail  `json:"input_tokens_details"`
	Output       int64             `json:"output_tokens"`
	OutputDetail *collectionDetail `json:"output_tokens_details,omitempty"`
	Total        int64             `json:"total_tokens"`
}

type collectionDetail struct {
	Text  int64 `json:"text_tokens"`
	Image int64 `json:"image_tokens"`
}

func (c *collection) tail() []byte {
	u, inputImage := c.x.answered(), int64(0)
	c.x.each(func(part *exchange) { inputImage += part.facts.inputImage })
	told := collectionUsage{
		Input: u.input, InputDetail: collectionDetail{u.input - inputImage, inputImage},
		Output: u.output + u.thinking, Total: u.total(),
	}
	if u.image > 0 {
		told.OutputDetail = &collectionDetail{told.Output - u.image, u.image}
	}
	return append(append([]byte(`],"usage":`), encode(told)...), '}')
}

// Close ends what is left of it.
func (c *collection) Close() error { return c.current.Close() }
