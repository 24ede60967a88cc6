package tests

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// wholeWithin is how soon a pool is itself again after trouble.
	wholeWithin = 5 * time.Second
	manyRuns    = 2000
	manyClients = 64

	// A pool of known size: two templates, a lane for each worker that can be, and the parked workers.
	sized     = "workers {\n idle 4\n max 8\n templates 2\n }"
	sizedMost = 2 + (4 + 8) + 4
)

// storm runs many programs from many clients, each printing its own nonce. judge sees each answer.
func (c *caddy) storm(runs int64, judge func(nonce string, a answer, err error)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range manyClients {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > runs {
					return
				}
				nonce := fmt.Sprintf("nonce-%d-%d", n, time.Now().UnixNano())
				a, err := c.execute(context.Background(), map[string]any{"code": "print('" + nonce + "')", "timeout": 60})
				judge(nonce, a, err)
			}
		})
	}
	wg.Wait()
}

// settled waits for a whole pool and returns what the server holds then.
func (c *caddy) settled() footprint {
	c.Helper()
	c.waitHealth(wholeWithin, "a whole pool", func(h health) bool { return h.whole(4) && h.Workers["booting"] == 0 })
	return c.footprint()
}

func TestNothingIsLeftAfterManyRuns(t *testing.T) {
	c := startCaddy(t, caddyOptions{directive: sized})
	// The pool grows its lanes as far as they are used, and keeps them, up to one for each worker that can be.
	c.storm(10*manyClients, func(string, answer, error) {})
	base := c.settled()
	var wrong atomic.Int64
	c.storm(manyRuns, func(nonce string, a answer, err error) {
		if (err != nil || a.code != 200 || a.Stdout != nonce+"\n" || a.Status != "ok") && wrong.Add(1) < 5 {
			t.Errorf("%s: %d %.300s %v", nonce, a.code, a.raw, err)
		}
	})
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d of %d answers are wrong", n, manyRuns)
	}
	c.expectReturnTo(base)
}

func (c *caddy) expectReturnTo(base footprint) {
	c.Helper()
	var last footprint
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if last = c.footprint(); last.within(base, sizedMost) {
			return
		}
		if late(10*time.Second, begin) {
			c.Fatalf("something is left: %+v, before %+v; processes %v", last, base, descendants(c, c.pid()))
		}
	}
}

// Templates die under load: every request is answered, right or with a 503 that says try again.
func TestTemplatesKilledUnderLoad(t *testing.T) {
	c := startCaddy(t, caddyOptions{directive: sized})
	c.storm(10*manyClients, func(string, answer, error) {})
	base := c.settled()

	quit, killed := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { killed <- n }()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				// One that serves, which shows in lanes below it: one that has not come up yet serves nobody.
				serving := slices.DeleteFunc(children(t, c.pid()), func(p process) bool { return len(children(t, p.pid)) == 0 })
				if len(serving) > 0 && syscall.Kill(serving[n%len(serving)].pid, syscall.SIGKILL) == nil {
					n++
				}
			}
		}
	}()
	var right, refused, wrong atomic.Int64
	c.storm(manyRuns, func(nonce string, a answer, err error) {
		switch {
		case err == nil && a.code == 200 && a.Stdout == nonce+"\n" && a.Status == "ok":
			right.Add(1)
		case err == nil && a.code == 503 && a.header.Get("Retry-After") != "" && strings.Contains(strings.ToLower(a.Detail), "try again"):
			refused.Add(1)
		default:
			if wrong.Add(1) < 5 {
				t.Errorf("%s: %d %v %.300s %v", nonce, a.code, a.header, a.raw, err)
			}
		}
	})
	close(quit)
	n := <-killed
	begin := time.Now()
	took := c.waitHealth(wholeWithin, "a whole pool", func(h health) bool { return h.whole(4) })
	t.Logf("%d templates killed, %d right, %d refused, whole again after %s", n, right.Load(), refused.Load(), took)
	if n == 0 {
		t.Error("no template was killed")
	}
	if wrong.Load() > 0 {
		t.Errorf("%d answers are wrong", wrong.Load())
	}
	if right.Load() < manyRuns/4 {
		t.Errorf("only %d of %d runs were served", right.Load(), manyRuns)
	}
	expectWithin(t, time.Second, begin, took, "to be whole again")
	c.mustPrint("print(1)", "1\n")
	c.expectReturnTo(base)
}

// leased is the number of requests at work.
func leased(n int) func(health) bool {
	return func(h health) bool { return h.Workers["leased"] == n }
}

func TestClientGoneFreesItsWorker(t *testing.T) {
	c := startCaddy(t, caddyOptions{})
	c.mustPrint("print(1)", "1\n")
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if a, err := c.execute(ctx, map[string]any{"code": "import time\nwhile True: time.sleep(1)", "timeout": 30}); err == nil {
				t.Errorf("answered: %s", a.raw)
			}
		}()
		c.waitHealth(wholeWithin, "a worker at work", leased(1))
		cancel()
		<-done
		c.waitHealth(time.Second, "the worker free", leased(0))
	}
	eventually(t, wholeWithin, "no program of the gone clients", func() bool {
		h, err := c.health()
		return err == nil && h.whole(1)
	})
}

// kill -9: whatever was below Caddy ends with it, programs that run included.
func TestNothingSurvivesCaddy(t *testing.T) {
	c := startCaddy(t, caddyOptions{})
	for range 3 {
		go func() {
			_, _ = c.execute(context.Background(), map[string]any{"code": "import os, time\nfor _ in range(3):\n    if os.fork() == 0: os.setsid()\ntime.sleep(60)"})
		}()
	}
	c.waitHealth(wholeWithin, "three at work", leased(3))
	// The programs need a moment to fork; counting until the number stands still is as good as being told.
	below, same := descendants(t, c.pid()), 0
	eventually(t, wholeWithin, "the tree stands still", func() bool {
		now := descendants(t, c.pid())
		if same++; len(now) != len(below) {
			below, same = now, 0
		}
		return same > 20
	})
	if len(below) < 3*8 {
		t.Fatalf("only %d processes below Caddy", len(below))
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.exited
	eventually(t, time.Second, "no process is left", func() bool { return len(living(t, slices.Values(below))) == 0 })
}

// Without namespaces a template first tries whether it can answer calls of its children. When it is killed meanwhile, as at the end of a
// Caddy that has just started, the child that tries ends too; else Caddy would wait for it.
func TestTemplateKilledInItsTrialLeavesNobody(t *testing.T) {
	t.Parallel()
	c := startCaddy(t, caddyOptions{directive: "python " + systemPython(t), noNamespaces: true})
	old := map[int]bool{}
	killTemplates := func() {
		for _, p := range children(t, c.pid()) {
			old[p.pid] = true
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	killTemplates()
	var trial process
	for begin, last := time.Now(), time.Now(); trial.pid == 0; {
		if late(30*time.Second, begin) {
			t.Fatal("no new template has had a child")
		}
		// A trial takes milliseconds, and is missed now and then. A pool that is whole forks nothing more.
		if time.Since(last) > 2*time.Second {
			killTemplates()
			last = time.Now()
		}
		seen := map[process]bool{}
		seeBelow(t, c.pid(), seen)
		parents := map[int]int{}
		for p := range seen {
			parents[p.pid] = p.parent
		}
		for p := range seen {
			if parents[p.parent] != c.pid() || old[p.parent] {
				continue
			}
			if err := syscall.Kill(p.parent, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			trial = p
			break
		}
	}
	t.Cleanup(func() {
		for _, p := range living(t, slices.Values([]process{trial})) {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	})
	eventually(t, 10*time.Second, "the child of the killed template is gone", func() bool {
		// A lane, which leads a session, serves on without its template: this one had come to the end of its trial already.
		session, err := unix.Getsid(trial.pid)
		return err != nil || session == trial.pid || len(living(t, slices.Values([]process{trial}))) == 0
	})
	c.mustPrint("print(1)", "1\n")
}
