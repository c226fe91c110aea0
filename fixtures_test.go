// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"
)

// fixtureDir holds recorded traffic, which is no part of this repository.
func fixtureDir() string {
	return cmp.Or(os.Getenv("GEMINI_FIXTURES"), filepath.Join("..", "shared", "fixtures"))
}

// fixture reads a recording, or skips the test where there are none.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(fixtureDir(), name))
	if err != nil {
		t.Skipf("no recorded traffic here, set GEMINI_FIXTURES to its folder: %v", err)
	}
	return body
}
