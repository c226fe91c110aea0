// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// trace tells what became of a call to the span that Caddy's tracing handler has
// opened for its request, if there is one and it is recorded: by the semantic
// conventions for generative AI (semantic-conventions-genai, in development; the
// provider's name since v1.37), and by the names of the placeholders. Prompts are
// optional there and absent here.
func (x *exchange) trace() {
	span := trace.SpanFromContext(x.ctx)
	if !span.IsRecording() {
		return
	}
	attributes := append(make([]attribute.KeyValue, 0, 32),
		attribute.String("gen_ai.operation.name", x.operation()),
		attribute.String("gen_ai.provider.name", x.provider()),
	)
	add := func(a attribute.KeyValue, isGiven bool) {
		if isGiven {
			attributes = append(attributes, a)
		}
	}
	add(text("gen_ai.request.model", x.model), x.model != "")
	add(attribute.Bool("gen_ai.request.stream", true), x.streamed())
	add(attribute.String("gen_ai.output.type", "image"), x.asksForImages())
	add(text("gen_ai.response.model", firstWord(x.facts.modelVersion)), x.facts.modelVersion != "")
	add(text("gen_ai.response.id", firstWord(x.facts.responseID)), x.facts.responseID != "")
	add(attribute.StringSlice("gen_ai.response.finish_reasons", []string{strings.ToLower(asWord(x.facts.finish))}), x.facts.finish != "")
	add(attribute.String("error.type", cmp.Or(knownReason(x.verdict.reason), x.verdict.class.String())), x.verdict.class != classOK)
	used := x.used()
	add(attribute.Int64("gen_ai.usage.input_tokens", used.input), used.total() > 0)
	add(attribute.Int64("gen_ai.usage.output_tokens", used.output+used.thinking), used.total() > 0)
	add(attribute.Int64("gen_ai.usage.reasoning.output_tokens", used.thinking), used.thinking > 0)
	add(attribute.Int64("gen_ai.usage.image.output_tokens", used.image), used.image > 0)
	for _, f := range publishedFields {
		attributes = append(attributes, attributeOf("caddy.gemini."+f.name, f.value(x)))
	}
	span.SetAttributes(attributes...)
}

// operation is what the conventions call what the call does.
func (x *exchange) operation() string {
	if x.call.method == "chat.completions" {
		return "chat"
	}
	return "generate_content"
}

// provider is what the conventions call who is asked: by the upstream's form, or by
// the call's where the upstream takes more than one.
func (x *exchange) provider() string {
	asked := formatGemini
	if x.at != nil {
		asked = x.at.format
	}
	switch {
	case asked == formatOpenAI:
		return "openai"
	case asked == formatVertex, (x.at == nil || x.at.takesVertex) && x.call.project != "":
		return "gcp.vertex_ai"
	}
	return "gcp.gemini"
}

// asksForImages tells whether images are what the client wants, by its words or
// by its choice of model.
func (x *exchange) asksForImages() bool {
	return x.call.imageAPI() || x.body.wants().images || x.last != nil && x.last.draws
}

// attributeOf is a fact that is also a placeholder.
func attributeOf(name string, value any) attribute.KeyValue {
	switch v := value.(type) {
	case int:
		return attribute.Int(name, v)
	case int64:
		return attribute.Int64(name, v)
	case float64:
		return attribute.Float64(name, v)
	}
	return text(name, fmt.Sprint(value))
}

// text is an attribute whose value a client may have chosen. A span that is not
// UTF-8 cannot be exported, nor can any other of its batch.
func text(name, value string) attribute.KeyValue { return attribute.String(name, storable(value)) }
