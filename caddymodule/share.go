package caddymodule

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// share is a handler's reference to an object that outlives configurations: a runtime, its installs, an MCP front or a front of
// kernels. The zero value refers to nothing.
type share struct {
	of  *caddy.UsagePool
	key string
	log *sharedLogger // the handler's logger in the object's liveCore; nil for an object that has none
}

// serves says that the handler's configuration has been accepted.
func (s share) serves() {
	if s.log != nil {
		s.log.serves()
	}
}

// release gives the reference back. The last one ends the object, and release returns when it has ended.
func (s *share) release() error {
	if s.of == nil {
		return nil
	}
	of, key, log := s.of, s.key, s.log
	*s = share{}
	if log != nil {
		log.leave()
	}
	_, err := of.Delete(key)
	return err //nolint:wrapcheck // names itself
}

// shares are those of a handler, in the order in which they are to be released: fronts before the pool that they use.
type shares struct{ kernels, mcp, installs, runtime share }

func (s *shares) release() error {
	return errors.Join(s.kernels.release(), s.mcp.release(), s.installs.release(), s.runtime.release())
}

// onServing subscribes to Caddy's event "started", which says that all apps of the handler's configuration have started, so the
// configuration has been accepted. A handler outside of the HTTP app's servers is not subscribed.
func (h *Handler) onServing(ctx caddy.Context) error {
	if _, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); !ok {
		return nil
	}
	events, err := ctx.App("events") // which the HTTP app has loaded
	if err != nil {
		return err //nolint:wrapcheck // names itself
	}
	return events.(*caddyevents.App).On("started", startedHandler{h}) //nolint:wrapcheck // likewise
}

type startedHandler struct{ h *Handler }

// Handle is called with Caddy's event "started".
func (s startedHandler) Handle(context.Context, caddy.Event) error {
	s.h.serving.Store(true)
	s.h.shares.kernels.serves()
	s.h.shares.mcp.serves()
	s.h.shares.runtime.serves()
	return nil
}

// running reports whether this process has a configuration that serves. During Cleanup that is another one than the handler's.
func running() bool { return caddy.ActiveContext().Context != nil }

// retiring counts handlers whose configuration was replaced and that still wait for their requests.
var retiring sync.WaitGroup

// Caddy exits as soon as the last configuration is cleaned up. Handlers that are retiring still have processes and files, so the exit
// waits for them.
func init() { caddy.OnExit(func(context.Context) { retiring.Wait() }) }

// Cleanup releases what Provision acquired. It may be called after a Provision that has failed half-way, and more than once.
//
// When it returns, all processes, files and control groups of the handler are gone that no other configuration uses, since
// Caddy's process may end right then: after `caddy validate`, a refused start, a stop. Only for a handler that has served and was
// replaced by another configuration it returns at once: requests are still on their way through that handler, and the reload
// must not wait for them.
func (h *Handler) Cleanup() error {
	held := h.shares
	h.shares = shares{}
	claims.Delete(h.claim)
	if !h.serving.Load() || !running() {
		return held.release()
	}
	retiring.Go(func() {
		h.settle()
		if err := held.release(); err != nil {
			h.log.Error("retiring a configuration", zap.Error(err))
		}
	})
	return nil
}

// A retired handler keeps its pool for settleMin at least, so that connections that were accepted still reach it, and for
// settleMax at most, so that its requests can end.
const (
	settleMin = 250 * time.Millisecond
	settleMax = 30 * time.Second
)

func (h *Handler) settle() {
	awaitNone(h.inFlight.Load, settleMin)
}

// awaitNone waits until count returns 0, but for least at least, for settleMax at most, and only while a configuration serves.
func awaitNone(count func() int64, least time.Duration) {
	tick := time.NewTicker(settleMin)
	defer tick.Stop()
	for began := time.Now(); running(); <-tick.C {
		if waited := time.Since(began); waited >= settleMax || waited >= least && count() == 0 {
			return
		}
	}
}

var _ caddyevents.Handler = startedHandler{}
