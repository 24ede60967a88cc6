package pool

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
)

// cohort is the templates that serve one set of packages, with what is forked from them. A pool has one that serves
// requests, another while the next set is made ready, and old ones whose last executions are not over yet. The pool's mutex
// guards what changes.
type cohort struct {
	plan        confine.Plan
	set         *packages.Generation // nil where nothing can be installed
	ctx         context.Context
	cancel      context.CancelFunc // ends the templates
	supervisors sync.WaitGroup
	warm        chan error // buffered(1): nil once as many workers are parked as there should be, or why that will not be

	templates  []*template // by slot; nil while one is down
	lanes      int         // alive
	laneStarts int         // under way
	vacant     []*lane     // without a worker
	idle       []*worker   // parked, the youngest last
	booting    int
	making     int       // leased before they were made, a moment ago
	pipes      backoff   // of workers that are parked: Caddy could not make their pipes
	forksAt    time.Time // when a timer will start what is missing; zero for never
	retired    bool      // it gets no more work
}

// newCohort starts the templates for a set, whose reference it takes over; first is one that runs already, or nil.
func (p *Pool) newCohort(set *packages.Generation, first *template) *cohort {
	c := &cohort{plan: p.plan.WithPackages(siteOf(set)), set: set, templates: make([]*template, p.cfg.Templates), warm: make(chan error, 1),
		pipes: backoff{first: 20 * time.Millisecond, longest: time.Second}}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	if first != nil {
		first.cohort = c
	}
	for slot := range c.templates {
		c.supervisors.Add(1)
		go p.supervise(c, slot, first)
		first = nil
	}
	p.background.Go(func() {
		c.supervisors.Wait()
		c.cancel()
		release(set)
	})
	return c
}

// generation is the number of the set; 0 is that of none.
func (c *cohort) generation() int {
	if c.set == nil {
		return 0
	}
	return c.set.Number
}

// announce says that c is warm, or why it does not get so. Only the first word counts.
func (c *cohort) announce(err error) {
	select {
	case c.warm <- err:
	default:
	}
}

// change is a switch to the cohort of another set of packages.
type change struct {
	pool *Pool
	next *cohort
}

// Prepare warms workers for next, beside those that serve. It makes a Pool a packages.Watcher.
func (p *Pool) Prepare(ctx context.Context, next *packages.Generation) (packages.Change, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	p.background.Add(1) // before Close waits
	p.mu.Unlock()
	defer p.background.Done()
	c := &change{pool: p, next: p.newCohort(next.Retain(), nil)}
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

// Commit lets the next request run with the new set. What executes goes on with the old one.
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

// Abort ends what was warmed.
func (c *change) Abort() {
	c.pool.mu.Lock()
	ended := c.pool.retireLocked(c.next)
	c.pool.mu.Unlock()
	endAll(ended)
}

// retireLocked gives c no more work, and returns its parked workers for the caller to end.
func (p *Pool) retireLocked(c *cohort) []*worker {
	c.retired = true
	ended := append([]*worker(nil), c.idle...)
	for _, w := range ended {
		p.endLocked(w, ReasonGeneration)
	}
	c.retireVacantLocked()
	p.endRetiredLocked(c)
	return ended
}

// retireVacantLocked lets the lanes go that have no worker, parked or other.
func (c *cohort) retireVacantLocked() {
	for _, l := range c.vacant {
		l.retire()
	}
	c.vacant = nil
}

func endAll(workers []*worker) {
	for _, w := range workers {
		w.lane.endWorker(w)
	}
}

// endRetiredLocked ends the templates of a retired cohort once nothing is forked from them any more.
func (p *Pool) endRetiredLocked(c *cohort) {
	if c.retired && c.lanes == 0 && c.laneStarts == 0 {
		c.cancel()
	}
}

var _ packages.Watcher = (*Pool)(nil)
