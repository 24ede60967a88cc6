package packages

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestInstallsTakeTurns(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	first := begin(t, s)
	order := make(chan int, 5)
	cancelled := make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	for n := range 5 {
		go func() {
			if n == 2 {
				_, err := s.Begin(ctx)
				cancelled <- err
				return
			}
			i, err := s.Begin(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			order <- n
			i.End()
		}()
		eventually(t, "it waits", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.waiting) == n+1 })
	}
	cancel()
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	first.End()
	for _, want := range []int{0, 1, 3, 4} {
		if got := <-order; got != want {
			t.Errorf("the turn of %d came, want %d", got, want)
		}
	}
	if _, err := s.Begin(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	begin(t, s).End() // the cancelled Begins hold no turn
}

// A turn that is given at the moment when its context is cancelled is not lost: later installs can begin.
func TestATurnIsNotLost(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for range 200 {
		holder := begin(t, s)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if i, err := s.Begin(ctx); err == nil {
				i.End()
			}
		}()
		go cancel()
		holder.End()
		<-done
	}
	begin(t, s).End()
}

func TestInstallsOfTwoProcesses(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	_, end, ready := child(t, "hold", s.dir)
	if ready != "1" {
		t.Errorf("the other process began with generation %q", ready)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*lockPoll)
	defer cancel()
	if _, err := s.Begin(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v while another process installs", err)
	}
	other := openStore(t, s.dir) // Open does not wait for another process's install
	must(t, other.Close())
	if staging := list(t, s.path("staging")); len(staging) != 1 {
		t.Errorf("staging holds %q, want the other's", staging)
	}
	end()
	begin(t, s).End()
}

// When an installing process is killed, the next install gets the lock, and removes the dead one's directory in staging.
func TestTheOtherProcessIsKilled(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	cmd, end, _ := child(t, "hold", s.dir)
	must(t, cmd.Process.Kill())
	end()
	i := begin(t, s)
	i.End()
	if staging := list(t, s.path("staging")); len(staging) != 0 {
		t.Errorf("staging holds %q", staging)
	}
}

// Begin finds the generation to which another process has switched.
func TestBaseIsWhatTheOtherProcessSwitchedTo(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	other := secondStore(t, s)
	install(t, s, synthetic("a", 1), synthetic("b", 1))
	if g := other.Current(); g.Number != 1 {
		t.Errorf("got generation %d, want the one that it found", g.Number)
	} else {
		checkSite(t, g) // still on disk, since other retains it
		g.Release()
	}
	i := begin(t, other)
	if i.Base().Number != 2 {
		t.Errorf("got generation %d, want the newest", i.Base().Number)
	}
	w := &watcher{}
	defer other.Watch(w)()
	must(t, i.Switch(context.Background(), i.Base()))
	i.End()
	if g := other.Current(); g.Number != 2 || w.log() != "prepare 2, commit 2" {
		t.Errorf("got generation %d, and the watcher saw %q", g.Number, w.log())
	} else {
		g.Release()
	}
	if left := list(t, s.path("generations")); !slices.Equal(left, []string{"2"}) {
		t.Errorf("generations holds %q", left)
	}
}

// secondStore returns another Store for the same directory, as another process would have it.
func secondStore(t *testing.T, s *Store) *Store {
	t.Helper()
	stores.mu.Lock()
	delete(stores.open, s.dir)
	stores.mu.Unlock()
	other := openStore(t, s.dir)
	stores.mu.Lock()
	stores.open[s.dir] = s
	stores.mu.Unlock()
	t.Cleanup(func() {
		other.mu.Lock()
		last := other.current
		other.current = other.none
		other.mu.Unlock()
		last.Release()
	})
	return other
}
