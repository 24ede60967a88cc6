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

// However few watches a user may have, all runs of a user together reach the limits of their memory before they have taken half of them.
func TestRunsCannotTakeAllWatchesOfAUser(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{32 << 20, 512 << 20, 64 << 30} {
		for _, share := range []int64{1, 100, 4096, 10_000, 300_000, 1 << 40} {
			r := watchRateOf(limit, share)
			most := r.free + limit/r.bytes // more are too many
			if most > share && share > 1 || r.bytes < watchBytes || r.free > freeWatches {
				t.Errorf("limit %d, share %d: %+v lets a run have %d watches", limit, share, r, most)
			}
		}
	}
	if own, shared := newWatchRate(512<<20, false, 8), newWatchRate(512<<20, true, 1<<20); own != (watchRate{freeWatches, watchBytes}) || shared.bytes <= watchBytes {
		t.Errorf("a user of its own: %+v; one of a million runs: %+v", own, shared)
	}
}
