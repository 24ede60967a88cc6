package mcpserver

import (
	"context"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

const (
	// noteInterval is the least time between two notes with the same heading.
	noteInterval = 500 * time.Millisecond
	// noteDrain bounds the wait for notifications that are not written yet when a call ends.
	noteDrain = 500 * time.Millisecond
)

// note is the content of one progress notification.
type note struct {
	heading string  // a note with another heading than the last one is sent at once
	done    float64 // from 0 to 1
	message string  // what goes on, in words
}

// progressNotes sends the progress notifications of one call. On nil, tell and close do nothing.
type progressNotes struct {
	notes  chan note
	sender sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

// newProgressNotes returns the progressNotes of a call, nil when the client has sent no progress token. The caller must close them
// before it returns the result.
func newProgressNotes(ctx context.Context, req mcp.CallToolRequest) *progressNotes {
	front := server.ServerFromContext(ctx)
	if req.Params.Meta == nil || req.Params.Meta.ProgressToken == nil || front == nil {
		return nil
	}
	n := &progressNotes{notes: make(chan note, 16)}
	n.sender.Go(func() { // ends with close. Sending may wait for the client, and the call must not
		n.send(ctx, front, req.Params.Meta.ProgressToken)
	})
	return n
}

func (n *progressNotes) send(ctx context.Context, front *server.MCPServer, token mcp.ProgressToken) {
	var last note
	var at time.Time
	sent := false
	for next := range n.notes {
		if sent && next.heading == last.heading && time.Since(at) < noteInterval {
			continue
		}
		next.done = max(last.done+0.0001, next.done) // MCP demands that progress increases with each notification
		last, at = next, time.Now()
		if front.SendNotificationToClient(ctx, string(mcp.MethodNotificationProgress), map[string]any{
			"progressToken": token, "progress": next.done, "total": 1.0, "message": next.message,
		}) == nil {
			sent = true
			noteSent(ctx)
		}
	}
}

// tell queues a note. It does not block: when the client reads slowly and the queue is full, the note is dropped, since a later one
// replaces it. It is safe for concurrent use.
func (n *progressNotes) tell(next note) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	select {
	case n.notes <- next:
	default:
	}
}

// close returns when all queued notes have been handed to mcp-go. drainNotes waits until they are written. It must be called once
// only.
func (n *progressNotes) close() {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.closed = true
	close(n.notes)
	n.mu.Unlock()
	n.sender.Wait()
}

// noteCount counts the notifications of an MCP session, or of a request without one: those handed to mcp-go (sent) and those that
// mcp-go has written to an event stream (written). It is safe for concurrent use.
type noteCount struct {
	mu            sync.Mutex
	sent, written int
}

type noteCtxKey struct{}

// withNotes returns a context in which noteSent counts in n.
func withNotes(ctx context.Context, n *noteCount) context.Context {
	return context.WithValue(ctx, noteCtxKey{}, n)
}

// noteSent counts a notification that was handed to mcp-go for the client of the call.
func noteSent(ctx context.Context) {
	if n, ok := ctx.Value(noteCtxKey{}).(*noteCount); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.sent++
	}
}

func (n *noteCount) wroteOne() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written++
}

func (n *noteCount) counts() (sent, written int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent, n.written
}

// drain waits until the notifications sent so far are written, at most noteDrain: a client may have stopped reading, and mcp-go can
// lose notifications when requests of one session overlap.
func (n *noteCount) drain() {
	target, written := n.counts()
	for begin := time.Now(); written < target && time.Since(begin) < noteDrain; _, written = n.counts() {
		time.Sleep(time.Millisecond)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written = max(n.written, target) // notifications that are lost must not delay the next call, too
}

// drainNotes is middleware that delays the result of a tool until its notifications are written. Otherwise mcp-go's streamable HTTP
// transport drops those that are not written before the answer (mcp-go pull request 969), and its SSE transport lets the answer
// overtake them.
func drainNotes(next server.ToolHandlerFunc) server.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		n, ok := ctx.Value(noteCtxKey{}).(*noteCount)
		if !ok {
			return next(ctx, req)
		}
		before, _ := n.counts()
		result, err := next(ctx, req)
		if after, _ := n.counts(); after != before {
			n.drain()
		}
		return result, err
	}
}
