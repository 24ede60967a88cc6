package mcpserver

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
	"go.uber.org/zap"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// calls runs the calls of all tools. It bounds how many are in progress, and ends each with its MCP session.
type calls struct {
	sessions *mcpSessions
	o        Options

	mu      sync.Mutex
	running int
	closing bool
	idle    chan struct{} // closed when closing and nothing runs
}

func newCalls(sessions *mcpSessions, o Options) *calls {
	return &calls{sessions: sessions, o: o, idle: make(chan struct{})}
}

// run runs one call of a tool. prepare reads the arguments and returns the operation, or a sentence about what is wrong with them.
// Failures are results with isError, which reach the model. run never returns an error: mcp-go would make a JSON-RPC error of it,
// which clients keep from the model.
func (c *calls) run(ctx context.Context, prepare func() (func(context.Context) (any, error), string)) (result *mcp.CallToolResult, _ error) {
	defer func() {
		if r := recover(); r != nil {
			c.o.Logger.Error("mcp call panicked", zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
			result = mcp.NewToolResultError("The sandbox failed on its side; the request is not at fault. Try again.")
		}
	}()
	operation, fault := prepare()
	if fault != "" {
		return mcp.NewToolResultError(fault), nil
	}
	if fault = c.begin(); fault != "" {
		return mcp.NewToolResultError(fault), nil
	}
	defer c.end()

	ctx, release := c.tie(ctx)
	defer release()
	out, err := operation(ctx)
	if err != nil {
		return mcp.NewToolResultError(c.sentence(ctx, err)), nil
	}
	text, err := edge.Encode(out)
	if err != nil {
		c.o.Logger.Error("encoding an mcp result", zap.Error(err))
		return mcp.NewToolResultError("The sandbox could not encode the result. Try again."), nil
	}
	return mcp.NewToolResultStructured(out, string(text)), nil
}

// tie returns a context that ends with ctx or with the MCP session of the call, whichever is first. Without it, mcp-go lets the
// calls of an SSE session run on when the client is gone. The caller must call the returned function when the call has ended.
func (c *calls) tie(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	id := ""
	if s := server.ClientSessionFromContext(ctx); s != nil {
		id = s.SessionID()
	}
	if id == "" {
		return ctx, cancel // protocol revisions without sessions: the call ends with its HTTP request
	}
	s, open := c.sessions.get(id)
	if !open {
		cancel() // the session ended while the call was on its way
		return ctx, cancel
	}
	unhook := context.AfterFunc(s.ctx, cancel)
	done := s.call()
	return ctx, func() {
		unhook()
		cancel()
		done()
	}
}

// begin counts a call that begins, whose caller must call end. fault is a sentence for the model when the call is refused.
func (c *calls) begin() (fault string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closing:
		return "The sandbox is shutting down. Try again in a few seconds."
	case c.running >= c.o.MaxConcurrent:
		return fmt.Sprintf("The sandbox is busy: %d calls are in progress already. Try again in a few seconds.", c.running)
	}
	c.running++
	return ""
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if c.closing && c.running == 0 {
		close(c.idle)
	}
}

// wait refuses further calls and waits up to grace until those in progress have ended. It reports whether there were any. It must
// be called once only.
func (c *calls) wait(grace time.Duration) bool {
	c.mu.Lock()
	c.closing = true
	running := c.running
	c.mu.Unlock()
	if running == 0 {
		return false
	}
	select {
	case <-c.idle:
	case <-time.After(grace):
	}
	return true
}

// sentence describes an error of an operation to the model.
func (c *calls) sentence(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "The call was cancelled."
	}
	return operation.Sentence(strings.ReplaceAll(edge.AsProblem(err).Detail, "body.", ""))
}
