package pool

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/scratch"
)

// What happens to workers and lanes, in the order of their lives. state.go has the states of a worker.

// parked takes a worker that is ready: to the first waiter, or among the idle.
func (p *Pool) parked(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state != StateBooting {
		return // meanwhile it died, or the pool closed
	}
	set := w.set()
	w.lane.madeLocked()
	p.setLocked(w, StateIdle)
	set.idle = append(set.idle, w)
	if set.retired {
		p.endLocked(w, ReasonGeneration)
		go w.lane.endWorker(w) // its system calls are not made under the mutex; it ends with them
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
	// With half of the processors free, one of them takes the worker's memory apart while its answer is on its way.
	w.leavesHolder = len(p.leased) < max(1, runtime.NumCPU()/2) && p.waiters.Len() == 0
	p.setLocked(w, StateLeased)
	p.leasedLocked(w)
	return w
}

// leaseFreeLocked leases workers that are yet to be forked to those who wait (worker.awaitReady).
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

// forked is called when a worker that was leased before it was forked has had the time for that.
func (p *Pool) forked(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == StateForking {
		p.setLocked(w, StateLeased)
		p.refillLocked(w.set())
	}
}

// leasedLocked counts a worker among those that requests have.
func (p *Pool) leasedLocked(w *worker) {
	w.leasedAt = time.Now()
	p.leased[w] = struct{}{}
	if len(p.leased) == 1 {
		select {
		case p.busy <- struct{}{}:
		default:
		}
	}
}

// setLocked moves a worker along its life, and keeps count.
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

// endLocked records why a worker is to end. The first reason counts.
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

// exited takes the end of a lane's worker. The lane ends whatever it left, and is free for the next.
func (p *Pool) exited(l *lane, e exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exitedLocked(l, e)
}

// takeBack gives up a worker that a request has and its lane was not asked for yet. The lane is free for another.
func (p *Pool) takeBack(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.lane.current == w { // else it ended with its lane
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
	case w.reason == ReasonServed && w.awaitReady != nil: // whether it got ready, its request finds out, and counts
	case !w.reason.wasForked():
	default:
		p.cfg.Metrics.WorkerExited(w.reason)
	}
	if w.leasedAt.IsZero() {
		w.closePipes() // else its request does
	}
	if _, alive := p.lanes[l]; alive && w.isDeprioritized() {
		l.retire() // its priority cannot always be raised again
	} else if alive {
		p.freeLocked(l)
	}
	p.dispatchLocked()
	p.refillLocked(l.set())
	close(w.dead) // last, so that the scheduler lets its request go on before what refills
}

// leaves takes a lane's word that it goes: it gets no other worker, and makes none that it was asked for meanwhile.
func (p *Pool) leaves(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lanes, l)
	p.notFreeLocked(l)
	if l.current != nil {
		p.endLocked(l.current, reasonLaneLeft)
	}
}

// freeLocked takes a lane without a worker: for the next, unless its time is over.
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

// laneGone takes the end of a lane, and with it of its worker.
func (p *Pool) laneGone(l *lane) {
	set := l.set()
	p.mu.Lock()
	delete(p.lanes, l)
	p.notFreeLocked(l)
	p.mu.Unlock()
	if p.scratchDir != "" {
		_ = l.template.tell("sweep", time.Now().Add(laneStartTimeout)) // refused by a template that is gone, too
		scratch.RemoveOf(p.scratchDir, l.pid)                          // the lane has tried
	}
	p.exited(l, exit{lost: true})
	p.mu.Lock()
	defer p.mu.Unlock()
	set.lanes--
	p.endRetiredLocked(set)
	p.refillLocked(set)
}
