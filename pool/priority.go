package pool

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// longRun is when an execution begins to give way: most are over long before, and the next should not wait for the few
	// that compute for seconds, or attack.
	longRun = 250 * time.Millisecond
	// longRunNice is what it gives way with (setpriority(2)): a twentieth of the weight of one that does not.
	longRunNice = 13
)

// giveWay lowers the priority of processes once each, and of their sessions, which the kernel schedules as one where it has
// autogroups (sched(7)). lowered remembers which. What may not be changed stays as it is.
func giveWay(pids []int, lowered map[int]bool) {
	for _, pid := range pids {
		if lowered[pid] {
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
		lowered[pid] = !errors.Is(err, unix.EAGAIN) // the kernel takes ten a second of these from a user
	}
}
