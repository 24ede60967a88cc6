package pool

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

// The events in the life of workers and lanes, in their order. state.go has the states of a worker.

// parked is called when a worker is ready. It becomes idle, and goes to the first waiter if there is one.
func (p *Pool) parked(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state != StateBooting {
		return // it has died meanwhile, or the pool was closed
	}
	set := w.set()
	w.lane.madeLocked()
	p.setLocked(w, StateIdle)
	set.idle = append(set.idle, w)
	if set.retired {
		p.endLocked(w, ReasonGeneration)
		go w.lane.endWorker(w) // beside, since it makes system calls, which are not made under the mutex
		return
	}
	if len(set.idle) == p.cfg.Idle {
		set.announce(nil)
	}
	p.dispatchLocked()
	p.refillLocked(set)
}

// dispatchLocked gives idle workers to waiters in the order in which they came.
func (p *Pool) dispatchLocked() {
	for p.waiters.Len() > 0 && len(p.current.idle) > 0 && len(p.leased) < p.cfg.Max {
		first := p.waiters.Remove(p.waiters.Front()).(*waiter)
		first.worker <- p.leaseLocked()
	}
}

// leaseLocked takes the youngest idle worker, whose pages are still in the processor's caches. Preconditions: there is
// one, and fewer than Max are leased.
func (p *Pool) leaseLocked() *worker {
	set := p.current
	w := set.idle[len(set.idle)-1]
	set.idle = set.idle[:len(set.idle)-1]
	// While half of the processors are idle, one of them can free the worker's memory after the answer has been sent.
	w.leavesHolder = len(p.leased) < max(1, runtime.NumCPU()/2) && p.waiters.Len() == 0
	p.setLocked(w, StateLeased)
	p.leasedLocked(w)
	return w
}

// leaseFreeLocked leases workers to waiters before they are forked, as long as there are free lanes (see worker.awaitReady).
func (p *Pool) leaseFreeLocked(set *workerSet) {
	for set == p.current && p.waiters.Len() > 0 && len(set.free) > 0 && len(p.leased) < p.cfg.Max && set.beingForked() < maxForks {
		w := newWorker(set.free[len(set.free)-1], StateForking)
		set.free = set.free[:len(set.free)-1]
		set.count[StateForking]++
		w.awaitReady = sync.OnceValue(w.readReady)
		w.lane.current = w
		p.leasedLocked(w)
		p.waiters.Remove(p.waiters.Front()).(*waiter).worker <- w
	}
}

// forked is called forkingTime after a worker that was leased before it was forked got its request. It no longer counts as being forked.
func (p *Pool) forked(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == StateForking {
		p.setLocked(w, StateLeased)
		p.refillLocked(w.set())
	}
}

// leasedLocked adds a worker to the leased ones, and wakes the monitor when it is the first.
func (p *Pool) leasedLocked(w *worker) {
	w.leasedAt = time.Now()
	p.leased[w] = struct{}{}
	p.leases++
	if len(p.leased) == 1 {
		select {
		case p.busy <- struct{}{}:
		default:
		}
	}
}

// setLocked changes the state of a worker and the counts of its set. A transition that is not legal is a bug, and panics.
func (p *Pool) setLocked(w *worker, to State) {
	state, err := transition(w.state, to)
	if err != nil {
		panic(err)
	}
	count := &w.set().count
	count[w.state]--
	count[state]++
	w.state = state
}

// endLocked marks a worker as draining and records the reason. Only the first call for a worker has an effect.
func (p *Pool) endLocked(w *worker, reason Reason) {
	switch w.state {
	case StateDraining, StateDead:
		return
	case StateIdle:
		set := w.set()
		if i := slices.Index(set.idle, w); i >= 0 {
			set.idle = slices.Delete(set.idle, i, i+1)
		}
	case StateBooting, StateForking, StateLeased:
	}
	w.reason = reason
	p.setLocked(w, StateDraining)
}

// exited is called when a lane's worker has ended, by itself or with the lane.
func (p *Pool) exited(l *lane, e exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exitedLocked(l, e)
}

// receive acts on what a lane says, until its process has ended.
func (p *Pool) receive(l *lane) {
	l.receive(func(e exit) { p.exited(l, e) }, func() { p.leaves(l) }, func(last exit) { p.laneGone(l, last) })
}

// takeBack drops a worker that was leased to a request before its lane was asked to fork it. The lane becomes free again.
func (p *Pool) takeBack(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.lane.current == w { // otherwise the lane is gone, and the worker with it
		p.endLocked(w, reasonNotAsked)
		p.exitedLocked(w.lane, exit{lost: true})
	}
}

func (p *Pool) exitedLocked(l *lane, e exit) {
	w := l.current
	if w == nil {
		return
	}
	reason := ReasonCrashed
	leased := w.state == StateLeased || w.state == StateForking
	if leased && !e.lost {
		l.madeLocked()
		reason = ReasonServed
	} else if w.state == StateBooting {
		reason = ReasonBootFailed
	}
	if reason == ReasonServed && e.outOfMemory && e.status.Signaled() {
		reason = ReasonMemoryLimit
	}
	if p.closed && !leased {
		reason = ReasonShutdown
	}
	p.endLocked(w, reason)
	p.setLocked(w, StateDead)
	delete(p.leased, w)
	l.current = nil
	w.exit = e
	switch {
	case w.reason == ReasonServed && w.awaitReady != nil: // counted by execution.readyError, which knows whether it became ready
	case !w.reason.wasForked():
	default:
		p.cfg.Metrics.WorkerExited(w.reason)
	}
	if w.leasedAt.IsZero() {
		w.closePipes() // those of a leased worker are closed by its request
	}
	if _, alive := p.lanes[l]; alive && w.isDeprioritized() {
		l.retire() // the lane has the lowered priority too, which cannot always be raised again
	} else if alive {
		p.freeLocked(l)
	}
	p.dispatchLocked()
	p.refillLocked(l.set())
	close(w.dead) // last, so that the scheduler runs the worker's request before the goroutines that refill
}

// leaves is called when a lane has said "leave", and ends itself. It is given no other worker. One that it was asked for meanwhile is
// never forked.
func (p *Pool) leaves(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lanes, l)
	p.notFreeLocked(l)
	if l.current != nil {
		p.endLocked(l.current, reasonLaneLeft)
	}
}

// freeLocked makes a lane without a worker available for the next one, or retires it when its set or the pool is over.
func (p *Pool) freeLocked(l *lane) {
	set := l.set()
	if p.closed || set.retired {
		l.retire()
		return
	}
	set.free = append(set.free, l)
}

func (p *Pool) notFreeLocked(l *lane) {
	set := l.set()
	if i := slices.Index(set.free, l); i >= 0 {
		set.free = slices.Delete(set.free, i, i+1)
	}
}

// laneGone is called when a lane's process has ended. Its worker has ended with it, with the exit last.
func (p *Pool) laneGone(l *lane, last exit) {
	set := l.set()
	p.mu.Lock()
	delete(p.lanes, l)
	p.notFreeLocked(l)
	if l.current != nil && l.current.state != StateLeased {
		last = exit{lost: true} // it ran nothing
	}
	p.mu.Unlock()
	if p.scratchDir != "" {
		_ = l.template.tell("sweep", time.Now().Add(laneStartTimeout)) // fails when the template is gone too, which is as good
		scratch.RemoveOf(p.scratchDir, l.pid)                          // what the lane could not remove itself
	}
	p.exited(l, last)
	p.mu.Lock()
	defer p.mu.Unlock()
	set.lanes--
	p.endRetiredLocked(set)
	p.refillLocked(set)
}
