package pool

import (
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

const (
	// monitorInterval is how often the memory of executing workers is measured. Most executions end before the first time.
	monitorInterval = 50 * time.Millisecond
	// monitorIntervalScratch replaces it when the files in scratch are counted too (without namespaces): they can grow faster than memory.
	monitorIntervalScratch = 10 * time.Millisecond
	// calm is how long after the last execution the lanes without a worker are retired.
	calm = 10 * time.Second
)

// monitor ends workers that hold too much memory or scratch, until the pool closes. It sleeps while nothing executes. calm after the last
// execution it wakes once, to retire lanes that only a burst of requests had needed.
func (p *Pool) monitor() {
	defer p.background.Done()
	interval := monitorInterval
	if p.scratchDir != "" {
		interval = monitorIntervalScratch
	}
	var calmed <-chan time.Time
	var leases int
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-calmed:
			p.mu.Lock()
			p.current.retireFreeLocked()
			p.mu.Unlock()
			calmed = nil
			continue
		case <-p.busy:
		}
		ticker := time.NewTicker(interval)
		for looking := true; looking; {
			select {
			case <-p.ctx.Done():
				looking = false
			case <-ticker.C:
				looking, leases = p.look(interval, leases)
			}
		}
		ticker.Stop()
		calmed = time.After(calm)
	}
}

// look measures each worker that has executed for at least interval, ends those over a limit, and returns false when no worker executes.
// leases is how many workers had been leased at the last look; look returns how many it has been by now.
func (p *Pool) look(interval time.Duration, leases int) (bool, int) {
	p.mu.Lock()
	executing := len(p.leased)
	crowded := executing > 1 || p.waiters.Len() > 0 || p.leases != leases // the last: for others that have begun and ended in between
	leases = p.leases
	var old []*worker
	for w := range p.leased {
		if w.state == StateLeased && time.Since(w.leasedAt) >= interval {
			old = append(old, w)
		}
	}
	p.mu.Unlock()
	var sum int64
	for _, w := range old {
		tree := procfs.Descendants(w.lane.pid)
		if crowded && time.Since(w.leasedAt) > longRun && (!w.session.Load() || procfs.CPUTime(tree) > longRun) {
			p.deprioritize(w, tree)
		}
		held := w.memory(tree, p.cfg.Memory, p.watches, p.scratchDir)
		sum += held
		if held > w.peak.Load() {
			w.peak.Store(held)
		}
		if n := int64(len(tree)); n > w.crowd.Load() {
			w.crowd.Store(n)
		}
		switch {
		case held > p.cfg.Memory:
			p.end(w, ReasonMemoryLimit)
		case p.scratchDir != "" && time.Now().After(w.scratchDue):
			begin := time.Now()
			if scratch.Full(p.scratchDir, w.lane.pid, p.cfg.Scratch, w.unlinked) {
				p.end(w, ReasonScratchLimit)
			}
			// Counting slows programs that create files at the same time, so at most a fifth of the time is spent on it.
			w.scratchDue = time.Now().Add(4 * time.Since(begin))
		}
	}
	p.mu.Lock()
	p.memory = sum
	p.mu.Unlock()
	return executing > 0, leases
}
