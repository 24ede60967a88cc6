package caddymodule

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/jupyter"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// sharedKernels is a front of kernels with the reference to the runtime that their processes need: kernels outlive the
// handler that made the front.
type sharedKernels struct {
	*jupyter.Front
	log     *liveCore
	held    shares
	running *atomic.Int64 // the number of cells that run
}

// kernelsKey is what two configurations must have in common for kernels to pass from one to the other: the site, and all
// settings that a kernel depends on.
type kernelsKey struct {
	Runtime             string
	Site                string
	Token               [sha256.Size]byte
	Timeout, MaxTimeout time.Duration
	MaxBody, MaxBodies  int64
	BodyTimeout         time.Duration
	Packages            Packages
}

// loadKernels returns the front of kernels of the handler's site, and makes it when no other configuration has one with the same key.
func (h *Handler) loadKernels(ctx caddy.Context, cfg pool.Config) (*sharedKernels, error) {
	// Placeholders are replaced, so that the secret need not stand in the configuration.
	token, err := caddy.NewReplacer().ReplaceOrErr(h.Jupyter.Token, true, true)
	if err != nil {
		return nil, fmt.Errorf("jupyter token: %w", err)
	}
	standard, most := h.executeTimeouts()
	bounds := h.bodyBounds()
	encoded, err := json.Marshal(kernelsKey{
		Runtime: h.shares.runtime.key, Site: h.claimSite(ctx), Token: sha256.Sum256([]byte(token)),
		Timeout: standard, MaxTimeout: most, MaxBody: bounds.one, MaxBodies: bounds.all, BodyTimeout: bounds.within, Packages: h.Packages,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the settings of the kernels: %w", err)
	}
	key, runtimeKey := string(encoded), h.shares.runtime.key
	value, _, err := kernels.LoadOrNew(key, func() (caddy.Destructor, error) {
		rt, held, err := retainRuntime(runtimeKey)
		if err != nil {
			return nil, err
		}
		install, installs, err := h.installation(rt, cfg)
		if err != nil {
			return nil, errors.Join(err, held.release())
		}
		shared := &sharedKernels{log: newLiveCore(h.log), held: shares{installs: installs, runtime: held}, running: new(atomic.Int64)}
		log := zap.New(shared.log).Named(h.log.Name())
		executions := h.executions(rt, cfg, install, log)
		packages := install.KernelHints(rt.pool.Generation)
		shared.Front = jupyter.New(executions, jupyter.Options{
			Logger: log, Token: token, Bodies: rt.bodies(bounds), Output: cfg.Output, Python: rt.pool.Stat().Python.Version,
			Timeout: standard, Slots: rt.slots, AcquireTimeout: cfg.AcquireTimeout, InFlight: shared.running,
			Hint: func(code, traceback string, generation int) string {
				return executions.HintOnCell(code, traceback, packages(generation))
			},
		})
		return shared, nil
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // names itself
	}
	front := value.(*sharedKernels)
	h.shares.kernels = share{kernels, key, front.log.join(h.log)}
	return front, nil
}

// Destruct ends every kernel and releases the runtime. Cells that run may end before, within settleMax, as requests may.
func (s *sharedKernels) Destruct() error {
	awaitNone(s.running.Load, 0)
	s.Close()
	return s.held.release()
}

var _ caddy.Destructor = (*sharedKernels)(nil)
