package tests

import (
	"strings"
	"testing"
)

// A model whose program met a limit is told which one, and what to do.
func TestHintsOnLimits(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 1\n }\nlimits {\n execute_timeout 3s 3s\n memory 64MiB\n output_kill 1MiB\n }"})
	for _, r := range []struct {
		request map[string]any
		status  string
		says    []string
	}{
		{map[string]any{"code": "print('kept', flush=True)\nwhile True: pass", "timeout": 0.2}, "timeout", []string{"timeout of 0.2 s", "up to 3", "output until then"}},
		{map[string]any{"code": "import time; time.sleep(60)", "timeout": 3}, "timeout", []string{"timeout of 3 s", "less to do."}},
		{map[string]any{"code": "import time\nheld = bytearray(90 << 20)\ntime.sleep(60)"}, "memory_limit", []string{"64 MiB", "in pieces"}},
		{map[string]any{"code": "bytearray(1 << 40)"}, "error", []string{"64 MiB", "in pieces"}},
		{map[string]any{"code": "while True: print('x' * 1000)"}, "output_limit", []string{"1.0 MiB", "summary"}},
		{map[string]any{"code": "raise SystemExit(3)"}, "error", nil},
		{map[string]any{"code": "print(1)"}, "ok", nil},
	} {
		a, err := c.execute(t.Context(), r.request)
		if err != nil || a.Status != r.status {
			t.Errorf("%v: got %s, %v, want %s", r.request["code"], a.raw, err, r.status)
			continue
		}
		hint := hintOf(t, a)
		if (hint == "") != (r.says == nil) {
			t.Errorf("%v: got the hint %q", r.request["code"], hint)
		}
		for _, want := range r.says {
			if !strings.Contains(hint, want) {
				t.Errorf("%v: the hint %q does not say %q", r.request["code"], hint, want)
			}
		}
	}
}
