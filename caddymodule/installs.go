package caddymodule

import (
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// What installs share across surfaces, handlers and configurations.
var (
	// installers holds *sharedInstalls, by the settings of the pool and of packages. So requests over HTTP and MCP for the same package at
	// the same time share one install, and all use one index with its cached pages and connections.
	installers = caddy.NewUsagePool()
	// admitted holds *sharedAdmissions, by the directory of packages. So a client that has installed as often as it may stays
	// refused when another configuration sets another rate or shapes processes differently.
	admitted = caddy.NewUsagePool()
)

type sharedInstalls struct{ *operation.Installs }

// Destruct closes the index.
func (s *sharedInstalls) Destruct() error {
	s.Close()
	return nil
}

type sharedAdmissions struct{ *policy.Admissions }

// Destruct has nothing to end: the admissions are only forgotten.
func (*sharedAdmissions) Destruct() error { return nil }

// loadInstalls returns the installs of a runtime with these settings, and makes them when no handler has them yet. Its caller has
// to release the share, and must hold one of the runtime until then.
func loadInstalls(rt *runtime, runtimeKey string, p Packages, logger *zap.Logger) (*operation.Installs, share, error) {
	encoded, err := json.Marshal(p.withDefaults())
	if err != nil {
		return nil, share{}, fmt.Errorf("encoding the settings of packages: %w", err)
	}
	key := runtimeKey + string(encoded)
	value, _, err := installers.LoadOrNew(key, func() (caddy.Destructor, error) {
		rules, err := p.policy()
		if err != nil {
			return nil, err
		}
		settings := p.installSettings()
		return &sharedInstalls{&operation.Installs{
			Runner: rt.installs, Policy: rules, Rate: rt.admissions.Rate(settings.Rate, settings.RateWindow), Settings: settings,
			Log: zap.New(rt.log).Named(logger.Name()),
		}}, nil
	})
	if err != nil {
		return nil, share{}, err //nolint:wrapcheck // names itself
	}
	return value.(*sharedInstalls).Installs, share{of: installers, key: key}, nil
}

var (
	_ caddy.Destructor = (*sharedInstalls)(nil)
	_ caddy.Destructor = (*sharedAdmissions)(nil)
)
