package pool

import (
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// processCount counts the processes and threads of a user, as RLIMIT_NPROC does. Safe for concurrent use.
type processCount struct {
	uid int

	mu    sync.Mutex
	at    time.Time
	count int
}

// processCountAge is how old a count may be. Counting reads a file of every process of the system.
const processCountAge = time.Second

// get returns a recent count.
func (c *processCount) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < processCountAge {
		return c.count
	}
	c.at, c.count = time.Now(), 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if status := procfs.ReadStatus(pid); status.Uid == c.uid {
				c.count += status.Threads
			}
		}
	}
	return c.count
}
