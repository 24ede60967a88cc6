package pool

import (
	"errors"
	"runtime"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// refillDelay is how long forks are put off while something executes and more than half of the idle workers are still parked.
const refillDelay = 20 * time.Millisecond

// maxForks is how many workers are forked at the same time. Many more than there are cores only slow each other. The one more keeps the
// cores busy while an answer or the next request is on its way.
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
		// A template that was ready and has died is replaced soon. One that cannot start is tried less and less often.
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

// refillLocked starts the workers that are missing, or has that done later. While something executes and enough workers are parked, it
// leaves the processor to the executions: most end within refillDelay, and their end calls refillLocked again.
func (p *Pool) refillLocked(set *workerSet) {
	if len(p.leased) == 0 || p.waiters.Len() > 0 || len(set.idle) <= p.cfg.Idle/2 {
		p.forkLocked(set)
		return
	}
	p.forkLaterLocked(set, refillDelay)
}

// forkLaterLocked calls forkLocked after delay. If a timer is due earlier already, that one is enough: forkLocked sets a new one when it
// has to wait.
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

// forkLocked starts workers until as many are parked or being forked as Idle and the waiters need, within maxForks.
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

// bootLocked has a free lane fork a worker to be parked. Once the worker has pipes, it is the lane's current one; from then on the end of
// the lane closes them.
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

// bootFailed kills the lane of a worker that failed to boot, so that it forks no other. Whether the template is at fault takes a moment to
// find out, and the caller may be a request, so that is done in the background.
func (p *Pool) bootFailed(w *worker, err error) {
	l := w.lane
	l.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.background.Go(func() {
		<-w.dead // after this, a "leave" that the lane may have sent has been read
		lost := l.template.endsSoon()
		p.mu.Lock()
		defer p.mu.Unlock()
		if w.reason != reasonLaneLeft && !lost && !p.closed && !l.set().retired {
			p.growthFailedLocked(l.template, err)
		}
	})
}

// processLimit is the RLIMIT_NPROC of a worker that shares its user with other processes, which the kernel counts too. It is 0 when no
// limit for the worker alone is needed: its lane has set one, or has a control group, which counts the worker's processes only.
func (p *Pool) processLimit() int {
	if p.others == nil || p.group != nil {
		return 0
	}
	return p.others.get() + p.cfg.Processes
}
