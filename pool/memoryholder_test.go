package pool

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// When processors are free, a worker ends before the kernel has freed its memory: one memory holder still holds that, and the lane reaps
// it.
func TestEndsAreKnownBeforeTheMemoryIsGone(t *testing.T) {
	t.Parallel()
	const held = 64 << 20
	holdersOf := func(t *testing.T, p *Pool) (holders int) {
		eventually(t, 10*time.Second, "no worker is parked", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.current.idle) > 0
		})
		s := startSession(t, p, "import sys; sys.held = bytearray(64 << 20)\nprint('.', flush=True)\ninput()")
		s.await(".\n")
		p.mu.Lock()
		var worker, lane int
		for w := range p.leased {
			if w.session.Load() && procfs.ReadStatus(int(w.pid.Load())).Anonymous > held {
				worker, lane = int(w.pid.Load()), w.lane.pid
			}
		}
		p.mu.Unlock()
		if err := unix.Kill(lane, unix.SIGSTOP); err != nil { // so that the lane does not kill the memory holder
			t.Fatal(err)
		}
		defer func() { _ = unix.Kill(lane, unix.SIGCONT) }()
		is := func(pid int, state string) func() bool {
			return func() bool {
				stat, err := procfs.ReadStat(pid)
				return err == nil && stat[0] == state
			}
		}
		eventually(t, 10*time.Second, "the lane does not stop", is(lane, "T"))
		s.send("\n")
		eventually(t, 10*time.Second, "the worker has not ended", is(worker, "Z"))
		left := procfs.Descendants(lane)
		for _, pid := range left {
			if pid == worker {
				continue
			}
			holders++
			if got := procfs.ReadStatus(pid).Anonymous; got < held {
				t.Errorf("what is left holds %d bytes", got)
			}
		}
		if err := unix.Kill(lane, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if r, err := s.wait(); err != nil || r.Status != StatusOK || r.Usage.PeakMemory < held {
			t.Errorf("got %+v, %v", r, err)
		}
		eventually(t, 10*time.Second, "something is left of the run", func() bool {
			for _, pid := range left {
				if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err == nil {
					return false
				}
			}
			return true
		})
		return holders
	}
	for name, isolation := range map[string]Isolation{"namespaces": IsolationStrict, "process": IsolationNone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: isolation, Templates: 1, Idle: 1, Max: 2 + runtime.NumCPU()})
			if n := holdersOf(t, p); n != 1 {
				t.Errorf("alone: %d processes are left, not one", n)
			}
			for range runtime.NumCPU() { // so that no processor counts as free
				startSession(t, p, "print('.', flush=True)\ninput()").await(".\n")
			}
			if n := holdersOf(t, p); n != 0 {
				t.Errorf("beside others: %d processes are left", n)
			}
		})
	}
}

// When a program has left a child that writes output without end, the answer waits neither for the child nor for all of its output.
func TestLeftWritersHoldNobodyUp(t *testing.T) {
	t.Parallel()
	for name, isolation := range map[string]Isolation{"namespaces": IsolationStrict, "process": IsolationNone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// OutputKill is high, since on a busy machine the child writes much before the program ends.
			p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: isolation, OutputKill: 8 << 30})
			for _, wait := range []string{"", "import time; time.sleep(0.02)"} { // Caddy reads the output at the end, or all the time
				r := execute(t, p, `import os, sys
print('first', flush=True)
if os.fork() == 0:
    os.setsid()
    while True:
        os.write(2, b'x' * 65536)
`+wait+`
print('last')`, 10*time.Second)
				if r.Status != StatusOK || r.Stdout != "first\nlast\n" || r.ExecutionTime > 5*time.Second {
					t.Errorf("%q: got %q, %s after %s", wait, r.Stdout, r.Status, r.ExecutionTime)
				}
			}
		})
	}
}
