package policy

import (
	"container/list"
	"sync"
	"time"
)

// Rate bounds how often each client may ask: at most limit times in any window, wherever the window begins. Made by NewRate;
// safe for concurrent use.
//
// It remembers at most maxClients clients. A client whose last admission is a window ago has nothing left to remember and
// gives its place to a newcomer. While every place is taken by a client that was admitted within the window, newcomers share
// one more window among them, with the limit of a single client. So no client ever loses its own window to others, and many
// addresses together gain one client's worth; the price is that honest newcomers wait along with them until a place is free.
type Rate struct {
	limit      int
	window     time.Duration
	maxClients int
	now        func() time.Time
	start      time.Time

	mu      sync.Mutex
	latest  time.Duration            // the clock never runs back, whatever now says
	clients map[string]*list.Element // of byLast
	byLast  *list.List               // of *clientLog, the longest without admission in front
	shared  clientLog                // of those without a place
}

// clientLog is the log of one client's admissions within the window, as a ring: times since Rate.start, the oldest at first.
type clientLog struct {
	client string
	ring   []time.Duration
	first  int
	count  int
}

// defaultMaxClients holds some 100 bytes for each client, and 8 for each admission.
const defaultMaxClients = 10_000

// NewRate returns a Rate that admits limit requests of each client in any window. A limit or window of 0 or less admits
// all. maxClients of 0 or less stands for 10,000. now is the clock; nil stands for time.Now.
func NewRate(limit int, window time.Duration, maxClients int, now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	if maxClients <= 0 {
		maxClients = defaultMaxClients
	}
	return &Rate{
		limit: limit, window: window, maxClients: maxClients, now: now, start: now(),
		clients: map[string]*list.Element{}, byLast: list.New(),
	}
}

// Allow reports whether a client may ask now, and counts the request if so. If not, retryAfter is how long until it may,
// if nothing else uses the place up; it is above 0 then. Refused requests do not count: asking early does not prolong the wait.
func (r *Rate) Allow(client string) (ok bool, retryAfter time.Duration) {
	if r.limit <= 0 || r.window <= 0 {
		return true, 0
	}
	at := r.now().Sub(r.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	at = max(at, r.latest)
	r.latest = at

	element, found := r.clients[client]
	if !found {
		r.forgetLocked(at)
		if len(r.clients) >= r.maxClients {
			return r.shared.admit(at, r.window, r.limit)
		}
		element = r.byLast.PushBack(&clientLog{client: client})
		r.clients[client] = element
	}
	ok, retryAfter = element.Value.(*clientLog).admit(at, r.window, r.limit)
	if ok {
		r.byLast.MoveToBack(element)
	}
	return ok, retryAfter
}

// forgetLocked makes one place free, if the client in front is idle, and up to one more, so that idle ones run out.
func (r *Rate) forgetLocked(at time.Duration) {
	for range 2 {
		front := r.byLast.Front()
		if front == nil {
			return
		}
		log := front.Value.(*clientLog)
		if at-log.last() < r.window {
			return
		}
		r.byLast.Remove(front)
		delete(r.clients, log.client)
	}
}

// last returns the time of the newest admission.
func (l *clientLog) last() time.Duration { return l.ring[(l.first+l.count-1)%len(l.ring)] }

// admit drops what the window has left behind and adds an admission if there is room.
func (l *clientLog) admit(at, window time.Duration, limit int) (bool, time.Duration) {
	for l.count > 0 && at-l.ring[l.first] >= window {
		l.first = (l.first + 1) % len(l.ring)
		l.count--
	}
	if l.count >= limit {
		return false, window - (at - l.ring[l.first])
	}
	if l.count == len(l.ring) {
		l.growTo(min(max(4, 2*l.count), limit))
	}
	l.ring[(l.first+l.count)%len(l.ring)] = at
	l.count++
	return true, 0
}

// growTo moves the log to a larger ring: most clients never need their limit's worth.
func (l *clientLog) growTo(size int) {
	ring := make([]time.Duration, size)
	for i := range l.count {
		ring[i] = l.ring[(l.first+i)%len(l.ring)]
	}
	l.ring, l.first = ring, 0
}
