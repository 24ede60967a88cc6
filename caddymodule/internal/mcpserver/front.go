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

// Bounds of the MCP front. They are variables of no configuration: a person who needs others has an unusual network,
// and a test sets them on the front that it makes.
const (
	// defaultKeepAlive stays below the idle minute after which common proxies and clients give a silent stream up.
	defaultKeepAlive = 15 * time.Second
	// defaultRunNotes is how often a client that wants to know hears that its call still waits or runs. The first time is after
	// one of these, so that the many calls that are over sooner cost nothing.
	defaultRunNotes = 2 * time.Second
	// defaultSessionTTL is how long a streamable session may lie idle. Clients seldom end theirs with DELETE.
	defaultSessionTTL = 30 * time.Minute
	// defaultMaxSessions and defaultMaxStreams bound what anonymous strangers can make the server hold.
	defaultMaxSessions = 4096
	defaultMaxStreams  = 1024
	// maxPending is how many messages of one SSE session may wait for their answers to be written. A client that posts but
	// does not read is made to wait there, rather than have its answers pile up.
	maxPending = 128
	// closeGrace is how long Close waits for calls that run.
	closeGrace = 5 * time.Second
)

// Options is what the front needs to know about the sandbox that it serves.
type Options struct {
	Logger *zap.Logger
	// DefaultTimeout and MaxTimeout are the execution's, as POST /execute has them.
	DefaultTimeout, MaxTimeout time.Duration
	// Bodies reads what clients send; nil takes messages of up to 10 MiB.
	Bodies *edge.Bodies
	// Python is the version that clients are told, such as "3.12.4"; empty when unknown.
	Python string
	// Preload lists the modules that clients are told are ready at no cost.
	Preload []string
	// MaxConcurrent bounds the calls that are in progress, waiting ones included; 0 means 256.
	MaxConcurrent int
	// Install is what pip_install enters; nil leaves the tool out.
	Install operation.Packages

	keepAlive, sessionTTL   time.Duration
	runNotes                time.Duration
	maxSessions, maxStreams int
}

// Front serves MCP over its two HTTP transports from one tool server:
//
//	GET  …/mcp/sse      opens a stream and says where to post      (2024-11-05)
//	POST …/mcp/message  a message of that stream's session
//	POST, GET, DELETE …/mcp                                        (2025-03-26 and later)
//
// It stands between Caddy and mcp-go and holds what mcp-go leaves to its host: media types, body size, bounds, who may
// cancel what, and what ends with what.
type Front struct {
	o        Options
	sse      http.Handler
	message  http.Handler
	stream   http.Handler
	calls    *calls
	sessions *mcpSessions

	// ctx ends with Close: every stream and every call hangs from it.
	ctx     context.Context
	cancel  context.CancelFunc
	closing atomic.Bool
	closed  sync.Once
	sweeper sync.WaitGroup
	streams atomic.Int64
}

// New makes a front whose calls enter ex. Its owner must Close it.
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
	// A session in use is never swept, yet one call should not outlive the patience for a silent client.
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
		// A path alone is right behind TLS and proxies, and clients insist on their own scheme and host.
		server.WithUseFullURLForMessageEndpoint(false),
		server.WithSessionIDGenerator(func(ctx context.Context, _ *http.Request) (string, error) {
			return sessionFrom(ctx).id, nil
		}),
		// 2026-07-28 has no such transport. Offered here, clients that probe would choose it and fail.
		server.WithSSEContextFunc(func(ctx context.Context, _ *http.Request) context.Context {
			return server.WithSupportedProtocolVersions(ctx, legacyOnly)
		}),
		server.WithSSEDisableLocalhostProtection(true)) // CheckOrigin looks at the host, and knows the operator's own names
	f.sse, f.message = sse.SSEHandler(), sse.MessageHandler()
	f.stream = server.NewStreamableHTTPServer(tools,
		server.WithSessionIdManager(f.sessions),
		server.WithDisableLocalhostProtection(true),
		server.WithStreamableHTTPLogger(slog.New(zapslog.NewHandler(o.Logger.Core()))))

	f.sweeper.Go(f.sweep)
	return f
}

// Close refuses new work, gives running calls a moment to answer, then ends every session and stream. It returns when
// the front's own goroutines have ended; a second call waits for the first.
func (f *Front) Close() {
	f.closed.Do(func() {
		f.closing.Store(true)
		if f.calls.wait(closeGrace) {
			// The answer of an SSE call is queued for its stream when the call ends; let the stream write it.
			time.Sleep(50 * time.Millisecond)
		}
		f.cancel()
		f.sweeper.Wait()
	})
}

// AddTo gives the front its paths, which serve until it is closed.
func (f *Front) AddTo(rs edge.Routes) {
	rs.AddSensitive(http.MethodGet, "/mcp", f.serveGet)
	rs.AddSensitive(http.MethodPost, "/mcp", f.servePost)
	rs.AddSensitive(http.MethodDelete, "/mcp", f.serveDelete)
	rs.AddSensitive(http.MethodGet, "/mcp/sse", f.serveSSE)
	rs.AddSensitive(http.MethodPost, "/mcp/message", f.serveMessage)
}

// serveSSE holds one event stream open. The session lives as long as the stream, and its calls no longer.
func (f *Front) serveSSE(w http.ResponseWriter, r *http.Request) {
	s, ok := f.openStream(w, kindSSE)
	if !ok {
		return
	}
	defer f.streams.Add(-1)
	defer f.sessions.remove(s.id)
	f.serveStream(f.sse, w, r.WithContext(withSession(r.Context(), s)), s)
}

// openStream admits one more stream with a session of its own.
func (f *Front) openStream(w http.ResponseWriter, kind string) (*mcpSession, bool) {
	if !f.admitStream(w) {
		return nil, false
	}
	s, ok := f.sessions.add(kind)
	if !ok {
		f.streams.Add(-1)
		refuseBusy(w, metrics.KindQueueFull, "too many MCP sessions are open")
	}
	return s, ok
}

// admitStream counts one more stream in, or refuses it.
func (f *Front) admitStream(w http.ResponseWriter) bool {
	if f.closing.Load() {
		refuseBusy(w, metrics.KindShuttingDown, "the server is shutting down")
		return false
	}
	if f.streams.Add(1) > int64(f.o.maxStreams) {
		f.streams.Add(-1)
		refuseBusy(w, metrics.KindQueueFull, "too many MCP event streams are open")
		return false
	}
	return true
}

// serveStream runs h with a writer for event streams until the client, the session or the front is gone.
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

// serveMessage takes a message for the session of an open SSE stream; the answer travels on that stream.
func (f *Front) serveMessage(w http.ResponseWriter, r *http.Request) {
	s, ok := f.sessions.get(r.URL.Query().Get("sessionId"))
	if !ok || s.kind != kindSSE {
		refuse(w, http.StatusNotFound, metrics.KindInvalid, noStream)
		return
	}
	// Small messages are read first: a cancellation must not wait behind the calls that it could end.
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

// serveGet holds the stream open on which a session of the newer transport hears of what it did not ask for.
func (f *Front) serveGet(w http.ResponseWriter, r *http.Request) {
	s, ok := f.streamable(w, r)
	if !ok || !f.admitStream(w) {
		return
	}
	defer f.streams.Add(-1)
	defer s.use()()
	f.serveStream(f.stream, w, r, s)
}

// serveDelete ends a session of the newer transport.
func (f *Front) serveDelete(w http.ResponseWriter, r *http.Request) {
	if _, ok := f.streamable(w, r); ok {
		f.stream.ServeHTTP(newStreamWriter(w), r)
	}
}

// streamable returns the session that a GET or DELETE of the newer transport names, or answers why there is none.
func (f *Front) streamable(w http.ResponseWriter, r *http.Request) (*mcpSession, bool) {
	if mcp.IsModernProtocol(r.Header.Get(mcp.HeaderProtocolVersion)) {
		f.stream.ServeHTTP(newStreamWriter(w), r) // answers that sessions are gone from this revision
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

// servePost serves one message of the newer transport.
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
	case m.malformed: // mcp-go says so in the protocol's own words
	case m.Method == string(mcp.MethodNotificationCancelled) && (modern || id == ""):
		// mcp-go finds calls by session and request id. Where there is no session the id alone would cancel a stranger's
		// call; such a client ends its call by closing the request.
		w.WriteHeader(http.StatusAccepted)
		return
	case modern:
	case m.Method == string(mcp.MethodInitialize):
		if f.closing.Load() {
			refuseBusy(w, metrics.KindShuttingDown, "the server is shutting down")
			return
		}
		if f.sessions.full() {
			refuseBusy(w, metrics.KindQueueFull, "too many MCP sessions are open")
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
		w.WriteHeader(http.StatusAccepted) // an answer or a notification with no session has no addressee
		return
	default:
		// A direct call. It gets a session of its own that ends with it, so that neither its id nor its notes can meet
		// another client's.
		s, admitted := f.sessions.add(kindAnonymous)
		if !admitted {
			refuseBusy(w, metrics.KindQueueFull, "too many MCP sessions are open")
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
	if m.Method == string(mcp.MethodToolsCall) { // nothing else takes long
		edge.LiftDeadlines(w, r)
		defer sw.beat(f.o.keepAlive, edge.AcceptsEvents(r))()
	}
	f.stream.ServeHTTP(sw, r.WithContext(withNotes(r.Context(), notes)))
}

// sweep ends streamable sessions that have lain idle. mcp-go's own sweeper is not used: it stamps sessions only when a
// request starts, so it ends those of long calls, and it would remember each direct call for half an hour.
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

// forget makes mcp-go drop what it holds for a session. DELETE is the only door that it has.
func (f *Front) forget(id string) {
	r, err := http.NewRequestWithContext(f.ctx, http.MethodDelete, "http://localhost/mcp", http.NoBody)
	if err != nil {
		return
	}
	r.Header.Set(server.HeaderKeySessionID, id)
	f.stream.ServeHTTP(&nullWriter{header: http.Header{}}, r)
}
