package operation

import (
	"context"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// MaxSession bounds the lifetime of a session, whatever it does.
const MaxSession = 12 * time.Hour

// SessionInput describes a session: one worker in which Driver, a Python program of the sandbox's own, runs executions one after the
// other. Driver is the Code of a pool.Request, and the other fields are those of the same name.
type SessionInput struct {
	ID, Driver     string
	Input          <-chan []byte
	Interrupt      <-chan func(sent bool)
	Leased         func(generation int)
	Stdout, Stderr func([]byte)
}

// Sessions is what a front needs to execute code in sessions. Session's result says how the process ended. The front reports each execution
// in the session with Executed or Failed. Safe for concurrent use.
type Sessions interface {
	Session(ctx context.Context, in SessionInput) (pool.Result, error)
	Executed(x Record)
	Failed(id, code string, err error) *edge.Problem
}

// Session runs until the process ends: by itself, by a limit, or because ctx is done. Its errors are those of pool.Execute.
func (o *Executions) Session(ctx context.Context, in SessionInput) (pool.Result, error) {
	return o.Pool.Execute(ctx, pool.Request{
		ID: in.ID, Code: in.Driver, Input: in.Input, Interrupt: in.Interrupt, Timeout: MaxSession,
		Leased: in.Leased, Stdout: in.Stdout, Stderr: in.Stderr,
	})
}

var _ Sessions = (*Executions)(nil)
