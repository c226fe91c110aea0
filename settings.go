// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
)

const harmPrefix = "HARM_CATEGORY_"

// configurable are the categories that can be set on every model and every
// surface, in the order in which they are added.
var configurable = []string{
	harmPrefix + "HARASSMENT",
	harmPrefix + "HATE_SPEECH",
	harmPrefix + "SEXUALLY_EXPLICIT",
	harmPrefix + "DANGEROUS_CONTENT",
}

// fullCategory is the name of a category with its prefix, which may be left out.
func fullCategory(name string) string { return harmPrefix + strings.TrimPrefix(name, harmPrefix) }

// harmThresholds are the values of HarmBlockThreshold that say something.
var harmThresholds = []string{"BLOCK_NONE", "OFF", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"}

// modalities are the values of responseModalities on the Gemini API.
var modalities = []string{"TEXT", "IMAGE", "AUDIO"}

func (s SafetySetting) check() error {
	if err := s.checkCategory(); err != nil {
		return err
	}
	return s.checkThreshold()
}

func (s SafetySetting) checkThreshold() error {
	return oneOf("safety_settings", s.Threshold, harmThresholds...)
}

func (s SafetySetting) checkCategory() error {
	if !slices.Contains(configurable, s.Category) {
		short := strings.ReplaceAll(strings.Join(configurable, ", "), harmPrefix, "")
		return fmt.Errorf("safety_settings: %q is not one of the categories that can be set: %s", strings.TrimPrefix(s.Category, harmPrefix), short)
	}
	return nil
}

// completeSettings adds the default threshold for the categories that the
// operator has not set.
func completeSettings(given []SafetySetting) []SafetySetting {
	all := make([]SafetySetting, 0, len(configurable))
	for _, category := range configurable {
		s := SafetySetting{Category: category, Threshold: defaultThreshold}
		for _, g := range given {
			if g.Category == category {
				s = g
			}
		}
		all = append(all, s)
	}
	return all
}

// noteLog tells the operator what clients send that does not do what they
// think, once for each version of a client.
type noteLog struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxNotes bounds the memory of a noteLog: clients choose their own names.
const maxNotes = 1000

func (l *noteLog) report(logger *zap.Logger, x *exchange, notes []string) {
	for _, note := range notes {
		if l.isNew(x.client + "\n" + note) {
			logger.Warn("a client sends settings that deserve a look; they are left as they are",
				zap.String("client", x.client), zap.String("model", x.model), zap.String("finding", note))
		}
	}
}

func (l *noteLog) isNew(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[key] || len(l.seen) >= maxNotes {
		return false
	}
	if l.seen == nil {
		l.seen = make(map[string]bool)
	}
	l.seen[key] = true
	return true
}
