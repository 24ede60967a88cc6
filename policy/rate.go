package policy

import (
	"container/list"
	"sync"
	"time"
)

// Rate bounds how often each client may ask: at most limit times in any window, wherever the window begins. Made by NewRate
// or Admissions.Rate; safe for concurrent use.
type Rate struct {
	limit      int
	window     time.Duration
	admissions *Admissions
}

// Admissions is who was admitted when. Rates of one Admissions count what any of them has admitted, so that neither a second
// rate nor one with another limit in the place of the first begins anew. Made by NewAdmissions; safe for concurrent use.
//
// It remembers at most maxClients clients. A client whose last admission is a window ago has nothing left to remember and
// gives its place to a newcomer. While every place is taken by a client that was admitted within the window, newcomers share
// one more window among them, with the limit of a single client. So no client ever loses its own window to others, and many
// addresses together gain one client's worth; the price is that honest newcomers wait along with them until a place is free.
type Admissions struct {
	maxClients int
	now        func() time.Time
	start      time.Time

	mu      sync.Mutex
	limit   int                      // the highest of all rates: so many admissions of a client are remembered
	window  time.Duration            // likewise the longest
	latest  time.Duration            // the clock never runs back, whatever now says
	clients map[string]*list.Element // of byLast
	byLast  *list.List               // of *clientLog, the longest without admission in front
	shared  clientLog                // of those without a place
}

// clientLog is the log of one client's admissions within the window, as a ring: times since Admissions.start, the oldest at first.
type clientLog struct {
	client string
	ring   []time.Duration
	first  int
	count  int
}

// defaultMaxClients holds some 100 bytes for each client, and 8 for each admission.
const defaultMaxClients = 10_000

// NewAdmissions returns an Admissions that is empty. maxClients of 0 or less stands for 10,000. now is the clock; nil stands
// for time.Now.
func NewAdmissions(maxClients int, now func() time.Time) *Admissions {
	if now == nil {
		now = time.Now
	}
	if maxClients <= 0 {
		maxClients = defaultMaxClients
	}
	return &Admissions{maxClients: maxClients, now: now, start: now(), clients: map[string]*list.Element{}, byLast: list.New()}
}

// Rate returns a Rate that admits limit requests of each client in any window, those admitted by other rates of a included. A
// limit or window of 0 or less admits all, and counts none.
func (a *Admissions) Rate(limit int, window time.Duration) *Rate {
	if limit > 0 && window > 0 {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.limit, a.window = max(a.limit, limit), max(a.window, window)
	}
	return &Rate{limit: limit, window: window, admissions: a}
}

// NewRate returns a Rate with admissions of its own.
func NewRate(limit int, window time.Duration, maxClients int, now func() time.Time) *Rate {
	return NewAdmissions(maxClients, now).Rate(limit, window)
}

// Allow reports whether a client may ask now, and counts the request if so. If not, retryAfter is how long until it may,
// if nothing else uses the place up; it is above 0 then. Refused requests do not count: asking early does not prolong the wait.
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

// forgetLocked makes one place free, if the client in front is idle, and up to one more, so that idle ones run out.
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

// admitLocked drops what the longest window has left behind and adds an admission if the rate has room for it.
func (a *Admissions) admitLocked(l *clientLog, at time.Duration, r *Rate) (bool, time.Duration) {
	for l.count > 0 && at-l.ring[l.first] >= a.window {
		l.first = (l.first + 1) % len(l.ring)
		l.count--
	}
	if l.count >= r.limit {
		// As many as the limit are those from this one on; when it is within the window, they all are.
		if since := at - l.ring[(l.first+l.count-r.limit)%len(l.ring)]; since < r.window {
			return false, r.window - since
		}
	}
	switch {
	case l.count == a.limit: // no rate looks back further
		l.first = (l.first + 1) % len(l.ring)
		l.count--
	case l.count == len(l.ring):
		l.growTo(min(max(4, 2*l.count), a.limit))
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
