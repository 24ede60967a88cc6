package caddymodule

import (
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/policy"
)

// What installs share beyond one surface, one handler and one configuration.
var (
	// installers are of *sharedInstalls, by the pool and the settings of packages: who asks for the same over HTTP and over MCP at once
	// shares one install, and both have one index with its pages and connections.
	installers = caddy.NewUsagePool()
	// admitted are of *sharedAdmissions, by the directory of packages: whatever limit a configuration sets, and however it shapes
	// processes, a client that has installed as often as it may does not begin anew.
	admitted = caddy.NewUsagePool()
)

type sharedInstalls struct{ *operation.Installs }

// Destruct lets go of the index.
func (s *sharedInstalls) Destruct() error {
	s.Close()
	return nil
}

type sharedAdmissions struct{ *policy.Admissions }

// Destruct forgets.
func (*sharedAdmissions) Destruct() error { return nil }

// loadInstalls returns what installs on a runtime with these settings, and makes it when nobody has it yet. Its caller has
// to release the share, and must have one of the runtime for as long.
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
