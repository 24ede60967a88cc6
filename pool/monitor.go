package pool

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// monitorInterval is how often the memory of executing workers is looked at. Most executions are over before the first.
const monitorInterval = 50 * time.Millisecond

// monitor ends workers that hold too much memory, until the pool closes. It sleeps while nothing executes.
func (p *Pool) monitor() {
	defer p.background.Done()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.busy:
		}
		ticker := time.NewTicker(monitorInterval)
		for looking := true; looking; {
			select {
			case <-p.ctx.Done():
				looking = false
			case <-ticker.C:
				looking = p.look()
			}
		}
		ticker.Stop()
	}
}

// look measures each worker that has executed for a while, and returns false when none executes.
func (p *Pool) look() bool {
	p.mu.Lock()
	executing := len(p.leased)
	var old []*worker
	for w := range p.leased {
		if w.state == StateLeased && time.Since(w.leasedAt) >= monitorInterval {
			old = append(old, w)
		}
	}
	p.mu.Unlock()
	var sum int64
	for _, w := range old {
		held := treeMemory(w.lane.pid, p.cfg.Memory)
		sum += held
		if held > w.peak.Load() {
			w.peak.Store(held)
		}
		if held > p.cfg.Memory {
			p.end(w, ReasonMemoryLimit)
		}
	}
	p.mu.Lock()
	p.memory = sum
	p.mu.Unlock()
	return executing > 0
}

// treeMemory returns what the descendants of pid hold, in bytes. Resident sizes count a page once for each process that
// shares it, so a sum above limit is looked at again by proportional sizes, which are exact and slow to read (proc(5)).
func treeMemory(pid int, limit int64) int64 {
	tree := descendants(pid)
	var resident int64
	for _, pid := range tree {
		if m, err := (&process.Process{Pid: int32(pid)}).MemoryInfo(); err == nil {
			resident += int64(m.RSS)
		}
	}
	if resident <= limit || len(tree) == 1 {
		return resident
	}
	var proportional int64
	for _, pid := range tree {
		maps, err := (&process.Process{Pid: int32(pid)}).MemoryMaps(true)
		if err != nil || len(*maps) == 0 {
			continue // it has ended
		}
		proportional += int64((*maps)[0].Pss) << 10
	}
	return proportional
}

// descendants lists the processes below pid. gopsutil starts pgrep for this; the kernel has the list itself
// (/proc/PID/task/TID/children, proc(5)).
func descendants(pid int) []int {
	var found []int
	for queue := []int{pid}; len(queue) > 0; {
		next := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		dir := "/proc/" + strconv.Itoa(next) + "/task"
		tasks, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, task := range tasks {
			text, err := os.ReadFile(dir + "/" + task.Name() + "/children")
			if err != nil {
				continue
			}
			for field := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(field); err == nil {
					found = append(found, child)
					queue = append(queue, child)
				}
			}
		}
	}
	return found
}
