package pool

import (
	"testing"
	"time"
)

// Usage.Processes is the highest number of processes that the monitor saw, which explains the memory that a program used.
func TestUsageHasThePeakOfProcesses(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Memory: 128 * mib})
	for _, c := range []struct {
		name, code string
		least      int
		most       int
		status     Status
	}{
		{"over before anybody looks", "print(1)", 0, 1, StatusOK},
		{"one", "import time; time.sleep(1)", 1, 1, StatusOK},
		{"four", "import os, time\nfor _ in range(3):\n  if os.fork() == 0: time.sleep(60)\ntime.sleep(1)", 4, 4, StatusOK},
		{"four, ended by the limit", "import os, time\nfor _ in range(3):\n  if os.fork() == 0: time.sleep(1); b = bytearray(60 << 20); time.sleep(60)\ntime.sleep(60)", 4, 4, StatusMemoryLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := execute(t, p, c.code, 20*time.Second)
			if r.Status != c.status || r.Usage.Processes < c.least || r.Usage.Processes > c.most {
				t.Errorf("got %s with %d processes, want %s with %d to %d: %.300s", r.Status, r.Usage.Processes, c.status, c.least, c.most, r.Stderr)
			}
		})
	}
}
