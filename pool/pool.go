package pool

import (
	"container/list"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Pool keeps warm, confined Python workers and runs code in them. All methods may be called concurrently.
type Pool struct {
	cfg        Config
	python     Interpreter
	plan       plan
	guarantees []Guarantee
	log        *slog.Logger
	scratchDir string        // "" with namespaces
	group      *cgroup       // nil when none is delegated
	others     *processCount // of the id that workers share with Caddy; nil when they have ids or namespaces of their own
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup // supervisors, lanes, boots, the monitor
	running    sync.WaitGroup // executions

	// mu guards what follows. No system call that can block is made under it.
	mu          sync.Mutex
	closed      bool
	templates   []*template // by slot; nil while one is down
	lanes       map[*lane]struct{}
	laneStarts  int       // lanes under way
	vacant      []*lane   // lanes without a worker
	idle        []*worker // parked, the youngest last
	booting     int
	leased      map[*worker]struct{}
	waiters     list.List     // of *waiter, the first to come first
	bootRetry   time.Time     // no boots before, after one failed
	bootFailed  int           // in a row
	refillLater bool          // a timer will start what is missing
	busy        chan struct{} // wakes the monitor; buffered(1)
	memory      int64         // of leased workers at the monitor's last look
}

// waiter is a request that waits for a worker.
type waiter struct {
	worker chan *worker // buffered(1); closed when the pool closes
}

// New starts a pool and returns once its first template is ready; the workers come behind it. The error is a sentence
// for the operator. ctx bounds the start only.
func New(ctx context.Context, cfg Config) (*Pool, error) { return newPool(ctx, cfg, thisSystem()) }

func newPool(ctx context.Context, cfg Config, sys system) (*Pool, error) {
	cfg, err := cfg.Normalize()
	if err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, lanes: map[*lane]struct{}{}, leased: map[*worker]struct{}{}, busy: make(chan struct{}, 1)}
	if p.python, err = findInterpreter(ctx, cfg.Python); err != nil {
		return nil, err
	}
	first, err := p.confine(ctx, sys)
	if err != nil {
		_ = p.removeScratch()
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.templates = make([]*template, cfg.Templates)
	for slot := range p.templates {
		p.background.Add(1)
		go p.supervise(slot, first)
		first = nil
	}
	p.background.Add(1)
	go p.monitor()
	return p, nil
}

// parked takes a worker that is ready: to the first waiter, or among the idle.
func (p *Pool) parked(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state != StateBooting {
		return // it died, or the pool closed, meanwhile
	}
	p.booting--
	p.bootFailed = 0
	p.setLocked(w, StateIdle)
	p.idle = append(p.idle, w)
	p.dispatchLocked()
	p.refillLocked()
}

// dispatchLocked gives idle workers to waiters in the order in which they came.
func (p *Pool) dispatchLocked() {
	for p.waiters.Len() > 0 && len(p.idle) > 0 && len(p.leased) < p.cfg.Max {
		first := p.waiters.Remove(p.waiters.Front()).(*waiter)
		first.worker <- p.leaseLocked()
	}
}

// leaseLocked takes the youngest idle worker, whose pages are still in the processor's caches. Preconditions: there is
// one, and fewer than Max are leased.
func (p *Pool) leaseLocked() *worker {
	w := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	p.setLocked(w, StateLeased)
	w.leasedAt = time.Now()
	p.leased[w] = struct{}{}
	if len(p.leased) == 1 {
		select {
		case p.busy <- struct{}{}:
		default:
		}
	}
	return w
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
		p.booting--
	case StateIdle:
		for i, other := range p.idle {
			if other == w {
				p.idle = append(p.idle[:i], p.idle[i+1:]...)
				break
			}
		}
	case StateLeased:
	}
	w.reason = reason
	p.setLocked(w, StateDraining)
}

// exited takes the end of a lane's worker: whatever it left is ended too. Unless it was the lane's last, the lane is free
// for the next.
func (p *Pool) exited(l *lane, e exit, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := l.current
	if w == nil {
		return
	}
	reason := ReasonCrashed
	if w.state == StateLeased && !e.lost {
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
	l.current = nil
	w.exit = e
	close(w.dead)
	p.cfg.Metrics.WorkerExited(w.reason)
	if w.leasedAt.IsZero() {
		w.closePipes() // else its request does
	}
	if _, alive := p.lanes[l]; alive && !last {
		if p.closed {
			l.retire()
		} else {
			p.vacant = append(p.vacant, l)
		}
	}
	p.dispatchLocked()
	p.refillLocked()
}

// laneGone takes the end of a lane, and with it of its worker.
func (p *Pool) laneGone(l *lane) {
	p.mu.Lock()
	delete(p.lanes, l)
	for i, other := range p.vacant {
		if other == l {
			p.vacant = append(p.vacant[:i], p.vacant[i+1:]...)
			break
		}
	}
	p.mu.Unlock()
	if p.scratchDir != "" {
		_ = l.template.control.write([]byte("sweep")) // refused by a template that is gone, too
		removeScratchOf(p.scratchDir, l.pid)          // the lane has tried
	}
	p.exited(l, exit{lost: true}, true)
	p.refill()
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
	for p.waiters.Len() > 0 {
		close(p.waiters.Remove(p.waiters.Front()).(*waiter).worker)
	}
	p.mu.Unlock()

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
	if p.group != nil {
		p.group.remove()
	}
	return p.removeScratch()
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
	for _, t := range p.templates {
		if t != nil {
			s.Templates++
		}
	}
	s.Ready = s.Templates > 0 && !p.closed && p.bootFailed == 0
	return s
}
