// Package jupyter serves kernels as the Jupyter Server API has them.
package jupyter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// Bounds of the Jupyter front.
const (
	maxKernels = 64
	// maxSockets and maxQueue are of one kernel.
	maxSockets = 8
	maxQueue   = 8
	// maxUnsent is what may wait to be sent, to all clients together and to one.
	maxUnsent       = 128 << 20
	maxUnsentSocket = 32 << 20
	// defaultIdle is how long a kernel lives that nobody uses.
	defaultIdle = 10 * time.Minute
	// defaultKeepAlive stays below the idle minute of common proxies.
	defaultKeepAlive = 20 * time.Second
	// defaultWriteTimeout is how long a client may take to read one message.
	defaultWriteTimeout = 30 * time.Second
	// defaultInterruptGrace is how long a cell may take to end once it has been interrupted.
	defaultInterruptGrace = 2 * time.Second
	// closeGrace is how long Close waits for clients to read what they are told last.
	closeGrace = 2 * time.Second
)

// Options is what the front needs to know about the sandbox.
type Options struct {
	Logger *zap.Logger
	// Token is what clients must send; "" asks for none.
	Token string
	// Bodies reads what clients send, bodies of requests and messages.
	Bodies *edge.Bodies
	// Output bounds what a cell prints, in characters.
	Output int
	// Python is the version that clients are told; empty when unknown.
	Python string
	// Timeout is how long a cell may run, for the sentence about it.
	Timeout time.Duration
	// Slots bounds the processes, for all fronts of a pool together. AcquireTimeout is how long a cell waits for one.
	Slots          *Slots
	AcquireTimeout time.Duration
	// Hint says what to do about a cell that has failed with a traceback, in a process with a generation of packages; nil gives no
	// hints.
	Hint func(code, traceback string, generation int) string
	// InFlight counts cells that run, for the owner, who may wait for them before Close; nil for nobody.
	InFlight *atomic.Int64

	idle, keepAlive, writeTimeout, interruptGrace time.Duration
	maxKernels, maxUnsent                         int
}

// Front serves kernels to clients. It is safe for concurrent use. Its owner must Close it.
type Front struct {
	o       Options
	ex      operation.Sessions
	driver  driver
	token   [sha256.Size]byte
	started time.Time

	ctx    context.Context // of the sockets, which outlive closing until they have said why
	cancel context.CancelFunc
	stop   chan struct{} // closed when closing begins
	closed sync.Once
	work   sync.WaitGroup // sockets, cells, processes, and the sweeper
	unsent atomic.Int64   // bytes that wait in all sockets

	mu      sync.Mutex
	closing bool
	kernels map[string]*kernel
	last    time.Time // of any activity
}

func New(ex operation.Sessions, o Options) *Front {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.InFlight == nil {
		o.InFlight = new(atomic.Int64)
	}
	o.idle = cmp.Or(o.idle, defaultIdle)
	o.keepAlive = cmp.Or(o.keepAlive, defaultKeepAlive)
	o.writeTimeout = cmp.Or(o.writeTimeout, defaultWriteTimeout)
	o.interruptGrace = cmp.Or(o.interruptGrace, defaultInterruptGrace)
	o.maxKernels = cmp.Or(o.maxKernels, maxKernels)
	o.maxUnsent = cmp.Or(o.maxUnsent, maxUnsentSocket)
	now := time.Now()
	f := &Front{o: o, ex: ex, driver: driver{limit: o.Output}, token: sha256.Sum256([]byte(o.Token)), started: now, last: now, kernels: map[string]*kernel{},
		stop: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	o.Slots.add(f)
	f.work.Go(f.sweep)
	return f
}

// Close ends every kernel, with what runs in it, and every socket. It returns when all have ended; a second call waits for
// the first. A nil front is closed.
func (f *Front) Close() {
	if f == nil {
		return
	}
	f.closed.Do(func() {
		f.mu.Lock()
		f.closing = true
		f.mu.Unlock()
		f.o.Slots.remove(f)
		for _, k := range f.list() {
			f.remove(k, "the server is shutting down or changing its configuration: connect again in a second")
		}
		close(f.stop)
		defer time.AfterFunc(closeGrace, f.cancel).Stop()
		f.work.Wait()
		f.cancel()
	})
}

// sweep ends kernels that nobody uses. Clients that fail leave theirs behind.
func (f *Front) sweep() {
	tick := time.NewTicker(min(f.o.idle/4, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
			for _, k := range f.list() {
				if k.idleSince(time.Now().Add(-f.o.idle)) {
					f.remove(k, "the kernel has ended, since nobody has used it for "+f.o.idle.String()+": start another one")
				}
			}
		}
	}
}

func (f *Front) list() []*kernel {
	f.mu.Lock()
	defer f.mu.Unlock()
	kernels := make([]*kernel, 0, len(f.kernels))
	for _, k := range f.kernels {
		kernels = append(kernels, k)
	}
	return kernels
}

// AddTo gives the front all below its path. Which methods a path there takes, the front knows.
func (f *Front) AddTo(rs edge.Routes) {
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodPost} {
		rs.AddSensitive(method, "/jupyter/", f.ServeHTTP)
	}
}

// ServeHTTP serves what is below /jupyter. Requests of foreign origins have been refused before.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.authorized(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		edge.WriteProblem(w, edge.NewProblem(http.StatusUnauthorized, metrics.KindUnauthorized,
			"the token is missing or wrong: send the one that jupyter { token … } names, as token=… in the query or as Authorization: Bearer …"))
		return
	}
	methods := f.methods(r)
	if methods == nil {
		edge.WriteProblem(w, f.notFound(r))
		return
	}
	serve, known := methods[r.Method]
	if !known && r.Method == http.MethodHead {
		serve, known = methods[http.MethodGet]
	}
	if !known {
		allow := allowed(methods)
		w.Header().Set("Allow", allow)
		edge.WriteProblem(w, edge.MethodNotAllowed(r.URL.Path, allow))
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	serve(w, r)
}

// authorized compares in a time that does not depend on where the tokens differ.
func (f *Front) authorized(r *http.Request) bool {
	if f.o.Token == "" {
		return true
	}
	given := []string{r.URL.Query().Get("token")}
	if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && (strings.EqualFold(scheme, "token") || strings.EqualFold(scheme, "bearer")) {
		given = append(given, strings.TrimSpace(value))
	}
	right := 0
	for _, token := range given {
		sum := sha256.Sum256([]byte(token))
		right |= subtle.ConstantTimeCompare(sum[:], f.token[:])
	}
	return right == 1
}
