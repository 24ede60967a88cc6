package pool

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

const (
	// longRun is how long an execution has run when its priority is lowered, if other requests run or wait. Most executions end long
	// before, and should not be delayed by the few that compute for seconds, or attack.
	longRun = 250 * time.Millisecond
	// longRunNice is its nice value from then on (setpriority(2)). It has about a twentieth of the default weight.
	longRunNice = 13
)

// deprioritize lowers the priority of a worker's processes, once each, and of their sessions, each of which the kernel schedules as one
// when it has autogroups (sched(7)). The priority cannot always be raised again, so the lane is retired after this worker. Where Caddy
// may not change a priority, it stays.
func (p *Pool) deprioritize(w *worker, tree []int) {
	if w.lowered == nil {
		p.mu.Lock()
		w.lowered = map[int]bool{}
		p.mu.Unlock()
		w.loweredSessions = map[int]bool{}
	}
	for _, pid := range tree {
		if !w.lowered[pid] {
			err := unix.Setpriority(unix.PRIO_PROCESS, pid, longRunNice)
			if id := w.lane.uid; errors.Is(err, unix.EPERM) && id != 0 {
				procfs.AsOwner(id, func() { err = unix.Setpriority(unix.PRIO_PROCESS, pid, longRunNice) })
			}
			w.lowered[pid] = err == nil
		}
		session := procfs.Session(pid)
		if !w.lowered[pid] || w.loweredSessions[session] {
			continue
		}
		autogroup, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/autogroup", os.O_WRONLY, 0)
		if err == nil {
			_, err = autogroup.WriteString(strconv.Itoa(longRunNice))
			_ = autogroup.Close()
		}
		w.loweredSessions[session] = !errors.Is(err, unix.EAGAIN) // the kernel limits an ordinary user to ten of these writes a second: try again later
	}
}
