package tests

import (
	"runtime"
	"strconv"
	"testing"
)

// The binary leaves half of the processors to Python, and lets the operator decide otherwise.
func TestProcessorsAreShared(t *testing.T) {
	t.Parallel()
	half := strconv.Itoa(max(1, runtime.NumCPU()/2))
	for set, want := range map[string]string{"": half, "GOMAXPROCS=3": "3"} {
		o := caddyOptions{site: withMetrics, directive: "workers {\n idle 1\n }"}
		if set != "" {
			o.env = []string{set}
		}
		c := startCaddy(t, o)
		if got := strconv.Itoa(int(c.metric("go_sched_gomaxprocs_threads"))); got != want {
			t.Errorf("%q: got %s, want %s", set, got, want)
		}
	}
}
