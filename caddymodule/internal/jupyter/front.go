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

// Bounds of the Jupyter front. They cannot be configured; tests replace some of them through unexported fields of Options.
const (
	maxKernels = 64
	// maxSockets bounds the connections to one kernel, and maxQueue the cells that wait in it.
	maxSockets = 8
	maxQueue   = 8
	// maxUnsent bounds the bytes of the frames that wait to be sent to all clients together, and maxUnsentSocket those to one.
	maxUnsent       = 128 << 20
	maxUnsentSocket = 32 << 20
	// defaultIdle is how long a kernel that nobody uses is kept.
	defaultIdle = 10 * time.Minute
	// defaultKeepAlive is the interval of pings. Common proxies close a connection that is silent for a minute.
	defaultKeepAlive = 20 * time.Second
	// defaultWriteTimeout is how long sending one message, or the answer to a ping, may take.
	defaultWriteTimeout = 30 * time.Second
	// defaultInterruptGrace is how long a cell may run on after an interrupt before its process is ended.
	defaultInterruptGrace = 2 * time.Second
	// closeGrace is how long Close waits for the last frames to be sent to clients.
	closeGrace = 2 * time.Second
)

// Options is what the front needs to know about the sandbox.
type Options struct {
	// Logger is for faults of the server; nil logs nothing.
	Logger *zap.Logger
	// Token is the token that clients must send; "" asks for none.
	Token string
	// Bodies reads request bodies and WebSocket messages, and bounds their size. It must not be nil.
	Bodies *edge.Bodies
	// Output bounds what a cell prints to each of its streams, and each text that it shows besides, in characters.
	Output int
	// Python is the version that clients are told, such as "3.12.4"; empty when unknown.
	Python string
	// Timeout is how long a cell may run, once its process has a worker, before it is interrupted.
	Timeout time.Duration
	// Slots bounds the processes of all fronts of a pool together; it must not be nil. AcquireTimeout is how long a cell whose kernel
	// has no process waits for a slot.
	Slots          *Slots
	AcquireTimeout time.Duration
	// Hint returns what to do about a cell that has failed with a traceback, "" when there is nothing to say. generation is that of
	// the packages in the cell's process. Nil gives no hints.
	Hint func(code, traceback string, generation int) string
	// InFlight counts the cells that run, so that the owner can wait for them before Close. It may be nil.
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

	ctx    context.Context // of sockets, cells and processes; Close cancels it last, so that sockets can still say why they end
	cancel context.CancelFunc
	stop   chan struct{} // closed by Close when all kernels are removed
	closed sync.Once
	work   sync.WaitGroup // sockets, cells, processes, compiling the driver, and the sweeper
	unsent atomic.Int64   // bytes of the frames that wait in all sockets

	mu      sync.Mutex
	closing bool
	kernels map[string]*kernel
	last    time.Time // of any activity
}

// New makes a front whose kernels run their cells in sessions of ex. Its owner must Close it.
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

// Close ends every kernel with its cells, its process and its sockets. It returns when all have ended; clients get up to 2 s to read
// why. A second call waits for the first. On a nil front it does nothing.
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

// sweep ends kernels that nobody uses, until the front is closed. Clients that crash do not delete theirs.
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

// AddTo registers all paths below /jupyter/ in rs. ServeHTTP decides which methods a path takes.
func (f *Front) AddTo(rs edge.Routes) {
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodPost} {
		rs.AddSensitive(method, "/jupyter/", f.ServeHTTP)
	}
}

// ServeHTTP serves the paths below /jupyter. edge.Routes has refused requests of other origins before.
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

// authorized reports whether r carries the token. The comparison takes a time that does not depend on where the tokens differ.
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
