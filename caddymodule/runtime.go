package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/jupyter"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/mcpserver"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool/install"
)

// Objects that outlive a configuration. A reload provisions the new handler before it cleans the old one up, so an object for
// which both have the same key passes from one to the other, with all its warm workers, MCP sessions or kernels.
var (
	runtimes = caddy.NewUsagePool() // of *runtime, by the settings that shape processes
	fronts   = caddy.NewUsagePool() // of *sharedFront, by all settings of the handler
	kernels  = caddy.NewUsagePool() // of *sharedKernels, by the site and the settings that kernels depend on
)

// runtime is a pool with what all of its surfaces share and a reload keeps: its log, its installs, and counts of what clients use.
type runtime struct {
	pool     *pool.Pool
	installs *install.Installs
	log      *liveCore
	slots    *jupyter.Slots // bound the processes of kernels
	started  time.Time

	admissions *policy.Admissions // which clients have installed, and when
	admittedBy string             // the key of admissions, for Destruct

	mu   sync.Mutex
	held map[bodyBounds]*edge.Bodies // counts the bodies in progress
}

// bodyBounds are the arguments of edge.NewBodies.
type bodyBounds struct {
	one, all int64
	within   time.Duration
}

// bodies returns what counts request bodies under these bounds, the same for all surfaces of the pool.
func (rt *runtime) bodies(bounds bodyBounds) *edge.Bodies {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.held[bounds] == nil {
		rt.held[bounds] = edge.NewBodies(bounds.one, bounds.all, bounds.within)
	}
	return rt.held[bounds]
}

// loadRuntime returns the runtime for cfg, and starts it when no handler has it yet. Its caller has to release the share.
func loadRuntime(ctx context.Context, cfg pool.Config, logger *zap.Logger) (*runtime, share, error) {
	cfg, err := cfg.Normalize()
	if err != nil {
		return nil, share{}, err // a sentence for the operator
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		return nil, share{}, fmt.Errorf("encoding the settings of the pool: %w", err)
	}
	key := string(encoded)
	value, _, err := runtimes.LoadOrNew(key, func() (caddy.Destructor, error) {
		rt := &runtime{log: newLiveCore(logger), slots: jupyter.NewSlots(cfg.Max), started: time.Now(), held: map[bodyBounds]*edge.Bodies{}}
		cfg.Logger = slog.New(zapslog.NewHandler(rt.log, zapslog.WithName(logger.Name())))
		cfg.Metrics = metrics.Sandbox
		if rt.pool, err = pool.New(ctx, cfg); err != nil {
			return nil, err // a sentence for the operator
		}
		rt.admittedBy = cfg.PackagesDir
		counts, _, err := admitted.LoadOrNew(rt.admittedBy, func() (caddy.Destructor, error) {
			return &sharedAdmissions{policy.NewAdmissions(maxRateClients, time.Now)}, nil
		})
		if err != nil {
			return nil, errors.Join(err, rt.pool.Close())
		}
		rt.admissions = counts.(*sharedAdmissions).Admissions
		rt.installs = install.New(rt.pool.InstallHost())
		metrics.Sandbox.Pools.Add(rt.pool)
		return rt, nil
	})
	if err != nil {
		return nil, share{}, err // likewise
	}
	rt := value.(*runtime)
	return rt, share{runtimes, key, rt.log.join(logger)}, nil
}

// Destruct drains the pool and returns when its last process is gone.
func (rt *runtime) Destruct() error {
	defer metrics.Sandbox.Pools.Remove(rt.pool)
	rt.installs.Close()
	err := rt.pool.Close()
	_, counted := admitted.Delete(rt.admittedBy)
	return errors.Join(err, counted)
}

// sharedFront is an MCP front with the reference to the runtime that its calls need: a front can outlive the handler
// that made it.
type sharedFront struct {
	*mcpserver.Front
	log  *liveCore
	held shares
}

// loadFront returns the front for key, and makes it when no handler has it yet. Its caller has to release the share, and
// must hold one of the runtime during the call.
func loadFront(key, runtimeKey string, logger *zap.Logger, build func(rt *runtime, log *zap.Logger) (front *mcpserver.Front, installs share, err error)) (*sharedFront, share, error) {
	value, _, err := fronts.LoadOrNew(key, func() (caddy.Destructor, error) {
		rt, held, err := retainRuntime(runtimeKey)
		if err != nil {
			return nil, err
		}
		log := newLiveCore(logger)
		front, installs, err := build(rt, zap.New(log).Named(logger.Name()))
		if err != nil {
			return nil, errors.Join(err, held.release())
		}
		return &sharedFront{Front: front, log: log, held: shares{installs: installs, runtime: held}}, nil
	})
	if err != nil {
		return nil, share{}, err //nolint:wrapcheck // names itself
	}
	front := value.(*sharedFront)
	return front, share{fronts, key, front.log.join(logger)}, nil
}

// retainRuntime returns a runtime to which the caller's handler has a reference, and adds another one.
func retainRuntime(key string) (*runtime, share, error) {
	held, _, err := runtimes.LoadOrNew(key, func() (caddy.Destructor, error) {
		return nil, fmt.Errorf("bug: the pool of a front is not there")
	})
	if err != nil {
		return nil, share{}, err //nolint:wrapcheck // names itself
	}
	return held.(*runtime), share{of: runtimes, key: key}, nil
}

// Destruct ends every MCP session and releases the installs and the runtime that its calls needed.
func (f *sharedFront) Destruct() error {
	f.Close()
	return f.held.release()
}

var (
	_ caddy.Destructor = (*runtime)(nil)
	_ caddy.Destructor = (*sharedFront)(nil)
)
