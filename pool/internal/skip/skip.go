// Package skip is for tests that need what a system may lack.
package skip

import (
	"os"
	"testing"
)

// Without skips a test for want of what the reason names, but never in CI (CI=true): there it fails.
func Without(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
