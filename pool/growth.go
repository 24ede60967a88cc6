package pool

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// growLocked starts a lane, unless enough are under way: on the template that has the fewest, of those whose last ones did not
// fail just now. What fails in one template holds back neither another one nor the lanes that are there.
func (p *Pool) growLocked(set *workerSet, missing int) bool {
	if set.laneStarts >= missing {
		return false
	}
	var counts map[*template]int
	var chosen *template
	retry := time.Duration(-1)
	for _, t := range set.templates {
		if t == nil {
			continue
		}
		if wait := t.growth.wait(); wait > 0 {
			if retry < 0 || wait < retry {
				retry = wait
			}
			continue
		}
		if counts == nil {
			counts = p.lanesByTemplateLocked()
		}
		if chosen == nil || counts[t] < counts[chosen] {
			chosen = t
		}
	}
	if chosen == nil {
		if retry > 0 {
			p.forkLaterLocked(set, retry)
		}
		return false // without a template there is a supervisor that refills
	}
	set.laneStarts++
	p.background.Add(1)
	go p.grow(set, chosen)
	return true
}

func (p *Pool) lanesByTemplateLocked() map[*template]int {
	counts := map[*template]int{}
	for l := range p.lanes {
		counts[l.template]++
	}
	return counts
}

func (p *Pool) grow(set *workerSet, t *template) {
	defer p.background.Done()
	l, err := startLane(t, laneStartTimeout)
	if err == nil && p.group != nil {
		if l.group, err = p.group.Enter(l.pid); err != nil {
			l.kill()
			l.close()
			err = fmt.Errorf("putting a lane into its control group: %w", err)
		}
	}
	if err != nil && t.endsSoon() {
		err = process.ErrGone
	}
	p.mu.Lock()
	set.laneStarts--
	if err != nil {
		if !p.closed && !set.retired && !errors.Is(err, process.ErrGone) { // then its supervisor refills
			p.growthFailedLocked(t, err)
			p.refillLocked(set)
		}
		p.endRetiredLocked(set)
		p.mu.Unlock()
		return
	}
	p.lanes[l] = struct{}{}
	set.lanes++
	p.background.Add(1)
	go func() {
		defer p.background.Done()
		l.receive(func(e exit) { p.exited(l, e) }, func() { p.leaves(l) }, func() { p.laneGone(l) })
	}()
	p.freeLocked(l)
	p.refillLocked(set)
	p.mu.Unlock()
}

// growthFailedLocked holds back the next lane of a template after one that could not be started, or made no worker.
func (p *Pool) growthFailedLocked(t *template, err error) {
	set := t.set
	t.growth.fail()
	p.logFailureLocked(set, err)
	if errors.Is(err, errLaneTimeout) && p.lanesByTemplateLocked()[t] == 0 {
		_ = t.Cmd.Process.Kill() // nobody loses anything by it, and its supervisor starts another
	}
	for _, t := range set.templates {
		if t != nil && t.growth.failures < 3 {
			return
		}
	}
	set.announce(err)
}

// madeLocked is called when a lane has made a worker. If it is younger than its template's last failure, lanes can be started
// again; that older ones make workers says nothing of that.
func (l *lane) madeLocked() {
	l.made++
	if g := &l.template.growth; g.failures > 0 && l.since.After(g.failed) {
		g.succeed()
	}
}

// failingLocked says whether nothing can be forked at the moment.
func (set *workerSet) failingLocked() bool {
	if set.pipes.failures > 0 {
		return true
	}
	for _, t := range set.templates {
		if t != nil && t.growth.failures == 0 {
			return false
		}
	}
	return true
}

// servesLocked says whether there is a lane that makes workers for requests.
func (p *Pool) servesLocked() bool {
	for l := range p.lanes {
		if l.made > 0 && l.set() == p.current {
			return true
		}
	}
	return false
}

// logFailureLocked logs that a worker could not be made. It is an error when requests have to wait for that, and a warning as
// long as other workers serve.
func (p *Pool) logFailureLocked(set *workerSet, err error) {
	held, ok := p.failuresLogged.allow()
	if !ok {
		return
	}
	if set == p.current && p.servesLocked() {
		p.log.Warn("a worker could not be started; the others serve", "error", err, "not_logged_before", held)
		return
	}
	p.log.Error("no worker could be started", "error", err, "not_logged_before", held)
}
