// Package skip is for tests of features that a system may lack.
package skip

import (
	"os"
	"testing"
)

// Without skips a test because the system lacks what reason names. With CI=true it fails the test instead.
func Without(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
