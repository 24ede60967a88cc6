package pool

import (
	"context"
	"errors"
	"sync"
	"time"
)

// handOvers bounds how many workers a request is given, one after the other, because the one it got could not be made or had died
// while it was parked.
const handOvers = 3

// Execute runs req in a fresh worker. The error is nil whenever the code ran, whatever it did; otherwise it is one of
// this package's errors, or ctx's when the caller gave up, in which case the worker has ended.
func (p *Pool) Execute(ctx context.Context, req Request) (Result, error) {
	queued := time.Now()
	var wait time.Duration // until the worker that ran the code had it, or was to have it
	acquired := sync.OnceFunc(func() { p.cfg.Metrics.Acquired(wait) })
	defer acquired()
	again := false
	for try := 1; ; again = true {
		w, err := p.acquire(ctx, again)
		wait = time.Since(queued)
		if err != nil {
			return Result{}, err
		}
		if req.Leased != nil {
			req.Leased(w.set().generation())
		}
		result, started, err := p.run(ctx, w, req, acquired)
		p.running.Done()
		if err != nil && !started && try < handOvers && ctx.Err() == nil {
			if !errors.Is(err, errLaneLeft) {
				try++
			}
			continue // nothing of it ran
		}
		result.Usage.QueueTime = wait
		return result, err
	}
}

// errLaneLeft is the reason for which a run was not started whose lane went instead of making its worker, as it may.
var errLaneLeft = errors.New("its lane left")

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
		if ok && w.awaitReady != nil {
			p.takeBack(w)
		} else if ok {
			p.end(w, ReasonCancelled)
		}
		if ok {
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
