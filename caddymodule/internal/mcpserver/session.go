package mcpserver

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/server"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
)

// Kinds of MCP session. A session ID begins with its kind, so that log lines show it.
const (
	kindSSE        = "sse"  // lives as long as its event stream
	kindStreamable = "mcp"  // lives until DELETE, or until it has been idle for the TTL
	kindAnonymous  = "anon" // lives as long as the one request that came without a session ID
)

// mcpSession is the state of one client's MCP session. Whoever knows the id may use the session, so the id has 128 random bits.
type mcpSession struct {
	id, kind string
	address  string // of the client that opened it; "" when not known
	// ctx ends with the session, and the session's streams and calls end with it.
	ctx    context.Context
	cancel context.CancelFunc
	// notes counts the session's notifications.
	notes noteCount
	// pending has one element for each message of an SSE session whose answer has not been written to its stream yet.
	pending chan struct{}

	mu       sync.Mutex
	users    int
	called   bool // a tool
	lastUsed time.Time
}

// await adds a message to pending. While pending is full it waits, and returns false if ctx or the session ends first.
func (s *mcpSession) await(ctx context.Context) bool {
	select {
	case s.pending <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return false
}

// answered removes a message from pending.
func (s *mcpSession) answered() {
	select {
	case <-s.pending:
	default:
	}
}

// use marks the session as in use until the returned function is called: it is not idle meanwhile.
func (s *mcpSession) use() (done func()) {
	s.mark(1)
	return func() { s.mark(-1) }
}

func (s *mcpSession) mark(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users += n
	s.lastUsed = time.Now()
}

// call is use for the call of a tool.
func (s *mcpSession) call() (done func()) {
	s.mu.Lock()
	s.called = true
	s.mu.Unlock()
	return s.use()
}

// idleness says for how long a session has been idle, whether it has called a tool, and whether nothing uses it now.
func (s *mcpSession) idleness(now time.Time) (idle time.Duration, called, free bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.lastUsed), s.called, s.users == 0
}

// mcpSessions holds the open MCP sessions. It is safe for concurrent use. It also has mcp-go's SessionIdManager, so that mcp-go
// accepts the IDs of open sessions only.
type mcpSessions struct {
	parent context.Context
	max    int

	mu   sync.Mutex
	open map[string]*mcpSession
}

func newSessions(parent context.Context, limit int) *mcpSessions {
	return &mcpSessions{parent: parent, max: limit, open: map[string]*mcpSession{}}
}

// add opens a session for the client at an address. It returns false when as many as allowed are open.
func (m *mcpSessions) add(kind, address string) (*mcpSession, bool) {
	s := &mcpSession{id: kind + "-" + strings.ToLower(rand.Text()), kind: kind, address: address, lastUsed: time.Now(), pending: make(chan struct{}, maxPending)}
	s.ctx, s.cancel = context.WithCancel(m.parent)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.open) >= m.max {
		s.cancel()
		return nil, false
	}
	m.open[s.id] = s
	return s, true
}

func (m *mcpSessions) get(id string) (*mcpSession, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.open[id]
	return s, ok
}

// remove ends a session and cancels its calls. It does nothing when the session has ended already.
func (m *mcpSessions) remove(id string) {
	m.mu.Lock()
	s, ok := m.open[id]
	delete(m.open, id)
	m.mu.Unlock()
	if ok {
		s.cancel()
	}
}

// full says whether as many sessions as allowed are open.
func (m *mcpSessions) full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.open) >= m.max
}

// expire ends the streamable sessions that have been idle for ttl and returns their ids.
func (m *mcpSessions) expire(ttl time.Duration) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var ids []string
	for id, s := range m.open {
		if idle, _, free := s.idleness(now); s.kind == kindStreamable && free && idle >= ttl {
			ids = append(ids, id)
			delete(m.open, id)
			s.cancel()
		}
	}
	return ids
}

var errNoSession = errors.New("no such session")

// opener is a server.SessionIdManager whose new sessions belong to the client at an address.
type opener struct {
	*mcpSessions
	address string
}

// ResolveSessionIdManager implements server.SessionIdManagerResolver.
func (m *mcpSessions) ResolveSessionIdManager(r *http.Request) server.SessionIdManager {
	return opener{m, edge.ClientAddress(r.Context())}
}

// Generate implements server.SessionIdManager: mcp-go calls it when a client initializes. It cannot fail. When another client has
// taken the last place since servePost made room, it returns an ID that Validate refuses.
func (o opener) Generate() string {
	if s, ok := o.add(kindStreamable, o.address); ok {
		return s.id
	}
	return kindStreamable + "-refused"
}

// Validate implements server.SessionIdManager.
func (m *mcpSessions) Validate(id string) (terminated bool, err error) {
	if _, ok := m.get(id); !ok {
		return false, errNoSession
	}
	return false, nil
}

// Terminate implements server.SessionIdManager.
func (m *mcpSessions) Terminate(id string) (notAllowed bool, err error) {
	m.remove(id)
	return false, nil
}

type sessionCtxKey struct{}

func withSession(ctx context.Context, s *mcpSession) context.Context {
	return context.WithValue(ctx, sessionCtxKey{}, s)
}

// sessionFrom returns the session that withSession put into ctx, nil for none. mcp-go's own session objects are those of
// server.ClientSessionFromContext.
func sessionFrom(ctx context.Context) *mcpSession {
	s, _ := ctx.Value(sessionCtxKey{}).(*mcpSession)
	return s
}

// Interface guards
var (
	_ server.SessionIdManager         = opener{}
	_ server.SessionIdManagerResolver = (*mcpSessions)(nil)
)
