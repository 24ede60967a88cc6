package caddymodule

import (
	"context"
	"time"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/pool"
)

// maxSession is the longest that a session lives, whatever it does.
const maxSession = 12 * time.Hour

// sessionInput is one worker for many executions, which a program of ours, the driver, runs one after the other. The fields
// are those of pool.Request.
type sessionInput struct {
	id, driver     string
	input          <-chan []byte
	interrupt      <-chan func(sent bool)
	leased         func(generation int)
	stdout, stderr func([]byte)
}

// sessions is what a front needs to execute in sessions. The result of a session says how its process ended; who runs an
// execution in one tells of it with executed, or with failed.
type sessions interface {
	session(ctx context.Context, in sessionInput) (pool.Result, error)
	executed(x execution)
	failed(id, code string, err error) *problem
}

// session runs until its process ends, by itself, by a limit, or since ctx has ended.
func (o *operation) session(ctx context.Context, in sessionInput) (pool.Result, error) {
	return o.pool.Execute(ctx, pool.Request{ //nolint:wrapcheck // failed knows it
		ID: in.id, Code: in.driver, Input: in.input, Interrupt: in.interrupt, Timeout: maxSession,
		Leased: in.leased, Stdout: in.stdout, Stderr: in.stderr,
	})
}

var _ sessions = (*operation)(nil)
