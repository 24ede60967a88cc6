package pool

import (
	"context"
	"fmt"
	"time"
)

// handOvers bounds how often a request is given to another worker because the one it got had died while parked.
const handOvers = 3

// Execute runs req in a fresh worker. The error is nil whenever the code ran, whatever it did; otherwise it is one of
// this package's errors, or ctx's when the caller gave up, in which case the worker has ended.
func (p *Pool) Execute(ctx context.Context, req Request) (Result, error) {
	queued := time.Now()
	again := false
	for try := 1; ; again = true {
		w, err := p.acquire(ctx, again)
		wait := time.Since(queued)
		p.cfg.Metrics.Acquired(wait)
		if err != nil {
			return Result{}, err
		}
		if req.Leased != nil {
			req.Leased(w.cohort().generation())
		}
		result, started, err := p.run(ctx, w, req)
		p.running.Done()
		if err != nil && !started && try < handOvers && ctx.Err() == nil {
			if err != errLaneLeft { //nolint:errorlint // a sentinel of ours
				try++
			}
			continue // it never had the code
		}
		result.Usage.QueueTime = wait
		return result, err
	}
}

// errLaneLeft is the error of a run whose lane went instead of making its worker, as it may.
var errLaneLeft = fmt.Errorf("%w: its lane left", ErrWorkerLost)

// acquire leases a worker, waiting for it in FIFO order, or as the first where the caller has waited before. On success it
// has added one to p.running.
func (p *Pool) acquire(ctx context.Context, again bool) (*worker, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	if (p.waiters.Len() == 0 || again) && len(p.current.idle) > 0 && len(p.leased) < p.cfg.Max {
		w := p.leaseLocked()
		p.running.Add(1)
		p.refillLocked(p.current)
		p.mu.Unlock()
		return w, nil
	}
	if p.waiters.Len() >= p.cfg.Queue && !again {
		p.mu.Unlock()
		return nil, ErrQueueFull
	}
	me := &waiter{worker: make(chan *worker, 1)}
	element := p.waiters.PushBack(me)
	if again {
		p.waiters.MoveToFront(element)
	}
	p.running.Add(1)
	p.refillLocked(p.current)
	p.mu.Unlock()

	timer := time.NewTimer(p.cfg.AcquireTimeout)
	defer timer.Stop()
	var err error
	select {
	case w, ok := <-me.worker:
		if ok {
			return w, nil
		}
		p.running.Done()
		return nil, ErrClosed
	case <-timer.C:
		err = ErrAcquireTimeout
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	select {
	case w, ok := <-me.worker:
		// It came while we gave up. A worker that was leased is not put back, so it is used or ended.
		p.mu.Unlock()
		if ok && ctx.Err() == nil {
			return w, nil
		}
		if ok {
			p.end(w, ReasonCancelled)
			<-w.dead
			w.closePipes()
		}
	default:
		p.waiters.Remove(element)
		p.mu.Unlock()
	}
	p.running.Done()
	return nil, err
}

// end records why a worker ends and kills its tree.
func (p *Pool) end(w *worker, reason Reason) {
	p.mu.Lock()
	first := w.state != StateDraining && w.state != StateDead
	p.endLocked(w, reason)
	p.mu.Unlock()
	if first {
		w.lane.endWorker(w)
	}
}
