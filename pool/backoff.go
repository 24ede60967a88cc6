package pool

import (
	"math/rand/v2"
	"time"
)

// backoff spaces the tries of one thing that fails: the first comes soon, each later one after twice the time, up to longest. What
// it stands for is all that it holds back. The zero value lets everything be tried at once. Not safe for concurrent use.
type backoff struct {
	first, longest time.Duration

	failures int       // in a row
	failed   time.Time // the last of them
	until    time.Time // no try before
}

// fail takes a failure, and returns how long the next try waits. A part of that is chance, so that what failed together is not
// tried together.
func (b *backoff) fail() time.Duration {
	wait := min(b.longest, b.first<<min(b.failures, 16))
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // it spreads tries; no secret depends on it
	b.failures++
	b.failed = time.Now()
	b.until = b.failed.Add(wait)
	return wait
}

// succeed forgets the failures.
func (b *backoff) succeed() { b.failures, b.until = 0, time.Time{} }

// wait is how long the next try waits; 0 or less when it does not.
func (b *backoff) wait() time.Duration {
	if b.until.IsZero() {
		return 0
	}
	return time.Until(b.until)
}

// logInterval is how often the same kind of failure is logged at most. What fails several times a second would fill a disk.
const logInterval = 10 * time.Second

// rarely lets one message in logInterval through, and counts the others. The zero value lets the first one through. Not safe for
// concurrent use.
type rarely struct {
	next time.Time
	held int
}

// allow says whether to log now, and how many were not logged since the last one.
func (r *rarely) allow() (held int, ok bool) {
	now := time.Now()
	if now.Before(r.next) {
		r.held++
		return 0, false
	}
	held, r.held, r.next = r.held, 0, now.Add(logInterval)
	return held, true
}
