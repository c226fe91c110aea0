// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"net/url"
	"strings"
)

// vertexVersions are the versions of Vertex AI that stand for those of the Gemini
// API. Its v1beta1 has what v1beta and v1alpha have, which is why the Gen AI SDKs
// call it (wire §1).
var vertexVersions = map[string]string{"v1": "v1"}

// vertexPath is the escaped path of a verb of Google's models in Vertex AI. Without
// a project it is that of express mode, which has no locations. Calls without a
// location go to the global one. The version may be one of the Gemini API.
func vertexPath(version, project, location, model, verb string) string {
	path := "/" + cmp.Or(vertexVersions[version], "v1beta1")
	if project != "" {
		path += vertexParent(project, location)
	}
	return path + "/publishers/google/models/" + url.PathEscape(bareModel(model)) + ":" + verb
}

func vertexParent(project, location string) string {
	return "/projects/" + url.PathEscape(project) + "/locations/" + url.PathEscape(cmp.Or(location, "global"))
}

// geminiPath is the escaped path of a verb in the Gemini API. The version is the one
// that knows all fields: v1 has refused responseModalities (wire §2).
func geminiPath(model, verb string) string {
	return "/v1beta/models/" + url.PathEscape(bareModel(model)) + ":" + verb
}

// openAIPathOf is the escaped path of an OpenAI-compatible method, such as
// chat.completions, in an API (wire §1). Vertex AI has none without a project.
func openAIPathOf(f format, method, project, location string) string {
	path := "/" + strings.ReplaceAll(method, ".", "/")
	switch f {
	case formatGemini:
		return "/v1beta/openai" + path
	case formatVertex:
		return "/v1" + vertexParent(project, location) + "/endpoints/openapi" + path
	default:
		return "/v1" + path
	}
}
