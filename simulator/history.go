// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"

	"github.com/tidwall/gjson"
)

// signedFields are the parts that come with a thought signature, and have to
// come back with it, and how Google's complaint begins when they do not.
var signedFields = []struct{ field, complaint string }{
	{"inlineData", noImageSignature},
	{"fileData", noImageSignature},
	{"functionCall", "Function call is missing a thought_signature in functionCall parts,"},
}

const noImageSignature = "Image part is missing a thought_signature in"

// readSignatures looks for thought signatures where the model has put them.
func (c *call) readSignatures(contents []gjson.Result) {
	for i, content := range contents {
		if content.Get("role").Str != "model" {
			continue
		}
		for j, part := range elements(content.Get("parts")) {
			complaint := complaintAbout(part)
			if complaint == "" {
				continue
			}
			c.signed = get(part, "thoughtSignature").Str != ""
			if !c.signed {
				c.unsigned = unsignedPart(complaint, i+1, j+1)
				return
			}
		}
	}
}

// complaintAbout is empty for parts that need no signature.
func complaintAbout(part gjson.Result) string {
	for _, f := range signedFields {
		if get(part, f.field).Exists() {
			return f.complaint
		}
	}
	return ""
}

// unsignedPart complains about a part. Positions count from 1.
func unsignedPart(complaint string, content, part int) *apiError {
	return invalidArgument(fmt.Sprintf("%s content position %d, part position %d. Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures#model-behavior for more details.",
		complaint, content, part))
}
