package pool

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// longRun is when an execution is deprioritized, where others want the processor: most are over long before, and the next should not wait for the few
	// that compute for seconds, or attack.
	longRun = 250 * time.Millisecond
	// longRunNice is its priority from then on (setpriority(2)): a twentieth of the weight of others.
	longRunNice = 13
)

// deprioritize lowers the priority of a worker's processes, once each, and of its lane's session, which the kernel schedules as one
// where it has autogroups (sched(7)). That cannot always be taken back, so the lane ends with its worker. What may not be changed
// stays as it is.
func (p *Pool) deprioritize(w *worker, tree []int) {
	if w.lowered == nil {
		p.mu.Lock()
		w.lowered = map[int]bool{}
		p.mu.Unlock()
	}
	for _, pid := range tree {
		if w.lowered[pid] {
			continue
		}
		if unix.Setpriority(unix.PRIO_PROCESS, pid, longRunNice) != nil {
			continue
		}
		autogroup, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/autogroup", os.O_WRONLY, 0)
		if err == nil {
			_, err = autogroup.WriteString(strconv.Itoa(longRunNice))
			_ = autogroup.Close()
		}
		w.lowered[pid] = !errors.Is(err, unix.EAGAIN) // the kernel takes ten a second of these from a user
	}
}
