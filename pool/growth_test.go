package pool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// logged collects what a pool logs.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// with returns the lines that contain a text.
func (l *logged) with(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// newFailingTemplate plays a template whose lanes all fail at a step of their confinement. The number counts the requests for lanes.
func newFailingTemplate(t *testing.T, growth backoff) (*template, *atomic.Int64) {
	t.Helper()
	ours, theirs, err := process.NewControl()
	if err != nil {
		t.Fatal(err)
	}
	self := &process.Process{Control: ours, Stderr: &process.Tail{}, Exited: make(chan struct{}), Cmd: sleeper(t)}
	tm := &template{Process: self, lanes: map[int]chan<- laneStart{}, growth: growth}
	go func() {
		_ = self.Cmd.Wait()
		close(self.Exited)
	}()
	go tm.receive()
	asked := &atomic.Int64{}
	played := make(chan struct{})
	go func() {
		defer close(played)
		other, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		_ = theirs.Close()
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(other)
		for word, oob := make([]byte, 64), make([]byte, 64); ; {
			n, oobn, _, _, err := unix.Recvmsg(other, word, oob, unix.MSG_CMSG_CLOEXEC)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				return
			}
			asked.Add(1)
			messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
			fds, _ := unix.ParseUnixRights(&messages[0])
			lane := exec.Command("sleep", "60") // startLane kills it, as a lane that has failed
			if err := lane.Start(); err != nil {
				t.Error(err)
				return
			}
			handle, err := unix.PidfdOpen(lane.Process.Pid, 0)
			if err != nil {
				t.Error(err)
			}
			_ = unix.Sendmsg(fds[0], []byte(`{"event":"failed","step":"mounting /proc/cmdline","error":"No such file or directory"}`), nil, nil, unix.MSG_NOSIGNAL)
			_ = unix.Sendmsg(other, word[:n], unix.UnixRights(handle), nil, unix.MSG_NOSIGNAL)
			process.CloseAll(append(fds, handle))
			_ = lane.Wait()
		}
	}()
	t.Cleanup(func() {
		_ = self.Control.Conn.CloseWrite()
		<-played
		<-self.Exited
	})
	return tm, asked
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// isParked says whether a pool has this many parked workers, and starts no lanes.
func isParked(p *Pool, workers int) func() bool {
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.current.idle) == workers && p.current.laneStarts == 0
	}
}

// takePlace makes t the only template of a pool in place of the real one, which it returns. It kills a lane with a parked worker, so that
// the pool asks t for another lane.
func (t *template) takePlace(p *Pool) (real *template) {
	p.mu.Lock()
	real = p.current.templates[0]
	t.set = p.current
	p.current.templates[0] = t
	lost := p.current.idle[0].lane
	p.mu.Unlock()
	lost.kill()
	return real
}

// While no lane can be started, the existing lanes serve requests without delay, and the pool counts as ready. Once, one failed start held
// back every fork of the pool.
func TestLanesThatCannotBeStartedSlowNothing(t *testing.T) {
	t.Parallel()
	log := &logged{}
	never := backoff{first: time.Hour, longest: time.Hour} // a request that waited for the next try would time out
	failing, asked := newFailingTemplate(t, never)
	p := newTestPool(t, Config{Templates: 1, Idle: 2, Max: 2, AcquireTimeout: 20 * time.Second, Logger: log.logger()})
	eventually(t, 10*time.Second, "the pool is whole", isParked(p, 2))
	real := failing.takePlace(p)
	eventually(t, 10*time.Second, "a lane is asked for", func() bool { return asked.Load() == 1 && isParked(p, 1)() })
	for round := range 3 {
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				r, err := p.Execute(t.Context(), Request{Code: fmt.Sprintf("print(%d)", n), Timeout: 10 * time.Second})
				if err != nil || r.Stdout != fmt.Sprintln(n) {
					t.Errorf("got %+v, %v", r, err)
				}
			})
		}
		all.Wait()
		if r, err := p.Execute(t.Context(), Request{Code: "print(1)", Timeout: 10 * time.Second}); err != nil || r.Stdout != "1\n" { // alone
			t.Errorf("round %d: got %+v, %v", round, r, err)
		}
		if s := p.Stat(); !s.Ready {
			t.Errorf("round %d: not ready, with %v", round, s.Workers)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d lanes were started in an hour", n)
	}

	// With a short backoff the pool tries again and again to start a lane, but does not log each failure.
	p.mu.Lock()
	failing.growth = backoff{first: time.Millisecond, longest: 2 * time.Millisecond}
	p.refillLocked(p.current)
	p.mu.Unlock()
	eventually(t, 20*time.Second, "lanes are tried", func() bool {
		if _, err := p.Execute(t.Context(), Request{Code: "1", Timeout: 10 * time.Second}); err != nil {
			t.Error(err)
		}
		return asked.Load() > 10
	})
	if lines := log.with("could not be started"); len(lines) > 2 || len(lines) > 0 && !strings.Contains(lines[0], "level=WARN") {
		t.Errorf("logged: %q", lines)
	} else if len(lines) == 0 || !strings.Contains(lines[0], "mounting /proc/cmdline: No such file or directory") {
		t.Errorf("the reason is not logged: %q", lines)
	}

	p.mu.Lock()
	p.current.templates[0] = real
	p.refillLocked(p.current)
	p.mu.Unlock()
	eventually(t, 10*time.Second, "the pool is whole again", isParked(p, 2))
}

// A pool without lanes that cannot start one is not ready. It is ready again with its first lane.
func TestAPoolWithoutLanesIsNotReady(t *testing.T) {
	t.Parallel()
	log := &logged{}
	failing, asked := newFailingTemplate(t, backoff{first: time.Millisecond, longest: 10 * time.Millisecond})
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 1, Logger: log.logger()})
	eventually(t, 10*time.Second, "the pool is whole", isParked(p, 1))
	real := failing.takePlace(p)
	eventually(t, 10*time.Second, "it is not ready", func() bool { return asked.Load() > 5 && !p.Stat().Ready })
	if lines := log.with("no worker could be started"); len(lines) != 1 || !strings.Contains(lines[0], "level=ERROR") {
		t.Errorf("logged: %q", lines)
	}
	p.mu.Lock()
	p.current.templates[0] = real
	p.mu.Unlock()
	eventually(t, 10*time.Second, "it is ready", func() bool { return p.Stat().Ready && isParked(p, 1)() })
}

// startLane returns at its deadline, at whatever stage the start is. A lane that is forked later ends by itself.
func TestALaneStartHasADeadline(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 1})
	eventually(t, 10*time.Second, "the pool is whole", isParked(p, 1))
	p.mu.Lock()
	real := p.current.templates[0]
	p.mu.Unlock()
	pid := real.Cmd.Process.Pid
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := sync.OnceFunc(func() { _ = unix.Kill(pid, unix.SIGCONT) })
	defer resume()
	for n := 0; ; n++ { // requests stay in the socket's buffer until it is full; then writing one fails at its deadline
		_, err := startLane(real, time.Millisecond)
		if errors.Is(err, errLaneTimeout) && n < 5000 {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) && (err == nil || !strings.Contains(err.Error(), "not ready within")) {
			t.Fatalf("after %d: %v", n, err)
		}
		break
	}
	resume()
	eventually(t, 30*time.Second, "the lanes that nobody waits for are gone", func() bool {
		p.mu.Lock()
		lanes := len(p.lanes)
		p.mu.Unlock()
		return lanes == 1 && real.pendingLanes() == 0 && len(lanesBelow(pid)) == 1
	})
	if r := execute(t, p, "print(1)", 10*time.Second); r.Stdout != "1\n" {
		t.Errorf("got %+v", r)
	}
}

// A template that does not answer is replaced once it has no lanes.
func TestATemplateThatDoesNotAnswerIsReplaced(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 1})
	eventually(t, 10*time.Second, "the pool is whole", isParked(p, 1))
	p.mu.Lock()
	real, only := p.current.templates[0], p.current.idle[0].lane
	p.mu.Unlock()
	if err := unix.Kill(real.Cmd.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	fail := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.growthFailedLocked(real, errLaneTimeout)
	}
	fail()
	if r := execute(t, p, "print(1)", 10*time.Second); r.Stdout != "1\n" { // its lane still serves requests
		t.Errorf("got %+v", r)
	}
	select {
	case <-real.Exited:
		t.Error("a template with a lane was ended")
	default:
	}
	only.kill()
	eventually(t, 10*time.Second, "the lane is gone", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.lanes) == 0
	})
	fail()
	if r := execute(t, p, "print(2)", 30*time.Second); r.Stdout != "2\n" {
		t.Errorf("got %+v", r)
	}
}

// lanesBelow returns the children of a process that are not zombies.
func lanesBelow(pid int) (lanes []int) {
	for _, child := range procfs.Descendants(pid) {
		if fields, err := procfs.ReadStat(child); err == nil && fields[0] != "Z" && fields[1] == fmt.Sprint(pid) {
			lanes = append(lanes, child)
		}
	}
	return lanes
}

func (t *template) pendingLanes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lanes)
}

func TestBackoffGrowsAndForgets(t *testing.T) {
	t.Parallel()
	b := backoff{first: 10 * time.Millisecond, longest: time.Second}
	if b.wait() > 0 {
		t.Errorf("nothing has failed, and %s is to be waited", b.wait())
	}
	for n, milliseconds := range []int{10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		most := time.Duration(milliseconds) * time.Millisecond
		if wait := b.fail(); wait < most/2 || wait > most || b.wait() > most || b.wait() < most/2-time.Second/10 {
			t.Errorf("failure %d: %s, then %s, want %s at most", n, wait, b.wait(), most)
		}
	}
	for range 100 {
		if wait := b.fail(); wait > time.Second {
			t.Errorf("%s", wait)
		}
	}
	b.succeed()
	if b.wait() > 0 || b.failures != 0 {
		t.Errorf("it remembers: %+v", b)
	}
	var r rarely
	if _, ok := r.allow(); !ok {
		t.Error("the first is held back")
	}
	for range 7 {
		if _, ok := r.allow(); ok {
			t.Error("it is let through")
		}
	}
	r.next = time.Now()
	if held, ok := r.allow(); !ok || held != 7 {
		t.Errorf("got %d, %v", held, ok)
	}
}
