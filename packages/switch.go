package packages

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Watcher is asked before each switch, and prepares for the next generation, for instance by starting processes that use it.
type Watcher interface {
	// Prepare returns a Change when the watcher is ready for the switch; an error refuses the switch. Prepare may run
	// concurrently with that of other watchers. ctx ends when all watchers have answered or one has refused, so what is
	// prepared must not depend on it. A watcher that uses next after Prepare has returned must Retain it. A nil Change
	// means that there is nothing to commit or abort.
	Prepare(ctx context.Context, next *Generation) (Change, error)
}

// Change is what a Watcher has prepared. Exactly one of its methods is called, once; it must not fail or block for long.
type Change interface {
	// Commit is called when the generation has become the current one.
	Commit()
	// Abort is called when the switch has failed and the old generation stays current.
	Abort()
}

// watching is one registration of a Watcher. A pointer to it tells two registrations of the same Watcher apart.
type watching struct{ Watcher }

// Watch asks w before each switch of this process from now on, until stop is called. A caller that first calls Watch and
// then Current misses no switch. stop does not wait for a switch that is under way: w.Prepare may still be called for it,
// and its Change is still committed or aborted.
func (s *Store) Watch(w Watcher) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry := &watching{w}
	s.watchers = append(s.watchers, entry)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers = slices.DeleteFunc(s.watchers, func(other *watching) bool { return other == entry })
	}
}

// prepared has the watchers that one switch has asked, and the Change of each at the same index, nil for one that refused
// or has nothing to do.
type prepared struct {
	watchers []*watching
	changes  []Change
}

// Switch makes g, which Build has returned, the current generation: all watchers prepare concurrently, then current is
// pointed to g durably, and then the watchers' changes are committed. When a watcher refuses, or ctx ends before g is
// current, all changes are aborted, the old generation stays current, and g is removed unless a watcher retains it.
//
// Switch(ctx, Base()) makes this process follow a switch that another process has made.
func (i *Install) Switch(ctx context.Context, g *Generation) error {
	if !i.isBuilt(g) {
		return fmt.Errorf("switching to generation %d of packages: this install has not built it", g.Number)
	}
	old, err := i.switchTo(ctx, g)
	if err != nil {
		i.discard(g)
		return fmt.Errorf("switching to generation %d of packages: %w", g.Number, err)
	}
	old.Release()
	return nil
}

// switchTo returns the generation that was current before. The store's reference to it passes to the caller.
func (i *Install) switchTo(ctx context.Context, g *Generation) (old *Generation, err error) {
	s := i.store
	// The files of the generation and the names of its directories must be on disk before current points there, or a power
	// failure could leave current on a generation with empty files. Nothing has synced them so far.
	if err := syncFileSystem(s.dir); err != nil {
		return nil, err
	}
	var changes prepared
	old, err = s.prepareAndPoint(ctx, g, &changes)
	if err != nil {
		for _, change := range changes.changes {
			if change != nil {
				change.Abort()
			}
		}
		return nil, err
	}
	if err := syncDir(s.dir); err != nil { // no reason to abort: current points to the new generation already
		s.log.Warn("cannot make a switch of packages durable; after a power failure the old set may be current again",
			"store", s.dir, "generation", g.Number, "error", err)
	}
	for _, change := range changes.changes {
		if change != nil {
			change.Commit()
		}
	}
	return old, nil
}

// prepareAndPoint asks watchers, also those that are added meanwhile, until all have been asked, and then switches without
// giving up the lock in between: a watcher that is added later finds the new generation by Current.
func (s *Store) prepareAndPoint(ctx context.Context, g *Generation, changes *prepared) (old *Generation, err error) {
	for {
		s.mu.Lock()
		var unasked []*watching
		if g != s.current {
			for _, w := range s.watchers {
				if !slices.Contains(changes.watchers, w) {
					unasked = append(unasked, w)
				}
			}
		}
		if len(unasked) == 0 {
			defer s.mu.Unlock()
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := s.pointCurrent(g.Number); err != nil {
				return nil, err
			}
			if s.closed {
				return s.none, nil
			}
			old, s.current = s.current, g.retainLocked()
			return old, nil
		}
		s.mu.Unlock()
		if err := changes.prepare(ctx, unasked, g); err != nil {
			return nil, err
		}
	}
}

// prepare asks watchers concurrently, waits until all have answered, and returns the first refusal.
func (p *prepared) prepare(ctx context.Context, watchers []*watching, g *Generation) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type answer struct {
		at     int
		change Change
		err    error
	}
	answers := make(chan answer, len(watchers))
	for at, w := range watchers {
		go func() {
			change, err := w.Prepare(ctx, g)
			answers <- answer{at, change, err}
		}()
	}
	first := len(p.changes)
	p.watchers = append(p.watchers, watchers...)
	p.changes = append(p.changes, make([]Change, len(watchers))...)
	var refusal error
	for range watchers {
		a := <-answers
		if a.err == nil {
			p.changes[first+a.at] = a.change
		} else if refusal == nil {
			refusal = a.err
			cancel(refusal)
		}
	}
	return refusal
}

// syncFileSystem waits until everything that was written to the file system of dir is on disk (syncfs(2)).
func syncFileSystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	return nil
}
