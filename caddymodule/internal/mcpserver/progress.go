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
	// noteDrain bounds the wait for notes that are on their way when a call ends.
	noteDrain = 500 * time.Millisecond
)

// note is one progress notification: how much of the whole is done, and in words what goes on.
type note struct {
	heading string // a note with another heading than the last one is sent at once
	done    float64
	message string
}

// progressNotes tells a client how its call goes on, when it has asked for that. A nil one says nothing.
type progressNotes struct {
	notes  chan note
	sender sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

// newProgressNotes returns the notes of a call, which its caller must close before it answers; nil when the client wants none.
func newProgressNotes(ctx context.Context, req mcp.CallToolRequest) *progressNotes {
	front := server.ServerFromContext(ctx)
	if req.Params.Meta == nil || req.Params.Meta.ProgressToken == nil || front == nil {
		return nil
	}
	n := &progressNotes{notes: make(chan note, 16)}
	n.sender.Go(func() { // ends with close; sending may wait for the client, and the work must not
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
		next.done = max(last.done+0.0001, next.done) // it must grow with each
		last, at = next, time.Now()
		if front.SendNotificationToClient(ctx, string(mcp.MethodNotificationProgress), map[string]any{
			"progressToken": token, "progress": next.done, "total": 1.0, "message": next.message,
		}) == nil {
			sent = true
			noteSent(ctx)
		}
	}
}

// tell sends a note, or drops it when the client is slow: later notes make up for it.
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

// close returns when no more notes are handed to mcp-go. drainNotes makes sure that they are written before the answer.
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

// noteCount counts the notifications of a session, or of a request that has none: those handed to mcp-go and those written
// to a stream.
type noteCount struct {
	mu            sync.Mutex
	sent, written int
}

type noteCtxKey struct{}

// withNotes lets the calls under ctx count what they send.
func withNotes(ctx context.Context, n *noteCount) context.Context {
	return context.WithValue(ctx, noteCtxKey{}, n)
}

// noteSent says that a notification was handed to mcp-go for the client of the call.
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

// drain waits until all that was sent by now is written, or noteDrain is over: a client may have stopped reading, and
// requests of one session can lose one another's notes in mcp-go.
func (n *noteCount) drain() {
	target, written := n.counts()
	for begin := time.Now(); written < target && time.Since(begin) < noteDrain; _, written = n.counts() {
		time.Sleep(time.Millisecond)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written = max(n.written, target) // what is lost now must not delay the next call, too
}

// drainNotes lets a tool answer only when its notifications have gone out. mcp-go drops what is not written when the answer
// is (its pull request 969), and its SSE transport lets an answer overtake them.
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
