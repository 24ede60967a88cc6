package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A waiting request gets a worker that is forked for it, and runs there as in a prewarmed one.
func TestRequestsThatWait(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"namespaces": {Idle: 1, Max: 2},
		"process":    {Python: "/usr/bin/python3", Isolation: IsolationNone, Templates: 1, Idle: 1, Max: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTestPool(t, cfg)
			large := "s = '" + strings.Repeat("x", 900_000) + "'\nprint(len(s))"
			kinds := []struct {
				req    Request
				status Status
				stdout string
			}{
				{Request{Code: "print('%d')", Timeout: 20 * time.Second}, StatusOK, "%d\n"},
				{Request{Code: large, Timeout: 20 * time.Second}, StatusOK, "900000\n"},
				{Request{Code: "print(input())", Stdin: "%d", Timeout: 20 * time.Second}, StatusOK, "%d\n"},
				{Request{Code: "print('before', flush=True)\nimport time; time.sleep(60)", Timeout: 300 * time.Millisecond}, StatusTimeout, "before\n"},
				{Request{Code: "import time; time.sleep(60)", Timeout: time.Microsecond}, StatusTimeout, ""},
				{Request{Code: "1 / 0", Timeout: 20 * time.Second}, StatusError, ""},
				{Request{Code: "import os; os.kill(os.getpid(), 9)", Timeout: 20 * time.Second}, StatusKilled, ""},
				{Request{Code: "import os, time\nif os.fork() == 0: time.sleep(60)\nprint('parent')", Timeout: 20 * time.Second}, StatusOK, "parent\n"},
			}
			var all sync.WaitGroup
			for n := range 40 {
				all.Go(func() {
					kind := kinds[n%len(kinds)]
					req := kind.req
					with := func(text string) string { return strings.ReplaceAll(text, "%d", fmt.Sprint(n)) }
					req.Code, req.Stdin = with(req.Code), with(req.Stdin)
					r, err := p.Execute(context.Background(), req)
					if err != nil || r.Status != kind.status || r.Stdout != with(kind.stdout) {
						t.Errorf("%.40q: got %s, %.40q, %.200q, %v", req.Code, r.Status, r.Stdout, r.Stderr, err)
					}
				})
			}
			all.Wait()
		})
	}
}

// When a lane leaves, since its last worker left too many files, the request that was to use it next still succeeds.
func TestRequestsThatWaitWhileLanesLeave(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 2})
	var all sync.WaitGroup
	for n := range 24 {
		all.Go(func() {
			r, err := p.Execute(context.Background(), Request{Timeout: 60 * time.Second,
				Code: fmt.Sprintf("for i in range(2100): open(str(i), 'w').close()\nprint(%d)", n)})
			if err != nil || r.Stdout != fmt.Sprintln(n) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
	all.Wait()
	if r := execute(t, p, "import os; print(os.listdir('.'))", 10*time.Second); r.Stdout != "['main.py']\n" {
		t.Errorf("got %+v", r)
	}
}

// When callers give up while their worker is forked, that worker is ended, and other requests still succeed.
func TestCallersGiveUpWhileTheyWait(t *testing.T) {
	t.Parallel()
	p := newTestPool(t, Config{Idle: 1, Max: 2})
	var all sync.WaitGroup
	for n := range 60 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n)*500*time.Microsecond)
			defer cancel()
			_, err := p.Execute(ctx, Request{Code: "import time; time.sleep(30)", Timeout: time.Minute})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		if n%3 == 0 {
			all.Go(func() {
				if r, err := p.Execute(context.Background(), Request{Code: fmt.Sprintf("print(%d)", n), Timeout: 20 * time.Second}); err != nil || r.Stdout != fmt.Sprintln(n) {
					t.Errorf("got %+v, %v", r, err)
				}
			})
		}
	}
	all.Wait()
	eventually(t, 5*time.Second, "nobody has a worker", func() bool { return p.Stat().Workers[StateLeased] == 0 })
}

// A request whose lane leaves waits again at the head of the queue, even if the queue is full by then.
func TestALaneThatLeavesCostsNoPlace(t *testing.T) {
	t.Parallel()
	p := newBarePool(t)
	p.cfg.Max, p.cfg.Queue, p.cfg.AcquireTimeout = 1, 1, time.Minute
	served := make(chan string, 2)
	ask := func(code string) {
		r, err := p.Execute(context.Background(), Request{Code: code, Timeout: time.Minute})
		if err != nil || r.Stdout != code {
			t.Errorf("%s: got %+v, %v", code, r, err)
		}
		served <- code
	}
	asked := func(l *scriptedLane) {
		eventually(t, 10*time.Second, "the lane is asked for a worker", func() bool {
			l.held = receiveBoot(l.control)
			return len(l.held) == 4
		})
	}
	// lane adds a scripted lane, and returns it once it has been asked for a worker.
	lane := func() *scriptedLane {
		l := newScriptedLane(t, p)
		p.mu.Lock()
		p.refillLocked(p.current)
		p.mu.Unlock()
		asked(l)
		return l
	}
	go ask("first")
	eventually(t, 10*time.Second, "the first waits", func() bool { return p.Stat().QueueDepth == 1 })
	l := lane()
	go ask("second")
	eventually(t, 10*time.Second, "the second waits", func() bool { return p.Stat().QueueDepth == 1 })
	l.say("leave")
	l.play(nil)
	eventually(t, 10*time.Second, "the first waits again", func() bool { return p.Stat().QueueDepth == 2 })
	l = lane()
	for n, want := range []string{"first", "second"} {
		if n > 0 {
			asked(l)
		}
		l.channel("ready\n")
		l.work()
		l.drop()
		l.say(exitWord(0, 1, 1))
		if got := <-served; got != want {
			t.Errorf("%s was served in the place of %s", got, want)
		}
	}
	l.play(nil)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
