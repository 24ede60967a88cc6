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
	plan       confine.Plan // without packages; each worker set's own has them
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
	closing        chan struct{} // closed by Close
	current        *workerSet    // serves requests
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
	p.current = p.newWorkerSet(set, first)
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
		removeScratchOf(p.scratchDir, l.pid)                           // the lane has tried
	}
	p.exited(l, exit{lost: true})
	p.mu.Lock()
	defer p.mu.Unlock()
	set.lanes--
	p.endRetiredLocked(set)
	p.refillLocked(set)
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
