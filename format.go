// SPDX-License-Identifier: Apache-2.0

package gemini

// format is what an upstream speaks.
type format uint8

const (
	formatGemini format = iota // generativelanguage.googleapis.com
	formatVertex               // aiplatform.googleapis.com
	formatOpenAI               // api.openai.com, and most aggregators
)

// formats are their names in a configuration.
var formats = map[string]format{"gemini": formatGemini, "vertex": formatVertex, "openai": formatOpenAI}

// way is how a call goes to an upstream: as the client wrote it, or in another
// form.
type way uint8

const (
	wayNone   way = iota // the upstream's form has nothing like it
	wayAsIs              // as it is, perhaps at another path
	wayNative            // as generateContent or streamGenerateContent
	wayImages            // as OpenAI's images/generations or images/edits
	wayChat              // as OpenAI's chat/completions
)
