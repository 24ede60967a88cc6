package operation

import (
	"context"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// MaxSession is the longest that a session lives, whatever it does.
const MaxSession = 12 * time.Hour

// SessionInput is one worker for many executions, which a program of ours, the driver, runs one after the other. The fields
// are those of pool.Request.
type SessionInput struct {
	Id, Driver     string
	Input          <-chan []byte
	Interrupt      <-chan func(sent bool)
	Leased         func(generation int)
	Stdout, Stderr func([]byte)
}

// Sessions is what a front needs to execute in sessions. The result of a session says how its process ended; who runs an
// Record in one tells of it with executed, or with failed.
type Sessions interface {
	Session(ctx context.Context, in SessionInput) (pool.Result, error)
	Executed(x Record)
	Failed(id, code string, err error) *edge.Problem
}

// Session runs until its process ends, by itself, by a limit, or since ctx has ended.
func (o *Executions) Session(ctx context.Context, in SessionInput) (pool.Result, error) {
	return o.Pool.Execute(ctx, pool.Request{
		ID: in.Id, Code: in.Driver, Input: in.Input, Interrupt: in.Interrupt, Timeout: MaxSession,
		Leased: in.Leased, Stdout: in.Stdout, Stderr: in.Stderr,
	})
}

var _ Sessions = (*Executions)(nil)
