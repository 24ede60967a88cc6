package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/cgroup"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
)

// Pool keeps warm, confined Python workers and runs code in them. All methods may be called concurrently.
type Pool struct {
	cfg        Config
	python     Interpreter
	plan       confine.Plan // without packages; each cohort's own has them
	guarantees []Guarantee
	log        *slog.Logger
	scratchDir string          // "" with namespaces
	group      *cgroup.Group   // nil when none is delegated
	others     *processCount   // of the id that workers share with Caddy; nil when they have ids or namespaces of their own
	store      *packages.Store // nil where nothing can be installed
	pipLook    pipLook
	unwatch    func()
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup // supervisors, lanes, boots, the monitor
	running    sync.WaitGroup // executions

	// mu guards what follows. No system call that can block is made under it.
	mu             sync.Mutex
	closed         bool
	closing        chan struct{} // closed with it
	current        *cohort       // serves requests
	lanes          map[*lane]struct{}
	leased         map[*worker]struct{}
	waiters        list.List          // of *waiter, the first to come first
	busy           chan struct{}      // wakes the monitor; buffered(1)
	failuresLogged rarely             // workers that could not be made
	memory         int64              // of leased workers at the monitor's last look
	flights        map[string]*flight // installs that wait or run, by what was asked for

	endsInstalls bool          // no more are taken
	installsEnd  chan struct{} // closed when those that are left are given up
}

// waiter is a request that waits for a worker.
type waiter struct {
	worker chan *worker // buffered(1); closed when the pool closes
}

// New starts a pool and returns once its first template is ready; the workers come behind it. The error is a sentence
// for the operator. ctx bounds the start only.
func New(ctx context.Context, cfg Config) (*Pool, error) {
	return newPool(ctx, cfg, confine.ThisSystem())
}

func newPool(ctx context.Context, cfg Config, sys confine.System) (*Pool, error) {
	cfg, err := cfg.Normalize()
	if err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, lanes: map[*lane]struct{}{}, leased: map[*worker]struct{}{}, busy: make(chan struct{}, 1), closing: make(chan struct{}), flights: map[string]*flight{}, installsEnd: make(chan struct{})}
	if p.python, err = findInterpreter(ctx, cfg.Python); err != nil {
		return nil, err
	}
	if cfg.PackagesDir != "" {
		if p.store, err = packages.Open(filepath.Join(cfg.PackagesDir, p.python.tag), cfg.Logger); err != nil {
			return nil, fmt.Errorf("opening the package store: %w", err)
		}
	}
	set := p.installed()
	first, err := p.confine(ctx, sys, set)
	if err != nil {
		release(set)
		return nil, errors.Join(err, p.closeStore(), p.removeScratch())
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock() // its templates are at work before it is returned
	p.current = p.newCohort(set, first)
	p.mu.Unlock()
	p.background.Add(1)
	go p.monitor()
	if p.store != nil {
		p.unwatch = p.store.Watch(p)
		if err := p.follow(ctx); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

// follow takes up what another pool has switched to since this one looked.
func (p *Pool) follow(ctx context.Context) error {
	newest := p.store.Current()
	defer newest.Release()
	p.mu.Lock()
	generation := p.current.generation()
	p.mu.Unlock()
	if newest.Number == generation {
		return nil
	}
	next, err := p.Prepare(ctx, newest)
	if err == nil {
		next.Commit()
	}
	return err
}

// installed returns the set of packages that is current, retained; nil where none can be installed.
func (p *Pool) installed() *packages.Generation {
	if p.store == nil {
		return nil
	}
	return p.store.Current()
}

// Generation is the number of the set of packages that the next request runs with; 0 is that of none. It grows with each
// change.
func (p *Pool) Generation() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current.generation()
}

// siteOf is the directory that programs import a set from, "" for none.
func siteOf(set *packages.Generation) string {
	if set == nil {
		return ""
	}
	return set.Site
}

func release(set *packages.Generation) {
	if set != nil {
		set.Release()
	}
}

func (p *Pool) closeStore() error {
	if p.store == nil {
		return nil
	}
	return p.store.Close() //nolint:wrapcheck // names itself
}

// parked takes a worker that is ready: to the first waiter, or among the idle.
func (p *Pool) parked(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state != StateBooting {
		return // it died, or the pool closed, meanwhile
	}
	c := w.cohort()
	c.booting--
	w.lane.madeLocked()
	p.setLocked(w, StateIdle)
	c.idle = append(c.idle, w)
	if c.retired {
		p.endLocked(w, ReasonGeneration)
		go w.lane.endWorker(w) // ends with its system calls
		return
	}
	if len(c.idle) == p.cfg.Idle {
		c.announce(nil)
	}
	p.dispatchLocked()
	p.refillLocked(c)
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
	c := p.current
	w := c.idle[len(c.idle)-1]
	c.idle = c.idle[:len(c.idle)-1]
	w.alone = len(p.leased) < max(1, runtime.NumCPU()/2) && p.waiters.Len() == 0
	p.leasedLocked(w)
	return w
}

// leaseVacantLocked leases workers that are yet to be made to those who wait. Each makes its own: that spares parking it,
// with all that makes the answer of a parked one quick, and two changes of who runs.
func (p *Pool) leaseVacantLocked(c *cohort) {
	for c == p.current && p.waiters.Len() > 0 && len(c.vacant) > 0 && len(p.leased) < p.cfg.Max && c.booting+c.making < maxForks {
		w := newWorker(c.vacant[len(c.vacant)-1])
		w.born = sync.OnceValue(w.awaitReady)
		w.making = true
		c.making++
		w.lane.current = w
		c.vacant = c.vacant[:len(c.vacant)-1]
		p.leasedLocked(w)
		p.waiters.Remove(p.waiters.Front()).(*waiter).worker <- w
	}
}

// made is called when a worker that was leased before it was made has had the time for that.
func (p *Pool) made(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.madeLocked(w)
	p.refillLocked(w.cohort())
}

func (p *Pool) madeLocked(w *worker) {
	if w.making {
		w.making = false
		w.cohort().making--
	}
}

func (p *Pool) leasedLocked(w *worker) {
	p.setLocked(w, StateLeased)
	w.leasedAt = time.Now()
	p.leased[w] = struct{}{}
	if len(p.leased) == 1 {
		select {
		case p.busy <- struct{}{}:
		default:
		}
	}
}

// setLocked moves a worker along its life.
func (p *Pool) setLocked(w *worker, to State) {
	state, err := transition(w.state, to)
	if err != nil {
		panic(err)
	}
	w.state = state
}

// endLocked records why a worker is to end. The first reason counts.
func (p *Pool) endLocked(w *worker, reason Reason) {
	switch w.state {
	case StateDraining, StateDead:
		return
	case StateBooting:
		w.cohort().booting--
	case StateIdle:
		c := w.cohort()
		if i := slices.Index(c.idle, w); i >= 0 {
			c.idle = slices.Delete(c.idle, i, i+1)
		}
	case StateLeased:
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

// takeBack gives up a worker that was leased before it was made, and that its lane was not asked for: the lane is free for the next.
func (p *Pool) takeBack(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.lane.current == w { // else it ended with its lane
		p.endLocked(w, reasonNotForked)
		p.exitedLocked(w.lane, exit{lost: true})
	}
}

func (p *Pool) exitedLocked(l *lane, e exit) {
	w := l.current
	if w == nil {
		return
	}
	reason := ReasonCrashed
	if w.state == StateLeased && !e.lost {
		l.madeLocked()
		reason = ReasonServed
	} else if w.state == StateBooting {
		reason = ReasonBootFailed
	}
	if reason == ReasonServed && e.outOfMemory && e.status.Signaled() {
		reason = ReasonMemoryLimit
	}
	if p.closed && w.state != StateLeased {
		reason = ReasonShutdown
	}
	p.endLocked(w, reason)
	p.setLocked(w, StateDead)
	delete(p.leased, w)
	p.madeLocked(w)
	l.current = nil
	w.exit = e
	switch {
	case w.reason == ReasonServed && w.born != nil: // its request finds out
	case w.reason == ReasonBootFailed && l.leaving, w.reason == reasonNotForked: // there was no process
	default:
		p.cfg.Metrics.WorkerExited(w.reason)
	}
	if w.leasedAt.IsZero() {
		w.closePipes() // else its request does
	}
	c := l.cohort()
	if _, alive := p.lanes[l]; alive {
		p.vacateLocked(l)
	}
	p.dispatchLocked()
	p.refillLocked(c)
	close(w.dead) // last, so that the scheduler lets its request go on before what refills
}

// leaves takes a lane's word that it goes: it gets no other worker.
func (p *Pool) leaves(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.leaving = true
	p.unvacateLocked(l)
}

// vacateLocked takes a lane without a worker: for the next, unless its time is over.
func (p *Pool) vacateLocked(l *lane) {
	c := l.cohort()
	if p.closed || c.retired || l.gaveWay {
		l.retire()
		return
	}
	c.vacant = append(c.vacant, l)
}

func (p *Pool) unvacateLocked(l *lane) {
	c := l.cohort()
	if i := slices.Index(c.vacant, l); i >= 0 {
		c.vacant = slices.Delete(c.vacant, i, i+1)
	}
}

// laneGone takes the end of a lane, and with it of its worker.
func (p *Pool) laneGone(l *lane) {
	c := l.cohort()
	p.mu.Lock()
	delete(p.lanes, l)
	p.unvacateLocked(l)
	p.mu.Unlock()
	if p.scratchDir != "" {
		_ = l.template.tell("sweep", time.Now().Add(laneStartTimeout)) // refused by a template that is gone, too
		removeScratchOf(p.scratchDir, l.pid)                           // the lane has tried
	}
	p.exited(l, exit{lost: true})
	p.mu.Lock()
	defer p.mu.Unlock()
	c.lanes--
	p.endRetiredLocked(c)
	p.refillLocked(c)
}

// Close drains the pool: new requests are refused, running ones may finish within Config.ShutdownGrace, then every
// process is ended. It returns when the last one is gone. Only the first call does something.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	close(p.closing)
	for p.waiters.Len() > 0 {
		close(p.waiters.Remove(p.waiters.Front()).(*waiter).worker)
	}
	p.mu.Unlock()

	if p.unwatch != nil {
		p.unwatch()
	}
	drained := make(chan struct{})
	go func() {
		p.running.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(p.cfg.ShutdownGrace):
	}
	p.mu.Lock()
	var remaining []*worker
	for l := range p.lanes {
		if w := l.current; w != nil {
			p.endLocked(w, ReasonShutdown)
			remaining = append(remaining, w)
		}
		l.retire()
	}
	p.mu.Unlock()
	for _, w := range remaining {
		w.lane.endWorker(w)
	}
	p.cancel() // the supervisors stop their templates
	// Lanes end when asked to, or with their template's namespace; without namespaces a stuck one needs this.
	last := time.AfterFunc(killGrace, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for l := range p.lanes {
			l.kill()
		}
	})
	p.background.Wait()
	last.Stop()
	<-drained
	p.group.Remove()
	return errors.Join(p.closeStore(), p.removeScratch())
}

func (p *Pool) removeScratch() error {
	if p.scratchDir == "" {
		return nil
	}
	if err := os.RemoveAll(p.scratchDir); err != nil {
		return fmt.Errorf("removing scratch: %w", err)
	}
	return nil
}

// Stat returns a snapshot.
func (p *Pool) Stat() Stat {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stat{
		Draining: p.closed, Workers: map[State]int{}, TemplatesTarget: p.cfg.Templates, QueueDepth: p.waiters.Len(),
		WorkerMemory: p.memory, Python: p.python, Preloaded: p.cfg.Preload, Isolation: p.cfg.Isolation, Guarantees: p.guarantees,
	}
	for _, state := range States {
		if state != StateDead {
			s.Workers[state] = 0
		}
	}
	for l := range p.lanes {
		if l.current != nil {
			s.Workers[l.current.state]++
		}
	}
	for _, t := range p.current.templates {
		if t != nil {
			s.Templates++
		}
	}
	s.Ready = s.Templates > 0 && !p.closed && (p.servesLocked() || !p.current.failingLocked())
	return s
}
