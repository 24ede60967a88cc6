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

// maxForks is how many workers are made at once. Many more than cores only get in each other's way; the one more keeps the
// cores at work while an answer or the next request is on its way.
var maxForks = runtime.NumCPU() + 1

// supervise keeps one slot of a cohort filled with a template until the cohort ends.
func (p *Pool) supervise(c *cohort, slot int, t *template) {
	defer c.supervisors.Done()
	failures := 0
	for {
		var err error
		if t == nil {
			t, err = startTemplate(c.ctx, p.python, c.plan)
		}
		if err == nil {
			started := time.Now()
			t.cohort = c
			p.mu.Lock()
			c.templates[slot] = t
			p.refillLocked(c)
			p.mu.Unlock()
			select {
			case <-t.exited:
			case <-c.ctx.Done():
				t.stop()
			}
			p.mu.Lock()
			c.templates[slot] = nil
			p.mu.Unlock()
			if c.ctx.Err() == nil {
				p.cfg.Metrics.TemplateExited()
				p.log.Warn("template ended", "status", t.cmd.ProcessState.String(), "stderr", lastLine(t.stderr.String()))
			}
			if time.Since(started) > 10*time.Second {
				failures = 0
			}
		} else if c.ctx.Err() == nil {
			p.log.Error("template did not start", "error", err)
			c.announce(err)
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
		case <-c.ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay/2+1)):
		}
	}
}

// refillLocked brings the number of workers that are parked or on their way to what is wanted. It leaves the processor to
// what executes while enough are parked: most executions are over before refillDelay, and their end refills.
func (p *Pool) refillLocked(c *cohort) {
	if len(p.leased) == 0 || p.waiters.Len() > 0 || len(c.idle) <= p.cfg.Idle/2 {
		p.forkLocked(c)
		return
	}
	p.forkLaterLocked(c, refillDelay)
}

// forkLaterLocked starts what is missing after a while. One such timer at a time is enough: it looks again itself.
func (p *Pool) forkLaterLocked(c *cohort, delay time.Duration) {
	if c.refillLater {
		return
	}
	c.refillLater = true
	time.AfterFunc(delay, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.refillLater = false
		p.forkLocked(c)
	})
}

// forkLocked starts what is missing.
func (p *Pool) forkLocked(c *cohort) {
	if p.closed || c.retired {
		return
	}
	if wait := time.Until(c.bootRetry); wait > 0 {
		p.forkLaterLocked(c, wait)
		return
	}
	p.leaseVacantLocked(c)
	wanted := 0
	if c == p.current {
		wanted = min(p.waiters.Len(), p.cfg.Max-len(p.leased))
	}
	missing := p.cfg.Idle + wanted - len(c.idle) - c.booting
	for missing = min(missing, maxForks-c.booting-c.making); missing > 0; missing-- {
		if n := len(c.vacant); n > 0 {
			l := c.vacant[n-1]
			c.vacant = c.vacant[:n-1]
			p.bootLocked(l)
			continue
		}
		if c.lanes+c.laneStarts >= p.cfg.Idle+p.cfg.Max {
			return
		}
		if !p.growLocked(c, missing) {
			return
		}
	}
}

// growLocked starts a lane on the template that has the fewest, unless enough are under way.
func (p *Pool) growLocked(c *cohort, missing int) bool {
	if c.laneStarts >= missing {
		return false
	}
	counts := map[*template]int{}
	for l := range p.lanes {
		counts[l.template]++
	}
	var chosen *template
	for _, t := range c.templates {
		if t != nil && (chosen == nil || counts[t] < counts[chosen]) {
			chosen = t
		}
	}
	if chosen == nil {
		return false
	}
	c.laneStarts++
	p.background.Add(1)
	go p.grow(c, chosen)
	return true
}

func (p *Pool) grow(c *cohort, t *template) {
	defer p.background.Done()
	l, err := startLane(t)
	if err == nil && p.group != nil {
		if l.group, err = p.group.Enter(l.pid); err != nil {
			l.kill()
			l.close()
			err = fmt.Errorf("putting a lane into its control group: %w", err)
		}
	}
	if err != nil && t.endsSoon() {
		err = errTemplateGone
	}
	p.mu.Lock()
	c.laneStarts--
	if err != nil {
		if !p.closed && !c.retired && !errors.Is(err, errTemplateGone) { // then its supervisor refills
			p.bootFailureLocked(c, err)
			p.refillLocked(c)
		}
		p.endRetiredLocked(c)
		p.mu.Unlock()
		return
	}
	p.lanes[l] = struct{}{}
	c.lanes++
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		l.receive(func(e exit) { p.exited(l, e) }, func() { p.leaves(l) }, func() { p.laneGone(l) })
	}()
	p.vacateLocked(l)
	p.refillLocked(c)
	p.mu.Unlock()
}

// bootLocked makes a worker in a vacant lane.
func (p *Pool) bootLocked(l *lane) {
	c := l.cohort()
	c.booting++
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		w := newWorker(l)
		theirs, err := w.open()
		if err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			c.booting--
			p.vacateLocked(l)
			p.bootFailureLocked(c, err)
			p.refillLocked(c)
			return
		}
		w.channel.pollable() // from here on the end of the lane may close it
		p.mu.Lock()
		l.current = w
		_, alive := p.lanes[l]
		p.mu.Unlock()
		if !alive {
			closeAll(theirs)
			p.exited(l, exit{lost: true})
			return
		}
		if err := w.boot(theirs, p.processLimit()); err != nil {
			if errors.Is(err, errProtocol) {
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

// bootFailed ends the lane of a worker that failed to boot: it is not trusted with another.
func (p *Pool) bootFailed(w *worker, err error) {
	l := w.lane
	l.kill()
	<-w.dead // by then all that the lane has said is known
	lost := l.template.endsSoon()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := l.cohort(); !l.leaving && !lost && !p.closed && !c.retired {
		p.bootFailureLocked(c, err)
	}
}

// processLimit is RLIMIT_NPROC for a worker whose id others have too; 0 when its lane has set one, or has a control group: that
// counts its processes alone.
func (p *Pool) processLimit() int {
	if p.others == nil || p.group != nil {
		return 0
	}
	return p.others.get() + p.cfg.Processes
}

// bootFailureLocked slows boots down while they fail.
func (p *Pool) bootFailureLocked(c *cohort, err error) {
	c.bootFailed++
	c.bootRetry = time.Now().Add(min(5*time.Second, 20*time.Millisecond<<min(c.bootFailed, 16)))
	p.log.Error("worker did not boot", "error", err, "in_a_row", c.bootFailed)
	if c.bootFailed == 3 {
		c.announce(err)
	}
}
