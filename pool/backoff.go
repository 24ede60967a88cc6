package pool

import (
	"math/rand/v2"
	"time"
)

// backoff spaces out the attempts at something that keeps failing: after the first failure the next attempt waits for first, after
// each further one twice as long, up to longest. Set both fields before the first fail. Until then nothing waits. Not safe for
// concurrent use.
type backoff struct {
	first, longest time.Duration

	failures int       // in a row
	failed   time.Time // when the last of them was
	until    time.Time // no attempt before this time; zero for no wait
}

// fail records a failure, and returns how long the next attempt is to wait. Up to half of the wait is random, so that things which
// failed at the same time are not tried again at the same time.
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

// wait returns how long the next attempt still has to wait; 0 or less when it need not.
func (b *backoff) wait() time.Duration {
	if b.until.IsZero() {
		return 0
	}
	return time.Until(b.until)
}

// logInterval is how often the same kind of failure is logged at most. What fails several times a second would fill a disk.
const logInterval = 10 * time.Second

// rarely allows one log message per logInterval, and counts those that it suppresses. The zero value allows the first one. Not safe
// for concurrent use.
type rarely struct {
	next time.Time
	held int
}

// allow says whether to log now, and how many messages were suppressed since the last one that was allowed.
func (r *rarely) allow() (held int, ok bool) {
	now := time.Now()
	if now.Before(r.next) {
		r.held++
		return 0, false
	}
	held, r.held, r.next = r.held, 0, now.Add(logInterval)
	return held, true
}
