package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
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
	scratchDir string // "" with namespaces
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
	refillLater bool          // a refill is due within refillDelay
	busy        chan struct{} // wakes the monitor; buffered(1)
	memory      int64         // of leased workers at the monitor's last look
}

// refillDelay is how long forks wait for executions to end while enough workers are parked.
const refillDelay = 20 * time.Millisecond

// waiter is a request that waits for a worker.
type waiter struct {
	worker chan *worker // buffered(1); closed when the pool closes
}

// New starts a pool and returns once its first template is ready; the workers come behind it. The error is a sentence
// for the operator. ctx bounds the start only.
func New(ctx context.Context, cfg Config) (*Pool, error) {
	cfg, err := cfg.Normalize()
	if err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, lanes: map[*lane]struct{}{}, leased: map[*worker]struct{}{}, busy: make(chan struct{}, 1)}
	if p.python, err = findInterpreter(ctx, cfg.Python); err != nil {
		return nil, err
	}
	first, err := p.confine(ctx)
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

// supervise keeps one template slot filled until the pool closes.
func (p *Pool) supervise(slot int, t *template) {
	defer p.background.Done()
	failures := 0
	for {
		var err error
		if t == nil {
			t, err = startTemplate(p.ctx, p.python, p.plan)
		}
		if err == nil {
			started := time.Now()
			p.mu.Lock()
			p.templates[slot] = t
			p.mu.Unlock()
			p.refill()
			select {
			case <-t.exited:
			case <-p.ctx.Done():
				t.stop()
			}
			p.mu.Lock()
			p.templates[slot] = nil
			p.mu.Unlock()
			if p.ctx.Err() == nil {
				p.cfg.Metrics.TemplateExited()
				p.log.Warn("template ended", "status", t.cmd.ProcessState.String(), "stderr", lastLine(t.stderr.String()))
			}
			if time.Since(started) > 10*time.Second {
				failures = 0
			}
		} else if p.ctx.Err() == nil {
			p.log.Error("template did not start", "error", err)
		}
		t = nil
		// One that was ready and died comes back soon, one that cannot start ever later.
		longest := 300 * time.Millisecond
		if err != nil {
			longest = 10 * time.Second
		}
		delay := min(longest, 10*time.Millisecond<<min(failures, 16))
		failures++
		select {
		case <-p.ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay/2+1)):
		}
	}
}

// refill brings the number of workers that are parked or on their way to what is wanted.
func (p *Pool) refill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refillLocked()
}

// refillLocked does so, but leaves the processor to what executes while enough are parked: most executions are over
// before refillDelay, and their end refills.
func (p *Pool) refillLocked() {
	if len(p.leased) == 0 || p.waiters.Len() > 0 || len(p.idle) <= p.cfg.Idle/2 {
		p.forkLocked()
		return
	}
	if !p.refillLater {
		p.refillLater = true
		time.AfterFunc(refillDelay, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.refillLater = false
			p.forkLocked()
		})
	}
}

// forkLocked starts what is missing.
func (p *Pool) forkLocked() {
	if p.closed {
		return
	}
	if wait := time.Until(p.bootRetry); wait > 0 {
		time.AfterFunc(wait, p.refill)
		return
	}
	wanted := min(p.waiters.Len(), p.cfg.Max-len(p.leased))
	missing := p.cfg.Idle + wanted - len(p.idle) - p.booting
	// More forks at once than cores only get in each other's way.
	for missing = min(missing, max(2, runtime.NumCPU())-p.booting); missing > 0; missing-- {
		if n := len(p.vacant); n > 0 {
			l := p.vacant[n-1]
			p.vacant = p.vacant[:n-1]
			p.bootLocked(l)
			continue
		}
		if len(p.lanes)+p.laneStarts >= p.cfg.Idle+p.cfg.Max {
			return
		}
		if !p.growLocked(missing) {
			return
		}
	}
}

// growLocked starts a lane on the template that has the fewest, unless enough are under way.
func (p *Pool) growLocked(missing int) bool {
	if p.laneStarts >= missing {
		return false
	}
	counts := map[*template]int{}
	for l := range p.lanes {
		counts[l.template]++
	}
	var chosen *template
	for _, t := range p.templates {
		if t != nil && (chosen == nil || counts[t] < counts[chosen]) {
			chosen = t
		}
	}
	if chosen == nil {
		return false
	}
	p.laneStarts++
	p.background.Add(1)
	go p.grow(chosen)
	return true
}

func (p *Pool) grow(t *template) {
	defer p.background.Done()
	l, err := startLane(t)
	p.mu.Lock()
	p.laneStarts--
	if err != nil {
		if !p.closed {
			select {
			case <-t.exited: // its supervisor refills
			default:
				p.bootFailureLocked(err)
				p.refillLocked()
			}
		}
		p.mu.Unlock()
		return
	}
	p.lanes[l] = struct{}{}
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		l.receive(func(number int, e exit) { p.exited(l, number, e) }, func() { p.laneGone(l) })
	}()
	if p.closed {
		l.retire()
	} else {
		p.vacant = append(p.vacant, l)
		p.refillLocked()
	}
	p.mu.Unlock()
}

// bootLocked makes a worker in a vacant lane.
func (p *Pool) bootLocked(l *lane) {
	p.booting++
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		w, theirs, err := newWorker(l)
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.booting--
			p.vacant = append(p.vacant, l)
			p.bootFailureLocked(err)
			p.refillLocked()
			return
		}
		p.mu.Lock()
		l.number++
		w.number = l.number
		l.current = w
		_, alive := p.lanes[l]
		p.mu.Unlock()
		if !alive {
			closeAll(theirs)
			p.exited(l, w.number, exit{lost: true})
			return
		}
		if err := w.boot(theirs); err != nil {
			p.mu.Lock()
			reason := ReasonBootFailed
			if errors.Is(err, errProtocol) {
				reason = ReasonProtocol
			}
			if w.state != StateDead {
				p.endLocked(w, reason)
				if _, alive := p.lanes[l]; alive && !p.closed {
					p.bootFailureLocked(err)
				}
			}
			p.mu.Unlock()
			l.kill() // a lane whose worker failed to boot is not trusted with another
			return
		}
		p.parked(w)
	}()
}

// bootFailureLocked slows boots down while they fail.
func (p *Pool) bootFailureLocked(err error) {
	p.bootFailed++
	p.bootRetry = time.Now().Add(min(5*time.Second, 20*time.Millisecond<<min(p.bootFailed, 16)))
	p.log.Error("worker did not boot", "error", err, "in_a_row", p.bootFailed)
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

// exited takes the end of a worker: whatever it left is ended too, and its lane is free for the next.
func (p *Pool) exited(l *lane, number int, e exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := l.current
	if w == nil || w.number != number {
		return
	}
	reason := ReasonCrashed
	if w.state == StateLeased && !e.lost {
		reason = ReasonServed
	} else if w.state == StateBooting {
		reason = ReasonBootFailed
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
	if w.reason == ReasonBootFailed || w.reason == ReasonCrashed || w.reason == ReasonShutdown || w.reason == ReasonProtocol {
		w.closePipes() // no request will
	}
	if _, alive := p.lanes[l]; alive && !e.lost {
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
	number := l.number
	p.mu.Unlock()
	p.exited(l, number, exit{lost: true})
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
	for l := range p.lanes {
		if l.current != nil {
			p.endLocked(l.current, ReasonShutdown)
		}
		l.retire()
	}
	p.mu.Unlock()
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
