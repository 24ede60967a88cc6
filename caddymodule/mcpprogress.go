package caddymodule

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
	noteDrain = 200 * time.Millisecond
	// noteSettle is how long mcp-go takes to write what it has taken from the session's channel.
	noteSettle = 5 * time.Millisecond
)

// note is one progress notification: how much of the whole is done, and in words what goes on.
type note struct {
	heading string // notes of another heading come at once
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
		sent = front.SendNotificationToClient(ctx, string(mcp.MethodNotificationProgress), map[string]any{
			"progressToken": token, "progress": next.done, "total": 1.0, "message": next.message,
		}) == nil || sent
	}
	session := server.ClientSessionFromContext(ctx)
	if !sent || session == nil {
		return
	}
	// mcp-go drops what is not yet written when the answer is (its pull request 969), and says by no other sign than this
	// that it is.
	for begin := time.Now(); len(session.NotificationChannel()) > 0 && time.Since(begin) < noteDrain; {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(noteSettle)
}

// tell hands a note over, or drops it when the client is slow: the next one says more.
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

// close returns when no note is on its way any more: none may follow the answer.
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
