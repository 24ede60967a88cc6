package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"
)

// refillDelay is how long forks wait for executions to end while enough workers are parked.
const refillDelay = 20 * time.Millisecond

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
		if err != nil && !errors.Is(err, errTemplateGone) {
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
	p.forkLaterLocked(refillDelay)
}

// forkLaterLocked starts what is missing after a while. One such timer at a time is enough: it looks again itself.
func (p *Pool) forkLaterLocked(delay time.Duration) {
	if p.refillLater {
		return
	}
	p.refillLater = true
	time.AfterFunc(delay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refillLater = false
		p.forkLocked()
	})
}

// forkLocked starts what is missing.
func (p *Pool) forkLocked() {
	if p.closed {
		return
	}
	if wait := time.Until(p.bootRetry); wait > 0 {
		p.forkLaterLocked(wait)
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
	if err == nil && p.group != nil {
		if l.group, err = p.group.enter(l.pid); err != nil {
			l.kill()
			l.close()
			err = fmt.Errorf("putting a lane into its control group: %w", err)
		}
	}
	if err != nil && t.endsSoon() {
		err = errTemplateGone
	}
	p.mu.Lock()
	p.laneStarts--
	if err != nil {
		if !p.closed && !errors.Is(err, errTemplateGone) { // then its supervisor refills
			p.bootFailureLocked(err)
			p.refillLocked()
		}
		p.mu.Unlock()
		return
	}
	p.lanes[l] = struct{}{}
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		l.receive(func(e exit, last bool) { p.exited(l, e, last) }, func() { p.laneGone(l) })
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
		l.current = w
		_, alive := p.lanes[l]
		p.mu.Unlock()
		if !alive {
			closeAll(theirs)
			p.exited(l, exit{lost: true}, true)
			return
		}
		if err := w.boot(theirs, p.processLimit()); err != nil {
			lost := l.template.endsSoon()
			p.mu.Lock()
			reason := ReasonBootFailed
			if errors.Is(err, errProtocol) {
				reason = ReasonProtocol
			}
			if w.state != StateDead {
				p.endLocked(w, reason)
				if _, alive := p.lanes[l]; alive && !p.closed && !lost {
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

// processLimit is RLIMIT_NPROC for a worker whose id others have too; 0 when its lane has set one.
func (p *Pool) processLimit() int {
	if p.others == nil {
		return 0
	}
	return p.others.get() + p.cfg.Processes
}

// bootFailureLocked slows boots down while they fail.
func (p *Pool) bootFailureLocked(err error) {
	p.bootFailed++
	p.bootRetry = time.Now().Add(min(5*time.Second, 20*time.Millisecond<<min(p.bootFailed, 16)))
	p.log.Error("worker did not boot", "error", err, "in_a_row", p.bootFailed)
}
