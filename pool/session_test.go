package pool

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// testSession is an execution that gets input while it runs.
type testSession struct {
	*testing.T
	input     chan []byte
	interrupt chan func(bool)
	output    chan string // pieces of stdout and stderr
	cancel    context.CancelFunc
	done      chan struct{}
	result    Result
	err       error
}

func startSession(t *testing.T, p *Pool, code string) *testSession {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &testSession{T: t, input: make(chan []byte), interrupt: make(chan func(bool)), output: make(chan string, 1<<16), cancel: cancel, done: make(chan struct{})}
	say := func(b []byte) { s.output <- string(b) }
	go func() {
		defer close(s.done)
		s.result, s.err = p.Execute(ctx, Request{Code: code, Timeout: time.Minute, Input: s.input, Interrupt: s.interrupt, Stdout: say, Stderr: say})
	}()
	t.Cleanup(func() {
		cancel()
		<-s.done
	})
	return s
}

func (s *testSession) send(text string) {
	s.Helper()
	select {
	case s.input <- []byte(text):
	case <-s.done:
		s.Fatalf("it has ended: %+v, %v", s.result, s.err)
	case <-time.After(10 * time.Second):
		s.Fatalf("nobody takes %q", text)
	}
}

func (s *testSession) stop() {
	s.Helper()
	sent := make(chan bool, 1)
	s.interrupt <- func(ok bool) { sent <- ok }
	if !<-sent {
		s.Error("no signal was sent")
	}
}

// await reads output until all that it has read ends with a text.
func (s *testSession) await(end string) {
	s.Helper()
	got := ""
	for limit := time.After(10 * time.Second); !strings.HasSuffix(got, end); {
		select {
		case piece := <-s.output:
			got += piece
		case <-limit:
			s.Fatalf("got %q, not %q", got, end)
		}
	}
}

func (s *testSession) wait() (Result, error) {
	s.Helper()
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		s.Fatal("it does not end")
	}
	return s.result, s.err
}

const echo = "import sys\nfor line in sys.stdin:\n    print('out', line, end='', flush=True)\n    print('err', line, end='', file=sys.stderr, flush=True)\nprint('over')"

func TestSessionsTakeInputAsItComes(t *testing.T) {
	t.Parallel()
	s := startSession(t, newTestPool(t, Config{}), echo)
	for _, line := range []string{"a\n", "b\n"} {
		s.send(line)
		s.await("err " + line)
	}
	close(s.interrupt) // a closed channel means that no more interrupts come
	close(s.input)
	if r, err := s.wait(); err != nil || r.Status != StatusOK || r.Stdout != "out a\nout b\nover\n" || r.Stderr != "err a\nerr b\n" || r.OutputBytes != 29 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestSessionsBoundOutputBetweenInputs(t *testing.T) {
	t.Parallel()
	s := startSession(t, newTestPool(t, Config{OutputKill: 1 << 16}), "import sys\nfor line in sys.stdin: sys.stdout.write('x' * int(line)); print('.', flush=True)")
	for range 10 {
		s.send("30000\n")
		s.await(".\n")
	}
	s.send("70000\n")
	if r, err := s.wait(); err != nil || r.Status != StatusOutputLimit || len(r.Stdout) > 11_000 || r.OutputBytes < 365_000 {
		t.Errorf("got %s, %d of %d bytes, %v", r.Status, len(r.Stdout), r.OutputBytes, err)
	}
}

func TestSessionsAreInterrupted(t *testing.T) {
	t.Parallel()
	s := startSession(t, newTestPool(t, Config{}), `
import os, signal, sys, time
for line in sys.stdin:
    try:
        if line == "child\n":   # of the same group, whose parent ignores the signal, as system(3) does
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if line == "child\n" and os.fork() == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                print("ready", flush=True)
                time.sleep(60)
            except KeyboardInterrupt:
                os._exit(7)
        elif line == "child\n":
            print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        else:
            print("ready", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
`)
	for range 3 {
		s.send("sleep\n")
		s.await("ready\n")
		s.stop()
		s.await("interrupted\n")
	}
	own, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	if err := unix.PidfdSendSignal(own, 0, nil, 1<<2); errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel signals no groups through a pidfd: Linux 6.9 does")
	}
	s.send("child\n")
	s.await("ready\n")
	s.stop()
	s.await("7\n")
}

// Sending input and ending a session do not hang when the program closes its standard input, or does not read it.
func TestSessionsThatDoNotReadEnd(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{})
	large := strings.Repeat("x", 1<<20)
	closed := startSession(t, p, "import os, time\nos.close(0)\nprint('closed', flush=True)\ntime.sleep(60)")
	closed.await("closed\n")
	for range 3 {
		closed.send(large)
	}
	stuck := startSession(t, p, "import time\nprint('here', flush=True)\ntime.sleep(60)")
	stuck.await("here\n")
	stuck.send(large)
	for _, s := range []*testSession{closed, stuck} {
		s.cancel()
		if _, err := s.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	ended := startSession(t, p, "import os\nprint('here', flush=True)\nos.read(0, 1)\nos._exit(3)")
	ended.await("here\n")
	ended.send(large)
	if r, err := ended.wait(); err != nil || r.ExitCode != 3 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A session's priority is lowered when it has computed for long. The time that it waits does not count.
func TestSessionsGiveWayWhenTheyHaveComputed(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{})
	other := startSession(t, p, "input()") // another run: without one the priority stays
	s := startSession(t, p, `
import os, sys, time
first = os.getpriority(os.PRIO_PROCESS, 0)
time.sleep(.6)
print(os.getpriority(os.PRIO_PROCESS, 0) - first, flush=True)
end = time.monotonic() + 10
while os.getpriority(os.PRIO_PROCESS, 0) == first and time.monotonic() < end: pass
print(os.getpriority(os.PRIO_PROCESS, 0) - first, flush=True)
`)
	if r, err := s.wait(); err != nil || r.Stdout != "0\n13\n" {
		t.Errorf("got %+v, %v", r, err)
	}
	close(other.input)
	if _, err := other.wait(); err != nil {
		t.Error(err)
	}
}

// A session keeps the set of packages with which it began. It delays neither later installs nor the programs after them.
func TestSessionsKeepTheirPackages(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{PackagesDir: t.TempDir(), Idle: 1, Templates: 1, Max: 2})
	_, ask := newTestIndex(t, module("sandbox-one", "1.0"), module("sandbox-one", "2.0"), module("sandbox-one", "3.0"))
	installPackage(t, p, ask("sandbox-one", "1.0"), install.Installed)
	first := p.Generation()
	s := startSession(t, p, "import sys\nfor line in sys.stdin:\n    sys.modules.pop('sandbox_one', None)\n    import sandbox_one\n    print(sandbox_one.VERSION, flush=True)")
	s.send("\n")
	s.await("1.0\n")
	for _, version := range []string{"2.0", "3.0"} {
		installPackage(t, p, ask("sandbox-one", version), install.Installed)
		if r := execute(t, p, "import sandbox_one; print(sandbox_one.VERSION)", 10*time.Second); r.Stdout != version+"\n" {
			t.Errorf("got %+v", r)
		}
		s.send("\n")
		s.await("1.0\n") // the old set's directory still exists
	}
	var leased int
	if _, err := p.Execute(t.Context(), Request{Code: "0", Timeout: time.Second, Leased: func(generation int) { leased = generation }}); err != nil || leased != p.Generation() || leased <= first {
		t.Errorf("got the generation %d of %d after %d, %v", leased, p.Generation(), first, err)
	}
	close(s.input)
	if _, err := s.wait(); err != nil {
		t.Error(err)
	}
	eventually(t, 10*time.Second, "what served the old sets is gone", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.lanes) == p.current.lanes
	})
}
