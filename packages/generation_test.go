package packages

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestTheLastReleaseRemoves(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1), synthetic("b", 1))
	old := s.Current()
	if old.Retain() != old {
		t.Error("Retain returns another generation")
	}
	install(t, s, synthetic("b", 1))
	if left := list(t, s.path("generations")); !slices.Equal(left, []string{"1", "2"}) {
		t.Errorf("generations holds %q while both are in use", left)
	}
	old.Release()
	checkSite(t, old)
	if left := list(t, s.path("store")); len(left) != 2 {
		t.Errorf("the store holds %q", left)
	}
	old.Release()
	if left := list(t, s.path("generations")); !slices.Equal(left, []string{"2"}) {
		t.Errorf("generations holds %q after the last release", left)
	}
	if left := list(t, s.path("store")); len(left) != 1 || left[0][:4] != "b-1-" {
		t.Errorf("the store holds %q, want only what is named", left)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("one release too many is let pass")
			}
		}()
		old.Release()
	}()
	g := s.Current() // the store must still work after the panic
	g.Release()
}

// A Release during an install leaves the store's entries, which the install may need; its End removes them.
func TestReleaseDuringAnInstall(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	old := s.Current()
	install(t, s, synthetic("b", 1))
	i := begin(t, s)
	stored(t, i, synthetic("c", 1))
	old.Release()
	if left := list(t, s.path("generations")); !slices.Equal(left, []string{"2"}) {
		t.Errorf("generations holds %q", left)
	}
	if left := list(t, s.path("store")); len(left) != 3 {
		t.Errorf("the store holds %q during an install", left)
	}
	i.End()
	if left := list(t, s.path("store")); len(left) != 1 {
		t.Errorf("the store holds %q after it", left)
	}
}

// The lock of a manifest that was removed protects nothing, even when there is a new manifest at its path.
func TestARemovedManifestIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	dir := s.path("generations", "1")
	hold, err := os.Open(dir + "/manifest.json")
	must(t, err)
	defer unlock(hold)
	install(t, s, synthetic("a", 2))
	must(t, writeFile(dir+"/manifest.json", "{}")) // another file at the same path
	g := &Generation{Number: 1, Site: dir, store: s, hold: hold}
	if err := g.read(dir); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

// A generation that another process uses stays until that process has released it or has been killed.
func TestAnotherProcessUsesAGeneration(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		s := newStore(t)
		install(t, s, synthetic("a", 1))
		cmd, end, ready := child(t, "use", s.dir)
		if ready != "1" {
			t.Errorf("the other process uses generation %q", ready)
		}
		install(t, s, synthetic("a", 2))
		if left := list(t, s.path("generations")); !slices.Equal(left, []string{"1", "2"}) {
			t.Errorf("generations holds %q while another process uses the first", left)
		}
		if killed {
			must(t, cmd.Process.Kill())
		}
		end()
		if left := list(t, s.path("generations")); !killed && !slices.Equal(left, []string{"2"}) {
			t.Errorf("generations holds %q after the other process has released the first", left)
		}
		begin(t, s).End() // removes the generation when the process was killed
	}
}

// Readers retain and release generations while installs switch, in two stores of one directory as two processes would have them.
func TestReadersDuringSwitches(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := secondStore(t, s)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for n := range 4 {
		readers.Go(func() {
			from := s
			if n == 3 {
				from = other
			}
			for {
				select {
				case <-done:
					return
				default:
				}
				g := from.Current()
				checkSite(t, g)
				if rand.IntN(2) == 0 {
					readers.Go(g.Retain().Release)
				}
				g.Release()
			}
		})
	}
	var installs sync.WaitGroup
	stop := time.Now().Add(3 * time.Second)
	for n := range 3 {
		installs.Go(func() {
			to := s
			if n == 2 {
				to = other
			}
			for time.Now().Before(stop) {
				i, err := to.Begin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				g := build(t, i, synthetic("a", 1+rand.IntN(3)), synthetic("b", 1+rand.IntN(3)))
				if rand.IntN(3) > 0 {
					if err := i.Switch(t.Context(), g); err != nil {
						t.Error(err)
					}
				}
				i.End()
			}
		})
	}
	installs.Wait()
	close(done)
	readers.Wait()
}
