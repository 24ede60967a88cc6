package pool

import (
	"context"
	"errors"
	"sync"
	"time"
)

// handOvers is how many workers a request is given at most, one after the other, when a worker could not be started or had died while
// it was parked. A lane that has left (errLaneLeft) does not count.
const handOvers = 3

// Execute runs req in a fresh worker. The error is nil whenever the code ran, whatever it did; otherwise it is one of
// this package's errors, or ctx's when the caller gave up, in which case the worker has ended.
func (p *Pool) Execute(ctx context.Context, req Request) (Result, error) {
	queued := time.Now()
	var wait time.Duration // from the call until the request got its last worker
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
			continue // none of the code ran, so another worker may have it
		}
		result.Usage.QueueTime = wait
		return result, err
	}
}

// errLaneLeft is why a run was not started when its lane ended itself ("leave") before it read that it should fork the worker.
var errLaneLeft = errors.New("its lane left")

// acquire leases a worker. Callers wait in FIFO order; one that calls again, because its first worker failed, goes to the front and is
// not refused by a full queue. On success acquire has added one to p.running, and the caller must call Done.
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
		// A worker was leased to this request while it gave up. A leased worker never goes back to the idle ones: it is used or ended.
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
