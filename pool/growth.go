package pool

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// growLocked starts a lane, unless missing lanes are starting already, and says whether it did. It picks the template with the fewest
// lanes among those whose backoff is over. The backoff of one template delays neither the other templates nor the lanes that exist.
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
		return false // when all templates are down, supervise refills once one is up
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
		if !p.closed && !set.retired && !errors.Is(err, process.ErrGone) { // when the template is gone, supervise refills
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
		p.receive(l)
	}()
	p.freeLocked(l)
	p.refillLocked(set)
	p.mu.Unlock()
}

// growthFailedLocked delays the next lane of a template after a lane could not be started, or its worker failed to boot.
func (p *Pool) growthFailedLocked(t *template, err error) {
	set := t.set
	t.growth.fail()
	p.logFailureLocked(set, err)
	if errors.Is(err, errLaneTimeout) && p.lanesByTemplateLocked()[t] == 0 {
		_ = t.Cmd.Process.Kill() // it has no lanes to lose; supervise starts another template
	}
	for _, t := range set.templates {
		if t != nil && t.growth.failures < 3 {
			return
		}
	}
	set.announce(err)
}

// madeLocked records that a lane has started a worker. If the lane was started after its template's last failure, the template can start
// lanes again and its backoff ends. A worker from an older lane does not show that.
func (l *lane) madeLocked() {
	l.made++
	if g := &l.template.growth; g.failures > 0 && l.since.After(g.failed) {
		g.succeed()
	}
}

// failingLocked says whether no worker can be started at the moment: Caddy cannot make pipes, or the last lane of every template failed.
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

// servesLocked says whether a lane of the current set has started a worker, and is still there.
func (p *Pool) servesLocked() bool {
	for l := range p.lanes {
		if l.made > 0 && l.set() == p.current {
			return true
		}
	}
	return false
}

// logFailureLocked logs that a worker could not be started: as a warning while other lanes serve requests, otherwise as an error. Most
// repetitions are suppressed (see rarely).
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
