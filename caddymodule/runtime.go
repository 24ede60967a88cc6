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

// What lives longer than one configuration. A reload provisions the new handler before it cleans the old one up, so
// whatever both have the same key for passes from one to the other: every warm worker, every MCP session, and every kernel.
var (
	runtimes = caddy.NewUsagePool() // of *runtime, by the settings that shape processes
	fronts   = caddy.NewUsagePool() // of *sharedFront, by all settings
	kernels  = caddy.NewUsagePool() // of *sharedKernels, by the site and the settings that kernels depend on
)

// runtime is a pool with its log, and with what all surfaces count together and a reload keeps.
type runtime struct {
	pool     *pool.Pool
	installs *install.Installs
	log      *liveCore
	slots    *jupyter.Slots // of kernels' processes
	started  time.Time

	admissions *policy.Admissions // of who installs
	admittedBy string             // their key, to be given back

	mu   sync.Mutex
	held map[bodyBounds]*edge.Bodies // what clients have sent
}

// bodyBounds are the arguments of edge.NewBodies.
type bodyBounds struct {
	one, all int64
	within   time.Duration
}

// bodies returns the count of what clients have sent under these bounds, for all surfaces of the pool.
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
// must have one of the runtime while it calls.
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

// retainRuntime returns a runtime that the caller's handler has, with one more reference to it.
func retainRuntime(key string) (*runtime, share, error) {
	held, _, err := runtimes.LoadOrNew(key, func() (caddy.Destructor, error) {
		return nil, fmt.Errorf("bug: the pool of a front is not there")
	})
	if err != nil {
		return nil, share{}, err //nolint:wrapcheck // names itself
	}
	return held.(*runtime), share{of: runtimes, key: key}, nil
}

// Destruct ends every MCP session and gives back what its calls needed.
func (f *sharedFront) Destruct() error {
	f.Close()
	return f.held.release()
}

var (
	_ caddy.Destructor = (*runtime)(nil)
	_ caddy.Destructor = (*sharedFront)(nil)
)
