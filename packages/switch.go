package packages

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Watcher is asked before each switch, and prepares for the next generation, as by starting processes that use it.
type Watcher interface {
	// Prepare returns once the change can be made at once, or with the reason why not, which ends the switch. It may be
	// called concurrently with others' Prepare. The context is for the preparation only: it ends after it, and when another
	// watcher refuses. Who keeps next beyond Prepare must Retain it. A nil Change is one with nothing to do.
	Prepare(ctx context.Context, next *Generation) (Change, error)
}

// Change is what a Watcher has prepared. One of its methods is called, once, and must not fail or wait for long.
type Change interface {
	// Commit is called when the generation has become the current one.
	Commit()
	// Abort is called when it will not.
	Abort()
}

// watching is a Watcher from Watch to stop; the same one may watch twice.
type watching struct{ Watcher }

// Watch asks w before each switch of this process from now on, until stop. Who calls it first and Current then misses no
// switch. A change that was prepared is still committed or aborted after stop, and one more may just be asked for.
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

// prepared are the changes of one switch, in the order in which their watchers came. A nil Change is one, too.
type prepared struct {
	watchers []*watching
	changes  []Change
}

// Switch makes a generation that Build returned the current one: all watchers prepare concurrently, it is made current
// durably, and then their changes are committed. When a watcher refuses, or ctx ends before it is current, all changes are
// aborted, the generation is removed, and what was current stays. With Base, this process follows what another one has
// switched to.
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

// switchTo returns what was current, with the store's reference to it.
func (i *Install) switchTo(ctx context.Context, g *Generation) (old *Generation, err error) {
	s := i.store
	// What current will name must be on disk before it is named: the files, which nothing has waited for yet, and the
	// names of their directories.
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
	if err := syncDir(s.dir); err != nil { // it is current all the same
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

// prepareAndPoint asks watchers until there is none that was not asked, and switches in the same moment: whoever watches
// later finds the new generation by Current.
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

// prepare asks watchers concurrently, and returns the first refusal when all have answered.
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

// syncFileSystem waits for all that was written to the file system of a directory.
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
