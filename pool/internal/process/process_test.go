package process

import (
	"slices"
	"strings"
	"testing"
)

func TestEnvironmentIsAnAllowList(t *testing.T) {
	t.Parallel()
	env := environment("/usr/bin", func(name string) (string, bool) { return "secret", true })
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if value == "secret" && !slices.Contains(templateEnv, name) {
			t.Errorf("%s is taken from Caddy's environment", name)
		}
	}
}
