package pool

import (
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

const (
	// monitorInterval is how often the memory of executing workers is looked at. Most executions are over before the first.
	monitorInterval = 50 * time.Millisecond
	// monitorIntervalScratch holds where scratch is looked at too, which fills faster than memory.
	monitorIntervalScratch = 10 * time.Millisecond
	// calm is how long nothing is to have executed before lanes go that have no worker.
	calm = 10 * time.Second
)

// monitor ends workers that hold too much memory, until the pool closes. It sleeps while nothing executes, but for once, when it
// ends the lanes that only a rush had a use for.
func (p *Pool) monitor() {
	defer p.background.Done()
	interval := monitorInterval
	if p.scratchDir != "" {
		interval = monitorIntervalScratch
	}
	var calmed <-chan time.Time
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
				looking = p.look(interval)
			}
		}
		ticker.Stop()
		calmed = time.After(calm)
	}
}

// look measures each worker that has executed for a while, and returns false when none executes.
func (p *Pool) look(interval time.Duration) bool {
	p.mu.Lock()
	executing := len(p.leased)
	crowded := executing > 1 || p.waiters.Len() > 0
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
		held := w.memory(tree, p.cfg.Memory)
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
			if scratch.Full(p.scratchDir, w.lane.pid, p.cfg.Scratch) {
				p.end(w, ReasonScratchLimit)
			}
			// Counting holds up whoever makes files meanwhile.
			w.scratchDue = time.Now().Add(4 * time.Since(begin))
		}
	}
	p.mu.Lock()
	p.memory = sum
	p.mu.Unlock()
	return executing > 0
}

// treeMemory returns what the descendants of a lane hold, in bytes. Resident sizes count a page once for each process that
// shares it, so a sum above limit is looked at again by proportional sizes, which are exact and slow to read (proc(5)).
func treeMemory(lanePID int, tree []int, limit int64) int64 {
	var resident, tables, mapped, sharedResident int64
	for _, pid := range tree {
		m := procfs.ReadStatus(pid)
		resident += m.Resident
		tables += m.Tables
		mapped += m.Mapped
		sharedResident += m.SharedResident
	}
	var hidden int64
	if mapped > limit {
		hidden = max(0, procfs.SharedMappings(tree)-sharedResident)
	}
	if held := resident + tables + hidden; held <= limit || len(tree) == 1 {
		return held
	}
	forked := procfs.ReadStatus(lanePID).Anonymous
	var proportional int64
	for _, pid := range tree {
		share, ok := procfs.ReadProportional(pid)
		if !ok { // it has ended, or is another user's and we may not look: then what it has written, about
			share = max(0, procfs.ReadStatus(pid).Anonymous-forked)
		}
		proportional += share
	}
	return proportional + tables + hidden
}
