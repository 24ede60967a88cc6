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

// calls is what the tools share: how many calls run, and what they end with.
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

// run runs a tool: prepare reads the arguments and returns the operation, or what is wrong with them. It never returns an error: that would reach the client as a protocol failure with our words in
// it, where a result that is marked as an error reaches the model.
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

// tie ends ctx with the session that the call belongs to. Over SSE mcp-go lets calls run on when the client is gone.
func (c *calls) tie(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	id := ""
	if s := server.ClientSessionFromContext(ctx); s != nil {
		id = s.SessionID()
	}
	if id == "" {
		return ctx, cancel // a modern call: it ends with its request
	}
	s, open := c.sessions.get(id)
	if !open {
		cancel() // the session ended while the call was on its way
		return ctx, cancel
	}
	unhook := context.AfterFunc(s.ctx, cancel)
	done := s.use()
	return ctx, func() {
		unhook()
		cancel()
		done()
	}
}

// begin counts one more call in, or says why not.
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

// wait refuses further calls and gives those that run up to grace. It says whether there were any. Called once.
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

// sentence turns the executor's error into words for a model.
func (c *calls) sentence(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "The call was cancelled."
	}
	return operation.Sentence(strings.ReplaceAll(edge.AsProblem(err).Detail, "body.", ""))
}
