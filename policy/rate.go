package policy

import (
	"container/list"
	"sync"
	"time"
)

// Rate bounds how often each client may ask: at most limit times in any period as long as window (a sliding window). NewRate and
// Admissions.Rate make it. It is safe for concurrent use.
type Rate struct {
	limit      int
	window     time.Duration
	admissions *Admissions
}

// Admissions records when each client was admitted. All Rates of one Admissions count the requests that any of them has admitted,
// so that a client does not start at 0 with a second Rate, or with a Rate that replaces the first one with another limit.
// NewAdmissions makes it. It is safe for concurrent use.
//
// It has records of at most maxClients clients. A client that was last admitted a window ago or earlier is forgotten when a new
// client needs its place. While all places are taken by clients that were admitted within the window, new clients share one
// record, with the limit of a single client. So no client's record is lost to others, and an attacker with many addresses is
// admitted as often as one more client once the places are taken. The price is that honest new clients wait together with the
// attacker until a place is free.
type Admissions struct {
	maxClients int
	now        func() time.Time
	start      time.Time

	mu      sync.Mutex
	limit   int                      // the highest limit of all Rates, which is how many admissions of a client are recorded
	window  time.Duration            // the longest window of all Rates
	latest  time.Duration            // the time of the latest request; when now is earlier, this is used instead
	clients map[string]*list.Element // the elements of byLast
	byLast  *list.List               // of *clientLog, the client that was admitted the longest ago first
	shared  clientLog                // of all clients without a place
}

// clientLog has the times of one client's admissions within the window, since Admissions.start, in a ring buffer: the oldest is at
// index first.
type clientLog struct {
	client string
	ring   []time.Duration
	first  int
	count  int
}

// defaultMaxClients bounds memory: a client takes some 100 bytes, and 8 for each admission.
const defaultMaxClients = 10_000

// NewAdmissions returns an empty Admissions. maxClients of 0 or less stands for 10,000. now is the clock, which must be safe for
// concurrent use; nil stands for time.Now.
func NewAdmissions(maxClients int, now func() time.Time) *Admissions {
	if now == nil {
		now = time.Now
	}
	if maxClients <= 0 {
		maxClients = defaultMaxClients
	}
	return &Admissions{maxClients: maxClients, now: now, start: now(), clients: map[string]*list.Element{}, byLast: list.New()}
}

// Rate returns a Rate that admits at most limit requests of each client in any window, those that other Rates of a have admitted
// included. A limit or window of 0 or less admits all requests, and counts none.
func (a *Admissions) Rate(limit int, window time.Duration) *Rate {
	if limit > 0 && window > 0 {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.limit, a.window = max(a.limit, limit), max(a.window, window)
	}
	return &Rate{limit: limit, window: window, admissions: a}
}

// NewRate returns a Rate with an Admissions of its own; see NewAdmissions and Admissions.Rate.
func NewRate(limit int, window time.Duration, maxClients int, now func() time.Time) *Rate {
	return NewAdmissions(maxClients, now).Rate(limit, window)
}

// Allow reports whether a client may ask now, and counts the request if so. If not, retryAfter is how long until the client may ask
// again, unless another request is admitted before; it is above 0 then. Refused requests do not count, so that asking early does
// not prolong the wait.
func (r *Rate) Allow(client string) (ok bool, retryAfter time.Duration) {
	if r.limit <= 0 || r.window <= 0 {
		return true, 0
	}
	a := r.admissions
	at := a.now().Sub(a.start)
	a.mu.Lock()
	defer a.mu.Unlock()
	at = max(at, a.latest)
	a.latest = at

	element, found := a.clients[client]
	if !found {
		a.forgetLocked(at)
		if len(a.clients) >= a.maxClients {
			return a.admitLocked(&a.shared, at, r)
		}
		element = a.byLast.PushBack(&clientLog{client: client})
		a.clients[client] = element
	}
	ok, retryAfter = a.admitLocked(element.Value.(*clientLog), at, r)
	if ok {
		a.byLast.MoveToBack(element)
	}
	return ok, retryAfter
}

// forgetLocked removes up to two clients that were not admitted within the window: one to make a place for the new client, and one
// more so that the number of such clients shrinks.
func (a *Admissions) forgetLocked(at time.Duration) {
	for range 2 {
		front := a.byLast.Front()
		if front == nil {
			return
		}
		log := front.Value.(*clientLog)
		if at-log.last() < a.window {
			return
		}
		a.byLast.Remove(front)
		delete(a.clients, log.client)
	}
}

// last returns the time of the newest admission.
func (l *clientLog) last() time.Duration { return l.ring[(l.first+l.count-1)%len(l.ring)] }

// admitLocked removes admissions that are older than the longest window, and adds one if the limit of the rate allows it.
func (a *Admissions) admitLocked(l *clientLog, at time.Duration, r *Rate) (bool, time.Duration) {
	for l.count > 0 && at-l.ring[l.first] >= a.window {
		l.first = (l.first + 1) % len(l.ring)
		l.count--
	}
	if l.count >= r.limit {
		// This is the oldest of the latest r.limit admissions: when it is within the window, so are the others.
		if since := at - l.ring[(l.first+l.count-r.limit)%len(l.ring)]; since < r.window {
			return false, r.window - since
		}
	}
	switch {
	case l.count == a.limit: // no Rate needs an older one
		l.first = (l.first + 1) % len(l.ring)
		l.count--
	case l.count == len(l.ring):
		l.growTo(min(max(4, 2*l.count), a.limit))
	}
	l.ring[(l.first+l.count)%len(l.ring)] = at
	l.count++
	return true, 0
}

// growTo moves the log to a larger ring. Rings start small, since most clients never reach their limit.
func (l *clientLog) growTo(size int) {
	ring := make([]time.Duration, size)
	for i := range l.count {
		ring[i] = l.ring[(l.first+i)%len(l.ring)]
	}
	l.ring, l.first = ring, 0
}
