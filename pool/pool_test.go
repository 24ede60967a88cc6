package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/confine"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/process"
)

// newTestPool starts a pool, which is closed at the end of the test.
func newTestPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	p, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func execute(t *testing.T, p *Pool, code string, timeout time.Duration) Result {
	t.Helper()
	r, err := p.Execute(context.Background(), Request{Code: code, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventually waits for a condition that other processes bring about.
func eventually(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

func TestEachRunIsFresh(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 1})
	for range 5 {
		r := execute(t, p, "import json, os\nprint(hasattr(json, 'x'), os.listdir('/tmp'))\njson.x = 1\nopen('/tmp/x', 'w')", 10*time.Second)
		if r.Stdout != "False ['main.py']\n" || r.Stderr != "" || r.Status != StatusOK || r.ExitCode != 0 {
			t.Fatalf("got %+v", r)
		}
	}
}

// Request.Stdout gets all of standard output, even beyond the limit for what the result keeps.
func TestStdoutIsHandedOn(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Output: 10})
	for _, code := range []string{"print('x' * 999)", "import time\nfor _ in range(3): print('x' * 332, end='', flush=True); time.sleep(.05)\nprint('xxx')"} {
		var got strings.Builder
		r, err := p.Execute(t.Context(), Request{Code: code, Timeout: 10 * time.Second, Stdout: func(b []byte) { got.Write(b) }})
		if want := strings.Repeat("x", 999) + "\n"; err != nil || got.String() != want || !r.Truncated || len(r.Stdout) > 60 {
			t.Errorf("%q: got %q, %+v, %v", code, got.String(), r, err)
		}
	}
}

// In programs only those signals are ignored that Python itself ignores, even if Caddy was started with others ignored, as by nohup.
func TestIgnoredSignalsAreNotInherited(t *testing.T) {
	t.Parallel()
	signal.Ignore(syscall.SIGHUP) // every process that is started from here on inherits this
	defer signal.Reset(syscall.SIGHUP)
	for name, isolation := range map[string]Isolation{"namespaces": IsolationStrict, "process": IsolationNone} {
		r := execute(t, newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: isolation}), `import signal
print(*[s.name for s in signal.Signals if signal.getsignal(s) == signal.SIG_IGN], signal.pthread_sigmask(0, ()))`, 10*time.Second)
		if r.Stdout != "SIGPIPE SIGXFSZ set()\n" {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestWorkerIsConfined(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{})
	for _, c := range []struct{ name, code, want string }{
		{"ids", "import os; print(os.getresuid(), os.getresgid(), os.getgroups())", "(1000, 1000, 1000) (1000, 1000, 1000) []\n"},
		{"capabilities and privileges", "print([l.split()[1].strip('0') for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'CapInh', 'CapAmb', 'NoNewPrivs'))])", "['', '', '', '', '1']\n"},
		{"only its own processes", "import os; print([p for p in os.listdir('/proc') if p.isdigit()] == [str(os.getpid())])", "True\n"},
		{"no descriptors", "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])", "[0, 1, 2]\n"},
		{"environment", "import os; print(sorted(os.environ.keys() - {'TZ', 'OPENBLAS_CORETYPE', 'OPENBLAS_L2_SIZE'}))",
			"['HOME', 'LANG', 'LOGNAME', 'MKL_NUM_THREADS', 'NUMEXPR_NUM_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'TMPDIR', 'USER']\n"},
		{"no way out over the network", "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 1)\nexcept OSError as e: print(type(e).__name__)", "OSError\n"},
		{"loopback of its own", "import socket\ns = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); print(c.getpeername() == s.getsockname())", "True\n"},
		{"read-only but for scratch", "import os\nfor d in ('/', '/usr', '/etc', '/dev', '/var', '/home'):\n  try: open(d + '/x', 'w'); print('wrote', d)\n  except OSError: pass\nprint('done')", "done\n"},
		{"nobody's home", "import os\nprint([d for d in ('/root/.ssh', '/root/.bashrc', '/home') if os.path.exists(d) and os.listdir(d)])", "[]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if r := execute(t, p, c.code, 10*time.Second); r.Stdout != c.want || r.Stderr != "" {
				t.Errorf("got %q, %q, want %q", r.Stdout, r.Stderr, c.want)
			}
		})
	}
}

func TestLimitsEndTheRunAndKeepItsOutput(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Memory: 128 * mib, OutputKill: 1 << 20})
	for _, c := range []struct {
		name, code string
		timeout    time.Duration
		status     Status
		exit       int
	}{
		{"wall clock", "print('before', end=''); import time; time.sleep(60)", 300 * time.Millisecond, StatusTimeout, 124},
		{"wall clock in C code", "print('before', end=''); 10 ** 10 ** 9", 300 * time.Millisecond, StatusTimeout, 124},
		{"memory of a tree", "print('before', end='')\nimport os, time\nfor _ in range(4):\n  if os.fork() == 0: b = bytearray(60 << 20); time.sleep(60)\ntime.sleep(60)", 20 * time.Second, StatusMemoryLimit, 137},
		{"memory", "print('before', end='')\nimport time; b = bytearray(200 << 20); time.sleep(60)", 20 * time.Second, StatusMemoryLimit, 137},
		{"output", "print('before', end='')\nwhile True: print('x' * 10000)", 20 * time.Second, StatusOutputLimit, 137},
		{"a signal of its own", "print('before', end=''); import os; os.kill(os.getpid(), 11)", 20 * time.Second, StatusKilled, 139},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := execute(t, p, c.code, c.timeout)
			if r.Status != c.status || r.ExitCode != c.exit || !strings.HasPrefix(r.Stdout, "before") {
				t.Errorf("got %s, %d, %.40q, %.200q", r.Status, r.ExitCode, r.Stdout, r.Stderr)
			}
		})
	}
	for _, c := range []struct{ name, code, want string }{
		{"processes", "import os, time\nn = 0\ntry:\n  while n < 500:\n    if os.fork() == 0: time.sleep(60)\n    n += 1\nexcept BlockingIOError: print(n)", "63\n"},
		{"open files", "import os\ntry:\n  while True: os.dup(1)\nexcept OSError as e: print(e.errno)", "24\n"},
		{"file size and scratch", "try:\n  f = open('x', 'wb')\n  while True: f.write(bytes(1 << 20))\nexcept OSError as e: print(e.errno in (27, 28))", "True\n"},
		{"no core", "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))", "(1, 1)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if r := execute(t, p, c.code, 20*time.Second); r.Stdout != c.want {
				t.Errorf("got %q, %q, want %q", r.Stdout, r.Stderr, c.want)
			}
		})
	}
}

func TestPagesSharedWithTheTemplateAreNotCountedTwice(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Memory: 64 * mib})
	r := execute(t, p, "import os, time\nfor _ in range(12):\n  if os.fork() == 0: time.sleep(.5); os._exit(0)\ntime.sleep(.5); print('alive')", 20*time.Second)
	if r.Stdout != "alive\n" {
		t.Errorf("got %+v", r)
	}
}

func TestCallerGoneFreesTheWorker(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 1})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := p.Execute(ctx, Request{Code: "import time; time.sleep(30)", Timeout: time.Minute})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	begin := time.Now()
	if r := execute(t, p, "print(1)", 10*time.Second); r.Stdout != "1\n" || time.Since(begin) > time.Second {
		t.Errorf("got %+v after %s", r, time.Since(begin))
	}
}

func TestQueueIsBoundedInLengthAndTime(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 1, Queue: 1, AcquireTimeout: 200 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var blocker sync.WaitGroup
	blocker.Go(func() { _, _ = p.Execute(ctx, Request{Code: "import time; time.sleep(60)", Timeout: time.Minute}) })
	eventually(t, 5*time.Second, "a worker is leased", func() bool { return p.Stat().Workers[StateLeased] == 1 })
	waiting := make(chan error, 1)
	go func() {
		_, err := p.Execute(context.Background(), Request{Code: "print(1)", Timeout: time.Second})
		waiting <- err
	}()
	eventually(t, 5*time.Second, "a request waits", func() bool { return p.Stat().QueueDepth == 1 })
	if _, err := p.Execute(context.Background(), Request{Code: "print(1)", Timeout: time.Second}); !errors.Is(err, ErrQueueFull) {
		t.Errorf("got %v, want a full queue", err)
	}
	if err := <-waiting; !errors.Is(err, ErrAcquireTimeout) {
		t.Errorf("got %v, want a time-out", err)
	}
	cancel()
	blocker.Wait()
	if r := execute(t, p, "print(2)", 10*time.Second); r.Stdout != "2\n" {
		t.Errorf("got %+v", r)
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 1})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _, _ = p.Execute(ctx, Request{Code: "import time; time.sleep(60)", Timeout: time.Minute}) })
	eventually(t, 5*time.Second, "a worker is leased", func() bool { return p.Stat().Workers[StateLeased] == 1 })
	var served [8]int64
	for i := range served {
		all.Go(func() {
			// The program prints when it began, since the order in which Go's scheduler wakes the callers proves nothing.
			r := execute(t, p, "import time; print(time.monotonic_ns())", 10*time.Second)
			served[i], _ = strconv.ParseInt(strings.TrimSpace(r.Stdout), 10, 64)
		})
		eventually(t, 5*time.Second, "it waits", func() bool { return p.Stat().QueueDepth == i+1 })
	}
	cancel()
	all.Wait()
	if served[0] == 0 || !slices.IsSorted(served[:]) {
		t.Errorf("those that waited were served at %v", served)
	}
}

func TestNewRefusesWithASentence(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := script("old", `echo '{"executable":"/usr/bin/python3.6","version":"3.6.9","major":3,"minor":6,"implementation":"cpython"}'`)
	for _, c := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"no such python", Config{Python: "/nowhere/python3"}, []string{"python", "/nowhere/python3", "3.10 or later"}},
		{"too old", Config{Python: old}, []string{"3.6.9", "too old", "3.10 or later"}},
		{"dies at start", Config{Python: script("dies", "echo broken >&2; exit 3")}, []string{"does not start", "broken"}},
		{"a program that is no python", Config{Python: "/bin/ls"}, []string{"/bin/ls", "does not start"}},
		{"not a python", Config{Python: script("other", "echo hello")}, []string{"does not answer as a Python"}},
		{"preload is missing", Config{Preload: []string{"json", "nosuchmodule"}}, []string{"preload nosuchmodule", "ModuleNotFoundError", "take it out of preload"}},
		{"memory", Config{Memory: 1024}, []string{"limits memory", "choose a value"}},
		{"isolation", Config{Isolation: "total"}, []string{`"total"`, "strict, best_effort or none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, err := New(context.Background(), c.cfg)
			if err == nil {
				_ = p.Close()
				t.Fatal("it started")
			}
			if len(err.Error()) > 500 {
				t.Errorf("no sentence: %s", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
}

func TestPreloadThatStartsAThreadIsRefused(t *testing.T) {
	t.Parallel()
	// Below /tmp, whatever TMPDIR says: with namespaces scratch hides it.
	dir, err := os.MkdirTemp("/tmp", "sandbox-preload-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	code := "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
	if err := os.WriteFile(filepath.Join(dir, "threaded.py"), []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Python: "/usr/bin/python3", PythonPath: []string{dir}, Preload: []string{"threaded"}}
	if _, err := New(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "outside of /tmp") {
		t.Errorf("a path that scratch hides: got %v", err)
	}
	cfg.Isolation = IsolationNone
	if _, err := New(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "take it out of preload") {
		t.Errorf("got %v", err)
	}
}

func TestATemplateKilledWhileItStartsIsNoFaultOfThePython(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "python")
	for text, killed := range map[string]bool{"kill -9 $$": true, "exit 3": false} {
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := startTemplate(context.Background(), process.Interpreter{Executable: script}, confine.Plan{World: confine.WorldProcess})
		if err == nil || errors.Is(err, process.ErrGone) != killed {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestManyRunsAtOnceLeaveNothing(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{AcquireTimeout: time.Minute, Idle: 4, Max: 8})
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for j := range 10 {
				want := fmt.Sprintf("%d-%d\n", i, j)
				if r, err := p.Execute(context.Background(), Request{Code: "print(" + strconv.Quote(want[:len(want)-1]) + ")", Timeout: time.Minute}); err != nil || r.Stdout != want {
					t.Errorf("got %+v, %v, want %q", r, err, want)
				}
			}
		})
	}
	all.Wait()
	eventually(t, 10*time.Second, "only parked workers are left", func() bool {
		s := p.Stat()
		return s.Workers[StateIdle] == 4 && s.Workers[StateBooting]+s.Workers[StateLeased]+s.Workers[StateDraining] == 0
	})
}

// Lanes that were started for a rush of requests end when it is over, and are started again for the next rush.
func TestLanesOfARushGo(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 5})
	lanes := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.lanes)
	}
	for range 2 {
		// All five run at once, since each waits for the end of its input.
		begun, last := make(chan struct{}, 5), make(chan struct{})
		var rush sync.WaitGroup
		for range 5 {
			rush.Go(func() {
				input := make(chan []byte)
				request := Request{Code: "input()", Timeout: time.Minute, Input: input, Leased: func(int) { begun <- struct{}{} }}
				go func() { <-last; close(input) }()
				if _, err := p.Execute(context.Background(), request); err != nil {
					t.Error(err)
				}
			})
		}
		for range 5 {
			<-begun
		}
		close(last)
		rush.Wait()
		if n := lanes(); n < 5 {
			t.Errorf("five runs had %d lanes", n)
		}
		eventually(t, 2*calm, "one lane is left, with the parked worker", func() bool { return lanes() == 1 && p.Stat().Workers[StateIdle] == 1 })
	}
}

// A program that computes for long gets a lower priority when others run. The programs after it begin with the normal priority.
func TestALongRunGivesWay(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 2})
	other := startSession(t, p, "input()") // another run: without one the priority stays
	r := execute(t, p, `
import os, time
first, child, end = os.getpriority(os.PRIO_PROCESS, 0), os.fork(), time.monotonic() + 10
while os.getpriority(os.PRIO_PROCESS, 0) == first and time.monotonic() < end: pass
if child:
    os.waitpid(child, 0)
    print(os.getpriority(os.PRIO_PROCESS, 0) - first)
`, 30*time.Second)
	if r.Stdout != strconv.Itoa(longRunNice)+"\n" {
		t.Errorf("got %+v", r)
	}
	close(other.input)
	if _, err := other.wait(); err != nil {
		t.Error(err)
	}
	for range 10 {
		r := execute(t, p, `
import os
try:
    print(os.getpriority(os.PRIO_PROCESS, 0), open("/proc/self/autogroup").read().split()[-1])
except OSError:
    print(os.getpriority(os.PRIO_PROCESS, 0), 0)
`, 30*time.Second)
		if r.Stdout != "0 0\n" {
			t.Errorf("after long runs one begins with %+v", r)
		}
	}
}
