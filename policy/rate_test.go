package policy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a clock that a test advances.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_000_000, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func TestRateIsASlidingWindow(t *testing.T) {
	t.Parallel()
	var c clock
	rate := NewRate(3, time.Minute, 10, c.now)
	for _, step := range []struct {
		advance, retryAfter time.Duration
	}{
		{0, 0}, {20 * time.Second, 0}, {20 * time.Second, 0}, // at 0, 20 and 40 s
		{time.Second, 19 * time.Second}, // 41 s: refused until 60 s
		{18 * time.Second, time.Second}, // 59 s
		{time.Second, 0},                // 60 s: the admission at 0 s is out of the window
		{time.Second, 19 * time.Second}, // 61 s: refused until 80 s; a fixed window would have begun anew
		{19*time.Second - 1, 1},         // exact to the nanosecond
		{1, 0},                          // 80 s
		{time.Hour, 0}, {0, 0}, {0, 0},  // all earlier admissions are out of the window
		{0, time.Minute}, {0, time.Minute}, // refused requests do not count
		{-time.Hour, time.Minute},            // a clock that is set back counts as stopped
		{time.Hour + 2*time.Minute, 0},       // until it has caught up
		{0, 0}, {0, 0}, {0, 1 * time.Minute}, //
	} {
		c.advance(step.advance)
		ok, retryAfter := rate.Allow("a")
		if ok != (step.retryAfter == 0) || retryAfter != step.retryAfter {
			t.Fatalf("at %v: %v, %v; want to wait %v", time.Duration(c.at.Load()), ok, retryAfter, step.retryAfter)
		}
	}
	if ok, _ := rate.Allow("b"); !ok {
		t.Error("one client's requests count for another")
	}
}

func TestRateWithoutLimit(t *testing.T) {
	t.Parallel()
	for _, rate := range []*Rate{NewRate(0, time.Minute, 1, nil), NewRate(-1, time.Minute, 1, nil), NewRate(1, 0, 1, nil)} {
		for i := range 100 {
			if ok, retryAfter := rate.Allow(fmt.Sprint(i % 3)); !ok || retryAfter != 0 {
				t.Fatalf("%+v: refused", rate)
			}
		}
	}
}

// A client is not admitted twice as often when two rates share one Admissions, or when a reload replaces one rate by another.
func TestRatesOfOneAdmissionsCountTogether(t *testing.T) {
	t.Parallel()
	var c clock
	admissions := NewAdmissions(10, c.now)
	wide, narrow := admissions.Rate(5, time.Minute), admissions.Rate(2, 10*time.Second)
	for _, step := range []struct {
		advance    time.Duration
		rate       *Rate
		retryAfter time.Duration
	}{
		{0, wide, 0}, {time.Second, wide, 0}, // at 0 and 1 s
		{time.Second, narrow, 8 * time.Second},                  // 2 s: two admissions within 10 s
		{0, admissions.Rate(2, time.Minute), 58 * time.Second},  // a rate that is made later counts them, too
		{8 * time.Second, narrow, 0},                            // 10 s: the admission at 0 s is out of narrow's window
		{0, narrow, time.Second},                                // refused until 11 s
		{0, wide, 0}, {0, wide, 0}, {0, wide, 50 * time.Second}, // five admissions in all: refused until 60 s
		{0, admissions.Rate(7, time.Minute), 0},                // admitted by a rate with a higher limit
		{0, wide, 51 * time.Second},                            // six in all: refused until the one at 1 s is out of the window
		{0, admissions.Rate(0, time.Minute), 0},                // no limit
		{time.Minute, narrow, 0}, {0, narrow, 0}, {0, wide, 0}, // 70 s: all admissions are out of the window
		{0, narrow, 10 * time.Second}, {10 * time.Second, narrow, 0}, //
		{0, wide, 0}, {0, wide, 50 * time.Second}, {time.Hour, wide, 0}, //
	} {
		c.advance(step.advance)
		ok, retryAfter := step.rate.Allow("a")
		if ok != (step.retryAfter == 0) || retryAfter != step.retryAfter {
			t.Fatalf("at %v, %d within %v: %v, %v; want to wait %v", time.Duration(c.at.Load()), step.rate.limit, step.rate.window, ok, retryAfter, step.retryAfter)
		}
	}
	if ok, _ := narrow.Allow("b"); !ok {
		t.Error("one client's requests count for another")
	}
}

func TestRateForgetsIdleClients(t *testing.T) {
	t.Parallel()
	var c clock
	rate := NewRate(2, time.Minute, 100, c.now)
	for i := range 10_000 {
		if ok, _ := rate.Allow(fmt.Sprint(i)); !ok {
			t.Fatalf("client %d is refused", i)
		}
		c.advance(time.Second)
		if n := len(rate.admissions.clients); n > 100 || n != rate.admissions.byLast.Len() {
			t.Fatalf("%d clients are remembered, %d in order", n, rate.admissions.byLast.Len())
		}
	}
	if n := len(rate.admissions.clients); n > 61 {
		t.Errorf("%d clients are remembered, and 60 were admitted within the window", n)
	}
}

// An attacker with many addresses takes the free places, and is then admitted as often as one more client. The records of other
// clients stay.
func TestRateUnderManyAddresses(t *testing.T) {
	t.Parallel()
	var c clock
	const limit, places = 5, 50
	rate := NewRate(limit, time.Minute, places, c.now)
	for range limit {
		if ok, _ := rate.Allow("victim"); !ok {
			t.Fatal("refused early")
		}
	}
	admitted := 0
	for i := range 10_000 {
		if ok, retryAfter := rate.Allow(fmt.Sprint("address-", i)); ok {
			admitted++
		} else if retryAfter != time.Minute {
			t.Fatalf("retry after %v", retryAfter)
		}
	}
	if want := places - 1 + limit; admitted != want {
		t.Errorf("%d addresses are admitted, want %d: a place each, and a window that the rest share", admitted, want)
	}
	if ok, retryAfter := rate.Allow("victim"); ok || retryAfter != time.Minute {
		t.Errorf("the victim's window is gone: %v, %v", ok, retryAfter)
	}
	c.advance(time.Minute)
	if ok, _ := rate.Allow("newcomer"); !ok || rate.admissions.clients["newcomer"] == nil {
		t.Error("a newcomer has no place of its own when all are idle")
	}
}

func TestRateIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	rate := NewRate(10, time.Hour, 4, nil)
	var admitted atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 1000 {
				if ok, _ := rate.Allow(fmt.Sprint(i % 4)); ok {
					admitted.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := admitted.Load(); n != 40 {
		t.Errorf("%d are admitted, want 10 of each of 4 clients", n)
	}
}

func BenchmarkRate(b *testing.B) {
	var c clock
	rate := NewRate(60, time.Minute, 10_000, c.now)
	names := make([]string, 20_000)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		c.advance(time.Millisecond)
		rate.Allow(names[i%len(names)])
		i++
	}
}
