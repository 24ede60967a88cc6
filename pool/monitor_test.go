package pool

import (
	"fmt"
	"os"
	"strings"
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

// docs/security.md says the numbers that hold.
func TestNumbersOfTheSecurityDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(text)), " ")
	for _, want := range []string{
		fmt.Sprintf("The monitor looks every %d ms, without namespaces every %d ms", monitorInterval.Milliseconds(), monitorIntervalScratch.Milliseconds()),
		fmt.Sprintf("each socket beyond %d counts as full", freeSockets),
		fmt.Sprintf("each beyond %d counts %d KiB", freeWatches, watchBytes>>10),
		fmt.Sprintf("each mapping beyond %d,%03d and each lock beyond %d,%03d counts %d bytes", freeMappings/1000, freeMappings%1000, freeLocks/1000, freeLocks%1000, objectBytes),
		fmt.Sprintf("a run that takes longer than %d ms while others execute gets `nice` %d", longRun.Milliseconds(), longRunNice),
		fmt.Sprintf("%d at once, then EPERM", maxSessions),
		fmt.Sprintf("%d at once (EMFILE)", maxMemfds),
	} {
		if !strings.Contains(words, want) {
			t.Errorf("docs/security.md does not say %q", want)
		}
	}
}
