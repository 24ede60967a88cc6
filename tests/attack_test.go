package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	ordinaryRuns    = 500
	ordinaryClients = 4
	attackers       = 8
	// What Caddy may hold more while it is under attack.
	caddyGrowth = 64 << 20
)

// attacks take as much as they can get of one thing each, until they are ended.
var attacks = []struct{ name, code string }{
	{"fork bomb", "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"},
	{"thread bomb", "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(9,)).start()\n    except RuntimeError: pass\n"},
	{"memory hog", "held = []\nwhile True:\n    try: held.append(bytearray(b'x') * (16 << 20))\n    except MemoryError: pass\n"},
	{"disk filler", "n = 0\nwhile True:\n    try:\n        with open(f'f{n}', 'wb') as f:\n            while True: f.write(bytes(1 << 20))\n    except OSError: n += 1\n"},
	{"descriptor hog", "import os, socket\nheld = []\nwhile True:\n    try: held.append(os.pipe()); held.append(socket.socketpair())\n    except OSError: pass\n"},
	{"output flood", "import os\nblock = b'\\xff' * 65536\nwhile True: os.write(1, block); os.write(2, block)\n"},
}

// Programs that take all they can get take it from themselves: their neighbours are served as before, nearly as soon. How soon is compared
// with what a plain Python takes at the same moment, which is slower too while processors are busy, with an attack or with anything else.
func TestOrdinaryProgramsDuringAnAttack(t *testing.T) {
	python := systemPython(t)
	c := startCaddy(t, caddyOptions{directive: "workers {\n idle 8\n max 16\n acquire_timeout 60s\n }"})
	c.ordinary(t, 100) // the pool's lanes and our connections are there
	calm, plainCalm := c.ordinaryBesidePlain(t, python)
	before := c.resident()

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var next atomic.Int64
	var answered sync.Map // the number of the attack -> its last status
	for range attackers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) % len(attacks)
				a, err := c.execute(ctx, map[string]any{"code": attacks[n].code, "timeout": 5})
				switch {
				case ctx.Err() != nil:
				case err != nil || a.code != 200:
					t.Errorf("%s: %d %.300s %v", attacks[n].name, a.code, a.raw, err)
				default:
					answered.Store(n, a.Status)
					expectWithin(t, 10*time.Second, a.began, a.took, "the answer to the "+attacks[n].name)
				}
			}
		})
	}
	var most atomic.Int64
	wg.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			most.Store(max(most.Load(), c.resident()))
		}
	})
	c.waitHealth(wholeWithin, "the attackers at work", func(h health) bool { return h.Workers["leased"] >= attackers-1 })
	time.Sleep(500 * time.Millisecond) // they have got hold of what they can
	attacked, plainAttacked := c.ordinaryBesidePlain(t, python)
	// Each kind shall come to its end at least once.
	eventually(t, 20*time.Second, "an answer to each kind of attack", func() bool {
		for n := range attacks {
			if _, ok := answered.Load(n); !ok {
				return false
			}
		}
		return true
	})
	cancel()
	wg.Wait()

	for n := range attacks {
		status, _ := answered.Load(n)
		t.Logf("%s: %v", attacks[n].name, status)
	}
	t.Logf("p50 %s and p99 %s, under attack %s and %s; p50 of a plain Python %s, under attack %s", quantile(calm, 50), quantile(calm, 99),
		quantile(attacked, 50), quantile(attacked, 99), quantile(plainCalm, 50), quantile(plainAttacked, 50))
	busier := max(1, float64(quantile(plainAttacked, 50))/float64(quantile(plainCalm, 50)))
	if limit := time.Duration(10 * busier * float64(quantile(calm, 99))); quantile(attacked, 99) > limit {
		t.Errorf("p99 is %s under attack, more than %s", quantile(attacked, 99), limit)
	}
	t.Logf("Caddy held %d MiB before and up to %d MiB under attack", before>>20, most.Load()>>20)
	if grown := most.Load() - before; grown > caddyGrowth {
		t.Errorf("Caddy has grown by %d MiB", grown>>20)
	}
	c.waitHealth(2*wholeWithin, "a whole pool", func(h health) bool { return h.whole(8) && h.Workers["booting"] == 0 })
	c.expectNoScratch()
}

// ordinaryBesidePlain runs ordinary programs, and one after the other in a plain Python of the host, and returns how long each took.
func (c *caddy) ordinaryBesidePlain(t *testing.T, python string) (ours, plain []time.Duration) {
	t.Helper()
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for over := false; !over; {
			begin := time.Now()
			if out, err := exec.Command(python, "-I", "-c", "print(sum(range(100)))").CombinedOutput(); err != nil || string(out) != "4950\n" {
				t.Errorf("a plain Python: %s %v", out, err)
			}
			plain = append(plain, time.Since(begin))
			select {
			case <-quit:
				over = true
			default:
			}
		}
	})
	ours = c.ordinary(t, ordinaryRuns)
	close(quit)
	wg.Wait()
	slices.Sort(plain)
	return ours, plain
}

// ordinary runs programs from a few clients and returns how long each took. Every answer must be right.
func (c *caddy) ordinary(t *testing.T, runs int64) []time.Duration {
	t.Helper()
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for range ordinaryClients {
		wg.Go(func() {
			for n := next.Add(1); n <= runs; n = next.Add(1) {
				a, err := c.execute(t.Context(), map[string]any{"code": fmt.Sprintf("print(sum(range(%d)))", n), "timeout": 30})
				if want := fmt.Sprintf("%d\n", n*(n-1)/2); err != nil || a.code != 200 || a.Stdout != want || a.Status != "ok" || a.Stderr != "" {
					t.Errorf("run %d: %d %.300s %v", n, a.code, a.raw, err)
				}
				mu.Lock()
				took = append(took, a.took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took
}

func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)].Round(10 * time.Microsecond)
}

// resident is Caddy's own memory in bytes, that of no program.
func (c *caddy) resident() int64 {
	c.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(c.pid()) + "/status")
	if err != nil {
		c.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		c.Errorf("no VmRSS in %s", b)
		return 0
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		c.Error(err)
	}
	return kib << 10
}
