package pool

import (
	"errors"
	"runtime"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// refillDelay is how long forks wait for executions to end while enough workers are parked.
const refillDelay = 20 * time.Millisecond

// maxForks is how many workers are made at once. Many more than cores only get in each other's way; the one more keeps the
// cores at work while an answer or the next request is on its way.
var maxForks = runtime.NumCPU() + 1

// supervise keeps one slot of a worker set filled with a template until the set ends.
func (p *Pool) supervise(set *workerSet, slot int, t *template) {
	defer set.supervisors.Done()
	starts := backoff{first: 10 * time.Millisecond}
	var logged, endsLogged rarely
	for {
		var err error
		if t == nil {
			t, err = startTemplate(set.ctx, p.python, set.plan)
		}
		if err == nil {
			started := time.Now()
			t.set = set
			p.mu.Lock()
			set.templates[slot] = t
			p.refillLocked(set)
			p.mu.Unlock()
			select {
			case <-t.Exited:
			case <-set.ctx.Done():
				t.Stop()
			}
			p.mu.Lock()
			set.templates[slot] = nil
			p.mu.Unlock()
			if set.ctx.Err() == nil {
				p.cfg.Metrics.TemplateExited()
				if held, ok := endsLogged.allow(); ok {
					p.log.Warn("template ended", "status", t.Cmd.ProcessState.String(), "stderr", process.LastLine(t.Stderr.String()), "not_logged_before", held)
				}
			}
			if time.Since(started) > 10*time.Second {
				starts.succeed()
			}
		} else if set.ctx.Err() == nil {
			if held, ok := logged.allow(); ok {
				p.log.Error("template did not start", "error", err, "not_logged_before", held)
			}
			set.announce(err)
		}
		t = nil
		// One that was ready and died comes back soon, one that cannot start ever later.
		starts.longest = 300 * time.Millisecond
		if err != nil && !errors.Is(err, process.ErrGone) {
			starts.longest = 10 * time.Second
		}
		select {
		case <-set.ctx.Done():
			return
		case <-time.After(starts.fail()):
		}
	}
}

// refillLocked brings the number of workers that are parked or on their way to what is wanted. It leaves the processor to
// what executes while enough are parked: most executions are over before refillDelay, and their end refills.
func (p *Pool) refillLocked(set *workerSet) {
	if len(p.leased) == 0 || p.waiters.Len() > 0 || len(set.idle) <= p.cfg.Idle/2 {
		p.forkLocked(set)
		return
	}
	p.forkLaterLocked(set, refillDelay)
}

// forkLaterLocked starts what is missing after a while. A timer that is due by then is enough: it looks again itself.
func (p *Pool) forkLaterLocked(set *workerSet, delay time.Duration) {
	at := time.Now().Add(delay)
	if !set.forksAt.IsZero() && !set.forksAt.After(at) {
		return
	}
	set.forksAt = at
	time.AfterFunc(delay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if set.forksAt.Equal(at) {
			set.forksAt = time.Time{}
		}
		p.forkLocked(set)
	})
}

// forkLocked starts what is missing.
func (p *Pool) forkLocked(set *workerSet) {
	if p.closed || set.retired {
		return
	}
	p.leaseFreeLocked(set)
	if wait := set.pipes.wait(); wait > 0 {
		p.forkLaterLocked(set, wait)
		return
	}
	wanted := 0
	if set == p.current {
		wanted = min(p.waiters.Len(), p.cfg.Max-len(p.leased))
	}
	missing := p.cfg.Idle + wanted - len(set.idle) - set.count[StateBooting]
	for missing = min(missing, maxForks-set.beingForked()); missing > 0; missing-- {
		if n := len(set.free); n > 0 {
			l := set.free[n-1]
			set.free = set.free[:n-1]
			p.bootLocked(l)
			continue
		}
		if set.lanes+set.laneStarts >= p.cfg.Idle+p.cfg.Max {
			return
		}
		if !p.growLocked(set, missing) {
			return
		}
	}
}

// bootLocked has a free lane make a worker that is parked. The worker is the lane's current one as soon as it has pipes, which the
// end of the lane closes from then on.
func (p *Pool) bootLocked(l *lane) {
	set := l.set()
	w := newWorker(l, StateBooting)
	set.count[StateBooting]++
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		theirs, err := w.open()
		if err == nil {
			w.channel.pollable()
		}
		p.mu.Lock()
		l.current = w
		if _, alive := p.lanes[l]; err != nil || !alive {
			if err == nil {
				process.CloseAll(theirs)
			} else if set.pipes.fail(); !p.closed {
				p.logFailureLocked(set, err)
			}
			p.endLocked(w, reasonNotAsked)
			p.exitedLocked(l, exit{lost: true})
			p.mu.Unlock()
			return
		}
		set.pipes.succeed()
		p.mu.Unlock()
		if err := w.boot(theirs, p.processLimit()); err != nil {
			if errors.Is(err, process.ErrProtocol) {
				p.mu.Lock()
				p.endLocked(w, ReasonProtocol)
				p.mu.Unlock()
			}
			p.bootFailed(w, err)
			return
		}
		p.parked(w)
	}()
}

// bootFailed ends the lane of a worker that failed to boot: it is not trusted with another. What that says of its template is
// found out behind the caller, who may be a request.
func (p *Pool) bootFailed(w *worker, err error) {
	l := w.lane
	l.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.background.Go(func() {
		<-w.dead // by then all that the lane has said is known
		lost := l.template.endsSoon()
		p.mu.Lock()
		defer p.mu.Unlock()
		if w.reason != reasonLaneLeft && !lost && !p.closed && !l.set().retired {
			p.growthFailedLocked(l.template, err)
		}
	})
}

// processLimit is RLIMIT_NPROC for a worker whose id others have too; 0 when its lane has set one, or has a control group: that
// counts its processes alone.
func (p *Pool) processLimit() int {
	if p.others == nil || p.group != nil {
		return 0
	}
	return p.others.get() + p.cfg.Processes
}
