package caddymodule

import (
	"context"
	"encoding/json"
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
// whatever both have the same key for passes from one to the other: every warm worker, and every MCP session.
var (
	runtimes = caddy.NewUsagePool() // of *runtime, by the settings that shape processes
	fronts   = caddy.NewUsagePool() // of *sharedFront, by all settings
)

// runtime is a pool with its log, and with the counts of who has installed how much, which both surfaces share and a reload
// keeps.
type runtime struct {
	pool     *pool.Pool
	installs *install.Installs
	log      *liveCore
	places   *jupyter.Slots // of kernels' processes
	started  time.Time

	mu     sync.Mutex
	rates  map[rateKey]*policy.Rate
	held   *edge.Bodies // of bounds
	bounds bodyBounds
}

// bodyBounds are the arguments of edge.NewBodies.
type bodyBounds struct {
	one, all int64
	within   time.Duration
}

// bodies returns the count of what clients have sent, for all surfaces of the pool.
func (rt *runtime) bodies(bounds bodyBounds) *edge.Bodies {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.held == nil || rt.bounds != bounds {
		rt.held, rt.bounds = edge.NewBodies(bounds.one, bounds.all, bounds.within), bounds
	}
	return rt.held
}

type rateKey struct {
	limit  int
	window time.Duration
}

// rate returns the counts for a limit.
func (rt *runtime) rate(limit int, window time.Duration) *policy.Rate {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	key := rateKey{limit, window}
	if rt.rates[key] == nil {
		rt.rates = map[rateKey]*policy.Rate{key: policy.NewRate(limit, window, maxRateClients, time.Now)}
	}
	return rt.rates[key]
}

// loadRuntime returns the runtime for cfg, and starts it when no handler has it yet. Its caller owns one reference
// under the key, to be given back with runtimes.Delete.
func loadRuntime(ctx context.Context, cfg pool.Config, logger *zap.Logger) (*runtime, string, error) {
	cfg, err := cfg.Normalize()
	if err != nil {
		return nil, "", err //nolint:wrapcheck // a sentence for the operator
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("encoding the settings of the pool: %w", err)
	}
	key := string(encoded)
	value, _, err := runtimes.LoadOrNew(key, func() (caddy.Destructor, error) {
		rt := &runtime{log: newLiveCore(logger), places: jupyter.NewSlots(cfg.Max), started: time.Now()}
		cfg.Logger = slog.New(zapslog.NewHandler(rt.log))
		cfg.Metrics = metrics.Sandbox
		if rt.pool, err = pool.New(ctx, cfg); err != nil {
			return nil, err //nolint:wrapcheck // a sentence for the operator
		}
		rt.installs = install.New(rt.pool.InstallHost())
		metrics.Sandbox.Pools.Add(rt.pool)
		return rt, nil
	})
	if err != nil {
		return nil, "", err //nolint:wrapcheck // likewise
	}
	rt := value.(*runtime)
	rt.log.follow(logger)
	return rt, key, nil
}

// Destruct drains the pool and returns when its last process is gone.
func (rt *runtime) Destruct() error {
	defer metrics.Sandbox.Pools.Remove(rt.pool)
	rt.installs.Close()
	return rt.pool.Close() //nolint:wrapcheck // names itself
}

// sharedFront is an MCP front with the reference to the runtime that its calls need: a front can outlive the handler
// that made it.
type sharedFront struct {
	*mcpserver.Front
	log        *liveCore
	runtimeKey string
}

// loadFront returns the front for key, and makes it when no handler has it yet. Its caller owns one reference under
// key, and must own one under runtimeKey while it calls.
func loadFront(key, runtimeKey string, logger *zap.Logger, build func(rt *runtime, log *zap.Logger) (*mcpserver.Front, error)) (*sharedFront, error) {
	value, _, err := fronts.LoadOrNew(key, func() (caddy.Destructor, error) {
		held, _, err := runtimes.LoadOrNew(runtimeKey, func() (caddy.Destructor, error) {
			return nil, fmt.Errorf("bug: the pool of an MCP front is not there")
		})
		if err != nil {
			return nil, err
		}
		log := newLiveCore(logger)
		front, err := build(held.(*runtime), zap.New(log))
		if err != nil {
			_, _ = runtimes.Delete(runtimeKey) //nolint:errcheck // the handler has it, too
			return nil, err
		}
		return &sharedFront{Front: front, log: log, runtimeKey: runtimeKey}, nil
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // names itself
	}
	front := value.(*sharedFront)
	front.log.follow(logger)
	return front, nil
}

// Destruct ends every MCP session and gives the runtime back.
func (f *sharedFront) Destruct() error {
	f.Close()
	_, err := runtimes.Delete(f.runtimeKey)
	return err //nolint:wrapcheck // names itself
}

var (
	_ caddy.Destructor = (*runtime)(nil)
	_ caddy.Destructor = (*sharedFront)(nil)
)
