// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// fixtures is the directory with recorded answers of the Gemini API.
func fixtures(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GEMINI_FIXTURES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "fixtures")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no recorded answers: %v; set GEMINI_FIXTURES to where they are", err)
	}
	return dir
}

// fixtureRow is a line of the index: name, status and content type.
var fixtureRow = regexp.MustCompile("(?m)^\\| `([^`]+\\.(?:json|sse))` \\| (\\d{3}) \\| ([^|]+) \\|")

// blockedFixtures are the recordings that are blocks, with reason and stage.
// All others are delivered byte for byte.
var blockedFixtures = map[string]struct{ reason, stage string }{
	"blocked_candidate_model_armor.json":                      {"MODEL_ARMOR", "output"},
	"blocked_image_other_gemini31_flash.json":                 {"IMAGE_OTHER", "output"},
	"blocked_image_prohibited_content_gemini31_flash.json":    {"IMAGE_PROHIBITED_CONTENT", "output"},
	"blocked_image_prohibited_content_gemini3_pro_stream.sse": {"IMAGE_PROHIBITED_CONTENT", "output"},
	"blocked_image_recitation_gemini31_flash.json":            {"IMAGE_RECITATION", "output"},
	"blocked_image_safety_gemini3_pro.json":                   {"IMAGE_SAFETY", "output"},
	"blocked_no_image_content_empty.json":                     {"NO_IMAGE", "output"},
	"blocked_no_image_no_content.json":                        {"NO_IMAGE", "output"},
	"blocked_no_image_stream_after_text.sse":                  {"NO_IMAGE", "output"},
	"blocked_other_with_message_no_content.json":              {"OTHER", "output"},
	"blocked_prohibited_content_candidate.json":               {"PROHIBITED_CONTENT", "output"},
	"blocked_safety_gemini15_content_empty.json":              {"SAFETY", "output"},
	"blocked_safety_gpt4free_2341.json":                       {"SAFETY", "output"},
	"blocked_safety_vertex_no_content.json":                   {"SAFETY", "output"},
	"error_400_imagen_prompt_blocked.json":                    {"IMAGE_SAFETY", "prompt"},
	"imagen_all_filtered.json":                                {"IMAGE_SAFETY", "output"},
	"notblocked_thought_image_then_no_image.json":             {"NO_IMAGE", "output"},
	"prompt_blocked_image_safety.json":                        {"IMAGE_SAFETY", "prompt"},
	"prompt_blocked_model_armor.json":                         {"MODEL_ARMOR", "prompt"},
	"prompt_blocked_other.json":                               {"OTHER", "prompt"},
	"prompt_blocked_prohibited_content.json":                  {"PROHIBITED_CONTENT", "prompt"},
	"prompt_blocked_prohibited_content_array_stream.json":     {"PROHIBITED_CONTENT", "prompt"},
	"prompt_blocked_prohibited_content_stream.sse":            {"PROHIBITED_CONTENT", "prompt"},
	"prompt_blocked_safety_stream.sse":                        {"SAFETY", "prompt"},
	"prompt_blocked_safety_with_message.json":                 {"SAFETY", "prompt"},
}

// lateFixture is the recording whose block comes after content has been sent.
const lateFixture = "recitation_stream_googleai.sse"

// fixturePath is the call that a recording answers.
func fixturePath(name string) string {
	switch {
	case strings.HasPrefix(name, "interactions_"):
		return "/v1beta/interactions"
	case strings.HasPrefix(name, "imagen_"), strings.Contains(name, "_imagen_"):
		return "/v1beta/models/imagen-4.0-generate-001:predict"
	case strings.Contains(name, "openai"):
		return "/v1beta/openai/chat/completions"
	case strings.Contains(name, "array_stream"):
		return arrayPath
	case strings.HasPrefix(name, "text_stream"), name == lateFixture:
		return textPath
	case strings.HasSuffix(name, ".sse"), strings.Contains(name, "stream"):
		return streamPath
	}
	return unaryPath
}

// fixtureRequest asks for thoughts where the recording has some: only then can
// an image be a draft.
func fixtureRequest(name string) string {
	if strings.Contains(name, "thought") {
		return completed(promptJSON, `"generationConfig":{"thinkingConfig":{"includeThoughts":true}}`)
	}
	return promptJSON
}

// Every recording ends as an explicit error or byte for byte as it is.
func TestFixtures(t *testing.T) {
	dir := fixtures(t)
	rows := fixtureRow.FindAllStringSubmatch(readFile(t, filepath.Join(dir, "INDEX.md")), -1)
	if len(rows) < 50 {
		t.Fatalf("the index names %d answers", len(rows))
	}
	u := scripted(t, nil)
	g := inFront(t, u)
	for _, row := range rows {
		name, contentType := row[1], row[3]
		status, err := strconv.Atoi(row[2])
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			recorded := readFile(t, filepath.Join(dir, name))
			for _, plays := range []http.HandlerFunc{
				answers(status, contentType, recorded),
				func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Encoding", "gzip")
					answers(status, contentType, gzipped(recorded))(w, r)
				},
			} {
				u.play(plays)
				s := g.post(t, fixturePath(name), fixtureRequest(name))
				u.only(t)
				checkFixture(t, s, name, status, recorded)
			}
		})
	}
}

func checkFixture(t *testing.T, s *reply, name string, status int, recorded string) {
	t.Helper()
	want, blocked := blockedFixtures[name]
	switch {
	case blocked:
		if stage := s.fails(t, 400, want.reason).metadata("stage"); stage != want.stage {
			t.Errorf("stage %q, want %q", stage, want.stage)
		}
	case name == lateFixture:
		behind, ok := strings.CutPrefix(string(s.body), strings.TrimRight(recorded, "\r\n"))
		if s.StatusCode != 200 || !ok {
			t.Fatalf("status %d: %s", s.StatusCode, s.body)
		}
		checkLateError(t, strings.TrimLeft(behind, "\r\n"), "RECITATION")
	default:
		s.exactly(t, status, recorded)
	}
}
