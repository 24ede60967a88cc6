package packages

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// watcher is a Watcher that records the calls that it gets.
type watcher struct {
	refuse error
	wait   bool                // Prepare waits for the end of its context, and then succeeds
	during func(g *Generation) // called by Prepare
	mu     sync.Mutex
	seen   []string
}

type watcherChange struct {
	w      *watcher
	number int
}

func (w *watcher) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, fmt.Sprintf(format, args...))
}

func (w *watcher) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.seen, ", ")
}

func (w *watcher) Prepare(ctx context.Context, next *Generation) (Change, error) {
	w.note("prepare %d", next.Number)
	if w.during != nil {
		w.during(next)
	}
	if w.wait {
		<-ctx.Done()
	}
	return watcherChange{w, next.Number}, w.refuse
}

func (c watcherChange) Commit() { c.w.note("commit %d", c.number) }
func (c watcherChange) Abort()  { c.w.note("abort %d", c.number) }

type nilWatcher struct{}

func (nilWatcher) Prepare(context.Context, *Generation) (Change, error) { return nil, nil }

func TestSwitchAsksAllWatchers(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var first, second *watcher
	met := make(chan struct{})
	current := func(*Generation) {
		if g := s.Current(); g.Number != 0 {
			t.Errorf("generation %d is current before the commit", g.Number)
			g.Release()
		}
	}
	// The two Prepare wait for each other, so that the test ends only when they run concurrently.
	first = &watcher{during: func(g *Generation) { current(g); met <- struct{}{} }}
	second = &watcher{during: func(g *Generation) { current(g); <-met; checkSite(t, g) }}
	stopFirst := s.Watch(first)
	defer s.Watch(second)()
	defer s.Watch(nilWatcher{})()
	install(t, s, synthetic("a", 1))
	stopFirst()
	second.during = nil
	install(t, s, synthetic("a", 2))
	if got := first.log(); got != "prepare 1, commit 1" {
		t.Errorf("the first saw %q", got)
	}
	if got := second.log(); got != "prepare 1, commit 1, prepare 2, commit 2" {
		t.Errorf("the second saw %q", got)
	}
}

func TestARefusalAbortsAll(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	ready, refusing, waiting := &watcher{}, &watcher{refuse: errors.New("no memory")}, &watcher{wait: true}
	for _, w := range []*watcher{ready, refusing, waiting} {
		defer s.Watch(w)()
	}
	i := begin(t, s)
	g := build(t, i, synthetic("b", 1))
	if err := i.Switch(context.Background(), g); !errors.Is(err, refusing.refuse) {
		t.Errorf("got %v", err)
	}
	if left := list(t, s.path("generations")); len(left) != 1 {
		t.Errorf("generations holds %q after a refusal", left)
	}
	if err := i.Switch(context.Background(), g); err == nil {
		t.Error("switched to what is removed")
	}
	i.End()
	for w, want := range map[*watcher]string{ready: "prepare 2, abort 2", refusing: "prepare 2", waiting: "prepare 2, abort 2"} {
		if got := w.log(); got != want {
			t.Errorf("a watcher saw %q, want %q", got, want)
		}
	}
	if current := s.Current(); names(current) != "a-1" {
		t.Errorf("got %+v", current)
	} else {
		current.Release()
	}
}

// A watcher may retain a generation whose switch was refused for as long as its processes need it.
func TestARefusedGenerationIsRetained(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var kept *Generation
	defer s.Watch(&watcher{refuse: errors.New("no"), during: func(g *Generation) { kept = g.Retain() }})()
	i := begin(t, s)
	if err := i.Switch(context.Background(), build(t, i, synthetic("a", 1))); err == nil {
		t.Error("switched")
	}
	i.End()
	checkSite(t, kept)
	kept.Release()
}

func TestSwitchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{wait: true}
	defer s.Watch(w)()
	i := begin(t, s)
	defer i.End()
	cancel()
	if err := i.Switch(ctx, build(t, i, synthetic("a", 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := w.log(); got != "prepare 1, abort 1" {
		t.Errorf("the watcher saw %q", got)
	}
}

// A watcher that is added while others prepare is asked, too.
func TestAWatcherComesDuringASwitch(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	late := &watcher{}
	early := &watcher{during: func(*Generation) {
		s.Watch(late)
		if g := s.Current(); g.Number != 0 {
			t.Errorf("got generation %d", g.Number)
		}
	}}
	stop := s.Watch(early)
	install(t, s, synthetic("a", 1))
	stop()
	if got := late.log(); got != "prepare 1, commit 1" {
		t.Errorf("the late one saw %q", got)
	}
}

func TestSwitchNeedsAGenerationOfTheInstall(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	install(t, s, synthetic("a", 1))
	old := s.Current()
	install(t, s, synthetic("a", 2))
	i := begin(t, s)
	if err := i.Switch(context.Background(), old); err == nil {
		t.Error("switched back to what may be removed at any moment")
	}
	must(t, i.Switch(context.Background(), i.Base()))
	i.End()
	old.Release()
}

// An install may finish after the last Close.
func TestCloseDuringAnInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	install(t, s, synthetic("a", 1))
	i := begin(t, s)
	must(t, s.Close())
	must(t, i.Switch(context.Background(), build(t, i, synthetic("a", 2))))
	if g := s.Current(); g.Number != 0 {
		t.Errorf("got generation %d of a closed store", g.Number)
	}
	i.End()
	if len(s.generations) != 0 {
		t.Errorf("%d generations are still held", len(s.generations))
	}
	checkWhole(t, dir)
}
