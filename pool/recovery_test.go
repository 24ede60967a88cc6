package pool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/internal/procfs"
)

// tree lists the pids of p's templates and of all processes below them.
func tree(p *Pool) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pids []int
	for _, t := range p.current.templates {
		if t != nil {
			pids = append(append(pids, t.Cmd.Process.Pid), procfs.Descendants(t.Cmd.Process.Pid)...)
		}
	}
	return pids
}

func gone(pids []int) bool {
	for _, pid := range pids {
		if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(text), ") Z ") {
			return false
		}
	}
	return true
}

func TestTemplatesComeBack(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Templates: 2, Idle: 3, Max: 4})
	whole := func() bool { s := p.Stat(); return s.Templates == 2 && s.Workers[StateIdle] == 3 }
	eventually(t, 10*time.Second, "the pool is whole", whole)
	pids := tree(p)
	p.mu.Lock()
	for _, template := range p.current.templates {
		_ = template.Cmd.Process.Kill()
	}
	p.mu.Unlock()
	eventually(t, 5*time.Second, "every process of the old templates is gone", func() bool { return gone(pids) })
	if r := execute(t, p, "print(1)", 10*time.Second); r.Stdout != "1\n" {
		t.Errorf("got %+v", r)
	}
	eventually(t, 10*time.Second, "the pool is whole again", whole)
}

// A template that cannot fork says so at once, goes on, and forks again as soon as it can.
func TestATemplateThatCannotForkSaysSo(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 2})
	eventually(t, 10*time.Second, "the pool is whole", func() bool { s := p.Stat(); return s.Templates == 1 && s.Workers[StateIdle] == 1 })
	p.mu.Lock()
	template := p.current.templates[0]
	p.mu.Unlock()
	pid := template.Cmd.Process.Pid
	open, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, of := range open {
		used[of.Name()] = true
	}
	free := 0
	for used[strconv.Itoa(free)] {
		free++
	}
	// There is room for the lane's control socket, but not for the handle of the lane as well.
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(free + 1), Max: before.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	conn, _, _, err := template.forkLane(begin.Add(20 * time.Second))
	if err == nil {
		conn.Close()
		t.Fatal("a lane was forked")
	}
	if !strings.Contains(err.Error(), "could not fork") || !strings.Contains(err.Error(), "open files") || errors.Is(err, errLaneTimeout) {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	conn, handle, _, err := template.forkLane(time.Now().Add(20 * time.Second))
	if err != nil {
		t.Fatalf("with room again: %v", err)
	}
	_ = handle.Close()
	conn.Close()
	if r := execute(t, p, "print(1)", 10*time.Second); r.Stdout != "1\n" {
		t.Errorf("got %+v", r)
	}
}

func TestALostWorkerIsNotAResult(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Templates: 1, Idle: 1, Max: 1})
	failed := make(chan error, 1)
	executes := make(chan struct{})
	printed := sync.OnceFunc(func() { close(executes) })
	go func() {
		_, err := p.Execute(context.Background(), Request{Code: "print(1, flush=True)\nimport time; time.sleep(60)", Timeout: time.Minute,
			Stdout: func([]byte) { printed() }})
		failed <- err
	}()
	<-executes
	p.mu.Lock()
	_ = p.current.templates[0].Cmd.Process.Kill()
	p.mu.Unlock()
	if err := <-failed; !errors.Is(err, ErrWorkerLost) {
		t.Errorf("got %v", err)
	}
}

func TestCloseLetsRunsFinishAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, isolation := range []Isolation{IsolationStrict, IsolationNone} {
		p, err := New(context.Background(), Config{Python: "/usr/bin/python3", Isolation: isolation, Idle: 3, Max: 3})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan Result, 1)
		go func() {
			r, _ := p.Execute(context.Background(), Request{Code: "import time; time.sleep(.3); print('finished')", Timeout: time.Minute})
			done <- r
		}()
		eventually(t, 5*time.Second, "it executes", func() bool { return p.Stat().Workers[StateLeased] == 1 })
		pids, dir := tree(p), p.scratchDir
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if r := <-done; r.Stdout != "finished\n" {
			t.Errorf("%s: got %+v", isolation, r)
		}
		if !gone(pids) {
			t.Errorf("%s: processes of %v are left", isolation, pids)
		}
		if _, err := os.Stat(dir); dir != "" && err == nil {
			t.Errorf("%s: %s is left", isolation, dir)
		}
		if _, err := p.Execute(context.Background(), Request{Code: "1", Timeout: time.Second}); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWithoutNamespacesTreesAreEndedToo(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: IsolationNone})
	r := execute(t, p, "import os, time\nfor _ in range(3):\n  if os.fork() == 0: os.setsid(); time.sleep(60)\nopen('x', 'w'); print(os.getuid() != 0, os.listdir('.'))", 10*time.Second)
	if r.Stdout != "True ['main.py', 'x']\n" && r.Stdout != "True ['x', 'main.py']\n" {
		t.Errorf("got %+v", r)
	}
	if r.ExecutionTime > 5*time.Second {
		t.Errorf("a grandchild held it for %s", r.ExecutionTime)
	}
	r = execute(t, p, "import signal, os, time\nsignal.signal(15, signal.SIG_IGN)\nfor _ in range(3): os.fork()\ntime.sleep(60)", 300*time.Millisecond)
	if r.Status != StatusTimeout {
		t.Errorf("got %+v", r)
	}
	eventually(t, 5*time.Second, "scratch directories of ended workers are gone", func() bool {
		entries, err := filepath.Glob(p.scratchDir + "/[0-9]*/*")
		return err == nil && len(entries) <= p.cfg.Idle
	})
}

// A lane that ends without having had a worker leaves the scratch directories of other lanes alone.
func TestWithoutNamespacesALaneRemovesOnlyItsOwnScratch(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: IsolationNone, Templates: 1, Idle: 1, Max: 1})
	eventually(t, 10*time.Second, "a worker is parked", func() bool { return p.Stat().Workers[StateIdle] == 1 })
	p.mu.Lock()
	template := p.current.templates[0]
	p.mu.Unlock()
	l, err := startLane(template, laneStartTimeout)
	if err != nil {
		t.Fatal(err)
	}
	l.retire()
	l.receive(func(exit) {}, func() {}, func(exit) {})
	if r := execute(t, p, "import os; print(os.listdir('.'))", 10*time.Second); r.Stdout != "['main.py']\n" {
		t.Errorf("got %+v", r)
	}
}

// Without a pid namespace, which would end with its first process, the processes below a killed lane end too.
func TestWithoutNamespacesAKilledLaneLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Python: "/usr/bin/python3", Isolation: IsolationNone, Templates: 1, Idle: 1, Max: 1})
	lost := make(chan error, 1)
	go func() {
		_, err := p.Execute(context.Background(), Request{
			Code: "import os, time\nif os.fork() == 0: os.setsid(); os.fork()\ntime.sleep(60)", Timeout: time.Minute,
		})
		lost <- err
	}()
	var l *lane
	var left []int
	eventually(t, 10*time.Second, "the program runs with its children", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for w := range p.leased {
			l = w.lane
			left = procfs.Descendants(l.pid)
		}
		return len(left) == 3
	})
	l.kill()
	if err := <-lost; !errors.Is(err, ErrWorkerLost) {
		t.Errorf("got %v", err)
	}
	eventually(t, 5*time.Second, "what it had started is gone", func() bool { return gone(left) })
	if r := execute(t, p, "print(1)", 10*time.Second); r.Stdout != "1\n" {
		t.Errorf("got %+v", r)
	}
}
