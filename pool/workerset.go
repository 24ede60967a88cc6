package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
)

// workerSet is the templates for one set of packages, with the lanes and workers that are forked from them. A pool has one that serves
// requests, a second one while the next set of packages is prepared, and retired ones whose last executions have not ended. The pool's
// mutex guards the fields from templates on.
type workerSet struct {
	plan        confine.Plan
	installed   *packages.Generation // nil where nothing can be installed
	ctx         context.Context
	cancel      context.CancelFunc // ends the templates
	supervisors sync.WaitGroup
	warm        chan error // buffered(1): gets nil once Config.Idle workers are parked, or the error if that fails

	templates  []*template        // by slot; nil while one is down
	lanes      int                // alive
	laneStarts int                // how many lanes are being started
	free       []*lane            // without a worker
	idle       []*worker          // parked, the youngest last
	count      [StateDead + 1]int // of workers, by their state
	pipes      backoff            // after failures to make pipes for workers that are to be parked
	forksAt    time.Time          // when a timer will start what is missing; zero for never
	retired    bool               // it gets no more work
}

// newWorkerSet starts the templates for a set of packages, and releases that set when they have ended. first is a template that runs
// already, or nil.
func (p *Pool) newWorkerSet(installed *packages.Generation, first *template) *workerSet {
	set := &workerSet{plan: p.plan.WithPackages(siteOf(installed)), installed: installed, templates: make([]*template, p.cfg.Templates), warm: make(chan error, 1),
		pipes: backoff{first: 20 * time.Millisecond, longest: time.Second}}
	set.ctx, set.cancel = context.WithCancel(p.ctx)
	if first != nil {
		first.set = set
	}
	for slot := range set.templates {
		set.supervisors.Add(1)
		go p.supervise(set, slot, first)
		first = nil
	}
	p.background.Go(func() {
		set.supervisors.Wait()
		set.cancel()
		release(installed)
	})
	return set
}

// beingForked is how many workers are being forked at the moment.
func (set *workerSet) beingForked() int { return set.count[StateBooting] + set.count[StateForking] }

// generation is the number of the set of packages; 0 when there is none.
func (set *workerSet) generation() int {
	if set.installed == nil {
		return 0
	}
	return set.installed.Number
}

// announce reports that the set is warm, or the error that prevents it. Only the first call has an effect.
func (set *workerSet) announce(err error) {
	select {
	case set.warm <- err:
	default:
	}
}

// change is a switch to the worker set of another set of packages.
type change struct {
	pool *Pool
	next *workerSet
}

// Prepare starts workers with the packages of next, beside those that serve, and returns when enough are parked. The caller must Commit or
// Abort the change. It makes Pool a packages.Watcher.
func (p *Pool) Prepare(ctx context.Context, next *packages.Generation) (packages.Change, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	p.background.Add(1) // under the mutex, so that Close waits for it
	p.mu.Unlock()
	defer p.background.Done()
	c := &change{pool: p, next: p.newWorkerSet(next.Retain(), nil)}
	var err error
	select {
	case err = <-c.next.warm:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-p.closing:
		err = ErrClosed
	}
	if err != nil {
		c.Abort()
		return nil, fmt.Errorf("warming workers with the new packages: %w", err)
	}
	return c, nil
}

// Commit makes requests run with the new set from now on. Executions that have begun keep the old one.
func (c *change) Commit() {
	p := c.pool
	p.mu.Lock()
	old := p.current
	p.current = c.next
	ended := p.retireLocked(old)
	p.dispatchLocked()
	p.refillLocked(p.current)
	p.mu.Unlock()
	endAll(ended)
}

// Abort ends the workers and templates that Prepare has started.
func (c *change) Abort() {
	c.pool.mu.Lock()
	ended := c.pool.retireLocked(c.next)
	c.pool.mu.Unlock()
	endAll(ended)
}

// retireLocked gives set no more work, and returns its parked workers for the caller to end.
func (p *Pool) retireLocked(set *workerSet) []*worker {
	set.retired = true
	ended := append([]*worker(nil), set.idle...)
	for _, w := range ended {
		p.endLocked(w, ReasonGeneration)
	}
	set.retireFreeLocked()
	p.endRetiredLocked(set)
	return ended
}

// retireFreeLocked retires the lanes that have no worker.
func (set *workerSet) retireFreeLocked() {
	for _, l := range set.free {
		l.retire()
	}
	set.free = nil
}

func endAll(workers []*worker) {
	for _, w := range workers {
		w.lane.endWorker(w)
	}
}

// endRetiredLocked ends the templates of a retired worker set once nothing is forked from them any more.
func (p *Pool) endRetiredLocked(set *workerSet) {
	if set.retired && set.lanes == 0 && set.laneStarts == 0 {
		set.cancel()
	}
}

var _ packages.Watcher = (*Pool)(nil)
