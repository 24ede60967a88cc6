// Package mcpserver serves MCP over its two HTTP transports.
package mcpserver

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/edge"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/metrics"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
	"github.com/caddy-python-sandbox/caddy-python-sandbox/internal/mcphook"
)

// Bounds of the MCP front. They cannot be configured; tests replace most of them through unexported fields of Options.
const (
	// defaultKeepAlive is the interval of comments on a silent event stream. Common proxies and clients close one after a minute.
	defaultKeepAlive = 15 * time.Second
	// defaultRunNotes is the interval of the progress notifications of a call that waits or runs. The first comes after one
	// interval, so that shorter calls send none.
	defaultRunNotes = 2 * time.Second
	// defaultSessionTTL is how long a session of the streamable HTTP transport may be idle. Clients seldom end theirs with DELETE.
	defaultSessionTTL = 30 * time.Minute
	// defaultMaxSessions and defaultMaxStreams bound the memory that clients can make the server hold.
	defaultMaxSessions = 4096
	defaultMaxStreams  = 1024
	// maxPending is how many messages of one SSE session may have answers that are not written yet. A client that posts but does
	// not read its stream then waits in its next POST, so that its answers do not pile up in memory.
	maxPending = 128
	// closeGrace is how long Close waits for calls in progress.
	closeGrace = 5 * time.Second
)

// Options is what the front needs to know about the sandbox that it serves.
type Options struct {
	// Logger is for faults of the server; nil logs nothing.
	Logger *zap.Logger
	// DefaultTimeout is how long code may run when its call names no timeout, and MaxTimeout the longest timeout that a call may
	// name. Both must be more than 0.
	DefaultTimeout, MaxTimeout time.Duration
	// Bodies reads messages and bounds their size; nil accepts messages of up to 10 MiB, and 100 MiB in all at a time.
	Bodies *edge.Bodies
	// Python is the version that the instructions for models name, such as "3.12.4"; empty names none.
	Python string
	// Preload lists the modules that the instructions for models name as already imported; nil names none.
	Preload []string
	// MaxConcurrent bounds the calls in progress, including those that wait for a worker; 0 means 256.
	MaxConcurrent int
	// Install installs packages for the tool pip_install; nil leaves the tool out.
	Install operation.Packages

	keepAlive, sessionTTL   time.Duration
	runNotes                time.Duration
	maxSessions, maxStreams int
}

// Front serves MCP over its two HTTP transports, HTTP with SSE (revision 2024-11-05) and streamable HTTP (2025-03-26 and later):
//
//	GET  …/mcp/sse           SSE: opens an event stream and tells the client where to post
//	POST …/mcp/message       SSE: a message of that stream's session
//	POST, GET, DELETE …/mcp  streamable HTTP
//
// It stands between Caddy and mcp-go and does what mcp-go leaves to its host: it checks media types and body sizes, bounds sessions,
// streams and calls, keeps a client from cancelling another's call, and ends calls with their session. It is safe for concurrent use.
type Front struct {
	o        Options
	sse      http.Handler
	message  http.Handler
	stream   http.Handler
	calls    *calls
	sessions *mcpSessions

	// ctx is the parent of the contexts of all MCP sessions, with which their streams and calls end. Close cancels it.
	ctx     context.Context
	cancel  context.CancelFunc
	closing atomic.Bool
	closed  sync.Once
	sweeper sync.WaitGroup
	streams atomic.Int64
}

// New makes a front that runs the code of execute_python with ex. Its owner must Close it.
func New(ex operation.Executor, o Options) *Front {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Bodies == nil {
		o.Bodies = edge.NewBodies(10<<20, 100<<20, 0)
	}
	o.MaxConcurrent = cmp.Or(o.MaxConcurrent, 256)
	o.keepAlive = cmp.Or(o.keepAlive, defaultKeepAlive)
	o.runNotes = cmp.Or(o.runNotes, defaultRunNotes)
	o.maxSessions = cmp.Or(o.maxSessions, defaultMaxSessions)
	o.maxStreams = cmp.Or(o.maxStreams, defaultMaxStreams)
	// A session with a call in progress never expires. The TTL is still longer than any call, so that a client may be silent
	// between calls for at least as long as one lasts.
	o.sessionTTL = cmp.Or(o.sessionTTL, max(defaultSessionTTL, 2*o.MaxTimeout))

	f := &Front{o: o}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.sessions = newSessions(f.ctx, o.maxSessions)
	f.calls = newCalls(f.sessions, o)

	tools := server.NewMCPServer("python-sandbox", operation.Version(),
		server.WithTitle("Python sandbox"),
		server.WithInstructions(instructions(o)),
		server.WithToolCapabilities(false))
	tools.Use(drainNotes)
	execute := &executeTool{calls: f.calls, ex: ex}
	tools.AddTool(execute.definition(), execute.call)
	if o.Install != nil {
		install := &installTool{calls: f.calls, in: o.Install}
		tools.AddTool(install.definition(), install.call)
	}
	if mcphook.Extend != nil {
		mcphook.Extend(tools, noteSent)
	}

	legacyOnly := mcp.LegacyProtocolVersions()
	sse := server.NewSSEServer(tools,
		server.WithDynamicBasePath(func(r *http.Request, _ string) string {
			return strings.TrimSuffix(edge.ExternalPath(r), "/sse")
		}),
		// The endpoint is a path without scheme and host: behind TLS and proxies the front does not know these, and clients refuse
		// an endpoint of another origin.
		server.WithUseFullURLForMessageEndpoint(false),
		server.WithSessionIDGenerator(func(ctx context.Context, _ *http.Request) (string, error) {
			return sessionFrom(ctx).id, nil
		}),
		// MCP revision 2026-07-28 has no SSE transport. A client that is offered it here would choose it and fail.
		server.WithSSEContextFunc(func(ctx context.Context, _ *http.Request) context.Context {
			return server.WithSupportedProtocolVersions(ctx, legacyOnly)
		}),
		server.WithSSEDisableLocalhostProtection(true)) // edge.CheckOrigin checks the host, and knows the operator's host names
	f.sse, f.message = sse.SSEHandler(), sse.MessageHandler()
	f.stream = server.NewStreamableHTTPServer(tools,
		server.WithSessionIdManagerResolver(f.sessions),
		server.WithDisableLocalhostProtection(true),
		server.WithStreamableHTTPLogger(slog.New(zapslog.NewHandler(o.Logger.Core()))))

	f.sweeper.Go(f.sweep)
	return f
}

// Close refuses new calls, sessions and streams, waits up to 5 s for calls in progress, then ends every MCP session with its streams
// and calls. It returns when the front's own goroutine has ended. A second call waits for the first.
func (f *Front) Close() {
	f.closed.Do(func() {
		f.closing.Store(true)
		if f.calls.wait(closeGrace) {
			// mcp-go queues the answer of an SSE call when the call ends; give the event stream time to write it.
			time.Sleep(50 * time.Millisecond)
		}
		f.cancel()
		f.sweeper.Wait()
	})
}

// AddTo registers the front's paths in rs.
func (f *Front) AddTo(rs edge.Routes) {
	rs.AddSensitive(http.MethodGet, "/mcp", f.serveGet)
	rs.AddSensitive(http.MethodPost, "/mcp", f.servePost)
	rs.AddSensitive(http.MethodDelete, "/mcp", f.serveDelete)
	rs.AddSensitive(http.MethodGet, "/mcp/sse", f.serveSSE)
	rs.AddSensitive(http.MethodPost, "/mcp/message", f.serveMessage)
}

// serveSSE serves the event stream of the SSE transport. Its MCP session and the calls of that end with the stream.
func (f *Front) serveSSE(w http.ResponseWriter, r *http.Request) {
	s, ok := f.openStream(w, r)
	if !ok {
		return
	}
	defer f.streams.Add(-1)
	defer f.sessions.remove(s.id)
	f.serveStream(f.sse, w, r.WithContext(withSession(r.Context(), s)), s)
}

// openStream counts a new stream in f.streams and opens an MCP session for it, or answers with a refusal and returns false.
func (f *Front) openStream(w http.ResponseWriter, r *http.Request) (*mcpSession, bool) {
	if !f.admitStream(w) {
		return nil, false
	}
	s, ok := f.open(kindSSE, edge.ClientAddress(r.Context()))
	if !ok {
		f.streams.Add(-1)
		refuseBusy(w, metrics.KindQueueFull, busySessions)
	}
	return s, ok
}

// admitStream counts a new stream in f.streams, or answers with a refusal and returns false.
func (f *Front) admitStream(w http.ResponseWriter) bool {
	if f.closing.Load() {
		refuseBusy(w, metrics.KindShuttingDown, "the server is shutting down")
		return false
	}
	if f.streams.Add(1) > int64(f.o.maxStreams) {
		if _, ok := f.sessions.evict(kindSSE); !ok { // it takes its stream with it
			f.streams.Add(-1)
			refuseBusy(w, metrics.KindQueueFull, "too many MCP event streams are open, and all are in use")
			return false
		}
	}
	return true
}

// serveStream serves an event stream of the session with h, until the client leaves or the session ends.
func (f *Front) serveStream(h http.Handler, w http.ResponseWriter, r *http.Request, s *mcpSession) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	edge.LiftDeadlines(w, r)
	sw := newStreamWriter(w)
	sw.wrote = func(notification bool) {
		if notification {
			s.notes.wroteOne()
		} else {
			s.answered()
		}
	}
	defer sw.beat(f.o.keepAlive, false)()
	h.ServeHTTP(sw, r.WithContext(ctx))
}

// serveMessage takes a message for the session of an open SSE stream. mcp-go sends the answer on that stream.
func (f *Front) serveMessage(w http.ResponseWriter, r *http.Request) {
	s, ok := f.sessions.get(r.URL.Query().Get("sessionId"))
	if !ok || s.kind != kindSSE {
		refuse(w, http.StatusNotFound, metrics.KindInvalid, noStream)
		return
	}
	// While pending is full, a large message waits before its body is read, so that the body takes no memory meanwhile. A small one
	// is read first, since it may be a cancellation: that takes no place in pending and must not wait behind the calls that it ends.
	large := r.ContentLength < 0 || r.ContentLength > 64<<10
	waited := large && s.await(r.Context())
	m, body, ok := f.readMessage(w, r)
	if ok {
		defer body.Free()
	}
	answer := ok && m.wantsAnswer()
	switch {
	case waited && !answer:
		s.answered()
	case !waited && answer && !s.await(r.Context()):
		refuse(w, http.StatusNotFound, metrics.KindInvalid, noStream)
		return
	}
	if ok {
		f.message.ServeHTTP(newStreamWriter(w), r.WithContext(withNotes(r.Context(), &s.notes)))
	}
}

const noStream = "no stream is open for this sessionId: connect to /mcp/sse again"

// serveGet serves the event stream on which a session of streamable HTTP gets notifications that belong to no request.
func (f *Front) serveGet(w http.ResponseWriter, r *http.Request) {
	s, ok := f.streamable(w, r)
	if !ok || !f.admitStream(w) {
		return
	}
	defer f.streams.Add(-1)
	defer s.use()()
	f.serveStream(f.stream, w, r, s)
}

// serveDelete ends a session of streamable HTTP.
func (f *Front) serveDelete(w http.ResponseWriter, r *http.Request) {
	if _, ok := f.streamable(w, r); ok {
		f.stream.ServeHTTP(newStreamWriter(w), r)
	}
}

// streamable returns the session that a GET or DELETE of streamable HTTP names. When there is none, it answers the request and
// returns false.
func (f *Front) streamable(w http.ResponseWriter, r *http.Request) (*mcpSession, bool) {
	if mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion)) {
		f.stream.ServeHTTP(newStreamWriter(w), r) // mcp-go answers that this revision has no sessions
		return nil, false
	}
	id := r.Header.Get(server.HeaderKeySessionID)
	if id == "" {
		refuse(w, http.StatusBadRequest, metrics.KindInvalid, "the Mcp-Session-Id header is missing: initialize a session with POST first")
		return nil, false
	}
	s, ok := f.sessions.get(id)
	if !ok || s.kind != kindStreamable {
		refuse(w, http.StatusNotFound, metrics.KindInvalid, noSession)
		return nil, false
	}
	return s, true
}

const noSession = "this MCP session does not exist or has ended: initialize a new one"

// servePost serves one message of streamable HTTP.
func (f *Front) servePost(w http.ResponseWriter, r *http.Request) {
	m, body, ok := f.readMessage(w, r)
	if !ok {
		return
	}
	defer body.Free()
	id := r.Header.Get(server.HeaderKeySessionID)
	notes := new(noteCount)
	modern := mcp.IsModernProtocol(m.Params.Meta.Version) ||
		mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion))
	switch {
	case m.malformed: // mcp-go answers with a JSON-RPC error
	case m.Method == string(mcp.MethodNotificationCancelled) && (modern || id == ""):
		// mcp-go finds the call to cancel by session ID and request ID. Without a session, the request ID alone could match another
		// client's call, so the notification is dropped: such a client cancels a call by closing its HTTP request.
		w.WriteHeader(http.StatusAccepted)
		return
	case modern:
	case m.Method == string(mcp.MethodInitialize):
		if f.closing.Load() {
			refuseBusy(w, metrics.KindShuttingDown, "the server is shutting down")
			return
		}
		if !f.makeRoom() {
			refuseBusy(w, metrics.KindQueueFull, busySessions)
			return
		}
	case id != "":
		s, found := f.sessions.get(id)
		if !found || s.kind != kindStreamable {
			refuse(w, http.StatusNotFound, metrics.KindInvalid, noSession)
			return
		}
		defer s.use()()
		notes = &s.notes
	case m.Method == "" || len(m.ID) == 0:
		w.WriteHeader(http.StatusAccepted) // an answer or a notification without a session concerns no call: drop it
		return
	default:
		// A request without a session gets one that ends with it. So neither its request ID nor its notifications are taken for
		// those of another client.
		s, admitted := f.open(kindAnonymous, edge.ClientAddress(r.Context()))
		if !admitted {
			refuseBusy(w, metrics.KindQueueFull, busySessions)
			return
		}
		defer f.sessions.remove(s.id)
		r = r.Clone(r.Context())
		r.Header.Set(server.HeaderKeySessionID, s.id)
		notes = &s.notes
	}
	sw := newStreamWriter(w)
	sw.wrote = func(notification bool) {
		if notification {
			notes.wroteOne()
		}
	}
	if m.Method == string(mcp.MethodToolsCall) { // no other method takes long
		edge.LiftDeadlines(w, r)
		defer sw.beat(f.o.keepAlive, edge.AcceptsEvents(r))()
	}
	f.stream.ServeHTTP(sw, r.WithContext(withNotes(r.Context(), notes)))
}

// sweep ends idle sessions of streamable HTTP until the front is closed. mcp-go's own sweeper is not used: it counts idle time from
// the start of the last request, so it ends sessions with a long call, and it would remember each request without a session.
func (f *Front) sweep() {
	tick := time.NewTicker(min(f.o.sessionTTL/4, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
			for _, id := range f.sessions.expire(f.o.sessionTTL) {
				f.forget(id)
			}
		}
	}
}

// forget makes mcp-go drop what it holds for a session. mcp-go does so only for a DELETE request.
func (f *Front) forget(id string) {
	r, err := http.NewRequestWithContext(f.ctx, http.MethodDelete, "http://localhost/mcp", http.NoBody)
	if err != nil {
		return
	}
	r.Header.Set(server.HeaderKeySessionID, id)
	f.stream.ServeHTTP(&nullWriter{header: http.Header{}}, r)
}
