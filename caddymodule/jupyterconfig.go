package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/jupyter"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// Jupyter serves what code interpreters speak of the Jupyter Server API: kernels, and a WebSocket for each. A kernel gets a
// confined process with its first cell and keeps it until it ends, with all names, imports, files and figures. Kernels hold at
// most half of `workers max`.
type Jupyter struct {
	// The token that clients must send, in the query (`token`) or as `Authorization: token …` or `Bearer …`.
	// Placeholders such as `{env.JUPYTER_TOKEN}` are replaced. Default: none, and nobody is asked for one
	Token string `json:"token,omitempty"`
}

// parseJupyter takes on, off or a block.
func (h *Handler) parseJupyter(d *caddyfile.Dispenser, word string) error {
	if d.NextArg() {
		value := d.Val()
		if value != "on" && value != "off" || d.NextArg() {
			return d.Errf("%s %q is unknown: use %s on, %s off, or a block", word, d.Val(), word, word)
		}
		if value == "on" {
			h.Jupyter = new(Jupyter)
		}
		return noBlock(d, word)
	}
	h.Jupyter = new(Jupyter)
	return h.block(d, word+" ", map[string]parser{"token": stringParser(&h.Jupyter.Token)})
}

// addJupyter makes the front and adds it to the routes.
func (h *Handler) addJupyter(rt *runtime, cfg pool.Config) error {
	// Replaced, so that a secret need not stand in the configuration.
	token, err := caddy.NewReplacer().ReplaceOrErr(h.Jupyter.Token, true, true)
	if err != nil {
		return fmt.Errorf("jupyter token: %w", err)
	}
	install, key, err := h.installation(rt, cfg)
	if err != nil {
		return err
	}
	if key != "" { // the handler has a reference already
		if _, err := installers.Delete(key); err != nil {
			return err //nolint:wrapcheck // names itself
		}
	}
	standard, most := h.executeTimeouts()
	executions := &operation.Executions{Pool: rt.pool, DefaultTimeout: standard, MaxTimeout: most, Memory: cfg.Memory, Processes: cfg.Processes, Log: h.log}
	packages := install.KernelHints(rt.pool.Generation)
	h.jupyter = jupyter.New(executions, jupyter.Options{
		Logger: h.log, Token: token, Bodies: rt.bodies(h.bodyBounds()), Output: cfg.Output, Python: rt.pool.Stat().Python.Version,
		Timeout: standard, Slots: rt.places, AcquireTimeout: cfg.AcquireTimeout, InFlight: &h.inFlight,
		Hint: func(code, traceback string, generation int) string {
			return executions.HintOnCell(code, traceback, packages(generation))
		},
	})
	h.jupyter.AddTo(h.routes)
	return nil
}
