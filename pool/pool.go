package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/packages"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/cgroup"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// Pool keeps warm, confined Python workers and runs code in them. All methods may be called concurrently.
type Pool struct {
	cfg        Config
	python     process.Interpreter
	plan       confine.Plan // without packages; each worker set adds its own
	guarantees []Guarantee
	log        *slog.Logger
	scratchDir string        // "" with namespaces
	group      *cgroup.Group // nil when none is delegated
	others     *processCount // of the user that workers share with Caddy; nil when RLIMIT_NPROC counts the worker's processes alone
	watches    watchRate
	store      *packages.Store // nil where nothing can be installed
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
	leases         int           // how many workers have been leased so far
	waiters        list.List     // of *waiter, the first to come first
	busy           chan struct{} // wakes the monitor; buffered(1)
	failuresLogged rarely        // workers that could not be made
	memory         int64         // bytes held by leased workers, when the monitor last looked
}

// waiter is a request that waits for a worker.
type waiter struct {
	worker chan *worker // buffered(1); closed when the pool closes
}

// New starts a pool and returns once its first template is ready; workers are started after that, in the background. The error is a
// sentence for the operator. ctx bounds the start only. The caller must Close the pool.
func New(ctx context.Context, cfg Config) (*Pool, error) {
	return newPool(ctx, cfg, confine.ThisSystem())
}

func newPool(ctx context.Context, cfg Config, sys confine.System) (*Pool, error) {
	cfg, err := cfg.Normalize()
	if err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, log: cfg.Logger, lanes: map[*lane]struct{}{}, leased: map[*worker]struct{}{}, busy: make(chan struct{}, 1), closing: make(chan struct{})}
	if p.python, err = process.FindInterpreter(ctx, cfg.Python); err != nil {
		return nil, err
	}
	if cfg.PackagesDir != "" {
		if p.store, err = packages.Open(filepath.Join(cfg.PackagesDir, p.python.Tag), cfg.Logger); err != nil {
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
	p.mu.Lock() // the supervisors that newWorkerSet starts use p.current
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

// follow switches to the store's current set of packages, if that has changed since the pool read it and before Watch.
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

// installed returns the current set of packages, which the caller must Release; nil when nothing can be installed.
func (p *Pool) installed() *packages.Generation {
	if p.store == nil {
		return nil
	}
	return p.store.Current()
}

// Generation is the number of the set of packages with which the next request runs; it grows with each change. It is 0 when there is no
// set.
func (p *Pool) Generation() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current.generation()
}

// siteOf is the directory from which programs import a set of packages; "" when set is nil.
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

// InstallHost returns what package install needs of this pool. Its Store is nil when nothing can be installed.
func (p *Pool) InstallHost() install.Host {
	return install.Host{Store: p.store, Plan: p.plan, Python: p.python, Logger: p.log, Grace: p.cfg.ShutdownGrace}
}

func (p *Pool) closeStore() error {
	if p.store == nil {
		return nil
	}
	return p.store.Close()
}

// Close drains the pool: new requests are refused, running ones may finish within Config.ShutdownGrace, then every
// process is ended. It returns when the last one is gone. Only the first call does this; further calls return nil at once.
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
	// Lanes end when retired, or with their template's namespace. Without namespaces a lane that hangs has to be killed.
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

// Stat returns a snapshot of the pool's state. It does not block.
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
