package tests

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A bound of time holds for a machine that has nothing else to do. Whatever else runs, other tests included, stretches what is measured,
// and the bound with it: a sampler computes for a moment, several times a second, and compares the processor time that this took with
// the time that passed. On an idle machine both are the same, and bounds are as they are written.
const (
	paceEvery = 200 * time.Millisecond
	paceWork  = 4 * time.Millisecond // of processor time, more than a slice of the scheduler
	paceKept  = 3000                 // samples: ten minutes
)

type paceSample struct {
	at         time.Time
	cpu, clock time.Duration
}

type paceSampler struct {
	mu      sync.Mutex
	samples []paceSample
}

var pace paceSampler

// run samples for as long as the program lives.
func (p *paceSampler) run() {
	for tick := time.NewTicker(paceEvery); ; <-tick.C {
		p.add(takePaceSample())
	}
}

func takePaceSample() paceSample {
	runtime.LockOSThread() // whose processor time is read
	defer runtime.UnlockOSThread()
	begin, used := time.Now(), threadTime()
	var cpu time.Duration
	for cpu < paceWork {
		cpu = threadTime() - used
	}
	return paceSample{begin, cpu, time.Since(begin)}
}

func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

func (p *paceSampler) add(s paceSample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.samples = append(p.samples, s); len(p.samples) > paceKept {
		p.samples = p.samples[len(p.samples)-paceKept:]
	}
}

// stretch is how many times longer than on an idle machine everything took between two moments, 1 at least.
func (p *paceSampler) stretch(begin, end time.Time) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var cpu, clock time.Duration
	// From one sample before to one sample after, so that there is one for moments, too.
	begin, end = begin.Add(-2*paceEvery), end.Add(2*paceEvery)
	for _, s := range p.samples {
		if s.at.Add(s.clock).After(begin) && s.at.Before(end) {
			cpu, clock = cpu+s.cpu, clock+s.clock
		}
	}
	if cpu == 0 {
		return 1
	}
	return max(1, float64(clock)/float64(cpu))
}

// stretched is a bound on what began at a moment and is over now.
func stretched(limit time.Duration, begin time.Time) time.Duration {
	return time.Duration(float64(limit) * pace.stretch(begin, time.Now()))
}

// late says whether something should be over that began at a moment.
func late(limit time.Duration, begin time.Time) bool {
	took := time.Since(begin)
	return took > limit && took > stretched(limit, begin)
}

// expectWithin reports what took longer than it should have, on a machine as busy as this one was meanwhile.
func expectWithin(t testing.TB, limit time.Duration, begin time.Time, took time.Duration, what string) {
	t.Helper()
	if took <= limit {
		return
	}
	if may := stretched(limit, begin); took > may {
		t.Errorf("%s took %s, more than %s (%s on an idle machine)", what, took, may.Round(time.Millisecond), limit)
	}
}

func TestPaceStretchesBounds(t *testing.T) {
	t.Parallel()
	var p paceSampler
	start := time.Now()
	for n, milliseconds := range []int{4, 4, 12, 20, 4, 4} { // for 4 of work
		p.add(paceSample{start.Add(time.Duration(n) * time.Second), 4 * time.Millisecond, time.Duration(milliseconds) * time.Millisecond})
	}
	for _, c := range []struct{ begin, end, want float64 }{
		{0, 1, 1}, {2, 2, 3}, {2, 3, 4}, {4, 5, 1}, {9, 9, 1}, {0, 5, 2},
	} {
		at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
		if got := p.stretch(at(c.begin), at(c.end)); math.Abs(got-c.want) > 0.01 {
			t.Errorf("from %.0f to %.0f s: got %.2f, want %.2f", c.begin, c.end, got, c.want)
		}
	}
	if s := takePaceSample(); s.cpu < paceWork || s.clock < s.cpu {
		t.Errorf("%s of processor time in %s", s.cpu, s.clock)
	}
}
