package pool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/cgroup"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// waits is a Metrics that records how long requests waited for a worker.
type waits struct {
	nopMetrics

	mu    sync.Mutex
	given []time.Duration
}

func (w *waits) Acquired(wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given = append(w.given, wait)
}

// park makes the pool ask the scripted lane for a worker, and plays that worker until it is parked.
func (l *scriptedLane) park(p *Pool) {
	l.t.Helper()
	p.mu.Lock()
	p.refillLocked(p.current)
	p.mu.Unlock()
	l.boot(p)
}

// boot waits until the scripted lane is asked for a worker, and plays that worker until it is parked or has a request.
func (l *scriptedLane) boot(p *Pool) {
	l.t.Helper()
	eventually(l.t, 10*time.Second, "the lane is asked for a worker", func() bool {
		l.held = receiveBoot(l.control)
		return len(l.held) == 4
	})
	l.channel("ready\n")
	eventually(l.t, 10*time.Second, "the worker is parked, or has its request", func() bool {
		s := p.Stat()
		return s.Workers[StateIdle]+s.Workers[StateLeased] == 1
	})
}

// A request whose first worker turns out to have died while parked counts as one wait, which ends with the worker that runs it.
func TestAHandedOverRequestWaitsOnce(t *testing.T) {
	t.Parallel()
	p := newBarePool(t)
	seen := &waits{}
	p.cfg.Idle, p.cfg.Max, p.cfg.Metrics = 1, 1, seen
	l := newScriptedLane(t, p)
	l.park(p)
	l.drop() // the worker has died, and its lane has not reported it yet
	type answer struct {
		result Result
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		r, err := p.Execute(context.Background(), Request{Code: "handed over", Timeout: time.Minute})
		answered <- answer{r, err}
	}()
	eventually(t, 10*time.Second, "the request finds its worker dead", func() bool { return p.Stat().Workers[StateDraining] == 1 })
	l.say(exitWord(9, 1, 1))
	l.boot(p)
	l.work()
	l.drop()
	l.say(exitWord(0, 1, 1))
	got := <-answered
	if got.err != nil || got.result.Stdout != "handed over" {
		t.Errorf("got %+v, %v", got.result, got.err)
	}
	seen.mu.Lock()
	if len(seen.given) != 1 || seen.given[0] != got.result.Usage.QueueTime {
		t.Errorf("waits of %v are counted, and its queue_time is %s", seen.given, got.result.Usage.QueueTime)
	}
	seen.mu.Unlock()
	l.play(nil)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// A process's last message is read although it ended without reading a message that it had been sent. So a lane that says "leave" and ends
// does not count as failed.
func TestLastWordsAreRead(t *testing.T) {
	t.Parallel()
	c, theirs, err := process.NewControl()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Write([]byte("work")); err != nil {
		t.Fatal(err)
	}
	if err := sendPacket(int(theirs.Fd()), []byte("leave"), nil); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	if word, err := c.Word(); err != nil || string(word) != "leave" {
		t.Errorf("got %q, %v", word, err)
	}
	if word, err := c.Word(); err == nil {
		t.Errorf("got %q at the end", word)
	}
}

// When a run is over its limit of memory the kernel may end its lane, too, whose process is as large as a child of the run's. That is the
// run's limit, not a loss.
func TestALaneThatTheKernelEndsForMemoryIsAtTheLimit(t *testing.T) {
	t.Parallel()
	for killed, want := range map[string]error{"0": ErrWorkerLost, "2": nil} {
		p := newBarePool(t)
		p.cfg.Idle, p.cfg.Max = 1, 1
		group := t.TempDir()
		events := func(text string) {
			if err := os.WriteFile(filepath.Join(group, "memory.events"), []byte("low 0\noom 1\noom_kill "+text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		events("0")
		l := newScriptedLaneIn(t, p, cgroup.LaneGroup(group))
		l.park(p)
		answered := make(chan error, 1)
		go func() {
			r, err := p.Execute(context.Background(), Request{Code: "x", Timeout: time.Minute})
			if err == nil && r.Status != StatusMemoryLimit {
				t.Errorf("%s: got %+v", killed, r)
			}
			answered <- err
		}()
		eventually(t, 10*time.Second, "the worker has the code", func() bool { // otherwise the request would wait for another one
			n, _, _ := receiveSoon(l.held[3], make([]byte, 1<<10), nil)
			return n > 0
		})
		events(killed)
		l.play(nil)
		if err := <-answered; !errors.Is(err, want) {
			t.Errorf("%s killed for memory: got %v, want %v", killed, err, want)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The execution time begins before the worker has all the code, since it may run the code before Caddy's last write has returned.
func TestExecutionTimeBeginsBeforeTheCodeIsThere(t *testing.T) {
	t.Parallel()
	const least = 50 * time.Millisecond
	p := newBarePool(t)
	p.cfg.Idle, p.cfg.Max = 1, 1
	l := newScriptedLane(t, p)
	l.park(p)
	answered := make(chan Result, 1)
	go func() {
		r, err := p.Execute(context.Background(), Request{Code: strings.Repeat("x", 4<<20), Timeout: time.Minute})
		if err != nil {
			t.Error(err)
		}
		answered <- r
	}()
	read := func() int {
		n, _, _ := receiveSoon(l.held[3], make([]byte, 1<<16), nil)
		return n
	}
	eventually(t, 10*time.Second, "code comes", func() bool { return read() > 0 })
	begun := time.Now()
	var took time.Duration
	for { // the code is larger than the socket's buffer, so Caddy goes on writing only as this reads
		took = time.Since(begun)
		if took < least {
			continue
		}
		if read() == 0 {
			break
		}
	}
	l.drop()
	l.say(exitWord(0, 1, 1))
	if r := <-answered; r.ExecutionTime < least {
		t.Errorf("the execution took %s at least, and %s by its answer", took, r.ExecutionTime)
	}
	l.play(nil)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// When Caddy has no descriptors left, a request that needs a new worker fails with ErrNotStarted, which says so and that its code did not
// run. Once, it failed with ErrWorkerLost. When there are descriptors again, requests succeed.
func TestRequestsThatCannotBeStartedAreToldWhy(t *testing.T) {
	if os.Getenv("SANDBOX_TEST_NO_DESCRIPTORS") == "" {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "SANDBOX_TEST_NO_DESCRIPTORS=1") // in another process, whose limit it lowers
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	seen := &waits{}
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 1, Metrics: seen})
	eventually(t, 10*time.Second, "the pool is whole", isParked(p, 1))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // open descriptors stay open
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	execute(t, p, "print(1)", 10*time.Second) // the parked worker has its descriptors already
	for range 5 {
		r, err := p.Execute(t.Context(), Request{Code: "print(2)", Timeout: 10 * time.Second})
		if !errors.Is(err, ErrNotStarted) || !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrWorkerLost) || r.Stdout != "" {
			t.Errorf("got %+v, %v", r, err)
		}
	}
	if len(seen.given) != 6 {
		t.Errorf("%d waits are counted for 6 requests", len(seen.given))
	}
	p.mu.Lock()
	lanes := len(p.lanes)
	p.mu.Unlock()
	if lanes != 1 {
		t.Errorf("%d lanes are there, not the one that was", lanes)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if r := execute(t, p, "print(3)", 10*time.Second); r.Stdout != "3\n" {
		t.Errorf("got %+v", r)
	}
	eventually(t, 10*time.Second, "the pool is whole again", isParked(p, 1))
}

// When a lane hangs and does not fork the request's worker, neither the time limit nor a caller who leaves has to wait for that lane.
func TestNobodyWaitsForALaneThatHangs(t *testing.T) {
	t.Parallel()
	const rush = 6
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: rush})
	var sessions []*testSession
	for range rush {
		s := startSession(t, p, "print('.', flush=True)\ninput()")
		s.await(".\n")
		sessions = append(sessions, s)
	}
	for _, s := range sessions {
		s.send("\n")
		if _, err := s.wait(); err != nil {
			t.Fatal(err)
		}
	}
	startSession(t, p, "print('.', flush=True)\ninput()").await(".\n") // it takes the parked worker
	var stopped []*lane
	stop := func() { // again before each request: a lane that was being started at first is there by then
		p.mu.Lock()
		defer p.mu.Unlock()
		for l := range p.lanes {
			if (l.current == nil || l.current.state != StateLeased) && !slices.Contains(stopped, l) {
				stopped = append(stopped, l)
				if err := unix.Kill(l.pid, unix.SIGSTOP); err != nil {
					t.Error(err)
				}
			}
		}
	}
	stop()
	defer func() {
		for _, l := range stopped {
			l.kill()
		}
	}()
	if len(stopped) < 4 {
		t.Fatalf("%d lanes without a run are left of a rush", len(stopped))
	}
	forks := func() (n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for w := range p.leased {
			if w.awaitReady != nil && w.state == StateLeased {
				n++
			}
		}
		return n
	}
	within := func(what string, f func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		select {
		case <-done:
		case <-time.After(bootTimeout - 5*time.Second):
			t.Errorf("%s takes as long as the lane hangs", what)
			<-done
		}
	}
	var timedOut int
	for range 3 { // at most one of these finds a worker that was parked before the lanes were stopped
		stop()
		within("a time limit", func() {
			r, err := p.Execute(t.Context(), Request{Code: "import time; time.sleep(60)", Timeout: 100 * time.Millisecond})
			if err != nil || r.Status != StatusTimeout {
				t.Errorf("got %+v, %v", r, err)
			} else if r.Usage.CPUTime == 0 {
				timedOut++
			}
		})
	}
	if timedOut == 0 {
		t.Error("each of the requests had a worker")
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		eventually(t, 10*time.Second, "a lane is to fork a worker for the request", func() bool { return forks() > 0 })
		cancel()
	}()
	within("a caller who leaves", func() {
		var r Result
		var err error
		for range 10 { // until none is left that was parked before the lanes were stopped
			stop()
			if r, err = p.Execute(ctx, Request{Code: "1", Timeout: time.Minute}); err != nil {
				break
			}
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}
